//! The decisions of `keep`. Pure: the next step, the manifest, and whether the new object has all that the old one
//! had.

use datakey::api::{DeletionPolicy, Kind};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::{
    cluster::FetchedKey,
    commands::{Progress, export::pinned_manifest},
    output::CommandError,
    reference::is_owner,
    view::{
        secret_check::{SecretCheck, SecretVerdict},
        summary::KeySummary,
    },
};

use super::messages;

/// The annotation with the manifest of the last `kubectl apply`. The new object must not have it: the next `kubectl
/// apply` would remove each field that the annotation has and its own manifest lacks.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The next step of the command.
#[derive(Debug, PartialEq)]
pub enum KeepStep {
    /// The object is under `Retain`, and no earlier run left a file.
    Nothing,
    /// Delete the object without its Secret, and create it from this manifest.
    Replace(Value),
    /// The object is deleted or being deleted: create it from this manifest.
    Create(Value),
    /// The object was created: verify that it has the pins of this manifest.
    Verify(Value),
}

/// Decides on the next step by the object in the cluster and the manifest that an earlier run saved.
pub fn step(
    kind: &Kind,
    name: &str,
    namespace: &str,
    fetched: Option<&FetchedKey>,
    saved: Option<Value>,
) -> Result<KeepStep, CommandError> {
    let describes = |manifest: &Value| {
        manifest["kind"] == kind.name
            && manifest["metadata"]["name"] == name
            && manifest["metadata"]["namespace"] == namespace
            && manifest["spec"]["deletionPolicy"] == "Retain"
            && manifest["spec"]["wrappedKeys"].as_array().is_some_and(|pins| !pins.is_empty())
    };
    if saved.as_ref().is_some_and(|saved| !describes(saved)) {
        return Err(another_file(kind, name));
    }
    let Some(fetched) = fetched else {
        return saved.map(KeepStep::Create).ok_or_else(|| {
            CommandError::Failed(format!(
                "there is no {} {name} in namespace {namespace}; look at kubectl datakey list -A",
                kind.name
            ))
        });
    };
    if is_retained(fetched) {
        return Ok(saved.map_or(KeepStep::Nothing, KeepStep::Verify));
    }
    let (titled, command) = (fetched.titled(), fetched.shown());
    let version = fetched.key.wanted_version();
    if fetched.key.recorded_version(version).is_none() {
        return Err(CommandError::NotReady(format!(
            "{titled} has no {} of version {version} yet, and nothing was done: until a version is issued, set \
             deletionPolicy to Retain; otherwise see what is missing by kubectl datakey status {command} \
             -n {namespace}",
            kind.noun
        )));
    }
    let manifest = retained_manifest(fetched)?;
    let is_saved = match saved {
        Some(saved) if saved != manifest => return Err(another_file(kind, name)),
        saved => saved.is_some(),
    };
    match (fetched.key.metadata().deletion_timestamp.is_some(), is_saved) {
        (false, _) => Ok(KeepStep::Replace(manifest)),
        (true, true) => Ok(KeepStep::Create(manifest)),
        (true, false) => Err(CommandError::NotReady(format!(
            "{titled} is being deleted, and nothing was done: save it by kubectl datakey export {command} -n {namespace} \
             --pin, and create it under deletionPolicy Retain once it is gone"
        ))),
    }
}

fn another_file(kind: &Kind, name: &str) -> CommandError {
    let Kind { name: title, noun, .. } = kind;
    CommandError::Failed(format!(
        "the file holds something else than {title} {name} as it is now, and nothing was done: it may be the only copy of its \
         {noun}s, so keep it, and name another file by --to"
    ))
}

/// Refuses a Secret that does not hold what was issued: until the object is created again, the file would be their only
/// copy. The operator restores a missing or changed Secret before that.
pub fn require_intact(check: &SecretCheck, fetched: &FetchedKey) -> Result<(), CommandError> {
    if check.state == SecretVerdict::Intact {
        return Ok(());
    }
    Err(CommandError::NotReady(messages::secret_not_intact(check, fetched)))
}

/// Returns the manifest of the object under `Retain`, with every recorded version as a pin.
fn retained_manifest(fetched: &FetchedKey) -> Result<Value, CommandError> {
    let mut manifest = pinned_manifest(fetched)?;
    manifest["spec"]["deletionPolicy"] = json!("Retain");
    let mut annotations = fetched.value["metadata"]["annotations"].clone();
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.remove(LAST_APPLIED);
        if !annotations.is_empty() {
            manifest["metadata"]["annotations"] = json!(annotations);
        }
    }
    Ok(manifest)
}

/// Returns whether the object is under `Retain`.
pub fn is_retained(fetched: &FetchedKey) -> bool {
    fetched.key.object().spec.deletion_policy == DeletionPolicy::Retain
}

/// Returns whether this is another object than the one that was deleted, and is not being deleted.
pub fn is_created_again(found: &FetchedKey, old: Option<&FetchedKey>) -> bool {
    let (found, old) = (found.key.metadata(), old.and_then(|old| old.key.metadata().uid.as_ref()));
    found.deletion_timestamp.is_none() && found.uid.as_ref() != old
}

