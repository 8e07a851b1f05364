//! `kubectl datakey create`, run by the real kubectl: the parameters of the AWS CLI become a DataKey.

use kube::ResourceExt;
use serde_json::{Value, json};
use testbed::{
    commands::{Ended, run},
    kms,
    proxy::Fault,
    tools,
};
use tokio::process::Command;

use crate::{
    harness::TestNamespace,
    plugin::{User, text},
};

fn manifest(printed: &Ended) -> Value {
    serde_saphyr::from_str(&text(printed)).unwrap_or_else(|error| panic!("{error}:\n{}", text(printed)))
}

#[tokio::test]
async fn created_manifest_issues_what_the_aws_cli_would_ask_for() {
    let test = TestNamespace::new("plugin-create").await;
    let _operator = test.operator();
    let user = User::of(&test);
    let alias = test.alias();
    let context = "purpose=orders,stage='prod, eu'";
    let words = ["create", "orders", "--key-id", &alias, "--key-spec=AES_256", "--encryption-context", context];
    let printed = user.ends(0, &words).await;
    assert_eq!(
        manifest(&printed),
        json!({
            "apiVersion": "datakey.dev/v1alpha1",
            "kind": "DataKey",
            "metadata": { "name": "orders", "namespace": "plugin-create" },
            "spec": {
                "keyId": alias,
                "keySpec": "AES_256",
                "encryptionContext": { "purpose": "orders", "stage": "prod, eu" },
            },
        })
    );
    let file = test.plane.workdir().file("plugin-create.yaml");
    std::fs::write(&file, &printed.out).unwrap();
    test.plane.kubectl(&["apply", "-f", &file.display().to_string()]).await.unwrap();
    let key = test.ready("orders").await;
    assert_eq!(key.record()[0].request.context()["stage"], "prod, eu");
    assert_eq!(test.proxy.operations(), ["GenerateDataKeyWithoutPlaintext"]);

    // Without -n the manifest names no namespace, and nothing reaches a cluster.
    let anywhere = User::of(&test).with("KUBECONFIG", "/no/such/file");
    let printed = anywhere.types(&["datakey", "create", "k", "--key-id", &alias, "--number-of-bytes=64"]).await;
    assert_eq!((printed.code, &manifest(&printed)["metadata"]), (0, &json!({ "name": "k" })));

    let refused = user.ends(64, &["create", "k", "--key-id", "orders", "--key-spec=AES_256"]).await;
    assert!(refused.err.contains("--key-id must be a key ID") && refused.out.is_empty(), "{refused:?}");
    let both = ["create", "k", "--key-id", &alias, "--key-pair-spec=RSA_2048", "--key-spec=AES_256"];
    let both = user.ends(64, &both).await;
    assert!(both.err.contains("cannot be used with"), "{both:?}");
}

const DATA_KEY: &str = "generate-data-key-without-plaintext";
const KEY_PAIR: &str = "generate-data-key-pair-without-plaintext";

/// Runs an operation of KMS by the AWS CLI.
async fn aws(test: &TestNamespace, operation: &str, words: &[&str]) -> String {
    let mut command = Command::new(tools().join("consumers/bin/aws"));
    command.args(["kms", operation]).args(words);
    command.envs(kms::environment(&test.proxy.url())).env("AWS_DEFAULT_REGION", kms::REGION);
    run(&mut command).await.unwrap()
}

