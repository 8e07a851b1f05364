//! Files that are generated are as their source says. `make generate` writes them.

#![allow(clippy::unwrap_used)]

use testbed::assert_fresh;

#[test]
fn the_definitions_in_deploy_and_in_the_chart_are_what_the_binary_prints() {
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_datakey-operator")).arg("crd").output().unwrap();
    assert!(printed.status.success());
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert_fresh("deploy/crd.yaml", &printed);
    assert_fresh("charts/datakey-operator/files/crd.yaml", &printed);
}
