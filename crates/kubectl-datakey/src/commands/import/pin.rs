//! From a wrapped data key to a pin, and from pins to the manifest of a `DataKey`.

use datakey::{
    api::{
        DataKey, EncryptionContext, FIRST_VERSION, IssuedVersion, KeyKind as _, KeyRequest, KeySpec, Material,
        RequestFlaw, Rest, truncate_to_seconds,
    },
    arn::{self, KmsArn},
    protocol::pins,
};
use datakey_unwrap::{Decrypter, Identity, Refusal, WrappedKey};
use k8s_openapi::{ByteString, jiff::Timestamp};
use serde_json::{Map, Value, json};

use super::candidate::Candidate;
use crate::commands::create::parameters::{by_flags, region_of_spec};

/// The KMS key and the length of a data key.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    key_arn: String,
    material: Material,
}

// === impl Found ===

impl Found {
    /// Takes what the user says.
    pub fn unverified(candidate: &Candidate) -> Result<Self, String> {
        let named = [&candidate.wrapped.key_id, &candidate.key_id].into_iter().flatten();
        let key_arn = named.into_iter().find(|key| KmsArn::parse(key).is_some_and(|arn| arn.is_key()));
        let key_arn = key_arn.ok_or("with --no-verify, name the KMS key by its key ARN in --key-id")?.clone();
        let material = Material::new(candidate.key_spec, candidate.number_of_bytes, None);
        let material = material.ok_or("with --no-verify, give exactly one of --key-spec and --number-of-bytes")?;
        let blob = candidate.wrapped.ciphertext_blob.len();
        if let Some(length) = material.length().filter(|length| blob <= *length) {
            return Err(format!(
                "it has {blob} bytes, and a wrapped data key is longer than the data key of {length} bytes: it may be the data \
                 key itself, which must not be stored"
            ));
        }
        Ok(Self { key_arn, material })
    }

    /// Asks KMS whether the data key unwraps with exactly this key and encryption context.
    pub async fn verified(candidate: &Candidate, decrypter: &Decrypter) -> Result<Self, String> {
        // An alias may name another key today than when the data key was issued; the JSON has the ARN.
        let key_id = candidate.wrapped.key_id.as_deref().or(candidate.key_id.as_deref());
        if let Some(key_id) = key_id.filter(|key_id| !arn::has_known_form(key_id)) {
            let flaw = by_flags(RequestFlaw::KeyId);
            return Err(format!("{flaw}; it is {key_id:?}"));
        }
        let wrapped = WrappedKey {
            key_id,
            region: candidate.region.as_deref(),
            ciphertext_blob: &candidate.wrapped.ciphertext_blob,
            encryption_context: &candidate.encryption_context,
        };
        match decrypter.identify(&wrapped).await {
            Ok(identity) => Self::identified(candidate, &identity),
            Err(Refusal::Failed { why } | Refusal::Unknown { why }) => Err(why),
        }
    }

    /// Compares what KMS answers with what the user says.
    fn identified(candidate: &Candidate, identity: &Identity) -> Result<Self, String> {
        let Identity { key_arn, length } = identity;
        let given = Material::new(candidate.key_spec, candidate.number_of_bytes, None);
        if let Some(given) = given.and_then(Material::length).filter(|given| given != length) {
            return Err(format!(
                "it unwraps to {length} bytes, and {given} were said: correct --key-spec or --number-of-bytes, or leave them out"
            ));
        }
        let material = match (given, length) {
            (Some(given), _) => Some(given),
            (None, 32) => Some(Material::Spec(KeySpec::Aes256)),
            (None, 16) => Some(Material::Spec(KeySpec::Aes128)),
            (None, _) => i32::try_from(*length).ok().and_then(|length| Material::new(None, Some(length), None)),
        };
        let material = material.ok_or_else(|| format!("it unwraps to {length} bytes, and a data key has 1 to 1024"))?;
        Ok(Self { key_arn: key_arn.clone(), material })
    }

    /// Returns the pin.
    pub fn pin(self, candidate: &Candidate, now: Timestamp) -> Result<IssuedVersion, String> {
        let Self { key_arn, material } = self;
        let key_id = candidate.key_id.clone().unwrap_or_else(|| key_arn.clone());
        let region = region_of_spec(&key_id, candidate.region.as_deref())?;
        let (key_spec, number_of_bytes) = match material {
            Material::Spec(spec) => (Some(spec), None),
            Material::Bytes(bytes) => (None, Some(bytes.into())),
            // No candidate is one.
            Material::Pair(_) => (None, None),
        };
        let context = &candidate.encryption_context;
        let encryption_context = (!context.is_empty()).then(|| EncryptionContext::clone(context));
        let rest = Rest::new();
        let request =
            KeyRequest { key_id, key_spec, number_of_bytes, key_pair_spec: None, encryption_context, region, rest };
        if let Some(flaw) = RequestFlaw::of(DataKey::KIND, &request) {
            return Err(by_flags(flaw));
        }
        Ok(IssuedVersion {
            version: candidate.version,
            request,
            ciphertext_blob: ByteString(candidate.wrapped.ciphertext_blob.clone()),
            public_key: None,
            key_id: key_arn,
            key_material_id: candidate.wrapped.key_material_id.clone(),
            issued_at: truncate_to_seconds(candidate.issued_at.unwrap_or(now)),
            request_id: None,
            rest: Rest::new(),
        })
    }
}