#[tokio::test]
async fn documents_of_the_aws_cli_are_those_of_create() {
    let test = TestNamespace::new("plugin-skeleton").await;
    let user = User::of(&test);
    let skeleton = user.ends(0, &["create", "--generate-cli-skeleton"]).await;
    let printed = text(&skeleton);
    // The AWS CLI takes one of the values at random.
    let of_the_cli = aws(&test, DATA_KEY, &["--generate-cli-skeleton"]).await.replace("AES_128", "AES_256");
    assert_eq!(printed.trim(), of_the_cli.trim());

    let yaml = text(&user.ends(0, &["create", "--generate-cli-skeleton", "yaml-input"]).await);
    let same: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(same, serde_json::from_str::<Value>(&printed).unwrap());

    // One document issues the same with either program.
    let document = json!({
        "KeyId": test.alias(), "NumberOfBytes": 24, "EncryptionContext": { "a": "b, c" }, "GrantTokens": ["token"],
    });
    let file = test.plane.workdir().file("plugin-skeleton.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let parameter = format!("file://{}", file.display());
    aws(&test, DATA_KEY, &["--cli-input-json", &parameter]).await;
    let asked = &test.proxy.requests()[0].body;
    let spec = manifest(&user.ends(0, &["create", "k", "--cli-input-json", &parameter]).await)["spec"].take();
    for (field, parameter) in [
        ("keyId", "KeyId"),
        ("numberOfBytes", "NumberOfBytes"),
        ("encryptionContext", "EncryptionContext"),
        ("grantTokens", "GrantTokens"),
    ] {
        assert_eq!(spec[field], asked[parameter], "{field}");
    }
    // The same for key pairs.
    let of_the_cli: Value = serde_json::from_str(&aws(&test, KEY_PAIR, &["--generate-cli-skeleton"]).await).unwrap();
    let spec = of_the_cli["KeyPairSpec"].as_str().unwrap();
    for (form, yaml) in [("input", false), ("yaml-input", true)] {
        let printed = ["create", "--key-pair-spec", spec, "--generate-cli-skeleton", form];
        let printed = text(&user.ends(0, &printed).await);
        let read: Value =
            if yaml { serde_saphyr::from_str(&printed).unwrap() } else { serde_json::from_str(&printed).unwrap() };
        assert_eq!(read, of_the_cli, "{form}");
    }
    let document = json!({ "KeyId": test.alias(), "KeyPairSpec": "ECC_NIST_P384", "EncryptionContext": { "a": "b" } });
    std::fs::write(&file, document.to_string()).unwrap();
    aws(&test, KEY_PAIR, &["--cli-input-json", &parameter]).await;
    let asked = test.proxy.pair_requests().pop().unwrap().body;
    let spec = manifest(&user.ends(0, &["create", "k", "--cli-input-json", &parameter]).await)["spec"].take();
    for (field, parameter) in
        [("keyId", "KeyId"), ("keyPairSpec", "KeyPairSpec"), ("encryptionContext", "EncryptionContext")]
    {
        assert_eq!(spec[field], asked[parameter], "{field}");
    }
    let unknown = user.ends(64, &["create", "k", "--cli-input-json", r#"{"KeyID": "alias/a"}"#]).await;
    assert!(unknown.err.contains("unknown fields: KeyID"), "{unknown:?}");
}

#[tokio::test]
async fn dry_run_of_kms_reports_its_answer_and_keeps_no_key() {
    let test = TestNamespace::new("plugin-dry-run").await;
    let user = User::of(&test);
    let alias = test.alias();
    let words = ["create", "k", "--key-id", &alias, "--key-spec=AES_256", "--encryption-context=a=b", "--dry-run"];

    let success = user.ends(0, &words).await;
    assert!(success.err.contains("AWS KMS would issue this data key"), "{success:?}");
    let body = test.proxy.dry_runs()[0].body.clone();
    assert_eq!((&body["DryRun"], &body["EncryptionContext"]), (&json!(true), &json!({ "a": "b" })));
    let arn = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let blob = b"a wrapped data key that is not kept";
    let answer = json!({ "KeyId": arn, "CiphertextBlob": k8s_openapi::ByteString(blob.to_vec()) });
    // As a server answers that ignores DryRun.
    test.proxy.fail_next_dry_runs(1, Fault::Answer(answer));
    let dropped = user.ends(1, &[&words[..], &["--apply"]].concat()).await;
    assert!(dropped.out.is_empty() && dropped.err.contains("this endpoint does not support dry runs"), "{dropped:?}");
    assert!(!user.saw(blob));

    let success = user.ends(0, &[&words[..], &["--apply"]].concat()).await;
    assert!(success.err.contains("AWS KMS would issue this data key"), "{success:?}");
    assert!(success.err.contains("nothing was applied"), "{success:?}");
    assert_eq!(manifest(&success)["spec"]["keyId"], json!(alias));
    assert!(test.keys().get_opt("k").await.unwrap().is_none());

    test.proxy.fail_next_dry_runs(1, Fault::code("AccessDeniedException"));
    let refused = user.ends(1, &words).await;
    assert!(refused.err.contains("needs kms:GenerateDataKeyWithoutPlaintext") && refused.out.is_empty(), "{refused:?}");
    let missing = user.ends(1, &["create", "k", "--key-id=alias/none", "--key-spec=AES_128", "--dry-run"]).await;
    assert!(missing.err.contains("NotFoundException"), "{missing:?}");

    // The flags of the AWS CLI for a call go before the environment.
    let elsewhere = User::of(&test).with("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9").with("AWS_REGION", "us-east-1");
    let before = test.proxy.dry_runs().len();
    let url = test.proxy.url();
    let flags = ["--endpoint-url", &url, "--region=eu-north-1"];
    elsewhere.ends(1, &[&words[..], &flags].concat()).await;
    let calls = test.proxy.dry_runs();
    assert_eq!((calls.len(), calls[before].region.as_str()), (before + 1, "eu-north-1"));
    let profile = elsewhere.ends(64, &[&words[..], &["--profile=none"]].concat()).await;
    assert!(profile.err.contains("--profile is \"none\""), "{profile:?}");
    let bundle = elsewhere.ends(64, &[&words[..], &["--ca-bundle=/no/such/file"]].concat()).await;
    assert!(bundle.err.contains("--ca-bundle names"), "{bundle:?}");
}

#[tokio::test]
async fn profile_of_the_command_goes_before_the_environment() {
    let test = TestNamespace::new("plugin-profile").await;
    let config = test.plane.workdir().file("plugin-profile.config");
    let profile =
        "[profile team]\nregion = eu-central-1\naws_access_key_id = 444455556666\naws_secret_access_key = test\n";
    std::fs::write(&config, profile).unwrap();
    let user = User::of(&test)
        .with("AWS_CONFIG_FILE", &config.display().to_string())
        .with("AWS_REGION", crate::harness::UNSET);
    let alias = test.alias();
    let words = ["create", "k", "--key-id", &alias, "--key-spec=AES_256", "--dry-run", "--profile=team"];
    user.ends(1, &words).await;
    let call = test.proxy.dry_runs().pop().unwrap();
    assert_eq!((call.access_key_id.as_str(), call.region.as_str()), ("444455556666", "eu-central-1"));
}

#[tokio::test]
async fn apply_waits_until_ready_and_never_changes_other_keys() {
    let test = TestNamespace::new("plugin-apply").await;
    let operator = test.operator();
    let user = User::of(&test);
    let alias = test.alias();
    let words = ["create", "orders", "--key-id", &alias, "--encryption-context=purpose=orders"];
    let create = async |code, more: &[&str]| user.ends(code, &[&words[..], more].concat()).await;

    let checked = create(0, &["--key-spec=AES_256", "--dry-run=server"]).await;
    assert!(checked.err.contains("orders would be created (server dry run)"), "{checked:?}");
    create(0, &["--key-spec=AES_256", "--dry-run=client", "--apply"]).await;
    assert!(test.keys().get_opt("orders").await.unwrap().is_none());

    let created = create(0, &["--key-spec=AES_256", "--apply"]).await;
    assert_eq!(text(&created), "orders created: Secret orders holds data key version 1\n");
    let key = test.ready("orders").await;
    assert!(key.managed_fields().iter().any(|fields| fields.manager.as_deref() == Some("kubectl-datakey-create")));

    // The same again changes nothing, and other settings are refused with both values.
    create(0, &["--key-spec=AES_256", "--apply"]).await;
    let other = create(1, &["--key-spec=AES_128", "--apply"]).await;
    assert!(other.err.contains("keySpec AES_128 in the command, AES_256 in the cluster"), "{other:?}");
    let same = test.get("orders").await;
    assert_eq!((same.record(), same.metadata.generation), (key.record(), key.metadata.generation));
    assert_eq!(test.proxy.calls(), 1);

    // What another client applied is not taken over.
    test.kms.client().disable_key().key_id(&test.key.id).send().await.unwrap();
    test.create("foreign", &json!({ "keyId": "alias/plugin-apply-foreign" })).await;
    let foreign = user.ends(1, &["create", "foreign", "--key-id", &alias, "--key-spec=AES_256", "--apply"]).await;
    assert!(foreign.err.contains("which another client set"), "{foreign:?}");
    assert_eq!(test.get("foreign").await.spec.key_id.as_deref(), Some("alias/plugin-apply-foreign"));

    let stalled = user.ends(2, &["create", "k", "--key-id", &alias, "--key-spec=AES_256", "--apply"]).await;
    assert!(
        !stalled.err.contains(".;")
            && stalled.err.contains("KeyDisabled")
            && stalled.err.contains("kubectl datakey status k"),
        "{stalled:?}"
    );
    drop(operator);
    let nowhere = "datakey create k --key-spec=AES_256 --apply -n no-such-namespace --key-id";
    let nowhere = user.types(&nowhere.split(' ').chain([alias.as_str()]).collect::<Vec<_>>()).await;
    let missing = "kubectl datakey: namespace no-such-namespace does not exist: ";
    assert!(nowhere.code == 1 && nowhere.err.starts_with(missing), "{nowhere:?}");

    let words = ["create", "late", "--key-id", &alias, "--key-spec=AES_256", "--apply", "--timeout=1s"];
    let late = user.ends(2, &words).await;
    assert!(late.err.contains("not within 1s") && late.err.contains("Pending"), "{late:?}");
}
