//! The state of a `DataKey`, as `list` and `status` show it.

use datakey::{
    api::{self, EncryptionContext, IssuedVersion, KeyPairSpec, KeySpec, Material},
    condition::{
        self,
        key_usable::{self, Said},
    },
    secret::sha256,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    advice::{advice, check_operator},
    secret_check::{SecretCheck, SecretVerdict},
    table::age,
};
use crate::{cluster::AnyKey, output::Health};

/// The state of a `DataKey` or a `DataKeyPair`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeySummary {
    /// `DataKey` or `DataKeyPair`.
    pub kind: String,
    /// The namespace of the object.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
    /// How messages and tables name it.
    #[serde(skip)]
    pub shown: String,
    /// The status of the condition `Ready`; `Unknown` until the operator has observed the current spec.
    pub ready: String,
    /// The reason of the condition `Ready`.
    pub reason: String,
    /// The message of the condition `Ready`.
    pub message: String,
    /// When the condition `Ready` last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Whether a user must act before it can become Ready.
    pub stalled: bool,
    /// The message of the condition `KeyUsable`, if AWS KMS does not use a KMS key of a recorded version any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_unusable: Option<String>,
    /// What to do next.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<String>,
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// The version that the spec asks for.
    pub wanted_version: i32,
    /// The version that the Secret's plain entries hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    /// The ARN of the KMS key of that version; until it is issued, the key ID of the spec. Absent while only the class names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The class that the spec names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// The name of the Secret.
    pub secret_name: String,
    /// The check of the Secret, if the command made one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretCheck>,
    /// The recorded versions.
    pub versions: Vec<VersionSummary>,
    /// The latest events, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventSummary>,
    /// When the object was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
}

/// A recorded version, without its wrapped data key.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionSummary {
    /// The number of the version.
    pub version: i32,
    /// Whether the Secret's plain entries hold it.
    pub current: bool,
    /// The ARN of the KMS key that wrapped it.
    pub key_id: String,
    /// The key spec, if the request has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<KeySpec>,
    /// The length in bytes, if the request has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number_of_bytes: Option<i32>,
    /// The kind of the key pair, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_pair_spec: Option<KeyPairSpec>,
    /// SHA-256 of the public key (DER, SubjectPublicKeyInfo) of a key pair, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key_sha256: Option<String>,
    /// The encryption context of the request.
    pub encryption_context: EncryptionContext,
    /// When KMS issued the version.
    pub issued_at: Time,
    /// The request ID of the KMS call: that of `ReEncrypt` for a rewrap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The class that allowed the version, as it was then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassOfVersion>,
    /// The version whose data key or private key this is, if it is a rewrap. `verify --decrypt` proves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrap_of: Option<i32>,
}

/// One state of a class.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ClassOfVersion {
    /// The name of the class.
    pub name: String,
    /// Its `metadata.uid`.
    pub uid: String,
    /// Its `metadata.generation`.
    pub generation: i64,
}

/// An event about a `DataKey`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventSummary {
    /// When the event last occurred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The reason of the event.
    pub reason: String,
    /// The message of the event.
    pub note: String,
}

// === impl KeySummary ===

impl KeySummary {
    /// Summarizes an object, without its Secret and events.
    pub fn of(key: &AnyKey) -> Self {
        let (namespace, name, shown) = (key.namespace(), key.name(), key.shown());
        let published = key.published_version();
        let ready = ReadySummary::of(key);
        let stalled =
            ready.is_current && condition::find(key, api::STALLED).is_some_and(|found| found.status == "True");
        let created = key.metadata().creation_timestamp.clone();
        // Not one that names only KMS keys on which the object does not depend any more: the operator removes it.
        let is_unusable = matches!(key_usable::said(key.object()), Some(Said::Unusable(_)));
        let key_unusable = key.status().filter(|_| is_unusable).and_then(|status| status.conditions.key_usable());
        let known = key.status().and_then(|status| status.key_id.clone());
        Self {
            advice: advice(&ready.reason, &namespace, &shown),
            ready: ready.status,
            reason: ready.reason,
            message: ready.message,
            since: ready.since.or_else(|| created.clone().filter(|_| ready.is_unobserved)),
            stalled,
            key_unusable: key_unusable.map(|condition| condition.message),
            deleting: key.metadata().deletion_timestamp.is_some(),
            wanted_version: key.wanted_version(),
            version: published,
            key_id: known.or_else(|| key.object().spec.request.key_id.map(str::to_owned)),
            class_name: key.object().spec.class_name.map(str::to_owned),
            secret_name: key.secret_name().to_owned(),
            secret: None,
            versions: key.record().iter().map(|issued| VersionSummary::of(issued, published)).collect(),
            events: Vec::new(),
            created,
            kind: key.kind().name.to_owned(),
            namespace,
            name,
            shown,
        }
    }

