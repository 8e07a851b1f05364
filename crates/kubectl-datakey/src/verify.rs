//! `kubectl datakey verify`: whether Secrets hold what is recorded, and whether that unwraps.

use std::fmt::Write;

use datakey::{api::DataKey, secret::sha256};
use datakey_unwrap::{Decryption, Unwrapper};
use futures::{StreamExt, stream};
use serde::Serialize;

use crate::{
    answer::{Answer, Failure, Format, Outcome, render},
    args::Verify,
    cluster::{Cluster, Object},
    comparison::{Comparison, State},
    list::{Items, none_found},
    status::AT_ONCE,
    text::printable,
};

/// The plugin in the user agent of its calls to AWS.
const APP: &str = concat!("kubectl-datakey-", env!("CARGO_PKG_VERSION"));

/// What is found about a `DataKey`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    namespace: String,
    name: String,
    verified: bool,
    secret: Comparison,
    versions: Vec<Checked>,
}

/// What is found about a version.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked {
    version: i32,
    key_id: String,
    /// SHA-256 of the wrapped data key, in hexadecimal digits.
    ciphertext_sha256: String,
    /// What KMS says, where it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    decrypt: Option<Decryption>,
}

/// Verifies `DataKey`s.
pub async fn run(cluster: &Cluster, args: &Verify) -> Result<Answer, Failure> {
    let found = cluster.selected(args.name.as_deref(), args.all_namespaces).await?;
    let mut findings: Vec<_> = stream::iter(&found.objects)
        .map(async |object| Finding::of(&object.key, compared(cluster, object).await))
        .buffered(AT_ONCE)
        .collect()
        .await;
    if args.decrypt {
        let mut unwrapper = Unwrapper::from_env(APP).await.map_err(Failure::Usage)?;
        for (object, finding) in found.objects.iter().zip(&mut findings) {
            for (issued, version) in object.key.record().iter().zip(&mut finding.versions) {
                version.decrypt = Some(unwrapper.unwrap(issued).await);
            }
            finding.verified = finding.outcome() == Outcome::Fine;
        }
    }
    let outcome = findings.iter().map(Finding::outcome).fold(found.outcome(), Outcome::max);
    let mut notes = found.odd;
    let out = if let (Some(_), Some(finding)) = (&args.name, findings.first()) {
        render(args.output, finding, drawn)?
    } else {
        if args.output == Format::Table {
            notes.push(summary(&findings, &none_found(cluster, args.all_namespaces)));
        }
        render(args.output, &Items { items: findings }, |list| list.items.iter().map(drawn).collect())?
    };
    Ok(Answer { notes, ..Answer::text(out).with(outcome) })
}

/// All of the Secret is read: whoever writes under the operator's name is seen by the bytes alone.
async fn compared(cluster: &Cluster, object: &Object) -> Comparison {
    match cluster.read_secret(&object.namespace(), object.key.secret_name()).await {
        Ok(secret) => Comparison::whole(&object.key, secret.as_ref()),
        Err(failure) => Comparison::unknown(&object.key, &failure.to_string()),
    }
}

// === impl Finding ===

impl Finding {
    fn of(key: &DataKey, secret: Comparison) -> Self {
        let versions = key.record().iter().map(|issued| Checked {
            version: issued.version,
            key_id: issued.key_id.clone(),
            ciphertext_sha256: sha256(&issued.ciphertext_blob.0),
            decrypt: None,
        });
        let mut finding = Self {
            namespace: key.metadata.namespace.clone().unwrap_or_default(),
            name: key.metadata.name.clone().unwrap_or_default(),
            verified: false,
            secret,
            versions: versions.collect(),
        };
        finding.verified = finding.outcome() == Outcome::Fine;
        finding
    }

    fn outcome(&self) -> Outcome {
        let secret = match self.secret.state {
            State::Intact => Outcome::Fine,
            State::Unknown => Outcome::Incomplete,
            State::Missing | State::Changed | State::Conflict | State::NotIssued => Outcome::Wanting,
        };
        let decrypted = self.versions.iter().filter_map(|version| version.decrypt.as_ref());
        decrypted.map(outcome_of).fold(secret, Outcome::max)
    }
}

fn outcome_of(unwrapped: &Decryption) -> Outcome {
    match unwrapped {
        Decryption::Unwrapped { .. } => Outcome::Fine,
        Decryption::Failed { .. } => Outcome::Wanting,
        Decryption::NotAsked { .. } => Outcome::Incomplete,
    }
}

