//! `kubectl datakey import`, run by the real kubectl: wrapped data keys from elsewhere become pins.

use std::collections::BTreeMap;

use aws_sdk_kms::types::DataKeySpec;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use testbed::{
    asset,
    commands::{self, Ended},
    kms, tools,
};

use crate::{
    harness::{TestNamespace, to_json},
    plugin::{User, text},
};

/// A wrapped data key that the test had issued, and its plaintext.
struct Issued {
    blob: Vec<u8>,
    plaintext: Vec<u8>,
}

/// Has the KMS server issue a data key, past the proxy that counts.
async fn issue(test: &TestNamespace, context: &[(&str, &str)]) -> Issued {
    let mut call = test.kms.client().generate_data_key().key_id(&test.key.arn).key_spec(DataKeySpec::Aes256);
    for (key, value) in context {
        call = call.encryption_context(*key, *value);
    }
    let answer = call.send().await.unwrap();
    Issued { blob: answer.ciphertext_blob.unwrap().into_inner(), plaintext: answer.plaintext.unwrap().into_inner() }
}

fn manifest(printed: &Ended) -> Value {
    serde_saphyr::from_str(&text(printed)).unwrap_or_else(|error| panic!("{error}:\n{}", text(printed)))
}

/// Writes a file of the test, and returns its path.
fn file(test: &TestNamespace, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = test.plane.workdir().file(name);
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn imported_blob_is_pinned_and_published_as_it_was() {
    let test = TestNamespace::new("plugin-import").await;
    let issued = issue(&test, &[("purpose", "orders")]).await;
    let user = User::of(&test);
    let blob = format!("fileb://{}", file(&test, "plugin-import.blob", &issued.blob));
    let alias = test.alias();
    let context = "--encryption-context=purpose=orders";
    let words = ["import", "orders", "--ciphertext-blob", &blob, "--key-id", &alias, context];
    let printed = user.ends(0, &words).await;
    let made = manifest(&printed);
    assert_eq!(made["spec"]["keyId"], json!(alias));
    let pin = &made["spec"]["wrappedKeys"][0];
    assert_eq!((&pin["keyId"], &pin["request"]["keySpec"]), (&json!(test.key.arn), &json!("AES_256")));
    assert!(printed.err.contains("issuedAt is the time of the import"), "{printed:?}");

    let path = file(&test, "plugin-import.yaml", &printed.out);
    let _operator = test.operator();
    test.plane.kubectl(&["apply", "-f", &path]).await.unwrap();
    let key = test.ready("orders").await;
    assert_eq!(key.record()[0].ciphertext_blob.0, issued.blob);
    assert_eq!(test.decrypt(&test.data("orders").await, "").await, issued.plaintext);
    assert_eq!((test.proxy.calls(), test.proxy.calls_of("Decrypt")), (0, 1));

    // Another context, another key and another length are refused by KMS or by what it answers.
    let refused = user.ends(1, &["import", "orders", "--ciphertext-blob", &blob, "--key-id", &alias]).await;
    assert!(refused.err.contains("InvalidCiphertextException") && refused.out.is_empty(), "{refused:?}");
    let json = json!({ "CiphertextBlob": BASE64_STANDARD.encode(&issued.blob), "KeyId": test.key.arn });
    let json = format!("file://{}", file(&test, "plugin-import.json", json.to_string()));
    let other = test.kms.key().await;
    let key = user.ends(1, &["import", "orders", "--ciphertext-blob", &json, "--key-id", &other.arn, context]).await;
    assert!(key.err.contains("keyId is not the ARN of the key"), "{key:?}");
    let length = user.ends(1, &[&words[..], &["--key-spec=AES_128"]].concat()).await;
    assert!(length.err.contains("unwraps to 32 bytes, and 16 were said"), "{length:?}");
    assert!(!user.saw(&issued.plaintext));
}

#[tokio::test]
async fn blob_is_read_from_json_streams_secrets_and_maps() {
    let test = TestNamespace::new("plugin-sources").await;
    let issued = issue(&test, &[]).await;
    let user = User::of(&test);
    let base64 = BASE64_STANDARD.encode(&issued.blob);
    let json = json!({ "CiphertextBlob": base64, "KeyId": test.key.arn });
    let json = format!("file://{}", file(&test, "plugin-sources.json", json.to_string()));
    let pinned = |printed: &Ended| manifest(printed)["spec"]["wrappedKeys"][0].take();
    let from_json = pinned(&user.ends(0, &["import", "k", "--ciphertext-blob", &json, "--version=3"]).await);
    assert_eq!((&from_json["ciphertextBlob"], &from_json["version"]), (&json!(base64), &json!(3)));

    let decrypted = test.proxy.calls_of("Decrypt");
    let unverified = ["import", "k", "--ciphertext-blob", &json, "--no-verify"];
    assert!(user.ends(1, &unverified).await.err.contains("--key-spec"));
    let alias = test.alias();
    let more = ["--key-spec=AES_256", "--key-id", &alias, "--issued-at=2026-11-24T01:02:03Z"];
    let trusted = pinned(&user.ends(0, &[&unverified[..], &more].concat()).await);
    assert_eq!((&trusted["keyId"], &trusted["request"]["keyId"]), (&json!(test.key.arn), &json!(alias)));
    assert_eq!(trusted["issuedAt"], "2026-11-24T01:02:03Z");
    assert_eq!(test.proxy.calls_of("Decrypt"), decrypted, "KMS is not asked");

    let name = json!({ "name": "old", "namespace": test.namespace });
    test.apply(&[
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": name, "data": { "raw": base64 } }),
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": name, "data": { "text": base64 },
                "binaryData": { "raw": base64 } }),
    ])
    .await;
    for source in [["--from-secret", "old/raw"], ["--from-configmap", "old/text"], ["--from-configmap", "old/raw"]] {
        let printed = user.ends(0, &[&["import", "k"], &source[..]].concat()).await;
        assert_eq!(pinned(&printed)["ciphertextBlob"], json!(base64), "{source:?}");
    }
    let missing = user.ends(1, &["import", "k", "--from-secret", "old/none"]).await;
    assert!(missing.err.contains("has no entry none"), "{missing:?}");

    // As in a shell: what the AWS CLI prints, and base64.
    let folders = [testbed::plugin(), asset("kubectl").unwrap(), tools().join("consumers/bin/aws")];
    let folders = folders.map(|program| program.parent().unwrap().to_owned());
    let environment: Vec<_> = user.environment().chain([("AWS_DEFAULT_REGION", kms::REGION.to_owned())]).collect();
    let import = "kubectl datakey import k --encryption-context a=b";
    for source in [
        format!(
            "aws kms generate-data-key-without-plaintext --key-id {alias} --key-spec AES_128 --encryption-context a=b"
        ),
        format!(
            "{} --query CiphertextBlob --output text",
            "aws kms generate-data-key-without-plaintext --key-spec AES_128"
        ) + &format!(" --key-id {alias} --encryption-context a=b"),
    ] {
        let printed = commands::shell(&folders, &environment, &format!("{source} | {import}")).await;
        assert_eq!(printed.code, 0, "{printed:?}");
        assert_eq!(pinned(&printed)["request"]["keySpec"], "AES_128");
    }
}

