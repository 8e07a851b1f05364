//! What makes a class unusable. Its rules in the definition are early feedback; an older definition, or one that was edited, can let
//! anything in. A class with a flaw allows nothing.

use std::collections::BTreeMap;

use super::forms::{folded, is_key_pattern, is_namespace_pattern, matches};
use crate::{
    api::{ClassAws, ClassContext, ClassLimits, DataKeyClassSpec, EncryptionContext, Mode, RequestFlaw, Rest},
    arn::{self, KmsArn, RoleArn},
    text::printable,
};

/// The longest name of an unknown field in a message, in characters.
const MAX_NAME: usize = 64;

/// The most tags of a session.
const MAX_TAGS: usize = 50;

/// The first flaw of a class, with the path of the field, and without values of others; `None` if it can be used.
pub(super) fn flaw(spec: &DataKeyClassSpec) -> Option<String> {
    unknown("spec", &spec.rest)
        .or_else(|| of_namespaces(&spec.namespaces))
        .or_else(|| spec.allow.is_empty().then(|| "spec.allow is empty: add what objects may ask for".to_owned()))
        .or_else(|| {
            spec.allow.iter().enumerate().find_map(|(number, entry)| of_entry(&format!("spec.allow[{number}]"), entry))
        })
        .or_else(|| of_defaults(spec))
        .or_else(|| spec.encryption_context.as_ref().and_then(of_context))
        .or_else(|| spec.aws.as_ref().and_then(of_aws))
}

/// A field that this release does not know can be a limit that a newer one enforces.
fn unknown(path: &str, rest: &Rest) -> Option<String> {
    let field = printable(rest.keys().next()?, MAX_NAME);
    Some(format!("{path}.{field}: this release of the operator does not know the field; use a newer one, or remove it"))
}

fn of_namespaces(namespaces: &[String]) -> Option<String> {
    let number = namespaces.iter().position(|pattern| !is_namespace_pattern(pattern))?;
    Some(format!(
        "spec.namespaces[{number}] is neither the name of a namespace nor the beginning of names followed by *"
    ))
}

fn of_entry(path: &str, entry: &ClassLimits) -> Option<String> {
    let first = |field: &str, list: &[String], holds: &dyn Fn(&str) -> bool, why: &str| {
        let number = list.iter().position(|value| !holds(value))?;
        Some(format!("{path}.{field}[{number}] {why}"))
    };
    let is_key_arn = |arn: &str| KmsArn::parse(arn).is_some_and(|arn| arn.is_key());
    let is_in_a_region = |key: &str| match (&entry.regions, KmsArn::parse(&arn::example_of(key))) {
        (Some(regions), Some(arn)) => regions.iter().any(|region| region == arn.region),
        _ => true,
    };
    let has_its_arn =
        |key: &str| entry.key_arns.as_ref().is_none_or(|arns| !is_key_arn(key) || arns.iter().any(|arn| arn == key));
    let arns = entry.key_arns.as_deref().unwrap_or_default();
    let elsewhere = "is in a Region that regions does not have";
    unknown(path, &entry.rest)
        .or_else(|| entry.key_ids.is_empty().then(|| format!("{path}.keyIds is empty: add KMS keys")))
        .or_else(|| {
            let why = "is no key ID, key ARN, alias name or alias ARN; only an alias may end in *, and alias/aws/... is never possible";
            first("keyIds", &entry.key_ids, &is_key_pattern, why)
        })
        .or_else(|| first("keyArns", arns, &is_key_arn, "is not the ARN of a KMS key"))
        .or_else(|| first("regions", entry.regions.as_deref().unwrap_or_default(), &arn::is_region, "is not the code of an AWS Region"))
        .or_else(|| first("keyIds", &entry.key_ids, &is_in_a_region, elsewhere))
        .or_else(|| first("keyArns", arns, &is_in_a_region, elsewhere))
        .or_else(|| first("keyIds", &entry.key_ids, &has_its_arn, "is an ARN that keyArns does not have"))
        .or_else(|| {
            let range = entry.number_of_bytes?;
            let is_right = 1 <= range.min && range.min <= range.max && range.max <= 1024;
            (!is_right).then(|| format!("{path}.numberOfBytes must have 1 <= min <= max <= 1024"))
        })
}

