//! The validation rules of the definition. Each rule is one function: the name says what the rule demands, the message what the
//! user must do.
//!
//! The API server estimates the worst-case cost of each rule from the bounds in the schema and rejects a definition that is
//! too expensive, so every string, list and map that a rule reads has a bound. For two lists of 64 versions it assumes 64 times 64
//! comparisons, although each version has at most one counterpart, and would reject rules that compare long strings.
//! `[a] == [b]` has the same result, and the estimate uses the length of the lists instead of that of the strings.
//!
//! What a rule costs is the number of fields that it selects from an object: the API server makes a map of all properties of the
//! schema several times for each, and once for the object itself. `[a.b].all(name, ...)` gives the value of a field a name, so that
//! it is selected once. The estimate does not know the bounds of such a value: iterate over a list by its path. A rule of a value
//! without fields costs least.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use kube::core::{Message, Rule};

use self::demand::{Demand, rule_of, rule_of_new_values};
use super::kind::{Kind, KindId};
use crate::names::{APP_DOMAIN, MANAGED_BY_LABEL, RESERVED_DOMAINS};

pub(super) mod class;
mod demand;
pub(crate) mod issued;
pub(super) mod record;
#[cfg(test)]
mod tests;

fn write_once_message(kind: &Kind) -> String {
    let use_of_it = match kind.id {
        KindId::DataKey => "encrypted under it",
        KindId::DataKeyPair => "encrypted or signed with it",
    };
    format!(
        "status.versions is write-once: an issued {} can't be changed or removed, data may be {use_of_it}. Leave every recorded \
         version as it is",
        kind.noun
    )
}

/// A regular expression for the ID of a KMS key, of one Region or of several.
const KEY: &str = "([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|mrk-[0-9a-f]{32})";

/// A regular expression for the code of an AWS Region.
const REGION: &str = "[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}";

/// A regular expression for a KMS ARN up to its resource.
const ARN: &str = "arn:aws[a-z-]*:kms:[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}:[0-9]{12}:";

/// A CEL expression for whether two requests, or a request and the spec, are the same for KMS. Both are names of variables,
/// because each selection of a field costs the API server time. Other rules demand exactly one of the two lengths of both, so
/// `numberOfBytes` is compared only where there is no `keySpec`.
fn is_same_request(kind: &Kind, one: &str, other: &str) -> String {
    let field = |object: &str, field: &str, absent: &str| format!("[{object}.?{field}.orValue({absent})]");
    let same = |name: &str, absent: &str| format!("{} == {}", field(one, name, absent), field(other, name, absent));
    let same_material = match kind.id {
        KindId::DataKey => format!(
            "{}.all(keySpec, [keySpec] == {} && (keySpec != '' || {}))",
            field(one, "keySpec", "''"),
            field(other, "keySpec", "''"),
            same("numberOfBytes", "0")
        ),
        KindId::DataKeyPair => format!("[{one}.keyPairSpec] == [{other}.keyPairSpec]"),
    };
    format!(
        "{} && {same_material} && {} && {}",
        same("keyId", "''"),
        same("region", "''"),
        same("encryptionContext", "{}")
    )
}

/// A CEL expression for the request of a version as its spec has it. It has no type, because the two alternatives have different
/// ones.
fn written(entry: &str) -> String {
    format!("has({entry}.asWritten) ? dyn({entry}.asWritten) : dyn({entry}.request)")
}

/// The fields that are fixed once a version is issued, in messages.
fn fixed_fields(kind: &Kind) -> &'static str {
    match kind.id {
        KindId::DataKey => "keyId, keySpec, numberOfBytes, encryptionContext and region",
        KindId::DataKeyPair => "keyId, keyPairSpec, encryptionContext and region",
    }
}

// === rules of pins and recorded versions ===

pub(super) fn pins_are_different_data_keys(kind: &Kind) -> Rule {
    Rule::new("[self.map(pin, [pin.ciphertextBlob])].all(blobs, blobs.all(one, blobs.exists_one(other, other == one)))")
        .message(Message::Message(format!(
            "two entries have the same ciphertextBlob: each version must have a {} of its own. Copy each entry from \
             status.versions as it is",
            kind.noun
        )))
}

