//! A user who can write the Secret cannot choose the key. The KMS server of the tests decrypts what was changed to other bytes,
//! so what AWS KMS refuses is refused by the proxy here; the rest is refused by the program itself.

use serde_json::json;
use testbed::proxy::Fault;

use super::{ORDERS, Workload, answer, assert_ended};

#[tokio::test]
async fn secret_of_another_data_key_is_refused_without_a_call() {
    let workload = Workload::new("unwrap-replaced").await;
    workload.test.issue("invoices", &json!({ "encryptionContext": { "purpose": "invoices" } })).await;
    workload.mount("invoices").await;
    let ended = workload.run("file", &[]).await;
    assert_ended(&ended, 2, r#"version 1 has the encryption context {"purpose":"invoices"}"#);
    let other = workload.test.kms.key().await;
    workload.test.issue("elsewhere", &json!({ "keyId": other.arn, "encryptionContext": { "purpose": ORDERS } })).await;
    workload.mount("elsewhere").await;
    assert_ended(&workload.run("file", &[]).await, 2, "which no --trust names");
    assert_eq!((workload.calls(), workload.read("v1")), (0, None));
}

#[tokio::test]
async fn wrapped_key_under_another_name_is_refused_by_kms() {
    let workload = Workload::new("unwrap-forged").await;
    workload.test.issue("invoices", &json!({ "encryptionContext": { "purpose": "invoices" } })).await;
    let mut forged = workload.test.data(ORDERS).await;
    forged.insert("ciphertextBlob.v1".into(), workload.test.data("invoices").await["ciphertextBlob.v1"].clone());
    workload.mount.show(&forged);
    assert_ended(&workload.run("file", &[]).await, 2, "InvalidCiphertextException");
    workload.mount(ORDERS).await;
    workload.test.proxy.refuse_decrypt_with(&workload.test.key.arn);
    assert_ended(&workload.run("file", &[]).await, 2, "IncorrectKeyException");
    assert_eq!(workload.read("v1"), None);
}

#[tokio::test]
async fn data_key_of_another_length_is_refused() {
    let workload = Workload::new("unwrap-short").await;
    for (name, spec) in
        [("short", json!({ "keySpec": "AES_128" })), ("byte", json!({ "keySpec": null, "numberOfBytes": 1 }))]
    {
        let mut spec = spec;
        spec["encryptionContext"] = json!({ "purpose": ORDERS });
        workload.test.issue(name, &spec).await;
        workload.mount(name).await;
        assert_ended(&workload.run("file", &[]).await, 2, "and 32 were asked for");
    }
    assert_eq!(workload.read("v1"), None);
}

#[tokio::test]
async fn answer_for_another_kms_key_is_refused() {
    let workload = Workload::new("unwrap-answer").await;
    let other = workload.test.key.arn.replace("111122223333", "444455556666");
    for (arn, plaintext, words) in [
        (other.as_str(), &[7; 32][..], "answers with another KMS key"),
        (&workload.test.key.arn, &[7; 31], "it unwraps to 31 bytes"),
        (&workload.test.key.arn, &[7; 33], "it unwraps to 33 bytes"),
    ] {
        workload.test.proxy.fail_decrypt_always(Fault::Answer(answer(arn, plaintext)));
        assert_ended(&workload.run("file", &[]).await, 2, words);
    }
    assert_eq!(workload.read("v1"), None);
}

#[tokio::test]
async fn earlier_version_and_another_data_key_can_be_excluded() {
    let workload = Workload::new("unwrap-pinned").await;
    workload.rotate(2).await;
    let mut back = workload.test.data(ORDERS).await;
    back.insert("version".into(), b"1".to_vec());
    workload.mount.show(&back);
    assert_eq!(workload.run("check", &[]).await.code, 0);
    assert_ended(&workload.run("check", &["--min-version=2"]).await, 2, "an earlier version came back");

    // KMS does not distinguish data keys of the same KMS key, encryption context and length; the SHA-256 does.
    let pin = format!("--blob-sha256=1={}", datakey::secret::sha256(&back["ciphertextBlob.v1"]));
    assert_eq!(workload.run("check", &[&pin, "--versions=1"]).await.code, 0);
    assert_ended(&workload.run("check", &[&pin]).await, 2, "version 2 has no --blob-sha256");
    workload.test.issue("twin", &json!({ "encryptionContext": { "purpose": ORDERS } })).await;
    workload.mount("twin").await;
    assert_eq!(workload.run("check", &[]).await.code, 0);
    assert_ended(&workload.run("check", &[&pin]).await, 2, "it was replaced");
}

#[tokio::test]
async fn entry_that_the_operator_does_not_write_is_refused() {
    let workload = Workload::new("unwrap-malformed").await;
    let right = workload.test.data(ORDERS).await;
    for (entry, value, words) in [
        ("version", &b"2"[..], "says that version 2 is current, and does not hold it"),
        ("version", b"one", "the entry version is no number"),
        ("encryptionContext.v1", b"{}", "has the encryption context none"),
        ("encryptionContext.v1", b"purpose=orders", "no JSON object of strings"),
        ("keyId.v1", b"alias/orders", "is wrapped by alias/orders, which no --trust names"),
        ("keyId.v1", b"\x1b[2J\n", r"is wrapped by \u{1b}[2J, which no --trust names"),
        ("ciphertextBlob.v1", b"", "1 to 6144 bytes"),
    ] {
        let mut data = right.clone();
        data.insert(entry.to_owned(), value.to_vec());
        workload.mount.show(&data);
        assert_ended(&workload.run("check", &[]).await, 2, words);
    }
    assert_eq!(workload.calls(), 0);
}
