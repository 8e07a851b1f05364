//! What is stored in clusters does not change: names and values in objects that earlier operators wrote, compared with what
//! the present crate reads and writes. `tests/integration/upgrade` shows the same with servers.

use std::collections::{BTreeMap, BTreeSet};

use datakey::{
    api::{DataKey, DataKeyPair, KeyKind as _},
    condition,
    fixtures::{Sample as _, at, recorded as recorded_key},
    names::{
        APPLIED_ANNOTATION, CURRENT_VERSION_ANNOTATION, FIELD_MANAGER, GROUP, MANAGED_BY_LABEL, NAME_LABEL,
        PAIR_SECRET_TYPE, RESTORED_ANNOTATION, RETRY_AT_ANNOTATION, SECRET_TYPE, VELERO_RESTORE_LABEL,
        VERSION_ANNOTATION_PREFIX,
    },
    secret::Projection,
};
use serde_json::{Value, json};
use testbed::repository;

/// Objects of release 0.1.0 and of a later commit, each with all fields that the API server stored.
const FOLDERS: [&str; 2] = ["tests/integration/upgrade/0.1.0", "tests/integration/upgrade/9b52e60"];

/// The names that the operator stores, with the place of each. A name is added here; none is changed or removed.
pub const NAMES: [(&str, &[&str]); 8] = [
    ("labels of a Secret", &["app.kubernetes.io/managed-by", "datakey.dev/name"]),
    ("annotations of a Secret", &["datakey.dev/applied", "datakey.dev/issued.vN", "datakey.dev/version"]),
    ("fields of issued.vN", &["issuedAt", "keyId", "keyMaterialId", "region", "requestId", "sha256"]),
    ("entries of a Secret", &["ciphertextBlob", "encryptionContext", "keyId", "keySpec", "numberOfBytes", "version"]),
    (
        "fields of a status",
        &[
            "adopted",
            "conditions",
            "issuedAt",
            "keyId",
            "observedGeneration",
            "secret",
            "secretName",
            "version",
            "versions",
        ],
    ),
    ("fields of status.secret", &["digest", "resourceVersion", "uid"]),
    (
        "fields of a version",
        &["ciphertextBlob", "issuedAt", "keyId", "keyMaterialId", "request", "requestId", "version"],
    ),
    ("fields of a request", &["encryptionContext", "keyId", "keySpec", "numberOfBytes", "region"]),
];

/// The recorded objects, by file.
fn recorded() -> BTreeMap<String, Value> {
    let mut recorded = BTreeMap::new();
    for folder in FOLDERS {
        for file in std::fs::read_dir(repository().join(folder)).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let name = path.strip_prefix(repository()).unwrap().display().to_string();
                recorded.insert(name, serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap());
            }
        }
    }
    recorded
}

fn is_ready(key: &Value) -> bool {
    let mut conditions = key["status"]["conditions"].as_array().unwrap().iter();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        && key["status"]["observedGeneration"] == key["metadata"]["generation"]
}

/// The names of the fields of an object; none if there is no object.
fn fields(value: &Value) -> impl Iterator<Item = &str> {
    value.as_object().into_iter().flat_map(|fields| fields.keys().map(String::as_str))
}

/// The names that a DataKey and its Secret store, by place.
fn stored_names(object: &Value) -> Vec<(&'static str, String)> {
    let (status, secret) = (&object["dataKey"]["status"], &object["secret"]);
    let mut names = Vec::new();
    let mut add = |place: &'static str, name: &str| names.push((place, name.to_owned()));
    if [SECRET_TYPE, PAIR_SECRET_TYPE].iter().any(|own| secret["type"] == *own) {
        let own = |name: &&str| name.starts_with(GROUP) || *name == MANAGED_BY_LABEL;
        fields(&secret["metadata"]["labels"]).filter(own).for_each(|name| add("labels of a Secret", name));
        for annotation in fields(&secret["metadata"]["annotations"]).filter(own) {
            if annotation.starts_with(VERSION_ANNOTATION_PREFIX) {
                let text = secret["metadata"]["annotations"][annotation].as_str().unwrap();
                let issued: Value = serde_json::from_str(text).unwrap();
                fields(&issued).for_each(|name| add("fields of issued.vN", name));
                add("annotations of a Secret", "datakey.dev/issued.vN");
            } else {
                add("annotations of a Secret", annotation);
            }
        }
        fields(&secret["data"]).for_each(|entry| add("entries of a Secret", entry.split(".v").next().unwrap()));
    }
    fields(status).for_each(|name| add("fields of a status", name));
    fields(&status["secret"]).for_each(|name| add("fields of status.secret", name));
    for version in status["versions"].as_array().into_iter().flatten() {
        fields(version).for_each(|name| add("fields of a version", name));
        fields(&version["request"]).for_each(|name| add("fields of a request", name));
    }
    names
}

