//! What `keep` decides: what is left to do, what the manifest is, and when the new `DataKey` is as the old one was. Pure.

use datakey::api::{DataKey, DeletionPolicy, GROUP};
use k8s_openapi::api::core::v1::Secret;
use kube::Resource;
use serde_json::{Value, json};

use crate::{answer::Failure, cluster::Object, export::pinned, standing::Standing};

/// What `kubectl apply` wrote last. It would have the next `kubectl apply` remove what that manifest does not have.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is left to do.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// It is kept, and no file says that this command is at work.
    Nothing,
    /// Delete it without its Secret, and create this.
    Replace(Value),
    /// It is being deleted, or gone: create this.
    Create(Value),
    /// It was created again: see that it holds this.
    Verify(Value),
}

/// Decides by what the cluster has and what the file has.
pub fn step(name: &str, namespace: &str, object: Option<&Object>, saved: Option<Value>) -> Result<Step, Failure> {
    let describes = |manifest: &Value| {
        manifest["kind"] == "DataKey"
            && manifest["metadata"]["name"] == name
            && manifest["metadata"]["namespace"] == namespace
            && manifest["spec"]["deletionPolicy"] == "Retain"
            && manifest["spec"]["wrappedKeys"].as_array().is_some_and(|pins| !pins.is_empty())
    };
    if saved.as_ref().is_some_and(|saved| !describes(saved)) {
        return Err(another_file(name));
    }
    let Some(object) = object else {
        return saved.map(Step::Create).ok_or_else(|| {
            Failure::Work(format!(
                "DataKey {name} in namespace {namespace}: there is none; look at kubectl datakey list -A"
            ))
        });
    };
    if object.key.spec.deletion_policy() == DeletionPolicy::Retain {
        return Ok(saved.map_or(Step::Nothing, Step::Verify));
    }
    let version = object.key.version();
    if object.key.issued(version).is_none() {
        return Err(Failure::NotReady(format!(
            "DataKey {name} has no data key of version {version} yet, and nothing was done: until a version is issued, set \
             deletionPolicy to Retain; otherwise see what is missing by kubectl datakey status {name}"
        )));
    }
    let manifest = retained(object)?;
    let is_saved = match saved {
        Some(saved) if saved != manifest => return Err(another_file(name)),
        saved => saved.is_some(),
    };
    match (object.key.metadata.deletion_timestamp.is_some(), is_saved) {
        (false, _) => Ok(Step::Replace(manifest)),
        (true, true) => Ok(Step::Create(manifest)),
        (true, false) => Err(Failure::NotReady(format!(
            "DataKey {name} is being deleted, and nothing was done: save it by kubectl datakey export {name} --pin, and create it \
             under deletionPolicy Retain once it is gone"
        ))),
    }
}

fn another_file(name: &str) -> Failure {
    Failure::Work(format!(
        "the file holds something else than DataKey {name} as it is now, and nothing was done: remove it, or name another \
         file by --to"
    ))
}

/// The `DataKey` under `Retain`, with everything that is recorded as pins.
fn retained(object: &Object) -> Result<Value, Failure> {
    let mut manifest = pinned(object)?;
    manifest["spec"]["deletionPolicy"] = json!("Retain");
    let mut annotations = object.value["metadata"]["annotations"].clone();
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.remove(LAST_APPLIED);
        if !annotations.is_empty() {
            manifest["metadata"]["annotations"] = json!(annotations);
        }
    }
    Ok(manifest)
}

/// Whether the garbage collector still counts the `DataKey` of this name among the owners.
pub fn is_owned(secret: &Secret, name: &str) -> bool {
    secret.metadata.owner_references.iter().flatten().any(|owner| {
        owner.kind == DataKey::kind(&()) && owner.api_version.split('/').next() == Some(GROUP) && owner.name == name
    })
}

/// Whether the new `DataKey` has all that was pinned, and is Ready with it.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Done,
    GoOn(String),
    /// A person must act.
    GiveUp(String),
}

