//! `kubectl datakey version`: the versions of the plugin, of the definition and of the operator.

use std::fmt::Write;

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::Serialize;

use super::check::find_operators;
use crate::{
    cli::Version,
    cluster::Cluster,
    output::{CommandError, Health, Output, printable, render},
};

/// The version of the plugin.
const PLUGIN: &str = env!("CARGO_PKG_VERSION");

/// What is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// The version of the plugin.
    pub plugin: String,
    /// The versions of the API that the API server serves; absent with --client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<Vec<String>>,
    /// The operators that the user may see; absent with --client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operators: Option<Vec<OperatorVersion>>,
}

/// A Deployment of the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperatorVersion {
    /// The namespace of the Deployment.
    pub namespace: String,
    /// The name of the Deployment.
    pub name: String,
    /// The image that it runs.
    pub image: String,
}

/// The version of the plugin alone.
pub fn client(args: &Version) -> Result<Output, CommandError> {
    print(args, &Versions { plugin: PLUGIN.to_owned(), api: None, operators: None })
}

/// All versions.
pub async fn run(cluster: &Cluster, args: &Version) -> Result<Output, CommandError> {
    let api = cluster.served_versions().await?;
    let (operators, refused) = match find_operators(cluster, None).await {
        Ok(found) => (Some(found.deployments.iter().map(OperatorVersion::of).collect()), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let output = print(args, &Versions { plugin: PLUGIN.to_owned(), api: Some(api), operators })?;
    let health = if refused.is_some() { Health::Unknown } else { Health::Healthy };
    Ok(Output { notes: refused.into_iter().collect(), ..output }.with(health))
}

fn print(args: &Version, versions: &Versions) -> Result<Output, CommandError> {
    render(args.output, versions, describe).map(Output::text)
}

fn describe(versions: &Versions) -> String {
    let mut out = format!("plugin      {}\n", versions.plugin);
    if let Some(api) = &versions.api {
        let api = if api.is_empty() { "not installed".to_owned() } else { api.join(", ") };
        let _ = writeln!(out, "datakey.dev {api}");
    }
    for OperatorVersion { namespace, name, image } in versions.operators.iter().flatten() {
        // A user of any namespace can label a Deployment as the operator's, and the API server does not check the image.
        let _ = writeln!(out, "operator    {} ({name} in namespace {namespace})", printable(image));
    }
    out
}

// === impl OperatorVersion ===

impl OperatorVersion {
    fn of(deployment: &Deployment) -> Self {
        let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let image = pod.and_then(|pod| pod.containers.first()?.image.clone());
        Self {
            namespace: deployment.namespace().unwrap_or_default(),
            name: deployment.name_any(),
            image: image.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_a_line_each() {
        let operator = OperatorVersion {
            namespace: "datakey-system".to_owned(),
            name: "datakey-operator".to_owned(),
            image: "registry.example.com/datakey-operator:v0.1.0".to_owned(),
        };
        let mut versions =
            Versions { plugin: "0.1.0".to_owned(), api: Some(Vec::new()), operators: Some(vec![operator]) };
        assert_eq!(
            describe(&versions),
            "plugin      0.1.0\n\
             datakey.dev not installed\n\
             operator    registry.example.com/datakey-operator:v0.1.0 (datakey-operator in namespace datakey-system)\n"
        );
        versions = Versions { api: None, operators: None, ..versions };
        assert_eq!(describe(&versions), "plugin      0.1.0\n");
    }

    #[test]
    fn image_cannot_control_the_terminal() {
        let operator = OperatorVersion {
            namespace: "shop".to_owned(),
            name: "x".to_owned(),
            image: "a\u{1b}]0;b\u{7}\u{202e}".to_owned(),
        };
        let text = describe(&Versions { plugin: "0.1.0".to_owned(), api: None, operators: Some(vec![operator]) });
        assert!(text.contains(r"a\u{1b}]0;b\u{7}\u{202e} (x in namespace shop)"), "{text}");
    }

    #[test]
    fn version_is_printed_as_recorded() {
        let versions = Versions {
            plugin: "0.1.0".to_owned(),
            api: Some(vec!["v1alpha1".to_owned()]),
            operators: Some(Vec::new()),
        };
        insta::assert_snapshot!("version", describe(&versions));
        insta::assert_snapshot!("version-json", crate::output::json(&versions).unwrap());
        insta::assert_snapshot!("version-yaml", crate::output::yaml(&versions).unwrap());
    }
}
