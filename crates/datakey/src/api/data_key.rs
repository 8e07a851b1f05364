//! The kind `DataKey` and its spec.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    kind::{KeyKind, Kind, KindId, SpecView, identity},
    lenient::Rest,
    material::KeySpec,
    request::{EncryptionContext, KeyRequest, RequestView},
    rules, schema,
    status::{IssuedVersion, KeyStatus},
    template::{DeletionPolicy, SecretTemplate},
};
use crate::names::SECRET_TYPE;

/// The data key to issue. The operator calls AWS KMS GenerateDataKeyWithoutPlaintext once for each version. It keeps the
/// wrapped data key, never the plaintext, in a Secret and in the status. The settings of an issued version are fixed. To
/// issue another data key, raise `version`.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::duplicated_attributes, reason = "each column of kubectl is a printcolumn")]
#[kube(
    group = "datakey.dev",
    version = "v1alpha1",
    kind = "DataKey",
    namespaced,
    status = "KeyStatus",
    derive = "PartialEq",
    shortname = "dk",
    category = "datakey-operator",
    doc = "A data key of AWS KMS. A Secret holds its wrapped form only: the plaintext never enters the control plane of the \
           cluster. Each version is issued exactly once and is never replaced. A workload unwraps it with kms:Decrypt and \
           the same encryption context.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(
        name = "Version",
        type_ = "integer",
        description = "the version in the entries of the Secret without a suffix",
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
        description = "key spec of the data key, if the spec has keySpec",
        json_path = ".spec.keySpec",
        priority = 1
    ),
    printcolumn(
        name = "Bytes",
        type_ = "integer",
        description = "length of the data key, if the spec has numberOfBytes",
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
pub struct DataKeySpec {
    /// The symmetric KMS key that wraps the data key, in one of the four forms that AWS KMS accepts: a key ID
    /// (`1234abcd-12ab-34cd-56ef-1234567890ab`, or `mrk-` and 32 hexadecimal digits), a key ARN, an alias name
    /// (`alias/orders`) or an alias ARN. A key of another AWS account needs an ARN. The AWS identity of the operator needs
    /// `kms:GenerateDataKeyWithoutPlaintext` on the key, and nothing else. It may be absent if `className` is set: then the
    /// class names the key. Fixed once the version is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = rules::key_id())]
    pub key_id: Option<String>,

    /// The DataKeyClass that says what this DataKey may ask for, and that fills in what it leaves out. Ask your platform team,
    /// or run `kubectl datakey classes`, for the classes of this namespace. What is issued stays as it is when the class changes,
    /// and you can change this field at any time. Without it, no class applies; if the operator requires classes, the class
    /// `default` applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::class::class_name())]
    pub class_name: Option<String>,

    /// The kind of the data key: `AES_256` (32 bytes) or `AES_128` (16 bytes). Set either this field or `numberOfBytes`.
    /// Fixed once the version is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<KeySpec>,

    /// The length of the data key in bytes, from 1 to 1024, for keys other than AES-128 and AES-256. For example, 64 for
    /// HMAC-SHA-512. These are bytes, not bits: 32 bytes are 256 bits. Set either this field or `keySpec`. Fixed once the version
    /// is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub number_of_bytes: Option<i32>,

    /// The encryption context: up to 32 pairs, at most 8192 bytes together, that KMS binds to the data key. The operator
    /// sends it to KMS exactly as written. Each Decrypt call for the data key must give the same pairs, and key policies can
    /// require them (`kms:EncryptionContext:purpose`). It is not secret: it appears in AWS CloudTrail. Keys are not empty, do
    /// not begin with `aws:` or `aws-crypto-`, and differ in more than case, because policies ignore case. Fixed once the
    /// version is issued. Example: `{purpose: orders, stage: production}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::encryption_context")]
    #[x_kube(validation = rules::encryption_context())]
    pub encryption_context: Option<EncryptionContext>,

    /// Up to 10 KMS grant tokens, each of 1 to 8192 characters, for a grant that is so new that KMS may not know it
    /// everywhere yet. The operator sends them with the call and stores them nowhere else. Remove them once the data key is
    /// issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::grant_tokens")]
    pub grant_tokens: Option<Vec<String>>,

    /// The AWS Region of the KMS key, for example `eu-west-1`, if `keyId` is a key ID or an alias name. An ARN contains its
    /// Region. The default is the Region of the operator. Fixed once the version is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = rules::region())]
    pub region: Option<String>,

    /// The current version. The default is 1. A number that was never issued issues a new data key; the Secret keeps the
    /// earlier ones. A number that was issued before makes that data key current again, without a KMS call. At most 64
    /// versions. Existing data stays encrypted under the version that encrypted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub version: Option<i32>,

    /// The name of the Secret, in the same namespace. The default is `metadata.name`. The operator never changes a Secret
    /// that does not belong to this DataKey. Fixed once a version is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::secret_name())]
    pub secret_name: Option<String>,

    /// Labels and annotations that the operator sets on the Secret in addition to its own, for example because an admission
    /// policy requires them. You can change them at any time, and the operator restores them with the Secret. When you remove
    /// a key from the template, the operator removes it from the Secret. Keys that other clients set stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,

    /// What happens to the Secret when the DataKey is deleted. `Retain`, the default, keeps the Secret, and a DataKey of the
    /// same name adopts it. `Delete` deletes the Secret, and with it all data that only its data keys can decrypt. Data keys
    /// that this DataKey did not issue itself, but adopted or took from `wrappedKeys`, are kept under `Delete`, too. Fixed
    /// once a version is issued. To keep the Secret of a DataKey under `Delete`, use `kubectl datakey keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// Pins: at most 64 wrapped data keys that were issued before, in this cluster or in another one. A pinned version is
    /// never issued again: the operator creates the record and the Secret from the pin, without a KMS call. So all clusters
    /// with the same manifest have the same data key, and you can rebuild a lost cluster from Git. Each pin is a copy of an
    /// entry of `status.versions` of a DataKey, with its own `ciphertextBlob`. It is ciphertext, so you can commit it to Git.
    /// You can add a pin at any time, and remove it once it is recorded. A pin cannot differ from the record. A pin of a
    /// multi-Region key (`mrk-`) is valid in each Region: the Secret names the key of the Region of this DataKey. Example:
    /// `[{version: 1, request: {keyId: alias/orders, keySpec: AES_256}, ciphertextBlob: AQIDAHg..., keyId:
    /// "arn:aws:kms:eu-west-1:111122223333:key/mrk-...", issuedAt: "2026-11-24T01:02:03Z"}]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["version".into()]),
        validation = rules::pins_are_different_data_keys(DataKey::KIND)
    )]
    pub wrapped_keys: Option<Vec<IssuedVersion>>,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

