//! `kubectl datakey rotate`: raises `spec.version`, so that the operator has a new data key or key pair issued.

use std::collections::BTreeSet;

use datakey::api::{FIRST_VERSION, MAX_VERSIONS};
use serde_json::{Value, json};

use super::{grant_tokens, managing_tool, wait};
use crate::{
    cli::Rotate,
    cluster::{Cluster, FetchedKey},
    output::{CommandError, Output, Terminal, yaml},
    view::summary::KeySummary,
};

/// Raises the version of an object.
pub async fn run(cluster: &Cluster, terminal: &Terminal, args: &Rotate) -> Result<Output, CommandError> {
    let fetched = cluster.resolve(&args.name).await?;
    let next = next_version(&fetched)?;
    if !args.force {
        require_ready(&fetched)?;
    }
    if args.patch {
        return Ok(Output::text(patch_for_git(&fetched, next)?));
    }
    let mut output = Output::default();
    output.notes.push(note_about_git(&fetched, next));
    let changed = cluster.patch(&fetched, &guarded_patch(&fetched, next)?, args.dry_run).await;
    let changed = match changed.map_err(|error| error.redacted(grant_tokens(&fetched))) {
        Err(CommandError::Unanswered(why)) if !args.dry_run => find_change(cluster, &fetched, next, &why).await?,
        changed => changed?,
    };
    output.out = line(&fetched, next, if args.dry_run { "would be requested (dry run)" } else { "is requested" });
    if args.wait {
        terminal.notes(output.notes.drain(..));
        terminal.notes([waiting(&fetched, next)]);
        wait::until_ready(cluster, terminal, changed, args.timeout, |why| not_ready(&fetched, next, why)).await?;
        output.out = line(&fetched, next, "is issued and current");
    }
    Ok(output)
}

/// Returns the object if the change is done although the API server did not say so. A command that is repeated would raise the
/// version once more.
async fn find_change(cluster: &Cluster, before: &FetchedKey, next: i32, why: &str) -> Result<FetchedKey, CommandError> {
    match cluster.get(before.kind(), &before.name()).await {
        Ok(found) if found.key.metadata().uid == before.key.metadata().uid && found.key.wanted_version() == next => {
            Ok(found)
        }
        _ => Err(unclear(before, next, why)),
    }
}

fn unclear(before: &FetchedKey, next: i32, why: &str) -> CommandError {
    let (name, namespace) = (before.shown(), before.namespace());
    CommandError::Unanswered(format!(
        "{why}. The change may be done nevertheless: before you rotate again, look whether spec.version is {next} \
         (kubectl datakey status {name} -n {namespace})"
    ))
}

fn note_about_git(fetched: &FetchedKey, next: i32) -> String {
    let kind = fetched.kind().name;
    match managing_tool(fetched) {
        Some(tool) => format!(
            "note: {tool} applies this {kind} and will set spec.version back, unless you change it there too; --patch prints \
             the change"
        ),
        None => format!(
            "note: if you keep a manifest of this {kind}, set version: {next} there, too. kubectl apply of a manifest without it \
             changes nothing, but under Flux and Argo CD, and where the {kind} is created again, an earlier version becomes \
             current"
        ),
    }
}

fn line(fetched: &FetchedKey, version: i32, what: &str) -> Vec<u8> {
    format!("version {version} of {} {what}\n", fetched.shown()).into_bytes()
}

fn waiting(fetched: &FetchedKey, next: i32) -> String {
    format!("spec.version is {next}; waiting until the {} is issued and in the Secret", fetched.kind().noun)
}

/// Returns the number after all that were ever used: recorded, pinned in the spec, or asked for.
fn next_version(fetched: &FetchedKey) -> Result<i32, CommandError> {
    let key = &fetched.key;
    // The JSON is read, because an older definition has no pins.
    let pins = fetched.value["spec"]["wrappedKeys"].as_array();
    let pinned = pins.into_iter().flatten().filter_map(|pin| i32::try_from(pin["version"].as_i64()?).ok());
    let recorded = key.record().iter().map(|issued| issued.version);
    let used: BTreeSet<_> = recorded.chain(pinned).collect();
    if used.len() >= MAX_VERSIONS {
        return Err(CommandError::Failed(format!(
            "all {MAX_VERSIONS} versions of {} are used: create another {}",
            fetched.titled(),
            fetched.kind().name
        )));
    }
    let highest = used.last().copied().unwrap_or(FIRST_VERSION).max(key.wanted_version());
    highest.checked_add(1).ok_or_else(|| {
        CommandError::Failed(format!(
            "{} has version {highest}, the highest number there is: set spec.version to a free lower one by hand",
            fetched.titled()
        ))
    })
}

/// Refuses an object that is not Ready: the version that it waits for would be skipped and never issued.
fn require_ready(fetched: &FetchedKey) -> Result<(), CommandError> {
    let summary = KeySummary::of(&fetched.key);
    if summary.deleting {
        return Err(CommandError::NotReady(format!("{} is being deleted", fetched.titled())));
    }
    if summary.is_ready() {
        return Ok(());
    }
    Err(CommandError::NotReady(format!(
        "{} is not Ready ({}: {}), and nothing was done: fix that first, or rotate it nevertheless by --force",
        fetched.titled(),
        summary.reason,
        summary.message.trim_end_matches('.')
    )))
}

