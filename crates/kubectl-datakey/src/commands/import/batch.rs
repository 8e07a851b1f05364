//! Many imports at once: each `DataKey` becomes a file in a folder. A file that is there already is compared and not asked
//! again, so a run goes on where an earlier one stopped.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use datakey::api::DataKey;
use futures::{StreamExt, stream};
use serde_json::Value;

use super::{
    Importer, TIME_OF_IMPORT,
    candidate::Candidate,
    pin::manifest,
    rollout,
    table::{self, Row},
};
use crate::{
    cli::import::Import,
    cluster::Cluster,
    commands::{
        of_all,
        report::{Failure, Failures},
        rollout::Rollout,
        write_new,
    },
    output::{CommandError, Health, Output, Terminal, printable, yaml},
    progress::ProgressBar,
};

/// How many DataKeys are asked for at the same time.
const CONCURRENT_CALLS: usize = 16;

/// The lines of one `DataKey`.
#[derive(Debug)]
struct Group {
    name: String,
    /// The versions, or the first thing that is wrong with one of them.
    candidates: Result<Vec<Candidate>, Failure>,
}

/// What became of a `DataKey`, with its manifest as it is in the folder.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Imported(Value),
    /// Another run imported it.
    Present(Value),
}

/// Counts, and what failed.
#[derive(Debug, Default)]
struct Report {
    imported: usize,
    present: usize,
    failures: Failures,
}

/// Imports all lines or files into a folder, and from there into the cluster if there is one.
pub async fn run(
    importer: &Importer<'_>,
    cluster: Option<&Cluster>,
    terminal: &Terminal,
    args: &Import,
    folder: &Path,
) -> Result<Output, CommandError> {
    let (rows, skipped) = match (&args.from_csv, &args.from_folder) {
        (Some(file), _) => (table::csv(file, args)?, Vec::new()),
        (None, Some(from)) => table::folder(from, args)?,
        (None, None) => (Vec::new(), Vec::new()),
    };
    terminal.notes(table::skipped(&skipped));
    fs::create_dir_all(folder)
        .map_err(|error| CommandError::Failed(format!("can't make the folder {}: {error}", folder.display())))?;
    let groups = groups(rows);
    let count = groups.len();
    let mut outcomes = stream::iter(groups)
        .map(async |group| {
            let outcome = import(importer, folder, &group).await;
            (group, outcome)
        })
        .buffer_unordered(CONCURRENT_CALLS);
    let mut report = Report::default();
    let mut manifests = Vec::new();
    let mut has_time_of_import = false;
    let mut bar = ProgressBar::of(terminal, count, "DataKeys");
    while let Some((group, outcome)) = outcomes.next().await {
        has_time_of_import |= matches!(outcome, Ok(Outcome::Imported(_))) && group.is_undated();
        // What was compared is applied, whatever is in the file later.
        if let (Some(_), Ok(Outcome::Imported(manifest) | Outcome::Present(manifest))) = (cluster, &outcome) {
            manifests.push((group.name.clone(), manifest.clone()));
        }
        report.add(group.name, outcome);
        bar.show(report.done(), &report.progress());
    }
    drop(bar);
    let mut output = Output::text(report.text(count, folder)).with(report.health());
    if has_time_of_import {
        output.notes.push(TIME_OF_IMPORT.to_owned());
    }
    if let Some(cluster) = cluster {
        terminal.print(&output)?;
        manifests.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let count = manifests.len();
        let Rollout { ready, failures, health, .. } = rollout::run(cluster, terminal, manifests, args.timeout).await;
        let namespace = &cluster.namespace;
        let text = format!("{} applied and Ready in namespace {namespace}\n", of_all(ready, count, "DataKeys"));
        output = Output::text(text + &failures.text("DataKeys")).with(output.health.max(health));
    }
    Ok(output)
}

