//! A data key that was moved to another KMS key: its first version is still unwrapped when the first KMS key is gone.

use testbed::{commands::end_of, eventually, kms::Key, proxy::Fault};

use super::{ORDERS, Workload, assert_ended};
use crate::{
    harness::{Data, SOON},
    key_pairs::pairs,
    plugin::{User, text},
    unwrap_manifests::{arguments, objects, pods},
};

/// What is printed of version 1 when version 2 was unwrapped.
const INSTEAD: &str = "version 1 was unwrapped as version 2, which has the same key by rewrapOf: ";

/// A workload whose data key was moved.
struct Moved {
    workload: Workload,
    /// The KMS key of version 2.
    other: Key,
    /// The Secret with both versions.
    data: Data,
    /// The plaintext of both versions.
    key: Vec<u8>,
    /// The argument that trusts the KMS key of version 2.
    trust: String,
}

// === impl Moved ===

impl Moved {
    /// Issues version 1, and mounts the Secret with version 2, a rewrap of it.
    async fn new(name: &str) -> Self {
        let workload = Workload::new(name).await;
        let (other, key) = (workload.test.kms.key().await, workload.plaintext(1).await);
        let data = workload.test.rewrapped(&workload.test.data(ORDERS).await, &other).await;
        workload.mount.show(&data);
        let trust = format!("--trust={} purpose={ORDERS}", other.arn);
        Self { workload, other, data, key, trust }
    }

    async fn disable(&self, key: &Key) {
        self.workload.test.kms.client().disable_key().key_id(&key.id).send().await.unwrap();
    }

    async fn enable(&self, key: &Key) {
        self.workload.test.kms.client().enable_key().key_id(&key.id).send().await.unwrap();
    }

    /// Changes an entry of the mounted Secret.
    fn set(&self, entry: &str, value: &[u8]) {
        let mut data = self.data.clone();
        data.insert(entry.to_owned(), value.to_vec());
        self.workload.mount.show(&data);
    }
}