/// Returns the patch. The API server refuses it if another client changed the object after it was read.
fn guarded_patch(fetched: &FetchedKey, next: i32) -> Result<Value, CommandError> {
    let (Some(uid), Some(read)) = (&fetched.key.metadata().uid, &fetched.key.metadata().resource_version) else {
        return Err(CommandError::Failed("the API server's answer has no uid or resourceVersion".to_owned()));
    };
    Ok(json!({ "metadata": { "uid": uid, "resourceVersion": read }, "spec": { "version": next } }))
}

/// Returns the patch for Git, for kustomize's `patches` or `kubectl patch --type=merge --patch-file`.
fn patch_for_git(fetched: &FetchedKey, next: i32) -> Result<String, CommandError> {
    yaml(&json!({
        "apiVersion": fetched.value["apiVersion"],
        "kind": fetched.value["kind"],
        "metadata": { "name": fetched.name(), "namespace": fetched.namespace() },
        "spec": { "version": next },
    }))
}

fn not_ready(fetched: &FetchedKey, version: i32, why: &str) -> CommandError {
    let (titled, name, namespace) = (fetched.titled(), fetched.shown(), fetched.namespace());
    CommandError::NotReady(format!(
        "spec.version of {titled} is {version}, but it is not Ready: {why}; look at kubectl datakey status {name} \
         -n {namespace}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{edited, issued, pair, ready, recorded};

    #[test]
    fn next_version_follows_all_that_were_ever_used() {
        assert_eq!(next_version(&ready(&[1])), Ok(2));
        assert_eq!(next_version(&ready(&[1, 7])), Ok(8));
        let lowered = edited(ready(&[1, 7]), |value| value["spec"]["version"] = json!(1));
        assert_eq!(next_version(&lowered), Ok(8));
        let pinned = edited(ready(&[1]), |value| value["spec"]["wrappedKeys"] = json!([issued(1), issued(9)]));
        assert_eq!(next_version(&pinned), Ok(10));
        let asked = edited(ready(&[1]), |value| value["spec"]["version"] = json!(4));
        assert_eq!(next_version(&asked), Ok(5));
        assert_eq!(next_version(&recorded(&[])), Ok(2), "version 1 is asked for");
    }

    #[test]
    fn exhausted_versions_are_an_error() {
        let all: Vec<i32> = (1..=64).collect();
        assert!(next_version(&ready(&all)).unwrap_err().to_string().contains("create another DataKey"));
        let highest = edited(ready(&[1]), |value| value["spec"]["version"] = json!(i32::MAX));
        assert!(next_version(&highest).unwrap_err().to_string().contains("by hand"));
    }

    #[test]
    fn only_a_ready_data_key_is_rotated() {
        assert_eq!(require_ready(&ready(&[1])), Ok(()));
        let pending = edited(ready(&[1]), |value| value["metadata"]["generation"] = json!(2));
        let deleted =
            edited(ready(&[1]), |value| value["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z"));
        for fetched in [recorded(&[]), pending, deleted] {
            assert!(matches!(require_ready(&fetched), Err(CommandError::NotReady(_))));
        }
    }

    #[test]
    fn patch_is_guarded_by_the_revision_that_was_read() {
        let patch = guarded_patch(&ready(&[1]), 2).unwrap();
        assert_eq!(
            patch,
            json!({ "metadata": { "uid": "7c3c8f7e-0001", "resourceVersion": "100" }, "spec": { "version": 2 } })
        );
    }

    #[test]
    fn patch_for_git_names_the_object_and_no_revision() {
        let git: Value = serde_saphyr::from_str(&patch_for_git(&ready(&[1]), 2).unwrap()).unwrap();
        assert_eq!(
            git,
            json!({
                "apiVersion": "datakey.dev/v1alpha1",
                "kind": "DataKey",
                "metadata": { "name": "orders", "namespace": "shop" },
                "spec": { "version": 2 },
            })
        );
    }

    #[test]
    fn rotate_is_printed_as_recorded() {
        insta::assert_snapshot!("rotate-patch", patch_for_git(&ready(&[1]), 2).unwrap());
        let highest = edited(ready(&[1]), |value| value["spec"]["version"] = json!(i32::MAX));
        let all: Vec<i32> = (1..=64).collect();
        let by_flux = |fetched| {
            edited(fetched, |value| {
                value["metadata"]["labels"] = json!({ "kustomize.toolkit.fluxcd.io/name": "x" });
            })
        };
        let texts = [
            note_about_git(&ready(&[1]), 2),
            note_about_git(&by_flux(ready(&[1])), 2),
            note_about_git(&pair(&[1]), 2),
            waiting(&ready(&[1]), 2),
            not_ready(&ready(&[1]), 2, "KeyDisabled: The KMS key is disabled").to_string(),
            require_ready(&recorded(&[])).unwrap_err().to_string(),
            unclear(&ready(&[1]), 2, "DataKey orders: the API server could not answer (504): Timeout").to_string(),
            next_version(&ready(&all)).unwrap_err().to_string(),
            next_version(&highest).unwrap_err().to_string(),
            not_ready(&pair(&[1]), 2, "KeyDisabled: The KMS key is disabled").to_string(),
            String::from_utf8(line(&pair(&[1]), 2, "is issued and current")).unwrap(),
        ];
        insta::assert_snapshot!("rotate", texts.map(|text| text.trim_end().to_owned()).join("\n"));
    }
}
