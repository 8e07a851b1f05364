//! Applies an object that a command made, and waits until it is Ready.

use std::time::Duration;

use datakey::api::{IssuedVersion, Kind};
use serde_json::Value;

use super::{grant_tokens, wait};
use crate::{
    cluster::{Cluster, FetchedKey},
    output::{CommandError, Output, Terminal},
};

/// Applies the manifest as `manager`, by server-side apply, and waits until the object is Ready. A field that another
/// manager owns with another value is a conflict, and is never taken over.
pub async fn run(
    cluster: &Cluster,
    terminal: &Terminal,
    kind: &'static Kind,
    manifest: &Value,
    manager: &str,
    timeout: Duration,
) -> Result<Output, CommandError> {
    let (applied, existed) = apply(cluster, kind, manifest, manager).await?;
    let done = if existed { "configured" } else { "created" };
    let (titled, name, namespace, noun) = (applied.titled(), applied.shown(), applied.namespace(), applied.kind().noun);
    terminal.notes([format!("{name} {done}; waiting until the {noun} is issued and in the Secret")]);
    let fetched = wait::until_ready(cluster, terminal, applied, timeout, |why| {
        CommandError::NotReady(format!(
            "{titled} was {done}, but it is not Ready: {why}; look at kubectl datakey status {name} -n {namespace}"
        ))
    })
    .await?;
    let (version, secret) = (fetched.key.wanted_version(), fetched.key.secret_name());
    Ok(Output::text(format!("{name} {done}: Secret {secret} holds {noun} version {version}\n")))
}

/// How often a write starts again because another client, such as the operator, changed the object after it was read.
const ATTEMPTS: usize = 5;

/// Applies the manifest without waiting. Returns the object, and whether it was there before.
pub async fn apply(
    cluster: &Cluster,
    kind: &'static Kind,
    manifest: &Value,
    manager: &str,
) -> Result<(FetchedKey, bool), CommandError> {
    write(cluster, kind, manifest, manager, false).await
}

/// Has the API server check the manifest in a dry run.
pub async fn dry_run(
    cluster: &Cluster,
    kind: &'static Kind,
    manifest: &Value,
    manager: &str,
) -> Result<String, CommandError> {
    let (checked, existed) = write(cluster, kind, manifest, manager, true).await?;
    let done = if existed { "configured" } else { "created" };
    Ok(format!("{} would be {done} (server dry run)", checked.shown()))
}

/// Refuses to change what an existing object has fixed, and to remove what it would lose. Server-side apply removes what the
/// same manager applied before and does not name any more, so only a dry run shows what stays.
async fn write(
    cluster: &Cluster,
    kind: &'static Kind,
    manifest: &Value,
    manager: &str,
    dry_run: bool,
) -> Result<(FetchedKey, bool), CommandError> {
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
    for _ in 0..ATTEMPTS {
        let Some(existing) = cluster.find(kind, name).await? else {
            match cluster.apply(kind, manifest, manager, dry_run).await? {
                Some(created) => return refuse_simultaneous(&created).map(|()| (created, false)),
                None => continue,
            }
        };
        refuse_other_settings(&existing, manifest)?;
        let manifest = as_read(manifest, &existing);
        // A message of the API server can repeat what another manager has applied.
        let apply = async |dry_run| {
            let applied = cluster.apply(kind, &manifest, manager, dry_run).await;
            applied.map_err(|error| error.redacted(grant_tokens(&existing)))
        };
        let Some(checked) = apply(true).await? else { continue };
        refuse_losses(&existing, &checked)?;
        if dry_run {
            return Ok((checked, true));
        }
        if let Some(applied) = apply(false).await? {
            return Ok((applied, true));
        }
    }
    Err(CommandError::Failed(format!(
        "{} {name} in namespace {} was changed {ATTEMPTS} times meanwhile, and nothing was done: try again",
        kind.name, cluster.namespace
    )))
}

/// Returns the manifest for the object that was read: the API server refuses it after any change.
fn as_read(manifest: &Value, existing: &FetchedKey) -> Value {
    let mut manifest = manifest.clone();
    for field in ["uid", "resourceVersion"] {
        manifest["metadata"][field] = existing.value["metadata"][field].clone();
    }
    manifest
}

/// Server-side apply cannot demand that the object does not exist. One that changed another client's has a later generation.
fn refuse_simultaneous(created: &FetchedKey) -> Result<(), CommandError> {
    match created.key.metadata().generation {
        None | Some(1) => Ok(()),
        Some(_) => Err(CommandError::Failed(format!(
            "{} in namespace {} was created by another client at the same time, and its spec was changed: compare \
             spec.wrappedKeys and spec.version with what both clients applied",
            created.titled(),
            created.namespace()
        ))),
    }
}

