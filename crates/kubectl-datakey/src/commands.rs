//! The commands, and what several of them share.

use std::{fs::File, io::Write, path::Path, time::Duration};

use serde::Serialize;

use crate::{
    cluster::{Cluster, FetchedKey},
    output::CommandError,
};

mod apply;
pub mod create;
pub mod export;
pub mod import;
pub mod keep;
pub mod list;
pub mod policy;
pub mod rotate;
pub mod status;
pub mod verify;
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
#[derive(Debug, Serialize)]
struct Items<T> {
    items: Vec<T>,
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

/// Writes a new file, and refuses to overwrite an existing one.
fn write_new_file(file: &Path, bytes: &[u8]) -> Result<(), CommandError> {
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => CommandError::Failed(format!(
            "{} is there already and was left alone: remove it, or name another file by --to",
            file.display()
        )),
        _ => CommandError::Failed(format!("can't write {}: {error}", file.display())),
    };
    File::create_new(file).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all())).map_err(cannot)
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
    fn existing_file_is_not_overwritten() {
        let file = std::env::temp_dir().join(format!("kubectl-datakey-{}", std::process::id()));
        write_new_file(&file, b"first").unwrap();
        let again = write_new_file(&file, b"second").unwrap_err().to_string();
        let kept = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(again.contains("is there already"), "{again}");
        assert_eq!(kept, b"first");
    }
}
