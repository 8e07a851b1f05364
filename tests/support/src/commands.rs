//! kubectl, Helm and Argo CD's engine, against any cluster, and other commands.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::{asset, repository, tools};

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

/// Syncs manifests as Argo CD does: what it prints, or what it says is wrong.
pub async fn argocd_sync(kubeconfig: &Path, arguments: &[&str]) -> Result<String, String> {
    let program = tools().join("bin/argocd-sync");
    run(Command::new(program).args(arguments).env("KUBECONFIG", kubeconfig)).await
}

/// Runs a command to its end: what it prints, or what it says is wrong.
pub async fn run(command: &mut Command) -> Result<String, String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The exit code; -1 where a signal ended it.
    pub code: i32,
    /// What it printed on standard output.
    pub out: Vec<u8>,
    /// What it printed on standard error.
    pub err: String,
}

/// Runs a kubectl plugin as users do, through kubectl, which finds it on the PATH.
pub async fn plugin(program: &Path, environment: &[(&str, String)], arguments: &[&str]) -> Ended {
    let kubectl = asset("kubectl").unwrap_or_else(|| "kubectl".into());
    let mut command = with_path(kubectl, program.parent().map(Path::to_owned));
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    end_of(command).await
}

/// Runs a line of a shell in the folder of the repository, with the programs of these folders on the PATH.
pub async fn shell(folders: &[PathBuf], environment: &[(&str, String)], line: &str) -> Ended {
    let mut command = with_path("/bin/sh", folders.iter().cloned());
    command.args(["-c", line]).envs(environment.iter().map(|(name, value)| (name, value)));
    command.current_dir(repository());
    end_of(command).await
}

fn with_path(program: impl AsRef<OsStr>, first: impl IntoIterator<Item = PathBuf>) -> Command {
    let found = std::env::var_os("PATH").unwrap_or_default();
    let folders = first.into_iter().chain(std::env::split_paths(&found));
    let mut command = Command::new(program);
    clear(command.as_std_mut());
    command.env("PATH", std::env::join_paths(folders).expect("a PATH"));
    command
}

/// Runs a command to its end, with nothing on standard input.
pub async fn end_of(mut command: Command) -> Ended {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Programs get none of the AWS settings, certificates and proxies of the user who runs the tests: all servers are on loopback.
/// Nor the variables of the tests themselves, DATAKEY_TOOLS for one: the operator refuses what begins as its own and is unknown.
pub(crate) fn clear(command: &mut std::process::Command) {
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        let is_a_setting = ["AWS_", "SSL_CERT_", "DATAKEY_"].iter().any(|prefix| upper.starts_with(prefix));
        if is_a_setting || upper.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
}
