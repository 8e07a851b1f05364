//! Conditions and their reasons: what the user is told, and how soon the operator tries again. Pure.
//!
//! `Ready` is always there. `Stalled` is there, as True, only when a person must act, so that kstatus reads
//! `InProgress` while a retry can help and `Failed` otherwise. `status.observedGeneration` and the conditions' own are
//! written together: `kubectl wait` trusts the condition's, kstatus only the status's.

use std::fmt;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::{
    api::{Conditions, DataKey, DataKeyStatus, IssuedVersion, VerifiedSecret},
    text::printable,
};

/// The condition that says whether the Secret holds the data key of the spec.
pub const READY: &str = "Ready";

/// The condition that says that a person must act.
pub const STALLED: &str = "Stalled";

/// The reason of `Ready=Unknown`: the operator has not seen the object yet.
pub const PENDING: &str = "Pending";

/// The reason of `Ready=True`.
pub const ISSUED: &str = "Issued";

/// Bound of a message in a condition, in characters. The API server allows 32768; a reader far less.
const MAX_MESSAGE: usize = 1024;

/// How soon a failure is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It passes by itself, mostly within seconds.
    RetrySoon,
    /// It may pass by itself, or somebody who is not the user of the `DataKey` mends it.
    RetrySlowly,
    /// A person must change the `DataKey`, the KMS key, its policy or the Secret. A change of the `DataKey` is acted
    /// on at once; the others don't announce themselves, so it is retried, rarely.
    WaitForChange,
}

/// Why a `DataKey` is not ready. The closed set of reasons of `Ready=False`.
#[derive(Clone, Copy, Debug, EnumString, Eq, Hash, IntoStaticStr, PartialEq, VariantArray)]
pub enum Reason {
    /// KMS: no such key or alias.
    KeyNotFound,
    /// KMS: the key is disabled.
    KeyDisabled,
    /// KMS: the key's state forbids its use, for example pending deletion or import.
    KeyStateInvalid,
    /// KMS: the key is not a symmetric encryption key.
    KeyUsageInvalid,
    /// KMS: a grant token is not valid.
    GrantTokenInvalid,
    /// KMS: the operator's identity may not use the key.
    AccessDenied,
    /// KMS refused the request's form.
    RequestInvalid,
    /// No AWS credentials.
    CredentialsMissing,
    /// AWS refused the credentials.
    CredentialsRejected,
    /// Neither the spec nor the operator names a Region.
    RegionMissing,
    /// The Region is none of those that the operator calls.
    RegionUnknown,
    /// KMS: too many requests.
    Throttled,
    /// KMS failed for reasons of its own.
    KmsUnavailable,
    /// No connection to KMS.
    KmsUnreachable,
    /// No TLS connection to AWS.
    TlsFailed,
    /// KMS did not answer in time.
    KmsTimeout,
    /// KMS answered, but not with a usable data key.
    KmsAnswerInvalid,
    /// KMS answered with an error that this operator does not know.
    KmsError,
    /// A Secret of that name is there and is not this `DataKey`'s, or holds another data key.
    SecretConflict,
    /// Another client keeps changing or deleting the Secret, or an admission policy changes what the operator writes.
    SecretContested,
    /// The Secret is immutable and does not hold what is recorded.
    SecretImmutable,
    /// The API server refused a write: quota, admission policy, a namespace being deleted.
    Refused,
    /// An admission webhook that the API server must ask before a write cannot be reached.
    AdmissionUnavailable,
    /// The API server failed, or did not answer in time.
    ApiServerFailed,
    /// A defect of the operator.
    InternalError,
    /// The `DataKey` is being deleted, and a finalizer or its dependents hold it.
    Deleting,
    /// The spec got past a validation that this operator relies on.
    SpecInvalid,
    /// All 64 versions are used.
    TooManyVersions,
    /// With another version, Kubernetes could not store the Secret or the `DataKey`.
    SecretTooLarge,
    /// A pin is another data key than the recorded one of its version.
    PinConflict,
    /// A pin can't be recorded.
    PinInvalid,
    /// A backup tool restored the `DataKey`, and its data key is not there (yet).
    RestoredWithoutKey,
    /// The operator was started with `--issue=false`.
    IssuingDisabled,
    /// A newer release recorded a version with fields that this one does not know.
    RecordNewer,
    /// The spec has a field that this release does not know.
    SpecNewer,
}