/// Refuses to remove or replace a pin that is not recorded, because its version could be issued again as another data key. Refuses
/// to make an earlier version current. `applied` is the answer to a dry run.
fn refuse_losses(existing: &FetchedKey, applied: &FetchedKey) -> Result<(), CommandError> {
    let is_kept = |pin: &IssuedVersion| {
        applied.key.pinned_versions().iter().any(|other| {
            pin.version == other.version
                && pin.ciphertext_blob == other.ciphertext_blob
                && pin.request == other.request
                && pin.as_written == other.as_written
                && pin.key_id == other.key_id
        })
    };
    let recorded = |pin: &IssuedVersion| existing.key.recorded_version(pin.version).is_some();
    let lost = existing.key.pinned_versions().iter().find(|pin| !recorded(pin) && !is_kept(pin));
    let (from, to) = (existing.key.wanted_version(), applied.key.wanted_version());
    let why = match lost {
        Some(IssuedVersion { version, .. }) => format!(
            "its pin of version {version}, which is not recorded yet, would be removed or replaced; nothing was changed. Apply \
             all versions together (import --from-csv), or wait until it is Ready"
        ),
        None if to < from => format!(
            "its spec.version would go back from {from} to {to}; nothing was changed. Apply all versions together (import \
             --from-csv), or name a higher version"
        ),
        None => return Ok(()),
    };
    Err(CommandError::Failed(format!("{} exists in namespace {}, and {why}", existing.titled(), existing.namespace())))
}

