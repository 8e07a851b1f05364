//! The key files: what is in them, who may read them, and what their writing costs.

use std::{fs, os::unix::fs::MetadataExt as _};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde_json::{Value, json};
use testbed::{
    commands::end_of,
    proxy::{DECRYPT, Fault},
};

use super::{Workload, assert_ended, assert_without};
use crate::harness::SOON;

#[tokio::test]
async fn key_files_follow_a_rotation() {
    let workload = Workload::new("unwrap-files").await;
    let ended = workload.run("file", &[]).await;
    assert_ended(&ended, 0, "wrote the keys of version 1 to ");
    let first = workload.plaintext(1).await;
    assert_eq!(workload.read("v1").as_ref(), Some(&first));
    assert_eq!(workload.read("current").as_ref(), Some(&first));
    assert_eq!(workload.read("version").as_deref(), Some(&b"1"[..]));
    assert_eq!(fs::metadata(workload.file("v1")).unwrap().mode() & 0o7777, 0o400);
    assert_eq!(workload.calls(), 1);

    workload.rotate(2).await;
    let ended = workload.run("file", &[]).await;
    assert_ended(&ended, 0, "wrote the keys of version 1, 2 to ");
    let second = workload.plaintext(2).await;
    assert_ne!(first, second);
    assert_eq!((workload.read("v1").as_ref(), workload.read("v2").as_ref()), (Some(&first), Some(&second)));
    assert_eq!(workload.read("current").as_ref(), Some(&second));
    assert_eq!(workload.calls(), 3, "one call for each version");
    for key in [&first, &second] {
        assert_without(key, &[ended.err.as_bytes(), &ended.out]);
    }
}

#[tokio::test]
async fn formats_have_the_same_key() {
    let workload = Workload::new("unwrap-formats").await;
    let key = workload.plaintext(1).await;
    for (format, expected) in [
        ("hex", base16ct::lower::encode_string(&key)),
        ("base64", BASE64_STANDARD.encode(&key)),
        ("jwk", format!(r#"{{"kty":"oct","k":"{}"}}"#, BASE64_URL_SAFE_NO_PAD.encode(&key))),
    ] {
        let name = format!("--name=key-{{version}}.{format}");
        let ended = workload.run("file", &["--format", format, &name, "--mode=0440"]).await;
        assert_ended(&ended, 0, "wrote");
        let file = format!("key-1.{format}");
        assert_eq!(workload.read(&file), Some(expected.into_bytes()), "{format}");
        assert_eq!(fs::metadata(workload.file(&file)).unwrap().mode() & 0o7777, 0o440);
        assert_eq!(workload.read("v1"), None);
    }
}

#[tokio::test]
async fn all_versions_are_asked_for_at_once() {
    let workload = Workload::new("unwrap-at-once").await;
    for version in 2..=4 {
        workload.rotate(version).await;
    }
    // No call is answered before all have come.
    workload.test.proxy.fail_decrypt_always(Fault::Hang);
    let run = tokio::spawn(end_of(workload.command("check", &["--timeout=5s"])));
    testbed::eventually(SOON, "four calls", async || workload.calls() == 4).await;
    assert_ended(&run.await.unwrap(), 75, "4 of 4 versions were not unwrapped");
    assert_eq!(workload.calls(), 4, "--retries=0");
}

#[tokio::test]
async fn selected_versions_alone_are_asked_for() {
    let workload = Workload::new("unwrap-selected").await;
    workload.rotate(2).await;
    workload.rotate(3).await;
    for (versions, files) in [("current", &["v3"][..]), ("1,3", &["v1", "v3"]), ("2", &["v2"])] {
        let before = workload.calls();
        assert_ended(&workload.run("file", &["--versions", versions]).await, 0, "wrote");
        assert_eq!(workload.calls() - before, files.len(), "{versions}");
        for file in ["v1", "v2", "v3"] {
            assert_eq!(workload.read(file).is_some(), files.contains(&file), "{versions}: {file}");
        }
        let last = files[files.len() - 1];
        assert_eq!(workload.read("current"), workload.read(last), "{versions}");
    }
    let ended = workload.run("file", &["--versions", "4"]).await;
    assert_ended(&ended, 75, "no version 4 yet");
    assert!(workload.read("v2").is_some(), "what was there stays");
}

#[tokio::test]
async fn check_compares_plaintexts_without_showing_them() {
    let workload = Workload::new("unwrap-check").await;
    workload.rotate(2).await;
    let ended = workload.run("check", &[]).await;
    assert_eq!((ended.code, ended.err.as_str(), ended.out.len()), (0, "", 0));
    assert_ended(&workload.run("check", &["--same", "1", "2"]).await, 2, "versions 1 and 2 have different plaintexts");
    assert_ended(&workload.run("check", &["--same", "1", "3"]).await, 64, "version 3 is not there");
    let mut data = workload.test.data("orders").await;
    for entry in ["ciphertextBlob", "keyId", "encryptionContext"] {
        data.insert(format!("{entry}.v2"), data[&format!("{entry}.v1")].clone());
    }
    workload.mount.show(&data);
    assert_eq!(workload.run("check", &["--same", "1", "2"]).await.code, 0);
}

#[tokio::test]
async fn call_has_what_the_arguments_say_and_no_more() {
    let workload = Workload::new("unwrap-call").await;
    workload.run("check", &[]).await;
    workload.test.issue("plain", &json!({ "encryptionContext": {} })).await;
    workload.mount("plain").await;
    let none = format!("--trust={} none", workload.test.key.arn);
    let ended = end_of(workload.command_with("check", &[&none, "--key-spec=AES_256"])).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let calls: Vec<Value> = workload.test.proxy.requests_of(DECRYPT).into_iter().map(|call| call.body).collect();
    let [with, without] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(with["KeyId"], workload.test.key.arn.as_str());
    assert_eq!(with["EncryptionContext"], json!({ "purpose": "orders" }));
    // For policies, an empty encryption context and none differ.
    assert_eq!(without.get("EncryptionContext"), None);
}