pub fn progress(object: &Object, manifest: &Value) -> Progress {
    let standing = Standing::of(&object.key);
    if object.key.spec.deletion_policy() != DeletionPolicy::Retain {
        return Progress::GiveUp(
            "another client created it again under deletionPolicy Delete: set Retain where it comes from".into(),
        );
    }
    let empty = Vec::new();
    let list = |value: &Value| value.as_array().unwrap_or(&empty).clone();
    let recorded = list(&object.value["status"]["versions"]);
    for pin in list(&manifest["spec"]["wrappedKeys"]) {
        let Some(found) = recorded.iter().find(|found| found["version"] == pin["version"]) else {
            let why =
                format!("version {} is not recorded yet ({}: {})", pin["version"], standing.reason, standing.message);
            return if standing.stalled { Progress::GiveUp(why) } else { Progress::GoOn(why) };
        };
        if ["ciphertextBlob", "keyId", "request"].iter().any(|&field| found[field] != pin[field]) {
            return Progress::GiveUp(format!(
                "it records another data key as version {} than the file",
                pin["version"]
            ));
        }
    }
    if standing.is_ready() {
        return Progress::Done;
    }
    let why = format!("{}: {}", standing.reason, standing.message);
    if standing.stalled || standing.deleting { Progress::GiveUp(why) } else { Progress::GoOn(why) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::yaml;
    use crate::fixtures::{edited, issued, ready, recorded};

    /// A `DataKey` under `Delete` with these versions.
    fn delete(versions: &[i32]) -> Object {
        edited(ready(versions), |value| value["spec"]["deletionPolicy"] = json!("Delete"))
    }

    fn next(object: Option<&Object>, saved: Option<Value>) -> Result<Step, Failure> {
        step("orders", "shop", object, saved)
    }

    #[test]
    fn the_manifest_is_the_data_key_under_retain_with_all_its_pins() {
        let object = edited(delete(&[1, 2]), |value| {
            value["metadata"]["labels"] = json!({ "team": "shop" });
            value["metadata"]["annotations"] = json!({ LAST_APPLIED: "{}", "argocd.argoproj.io/tracking-id": "x" });
            value["metadata"]["finalizers"] = json!(["orphan"]);
            value["spec"]["more"] = json!("x");
        });
        let manifest = retained(&object).unwrap();
        assert_eq!(
            manifest["metadata"],
            json!({
                "name": "orders",
                "namespace": "shop",
                "labels": { "team": "shop" },
                "annotations": { "argocd.argoproj.io/tracking-id": "x" },
            })
        );
        let mut spec = object.value["spec"].clone();
        spec["deletionPolicy"] = json!("Retain");
        spec["wrappedKeys"] = json!([issued(1), issued(2)]);
        assert_eq!(manifest["spec"], spec);
        let read: Value = serde_saphyr::from_str(&yaml(&manifest).unwrap()).unwrap();
        assert_eq!(read, manifest, "what is saved is what is created");
    }

    #[test]
    fn an_interrupted_run_goes_on_where_it_was() {
        let object = delete(&[1]);
        let manifest = retained(&object).unwrap();
        let deleting = edited(delete(&[1]), |value| {
            value["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z");
            value["metadata"]["finalizers"] = json!(["orphan"]);
        });
        let saved = || Some(manifest.clone());
        assert_eq!(next(Some(&object), None), Ok(Step::Replace(manifest.clone())));
        assert_eq!(next(Some(&object), saved()), Ok(Step::Replace(manifest.clone())), "nothing was deleted");
        assert_eq!(next(Some(&deleting), saved()), Ok(Step::Create(manifest.clone())));
        assert_eq!(next(None, saved()), Ok(Step::Create(manifest.clone())));
        assert_eq!(next(Some(&ready(&[1])), saved()), Ok(Step::Verify(manifest.clone())));
        assert_eq!(next(Some(&ready(&[1])), None), Ok(Step::Nothing));
    }

    #[test]
    fn nothing_is_done_where_something_could_be_lost() {
        assert!(matches!(next(None, None), Err(Failure::Work(why)) if why.contains("there is none")));
        let unissued = edited(recorded(&[]), |value| value["spec"]["deletionPolicy"] = json!("Delete"));
        assert!(matches!(next(Some(&unissued), None), Err(Failure::NotReady(_))));
        let waiting = edited(delete(&[1]), |value| value["spec"]["version"] = json!(2));
        assert!(matches!(next(Some(&waiting), None), Err(Failure::NotReady(why)) if why.contains("version 2")));
        let deleting =
            edited(delete(&[1]), |value| value["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z"));
        assert!(matches!(next(Some(&deleting), None), Err(Failure::NotReady(why)) if why.contains("export")));
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let object = delete(&[1, 2]);
        let manifest = retained(&object).unwrap();
        let fewer = retained(&delete(&[1])).unwrap();
        assert!(next(Some(&object), Some(fewer)).is_err(), "a version was issued since");
        for (pointer, value) in [
            ("/kind", json!("Secret")),
            ("/metadata/name", json!("other")),
            ("/metadata/namespace", json!("other")),
            ("/spec/deletionPolicy", json!("Delete")),
            ("/spec/wrappedKeys", json!([])),
        ] {
            let mut other = manifest.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            assert!(next(None, Some(other)).is_err(), "{pointer}");
        }
    }

    #[test]
    fn it_is_done_when_every_pin_is_recorded_and_ready() {
        let manifest = retained(&delete(&[1, 2])).unwrap();
        assert_eq!(progress(&ready(&[1, 2]), &manifest), Progress::Done);
        assert!(matches!(progress(&ready(&[1]), &manifest), Progress::GoOn(why) if why.contains("version 2")));
        assert!(matches!(progress(&delete(&[1, 2]), &manifest), Progress::GiveUp(why) if why.contains("Delete")));
        let another = edited(ready(&[1, 2]), |value| value["status"]["versions"][0]["ciphertextBlob"] = json!("eA=="));
        assert!(matches!(progress(&another, &manifest), Progress::GiveUp(why) if why.contains("another data key")));
        let unseen = edited(ready(&[1, 2]), |value| value["metadata"]["generation"] = json!(9));
        assert!(matches!(progress(&unseen, &manifest), Progress::GoOn(_)));
    }

    #[test]
    fn only_a_reference_to_the_data_key_counts() {
        let mut secret = crate::fixtures::secret(&delete(&[1]).key, 1);
        assert!(is_owned(&secret, "orders"));
        assert!(!is_owned(&secret, "payments"));
        secret.metadata.owner_references.as_mut().unwrap()[0].kind = "ConfigMap".into();
        assert!(!is_owned(&secret, "orders"));
    }
}
