//! `kubectl datakey import`, run by the real kubectl: wrapped data keys from elsewhere become pins.

use std::{collections::BTreeMap, fmt::Write, process::Stdio};

use aws_sdk_kms::types::DataKeySpec;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use testbed::{
    asset,
    commands::{self, Ended},
    eventually, kms, tools,
};

use crate::{
    harness::{SOON, TestNamespace, UNSET, to_json},
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
    assert!(key.err.contains(&other.arn) && key.err.contains(&test.key.arn), "{key:?}");
    // An alias of another key: KMS is asked with what goes into the spec, and the JSON does not hide that.
    test.kms
        .client()
        .create_alias()
        .alias_name("alias/plugin-import-other")
        .target_key_id(&other.arn)
        .send()
        .await
        .unwrap();
    let alias_of_other = ["--key-id=alias/plugin-import-other", context];
    let of_other =
        |source: &str| [&["import", "orders", "--ciphertext-blob", source][..], &alias_of_other].concat().join(" ");
    for (source, refuses) in [(&json, false), (&json, true), (&blob, true)] {
        if refuses {
            test.proxy.refuse_decrypt_with("alias/plugin-import-other");
        }
        let key = user.ends(1, &of_other(source).split(' ').collect::<Vec<_>>()).await;
        let names = ["alias/plugin-import-other", &test.key.arn];
        assert!(names.iter().all(|name| key.err.contains(name)) && key.out.is_empty(), "{key:?}");
    }
    let region = ["import", "orders", "--ciphertext-blob", &json, context, "--region=us-east-1"];
    let region = user.ends(1, &region).await;
    assert!(region.err.contains("--region us-east-1") && region.err.contains(&test.key.arn), "{region:?}");
    let length = user.ends(1, &[&words[..], &["--key-spec=AES_128"]].concat()).await;
    assert!(length.err.contains("unwraps to 32 bytes, but --key-spec AES_128 says 16"), "{length:?}");
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
    for name in ["one", "two", "new", "three"] {
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
    let asked = test.proxy.calls_of("Decrypt");

    // Only what is not there is asked again.
    let right = std::fs::read_to_string(&csv).unwrap().replace("name=else", "name=new").replace("odd,1", "both,3");
    let right = right.replace(",%,", &format!(",{},name=three", keys["three"]));
    std::fs::write(&csv, right.lines().take(4).collect::<Vec<_>>().join("\n")).unwrap();
    let second = user.ends(0, &import).await;
    assert!(text(&second).starts_with("1 of 2 DataKeys imported into "), "{second:?}");
    assert_eq!(test.proxy.calls_of("Decrypt"), asked + 1);
    std::fs::write(&csv, right).unwrap();
    let changed = user.ends(1, &import).await;
    assert!(text(&changed).contains("both.yaml is there already and has other data keys"), "{changed:?}");
    let elsewhere = user.types(&[&["datakey"], &import[..], &["-n", "default"]].concat()).await;
    assert!(text(&elsewhere).contains("names another namespace"), "{elsewhere:?}");

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

/// Writes a CSV file with data keys of these names, and returns its path.
async fn table(test: &TestNamespace, name: &str, names: &[String]) -> String {
    let mut lines = "name,ciphertext_blob,encryption_context\n".to_owned();
    for name in names {
        let blob = BASE64_STANDARD.encode(issue(test, &[("name", name)]).await.blob);
        writeln!(lines, "{name},{blob},name={name}").unwrap();
    }
    file(test, name, lines)
}

fn files(folder: &str) -> usize {
    let names = std::fs::read_dir(folder).into_iter().flatten().map(|file| file.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".yaml")).count()
}

#[tokio::test]
async fn killed_import_is_resumed_and_applied() {
    let test = TestNamespace::new("plugin-killed").await;
    let user = User::of(&test);
    let names: Vec<_> = (0..24).map(|number| format!("k-{number}")).collect();
    let csv = table(&test, "plugin-killed.csv", &names).await;
    let folder = test.plane.workdir().file("plugin-killed").display().to_string();
    let alias = test.alias();
    let import = ["import", "--from-csv", &csv, "--to", &folder, "--key-id", &alias];

    // The first run has 20 lines. The second one is killed while no answer comes for the others.
    let all = std::fs::read_to_string(&csv).unwrap();
    std::fs::write(&csv, all.lines().take(21).collect::<Vec<_>>().join("\n")).unwrap();
    user.ends(0, &import).await;
    std::fs::write(&csv, all).unwrap();
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut killed = tokio::process::Command::new(testbed::plugin());
    killed.args(import).args(["-n", &test.namespace]).envs(user.environment());
    killed.env("AWS_ENDPOINT_URL_KMS", format!("http://{}", silent.local_addr().unwrap()));
    let mut killed = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let _asked_for = silent.accept().await.unwrap();
    killed.kill().await.unwrap();
    assert_eq!(files(&folder), 20);
    std::fs::write(format!("{folder}/.k-7.part"), "apiVersion: ").unwrap();

    let asked = test.proxy.calls_of("Decrypt");
    let operator = test.operator();
    let apply = [&import[..], &["--apply"]].concat();
    let resumed = text(&user.ends(0, &apply).await);
    assert!(resumed.starts_with("4 of 24 DataKeys imported into "), "{resumed}");
    assert!(resumed.contains("20 were there already, 0 failed\n"), "{resumed}");
    assert!(resumed.ends_with("24 of 24 DataKeys are applied and Ready in namespace plugin-killed\n"), "{resumed}");
    assert_eq!((test.proxy.calls_of("Decrypt"), test.proxy.calls()), (asked + 4, 0));
    let before = test.ready("k-7").await;
    user.ends(0, &apply).await;
    assert_eq!(test.get("k-7").await.metadata.resource_version, before.metadata.resource_version);

    // What is there with another data key is named, and the others are applied.
    let csv = table(&test, "plugin-taken.csv", &["k-7".to_owned(), "new".to_owned()]).await;
    let to = test.plane.workdir().file("plugin-taken").display().to_string();
    let import = ["import", "--from-csv", &csv, "--to", &to, "--key-id", &alias, "--apply"];
    let taken = text(&user.ends(1, &import).await);
    assert!(taken.contains("1 of 2 DataKeys is applied and Ready in namespace"), "{taken}");
    assert!(taken.contains("  k-7: DataKey k-7 exists in namespace") && taken.contains("another data key"), "{taken}");
    assert_eq!(test.get("k-7").await.record(), before.record());

    // One who may not apply them reads that once.
    let kubeconfig = test.kubeconfig_with_role("view").await;
    let viewer = User::of(&test).with("KUBECONFIG", &kubeconfig.display().to_string());
    eventually(SOON, "the rights are there", async || viewer.runs(&["list"]).await.code == 0).await;
    let refused = text(&viewer.ends(1, &apply).await);
    assert!(refused.contains("  24 DataKeys: ") && refused.matches("you may not").count() == 1, "{refused}");

    // Without an operator the wait ends, and says why.
    drop(operator);
    let csv = table(&test, "plugin-late.csv", &["late".to_owned(), "later".to_owned()]).await;
    let late = ["import", "--from-csv", &csv, "--to", &to, "--key-id", &alias, "--apply", "--timeout=1s"];
    let late = text(&user.ends(2, &late).await);
    assert!(late.contains("  2 DataKeys: not within 1s; Pending: ") && late.contains("    late, later\n"), "{late}");
}

#[tokio::test]
async fn imported_data_key_is_applied_and_ready() {
    let test = TestNamespace::new("plugin-import-apply").await;
    let _operator = test.operator();
    let user = User::of(&test);
    let blob = |issued: &Issued| BASE64_STANDARD.encode(&issued.blob);
    let (one, other) = (blob(&issue(&test, &[]).await), blob(&issue(&test, &[]).await));
    let applied = user.ends(0, &["import", "orders", "--ciphertext-blob", &one, "--apply"]).await;
    assert_eq!(text(&applied), "orders created: Secret orders holds data key version 1\n");
    assert_eq!(to_json(&test.get("orders").await.record()[0].ciphertext_blob), json!(one));
    let taken = user.ends(1, &["import", "orders", "--ciphertext-blob", &other, "--apply"]).await;
    assert!(taken.err.contains("its version 1 is another data key, which is fixed"), "{taken:?}");
    user.ends(0, &["import", "orders", "--ciphertext-blob", &other, "--version=2", "--apply"]).await;
    assert_eq!(test.ready("orders").await.record().len(), 2);
    assert_eq!(test.proxy.calls(), 0);
}

#[tokio::test]
async fn import_never_drops_a_pin_or_sets_the_version_back() {
    let test = TestNamespace::new("plugin-import-pins").await;
    let user = User::of(&test);
    let blob = |issued: &Issued| BASE64_STANDARD.encode(&issued.blob);
    let (one, other) = (blob(&issue(&test, &[]).await), blob(&issue(&test, &[]).await));
    let import = async |code, blob: &str, more: &[&str]| {
        let words = ["import", "orders", "--ciphertext-blob", blob, "--apply"];
        user.ends(code, &[&words[..], more].concat()).await
    };
    // Without an operator nothing becomes Ready, and the pin is recorded nowhere.
    import(2, &one, &["--timeout=1s"]).await;
    for more in [&[][..], &["--version=2"]] {
        let refused = import(1, &other, more).await;
        assert!(refused.err.contains("its pin of version 1, which is not recorded yet"), "{refused:?}");
    }
    import(2, &one, &["--timeout=1s"]).await;
    let pins: Vec<_> =
        test.get("orders").await.pinned_versions().iter().map(|pin| to_json(&pin.ciphertext_blob)).collect();
    assert_eq!(pins, [json!(one)]);

    let _operator = test.operator();
    test.ready("orders").await;
    import(0, &other, &["--version=2"]).await;
    let back = import(1, &one, &[]).await;
    assert!(back.err.contains("its spec.version would go back from 2 to 1"), "{back:?}");
    let key = test.get("orders").await;
    assert_eq!((key.wanted_version(), key.record().len(), test.proxy.calls()), (2, 2, 0));
}

#[tokio::test]
async fn missing_credentials_are_reported_once() {
    let test = TestNamespace::new("plugin-no-credentials").await;
    let user = User::of(&test).with("AWS_ACCESS_KEY_ID", UNSET).with("AWS_SECRET_ACCESS_KEY", UNSET);
    let user = user.with("AWS_EC2_METADATA_DISABLED", "true");
    let names: Vec<_> = (0..40).map(|number| format!("k-{number}")).collect();
    let csv = table(&test, "plugin-no-credentials.csv", &names).await;
    let folder = test.plane.workdir().file("plugin-no-credentials").display().to_string();
    let report = text(&user.ends(1, &["import", "--from-csv", &csv, "--to", &folder]).await);
    assert!(
        report.contains("  40 DataKeys: AWS credentials could not be obtained: no AWS credentials were found; "),
        "{report}"
    );
    assert_eq!(report.lines().count(), 3, "{report}");
}
