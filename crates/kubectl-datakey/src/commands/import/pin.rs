//! From a wrapped data key to a pin, and from pins to the manifest of a `DataKey`.

use datakey::{
    api::{
        DataKey, EncryptionContext, FIRST_VERSION, IssuedVersion, KeyKind as _, KeyRequest, KeySpec, Material,
        RequestFlaw, Rest, truncate_to_seconds,
    },
    arn::{self, KmsArn},
    protocol::pins,
};
use datakey_decrypt::{Decrypter, Identity, WrappedKey};
use k8s_openapi::{ByteString, jiff::Timestamp};
use serde_json::{Map, Value, json};

use super::candidate::Candidate;
use crate::commands::create::parameters::{by_flags, region_of_spec};

/// The fewest bytes that KMS adds to a data key: the ID of the KMS key, an initialization vector and a tag. AWS KMS adds 152 to
/// `AES_256`, LocalStack 68 or more, and moto 64 (`moto/kms/utils.py`).
const LEAST_WRAPPING: usize = 64;

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
        check_key(candidate)?;
        let named = [&candidate.key_id, &candidate.wrapped.key_id].into_iter().flatten();
        let key_arn = named.into_iter().find(|key| KmsArn::parse(key).is_some_and(|arn| arn.is_key()));
        let key_arn = key_arn.ok_or("with --no-verify, name the KMS key by its key ARN in --key-id")?.clone();
        let material =
            candidate.material().ok_or("with --no-verify, give exactly one of --key-spec and --number-of-bytes")?;
        let blob = candidate.wrapped.ciphertext_blob.len();
        if let Some(length) = material.length().filter(|length| blob < length + LEAST_WRAPPING) {
            return Err(format!(
                "it has {blob} bytes, and a wrapped data key of {length} bytes has {} or more: it may be the data key itself, \
                 which must not be stored",
                length + LEAST_WRAPPING
            ));
        }
        Ok(Self { key_arn, material })
    }

    /// Asks KMS whether the data key unwraps with exactly this key and encryption context.
    ///
    /// KMS is asked with the key that the user names: that one goes into the spec, and the next version is issued under it.
    pub async fn verified(candidate: &Candidate, decrypter: &Decrypter) -> Result<Self, String> {
        check_key(candidate)?;
        let (given, in_json) = (candidate.key_id.as_deref(), candidate.wrapped.key_id.as_deref());
        let region = candidate.region.as_deref().or_else(|| Some(KmsArn::parse(in_json?)?.region));
        let wrapped = WrappedKey {
            key_id: given.or(in_json),
            region,
            ciphertext_blob: &candidate.wrapped.ciphertext_blob,
            encryption_context: &candidate.encryption_context,
        };
        match decrypter.identify(&wrapped).await {
            Ok(identity) => Self::identified(candidate, &identity),
            Err(refusal) if !refusal.is_final() => Err(refusal.why),
            Err(refusal) => Err(match given.filter(|given| Some(*given) != in_json) {
                // KMS does not say which key would unwrap it.
                Some(given) => match decrypter.identify(&WrappedKey { key_id: in_json, ..wrapped }).await {
                    Ok(other) => other_key(given, &other.key_arn, &refusal.why),
                    Err(_) => refusal.why,
                },
                None => refusal.why,
            }),
        }
    }

    /// Compares what KMS answers with what the user says.
    fn identified(candidate: &Candidate, identity: &Identity) -> Result<Self, String> {
        let Identity { key_arn, length } = identity;
        if let Some(why) = contradiction(candidate, "AWS KMS", key_arn) {
            return Err(why);
        }
        if let Some(named) = candidate.wrapped.key_id.as_deref().filter(|named| !arn::decrypts_for(named, key_arn)) {
            return Err(match &candidate.key_id {
                Some(given) => other_key(given, named, &format!("AWS KMS answers with {key_arn}")),
                None => format!(
                    "KeyId of the JSON is {named}, but AWS KMS unwraps it with {key_arn}: import the JSON as the AWS CLI printed \
                     it"
                ),
            });
        }
        let given = candidate.material();
        if let Some(given) = given.filter(|given| given.length() != Some(*length)) {
            return Err(format!("it unwraps to {length} bytes, but {}: correct it, or leave it out", said(given)));
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
            as_written: None,
            rewrap_of: None,
            class: None,
            rest: Rest::new(),
        })
    }
}

/// The length as the user gives it.
fn said(material: Material) -> String {
    match material {
        Material::Spec(KeySpec::Aes256) => "--key-spec AES_256 says 32".to_owned(),
        Material::Spec(KeySpec::Aes128) => "--key-spec AES_128 says 16".to_owned(),
        Material::Bytes(bytes) => format!("--number-of-bytes says {bytes}"),
        Material::Pair(pair) => format!("--key-pair-spec says {}", pair.as_str()),
    }
}

/// Checks what the user says of the KMS key, before KMS is asked.
fn check_key(candidate: &Candidate) -> Result<(), String> {
    let (given, in_json) = (candidate.key_id.as_deref(), candidate.wrapped.key_id.as_deref());
    if let Some(key_id) = given.or(in_json).filter(|key_id| !arn::has_known_form(key_id)) {
        let flaw = by_flags(RequestFlaw::KeyId);
        return Err(format!("{flaw}; it is {key_id:?}"));
    }
    if let Some(given) = given {
        region_of_spec(given, candidate.region.as_deref())?;
    }
    in_json.and_then(|arn| contradiction(candidate, "KeyId of the JSON", arn)).map_or(Ok(()), Err)
}