/// Returns whether a Secret has an owner reference to the object of this kind and name.
pub fn is_owned(secret: &Secret, kind: &Kind, name: &str) -> bool {
    let mut owners = secret.metadata.owner_references.iter().flatten();
    owners.any(|owner| is_owner(kind, &owner.api_version, &owner.kind) && owner.name == name)
}

/// Returns how far the new object is from being Ready with all that the manifest pins.
pub fn progress(fetched: &FetchedKey, manifest: &Value) -> Progress {
    let summary = KeySummary::of(&fetched.key);
    if !is_retained(fetched) {
        return Progress::Failed(messages::CREATED_AGAIN.into());
    }
    let empty = Vec::new();
    let list = |value: &Value| value.as_array().unwrap_or(&empty).clone();
    let recorded = list(&fetched.value["status"]["versions"]);
    for pin in list(&manifest["spec"]["wrappedKeys"]) {
        let Some(found) = recorded.iter().find(|found| found["version"] == pin["version"]) else {
            let why =
                format!("version {} is not recorded yet ({}: {})", pin["version"], summary.reason, summary.message);
            return if summary.stalled { Progress::Failed(why) } else { Progress::Pending(why) };
        };
        // A DataKey has no public key on both sides. The class of a pin is that which let it in.
        if ["ciphertextBlob", "publicKey", "keyId", "request", "asWritten"]
            .iter()
            .any(|&field| found[field] != pin[field])
        {
            return Progress::Failed(format!(
                "it records another {} as version {} than the file",
                fetched.kind().noun,
                pin["version"]
            ));
        }
    }
    if summary.is_ready() {
        return Progress::Done;
    }
    let why = format!("{}: {}", summary.reason, summary.message);
    if summary.stalled || summary.deleting { Progress::Failed(why) } else { Progress::Pending(why) }
}

#[cfg(test)]
mod tests {
    use datakey::api::{DataKey, DataKeyPair, KeyKind as _};

    use super::*;
    use crate::{
        fixtures::{edited, issued, ready, recorded},
        output::yaml,
    };

    /// A `DataKey` under `Delete` with these versions.
    fn delete(versions: &[i32]) -> FetchedKey {
        edited(ready(versions), |value| value["spec"]["deletionPolicy"] = json!("Delete"))
    }

    fn next(fetched: Option<&FetchedKey>, saved: Option<Value>) -> Result<KeepStep, CommandError> {
        step(fetched.map_or(DataKey::KIND, FetchedKey::kind), "orders", "shop", fetched, saved)
    }

    #[test]
    fn manifest_is_the_data_key_under_retain_with_its_pins() {
        let fetched = edited(delete(&[1, 2]), |value| {
            value["metadata"]["labels"] = json!({ "team": "shop" });
            value["metadata"]["annotations"] = json!({ LAST_APPLIED: "{}", "argocd.argoproj.io/tracking-id": "x" });
            value["metadata"]["finalizers"] = json!(["orphan"]);
            value["spec"]["more"] = json!("x");
        });
        let manifest = retained_manifest(&fetched).unwrap();
        assert_eq!(
            manifest["metadata"],
            json!({
                "name": "orders",
                "namespace": "shop",
                "labels": { "team": "shop" },
                "annotations": { "argocd.argoproj.io/tracking-id": "x" },
            })
        );
        let mut spec = fetched.value["spec"].clone();
        spec["deletionPolicy"] = json!("Retain");
        spec["wrappedKeys"] = json!([issued(1), issued(2)]);
        assert_eq!(manifest["spec"], spec);
        let read: Value = serde_saphyr::from_str(&yaml(&manifest).unwrap()).unwrap();
        assert_eq!(read, manifest, "what is saved is what is created");
    }

    #[test]
    fn interrupted_run_continues_where_it_stopped() {
        let fetched = delete(&[1]);
        let manifest = retained_manifest(&fetched).unwrap();
        let deleting = edited(delete(&[1]), |value| {
            value["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z");
            value["metadata"]["finalizers"] = json!(["orphan"]);
        });
        let saved = || Some(manifest.clone());
        assert_eq!(next(Some(&fetched), None), Ok(KeepStep::Replace(manifest.clone())));
        assert_eq!(
            next(Some(&fetched), saved()),
            Ok(KeepStep::Replace(manifest.clone())),
            "the DataKey is not deleted yet"
        );
        assert_eq!(next(Some(&deleting), saved()), Ok(KeepStep::Create(manifest.clone())));
        assert_eq!(next(None, saved()), Ok(KeepStep::Create(manifest.clone())));
        assert_eq!(next(Some(&ready(&[1])), saved()), Ok(KeepStep::Verify(manifest.clone())));
        assert_eq!(next(Some(&ready(&[1])), None), Ok(KeepStep::Nothing));
    }