    /// Adds the check of the Secret.
    pub fn with_secret(mut self, secret: SecretCheck) -> Self {
        if self.is_ready() && secret.state.needs_attention() {
            // A running operator restores the Secret, or reports the conflict, within seconds.
            self.advice.push(check_operator(&self.namespace));
        }
        self.secret = Some(secret);
        self
    }

    /// Returns whether it is Ready for its current spec.
    pub fn is_ready(&self) -> bool {
        self.ready == "True"
    }

    /// Returns whether it is not Ready, its Secret is known to differ from the record, or AWS KMS does not use one of its KMS keys.
    pub fn needs_attention(&self) -> bool {
        !self.is_ready()
            || self.key_unusable.is_some()
            || self.secret.as_ref().is_some_and(|secret| secret.state.needs_attention())
    }

    /// Returns what is known about the object and its Secret.
    pub fn health(&self) -> Health {
        let is_unread = self.secret.as_ref().is_some_and(|secret| secret.state == SecretVerdict::Unknown);
        match (self.needs_attention(), is_unread) {
            (true, _) => Health::Unhealthy,
            (false, true) => Health::Unknown,
            (false, false) => Health::Healthy,
        }
    }

    /// Returns the KMS key, as tables show it: a class can name it. The text has no blank, so that scripts can count columns.
    pub fn key(&self) -> String {
        match (&self.key_id, &self.class_name) {
            (Some(key_id), _) => key_id.clone(),
            (None, Some(class)) => format!("class/{class}"),
            (None, None) => String::new(),
        }
    }

    /// Returns the age of the object; empty if it has no creation time.
    pub fn age(&self, now: Timestamp) -> String {
        self.created.as_ref().map(|created| age(created.0, now)).unwrap_or_default()
    }
}

/// The condition `Ready`, or a pending one in its place while it describes an older spec.
struct ReadySummary {
    status: String,
    reason: String,
    message: String,
    since: Option<Time>,
    /// Whether it describes the current spec.
    is_current: bool,
    /// Whether the operator has not written a condition yet.
    is_unobserved: bool,
}

// === impl ReadySummary ===

impl ReadySummary {
    fn of(key: &AnyKey) -> Self {
        let Some(ready) = condition::find(key, api::READY) else {
            return Self::pending("the operator has not seen it yet", true);
        };
        if ready.reason == api::PENDING {
            return Self::pending("the operator has not seen it yet", true);
        }
        if ready.observed_generation != key.metadata().generation {
            return Self::pending("the operator has not acted on the last change of the spec yet", false);
        }
        Self {
            status: ready.status.clone(),
            reason: ready.reason.clone(),
            message: ready.message.clone(),
            since: Some(ready.last_transition_time.clone()),
            is_current: true,
            is_unobserved: false,
        }
    }

    fn pending(message: &str, is_unobserved: bool) -> Self {
        Self {
            status: "Unknown".to_owned(),
            reason: api::PENDING.to_owned(),
            message: message.to_owned(),
            since: None,
            is_current: false,
            is_unobserved,
        }
    }
}

// === impl VersionSummary ===

impl VersionSummary {
    fn of(issued: &IssuedVersion, published: Option<i32>) -> Self {
        Self {
            version: issued.version,
            current: Some(issued.version) == published,
            key_id: issued.key_id.clone(),
            key_spec: issued.request.key_spec,
            number_of_bytes: issued.request.number_of_bytes,
            key_pair_spec: issued.request.key_pair_spec,
            public_key_sha256: issued.public_key.as_ref().map(|key| sha256(&key.0)),
            encryption_context: issued.request.context().clone(),
            issued_at: issued.issued_at.clone(),
            request_id: issued.kms_request_id().map(str::to_owned),
            class: issued.class.as_ref().map(|class| ClassOfVersion {
                name: class.name.clone(),
                uid: class.uid.clone(),
                generation: class.generation,
            }),
            rewrap_of: issued.rewrap_of.as_ref().map(|rewrap_of| rewrap_of.version),
        }
    }

