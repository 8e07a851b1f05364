//! `kubectl datakey check`: whether the definitions, the operator, its access to KMS and the user's rights are as they should be.

use std::fmt::Write;

use futures::{StreamExt, stream};
use k8s_openapi::{api::apps::v1::Deployment, jiff::Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use super::{CONCURRENT_READS, Items};
use crate::{
    cli::Check,
    cluster::{CLASSES, Cluster},
    output::{CommandError, Health, Output, printable, render},
};

mod access;
mod classes;
mod definition;
mod flags;
mod kms;
mod operator;
mod watched;

use definition::{Defined, OF_KEYS, OF_PAIRS};
use operator::Installed;
use watched::Scope;

/// The namespace of the operator in `deploy` and in the documentation.
const USUAL_NAMESPACE: &str = "datakey-system";

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// Whether it is as it should be.
    pub result: CheckResult,
    /// What was found.
    pub detail: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub enum CheckResult {
    /// It is as it should be.
    Ok,
    /// It is not.
    Failed,
    /// That is not known.
    NotChecked,
}

/// Checks everything.
pub async fn run(cluster: &Cluster, args: &Check) -> Result<Output, CommandError> {
    // Every authenticated user may read this, so an error here is one of the connection.
    cluster.serves(OF_KEYS.plural).await?;
    let definition = async |defined: Defined| {
        definition::check(defined, cluster.definition(defined.plural).await, &cluster.serves(defined.plural).await)
    };
    let mut findings = vec![definition(OF_KEYS).await];
    let namespace = (!args.all_namespaces).then_some(cluster.namespace.as_str());
    match find_operators(cluster, args.operator_namespace.as_deref()).await {
        Ok(Operators { deployments, searched }) if deployments.is_empty() => {
            findings.push(operator::none(searched.as_deref()));
        }
        Ok(Operators { deployments, searched }) => {
            let (installed, elsewhere) = by_namespace(&deployments, args.operator_namespace.as_deref());
            if installed.iter().any(|installed| installed.key_pairs && installed.wanted > 0) {
                findings.push(definition(OF_PAIRS).await);
            }
            findings.extend(classes::check(cluster, &installed, args.all_namespaces).await);
            for installed in &installed {
                findings.extend(check_operator(cluster, installed).await);
            }
            findings.extend(elsewhere.iter().map(Installed::elsewhere));
            if !installed.is_empty() {
                let is_complete = searched.is_none() && elsewhere.is_empty();
                findings.push(watched::check(&installed, Scope { namespace, is_complete }));
            }
        }
        Err(error) => findings.push(operator::unknown(&error)),
    }
    let pairs = cluster.serves(OF_PAIRS.plural).await;
    let rights: Vec<_> = stream::iter(access::needed(matches!(pairs, Ok(true))))
        .map(async |right| access::check(right, namespace, cluster.may(right.right, namespace).await))
        .buffered(CONCURRENT_READS)
        .collect()
        .await;
    findings.extend(rights);
    if let Err(error) = pairs {
        findings.push(Finding::unknown("rights on pairs", error.to_string(), "run the command again"));
    }
    if cluster.serves(CLASSES).await == Ok(true) {
        for right in &access::CLASS_RIGHTS {
            findings.push(access::check_on_classes(right, cluster.may(right.right, None).await));
        }
    }
    let health = health(&findings);
    let out = render(args.output, &Items { items: findings }, |list| describe(&list.items))?;
    Ok(Output::text(out).with(health))
}

/// A failure is known whatever else could not be checked. Without one, what was not checked may have failed.
fn health(findings: &[Finding]) -> Health {
    let has = |result| findings.iter().any(|finding| finding.result == result);
    match (has(CheckResult::Failed), has(CheckResult::NotChecked)) {
        (true, _) => Health::Unhealthy,
        (false, true) => Health::Unknown,
        (false, false) => Health::Healthy,
    }
}

/// The Deployments of the operator.
pub struct Operators {
    pub deployments: Vec<Deployment>,
    /// The only namespace that was searched; `None` for all.
    searched: Option<String>,
}

/// What can be seen of the operator of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenOperator {
    /// Whether each object needs a class.
    pub requires_classes: bool,
    /// The Region in its environment.
    pub region: Option<String>,
}

