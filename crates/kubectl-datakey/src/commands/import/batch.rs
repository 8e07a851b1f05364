//! Many imports at once: each `DataKey` becomes a file in a folder. A file that is there already is compared and not asked
//! again, so a run goes on where an earlier one stopped.

use std::{fmt::Write, path::Path, time::Duration};

use datakey::api::DataKey;
use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::{
    Importer, TIME_OF_IMPORT,
    candidate::Candidate,
    pin::manifest,
    table::{self, Row},
};
use crate::{
    cli::import::Import,
    output::{CommandError, Health, Output, Terminal, yaml},
};

/// How many DataKeys are asked for at the same time.
const CONCURRENT_CALLS: usize = 16;

/// How often progress is printed.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// The lines of one `DataKey`.
#[derive(Debug)]
struct Group {
    name: String,
    /// The versions, or the first thing that is wrong with one of them.
    candidates: Result<Vec<Candidate>, String>,
}

/// What became of a `DataKey`.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Imported,
    /// An earlier run imported it.
    Present,
    Failed(String),
}

/// Counts, and what failed.
#[derive(Debug, Default)]
struct Report {
    imported: usize,
    present: usize,
    failed: Vec<(String, String)>,
}

/// Imports all lines or files into a folder.
pub async fn run(
    importer: &Importer<'_>,
    terminal: &Terminal,
    args: &Import,
    folder: &Path,
) -> Result<Output, CommandError> {
    let rows = match (&args.from_csv, &args.from_folder) {
        (Some(file), _) => table::csv(file, args)?,
        (None, Some(from)) => table::folder(from, args)?,
        (None, None) => Vec::new(),
    };
    std::fs::create_dir_all(folder)
        .map_err(|error| CommandError::Failed(format!("can't make the folder {}: {error}", folder.display())))?;
    let groups = groups(rows);
    let count = groups.len();
    let mut outcomes = stream::iter(groups)
        .map(async |group| {
            let outcome = import(importer, folder, &group).await;
            (group.name, outcome)
        })
        .buffer_unordered(CONCURRENT_CALLS);
    let mut report = Report::default();
    let mut shown = Instant::now();
    while let Some((name, outcome)) = outcomes.next().await {
        report.add(name, outcome);
        if shown.elapsed() > PROGRESS_INTERVAL {
            terminal.notes([report.progress(count)]);
            shown = Instant::now();
        }
    }
    let health = if report.failed.is_empty() { Health::Healthy } else { Health::Unknown };
    let mut output = Output::text(report.text(count, folder)).with(health);
    if args.issued_at.is_none() && report.imported > 0 {
        output.notes.push(TIME_OF_IMPORT.to_owned());
    }
    Ok(output)
}

/// Puts lines of one name together, in the order of the names.
fn groups(rows: Vec<Row>) -> Vec<Group> {
    let mut groups: std::collections::BTreeMap<String, Result<Vec<Candidate>, String>> = <_>::default();
    for Row { name, candidate } in rows {
        let group = groups.entry(name).or_insert_with(|| Ok(Vec::new()));
        match (group, candidate) {
            (Ok(candidates), Ok(candidate)) => candidates.push(candidate),
            (group @ Ok(_), Err(why)) => *group = Err(why),
            (Err(_), _) => {}
        }
    }
    groups.into_iter().map(|(name, candidates)| Group { name, candidates }).collect()
}

async fn import(importer: &Importer<'_>, folder: &Path, group: &Group) -> Outcome {
    match try_import(importer, folder, group).await {
        Ok(outcome) => outcome,
        Err(why) => Outcome::Failed(why),
    }
}

/// Imports a `DataKey` with all its versions, or none of them.
async fn try_import(importer: &Importer<'_>, folder: &Path, group: &Group) -> Result<Outcome, String> {
    let candidates = group.candidates.as_ref().map_err(Clone::clone)?;
    let file = folder.join(format!("{}.yaml", group.name));
    if file.exists() {
        return compare(&file, candidates).map(|()| Outcome::Present);
    }
    let mut pins = Vec::new();
    for candidate in candidates {
        pins.push(importer.pin(candidate).await.map_err(|why| format!("{}: {why}", candidate.place))?);
    }
    let manifest = manifest(&group.name, importer.namespace, pins)?;
    let text = yaml(&manifest).map_err(|error| error.to_string())?;
    // A file with half of a manifest would be taken for an imported one: it gets its name when it is whole.
    let part = folder.join(format!(".{}.part", group.name));
    let write = || std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, &file));
    write().map_err(|error| format!("can't write {}: {error}", file.display())).map(|()| Outcome::Imported)
}

