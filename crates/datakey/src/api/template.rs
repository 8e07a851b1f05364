//! What a spec says of the Secret: labels and annotations, and whether it outlives its object.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{lenient::Rest, rules, schema};

/// Metadata of the Secret in addition to that of the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct SecretTemplate {
    /// Labels and annotations of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// Labels and annotations of the Secret.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[schemars(inline)]
pub struct TemplateMetadata {
    /// Up to 32 labels. Some keys are reserved: those of datakey.dev, kubernetes.io, k8s.io, argocd.argoproj.io,
    /// toolkit.fluxcd.io, helm.sh and their subdomains, and those of the flag --reserved-template-keys of the operator. Keys
    /// of `app.kubernetes.io` are allowed, except `app.kubernetes.io/managed-by`. Example: `{team: shop,
    /// app.kubernetes.io/part-of: orders}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::template_labels")]
    #[x_kube(validation = rules::template_keys())]
    pub labels: Option<BTreeMap<String, String>>,

    /// Up to 32 annotations. Each value has at most 2048 characters, all of them together at most 96 KiB. The same keys are
    /// reserved as for labels. Example: `{reloader.stakater.com/match: "true"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::template_annotations")]
    #[x_kube(validation = rules::template_keys())]
    pub annotations: Option<BTreeMap<String, String>>,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// What happens to the Secret when the DataKey is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum DeletionPolicy {
    #[default]
    #[allow(missing_docs)]
    Retain,
    #[allow(missing_docs)]
    Delete,
}
