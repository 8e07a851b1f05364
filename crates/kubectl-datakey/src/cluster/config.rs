//! Which cluster: flags, kubeconfig, or the service account of a pod.

use std::{error::Error, path::PathBuf};

use clap::Args;
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use super::errors::chain;
use crate::output::CommandError;

/// Which cluster and namespace, as for kubectl.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct Connection {
    /// The kubeconfig file; without it $KUBECONFIG, else ~/.kube/config, else the service account of the pod.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig; without it the current one.
    #[arg(long, global = true)]
    pub context: Option<String>,

    /// The namespace; without it the context's.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,

    /// The user to impersonate, as for kubectl.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub as_user: Option<String>,

    /// A group to impersonate; several flags for several groups.
    #[arg(long, global = true, value_name = "GROUP", requires = "as_user")]
    pub as_group: Vec<String>,
}

/// Reads the configuration. Sends no request.
pub async fn config(connection: &Connection) -> Result<Config, CommandError> {
    let unusable = |error: &dyn Error| {
        CommandError::Failed(format!(
            "no way to a cluster: {}; set KUBECONFIG, or name a file by --kubeconfig and a context by --context",
            chain(error)
        ))
    };
    let options = KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
    match read(connection) {
        Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unusable(&error)),
        // A pod has no kubeconfig. A missing one is an error only if the user asked for it.
        Err(error) if connection.kubeconfig.is_some() || connection.context.is_some() => Err(unusable(&error)),
        Err(error) => Config::incluster().map_err(|_| unusable(&error)),
    }
}

fn read(connection: &Connection) -> Result<Kubeconfig, KubeconfigError> {
    match &connection.kubeconfig {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    }
}

/// The contexts of the kubeconfig.
pub fn contexts(connection: &Connection) -> Vec<String> {
    read(connection)
        .map(|kubeconfig| kubeconfig.contexts.into_iter().map(|context| context.name).collect())
        .unwrap_or_default()
}
