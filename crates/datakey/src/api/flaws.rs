//! Flaws of pins and versions that must not be recorded. Pure.
//!
//! These checks repeat the rules of the definition, for versions that the API server did not check by these rules: pins that an
//! older definition accepted, and versions in Secrets.

use std::collections::BTreeSet;

use super::{
    bounds::has_blob_length,
    kind::{Kind, KindId},
    request::{EncryptionContext, KeyRequest, RequestView, WrittenRequest},
    rules,
    status::IssuedVersion,
};
use crate::{
    arn::{self, KmsArn},
    public_key::PublicKey,
};

/// The most pairs of an encryption context.
const MAX_PAIRS: usize = 32;

/// The most bytes of an encryption context, keys and values together.
const MAX_CONTEXT: usize = 8192;

/// The flaw of a version, with the name of the field; `None` if an object of this kind may record it.
pub fn flaw(kind: &Kind, issued: &IssuedVersion) -> Option<&'static str> {
    if issued.version < 1 {
        return Some("version must be at least 1");
    }
    if KmsArn::parse(&issued.key_id).is_none_or(|arn| !arn.is_key()) {
        return Some("keyId is not the ARN of a KMS key");
    }
    if !has_blob_length(&issued.ciphertext_blob.0) {
        return Some("ciphertextBlob must have 1 to 6144 bytes");
    }
    if issued.key_material_id.as_deref().is_some_and(|id| !arn::is_key_material_id(id)) {
        return Some("keyMaterialId may have letters, digits and '-', at most 64");
    }
    if issued.request_id.as_deref().is_some_and(|id| !arn::is_request_id(id)) {
        return Some("requestId may have letters, digits and '+', '/', '=', '.', '_', ':', '-', at most 256");
    }
    if let Some(rewrap_of) = &issued.rewrap_of {
        if rewrap_of.request_id.as_deref().is_some_and(|id| !arn::is_request_id(id)) {
            return Some(
                "rewrapOf.requestId may have letters, digits and '+', '/', '=', '.', '_', ':', '-', at most 256",
            );
        }
        if !(1..issued.version).contains(&rewrap_of.version) {
            return Some("rewrapOf.version must be at least 1 and smaller than its own version");
        }
    }
    let written = issued.as_written.as_ref().and_then(|written| flaw_of_the_written_request(kind, written));
    RequestFlaw::of(kind, &issued.request)
        .map(RequestFlaw::in_record)
        .or(written)
        .or_else(|| flaw_of_the_public_key(issued))
}

/// What is wrong with a request as its spec has it. It may name no key.
fn flaw_of_the_written_request(kind: &Kind, written: &WrittenRequest) -> Option<&'static str> {
    RequestFlaw::of_written(kind, written).map(|_| "asWritten is not a request that a spec can have")
}

/// What is wrong with the public key of a version whose request is right.
fn flaw_of_the_public_key(issued: &IssuedVersion) -> Option<&'static str> {
    match (issued.request.key_pair_spec, &issued.public_key) {
        (None, None) => None,
        (None, Some(_)) => Some("publicKey must be absent: a data key has none"),
        (Some(_), None) => Some("publicKey is missing"),
        (Some(spec), Some(der)) => PublicKey::parse(&der.0, spec)
            .err()
            .map(|_| "publicKey is not a public key of the kind that request.keyPairSpec names"),
    }
}

/// What is wrong with a request. The rules of the definition reject the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFlaw {
    /// Not exactly one of the key spec and the number of bytes, or a number that KMS does not generate.
    Length,
    /// No kind of key pair, or a length beside it.
    KeyPairSpec,
    /// The key ID has none of the four forms.
    KeyId,
    /// The key belongs to an AWS service.
    AwsManagedKey,
    /// The Region has not the form of one.
    Region,
    /// The Region is given beside an ARN.
    RegionBesideArn,
    /// The encryption context has too many pairs.
    ContextPairs,
    /// The encryption context is too long.
    ContextBytes,
    /// Two keys of the encryption context differ in case only.
    ContextCase,
    /// A key of the encryption context is empty.
    ContextEmptyKey,
    /// A key of the encryption context is reserved.
    ContextReservedKey,
}

