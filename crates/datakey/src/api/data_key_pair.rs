//! The kind `DataKeyPair` and its spec.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    key_pair_spec::KeyPairSpec,
    kind::{KeyKind, Kind, KindId, SpecView, identity},
    lenient::Rest,
    request::{EncryptionContext, RequestView},
    rules, schema,
    status::{IssuedVersion, KeyStatus},
    template::{DeletionPolicy, SecretTemplate},
};
use crate::names::PAIR_SECRET_TYPE;

/// The key pair to issue. The operator calls AWS KMS GenerateDataKeyPairWithoutPlaintext once for each version. It keeps the
/// wrapped private key, never the plaintext, and the public key in a Secret and in the status. The settings of an issued
/// version are fixed. To issue another key pair, raise `version`.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::duplicated_attributes, reason = "each column of kubectl is a printcolumn")]
#[kube(
    group = "datakey.dev",
    version = "v1alpha1",
    kind = "DataKeyPair",
    namespaced,
    status = "KeyStatus",
    derive = "PartialEq",
    shortname = "dkp",
    category = "datakey-operator",
    doc = "A key pair of AWS KMS. A Secret holds the public key, and the private key in its wrapped form only: the plaintext \
           never enters the control plane of the cluster. Each version is issued exactly once and is never replaced. A workload \
           unwraps the private key with kms:Decrypt and the same encryption context.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(
        name = "Version",
        type_ = "integer",
        description = "the version in the entries of the Secret without a suffix",
        json_path = ".status.version"
    ),
    printcolumn(
        name = "Spec",
        type_ = "string",
        description = "kind of the key pair",
        json_path = ".spec.keyPairSpec"
    ),
    printcolumn(
        name = "Key",
        type_ = "string",
        description = "ARN of the KMS key; the requested key ID until a key pair is issued",
        json_path = ".status.keyId"
    ),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(
        name = "Public-Key",
        type_ = "string",
        description = "SHA-256 of the current public key (DER, SubjectPublicKeyInfo)",
        json_path = ".status.publicKeySha256",
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
pub struct DataKeyPairSpec {
    /// The symmetric KMS key that wraps the private key, in one of the four forms that AWS KMS accepts: a key ID
    /// (`1234abcd-12ab-34cd-56ef-1234567890ab`, or `mrk-` and 32 hexadecimal digits), a key ARN, an alias name
    /// (`alias/tokens`) or an alias ARN. A key of another AWS account needs an ARN, and a key of a custom key store can't be
    /// used. The AWS identity of the operator needs `kms:GenerateDataKeyPairWithoutPlaintext` on the key, and nothing else.
    /// It may be absent if `className` is set: then the class names the key. Fixed once the version is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = rules::key_id())]
    pub key_id: Option<String>,

    /// The DataKeyClass that says what this DataKeyPair may ask for, and that fills in what it leaves out. Ask your platform
    /// team, or run `kubectl datakey classes`, for the classes of this namespace. What is issued stays as it is when the class
    /// changes, and you can change this field at any time. Without it, no class applies; if the operator requires classes, the
    /// class `default` applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::class::class_name())]
    pub class_name: Option<String>,

    /// The kind of the key pair: RSA (`RSA_2048`, `RSA_3072`, `RSA_4096`), elliptic curves (`ECC_NIST_P256`, `ECC_NIST_P384`,
    /// `ECC_NIST_P521`, `ECC_SECG_P256K1`, `ECC_NIST_EDWARDS25519` for Ed25519), ML-KEM (`ML_KEM_512`, `ML_KEM_768`,
    /// `ML_KEM_1024`), or `SM2` in the Regions of China. Key policies can require one (`kms:DataKeyPairSpec`). Fixed once the
    /// version is issued.
    pub key_pair_spec: KeyPairSpec,

    /// The encryption context: up to 32 pairs, at most 8192 bytes together, that KMS binds to the private key. The operator
    /// sends it to KMS exactly as written. Each Decrypt call for the private key must give the same pairs, and key policies
    /// can require them (`kms:EncryptionContext:purpose`). It is not secret: it appears in AWS CloudTrail. Keys are not empty,
    /// do not begin with `aws:` or `aws-crypto-`, and differ in more than case, because policies ignore case. Fixed once the
    /// version is issued. Example: `{purpose: tokens, stage: production}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::encryption_context")]
    #[x_kube(validation = rules::encryption_context())]
    pub encryption_context: Option<EncryptionContext>,

    /// Up to 10 KMS grant tokens, each of 1 to 8192 characters, for a grant that is so new that KMS may not know it
    /// everywhere yet. The operator sends them with the call and stores them nowhere else. Remove them once the key pair is
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

    /// The current version. The default is 1. A number that was never issued issues a new key pair; the Secret keeps the
    /// earlier ones. A number that was issued before makes that key pair current again, without a KMS call. At most 64
    /// versions. Those who verify or encrypt need the new public key before the new private key is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub version: Option<i32>,

    /// The name of the Secret, in the same namespace. The default is `metadata.name`. The operator never changes a Secret
    /// that does not belong to this DataKeyPair; a DataKey and a DataKeyPair can't have the same Secret. Fixed once a version
    /// is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::secret_name())]
    pub secret_name: Option<String>,

    /// Labels and annotations that the operator sets on the Secret in addition to its own, for example because an admission
    /// policy requires them. You can change them at any time, and the operator restores them with the Secret. When you remove
    /// a key from the template, the operator removes it from the Secret. Keys that other clients set stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,

    /// What happens to the Secret when the DataKeyPair is deleted. `Retain`, the default, keeps the Secret, and a DataKeyPair
    /// of the same name adopts it. `Delete` deletes the Secret, and with it all data that only its private keys can decrypt. Key
    /// pairs that this DataKeyPair did not issue itself, but adopted or took from `wrappedKeys`, are kept under `Delete`, too.
    /// Fixed once a version is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// Pins: at most 64 key pairs that were issued before, in this cluster or in another one. A pinned version is never issued
    /// again: the operator creates the record and the Secret from the pin, without a KMS call. So all clusters with the same
    /// manifest have the same key pair, and you can rebuild a lost cluster from Git. Each pin is a copy of an entry of
    /// `status.versions` of a DataKeyPair, with its own `ciphertextBlob`. The private key in it is ciphertext, so you can commit
    /// it to Git. You can add a pin at any time, and remove it once it is recorded. A pin cannot differ from the record. A pin
    /// of a multi-Region key (`mrk-`) is valid in each Region: the Secret names the key of the Region of this DataKeyPair.
    /// Example: `[{version: 1, request: {keyId: alias/tokens, keyPairSpec: ECC_NIST_P256}, ciphertextBlob: AQIDAHg...,
    /// publicKey: MFkwEw..., keyId: "arn:aws:kms:eu-west-1:111122223333:key/mrk-...", issuedAt: "2026-11-24T01:02:03Z"}]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["version".into()]),
        validation = rules::pins_are_different_data_keys(DataKeyPair::KIND)
    )]
    pub wrapped_keys: Option<Vec<IssuedVersion>>,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