fn summary(findings: &[Finding], none: &str) -> String {
    let verified = findings.iter().filter(|finding| finding.verified).count();
    match findings.len() {
        0 => none.to_owned(),
        all => format!("{verified} of {all} DataKeys are verified."),
    }
}

fn drawn(finding: &Finding) -> String {
    let verdict = match finding.outcome() {
        _ if finding.secret.state == State::NotIssued => "not issued yet",
        Outcome::Fine => "verified",
        Outcome::Wanting => "NOT as recorded",
        Outcome::Incomplete => "could not be verified in full",
    };
    let mut out = format!("{} in namespace {}: {verdict}\n", finding.name, finding.namespace);
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(out, "  {name:<11} {}", printable(text));
    };
    line("Secret", &finding.secret.line());
    for difference in &finding.secret.differences {
        line("", difference);
    }
    for version in &finding.versions {
        let name = format!("Version {}", version.version);
        line(&name, &format!("wrapped by {}, SHA-256 {}", version.key_id, version.ciphertext_sha256));
        match &version.decrypt {
            None => {}
            Some(Decryption::Unwrapped { length, plaintext_sha256: Some(sha256) }) => {
                line("", &format!("unwraps to {length} bytes whose SHA-256 is {sha256}"));
            }
            Some(Decryption::Unwrapped { length, plaintext_sha256: None }) => {
                line("", &format!("unwraps to {length} bytes; a fingerprint of so few would give them away"));
            }
            Some(Decryption::Failed { why }) => line("", &format!("does NOT unwrap: {why}")),
            Some(Decryption::NotAsked { why }) => line("", &format!("not known whether it unwraps: {why}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{ready, recorded, secret};

    fn finding(decrypted: &[Decryption]) -> Finding {
        let key = ready(&[1, 2]).key;
        let mut finding = Finding::of(&key, Comparison::whole(&key, Some(&secret(&key, 2))));
        for (version, decrypted) in finding.versions.iter_mut().zip(decrypted) {
            version.decrypt = Some(decrypted.clone());
        }
        finding
    }

    fn unwrapped() -> Decryption {
        Decryption::Unwrapped { length: 8, plaintext_sha256: None }
    }

    fn failed() -> Decryption {
        Decryption::Failed { why: "AWS KMS refuses".into() }
    }

    fn not_asked() -> Decryption {
        Decryption::NotAsked { why: "no credentials".into() }
    }

    #[test]
    fn the_worst_of_secret_and_versions_decides() {
        assert_eq!(finding(&[]).outcome(), Outcome::Fine);
        assert_eq!(finding(&[unwrapped(), unwrapped()]).outcome(), Outcome::Fine);
        assert_eq!(finding(&[unwrapped(), failed()]).outcome(), Outcome::Wanting);
        assert_eq!(finding(&[failed(), not_asked()]).outcome(), Outcome::Incomplete);
        let key = ready(&[1]).key;
        assert_eq!(Finding::of(&key, Comparison::whole(&key, None)).outcome(), Outcome::Wanting);
        assert_eq!(Finding::of(&key, Comparison::unknown(&key, "")).outcome(), Outcome::Incomplete);
        let unissued = recorded(&[]).key;
        assert_eq!(Finding::of(&unissued, Comparison::whole(&unissued, None)).outcome(), Outcome::Wanting);
    }

    #[test]
    fn each_version_is_told_with_what_kms_says() {
        let text = drawn(&finding(&[unwrapped(), failed()]));
        assert!(text.starts_with("orders in namespace shop: NOT as recorded\n"), "{text}");
        assert!(text.contains("unwraps to 8 bytes; a fingerprint of so few would give them away"), "{text}");
        assert!(text.contains("does NOT unwrap: AWS KMS refuses"), "{text}");
        let unissued = recorded(&[]).key;
        let text = drawn(&Finding::of(&unissued, Comparison::whole(&unissued, None)));
        assert!(text.starts_with("orders in namespace shop: not issued yet\n"), "{text}");
        let text = drawn(&finding(&[]));
        assert!(text.starts_with("orders in namespace shop: verified\n") && !text.contains("unwrap"), "{text}");
    }

    #[test]
    fn json_tells_the_result_by_a_tag() {
        let json = serde_json::json!(finding(&[unwrapped(), failed()]));
        assert_eq!(json["secret"]["state"], "Intact");
        assert_eq!(json["versions"][0]["decrypt"], serde_json::json!({ "result": "Unwrapped", "length": 8 }));
        assert_eq!(json["versions"][1]["decrypt"]["result"], "Failed");
    }
}
