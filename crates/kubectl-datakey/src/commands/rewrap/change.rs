//! What a move changes of an object: the spec, as the manifest for Git and as a patch. Pure.

use datakey::{
    api::{IssuedVersion, Rest, RewrapOf, truncate_to_seconds},
    arn,
    protocol::{pins, size},
    rewraps::Rewraps,
};
use datakey_decrypt::Rewrapped;
use k8s_openapi::{ByteString, jiff::Timestamp};
use serde_json::{Map, Value, json};

use super::plan::{Destination, Move, Next, Plan, Rewrap};
use crate::{cluster::FetchedKey, commands::export::pinned_manifest, output::CommandError};

/// The fields of the spec that a move sets.
const FIELDS: [&str; 5] = ["keyId", "region", "encryptionContext", "version", "wrappedKeys"];

// === impl Rewrap ===

impl Rewrap {
    /// The pin of what KMS answered at this time.
    pub fn pin(&self, answer: Rewrapped, now: Timestamp) -> IssuedVersion {
        IssuedVersion {
            version: self.number,
            request: self.request.clone(),
            as_written: self.as_written.clone(),
            class: None,
            ciphertext_blob: ByteString(answer.ciphertext_blob),
            public_key: self.source.public_key.clone(),
            key_id: answer.key_arn,
            key_material_id: answer.key_material_id,
            issued_at: truncate_to_seconds(now),
            request_id: None,
            rewrap_of: Some(RewrapOf { version: self.root, request_id: answer.request_id, rest: Rest::new() }),
            rest: Rest::new(),
        }
    }
}

/// The object as it is after the move: the spec is changed, the record is that of now.
///
/// # Errors
/// What the operator would refuse.
pub fn moved(
    fetched: &FetchedKey,
    plan: &Plan,
    to: &Destination,
    new_pins: &[IssuedVersion],
) -> Result<FetchedKey, CommandError> {
    let mut value = fetched.value.clone();
    let spec = &mut value["spec"];
    let mut all = spec["wrappedKeys"].as_array().cloned().unwrap_or_default();
    all.extend(new_pins.iter().map(|pin| json!(pin)));
    if !all.is_empty() {
        spec["wrappedKeys"] = json!(all);
    }
    match plan.next {
        Next::Unchanged => {}
        Next::New(number) => {
            let region = to.region_of_spec(fetched.key.object().spec.request.region);
            spec["keyId"] = json!(to.key_id);
            set(spec, "region", region.map(|region| json!(region)));
            if let Some(context) = &to.context {
                set(spec, "encryptionContext", (!context.is_empty()).then(|| json!(context)));
            }
            spec["version"] = json!(number);
        }
        Next::Existing(number) => {
            // The spec of a recorded version is that of the record.
            let pinned = new_pins.iter().chain(fetched.key.record()).chain(fetched.key.pinned_versions());
            let current = pinned.into_iter().find(|pin| pin.version == number);
            let request = current.map(IssuedVersion::written);
            let request = request.ok_or_else(|| CommandError::Failed(format!("version {number} is missing")))?;
            set(spec, "keyId", request.key_id.map(|key_id| json!(key_id)));
            set(spec, "region", request.region.map(|region| json!(region)));
            let context = request.encryption_context.filter(|context| !context.is_empty());
            set(spec, "encryptionContext", context.map(|context| json!(context)));
            spec["version"] = json!(number);
        }
    }
    let moved = FetchedKey::decode(fetched.kind(), &value.to_string())?;
    check(&moved)?;
    Ok(moved)
}