/// A failure as the user sees it: a reason, and what is special about this case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// Decides on class and advice.
    pub reason: Reason,
    /// What is special about this case. Never secret material, never a grant token.
    pub detail: Option<String>,
}

/// The status that the definition gives to every new object.
pub fn at_birth() -> DataKeyStatus {
    DataKeyStatus {
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
        ..DataKeyStatus::default()
    }
}

/// The status of a `DataKey` whose Secret holds the data key of its spec: at this revision.
pub fn ready(key: &DataKey, issued: &IssuedVersion, secret: Option<VerifiedSecret>, now: Timestamp) -> DataKeyStatus {
    let old = key.status.clone().unwrap_or_default();
    let message = format!("Secret {} holds data key version {}", key.secret_name(), issued.version);
    let ready = condition(&old.conditions, key.metadata.generation, READY, ("True", ISSUED), &message, now);
    DataKeyStatus {
        observed_generation: key.metadata.generation,
        conditions: Conditions::beside(vec![ready], old.conditions),
        version: Some(issued.version),
        key_id: Some(issued.key_id.clone()),
        issued_at: Some(issued.issued_at.clone()),
        secret,
        ..old
    }
}

/// The status of a `DataKey` that cannot be made ready now.
pub fn failed(key: &DataKey, failure: &Failure, now: Timestamp) -> DataKeyStatus {
    let old = key.status.clone().unwrap_or_default();
    let own = failed_conditions(failure, &old.conditions, key.metadata.generation, now);
    DataKeyStatus {
        observed_generation: key.metadata.generation,
        conditions: Conditions::beside(own, old.conditions),
        key_id: if old.versions.is_empty() { Some(key.spec.key_id.clone()) } else { old.key_id },
        ..old
    }
}

/// What [`failed`] says, in no more bytes than the present status has: etcd may have no room for more. `Ready` must not go on
/// saying what is not so.
pub fn failed_briefly(key: &DataKey, reason: Reason, now: Timestamp) -> DataKeyStatus {
    let old = key.status.clone().unwrap_or_default();
    let ready = condition(&old.conditions, key.metadata.generation, READY, ("False", reason.as_str()), "", now);
    DataKeyStatus {
        observed_generation: key.metadata.generation,
        conditions: Conditions::beside(vec![ready], old.conditions),
        ..old
    }
}

/// The operator's own conditions of an object that cannot be made ready now; `old` are those that it has.
pub fn failed_conditions(
    failure: &Failure,
    old: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let (reason, message) = (failure.reason.as_str(), failure.to_string());
    let mut conditions = vec![condition(old, generation, READY, ("False", reason), &message, now)];
    if failure.reason.class() == Class::WaitForChange {
        conditions.push(condition(old, generation, STALLED, ("True", reason), &message, now));
    }
    conditions
}

/// The status that records newly issued versions. Conditions stay: the Secret is not written yet.
pub fn recorded(key: &DataKey, versions: Vec<IssuedVersion>) -> DataKeyStatus {
    let mut status = key.status.clone().unwrap_or_default();
    status.secret_name = Some(key.secret_name().to_owned());
    status.versions.extend(versions);
    status
}

/// The status that records versions that another `DataKey` issued: pinned, or found in the Secret.
pub fn adopted(key: &DataKey, versions: Vec<IssuedVersion>) -> DataKeyStatus {
    DataKeyStatus { adopted: Some(true), ..recorded(key, versions) }
}

/// A condition of an object, if it is there.
pub fn find<'a>(key: &'a DataKey, type_: &str) -> Option<&'a Condition> {
    key.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
}

/// The reason of the failure that the status shows for the present spec, if it shows one.
pub fn shown_failure(key: &DataKey) -> Option<Reason> {
    let ready = find(key, READY)?;
    let current = ready.observed_generation == key.metadata.generation;
    ready.reason.parse().ok().filter(|_| current)
}

fn condition(
    old: &[Condition],
    generation: Option<i64>,
    type_: &str,
    (status, reason): (&str, &str),
    message: &str,
    now: Timestamp,
) -> Condition {
    // Kubernetes API conventions: the time tells when `status` changed, not when the condition was written.
    let same = old.iter().find(|old| old.type_ == type_ && old.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: printable(message, MAX_MESSAGE),
        last_transition_time: same.map_or_else(|| whole_seconds(now), |old| old.last_transition_time.clone()),
        observed_generation: generation,
    }
}

/// Kubernetes writes times in whole seconds; one with a fraction would differ from itself after a write.
pub fn whole_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

