//! Classes: their definition, what the operator may do with them, and the class of objects that name none.
//!
//! A cluster without classes needs none of that. So what is missing is a failure only where an operator requires classes, or an
//! object names one.

use datakey::class::DEFAULT_CLASS;

use super::{
    Finding,
    definition::{self, OF_CLASSES},
    operator::Installed,
    watched::Watched,
};
use crate::{
    cluster::{CLASSES, Cluster, FetchedClass, Right},
    output::CommandError,
};

/// What the finding about the rights of the operator, and whether it requires classes, is called.
const TITLE: &str = "classes";

/// The group of classes.
const GROUP: &str = datakey::names::GROUP;

/// What each operator does with classes.
const READ: [Right; 2] =
    [Right { verb: "list", group: GROUP, resource: CLASSES }, Right { verb: "watch", group: GROUP, resource: CLASSES }];

/// What an operator of all namespaces also does.
const WRITE: Right = Right { verb: "patch", group: GROUP, resource: "datakeyclasses/status" };

/// Checks what these operators need of classes.
pub async fn check(cluster: &Cluster, installed: &[Installed], all_namespaces: bool) -> Vec<Finding> {
    let running: Vec<_> = installed.iter().filter(|installed| installed.wanted > 0).collect();
    let requires = running.iter().find(|installed| installed.requires_classes).copied();
    let is_served = cluster.serves(CLASSES).await;
    if is_served == Ok(false) {
        return vec![without_definition(needed_by(cluster, requires, all_namespaces).await)];
    }
    let mut findings = vec![definition::check(OF_CLASSES, cluster.definition(CLASSES).await, &is_served)];
    for installed in running {
        let missing = missing_rights(cluster, installed).await;
        // Who needs a class matters only where the operator cannot read them.
        let needed_by = match &missing {
            Ok(missing) if !missing.is_empty() => {
                needed_by(cluster, Some(installed).filter(|one| one.requires_classes), all_namespaces).await
            }
            _ => None,
        };
        findings.push(of_operator(installed, missing, needed_by));
    }
    if requires.is_some()
        && let Ok(Some(classes)) = cluster.classes().await
    {
        findings.push(default_class(&classes));
    }
    findings
}

/// Why a class is needed; `None` if it is not, as far as is known.
async fn needed_by(cluster: &Cluster, requires: Option<&Installed>, all_namespaces: bool) -> Option<String> {
    if let Some(installed) = requires {
        return Some(format!("{} requires classes", installed.place()));
    }
    let listing = cluster.all(all_namespaces).await.ok()?;
    let fetched = listing.keys.iter().find(|fetched| fetched.key.object().spec.class_name.is_some())?;
    Some(format!("{} in namespace {} names a class", fetched.titled(), fetched.namespace()))
}

/// There is no definition.
fn without_definition(needed_by: Option<String>) -> Finding {
    let finding = definition::check(OF_CLASSES, Ok(None), &Ok(false));
    match needed_by {
        Some(why) => Finding { detail: format!("{}, and {why}", finding.detail), ..finding },
        None => Finding::ok(OF_CLASSES.title, format!("{}; nothing here needs a class", finding.detail)),
    }
}

/// The rights that the operator lacks.
async fn missing_rights(cluster: &Cluster, installed: &Installed) -> Result<Vec<String>, CommandError> {
    let mut missing = Vec::new();
    for right in needed_rights(installed) {
        if !cluster.account_may(&installed.account, right).await? {
            missing.push(format!("{} {}", right.verb, right.resource));
        }
    }
    Ok(missing)
}

fn needed_rights(installed: &Installed) -> impl Iterator<Item = Right> {
    // An operator of some namespaces does not know all objects that use a class, and leaves the status alone.
    READ.into_iter().chain((installed.watched == Watched::All).then_some(WRITE))
}

/// Whether an operator requires classes, and may do what it needs for them. A user who may not ask for its rights does not see them.
fn of_operator(
    installed: &Installed,
    missing: Result<Vec<String>, CommandError>,
    needed_by: Option<String>,
) -> Finding {
    let requires = if installed.requires_classes {
        "each object needs a class (--classes=required)"
    } else {
        "only objects that name a class need it (--classes=optional)"
    };
    let detail = format!("{}: {requires}", installed.place());
    let missing = missing.unwrap_or_default();
    if missing.is_empty() {
        return Finding::ok(TITLE, detail);
    }
    let detail = format!("{detail}; {} may not {}", installed.account.user(), missing.join(", "));
    match needed_by {
        Some(why) => {
            let next = "grant that by a ClusterRole and a ClusterRoleBinding, as the chart does";
            Finding::failed(TITLE, format!("{detail}, and {why}"), next)
        }
        None => Finding::ok(TITLE, format!("{detail}, which nothing here needs")),
    }
}

