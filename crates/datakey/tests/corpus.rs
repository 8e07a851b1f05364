//! Replays the corpora of the fuzz targets, and some mutants of each file, without libFuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeSet, fs, path::Path};

#[path = "../fuzz/src/mutation.rs"]
mod mutation;
#[path = "../fuzz/src/properties/mod.rs"]
mod properties;

use properties::Reached;

const MUTANTS: u64 = 50;

fn corpora() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus"))
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

/// The files of a corpus. Each name is printed, so that the output of a failed test names the file.
fn files(target: &str) -> impl Iterator<Item = Vec<u8>> {
    let folder = corpora().join(target);
    names(&folder).into_iter().map(move |name| {
        println!("{target}/{name}");
        fs::read(folder.join(name)).unwrap()
    })
}

fn replay(target: &str, property: fn(&[u8]) -> Reached) {
    let deep = files(target).filter(|data| property(data) == Reached::All).count();
    assert!(deep > 0, "no file of {target} gets past the checks");
}

/// Changes one byte.
fn change(bytes: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    let at = rng.usize(..=bytes.len());
    match bytes.get_mut(at) {
        Some(byte) => *byte = rng.u8(b' '..=b'~'),
        None => bytes.push(rng.u8(..)),
    }
}

/// One byte anywhere: a length, an algorithm or a part of the key.
fn change_any(bytes: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = bytes.to_owned();
    let at = rng.usize(..bytes.len());
    bytes[at] = rng.u8(..);
    bytes
}

fn mutants(target: &str, property: fn(&[u8]) -> Reached) {
    let mut deep = 0;
    for file in files(target) {
        for seed in 0..MUTANTS {
            println!("mutant {seed}");
            let mut rng = fastrand::Rng::with_seed(seed);
            let mutant = mutation::mutate(&file, seed, &mut |bytes| change(bytes, &mut rng));
            deep += usize::from(property(&mutant) == Reached::All);
        }
    }
    assert!(deep > 0, "no mutant of {target} gets past the checks");
}

#[test]
fn every_corpus_has_a_test() {
    assert_eq!(names(corpora()), ["adoption", "class", "data_key", "key_id", "public_key"].map(str::to_owned).into());
}

#[test]
fn adoption() {
    replay("adoption", properties::adoption);
}

#[test]
fn adoption_of_mutants() {
    mutants("adoption", properties::adoption);
}

#[test]
fn class() {
    replay("class", properties::class);
}

#[test]
fn class_of_mutants() {
    mutants("class", properties::class);
}

#[test]
fn data_key() {
    replay("data_key", properties::data_key);
}

#[test]
fn data_key_of_mutants() {
    mutants("data_key", properties::data_key);
}

#[test]
fn key_id() {
    replay("key_id", properties::key_id);
}

#[test]
fn public_key() {
    replay("public_key", properties::public_key);
}

#[test]
fn public_key_of_mutants() {
    let mut rng = fastrand::Rng::with_seed(0);
    for file in files("public_key") {
        let mutants = (0..MUTANTS).map(|_| properties::public_key(&change_any(&file, &mut rng)));
        let reached: Vec<_> = mutants.collect();
        assert!(reached.contains(&Reached::All) && reached.contains(&Reached::Checks), "{reached:?}");
    }
}
