//! Decoding of the versions in a Secret.

use std::collections::BTreeSet;

use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::{digest::sha256, projection::VersionAnnotation};
use crate::{
    api::{
        EncryptionContext, IssuedVersion, KeyPairSpec, KeyRequest, KeySpec, Kind, KindId, Material, flaws::flaw,
        has_blob_length,
    },
    arn::KmsArn,
    names::{CURRENT_VERSION_ANNOTATION, VERSION_ANNOTATION_PREFIX},
    public_key,
};

pub(super) fn entry<'a>(secret: &'a Secret, name: &str) -> Option<&'a ByteString> {
    secret.data.as_ref()?.get(name)
}

pub(super) fn text<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    entry(secret, name).and_then(|value| std::str::from_utf8(&value.0).ok())
}

pub(super) fn current_version(secret: &Secret) -> Option<i32> {
    let version = text(secret, "version")?;
    let annotated = secret.metadata.annotations.as_ref()?.get(CURRENT_VERSION_ANNOTATION)?;
    (annotated == version).then(|| version.parse().ok())?
}

/// The numbers of the versions in the entries or in the annotations of a Secret.
pub(super) fn version_numbers(secret: &Secret) -> BTreeSet<i32> {
    let entries = secret.data.iter().flatten().filter_map(|(name, _)| name.strip_prefix("ciphertextBlob.v"));
    let annotations = secret
        .metadata
        .annotations
        .iter()
        .flatten()
        .filter_map(|(name, _)| name.strip_prefix(VERSION_ANNOTATION_PREFIX));
    entries.chain(annotations).filter_map(|number| number.parse().ok()).filter(|&number| number >= 1).collect()
}

/// The annotation about a version, if it can be decoded.
pub(super) fn version_annotation(secret: &Secret, version: i32) -> Option<VersionAnnotation> {
    serde_json::from_str(secret.metadata.annotations.as_ref()?.get(&format!("{VERSION_ANNOTATION_PREFIX}{version}"))?)
        .ok()
}

/// Decodes one version of the Secret of an object of this kind.
///
/// # Errors
/// What is missing, or contradicts the rest of the version.
pub(crate) fn parse_version(kind: &Kind, secret: &Secret, version: i32) -> Result<IssuedVersion, String> {
    let wrong = |what: &str| format!("{what} of version {version} is missing or was changed");
    let text = |name: &str| text(secret, &format!("{name}.v{version}"));

    let provenance = version_annotation(secret, version).ok_or_else(|| wrong("the annotation"))?;
    let blob = entry(secret, &format!("ciphertextBlob.v{version}"))
        .filter(|blob| has_blob_length(&blob.0) && sha256(&blob.0) == provenance.sha256)
        .ok_or_else(|| wrong("ciphertextBlob"))?;
    let arn =
        text("keyId").filter(|arn| KmsArn::parse(arn).is_some_and(|arn| arn.is_key())).ok_or_else(|| wrong("keyId"))?;
    let key_spec = [KeySpec::Aes256, KeySpec::Aes128].into_iter().find(|spec| text("keySpec") == Some(spec.as_str()));
    let number_of_bytes =
        text("numberOfBytes").and_then(|bytes| bytes.parse().ok()).filter(|bytes| (1..=1024).contains(bytes));
    let key_pair_spec = KeyPairSpec::ALL.iter().copied().find(|spec| text("keyPairSpec") == Some(spec.as_str()));
    let material = Material::new(key_spec, number_of_bytes, key_pair_spec).filter(|found| found.kind() == kind.id);
    let public_key = match (kind.id, material) {
        (KindId::DataKey, None) => return Err(wrong("keySpec or numberOfBytes")),
        (KindId::DataKeyPair, None) => return Err(wrong("keyPairSpec")),
        (KindId::DataKey, Some(_)) => None,
        (KindId::DataKeyPair, Some(_)) => {
            let der = text("publicKey").and_then(public_key::der_of_pem);
            let der = der.filter(|der| Some(sha256(der)) == provenance.public_key_sha256);
            Some(ByteString(der.ok_or_else(|| wrong("publicKey"))?))
        }
    };
    let context: EncryptionContext = text("encryptionContext")
        .and_then(|context| serde_json::from_str(context).ok())
        .ok_or_else(|| wrong("encryptionContext"))?;
    // Consumers read the entry, and the record is rebuilt from the annotation.
    if text("rewrapOf") != provenance.rewrap_of.as_ref().map(|rewrap_of| rewrap_of.version.to_string()).as_deref() {
        return Err(wrong("rewrapOf"));
    }
    let found = IssuedVersion {
        version,
        request: KeyRequest {
            key_id: provenance.key_id,
            key_spec,
            number_of_bytes,
            key_pair_spec,
            encryption_context: (!context.is_empty()).then_some(context),
            region: provenance.region,
            rest: provenance.request,
        },
        ciphertext_blob: blob.clone(),
        public_key,
        key_id: arn.to_owned(),
        key_material_id: provenance.key_material_id,
        issued_at: provenance.issued_at,
        request_id: provenance.request_id,
        as_written: provenance.as_written,
        class: provenance.class,
        rewrap_of: provenance.rewrap_of,
        rest: provenance.rest,
    };
    if names_fields_twice(&found) {
        return Err(wrong("the annotation"));
    }
    match flaw(kind, &found) {
        None => Ok(found),
        Some(flaw) => Err(format!("what it holds as version {version} can't be recorded: {flaw}")),
    }
}

/// Whether unknown fields of the annotation have the names of known fields of the record. The JSON would then have a field
/// twice, and the API server would keep either value.
fn names_fields_twice(issued: &IssuedVersion) -> bool {
    if issued.unknown_fields().next().is_none() {
        return false;
    }
    let written = serde_json::to_value(issued).and_then(serde_json::from_value::<IssuedVersion>);
    !written.is_ok_and(|read| read.rests().eq(issued.rests()))
}