    /// Returns what was asked for: a key spec, bytes, or the kind of a key pair.
    pub fn material(&self) -> String {
        match Material::new(self.key_spec, self.number_of_bytes, self.key_pair_spec) {
            Some(Material::Bytes(bytes)) => format!("{bytes} bytes"),
            Some(material) => material.entry().1,
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use datakey::reason::{Reason, RetryPolicy};
    use serde_json::json;

    use super::*;
    use crate::fixtures::{ARN, at, edited, ready, recorded, secret, with_status};

    #[test]
    fn current_version_is_the_published_one() {
        let summary = KeySummary::of(&edited(ready(&[1, 2]), |value| value["spec"]["version"] = json!(1)).key);
        let current: Vec<_> = summary.versions.iter().map(|version| (version.version, version.current)).collect();
        assert_eq!(current, [(1, false), (2, true)]);
        assert_eq!((summary.version, summary.wanted_version), (Some(2), 1));
    }

    #[test]
    fn ready_of_an_older_generation_is_pending() {
        let fetched = edited(ready(&[1]), |value| value["metadata"]["generation"] = json!(2));
        let summary = KeySummary::of(&fetched.key);
        assert_eq!((summary.ready.as_str(), summary.reason.as_str()), ("Unknown", "Pending"));
        assert!(summary.message.contains("last change"), "{}", summary.message);
        assert!(summary.needs_attention() && summary.advice[0].contains("whether the operator runs"));
    }

    #[test]
    fn new_data_key_is_pending_since_its_creation() {
        let summary = KeySummary::of(&recorded(&[]).key);
        assert_eq!(
            (summary.ready.as_str(), summary.since),
            ("Unknown", Some(datakey::api::truncate_to_seconds(at(0))))
        );
    }

    #[test]
    fn class_can_name_the_key_until_a_version_is_issued() {
        let spec = |fetched| {
            edited(fetched, |value| {
                value["spec"].as_object_mut().unwrap().remove("keyId");
                value["spec"]["className"] = json!("shop");
            })
        };
        let unissued = KeySummary::of(&spec(recorded(&[])).key);
        assert_eq!((unissued.key_id.as_deref(), unissued.key().as_str()), (None, "class/shop"));
        let issued = edited(spec(ready(&[1])), |value| {
            value["status"]["versions"][0]["class"] = json!({ "name": "shop", "uid": "u", "generation": 2 });
        });
        let issued = KeySummary::of(&issued.key);
        assert_eq!((issued.key().as_str(), issued.class_name.as_deref()), (ARN, Some("shop")));
        let class = issued.versions[0].class.as_ref().unwrap();
        assert_eq!((class.name.as_str(), class.uid.as_str(), class.generation), ("shop", "u", 2));
    }

    #[test]
    fn failure_is_stalled_if_a_user_must_act() {
        for &reason in Reason::ALL {
            let fetched = with_status(recorded(&[]), |key| condition::failed(key, &reason.into(), at(9)));
            let summary = KeySummary::of(&fetched.key);
            assert_eq!((summary.ready.as_str(), summary.reason.as_str()), ("False", reason.as_str()));
            assert_eq!(summary.stalled, reason.retry_policy() == RetryPolicy::RetryRarely);
            assert!(!summary.advice.is_empty());
        }
    }

    #[test]
    fn ready_data_key_without_its_secret_needs_attention() {
        let key = ready(&[1]).key;
        let summary = |secret| KeySummary::of(&key).with_secret(secret);
        assert!(!summary(SecretCheck::from_secret(&key, Some(&secret(&key, 1)))).needs_attention());
        let missing = summary(SecretCheck::from_secret(&key, None));
        assert!(missing.needs_attention() && missing.advice[0].contains("whether the operator runs"));
        let unknown = summary(SecretCheck::unknown(&key, "you may not"));
        assert_eq!(unknown.secret.as_ref().map(|secret| secret.state), Some(SecretVerdict::Unknown));
        assert!(!unknown.needs_attention(), "an unreadable Secret may be intact");
        assert_eq!((unknown.health(), missing.health()), (Health::Unknown, Health::Unhealthy));
    }
}
