//! Mutation of JSON on its structure. A mutator of bytes mostly turns a Secret into invalid JSON or breaks its checksums, and
//! such an input never passes the first checks.

use datakey::{
    api::{DataKey, IssuedVersion, KeyStatus, Rest, RewrapOf, with_recorded},
    names::{CURRENT_VERSION_ANNOTATION, FIELD_MANAGER, MANAGED_BY_LABEL, NAME_LABEL, SECRET_TYPE},
    secret::{self, Projection, sha256},
};
use fastrand::Rng;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::properties::{ISSUED, Objects};

/// A mutator of bytes, for strings and for input that is not JSON.
pub type Bytes<'a> = &'a mut dyn FnMut(&mut Vec<u8>);

/// An input with some edits.
pub fn mutate(input: &[u8], seed: u64, bytes: Bytes<'_>) -> Vec<u8> {
    let mut mutator = Mutator { rng: Rng::with_seed(seed), bytes };
    let Ok(mut document) = serde_json::from_slice(input) else {
        return mutator.bytes(input.to_vec());
    };
    if mutator.one_in(32) {
        return mutator.bytes(input.to_vec());
    }
    for _ in 0..mutator.rng.u8(1..3) {
        mutator.edit(&mut document, false);
    }
    if mutator.one_in(2)
        && let Ok(mut objects) = Objects::deserialize(&document)
    {
        mutator.repair(&mut objects);
        document = json!(objects);
    }
    document.to_string().into_bytes()
}

struct Mutator<'a> {
    rng: Rng,
    bytes: Bytes<'a>,
}

// === impl Mutator ===

impl Mutator<'_> {
    fn one_in(&mut self, chances: u8) -> bool {
        self.rng.u8(..chances) == 0
    }

    fn bytes(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        (self.bytes)(&mut bytes);
        bytes
    }

    /// Edits one place of a value. `data`: whether strings are base64, as in a Secret's data.
    fn edit(&mut self, value: &mut Value, data: bool) {
        match value {
            Value::Object(map) if map.is_empty() || self.one_in(4) => self.edit_object(map),
            Value::Object(map) => {
                let chosen = self.rng.usize(..map.len());
                if let Some((name, value)) = map.iter_mut().nth(chosen) {
                    self.edit(value, name == "data" || name == "ciphertextBlob" || data);
                }
            }
            Value::Array(items) if items.is_empty() || self.one_in(4) => self.edit_array(items),
            Value::Array(items) => {
                let chosen = self.rng.usize(..items.len());
                self.edit(&mut items[chosen], data);
            }
            Value::String(text) if data => {
                if let Ok(ByteString(decoded)) = serde_json::from_value(json!(text)) {
                    *value = json!(ByteString(self.edit_bytes(decoded)));
                }
            }
            Value::String(text) => {
                let edited = self.edit_bytes(std::mem::take(text).into_bytes());
                *text = String::from_utf8_lossy(&edited).into_owned();
            }
            Value::Number(number) => {
                let near = number.as_i64().unwrap_or_default().saturating_add(self.rng.i64(-2..=2));
                let chosen = [near, near, 0, 1, 64, 1024, -1, i32::MAX.into(), i64::MIN];
                *number = self.rng.choice(chosen).unwrap_or_default().into();
            }
            Value::Bool(flag) => *flag = !*flag,
            Value::Null => *value = json!({}),
        }
    }

    /// Edits a string. One that contains JSON, like an annotation or the encryption context, is mostly edited as JSON.
    fn edit_bytes(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        if self.one_in(4) {
            return self.bytes(bytes);
        }
        if let Ok(mut document @ Value::Object(_)) = serde_json::from_slice(&bytes) {
            if self.one_in(8) {
                return format!("{document:#}").into_bytes();
            }
            self.edit(&mut document, false);
            return document.to_string().into_bytes();
        }
        if self.one_in(4) {
            // What parsers overlook: signs, leading zeros, spaces, separators.
            let at = if self.one_in(2) { 0 } else { self.rng.usize(..=bytes.len()) };
            let byte = self.rng.choice(*b"+-0 .:/=\n").unwrap_or_default();
            bytes.insert(at, byte);
            return bytes;
        }
        self.bytes(bytes)
    }

    fn edit_object(&mut self, map: &mut Map<String, Value>) {
        let Some((name, value)) = self.rng.choice(map.iter().map(|(name, value)| (name.clone(), value.clone()))) else {
            map.insert(String::new(), json!(""));
            return;
        };
        match self.rng.u8(..4) {
            0 => _ = map.remove(&name),
            1 => _ = map.insert(self.renamed(name), value),
            2 => {
                map.remove(&name);
                map.insert(self.renamed(name), value);
            }
            _ => {
                let chosen = self.rng.usize(..map.len());
                if let Some(other) = map.values_mut().nth(chosen) {
                    *other = value;
                }
            }
        }
    }

    fn renamed(&mut self, name: String) -> String {
        match name.strip_suffix(|last: char| last.is_ascii_digit()) {
            Some(stem) => format!("{stem}{}", self.rng.u8(..12)),
            None => String::from_utf8_lossy(&self.bytes(name.into_bytes())).into_owned(),
        }
    }

    fn edit_array(&mut self, items: &mut Vec<Value>) {
        let Some(item) = self.rng.choice(items.iter()).cloned() else {
            return;
        };
        let chosen = self.rng.usize(..items.len());
        if self.one_in(2) {
            items.push(item);
        } else {
            items.remove(chosen);
        }
    }

    /// Pins some of the recorded versions, and sometimes clears the record.
    fn pin(&mut self, key: &mut DataKey) {
        let pins: Vec<_> = key.record().iter().filter(|_| self.rng.bool()).cloned().collect();
        answer(key, &pins);
        key.spec.wrapped_keys = Some(pins);
        if self.one_in(2)
            && let Some(status) = &mut key.status
        {
            status.versions.clear();
        }
    }

    /// Lets a pin or a recorded version be a rewrap, mostly of an earlier one.
    fn rewrap(&mut self, key: &mut DataKey) {
        let pins = key.spec.wrapped_keys.iter_mut().flatten();
        let recorded = key.status.iter_mut().flat_map(|status| &mut status.versions);
        if let Some(issued) = self.rng.choice(pins.chain(recorded).collect::<Vec<_>>()) {
            let version = self.rng.i32(0..4).min(issued.version.saturating_sub(i32::from(!self.one_in(8))));
            issued.rewrap_of = Some(RewrapOf { version, request_id: None, rest: Rest::new() });
        }
    }

    /// Lets the class allow what the object asks for, in some respects.
    fn fit(&mut self, key: &mut DataKey, class: &mut Value) {
        let edits = [
            ("/spec/namespaces", json!([key.metadata.namespace])),
            ("/spec/allow/0/keyIds/0", json!(key.spec.key_id)),
            ("/spec/allow/0/keyArns/0", json!(key.record().first().map(|issued| &issued.key_id))),
        ];
        for (place, value) in edits {
            if let Some(place) = class.pointer_mut(place)
                && self.one_in(2)
            {
                *place = value;
            }
        }
    }

    /// Repairs relations that random edits hardly ever keep: checksums, copies, and matching names.
    fn repair(&mut self, objects: &mut Objects) {
        if self.one_in(8) {
            self.rewrap(&mut objects.key);
        }
        if self.one_in(8)
            && let Some(wanted) = Projection::of(&objects.key, objects.key.wanted_version())
        {
            objects.secret = Some(wanted.into_secret(&objects.key));
        }
        if self.one_in(4) {
            self.pin(&mut objects.key);
        }
        if let Some(class) = &mut objects.class {
            self.fit(&mut objects.key, class);
        }
        let Objects { key, secret: Some(secret), .. } = objects else {
            return;
        };
        if self.one_in(4) {
            let (from, to) = (self.rng.u8(1..4), self.rng.u8(1..70));
            copy_version(secret, from, to);
        }
        if self.one_in(2) {
            sum(secret);
        }
        if self.one_in(2) {
            copy_plain(secret);
        }
        if self.one_in(2) {
            secret.type_ = Some(SECRET_TYPE.to_owned());
            let labels = secret.metadata.labels.get_or_insert_default();
            labels.insert(MANAGED_BY_LABEL.to_owned(), FIELD_MANAGER.to_owned());
            labels.insert(NAME_LABEL.to_owned(), key.metadata.name.clone().unwrap_or_default());
        }
        if self.one_in(8) {
            let mut bare = key.clone();
            bare.status = None;
            if let Ok(versions) = secret::adopt(&bare, secret) {
                answer(&mut bare, &versions);
                bare.status = Some(with_recorded(&bare, versions));
                *key = bare;
            }
        } else if self.one_in(4) {
            key.status = Some(KeyStatus { versions: Vec::new(), ..key.status.clone().unwrap_or_default() });
        }
    }
}