/// The API server refuses the same change. This message names both values.
fn refuse_other_settings(existing: &FetchedKey, manifest: &Value) -> Result<(), CommandError> {
    let titled = existing.titled();
    let wanted = FetchedKey::decode(existing.kind(), &manifest.to_string())?.key;
    if existing.key.metadata().deletion_timestamp.is_some() {
        return Err(CommandError::NotReady(format!("{titled} is being deleted: wait, and try again")));
    }
    let other = wanted.pinned_versions().iter().find(|pin| {
        let issued = existing.key.recorded_version(pin.version);
        issued.is_some_and(|issued| issued.ciphertext_blob != pin.ciphertext_blob)
    });
    if let Some(pin) = other {
        return Err(CommandError::Failed(format!(
            "{titled} exists in namespace {}, and its version {} is another {}, which is fixed; nothing was changed. Choose \
             another name, or another version",
            existing.namespace(),
            pin.version,
            existing.kind().noun
        )));
    }
    let version = wanted.object().spec.version.unwrap_or_else(|| existing.key.wanted_version());
    let Some(issued) = existing.key.recorded_version(version) else { return Ok(()) };
    let request = wanted.object().spec.request;
    let differences = request.differing_values("the command", issued.written(), "the cluster");
    if differences.is_empty() {
        return Ok(());
    }
    Err(CommandError::Failed(format!(
        "{titled} exists in namespace {}, and its version {version} is issued with other settings, which are fixed: {}; nothing \
         was changed. Choose another name, or raise spec.version for a {} with other settings",
        existing.namespace(),
        differences.join("; "),
        existing.kind().noun
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{edited, issued, ready, recorded};

    fn manifest() -> Value {
        json!({
            "apiVersion": "datakey.dev/v1alpha1",
            "kind": "DataKey",
            "metadata": { "name": "orders" },
            "spec": { "keyId": "alias/orders", "keySpec": "AES_256", "encryptionContext": { "purpose": "orders" } },
        })
    }

    #[test]
    fn other_settings_of_an_issued_version_are_refused() {
        assert_eq!(refuse_other_settings(&ready(&[1]), &manifest()), Ok(()));
        let mut other = manifest();
        other["spec"]["keySpec"] = json!("AES_128");
        let error = refuse_other_settings(&ready(&[1]), &other).unwrap_err().to_string();
        assert!(error.contains("keySpec AES_128 in the command, AES_256 in the cluster"), "{error}");
        assert!(error.contains("nothing was changed"), "{error}");
        assert_eq!(refuse_other_settings(&recorded(&[]), &other), Ok(()), "nothing is issued yet");
        // The version of the cluster counts where the command names none.
        let raised = edited(ready(&[1]), |value| value["spec"]["version"] = json!(2));
        assert_eq!(refuse_other_settings(&raised, &other), Ok(()));
    }

    #[test]
    fn issued_version_is_compared_as_it_was_written() {
        let by_class = edited(ready(&[1]), |value| {
            value["status"]["versions"][0]["asWritten"] = json!({ "keySpec": "AES_256" });
        });
        let mut bare = manifest();
        bare["spec"] = json!({ "className": "shop", "keySpec": "AES_256" });
        assert_eq!(refuse_other_settings(&by_class, &bare), Ok(()));
        let error = refuse_other_settings(&by_class, &manifest()).unwrap_err().to_string();
        assert!(error.contains("keyId alias/orders in the command"), "{error}");
        assert!(refuse_other_settings(&ready(&[1]), &bare).is_err());
    }

    #[test]
    fn pin_of_another_data_key_is_refused() {
        let mut pinned = manifest();
        pinned["spec"]["wrappedKeys"] = json!([issued(1)]);
        assert_eq!(refuse_other_settings(&ready(&[1]), &pinned), Ok(()));
        pinned["spec"]["wrappedKeys"][0]["ciphertextBlob"] = json!("b3RoZXI=");
        let error = refuse_other_settings(&ready(&[1]), &pinned).unwrap_err().to_string();
        assert!(error.contains("its version 1 is another data key"), "{error}");
        pinned["spec"]["wrappedKeys"][0]["version"] = json!(2);
        assert_eq!(refuse_other_settings(&ready(&[1]), &pinned), Ok(()), "version 2 is free");
    }

    /// A DataKey whose spec pins these versions and makes this one current.
    fn pinned(existing: FetchedKey, versions: &[i32], version: Option<i32>) -> FetchedKey {
        edited(existing, |value| {
            value["spec"]["wrappedKeys"] = versions.iter().map(|version| json!(issued(*version))).collect();
            value["spec"]["version"] = json!(version);
        })
    }

    #[test]
    fn pin_that_is_not_recorded_is_not_lost() {
        let existing = pinned(recorded(&[]), &[1], None);
        let after = |versions: &[i32]| pinned(recorded(&[]), versions, Some(2));
        assert_eq!(refuse_losses(&existing, &after(&[1, 2])), Ok(()));
        let error = refuse_losses(&existing, &after(&[2])).unwrap_err().to_string();
        assert!(
            error.contains("its pin of version 1, which is not recorded yet") && error.contains("nothing was changed")
        );
        for (field, other) in [("ciphertextBlob", "b3RoZXI="), ("keyId", "other"), ("issuedAt", "2020-01-01T00:00:00Z")]
        {
            let replaced = edited(after(&[1, 2]), |value| value["spec"]["wrappedKeys"][0][field] = json!(other));
            assert_eq!(refuse_losses(&existing, &replaced).is_ok(), field == "issuedAt", "{field}");
        }
        let other = json!({ "stage": "test" });
        let replaced = edited(after(&[1, 2]), |value| {
            value["spec"]["wrappedKeys"][0]["request"]["encryptionContext"] = other;
        });
        assert!(refuse_losses(&existing, &replaced).is_err());
        let replaced = edited(after(&[1, 2]), |value| {
            value["spec"]["wrappedKeys"][0]["asWritten"] = json!({ "keySpec": "AES_256" });
        });
        assert!(refuse_losses(&existing, &replaced).is_err());
        // What is recorded stays without its pin.
        let existing = pinned(recorded(&[1]), &[1], None);
        assert_eq!(refuse_losses(&existing, &pinned(recorded(&[1]), &[2], Some(2))), Ok(()));
    }

    #[test]
    fn version_never_goes_back() {
        let existing = pinned(recorded(&[1, 2]), &[2], Some(2));
        let error = refuse_losses(&existing, &pinned(recorded(&[1, 2]), &[1], None)).unwrap_err().to_string();
        assert!(error.contains("its spec.version would go back from 2 to 1; nothing was changed"), "{error}");
        assert_eq!(refuse_losses(&existing, &pinned(recorded(&[1, 2]), &[1], Some(2))), Ok(()));
    }

    #[test]
    fn manifest_is_for_the_object_that_was_read() {
        let existing = edited(ready(&[1]), |value| value["metadata"]["resourceVersion"] = json!("42"));
        let metadata = as_read(&manifest(), &existing)["metadata"].take();
        let uid = existing.key.metadata().uid.clone().unwrap();
        assert_eq!(metadata, json!({ "name": "orders", "uid": uid, "resourceVersion": "42" }));
        let of_generation = |number: i64| edited(ready(&[1]), |value| value["metadata"]["generation"] = json!(number));
        assert_eq!(refuse_simultaneous(&of_generation(1)), Ok(()));
        let error = refuse_simultaneous(&of_generation(2)).unwrap_err().to_string();
        assert!(error.contains("by another client at the same time"), "{error}");
    }

    #[test]
    fn data_key_that_is_being_deleted_is_not_applied() {
        let deleted =
            edited(ready(&[1]), |value| value["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z"));
        assert!(matches!(refuse_other_settings(&deleted, &manifest()), Err(CommandError::NotReady(_))));
    }
}
