//! What was encrypted or signed under version 1 goes on after a move to another KMS key, when the first KMS key is disabled:
//! each sample unwraps version 2, which is a rewrap. It uses no KMS key that its settings do not name, and tries no other one after a mismatch.

use std::{fs, path::Path};

use aws_config::SdkConfig;
use testbed::{commands, kms::Key};
use tokio::process::Command;

use super::{
    Workload, assert_failed, folder,
    key_pairs::{openssh_accepts, settings},
};
use crate::{
    harness::Data,
    plugin::{User, text},
};

const DATA: &[u8] = b"Three apples and a pear, for Ada.";

const GONE: &str = "DisabledException";
const REFUSED: &str = "InvalidCiphertextException";

/// A workload whose key was moved to another KMS key.
struct Moved {
    workload: Workload,
    other: Key,
    /// The Secret with both versions.
    data: Data,
}

// === impl Moved ===

impl Moved {
    /// Mounts the Secret with a rewrap of version 1, and disables its KMS key.
    async fn of(workload: Workload) -> Self {
        let other = workload.test.kms.key().await;
        let data = workload.test.rewrapped(&workload.test.data(workload.secret).await, &other).await;
        workload.keys.show(&data);
        let client = workload.test.kms.client();
        client.disable_key().key_id(&workload.test.key.id).send().await.unwrap();
        Self { workload, other, data }
    }

    /// The KMS keys that a workload trusts: the first one, and with the move both.
    fn arns(&self) -> [String; 2] {
        let first = self.workload.test.key.arn.clone();
        [first.clone(), format!("{first} {}", self.other.arn)]
    }

    /// Runs a sample, with the KMS keys that it trusts: version 1 is unwrapped if they include that of version 2, and if no other error
    /// than that of the KMS key occurs.
    async fn unwraps_the_rewrap<T: std::fmt::Debug>(&self, sample: impl AsyncFn(&str) -> Result<T, String>) -> T {
        let [first, both] = self.arns();
        assert_failed(sample(&first).await, GONE);
        // What AWS KMS refuses for another reason is not gone.
        let proxy = &self.workload.test.proxy;
        let calls = proxy.calls_of("Decrypt");
        proxy.fail_next_decrypts(1, testbed::proxy::Fault::code(REFUSED));
        assert_failed(sample(&both).await, REFUSED);
        assert_eq!(proxy.calls_of("Decrypt"), calls + 1);
        let mut other = self.data.clone();
        other.remove("rewrapOf.v2");
        self.workload.keys.show(&other);
        assert_failed(sample(&both).await, GONE);
        self.workload.keys.show(&self.data);
        // The first KMS key is not trusted any more: the end of the move.
        sample(&self.other.arn).await.unwrap();
        sample(&both).await.unwrap()
    }
}

#[tokio::test]
async fn python_reads_old_files_after_a_move() {
    let workload = Workload::new("consume-moved-python").await;
    let [data, sealed, opened] = ["data", "sealed", "opened"].map(|name| workload.file(name));
    let message = workload.file("message");
    fs::write(&data, DATA).unwrap();
    for (sample, output) in [("envelope.py", &sealed), ("encryption_sdk.py", &message)] {
        let mut command = workload.python(sample);
        workload.run(command.arg("encrypt").arg(&data).arg(output)).await.unwrap();
    }
    let moved = Moved::of(workload).await;
    for (sample, input) in [("envelope.py", &sealed), ("encryption_sdk.py", &message)] {
        let decrypt = async |arns: &str| {
            let mut command = moved.workload.python(sample);
            command.arg("decrypt").arg(input).arg(&opened).env("KMS_KEY_ARNS", arns);
            moved.workload.run(&mut command).await
        };
        if sample == "envelope.py" {
            moved.unwraps_the_rewrap(decrypt).await;
        } else {
            // It unwraps both versions.
            decrypt(&moved.arns()[1]).await.unwrap();
        }
        assert_eq!(fs::read(&opened).unwrap(), DATA, "{sample}");
        fs::remove_file(&opened).unwrap();
    }
}