/// The operator that watches the namespace; `None` if it cannot be seen, or if it is not known which one it is.
pub async fn seen_operator(cluster: &Cluster) -> Option<SeenOperator> {
    let found = find_operators(cluster, None).await.ok()?;
    only_one(by_namespace(&found.deployments, None).0, &cluster.namespace)
}

fn only_one(installed: Vec<Installed>, namespace: &str) -> Option<SeenOperator> {
    let is_meant = |installed: &Installed| installed.wanted > 0 && installed.watched.has(namespace);
    let mut watching = installed.into_iter().filter(is_meant);
    let Installed { requires_classes, region, .. } = watching.next()?;
    watching.next().is_none().then_some(SeenOperator { requires_classes, region })
}

/// Looks in all namespaces and, where the user may not, in the usual one.
pub async fn find_operators(cluster: &Cluster, namespace: Option<&str>) -> Result<Operators, CommandError> {
    let (searched, found) = match cluster.operators(namespace).await {
        Err(CommandError::Forbidden(_)) if namespace.is_none() => {
            (Some(USUAL_NAMESPACE), cluster.operators(Some(USUAL_NAMESPACE)).await)
        }
        found => (namespace, found),
    };
    Ok(Operators { deployments: found?, searched: searched.map(str::to_owned) })
}

/// Returns the Deployments in the namespace of the operator, and those elsewhere. A user of any namespace can give a Deployment
/// the operator's label, so it is trusted only in the usual namespace, or in that which the user names.
fn by_namespace(deployments: &[Deployment], named: Option<&str>) -> (Vec<Installed>, Vec<Installed>) {
    let namespace = named.unwrap_or(USUAL_NAMESPACE);
    deployments.iter().map(Installed::of).partition(|installed| installed.namespace == namespace)
}

async fn check_operator(cluster: &Cluster, installed: &Installed) -> Vec<Finding> {
    let mut findings = vec![installed.runs()];
    findings.push(match &installed.lease {
        None => installed.without_lease(),
        Some((namespace, name)) => installed.leader(cluster.lease(namespace, name).await, Timestamp::now()),
    });
    let metrics = cluster.operator_metrics(&installed.namespace).await;
    findings.push(kms::region(installed));
    findings.extend(kms::check(installed, metrics));
    findings
}

fn describe(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or_default();
    let mut out = String::new();
    for finding in findings {
        let result = match finding.result {
            CheckResult::Ok => "ok",
            CheckResult::Failed => "failed",
            CheckResult::NotChecked => "not checked",
        };
        let _ = writeln!(out, "{result:<11}   {:<width$}   {}", finding.check, printable(&finding.detail));
        if let Some(next) = &finding.next {
            let _ = writeln!(out, "{:<11}   {:<width$}   {}", "", "", printable(next));
        }
    }
    out
}

// === impl Finding ===

impl Finding {
    fn new(check: impl Into<String>, result: CheckResult, detail: impl Into<String>) -> Self {
        Self { check: check.into(), result, detail: detail.into(), next: None }
    }

    fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(check, CheckResult::Ok, detail)
    }

    /// It is as it should be, but the user may want something else.
    fn note(check: impl Into<String>, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..Self::new(check, CheckResult::Ok, detail) }
    }

    fn failed(check: impl Into<String>, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..Self::new(check, CheckResult::Failed, detail) }
    }

    fn unknown(check: impl Into<String>, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..Self::new(check, CheckResult::NotChecked, detail) }
    }
}

