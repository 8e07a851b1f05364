//! Files that are generated are as their source says. `UPDATE=1 cargo test --test generated` writes them.

#![allow(clippy::unwrap_used)]

use std::path::Path;

fn assert_fresh(file: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{file} is stale: run `make generate` and commit it");
}

#[test]
fn the_definition_in_deploy_is_what_the_binary_prints() {
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_datakey-operator")).arg("crd").output().unwrap();
    assert!(printed.status.success());
    assert_fresh("deploy/crd.yaml", &String::from_utf8(printed.stdout).unwrap());
}