/// The class of objects that name none, where the operator requires one.
fn default_class(classes: &[FetchedClass]) -> Finding {
    let title = format!("class {DEFAULT_CLASS}");
    match classes.iter().map(|fetched| &fetched.class).find(|class| class.name() == DEFAULT_CLASS) {
        None => Finding::note(
            title,
            format!("there is no class {DEFAULT_CLASS}, so an object that names no class is not issued (ClassMissing)"),
            format!("name a class in spec.className of each object, or create the class {DEFAULT_CLASS}"),
        ),
        Some(class) => match class.flaw() {
            None => Finding::ok(title, "an object that names no class is of it"),
            Some(flaw) => Finding::failed(
                title,
                format!("it allows nothing: {flaw}"),
                format!("correct it: kubectl edit datakeyclass {DEFAULT_CLASS}"),
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::CheckResult, *};
    use crate::fixtures::class;

    fn installed(flags: &[&str]) -> Installed {
        let deployment = json!({
            "metadata": { "name": "data-keys", "namespace": "keys" },
            "spec": {
                "selector": {},
                "template": { "spec": {
                    "serviceAccountName": "keys", "containers": [{ "name": "operator", "args": flags }],
                } },
            },
        });
        Installed::of(&serde_json::from_value(deployment).unwrap())
    }

    #[test]
    fn definition_matters_only_where_a_class_is_needed() {
        let unneeded = without_definition(None);
        assert_eq!((unneeded.check.as_str(), unneeded.result), ("definition of classes", CheckResult::Ok));
        let needed = without_definition(Some("DataKey orders in namespace shop names a class".to_owned()));
        assert_eq!(needed.result, CheckResult::Failed);
        let detail = "datakeyclasses.datakey.dev is not installed, and DataKey orders in namespace shop names a class";
        assert_eq!(needed.detail, detail);
        assert!(needed.next.unwrap().contains("datakey-operator crd"));
    }

    #[test]
    fn missing_right_fails_only_where_a_class_is_needed() {
        let operator = installed(&["run", "--classes=required"]);
        let missing = || Ok(vec!["list datakeyclasses".to_owned()]);
        let failed = of_operator(&operator, missing(), Some("it is required".to_owned()));
        assert_eq!(failed.result, CheckResult::Failed);
        assert!(failed.detail.contains("system:serviceaccount:keys:keys may not list datakeyclasses"), "{failed:?}");
        assert_eq!(of_operator(&operator, missing(), None).result, CheckResult::Ok);
        let unknown = of_operator(&operator, Err(CommandError::Forbidden(String::new())), None);
        let detail = "Deployment data-keys in namespace keys: each object needs a class (--classes=required)";
        assert_eq!((unknown.result, unknown.detail.as_str()), (CheckResult::Ok, detail));
        assert!(of_operator(&installed(&["run"]), Ok(Vec::new()), None).detail.ends_with("(--classes=optional)"));
    }

    #[test]
    fn status_is_written_by_an_operator_of_all_namespaces() {
        let verbs = |flags: &[&str]| needed_rights(&installed(flags)).map(|right| right.verb).collect::<Vec<_>>();
        assert_eq!(verbs(&["run"]), ["list", "watch", "patch"]);
        assert_eq!(verbs(&["run", "--namespace=shop"]), ["list", "watch"]);
    }

    #[test]
    fn missing_default_class_is_a_warning() {
        let missing = default_class(&[class("shop", |_| {})]);
        assert_eq!(missing.result, CheckResult::Ok);
        assert!(missing.detail.contains("ClassMissing") && missing.next.is_some(), "{missing:?}");
        assert_eq!(default_class(&[class("default", |_| {})]).next, None);
        let flawed = default_class(&[class("default", |value| value["spec"]["allow"] = json!([]))]);
        assert!(flawed.result == CheckResult::Failed && flawed.detail.contains("spec.allow"), "{flawed:?}");
    }
}
