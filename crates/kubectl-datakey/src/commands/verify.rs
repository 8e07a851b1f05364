//! `kubectl datakey verify`: checks whether Secrets hold what is recorded and, with `--decrypt`, whether that unwraps; of a key pair
//! also whether both halves belong together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use datakey::{rewraps::Rewraps, secret::sha256};
use datakey_decrypt::{Caller, Comparable, Decrypter, Decryption, PublicHalf};
use futures::{StreamExt, stream};
use schemars::JsonSchema;
use serde::Serialize;

use super::{CONCURRENT_READS, Items, none_found, of_all, with_one_note};
use crate::{
    APP,
    cli::Verify,
    cluster::{AnyKey, Cluster, FetchedKey},
    output::{CommandError, Format, Health, Output, printable, render},
    view::secret_check::{SecretCheck, SecretVerdict},
};

/// What `verify` found out about a `DataKey` or a `DataKeyPair`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyCheck {
    /// `DataKey` or `DataKeyPair`.
    kind: String,
    namespace: String,
    name: String,
    /// How messages name it.
    #[serde(skip)]
    shown: String,
    verified: bool,
    secret: SecretCheck,
    pub versions: Vec<VersionCheck>,
}

/// What `verify` found out about a version.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionCheck {
    version: i32,
    key_id: String,
    /// SHA-256 of the wrapped data key or private key, in hexadecimal digits.
    ciphertext_sha256: String,
    /// SHA-256 of the public key (DER, SubjectPublicKeyInfo) of a key pair, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key_sha256: Option<String>,
    /// The result of the call to KMS, with `--decrypt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decrypt: Option<Decryption>,
    /// Another version that has the same data key or private key, by what the record says, and that KMS unwraps, where the KMS key of
    /// this one cannot be used. Then nothing is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    covered_by: Option<i32>,
    /// What is said and known of a rewrap.
    #[serde(skip_serializing_if = "Option::is_none")]
    rewrap: Option<RewrapCheck>,
}

/// What `verify` found out about a version that says that it is a rewrap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct RewrapCheck {
    /// The version whose data key or private key it is, as the record says.
    of: i32,
    /// Whether that is true.
    plaintext: SamePlaintext,
    /// The version whose plaintext it was compared with. If it is another one than `of`, both can be false: `of` was not unwrapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared_with: Option<i32>,
}

/// Whether a rewrap has the plaintext that it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
enum SamePlaintext {
    /// It has, compared with another version of the same data key or private key.
    Equal,
    /// It has another one.
    Different,
    /// They were not both unwrapped.
    NotCompared,
}

/// Verifies one object, or all.
pub async fn run(cluster: &Cluster, args: &Verify) -> Result<Output, CommandError> {
    let listing = cluster.selected(args.name.as_ref(), args.all_namespaces).await?;
    let looked = stream::iter(&listing.keys).map(async |fetched| check_secret(cluster, fetched).await);
    let (checked, refused) = with_one_note(&listing.keys, looked.buffered(CONCURRENT_READS).collect().await);
    let checked = listing.keys.iter().zip(checked);
    let mut checks: Vec<_> = checked.map(|(fetched, check)| KeyCheck::of(&fetched.key, check)).collect();
    if args.decrypt {
        let decrypter = Decrypter::new(&Caller::person(APP)).await.map_err(CommandError::Usage)?;
        for (fetched, check) in listing.keys.iter().zip(&mut checks) {
            let (mut tags, mut unusable) = (BTreeMap::new(), BTreeSet::new());
            for (issued, version) in fetched.key.record().iter().zip(&mut check.versions) {
                let Comparable { decryption, tag, is_key_unusable } = decrypter.decrypt_comparably(issued).await;
                version.decrypt = Some(decryption);
                tags.extend(tag.map(|tag| (issued.version, tag)));
                unusable.extend(is_key_unusable.then_some(issued.version));
            }
            check.compare(&Rewraps::of(fetched.key.record()), &tags, &unusable);
            check.verified = check.health() == Health::Healthy;
        }
    }
    let health = checks.iter().map(KeyCheck::health).fold(listing.health(), Health::max);
    let mut notes: Vec<_> = listing.notes().chain(refused).collect();
    let out = if let (Some(_), Some(check)) = (&args.name, checks.first()) {
        render(args.output, check, describe)?
    } else {
        if args.output == Format::Table {
            notes.push(conclusion(&checks, &listing.nouns(), &none_found(cluster, &listing, args.all_namespaces)));
        }
        render(args.output, &Items { items: checks }, |list| list.items.iter().map(describe).collect())?
    };
    Ok(Output { notes, ..Output::text(out).with(health) })
}

