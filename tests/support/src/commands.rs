//! kubectl and Helm, against any cluster.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::{asset, tools};

/// Runs kubectl: what it prints, or what it says is wrong.
pub async fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> Result<String, String> {
    let program = asset("kubectl").unwrap_or_else(|| "kubectl".into());
    run(Command::new(program).args(arguments).env("KUBECONFIG", kubeconfig)).await
}

/// Runs Helm, with its files in a folder: what it prints, or what it says is wrong.
pub async fn helm(kubeconfig: &Path, home: &Path, arguments: &[&str]) -> Result<String, String> {
    let program = std::env::var_os("HELM").map_or_else(|| tools().join("bin/helm"), PathBuf::from);
    let mut command = Command::new(program);
    for folder in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(folder, home);
    }
    run(command.args(arguments).env("KUBECONFIG", kubeconfig)).await
}

/// Runs a command to its end: what it prints, or what it says is wrong.
pub(crate) async fn run(command: &mut Command) -> Result<String, String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}
