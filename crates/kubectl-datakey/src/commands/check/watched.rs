//! Which Deployment of the operator watches a namespace: exactly one may.

use k8s_openapi::api::core::v1::Container;

use super::{Finding, flags::values, operator::Installed};

/// The namespaces that a Deployment watches, by its flags and its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Every namespace.
    All,
    /// These.
    Only(Vec<String>),
    /// Its environment takes them from another object.
    Unknown,
}

/// What was looked for.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The namespace in question; `None` for all.
    pub namespace: Option<&'a str>,
    /// Whether the Deployments of all namespaces were found.
    pub is_complete: bool,
}

/// What to do about several releases.
const SEPARATE: &str =
    "stop one of them, or give each namespaces of its own (--namespace, watchNamespaces of the chart)";

// === impl Watched ===

impl Watched {
    /// Reads `--namespace` in each form that the operator accepts, else `DATAKEY_NAMESPACES`.
    pub fn by(container: &Container) -> Self {
        let flags: Vec<_> = values(container, "--namespace").flat_map(names).collect();
        if !flags.is_empty() {
            return Self::Only(flags);
        }
        match container.env.iter().flatten().find(|variable| variable.name == "DATAKEY_NAMESPACES") {
            None => Self::All,
            Some(variable) => match variable.value.as_deref().map(names).map(Iterator::collect::<Vec<_>>) {
                Some(names) if !names.is_empty() => Self::Only(names),
                _ => Self::Unknown,
            },
        }
    }

    /// Whether a namespace is among them. What is not known is not.
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|name| name == namespace),
            Self::Unknown => false,
        }
    }

    /// A namespace that both watch, in words.
    fn in_common(&self, other: &Self) -> Option<String> {
        match (self, other) {
            (Self::Unknown, _) | (_, Self::Unknown) => None,
            (Self::All, Self::All) => Some("all namespaces".to_owned()),
            (Self::Only(names), other) | (other, Self::Only(names)) => {
                names.iter().find(|name| other.has(name)).map(|name| format!("namespace {name}"))
            }
        }
    }

    pub fn text(&self) -> String {
        match self {
            Self::All => "all namespaces".to_owned(),
            Self::Only(names) if names.len() == 1 => format!("namespace {}", names.concat()),
            Self::Only(names) => format!("namespaces {}", names.join(", ")),
            Self::Unknown => "namespaces that its environment takes from another object".to_owned(),
        }
    }
}

