//! The validation rules of the definition. Each rule is one function: the name says what the rule demands, the message what the
//! user must do.
//!
//! The API server estimates the worst-case cost of each rule from the bounds in the schema and rejects a definition that is
//! too expensive, so every string, list and map that a rule reads has a bound. It can bound the cost of
//! `has(a.f) == has(b.f) && (...)`, but not that of `a.?f == b.?f`. For two lists of 64 versions it assumes 64 times 64
//! comparisons, although each version has at most one counterpart, and would reject rules that compare long strings.
//! `[a] == [b]` has the same result, and the estimate uses the length of the lists instead of that of the strings.

use kube::core::Rule;

use crate::names::{APP_DOMAIN, MANAGED_BY_LABEL, RESERVED_DOMAINS};

#[cfg(test)]
mod tests;

/// A regular expression for the ID of a KMS key, of one Region or of several.
const KEY: &str = "([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|mrk-[0-9a-f]{32})";

/// A regular expression for the code of an AWS Region.
const REGION: &str = "[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}";

/// A regular expression for a KMS ARN up to its resource.
const ARN: &str = "arn:aws[a-z-]*:kms:[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}:[0-9]{12}:";

// === rules of the whole object, where spec and status are seen together ===

pub(super) fn name_is_a_label_value() -> Rule {
    Rule::new("size(self.metadata.name) <= 63").message(
        "metadata.name must be at most 63 characters: the Secret carries it as a label. Choose a shorter name; \
         spec.secretName may be longer",
    )
}

/// This rule is on the root, because a rule on `status` is not evaluated when the whole status is removed.
pub(super) fn record_is_write_once() -> Rule {
    Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.versions) || (has(self.status) && has(self.status.versions) && \
         oldSelf.status.versions.all(o, self.status.versions.exists(n, n == o)))",
    )
    .message(
        "status.versions is write-once: an issued data key can't be changed or removed, data may be encrypted under \
         it. Leave every recorded version as it is",
    )
}

pub(super) fn spec_answers_the_record() -> Rule {
    Rule::new(format!(
        "!has(self.status) || !has(self.status.versions) || self.status.versions.all(v, \
         v.version != (has(self.spec.version) ? self.spec.version : 1) || ({}))",
        is_same_request("v.request", "self.spec")
    ))
    .message(
        "this version's data key is issued: keyId, keySpec, numberOfBytes, encryptionContext and region must stay as \
         status.versions records them. To issue a data key with other settings, set spec.version to a new number",
    )
}

/// A CEL expression for whether two requests, or a request and the spec, are the same for KMS.
fn is_same_request(one: &str, other: &str) -> String {
    let optional = ["keySpec", "numberOfBytes", "region"].map(|field| {
        format!(
            "has({one}.{field}) == has({other}.{field}) && (!has({one}.{field}) || {one}.{field} == {other}.{field})"
        )
    });
    format!(
        "[{one}.keyId] == [{other}.keyId] && {} && \
         (has({one}.encryptionContext) && size({one}.encryptionContext) > 0) == \
         (has({other}.encryptionContext) && size({other}.encryptionContext) > 0) && \
         (!has({one}.encryptionContext) || !has({other}.encryptionContext) || \
         {one}.encryptionContext == {other}.encryptionContext)",
        optional.join(" && ")
    )
}

/// The record names the replica of a multi-Region key in its own Region. The operator, not this rule, checks that the rest of
/// the ARN is the same.
pub(super) fn pins_agree_with_the_record() -> Rule {
    Rule::new(format!(
        "!has(self.spec.wrappedKeys) || !has(self.status) || !has(self.status.versions) || \
         self.spec.wrappedKeys.all(p, self.status.versions.all(v, v.version != p.version || (\
         [v.ciphertextBlob] == [p.ciphertextBlob] && \
         ([v.keyId] == [p.keyId] || v.keyId.contains(':key/mrk-') && p.keyId.contains(':key/mrk-')) && {})))",
        is_same_request("v.request", "p.request")
    ))
    .message(
        "spec.wrappedKeys pins another data key than status.versions records for that version, and data may be \
         encrypted under the recorded one. Remove that pin, or make it a copy of the entry in status.versions; for the \
         data key of another DataKey use a version that is not issued here",
    )
}

