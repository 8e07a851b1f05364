//! The status: the record of issued data keys, and what the conditions say of the Secret.

use k8s_openapi::{
    ByteString,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    conditions::{Conditions, PENDING, READY},
    lenient::{self, Rest},
    request::{KeyRequest, RequestView, WrittenRequest},
    rules, schema,
};

/// The record of issued data keys, and whether the Secret holds them.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyStatus {
    /// The `metadata.generation` that the conditions describe. It is -1 until the operator has seen the DataKey.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    pub observed_generation: Option<i64>,

    /// `Ready` is always present. It is True when the Secret holds the data key of the spec. `Stalled` is present, as True,
    /// only when a user must act. Its message says how. `KeyUsable` is present, as False, only while AWS KMS does not use a KMS key of
    /// the record.
    #[serde(default, skip_serializing_if = "Conditions::is_absent")]
    #[schemars(with = "Vec<Condition>", length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Conditions,

    /// The version in the entries of the Secret without a suffix.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    pub version: Option<i32>,

    /// The ARN of the KMS key that wrapped the current version. Until a version is issued, the requested key ID.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    #[schemars(length(max = 2048), regex(pattern = "^[0-9A-Za-z:/_-]*$"))]
    pub key_id: Option<String>,

    /// SHA-256, in hexadecimal digits, of the public key of the current version (DER, SubjectPublicKeyInfo), as
    /// `openssl pkey -pubin -outform der | sha256sum` prints it for the entry `publicKey` of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    #[schemars(length(max = 64))]
    pub public_key_sha256: Option<String>,

    /// The time when the current version was issued.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    pub issued_at: Option<Time>,

    /// The name of the Secret. The operator sets it with the first issued version, and it never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    // Its form needs no rule: the rule of the whole object compares it with the spec, or with the name of the object.
    pub secret_name: Option<String>,

    /// True if a version came from the Secret or from `wrappedKeys`. It may be the last copy of a data key of an earlier
    /// DataKey, so the Secret is kept under `deletionPolicy: Delete`, too.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    pub adopted: Option<bool>,

    /// The revision of the Secret that the operator last wrote, or read and found to hold the record.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    pub secret: Option<VerifiedSecret>,

    /// The record: each version that was issued, at most 64. The API server refuses to change or to remove an entry. It is
    /// ciphertext, and the operator can restore the Secret from it. Fields of a newer release are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::list")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["version".into()]))]
    pub versions: Vec<IssuedVersion>,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// One revision of the Secret and its content. While the Secret has this revision, its content is unchanged.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedSecret {
    /// `metadata.uid` of the Secret.
    #[schemars(length(max = 64))]
    pub uid: String,

    /// `metadata.resourceVersion` of the Secret.
    #[schemars(length(max = 64))]
    pub resource_version: String,

    /// SHA-256, in hexadecimal digits, of what the operator manages in the Secret at this revision: the type, the data, and
    /// its labels and annotations.
    #[schemars(length(max = 64))]
    pub digest: String,
}