// === impl DataKey ===

impl KeyKind for DataKey {
    const KIND: &'static Kind = &Kind {
        id: KindId::DataKey,
        api_version: "datakey.dev/v1alpha1",
        name: "DataKey",
        plural: "datakeys",
        operation: "GenerateDataKeyWithoutPlaintext",
        noun: "data key",
        secret_type: SECRET_TYPE,
    };

    type Spec = DataKeySpec;

    fn new(metadata: kube::core::ObjectMeta, spec: DataKeySpec, status: Option<KeyStatus>) -> Self {
        Self { metadata, spec, status }
    }

    fn view(spec: &DataKeySpec) -> SpecView<'_> {
        SpecView {
            request: spec.request_view(),
            version: spec.version,
            secret_name: spec.secret_name.as_deref(),
            secret_template: spec.secret_template.as_ref(),
            class_name: spec.class_name.as_deref(),
            grant_tokens: spec.grant_tokens.as_deref().unwrap_or_default(),
            deletion_policy: spec.deletion_policy(),
            pins: spec.wrapped_keys.as_deref().unwrap_or_default(),
            rest: &spec.rest,
            whole: spec,
        }
    }

    fn spec(&self) -> &DataKeySpec {
        &self.spec
    }

    fn status(&self) -> Option<&KeyStatus> {
        self.status.as_ref()
    }

    fn with_status(&self, status: KeyStatus) -> Self {
        Self { metadata: identity(&self.metadata), spec: self.spec.clone(), status: Some(status) }
    }
}

impl DataKey {
    /// The version that the spec makes current.
    pub fn wanted_version(&self) -> i32 {
        self.as_object().wanted_version()
    }

    /// The name of the Secret: from the status, else from the spec, else the name of the `DataKey`.
    pub fn secret_name(&self) -> &str {
        self.as_object().secret_name()
    }

    /// The record: every issued version, in the order in which they were recorded.
    pub fn record(&self) -> &[IssuedVersion] {
        self.as_object().record()
    }

    /// The recorded data key of a version.
    pub fn recorded_version(&self, version: i32) -> Option<&IssuedVersion> {
        self.as_object().recorded_version(version)
    }

    /// The data keys that the spec pins.
    pub fn pinned_versions(&self) -> &[IssuedVersion] {
        self.as_object().spec.pins
    }

    /// Whether a backup tool restored the `DataKey` and its spec is unchanged since.
    pub fn is_restored(&self) -> bool {
        self.as_object().is_restored()
    }

    /// What the annotation `datakey.dev/retry-at` holds. Only its change means anything.
    pub fn retry_at(&self) -> Option<&str> {
        self.as_object().retry_at()
    }
}

// === impl DataKeySpec ===

impl DataKeySpec {
    /// The part of the spec that determines the request to KMS; `None` where the spec leaves the KMS key to its class.
    pub fn request(&self) -> Option<KeyRequest> {
        self.request_view().to_request()
    }

    /// The deletion policy; the default if the spec has none.
    pub fn deletion_policy(&self) -> DeletionPolicy {
        self.deletion_policy.unwrap_or_default()
    }

    fn request_view(&self) -> RequestView<'_> {
        RequestView {
            key_id: self.key_id.as_deref(),
            key_spec: self.key_spec,
            number_of_bytes: self.number_of_bytes,
            key_pair_spec: None,
            encryption_context: self.encryption_context.as_ref(),
            region: self.region.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::Resource as _;

    use super::*;
    use crate::{
        api::with_recorded,
        fixtures::{data_key, issued},
    };

    #[test]
    fn kind_has_the_names_of_the_definition() {
        let Kind { api_version, name, .. } = *DataKey::KIND;
        assert_eq!((api_version, name), (&*DataKey::api_version(&()), &*DataKey::kind(&())));
    }

    #[test]
    fn recording_keeps_earlier_versions_and_conditions() {
        let mut key = data_key();
        key.status = Some(with_recorded(&key, vec![issued(1)]));
        let status = with_recorded(&key, vec![issued(2)]);
        assert_eq!(status.versions, vec![issued(1), issued(2)]);
        assert_eq!(status.secret_name.as_deref(), Some("orders"));
    }
}