/// Reads the data of a Secret and checks it. Metadata alone cannot prove that the data is unchanged: another client can
/// write metadata like the operator's.
async fn check_secret(cluster: &Cluster, fetched: &FetchedKey) -> Result<SecretCheck, CommandError> {
    let secret = cluster.secret(&fetched.namespace(), fetched.key.secret_name()).await?;
    Ok(SecretCheck::from_secret(&fetched.key, secret.as_ref()))
}

// === impl KeyCheck ===

impl KeyCheck {
    pub fn of(key: &AnyKey, secret: SecretCheck) -> Self {
        let versions = key.record().iter().map(|issued| VersionCheck {
            version: issued.version,
            key_id: issued.key_id.clone(),
            ciphertext_sha256: sha256(&issued.ciphertext_blob.0),
            public_key_sha256: issued.public_key.as_ref().map(|key| sha256(&key.0)),
            decrypt: None,
            covered_by: None,
            rewrap: issued.rewrap_of.as_ref().map(|rewrap_of| RewrapCheck {
                of: rewrap_of.version,
                plaintext: SamePlaintext::NotCompared,
                compared_with: None,
            }),
        });
        let mut check = Self {
            kind: key.kind().name.to_owned(),
            namespace: key.namespace(),
            name: key.name(),
            shown: key.shown(),
            verified: false,
            secret,
            versions: versions.collect(),
        };
        check.verified = check.health() == Health::Healthy;
        check
    }

    /// Compares each rewrap with a version that should have the same plaintext, by what their plaintexts are marked with: with the one
    /// that it names if that was unwrapped, because the KMS key of that one may be gone.
    ///
    /// A version of these, whose KMS keys cannot be used, is covered by another one that was unwrapped.
    fn compare<T: PartialEq>(&mut self, rewraps: &Rewraps, tags: &BTreeMap<i32, T>, unusable: &BTreeSet<i32>) {
        for version in &mut self.versions {
            let number = version.version;
            let mut others = rewraps.same_as(number).filter(|other| tags.contains_key(other));
            if unusable.contains(&number) {
                version.covered_by = others.next();
                continue;
            }
            let Some((rewrap, tag)) = version.rewrap.as_mut().zip(tags.get(&number)) else { continue };
            let named = Some(rewrap.of).filter(|of| tags.contains_key(of));
            rewrap.compared_with = named.or_else(|| others.next());
            rewrap.plaintext = match rewrap.compared_with.and_then(|other| tags.get(&other)) {
                Some(other) if other == tag => SamePlaintext::Equal,
                Some(_) => SamePlaintext::Different,
                None => SamePlaintext::NotCompared,
            };
        }
    }

    /// Returns the worst health of the Secret and of each version.
    fn health(&self) -> Health {
        let secret = match self.secret.state {
            SecretVerdict::Intact => Health::Healthy,
            SecretVerdict::Unknown => Health::Unknown,
            SecretVerdict::Missing
            | SecretVerdict::Changed
            | SecretVerdict::Conflict
            | SecretVerdict::NotIssued
            | SecretVerdict::Adoptable => Health::Unhealthy,
        };
        let uncovered = self.versions.iter().filter(|version| version.covered_by.is_none());
        let decrypted = uncovered.filter_map(|version| version.decrypt.as_ref());
        let rewraps = self.versions.iter().filter_map(|version| version.rewrap.as_ref());
        let is_other = |rewrap: &RewrapCheck| rewrap.plaintext == SamePlaintext::Different;
        let rewrapped = if rewraps.into_iter().any(is_other) { Health::Unhealthy } else { Health::Healthy };
        decrypted.map(health_of).fold(secret.max(rewrapped), Health::max)
    }
}

