//! What a Secret that was read whole tells: whether it holds what the record says, may be put right, must not be
//! touched, or can become the record again. Pure.
//!
//! A Secret that may hold other data keys than the recorded ones is never overwritten: somebody's data may be encrypted
//! under them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::{ISSUED, MANAGED_BY, MANAGER, NAME, Projection, Provenance, TYPE, VERSION, digest::Digest, sha256};
use crate::{
    api::{DataKey, EncryptionContext, IssuedVersion, KeyRequest, KeySpec, MAX_BLOB},
    arn::{self, KmsArn},
    flaws::{flaw, twins},
    template::Own,
    text::printable,
};

/// How a Secret that was read stands to the record.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It holds what it should.
    Same,
    /// Something of it was changed, or the record grew: it may be put as it should be.
    PutRight,
    /// It must not be touched; the text says why.
    Conflict(String),
}

/// Compares a Secret with the projection of a record that is not empty.
pub fn compare(key: &DataKey, wanted: &Projection, secret: &Secret) -> Verdict {
    match contradiction(key, secret) {
        Some(Contradiction::NotOurs(why)) => Verdict::Conflict(why),
        Some(Contradiction::Beyond(version)) => Verdict::Conflict(format!(
            "it holds data key version {version}, which status.versions does not have; to take over what the Secret \
             holds, delete this DataKey under deletionPolicy Retain and create it again"
        )),
        Some(Contradiction::Another(version)) => {
            Verdict::Conflict(format!("it holds another data key as version {version}"))
        }
        None if Digest::of(secret) == wanted.digest() => Verdict::Same,
        None => Verdict::PutRight,
    }
}

/// Why a Secret must not be overwritten with what a record that is not empty says.
pub(crate) enum Contradiction {
    /// It is somebody else's; the text says why.
    NotOurs(String),
    /// It may hold a data key of this version, and the record has none.
    Beyond(i32),
    /// It may hold another data key of this version.
    Another(i32),
}

/// What of a Secret the record contradicts.
pub(crate) fn contradiction(key: &DataKey, secret: &Secret) -> Option<Contradiction> {
    if let Some(why) = not_ours(key, secret) {
        return Some(Contradiction::NotOurs(why));
    }
    versions_in(secret).into_iter().find_map(|version| another_data_key(key, secret, version))
}

/// What a Secret may hold as this version that no record has. Only where the checksum beside it vouches for the recorded
/// data key is it certain that the bytes are somebody's edit, and no loss.
fn another_data_key(key: &DataKey, secret: &Secret, version: i32) -> Option<Contradiction> {
    let blob = entry(secret, &format!("ciphertextBlob.v{version}"))?;
    if !(1..=MAX_BLOB).contains(&blob.0.len()) {
        return None;
    }
    let Some(issued) = key.issued(version) else {
        return Some(Contradiction::Beyond(version));
    };
    let vouched =
        || provenance_in(secret, version).is_some_and(|found| found.sha256 == sha256(&issued.ciphertext_blob.0));
    let differs = *blob != issued.ciphertext_blob && !vouched();
    differs.then_some(Contradiction::Another(version))
}

