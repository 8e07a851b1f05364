//! The request to AWS KMS for one version, and the comparison of requests.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    key_pair_spec::KeyPairSpec,
    lenient::Rest,
    material::{KeySpec, Material},
    rules, schema,
};

/// Encryption context: pairs that KMS binds to a data key, in the order of their keys.
pub type EncryptionContext = BTreeMap<String, String>;

/// The request to KMS for one version. These fields of the spec are fixed once the version is issued.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct KeyRequest {
    /// The KMS key, as in the spec.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = rules::key_id())]
    pub key_id: String,

    /// The kind of the data key, as in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<KeySpec>,

    /// The length in bytes, as in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub number_of_bytes: Option<i32>,

    /// The kind of the key pair, as in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_pair_spec: Option<KeyPairSpec>,

    /// The encryption context, as in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::encryption_context")]
    #[x_kube(validation = rules::encryption_context())]
    pub encryption_context: Option<EncryptionContext>,

    /// The Region, as in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = rules::region())]
    pub region: Option<String>,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// The request as the spec has it, where a class changes it: the class fills in what the spec leaves out, and adds pairs to the
/// encryption context.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct WrittenRequest {
    /// The KMS key, if the spec names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = rules::key_id())]
    pub key_id: Option<String>,

    /// The kind of the data key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<KeySpec>,

    /// The length in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub number_of_bytes: Option<i32>,

    /// The kind of the key pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_pair_spec: Option<KeyPairSpec>,

    /// The encryption context, without the pairs that the class adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::encryption_context")]
    #[x_kube(validation = rules::encryption_context())]
    pub encryption_context: Option<EncryptionContext>,

    /// The Region, if the spec names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = rules::region())]
    pub region: Option<String>,

    /// Fields that only a newer release knows.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Rest,
}

/// The longest value of a field in a message, in characters: a message has room for two.
const MAX_SHOWN: usize = 200;

/// A request, borrowed from a spec or from a record.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The requested KMS key; `None` in a spec that leaves it to its class.
    pub key_id: Option<&'a str>,
    /// The requested key spec.
    pub key_spec: Option<KeySpec>,
    /// The requested length in bytes.
    pub number_of_bytes: Option<i32>,
    /// The requested kind of key pair.
    pub key_pair_spec: Option<KeyPairSpec>,
    /// The encryption context.
    pub encryption_context: Option<&'a EncryptionContext>,
    /// The requested Region.
    pub region: Option<&'a str>,
}

// === impl RequestView ===

impl<'a> RequestView<'a> {
    /// The encryption context; empty if it is absent, which is the same for KMS.
    pub fn context(&self) -> &'a EncryptionContext {
        static EMPTY: EncryptionContext = EncryptionContext::new();
        self.encryption_context.unwrap_or(&EMPTY)
    }

    /// The names of the fields in which two requests differ. Requests are compared nowhere else in Rust; in CEL,
    /// `is_same_request` of the rules compares the same fields. Unknown fields are not compared.
    pub fn differences(self, other: RequestView<'_>) -> Vec<&'static str> {
        [
            ("keyId", self.key_id != other.key_id),
            ("keySpec", self.key_spec != other.key_spec),
            ("numberOfBytes", self.number_of_bytes != other.number_of_bytes),
            ("keyPairSpec", self.key_pair_spec != other.key_pair_spec),
            ("encryptionContext", self.context() != other.context()),
            ("region", self.region != other.region),
        ]
        .into_iter()
        .filter_map(|(field, differs)| differs.then_some(field))
        .collect()
    }

    /// The fields in which two requests differ, with both values and where they are: `keySpec AES_128 in the Secret, AES_256
    /// in the spec`.
    pub fn differing_values(self, here: &str, other: RequestView<'_>, there: &str) -> Vec<String> {
        let both =
            |field: &'static str| format!("{field} {} in {here}, {} in {there}", self.shown(field), other.shown(field));
        self.differences(other).into_iter().map(both).collect()
    }

    /// The value of a field, as a message shows it.
    fn shown(self, field: &str) -> String {
        let value = match field {
            "keyId" => self.key_id.map(str::to_owned),
            "keySpec" => self.key_spec.map(|spec| spec.as_str().to_owned()),
            "numberOfBytes" => self.number_of_bytes.map(|bytes| bytes.to_string()),
            "keyPairSpec" => self.key_pair_spec.map(|pair| pair.as_str().to_owned()),
            "encryptionContext" => serde_json::to_string(self.context()).ok(),
            "region" => self.region.map(str::to_owned),
            _ => None,
        };
        let value = value.unwrap_or_else(|| "not set".to_owned());
        if value.chars().nth(MAX_SHOWN).is_none() {
            return value;
        }
        value.chars().take(MAX_SHOWN).chain("...".chars()).collect()
    }

    /// Whether both requests are the same for KMS; an absent encryption context equals the empty one.
    pub fn is_same_request(self, other: RequestView<'_>) -> bool {
        self.differences(other).is_empty()
    }

    /// What KMS generates; `None` where the request does not name exactly one length or kind of key pair.
    pub fn material(self) -> Option<Material> {
        Material::new(self.key_spec, self.number_of_bytes, self.key_pair_spec)
    }

    /// The request to KMS, without fields that only a newer release knows; `None` where no KMS key is named.
    pub fn to_request(self) -> Option<KeyRequest> {
        Some(KeyRequest {
            key_id: self.key_id?.to_owned(),
            key_spec: self.key_spec,
            number_of_bytes: self.number_of_bytes,
            key_pair_spec: self.key_pair_spec,
            encryption_context: self.encryption_context.cloned(),
            region: self.region.map(str::to_owned),
            rest: Rest::new(),
        })
    }

    /// The request as it is recorded beside one that a class changed.
    pub fn to_written(self) -> WrittenRequest {
        WrittenRequest {
            key_id: self.key_id.map(str::to_owned),
            key_spec: self.key_spec,
            number_of_bytes: self.number_of_bytes,
            key_pair_spec: self.key_pair_spec,
            encryption_context: self.encryption_context.cloned(),
            region: self.region.map(str::to_owned),
            rest: Rest::new(),
        }
    }
}

// === impl KeyRequest ===

impl KeyRequest {
    /// The fields that requests are compared by.
    pub fn view(&self) -> RequestView<'_> {
        RequestView {
            key_id: Some(&self.key_id),
            key_spec: self.key_spec,
            number_of_bytes: self.number_of_bytes,
            key_pair_spec: self.key_pair_spec,
            encryption_context: self.encryption_context.as_ref(),
            region: self.region.as_deref(),
        }
    }

    /// The encryption context; empty if it is absent, which is the same for KMS.
    pub fn context(&self) -> &EncryptionContext {
        self.view().context()
    }

    /// What KMS generates; `None` where the request does not name exactly one length or kind of key pair.
    pub fn material(&self) -> Option<Material> {
        self.view().material()
    }
}

// === impl WrittenRequest ===

impl WrittenRequest {
    /// The fields that requests are compared by.
    pub fn view(&self) -> RequestView<'_> {
        RequestView {
            key_id: self.key_id.as_deref(),
            key_spec: self.key_spec,
            number_of_bytes: self.number_of_bytes,
            key_pair_spec: self.key_pair_spec,
            encryption_context: self.encryption_context.as_ref(),
            region: self.region.as_deref(),
        }
    }
}