/// Makes the change with wrapped data keys as long as the present ones: what the operator would refuse shows before AWS KMS is called.
///
/// # Errors
/// What the operator would refuse.
pub fn rehearse(fetched: &FetchedKey, plan: &Plan, to: &Destination) -> Result<(), CommandError> {
    let answer = |rewrap: &Rewrap| {
        let blob = &rewrap.source.ciphertext_blob.0;
        // Each is different, as those of KMS are.
        let number = rewrap.number.to_be_bytes();
        Rewrapped {
            ciphertext_blob: number.into_iter().chain(std::iter::repeat(0)).take(blob.len()).collect(),
            key_arn: to.key_arn.clone(),
            key_material_id: Some("0".repeat(64)),
            request_id: Some("00000000-0000-0000-0000-000000000000".to_owned()),
        }
    };
    let pins: Vec<_> =
        plan.rewraps.iter().map(|rewrap| rewrap.pin(answer(rewrap), rewrap.source.issued_at.0)).collect();
    moved(fetched, plan, to, &pins).map(|_| ())
}

/// Checks what the operator would find when it records the pins.
///
/// # Errors
/// What is wrong.
pub fn check(moved: &FetchedKey) -> Result<(), CommandError> {
    let object = moved.key.object();
    let unrecorded = pins::unrecorded(object, None).and_then(|pins| match size::excess(object, &pins) {
        Some(failure) => Err(failure),
        None => Ok(pins),
    });
    unrecorded
        .map(|_| ())
        .map_err(|failure| CommandError::Failed(failure.detail.unwrap_or_else(|| failure.reason.as_str().to_owned())))
}

fn set(spec: &mut Value, field: &str, value: Option<Value>) {
    match (spec.as_object_mut(), value) {
        (Some(spec), Some(value)) => _ = spec.insert(field.to_owned(), value),
        (Some(spec), None) => _ = spec.remove(field),
        (None, _) => {}
    }
}

/// The manifest for Git: the changed spec, and every version as a pin, those of the record and the new ones.
pub fn manifest(moved: &FetchedKey) -> Result<Value, CommandError> {
    let mut manifest = pinned_manifest(moved)?;
    let is_recorded = |pin: &&Value| {
        let number = pin["version"].as_i64().and_then(|number| i32::try_from(number).ok());
        number.is_some_and(|number| moved.key.recorded_version(number).is_some())
    };
    let others = moved.value["spec"]["wrappedKeys"].as_array().into_iter().flatten().filter(|pin| !is_recorded(pin));
    if let Some(pins) = manifest["spec"]["wrappedKeys"].as_array_mut() {
        pins.extend(others.cloned());
    }
    Ok(manifest)
}

/// The object with the spec of a manifest that an earlier run wrote.
///
/// # Errors
/// It is not about this object, or is behind it.
pub fn with_spec_of(fetched: &FetchedKey, manifest: &Value) -> Result<FetchedKey, String> {
    let of = |field: &str| manifest["metadata"][field].as_str();
    let is_same = manifest["kind"].as_str() == Some(fetched.kind().name)
        && of("name") == Some(&*fetched.name())
        && of("namespace") == Some(&*fetched.namespace());
    if !is_same {
        return Err(format!("is not about {} in namespace {}", fetched.titled(), fetched.namespace()));
    }
    let mut value = fetched.value.clone();
    value["spec"] = manifest["spec"].clone();
    let saved = FetchedKey::decode(fetched.kind(), &value.to_string())
        .and_then(|saved| check(&saved).map(|()| saved))
        .map_err(|error| format!("does not fit {} as it is now ({error})", fetched.titled()))?;
    let (in_file, in_cluster) = (saved.key.wanted_version(), fetched.key.wanted_version());
    if in_file < in_cluster {
        return Err(format!("makes version {in_file} current, and in the cluster it is version {in_cluster}"));
    }
    Ok(saved)
}