#[tokio::test]
async fn rewrap_is_unwrapped_when_the_kms_key_is_gone() {
    let moved = Moved::new("unwrap-rewrap").await;
    let workload = &moved.workload;
    // While it is there, each version is unwrapped by its own.
    assert_ended(&workload.run("file", &[&moved.trust]).await, 0, "wrote the keys of version 1, 2");
    assert_eq!(workload.calls(), 2);
    moved.disable(&workload.test.key).await;
    let ended = workload.run("file", &[&moved.trust]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let lines: Vec<_> = ended.err.lines().collect();
    assert!(lines[0].contains(INSTEAD) && lines[0].contains("DisabledException"), "{ended:?}");
    assert!(lines.len() == 2 && lines[1].contains("wrote the keys of version 1, 2"), "{ended:?}");
    for file in ["v1", "v2", "current"] {
        assert_eq!(workload.read(file).as_ref(), Some(&moved.key), "{file}");
    }
    // Version 2 is not selected, and the other way round.
    let ended =
        end_of(workload.command("exec", &[&moved.trust, "--versions=1", "--", "cat", "{DATAKEY_V1_FILE}"])).await;
    assert_eq!((ended.code, ended.out.as_slice()), (0, &moved.key[..]), "{ended:?}");
    moved.enable(&workload.test.key).await;
    moved.disable(&moved.other).await;
    let ended = workload.run("check", &[&moved.trust, "--versions=2"]).await;
    assert_ended(&ended, 0, "version 2 was unwrapped as version 1, which has the same key");
}

#[tokio::test]
async fn deleted_and_denied_kms_keys_are_gone_and_others_are_not() {
    let moved = Moved::new("unwrap-rewrap-causes").await;
    let (workload, v1) = (&moved.workload, &[moved.trust.as_str(), "--versions=1"]);
    for code in ["NotFoundException", "KMSInvalidStateException", "AccessDeniedException", "InvalidKeyUsageException"] {
        workload.test.proxy.clear_faults();
        workload.test.proxy.fail_next_decrypts(1, Fault::code(code));
        let ended = workload.run("check", v1).await;
        assert_ended(&ended, 0, INSTEAD);
        assert!(ended.err.contains(code), "{ended:?}");
    }
    for (code, exit) in [
        ("InvalidCiphertextException", 2),
        ("IncorrectKeyException", 2),
        ("ThrottlingException", 75),
        ("KMSInternalException", 75),
        // No code of AWS KMS today.
        ("AnotherException", 75),
    ] {
        let calls = workload.calls();
        workload.test.proxy.clear_faults();
        workload.test.proxy.fail_next_decrypts(1, Fault::code(code));
        assert_ended(&workload.run("check", v1).await, exit, code);
        assert_eq!(workload.calls(), calls + 1, "{code}");
    }
    workload.test.proxy.clear_faults();
    moved.disable(&workload.test.key).await;
    moved.disable(&moved.other).await;
    let ended = workload.run("check", v1).await;
    assert_ended(&ended, 4, "version 1: AWS KMS refuses: DisabledException");
    assert!(ended.err.contains("; 1 rewrap was tried, too"), "{ended:?}");
}

#[tokio::test]
async fn rewrap_under_a_kms_key_that_is_not_trusted_is_not_tried() {
    let moved = Moved::new("unwrap-rewrap-trust").await;
    let workload = &moved.workload;
    moved.disable(&workload.test.key).await;
    assert_ended(&workload.run("check", &["--versions=1"]).await, 4, "version 1: AWS KMS refuses: DisabledException");
    assert_eq!(workload.calls(), 1);
    let wrong = format!("--trust={} purpose=invoices", moved.other.arn);
    assert_ended(&workload.run("check", &["--versions=1", &wrong]).await, 4, "DisabledException");
    assert_eq!(workload.calls(), 2);
    // The new KMS key alone is trusted, as at the end of a move.
    let only = [moved.trust.as_str(), "--key-spec=AES_256"];
    assert_ended(&end_of(workload.command_with("check", &only)).await, 0, "which no --trust names");
    assert_eq!(workload.calls(), 4, "one for each version, and none under the KMS key that is not trusted");
    let neither = [&format!("--trust={} none", moved.other.arn), "--key-spec=AES_256", "--versions=1"];
    let ended = end_of(workload.command_with("check", &neither)).await;
    assert_ended(&ended, 2, "names the KMS key and encryption context of its rewraps (version 2) either");
    assert_eq!(workload.calls(), 4);
}

#[tokio::test]
async fn another_data_key_is_no_rewrap_where_versions_are_pinned() {
    let moved = Moved::new("unwrap-rewrap-pins").await;
    let workload = &moved.workload;
    let pin = |version: i32, of: i32| {
        let blob = &moved.data[&format!("ciphertextBlob.v{of}")];
        format!("--blob-sha256={version}={}", datakey::secret::sha256(blob))
    };
    let pinned = |pins: &[&str]| {
        let arguments = [&[moved.trust.as_str()], pins].concat();
        end_of(workload.command("check", &arguments))
    };
    let own = [pin(1, 1), pin(2, 2)];
    let own = own.each_ref().map(String::as_str);
    moved.disable(&workload.test.key).await;
    assert_ended(&pinned(&own).await, 4, "version 1: AWS KMS refuses: DisabledException");
    assert_ended(&pinned(&[&own[..], &[&pin(1, 2)]].concat()).await, 0, INSTEAD);
    moved.enable(&workload.test.key).await;

    // A user who can write the Secret claims it of another data key, and spoils what names the own one.
    for (entry, value) in [("keyId.v1", &b"arn"[..]), ("encryptionContext.v1", b"{}"), ("ciphertextBlob.v1", b"x")] {
        moved.set(entry, value);
        let calls = workload.calls();
        let ended = pinned(&own).await;
        assert_ended(&ended, 2, "no --blob-sha256 of version 1 names one of its rewraps (version 2)");
        assert_eq!(workload.calls(), calls, "{entry}");
    }
    moved.set("keyId.v1", moved.other.arn.as_bytes());
    workload.test.proxy.refuse_decrypt_with(&moved.other.arn);
    assert_eq!(pinned(&own).await.code, 2, "a trusted KMS key that did not wrap it");
    workload.test.proxy.clear_faults();
    moved.set("rewrapOf.v2", b"2");
    assert_ended(&pinned(&own).await, 2, "rewrapOf.v2: it is no number of an earlier version");
}

#[tokio::test]
async fn wrapped_key_that_stands_for_both_proves_nothing() {
    let moved = Moved::new("unwrap-rewrap-same").await;
    let workload = &moved.workload;
    assert_eq!(workload.run("check", &[&moved.trust, "--same", "1", "2"]).await.code, 0);
    moved.disable(&workload.test.key).await;
    assert_eq!(workload.run("check", &[&moved.trust]).await.code, 0);
    let ended = workload.run("check", &[&moved.trust, "--same", "1", "2"]).await;
    assert_ended(&ended, 4, "version 1: AWS KMS refuses: DisabledException");
}

#[tokio::test]
async fn watch_takes_a_rewrap_that_appears_later() {
    let moved = Moved::new("unwrap-rewrap-watch").await;
    let workload = &moved.workload;
    workload.mount(ORDERS).await;
    let watch = workload.watch(&[&moved.trust]);
    eventually(SOON, "the key is there", async || workload.read("v1").is_some()).await;
    moved.disable(&workload.test.key).await;
    let mut without = moved.data.clone();
    without.remove("rewrapOf.v2");
    workload.mount.show(&without);
    eventually(SOON, "it is reported", async || watch.log().contains("DisabledException")).await;
    assert_eq!((workload.read("v1").as_ref(), workload.read("v2")), (Some(&moved.key), None));
    workload.mount.show(&moved.data);
    eventually(SOON, "both are there", async || workload.read("v2").is_some()).await;
    assert_eq!((workload.read("v1").as_ref(), workload.read("v2").as_ref()), (Some(&moved.key), Some(&moved.key)));
    eventually(SOON, "it is reported, too", async || watch.log().contains(INSTEAD)).await;
    drop(watch);

    // With the own wrapped key back, a set that another one gave is made again: the claim may have been false.
    let arguments = [moved.trust.as_str(), "--versions=1"];
    let mut twin = moved.data.clone();
    workload
        .test
        .issue("twin", &serde_json::json!({ "keyId": moved.other.arn, "encryptionContext": { "purpose": ORDERS } }))
        .await;
    twin.insert("ciphertextBlob.v2".to_owned(), workload.test.data("twin").await["ciphertextBlob.v1"].clone());
    workload.mount.show(&twin);
    assert_eq!(workload.run("file", &arguments).await.code, 0);
    assert_ne!(workload.read("v1").as_ref(), Some(&moved.key));
    moved.enable(&workload.test.key).await;
    workload.mount(ORDERS).await;
    let _watch = workload.watch(&arguments);
    eventually(SOON, "it is the own key", async || workload.read("v1").as_ref() == Some(&moved.key)).await;
}

#[tokio::test]
async fn private_key_of_a_rewrap_must_fit_the_public_key() {
    let workload = Workload::without_key("unwrap-rewrap-pair").await;
    let spec = serde_json::json!({ "keyPairSpec": "ECC_NIST_P256", "encryptionContext": { "purpose": "tokens" } });
    for name in ["tokens", "twin"] {
        pairs(&workload.test).issue(name, &spec).await;
    }
    let other = workload.test.kms.key().await;
    let [right, twin] = ["tokens", "twin"].map(|name| {
        let (test, other) = (&workload.test, &other);
        async move { test.rewrapped(&test.data(name).await, other).await }
    });
    let (right, twin) = (right.await, twin.await);
    let trust = [&workload.test.key.arn, &other.arn].map(|arn| format!("--trust={arn} purpose=tokens"));
    let arguments = [&trust[0], &trust[1], "--key-pair-spec=ECC_NIST_P256", "--versions=1"];
    let file = || end_of(workload.command_with("file", &arguments));
    workload.test.kms.client().disable_key().key_id(&workload.test.key.id).send().await.unwrap();
    workload.mount.show(&right);
    let ended = file().await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.err.contains(INSTEAD), "{ended:?}");
    let written = workload.read("v1");
    let mut forged = right.clone();
    forged.insert("ciphertextBlob.v2".to_owned(), twin["ciphertextBlob.v2"].clone());
    workload.mount.show(&forged);
    assert_ended(&file().await, 2, "version 1, unwrapped as version 2: ");
    assert_eq!(workload.read("v1"), written);
}

