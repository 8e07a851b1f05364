//! Why a `DataKey` is not ready, what its user can do, and how soon the operator tries again.

use std::borrow::Cow;

use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::{
    api::Kind,
    text::{capitalized, printable},
};

mod entries;

/// Bound of a message in a condition, in characters. The API server allows 32768; a reader far less.
pub const MAX_MESSAGE: usize = 1024;

/// How soon a failure is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryPolicy {
    /// It passes by itself, mostly within seconds.
    RetrySoon,
    /// It may pass by itself, or the platform team fixes it: the user of the `DataKey` cannot.
    RetrySlowly,
    /// A user must change the `DataKey`, the KMS key, its policy or the Secret. A change of the `DataKey` is seen at once;
    /// changes in AWS are not, so the operator retries at long intervals.
    RetryRarely,
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
    WriteRejected,
    /// An admission webhook that the API server must ask before a write cannot be reached.
    AdmissionUnavailable,
    /// The API server failed, or did not answer in time.
    ApiServerFailed,
    /// A defect of the operator.
    InternalError,
    /// The `DataKey` is being deleted, and a finalizer or its dependents hold it.
    Deleting,
    /// The API server accepted a spec that violates a rule on which this operator relies.
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
    /// The operator requires classes, the spec names none, and there is none of the name `default`.
    ClassMissing,
    /// There is no class of that name.
    ClassNotFound,
    /// The class does not allow what the spec, a pin or the Secret asks for.
    ClassRefused,
    /// The operator cannot read classes.
    ClassesUnavailable,
    /// A newer release recorded a version with fields that this one does not know.
    RecordNewer,
    /// The spec has a field that this release does not know.
    SpecNewer,
}

/// A failure as the user sees it: what is wrong, the facts of this case, and what to do, the safest way first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// Decides on the retry policy, and on the advice unless the case has one of its own.
    pub reason: Reason,
    /// The facts of this case. Never secret material, never a grant token.
    pub detail: Option<String>,
    /// What to do in this case, if that differs from the advice of the reason.
    pub advice: Option<Box<str>>,
    /// What is wrong in this case, if that differs from what the reason says.
    pub what: Option<&'static str>,
}

// === impl Reason ===

impl Reason {
    /// Every reason.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// As conditions, events and metrics show it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// How soon it is retried.
    pub const fn retry_policy(self) -> RetryPolicy {
        self.entry().policy
    }

    /// What is wrong, as a clause without the special case.
    pub const fn what(self) -> &'static str {
        self.entry().what
    }

    /// What the user can do, as sentences without the last period.
    pub const fn advice(self) -> &'static str {
        self.entry().advice
    }

    /// Whether the failure depends on the object alone. An operator that has just started then decides again without a delay,
    /// because it may be a different release.
    pub const fn depends_on_object(self) -> bool {
        matches!(self, Self::SpecInvalid | Self::RecordNewer | Self::SpecNewer)
    }

    /// Whether a change of the class, or of its name in the spec, is a reason to retry at once. To judge again costs no request, so
    /// a restart of the operator is one, too.
    pub const fn depends_on_class(self) -> bool {
        matches!(self, Self::ClassMissing | Self::ClassNotFound | Self::ClassRefused | Self::ClassesUnavailable)
    }

    /// Whether another request to KMS may succeed. A class fills in requests, so a change of the class of an object is a reason to
    /// retry at once.
    pub const fn depends_on_request(self) -> bool {
        matches!(
            self,
            Self::KeyNotFound
                | Self::KeyDisabled
                | Self::KeyStateInvalid
                | Self::KeyUsageInvalid
                | Self::AccessDenied
                | Self::RequestInvalid
                | Self::RegionMissing
                | Self::RegionUnknown
                | Self::SecretTooLarge
                // A class names the role.
                | Self::CredentialsRejected
        )
    }

    /// Whether a change of the Secret is a reason to retry at once. The reasons of pins are among these, and those of classes, which
    /// can refuse a pin: the Secret of the recorded versions is restored although the pin cannot be recorded.
    pub const fn depends_on_secret(self) -> bool {
        matches!(
            self,
            Self::SecretConflict
                | Self::SecretContested
                | Self::SecretImmutable
                | Self::WriteRejected
                | Self::AdmissionUnavailable
                | Self::PinConflict
                | Self::PinInvalid
                | Self::RestoredWithoutKey
                | Self::IssuingDisabled
        ) || self.depends_on_class()
    }
}