/// Checks that a file of an earlier run has what this run would make: that one can have had other flags, and any user who can write the
/// folder can have changed the file. `plan` is that of the object as it is in the cluster.
///
/// # Errors
/// What this run would not do.
pub fn check_saved(fetched: &FetchedKey, plan: &Plan, saved: &FetchedKey, wanted: &Move) -> Result<(), String> {
    let (record, pinned) = (fetched.key.record(), fetched.key.pinned_versions());
    let is_known = |number: i32| record.iter().chain(pinned).any(|issued| issued.version == number);
    let rewraps = Rewraps::of(saved.key.pinned_versions().iter().chain(record));
    for pin in saved.key.pinned_versions().iter().filter(|pin| !is_known(pin.version)) {
        let root = rewraps.root(pin.version);
        let is_made_of = |source: &&IssuedVersion| {
            let rewrap = Rewrap::of(source, root, pin.version, wanted, fetched.key.object().spec.request);
            let is_same = |rewrap: Rewrap| rewrap.request == pin.request && rewrap.as_written == pin.as_written;
            rewraps.root(source.version) == root && source.public_key == pin.public_key && rewrap.is_ok_and(is_same)
        };
        if !arn::decrypts_for(&wanted.to.key_arn, &pin.key_id) || !record.iter().any(|source| is_made_of(&source)) {
            return Err(format!("has a version {} that this move does not make", pin.version));
        }
    }
    let new: Vec<_> = saved.key.pinned_versions().iter().filter(|pin| !is_known(pin.version)).cloned().collect();
    let expected = moved(fetched, plan, &wanted.to, &new).map_err(|error| error.to_string())?;
    let differs = |field: &&&str| {
        **field != "wrappedKeys" && expected.value["spec"].get(**field) != saved.value["spec"].get(**field)
    };
    if let Some(field) = FIELDS.iter().find(differs) {
        return Err(format!("has another spec.{field} than this move makes"));
    }
    Ok(())
}

/// The merge patch that brings the object in the cluster to where it is moved; `None` if it is there. The API server refuses the patch
/// if another client changed the object after it was read.
pub fn patch(fetched: &FetchedKey, moved: &FetchedKey) -> Result<Option<Value>, CommandError> {
    let (Some(uid), Some(read)) = (&fetched.key.metadata().uid, &fetched.key.metadata().resource_version) else {
        return Err(CommandError::Failed("the API server's answer has no uid or resourceVersion".to_owned()));
    };
    let (before, after) = (&fetched.value["spec"], &moved.value["spec"]);
    let mut spec = Map::new();
    for field in FIELDS {
        if field != "wrappedKeys" && before.get(field) != after.get(field) {
            spec.insert(field.to_owned(), replacement(before.get(field), after.get(field)));
        }
    }
    let numbers = |pins: &[IssuedVersion]| pins.iter().map(|pin| pin.version).collect::<Vec<_>>();
    let (known, recorded) = (numbers(fetched.key.pinned_versions()), numbers(fetched.key.record()));
    let is_new =
        |(_, pin): &(&Value, &IssuedVersion)| !known.contains(&pin.version) && !recorded.contains(&pin.version);
    let pins = after["wrappedKeys"].as_array().into_iter().flatten().zip(moved.key.pinned_versions());
    let new: Vec<_> = pins.filter(is_new).map(|(pin, _)| pin.clone()).collect();
    if !new.is_empty() {
        // A merge patch replaces the whole list.
        let mut all = before["wrappedKeys"].as_array().cloned().unwrap_or_default();
        all.extend(new);
        spec.insert("wrappedKeys".to_owned(), json!(all));
    }
    if spec.is_empty() {
        return Ok(None);
    }
    Ok(Some(json!({ "metadata": { "uid": uid, "resourceVersion": read }, "spec": spec })))
}

/// The part of a merge patch that makes `after` of `before`. Null removes a field, or a pair of the encryption context: the API server
/// merges objects, and a pair that stayed would be in the context of the next data key.
fn replacement(before: Option<&Value>, after: Option<&Value>) -> Value {
    let mut patch = after.cloned().unwrap_or_default();
    if let (Some(pairs), Some(before)) = (patch.as_object_mut(), before.and_then(Value::as_object)) {
        for gone in before.keys() {
            pairs.entry(gone.clone()).or_insert(Value::Null);
        }
    }
    patch
}

#[cfg(test)]
mod tests;
