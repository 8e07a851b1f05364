//! The `DataKey` custom resource. Doc comments on these types are what `kubectl explain` prints: they are written
//! for users.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

mod conditions;
mod crd;
mod lenient;

pub use conditions::Conditions;
pub use crd::crd;

/// The API group of `DataKey`, and the prefix of every label and annotation of the operator.
pub const GROUP: &str = "datakey.dev";

/// The label that Velero gives to everything that it restores.
pub const VELERO_RESTORE: &str = "velero.io/restore-name";

/// The annotation that other tools give to a `DataKey` that they restore.
pub const RESTORED: &str = "datakey.dev/restored";

/// The most versions that one `DataKey` records.
pub const MAX_VERSIONS: usize = 64;

/// The largest `CiphertextBlob` of AWS KMS, in bytes (AWS KMS API reference, `CiphertextType`).
pub const MAX_BLOB: usize = 6144;

/// The version of a `DataKey` whose spec names none.
pub const FIRST_VERSION: i32 = 1;

/// Fields that this release does not know, of a newer one. They are carried through every write unchanged.
pub type Rest = BTreeMap<String, serde_json::Value>;

/// Encryption context: pairs that KMS binds to a data key, in the order of their keys.
pub type EncryptionContext = BTreeMap<String, String>;

/// What data key to issue. The operator calls AWS KMS GenerateDataKeyWithoutPlaintext once for each version and keeps
/// the wrapped data key, never its plaintext, in a Secret and in the status. An issued version's settings are fixed;
/// raise `version` to issue another data key.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "datakey.dev",
    version = "v1alpha1",
    kind = "DataKey",
    namespaced,
    status = "DataKeyStatus",
    derive = "PartialEq",
    shortname = "dk",
    category = "datakeys",
    doc = "A data key of AWS KMS, kept in a Secret in its wrapped form only: the plaintext never enters the cluster's \
           control plane. Each version is issued exactly once and never replaced. A workload unwraps it with \
           kms:Decrypt and the same encryption context.",
    validation = crd::name_is_a_label_value(),
    validation = crd::record_is_write_once(),
    validation = crd::spec_answers_the_record(),
    validation = crd::secret_name_is_fixed_once_issued(),
    validation = crd::deletion_policy_is_fixed_once_issued(),
    validation = crd::pins_agree_with_the_record(),
    validation = crd::pins_are_not_other_recorded_versions(),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(
        name = "Version",
        type_ = "integer",
        description = "the version that the Secret's plain entries hold",
        json_path = ".status.version"
    ),
    printcolumn(
        name = "Key",
        type_ = "string",
        description = "ARN of the KMS key; the requested key ID until a data key is issued",
        json_path = ".status.keyId"
    ),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(
        name = "Spec",
        type_ = "string",
        description = "key spec of the data key, where it is asked for by spec",
        json_path = ".spec.keySpec",
        priority = 1
    ),
    printcolumn(
        name = "Bytes",
        type_ = "integer",
        description = "length of the data key, where it is asked for by length",
        json_path = ".spec.numberOfBytes",
        priority = 1
    ),
    printcolumn(
        name = "Issued",
        type_ = "date",
        description = "when the current version was issued",
        json_path = ".status.issuedAt",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = crd::one_length(),
    validation = crd::no_region_beside_an_arn(),
    validation = crd::pin_of_the_version_answers_the_spec()
)]
pub struct DataKeySpec {
    /// The symmetric KMS key that wraps the data key, in one of the four forms that AWS KMS takes: a key ID
    /// (`1234abcd-12ab-34cd-56ef-1234567890ab`, or `mrk-` and 32 hexadecimal digits), a key ARN, an alias name
    /// (`alias/orders`) or an alias ARN. A key of another AWS account needs an ARN. The operator's AWS identity needs
    /// `kms:GenerateDataKeyWithoutPlaintext` on the key, and nothing else. Fixed once the version is issued.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = crd::key_id_has_a_known_form(), validation = crd::key_is_customer_managed())]
    pub key_id: String,

