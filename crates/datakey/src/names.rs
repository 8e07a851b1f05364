//! Names that are stored: the API group, labels, annotations and the type of the Secrets. They never change. Below them, the
//! form of the names that users choose.

/// The API group of all kinds, and the prefix of every label and annotation of the operator.
pub const GROUP: &str = "datakey.dev";

/// The label that Velero sets on every object that it restores.
pub const VELERO_RESTORE_LABEL: &str = "velero.io/restore-name";

/// The annotation that other tools set on a `DataKey` that they restore.
pub const RESTORED_ANNOTATION: &str = "datakey.dev/restored";

/// The annotation by which a user has a `DataKey` that is not Ready tried at once: a changed value ends its wait.
pub const RETRY_AT_ANNOTATION: &str = "datakey.dev/retry-at";

/// The type of the Secret of every `DataKey`. A Secret's type can't be changed, and a watch can select by it.
pub const SECRET_TYPE: &str = "datakey.dev/wrapped-key";

/// The type of the Secret of every `DataKeyPair`.
pub const PAIR_SECRET_TYPE: &str = "datakey.dev/wrapped-key-pair";

/// The field manager of every write.
pub const FIELD_MANAGER: &str = "datakey-operator";

/// Label: the controller that manages the Secret.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Label: the name of the object that the Secret belongs to. The type of the Secret says of which kind it is.
pub const NAME_LABEL: &str = "datakey.dev/name";

/// Annotation: the version that the plain entries hold.
pub const CURRENT_VERSION_ANNOTATION: &str = "datakey.dev/version";

/// Prefix of the annotation about one version, [`crate::secret::VersionAnnotation`] in JSON.
pub const VERSION_ANNOTATION_PREFIX: &str = "datakey.dev/issued.v";

/// Prefix of every label and annotation of the operator.
pub const OWN_PREFIX: &str = "datakey.dev/";

/// Domains that are reserved, with their subdomains, in templates: those of Kubernetes, Argo CD, Flux, Helm and the operator.
pub const RESERVED_DOMAINS: [&str; 6] =
    ["datakey.dev", "kubernetes.io", "k8s.io", "argocd.argoproj.io", "toolkit.fluxcd.io", "helm.sh"];

/// The domain of the labels that Kubernetes recommends for applications; of its keys [`MANAGED_BY_LABEL`] alone is reserved.
pub const APP_DOMAIN: &str = "app.kubernetes.io";

/// Annotation: the keys that the operator applied from the template, so that it can remove those that the template lacks later.
pub const APPLIED_ANNOTATION: &str = "datakey.dev/applied";

/// The longest name of a namespace or of a label, in bytes (RFC 1123).
pub const MAX_LABEL: usize = 63;

/// The longest name of most objects, in bytes (Kubernetes documentation, "Object Names and IDs").
pub const MAX_SUBDOMAIN: usize = 253;

/// Whether a name is a label of the DNS as Kubernetes takes them (RFC 1123).
pub fn is_label(name: &str) -> bool {
    name.len() <= MAX_LABEL && is_part(name)
}

/// Whether a name is a subdomain of the DNS as Kubernetes takes them (RFC 1123).
pub fn is_subdomain(name: &str) -> bool {
    name.len() <= MAX_SUBDOMAIN && name.split('.').all(is_part)
}

/// One part of a subdomain. Kubernetes limits the length of the whole only.
fn is_part(part: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !part.is_empty() && part.bytes().all(is_inner) && !part.starts_with('-') && !part.ends_with('-')
}