#[tokio::test]
async fn plaintext_in_the_input_is_refused_and_never_shown() {
    let test = TestNamespace::new("plugin-plaintext").await;
    let Issued { blob, plaintext } = issue(&test, &[]).await;
    let user = User::of(&test);
    let printed = json!({
        "CiphertextBlob": BASE64_STANDARD.encode(&blob),
        "Plaintext": BASE64_STANDARD.encode(&plaintext),
        "KeyId": test.key.arn,
    });
    let path = file(&test, "plugin-plaintext.json", printed.to_string());
    for scheme in ["file", "fileb"] {
        let refused = user.ends(1, &["import", "k", "--ciphertext-blob", &format!("{scheme}://{path}")]).await;
        assert!(refused.err.contains("has Plaintext") && refused.err.contains("delete it now"), "{refused:?}");
    }
    let data = json!({ "key": BASE64_STANDARD.encode(printed.to_string()) });
    let name = json!({ "name": "old", "namespace": test.namespace });
    test.apply(&[json!({ "apiVersion": "v1", "kind": "Secret", "metadata": name, "data": data })]).await;
    user.ends(1, &["import", "k", "--from-secret=old/key", "--no-verify"]).await;
    assert!(!user.saw(&plaintext));
    assert_eq!(test.proxy.calls_of("Decrypt"), 0);
}