    #[test]
    fn nothing_is_done_if_a_data_key_could_be_lost() {
        assert!(matches!(next(None, None), Err(CommandError::Failed(why)) if why.contains("there is no DataKey")));
        let unissued = edited(recorded(&[]), |value| value["spec"]["deletionPolicy"] = json!("Delete"));
        assert!(matches!(next(Some(&unissued), None), Err(CommandError::NotReady(_))));
        let waiting = edited(delete(&[1]), |value| value["spec"]["version"] = json!(2));
        assert!(matches!(next(Some(&waiting), None), Err(CommandError::NotReady(why)) if why.contains("version 2")));
        let deleting =
            edited(delete(&[1]), |value| value["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z"));
        assert!(matches!(next(Some(&deleting), None), Err(CommandError::NotReady(why)) if why.contains("export")));
    }

    #[test]
    fn only_a_secret_with_the_data_keys_is_kept() {
        let fetched = delete(&[1]);
        let intact = crate::fixtures::secret(&fetched.key, 1);
        let mut changed = intact.clone();
        changed.data.as_mut().unwrap().remove("keyId");
        let required = |secret| require_intact(&SecretCheck::from_secret(&fetched.key, secret), &fetched);
        assert_eq!(required(Some(&intact)), Ok(()));
        for secret in [None, Some(&changed)] {
            assert!(matches!(required(secret), Err(CommandError::NotReady(why)) if why.contains("the operator")));
        }
    }

    #[test]
    fn file_with_another_manifest_is_refused() {
        let fetched = delete(&[1, 2]);
        let manifest = retained_manifest(&fetched).unwrap();
        let fewer = retained_manifest(&delete(&[1])).unwrap();
        let why = next(Some(&fetched), Some(fewer)).unwrap_err().to_string();
        assert!(why.contains("may be the only copy") && !why.contains("remove"), "a version was issued since: {why}");
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
    fn done_when_every_pin_is_recorded_and_ready() {
        let manifest = retained_manifest(&delete(&[1, 2])).unwrap();
        assert_eq!(progress(&ready(&[1, 2]), &manifest), Progress::Done);
        assert!(matches!(progress(&ready(&[1]), &manifest), Progress::Pending(why) if why.contains("version 2")));
        assert!(matches!(progress(&delete(&[1, 2]), &manifest), Progress::Failed(why) if why.contains("Delete")));
        let another = edited(ready(&[1, 2]), |value| value["status"]["versions"][0]["ciphertextBlob"] = json!("eA=="));
        assert!(matches!(progress(&another, &manifest), Progress::Failed(why) if why.contains("another data key")));
        let pair = crate::fixtures::pair(&[1]);
        let mut pinned = pinned_manifest(&pair).unwrap();
        assert_eq!(progress(&pair, &pinned), Progress::Done);
        pinned["spec"]["wrappedKeys"][0]["publicKey"] = json!("AQID");
        assert!(matches!(progress(&pair, &pinned), Progress::Failed(why) if why.contains("another key pair")));
        let written = |class: Value| {
            edited(ready(&[1, 2]), |value| {
                value["status"]["versions"][0]["asWritten"] = json!({ "keySpec": "AES_256" });
                value["status"]["versions"][0]["class"] = class;
            })
        };
        let class = |generation: i64| json!({ "name": "shop", "uid": "u", "generation": generation });
        let of_class = pinned_manifest(&written(class(1))).unwrap();
        assert_eq!(of_class["spec"]["wrappedKeys"][0]["class"], class(1));
        assert_eq!(progress(&written(class(2)), &of_class), Progress::Done, "the class was changed since");
        assert!(
            matches!(progress(&ready(&[1, 2]), &of_class), Progress::Failed(why) if why.contains("another data key"))
        );
        let unseen = edited(ready(&[1, 2]), |value| value["metadata"]["generation"] = json!(9));
        assert!(matches!(progress(&unseen, &manifest), Progress::Pending(_)));
    }

    #[test]
    fn data_key_of_another_uid_was_created_again() {
        let (old, another) = (delete(&[1]), edited(delete(&[1]), |value| value["metadata"]["uid"] = json!("another")));
        assert!(is_created_again(&another, Some(&old)) && is_created_again(&another, None));
        assert!(!is_created_again(&old, Some(&old)), "the deletion is not visible yet");
        let deleted = edited(another, |value| value["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z"));
        assert!(!is_created_again(&deleted, Some(&old)));
    }

    #[test]
    fn only_an_owner_reference_to_the_data_key_counts() {
        let mut secret = crate::fixtures::secret(&delete(&[1]).key, 1);
        assert!(is_owned(&secret, DataKey::KIND, "orders"));
        assert!(!is_owned(&secret, DataKey::KIND, "payments"));
        assert!(!is_owned(&secret, DataKeyPair::KIND, "orders"));
        secret.metadata.owner_references.as_mut().unwrap()[0].kind = "ConfigMap".into();
        assert!(!is_owned(&secret, DataKey::KIND, "orders"));
    }
}