#[tokio::test]
async fn go_reads_old_lines_after_a_move() {
    let workload = Workload::new("consume-moved-go").await;
    let program = workload.file("go").display().to_string();
    build(&program, ".").await;
    let input = workload.file("input");
    let line = std::str::from_utf8(DATA).unwrap();
    fs::write(&input, line).unwrap();
    let run = async |workload: &Workload, operation: &str, arns: &str| {
        let mut command = workload.command("/bin/sh");
        command.args(["-c", r#"exec "$0" "$1" <"$INPUT""#, &program, operation]);
        workload.prints(command.env("INPUT", &input).env("KMS_KEY_ARNS", arns)).await
    };
    let sealed = run(&workload, "encrypt", &workload.test.key.arn).await.unwrap();
    let moved = Moved::of(workload).await;
    fs::write(&input, sealed).unwrap();
    let opened = moved.unwraps_the_rewrap(async |arns| run(&moved.workload, "decrypt", arns).await).await;
    assert_eq!(opened.trim_end(), line);
}

#[tokio::test]
async fn rust_reads_old_data_after_a_move() {
    let workload = Workload::new("consume-moved-rust").await;
    let settings = settings(&workload.test.proxy.url());
    let keys = |workload: &Workload, arns: &str| {
        let arns = arns.split(' ').map(str::to_owned).collect();
        orders::DataKeys::new(settings.clone(), workload.keys.path(), arns)
    };
    let sealed = keys(&workload, &workload.test.key.arn).seal(DATA.to_vec()).await.unwrap();
    let moved = Moved::of(workload).await;
    let unseal = async |arns: &str| {
        let opened = keys(&moved.workload, arns).unseal(&sealed).await;
        opened.map_err(|error| format!("{error:?}"))
    };
    assert_eq!(moved.unwraps_the_rewrap(unseal).await, DATA);
}

/// On Linux only, which has a folder in memory.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn aws_cli_unwraps_both_versions_after_a_move() {
    use testbed::process::Workdir;

    let workload = Workload::new("consume-moved-cli").await;
    let key = workload.plaintext(1).await;
    let moved = Moved::of(workload).await;
    let path = format!("{}:{}", testbed::tools().join("consumers/bin").display(), std::env::var("PATH").unwrap());
    let memory = Workdir::in_memory("moved");
    let unwrap = async |arns: &str| {
        let mut command = moved.workload.command("/bin/bash");
        command.arg(folder("aws-cli").join("unwrap.sh")).env("PATH", &path).env("PLAINTEXT", memory.path());
        command.env("HOME", moved.workload.file("home")).env("KMS_KEY_ARNS", arns);
        moved.workload.run(&mut command).await
    };
    let [first, both] = moved.arns();
    let proxy = &moved.workload.test.proxy;
    assert_failed(unwrap(&first).await, GONE);
    proxy.fail_next_decrypts(1, testbed::proxy::Fault::code(REFUSED));
    assert_failed(unwrap(&both).await, REFUSED);
    let mut other = moved.data.clone();
    other.remove("rewrapOf.v2");
    moved.workload.keys.show(&other);
    assert_failed(unwrap(&both).await, GONE);
    assert!(!memory.file("v1").exists(), "nothing is written of version 1");
    moved.workload.keys.show(&moved.data);
    for arns in [&both, &moved.other.arn] {
        unwrap(arns).await.unwrap();
        for file in ["v1", "v2"] {
            assert_eq!(fs::read(memory.file(file)).unwrap(), key, "{file}");
            fs::remove_file(memory.file(file)).unwrap();
        }
    }
}

#[tokio::test]
async fn python_signs_with_the_old_version_after_a_move() {
    let workload = Workload::of_key_pair("consume-moved-tokens", "tokens", "ECC_NIST_P256", "ECC_NIST_P384").await;
    let set = workload.published("set", &["-o", "jwks"]).await;
    let moved = Moved::of(workload).await;
    let issue = async |arns: &str| {
        let mut command = moved.workload.python("tokens.py");
        command.args(["issue", "Ada"]).env("SIGNING_VERSION", "1").env("KMS_KEY_ARNS", arns);
        moved.workload.prints(&mut command).await
    };
    let token = moved.unwraps_the_rewrap(issue).await;
    let mut verify = moved.workload.python("tokens.py");
    verify.arg("verify").arg(set).arg(token.trim());
    assert_eq!(moved.workload.prints(&mut verify).await.unwrap(), "Ada\n");
}

#[tokio::test]
async fn python_opens_old_letters_after_a_move() {
    let workload = Workload::of_key_pair("consume-moved-letters", "letters", "RSA_2048", "ECC_NIST_P256").await;
    let [data, sealed, opened] = ["data", "sealed", "opened"].map(|name| workload.file(name));
    fs::write(&data, DATA).unwrap();
    let published = workload.published_folder(&[]).await;
    let mut seal = workload.python("letters.py");
    workload.run(seal.arg("seal").arg(published).arg(&data).arg(&sealed)).await.unwrap();
    let moved = Moved::of(workload).await;
    let open = async |arns: &str| {
        let mut command = moved.workload.python("letters.py");
        moved.workload.run(command.arg("open").arg(&sealed).arg(&opened).env("KMS_KEY_ARNS", arns)).await
    };
    moved.unwraps_the_rewrap(open).await;
    assert_eq!(fs::read(&opened).unwrap(), DATA);
}

#[tokio::test]
async fn go_signs_with_the_old_version_after_a_move() {
    let spec = "ECC_NIST_P256";
    let workload = Workload::of_key_pair("consume-moved-sign", "receipts", spec, "ECC_NIST_EDWARDS25519").await;
    let program = workload.file("sign").display().to_string();
    build(&program, "./sign").await;
    let published = workload.published_folder(&[]).await;
    let moved = Moved::of(workload).await;
    let input = moved.workload.file("input");
    let run = async |arguments: &[&Path], line: &str, arns: &str| {
        fs::write(&input, line).unwrap();
        let mut command = moved.workload.command("/bin/sh");
        command.args(["-c", r#"exec "$0" "$@" <"$INPUT""#, &program]).args(arguments).env("INPUT", &input);
        command.env("SIGNING_VERSION", "1").env("KEY_PAIR_SPEC", spec).env("KMS_KEY_ARNS", arns);
        moved.workload.prints(&mut command).await
    };
    let signature = moved.unwraps_the_rewrap(async |arns| run(&["sign".as_ref()], "for Ada\n", arns).await).await;
    let verified = run(&["verify".as_ref(), &published], &format!("{} for Ada\n", signature.trim()), "").await;
    assert_eq!(verified.unwrap(), "for Ada\n");
}

#[tokio::test]
async fn rust_signs_with_the_old_version_after_a_move() {
    let workload =
        Workload::of_key_pair("consume-moved-ssh", "releases", "ECC_NIST_EDWARDS25519", "ECC_NIST_P256").await;
    let published = User::of(&workload.test).ends(0, &["public-key", "releases", "-o", "ssh"]).await;
    let moved = Moved::of(workload).await;
    let settings: SdkConfig = settings(&moved.workload.test.proxy.url());
    let sign = async |arns: &str| {
        let arns = arns.split(' ').map(str::to_owned).collect();
        let mut keys = ssh_signatures::KeyPairs::new(settings.clone(), moved.workload.keys.path(), arns);
        keys.sign(1, DATA).await.map_err(|error| format!("{error:?}"))
    };
    let signature = moved.unwraps_the_rewrap(sign).await;
    assert!(openssh_accepts(&moved.workload, &text(&published), &signature, DATA));
}

/// Builds a program of the samples in Go.
async fn build(program: &str, package: &str) {
    let mut go = Command::new("go");
    go.args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-o", program, package]);
    commands::run(go.current_dir(folder("go"))).await.unwrap();
}