// === impl Reason ===

impl Reason {
    /// Every reason.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    // One row a reason: a table, however long.
    #[allow(clippy::too_many_lines)]
    /// How soon it is retried, and what the user can do.
    const fn row(self) -> (Class, &'static str) {
        use Class::{RetrySlowly, RetrySoon, WaitForChange};
        match self {
            Self::KeyNotFound => (
                WaitForChange,
                "AWS KMS has no such key or alias in this account and Region: correct spec.keyId or spec.region, or \
                 create the key; name a key of another account by its ARN",
            ),
            Self::KeyDisabled => {
                (WaitForChange, "the KMS key is disabled: enable it, or name another key in spec.keyId")
            }
            Self::KeyStateInvalid => (
                WaitForChange,
                "the state of the KMS key forbids its use (pending deletion or import, or its key store is not \
                 connected): bring it back to Enabled, or name another key in spec.keyId",
            ),
            Self::KeyUsageInvalid => (
                WaitForChange,
                "only a symmetric encryption key (ENCRYPT_DECRYPT, SYMMETRIC_DEFAULT) can issue data keys: name one in \
                 spec.keyId",
            ),
            Self::GrantTokenInvalid => (
                WaitForChange,
                "AWS KMS refused a grant token: remove spec.grantTokens once the grant is some minutes old, or give the \
                 token of a present grant",
            ),
            Self::AccessDenied => (
                WaitForChange,
                "the operator's AWS identity may not use the KMS key: allow it kms:GenerateDataKeyWithoutPlaintext in \
                 the key policy or in IAM, with this encryption context; the operator's log names the identity",
            ),
            Self::RequestInvalid => (
                WaitForChange,
                "AWS KMS refused the form of the request: correct keyId, encryptionContext or grantTokens in the spec; \
                 the operator's log has the words of KMS",
            ),
            Self::CredentialsMissing => (
                RetrySlowly,
                "the operator has no AWS credentials: give its service account a role (IRSA or EKS Pod Identity) or \
                 its environment credentials; the operator's log tells what was tried",
            ),
            Self::CredentialsRejected => (
                RetrySlowly,
                "AWS refused the operator's credentials as unknown, expired or badly signed: renew them, and check the \
                 clock of its node",
            ),
            Self::RegionMissing => (
                WaitForChange,
                "no AWS Region is known: set spec.region, write spec.keyId as an ARN, or set AWS_REGION for the operator",
            ),
            Self::RegionUnknown => (
                WaitForChange,
                "the operator knows no such AWS Region and calls nothing there: correct spec.region or the ARN in \
                 spec.keyId, or ask the platform team to add the Region to --extra-regions of the operator",
            ),
            Self::Throttled => (
                RetrySoon,
                "the request quota of AWS KMS for this account and Region is used up: nothing to do, it is retried; \
                 lower --kms-rate if other services suffer",
            ),
            Self::KmsUnavailable => (RetrySoon, "AWS KMS failed for the moment: nothing to do, it is retried"),
            Self::KmsUnreachable => (
                RetrySoon,
                "no connection to AWS KMS: check spec.region, DNS, network policy, proxy and VPC endpoint of the \
                 operator; it is retried",
            ),
            Self::TlsFailed => (
                RetrySlowly,
                "no TLS connection to AWS: check the certificate of the endpoint that the operator calls; where a private \
                 CA or a proxy that inspects TLS issues it, add that CA's certificate to the file in AWS_CA_BUNDLE or \
                 SSL_CERT_FILE of the operator",
            ),
            Self::KmsTimeout => {
                (RetrySoon, "AWS KMS did not answer in time: check the operator's network; it is retried")
            }
            Self::KmsAnswerInvalid => (
                RetrySlowly,
                "the answer to the KMS call was no usable data key, and nothing of it was kept: check what endpoint \
                 the operator calls (AWS_ENDPOINT_URL_KMS)",
            ),
            Self::KmsError => (
                RetrySlowly,
                "AWS KMS answered with an error that this operator does not know: its log has the words of KMS",
            ),
            Self::SecretConflict => (
                WaitForChange,
                "the Secret's name is taken, and nothing was touched: remove or rename that Secret after making sure \
                 that nobody needs it, or use another spec.secretName",
            ),
            Self::SecretContested => (
                RetrySlowly,
                "another client keeps changing or deleting the Secret, or an admission policy changes what the operator \
                 writes into it: the operator restores it from the record at growing intervals; find that client or policy \
                 (kubectl get secret -o yaml --show-managed-fields) and stop it",
            ),
            Self::SecretImmutable => (
                WaitForChange,
                "the Secret is immutable and does not hold what is recorded, and the API server lets no client change it: \
                 delete the Secret (kubectl delete secret NAME); the operator creates it again with the recorded data keys",
            ),
            Self::Refused => (RetrySlowly, "the API server refused a write of the operator"),
            Self::AdmissionUnavailable => (
                RetrySlowly,
                "an admission webhook that the API server asks before each write cannot be called: repair that webhook, or \
                 exclude the namespace from it; the operator tries again",
            ),
            Self::ApiServerFailed => (
                RetrySoon,
                "the API server failed to answer a request of the operator: check the API server and its admission \
                 webhooks; the operator tries again",
            ),
            Self::InternalError => (
                RetrySlowly,
                "the operator met a defect of its own, and tries again: please report it with the operator's log",
            ),
            Self::Deleting => (
                RetrySlowly,
                "this DataKey is being deleted: nothing is issued for it any more, and its Secret is not restored; a \
                 finalizer in metadata.finalizers can hold it",
            ),
            Self::SpecInvalid => (
                WaitForChange,
                "a field has a value that this operator cannot use, and the installed CustomResourceDefinition should have \
                 refused it: correct that field, and install the definition of this operator's version",
            ),
            Self::SecretTooLarge => (
                WaitForChange,
                "with this version Kubernetes could not store the Secret or the DataKey, so KMS is not called and nothing is \
                 recorded: shorten spec.encryptionContext, remove pins that are recorded from spec.wrappedKeys, or create \
                 another DataKey for further versions",
            ),
            Self::TooManyVersions => (
                WaitForChange,
                "all 64 versions of this DataKey are issued: go back to one of them, or create another DataKey",
            ),
            Self::PinConflict => (
                WaitForChange,
                "spec.wrappedKeys pins another data key than status.versions records, and nothing was changed: the \
                 Secret follows the record; remove that pin, or make it a copy of the recorded entry",
            ),
            Self::PinInvalid => (
                WaitForChange,
                "a pin in spec.wrappedKeys can't be used, and a pinned version is never issued anew: copy the entry \
                 again from status.versions of the DataKey that it was issued for, or remove it",
            ),
            Self::RestoredWithoutKey => (
                WaitForChange,
                "a backup tool restored this DataKey, and its data key is not there: restore the Secret, or the status \
                 (Velero: --status-include-resources), or pin the data key in spec.wrappedKeys; nothing is issued in its place. If \
                 no data is encrypted under an earlier data key, remove the label velero.io/restore-name (kubectl label \
                 datakey NAME velero.io/restore-name-) or the annotation datakey.dev/restored, and one is issued",
            ),
            Self::IssuingDisabled => (
                RetrySlowly,
                "the operator runs with --issue=false, and this version is neither in status.versions nor pinned in \
                 spec.wrappedKeys nor in a Secret: restore the Secret, pin the data key, or ask the platform team to \
                 turn issuing on",
            ),
            Self::RecordNewer => (
                WaitForChange,
                "a version in status.versions was recorded by a newer release of the operator, with fields that this one \
                 does not know: install that release. Nothing is lost; until then the Secret stays as it is and no data \
                 key is issued",
            ),
            Self::SpecNewer => (
                WaitForChange,
                "the spec has a field that this release of the operator does not know, so nothing is issued or recorded: \
                 upgrade the operator, or remove that field from the spec",
            ),
        }
    }

