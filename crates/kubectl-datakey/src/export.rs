//! `kubectl datakey export`: a wrapped data key and what is needed to unwrap it. All of it is ciphertext or public.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{IsTerminal, Write as _},
    path::Path,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use datakey::{
    api::{EncryptionContext, IssuedVersion, KeySpec},
    secret::sha256,
    text::printable_json,
};
use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::Time};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    answer::{Answer, Failure, json as to_json, yaml},
    args::{Export, ExportFormat},
    cluster::{Cluster, Object},
    text::shell_quoted,
};

/// Prints a wrapped data key, or the `DataKey` with all of them.
pub async fn run(cluster: &Cluster, args: &Export) -> Result<Answer, Failure> {
    let object = cluster.data_key(&args.name).await?;
    let mut answer = if args.pin {
        let mut answer = Answer::text(yaml(&pinned(&object)?)?);
        if object.key.spec.grant_tokens.is_some() {
            answer.notes.push(
                "note: spec.grantTokens is in the manifest; what is issued needs none, so you may remove it".to_owned(),
            );
        }
        answer
    } else {
        let out = exported(&object, chosen(&object, args.version)?, args.output)?;
        Answer { out, ..Answer::default() }
    };
    match &args.to {
        Some(file) => {
            write(file, &answer.out)?;
            answer.notes.push(format!("wrote {}", file.display()));
            answer.out.clear();
        }
        None if args.output == ExportFormat::Raw && !args.pin && std::io::stdout().is_terminal() => {
            return Err(Failure::Usage(
                "raw bytes would garble the terminal: name a file by --to, or redirect".to_owned(),
            ));
        }
        None => {}
    }
    Ok(answer)
}

/// Writes a new file.
pub fn write(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::Work(format!(
            "{} is there already and was left alone: remove it, or name another file by --to",
            file.display()
        )),
        _ => Failure::Work(format!("can't write {}: {error}", file.display())),
    };
    File::create_new(file).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all())).map_err(cannot)
}

/// The version that was asked for, else the one that the Secret's plain entries hold, else that of the spec.
fn chosen(object: &Object, asked: Option<i32>) -> Result<&IssuedVersion, Failure> {
    let key = &object.key;
    let published = key.status.as_ref().and_then(|status| status.version);
    let version = asked.or(published).unwrap_or_else(|| key.version());
    key.issued(version).ok_or_else(|| {
        let issued: Vec<_> = key.record().iter().map(|issued| issued.version.to_string()).collect();
        let name = object.name();
        match (issued.is_empty(), asked) {
            (false, Some(_)) => {
                Failure::Usage(format!("DataKey {name} has no version {version}: it has {}", issued.join(", ")))
            }
            _ => Failure::NotReady(format!(
                "DataKey {name} has no version {version} yet: see why by kubectl datakey status {name} -n {}",
                object.namespace()
            )),
        }
    })
}

fn exported(object: &Object, issued: &IssuedVersion, format: ExportFormat) -> Result<Vec<u8>, Failure> {
    Ok(match format {
        ExportFormat::Raw => issued.ciphertext_blob.0.clone(),
        ExportFormat::Env => env(issued).into_bytes(),
        ExportFormat::Json => to_json(&Exported::of(object, issued))?.into_bytes(),
        ExportFormat::Manifest => yaml(&manifest(object, issued))?.into_bytes(),
    })
}

/// One version for a machine.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Exported<'a> {
    namespace: String,
    name: String,
    version: i32,
    /// The wrapped data key, in base64.
    ciphertext_blob: &'a ByteString,
    /// SHA-256 of the wrapped data key, in hexadecimal digits.
    sha256: String,
    key_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_spec: Option<KeySpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number_of_bytes: Option<i32>,
    encryption_context: &'a EncryptionContext,
    issued_at: &'a Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_material_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

// === impl Exported ===

impl<'a> Exported<'a> {
    fn of(object: &Object, issued: &'a IssuedVersion) -> Self {
        Self {
            namespace: object.namespace(),
            name: object.name(),
            version: issued.version,
            ciphertext_blob: &issued.ciphertext_blob,
            sha256: sha256(&issued.ciphertext_blob.0),
            key_id: &issued.key_id,
            key_spec: issued.request.key_spec,
            number_of_bytes: issued.request.number_of_bytes,
            encryption_context: issued.request.context(),
            issued_at: &issued.issued_at,
            key_material_id: issued.key_material_id.as_deref(),
            request_id: issued.request_id.as_deref(),
        }
    }
}