/// This is a transition rule: it tolerates duplicates from before the rule, because otherwise the status of such an object could
/// not be written any more.
pub(super) fn pins_are_not_other_recorded_versions() -> Rule {
    Rule::new(
        "!has(self.spec.wrappedKeys) || !has(self.status) || !has(self.status.versions) || \
         self.spec.wrappedKeys.all(p, self.status.versions.all(v, v.version == p.version || \
         [v.ciphertextBlob] != [p.ciphertextBlob] || (has(oldSelf.spec.wrappedKeys) && has(oldSelf.status) && \
         has(oldSelf.status.versions) && oldSelf.status.versions.exists(o, o.version == v.version) && \
         oldSelf.spec.wrappedKeys.exists(o, o.version == p.version))))",
    )
    .message(
        "spec.wrappedKeys pins a data key that status.versions records as another version, and each version must have \
         a data key of its own. Remove that pin, or pin the entry that belongs to its version",
    )
}

pub(super) fn secret_name_is_fixed_once_issued() -> Rule {
    Rule::new(
        "!has(self.status) || !has(self.status.secretName) || \
         (has(self.spec.secretName) ? self.spec.secretName : self.metadata.name) == self.status.secretName",
    )
    .message(
        "secretName is fixed once a version is issued: set it back to status.secretName. For another Secret create \
         another DataKey",
    )
}

/// This is a transition rule, because 0.1.0 recorded no policy.
pub(super) fn deletion_policy_is_fixed_once_issued() -> Rule {
    Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.versions) || size(oldSelf.status.versions) == 0 || \
         (has(self.spec.deletionPolicy) ? self.spec.deletionPolicy : 'Retain') == \
         (has(oldSelf.spec.deletionPolicy) ? oldSelf.spec.deletionPolicy : 'Retain')",
    )
    .message(
        "deletionPolicy is fixed once a version is issued: set it back. To keep the Secret of a DataKey under Delete, run \
         kubectl datakey keep NAME; or run kubectl delete datakey NAME --cascade=orphan, and then apply the DataKey under \
         Retain: it takes over what the Secret holds",
    )
}

// === rules of the spec ===

pub(super) fn one_length() -> Rule {
    Rule::new("has(self.keySpec) != has(self.numberOfBytes)")
        .message("set exactly one of keySpec (AES_256 or AES_128) and numberOfBytes (1 to 1024)")
}

pub(super) fn no_region_beside_an_arn() -> Rule {
    Rule::new("!has(self.region) || !self.keyId.startsWith('arn:')")
        .message("remove region: the ARN in keyId names the Region")
}

pub(super) fn pin_of_the_version_answers_the_spec() -> Rule {
    Rule::new(format!(
        "!has(self.wrappedKeys) || self.wrappedKeys.all(p, \
         p.version != (has(self.version) ? self.version : 1) || ({}))",
        is_same_request("p.request", "self")
    ))
    .message(
        "wrappedKeys pins this version's data key: keyId, keySpec, numberOfBytes, encryptionContext and region must be \
         those of the pin's request. Set them so, or set version to a number that is not pinned",
    )
}

// === rules of the status ===

/// This rule is on the status, which exists before and after every write: a transition rule on the list is not evaluated when
/// the list is new.
pub(super) fn recorded_versions_are_different_data_keys() -> Rule {
    Rule::new(
        "!has(self.versions) || self.versions.all(v, \
         (has(oldSelf.versions) && oldSelf.versions.exists(o, o.version == v.version)) || \
         self.versions.exists_one(o, [o.ciphertextBlob] == [v.ciphertextBlob]))",
    )
    .message("versions records one ciphertextBlob twice: each version must have a data key of its own")
}

pub(super) fn secret_name_stays() -> Rule {
    Rule::new("!has(oldSelf.secretName) || (has(self.secretName) && self.secretName == oldSelf.secretName)")
        .message("secretName is fixed once a version is issued: leave it as it is")
}

// === rules of pins and recorded versions ===

pub(super) fn pins_are_different_data_keys() -> Rule {
    Rule::new("self.all(p, self.exists_one(o, [o.ciphertextBlob] == [p.ciphertextBlob]))").message(
        "two entries have the same ciphertextBlob: each version must have a data key of its own. Copy each entry from \
         status.versions as it is",
    )
}

pub(super) fn key_id_is_a_key_arn() -> Rule {
    Rule::new(format!("self.matches('^{ARN}key/{KEY}$')")).message(
        "keyId must be the ARN of a KMS key (arn:aws:kms:REGION:ACCOUNT:key/KEY-ID): copy the entry from \
         status.versions as it is",
    )
}