#[cfg(test)]
mod tests {
    use super::{access::RIGHTS, *};

    #[test]
    fn next_step_is_below_what_was_found() {
        let findings = [Finding::ok("definition", "v1alpha1"), Finding::failed("kms", "no\nanswer", "fix it")];
        assert_eq!(
            describe(&findings),
            "ok            definition   v1alpha1\n\
             failed        kms          no\\nanswer\n\
             \x20                          fix it\n"
        );
    }

    #[test]
    fn deployment_of_another_namespace_is_not_trusted() {
        let deployment = |namespace: &str| {
            let pod = serde_json::json!({ "spec": { "containers": [{ "name": "operator" }] } });
            let spec = serde_json::json!({ "selector": {}, "template": pod });
            let metadata = serde_json::json!({ "name": "keys", "namespace": namespace });
            serde_json::from_value(serde_json::json!({ "metadata": metadata, "spec": spec })).unwrap()
        };
        let deployments = [deployment("shop"), deployment(USUAL_NAMESPACE)];
        let trusted = |named| by_namespace(&deployments, named).0[0].namespace.clone();
        assert_eq!((trusted(None).as_str(), trusted(Some("shop")).as_str()), (USUAL_NAMESPACE, "shop"));
        let finding = by_namespace(&deployments, None).1[0].elsewhere();
        assert_eq!(finding.result, CheckResult::NotChecked);
        assert!(
            finding.detail.contains("namespace shop") && finding.next.unwrap().contains("--operator-namespace shop")
        );
    }

    #[test]
    fn operator_of_a_namespace_is_seen_if_it_is_the_only_one() {
        let operator = |flags: &[&str]| {
            let container = serde_json::json!({ "name": "operator", "args": flags });
            let spec = serde_json::json!({ "selector": {}, "template": { "spec": { "containers": [container] } } });
            let deployment = serde_json::json!({ "metadata": { "name": "keys" }, "spec": spec });
            Installed::of(&serde_json::from_value(deployment).unwrap())
        };
        let requires = |all: Vec<Installed>| only_one(all, "shop").map(|seen| seen.requires_classes);
        assert_eq!(requires(vec![operator(&["--classes=required"])]), Some(true));
        assert_eq!(requires(vec![operator(&["--classes=required", "--namespace=bank"]), operator(&[])]), Some(false));
        assert_eq!(requires(vec![operator(&["--classes=required"]), operator(&[])]), None);
        assert_eq!(requires(vec![operator(&["--namespace=bank"])]), None);
        let mut stopped = operator(&[]);
        stopped.wanted = 0;
        assert_eq!(requires(vec![stopped]), None);
    }

    #[test]
    fn what_was_not_checked_is_not_healthy() {
        let (ok, failed) = (Finding::ok("a", ""), Finding::failed("b", "", ""));
        let unknown = Finding::unknown("c", "", "");
        assert_eq!(health(std::slice::from_ref(&ok)), Health::Healthy);
        assert_eq!(health(&[ok.clone(), unknown.clone()]), Health::Unknown);
        assert_eq!(health(&[unknown, failed, ok]), Health::Unhealthy);
    }

    #[test]
    fn check_is_printed_as_recorded() {
        let findings = [
            Finding::ok("definition", "datakeys.datakey.dev serves v1alpha1, and v1alpha1 is stored"),
            operator::none(None),
            access::check(&RIGHTS[2], Some("shop"), Ok(false)),
        ];
        insta::assert_snapshot!("check", describe(&findings));
        let list = Items { items: findings.to_vec() };
        insta::assert_snapshot!("check-json", crate::output::json(&list).unwrap());
        insta::assert_snapshot!("check-yaml", crate::output::yaml(&list).unwrap());
        let good: Vec<_> = access::needed(true).map(|right| access::check(right, Some("shop"), Ok(true))).collect();
        insta::assert_snapshot!("check-good", describe(&good));
    }
}
