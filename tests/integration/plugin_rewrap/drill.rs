//! The drill: all that three KMS keys wrapped moves to a KMS key of another account, and the three are disabled.

mod objects;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use datakey::rewraps::Rewraps;
use kube::api::ListParams;
use serde_json::Value;
use testbed::{commands::Ended, eventually, kms::Key, proxy::Fault};

use self::objects::{Drill, LONG, NAMESPACES, OBJECTS, Records, Unwrapped, wrapped_by};
use super::{issue_elsewhere, kill_once};
use crate::{
    harness::to_json,
    plugin::{User, text},
};

/// The label of the objects: other tests run beside this one.
const LABEL: &str = "drill=rewrap";

/// How many objects the plugin moves at the same time.
const CONCURRENT_MOVES: usize = 16;

/// The arguments of a move of all objects of the drill.
fn moves<'a>(from: &'a Key, to: &'a Key, folder: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let what = ["rewrap", "-A", "-l", LABEL, "--from-key-id", &from.arn, "--to-key-id", &to.arn];
    [&what[..], &["--output", folder, "--apply", "--include-adopted"], more].concat()
}

async fn runs(user: &User<'_>, words: &[&str]) -> Ended {
    let ended = user.types(&[&["datakey"], words].concat()).await;
    assert_eq!(ended.code, 0, "{words:?}:\n{}{}", text(&ended), ended.err);
    ended
}

/// The manifests of a folder, by their paths in it.
fn manifests(folder: &Path) -> BTreeMap<PathBuf, Value> {
    let mut found = BTreeMap::new();
    for namespace in fs::read_dir(folder).into_iter().flatten() {
        for file in fs::read_dir(namespace.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let manifest = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), manifest);
            }
        }
    }
    found
}

/// How many versions of manifests are recorded nowhere.
fn unrecorded(manifests: &BTreeMap<PathBuf, Value>, records: &Records) -> usize {
    let text = |blob: Value| blob.as_str().unwrap().to_owned();
    let recorded: BTreeSet<_> =
        records.values().flatten().map(|issued| text(to_json(&issued.ciphertext_blob))).collect();
    let pins = manifests.values().flat_map(|manifest| manifest["spec"]["wrappedKeys"].as_array().unwrap());
    pins.filter(|pin| !recorded.contains(pin["ciphertextBlob"].as_str().unwrap())).count()
}

/// Moves all that a KMS key wrapped, once killed in the middle, and then again, which does nothing.
async fn move_all(drill: &Drill, user: &User<'_>, from: &Key, folder: &Path, is_killed: bool) {
    let shown = folder.display().to_string();
    let words = moves(from, &drill.new, &shown, &[]);
    let recorded = drill.records().await;
    let due = wrapped_by(&recorded, from).count();
    let mut written = 0;
    if is_killed {
        // With calls under way.
        drill.first().proxy.fail_rewraps_always(Fault::Delay(Duration::from_millis(150)));
        let some_are_done = async || manifests(folder).len() > 20;
        kill_once(user, &words, eventually(LONG, "some are moved", some_are_done)).await;
        drill.first().proxy.clear_faults();
        issue_elsewhere(drill.first());
        let files = manifests(folder);
        written = unrecorded(&files, &recorded);
        assert!(files.len() < due * 2 / 3 && written < due, "{} files, {written} of {due}", files.len());
    }
    let done = text(&runs(user, &words).await);
    assert!(done.starts_with(&format!("{} versions rewrapped by AWS KMS, ", due - written)), "{due} {written}: {done}");

    let (asked, state) = (drill.asked(), drill.state().await);
    let again = text(&runs(user, &words).await);
    assert!(again.starts_with("0 versions rewrapped by AWS KMS, every manifest is in "), "{again}");
    assert!(again.contains(", 0 of "), "{again}");
    assert!(drill.asked() == asked && drill.state().await == state, "a second run does nothing");
}