/// Rebuilds the record from the Secret of a `DataKey` that has none: re-created, or restored without its status.
///
/// # Errors
/// Why the Secret can't be this `DataKey`'s. Every version must be whole, and the one that the spec makes current, if it
/// is there, must answer the spec.
pub fn adopt(key: &DataKey, secret: &Secret) -> Result<Vec<IssuedVersion>, String> {
    if let Some(why) = not_ours(key, secret) {
        return Err(why);
    }
    let label = |name: &str| secret.metadata.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
    if label(MANAGED_BY) != Some(MANAGER) || label(NAME) != key.metadata.name.as_deref() {
        return Err(format!("it lacks the labels {MANAGED_BY}={MANAGER} and {NAME} of this DataKey"));
    }
    let numbers = versions_in(secret);
    let versions: Vec<_> = numbers.iter().map(|&version| version_in(secret, version)).collect::<Result<_, _>>()?;
    let Some(plain) = plain_version(secret).and_then(|plain| versions.iter().find(|found| found.version == plain))
    else {
        return Err("its entry version names no version that it holds".to_owned());
    };
    if super::entries(plain, "").iter().any(|(name, value)| entry(secret, name) != Some(value)) {
        return Err(format!("its plain entries differ from those of version {}", plain.version));
    }
    for found in &versions {
        let request = &found.request;
        let region = arn::resolve_region(&request.key_id, request.region.as_deref(), None);
        let answered = KmsArn::parse(&found.key_id).map_or("", |arn| arn.region);
        if !arn::may_answer(&request.key_id, region.unwrap_or(answered), &found.key_id) {
            return Err(format!("keyId of version {} is not the ARN of the key that was asked for", found.version));
        }
    }
    if let Some((one, other)) = twins(&versions) {
        return Err(format!("its versions {one} and {other} are the same data key"));
    }
    match versions.iter().find(|found| found.version == key.version()) {
        Some(found) if !found.request.asks_the_same(&key.spec.request()) => Err(format!(
            "its data key version {} was asked for with other settings: {}",
            found.version,
            differences(&key.spec.request(), &found.request).join(", ")
        )),
        _ => Ok(versions),
    }
}

/// Why a Secret that was read is not this `DataKey`'s.
fn not_ours(key: &DataKey, secret: &Secret) -> Option<String> {
    if secret.type_.as_deref() != Some(TYPE) {
        return Some(format!("it is not of type {TYPE}"));
    }
    let belongs_to = secret.metadata.labels.as_ref().and_then(|labels| labels.get(NAME))?;
    if Some(belongs_to) == key.metadata.name.as_ref() {
        return None;
    }
    // The label may be somebody's edit: the data key tells whose Secret it is.
    let holds_ours = versions_in(secret).into_iter().any(|version| {
        let blob = entry(secret, &format!("ciphertextBlob.v{version}"));
        key.issued(version).is_some_and(|issued| Some(&issued.ciphertext_blob) == blob)
    });
    (!holds_ours).then(|| format!("it belongs to DataKey {belongs_to}"))
}

/// How many of what was changed is named: another client may have added thousands.
const MAX_NAMED: usize = 10;

/// Bound of one of these names, in characters.
const MAX_NAME: usize = 80;

/// What of a Secret is not as it should be, by name and without a value: what another client wrote into it may be anything.
pub fn changes(wanted: &Projection, secret: &Secret) -> Vec<String> {
    let nothing = BTreeMap::new();
    let mut changes = differing("entry", &wanted.data, secret.data.as_ref().unwrap_or(&nothing));
    // Labels of others belong to them.
    let own = Own::of(secret);
    let found = |all: Option<&BTreeMap<String, String>>, wanted: &BTreeMap<String, String>, own| {
        let pairs = all.into_iter().flatten().filter(|(name, _)| wanted.contains_key(*name));
        pairs.map(|(name, value)| (name.clone(), value.clone())).chain(own).collect::<BTreeMap<_, _>>()
    };
    let labels = found(secret.metadata.labels.as_ref(), &wanted.labels, own.labels);
    changes.extend(differing("label", &wanted.labels, &labels));
    let annotations = found(secret.metadata.annotations.as_ref(), &wanted.annotations, own.annotations);
    changes.extend(differing("annotation", &wanted.annotations, &annotations));
    let more = changes.len().saturating_sub(MAX_NAMED);
    changes.truncate(MAX_NAMED);
    if more > 0 {
        changes.push(format!("and {more} more"));
    }
    changes
}

/// What the API server stored otherwise than it was sent: an admission policy or webhook changed it.
pub fn stored_otherwise(sent: &Secret, stored: &Secret) -> Vec<String> {
    if Digest::of(sent) == Digest::of(stored) {
        return Vec::new();
    }
    if sent.type_ != stored.type_ {
        return vec!["its type was changed".to_owned()];
    }
    let Own { labels, annotations } = Own::of(sent);
    let wanted = Projection { labels, annotations, data: sent.data.clone().unwrap_or_default() };
    changes(&wanted, stored)
}