// === impl RequestFlaw ===

impl RequestFlaw {
    /// The first flaw of a request of an object of this kind; `None` if KMS may be asked.
    pub fn of(kind: &Kind, request: &KeyRequest) -> Option<Self> {
        if request.material().is_none_or(|material| material.kind() != kind.id) {
            return Some(match kind.id {
                KindId::DataKey => Self::Length,
                KindId::DataKeyPair => Self::KeyPairSpec,
            });
        }
        if !arn::has_known_form(&request.key_id) {
            return Some(Self::KeyId);
        }
        if arn::is_aws_managed(&request.key_id) {
            return Some(Self::AwsManagedKey);
        }
        match &request.region {
            Some(region) if !arn::is_region(region) => Some(Self::Region),
            Some(_) if request.key_id.starts_with("arn:") => Some(Self::RegionBesideArn),
            _ => Self::of_context(request.context()),
        }
    }

    /// The same for a request that may leave the key to a class.
    pub fn of_written(kind: &Kind, written: &WrittenRequest) -> Option<Self> {
        // Any key, so that the rest is checked.
        let named = RequestView { key_id: written.key_id.as_deref().or(Some("alias/a")), ..written.view() };
        Self::of(kind, &named.to_request()?)
    }

    /// The first flaw of an encryption context.
    pub fn of_context(context: &EncryptionContext) -> Option<Self> {
        if context.len() > MAX_PAIRS {
            return Some(Self::ContextPairs);
        }
        if context.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_CONTEXT {
            return Some(Self::ContextBytes);
        }
        let folded: BTreeSet<_> = context.keys().map(|key| key.to_ascii_lowercase()).collect();
        if folded.len() != context.len() {
            return Some(Self::ContextCase);
        }
        if folded.contains("") {
            return Some(Self::ContextEmptyKey);
        }
        let reserved = folded.iter().any(|key| key.starts_with("aws:") || key.starts_with("aws-crypto-"));
        reserved.then_some(Self::ContextReservedKey)
    }

    /// What to do about it in a spec: the message of the definition's rule.
    pub fn advice(self) -> String {
        match self {
            Self::Length => rules::issued::one_length().message,
            // The schema demands it; it is no rule.
            Self::KeyPairSpec => "set keyPairSpec, for example to ECC_NIST_P256".to_owned(),
            Self::KeyId => rules::key_id_has_a_known_form().message,
            Self::AwsManagedKey => rules::key_is_customer_managed().message,
            Self::Region => rules::region_has_a_known_form().message,
            Self::RegionBesideArn => rules::no_region_beside_an_arn("spec").message,
            // The schema has this bound; it is no rule.
            Self::ContextPairs => "the encryption context may have at most 32 pairs: remove some".to_owned(),
            Self::ContextBytes => rules::context_fits().message,
            Self::ContextCase => rules::context_keys_differ_in_more_than_case().message,
            Self::ContextEmptyKey => rules::context_keys_are_not_empty().message,
            Self::ContextReservedKey => rules::context_keys_are_not_reserved().message,
        }
    }

    /// The flaw of a recorded request, with the name of the field.
    fn in_record(self) -> &'static str {
        match self {
            Self::KeyPairSpec => "request must have keyPairSpec, and neither keySpec nor numberOfBytes",
            Self::Length => "request must have exactly one of keySpec and numberOfBytes (1 to 1024)",
            Self::KeyId => "request.keyId is not a key ID, a key ARN, an alias name or an alias ARN",
            Self::AwsManagedKey => "request.keyId names a key that AWS manages for its services",
            Self::Region => "request.region is not the code of an AWS Region",
            Self::RegionBesideArn => "request.region must be absent beside an ARN",
            Self::ContextPairs => "request.encryptionContext has more than 32 pairs",
            Self::ContextBytes => "request.encryptionContext has more than 8192 bytes",
            Self::ContextCase => "request.encryptionContext has keys that differ in case only",
            Self::ContextEmptyKey => "request.encryptionContext has an empty key",
            Self::ContextReservedKey => {
                "request.encryptionContext has a key that begins with aws: or aws-crypto-, which are reserved"
            }
        }
    }
}

