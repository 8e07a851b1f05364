//! The kind `DataKeyClass`: what the objects of a namespace may ask of KMS, and what is filled in for them.
//!
//! Pure data. [`crate::class`] judges by it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    key_pair_spec::KeyPairSpec,
    lenient::{self, Rest},
    material::KeySpec,
    rules::class,
};

/// The type of the condition that says whether a class can be used.
pub const ACCEPTED: &str = "Accepted";

/// The type of the condition that says whether the operator can assume the role of a class.
pub const ROLE_ASSUMED: &str = "RoleAssumed";

/// What namespaces may have of AWS KMS, and what is filled in for them. A platform team writes it; a DataKey or DataKeyPair names
/// it in `className`. The operator applies it before it calls KMS, and before it records a pin or what a Secret holds. What is
/// recorded is never judged again: to change or to delete a class touches no Secret.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::duplicated_attributes, reason = "each column of kubectl is a printcolumn")]
#[kube(
    group = "datakey.dev",
    version = "v1alpha1",
    kind = "DataKeyClass",
    plural = "datakeyclasses",
    singular = "datakeyclass",
    status = "DataKeyClassStatus",
    derive = "PartialEq",
    shortname = "dkc",
    doc = "What namespaces may have of AWS KMS, and what is filled in for them. A DataKey or DataKeyPair names the class in \
           className. What is recorded is never judged again: to change or to delete a class touches no Secret.",
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(
        name = "InUse",
        type_ = "integer",
        description = "number of objects that use the class",
        json_path = ".status.inUse"
    ),
    printcolumn(
        name = "Key",
        type_ = "string",
        description = "KMS key of objects that name none",
        json_path = ".spec.defaults.keyId"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DataKeyClassSpec {
    /// The namespaces whose objects may use the class, at most 256: each a name, or the beginning of names followed by `*`. An
    /// empty list is no namespace; `"*"` is all of them.
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)))]
    #[x_kube(validation = class::namespaces())]
    pub namespaces: Vec<String>,

    /// What is filled in where an object leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = class::defaults())]
    pub defaults: Option<ClassDefaults>,

    /// What objects may ask for, 1 to 32 entries. A request must fit one entry wholly.
    #[schemars(length(min = 1, max = 32))]
    pub allow: Vec<ClassLimits>,

    /// What the class demands of the encryption context, and what it adds. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_context: Option<ClassContext>,

    /// The AWS role that the operator assumes before it calls KMS for objects of the class, in a session for each namespace. The KMS
    /// keys are then those that the role may use, and an alias name is an alias in the account of the role. Absent: the operator
    /// calls KMS as itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = class::aws())]
    pub aws: Option<ClassAws>,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// What is filled in where an object leaves it out. The length of a data key and the kind of a key pair are always the object's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClassDefaults {
    /// The KMS key, in one of the four forms of `spec.keyId` of a DataKey. `allow` must allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub key_id: Option<String>,

    /// The AWS Region, if the KMS key is not named by its ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub region: Option<String>,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// One entry of what objects may ask for. An absent field does not restrict.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassLimits {
    /// What `keyId` may be, 1 to 32 entries: each a key ID, a key ARN, an alias name or an alias ARN, compared as text. An alias
    /// may end in `*`. An alias name never allows an ARN.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 320)))]
    #[x_kube(validation = class::key_ids())]
    pub key_ids: Vec<String>,

    /// The ARNs of the KMS keys that KMS may answer with, and that pins and Secrets of earlier objects may name, at most 64. Without
    /// it, KMS may answer with any key; pins and Secrets may name the key ARNs of `keyIds`. Keep the ARNs of earlier keys here, so
    /// that objects can be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    #[x_kube(validation = class::key_arns())]
    pub key_arns: Option<Vec<String>>,

    /// The AWS Regions, at most 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 32)))]
    #[x_kube(validation = class::regions())]
    pub regions: Option<Vec<String>>,

    /// The kinds of data keys. With this and without `numberOfBytes`, no DataKey may name a number of bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2))]
    pub key_specs: Option<Vec<KeySpec>>,

    /// The lengths of data keys in bytes, for DataKeys that name one. With this and without `keySpecs`, no DataKey may name a key
    /// spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = class::number_of_bytes())]
    pub number_of_bytes: Option<NumberRange>,

    /// The kinds of key pairs. An empty list allows no DataKeyPair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 12))]
    pub key_pair_specs: Option<Vec<KeyPairSpec>>,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// A range of lengths in bytes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NumberRange {
    /// The least number, at least 1.
    #[schemars(range(min = 1, max = 1024))]
    pub min: i32,
    /// The greatest number, at most 1024.
    #[schemars(range(min = 1, max = 1024))]
    pub max: i32,
}

/// What a class demands of the encryption context, and what it adds.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassContext {
    /// Pairs of the encryption context, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = class::pairs())]
    pub pairs: Vec<ContextPair>,

    /// Whether an object may have pairs with other keys than those of `pairs`. The default is `Allow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<Others>,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// One pair of the encryption context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContextPair {
    /// The key.
    #[schemars(length(min = 1, max = 1024))]
    pub key: String,

    /// The value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,

    /// Where the value comes from: the `Namespace` or the `Name` of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFrom>,

    /// `Inject` adds the pair where an object leaves it out, and refuses another value. `Require` demands that an object has the
    /// pair: with this value, or, if there is neither `value` nor `valueFrom`, with any value.
    pub mode: Mode,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// The AWS role that the operator assumes for a class (AWS STS API reference, `AssumeRole`).
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassAws {
    /// The ARN of the role: `arn:aws:iam::ACCOUNT:role/NAME`, with the path of the role if it has one, at most 640 characters.
    #[schemars(length(min = 1, max = 640))]
    pub role_arn: String,

    /// The external ID that the trust policy of the role demands: 2 to 1224 letters, digits and characters of `_+=,.@:/-`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1224))]
    pub external_id: Option<String>,

    /// Tags of the session, at most 50. Policies read them as `aws:PrincipalTag/KEY`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(validation = class::session_tags())]
    pub session_tags: Vec<SessionTag>,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// One tag of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionTag {
    /// The key: 1 to 128 letters, digits, blanks and characters of `_.:/=+-@`. It does not begin with `aws:`, and the keys of a class
    /// differ in more than case.
    #[schemars(length(min = 1, max = 128))]
    pub key: String,

    /// The value: at most 256 such characters. Either `value` or `valueFrom` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub value: Option<String>,

    /// Where the value comes from: the `Namespace` of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<TagSource>,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// Where the value of a tag comes from. All objects of a namespace share a session, so it is never the name of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum TagSource {
    Namespace,
}

/// Where the value of a pair comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum ValueFrom {
    Namespace,
    Name,
}

/// What a class does with a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum Mode {
    Inject,
    Require,
}

/// Whether other pairs are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum Others {
    #[default]
    Allow,
    Deny,
}

/// Whether the operator can use the class, and how many objects use it. An operator that serves all namespaces writes it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataKeyClassStatus {
    /// The `metadata.generation` that the conditions describe.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    pub observed_generation: Option<i64>,

    /// `Accepted` is True if the class has no contradictions. A class that is not accepted allows nothing; the message names the
    /// field. `RoleAssumed` says whether AWS STS lets the operator assume the role in `spec.aws`: False if it
    /// refuses at least one namespace. It is absent until the operator has asked STS, and if a refusal is not repeated.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Option<Vec<Condition>>,

    /// The number of DataKeys and DataKeyPairs that use the class.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::derived")]
    pub in_use: Option<i64>,
}
