//! One row for each reason: how soon it is retried, and its texts.

use super::{Reason, RetryPolicy};

/// How soon a failure is retried, and its texts.
pub(super) struct Entry {
    pub policy: RetryPolicy,
    /// What is wrong: a clause that a fact can follow.
    pub what: &'static str,
    /// What to do: sentences without the last period.
    pub advice: &'static str,
}

// === impl Reason ===

impl Reason {
    /// The row of this reason.
    // A table, however long.
    #[allow(clippy::too_many_lines)]
    pub(super) const fn entry(self) -> Entry {
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
                "If the key is pending deletion, cancel the deletion at once: with the key, everything that it wrapped \
                 is lost. If it is pending import, or its key store is not connected, correct that. Or name another \
                 key in spec.keyId",
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
                "Check spec.region, and DNS, network policy, proxy and KMS endpoint of the operator; its log has the error. \
                 It tries again",
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
                "Copy the entry again from status.versions of the DataKey that it was issued for. Remove the pin only if \
                 no data is encrypted under it: without it, a new data key is issued for that version",
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
            Self::ClassMissing => (
                RetryRarely,
                "the operator requires a DataKeyClass",
                "Name a class in spec.className (kubectl datakey classes lists those of this namespace), or ask the platform team \
                 for one",
            ),
            Self::ClassNotFound => (
                RetryRarely,
                "there is no DataKeyClass of the name in spec.className",
                "Correct the name (kubectl datakey classes lists the classes of this namespace), or ask the platform team for the \
                 class. Recorded data keys are not affected",
            ),
            Self::ClassRefused => (
                RetryRarely,
                "the DataKeyClass does not allow this",
                "Change the spec, name another class in spec.className (kubectl datakey classes shows what they allow), or ask the \
                 platform team. Recorded data keys are not affected",
            ),
            Self::ClassesUnavailable => (
                RetrySlowly,
                "the operator cannot read DataKeyClasses, and this DataKey needs one",
                "Install the definition of DataKeyClass, and allow the operator to list and watch datakeyclasses. The operator \
                 tries again. Recorded data keys are not affected",
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
}