fn names(text: &str) -> impl Iterator<Item = String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Whether one operator watches the namespace in question. Deployments without replicas watch none.
pub fn check(operators: &[Installed], scope: Scope<'_>) -> Finding {
    let running: Vec<_> = operators.iter().filter(|installed| installed.wanted > 0).collect();
    let pairs =
        running.iter().enumerate().flat_map(|(at, one)| running[at + 1..].iter().map(move |other| (one, other)));
    let mut twice = pairs.filter_map(|(one, other)| {
        let common = match scope.namespace {
            Some(name) => (one.watched.has(name) && other.watched.has(name)).then(|| format!("namespace {name}")),
            None => one.watched.in_common(&other.watched),
        }?;
        Some(format!("{} and {} both watch {common}, and both act on its DataKeys", one.place(), other.place()))
    });
    if let Some(detail) = twice.next() {
        return Finding::failed("watched by", detail, SEPARATE);
    }
    let all = running.iter().map(|one| format!("{} watches {}", one.place(), one.watched.text()));
    let all = all.collect::<Vec<_>>().join("; ");
    let Some(namespace) = scope.namespace else {
        if running.is_empty() {
            return Finding::failed("watched by", "no Deployment of the operator has replicas", "start one of them");
        }
        return Finding::ok("watched by", all);
    };
    if let Some(watcher) = running.iter().find(|installed| installed.watched.has(namespace)) {
        return Finding::ok("watched by", format!("{} watches {}", watcher.place(), watcher.watched.text()));
    }
    let all = if all.is_empty() { "no Deployment of the operator has replicas".to_owned() } else { all };
    if running.iter().any(|installed| installed.watched == Watched::Unknown) {
        let next = format!("look for {namespace} in the log of the operator: it names the namespaces that it watches");
        return Finding::unknown("watched by", all, next);
    }
    if !scope.is_complete {
        let next =
            format!("another operator may watch namespace {namespace}: name its namespace by --operator-namespace");
        return Finding::unknown("watched by", all, next);
    }
    let next = format!(
        "have one watch namespace {namespace} (--namespace, watchNamespaces of the chart), or choose another -n"
    );
    Finding::failed("watched by", format!("no operator watches namespace {namespace}: {all}"), next)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::CheckResult, *};

    fn watched(container: &Value) -> Watched {
        let mut container = container.clone();
        container["name"] = json!("operator");
        Watched::by(&serde_json::from_value(container).unwrap())
    }

    #[test]
    fn namespaces_are_read_from_flags_and_environment() {
        let only = |names: &[&str]| Watched::Only(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(watched(&json!({ "args": ["run", "--leader-elect"] })), Watched::All);
        let flags = ["run", "--namespace=shop, demo", "--namespace", "bank", "--namespaces-of=x"];
        assert_eq!(watched(&json!({ "args": flags })), only(&["shop", "demo", "bank"]));
        assert_eq!(watched(&json!({ "command": ["datakey-operator", "run", "--namespace=shop"] })), only(&["shop"]));
        let env = json!([{ "name": "DATAKEY_NAMESPACES", "value": "shop,demo" }]);
        assert_eq!(watched(&json!({ "env": env })), only(&["shop", "demo"]));
        assert_eq!(watched(&json!({ "args": ["--namespace=bank"], "env": env })), only(&["bank"]), "a flag goes first");
        let own = json!([{ "name": "DATAKEY_NAMESPACES", "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } } }]);
        assert_eq!(watched(&json!({ "env": own })), Watched::Unknown);
    }

    fn found(watched: &[&[&str]], namespace: Option<&str>, is_complete: bool) -> (CheckResult, String) {
        let operators: Vec<_> = watched
            .iter()
            .enumerate()
            .map(|(number, names)| {
                let args: Vec<_> = names.iter().map(|name| format!("--namespace={name}")).collect();
                let deployment = json!({
                    "metadata": { "name": format!("keys-{number}"), "namespace": "ops" },
                    "spec": {
                        "selector": {},
                        "template": { "spec": { "containers": [{ "name": "operator", "args": args }] } },
                    },
                });
                Installed::of(&serde_json::from_value(deployment).unwrap())
            })
            .collect();
        let Finding { result, detail, .. } = check(&operators, Scope { namespace, is_complete });
        (result, detail)
    }

    #[test]
    fn exactly_one_operator_watches_a_namespace() {
        let (shop, bank, all): (&[&str], &[&str], &[&str]) = (&["shop", "demo"], &["bank"], &[]);
        for (operators, result, detail) in [
            (&[all][..], CheckResult::Ok, "Deployment keys-0 in namespace ops watches all namespaces"),
            (&[bank, shop], CheckResult::Ok, "Deployment keys-1 in namespace ops watches namespaces shop, demo"),
            (
                &[bank],
                CheckResult::Failed,
                "no operator watches namespace shop: Deployment keys-0 in namespace ops watches namespace bank",
            ),
            (&[shop, all], CheckResult::Failed, "both watch namespace shop, and"),
            (&[all, all], CheckResult::Failed, "both watch namespace shop, and"),
            (&[bank, bank, shop], CheckResult::Ok, "keys-2"),
        ] {
            let found = found(operators, Some("shop"), true);
            assert!(found.0 == result && found.1.contains(detail), "{found:?}");
        }
        assert_eq!(found(&[bank], Some("shop"), false).0, CheckResult::NotChecked, "another one may be elsewhere");
    }

    #[test]
    fn operators_of_all_namespaces_have_none_in_common() {
        let (shop, bank, all): (&[&str], &[&str], &[&str]) = (&["shop", "demo"], &["bank"], &[]);
        assert_eq!(found(&[shop, bank], None, true).0, CheckResult::Ok);
        for (operators, common) in [
            (&[shop, all][..], "namespace shop,"),
            (&[bank, shop, bank], "namespace bank,"),
            (&[all, all], "all namespaces,"),
        ] {
            let (result, detail) = found(operators, None, true);
            assert!(result == CheckResult::Failed && detail.contains(common), "{detail}");
        }
    }
}