/// What is wrong if the KMS key of this ARN is not the one that the user names. `named_by` is where the ARN comes from.
fn contradiction(candidate: &Candidate, named_by: &str, arn: &str) -> Option<String> {
    let (given, region) = (candidate.key_id.as_deref(), candidate.region.as_deref());
    let named = arn::resolve_region(given.unwrap_or_default(), region, None);
    let own = KmsArn::parse(arn).map(|arn| arn.region);
    let fits = match given {
        // The spec then has the ARN, which names its Region itself.
        None => named.is_none() || named == own,
        Some(given) => {
            let replica = named.and_then(|region| arn::replica_in(arn, region));
            arn::may_answer(given, named.or(own).unwrap_or_default(), replica.as_deref().unwrap_or(arn))
        }
    };
    let flags = [("--key-id", given), ("--region", region)].map(|(flag, value)| Some(format!("{flag} {}", value?)));
    let flags = flags.into_iter().flatten().collect::<Vec<_>>().join(" with ");
    (!fits).then(|| {
        format!(
            "{flags} does not name the KMS key of this data key: {named_by} names {arn}; correct it, or leave it out"
        )
    })
}

/// The user names another KMS key than the one that wrapped the data key.
fn other_key(given: &str, key_arn: &str, why: &str) -> String {
    format!(
        "--key-id {given} does not name the KMS key of this data key, {key_arn} ({why}): correct it, or leave it out"
    )
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
        assert!(found(16).unwrap_err().contains("unwraps to 16 bytes, but --number-of-bytes says 32"));
        let given = Candidate { key_spec: Some(KeySpec::Aes128), ..candidate() };
        let error = Found::identified(&given, &identity(32)).unwrap_err();
        assert!(error.contains("unwraps to 32 bytes, but --key-spec AES_128 says 16"), "{error}");
    }

    #[test]
    fn key_that_is_not_the_one_given_is_named_with_it() {
        let other = ARN.replace("1234abcd", "99999999");
        let elsewhere = ARN.replace("eu-west-1", "us-east-1");
        let replica = "arn:aws:kms:eu-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";
        let there = replica.replace("eu-west-1", "us-east-1");
        let with = |key_id: Option<&str>, region: Option<&str>| Candidate {
            key_id: key_id.map(str::to_owned),
            region: region.map(str::to_owned),
            ..candidate()
        };
        for (key_id, region, arn) in [
            (None, None, ARN),
            (None, Some("eu-west-1"), ARN),
            (Some(ARN), None, ARN),
            (Some("alias/orders"), None, ARN),
            (Some("alias/orders"), Some("eu-west-1"), ARN),
            (Some("alias/orders"), Some("us-east-1"), replica),
            (Some(&there), None, replica),
        ] {
            assert_eq!(contradiction(&with(key_id, region), "AWS KMS", arn), None, "{key_id:?} {region:?}");
        }
        for (key_id, region, flags) in [
            (None, Some("us-east-1"), "--region us-east-1"),
            (Some("alias/orders"), Some("us-east-1"), "--key-id alias/orders with --region us-east-1"),
            (Some(&other), None, "--key-id arn"),
            (Some(&elsewhere), None, "--key-id arn"),
            (Some("99999999-12ab-34cd-56ef-1234567890ab"), None, "--key-id 99999999"),
        ] {
            let named = with(key_id, region);
            let error = Found::identified(&named, &identity(32)).unwrap_err();
            assert!(error.starts_with(flags) && error.contains(&format!("AWS KMS names {ARN};")), "{error}");
            let mut json = Candidate { key_spec: Some(KeySpec::Aes256), ..named };
            json.wrapped.key_id = Some(ARN.to_owned());
            let error = Found::unverified(&json).unwrap_err();
            assert!(error.starts_with(flags) && error.contains(&format!("KeyId of the JSON names {ARN};")), "{error}");
        }
        let mut edited = candidate();
        edited.wrapped.key_id = Some(other.clone());
        let error = Found::identified(&edited, &identity(32)).unwrap_err();
        assert!(error.contains(&other) && error.contains(ARN), "{error}");
        edited.key_id = Some("alias/orders".to_owned());
        let error = Found::identified(&edited, &identity(32)).unwrap_err();
        assert!(
            error.starts_with(&format!("--key-id alias/orders does not name the KMS key of this data key, {other} ")),
            "{error}"
        );
        let both = with(Some(ARN), Some("us-east-1"));
        assert!(Found::unverified(&both).unwrap_err().contains("names Region eu-west-1: leave out --region us-east-1"));
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
        // The data key of 32 bytes, its hexadecimal digits decoded as base64, and these digits.
        for length in [32, 48, 64, 95] {
            plaintext.wrapped.ciphertext_blob = vec![1; length];
            assert!(error(&plaintext).contains("may be the data key itself"), "{length}");
        }
        plaintext.wrapped.ciphertext_blob.push(1);
        assert!(Found::unverified(&plaintext).is_ok());
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