/// Compares a file of an earlier run with the lines.
fn compare(file: &Path, candidates: &[Candidate]) -> Result<(), String> {
    let other =
        |why: &str| format!("{} is there already and {why}: remove it, or name another folder by --to", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| other(&format!("can't be read ({error})")))?;
    let key: DataKey = serde_saphyr::from_str(&text).map_err(|_| other("has no DataKey"))?;
    let pins = key.pinned_versions();
    let is_pinned = |candidate: &Candidate| {
        pins.iter().any(|pin| {
            pin.version == candidate.version
                && pin.ciphertext_blob.0 == candidate.wrapped.ciphertext_blob
                && *pin.request.context() == candidate.encryption_context
        })
    };
    let same = pins.len() == candidates.len() && candidates.iter().all(is_pinned);
    if same { Ok(()) } else { Err(other("has other data keys")) }
}

// === impl Report ===

impl Report {
    fn add(&mut self, name: String, outcome: Outcome) {
        match outcome {
            Outcome::Imported => self.imported += 1,
            Outcome::Present => self.present += 1,
            Outcome::Failed(why) => self.failed.push((name, why)),
        }
    }

    fn progress(&self, count: usize) -> String {
        let done = self.imported + self.present + self.failed.len();
        format!("{done} of {count} DataKeys: {} imported, {} failed", self.imported, self.failed.len())
    }

    fn text(&mut self, count: usize, folder: &Path) -> String {
        self.failed.sort();
        let mut text = format!(
            "{} of {count} DataKeys imported into {}, {} were there already, {} failed\n",
            self.imported,
            folder.display(),
            self.present,
            self.failed.len()
        );
        for (name, why) in &self.failed {
            let line = if why.starts_with(name.as_str()) { why.clone() } else { format!("{name}: {why}") };
            let _ = writeln!(text, "  {}", crate::output::printable(&line));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use datakey::fixtures::{ARN, at};

    use super::*;
    use crate::commands::import::{pin::Found, wrapped::Wrapped};

    fn candidate(name: &str, version: i32) -> Candidate {
        Candidate {
            place: format!("line {version}"),
            name: name.to_owned(),
            version,
            key_id: Some(ARN.to_owned()),
            region: None,
            encryption_context: [("purpose".to_owned(), "orders".to_owned())].into(),
            key_spec: Some(datakey::api::KeySpec::Aes256),
            number_of_bytes: None,
            issued_at: Some(at(0)),
            wrapped: Wrapped {
                ciphertext_blob: vec![1, version.to_le_bytes()[0]],
                key_id: None,
                key_material_id: None,
            },
        }
    }

    fn row(name: &str, candidate: Result<Candidate, String>) -> Row {
        Row { name: name.to_owned(), candidate }
    }

    #[test]
    fn one_wrong_line_fails_all_versions_of_its_data_key() {
        let rows = vec![
            row("orders", Ok(candidate("orders", 1))),
            row("payments", Ok(candidate("payments", 1))),
            row("orders", Err("line 4: wrong".to_owned())),
            row("orders", Ok(candidate("orders", 3))),
        ];
        let [orders, payments] = &groups(rows)[..] else { panic!("two names") };
        assert_eq!(orders.candidates.as_ref().unwrap_err(), "line 4: wrong");
        assert_eq!(payments.candidates.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn file_of_an_earlier_run_is_compared() {
        let folder = std::env::temp_dir().join(format!("kubectl-datakey-batch-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("orders.yaml");
        let candidates = [candidate("orders", 1), candidate("orders", 2)];
        let pins =
            candidates.iter().map(|candidate| Found::unverified(candidate).unwrap().pin(candidate, at(9)).unwrap());
        std::fs::write(&file, yaml(&manifest("orders", None, pins.collect()).unwrap()).unwrap()).unwrap();
        assert_eq!(compare(&file, &candidates), Ok(()));
        assert!(compare(&file, &candidates[..1]).unwrap_err().contains("has other data keys"));
        let mut other = candidates.clone();
        other[1].encryption_context.clear();
        assert!(compare(&file, &other).unwrap_err().contains("remove it, or name another folder"));
        std::fs::write(&file, "half: of").unwrap();
        assert!(compare(&file, &candidates).unwrap_err().contains("has no DataKey"));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn report_counts_and_names_what_failed() {
        let mut report = Report::default();
        report.add("a".to_owned(), Outcome::Imported);
        report.add("b".to_owned(), Outcome::Present);
        report.add("line 9".to_owned(), Outcome::Failed("line 9: name is empty".to_owned()));
        report.add("c".to_owned(), Outcome::Failed("line 3: AWS KMS refuses\u{1b}".to_owned()));
        assert_eq!(report.progress(5), "4 of 5 DataKeys: 1 imported, 2 failed");
        assert_eq!(
            report.text(4, Path::new("to")),
            "1 of 4 DataKeys imported into to, 1 were there already, 2 failed\n  \
             c: line 3: AWS KMS refuses\\u{1b}\n  line 9: name is empty\n"
        );
    }
}