/// Refuses one wrapped data key under several names, as a spreadsheet makes it when cells are filled down: the DataKeys would have
/// one data key. Twins among the versions of one name are refused with its pins.
fn refuse_twins(rows: &mut [Row]) {
    let why = |other: &Candidate| {
        let Candidate { name, place, .. } = other;
        format!("its wrapped data key is that of {name} ({place}), too: each DataKey must have a data key of its own")
    };
    let mut first = HashMap::<&[u8], (usize, &Candidate)>::new();
    let mut failures = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let Ok(candidate) = &row.candidate else { continue };
        let (at_one, one) = *first.entry(&candidate.wrapped.ciphertext_blob).or_insert((at, candidate));
        if one.name != candidate.name {
            failures.push((at_one, Failure::new(&one.place, why(candidate))));
            failures.push((at, Failure::new(&candidate.place, why(one))));
        }
    }
    for (at, failure) in failures {
        rows[at].candidate = Err(failure);
    }
}

/// Puts lines of one name together, in the order of the names.
fn groups(mut rows: Vec<Row>) -> Vec<Group> {
    refuse_twins(&mut rows);
    let mut groups = BTreeMap::<String, Result<Vec<Candidate>, Failure>>::new();
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

/// Imports a `DataKey` with all its versions, or none of them.
async fn import(importer: &Importer<'_>, folder: &Path, group: &Group) -> Result<Outcome, Failure> {
    let candidates = group.candidates.as_ref().map_err(Clone::clone)?;
    let failed = |why: String| Failure::new(&group.name, why);
    let file = file_of(folder, &group.name);
    let present = || compare(&file, &group.name, importer.namespace, candidates).map(Outcome::Present).map_err(failed);
    // Also a link that leads nowhere is there.
    if fs::symlink_metadata(&file).is_ok() {
        return present();
    }
    let mut pins = Vec::new();
    for candidate in candidates {
        pins.push(importer.pin(candidate).await.map_err(|why| Failure::new(&candidate.place, why))?);
    }
    let manifest = manifest(&group.name, importer.namespace, pins).map_err(failed)?;
    let text = yaml(&manifest).map_err(|error| failed(error.to_string()))?;
    // A manifest is not secret: the umask of the user decides who may read it.
    match write_new(&file, text.as_bytes(), 0o666) {
        Ok(()) => Ok(Outcome::Imported(manifest)),
        // Another run wrote it while KMS was asked.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => present(),
        Err(error) => Err(failed(format!("can't write {}: {error}", file.display()))),
    }
}

/// The file of a `DataKey` in the folder.
fn file_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.yaml"))
}

/// Compares a file of another run with the lines, and with what the flags say. Returns its manifest.
fn compare(file: &Path, name: &str, namespace: Option<&str>, candidates: &[Candidate]) -> Result<Value, String> {
    let other =
        |why: &str| format!("{} is there already and {why}: remove it, or name another folder by --to", file.display());
    let text = fs::read_to_string(file).map_err(|error| other(&format!("can't be read ({error})")))?;
    let manifest: Value = serde_saphyr::from_str(&text).map_err(|_| other("has no DataKey"))?;
    let key: DataKey = serde_json::from_value(manifest.clone()).map_err(|_| other("has no DataKey"))?;
    if key.metadata.name.as_deref() != Some(name) {
        return Err(other("has a DataKey of another name"));
    }
    if key.metadata.namespace.as_deref() != namespace {
        return Err(other("names another namespace"));
    }
    let pins = key.pinned_versions();
    let is_pinned = |candidate: &Candidate| {
        let material = candidate.material();
        pins.iter().any(|pin| {
            pin.version == candidate.version
                && pin.ciphertext_blob.0 == candidate.wrapped.ciphertext_blob
                && *pin.request.context() == candidate.encryption_context
                && candidate.key_id.as_ref().is_none_or(|key_id| *key_id == pin.request.key_id)
                && material.is_none_or(|material| pin.request.material() == Some(material))
        })
    };
    let same = pins.len() == candidates.len() && candidates.iter().all(is_pinned);
    if !same {
        return Err(other("has other data keys, or other settings"));
    }
    let current = candidates.iter().map(|candidate| candidate.version).max();
    if current != Some(key.wanted_version()) {
        return Err(other(&format!("makes version {} current", key.wanted_version())));
    }
    Ok(manifest)
}

// === impl Group ===

impl Group {
    /// Whether the time of issue of a version is not known.
    fn is_undated(&self) -> bool {
        self.candidates.iter().flatten().any(|candidate| candidate.issued_at.is_none())
    }
}

// === impl Report ===

