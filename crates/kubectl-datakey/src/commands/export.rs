//! `kubectl datakey export`: prints a wrapped data key and what is needed to unwrap it. All of it is ciphertext or
//! public.

use std::{collections::BTreeMap, fmt::Write};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use datakey::{
    api::{EncryptionContext, IssuedVersion, KeyPairSpec, KeySpec},
    secret::{Projection, sha256, text_entries},
    text::printable_json,
};
use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::Time};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Content, deliver, has_grant_tokens, selected::select_version};
use crate::{
    cli::{Export, ExportFormat},
    cluster::{Cluster, FetchedKey},
    output::{CommandError, Output, Terminal, json as to_json, yaml},
    view::shell::{env_name, quote},
};

/// Exports a wrapped data key or key pair or, with `--pin`, the object with all of them.
pub async fn run(cluster: &Cluster, terminal: &Terminal, args: &Export) -> Result<Output, CommandError> {
    let fetched = cluster.resolve(&args.name).await?;
    if args.pin {
        let is_secret = has_grant_tokens(&fetched);
        let mut output = Output::text(yaml(&pinned_manifest(&fetched)?)?);
        if is_secret {
            output.notes.push(
                "note: spec.grantTokens is in the manifest; what is issued needs none, so you may remove it".to_owned(),
            );
        }
        return deliver(output, args.to.as_deref(), Content::Text { is_secret }, terminal);
    }
    let out = encode(&fetched, select_version(fetched.key.object(), args.version)?, args.output)?;
    let content = if args.output == ExportFormat::Raw { Content::Bytes } else { Content::Text { is_secret: false } };
    deliver(Output { out, ..Output::default() }, args.to.as_deref(), content, terminal)
}

fn encode(fetched: &FetchedKey, issued: &IssuedVersion, format: ExportFormat) -> Result<Vec<u8>, CommandError> {
    Ok(match format {
        ExportFormat::Raw => issued.ciphertext_blob.0.clone(),
        ExportFormat::Env => assignments(issued).into_bytes(),
        ExportFormat::Json => to_json(&Exported::of(fetched, issued))?.into_bytes(),
        ExportFormat::Manifest => yaml(&config_map(fetched, issued))?.into_bytes(),
    })
}

/// One version, as `-o json` prints it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exported<'a> {
    /// `DataKey` or `DataKeyPair`.
    kind: &'static str,
    namespace: String,
    name: String,
    version: i32,
    /// The wrapped data key, or the wrapped private key of a key pair, in base64.
    #[schemars(with = "String")]
    ciphertext_blob: &'a ByteString,
    /// SHA-256 of what is wrapped, in hexadecimal digits.
    sha256: String,
    key_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_spec: Option<KeySpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number_of_bytes: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_pair_spec: Option<KeyPairSpec>,
    /// The public key of a key pair: SubjectPublicKeyInfo in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    encryption_context: &'a EncryptionContext,
    issued_at: &'a Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_material_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    /// The version whose data key or private key this is, if it is a rewrap.
    #[serde(skip_serializing_if = "Option::is_none")]
    rewrap_of: Option<i32>,
}

// === impl Exported ===

impl<'a> Exported<'a> {
    pub fn of(fetched: &FetchedKey, issued: &'a IssuedVersion) -> Self {
        Self {
            kind: fetched.kind().name,
            namespace: fetched.namespace(),
            name: fetched.name(),
            version: issued.version,
            ciphertext_blob: &issued.ciphertext_blob,
            sha256: sha256(&issued.ciphertext_blob.0),
            key_id: &issued.key_id,
            key_spec: issued.request.key_spec,
            number_of_bytes: issued.request.number_of_bytes,
            key_pair_spec: issued.request.key_pair_spec,
            public_key: text_entries(issued).remove("publicKey"),
            encryption_context: issued.request.context(),
            issued_at: &issued.issued_at,
            key_material_id: issued.key_material_id.as_deref(),
            request_id: issued.kms_request_id(),
            rewrap_of: issued.rewrap_of.as_ref().map(|rewrap_of| rewrap_of.version),
        }
    }
}

