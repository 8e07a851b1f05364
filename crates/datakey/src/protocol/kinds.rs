//! What holds for every kind, from the call to KMS to adoption: each test runs for all of them.

use std::sync::Arc;

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde_json::json;

use super::{Answer, Attempt, Inputs, Rival, Step, Unrecorded, newer, pins};
use crate::{
    api::{DataKey, DataKeyPair, IssuedVersion, KeyKind, READY, with_recorded},
    condition::find,
    decode::Encoded,
    fixtures::{Edit, Sample, at, data_key, issued, pinned, public_key_of, recorded},
    names::NAME_LABEL,
    reason::Reason,
    secret::{
        Projection, adopt,
        compare::{Comparison, compare},
        conflict::Obstacle,
        digest::{Digest, sha256},
        known::{KnownSecret, Verified},
        metadata::SecretMetadata,
    },
};

/// Tests that take the kind as their parameter.
macro_rules! for_each_kind {
    ($($test:ident,)*) => {
        mod data_keys {
            $(#[test] fn $test() { super::$test::<super::DataKey>(); })*
        }
        mod key_pairs {
            $(#[test] fn $test() { super::$test::<super::DataKeyPair>(); })*
        }
    };
}

for_each_kind! {
    new_object_is_issued_with_a_secret_of_its_type,
    unchanged_object_survives_json,
    adoption_rebuilds_the_record_exactly,
    edited_secret_is_restorable,
    pins_are_recorded_as_they_are,
    unknown_fields_are_kept_and_named,
    spec_with_other_settings_adopts_nothing,
}

type Whole<K> = Attempt<Arc<K>>;

fn next<K: KeyKind>(attempt: &Whole<K>) -> Step {
    attempt.next(Inputs::default(), Timestamp::UNIX_EPOCH)
}

fn like<K: Sample>(key: &DataKey) -> K {
    K::like(key)
}

/// The Secret of the counterpart of this `DataKey`.
fn secret_like<K: Sample>(key: &DataKey) -> Secret {
    let key = like::<K>(key);
    let wanted = key.as_object().wanted_version();
    Projection::of(&key, wanted).unwrap().into_secret(&key)
}

/// Takes the step as a cluster would that has no other client, and returns the Secret if it created one.
fn carry_out<K: Sample>(attempt: &mut Whole<K>, step: Step) -> Option<Secret> {
    let store = |status| Answer::Stored(Arc::new(attempt.object().with_status(status)));
    let (answer, secret) = match step {
        Step::AcquirePermit(_) => (Answer::Permit, None),
        Step::GetSecretMetadata => (Answer::Metadata(None), None),
        Step::CallKms(ask) => {
            let version = K::version_like(&issued(1));
            (Answer::Issued(Unrecorded { version, identity: ask.identity }), None)
        }
        Step::Record(record) => (store(record.status(attempt.object())), None),
        Step::PutStatus(status) => (store(*status), None),
        Step::CreateSecret(secret) => {
            let verified = Some(Verified::written(Digest::of(&secret)));
            let metadata = SecretMetadata::of(&secret.metadata);
            (Answer::Revision(KnownSecret { metadata, verified }), Some(*secret))
        }
        step => panic!("{step:?}"),
    };
    attempt.learn(answer).unwrap();
    secret
}

fn new_object_is_issued_with_a_secret_of_its_type<K: Sample>() {
    let mut key = data_key();
    key.spec.deletion_policy = Some(crate::api::DeletionPolicy::Delete);
    key.metadata.creation_timestamp = Some(Time(at(0)));
    let mut attempt = Whole::new(Arc::new(like::<K>(&key)), None);
    let mut created = None;
    loop {
        match next(&attempt) {
            Step::Settled => break,
            // Only the identifying metadata come back from a write here.
            step => created = carry_out(&mut attempt, step).or(created),
        }
    }
    let (object, secret) = (attempt.object(), created.unwrap());
    assert_eq!(object.as_object().record(), [K::version_like(&issued(1))]);
    let message = &find(object, READY).unwrap().message;
    assert_eq!(*message, format!("Secret orders holds {} version 1", K::KIND.noun));
    assert_eq!(secret.type_.as_deref(), Some(K::KIND.secret_type));
    assert_eq!(
        secret,
        secret_like::<K>(&{
            let mut recorded = recorded(&[1]);
            recorded.spec.deletion_policy = key.spec.deletion_policy;
            recorded
        })
    );
}

fn unchanged_object_survives_json<K: Sample>() {
    for key in [data_key(), recorded(&[1, 2]), pinned(&[1])] {
        let key = like::<K>(&key);
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<Encoded>(&text).unwrap().decode::<K>(), Ok(key));
    }
}

fn adoption_rebuilds_the_record_exactly<K: Sample>() {
    let versions = [1, 2].map(|version| K::version_like(&issued(version)));
    let mut wanted = data_key();
    wanted.spec.version = Some(2);
    assert_eq!(adopt(&like::<K>(&wanted), &secret_like::<K>(&recorded(&[1, 2]))), Ok(versions.into()));
}

fn edited_secret_is_restorable<K: Sample>() {
    let key = like::<K>(&recorded(&[1, 2]));
    let wanted = Projection::of(&key, 2).unwrap();
    let secret = wanted.clone().into_secret(&key);
    assert_eq!(compare(&key, &wanted, &secret), Comparison::InSync);
    for entry in secret.data.clone().unwrap().into_keys() {
        let mut edited = secret.clone();
        edited.data.as_mut().unwrap().insert(entry.clone(), ByteString(b"x".to_vec()));
        assert_eq!(compare(&key, &wanted, &edited), Comparison::Restorable, "{entry}");
        assert_eq!(wanted.clone().restore_into(edited), secret);
    }
}

fn pins_are_recorded_as_they_are<K: Sample>() {
    let key = like::<K>(&pinned(&[1, 2]));
    let versions = [1, 2].map(|version| K::version_like(&issued(version)));
    assert_eq!(pins::unrecorded(&key, None), Ok(versions.into()));
    let recorded = key.with_status(with_recorded(&key, pins::unrecorded(&key, None).unwrap()));
    assert_eq!(pins::unrecorded(&recorded, None), Ok(Vec::new()));
}

fn unknown_fields_are_kept_and_named<K: Sample>() {
    let mut key = recorded(&[1]);
    let version = &mut key.status.as_mut().unwrap().versions[0];
    version.rest = [("madeBy".to_owned(), json!({ "keyId": "alias/short" }))].into();
    version.request.rest = [("origin".to_owned(), json!("EXTERNAL"))].into();
    let key = like::<K>(&key);
    let failure = newer::in_the_record(&key).unwrap();
    assert_eq!(failure.detail.as_deref(), Some("version 1 has madeBy, request.origin"));
    let secret = Projection::of(&key, 1).unwrap().into_secret(&key);
    assert_eq!(adopt(&like::<K>(&data_key()), &secret).as_deref(), Ok(key.as_object().record()));
}

fn spec_with_other_settings_adopts_nothing<K: Sample>() {
    for (edit, fields) in crate::fixtures::OTHER_REQUESTS {
        let mut key = data_key();
        edit(&mut key);
        let refused = adopt(&like::<K>(&key), &secret_like::<K>(&recorded(&[1]))).unwrap_err();
        let is_named = refused.why.contains(fields) || fields == "keySpec" && refused.why.contains("keyPairSpec");
        assert!(is_named && refused.obstacle == Obstacle::OtherSettings, "{}", refused.why);
    }
}

#[test]
fn kinds_do_not_adopt_the_secrets_of_each_other() {
    for (refused, of) in [
        (adopt(&like::<DataKey>(&data_key()), &secret_like::<DataKeyPair>(&recorded(&[1]))), "DataKeyPair"),
        (adopt(&like::<DataKeyPair>(&data_key()), &secret_like::<DataKey>(&recorded(&[1]))), "DataKey"),
    ] {
        let conflict = refused.unwrap_err();
        assert_eq!(conflict.why, format!("it belongs to {of} orders"));
        assert_eq!(conflict.obstacle, Obstacle::OtherKind);
    }
}

#[test]
fn name_that_another_kind_reserves_is_a_conflict() {
    let attempt = Whole::new(Arc::new(like::<DataKeyPair>(&data_key())), None);
    let rival = Some(Rival { kind: DataKey::KIND, name: "orders" });
    let step = attempt.next(Inputs { rival, ..Inputs::default() }, at(0));
    let Step::ReportFailure(failure) = step else { panic!("{step:?}") };
    assert_eq!(failure.reason, Reason::SecretConflict);
    let detail = failure.detail.unwrap();
    assert_eq!(detail, "Secret orders: it belongs to DataKey orders, which has recorded a data key for it");
}

#[test]
fn secret_of_a_pair_holds_the_public_key_as_pem() {
    let secret = secret_like::<DataKeyPair>(&recorded(&[1, 2]));
    let data = secret.data.unwrap();
    let text = |entry: &str| std::str::from_utf8(&data[entry].0).unwrap();
    assert_eq!(text("keyPairSpec"), "ECC_NIST_P256");
    assert!(text("publicKey").starts_with("-----BEGIN PUBLIC KEY-----\n"), "{}", text("publicKey"));
    assert_eq!(text("publicKey"), text("publicKey.v2"));
    assert_ne!(text("publicKey"), text("publicKey.v1"));
    assert_eq!(data.len(), 6 + 2 * 5);
}

#[test]
fn corrupted_public_key_is_not_adopted() {
    let edits: [(Edit<Secret>, &str); 4] = [
        (|secret| entry(secret, "publicKey.v1", Some("x")), "publicKey of version 1 is missing or was changed"),
        (|secret| entry(secret, "publicKey.v1", None), "publicKey of version 1 is missing or was changed"),
        (|secret| entry(secret, "keyPairSpec.v1", Some("AES_256")), "keyPairSpec of version 1 is missing"),
        (|secret| entry(secret, "keyPairSpec.v1", Some("RSA_2048")), "publicKey is not a public key of the kind"),
    ];
    for (edit, why) in edits {
        let mut secret = secret_like::<DataKeyPair>(&recorded(&[1]));
        edit(&mut secret);
        let refused = adopt(&like::<DataKeyPair>(&data_key()), &secret).unwrap_err();
        assert!(refused.why.contains(why), "expected {why}, but: {}", refused.why);
    }
}

fn entry(secret: &mut Secret, name: &str, value: Option<&str>) {
    let data = secret.data.as_mut().unwrap();
    match value {
        Some(value) => _ = data.insert(name.to_owned(), ByteString(value.as_bytes().to_vec())),
        None => _ = data.remove(name),
    }
}

#[test]
fn pin_with_another_public_key_is_a_conflict() {
    let mut key = like::<DataKeyPair>(&recorded(&[1]));
    let pin = |public_key| IssuedVersion { public_key, ..DataKeyPair::version_like(&issued(1)) };
    key.spec.wrapped_keys = Some(vec![pin(Some(public_key_of(2)))]);
    let failure = pins::unrecorded(&key, None).unwrap_err();
    assert_eq!(
        (failure.reason, failure.detail.as_deref()),
        (Reason::PinConflict, Some("version 1 differs: publicKey"))
    );
    key.status = None;
    key.spec.wrapped_keys = Some(vec![pin(None)]);
    assert_eq!(pins::unrecorded(&key, None).unwrap_err().reason, Reason::PinInvalid);
}

#[test]
fn status_of_a_pair_has_the_checksum_of_its_public_key() {
    let key = like::<DataKeyPair>(&recorded(&[1]));
    let status = crate::condition::ready(&key, &key.as_object().record()[0], None, at(1));
    assert_eq!(status.public_key_sha256, Some(sha256(&public_key_of(1).0)));
    assert_eq!(crate::condition::ready(&data_key(), &issued(1), None, at(1)).public_key_sha256, None);
}

#[test]
fn label_names_the_object_within_its_kind() {
    let pair = secret_like::<DataKeyPair>(&recorded(&[1]));
    assert_eq!(pair.metadata.labels.unwrap()[NAME_LABEL], "orders");
}
