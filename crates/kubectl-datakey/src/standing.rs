//! How a `DataKey` stands, for `list` and `status`. Pure.

use datakey::{
    api::{DataKey, EncryptionContext, IssuedVersion, KeySpec},
    status::{self, Class, Reason},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::ResourceExt;
use serde::Serialize;

use crate::{comparison::Comparison, text::age};

/// How a `DataKey` stands.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `True`, `False`, or `Unknown` until the operator has seen the present spec.
    pub ready: String,
    /// The reason of the condition `Ready`.
    pub reason: String,
    /// Why, in the operator's words.
    pub message: String,
    /// Since when it stands so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Whether a person must act.
    pub stalled: bool,
    /// What to do next.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The version of the spec.
    pub wanted_version: i32,
    /// The version that the Secret's plain entries hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    /// ARN of the KMS key of that version; the requested key ID until it is issued.
    pub key_id: String,
    /// The name of the Secret.
    pub secret_name: String,
    /// How the Secret stands to the record, where it was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Comparison>,
    /// What was issued.
    pub versions: Vec<Entry>,
    /// What happened lately, the last one last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Happening>,
    /// When the `DataKey` was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
}

/// An entry of the record, without its bytes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its number.
    pub version: i32,
    /// Whether the Secret's plain entries hold it.
    pub current: bool,
    /// ARN of the KMS key.
    pub key_id: String,
    /// The key spec, where it was asked for by spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<KeySpec>,
    /// The length in bytes, where it was asked for by length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number_of_bytes: Option<i32>,
    /// The encryption context.
    pub encryption_context: EncryptionContext,
    /// When it was issued.
    pub issued_at: Time,
    /// The KMS request ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// An event.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Happening {
    /// When it happened last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub type_: String,
    /// Its reason.
    pub reason: String,
    /// Its text.
    pub note: String,
}

// === impl Standing ===

impl Standing {
    /// How a `DataKey` stands, by itself.
    pub fn of(key: &DataKey) -> Self {
        let (namespace, name) = (key.namespace().unwrap_or_default(), key.name_any());
        let published = key.status.as_ref().and_then(|status| status.version);
        let ready = Readiness::of(key);
        let stalled =
            ready.is_current && status::find(key, status::STALLED).is_some_and(|found| found.status == "True");
        let created = key.metadata.creation_timestamp.clone();
        let known = key.status.as_ref().and_then(|status| status.key_id.clone());
        Self {
            advice: advice(&ready.reason, &namespace, &name),
            ready: ready.status,
            reason: ready.reason,
            message: ready.message,
            since: ready.since.or_else(|| created.clone().filter(|_| ready.is_at_birth)),
            stalled,
            deleting: key.metadata.deletion_timestamp.is_some(),
            wanted_version: key.version(),
            version: published,
            key_id: known.unwrap_or_else(|| key.spec.key_id.clone()),
            secret_name: key.secret_name().to_owned(),
            secret: None,
            versions: key.record().iter().map(|issued| Entry::of(issued, published)).collect(),
            events: Vec::new(),
            created,
            namespace,
            name,
        }
    }

    /// The same with what is known of the Secret.
    pub fn with_secret(mut self, secret: Comparison) -> Self {
        if self.is_ready() && secret.state.is_wanting() {
            // The operator would have seen it at once.
            self.advice.push(operator_runs());
        }
        self.secret = Some(secret);
        self
    }

    /// Whether it is Ready.
    pub fn is_ready(&self) -> bool {
        self.ready == "True"
    }

    /// Whether something has to be told of it.
    pub fn is_wanting(&self) -> bool {
        !self.is_ready() || self.secret.as_ref().is_some_and(|secret| secret.state.is_wanting())
    }

    /// Its age, or nothing.
    pub fn age(&self, now: Timestamp) -> String {
        self.created.as_ref().map(|created| age(created.0, now)).unwrap_or_default()
    }
}

/// The condition `Ready`, as far as it speaks of the present spec.
struct Readiness {
    status: String,
    reason: String,
    message: String,
    since: Option<Time>,
    is_current: bool,
    is_at_birth: bool,
}

// === impl Readiness ===

impl Readiness {
    fn of(key: &DataKey) -> Self {
        let Some(ready) = status::find(key, status::READY) else {
            return Self::pending("the operator has not seen it yet", true);
        };
        if ready.reason == status::PENDING {
            return Self::pending("the operator has not seen it yet", true);
        }
        if ready.observed_generation != key.metadata.generation {
            return Self::pending("the operator has not acted on the last change of the spec yet", false);
        }
        Self {
            status: ready.status.clone(),
            reason: ready.reason.clone(),
            message: ready.message.clone(),
            since: Some(ready.last_transition_time.clone()),
            is_current: true,
            is_at_birth: false,
        }
    }

    fn pending(message: &str, is_at_birth: bool) -> Self {
        Self {
            status: "Unknown".to_owned(),
            reason: status::PENDING.to_owned(),
            message: message.to_owned(),
            since: None,
            is_current: false,
            is_at_birth,
        }
    }
}

