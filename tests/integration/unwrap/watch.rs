//! `watch`: it follows rotations, keeps what it has through an outage, and ends when it should.

use std::fs;

use serde_json::json;
use testbed::{commands::end_of, eventually, process::Process, proxy::Fault};

use super::{Workload, assert_without};
use crate::harness::SOON;

// === impl Workload ===

impl Workload {
    /// Waits until a key file is there.
    async fn appears(&self, name: &str) {
        eventually(SOON, name, async || self.read(name).is_some()).await;
    }

    async fn ready(&self) -> i32 {
        let mut command = tokio::process::Command::new(testbed::unwrap());
        command.arg("ready").arg("--to").arg(self.memory.path());
        end_of(command).await.code
    }
}

async fn ends_with(mut watch: Process, code: i32) -> String {
    assert_eq!(watch.ended().await, code, "{}", watch.log());
    watch.log()
}

#[tokio::test]
async fn watch_follows_rotations_until_a_signal_ends_it() {
    let workload = Workload::new("unwrap-watch").await;
    let watch = workload.watch(&[]);
    workload.appears("current").await;
    assert_eq!(workload.read("current"), Some(workload.plaintext(1).await));
    assert_eq!(workload.ready().await, 0);
    workload.rotate(2).await;
    workload.appears("v2").await;
    assert_eq!(workload.read("current"), Some(workload.plaintext(2).await));
    assert_eq!(workload.read("v1"), Some(workload.plaintext(1).await));
    watch.signal("TERM");
    let log = ends_with(watch, 0).await;
    assert!(workload.read("v2").is_some(), "the files stay for the other containers");
    assert_without(&workload.plaintext(2).await, &[log.as_bytes()]);
    assert_eq!(workload.calls(), 3);
}

