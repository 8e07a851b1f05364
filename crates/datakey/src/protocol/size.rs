//! Sizes of the Secret and of the object: whether Kubernetes can store them with further versions. Pure.
//!
//! A dry run does not detect an excess: the limit of etcd applies when an object is stored, and the Secret is written only
//! after the record, which is never undone. So the operator computes the sizes before it calls KMS, and before it records a
//! pin or an adopted version.

use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    api::{IssuedVersion, MAX_BLOB, Object, Rest, ToJson, with_recorded},
    arn,
    class::Ask,
    public_key::MAX_PUBLIC_KEY,
    reason::{Failure, Reason},
    secret::Projection,
};

/// The largest total of the values of a Secret's `data`, in bytes (Kubernetes API reference, `Secret`: 1 MiB).
const MAX_SECRET: usize = 1 << 20;

/// The largest total of the operator's annotations on the Secret, keys and values, in bytes. Kubernetes allows 256 KiB for each
/// object; an eighth is left for annotations of other clients, which are not known here.
const MAX_ANNOTATIONS: usize = (256 << 10) / 8 * 7;

/// The largest spec and status of an object, in bytes. etcd accepts requests of 1.5 MiB by default (`--max-request-bytes`);
/// a third is left for the metadata, which are not known here.
const MAX_OBJECT: usize = 1 << 20;

/// The largest object with its metadata that etcd stores, in bytes; the request around it has the rest of the 1.5 MiB.
pub const MAX_STORED: usize = (3 << 19) - 1024;

/// The number of versions, recorded and pinned, that always fit: each has at most 8192 bytes of encryption context, and JSON
/// makes them at most six times as long; a public key has at most 8192 bytes, too.
const FEW: usize = 6;

/// The failure if the Secret or the object would be too large with these versions in the record.
pub fn excess(object: Object<'_>, versions: &[IssuedVersion]) -> Option<Failure> {
    let count = object.record().len() + object.spec.pins.len() + versions.len();
    let mut entries = object.record().iter().chain(object.spec.pins).chain(versions);
    // A class can make a second copy of the encryption context.
    let is_usual = |entry: &IssuedVersion| entry.as_written.is_none() && entry.unknown_fields().next().is_none();
    if count <= FEW && object.spec.rest.is_empty() && entries.all(is_usual) {
        return None;
    }
    let status = with_recorded(object, versions.to_vec());
    let larger = Object { status: Some(&status), ..object };
    let current = larger.recorded_version(object.wanted_version()).or_else(|| larger.record().last())?.version;
    let Projection { data, annotations, .. } = Projection::of(larger, current)?;
    let annotations: usize = annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    let bounds = [
        ("the data of the Secret".to_owned(), data.values().map(|value| value.0.len()).sum(), MAX_SECRET),
        ("the annotations of the Secret".to_owned(), annotations, MAX_ANNOTATIONS),
        (format!("the {}", object.kind.name), stored(larger), MAX_OBJECT),
    ];
    let (what, size, max) = bounds.into_iter().find(|(_, size, max)| size > max)?;
    Some(Failure::new(Reason::SecretTooLarge, format!("{what} would have {size} bytes; at most {max} are possible")))
}

/// The largest version that KMS can issue for what it is asked. Its time is the beginning of 1970.
pub fn largest<'a>(object: impl Into<Object<'a>>, ask: &Ask, own_region: Option<&str>) -> IssuedVersion {
    let object = object.into();
    let Ask { request, as_written, class, .. } = ask;
    let region = arn::resolve_region(&request.key_id, request.region.as_deref(), own_region).unwrap_or_default();
    IssuedVersion {
        version: object.wanted_version(),
        key_id: format!("arn:aws:kms:{region}:000000000000:key/mrk-00000000000000000000000000000000"),
        ciphertext_blob: ByteString(vec![0; MAX_BLOB]),
        public_key: request.key_pair_spec.map(|_| ByteString(vec![0; MAX_PUBLIC_KEY])),
        key_material_id: Some("0".repeat(64)),
        issued_at: Time(Timestamp::UNIX_EPOCH),
        request_id: Some("00000000-0000-0000-0000-000000000000".to_owned()),
        rest: Rest::new(),
        request: request.clone(),
        as_written: as_written.clone(),
        class: class.clone(),
        rewrap_of: None,
    }
}

