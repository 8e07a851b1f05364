//! Fields of an object that a newer release of the operator wrote, and that this release does not know. Pure.
//!
//! Every write keeps such fields. The operator does not decide without them: only the newer release knows what they mean for a
//! data key or its Secret.

use crate::{
    api::{IssuedVersion, Object},
    reason::{Failure, Reason},
    text::printable,
};

/// The number of fields that a message names.
const MAX_NAMES: usize = 5;

/// The longest name of a field in a message, in characters.
const MAX_NAME: usize = 200;

/// The failure for a recorded version with unknown fields: such a version must not be projected into a Secret.
pub fn in_the_record<'a>(object: impl Into<Object<'a>>) -> Option<Failure> {
    let newer = object.into().record().iter().find(|issued| issued.unknown_fields().next().is_some())?;
    let detail = format!("version {} has {}", newer.version, names(newer.unknown_fields()));
    Some(Failure::new(Reason::RecordNewer, detail))
}

/// The failure for a spec, or a pin that is not recorded yet, with unknown fields: no version may be issued, pinned or
/// adopted for it.
pub fn in_the_spec<'a>(object: impl Into<Object<'a>>) -> Option<Failure> {
    let object = object.into();
    let of_the_spec = object.spec.unknown_fields().map(|field| format!("spec.{field}"));
    let is_recorded = |pin: &IssuedVersion| object.recorded_version(pin.version).is_some();
    let of_pins =
        object.spec.pins.iter().enumerate().filter(|(_, pin)| !is_recorded(pin)).flat_map(|(number, pin)| {
            pin.unknown_fields().map(move |field| format!("spec.wrappedKeys[{number}].{field}"))
        });
    let mut fields = of_the_spec.chain(of_pins).peekable();
    fields.peek()?;
    Some(Failure::new(Reason::SpecNewer, names(fields)))
}

fn names(mut fields: impl Iterator<Item = String>) -> String {
    let named: Vec<_> = fields.by_ref().take(MAX_NAMES).map(|field| printable(&field, MAX_NAME)).collect();
    let more = fields.count();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api::{DataKey, with_recorded},
        condition,
        fixtures::{at, issued, pinned, recorded},
        secret::{self, Projection},
    };

    /// A version as a newer release records it.
    fn newer(version: i32) -> IssuedVersion {
        let mut newer = issued(version);
        newer.rest = [("madeBy".to_owned(), json!({ "keyId": "alias/short", "n": [1, null] }))].into();
        newer.request.rest = [("origin".to_owned(), json!("EXTERNAL"))].into();
        newer
    }

    #[test]
    fn unknown_fields_are_named() {
        let mut key = recorded(&[1]);
        assert_eq!((in_the_record(&key), in_the_spec(&key)), (None, None));
        key.status.as_mut().unwrap().versions.push(newer(2));
        let failure = Failure::new(Reason::RecordNewer, "version 2 has madeBy, request.origin");
        assert_eq!(in_the_record(&key), Some(failure));

        let mut key = pinned(&[1, 2]);
        key.spec.wrapped_keys = Some(vec![issued(1), newer(2)]);
        key.spec.rest = [("class\nName".to_owned(), json!("shop"))].into();
        let expected = "spec.class\\nName, spec.wrappedKeys[1].madeBy, spec.wrappedKeys[1].request.origin";
        assert_eq!(in_the_spec(&key), Some(Failure::new(Reason::SpecNewer, expected)));
        key.spec.rest = (0..70).map(|number| (format!("{number}-{}", "x".repeat(100_000)), json!(1))).collect();
        let detail = in_the_spec(&key).unwrap().detail.unwrap();
        assert!(detail.len() < 1200 && detail.ends_with("and 67 more"), "{detail}");
    }

    #[test]
    fn unknown_fields_of_a_recorded_pin_are_ignored() {
        let mut key = recorded(&[1]);
        key.spec.wrapped_keys = Some(vec![newer(1)]);
        assert_eq!(in_the_spec(&key), None);
    }

    #[test]
    fn unknown_fields_survive_json_status_and_pins() {
        let mut key = recorded(&[1]);
        let status = key.status.as_mut().unwrap();
        status.versions.push(newer(2));
        status.rest = [("inUse".to_owned(), json!({ "by": ["shop"] }))].into();
        let through: DataKey = serde_json::from_str(&serde_json::to_string(&key).unwrap()).unwrap();
        assert_eq!(through, key);
        for status in [
            condition::failed(&key, &Reason::AccessDenied.into(), at(1)),
            condition::ready(&key, &issued(1), None, at(1)),
            with_recorded(&key, vec![issued(3)]),
        ] {
            assert_eq!(status.versions[1], newer(2));
            assert_eq!(status.rest, key.status.as_ref().unwrap().rest);
        }
        let mut pin = pinned(&[1]);
        pin.spec.wrapped_keys = Some(vec![newer(1)]);
        assert_eq!(super::super::pins::unrecorded(&pin, None), Ok(vec![newer(1)]));
    }

    #[test]
    fn unknown_fields_survive_the_secret_and_adoption() {
        let mut key = recorded(&[1]);
        key.status.as_mut().unwrap().versions.push(newer(2));
        let secret = Projection::of(&key, 1).unwrap().into_secret(&key);
        let mut created_again = crate::fixtures::data_key();
        created_again.spec.version = Some(1);
        assert_eq!(secret::adopt(&created_again, &secret), Ok(vec![issued(1), newer(2)]));
    }

    #[test]
    fn annotation_cannot_repeat_a_known_field() {
        let created_again = crate::fixtures::data_key();
        let edits: [crate::fixtures::Edit<IssuedVersion>; 3] = [
            |version| version.rest = [("ciphertextBlob".to_owned(), json!("AQIDAHg="))].into(),
            |version| version.rest = [("version".to_owned(), json!(2))].into(),
            |version| version.request.rest = [("encryptionContext".to_owned(), json!({}))].into(),
        ];
        for edit in edits {
            let mut key = recorded(&[1]);
            edit(&mut key.status.as_mut().unwrap().versions[0]);
            let secret = Projection::of(&key, 1).unwrap().into_secret(&key);
            let why = secret::adopt(&created_again, &secret).unwrap_err().why;
            assert!(why.contains("the annotation of version 1"), "{why}");
        }
    }
}