    /// Kind of the data key: `AES_256` (32 bytes) or `AES_128` (16 bytes). Set either this or `numberOfBytes`. Fixed
    /// once the version is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<KeySpec>,

    /// Length of the data key in bytes, 1 to 1024, for keys that are not AES-128 or AES-256; for example 64 for
    /// HMAC-SHA-512. Set either this or `keySpec`. Fixed once the version is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub number_of_bytes: Option<i32>,

    /// Encryption context: up to 32 pairs, together at most 8192 bytes, that KMS binds to the data key, sent to KMS
    /// exactly as written. Whoever unwraps the data key must give the same pairs, and key policies can demand them
    /// (`kms:EncryptionContext:purpose`). It is not secret: it appears in AWS CloudTrail. Keys are not empty, don't
    /// begin with `aws:` or `aws-crypto-`, and differ in more than upper and lower case, because policies ignore
    /// case. Fixed once the version is issued. Example: `{purpose: orders, stage: production}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "encryption_context_schema")]
    #[x_kube(
        validation = crd::context_keys_are_not_empty(),
        validation = crd::context_keys_are_not_reserved(),
        validation = crd::context_keys_differ_in_more_than_case(),
        validation = crd::context_fits()
    )]
    pub encryption_context: Option<EncryptionContext>,

    /// Up to 10 KMS grant tokens, each 1 to 8192 characters, for a grant so new that KMS may not know it everywhere
    /// yet. The operator sends them with the call and writes them nowhere. Remove them once the data key is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "grant_tokens_schema")]
    pub grant_tokens: Option<Vec<String>>,

    /// AWS Region of the KMS key, for example `eu-west-1`, where `keyId` is a key ID or an alias name. An ARN names
    /// its Region itself. Absent means the operator's own Region. Fixed once the version is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = crd::region_has_a_known_form())]
    pub region: Option<String>,

    /// Which data key is current, 1 where absent. A number that was never issued issues a new data key, beside the
    /// earlier ones, which stay in the Secret; a number that was issued before makes that data key current again.
    /// At most 64 versions. Existing data stays encrypted under the version that it was encrypted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub version: Option<i32>,

    /// Name of the Secret, in the same namespace; `metadata.name` where absent. A Secret that does not belong to this
    /// DataKey is never touched. Fixed once a version is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = crd::secret_name_has_a_valid_form())]
    pub secret_name: Option<String>,

    /// Labels and annotations of the Secret beside the operator's own, for example what an admission policy demands. They
    /// may be changed at any time and are restored with the Secret. A key that is taken out of the template is taken from the
    /// Secret; keys that others set there stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,

    /// What becomes of the Secret when the DataKey is deleted: `Retain` (also where absent) leaves it, and a DataKey
    /// of the same name adopts it; `Delete` removes it, and with it all data that only its keys can decrypt. Data keys that
    /// this DataKey did not issue itself, but adopted or took from `wrappedKeys`, are left under `Delete`, too. Fixed once a
    /// version is issued; to keep the Secret of a DataKey under `Delete`, use `kubectl datakey keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// Pins: wrapped data keys that were issued before, here or in another cluster, at most 64. A pinned version is
    /// never issued again: status and Secret are made from the pin, without a call to AWS KMS. So clusters that are
    /// given the same manifest have the same data key, and one that is lost can be built again from Git. Each pin is a
    /// copy of an entry of another DataKey's `status.versions`, and each has a `ciphertextBlob` of its own; it is
    /// ciphertext and may stand in Git. A pin may be added at any time and removed once it is recorded, but it can't
    /// differ from what is recorded. The pin of a multi-Region key (`mrk-`) serves in every Region: the Secret names
    /// the key of the Region that this DataKey is for. Example: `[{version: 1, request: {keyId: alias/orders, keySpec:
    /// AES_256}, ciphertextBlob: AQIDAHg..., keyId: "arn:aws:kms:eu-west-1:111122223333:key/mrk-...", issuedAt:
    /// "2026-11-24T01:02:03Z"}]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["version".into()]),
        validation = crd::pins_are_different_data_keys()
    )]
    pub wrapped_keys: Option<Vec<IssuedVersion>>,

    /// What a newer release knows of it.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// What the Secret has beside the wrapped data keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct SecretTemplate {
    /// Labels and annotations of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,

    /// What a newer release knows of it.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// Labels and annotations of the Secret.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[schemars(inline)]