/// The size of the spec and the status in etcd, in bytes, at most. The API server writes JSON with Go's encoder,
/// which escapes more than serde does: `<`, `>`, `&`, U+2028 and U+2029 become six bytes, and before Go 1.22 so did U+0008 and
/// U+000C.
fn stored(object: Object<'_>) -> usize {
    let json = [object.spec.whole.to_json(), object.status.map(ToJson::to_json).unwrap_or_default()];
    let longer = |json: &String| -> usize {
        let html = json.bytes().filter(|byte| b"<>&".contains(byte)).count() * 5;
        let separators = json.matches(['\u{2028}', '\u{2029}']).count() * 3;
        let short_escapes = (json.matches(r"\b").count() + json.matches(r"\f").count()) * 4;
        html + separators + short_escapes
    };
    json.iter().map(|json| json.len() + longer(json)).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api::{DataKey, EncryptionContext},
        fixtures::{data_key, issued, pinned, recorded},
    };

    /// This version with an encryption context of the largest size, all of one character.
    fn with_context(mut issued: IssuedVersion, character: char) -> IssuedVersion {
        let value = String::from(character).repeat(8191 / character.len_utf8());
        issued.request.encryption_context = Some(EncryptionContext::from([("a".to_owned(), value)]));
        issued
    }

    fn all(count: i32, character: char) -> DataKey {
        let mut key = data_key();
        let versions = (1..=count).map(|version| with_context(issued(version), character)).collect();
        key.status = Some(with_recorded(&key, versions));
        key.spec.version = Some(count + 1);
        key
    }

    fn largest_count(character: char) -> i32 {
        let fits = |count: &i32| {
            let largest = IssuedVersion { ciphertext_blob: ByteString(vec![0; MAX_BLOB]), ..issued(*count + 1) };
            excess((&all(*count, character)).into(), &[with_context(largest, character)]).is_none()
        };
        (0..64).take_while(fits).count().try_into().unwrap()
    }

    #[test]
    fn json_escapes_limit_how_many_versions_fit() {
        // The Secret is the limit: it has the current version twice.
        assert_eq!(largest_count('\u{1}'), 20);
        // The DataKey is the limit: the operator writes these characters into the Secret without escapes.
        assert_eq!(largest_count('<'), 21);
        assert_eq!(largest_count('\u{8}'), 21);
        assert!(largest_count('x') > 60);
    }

    #[test]
    fn few_versions_always_fit() {
        let count = i32::try_from(FEW).unwrap();
        let mut key = all(count - 2, '\u{1}');
        key.spec.grant_tokens = Some(vec!["\u{1}".repeat(8192); 10]);
        key.spec.encryption_context = with_context(issued(1), '\u{1}').request.encryption_context;
        let mut pin = with_context(issued(count - 1), '\u{1}');
        pin.ciphertext_blob = ByteString(vec![0; MAX_BLOB]);
        key.spec.wrapped_keys = Some(vec![pin.clone()]);
        let mut larger = key.clone();
        larger.status = Some(with_recorded(&key, vec![pin]));
        assert!(stored((&larger).into()) < MAX_OBJECT, "{}", stored((&larger).into()));
    }

    #[test]
    fn error_names_the_object_that_is_too_large() {
        let detail = |key: &DataKey, versions: &[IssuedVersion]| {
            let failure = excess(key.into(), versions).unwrap();
            assert_eq!(failure.reason, Reason::SecretTooLarge);
            failure.detail.unwrap()
        };
        let next = with_context(issued(22), '\u{1}');
        assert!(
            detail(&all(21, '\u{1}'), std::slice::from_ref(&next)).starts_with("the data of the Secret would have")
        );

        // A recorded pin is in the DataKey twice, and in the Secret once.
        let mut key = pinned(&[]);
        let pins: Vec<_> = (1..=14).map(|version| with_context(issued(version), '\u{1}')).collect();
        key.spec.wrapped_keys = Some(pins.clone());
        assert!(detail(&key, &pins).starts_with("the DataKey would have"));

        // Unknown fields have no bound, so their size counts also with few versions.
        let mut key = recorded(&[1]);
        key.spec.version = Some(2);
        let mut newer = issued(2);
        newer.rest = [("note".to_owned(), json!("x".repeat(MAX_ANNOTATIONS)))].into();
        assert!(detail(&key, &[newer]).starts_with("the annotations of the Secret would have"));
    }
}
