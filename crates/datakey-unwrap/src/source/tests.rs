use datakey::fixtures::{ARN, issued};
use tempfile::TempDir;

use super::*;
use crate::{
    ended::Ended,
    fixtures::{mounted, remove, set},
};

fn refused(folder: &TempDir) -> Failure {
    Source::read(folder.path()).unwrap_err()
}

#[test]
fn mounted_secret_is_read_whole() {
    let folder = mounted(&[1, 2, 10]);
    let source = Source::read(folder.path()).unwrap();
    assert_eq!(source.current, Some(10));
    assert_eq!(source.versions.keys().copied().collect::<Vec<_>>(), [1, 2, 10]);
    let wrapped = &source.versions[&2];
    assert_eq!(wrapped.blob, issued(2).ciphertext_blob.0);
    assert_eq!(wrapped.claim.as_ref().unwrap().key_arn, ARN);
    assert_eq!(wrapped.claim.as_ref().unwrap().context["purpose"], "orders");
}

#[test]
fn rewraps_are_read() {
    let folder = mounted(&[1, 2, 3]);
    assert_eq!(Source::read(folder.path()).unwrap().rewraps.same_as(1).count(), 0);
    set(&folder, "rewrapOf.v3", "1");
    // The plain entry is of the current version, and one without its version is none.
    set(&folder, "rewrapOf", "1");
    set(&folder, "rewrapOf.v4", "2");
    let rewraps = Source::read(folder.path()).unwrap().rewraps;
    assert_eq!(rewraps.same_as(1).collect::<Vec<_>>(), [3]);
    assert_eq!(rewraps.same_as(2).count(), 0);
}

#[test]
fn entries_outside_the_link_are_read_where_there_is_none() {
    let folder = mounted(&[1]);
    assert_eq!(Source::read(&folder.path().join("..data")), Source::read(folder.path()));
}

#[test]
fn file_has_wrapped_bytes_or_an_export() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("blob");
    fs::write(&file, b"wrapped").unwrap();
    let source = Source::read(&file).unwrap();
    assert_eq!((source.current, source.versions[&1].claim.clone()), (None, None));
    assert_eq!(source.versions[&1].blob, b"wrapped");
    fs::write(&file, format!(r#"{{"version": 3, "ciphertextBlob": "d3JhcHBlZA==", "keyId": "{ARN}", "more": 1}}"#))
        .unwrap();
    let source = Source::read(&file).unwrap();
    assert_eq!(source.current, Some(3));
    assert_eq!(source.versions[&3].blob, b"wrapped");
    assert_eq!(source.versions[&3].claim.as_ref().unwrap().key_arn, ARN);
}

#[test]
fn changed_entries_are_a_mismatch() {
    type Change = fn(&TempDir);
    let changes: [(Change, &str); 15] = [
        (|folder| remove(folder, "keyId.v1"), "keyId.v1: the Secret has no such entry"),
        (|folder| remove(folder, "version"), "version: the Secret has no such entry"),
        (|folder| set(folder, "version", "1.5"), "no number"),
        (|folder| set(folder, "version", "01"), "no number"),
        (|folder| set(folder, "ciphertextBlob.v1", ""), "1 to 6144 bytes"),
        (|folder| set(folder, "ciphertextBlob.v1", vec![1; MAX_BLOB + 1]), "more than 6144 bytes"),
        (|folder| set(folder, "encryptionContext.v1", "purpose=orders"), "no JSON object of strings"),
        (|folder| set(folder, "encryptionContext.v1", r#"{"purpose": 1}"#), "no JSON object of strings"),
        (|folder| set(folder, "keyId.v1", b"\xff"), "not text"),
        (|folder| set(folder, "publicKey.v1", "no PEM"), "not in PEM"),
        (|folder| set(folder, "rewrapOf.v2", "2"), "rewrapOf.v2: it is no number of an earlier version"),
        (|folder| set(folder, "rewrapOf.v2", "3"), "no number of an earlier version"),
        (|folder| set(folder, "rewrapOf.v2", "01"), "no number of an earlier version"),
        (|folder| set(folder, "rewrapOf.v2", "1\n"), "no number of an earlier version"),
        (|folder| set(folder, "rewrapOf.v1", "0"), "no number of an earlier version"),
    ];
    for (change, part) in changes {
        let folder = mounted(&[1, 2]);
        change(&folder);
        let failure = refused(&folder);
        assert_eq!(failure.ended, Ended::Mismatch, "{failure:?}");
        assert!(failure.why.contains(part), "{failure:?}");
    }
}

#[test]
fn what_is_no_file_is_not_opened() {
    let folder = mounted(&[1]);
    remove(&folder, "keyId.v1");
    let entry = folder.path().join("..data/keyId.v1");
    rustix::fs::mkfifoat(rustix::fs::CWD, &entry, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    assert!(refused(&folder).why.contains("no regular file"));
}

#[test]
fn what_is_not_there_yet_can_come_later() {
    let folder = TempDir::new().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("missing")] {
        let failure = Source::read(&path).unwrap_err();
        assert_eq!(failure.ended, Ended::TryAgain, "{failure:?}");
    }
}

#[test]
fn folder_that_is_replaced_while_it_is_read_is_read_again() {
    let now = std::cell::Cell::new(0);
    let read = |change: bool| {
        let mut read = Vec::new();
        let result = settled(
            || Ok(now.get()),
            |folder| {
                read.push(*folder);
                // A part of a folder can look whole.
                if change && read.len() < 3 {
                    now.set(now.get() + 1);
                }
                Ok(*folder)
            },
        );
        (result.unwrap(), read)
    };
    assert_eq!(read(false), (0, vec![0]));
    assert_eq!(read(true), (2, vec![0, 1, 2]));
    let restless = settled(|| Ok(now.replace(now.get() + 1)), |_| Ok(())).unwrap_err();
    assert_eq!(restless.ended, Ended::TryAgain);
}

#[test]
fn json_that_is_no_export_is_not_unwrapped() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("export");
    for (text, code) in [
        ("[]", Ended::Usage),
        (r#"{"version": 1}"#, Ended::Usage),
        (&format!(r#"{{"version": 0, "ciphertextBlob": "eA==", "keyId": "{ARN}"}}"#), Ended::Mismatch),
        (&format!(r#"{{"version": 1, "ciphertextBlob": "x", "keyId": "{ARN}"}}"#), Ended::Mismatch),
    ] {
        fs::write(&file, text).unwrap();
        assert_eq!(Source::read(&file).unwrap_err().ended, code, "{text}");
    }
}

#[test]
fn names_that_are_no_version_are_ignored() {
    let folder = mounted(&[1]);
    for entry in
        ["ciphertextBlob.v01", "ciphertextBlob.v+2", "ciphertextBlob.v1.old", "ciphertextBlob.v99999999999", "other"]
    {
        set(&folder, entry, "x");
    }
    assert_eq!(Source::read(folder.path()).unwrap().versions.len(), 1);
}

#[test]
fn more_versions_than_a_data_key_has_are_refused() {
    let folder = mounted(&[1]);
    for version in 2..66 {
        set(&folder, &format!("ciphertextBlob.v{version}"), "x");
    }
    assert_eq!(refused(&folder).ended, Ended::Mismatch);
}

#[test]
fn revision_changes_with_the_link_of_the_kubelet() {
    let folder = TempDir::new().unwrap();
    let link = folder.path().join("..data");
    std::os::unix::fs::symlink("..1", &link).unwrap();
    let before = revision(folder.path());
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("..2", &link).unwrap();
    assert!(!before.is_empty() && before != revision(folder.path()));
}
