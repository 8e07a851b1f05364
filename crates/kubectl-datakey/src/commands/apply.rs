//! Applies a `DataKey` that a command made, and waits until it is Ready.

use std::time::Duration;

use datakey::api::DataKey;
use serde_json::Value;

use super::wait;
use crate::{
    cluster::{Cluster, FetchedKey},
    output::{CommandError, Output, Terminal},
};

/// Applies the manifest as `manager`, by server-side apply, and waits until the `DataKey` is Ready. A field that another
/// manager owns with another value is a conflict, and is never taken over.
pub async fn run(
    cluster: &Cluster,
    terminal: &Terminal,
    manifest: &Value,
    manager: &str,
    timeout: Duration,
) -> Result<Output, CommandError> {
    let (applied, existed) = apply(cluster, manifest, manager).await?;
    let done = if existed { "configured" } else { "created" };
    let (name, namespace) = (applied.name(), applied.namespace());
    terminal.notes([format!("{name} {done}; waiting until the data key is issued and in the Secret")]);
    let fetched = wait::until_ready(cluster, terminal, applied, timeout, |why| {
        CommandError::NotReady(format!(
            "DataKey {name} was {done}, but it is not Ready: {why}; look at kubectl datakey status {name} -n {namespace}"
        ))
    })
    .await?;
    let (version, secret) = (fetched.key.wanted_version(), fetched.key.secret_name());
    Ok(Output::text(format!("{name} {done}: Secret {secret} holds data key version {version}\n")))
}

/// Applies the manifest without waiting. Returns the `DataKey`, and whether it was there before.
pub async fn apply(cluster: &Cluster, manifest: &Value, manager: &str) -> Result<(FetchedKey, bool), CommandError> {
    let existed = check(cluster, manifest).await?;
    Ok((cluster.apply(manifest, manager, false).await?, existed))
}

/// Has the API server check the manifest in a dry run.
pub async fn dry_run(cluster: &Cluster, manifest: &Value, manager: &str) -> Result<String, CommandError> {
    let existed = check(cluster, manifest).await?;
    let name = cluster.apply(manifest, manager, true).await?.name();
    Ok(format!("{name} would be {} (server dry run)", if existed { "configured" } else { "created" }))
}

/// Refuses to change what an existing `DataKey` has fixed. Returns whether there is one.
async fn check(cluster: &Cluster, manifest: &Value) -> Result<bool, CommandError> {
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
    let Some(existing) = cluster.find(name).await? else { return Ok(false) };
    refuse_other_settings(&existing, manifest).map(|()| true)
}

/// The API server refuses the same change. This message names both values.
fn refuse_other_settings(existing: &FetchedKey, manifest: &Value) -> Result<(), CommandError> {
    let name = existing.name();
    let wanted: DataKey = serde_json::from_value(manifest.clone())
        .map_err(|error| CommandError::Failed(format!("the manifest of {name} is of no valid form: {error}")))?;
    if existing.key.metadata.deletion_timestamp.is_some() {
        return Err(CommandError::NotReady(format!("DataKey {name} is being deleted: wait, and try again")));
    }
    let other = wanted.pinned_versions().iter().find(|pin| {
        let issued = existing.key.recorded_version(pin.version);
        issued.is_some_and(|issued| issued.ciphertext_blob != pin.ciphertext_blob)
    });
    if let Some(pin) = other {
        return Err(CommandError::Failed(format!(
            "DataKey {name} exists in namespace {}, and its version {} is another data key, which is fixed; nothing was changed. \
             Choose another name, or another version",
            existing.namespace(),
            pin.version
        )));
    }
    let version = wanted.spec.version.unwrap_or_else(|| existing.key.wanted_version());
    let Some(issued) = existing.key.recorded_version(version) else { return Ok(()) };
    let request = wanted.spec.request();
    let differences = request.view().differing_values("the command", issued.request.view(), "the cluster");
    if differences.is_empty() {
        return Ok(());
    }
    Err(CommandError::Failed(format!(
        "DataKey {name} exists in namespace {}, and its version {version} is issued with other settings, which are fixed: {}; \
         nothing was changed. Choose another name, or raise spec.version for a data key with other settings",
        existing.namespace(),
        differences.join("; ")
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

    #[test]
    fn data_key_that_is_being_deleted_is_not_applied() {
        let deleted =
            edited(ready(&[1]), |value| value["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z"));
        assert!(matches!(refuse_other_settings(&deleted, &manifest()), Err(CommandError::NotReady(_))));
    }
}