#[tokio::test]
async fn files_stay_while_kms_is_away() {
    let workload = Workload::new("unwrap-away").await;
    let watch = workload.watch(&[]);
    workload.appears("v1").await;
    for fault in [Fault::code("KMSInternalException"), Fault::code("AccessDeniedException"), Fault::Reset] {
        workload.test.proxy.fail_decrypt_always(fault);
        let (version, calls) = (workload.test.data("orders").await["version"].clone(), workload.calls());
        let next = String::from_utf8(version).unwrap().parse::<i32>().unwrap() + 1;
        workload.rotate(next).await;
        eventually(SOON, "the rotation is seen", async || workload.calls() > calls).await;
        assert_eq!(workload.read("version"), Some((next - 1).to_string().into_bytes()));
        eventually(SOON, "it tries again", async || workload.calls() > calls + usize::try_from(next).unwrap()).await;
        assert_eq!(workload.ready().await, 0);
        workload.test.proxy.clear_faults();
        workload.appears(&format!("v{next}")).await;
    }
    watch.signal("INT");
    let log = ends_with(watch, 0).await;
    for words in ["KMSInternalException", "AccessDeniedException", "could not be called"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let lines: Vec<_> = log.lines().collect();
    assert!(lines.windows(2).all(|pair| pair[0] != pair[1]), "a reason is printed again: {log}");
}

#[tokio::test]
async fn start_waits_for_kms_and_for_the_secret() {
    let workload = Workload::without_key("unwrap-start").await;
    let watch = workload.watch(&[]);
    eventually(SOON, "it says what is missing", async || watch.log().contains("has no entry ciphertextBlob.v1")).await;
    assert_eq!(workload.ready().await, 75);
    workload.test.proxy.fail_decrypt_always(Fault::code("ThrottlingException"));
    workload.test.issue("orders", &json!({ "encryptionContext": { "purpose": "orders" } })).await;
    workload.mount("orders").await;
    eventually(SOON, "KMS is asked", async || workload.calls() > 0).await;
    assert_eq!((workload.ready().await, workload.read("v1")), (75, None));
    workload.test.proxy.clear_faults();
    workload.appears("v1").await;
    assert_eq!(workload.ready().await, 0);
}

#[tokio::test]
async fn watch_takes_over_what_file_wrote() {
    let workload = Workload::new("unwrap-take-over").await;
    assert_eq!(workload.run("file", &[]).await.code, 0);
    let set = fs::read_link(workload.file("..data")).unwrap();
    let watch = workload.watch(&[]);
    workload.rotate(2).await;
    workload.appears("v2").await;
    assert_eq!(workload.calls(), 3, "one by file, two after the rotation");
    assert_ne!(fs::read_link(workload.file("..data")).unwrap(), set);
    watch.signal("TERM");
    ends_with(watch, 0).await;

    // With other settings, the files are others.
    let watch = workload.watch(&["--format=hex"]);
    eventually(SOON, "the format is hex", async || workload.read("v1").is_some_and(|key| key.len() == 64)).await;
    assert_eq!(workload.calls(), 5);
    drop(watch);
}

#[tokio::test]
async fn replaced_secret_ends_watch_and_the_files_stay() {
    let workload = Workload::new("unwrap-watch-replaced").await;
    workload.test.issue("invoices", &json!({ "encryptionContext": { "purpose": "invoices" } })).await;
    let watch = workload.watch(&[]);
    workload.appears("v1").await;
    workload.mount("invoices").await;
    let log = ends_with(watch, 2).await;
    assert!(log.contains("the Secret was changed"), "{log}");
    assert_eq!(workload.read("v1"), Some(workload.plaintext(1).await));
    // It does not start again with it, either.
    let log = ends_with(workload.watch(&[]), 2).await;
    assert_eq!(log.lines().filter(|line| line.contains("the Secret was changed")).count(), 2, "{log}");

    // What only KMS can see is seen by the process that calls it.
    let mut forged = workload.test.data("orders").await;
    forged.insert("ciphertextBlob.v1".into(), workload.test.data("invoices").await["ciphertextBlob.v1"].clone());
    workload.mount.show(&forged);
    let log = ends_with(workload.watch(&[]), 2).await;
    assert!(log.contains("InvalidCiphertextException"), "{log}");
    assert_eq!(workload.read("v1"), Some(workload.plaintext(1).await));
}

#[tokio::test]
async fn files_that_are_removed_come_back() {
    let workload = Workload::new("unwrap-removed").await;
    let _watch = workload.watch(&[]);
    for name in ["current", "v1", "..data/v1"] {
        eventually(SOON, "ready", async || workload.ready().await == 0).await;
        fs::remove_file(workload.file(name)).unwrap();
        workload.appears(name).await;
    }
}

#[tokio::test]
async fn killed_process_is_reported_and_run_again() {
    let workload = Workload::new("unwrap-killed").await;
    workload.test.proxy.fail_decrypt_always(Fault::Hang);
    let watch = workload.watch(&["--timeout=1m"]);
    eventually(SOON, "KMS is asked", async || workload.calls() == 1).await;
    let children = format!("/proc/{0}/task/{0}/children", watch.pid());
    let child = fs::read_to_string(children).unwrap();
    let kill = tokio::process::Command::new("kill").args(["-KILL", child.trim()]).status().await.unwrap();
    assert!(kill.success());
    eventually(SOON, "it is reported", async || watch.log().contains("its memory limit may be too small")).await;
    workload.test.proxy.clear_faults();
    workload.appears("v1").await;
}

#[tokio::test]
async fn refusal_at_the_start_ends_watch() {
    let workload = Workload::new("unwrap-watch-refused").await;
    for (code, exit) in [("AccessDeniedException", 3), ("DisabledException", 4)] {
        workload.test.proxy.fail_decrypt_always(Fault::code(code));
        let log = ends_with(workload.watch(&[]), exit).await;
        assert!(log.contains(code), "{log}");
    }
    assert_eq!(workload.ready().await, 75);
}
