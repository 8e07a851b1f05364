//! The commands, and what several of them share.

use std::{collections::BTreeSet, fs::File, io::Write, path::Path, time::Duration};

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    cluster::{Cluster, FetchedKey},
    output::CommandError,
    view::secret_check::SecretCheck,
};

mod apply;
pub mod check;
pub mod create;
pub mod export;
pub mod import;
pub mod keep;
pub mod list;
pub mod orphans;
pub mod policy;
pub mod public_key;
pub mod retry;
pub mod rotate;
mod selected;
pub mod status;
pub mod verify;
pub mod version;
mod wait;

/// How many Secrets are read at the same time.
const CONCURRENT_READS: usize = 8;

/// How often a command that waits asks the API server.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Labels and annotations of tools that apply objects from Git, and the names of the tools.
const GITOPS_MARKS: [(&str, &str); 5] = [
    ("kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("helm.toolkit.fluxcd.io/name", "Flux"),
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("meta.helm.sh/release-name", "Helm"),
];

/// Several results, in the form of a Kubernetes list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub struct Items<T> {
    /// The results.
    pub items: Vec<T>,
}

/// How far a command that waits has come.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// The `DataKey` is as the command wants it.
    Done,
    /// Not yet, for this cause.
    Pending(String),
    /// Waiting longer does not help, for this cause.
    Failed(String),
}

/// Returns the checks of these `DataKey`s' Secrets, and one note for all of them that could not be read.
fn with_one_note(
    keys: &[FetchedKey],
    looked: Vec<Result<SecretCheck, CommandError>>,
) -> (Vec<SecretCheck>, Option<String>) {
    let mut namespaces = BTreeSet::new();
    let mut refusal = None;
    let mut count = 0;
    let mut checks = Vec::new();
    for (fetched, looked) in keys.iter().zip(looked) {
        checks.push(looked.unwrap_or_else(|error| {
            namespaces.insert(fetched.namespace());
            count += 1;
            let message = error.to_string();
            let why = if matches!(error, CommandError::Forbidden(_)) { "you may not read it" } else { &message };
            let check = SecretCheck::unknown(&fetched.key, why);
            refusal.get_or_insert(message);
            check
        }));
    }
    let secrets = secrets_were(count);
    let namespaces = namespaces.into_iter().collect::<Vec<_>>().join(", ");
    (checks, refusal.map(|refusal| format!("{secrets} not looked at, in {namespaces}: {refusal}")))
}

/// The subject and the verb of a sentence about Secrets.
fn secrets_were(count: usize) -> String {
    if count == 1 { "1 Secret was".to_owned() } else { format!("{count} Secrets were") }
}

/// The subject and the verb of a sentence about some of all `DataKey`s.
fn of_all(some: usize, all: usize) -> String {
    format!("{some} of {all} DataKeys {}", if some == 1 { "is" } else { "are" })
}

/// Returns the note for an empty list.
fn none_found(cluster: &Cluster, all_namespaces: bool) -> String {
    if all_namespaces {
        "No DataKeys found.".to_owned()
    } else {
        format!("No DataKeys found in namespace {}.", cluster.namespace)
    }
}

/// Returns the tool that applies the `DataKey` from Git, if the tool marks what it applies.
fn managing_tool(fetched: &FetchedKey) -> Option<&'static str> {
    let metadata = &fetched.key.metadata;
    let has_mark = |mark: &str| {
        [&metadata.labels, &metadata.annotations].into_iter().flatten().any(|marks| marks.contains_key(mark))
    };
    GITOPS_MARKS.into_iter().find_map(|(mark, tool)| has_mark(mark).then_some(tool))
}

/// Returns whether a manifest of the `DataKey` has grant tokens.
fn has_grant_tokens(fetched: &FetchedKey) -> bool {
    !grant_tokens(fetched).is_empty()
}

/// Returns the grant tokens of the `DataKey`. A message of the API server about it can repeat them.
fn grant_tokens(fetched: &FetchedKey) -> &[String] {
    fetched.key.spec.grant_tokens.as_deref().unwrap_or_default()
}

/// Writes a new file, and refuses to overwrite an existing one. Only the user may read a private one.
fn write_new_file(file: &Path, bytes: &[u8], is_private: bool) -> Result<(), CommandError> {
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => CommandError::Failed(format!(
            "{} is there already and was left alone: name another file by --to",
            file.display()
        )),
        _ => CommandError::Failed(format!("can't write {}: {error}", file.display())),
    };
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if is_private {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    options.open(file).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all())).map_err(cannot)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{edited, ready};

    #[test]
    fn gitops_tools_are_recognized_by_their_marks() {
        assert_eq!(managing_tool(&ready(&[1])), None);
        for (field, mark, tool) in [
            ("labels", "kustomize.toolkit.fluxcd.io/name", "Flux"),
            ("annotations", "argocd.argoproj.io/tracking-id", "Argo CD"),
        ] {
            let fetched = edited(ready(&[1]), |value| value["metadata"][field] = json!({ mark: "x" }));
            assert_eq!(managing_tool(&fetched), Some(tool));
        }
    }

    #[test]
    fn unreadable_secrets_have_one_note() {
        let refused = || Err(CommandError::Forbidden("Secret orders: you may not".to_owned()));
        let keys = [ready(&[1]), ready(&[1])];
        let (checks, note) = with_one_note(&keys, vec![refused(), refused()]);
        assert_eq!(note.as_deref(), Some("2 Secrets were not looked at, in shop: Secret orders: you may not"));
        assert!(checks.iter().all(|check| check.line().contains("you may not read it")));
        let failed = Err(CommandError::Unanswered("no answer".to_owned()));
        let (checks, note) = with_one_note(&keys[..1], vec![failed]);
        assert_eq!(note.as_deref(), Some("1 Secret was not looked at, in shop: no answer"));
        assert!(checks[0].line().contains("no answer"));
    }

    #[test]
    fn existing_file_is_not_overwritten() {
        let file = std::env::temp_dir().join(format!("kubectl-datakey-{}", std::process::id()));
        write_new_file(&file, b"first", true).unwrap();
        let again = write_new_file(&file, b"second", false).unwrap_err().to_string();
        let kept = std::fs::read(&file).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
        std::fs::remove_file(&file).unwrap();
        assert!(again.contains("is there already"), "{again}");
        assert_eq!((kept.as_slice(), mode & 0o777), (&b"first"[..], 0o600));
    }
}
