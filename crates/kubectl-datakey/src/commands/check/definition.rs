//! The definition of DataKeys, and the versions that it serves and that are stored.

use datakey::api::DataKey;
use kube::Resource;
use serde_json::Value;

use super::Finding;
use crate::{cluster::DEFINITION, output::CommandError};

const CHECK: &str = "definition";

const INSTALL: &str = "install the definition of this release: datakey-operator crd | kubectl apply --server-side -f -";

/// Checks the definition, or else the versions that are served.
pub fn check(found: Result<Option<Value>, CommandError>, served: &[String]) -> Finding {
    let wanted = DataKey::version(&());
    match found {
        Ok(None) => Finding::failed(CHECK, format!("{DEFINITION} is not installed"), INSTALL),
        Ok(Some(definition)) => check_definition(&definition, &wanted),
        Err(_) if served.iter().any(|version| *version == wanted) => Finding::ok(
            CHECK,
            format!("{wanted} is served; you may not read the definition, so what is stored was not looked at"),
        ),
        Err(_) => Finding::failed(CHECK, format!("the API server does not serve datakey.dev/{wanted}"), INSTALL),
    }
}

fn check_definition(definition: &Value, wanted: &str) -> Finding {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let served = versions.filter(|version| version["served"] == true).filter_map(|version| version["name"].as_str());
    let served: Vec<_> = served.collect();
    let stored = definition["status"]["storedVersions"].as_array().into_iter().flatten();
    let stored: Vec<_> = stored.filter_map(Value::as_str).collect();
    let mut conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    let detail = format!("{DEFINITION} serves {}, and {} is stored", served.join(", "), stored.join(", "));
    if !served.contains(&wanted) {
        return Finding::failed(CHECK, format!("{detail}; this plugin needs {wanted}"), INSTALL);
    }
    if !conditions.any(|condition| condition["type"] == "Established" && condition["status"] == "True") {
        let next = format!("read its conditions: kubectl describe crd {DEFINITION}");
        return Finding::failed(CHECK, format!("{detail}; it is not established"), next);
    }
    if let Some(lost) = stored.iter().find(|stored| !served.contains(stored)) {
        let next = "install a definition that serves it, and write each DataKey again before the version is removed";
        return Finding::failed(CHECK, format!("{detail}; {lost} may be stored and is not served"), next);
    }
    Finding::ok(CHECK, detail)
}

#[cfg(test)]
mod tests {
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
        let result = |served: &[&str], stored: &[&str]| check(Ok(Some(definition(served, stored))), &[]).result;
        assert_eq!(result(&["v1alpha1"], &["v1alpha1"]), CheckResult::Ok);
        assert_eq!(result(&["v1alpha1", "v1"], &["v1alpha1", "v1"]), CheckResult::Ok);
        assert_eq!(result(&["v1"], &["v1"]), CheckResult::Failed);
        assert_eq!(result(&["v1alpha1"], &["v1alpha1", "v1alpha0"]), CheckResult::Failed);
        let mut new = definition(&["v1alpha1"], &["v1alpha1"]);
        new["status"]["conditions"] = json!([]);
        assert_eq!(check(Ok(Some(new)), &[]).result, CheckResult::Failed);
        assert_eq!(check(Ok(None), &[]).result, CheckResult::Failed);
    }

    #[test]
    fn user_who_may_not_read_it_sees_what_is_served() {
        let forbidden = || Err(CommandError::Forbidden("you may not".to_owned()));
        assert_eq!(check(forbidden(), &["v1alpha1".to_owned()]).result, CheckResult::Ok);
        assert_eq!(check(forbidden(), &[]).result, CheckResult::Failed);
    }
}
