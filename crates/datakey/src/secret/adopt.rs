//! Adoption: the record rebuilt from a Secret.

use k8s_openapi::api::core::v1::Secret;

use super::{
    conflict::{Conflict, Obstacle},
    ownership::{foreign_reason, unlabeled_reason},
    projection::entries,
    reader::{current_version, entry, parse_version, version_numbers},
};
use crate::{
    api::{IssuedVersion, Object, flaws::twins},
    arn::{self, KmsArn},
};

/// Rebuilds the record of an object from its Secret, after the object was re-created or restored without its status.
///
/// # Errors
/// Why the Secret can't belong to this object. Every version must be complete, and the version that the spec makes current,
/// if the Secret holds it, must match the spec.
pub fn adopt<'a>(object: impl Into<Object<'a>>, secret: &Secret) -> Result<Vec<IssuedVersion>, Conflict> {
    let object = object.into();
    let noun = object.kind.noun;
    if let Some(why) = foreign_reason(object, secret).or_else(|| unlabeled_reason(object, secret)) {
        return Err(why);
    }
    let numbers = version_numbers(secret);
    let damaged = |why: String| Obstacle::Damaged.because(why);
    let versions =
        numbers.iter().map(|&version| parse_version(object.kind, secret, version)).collect::<Result<Vec<_>, _>>();
    let versions = versions.map_err(damaged)?;
    let Some(plain) = current_version(secret).and_then(|plain| versions.iter().find(|found| found.version == plain))
    else {
        return Err(damaged("its entry version names no version that it holds".to_owned()));
    };
    if entries(plain, "").iter().any(|(name, value)| entry(secret, name) != Some(value)) {
        return Err(damaged(format!("its plain entries differ from those of version {}", plain.version)));
    }
    for found in &versions {
        let request = &found.request;
        let region = arn::resolve_region(&request.key_id, request.region.as_deref(), None);
        let answered = KmsArn::parse(&found.key_id).map_or("", |arn| arn.region);
        if !arn::may_answer(&request.key_id, region.unwrap_or(answered), &found.key_id) {
            return Err(damaged(format!(
                "keyId of version {} is not the ARN of the key that was asked for",
                found.version
            )));
        }
    }
    if let Some((one, other)) = twins(&versions) {
        return Err(damaged(format!("its versions {one} and {other} are the same {noun}")));
    }
    match versions.iter().find(|found| found.version == object.wanted_version()) {
        Some(found) if !found.written().is_same_request(object.spec.request) => {
            let both = found.written().differing_values("the Secret", object.spec.request, "the spec");
            let why =
                format!("its {noun} version {} was asked for with other settings: {}", found.version, both.join(", "));
            Err(Obstacle::OtherSettings.because(why))
        }
        _ => Ok(versions),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;
    use crate::{
        api::{EncryptionContext, Rest, RewrapOf, flaws::tests::FLAWS},
        fixtures::{Edit, OTHER_REQUESTS, data_key, issued, recorded},
        names::{NAME_LABEL, VERSION_ANNOTATION_PREFIX},
        secret::Projection,
    };

    fn secret(versions: &[i32]) -> Secret {
        let key = recorded(versions);
        Projection::of(&key, key.wanted_version()).unwrap().into_secret(&key)
    }

    fn data(secret: &mut Secret) -> &mut BTreeMap<String, ByteString> {
        secret.data.as_mut().unwrap()
    }

    fn bytes(text: &str) -> ByteString {
        ByteString(text.as_bytes().to_vec())
    }

    fn annotations(secret: &mut Secret) -> &mut BTreeMap<String, String> {
        secret.metadata.annotations.as_mut().unwrap()
    }

    #[test]
    fn adoption_rebuilds_the_record_exactly() {
        assert_eq!(adopt(&data_key(), &secret(&[1])), Ok(vec![issued(1)]));
        let mut key = data_key();
        key.spec.version = Some(2);
        assert_eq!(adopt(&key, &secret(&[1, 2])), Ok(vec![issued(1), issued(2)]));
    }

    #[test]
    fn earlier_versions_are_adopted_when_the_spec_wants_a_new_one() {
        let mut key = data_key();
        key.spec.version = Some(3);
        key.spec.key_id = Some("alias/new".to_owned());
        assert_eq!(adopt(&key, &secret(&[1, 2])).map(|versions| versions.len()), Ok(2));
    }

    #[test]
    fn adoption_treats_an_empty_context_as_absent() {
        let mut key = recorded(&[1]);
        key.status.as_mut().unwrap().versions[0].request.encryption_context = None;
        let secret = Projection::of(&key, 1).unwrap().into_secret(&key);
        let mut created = data_key();
        created.spec.encryption_context = Some(EncryptionContext::new());
        assert!(adopt(&created, &secret).is_ok());
    }

    #[test]
    fn corrupted_secret_is_not_adopted() {
        let edits: [(Edit<Secret>, &str); 12] = [
            (|secret| secret.type_ = None, "type"),
            (|secret| secret.metadata.labels = None, "labels"),
            (|secret| _ = secret.metadata.labels.as_mut().unwrap().insert(NAME_LABEL.into(), "x".into()), "DataKey x"),
            (|secret| _ = data(secret).insert("ciphertextBlob.v1".into(), bytes("x")), "ciphertextBlob of version 1"),
            (|secret| _ = data(secret).remove("ciphertextBlob.v1"), "ciphertextBlob of version 1"),
            (|secret| _ = data(secret).insert("ciphertextBlob".into(), bytes("x")), "plain entries"),
            (|secret| _ = data(secret).insert("keyId.v1".into(), bytes("alias/orders")), "keyId of version 1"),
            (|secret| _ = data(secret).remove("keySpec.v1"), "keySpec or numberOfBytes"),
            (|secret| _ = data(secret).insert("encryptionContext.v1".into(), bytes("{")), "encryptionContext"),
            (|secret| _ = data(secret).insert("version".into(), bytes("2")), "entry version"),
            (
                |secret| _ = annotations(secret).remove(&format!("{VERSION_ANNOTATION_PREFIX}1")),
                "annotation of version 1",
            ),
            (|secret| secret.data = None, "ciphertextBlob of version 1"),
        ];
        for (edit, why) in edits {
            let mut secret = secret(&[1]);
            edit(&mut secret);
            let refusal = adopt(&data_key(), &secret).unwrap_err().why;
            assert!(refusal.contains(why), "expected {why}, but: {refusal}");
        }
    }

    #[test]
    fn version_that_cannot_be_recorded_is_not_adopted() {
        // The Secret can't express these two flaws.
        let expressed = FLAWS.into_iter().filter(|(_, words)| !["version must", "exactly one"].contains(words));
        for (edit, words) in expressed {
            let mut key = recorded(&[1]);
            edit(&mut key.status.as_mut().unwrap().versions[0]);
            let refusal = adopt(&data_key(), &Projection::of(&key, 1).unwrap().into_secret(&key)).unwrap_err().why;
            let earlier =
                ["keyId", "ciphertextBlob"].map(|field| format!("{field} of version 1 is missing or was changed"));
            assert!(refusal.contains(words) || earlier.contains(&refusal), "{words}: {refusal}");
            assert!(!refusal.chars().any(char::is_control), "{refusal:?}");
        }
    }

    #[test]
    fn rewrap_of_survives_adoption() {
        let mut key = recorded(&[1, 2]);
        let rewrap_of = RewrapOf { version: 1, request_id: Some("request".to_owned()), rest: Rest::new() };
        key.status.as_mut().unwrap().versions[1].rewrap_of = Some(rewrap_of);
        let secret = || Projection::of(&key, 2).unwrap().into_secret(&key);
        assert_eq!(secret().data.unwrap()["rewrapOf.v2"], bytes("1"));
        assert_eq!(secret().data.unwrap()["rewrapOf"], bytes("1"));
        let mut created = data_key();
        created.spec.version = Some(2);
        assert_eq!(adopt(&created, &secret()), Ok(key.record().to_vec()));
        for other in [None, Some("2"), Some("x")] {
            let mut changed = secret();
            data(&mut changed).remove("rewrapOf.v2");
            data(&mut changed).extend(other.map(|other| ("rewrapOf.v2".to_owned(), bytes(other))));
            assert_eq!(adopt(&created, &changed).unwrap_err().why, "rewrapOf of version 2 is missing or was changed");
        }
    }

    #[test]
    fn duplicate_data_keys_are_not_adopted() {
        let mut key = recorded(&[1, 2]);
        key.status.as_mut().unwrap().versions[1].ciphertext_blob = issued(1).ciphertext_blob;
        let secret = Projection::of(&key, 2).unwrap().into_secret(&key);
        let mut created = data_key();
        created.spec.version = Some(2);
        assert_eq!(adopt(&created, &secret).unwrap_err().why, "its versions 1 and 2 are the same data key");
    }

    #[test]
    fn secret_that_does_not_match_the_spec_is_not_adopted() {
        for (change, field) in OTHER_REQUESTS {
            let mut key = data_key();
            change(&mut key);
            let Conflict { why, obstacle } = adopt(&key, &secret(&[1])).unwrap_err();
            assert!(why.contains(&format!("{field} ")), "{why}");
            assert_eq!(obstacle, Obstacle::OtherSettings);
        }
    }

    #[test]
    fn arn_of_another_key_is_not_adopted() {
        let mut key = recorded(&[1]);
        let version = &mut key.status.as_mut().unwrap().versions[0];
        version.request.key_id = crate::fixtures::ARN.replace("1234abcd", "99999999");
        let secret = Projection::of(&key, 1).unwrap().into_secret(&key);
        let mut created = data_key();
        created.spec.key_id = Some(crate::fixtures::ARN.replace("1234abcd", "99999999"));
        assert!(adopt(&created, &secret).unwrap_err().why.contains("not the ARN"));
    }
}