fn base64(bytes: &ByteString) -> String {
    BASE64_STANDARD.encode(&bytes.0)
}

/// The entries of text that the Secret has, by the same names.
fn entries(issued: &IssuedVersion) -> BTreeMap<&'static str, String> {
    let request = &issued.request;
    let spec = request.key_spec.map(|spec| ("keySpec", spec.as_str().to_owned()));
    let bytes = request.number_of_bytes.map(|bytes| ("numberOfBytes", bytes.to_string()));
    let always = [
        ("keyId", issued.key_id.clone()),
        ("encryptionContext", printable_json(&json!(request.context()).to_string()).into_owned()),
        ("version", issued.version.to_string()),
    ];
    always.into_iter().chain(spec).chain(bytes).collect()
}

/// A ConfigMap that a workload can mount in place of the Secret. It is no Secret, because nothing in it is one.
fn manifest(object: &Object, issued: &IssuedVersion) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": object.key.secret_name(), "namespace": object.namespace() },
        "binaryData": { "ciphertextBlob": issued.ciphertext_blob },
        "data": entries(issued),
    })
}

fn env(issued: &IssuedVersion) -> String {
    let mut lines = format!("DATAKEY_CIPHERTEXT_BLOB={}\n", shell_quoted(&base64(&issued.ciphertext_blob)));
    for (name, value) in entries(issued) {
        let _ = writeln!(lines, "DATAKEY_{}={}", screaming(name), shell_quoted(&value));
    }
    lines
}

/// `keyId` as `KEY_ID`.
fn screaming(name: &str) -> String {
    name.chars().fold(String::new(), |mut out, character| {
        if character.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(character.to_ascii_uppercase());
        out
    })
}