/// Copies all of one version to another.
fn copy_version(secret: &mut Secret, from: u8, to: u8) {
    let renamed = |name: &str| Some(format!("{}.v{to}", name.strip_suffix(&format!(".v{from}"))?));
    let data = secret.data.get_or_insert_default();
    let copies: Vec<_> = data.iter().filter_map(|(name, value)| Some((renamed(name)?, value.clone()))).collect();
    data.extend(copies);
    let annotations = secret.metadata.annotations.get_or_insert_default();
    let copies: Vec<_> = annotations.iter().filter_map(|(name, value)| Some((renamed(name)?, value.clone()))).collect();
    annotations.extend(copies);
}

/// Writes the checksum of every `CiphertextBlob` into the annotation of its version.
fn sum(secret: &mut Secret) {
    for (name, annotation) in secret.metadata.annotations.iter_mut().flatten() {
        let blob = name
            .strip_prefix(ISSUED)
            .and_then(|version| secret.data.as_ref()?.get(&format!("ciphertextBlob.v{version}")));
        if let (Some(blob), Ok(Value::Object(mut provenance))) = (blob, serde_json::from_str(annotation)) {
            provenance.insert("sha256".to_owned(), json!(sha256(&blob.0)));
            *annotation = Value::Object(provenance).to_string();
        }
    }
}

/// Copies the version that the plain entries name into the plain entries.
fn copy_plain(secret: &mut Secret) {
    let data = secret.data.get_or_insert_default();
    let Some(version) = data.get("version").and_then(|version| String::from_utf8(version.0.clone()).ok()) else {
        return;
    };
    let suffix = format!(".v{version}");
    let copies: Vec<_> =
        data.iter().filter_map(|(name, value)| Some((name.strip_suffix(&suffix)?.to_owned(), value.clone()))).collect();
    data.retain(|name, _| name == "version" || name.contains('.'));
    data.extend(copies);
    secret.metadata.annotations.get_or_insert_default().insert(CURRENT_VERSION_ANNOTATION.to_owned(), version);
}

/// Sets the request in the spec to that of the wanted version.
fn answer(key: &mut DataKey, versions: &[IssuedVersion]) {
    if let Some(issued) = versions.iter().find(|issued| issued.version == key.wanted_version()) {
        let request = issued.written().to_written();
        key.spec.key_id = request.key_id;
        key.spec.key_spec = request.key_spec;
        key.spec.number_of_bytes = request.number_of_bytes;
        key.spec.encryption_context = request.encryption_context;
        key.spec.region = request.region;
    }
}
