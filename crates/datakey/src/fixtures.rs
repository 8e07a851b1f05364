//! Objects and times for the tests of all crates.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use k8s_openapi::{ByteString, jiff::Timestamp};
use serde_json::{Value, json};

use crate::api::{
    DataKey, DataKeyPair, DataKeySpec, IssuedVersion, KeyKind, KeyPairSpec, KeyRequest, KeySpec, Rest, initial_status,
    truncate_to_seconds, with_recorded,
};

/// The ARN of the KMS key of these objects.
pub const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// The time this many seconds after the start of the fixtures' clock.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A valid request.
pub fn request() -> KeyRequest {
    KeyRequest {
        key_id: "alias/orders".to_owned(),
        key_spec: Some(KeySpec::Aes256),
        number_of_bytes: None,
        key_pair_spec: None,
        encryption_context: Some([("purpose".to_owned(), "orders".to_owned())].into()),
        region: None,
        rest: Rest::new(),
    }
}

/// A `DataKey` as the API server stores it at creation.
pub fn data_key() -> DataKey {
    let KeyRequest { key_id, key_spec, number_of_bytes, key_pair_spec: _, encryption_context, region, rest } =
        request();
    let mut key = DataKey::new(
        "orders",
        DataKeySpec {
            key_id: Some(key_id),
            class_name: None,
            key_spec,
            number_of_bytes,
            encryption_context,
            grant_tokens: None,
            region,
            version: None,
            secret_name: None,
            secret_template: None,
            deletion_policy: None,
            wrapped_keys: None,
            rest,
        },
    );
    key.metadata.namespace = Some("shop".to_owned());
    key.metadata.uid = Some("7c3c8f7e-0001".to_owned());
    key.metadata.resource_version = Some("100".to_owned());
    key.metadata.generation = Some(1);
    key.status = Some(initial_status());
    key
}

/// A change of an object.
pub type Edit<T> = fn(&mut T);

/// Edits of a spec that change its request, each with the field that differs.
pub const OTHER_REQUESTS: [(Edit<DataKey>, &str); 4] = [
    (|key| key.spec.key_id = Some("alias/other".into()), "keyId"),
    (|key| key.spec.key_spec = Some(KeySpec::Aes128), "keySpec"),
    (|key| key.spec.encryption_context = None, "encryptionContext"),
    (|key| key.spec.region = Some("eu-north-1".into()), "region"),
];

/// A recorded version, with a wrapped data key that no other version has.
pub fn issued(version: i32) -> IssuedVersion {
    IssuedVersion {
        version,
        request: request(),
        ciphertext_blob: ByteString(format!("wrapped data key {version}").into_bytes()),
        public_key: None,
        key_id: ARN.to_owned(),
        key_material_id: Some("ab".repeat(32)),
        issued_at: truncate_to_seconds(at(i64::from(version))),
        request_id: Some(format!("request-{version}")),
        as_written: None,
        rewrap_of: None,
        class: None,
        rest: Rest::new(),
    }
}

/// A `DataKey` with these recorded versions, the last one current.
pub fn recorded(versions: &[i32]) -> DataKey {
    let mut key = data_key();
    key.spec.version = versions.last().copied();
    key.status = Some(with_recorded(&key, versions.iter().copied().map(issued).collect()));
    key
}

/// A `DataKey` without a record whose spec pins these versions, the last one current.
pub fn pinned(versions: &[i32]) -> DataKey {
    let mut key = data_key();
    key.spec.version = versions.last().copied();
    key.spec.wrapped_keys = Some(versions.iter().copied().map(issued).collect());
    key
}

/// A public key of a kind, as a SubjectPublicKeyInfo in DER. The keys are the corpus of the fuzz target, too.
pub fn public_key(spec: KeyPairSpec) -> Vec<u8> {
    macro_rules! corpus {
        ($($spec:ident: $name:literal,)*) => {
            match spec {
                $(KeyPairSpec::$spec => include_bytes!(concat!("../fuzz/corpus/public_key/", $name, ".der")).to_vec(),)*
            }
        };
    }
    corpus! {
        Rsa2048: "RSA_2048",
        Rsa3072: "RSA_3072",
        Rsa4096: "RSA_4096",
        EccNistP256: "ECC_NIST_P256",
        EccNistP384: "ECC_NIST_P384",
        EccNistP521: "ECC_NIST_P521",
        EccSecgP256K1: "ECC_SECG_P256K1",
        EccNistEdwards25519: "ECC_NIST_EDWARDS25519",
        MlKem512: "ML_KEM_512",
        MlKem768: "ML_KEM_768",
        MlKem1024: "ML_KEM_1024",
        Sm2: "SM2",
    }
}

/// Two public keys on the curve P-256 (DER, SubjectPublicKeyInfo), in base64.
pub const PUBLIC_KEYS: [&str; 2] = [
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEkxb2/r07Ln3pfmXWpWD+01mQn9ieZqZCSPeSA1PNIVQmeXVyALswvlZM5O33zzJ3aNnXwcwGBMaYPZUvatNY2w==",
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEY3EDbj88YJOtMoMidU7WPY3iBXoIZT42XlKhxIR/gk3xioaKPIue/ZYfbtVk8jCtYBwPTnKRgap6L3j+JGSpdg==",
];

/// One of [`PUBLIC_KEYS`]: odd versions have the first.
pub fn public_key_of(version: i32) -> ByteString {
    let number = usize::from(version % 2 == 0);
    serde_json::from_value(json!(PUBLIC_KEYS[number])).unwrap()
}

/// A kind of which the tests have objects.
pub trait Sample: KeyKind + PartialEq {
    /// An object that is the counterpart of this `DataKey`, with the same name, versions and settings.
    fn like(key: &DataKey) -> Self;

    /// A version that is the counterpart of this one.
    fn version_like(issued: &IssuedVersion) -> IssuedVersion;
}

impl Sample for DataKey {
    fn like(key: &DataKey) -> Self {
        key.clone()
    }

    fn version_like(issued: &IssuedVersion) -> IssuedVersion {
        issued.clone()
    }
}

impl Sample for DataKeyPair {
    fn like(key: &DataKey) -> Self {
        let mut object = json!(key);
        object["kind"] = json!("DataKeyPair");
        pair_request(&mut object["spec"]);
        for list in ["/spec/wrappedKeys", "/status/versions"] {
            let entries = object.pointer_mut(list).and_then(Value::as_array_mut);
            entries.into_iter().flatten().for_each(pair_entry);
        }
        serde_json::from_value(object).unwrap()
    }

    fn version_like(issued: &IssuedVersion) -> IssuedVersion {
        let mut entry = json!(issued);
        pair_entry(&mut entry);
        serde_json::from_value(entry).unwrap()
    }
}

/// Replaces what a request asks for: `AES_256` by a pair on P-256, everything else by one on P-384.
fn pair_request(request: &mut Value) {
    let request = request.as_object_mut().unwrap();
    let spec = request.remove("keySpec");
    let bytes = request.remove("numberOfBytes");
    let is_usual = bytes.is_none() && spec == Some(json!("AES_256"));
    let pair = if is_usual { KeyPairSpec::EccNistP256 } else { KeyPairSpec::EccNistP384 };
    request.insert("keyPairSpec".to_owned(), json!(pair));
}

fn pair_entry(entry: &mut Value) {
    pair_request(&mut entry["request"]);
    if let Some(written) = entry.get_mut("asWritten") {
        pair_request(written);
    }
    let version = i32::try_from(entry["version"].as_i64().unwrap()).unwrap();
    entry["publicKey"] = json!(public_key_of(version));
}
