//! The commands, and what several of them share.

use std::{
    collections::BTreeSet,
    fs::Permissions,
    io::{self, ErrorKind, Write},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Duration,
};

use datakey::api::{KINDS, Kind};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    cluster::{Cluster, FetchedKey, Listing},
    output::{CommandError, Output, Terminal},
    reference::plural,
    view::secret_check::SecretCheck,
};

mod apply;
pub mod census;
pub mod check;
pub mod classes;
pub mod create;
pub mod export;
pub mod import;
pub mod inject;
pub mod keep;
pub mod kms_keys;
pub mod list;
pub mod orphans;
pub mod policy;
pub mod public_key;
mod report;
pub mod retry;
pub mod rewrap;
mod rollout;
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

/// The subject and the verb of a sentence about some of all objects of these kinds.
fn of_all(some: usize, all: usize, nouns: &str) -> String {
    format!("{some} of {all} {nouns} {}", if some == 1 { "is" } else { "are" })
}

/// Returns the note for an empty list.
fn none_found(cluster: &Cluster, listing: &Listing, all_namespaces: bool) -> String {
    let is_listed = |kind: &&Kind| listing.unlisted.iter().all(|unlisted| unlisted.kind != *kind);
    let nouns: Vec<_> = KINDS.into_iter().filter(is_listed).map(|kind| plural([kind.id])).collect();
    let place = if all_namespaces { String::new() } else { format!(" in namespace {}", cluster.namespace) };
    format!("No {} found{place}.", nouns.join(" or "))
}

/// Returns the tool that applies the `DataKey` from Git, if the tool marks what it applies.
fn managing_tool(fetched: &FetchedKey) -> Option<&'static str> {
    let metadata = fetched.key.metadata();
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
    fetched.key.object().spec.grant_tokens
}

/// What an output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Text. With secrets, other users must not read the file.
    Text { is_secret: bool },
    /// Bytes that a terminal must not show.
    Bytes,
}

/// Writes an output to the file that the user names instead of standard output.
fn deliver(
    mut output: Output,
    to: Option<&Path>,
    content: Content,
    terminal: &Terminal,
) -> Result<Output, CommandError> {
    if let Some(file) = to {
        write_new_file(file, &output.out, content == Content::Text { is_secret: true })?;
        output.notes.push(format!("wrote {}", file.display()));
        output.out.clear();
    } else if content == Content::Bytes && terminal.shows_output() {
        return Err(CommandError::Usage(
            "raw bytes would garble the terminal: name a file by --to, or redirect".to_owned(),
        ));
    }
    Ok(output)
}

/// Writes a new file, and refuses to overwrite an existing one. Only the user may read a private one.
fn write_new_file(file: &Path, bytes: &[u8], is_private: bool) -> Result<(), CommandError> {
    let cannot = |error: io::Error| match error.kind() {
        ErrorKind::AlreadyExists => CommandError::Failed(format!(
            "{} is there already and was left alone: name another file by --to",
            file.display()
        )),
        _ => CommandError::Failed(format!("can't write {}: {error}", file.display())),
    };
    write_new(file, bytes, if is_private { 0o600 } else { 0o666 }).map_err(cannot)
}

/// Writes a file that gets its name when it is whole: one with half of a manifest would be taken for a `DataKey`. Never replaces a
/// file, because two runs can write to one folder at the same time. The umask of the user takes bits from the mode.
fn write_new(file: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut named = tempfile::Builder::new();
    let part = named.prefix(".datakey-").suffix(".part").permissions(Permissions::from_mode(mode));
    let mut part = part.tempfile_in(file.parent().unwrap_or(file))?;
    part.write_all(bytes)?;
    part.as_file().sync_all()?;
    part.persist_noclobber(file).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        std::fs::remove_file(&file).unwrap();
        assert!(again.contains("is there already"), "{again}");
        assert_eq!((kept.as_slice(), mode & 0o777), (&b"first"[..], 0o600));
    }

    #[test]
    fn file_is_whole_and_never_replaced() {
        let folder = std::env::temp_dir().join(format!("kubectl-datakey-whole-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("orders.yaml");
        // A killed run leaves a part.
        fs::write(folder.join(".datakey-0.part"), "apiVersion: ").unwrap();
        let texts: Vec<_> = (0..16).map(|run| run.to_string().repeat(1 << 16)).collect();
        // A loser reads at once what is there: the file must be whole from the beginning.
        let write = |text: &str| {
            let written = write_new(&file, text.as_bytes(), 0o666);
            written.map_err(|error| (error.kind(), fs::read_to_string(&file).unwrap()))
        };
        let written = std::thread::scope(|scope| {
            let runs: Vec<_> = texts.iter().map(|text| scope.spawn(|| write(text))).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<_>>()
        });
        let (read, left) = (fs::read_to_string(&file).unwrap(), fs::read_dir(&folder).unwrap().count());
        fs::remove_dir_all(&folder).unwrap();
        let winner = texts.iter().position(|text| *text == read).unwrap();
        for (run, outcome) in written.into_iter().enumerate() {
            assert!(outcome == if run == winner { Ok(()) } else { Err((ErrorKind::AlreadyExists, read.clone())) });
        }
        assert_eq!(left, 2, "the file, and the part of the killed run");
    }
}