fn differing<V: PartialEq>(what: &str, wanted: &BTreeMap<String, V>, found: &BTreeMap<String, V>) -> Vec<String> {
    let missing_or_changed = wanted.iter().filter_map(|(name, value)| match found.get(name) {
        None => Some(format!("{what} {name} is missing")),
        Some(other) => (other != value).then(|| format!("{what} {name} was changed")),
    });
    let added = found.keys().filter(|name| !wanted.contains_key(*name));
    missing_or_changed.chain(added.map(|name| format!("{what} {} was added", printable(name, MAX_NAME)))).collect()
}

fn entry<'a>(secret: &'a Secret, name: &str) -> Option<&'a ByteString> {
    secret.data.as_ref()?.get(name)
}

fn text<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    entry(secret, name).and_then(|value| std::str::from_utf8(&value.0).ok())
}

fn plain_version(secret: &Secret) -> Option<i32> {
    let version = text(secret, "version")?;
    let annotated = secret.metadata.annotations.as_ref()?.get(VERSION)?;
    (annotated == version).then(|| version.parse().ok())?
}

/// The versions that a Secret speaks of, in its entries or in its annotations.
fn versions_in(secret: &Secret) -> BTreeSet<i32> {
    let entries = secret.data.iter().flatten().filter_map(|(name, _)| name.strip_prefix("ciphertextBlob.v"));
    let annotations = secret.metadata.annotations.iter().flatten().filter_map(|(name, _)| name.strip_prefix(ISSUED));
    entries.chain(annotations).filter_map(|number| number.parse().ok()).filter(|&number| number >= 1).collect()
}

/// What the annotations say of a version.
fn provenance_in(secret: &Secret, version: i32) -> Option<Provenance> {
    serde_json::from_str(secret.metadata.annotations.as_ref()?.get(&format!("{ISSUED}{version}"))?).ok()
}

/// Reads one version out of a Secret.
///
/// # Errors
/// What of it is missing or belies the rest.
pub(crate) fn version_in(secret: &Secret, version: i32) -> Result<IssuedVersion, String> {
    let wrong = |what: &str| format!("{what} of version {version} is missing or was changed");
    let text = |name: &str| text(secret, &format!("{name}.v{version}"));

    let provenance = provenance_in(secret, version).ok_or_else(|| wrong("the annotation"))?;
    let blob = entry(secret, &format!("ciphertextBlob.v{version}"))
        .filter(|blob| (1..=MAX_BLOB).contains(&blob.0.len()) && sha256(&blob.0) == provenance.sha256)
        .ok_or_else(|| wrong("ciphertextBlob"))?;
    let arn =
        text("keyId").filter(|arn| KmsArn::parse(arn).is_some_and(|arn| arn.is_key())).ok_or_else(|| wrong("keyId"))?;
    let key_spec = [KeySpec::Aes256, KeySpec::Aes128].into_iter().find(|spec| text("keySpec") == Some(spec.as_str()));
    let bytes = text("numberOfBytes").and_then(|bytes| bytes.parse().ok()).filter(|bytes| (1..=1024).contains(bytes));
    if key_spec.is_some() == bytes.is_some() {
        return Err(wrong("keySpec or numberOfBytes"));
    }
    let context: EncryptionContext = text("encryptionContext")
        .and_then(|context| serde_json::from_str(context).ok())
        .ok_or_else(|| wrong("encryptionContext"))?;
    let found = IssuedVersion {
        version,
        request: KeyRequest {
            key_id: provenance.key_id,
            key_spec,
            number_of_bytes: bytes,
            encryption_context: (!context.is_empty()).then_some(context),
            region: provenance.region,
            rest: provenance.request,
        },
        ciphertext_blob: blob.clone(),
        key_id: arn.to_owned(),
        key_material_id: provenance.key_material_id,
        issued_at: provenance.issued_at,
        request_id: provenance.request_id,
        rest: provenance.rest,
    };
    if names_fields_twice(&found) {
        return Err(wrong("the annotation"));
    }
    match flaw(&found) {
        None => Ok(found),
        Some(flaw) => Err(format!("what it holds as version {version} can't be recorded: {flaw}")),
    }
}

/// Whether what the annotation has of a newer release bears the names of fields that this one knows. Written beside them, the
/// API server would take one or the other.
fn names_fields_twice(issued: &IssuedVersion) -> bool {
    if issued.unknown_fields().next().is_none() {
        return false;
    }
    let written = serde_json::to_value(issued).and_then(serde_json::from_value::<IssuedVersion>);
    !written.is_ok_and(|read| read.rest == issued.rest && read.request.rest == issued.request.rest)
}