pub struct TemplateMetadata {
    /// Up to 32 labels. Reserved are the keys of datakey.dev, kubernetes.io (but for `app.kubernetes.io/...`, of which
    /// `app.kubernetes.io/managed-by` is reserved), k8s.io, argocd.argoproj.io, toolkit.fluxcd.io and helm.sh, of their
    /// subdomains, and those of the operator's flag --reserved-template-keys. Example: `{team: shop, app.kubernetes.io/part-of:
    /// orders}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "template_labels_schema")]
    #[x_kube(validation = crd::template_keys_have_a_valid_form(), validation = crd::template_keys_are_not_reserved())]
    pub labels: Option<BTreeMap<String, String>>,

    /// Up to 32 annotations, each value at most 2048 characters, together at most 96 KiB. The same keys are reserved as of labels. Example:
    /// `{reloader.stakater.com/match: "true"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "template_annotations_schema")]
    #[x_kube(validation = crd::template_keys_have_a_valid_form(), validation = crd::template_keys_are_not_reserved())]
    pub annotations: Option<BTreeMap<String, String>>,

    /// What a newer release knows of it.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// Kind of a data key: `AES_256` (32 bytes) or `AES_128` (16 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum KeySpec {
    #[serde(rename = "AES_256")]
    #[allow(missing_docs)]
    Aes256,
    #[serde(rename = "AES_128")]
    #[allow(missing_docs)]
    Aes128,
}

/// What becomes of the Secret when the DataKey is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum DeletionPolicy {
    #[default]
    #[allow(missing_docs)]
    Retain,
    #[allow(missing_docs)]
    Delete,
}

/// What was issued, and whether the Secret holds it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = crd::secret_name_stays(),
    validation = crd::recorded_versions_are_different_data_keys()
)]
pub struct DataKeyStatus {
    /// The `metadata.generation` that the conditions speak of; -1 until the operator has seen the DataKey.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    pub observed_generation: Option<i64>,

    /// `Ready` is always there: True when the Secret holds the data key of the spec. `Stalled` is there, as True, only
    /// when a person must act; its message says how.
    #[serde(default, skip_serializing_if = "Conditions::is_absent")]
    #[schemars(with = "Vec<Condition>", length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Conditions,

    /// The version that the Secret's plain entries hold.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    pub version: Option<i32>,

    /// ARN of the KMS key that wrapped the current version; the requested key ID until it is issued.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    #[schemars(length(max = 2048), regex(pattern = "^[0-9A-Za-z:/_-]*$"))]
    pub key_id: Option<String>,

    /// When the current version was issued.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    pub issued_at: Option<Time>,

    /// Name of the Secret. Set with the first issued version and fixed from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = crd::secret_name_has_a_valid_form())]
    pub secret_name: Option<String>,

    /// True once a version was taken over from the Secret or from `wrappedKeys`: it may be the last copy of an earlier DataKey's
    /// data key, so the Secret is kept under `deletionPolicy: Delete`, too.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    pub adopted: Option<bool>,

    /// The Secret as the operator last wrote it, or read it and found it to hold what is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    pub secret: Option<VerifiedSecret>,

    /// The record: every version that was issued, at most 64. The API server refuses to change or to remove an entry.
    /// It is ciphertext, and enough to restore the Secret. Fields of a newer release are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::list")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["version".into()]))]
    pub versions: Vec<IssuedVersion>,