#[tokio::test]
async fn many_imports_resume_and_report_what_failed() {
    let test = TestNamespace::new("plugin-batch").await;
    let user = User::of(&test);
    let mut keys = BTreeMap::new();
    for name in ["one", "two", "new"] {
        keys.insert(name, BASE64_STANDARD.encode(issue(&test, &[("name", name)]).await.blob));
    }
    let arn = &test.key.arn;
    let csv = file(
        &test,
        "plugin-batch.csv",
        format!(
            "name,version,key_id,ciphertext_blob,encryption_context\n\
             both,1,{arn},{},name=one\n\
             both,2,{arn},{},\"{{\"\"name\"\": \"\"two\"\"}}\"\n\
             wrong,1,{arn},{},name=else\n\
             odd,1,{arn},%,\n",
            keys["one"], keys["two"], keys["new"]
        ),
    );
    let folder = test.plane.workdir().file("plugin-batch").display().to_string();
    let import = ["import", "--from-csv", &csv, "--to", &folder];
    let first = user.ends(1, &import).await;
    let report = text(&first);
    assert!(report.starts_with("1 of 3 DataKeys imported into "), "{report}");
    assert!(
        report.contains("0 were there already, 2 failed\n  odd: line 5: ciphertext_blob is not base64\n"),
        "{report}"
    );
    assert!(report.contains("wrong: line 4: AWS KMS refuses: InvalidCiphertextException"), "{report}");
    assert_eq!(test.proxy.calls_of("Decrypt"), 3);

    // Only what is not there is asked again.
    let right = std::fs::read_to_string(&csv).unwrap().replace("name=else", "name=new").replace("odd,1", "both,3");
    let right = right.replace(",%,", &format!(",{},name=new", keys["new"]));
    std::fs::write(&csv, right.lines().take(4).collect::<Vec<_>>().join("\n")).unwrap();
    let second = user.ends(0, &import).await;
    assert!(text(&second).starts_with("1 of 2 DataKeys imported into "), "{second:?}");
    assert_eq!(test.proxy.calls_of("Decrypt"), 4);
    std::fs::write(&csv, right).unwrap();
    let changed = user.ends(1, &import).await;
    assert!(text(&changed).contains("both.yaml is there already and has other data keys"), "{changed:?}");

    let _operator = test.operator();
    test.plane.kubectl(&["apply", "-f", &folder]).await.unwrap();
    let both = test.ready("both").await;
    let versions: Vec<_> = both.record().iter().map(|issued| to_json(&issued.ciphertext_blob)).collect();
    assert_eq!(versions, [json!(keys["one"]), json!(keys["two"])]);
    test.ready("wrong").await;
    assert_eq!(test.proxy.calls(), 0);

    // The same from a folder of what the AWS CLI printed.
    let from = test.plane.workdir().file("plugin-batch-files");
    std::fs::create_dir(&from).unwrap();
    let json = json!({ "CiphertextBlob": keys["new"], "KeyId": arn }).to_string();
    std::fs::write(from.join("files.v2.json"), json).unwrap();
    std::fs::write(from.join("files.blob"), BASE64_STANDARD.decode(&keys["new"]).unwrap()).unwrap();
    std::fs::write(from.join(".hidden"), "x").unwrap();
    let from = from.display().to_string();
    let import = ["import", "--from-folder", &from, "--to", &folder, "--encryption-context=name=new"];
    let twins = user.ends(1, &import).await;
    assert!(text(&twins).contains("files: ") && text(&twins).contains("data key of its own"), "{twins:?}");
    std::fs::remove_file(format!("{from}/files.blob")).unwrap();
    user.ends(0, &import).await;
    let made = std::fs::read_to_string(format!("{folder}/files.yaml")).unwrap();
    let made: Value = serde_saphyr::from_str(&made).unwrap();
    assert_eq!((&made["spec"]["version"], &made["spec"]["wrappedKeys"][0]["version"]), (&json!(2), &json!(2)));
}
