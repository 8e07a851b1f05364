//! The definition of a kind, and the versions that it serves and that are stored.

use datakey::api::{Kind, KindId};
use serde_json::Value;

use super::Finding;
use crate::{cluster::definition_name, output::CommandError};

const INSTALL: &str = "install the definition of this release: datakey-operator crd | kubectl apply --server-side -f -";

/// What the finding about the definition of a kind is called.
const fn name(kind: &Kind) -> &'static str {
    match kind.id {
        KindId::DataKey => "definition",
        KindId::DataKeyPair => "definition of pairs",
    }
}

/// The version of the API, and what to do where it is missing.
fn wanted(kind: &Kind) -> (&'static str, String) {
    let version = kind.api_version.rsplit('/').next().unwrap_or_default();
    let without = match kind.id {
        KindId::DataKey => "",
        KindId::DataKeyPair => "; or run the operator with --key-pairs=false",
    };
    (version, format!("{INSTALL}{without}"))
}

/// Checks the definition, or else whether the kind is served.
pub fn check(
    kind: &Kind,
    found: Result<Option<Value>, CommandError>,
    is_served: &Result<bool, CommandError>,
) -> Finding {
    let (wanted, install) = wanted(kind);
    match found {
        Ok(None) => Finding::failed(name(kind), format!("{} is not installed", definition_name(kind)), install),
        Ok(Some(definition)) => check_definition(kind, &definition),
        Err(CommandError::Forbidden(_)) if *is_served == Ok(true) => Finding::ok(
            name(kind),
            format!("{wanted} is served; you may not read the definition, so what is stored was not looked at"),
        ),
        Err(_) if *is_served == Ok(false) => {
            let detail = format!("the API server does not serve {} of {}", kind.plural, kind.api_version);
            Finding::failed(name(kind), detail, install)
        }
        Err(error) => Finding::unknown(name(kind), error.to_string(), "run the command again"),
    }
}

fn check_definition(kind: &Kind, definition: &Value) -> Finding {
    let ((wanted, install), title, named) = (wanted(kind), name(kind), definition_name(kind));
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let served = versions.filter(|version| version["served"] == true).filter_map(|version| version["name"].as_str());
    let served: Vec<_> = served.collect();
    let stored = definition["status"]["storedVersions"].as_array().into_iter().flatten();
    let stored: Vec<_> = stored.filter_map(Value::as_str).collect();
    let mut conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    let detail = format!("{named} serves {}, and {} is stored", served.join(", "), stored.join(", "));
    if !served.contains(&wanted) {
        return Finding::failed(title, format!("{detail}; this plugin needs {wanted}"), install);
    }
    if !conditions.any(|condition| condition["type"] == "Established" && condition["status"] == "True") {
        let next = format!("read its conditions: kubectl describe crd {named}");
        return Finding::failed(title, format!("{detail}; it is not established"), next);
    }
    if let Some(lost) = stored.iter().find(|stored| !served.contains(stored)) {
        let next = "install a definition that serves it, and write each object again before the version is removed";
        return Finding::failed(title, format!("{detail}; {lost} may be stored and is not served"), next);
    }
    Finding::ok(title, detail)
}

#[cfg(test)]
mod tests {
    use datakey::api::{DataKey, DataKeyPair, KeyKind as _};
    use serde_json::json;

    use super::{super::CheckResult, *};

    fn definition(served: &[&str], stored: &[&str]) -> Value {
        let versions: Vec<_> = served.iter().map(|name| json!({ "name": name, "served": true })).collect();
        json!({
            "spec": { "versions": versions },
            "status": { "storedVersions": stored, "conditions": [{ "type": "Established", "status": "True" }] },
        })
    }

    #[test]
    fn served_and_stored_versions_are_compared() {
        let result = |served: &[&str], stored: &[&str]| {
            check(DataKey::KIND, Ok(Some(definition(served, stored))), &Ok(true)).result
        };
        assert_eq!(result(&["v1alpha1"], &["v1alpha1"]), CheckResult::Ok);
        assert_eq!(result(&["v1alpha1", "v1"], &["v1alpha1", "v1"]), CheckResult::Ok);
        assert_eq!(result(&["v1"], &["v1"]), CheckResult::Failed);
        assert_eq!(result(&["v1alpha1"], &["v1alpha1", "v1alpha0"]), CheckResult::Failed);
        let mut new = definition(&["v1alpha1"], &["v1alpha1"]);
        new["status"]["conditions"] = json!([]);
        assert_eq!(check(DataKey::KIND, Ok(Some(new)), &Ok(true)).result, CheckResult::Failed);
        assert_eq!(check(DataKey::KIND, Ok(None), &Ok(false)).result, CheckResult::Failed);
        let pairs = check(DataKeyPair::KIND, Ok(None), &Ok(false));
        assert_eq!(
            (pairs.check.as_str(), pairs.detail.as_str()),
            ("definition of pairs", "datakeypairs.datakey.dev is not installed")
        );
        assert!(pairs.next.unwrap().contains("--key-pairs=false"));
    }

    #[test]
    fn user_who_may_not_read_it_sees_what_is_served() {
        let forbidden = || Err(CommandError::Forbidden("you may not".to_owned()));
        for kind in datakey::api::KINDS {
            assert_eq!(check(kind, forbidden(), &Ok(true)).result, CheckResult::Ok);
            assert_eq!(check(kind, forbidden(), &Ok(false)).result, CheckResult::Failed);
            let unanswered = || CommandError::Unanswered("no answer".to_owned());
            assert_eq!(check(kind, forbidden(), &Err(unanswered())).result, CheckResult::NotChecked);
            assert_eq!(check(kind, Err(unanswered()), &Ok(true)).result, CheckResult::NotChecked);
        }
    }
}