/// One issued data key, in its wrapped form.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct IssuedVersion {
    /// The version of this data key.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    #[x_kube(validation = rules::version_is_an_integer())]
    pub version: i32,

    /// The settings that the operator sent to KMS: those of the spec, with what the class filled in.
    pub request: KeyRequest,

    /// The settings of the spec, if the class changed them. The spec is compared with these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_written: Option<WrittenRequest>,

    /// The class that allowed the version, as it was then. What is recorded is not judged again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassRef>,

    /// The wrapped data key that KMS returned (`CiphertextBlob`), 1 to 6144 bytes, in base64.
    #[serde(deserialize_with = "lenient::bytes")]
    #[schemars(schema_with = "schema::ciphertext_blob")]
    pub ciphertext_blob: ByteString,

    /// The public key, as KMS returned it: a SubjectPublicKeyInfo in DER, 1 to 8192 bytes, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::optional_bytes")]
    #[schemars(schema_with = "schema::public_key")]
    pub public_key: Option<ByteString>,

    /// The ARN of the KMS key that wrapped the data key. Pass it to KMS Decrypt as `KeyId`.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = rules::key_arn())]
    pub key_id: String,

    /// The ID of the key material in the KMS key, if KMS returned it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = "^[0-9A-Za-z-]*$"))]
    pub key_material_id: Option<String>,

    /// The time of issue, in whole seconds, in UTC.
    #[serde(deserialize_with = "lenient::time")]
    #[schemars(schema_with = "schema::whole_seconds")]
    pub issued_at: Time,

    /// The request ID of the KMS call that issued it, for AWS CloudTrail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = "^[0-9A-Za-z+/=._:-]*$"))]
    pub request_id: Option<String>,

    /// The version whose data key this is, if AWS KMS wrapped that data key once more (`ReEncrypt`): both versions then unwrap to the
    /// same data key, under different KMS keys or encryption contexts. It is what the pin says. `kubectl datakey verify --decrypt`
    /// proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrap_of: Option<RewrapOf>,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// The version that was wrapped once more.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct RewrapOf {
    /// Its number, smaller than that of the version that says so.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    #[x_kube(validation = rules::version_is_an_integer())]
    pub version: i32,

    /// The request ID of the `ReEncrypt` call, for AWS CloudTrail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = "^[0-9A-Za-z+/=._:-]*$"))]
    pub request_id: Option<String>,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// One state of a class.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ClassRef {
    /// The name of the DataKeyClass.
    #[schemars(length(max = 253))]
    pub name: String,

    /// `metadata.uid` of the DataKeyClass.
    #[schemars(length(max = 64))]
    pub uid: String,

    /// `metadata.generation` of the DataKeyClass.
    pub generation: i64,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// The default status in the definition, which every new object has.
pub fn initial_status() -> KeyStatus {
    KeyStatus {
        observed_generation: Some(-1),
        conditions: vec![Condition {
            type_: READY.to_owned(),
            status: "Unknown".to_owned(),
            reason: PENDING.to_owned(),
            message: "waiting for the operator".to_owned(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: Some(-1),
        }]
        .into(),
        ..KeyStatus::default()
    }
}

/// The time in whole seconds. Kubernetes writes times so; a time with a fraction would differ after a write.
pub fn truncate_to_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

// === impl IssuedVersion ===

impl IssuedVersion {
    /// The request as a spec has it: what the settings of a spec and of a pin are compared with.
    pub fn written(&self) -> RequestView<'_> {
        self.as_written.as_ref().map_or_else(|| self.request.view(), WrittenRequest::view)
    }

    /// The request ID of the KMS call that wrapped it: the one that issued it, or `ReEncrypt`.
    pub fn kms_request_id(&self) -> Option<&str> {
        self.request_id.as_deref().or_else(|| self.rewrap_of.as_ref()?.request_id.as_deref())
    }

    /// The fields, by the place where they are, that this release does not know.
    pub fn rests(&self) -> impl Iterator<Item = (&'static str, &Rest)> {
        let of_the_written = self.as_written.iter().map(|written| ("asWritten.", &written.rest));
        let of_the_class = self.class.iter().map(|class| ("class.", &class.rest));
        let of_the_rewrap = self.rewrap_of.iter().map(|rewrap_of| ("rewrapOf.", &rewrap_of.rest));
        let of_all = [("", &self.rest), ("request.", &self.request.rest)].into_iter();
        of_all.chain(of_the_written).chain(of_the_class).chain(of_the_rewrap)
    }

    /// The paths, within the entry, of fields that this release does not know. Only a newer release knows what they mean for the
    /// Secret.
    pub fn unknown_fields(&self) -> impl Iterator<Item = String> {
        self.rests().flat_map(|(place, rest)| rest.keys().map(move |field| format!("{place}{field}")))
    }
}
