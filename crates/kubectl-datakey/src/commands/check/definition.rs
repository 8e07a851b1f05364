//! The definition of a kind, and the versions that it serves and that are stored.

use datakey::api::{DataKey, DataKeyPair, KeyKind as _};
use serde_json::Value;

use super::Finding;
use crate::{
    cluster::{CLASSES, definition_name},
    output::CommandError,
};

const INSTALL: &str = "install the definition of this release: datakey-operator crd | kubectl apply --server-side -f -";

/// A definition that is checked.
#[derive(Clone, Copy, Debug)]
pub struct Defined {
    /// What the finding is called.
    pub title: &'static str,
    /// The name of the resource.
    pub plural: &'static str,
    /// What to do if it is missing.
    install: &'static str,
}

/// The definition of DataKeys.
pub const OF_KEYS: Defined = Defined { title: "definition", plural: DataKey::KIND.plural, install: INSTALL };

/// The definition of DataKeyPairs.
pub const OF_PAIRS: Defined = Defined {
    title: "definition of pairs",
    plural: DataKeyPair::KIND.plural,
    install: "install the definition of this release: datakey-operator crd | kubectl apply --server-side -f -; or run the operator with \
              --key-pairs=false",
};

/// The definition of classes.
pub const OF_CLASSES: Defined = Defined { title: "definition of classes", plural: CLASSES, install: INSTALL };

/// The version of the API that all kinds have.
fn wanted() -> &'static str {
    DataKey::KIND.api_version.rsplit('/').next().unwrap_or_default()
}

/// Checks the definition, or else whether the resource is served.
pub fn check(
    defined: Defined,
    found: Result<Option<Value>, CommandError>,
    is_served: &Result<bool, CommandError>,
) -> Finding {
    let (wanted, Defined { title, plural, install }) = (wanted(), defined);
    match found {
        Ok(None) => Finding::failed(title, format!("{} is not installed", definition_name(plural)), install),
        Ok(Some(definition)) => check_definition(defined, &definition),
        Err(CommandError::Forbidden(_)) if *is_served == Ok(true) => Finding::ok(
            title,
            format!("{wanted} is served; you may not read the definition, so what is stored was not looked at"),
        ),
        Err(_) if *is_served == Ok(false) => {
            let detail = format!("the API server does not serve {plural} of {}", DataKey::KIND.api_version);
            Finding::failed(title, detail, install)
        }
        Err(error) => Finding::unknown(title, error.to_string(), "run the command again"),
    }
}

fn check_definition(Defined { title, plural, install }: Defined, definition: &Value) -> Finding {
    let (wanted, named) = (wanted(), definition_name(plural));
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
        let result =
            |served: &[&str], stored: &[&str]| check(OF_KEYS, Ok(Some(definition(served, stored))), &Ok(true)).result;
        assert_eq!(result(&["v1alpha1"], &["v1alpha1"]), CheckResult::Ok);
        assert_eq!(result(&["v1alpha1", "v1"], &["v1alpha1", "v1"]), CheckResult::Ok);
        assert_eq!(result(&["v1"], &["v1"]), CheckResult::Failed);
        assert_eq!(result(&["v1alpha1"], &["v1alpha1", "v1alpha0"]), CheckResult::Failed);
        let mut new = definition(&["v1alpha1"], &["v1alpha1"]);
        new["status"]["conditions"] = json!([]);
        assert_eq!(check(OF_KEYS, Ok(Some(new)), &Ok(true)).result, CheckResult::Failed);
        assert_eq!(check(OF_KEYS, Ok(None), &Ok(false)).result, CheckResult::Failed);
        let pairs = check(OF_PAIRS, Ok(None), &Ok(false));
        assert_eq!(
            (pairs.check.as_str(), pairs.detail.as_str()),
            ("definition of pairs", "datakeypairs.datakey.dev is not installed")
        );
        assert!(pairs.next.unwrap().contains("--key-pairs=false"));
    }

    #[test]
    fn user_who_may_not_read_it_sees_what_is_served() {
        let forbidden = || Err(CommandError::Forbidden("you may not".to_owned()));
        for defined in [OF_KEYS, OF_PAIRS, OF_CLASSES] {
            assert_eq!(check(defined, forbidden(), &Ok(true)).result, CheckResult::Ok);
            assert_eq!(check(defined, forbidden(), &Ok(false)).result, CheckResult::Failed);
            let unanswered = || CommandError::Unanswered("no answer".to_owned());
            assert_eq!(check(defined, forbidden(), &Err(unanswered())).result, CheckResult::NotChecked);
            assert_eq!(check(defined, Err(unanswered()), &Ok(true)).result, CheckResult::NotChecked);
        }
    }
}
