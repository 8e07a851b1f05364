//! The Region of the operator, and whether it reaches KMS, by its metrics.

use std::{collections::BTreeMap, iter::once};

use datakey::{
    api::{DataKey, DataKeyPair, KeyKind as _},
    condition::ISSUED,
    reason::Reason,
};

use super::{Finding, operator::Installed};
use crate::output::CommandError;

/// The codes of calls that KMS did not answer.
const UNANSWERED: [&str; 5] = ["NoCredentials", "NotCalled", "Timeout", "TlsFailed", "Unreachable"];

/// The reasons of DataKeys that wait because KMS could not be called.
const UNREACHABLE: [Reason; 5] = [
    Reason::KmsUnreachable,
    Reason::KmsTimeout,
    Reason::TlsFailed,
    Reason::CredentialsMissing,
    Reason::CredentialsRejected,
];

/// The Region of the operator.
pub fn region(installed: &Installed) -> Finding {
    match &installed.region {
        Some(region) => Finding::ok("region", format!("{region}, by the environment of the operator")),
        None => Finding::unknown(
            "region",
            "the Deployment sets no Region; the operator takes it from its AWS configuration or its node",
            format!(
                "read it in the log of the operator: kubectl logs -n {} -l app.kubernetes.io/name=datakey-operator",
                installed.namespace
            ),
        ),
    }
}

/// Whether the operator reaches KMS, and may issue key pairs if there are any.
pub fn check(installed: &Installed, metrics: Result<Option<String>, CommandError>) -> Vec<Finding> {
    let namespace = &installed.namespace;
    let by_hand = format!(
        "look at datakey_kms_requests_total in its metrics: kubectl port-forward -n {namespace} deployment/{} 8080",
        installed.name
    );
    match metrics {
        Ok(Some(metrics)) => once(read(&metrics, &by_hand)).chain(pairs(&metrics)).collect(),
        Ok(None) => {
            let what = format!("there is no metrics Service in namespace {namespace} (metrics.service.enabled)");
            vec![Finding::unknown("kms", what, by_hand)]
        }
        Err(error) => vec![Finding::unknown("kms", error.to_string(), by_hand)],
    }
}

/// Whether the operator may issue key pairs. AWS grants that by an action of its own.
fn pairs(metrics: &str) -> Option<Finding> {
    let pairs = samples(metrics, "datakey_datakeys")
        .filter(|(labels, value)| *value > 0.0 && labels.get("kind") == Some(&DataKeyPair::KIND.name));
    let by_reason: BTreeMap<_, _> = pairs.filter_map(|(labels, value)| Some((*labels.get("reason")?, value))).collect();
    let denied = by_reason.get(Reason::AccessDenied.as_str());
    let denied = denied.map(|denied| reads(*denied, DataKeyPair::KIND.name, "AccessDenied"));
    // A user can name a KMS key that the operator may not use. Only where no pair is issued is the action itself in doubt.
    match (by_reason.get(ISSUED), denied) {
        (Some(issued), denied) => {
            let denied = denied.map_or_else(String::new, |denied| format!("; {denied}"));
            Some(Finding::ok("kms of pairs", format!("{issued} DataKeyPairs are issued{denied}")))
        }
        (None, Some(denied)) => {
            let next = format!(
                "the role of the operator may need kms:{}: kubectl datakey policy datakeypair/NAME prints the policies",
                DataKeyPair::KIND.operation
            );
            Some(Finding::failed("kms of pairs", denied, next))
        }
        (None, None) => None,
    }
}

/// How many objects of a kind have a reason.
fn reads(count: f64, kind: &str, reason: &str) -> String {
    if count < 2.0 { format!("1 {kind} reads {reason}") } else { format!("{count} {kind}s read {reason}") }
}