pub(super) fn request_has_one_length() -> Rule {
    Rule::new("has(self.keySpec) != has(self.numberOfBytes)").message(
        "request must have exactly one of keySpec and numberOfBytes: copy the entry from status.versions as it is",
    )
}

// === rules of the fields of the spec ===

pub(super) fn key_id_has_a_known_form() -> Rule {
    Rule::new(format!(
        "self.matches('^({ARN})?(alias/[a-zA-Z0-9/_-]{{1,250}}|key/{KEY})$') && !self.startsWith('key/') || \
         self.matches('^{KEY}$')"
    ))
    .message(
        "keyId must be a key ID (1234abcd-12ab-34cd-56ef-1234567890ab or mrk-...), a key ARN \
         (arn:aws:kms:REGION:ACCOUNT:key/KEY-ID), an alias name (alias/NAME) or an alias ARN \
         (arn:aws:kms:REGION:ACCOUNT:alias/NAME)",
    )
}

pub(super) fn key_is_customer_managed() -> Rule {
    Rule::new("!self.matches('^(arn:.*:)?alias/aws/')").message(
        "alias/aws/... is a key that AWS manages for its services and can't wrap your data keys: name a customer \
         managed key",
    )
}

pub(super) fn region_has_a_known_form() -> Rule {
    Rule::new(format!("self.matches('^{REGION}$')"))
        .message("region must be the code of an AWS Region, for example eu-west-1")
}

pub(super) fn secret_name_has_a_valid_form() -> Rule {
    Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message(
        "secretName must be a DNS subdomain: lower-case letters, digits, '-' and '.', beginning and ending with a \
         letter or digit",
    )
}

// === rules of the template of the Secret ===

/// Keys of labels and annotations (Kubernetes documentation, "Labels and Selectors", syntax and character set).
pub(super) fn template_keys_have_a_valid_form() -> Rule {
    let domain = "[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
    let name = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?";
    Rule::new(format!("self.all(k, k.matches('^({domain}/)?{name}$') && k.indexOf('/') <= 253)")).message(
        "a key in secretTemplate.metadata must be a name of up to 63 letters, digits, '-', '_' and '.', beginning and ending \
         with a letter or digit, with a DNS subdomain and '/' before it where needed",
    )
}

pub(super) fn template_keys_are_not_reserved() -> Rule {
    let domains = RESERVED_DOMAINS.map(|domain| domain.replace('.', "[.]")).join("|");
    Rule::new(format!(
        "self.all(k, k != '{MANAGED_BY_LABEL}' && (k.startsWith('{APP_DOMAIN}/') || !k.matches('^([^/]*[.])?({domains})/')))"
    ))
    .message(
        "a key in secretTemplate.metadata is reserved: the operator does not set keys of datakey.dev, kubernetes.io, k8s.io, \
         argocd.argoproj.io, toolkit.fluxcd.io, helm.sh or their subdomains, nor app.kubernetes.io/managed-by. Other keys of \
         app.kubernetes.io are possible",
    )
}

// === rules of the encryption context ===

pub(super) fn context_keys_are_not_empty() -> Rule {
    Rule::new("self.all(k, size(k) > 0)").message("an encryption context key must not be empty: give it a name")
}

pub(super) fn context_keys_are_not_reserved() -> Rule {
    Rule::new("self.all(k, !k.matches('^(?i)(aws:|aws-crypto-)'))").message(
        "encryption context keys that begin with aws: or aws-crypto- are reserved for AWS services and the AWS \
         Encryption SDK: choose another key",
    )
}

/// Policies ignore the case of context keys; decryption does not.
pub(super) fn context_keys_differ_in_more_than_case() -> Rule {
    Rule::new("self.all(a, self.exists_one(b, a.lowerAscii() == b.lowerAscii()))").message(
        "two encryption context keys differ in case only, and IAM and key policies can't distinguish them: rename one",
    )
}

/// KMS documents no limit of its own; its protocol to external key stores plans for 8192 bytes
/// (AWS KMS External Key Store Proxy API Specification).
pub(super) fn context_fits() -> Rule {
    Rule::new("self.map(k, size(bytes(k)) + size(bytes(self[k]))).sum() <= 8192").message(
        "the encryption context is too long: its keys and values may have 8192 bytes together, in UTF-8. Shorten it",
    )
}