const MANIFEST: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: app
spec:
  containers:
  - name: app
    image: app
    command: [/app]
";

/// The arguments that `inject` gives `datakey-unwrap`, without the command and the folders of the pod.
async fn injected(workload: &Workload, flags: &[&str]) -> Vec<String> {
    let file = workload.test.plane.workdir().file(&format!("{}-app.yaml", workload.test.namespace));
    std::fs::write(&file, MANIFEST).unwrap();
    let file = file.display().to_string();
    let words = [&["inject", ORDERS, "-f", &file, "--image=registry.example.com/datakey-unwrap:1"], flags].concat();
    let printed = User::of(&workload.test).ends(0, &words).await;
    let [(_, pod)] = &pods(&objects(&text(&printed)))[..] else { panic!("one pod: {printed:?}") };
    let [list] = &arguments(pod)[..] else { panic!("one container: {pod}") };
    let is_elsewhere = |argument: &&String| ["file", "--from", "--to"].iter().any(|other| argument.starts_with(other));
    list.iter().filter(|argument| !is_elsewhere(argument)).cloned().collect()
}

#[tokio::test]
async fn injected_arguments_unwrap_before_and_after_a_move() {
    let workload = Workload::new("unwrap-rewrap-injected").await;
    let (other, key) = (workload.test.kms.key().await, workload.plaintext(1).await);
    let moved = workload.test.rewrapped(&workload.test.data(ORDERS).await, &other).await;
    let file = async |arguments: &[String]| {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        end_of(workload.command_with("file", &arguments)).await
    };
    let [without, with] = [injected(&workload, &[]).await, injected(&workload, &["--also-key-id", &other.arn]).await];
    for arguments in [&without, &with] {
        assert_ended(&file(arguments).await, 0, "wrote the keys of version 1 to ");
    }
    workload.mount.show(&moved);
    assert_ended(&file(&with).await, 0, "wrote the keys of version 1, 2");
    workload.test.kms.client().disable_key().key_id(&workload.test.key.id).send().await.unwrap();
    let ended = file(&with).await;
    assert!(ended.code == 0 && ended.err.contains(INSTEAD), "{ended:?}");
    assert_eq!((workload.read("v1").as_ref(), workload.read("v2").as_ref()), (Some(&key), Some(&key)));
    // Without the flag the new KMS key is not trusted, and the first one is disabled.
    assert_ended(&file(&without).await, 4, "DisabledException");
}