/// The fields in which two requests differ, as in the spec.
pub(crate) fn differences(asked: &KeyRequest, found: &KeyRequest) -> Vec<&'static str> {
    [
        ("keyId", asked.key_id != found.key_id),
        ("keySpec", asked.key_spec != found.key_spec),
        ("numberOfBytes", asked.number_of_bytes != found.number_of_bytes),
        ("encryptionContext", asked.context() != found.context()),
        ("region", asked.region != found.region),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{Edit, OTHER_REQUESTS, data_key, issued, recorded},
        flaws::tests::FLAWS,
        secret::project,
    };

    fn secret(versions: &[i32]) -> Secret {
        let key = recorded(versions);
        project(&key, key.version()).unwrap().create(&key)
    }

    #[test]
    fn every_change_is_named_and_no_value_is() {
        let key = recorded(&[1]);
        let wanted = project(&key, 1).unwrap();
        let mut found = secret(&[1]);
        assert_eq!(changes(&wanted, &found), Vec::<String>::new());
        let data = found.data.as_mut().unwrap();
        data.insert("ciphertextBlob".into(), ByteString(b"hunter2".to_vec()));
        data.insert("more".into(), ByteString(b"hunter2".to_vec()));
        data.remove("keyId.v1");
        found.metadata.labels.as_mut().unwrap().insert(NAME.into(), "hunter2".into());
        found.metadata.labels.as_mut().unwrap().insert("team".into(), "hunter2".into());
        found.metadata.annotations.as_mut().unwrap().insert("datakey.dev/more".into(), "hunter2".into());
        assert_eq!(
            changes(&wanted, &found),
            [
                "entry ciphertextBlob was changed",
                "entry keyId.v1 is missing",
                "entry more was added",
                "label datakey.dev/name was changed",
                "annotation datakey.dev/more was added",
            ]
        );
    }

    #[test]
    fn of_many_changes_only_some_are_named() {
        let mut found = secret(&[1]);
        for number in 0..30_000 {
            data(&mut found).insert(format!("{}-{number}", "k".repeat(200)), bytes(""));
        }
        let changes = changes(&project(&recorded(&[1]), 1).unwrap(), &found);
        assert_eq!((changes.len(), changes[10].as_str()), (11, "and 29990 more"));
        assert!(changes.join(", ").len() < 1200);
    }

    #[test]
    fn what_admission_changed_in_a_write_is_named() {
        let sent = secret(&[1]);
        assert_eq!(stored_otherwise(&sent, &sent), Vec::<String>::new());
        let edits: [(Edit<Secret>, &[&str]); 4] = [
            (
                |stored| _ = data(stored).insert("ciphertextBlob".into(), bytes("x")),
                &["entry ciphertextBlob was changed"],
            ),
            (
                |stored| _ = stored.metadata.labels.as_mut().unwrap().insert(MANAGED_BY.into(), "platform".into()),
                &["label app.kubernetes.io/managed-by was changed"],
            ),
            (|stored| stored.type_ = Some("Opaque".into()), &["its type was changed"]),
            (|stored| _ = stored.metadata.labels.as_mut().unwrap().insert("team".into(), "x".into()), &[]),
        ];
        for (edit, named) in edits {
            let mut stored = sent.clone();
            edit(&mut stored);
            assert_eq!(stored_otherwise(&sent, &stored), named);
        }
    }

    fn verdict(key: &DataKey, secret: &Secret) -> Verdict {
        compare(key, &project(key, key.version()).unwrap(), secret)
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

    fn conflict(verdict: Verdict) -> String {
        let Verdict::Conflict(why) = verdict else { panic!("{verdict:?}") };
        why
    }

    #[test]
    fn the_projection_holds_itself() {
        assert_eq!(verdict(&recorded(&[1]), &secret(&[1])), Verdict::Same);
        assert_eq!(verdict(&recorded(&[1, 2]), &secret(&[1, 2])), Verdict::Same);
    }

    #[test]
    fn edits_are_put_right() {
        let edits: [Edit<Secret>; 9] = [
            |secret| _ = data(secret).insert("ciphertextBlob".into(), bytes("x")),
            |secret| _ = data(secret).insert("ciphertextBlob.v1".into(), bytes("x")),
            |secret| _ = data(secret).remove("encryptionContext.v1"),
            |secret| _ = data(secret).insert("more".into(), bytes("x")),
            |secret| secret.data = None,
            |secret| _ = annotations(secret).insert(format!("{ISSUED}1"), "{}".into()),
            |secret| _ = annotations(secret).remove(VERSION),
            |secret| secret.metadata.labels = None,
            |secret| {
                _ = secret.metadata.labels.as_mut().unwrap().insert(NAME.into(), "another".into());
            },
        ];
        for (number, edit) in edits.iter().enumerate() {
            let mut secret = secret(&[1]);
            edit(&mut secret);
            assert_eq!(verdict(&recorded(&[1]), &secret), Verdict::PutRight, "edit {number}");
        }
    }

    #[test]
    fn a_record_that_grew_is_put_into_the_secret() {
        assert_eq!(verdict(&recorded(&[1, 2]), &secret(&[1])), Verdict::PutRight);
    }

    #[test]
    fn an_intact_secret_with_another_data_key_is_never_overwritten() {
        let mut key = recorded(&[1]);
        key.status.as_mut().unwrap().versions[0].ciphertext_blob = bytes("another data key");
        assert!(conflict(verdict(&key, &secret(&[1]))).contains("another data key as version 1"));
        assert!(conflict(verdict(&recorded(&[1]), &secret(&[1, 2]))).contains("version 2"));
    }

    #[test]
    fn what_may_be_another_data_key_is_never_overwritten_even_without_its_checksum() {
        let mut key = recorded(&[1]);
        key.status.as_mut().unwrap().versions[0].ciphertext_blob = bytes("another data key");
        let edits: [Edit<Secret>; 3] = [
            |secret| secret.metadata.annotations = None,
            |secret| _ = annotations(secret).remove(&format!("{ISSUED}1")),
            |secret| _ = data(secret).insert("ciphertextBlob.v1".into(), bytes("edited")),
        ];
        for (number, edit) in edits.iter().enumerate() {
            let mut secret = secret(&[1]);
            edit(&mut secret);
            assert!(conflict(verdict(&key, &secret)).contains("as version 1"), "edit {number}");
        }
        let mut grown = secret(&[1, 2]);
        grown.metadata.annotations = None;
        assert!(conflict(verdict(&recorded(&[1]), &grown)).contains("version 2"));

        // What can't be a data key is none.
        data(&mut grown).insert("ciphertextBlob.v2".into(), bytes(""));
        assert_eq!(verdict(&recorded(&[1]), &grown), Verdict::PutRight);
    }

    #[test]
    fn a_foreign_secret_is_a_conflict() {
        let mut opaque = secret(&[1]);
        opaque.type_ = Some("Opaque".into());
        assert!(conflict(verdict(&recorded(&[1]), &opaque)).contains("not of type"));

        let mut other = recorded(&[1]);
        other.metadata.name = Some("invoices".into());
        other.status.as_mut().unwrap().versions[0].ciphertext_blob = bytes("invoices' data key");
        assert_eq!(conflict(verdict(&other, &secret(&[1]))), "it belongs to DataKey orders");
    }

    #[test]
    fn adoption_rebuilds_the_record_exactly() {
        assert_eq!(adopt(&data_key(), &secret(&[1])), Ok(vec![issued(1)]));
        let mut key = data_key();
        key.spec.version = Some(2);
        assert_eq!(adopt(&key, &secret(&[1, 2])), Ok(vec![issued(1), issued(2)]));
    }

    #[test]
    fn adoption_takes_earlier_versions_when_the_spec_asks_for_a_new_one() {
        let mut key = data_key();
        key.spec.version = Some(3);
        key.spec.key_id = "alias/new".to_owned();
        assert_eq!(adopt(&key, &secret(&[1, 2])).map(|versions| versions.len()), Ok(2));
    }

    #[test]
    fn adoption_takes_an_empty_context_for_an_absent_one() {
        let mut key = recorded(&[1]);
        key.status.as_mut().unwrap().versions[0].request.encryption_context = None;
        let secret = project(&key, 1).unwrap().create(&key);
        let mut born = data_key();
        born.spec.encryption_context = Some(EncryptionContext::new());
        assert!(adopt(&born, &secret).is_ok());
    }

    #[test]
    fn a_corrupted_secret_is_not_adopted() {
        let edits: [(Edit<Secret>, &str); 12] = [
            (|secret| secret.type_ = None, "type"),
            (|secret| secret.metadata.labels = None, "labels"),
            (|secret| _ = secret.metadata.labels.as_mut().unwrap().insert(NAME.into(), "x".into()), "DataKey x"),
            (|secret| _ = data(secret).insert("ciphertextBlob.v1".into(), bytes("x")), "ciphertextBlob of version 1"),
            (|secret| _ = data(secret).remove("ciphertextBlob.v1"), "ciphertextBlob of version 1"),
            (|secret| _ = data(secret).insert("ciphertextBlob".into(), bytes("x")), "plain entries"),
            (|secret| _ = data(secret).insert("keyId.v1".into(), bytes("alias/orders")), "keyId of version 1"),
            (|secret| _ = data(secret).remove("keySpec.v1"), "keySpec or numberOfBytes"),
            (|secret| _ = data(secret).insert("encryptionContext.v1".into(), bytes("{")), "encryptionContext"),
            (|secret| _ = data(secret).insert("version".into(), bytes("2")), "entry version"),
            (|secret| _ = annotations(secret).remove(&format!("{ISSUED}1")), "annotation of version 1"),
            (|secret| secret.data = None, "ciphertextBlob of version 1"),
        ];
        for (number, (edit, why)) in edits.iter().enumerate() {
            let mut secret = secret(&[1]);
            edit(&mut secret);
            let refusal = adopt(&data_key(), &secret).unwrap_err();
            assert!(refusal.contains(why), "edit {number}: {refusal}");
        }
    }

    #[test]
    fn what_the_record_would_not_take_is_not_adopted() {
        // What a Secret can't express.
        let expressed = FLAWS.into_iter().filter(|(_, words)| !["version must", "exactly one"].contains(words));
        for (edit, words) in expressed {
            let mut key = recorded(&[1]);
            edit(&mut key.status.as_mut().unwrap().versions[0]);
            let refusal = adopt(&data_key(), &project(&key, 1).unwrap().create(&key)).unwrap_err();
            let earlier =
                ["keyId", "ciphertextBlob"].map(|field| format!("{field} of version 1 is missing or was changed"));
            assert!(refusal.contains(words) || earlier.contains(&refusal), "{words}: {refusal}");
            assert!(!refusal.chars().any(char::is_control), "{refusal:?}");
        }
    }

    #[test]
    fn one_data_key_under_two_versions_is_not_adopted() {
        let mut key = recorded(&[1, 2]);
        key.status.as_mut().unwrap().versions[1].ciphertext_blob = issued(1).ciphertext_blob;
        let secret = project(&key, 2).unwrap().create(&key);
        let mut born = data_key();
        born.spec.version = Some(2);
        assert_eq!(adopt(&born, &secret).unwrap_err(), "its versions 1 and 2 are the same data key");
    }

    #[test]
    fn a_secret_that_does_not_answer_the_spec_is_not_adopted() {
        for (change, field) in OTHER_REQUESTS {
            let mut key = data_key();
            change(&mut key);
            let refusal = adopt(&key, &secret(&[1])).unwrap_err();
            assert!(refusal.contains(field), "{refusal}");
        }
    }

    #[test]
    fn an_arn_of_another_key_is_not_adopted() {
        let mut key = recorded(&[1]);
        let version = &mut key.status.as_mut().unwrap().versions[0];
        version.request.key_id = crate::fixtures::ARN.replace("1234abcd", "99999999");
        let secret = project(&key, 1).unwrap().create(&key);
        let mut born = data_key();
        born.spec.key_id = crate::fixtures::ARN.replace("1234abcd", "99999999");
        assert!(adopt(&born, &secret).unwrap_err().contains("not the ARN"));
    }
}