// === impl RewrapCheck ===

impl RewrapCheck {
    fn line(&self) -> String {
        let Self { of, plaintext, compared_with } = self;
        let other = compared_with.filter(|other| other != of);
        match (plaintext, other) {
            (SamePlaintext::Equal, None) => format!("a rewrap of version {of}: both have the same plaintext"),
            (SamePlaintext::Equal, Some(other)) => format!(
                "the record says that it is a rewrap of version {of}, which was not unwrapped; version {other}, of which the record says \
                 the same, has the same plaintext"
            ),
            (SamePlaintext::Different, None) => {
                format!("the record says that it is a rewrap of version {of}. It is NOT: the plaintexts differ")
            }
            (SamePlaintext::Different, Some(other)) => format!(
                "the record says that this version and version {other} are rewraps of version {of}. At least one is NOT: their plaintexts \
                 differ"
            ),
            (SamePlaintext::NotCompared, _) => {
                format!("the record says that it is a rewrap of version {of}; the plaintexts were not compared")
            }
        }
    }
}

fn health_of(decryption: &Decryption) -> Health {
    match decryption {
        Decryption::Unwrapped { .. } | Decryption::UnwrappedPair { .. } => Health::Healthy,
        Decryption::Failed { .. } => Health::Unhealthy,
        Decryption::Unknown { .. } => Health::Unknown,
    }
}

/// Counts the verified objects; `none` is the text for an empty list.
fn conclusion(checks: &[KeyCheck], nouns: &str, none: &str) -> String {
    let verified = checks.iter().filter(|check| check.verified).count();
    match checks.len() {
        0 => none.to_owned(),
        all => {
            let is_covered = |check: &&KeyCheck| check.versions.iter().any(|version| version.covered_by.is_some());
            let by_rewraps = match checks.iter().filter(is_covered).count() {
                0 => String::new(),
                covered => format!(
                    " {covered} of them with versions that no longer unwrap, and for which the record names another version."
                ),
            };
            format!("{} verified.{by_rewraps}", of_all(verified, all, nouns))
        }
    }
}