/// Returns the text entries that the Secret has for this version, by the same names. Invisible characters are escaped,
/// so that the output can go to a terminal.
fn entries(issued: &IssuedVersion) -> BTreeMap<&'static str, String> {
    let mut entries = text_entries(issued);
    entries.insert("version", issued.version.to_string());
    if let Some(context) = entries.get_mut("encryptionContext") {
        *context = printable_json(context).into_owned();
    }
    entries
}

/// Returns a ConfigMap that a workload can mount instead of the Secret: it has all entries that the Secret has with this version
/// as the current one. A ConfigMap is enough: no entry is secret.
fn config_map(fetched: &FetchedKey, issued: &IssuedVersion) -> Value {
    let projection = Projection::of(&fetched.key, issued.version);
    let (mut text, mut binary) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in projection.into_iter().flat_map(|projection| projection.data) {
        match name.split('.').next() {
            Some("ciphertextBlob") => _ = binary.insert(name, value),
            _ => _ = text.insert(name, printable_json(&String::from_utf8_lossy(&value.0)).into_owned()),
        }
    }
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": fetched.key.secret_name(), "namespace": fetched.namespace() },
        "binaryData": binary,
        "data": text,
    })
}

/// Returns assignments for a POSIX shell.
fn assignments(issued: &IssuedVersion) -> String {
    let blob = BASE64_STANDARD.encode(&issued.ciphertext_blob.0);
    let mut lines = format!("DATAKEY_CIPHERTEXT_BLOB={}\n", quote(&blob));
    for (name, value) in entries(issued) {
        let _ = writeln!(lines, "DATAKEY_{}={}", env_name(name), quote(&value));
    }
    lines
}

