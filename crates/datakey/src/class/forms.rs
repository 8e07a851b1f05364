//! The forms that entries of a class have, and what they match.

use icu_normalizer::ComposingNormalizerBorrowed;

use crate::arn::{self, KmsArn};

/// Whether a name matches a pattern: it is the same, or begins with what the pattern has before its last `*`.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}

/// Whether this can be an entry of `namespaces`.
pub(super) fn is_namespace_pattern(pattern: &str) -> bool {
    let taken = |text: &str| text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    match pattern.strip_suffix('*') {
        Some("") => true,
        Some(beginning) => taken(beginning) && !beginning.starts_with('-') && beginning.len() < crate::names::MAX_LABEL,
        None => crate::names::is_label(pattern),
    }
}

/// Whether this can be an entry of `keyIds`: a form that KMS accepts, or such an alias that ends in `*`.
pub(super) fn is_key_pattern(pattern: &str) -> bool {
    let key_id = arn::example_of(pattern);
    let is_alias = arn::is_alias(&key_id) || KmsArn::parse(&key_id).is_some_and(|arn| !arn.is_key());
    let has_a_form = if pattern.ends_with('*') { is_alias } else { arn::has_known_form(pattern) };
    has_a_form && !arn::is_aws_managed(&key_id)
}

/// A text in which letters of both cases and all forms of a character are the same (Unicode normalization form KC): policies of AWS
/// ignore the case of context keys, and readers do not see the form.
pub(super) fn folded(text: &str) -> String {
    let normalizer = ComposingNormalizerBorrowed::new_nfkc();
    // Letters of one upper case can have several lower cases: the two forms of the Greek sigma, and the i without a dot. A sharp s
    // has several upper cases.
    let lower = normalizer.normalize(text).to_lowercase().to_uppercase().to_lowercase();
    normalizer.normalize(&lower).into_owned()
}