// === impl Entry ===

impl Entry {
    fn of(issued: &IssuedVersion, published: Option<i32>) -> Self {
        Self {
            version: issued.version,
            current: Some(issued.version) == published,
            key_id: issued.key_id.clone(),
            key_spec: issued.request.key_spec,
            number_of_bytes: issued.request.number_of_bytes,
            encryption_context: issued.request.context().clone(),
            issued_at: issued.issued_at.clone(),
            request_id: issued.request_id.clone(),
        }
    }

    /// The length as people ask for it.
    pub fn length(&self) -> String {
        match (self.key_spec, self.number_of_bytes) {
            (Some(spec), _) => spec.as_str().to_owned(),
            (None, Some(bytes)) => format!("{bytes} bytes"),
            (None, None) => String::new(),
        }
    }
}

/// What to do beside what the operator's message says.
fn advice(reason: &str, namespace: &str, name: &str) -> Vec<String> {
    if reason == status::PENDING {
        return vec![operator_runs()];
    }
    let Ok(reason) = reason.parse::<Reason>() else {
        return Vec::new();
    };
    let of_this = |command: &str| format!("kubectl datakey {command} {name} -n {namespace}");
    let mut advice = match reason.class() {
        Class::RetrySoon | Class::RetrySlowly => vec!["the operator tries again by itself".to_owned()],
        Class::WaitForChange => {
            vec!["a change of the DataKey is acted on at once; other changes within minutes".to_owned()]
        }
    };
    match reason {
        Reason::AccessDenied => advice.push(format!("see the policies that it needs: {}", of_this("policy"))),
        Reason::SecretConflict | Reason::SecretContested => {
            advice.push(format!("see what differs: {}", of_this("verify")));
        }
        Reason::CredentialsMissing | Reason::CredentialsRejected | Reason::KmsError | Reason::RequestInvalid => {
            advice
                .push("see the operator's log: kubectl logs -A -l app.kubernetes.io/name=datakey-operator".to_owned());
        }
        _ => {}
    }
    advice
}

fn operator_runs() -> String {
    "see whether the operator runs: kubectl get deployments -A -l app.kubernetes.io/name=datakey-operator".to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        comparison::State,
        fixtures::{at, edited, ready, recorded, secret, with_status},
    };

    #[test]
    fn the_current_version_is_the_one_that_the_secret_holds() {
        let standing = Standing::of(&edited(ready(&[1, 2]), |value| value["spec"]["version"] = json!(1)).key);
        let current: Vec<_> = standing.versions.iter().map(|version| (version.version, version.current)).collect();
        assert_eq!(current, [(1, false), (2, true)]);
        assert_eq!((standing.version, standing.wanted_version), (Some(2), 1));
    }

    #[test]
    fn a_condition_of_an_older_spec_is_not_shown_as_present() {
        let object = edited(ready(&[1]), |value| value["metadata"]["generation"] = json!(2));
        let standing = Standing::of(&object.key);
        assert_eq!((standing.ready.as_str(), standing.reason.as_str()), ("Unknown", "Pending"));
        assert!(standing.message.contains("last change"), "{}", standing.message);
        assert!(standing.is_wanting() && standing.advice[0].contains("whether the operator runs"));
    }

    #[test]
    fn a_new_data_key_waits_since_it_was_created() {
        let standing = Standing::of(&recorded(&[]).key);
        assert_eq!((standing.ready.as_str(), standing.since), ("Unknown", Some(status::whole_seconds(at(0)))));
    }

    #[test]
    fn a_failure_is_told_with_what_to_do_next() {
        for &reason in Reason::ALL {
            let object = with_status(recorded(&[]), |key| status::failed(key, &reason.into(), at(9)));
            let standing = Standing::of(&object.key);
            assert_eq!((standing.ready.as_str(), standing.reason.as_str()), ("False", reason.as_str()));
            assert_eq!(standing.stalled, reason.class() == Class::WaitForChange);
            assert!(!standing.advice.is_empty());
        }
        let denied = with_status(recorded(&[]), |key| status::failed(key, &Reason::AccessDenied.into(), at(9)));
        assert!(
            Standing::of(&denied.key).advice.iter().any(|next| next.contains("kubectl datakey policy orders -n shop"))
        );
    }

    #[test]
    fn ready_is_not_enough_where_the_secret_is_known_to_be_missing() {
        let key = ready(&[1]).key;
        let standing = |secret| Standing::of(&key).with_secret(secret);
        assert!(!standing(Comparison::whole(&key, Some(&secret(&key, 1)))).is_wanting());
        let missing = standing(Comparison::whole(&key, None));
        assert!(missing.is_wanting() && missing.advice[0].contains("whether the operator runs"));
        let unknown = standing(Comparison::unknown(&key, "you may not"));
        assert_eq!(unknown.secret.as_ref().map(|secret| secret.state), Some(State::Unknown));
        assert!(!unknown.is_wanting(), "what can't be looked at is not known to be wrong");
    }
}