// === impl Failure ===

impl Failure {
    /// A failure with the facts of this case.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: Some(detail.into()), advice: None, what: None }
    }

    /// The same failure with what is wrong in this case: a clause that the facts can follow.
    #[must_use]
    pub fn with_what(self, what: &'static str) -> Self {
        Self { what: Some(what), ..self }
    }

    /// The same failure with advice for this case.
    #[must_use]
    pub fn with_advice(self, advice: impl Into<Box<str>>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None, advice: None, what: None }
    }
}

impl Failure {
    /// The message for an object of this kind.
    pub fn message(&self, kind: &Kind) -> String {
        let what = kind.reword(self.what.unwrap_or(self.reason.what()));
        // The advice of a case is written for its object.
        let advice = self.advice.as_deref().map_or_else(|| kind.reword(self.reason.advice()), Cow::Borrowed);
        let detail = self.detail.as_deref().map(|detail| {
            // Messages of servers can repeat what users wrote.
            let room = MAX_MESSAGE.saturating_sub(what.len() + advice.len() + ": . .".len());
            format!(": {}", printable(detail.trim_end_matches('.'), room))
        });
        format!("{}{}. {advice}.", capitalized(&what), detail.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{DataKey, DataKeyPair, KeyKind as _};

    #[test]
    fn every_reason_has_its_own_name_and_advice() {
        for &reason in Reason::ALL {
            assert_eq!((reason.as_str().to_owned(), reason.as_str().parse()), (format!("{reason:?}"), Ok(reason)));
            for text in [reason.what(), reason.advice()] {
                assert!(text.len() > 20 && !text.ends_with('.'), "{reason:?}: {text}");
            }
            assert!(reason.what().len() + reason.advice().len() < MAX_MESSAGE / 2, "{reason:?}: no room for facts");
        }
    }

    #[test]
    fn message_has_the_facts_and_then_the_advice() {
        let reason = Reason::KeyDisabled;
        let general = "Enable it, or name another key in spec.keyId.";
        for (failure, message) in [
            (reason.into(), format!("The KMS key is disabled. {general}")),
            (Failure::new(reason, "alias/a."), format!("The KMS key is disabled: alias/a. {general}")),
            (Failure::new(reason, "x").with_advice("Ask"), "The KMS key is disabled: x. Ask.".to_owned()),
            (Failure::new(reason, "x").with_what("it is off"), format!("It is off: x. {general}")),
        ] {
            assert_eq!(failure.message(DataKey::KIND), message);
        }
    }

    #[test]
    fn message_names_the_kind() {
        for &reason in Reason::ALL {
            let message = Failure::from(reason).message(DataKeyPair::KIND);
            // A class is of both kinds.
            let rest = message.replace("DataKeyPair", "").replace("DataKeyClass", "");
            assert!(!rest.contains("DataKey"), "{message}");
            assert!(!message.contains("data key") && !message.contains("PairPair"), "{message}");
        }
        let denied = Failure::from(Reason::AccessDenied).message(DataKeyPair::KIND);
        assert!(denied.contains("kms:GenerateDataKeyPairWithoutPlaintext in"), "{denied}");
    }

    #[test]
    fn long_detail_is_cut_between_characters() {
        for detail in ["ä", "\u{202e}"] {
            let message = Failure::new(Reason::WriteRejected, detail.repeat(5000)).message(DataKey::KIND);
            assert!(message.chars().count() <= MAX_MESSAGE, "{}", message.chars().count());
        }
    }
}