/// Returns the manifest of a `DataKey` with these pins. The highest version is current.
///
/// # Errors
/// What is wrong with a pin: the operator would refuse the same.
pub fn manifest(name: &str, namespace: Option<&str>, mut pins: Vec<IssuedVersion>) -> Result<Value, String> {
    pins.sort_by_key(|pin| pin.version);
    let current = pins.last().ok_or("there is no wrapped data key")?;
    let mut metadata = Map::from_iter([("name".to_owned(), json!(name))]);
    if let Some(namespace) = namespace {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    let mut spec = json!(current.request);
    if current.version != FIRST_VERSION {
        spec["version"] = json!(current.version);
    }
    spec["wrappedKeys"] = json!(pins);
    let manifest =
        json!({ "apiVersion": "datakey.dev/v1alpha1", "kind": "DataKey", "metadata": metadata, "spec": spec });
    let key: DataKey = serde_json::from_value(manifest.clone()).map_err(|error| error.to_string())?;
    match pins::unrecorded(&key, None) {
        Ok(_) => Ok(manifest),
        Err(failure) => Err(failure.detail.unwrap_or_else(|| failure.reason.as_str().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use datakey::fixtures::{ARN, at, issued};

    use super::*;
    use crate::commands::import::wrapped::Wrapped;

    fn candidate() -> Candidate {
        Candidate {
            place: "orders".to_owned(),
            name: "orders".to_owned(),
            version: 1,
            key_id: None,
            region: None,
            encryption_context: EncryptionContext::new(),
            key_spec: None,
            number_of_bytes: None,
            issued_at: None,
            wrapped: Wrapped { ciphertext_blob: vec![1; 100], key_id: None, key_material_id: None },
        }
    }

    fn identity(length: usize) -> Identity {
        Identity { key_arn: ARN.to_owned(), length }
    }

    #[test]
    fn length_that_kms_answers_names_the_material() {
        let found = |length| Found::identified(&candidate(), &identity(length)).map(|found| found.material);
        assert_eq!(found(32), Ok(Material::Spec(KeySpec::Aes256)));
        assert_eq!(found(16), Ok(Material::Spec(KeySpec::Aes128)));
        assert_eq!(found(64), Ok(Material::Bytes(64)));
        assert!(found(0).is_err() && found(1025).is_err());
        let given = Candidate { number_of_bytes: Some(32), ..candidate() };
        let found = |length| Found::identified(&given, &identity(length)).map(|found| found.material);
        assert_eq!(found(32), Ok(Material::Bytes(32)), "what was given stays");
        assert!(found(16).unwrap_err().contains("unwraps to 16 bytes, and 32"));
    }

    #[test]
    fn unverified_pin_needs_an_arn_and_a_length() {
        let error = |candidate: &Candidate| Found::unverified(candidate).unwrap_err();
        assert!(error(&candidate()).contains("key ARN"));
        assert!(error(&Candidate { key_id: Some("alias/orders".to_owned()), ..candidate() }).contains("key ARN"));
        let mut with_arn = Candidate { key_id: Some(ARN.to_owned()), ..candidate() };
        assert!(error(&with_arn).contains("--key-spec"));
        with_arn.key_spec = Some(KeySpec::Aes256);
        let mut plaintext = with_arn.clone();
        plaintext.wrapped.ciphertext_blob.truncate(32);
        assert!(error(&plaintext).contains("may be the data key itself"));
        let pin = Found::unverified(&with_arn).unwrap().pin(&with_arn, at(0)).unwrap();
        assert_eq!((pin.key_id.as_str(), pin.request.key_id.as_str()), (ARN, ARN));
        // The JSON of the AWS CLI names the ARN, and the spec keeps the alias.
        let mut json = Candidate { key_id: Some("alias/orders".to_owned()), ..with_arn };
        json.wrapped.key_id = Some(ARN.to_owned());
        let pin = Found::unverified(&json).unwrap().pin(&json, at(0)).unwrap();
        assert_eq!((pin.key_id.as_str(), pin.request.key_id.as_str()), (ARN, "alias/orders"));
    }

    #[test]
    fn manifest_has_the_highest_version_as_the_current_one() {
        let one = manifest("orders", None, vec![issued(1)]).unwrap();
        assert_eq!(one["spec"].get("version"), None);
        assert_eq!(one["metadata"], json!({ "name": "orders" }));
        let two = manifest("orders", Some("shop"), vec![issued(2), issued(1)]).unwrap();
        assert_eq!((&two["spec"]["version"], &two["spec"]["keyId"]), (&json!(2), &json!("alias/orders")));
        assert_eq!(two["spec"]["wrappedKeys"], json!([issued(1), issued(2)]));
        assert_eq!(two["metadata"]["namespace"], "shop");
    }

    #[test]
    fn pins_that_the_operator_would_refuse_are_refused() {
        let twin = IssuedVersion { version: 2, ..issued(1) };
        assert!(manifest("orders", None, vec![issued(1), twin]).unwrap_err().contains("data key of its own"));
        assert!(manifest("orders", None, vec![issued(1), issued(1)]).unwrap_err().contains("twice"));
        let mut other = issued(1);
        other.request.key_id = ARN.replace("1234abcd", "99999999");
        assert!(manifest("orders", None, vec![other]).unwrap_err().contains("keyId"));
        assert!(manifest("orders", None, (1..=65).map(issued).collect()).unwrap_err().contains("64"));
    }
}
