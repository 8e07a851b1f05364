//! SQLCipher: a database that a data key encrypts, in hexadecimal digits as its raw key.

use std::{fs, path::PathBuf};

use testbed::{commands, tools};
use tokio::process::Command;

use crate::{bed::Bed, beside};

const ORDER: &str = "order 1: one anvil";

/// What SQLCipher says where the key is wrong.
const REFUSED: &str = "file is not a database";

/// A database, and the KMS server of its key.
struct Database {
    bed: Bed,
    path: String,
}

fn python() -> PathBuf {
    tools().join("programs/bin/python3")
}

// === impl Database ===

impl Database {
    async fn new(purpose: &str) -> Self {
        let bed = Bed::start(purpose, None).await;
        let path = bed.workdir.file("orders.db").display().to_string();
        Self { bed, path }
    }

    /// Runs the script with a key file.
    async fn run(&self, key: &str, arguments: &[&str]) -> Result<String, String> {
        let script = beside("sqlcipher.py");
        let mut command = Command::new(python());
        commands::run(command.env_clear().arg(script).args([&self.path, &self.bed.key(key)]).args(arguments)).await
    }

    /// Asserts that neither the text nor the mark of an unencrypted database is in the file.
    fn assert_encrypted(&self) {
        let bytes = fs::read(&self.path).unwrap();
        for clear in [ORDER, "SQLite format 3"] {
            let found = bytes.windows(clear.len()).any(|part| part == clear.as_bytes());
            assert!(!found && bytes.len() > 4096, "{clear}: {} bytes", bytes.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlcipher_encrypts_a_database_and_takes_a_new_key() {
    let mut database = Database::new("sqlcipher").await;
    database.bed.file(&["--format", "hex"]).await;
    database.run("current", &["add", ORDER]).await.unwrap();
    assert_eq!(database.run("current", &["list"]).await.unwrap(), format!("{ORDER}\n"));
    database.assert_encrypted();

    database.bed.rotate().await;
    database.bed.file(&["--format", "hex"]).await;
    let refused = database.run("current", &["list"]).await.unwrap_err();
    assert!(refused.contains(REFUSED), "version 2 is another key: {refused}");
    database.run("v1", &["rekey", &database.bed.key("v2")]).await.unwrap();
    assert_eq!(database.run("current", &["list"]).await.unwrap(), format!("{ORDER}\n"));
    let refused = database.run("v1", &["list"]).await.unwrap_err();
    assert!(refused.contains(REFUSED), "{refused}");
    database.assert_encrypted();
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlcipher_gets_its_key_by_exec_without_a_file() {
    let database = Database::new("sqlcipher-exec").await;
    let script = beside("sqlcipher.py").display().to_string();
    let begin = [script.as_str(), &database.path, "{DATAKEY_CURRENT_FILE}"];
    database.bed.exec("hex", &python(), &[&begin[..], &["add", ORDER]].concat()).await.unwrap();
    let listed = database.bed.exec("hex", &python(), &[&begin[..], &["list"]].concat()).await.unwrap();
    assert_eq!(listed, format!("{ORDER}\n"));
    database.assert_encrypted();
}
