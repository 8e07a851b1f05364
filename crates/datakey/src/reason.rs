//! Why a `DataKey` is not ready, what its user can do, and how soon the operator tries again.

use std::fmt;

use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::text::{capitalized, printable};

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
    /// A newer release recorded a version with fields that this one does not know.
    RecordNewer,
    /// The spec has a field that this release does not know.
    SpecNewer,
}

/// How soon a failure is retried, and its texts.
struct Entry {
    policy: RetryPolicy,
    what: &'static str,
    advice: &'static str,
}

/// A failure as the user sees it: what is wrong, the facts of this case, and what to do, the safest way first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// Decides on the retry policy, and on the advice unless the case has one of its own.
    pub reason: Reason,
    /// The facts of this case. Never secret material, never a grant token.
    pub detail: Option<String>,
    /// What to do in this case, if that differs from the advice of the reason.
    pub advice: Option<String>,
}

// === impl Reason ===

impl Reason {
    /// Every reason.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    // One row a reason: a table, however long.
    #[allow(clippy::too_many_lines)]
    const fn entry(self) -> Entry {
        use RetryPolicy::{RetryRarely, RetrySlowly, RetrySoon};
        let (policy, what, advice) = match self {
            Self::KeyNotFound => (
                RetryRarely,
                "AWS KMS has no such key or alias",
                "Correct spec.keyId or spec.region, or create the key or alias there. Name a key of another account \
                 by its ARN",
            ),
            Self::KeyDisabled => {
                (RetryRarely, "the KMS key is disabled", "Enable it, or name another key in spec.keyId")
            }
            Self::KeyStateInvalid => (
                RetryRarely,
                "the state of the KMS key forbids its use",
                "The key is pending deletion or import, or its key store is not connected: bring it back to Enabled, \
                 or name another key in spec.keyId",
            ),
            Self::KeyUsageInvalid => (
                RetryRarely,
                "the KMS key can't issue data keys",
                "Name a symmetric encryption key (ENCRYPT_DECRYPT, SYMMETRIC_DEFAULT) in spec.keyId",
            ),
            Self::GrantTokenInvalid => (
                RetryRarely,
                "AWS KMS refused a grant token",
                "Remove spec.grantTokens once the grant is some minutes old, or give the token of a present grant",
            ),
            Self::AccessDenied => (
                RetryRarely,
                "the operator's AWS identity may not use the KMS key",
                "Allow it kms:GenerateDataKeyWithoutPlaintext in the key policy or in IAM, with this encryption \
                 context. The operator's log names the identity",
            ),
            Self::RequestInvalid => (
                RetryRarely,
                "AWS KMS refused the form of the request",
                "Correct keyId, encryptionContext or grantTokens in the spec. The operator's log has the error \
                 message from KMS",
            ),
            Self::CredentialsMissing => (
                RetrySlowly,
                "the operator has no AWS credentials",
                "Give its service account a role (IRSA or EKS Pod Identity), or its environment credentials. The \
                 operator's log shows what was tried",
            ),
            Self::CredentialsRejected => (
                RetrySlowly,
                "AWS refused the operator's credentials as unknown, expired or badly signed",
                "Renew them, and check the clock of the operator's node",
            ),
            Self::RegionMissing => (
                RetryRarely,
                "no AWS Region is known",
                "Set spec.region, write spec.keyId as an ARN, or set AWS_REGION for the operator",
            ),
            Self::RegionUnknown => (
                RetryRarely,
                "the operator knows no such AWS Region and calls nothing there",
                "Correct spec.region or the ARN in spec.keyId, or ask the platform team to add the Region to \
                 --extra-regions of the operator",
            ),
            Self::Throttled => (
                RetrySoon,
                "the request quota of AWS KMS for this account and Region is used up",
                "Nothing to do: the operator tries again. Lower --kms-rate if other services suffer",
            ),
            Self::KmsUnavailable => {
                (RetrySoon, "AWS KMS failed for the moment", "Nothing to do: the operator tries again")
            }
            Self::KmsUnreachable => (
                RetrySoon,
                "no connection to AWS KMS",
                "Check spec.region, and DNS, network policy, proxy and VPC endpoint of the operator. It tries again",
            ),
            Self::TlsFailed => (
                RetrySlowly,
                "no TLS connection to AWS",
                "Check the certificate of the endpoint that the operator calls. Where a private CA or a proxy that \
                 inspects TLS issues it, add that CA's certificate to the file in AWS_CA_BUNDLE or SSL_CERT_FILE of \
                 the operator",
            ),
            Self::KmsTimeout => {
                (RetrySoon, "AWS KMS did not answer in time", "Check the operator's network. It tries again")
            }
            Self::KmsAnswerInvalid => (
                RetrySlowly,
                "the answer to the KMS call was no usable data key, and nothing of it was kept",
                "Check what endpoint the operator calls (AWS_ENDPOINT_URL_KMS)",
            ),
            Self::KmsError => (
                RetrySlowly,
                "AWS KMS answered with an error that this operator does not know",
                "The operator's log has the error message from KMS",
            ),
            Self::SecretConflict => (
                RetryRarely,
                "the operator does not touch the Secret",
                "Set spec.secretName to a free name. Delete the Secret only if no workload needs it and no data is \
                 encrypted under what it holds",
            ),
            Self::SecretContested => (
                RetrySlowly,
                "another client keeps changing or deleting the Secret, or an admission policy changes what the \
                 operator writes into it",
                "Find that client or policy (kubectl get secret -o yaml --show-managed-fields) and stop it. The \
                 operator restores the Secret from the record at growing intervals",
            ),
            Self::SecretImmutable => (
                RetryRarely,
                "the Secret is immutable and does not hold what is recorded, and the API server lets no client change \
                 it",
                "Delete the Secret (kubectl delete secret NAME): the operator creates it again with the recorded data \
                 keys",
            ),
            Self::WriteRejected => (
                RetrySlowly,
                "the API server refused a write of the operator",
                "Correct what refuses it, such as a quota, an admission policy or a missing permission. The operator \
                 tries again",
            ),
            Self::AdmissionUnavailable => (
                RetrySlowly,
                "an admission webhook that the API server asks before each write cannot be called",
                "Repair that webhook, or exclude the namespace from it. The operator tries again",
            ),
            Self::ApiServerFailed => (
                RetrySoon,
                "the API server failed to answer a request of the operator",
                "Check the API server and its admission webhooks. The operator tries again",
            ),
            Self::InternalError => (
                RetrySlowly,
                "the operator met a defect of its own",
                "Please report it with the operator's log. The operator tries again",
            ),
            Self::Deleting => (
                RetrySlowly,
                "this DataKey is being deleted, so nothing is issued for it any more and its Secret is not restored",
                "A finalizer in metadata.finalizers can hold it",
            ),
            Self::SpecInvalid => (
                RetryRarely,
                "a field has a value that this operator cannot use, and the installed CustomResourceDefinition should \
                 have refused it",
                "Correct that field, and install the definition of this operator's version",
            ),
            Self::SecretTooLarge => (
                RetryRarely,
                "with this version Kubernetes could not store the Secret or the DataKey, so KMS is not called and \
                 nothing is recorded",
                "Shorten spec.encryptionContext, remove pins that are recorded from spec.wrappedKeys, or create \
                 another DataKey for further versions",
            ),
            Self::TooManyVersions => (
                RetryRarely,
                "all 64 versions of this DataKey are issued",
                "Go back to one of them, or create another DataKey",
            ),
            Self::PinConflict => (
                RetryRarely,
                "a pin in spec.wrappedKeys is another data key than the recorded one of its version",
                "Remove that pin, or make it a copy of the recorded entry. Nothing was changed, and the Secret \
                 follows the record",
            ),
            Self::PinInvalid => (
                RetryRarely,
                "a pin in spec.wrappedKeys can't be used, and a pinned version is never issued again",
                "Copy the entry again from status.versions of the DataKey that it was issued for, or remove it",
            ),
            Self::RestoredWithoutKey => (
                RetryRarely,
                "a backup tool restored this DataKey, its data key is not there, and none is issued in its place",
                "Restore the Secret, or the status (Velero: --status-include-resources), or pin the data key in \
                 spec.wrappedKeys. If no data is encrypted under an earlier data key, remove the label \
                 velero.io/restore-name (kubectl label datakey NAME velero.io/restore-name-) or the annotation \
                 datakey.dev/restored, and one is issued",
            ),
            Self::IssuingDisabled => (
                RetrySlowly,
                "the operator runs with --issue=false, and this version is neither in status.versions nor pinned in \
                 spec.wrappedKeys nor in a Secret",
                "Restore the Secret, pin the data key, or ask the platform team to turn issuing on",
            ),
            Self::RecordNewer => (
                RetryRarely,
                "a newer release of the operator recorded a version in status.versions with fields that this release \
                 does not know",
                "Install that release. Nothing is lost: until then the Secret stays as it is, and no data key is \
                 issued",
            ),
            Self::SpecNewer => (
                RetryRarely,
                "the spec has a field that this release of the operator does not know, so nothing is issued or \
                 recorded",
                "Upgrade the operator, or remove that field from the spec",
            ),
        };
        Entry { policy, what, advice }
    }

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

    /// Whether a change of the Secret is a reason to retry at once. `PinConflict` and `PinInvalid` are among these: the Secret of
    /// the recorded versions is restored although the pin cannot be recorded.
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
        )
    }
}

// === impl Failure ===

impl Failure {
    /// A failure with the facts of this case.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: Some(detail.into()), advice: None }
    }

    /// The same failure with advice for this case.
    #[must_use]
    pub fn with_advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None, advice: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.reason.what();
        let advice = self.advice.as_deref().unwrap_or(self.reason.advice());
        let detail = self.detail.as_deref().map(|detail| {
            // Messages of servers can repeat what users wrote.
            let room = MAX_MESSAGE.saturating_sub(what.len() + advice.len() + ": . .".len());
            format!(": {}", printable(detail.trim_end_matches('.'), room))
        });
        write!(f, "{}{}. {advice}.", capitalized(what), detail.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            assert_eq!(failure.to_string(), message);
        }
    }

    #[test]
    fn long_detail_is_cut_between_characters() {
        for detail in ["ä", "\u{202e}"] {
            let message = Failure::new(Reason::WriteRejected, detail.repeat(5000)).to_string();
            assert!(message.chars().count() <= MAX_MESSAGE, "{}", message.chars().count());
        }
    }
}
