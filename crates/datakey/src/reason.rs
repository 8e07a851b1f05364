//! Why a `DataKey` is not ready, what its user can do, and how soon the operator tries again.

use std::fmt;

use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::text::printable;

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

/// A failure as the user sees it: a reason, and what is special about this case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// Decides on the retry policy and the advice.
    pub reason: Reason,
    /// What is special about this case. Never secret material, never a grant token.
    pub detail: Option<String>,
}

// === impl Reason ===

impl Reason {
    /// Every reason.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    // One row a reason: a table, however long.
    #[allow(clippy::too_many_lines)]
    /// How soon it is retried, and what the user can do.
    const fn entry(self) -> (RetryPolicy, &'static str) {
        use RetryPolicy::{RetryRarely, RetrySlowly, RetrySoon};
        match self {
            Self::KeyNotFound => (
                RetryRarely,
                "AWS KMS has no such key or alias in this account and Region: correct spec.keyId or spec.region, or \
                 create the key; name a key of another account by its ARN",
            ),
            Self::KeyDisabled => (RetryRarely, "the KMS key is disabled: enable it, or name another key in spec.keyId"),
            Self::KeyStateInvalid => (
                RetryRarely,
                "the state of the KMS key forbids its use (pending deletion or import, or its key store is not \
                 connected): bring it back to Enabled, or name another key in spec.keyId",
            ),
            Self::KeyUsageInvalid => (
                RetryRarely,
                "only a symmetric encryption key (ENCRYPT_DECRYPT, SYMMETRIC_DEFAULT) can issue data keys: name one in \
                 spec.keyId",
            ),
            Self::GrantTokenInvalid => (
                RetryRarely,
                "AWS KMS refused a grant token: remove spec.grantTokens once the grant is some minutes old, or give the \
                 token of a present grant",
            ),
            Self::AccessDenied => (
                RetryRarely,
                "the operator's AWS identity may not use the KMS key: allow it kms:GenerateDataKeyWithoutPlaintext in \
                 the key policy or in IAM, with this encryption context; the operator's log names the identity",
            ),
            Self::RequestInvalid => (
                RetryRarely,
                "AWS KMS refused the form of the request: correct keyId, encryptionContext or grantTokens in the spec; \
                 the operator's log has the error message from KMS",
            ),
            Self::CredentialsMissing => (
                RetrySlowly,
                "the operator has no AWS credentials: give its service account a role (IRSA or EKS Pod Identity) or \
                 its environment credentials; the operator's log shows what was tried",
            ),
            Self::CredentialsRejected => (
                RetrySlowly,
                "AWS refused the operator's credentials as unknown, expired or badly signed: renew them, and check the \
                 clock of its node",
            ),
            Self::RegionMissing => (
                RetryRarely,
                "no AWS Region is known: set spec.region, write spec.keyId as an ARN, or set AWS_REGION for the operator",
            ),
            Self::RegionUnknown => (
                RetryRarely,
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
                "AWS KMS answered with an error that this operator does not know: its log has the error message from KMS",
            ),
            Self::SecretConflict => (
                RetryRarely,
                "the Secret's name is taken, and nothing was touched: remove or rename that Secret after making sure \
                 that no workload needs it, or use another spec.secretName",
            ),
            Self::SecretContested => (
                RetrySlowly,
                "another client keeps changing or deleting the Secret, or an admission policy changes what the operator \
                 writes into it: the operator restores it from the record at growing intervals; find that client or policy \
                 (kubectl get secret -o yaml --show-managed-fields) and stop it",
            ),
            Self::SecretImmutable => (
                RetryRarely,
                "the Secret is immutable and does not hold what is recorded, and the API server lets no client change it: \
                 delete the Secret (kubectl delete secret NAME); the operator creates it again with the recorded data keys",
            ),
            Self::WriteRejected => (RetrySlowly, "the API server refused a write of the operator"),
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
                RetryRarely,
                "a field has a value that this operator cannot use, and the installed CustomResourceDefinition should have \
                 refused it: correct that field, and install the definition of this operator's version",
            ),
            Self::SecretTooLarge => (
                RetryRarely,
                "with this version Kubernetes could not store the Secret or the DataKey, so KMS is not called and nothing is \
                 recorded: shorten spec.encryptionContext, remove pins that are recorded from spec.wrappedKeys, or create \
                 another DataKey for further versions",
            ),
            Self::TooManyVersions => (
                RetryRarely,
                "all 64 versions of this DataKey are issued: go back to one of them, or create another DataKey",
            ),
            Self::PinConflict => (
                RetryRarely,
                "spec.wrappedKeys pins another data key than status.versions records, and nothing was changed: the \
                 Secret follows the record; remove that pin, or make it a copy of the recorded entry",
            ),
            Self::PinInvalid => (
                RetryRarely,
                "a pin in spec.wrappedKeys can't be used, and a pinned version is never issued again: copy the entry \
                 again from status.versions of the DataKey that it was issued for, or remove it",
            ),
            Self::RestoredWithoutKey => (
                RetryRarely,
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
                RetryRarely,
                "a version in status.versions was recorded by a newer release of the operator, with fields that this one \
                 does not know: install that release. Nothing is lost; until then the Secret stays as it is and no data \
                 key is issued",
            ),
            Self::SpecNewer => (
                RetryRarely,
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
    pub const fn retry_policy(self) -> RetryPolicy {
        self.entry().0
    }

    /// What it means and what the user can do.
    pub const fn advice(self) -> &'static str {
        self.entry().1
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
                // Messages of servers can repeat what users wrote.
                let detail = printable(detail, MAX_MESSAGE.saturating_sub(advice.len() + 3));
                write!(f, "{advice} ({detail})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_name_and_advice() {
        for &reason in Reason::ALL {
            assert_eq!((reason.as_str().to_owned(), reason.as_str().parse()), (format!("{reason:?}"), Ok(reason)));
            assert!(reason.advice().len() > 40, "{reason:?}");
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