/// Asserts that what each version was, another version of its group still is, and that no group has two data keys.
fn assert_groups((before, old): (&Records, &Unwrapped), (moved, new): (&Records, &Unwrapped), key: &Key) {
    for ((namespace, kind, name), record) in moved {
        let place = |version| (namespace.clone(), *kind, name.clone(), version);
        let rewraps = Rewraps::of(record);
        let issued = &before[&(namespace.clone(), *kind, name.clone())];
        assert_eq!(to_json(&record[..issued.len()].to_vec()), to_json(issued), "{name}: the record grows only");
        assert_eq!(record.len(), 2 * issued.len() + 1, "{name}: one rewrap of each, and a new one");
        for version in issued.iter().map(|issued| issued.version) {
            assert_eq!(new[&place(version)], None, "{name}: version {version} has a disabled KMS key");
            let group: Vec<_> = rewraps.same_as(version).filter_map(|same| new[&place(same)].as_ref()).collect();
            assert_eq!(group, [old[&place(version)].as_ref().unwrap()], "{name}: version {version}");
        }
        let fresh: Vec<_> = record[issued.len()..].iter().filter(|issued| issued.rewrap_of.is_none()).collect();
        assert_eq!((fresh.len(), &fresh[0].key_id), (1, &key.arn), "{name}");
        assert!(new[&place(fresh[0].version)].is_some(), "{name}");
    }
}

/// Asserts that Git and the cluster agree: applying it asks KMS nothing, and changes no version and no Secret.
async fn assert_git_agrees(drill: &Drill, git: &Path) {
    let (asked, path) = (drill.asked(), git.display().to_string());
    let held = async || {
        let state = drill.state().await;
        let versions = |value: Value| if value.is_array() { value[2].clone() } else { value };
        state.into_iter().map(|(place, value)| (place, versions(value))).collect::<BTreeMap<_, _>>()
    };
    let (before, plane) = (held().await, &drill.first().plane);
    plane.kubectl(&["apply", "-R", "-f", &path]).await.unwrap();
    drill.ready().await;
    assert!(held().await == before, "the record or a Secret changed");
    assert_eq!(drill.asked(), asked);
    assert_eq!(plane.kubectl(&["diff", "-R", "-f", &path]).await, Ok(String::new()));
}

fn distinct(unwrapped: &Unwrapped) -> usize {
    unwrapped.values().flatten().collect::<BTreeSet<_>>().len()
}

#[tokio::test]
async fn everything_unwraps_after_the_old_kms_keys_are_gone() {
    let drill = Drill::new().await;
    let user = User::of(drill.first());
    let _operator = drill.operator();
    drill.issue().await;
    let (count, before) = (NAMESPACES * OBJECTS, drill.records().await);
    let (old, asked) = (drill.plaintexts(&before).await, drill.asked());
    let issued = old.len();
    assert_eq!((before.len(), distinct(&old), asked.issues), (count, issued, issued));
    issue_elsewhere(drill.first());

    let git = drill.folder("git");
    for (number, from) in drill.old.iter().enumerate() {
        let folder = drill.folder(&format!("from-{number}"));
        move_all(&drill, &user, from, &folder, number == 1).await;
        // A later folder is about what the object is then.
        for (path, _) in manifests(&folder) {
            fs::create_dir_all(git.join(&path).parent().unwrap()).unwrap();
            fs::copy(folder.join(&path), git.join(&path)).unwrap();
        }
    }
    assert_eq!(manifests(&git).len(), count);
    let moved = drill.asked();
    assert_eq!(moved.issues, issued + count, "a new version of each object");
    let repeated = moved.rewraps - issued;
    assert!(repeated <= 2 * CONCURRENT_MOVES, "{repeated}: only what was under way is called again");

    drill.set_enabled(false).await;
    let records = drill.records().await;
    let new = drill.plaintexts(&records).await;
    assert_groups((&before, &old), (&records, &new), &drill.new);
    assert_eq!(distinct(&new), issued + count);
    assert_git_agrees(&drill, &git).await;

    // The way back: what the first KMS key wrapped once is there already.
    drill.set_enabled(true).await;
    let (back, folder) = (&drill.old[0], drill.folder("back").display().to_string());
    let words = moves(&drill.new, back, &folder, &["--no-rotate"]);
    let there = wrapped_by(&before, back).count();
    for _ in 0..2 {
        runs(&user, &words).await;
        assert_eq!(drill.asked(), moved.and(0, issued + count - there));
    }
    drill.ready().await;
    let records = drill.records().await;
    let last = drill.plaintexts(&records).await;
    assert!(last.values().all(Option::is_some));
    assert_eq!(distinct(&last), issued + count);
    assert_eq!(wrapped_by(&records, back).count(), issued + count, "one version of each data key");
    for test in &drill.namespaces {
        let keys = test.keys().list(&ListParams::default()).await.unwrap().items;
        assert!(keys.iter().all(|key| key.spec.key_id.as_ref() == Some(&back.arn)));
        test.secrets_hold_the_record(&keys).await;
    }
    assert!(old.values().flatten().all(|plaintext| !user.saw(plaintext)));
}