// === impl DataKeyPair ===

impl KeyKind for DataKeyPair {
    const KIND: &'static Kind = &Kind {
        id: KindId::DataKeyPair,
        api_version: "datakey.dev/v1alpha1",
        name: "DataKeyPair",
        plural: "datakeypairs",
        operation: "GenerateDataKeyPairWithoutPlaintext",
        noun: "key pair",
        secret_type: PAIR_SECRET_TYPE,
    };

    type Spec = DataKeyPairSpec;

    fn new(metadata: kube::core::ObjectMeta, spec: DataKeyPairSpec, status: Option<KeyStatus>) -> Self {
        Self { metadata, spec, status }
    }

    fn view(spec: &DataKeyPairSpec) -> SpecView<'_> {
        SpecView {
            request: RequestView {
                key_id: spec.key_id.as_deref(),
                key_spec: None,
                number_of_bytes: None,
                key_pair_spec: Some(spec.key_pair_spec),
                encryption_context: spec.encryption_context.as_ref(),
                region: spec.region.as_deref(),
            },
            version: spec.version,
            secret_name: spec.secret_name.as_deref(),
            secret_template: spec.secret_template.as_ref(),
            class_name: spec.class_name.as_deref(),
            grant_tokens: spec.grant_tokens.as_deref().unwrap_or_default(),
            deletion_policy: spec.deletion_policy.unwrap_or_default(),
            pins: spec.wrapped_keys.as_deref().unwrap_or_default(),
            rest: &spec.rest,
            whole: spec,
        }
    }

    fn spec(&self) -> &DataKeyPairSpec {
        &self.spec
    }

    fn status(&self) -> Option<&KeyStatus> {
        self.status.as_ref()
    }

    fn with_status(&self, status: KeyStatus) -> Self {
        Self { metadata: identity(&self.metadata), spec: self.spec.clone(), status: Some(status) }
    }
}