/// Returns the manifest of an object for Git: the fields that its author wrote, and every recorded version as a pin.
///
/// The manifest is made from the JSON of the API server, so it keeps fields that this version of the plugin does not
/// know.
pub fn pinned_manifest(fetched: &FetchedKey) -> Result<Value, CommandError> {
    let value = &fetched.value;
    let versions = &value["status"]["versions"];
    if versions.as_array().is_none_or(Vec::is_empty) {
        return Err(CommandError::NotReady(format!(
            "{} has nothing to pin yet: see why by kubectl datakey status {} -n {}",
            fetched.titled(),
            fetched.shown(),
            fetched.namespace()
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
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;
    use crate::fixtures::{ARN, edited, issued, pair, ready, recorded, secret, version};

    fn text(fetched: &FetchedKey, number: i32, format: ExportFormat) -> String {
        String::from_utf8(encode(fetched, version(fetched, number), format).unwrap()).unwrap()
    }

    #[test]
    fn shell_reads_the_public_key_of_a_pair() {
        let fetched = pair(&[1]);
        let script =
            text(&fetched, 1, ExportFormat::Env) + r#"printf '%s|%s' "$DATAKEY_KEY_PAIR_SPEC" "$DATAKEY_PUBLIC_KEY""#;
        let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        let pem = secret(&fetched.key, 1).data.unwrap().remove("publicKey").unwrap().0;
        let pem = String::from_utf8(pem).unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("ECC_NIST_P256|{pem}"));
        assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{pem}");
    }

    #[test]
    fn config_map_has_all_entries_of_the_secret() {
        for (fetched, current) in [(ready(&[1, 2, 7]), 2), (ready(&[1, 2, 7]), 7), (pair(&[1, 2, 7]), 2)] {
            let manifest: ConfigMap = serde_saphyr::from_str(&text(&fetched, current, ExportFormat::Manifest)).unwrap();
            let texts = manifest.data.unwrap().into_iter().map(|(name, value)| (name, ByteString(value.into_bytes())));
            let all: BTreeMap<_, _> = manifest.binary_data.unwrap().into_iter().chain(texts).collect();
            assert_eq!(all, secret(&fetched.key, current).data.unwrap());
            assert!(
                ["ciphertextBlob", "ciphertextBlob.v1", "keyId.v7", "version"]
                    .iter()
                    .all(|&name| all.contains_key(name))
            );
        }
    }

    #[test]
    fn shell_reads_the_assignments_unchanged() {
        let fetched = edited(recorded(&[1]), |value| {
            value["status"]["versions"][0]["request"]["encryptionContext"] = json!({ "it's": "$(id)\n\u{0}" });
        });
        let script = text(&fetched, 1, ExportFormat::Env)
            + r#"printf '%s|%s|%s|%s|%s' "$DATAKEY_CIPHERTEXT_BLOB" "$DATAKEY_KEY_ID" "$DATAKEY_KEY_SPEC" "$DATAKEY_VERSION" "$DATAKEY_ENCRYPTION_CONTEXT""#;
        let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        let read = String::from_utf8(output.stdout).unwrap();
        let blob = BASE64_STANDARD.encode(&version(&fetched, 1).ciphertext_blob.0);
        let (rest, context) = read.rsplit_once('|').unwrap();
        assert_eq!(rest, format!("{blob}|{ARN}|AES_256|1"));
        assert_eq!(serde_json::from_str::<Value>(context).unwrap(), json!({ "it's": "$(id)\n\u{0}" }));
    }

    #[test]
    fn invisible_characters_of_the_context_are_escaped() {
        let fetched = edited(recorded(&[1]), |value| {
            value["status"]["versions"][0]["request"]["encryptionContext"] = json!({ "a": "\u{202e}" });
        });
        assert_eq!(entries(version(&fetched, 1))["encryptionContext"], r#"{"a":"\u202e"}"#);
        let map = config_map(&fetched, version(&fetched, 1));
        assert_eq!(map["data"]["encryptionContext.v1"], r#"{"a":"\u202e"}"#);
    }

    #[test]
    fn json_describes_the_version_and_raw_has_its_bytes() {
        let fetched = ready(&[1]);
        let exported: Value = serde_json::from_str(&text(&fetched, 1, ExportFormat::Json)).unwrap();
        assert_eq!(exported["ciphertextBlob"], json!(issued(1).ciphertext_blob));
        assert_eq!(exported["encryptionContext"], json!({ "purpose": "orders" }));
        assert_eq!((&exported["keyId"], &exported["keySpec"]), (&json!(ARN), &json!("AES_256")));
        assert_eq!(exported["sha256"], json!(sha256(b"wrapped data key 1")));
        assert_eq!(text(&fetched, 1, ExportFormat::Raw), "wrapped data key 1");
    }

    #[test]
    fn pinned_manifest_has_the_spec_and_every_version_only() {
        let fetched = edited(ready(&[1, 2]), |value| {
            value["metadata"]["labels"] = json!({ "team": "a" });
            value["metadata"]["annotations"] = json!({ "x": "y" });
            value["spec"]["field-of-tomorrow"] = json!([1]);
            value["status"]["versions"][0]["field-of-tomorrow"] = json!("x");
            value["status"]["versions"][0]["asWritten"] = json!({ "keySpec": "AES_256" });
            value["status"]["versions"][0]["class"] = json!({ "name": "shop", "uid": "u", "generation": 2 });
        });
        let manifest: Value = serde_saphyr::from_str(&yaml(&pinned_manifest(&fetched).unwrap()).unwrap()).unwrap();
        let pinned = FetchedKey::decode(fetched.kind(), &manifest.to_string()).unwrap();
        assert_eq!(pinned.key.pinned_versions(), fetched.key.record(), "as they are elsewhere");
        let mut spec = fetched.value["spec"].clone();
        spec["wrappedKeys"] = fetched.value["status"]["versions"].clone();
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
    fn record_replaces_earlier_pins() {
        let fetched = edited(ready(&[1, 2]), |value| value["spec"]["wrappedKeys"] = json!([issued(1)]));
        assert_eq!(pinned_manifest(&fetched).unwrap()["spec"]["wrappedKeys"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn nothing_is_pinned_before_a_version_is_issued() {
        assert!(matches!(pinned_manifest(&recorded(&[])), Err(CommandError::NotReady(_))));
    }

    #[test]
    fn export_is_printed_as_recorded() {
        let fetched = ready(&[1, 2]);
        for (name, format) in [
            ("export-manifest", ExportFormat::Manifest),
            ("export-json", ExportFormat::Json),
            ("export-env", ExportFormat::Env),
        ] {
            insta::assert_snapshot!(name, text(&fetched, 1, format));
        }
        insta::assert_snapshot!("export-pin", yaml(&pinned_manifest(&fetched).unwrap()).unwrap());
    }
}