fn read(metrics: &str, by_hand: &str) -> Finding {
    let value = |name: &str| samples(metrics, name).map(|(_, value)| value).next();
    if value("datakey_leader") != Some(1.0) {
        let next = "run the command again, until the Service leads to the replica that leads";
        return Finding::unknown("kms", "a replica answered that stands by, and so does not call KMS", next);
    }
    let waiting: Vec<_> = samples(metrics, "datakey_datakeys")
        .filter(|(labels, value)| {
            let reason = labels.get("reason").copied().unwrap_or_default();
            *value > 0.0 && UNREACHABLE.iter().any(|unreachable| unreachable.as_str() == reason)
        })
        .map(|(labels, value)| {
            // The operator of 0.1.0 has no such label.
            let kind = labels.get("kind").copied().unwrap_or(DataKey::KIND.name);
            reads(value, kind, labels.get("reason").copied().unwrap_or_default())
        })
        .collect();
    if !waiting.is_empty() {
        let next = "kubectl datakey status -A names them, and what to do";
        return Finding::failed("kms", waiting.join(", "), next);
    }
    let mut regions: BTreeMap<&str, bool> = BTreeMap::new();
    for (labels, value) in samples(metrics, "datakey_kms_requests_total") {
        if let (Some(region), Some(code)) = (labels.get("region"), labels.get("code"))
            && value > 0.0
        {
            *regions.entry(region).or_default() |= !UNANSWERED.contains(code);
        }
    }
    let named = |answered: bool| {
        regions.iter().filter(|(_, is)| **is == answered).map(|(region, _)| *region).collect::<Vec<_>>().join(", ")
    };
    match (named(true), named(false)) {
        (answered, dead) if answered.is_empty() && dead.is_empty() => {
            Finding::unknown("kms", "the operator has not called KMS since it started", by_hand)
        }
        (answered, dead) if dead.is_empty() => Finding::ok("kms", format!("KMS answered the operator in {answered}")),
        (_, dead) => {
            let next = "see the log of the operator, and its network: docs/troubleshooting.md, Network and API server";
            Finding::failed("kms", format!("KMS has not answered the operator in {dead}"), next)
        }
    }
}

/// The samples of one metric in the text format of Prometheus. No label of the operator has a comma, a brace or an escaped quote.
fn samples<'a>(text: &'a str, name: &str) -> impl Iterator<Item = (BTreeMap<&'a str, &'a str>, f64)> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once('}')?,
            None => ("", rest),
        };
        let labels = labels.split(',').filter_map(|pair| pair.split_once('='));
        let labels = labels.map(|(label, value)| (label, value.trim_matches('"'))).collect();
        Some((labels, value.strip_prefix(' ')?.split(' ').next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::CheckResult, *};

    fn result(lines: &[&str]) -> CheckResult {
        read(&lines.join("\n"), "").result
    }

    #[test]
    fn denied_pairs_name_the_action() {
        let ok = r#"datakey_datakeys{reason="Issued",kind="DataKeyPair"} 2"#;
        let denied = r#"datakey_datakeys{reason="AccessDenied",kind="DataKeyPair"} 1"#;
        let of_keys = r#"datakey_datakeys{reason="AccessDenied",kind="DataKey"} 1"#;
        assert_eq!(pairs(of_keys), None);
        let issued = pairs(&[ok, of_keys].join("\n")).unwrap();
        assert_eq!((issued.result, issued.detail.as_str()), (CheckResult::Ok, "2 DataKeyPairs are issued"));
        let both = pairs(&[ok, denied].join("\n")).unwrap();
        let detail = "2 DataKeyPairs are issued; 1 DataKeyPair reads AccessDenied";
        assert_eq!((both.result, both.detail.as_str()), (CheckResult::Ok, detail));
        let denied = pairs(denied).unwrap();
        assert_eq!((denied.result, denied.detail.as_str()), (CheckResult::Failed, "1 DataKeyPair reads AccessDenied"));
        assert!(denied.next.unwrap().contains("kms:GenerateDataKeyPairWithoutPlaintext"));
        let unreached = r#"datakey_datakeys{reason="KmsTimeout",kind="DataKeyPair"} 3"#;
        assert_eq!(read(&["datakey_leader 1", unreached].join("\n"), "").detail, "3 DataKeyPairs read KmsTimeout");
    }

    #[test]
    fn answered_calls_show_that_kms_is_reached() {
        let ok = r#"datakey_kms_requests_total{region="eu-west-1",code="OK"} 3"#;
        let denied = r#"datakey_kms_requests_total{region="eu-west-1",code="AccessDeniedException"} 3"#;
        let timeout = r#"datakey_kms_requests_total{region="us-east-1",code="Timeout"} 1"#;
        let unreached = r#"datakey_kms_requests_total{region="eu-west-1",code="Timeout"} 1"#;
        let leads = "datakey_leader 1";
        assert_eq!(result(&[ok, leads]), CheckResult::Ok);
        assert_eq!(result(&[denied, unreached, leads]), CheckResult::Ok, "an error of KMS is an answer");
        assert_eq!(result(&[timeout, ok, leads]), CheckResult::Failed);
        assert_eq!(result(&[leads]), CheckResult::NotChecked);
        assert_eq!(result(&[ok, "datakey_leader 0"]), CheckResult::NotChecked);
        let waiting = r#"datakey_datakeys{reason="CredentialsMissing"} 2"#;
        assert_eq!(result(&[ok, waiting, leads]), CheckResult::Failed);
        let other = r#"datakey_datakeys{reason="AccessDenied"} 2"#;
        assert_eq!(result(&[ok, other, "datakey_datakeys_unreadable 0", leads]), CheckResult::Ok);
    }
}