fn describe(check: &KeyCheck) -> String {
    let verdict = match check.health() {
        _ if check.versions.is_empty() => "not issued yet",
        Health::Healthy if check.versions.iter().any(|version| version.covered_by.is_some()) => {
            "verified, but some versions only by their rewraps"
        }
        Health::Healthy => "verified",
        Health::Unhealthy => "NOT as recorded",
        Health::Unknown => "could not be verified in full",
    };
    let mut out = format!("{} in namespace {}: {verdict}\n", check.shown, check.namespace);
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(out, "  {name:<11} {}", printable(text));
    };
    line("Secret", &check.secret.line());
    for difference in &check.secret.differences {
        line("", difference);
    }
    for version in &check.versions {
        let name = format!("Version {}", version.version);
        line(&name, &format!("wrapped by {}, SHA-256 {}", version.key_id, version.ciphertext_sha256));
        if let Some(sha256) = &version.public_key_sha256 {
            line("", &format!("public key with SHA-256 {sha256}"));
        }
        if let Some(rewrap) = &version.rewrap {
            line("", &rewrap.line());
        }
        match &version.decrypt {
            None => {}
            Some(Decryption::Unwrapped { length, plaintext_sha256: Some(sha256) }) => {
                line("", &format!("unwraps to {length} bytes whose SHA-256 is {sha256}"));
            }
            Some(Decryption::Unwrapped { length, plaintext_sha256: None }) => {
                line("", &format!("unwraps to {length} bytes; a fingerprint of so few would give them away"));
            }
            Some(Decryption::UnwrappedPair { key_pair_spec, public_half }) => {
                let belongs = match public_half {
                    PublicHalf::Equal => "and the public key belongs to it",
                    PublicHalf::NotDerived => {
                        "by its form; for this kind it is not checked whether the public key belongs to it"
                    }
                };
                line("", &format!("unwraps to a private key of {}, {belongs}", key_pair_spec.as_str()));
            }
            Some(Decryption::Failed { why }) => match version.covered_by {
                None => line("", &format!("does NOT unwrap: {why}")),
                Some(other) => line(
                    "",
                    &format!(
                        "does not unwrap any more: {why}. Version {other} unwraps, and the record says that it has the same plaintext"
                    ),
                ),
            },
            Some(Decryption::Unknown { why }) => line("", &format!("not known whether it unwraps: {why}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use datakey::api::KeyPairSpec;
    use serde_json::json;

    use super::*;
    use crate::fixtures::{edited, pair, ready, recorded, secret};

    /// The check of a `DataKey` with two versions and these results of `--decrypt`.
    fn check(decrypted: &[Decryption]) -> KeyCheck {
        let key = ready(&[1, 2]).key;
        let mut check = KeyCheck::of(&key, SecretCheck::from_secret(&key, Some(&secret(&key, 2))));
        for (version, decrypted) in check.versions.iter_mut().zip(decrypted) {
            version.decrypt = Some(decrypted.clone());
        }
        check
    }

    fn unwrapped() -> Decryption {
        Decryption::Unwrapped { length: 8, plaintext_sha256: None }
    }

    fn failed() -> Decryption {
        Decryption::Failed { why: "AWS KMS refuses".into() }
    }

    fn unknown() -> Decryption {
        Decryption::Unknown { why: "no credentials".into() }
    }

    #[test]
    fn worst_result_of_secret_and_versions_decides() {
        assert_eq!(check(&[]).health(), Health::Healthy);
        assert_eq!(check(&[unwrapped(), unwrapped()]).health(), Health::Healthy);
        assert_eq!(check(&[unwrapped(), failed()]).health(), Health::Unhealthy);
        assert_eq!(check(&[failed(), unknown()]).health(), Health::Unknown);
        let key = ready(&[1]).key;
        assert_eq!(KeyCheck::of(&key, SecretCheck::from_secret(&key, None)).health(), Health::Unhealthy);
        assert_eq!(KeyCheck::of(&key, SecretCheck::unknown(&key, "")).health(), Health::Unknown);
        let unissued = recorded(&[]).key;
        assert_eq!(KeyCheck::of(&unissued, SecretCheck::from_secret(&unissued, None)).health(), Health::Unhealthy);
    }

    #[test]
    fn each_version_is_described_with_the_answer_of_kms() {
        let text = describe(&check(&[unwrapped(), failed()]));
        assert!(text.starts_with("orders in namespace shop: NOT as recorded\n"), "{text}");
        assert!(text.contains("unwraps to 8 bytes; a fingerprint of so few would give them away"), "{text}");
        assert!(text.contains("does NOT unwrap: AWS KMS refuses"), "{text}");
        let unissued = recorded(&[]).key;
        let text = describe(&KeyCheck::of(&unissued, SecretCheck::from_secret(&unissued, None)));
        assert!(text.starts_with("orders in namespace shop: not issued yet\n"), "{text}");
        let text = describe(&check(&[]));
        assert!(text.starts_with("orders in namespace shop: verified\n") && !text.contains("unwrap"), "{text}");
    }

    #[test]
    fn rewrap_is_compared_with_what_it_names() {
        let key = edited(ready(&[1, 2, 3]), |value| {
            for index in [1, 2] {
                value["status"]["versions"][index]["rewrapOf"] = json!({ "version": 1 });
            }
        });
        let check = |tags: &[(i32, &str)]| {
            let mut check = KeyCheck::of(&key.key, SecretCheck::from_secret(&key.key, Some(&secret(&key.key, 3))));
            check.compare(&Rewraps::of(key.key.record()), &tags.iter().copied().collect(), &BTreeSet::new());
            let found = check.versions.iter().filter_map(|version| Some(version.rewrap.as_ref()?.plaintext));
            (found.collect::<Vec<_>>(), check.health(), describe(&check))
        };
        let (found, health, text) = check(&[(1, "a"), (2, "a"), (3, "b")]);
        assert_eq!((&*found, health), (&[SamePlaintext::Equal, SamePlaintext::Different][..], Health::Unhealthy));
        assert!(text.contains("a rewrap of version 1: both have the same plaintext"), "{text}");
        assert!(text.contains("a rewrap of version 1. It is NOT: the plaintexts differ"), "{text}");
        // The KMS key of version 1 is gone.
        let (found, _, text) = check(&[(2, "a"), (3, "a")]);
        assert_eq!(found, [SamePlaintext::Equal, SamePlaintext::Equal]);
        assert!(
            text.contains(
                "version 1, which was not unwrapped; version 3, of which the record says the same, has the same"
            ),
            "{text}"
        );
        let (found, health, text) = check(&[(2, "a"), (3, "b")]);
        assert_eq!((&*found, health), (&[SamePlaintext::Different, SamePlaintext::Different][..], Health::Unhealthy));
        assert!(text.contains("version 3 are rewraps of version 1. At least one is NOT: their"), "{text}");
        let (found, health, text) = check(&[(2, "a")]);
        assert_eq!((&*found, health), (&[SamePlaintext::NotCompared, SamePlaintext::NotCompared][..], Health::Healthy));
        assert!(text.contains("a rewrap of version 1; the plaintexts were not compared"), "{text}");
    }

    #[test]
    fn version_of_an_unusable_kms_key_is_covered_by_its_rewrap() {
        let key = edited(ready(&[1, 2]), |value| {
            value["status"]["versions"][1]["rewrapOf"] = json!({ "version": 1 });
        });
        let check = |tags: &[(i32, &str)], unusable: &[i32]| {
            let mut check = KeyCheck::of(&key.key, SecretCheck::from_secret(&key.key, Some(&secret(&key.key, 2))));
            check.versions[0].decrypt = Some(failed());
            check.versions[1].decrypt = Some(unwrapped());
            check.compare(
                &Rewraps::of(key.key.record()),
                &tags.iter().copied().collect(),
                &unusable.iter().copied().collect(),
            );
            (check.health(), describe(&check))
        };
        let (health, text) = check(&[(2, "a")], &[1]);
        assert_eq!(health, Health::Healthy);
        assert!(text.contains(": verified, but some versions only by their rewraps\n"), "{text}");
        assert!(
            text.contains(
                "does not unwrap any more: AWS KMS refuses. Version 2 unwraps, and the record says that it has the same plaintext"
            ),
            "{text}"
        );
        assert_eq!(check(&[(2, "a")], &[]).0, Health::Unhealthy, "what is wrapped may be damaged");
        assert_eq!(check(&[], &[1]).0, Health::Unhealthy, "the other one does not unwrap either");
    }

    #[test]
    fn pair_is_described_by_what_was_checked() {
        let key = pair(&[1, 2]).key;
        let mut check = KeyCheck::of(&key, SecretCheck::from_secret(&key, Some(&secret(&key, 2))));
        let unwrapped = |key_pair_spec, public_half| Some(Decryption::UnwrappedPair { key_pair_spec, public_half });
        check.versions[0].decrypt = unwrapped(KeyPairSpec::EccNistP256, PublicHalf::Equal);
        check.versions[1].decrypt = unwrapped(KeyPairSpec::MlKem768, PublicHalf::NotDerived);
        assert_eq!(check.health(), Health::Healthy);
        insta::assert_snapshot!("verify-pair", describe(&check));
        assert_eq!(
            json!(check.versions[1].decrypt),
            json!({ "result": "UnwrappedPair", "keyPairSpec": "ML_KEM_768", "publicHalf": "NotDerived" })
        );
    }

    #[test]
    fn json_names_the_result_of_each_decryption() {
        let check = json!(check(&[unwrapped(), unknown()]));
        assert_eq!(check["secret"]["state"], "Intact");
        assert_eq!(check["versions"][0]["decrypt"], json!({ "result": "Unwrapped", "length": 8 }));
        assert_eq!(check["versions"][1]["decrypt"], json!({ "result": "NotAsked", "why": "no credentials" }));
    }

    #[test]
    fn verify_is_printed_as_recorded() {
        insta::assert_snapshot!("verify", describe(&check(&[unwrapped(), failed()])));
        insta::assert_snapshot!("verify-json", crate::output::json(&check(&[unwrapped(), unknown()])).unwrap());
        insta::assert_snapshot!("verify-yaml", crate::output::yaml(&check(&[failed(), unwrapped()])).unwrap());
    }
}