/// The `DataKey` as it belongs in Git: what somebody wrote, and everything that was issued, as it was answered.
pub fn pinned(object: &Object) -> Result<Value, Failure> {
    let value = &object.value;
    let versions = &value["status"]["versions"];
    if versions.as_array().is_none_or(Vec::is_empty) {
        let name = object.name();
        return Err(Failure::NotReady(format!(
            "DataKey {name} has nothing to pin yet: see why by kubectl datakey status {name} -n {}",
            object.namespace()
        )));
    }
    let mut metadata = Map::new();
    for field in ["name", "namespace", "labels"] {
        if let Some(found) = value["metadata"].get(field) {
            metadata.insert(field.to_owned(), found.clone());
        }
    }
    let mut spec = value["spec"].clone();
    spec["wrappedKeys"] = versions.clone();
    Ok(json!({ "apiVersion": value["apiVersion"], "kind": value["kind"], "metadata": metadata, "spec": spec }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{ARN, edited, issued, ready, recorded, secret, version};

    fn text(object: &Object, number: i32, format: ExportFormat) -> String {
        String::from_utf8(exported(object, version(object, number), format).unwrap()).unwrap()
    }

    #[test]
    fn the_manifest_has_the_entries_of_the_secret_and_is_none() {
        let object = ready(&[1, 2]);
        let manifest: Value = serde_saphyr::from_str(&text(&object, 2, ExportFormat::Manifest)).unwrap();
        assert_eq!(manifest["kind"], "ConfigMap");
        let secret = secret(&object.key, 2).data.unwrap();
        assert_eq!(manifest["binaryData"]["ciphertextBlob"], json!(secret["ciphertextBlob"]));
        let entries = manifest["data"].as_object().unwrap();
        for (name, value) in entries {
            assert_eq!(secret[name].0, value.as_str().unwrap().as_bytes(), "{name}");
        }
        let plain = secret.keys().filter(|name| !name.contains(".v")).count();
        assert_eq!(entries.len() + 1, plain, "all plain entries");
    }

    #[test]
    fn the_assignments_are_what_a_shell_reads() {
        let object = edited(recorded(&[1]), |value| {
            value["status"]["versions"][0]["request"]["encryptionContext"] = json!({ "it's": "$(id)\n\u{0}" });
        });
        let script = text(&object, 1, ExportFormat::Env)
            + r#"printf '%s|%s|%s|%s|%s' "$DATAKEY_CIPHERTEXT_BLOB" "$DATAKEY_KEY_ID" "$DATAKEY_KEY_SPEC" "$DATAKEY_VERSION" "$DATAKEY_ENCRYPTION_CONTEXT""#;
        let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        let read = String::from_utf8(output.stdout).unwrap();
        let blob = base64(&version(&object, 1).ciphertext_blob);
        let (rest, context) = read.rsplit_once('|').unwrap();
        assert_eq!(rest, format!("{blob}|{ARN}|AES_256|1"));
        assert_eq!(serde_json::from_str::<Value>(context).unwrap(), json!({ "it's": "$(id)\n\u{0}" }));
    }

    #[test]
    fn json_has_what_is_needed_to_unwrap_and_raw_has_the_bytes() {
        let object = ready(&[1]);
        let exported: Value = serde_json::from_str(&text(&object, 1, ExportFormat::Json)).unwrap();
        assert_eq!(exported["ciphertextBlob"], issued(1)["ciphertextBlob"]);
        assert_eq!(exported["encryptionContext"], json!({ "purpose": "orders" }));
        assert_eq!((&exported["keyId"], &exported["keySpec"]), (&json!(ARN), &json!("AES_256")));
        assert_eq!(exported["sha256"], json!(sha256(b"wrapped data key 1")));
        assert_eq!(text(&object, 1, ExportFormat::Raw), "wrapped data key 1");
    }

    #[test]
    fn without_a_number_the_version_in_the_secret_is_chosen() {
        let went_back = edited(ready(&[1, 2]), |value| value["spec"]["version"] = json!(1));
        assert_eq!(chosen(&went_back, None).unwrap().version, 2, "the Secret still holds it");
        assert_eq!(chosen(&went_back, Some(1)).unwrap().version, 1);
        assert!(matches!(chosen(&went_back, Some(3)), Err(Failure::Usage(text)) if text.contains("it has 1, 2")));
        assert!(matches!(chosen(&recorded(&[]), None), Err(Failure::NotReady(_))));
    }

    #[test]
    fn a_pinned_manifest_is_the_spec_and_everything_issued_and_nothing_of_the_server() {
        let object = edited(ready(&[1, 2]), |value| {
            value["metadata"]["labels"] = json!({ "team": "a" });
            value["metadata"]["annotations"] = json!({ "x": "y" });
            value["spec"]["field-of-tomorrow"] = json!([1]);
            value["status"]["versions"][0]["field-of-tomorrow"] = json!("x");
        });
        let manifest: Value = serde_saphyr::from_str(&yaml(&pinned(&object).unwrap()).unwrap()).unwrap();
        let mut spec = object.value["spec"].clone();
        spec["wrappedKeys"] = object.value["status"]["versions"].clone();
        assert_eq!(
            manifest,
            json!({
                "apiVersion": "datakey.dev/v1alpha1",
                "kind": "DataKey",
                "metadata": { "name": "orders", "namespace": "shop", "labels": { "team": "a" } },
                "spec": spec,
            })
        );
    }

    #[test]
    fn earlier_pins_give_way_to_the_record_and_nothing_is_pinned_before_it_is_issued() {
        let object = edited(ready(&[1, 2]), |value| value["spec"]["wrappedKeys"] = json!([issued(1)]));
        assert_eq!(pinned(&object).unwrap()["spec"]["wrappedKeys"].as_array().unwrap().len(), 2);
        assert!(matches!(pinned(&recorded(&[])), Err(Failure::NotReady(_))));
    }

    #[test]
    fn yaml_keeps_texts_that_look_like_something_else() {
        let odd = [
            "yes",
            "on",
            "1e3",
            "0x1F",
            "012",
            "1_000",
            "null",
            "~",
            "12:30:45",
            "2026-01-01",
            " a",
            "a ",
            "- a",
            "#",
            "a: b",
            "'",
            "\"",
            "\\",
            "a\nb",
            "a\n",
            "\t",
            "\u{85}",
            "\u{7f}",
            "é",
            "{}",
            "!x",
            "&x",
            "*x",
            "%",
            "@",
            "`",
            "",
        ];
        let context: BTreeMap<_, _> = odd.iter().map(|text| (format!("key {text}"), *text)).collect();
        let back: BTreeMap<String, String> = serde_saphyr::from_str(&yaml(&context).unwrap()).unwrap();
        assert!(back.iter().eq(
            context.iter().map(|(key, value)| (key.clone(), (*value).to_owned())).collect::<BTreeMap<_, _>>().iter()
        ));
    }

    #[test]
    fn a_file_that_is_there_is_not_overwritten() {
        let file = std::env::temp_dir().join(format!("kubectl-datakey-{}", std::process::id()));
        write(&file, b"first").unwrap();
        let again = write(&file, b"second").unwrap_err().to_string();
        let kept = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(again.contains("is there already"), "{again}");
        assert_eq!(kept, b"first");
    }
}