#[test]
fn recorded_objects_store_exactly_the_listed_names() {
    let found: BTreeSet<_> = recorded().values().flat_map(stored_names).collect();
    let listed = NAMES.iter().flat_map(|(place, names)| names.iter().map(|name| (*place, (*name).to_owned())));
    assert_eq!(found, listed.collect());
}

/// The names that only key pairs store. No release has stored one yet.
#[test]
fn key_pairs_store_these_names_beside_those_of_data_keys() {
    let pair = DataKeyPair::like(&recorded_key(&[1]));
    let version = &pair.as_object().record()[0];
    let ready = condition::ready(&pair, version, None, at(1));
    let secret = Projection::of(&pair, 1).unwrap().into_secret(&pair);
    let listed = |place: &str, name: &String| NAMES.iter().any(|(of, names)| *of == place && names.contains(&&**name));
    let stored = stored_names(&json!({ "dataKey": pair.with_status(ready), "secret": secret }));
    let found: BTreeSet<_> = stored.into_iter().filter(|(place, name)| !listed(place, name)).collect();
    let expected = [
        ("fields of issued.vN", "publicKeySha256"),
        ("entries of a Secret", "keyPairSpec"),
        ("entries of a Secret", "publicKey"),
        ("fields of a status", "publicKeySha256"),
        ("fields of a version", "publicKey"),
        ("fields of a request", "keyPairSpec"),
    ];
    assert_eq!(found, expected.map(|(place, name)| (place, name.to_owned())).into());
}

#[test]
fn constants_have_the_stored_names() {
    for (constant, stored) in [
        (GROUP, "datakey.dev"),
        (SECRET_TYPE, "datakey.dev/wrapped-key"),
        (PAIR_SECRET_TYPE, "datakey.dev/wrapped-key-pair"),
        (FIELD_MANAGER, "datakey-operator"),
        (MANAGED_BY_LABEL, "app.kubernetes.io/managed-by"),
        (NAME_LABEL, "datakey.dev/name"),
        (CURRENT_VERSION_ANNOTATION, "datakey.dev/version"),
        (VERSION_ANNOTATION_PREFIX, "datakey.dev/issued.v"),
        (APPLIED_ANNOTATION, "datakey.dev/applied"),
        (RESTORED_ANNOTATION, "datakey.dev/restored"),
        (RETRY_AT_ANNOTATION, "datakey.dev/retry-at"),
        (VELERO_RESTORE_LABEL, "velero.io/restore-name"),
    ] {
        assert_eq!(constant, stored);
    }
}

#[test]
fn stored_statuses_are_read_and_written_unchanged() {
    for (file, object) in recorded() {
        let stored = &object["dataKey"];
        let key: DataKey = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(json!(key.status), stored["status"], "{file}");
        assert_eq!(json!(key.spec), stored["spec"], "{file}");
        let status = key.status.unwrap();
        let rest = status.versions.iter().flat_map(|version| [&version.rest, &version.request.rest]);
        let unknown: Vec<_> = rest.chain([&status.rest, &key.spec.rest]).flat_map(|rest| rest.keys()).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?} are unknown");
    }
}

#[test]
fn stored_secrets_are_what_the_record_results_in() {
    let mut compared = 0;
    for (file, object) in recorded() {
        let (stored, secret) = (&object["dataKey"], &object["secret"]);
        if !is_ready(stored) || secret.is_null() {
            continue;
        }
        let key: DataKey = serde_json::from_value(stored.clone()).unwrap();
        let projected = Projection::of(&key, key.wanted_version()).unwrap();
        assert_eq!(json!(projected.data), secret["data"], "{file}");
        assert_eq!(secret["type"], SECRET_TYPE, "{file}");
        for (field, wanted) in [("labels", &projected.labels), ("annotations", &projected.annotations)] {
            for (name, value) in wanted {
                assert_eq!(secret["metadata"][field][name], **value, "{file}: {name}");
            }
        }
        if let Some(verified) = &key.status.as_ref().unwrap().secret {
            assert_eq!(projected.digest().to_string(), verified.digest, "{file}: the digest");
        }
        compared += 1;
    }
    assert!(compared >= 35, "{compared} Secrets are recorded");
}