fn of_defaults(spec: &DataKeyClassSpec) -> Option<String> {
    let defaults = spec.defaults.as_ref()?;
    let region = defaults.region.as_deref();
    if let Some(flaw) = unknown("spec.defaults", &defaults.rest) {
        return Some(flaw);
    }
    if region.is_some_and(|region| !arn::is_region(region)) {
        return Some("spec.defaults.region is not the code of an AWS Region".to_owned());
    }
    let key_id = defaults.key_id.as_deref()?;
    if !arn::has_known_form(key_id) || arn::is_aws_managed(key_id) {
        return Some(
            "spec.defaults.keyId is no key ID, key ARN, alias name or alias ARN of a customer managed key".to_owned(),
        );
    }
    let named = KmsArn::parse(key_id).map(|arn| arn.region);
    if named.is_some() && region.is_some() {
        return Some("spec.defaults.region must be absent beside an ARN".to_owned());
    }
    let has_key = |entry: &&ClassLimits| {
        let of_this_form = |pattern: &&String| pattern.starts_with("arn:") == named.is_some();
        entry.key_ids.iter().filter(of_this_form).any(|pattern| matches(pattern, key_id))
    };
    // Without a Region here, that of the object or of the operator decides.
    let has_region = |entry: &ClassLimits| match (&entry.regions, named.or(region)) {
        (Some(regions), Some(region)) => regions.iter().any(|allowed| allowed == region),
        _ => true,
    };
    let is_allowed = spec.allow.iter().filter(has_key).any(has_region);
    (!is_allowed)
        .then(|| "spec.defaults.keyId, with spec.defaults.region, is allowed by no entry of spec.allow".to_owned())
}

fn of_context(context: &ClassContext) -> Option<String> {
    let mut seen = BTreeMap::new();
    let mut injected = EncryptionContext::new();
    for (number, pair) in context.pairs.iter().enumerate() {
        let path = format!("spec.encryptionContext.pairs[{number}]");
        if let Some(flaw) = unknown(&path, &pair.rest) {
            return Some(flaw);
        }
        let has_value = pair.value.is_some() || pair.value_from.is_some();
        if pair.value.is_some() && pair.value_from.is_some() {
            return Some(format!("{path} has value and valueFrom: remove one of them"));
        }
        if pair.mode == Mode::Inject && !has_value {
            return Some(format!("{path} has the mode Inject and needs value or valueFrom"));
        }
        if let Some(other) = seen.insert(folded(&pair.key), number) {
            return Some(format!(
                "{path}.key is that of pairs[{other}], or differs only in case or in the form of its characters"
            ));
        }
        injected.insert(pair.key.clone(), pair.value.clone().unwrap_or_default());
        if let Some(flaw) = RequestFlaw::of_context(&injected) {
            return Some(format!("{path}: {}", flaw.advice()));
        }
    }
    unknown("spec.encryptionContext", &context.rest)
}

/// The forms of AWS STS (API reference, `AssumeRole` and `Tag`). A class that STS would refuse in each call is refused here.
fn of_aws(aws: &ClassAws) -> Option<String> {
    if let Some(flaw) = unknown("spec.aws", &aws.rest) {
        return Some(flaw);
    }
    if RoleArn::parse(&aws.role_arn).is_none() {
        return Some("spec.aws.roleArn is not the ARN of an IAM role (arn:aws:iam::ACCOUNT:role/NAME)".to_owned());
    }
    let of_an_id = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&byte);
    let is_id = |id: &str| (2..=1224).contains(&id.len()) && id.bytes().all(of_an_id);
    if aws.external_id.as_deref().is_some_and(|id| !is_id(id)) {
        return Some("spec.aws.externalId must have 2 to 1224 letters, digits and characters of _+=,.@:/-".to_owned());
    }
    if aws.session_tags.len() > MAX_TAGS {
        return Some(format!("spec.aws.sessionTags has more than {MAX_TAGS} entries"));
    }
    let mut seen = BTreeMap::new();
    for (number, tag) in aws.session_tags.iter().enumerate() {
        let path = format!("spec.aws.sessionTags[{number}]");
        if let Some(flaw) = unknown(&path, &tag.rest) {
            return Some(flaw);
        }
        if tag.value.is_some() == tag.value_from.is_some() {
            return Some(format!("{path} needs either value or valueFrom"));
        }
        let is_text = |text: &str, most| text.chars().count() <= most && text.chars().all(is_of_a_tag);
        if tag.key.is_empty() || !is_text(&tag.key, 128) {
            return Some(format!("{path}.key must have 1 to 128 letters, digits, blanks and characters of _.:/=+-@"));
        }
        if tag.key.to_ascii_lowercase().starts_with("aws:") {
            return Some(format!("{path}.key begins with aws:, which is reserved for AWS: choose another key"));
        }
        if tag.value.as_deref().is_some_and(|value| !is_text(value, 256)) {
            return Some(format!(
                "{path}.value must have at most 256 letters, digits, blanks and characters of _.:/=+-@"
            ));
        }
        if let Some(other) = seen.insert(folded(&tag.key), number) {
            return Some(format!(
                "{path}.key is that of sessionTags[{other}], or differs only in case or in the form of its characters"
            ));
        }
    }
    None
}

/// Whether a session tag may have a character. Close to `[\p{L}\p{Z}\p{N}_.:/=+\-@]` of STS: of the blanks only the usual one,
/// because the others look the same to a reader; the definition has the exact letters.
fn is_of_a_tag(character: char) -> bool {
    character.is_alphanumeric() || " _.:/=+-@".contains(character)
}