/// The API server reads `1.0` as another version than `1`, and stores it as `1`: two entries would have the same version. CEL
/// refuses `1.0` as no integer.
pub(super) fn version_is_an_integer() -> Rule {
    Rule::new("self >= 1").message("version must be an integer of at least 1, without a decimal point")
}

pub(super) fn key_arn() -> Rule {
    rule_of_new_values(&[key_id_is_a_key_arn()])
}

fn key_id_is_a_key_arn() -> Demand {
    Demand {
        holds: format!("self.matches('^{ARN}key/{KEY}$')"),
        message: "keyId must be the ARN of a KMS key (arn:aws:kms:REGION:ACCOUNT:key/KEY-ID): copy the entry from \
                  status.versions as it is"
            .to_owned(),
    }
}

pub(super) fn request_of_entries(kind: &Kind) -> ValidationRule {
    rule_of(&demands_on_a_request(kind))
}

/// A rule that refuses every value of a field.
pub(super) fn field_of_another_kind(kind: &Kind, owner: &Kind, name: &str) -> ValidationRule {
    let message = format!("remove {name}: it is a field of a {}, not of a {}", owner.name, kind.name);
    ValidationRule { rule: "false".to_owned(), message: Some(message), ..ValidationRule::default() }
}

fn demands_on_a_request(kind: &Kind) -> Vec<Demand> {
    match kind.id {
        KindId::DataKey => vec![request_has_one_length(), no_region_beside_an_arn("self")],
        // The schema demands the kind of the key pair.
        KindId::DataKeyPair => vec![no_region_beside_an_arn("self")],
    }
}

fn request_has_one_length() -> Demand {
    Demand {
        holds: has_one_length("self"),
        message:
            "request must have exactly one of keySpec and numberOfBytes: copy the entry from status.versions as it is"
                .to_owned(),
    }
}

// === demands on the spec and on requests ===

fn has_one_length(object: &str) -> String {
    format!("has({object}.keySpec) != has({object}.numberOfBytes)")
}

pub(super) fn no_region_beside_an_arn(object: &str) -> Demand {
    Demand {
        holds: format!("!has({object}.region) || !{object}.?keyId.orValue('').startsWith('arn:')"),
        message: "remove region: the ARN in keyId names the Region".to_owned(),
    }
}

// === rules of the fields of the spec ===

pub(super) fn key_id() -> Rule {
    rule_of_new_values(&demands_on_a_key_id())
}

fn demands_on_a_key_id() -> Vec<Demand> {
    vec![key_id_has_a_known_form(), key_is_customer_managed()]
}

pub(super) fn key_id_has_a_known_form() -> Demand {
    Demand {
        holds: format!(
            "self.matches('^({ARN})?(alias/[a-zA-Z0-9/_-]{{1,250}}|key/{KEY})$') && !self.startsWith('key/') || \
             self.matches('^{KEY}$')"
        ),
        message: "keyId must be a key ID (1234abcd-12ab-34cd-56ef-1234567890ab or mrk-...), a key ARN \
                  (arn:aws:kms:REGION:ACCOUNT:key/KEY-ID), an alias name (alias/NAME) or an alias ARN \
                  (arn:aws:kms:REGION:ACCOUNT:alias/NAME)"
            .to_owned(),
    }
}

pub(super) fn key_is_customer_managed() -> Demand {
    Demand {
        holds: "!self.matches('^(arn:.*:)?alias/aws/')".to_owned(),
        message: "alias/aws/... is a key that AWS manages for its services and can't wrap your keys: name a customer \
                  managed key"
            .to_owned(),
    }
}

pub(super) fn region() -> Rule {
    rule_of_new_values(&[region_has_a_known_form()])
}

pub(super) fn region_has_a_known_form() -> Demand {
    Demand {
        holds: format!("self.matches('^{REGION}$')"),
        message: "region must be the code of an AWS Region, for example eu-west-1".to_owned(),
    }
}