    /// What a newer release knows of it.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// One revision of the Secret, and what it holds. As long as the Secret is at this revision, not a byte of it has changed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedSecret {
    /// `metadata.uid` of the Secret.
    #[schemars(length(max = 64))]
    pub uid: String,

    /// `metadata.resourceVersion` of the Secret.
    #[schemars(length(max = 64))]
    pub resource_version: String,

    /// SHA-256, in hexadecimal digits, of the type, the data, and the labels and annotations of the operator that the Secret
    /// has at this revision.
    #[schemars(length(max = 64))]
    pub digest: String,
}

/// One issued data key, in its wrapped form.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct IssuedVersion {
    /// The version that this data key is.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub version: i32,

    /// What was asked of KMS, as in the spec.
    pub request: KeyRequest,

    /// The wrapped data key as KMS answered it, 1 to 6144 bytes, in base64.
    #[serde(deserialize_with = "lenient::bytes")]
    #[schemars(schema_with = "ciphertext_blob_schema")]
    pub ciphertext_blob: ByteString,

    /// ARN of the KMS key that wrapped it. Give it to KMS Decrypt.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = crd::key_id_is_a_key_arn())]
    pub key_id: String,

    /// ID of the key material within the KMS key, where KMS told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = "^[0-9A-Za-z-]*$"))]
    pub key_material_id: Option<String>,

    /// When it was issued, in whole seconds, UTC.
    #[serde(deserialize_with = "lenient::time")]
    #[schemars(schema_with = "whole_seconds_schema")]
    pub issued_at: Time,

    /// Request ID of the KMS call, to find it in AWS CloudTrail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = "^[0-9A-Za-z+/=._:-]*$"))]
    pub request_id: Option<String>,

    /// What a newer release knows of it.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// What is asked of KMS for one version: these fields of the spec are fixed once the version is issued.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
#[x_kube(validation = crd::request_has_one_length(), validation = crd::no_region_beside_an_arn())]
pub struct KeyRequest {
    /// The requested KMS key, as in the spec.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = crd::key_id_has_a_known_form(), validation = crd::key_is_customer_managed())]
    pub key_id: String,

    /// The requested key spec, as in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<KeySpec>,

    /// The requested length in bytes, as in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub number_of_bytes: Option<i32>,

    /// The encryption context, as in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "encryption_context_schema")]
    #[x_kube(
        validation = crd::context_keys_are_not_empty(),
        validation = crd::context_keys_are_not_reserved(),
        validation = crd::context_keys_differ_in_more_than_case(),
        validation = crd::context_fits()
    )]
    pub encryption_context: Option<EncryptionContext>,

    /// The requested Region, as in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = crd::region_has_a_known_form())]
    pub region: Option<String>,

    /// What a newer release knows of it.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

fn encryption_context_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 8192 },
    })
}

fn template_labels_schema(_: &mut SchemaGenerator) -> Schema {
    let value = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 63, "pattern": value },
    })
}

fn template_annotations_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 2048 },
    })
}

fn ciphertext_blob_schema(_: &mut SchemaGenerator) -> Schema {
    // No `format: byte`: CEL would decode it, and the API server's decoder refuses some of what its validation takes.
    let base64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";
    json_schema!({ "type": "string", "minLength": 4, "maxLength": 8192, "pattern": base64 })
}

fn whole_seconds_schema(_: &mut SchemaGenerator) -> Schema {
    // A fraction would be lost when the record is written again, and the record is write-once.
    // Nor could the operator read a time at the end of the year 9999.
    let whole = "^(19|2[0-9])[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$";
    json_schema!({ "type": "string", "format": "date-time", "maxLength": 20, "pattern": whole })
}

fn grant_tokens_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 10,
        "items": { "type": "string", "minLength": 1, "maxLength": 8192 },
    })
}

// === impl DataKey ===

impl DataKey {
    /// The version that the spec makes current.
    pub fn version(&self) -> i32 {
        self.spec.version.unwrap_or(FIRST_VERSION)
    }