/// The numbers of two versions with the same data key, which the definition's rules reject.
pub fn twins<'a>(versions: impl IntoIterator<Item = &'a IssuedVersion>) -> Option<(i32, i32)> {
    let mut seen: Vec<&IssuedVersion> = Vec::new();
    for issued in versions {
        let is_twin = |other: &&&IssuedVersion| {
            other.version != issued.version && other.ciphertext_blob == issued.ciphertext_blob
        };
        if let Some(other) = seen.iter().find(is_twin) {
            return Some((other.version.min(issued.version), other.version.max(issued.version)));
        }
        seen.push(issued);
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use k8s_openapi::ByteString;

    use super::*;
    use crate::{
        api::{DataKey, DataKeyPair, KeyKind as _, KeyPairSpec, MAX_BLOB, Rest, RewrapOf},
        fixtures::{ARN, Edit, Sample as _, issued, public_key_of},
    };

    fn context(version: &mut IssuedVersion, pairs: &[(&str, &str)]) {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        version.request.encryption_context = Some(pairs.collect());
    }

    fn rewrap(version: &mut IssuedVersion, of: i32, request_id: Option<&str>) {
        let request_id = request_id.map(str::to_owned);
        version.rewrap_of = Some(RewrapOf { version: of, request_id, rest: Rest::new() });
    }

    /// Edits that each make a version unrecordable, with a part of the message.
    pub(crate) const FLAWS: [(Edit<IssuedVersion>, &str); 29] = [
        (|version| version.version = 0, "version must"),
        (|version| version.key_id = "alias/orders".into(), "keyId is not the ARN of a KMS key"),
        (|version| version.key_id = ARN.replace("key/", "alias/"), "keyId is not the ARN of a KMS key"),
        (|version| version.key_id = format!("{}*", &ARN[..44]), "keyId is not"),
        (|version| version.key_id = ARN.replace("1234abcd", "\u{1b}[2J"), "keyId is not"),
        (|version| version.key_id = ARN.replace("1234abcd", "\u{202e}"), "keyId is not"),
        (|version| version.key_id = format!("{ARN} "), "keyId is not"),
        (|version| version.key_id = format!("{ARN}{}", "0".repeat(500)), "keyId is not"),
        (|version| version.ciphertext_blob = ByteString(vec![]), "ciphertextBlob must have 1 to 6144 bytes"),
        (|version| version.ciphertext_blob = ByteString(vec![0; MAX_BLOB + 1]), "1 to 6144 bytes"),
        (|version| version.key_material_id = Some("\u{7}".into()), "keyMaterialId"),
        (|version| version.request_id = Some("a\r\nb".into()), "requestId"),
        (|version| rewrap(version, 1, None), "rewrapOf.version must be at least 1"),
        (|version| rewrap(version, i32::MAX, None), "smaller than its own version"),
        (|version| rewrap(version, 0, None), "rewrapOf.version must be at least 1"),
        (|version| rewrap(version, 1, Some("a\r\nb")), "rewrapOf.requestId may have"),
        (|version| version.request.key_spec = None, "exactly one"),
        (|version| version.request.number_of_bytes = Some(32), "exactly one"),
        (|version| (version.request.key_spec, version.request.number_of_bytes) = (None, Some(1025)), "exactly one"),
        (|version| version.request.key_id = "orders\u{202e}".into(), "request.keyId is not"),
        (|version| version.request.key_id = "alias/aws/s3".into(), "request.keyId names a key that AWS manages"),
        (|version| version.request.region = Some("eu-west-1\n".into()), "request.region is not"),
        (
            |version| (version.request.key_id, version.request.region) = (ARN.into(), Some("eu-west-1".into())),
            "request.region must be absent",
        ),
        (|version| context(version, &[("", "x")]), "an empty key"),
        (|version| context(version, &[("AWS:s3:arn", "x")]), "are reserved"),
        (|version| context(version, &[("aws-crypto-public-key", "x")]), "are reserved"),
        (|version| context(version, &[("purpose", "a"), ("Purpose", "b")]), "differ in case only"),
        (|version| context(version, &[("key", &"v".repeat(8190))]), "more than 8192 bytes"),
        (
            |version| {
                let pairs = (0..33).map(|number| (number.to_string(), String::new()));
                version.request.encryption_context = Some(pairs.collect());
            },
            "more than 32 pairs",
        ),
    ];

    #[test]
    fn flaws_name_the_field() {
        assert_eq!(flaw(DataKey::KIND, &issued(1)), None);
        for (edit, words) in FLAWS {
            let mut version = issued(1);
            edit(&mut version);
            let flaw = flaw(DataKey::KIND, &version).unwrap_or_default();
            assert!(flaw.contains(words), "expected {words}, but: {flaw}");
        }
    }

    #[test]
    fn public_key_must_be_of_the_kind_that_was_asked_for() {
        let edits: [(Edit<IssuedVersion>, &str); 6] = [
            (|version| version.public_key = None, "publicKey is missing"),
            (|version| version.public_key = Some(ByteString(vec![])), "publicKey is not a public key of"),
            (|version| version.request.key_pair_spec = Some(KeyPairSpec::Rsa2048), "publicKey is not a public key of"),
            (|version| version.request.key_pair_spec = None, "request must have keyPairSpec"),
            (|version| version.request.number_of_bytes = Some(32), "request must have keyPairSpec"),
            (|version| version.ciphertext_blob = ByteString(vec![0; MAX_BLOB + 1]), "1 to 6144 bytes"),
        ];
        let pair = DataKeyPair::version_like(&issued(1));
        assert_eq!(flaw(DataKeyPair::KIND, &pair), None);
        for (edit, words) in edits {
            let mut version = pair.clone();
            edit(&mut version);
            let flaw = flaw(DataKeyPair::KIND, &version).unwrap_or_default();
            assert!(flaw.contains(words), "expected {words}, but: {flaw}");
        }
        assert!(flaw(DataKey::KIND, &pair).unwrap().contains("exactly one"));
        let with_public_key = IssuedVersion { public_key: Some(public_key_of(1)), ..issued(1) };
        assert!(flaw(DataKey::KIND, &with_public_key).unwrap().contains("publicKey must be absent"));
    }

    #[test]
    fn flaws_of_a_request_say_what_to_do() {
        let with = |edit: fn(&mut KeyRequest)| {
            let mut request = issued(1).request;
            edit(&mut request);
            RequestFlaw::of(DataKey::KIND, &request).map(RequestFlaw::advice).unwrap_or_default()
        };
        assert_eq!(with(|_| {}), "");
        assert!(with(|request| request.number_of_bytes = Some(32)).starts_with("set exactly one of keySpec"));
        assert!(with(|request| request.key_id = "orders".into()).starts_with("keyId must be a key ID"));
        assert!(with(|request| request.key_id = format!("alias/{}", "a".repeat(510))).starts_with("keyId must be"));
        assert!(with(|request| request.key_id = "alias/aws/s3".into()).contains("name a customer managed key"));
        assert!(with(|request| request.region = Some("Paris".into())).starts_with("region must be the code"));
    }

    #[test]
    fn duplicate_data_keys_are_found() {
        assert_eq!(twins(&[issued(1), issued(2), issued(1)]), None);
        let twin = IssuedVersion { version: 3, ..issued(1) };
        assert_eq!(twins(&[issued(2), twin, issued(1)]), Some((1, 3)));
    }
}