    /// As conditions, events and metrics show it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// How soon it is retried.
    pub const fn class(self) -> Class {
        self.row().0
    }

    /// What it means and what the user can do.
    pub const fn advice(self) -> &'static str {
        self.row().1
    }

    /// Whether the object alone decides it, so that an operator that has just started decides again without a wait: it may be
    /// of another release.
    pub const fn is_of_the_object(self) -> bool {
        matches!(self, Self::SpecInvalid | Self::RecordNewer | Self::SpecNewer)
    }

    /// Whether the Secret has a part in it, so that a change of the Secret is worth another try. With a pin that can't be
    /// followed, the Secret of what is recorded is put right all the same.
    pub const fn is_of_the_secret(self) -> bool {
        matches!(
            self,
            Self::SecretConflict
                | Self::SecretContested
                | Self::SecretImmutable
                | Self::Refused
                | Self::AdmissionUnavailable
                | Self::PinConflict
                | Self::PinInvalid
                | Self::RestoredWithoutKey
                | Self::IssuingDisabled
        )
    }
}

// === impl Failure ===

impl Failure {
    /// A failure with what is special about it.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: Some(detail.into()) }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = self.reason.advice();
        match &self.detail {
            None => f.write_str(advice),
            Some(detail) => {
                // Servers repeat in their words what users wrote.
                let detail = printable(detail, MAX_MESSAGE.saturating_sub(advice.len() + 3));
                write!(f, "{advice} ({detail})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, data_key, issued};

    #[test]
    fn every_reason_has_a_name_of_its_own_and_tells_what_to_do() {
        for &reason in Reason::ALL {
            assert_eq!((reason.as_str().to_owned(), reason.as_str().parse()), (format!("{reason:?}"), Ok(reason)));
            assert!(reason.advice().len() > 40, "{reason:?}");
        }
    }

    #[test]
    fn stalled_goes_with_the_failures_that_a_person_must_mend_only() {
        for &reason in Reason::ALL {
            let status = failed(&data_key(), &reason.into(), at(5));
            let stalled = status.conditions.iter().any(|condition| condition.type_ == STALLED);
            assert_eq!(stalled, reason.class() == Class::WaitForChange, "{reason:?}");
        }
    }

    #[test]
    fn ready_takes_stalled_away_and_tells_the_current_version() {
        let mut key = data_key();
        key.status = Some(failed(&key, &Reason::KeyDisabled.into(), at(5)));
        let status = ready(&key, &issued(1), None, at(9));
        assert_eq!(status.conditions.len(), 1);
        assert_eq!((status.conditions[0].status.as_str(), status.conditions[0].reason.as_str()), ("True", ISSUED));
        assert_eq!((status.version, status.key_id), (Some(1), Some(issued(1).key_id)));
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let mut key = data_key();
        key.status = Some(failed(&key, &Reason::Throttled.into(), at(5)));
        key.status = Some(failed(&key, &Reason::KmsTimeout.into(), at(7)));
        assert_eq!(find(&key, READY).map(|c| c.last_transition_time.0), Some(at(5)));
        key.status = Some(ready(&key, &issued(1), None, at(9)));
        assert_eq!(find(&key, READY).map(|c| c.last_transition_time.0), Some(at(9)));
    }

    #[test]
    fn generations_of_status_and_conditions_are_written_together() {
        let mut key = data_key();
        key.metadata.generation = Some(7);
        for status in [ready(&key, &issued(1), None, at(1)), failed(&key, &Reason::KeyDisabled.into(), at(1))] {
            assert_eq!(status.observed_generation, Some(7));
            assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(7)));
        }
    }

    #[test]
    fn a_failure_of_an_older_generation_is_not_shown_as_present() {
        let mut key = data_key();
        key.status = Some(failed(&key, &Reason::KeyDisabled.into(), at(1)));
        assert_eq!(shown_failure(&key), Some(Reason::KeyDisabled));
        key.metadata.generation = Some(2);
        assert_eq!(shown_failure(&key), None);
    }

    #[test]
    fn recording_keeps_earlier_versions_and_conditions() {
        let mut key = data_key();
        key.status = Some(recorded(&key, vec![issued(1)]));
        let status = recorded(&key, vec![issued(2)]);
        assert_eq!(status.versions, vec![issued(1), issued(2)]);
        assert_eq!(status.secret_name.as_deref(), Some("orders"));
    }

    #[test]
    fn a_long_detail_is_cut_at_a_character() {
        for detail in ["ä", "\u{202e}"] {
            let message = Failure::new(Reason::Refused, detail.repeat(5000)).to_string();
            assert!(message.chars().count() <= MAX_MESSAGE, "{}", message.chars().count());
        }
    }

    #[test]
    fn no_message_holds_what_cannot_be_seen() {
        let odd = "refused: \u{1b}[2J\r\n\u{202e}x";
        let mut key = data_key();
        key.spec.secret_name = Some(odd.to_owned());
        for status in
            [ready(&key, &issued(1), None, at(1)), failed(&key, &Failure::new(Reason::SecretConflict, odd), at(1))]
        {
            for condition in &*status.conditions {
                assert!(condition.message.contains(r"\u{1b}[2J\r\n\u{202e}x"), "{}", condition.message);
                assert!(condition.message.chars().all(crate::text::is_printable), "{}", condition.message);
            }
        }
    }
}