pub(super) fn secret_name() -> Rule {
    rule_of_new_values(&[secret_name_has_a_valid_form()])
}

fn secret_name_has_a_valid_form() -> Demand {
    Demand {
        holds: "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')".to_owned(),
        message:
            "secretName must be a DNS subdomain: lower-case letters, digits, '-' and '.', beginning and ending with a \
                  letter or digit"
                .to_owned(),
    }
}

// === rules of the template of the Secret ===

pub(super) fn template_keys() -> Rule {
    rule_of_new_values(&demands_on_template_keys())
}

fn demands_on_template_keys() -> Vec<Demand> {
    vec![template_keys_have_a_valid_form(), template_keys_are_not_reserved()]
}

/// Keys of labels and annotations (Kubernetes documentation, "Labels and Selectors", syntax and character set).
fn template_keys_have_a_valid_form() -> Demand {
    let domain = "[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
    let name = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?";
    Demand {
        holds: format!("self.all(k, k.matches('^({domain}/)?{name}$') && k.indexOf('/') <= 253)"),
        message: "a key in secretTemplate.metadata must be a name of up to 63 letters, digits, '-', '_' and '.', beginning and \
                  ending with a letter or digit, with a DNS subdomain and '/' before it where needed".to_owned(),
    }
}

fn template_keys_are_not_reserved() -> Demand {
    let domains = RESERVED_DOMAINS.map(|domain| domain.replace('.', "[.]")).join("|");
    Demand {
        holds: format!(
            "self.all(k, k != '{MANAGED_BY_LABEL}' && (k.startsWith('{APP_DOMAIN}/') || \
             !k.matches('^([^/]*[.])?({domains})/')))"
        ),
        message: "a key in secretTemplate.metadata is reserved: the operator does not set keys of datakey.dev, kubernetes.io, \
                  k8s.io, argocd.argoproj.io, toolkit.fluxcd.io, helm.sh or their subdomains, nor \
                  app.kubernetes.io/managed-by. Other keys of app.kubernetes.io are possible".to_owned(),
    }
}

// === rules of the encryption context ===

pub(super) fn encryption_context() -> Rule {
    rule_of_new_values(&demands_on_a_context())
}

fn demands_on_a_context() -> Vec<Demand> {
    vec![
        context_keys_are_not_empty(),
        context_keys_are_not_reserved(),
        context_keys_differ_in_more_than_case(),
        context_fits(),
    ]
}

pub(super) fn context_keys_are_not_empty() -> Demand {
    Demand {
        holds: "self.all(k, size(k) > 0)".to_owned(),
        message: "an encryption context key must not be empty: give it a name".to_owned(),
    }
}

pub(super) fn context_keys_are_not_reserved() -> Demand {
    Demand {
        holds: "self.all(k, !k.matches('^(?i)(aws:|aws-crypto-)'))".to_owned(),
        message:
            "encryption context keys that begin with aws: or aws-crypto- are reserved for AWS services and the AWS \
                  Encryption SDK: choose another key"
                .to_owned(),
    }
}

/// Policies ignore the case of context keys; decryption does not.
pub(super) fn context_keys_differ_in_more_than_case() -> Demand {
    Demand {
        holds: "self.all(a, self.exists_one(b, a.lowerAscii() == b.lowerAscii()))".to_owned(),
        message: "two encryption context keys differ in case only, and IAM and key policies can't distinguish them: rename one".to_owned(),
    }
}

/// KMS documents no limit of its own; its protocol to external key stores plans for 8192 bytes
/// (AWS KMS External Key Store Proxy API Specification).
pub(super) fn context_fits() -> Demand {
    Demand {
        holds: "self.map(k, size(bytes(k)) + size(bytes(self[k]))).sum() <= 8192".to_owned(),
        message:
            "the encryption context is too long: its keys and values may have 8192 bytes together, in UTF-8. Shorten it"
                .to_owned(),
    }
}
