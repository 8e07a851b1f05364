//! `kubectl datakey verify`: checks whether Secrets hold what is recorded and, with `--decrypt`, whether that unwraps; of a key pair
//! also whether both halves belong together.

use std::fmt::Write;

use datakey::secret::sha256;
use datakey_decrypt::{Caller, Decrypter, Decryption, PublicHalf};
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
            for (issued, version) in fetched.key.record().iter().zip(&mut check.versions) {
                version.decrypt = Some(decrypter.decrypt(issued).await);
            }
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
        let decrypted = self.versions.iter().filter_map(|version| version.decrypt.as_ref());
        decrypted.map(health_of).fold(secret, Health::max)
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
        all => format!("{} verified.", of_all(verified, all, nouns)),
    }
}

fn describe(check: &KeyCheck) -> String {
    let verdict = match check.health() {
        _ if check.versions.is_empty() => "not issued yet",
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
            Some(Decryption::Failed { why }) => line("", &format!("does NOT unwrap: {why}")),
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
    use crate::fixtures::{pair, ready, recorded, secret};

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