    /// The name of the Secret: as recorded, else as in the spec, else the `DataKey`'s own.
    pub fn secret_name(&self) -> &str {
        let recorded = self.status.as_ref().and_then(|status| status.secret_name.as_deref());
        recorded.or(self.spec.secret_name.as_deref()).or(self.metadata.name.as_deref()).unwrap_or_default()
    }

    /// Everything that was issued, in the order of its recording.
    pub fn record(&self) -> &[IssuedVersion] {
        self.status.as_ref().map_or(&[], |status| &status.versions)
    }

    /// The data keys that the spec pins.
    pub fn pins(&self) -> &[IssuedVersion] {
        self.spec.wrapped_keys.as_deref().unwrap_or_default()
    }

    /// Whether a backup tool restored it and no one has changed its spec since: its data key may exist, though it is
    /// not recorded.
    pub fn is_restored(&self) -> bool {
        let has =
            |marks: &Option<BTreeMap<String, String>>, mark| marks.as_ref().is_some_and(|of| of.contains_key(mark));
        let Self { metadata, .. } = self;
        metadata.generation == Some(1)
            && (has(&metadata.labels, VELERO_RESTORE) || has(&metadata.annotations, RESTORED))
    }

    /// The recorded data key of a version.
    pub fn issued(&self, version: i32) -> Option<&IssuedVersion> {
        self.record().iter().find(|issued| issued.version == version)
    }
}

// === impl DataKeySpec ===

impl DataKeySpec {
    /// The part of the spec that KMS is asked with.
    pub fn request(&self) -> KeyRequest {
        KeyRequest {
            key_id: self.key_id.clone(),
            key_spec: self.key_spec,
            number_of_bytes: self.number_of_bytes,
            encryption_context: self.encryption_context.clone(),
            region: self.region.clone(),
            rest: Rest::new(),
        }
    }

    /// The fields that this release does not know, by their paths within the spec; those of pins are not among them.
    pub fn unknown_fields(&self) -> impl Iterator<Item = String> {
        let template = self.secret_template.iter();
        let of_the_template = template.clone().flat_map(|template| template.rest.keys());
        let of_its_metadata =
            template.flat_map(|template| &template.metadata).flat_map(|metadata| metadata.rest.keys());
        let of_the_template = of_the_template.map(|field| format!("secretTemplate.{field}"));
        let of_its_metadata = of_its_metadata.map(|field| format!("secretTemplate.metadata.{field}"));
        self.rest.keys().cloned().chain(of_the_template).chain(of_its_metadata)
    }

    /// The deletion policy with its default.
    pub fn deletion_policy(&self) -> DeletionPolicy {
        self.deletion_policy.unwrap_or_default()
    }
}

// === impl IssuedVersion ===

impl IssuedVersion {
    /// The fields that this release does not know, by their paths within the entry. What they mean for the Secret is known
    /// to a newer release only.
    pub fn unknown_fields(&self) -> impl Iterator<Item = String> {
        let of_the_request = self.request.rest.keys().map(|field| format!("request.{field}"));
        self.rest.keys().cloned().chain(of_the_request)
    }
}

// === impl KeyRequest ===

impl KeyRequest {
    /// The encryption context; an absent one is the empty one, in KMS as here.
    pub fn context(&self) -> &EncryptionContext {
        static EMPTY: EncryptionContext = EncryptionContext::new();
        self.encryption_context.as_ref().unwrap_or(&EMPTY)
    }

    /// Whether both ask KMS for the same: an absent encryption context is the empty one.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        self.key_id == other.key_id
            && self.key_spec == other.key_spec
            && self.number_of_bytes == other.number_of_bytes
            && self.region == other.region
            && self.context() == other.context()
    }
}

// === impl KeySpec ===

impl KeySpec {
    /// As KMS writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes256 => "AES_256",
            Self::Aes128 => "AES_128",
        }
    }
}