impl Report {
    fn add(&mut self, name: String, outcome: Result<Outcome, Failure>) {
        match outcome {
            Ok(Outcome::Imported(_)) => self.imported += 1,
            Ok(Outcome::Present(_)) => self.present += 1,
            Err(failure) => self.failures.push(name, failure),
        }
    }

    fn done(&self) -> usize {
        self.imported + self.present + self.failures.len()
    }

    fn health(&self) -> Health {
        if self.failures.len() == 0 { Health::Healthy } else { Health::Unknown }
    }

    fn progress(&self) -> String {
        self.failures.progress(self.imported, "imported")
    }

    fn text(&self, count: usize, folder: &Path) -> String {
        format!(
            "{} of {count} DataKeys imported into {}, {} were there already, {} failed\n{}",
            self.imported,
            printable(&folder.display().to_string()),
            self.present,
            self.failures.len(),
            self.failures.text("DataKeys")
        )
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    use clap::Parser as _;
    use datakey::fixtures::{ARN, at};

    use super::*;
    use crate::{
        cli::{Cli, Command},
        commands::import::{pin::Found, wrapped::Wrapped},
    };

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
                ciphertext_blob: format!("{name:>96}").into_bytes().into_iter().chain(version.to_le_bytes()).collect(),
                key_id: None,
                key_material_id: None,
            },
        }
    }

    fn row(name: &str, candidate: Result<Candidate, &str>) -> Row {
        Row { name: name.to_owned(), candidate: candidate.map_err(|why| Failure::new("line 4", why)) }
    }

    #[test]
    fn one_wrong_line_fails_all_versions_of_its_data_key() {
        let rows = vec![
            row("orders", Ok(candidate("orders", 1))),
            row("payments", Ok(candidate("payments", 1))),
            row("orders", Err("wrong")),
            row("orders", Ok(candidate("orders", 3))),
        ];
        let [orders, payments] = &groups(rows)[..] else { panic!("two names") };
        assert_eq!(orders.candidates.as_ref().unwrap_err().to_string(), "line 4: wrong");
        assert_eq!(payments.candidates.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn one_data_key_under_two_names_is_refused() {
        let twin = |name: &str, place: &str| {
            let candidate = Candidate { name: name.to_owned(), place: place.to_owned(), ..candidate("orders", 1) };
            Row { name: name.to_owned(), candidate: Ok(candidate) }
        };
        let other = row("other", Ok(candidate("other", 1)));
        let groups = groups(vec![twin("a", "line 2"), other, twin("b", "line 4"), twin("b", "line 5")]);
        let why: Vec<_> = groups.iter().map(|group| group.candidates.as_ref().err().map(Failure::to_string)).collect();
        let own = "too: each DataKey must have a data key of its own";
        assert_eq!(
            why,
            [
                Some(format!("line 2: its wrapped data key is that of b (line 5), {own}")),
                Some(format!("line 4: its wrapped data key is that of a (line 2), {own}")),
                None,
            ]
        );
    }

    #[test]
    fn file_of_an_earlier_run_is_compared() {
        let folder = std::env::temp_dir().join(format!("kubectl-datakey-batch-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("orders.yaml");
        let candidates = [candidate("orders", 1), candidate("orders", 2)];
        let pins =
            candidates.iter().map(|candidate| Found::unverified(candidate).unwrap().pin(candidate, at(9)).unwrap());
        let manifest = manifest("orders", None, pins.collect()).unwrap();
        std::fs::write(&file, yaml(&manifest).unwrap()).unwrap();
        assert_eq!(compare(&file, "orders", None, &candidates).as_ref(), Ok(&manifest));
        assert!(compare(&file, "orders", None, &candidates[..1]).unwrap_err().contains("has other data keys"));
        let mut earlier = manifest.clone();
        earlier["spec"].as_object_mut().unwrap().remove("version");
        std::fs::write(&file, yaml(&earlier).unwrap()).unwrap();
        let back = compare(&file, "orders", None, &candidates).unwrap_err();
        assert!(back.contains("makes version 1 current"), "{back}");
        std::fs::write(&file, yaml(&manifest).unwrap()).unwrap();
        let copied = compare(&file, "payments", None, &candidates).unwrap_err();
        assert!(copied.contains("has a DataKey of another name"), "{copied}");
        let mut other = candidates.clone();
        other[1].encryption_context.clear();
        assert!(compare(&file, "orders", None, &other).unwrap_err().contains("remove it, or name another folder"));
        assert!(compare(&file, "orders", Some("shop"), &candidates).unwrap_err().contains("another namespace"));
        let mut other = candidates.clone();
        other[1].key_id = Some("alias/orders".to_owned());
        assert!(compare(&file, "orders", None, &other).unwrap_err().contains("other settings"));
        let mut other = candidates.clone();
        other[0].key_spec = Some(datakey::api::KeySpec::Aes128);
        assert!(compare(&file, "orders", None, &other).unwrap_err().contains("other settings"));
        std::fs::write(&file, "half: of").unwrap();
        assert!(compare(&file, "orders", None, &candidates).unwrap_err().contains("has no DataKey"));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn time_of_import_is_noted_where_it_is_written() {
        let folder = std::env::temp_dir().join(format!("kubectl-datakey-dated-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (file, to) = (folder.join("keys.csv"), folder.join("to"));
        let from_csv = format!("--from-csv={}", file.display());
        let to_folder = format!("--to={}", to.display());
        let key_id = format!("--key-id={ARN}");
        let words = ["kubectl-datakey", "import", &from_csv, &to_folder, &key_id, "--key-spec=AES_256", "--no-verify"];
        let Command::Import(args) = Cli::try_parse_from(words).unwrap().command else { panic!("import") };
        let importer = Importer { namespace: None, decrypter: None, now: at(9) };
        let mut lines = vec!["name,ciphertext_blob,issued_at".to_owned()];
        let mut notes = Vec::new();
        for (name, issued_at) in [("dated", "2026-11-24T01:02:03Z"), ("undated", ""), ("later", "2026-11-24T01:02:03Z")]
        {
            let blob = BASE64_STANDARD.encode(format!("{name:>96}"));
            lines.push(format!("{name},{blob},{issued_at}"));
            fs::write(&file, lines.join("\n")).unwrap();
            notes.push(run(&importer, None, &Terminal::new(), &args, &to).await.unwrap().notes);
        }
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(notes, [Vec::new(), vec![TIME_OF_IMPORT.to_owned()], Vec::new()]);
    }

    #[test]
    fn one_of_simultaneous_imports_is_applied() {
        let folder = std::env::temp_dir().join(format!("kubectl-datakey-runs-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let importer = Importer { namespace: None, decrypter: None, now: at(9) };
        let groups: Vec<_> = (1..=8)
            .map(|byte| {
                let mut candidate = candidate("orders", 1);
                candidate.wrapped.ciphertext_blob.fill(byte);
                Group { name: "orders".to_owned(), candidates: Ok(vec![candidate]) }
            })
            .collect();
        let run = |group| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(import(&importer, &folder, group))
        };
        let outcomes = std::thread::scope(|scope| {
            let runs: Vec<_> = groups.iter().map(|group| scope.spawn(|| run(group))).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<_>>()
        });
        let written: Value = serde_saphyr::from_str(&fs::read_to_string(file_of(&folder, "orders")).unwrap()).unwrap();
        let again: Vec<_> = groups.iter().map(run).collect();
        fs::remove_dir_all(&folder).unwrap();
        let winners: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        assert_eq!(winners, [&Outcome::Imported(written.clone())]);
        for (outcome, again) in outcomes.iter().zip(&again) {
            match outcome {
                Ok(_) => assert_eq!(again, &Ok(Outcome::Present(written.clone()))),
                Err(why) => assert!(why.to_string().contains("has other data keys") && again == outcome, "{why}"),
            }
        }
    }

    #[test]
    fn import_report_is_printed_as_recorded() {
        let mut report = Report::default();
        report.add("a".to_owned(), Ok(Outcome::Imported(Value::Null)));
        report.add("b".to_owned(), Ok(Outcome::Present(Value::Null)));
        report.add("line 9".to_owned(), Err(Failure::new("line 9", "name is empty")));
        for (name, place) in [("d", "line 4"), ("c", "line 3")] {
            report.add(name.to_owned(), Err(Failure::new(place, "AWS KMS refuses: AccessDeniedException")));
        }
        assert_eq!((report.done(), report.health()), (5, Health::Unknown));
        assert_eq!(report.progress(), ": 1 imported, 3 failed");
        insta::assert_snapshot!("import-report", report.text(5, Path::new("datakeys")));
    }
}
