//! Names that are stored: the API group, labels, annotations and the type of the Secrets. They never change.

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
