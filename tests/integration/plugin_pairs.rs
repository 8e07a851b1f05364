//! `kubectl datakey` and `DataKeyPair`s, run by the real kubectl.

use std::collections::BTreeMap;

use datakey::{
    api::{DeletionPolicy, KeyKind as _},
    secret::sha256,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use serde_json::{Value, json};
use testbed::{
    eventually,
    proxy::{DRY_RUN, Fault, ISSUE_PAIR},
};

use crate::{
    harness::{SOON, TestNamespace, to_json},
    key_pairs::pairs,
    plugin::{User, row, text},
};

/// The words that create a pair of this name.
fn create<'a>(name: &'a str, alias: &'a str) -> [&'a str; 6] {
    ["create", name, "--key-id", alias, "--key-pair-spec=ECC_NIST_P256", "--encryption-context=purpose=tokens"]
}

#[tokio::test]
async fn pair_is_created_shown_verified_and_rotated() {
    let test = TestNamespace::new("plugin-pairs").await;
    let operator = test.operator_without_retries();
    let user = User::of(&test);
    let alias = test.alias();
    let words = create("tokens", &alias);
    let applied = user.ends(0, &[&words[..], &["--apply"]].concat()).await;
    assert_eq!(text(&applied), "datakeypair/tokens created: Secret tokens holds key pair version 1\n");
    assert_eq!(test.proxy.operations(), [ISSUE_PAIR]);
    user.ends(0, &[&words[..], &["--apply"]].concat()).await;
    let other = ["create", "tokens", "--key-id", &alias, "--key-pair-spec=RSA_2048", "--apply"];
    let other = user.ends(1, &other).await;
    assert!(other.err.contains("keyPairSpec RSA_2048 in the command, ECC_NIST_P256 in the cluster"), "{other:?}");
    assert_eq!(test.proxy.calls_of(ISSUE_PAIR), 1);

    // Lists have both kinds.
    test.issue("orders", &json!({})).await;
    let list = text(&user.ends(0, &["list", "-o", "wide"]).await);
    assert_eq!(row(&list, "datakeypair/tokens")[..4], ["datakeypair/tokens", "True", "Issued", "1"].map(str::to_owned));
    assert!(row(&list, "datakeypair/tokens").contains(&"ECC_NIST_P256".to_owned()), "{list}");
    let names = text(&user.ends(0, &["list", "-o", "name"]).await);
    assert_eq!(names, "datakey.datakey.dev/orders\ndatakeypair.datakey.dev/tokens\n");
    let patch = ["patch", "dkp", "tokens", "-n", "plugin-pairs", "--type=merge", "-p"];
    test.plane.kubectl(&[&patch[..], &[r#"{"metadata":{"labels":{"team":"shop"}}}"#]].concat()).await.unwrap();
    let selected = user.json(0, &["list", "-A", "-l", "team=shop"]).await;
    let found: Vec<_> =
        selected["items"].as_array().unwrap().iter().map(|item| (&item["kind"], &item["name"])).collect();
    assert!(found.contains(&(&json!("DataKeyPair"), &json!("tokens"))), "{selected}");
    let all = user.ends(0, &["status"]).await;
    assert_eq!(all.err, "All is well: 2 of 2 DataKeys and DataKeyPairs are Ready.\n");

    // A bare name is that of the pair, where no DataKey has it.
    let key = pairs(&test).get("tokens").await;
    let public_key = &key.as_object().record()[0].public_key.as_ref().unwrap().0;
    for name in ["tokens", "dkp/tokens", "datakeypair.datakey.dev/tokens"] {
        let status = user.json(0, &["status", name]).await;
        assert_eq!((&status["kind"], &status["secret"]["state"]), (&json!("DataKeyPair"), &json!("Intact")));
        assert_eq!(status["versions"][0]["publicKeySha256"], sha256(public_key));
    }
    let missing = user.ends(1, &["status", "datakey/tokens"]).await;
    assert!(missing.err.contains("there is no DataKey tokens in namespace plugin-pairs"), "{missing:?}");
    eventually(SOON, "the events are shown", async || {
        let status = user.json(0, &["status", "tokens"]).await;
        status["events"].as_array().is_some_and(|events| events.iter().any(|event| event["reason"] == "Issued"))
    })
    .await;

    // The private key is unwrapped, compared and not shown.
    let found = user.json(0, &["verify", "tokens", "--decrypt"]).await;
    let expected = json!({ "result": "UnwrappedPair", "keyPairSpec": "ECC_NIST_P256", "publicHalf": "Equal" });
    assert_eq!(found["versions"][0]["decrypt"], expected);
    let words = text(&user.ends(0, &["verify", "--decrypt"]).await);
    assert!(words.contains("unwraps to a private key of ECC_NIST_P256, and the public key belongs to it"), "{words}");

    let rotated = user.ends(0, &["rotate", "dkp/tokens", "--wait"]).await;
    assert_eq!(text(&rotated), "version 2 of datakeypair/tokens is issued and current\n");
    assert_eq!(test.proxy.calls_of(ISSUE_PAIR), 2);
    let found = user.json(0, &["verify", "tokens", "--decrypt"]).await;
    assert_eq!([&found["versions"][0]["decrypt"], &found["versions"][1]["decrypt"]], [&expected, &expected]);
    let words = words + &text(&user.ends(0, &["verify", "--decrypt"]).await) + &found.to_string();
    let data = test.data("tokens").await;
    for suffix in [".v1", ".v2"] {
        let private = test.decrypt(&data, suffix).await;
        assert!(!user.saw(&private) && !words.contains(&sha256(&private)));
    }

    let policies = user.json(0, &["policy", "tokens"]).await;
    let statement = &policies["operator"]["Statement"][0];
    assert_eq!(statement["Action"], "kms:GenerateDataKeyPairWithoutPlaintext");
    assert_eq!(statement["Condition"], json!({ "StringEquals": { "kms:DataKeyPairSpec": "ECC_NIST_P256" } }));

    // A failure is tried again at once.
    test.kms.client().disable_key().key_id(&test.key.id).send().await.unwrap();
    user.ends(2, &["rotate", "tokens", "--wait"]).await;
    test.kms.client().enable_key().key_id(&test.key.id).send().await.unwrap();
    let tried = user.ends(0, &["retry", "tokens", "--wait"]).await;
    assert_eq!(text(&tried), "datakeypair/tokens: a retry is requested (KeyDisabled)\ndatakeypair/tokens is Ready\n");
    drop(operator);
}

#[tokio::test]
async fn exported_pair_is_the_record_and_its_secret_is_found_again() {
    let test = TestNamespace::new("plugin-pair-export").await;
    let _operator = test.operator();
    let user = User::of(&test);
    let pair = pairs(&test).issue("tokens", &json!({ "encryptionContext": { "purpose": "tokens" } })).await;
    let issued = pair.as_object().record()[0].clone();
    let data = test.data("tokens").await;

    assert_eq!(user.ends(0, &["export", "tokens", "-o", "raw"]).await.out, issued.ciphertext_blob.0);
    let exported = user.json(0, &["export", "tokens"]).await;
    assert_eq!((&exported["kind"], &exported["keyPairSpec"]), (&json!("DataKeyPair"), &json!("ECC_NIST_P256")));
    let pem = String::from_utf8(data["publicKey"].clone()).unwrap();
    assert_eq!(exported["publicKey"], pem);
    assert_eq!(text(&user.ends(0, &["public-key", "datakeypair/tokens"]).await), pem);
    let none = user.ends(64, &["public-key", "datakey/tokens"]).await;
    assert!(none.err.contains("a DataKey has no public key"), "{none:?}");
    let env = text(&user.ends(0, &["export", "tokens", "-o", "env"]).await);
    assert!(env.contains("DATAKEY_KEY_PAIR_SPEC='ECC_NIST_P256'") && env.contains("DATAKEY_PUBLIC_KEY="), "{env}");
    let file = test.plane.workdir().file("plugin-pair-export.yaml").display().to_string();
    user.ends(0, &["export", "tokens", "--to", &file]).await;
    test.plane.kubectl(&["apply", "-f", &file]).await.unwrap();
    let map = ["get", "configmap", "tokens", "-n", "plugin-pair-export", "-o", "json"];
    let map: ConfigMap = serde_json::from_str(&test.plane.kubectl(&map).await.unwrap()).unwrap();
    let texts = map.data.into_iter().flatten().map(|(entry, value)| (entry, value.into_bytes()));
    let bytes = map.binary_data.into_iter().flatten().map(|(entry, value)| (entry, value.0));
    assert_eq!(texts.chain(bytes).collect::<BTreeMap<_, _>>(), data);

    // The Secret stays, is an orphan, and has its pair again from the pinned manifest.
    let pinned = user.ends(0, &["export", "datakeypair/tokens", "--pin"]).await;
    std::fs::write(&file, &pinned.out).unwrap();
    pairs(&test).delete("tokens").await;
    let orphans = user.json(0, &["orphans"]).await;
    assert_eq!((&orphans["items"][0]["kind"], &orphans["items"][0]["name"]), (&json!("DataKeyPair"), &json!("tokens")));
    assert!(text(&user.ends(0, &["orphans"]).await).contains("datakeypair/tokens"));
    test.plane.kubectl(&["apply", "-f", &file]).await.unwrap();
    let again = pairs(&test).ready("tokens").await;
    assert_eq!(again.as_object().record(), [issued]);
    assert_eq!(user.json(0, &["orphans"]).await["items"], json!([]));
    assert_eq!((test.data("tokens").await, test.proxy.calls_of(ISSUE_PAIR)), (data, 1));
}

#[tokio::test]
async fn verify_detects_halves_that_do_not_belong_together() {
    let test = TestNamespace::new("plugin-pair-verify").await;
    let _operator = test.operator();
    let user = User::of(&test);
    let specs =
        ["RSA_2048", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1", "ECC_NIST_EDWARDS25519"];
    for spec in specs {
        let name = spec.to_lowercase().replace('_', "-");
        pairs(&test).issue(&name, &json!({ "keyPairSpec": spec })).await;
    }
    let all = user.json(0, &["verify", "--decrypt"]).await;
    let halves = all["items"].as_array().unwrap().iter().map(|item| &item["versions"][0]["decrypt"]["publicHalf"]);
    assert_eq!(halves.collect::<Vec<_>>(), [&json!("Equal"); 6]);

    let other = pairs(&test).issue("other", &json!({})).await;
    let mut pin = to_json(&pairs(&test).get("ecc-nist-p256").await.as_object().record()[0]);
    pin["publicKey"] = to_json(&other.as_object().record()[0].public_key);
    pairs(&test).issue("belied", &json!({ "wrappedKeys": [pin] })).await;
    let belied = user.json(2, &["verify", "belied", "--decrypt"]).await;
    let why = belied["versions"][0]["decrypt"]["why"].as_str().unwrap();
    assert!(why.contains("does not belong to the recorded public key"), "{why}");
    assert_eq!(belied["secret"]["state"], "Intact");
}

#[tokio::test]
async fn name_of_both_kinds_must_be_explicit() {
    let test = TestNamespace::new("plugin-both").await;
    let _operator = test.operator();
    test.issue("both", &json!({})).await;
    pairs(&test).issue("both", &json!({ "secretName": "other" })).await;
    let user = User::of(&test);
    for command in ["status", "rotate", "keep"] {
        let ambiguous = user.ends(64, &[command, "both"]).await;
        let said =
            "namespace plugin-both has DataKey both and DataKeyPair both: write datakey/both or datakeypair/both";
        assert!(ambiguous.err.contains(said), "{ambiguous:?}");
    }
    for (name, kind) in [("datakey/both", "DataKey"), ("datakeypair/both", "DataKeyPair")] {
        assert_eq!(user.json(0, &["status", name]).await["kind"], kind);
        assert_eq!(user.json(0, &["verify", name]).await["kind"], kind);
    }
    let wrong = user.ends(64, &["status", "secret/both"]).await;
    assert!(wrong.err.contains("datakeypair/NAME"), "{wrong:?}");
}

#[tokio::test]
async fn dry_run_asks_kms_for_a_pair_and_keeps_none() {
    let test = TestNamespace::new("plugin-pair-dry-run").await;
    let user = User::of(&test);
    let alias = test.alias();
    let words = [&create("tokens", &alias)[..], &["--dry-run"]].concat();
    let answer = json!({ "KeyId": test.key.arn, "PrivateKeyCiphertextBlob": "AQID", "PublicKey": "AQID" });
    test.proxy.fail_next_dry_runs(1, Fault::Answer(answer));
    let dropped = user.ends(1, &words).await;
    assert!(dropped.err.contains("it issued a key pair, which was dropped"), "{dropped:?}");
    let request = test.proxy.dry_runs().pop().unwrap();
    assert_eq!((&request.body["DryRun"], &request.body["KeyPairSpec"]), (&json!(true), &json!("ECC_NIST_P256")));
    assert_eq!(test.proxy.operations(), [DRY_RUN]);
    let success = user.ends(0, &words).await;
    assert!(success.err.contains("AWS KMS would issue this key pair"), "{success:?}");
    let manifest: Value = serde_saphyr::from_str(&text(&success)).unwrap();
    assert_eq!((&manifest["kind"], &manifest["spec"]["keyPairSpec"]), (&json!("DataKeyPair"), &json!("ECC_NIST_P256")));
    test.proxy.fail_next_dry_runs(1, Fault::code("AccessDeniedException"));
    let refused = user.ends(1, &words).await;
    assert!(refused.err.contains("needs kms:GenerateDataKeyPairWithoutPlaintext"), "{refused:?}");
}

#[tokio::test]
async fn keep_changes_the_policy_of_a_pair() {
    let test = TestNamespace::new("plugin-pair-keep").await;
    if !test.plane.has_controllers() {
        return;
    }
    let _operator = test.operator();
    let before = pairs(&test).issue("tokens", &json!({ "deletionPolicy": "Delete" })).await;
    let secret = test.secret("tokens").await;
    assert_eq!(secret.owner_references().len(), 1);
    let file = test.plane.workdir().file("plugin-pair-keep.yaml");
    let to = format!("--to={}", file.display());
    let user = User::of(&test);
    let kept = user.ends(0, &["keep", "tokens", "--yes", &to]).await;
    assert!(text(&kept).contains("datakeypair/tokens has deletionPolicy Retain"), "{kept:?}");
    let pair = pairs(&test).get("tokens").await;
    assert_ne!(pair.uid(), before.uid());
    assert_eq!(pair.as_object().spec.deletion_policy, DeletionPolicy::Retain);
    assert_eq!(pair.as_object().record(), before.as_object().record());
    let after = test.secret("tokens").await;
    assert_eq!((after.uid(), &after.data, after.owner_references().len()), (secret.uid(), &secret.data, 0));
    assert_eq!(test.proxy.calls_of(ISSUE_PAIR), 1);
    // The file names the kind, where the pair is gone.
    pairs(&test).delete("tokens").await;
    user.ends(0, &["keep", "tokens", "--yes", &to]).await;
    assert_eq!(pairs(&test).get("tokens").await.as_object().record(), before.as_object().record());
}

/// The commands on DataKeys. Each ends with 0.
const ON_DATA_KEYS: [&[&str]; 12] = [
    &["list"],
    &["list", "-l", "team!=bank"],
    &["status"],
    &["status", "orders"],
    &["verify"],
    &["verify", "datakey/orders"],
    &["export", "orders"],
    &["export", "orders", "--pin"],
    &["policy", "orders"],
    &["retry", "orders"],
    &["rotate", "orders", "--wait"],
    &["orphans"],
];

#[tokio::test]
async fn commands_on_data_keys_need_no_definition_of_pairs() {
    let test = TestNamespace::with_own_control_plane("plugin-no-pairs").await;
    test.plane.kubectl(&["delete", "crd", "datakeypairs.datakey.dev"]).await.unwrap();
    let _operator = test.operator();
    test.issue("orders", &json!({ "deletionPolicy": "Delete" })).await;
    let user = User::of(&test);
    for words in ON_DATA_KEYS {
        user.ends(0, words).await;
    }
    let list = user.ends(0, &["list"]).await;
    assert_eq!(list.err, "note: DataKeyPairs are not installed: the API server does not know them\n");
    let alias = test.alias();
    user.ends(0, &["create", "more", "--key-id", &alias, "--key-spec=AES_256", "--apply"]).await;
    let file = test.plane.workdir().file("plugin-no-pairs.yaml");
    let kept = user.ends(0, &["keep", "orders", "--yes", &format!("--to={}", file.display())]).await;
    assert!(text(&kept).contains("orders has deletionPolicy Retain"), "{kept:?}");
    let missing = user.ends(1, &["status", "nothing"]).await;
    assert!(missing.err.contains("there is no DataKey nothing"), "{missing:?}");
    let pair = user.ends(1, &["status", "datakeypair/nothing"]).await;
    assert!(pair.err.contains("install the definition"), "{pair:?}");
    let pair = [&create("tokens", &alias)[..], &["--apply"]].concat();
    let pair = user.ends(1, &pair).await;
    assert!(pair.err.contains("install the definition"), "{pair:?}");

    // What a missing object and a missing definition look like to keep: only the first is one that it can create again.
    test.delete("orders").await;
    let elsewhere = format!("--to={}", test.plane.workdir().file("nothing.yaml").display());
    let gone = user.ends(1, &["keep", "datakey/orders", "--yes", &elsewhere]).await;
    assert!(gone.err.contains("there is no DataKey orders"), "{gone:?}");
    let unknown = user.ends(1, &["keep", "datakeypair/orders", "--yes", &elsewhere]).await;
    assert!(unknown.err.contains("install the definition"), "{unknown:?}");
}

#[tokio::test]
async fn commands_on_data_keys_need_no_rights_on_pairs() {
    let test = TestNamespace::new("plugin-pair-rights").await;
    let _operator = test.operator();
    test.issue("orders", &json!({})).await;
    pairs(&test).issue("tokens", &json!({})).await;
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
    test.apply(&[json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": { "name": "only-data-keys" },
        "rules": [
            rule("datakey.dev", &["datakeys"], &["get", "list", "patch", "create"]),
            rule("", &["secrets", "events"], &["get", "list"]),
        ],
    })])
    .await;
    let kubeconfig = test.kubeconfig_with_role("only-data-keys").await;
    let user = User::of(&test).with("KUBECONFIG", &kubeconfig.display().to_string());
    eventually(SOON, "the rights are there", async || user.runs(&["list"]).await.code == 0).await;
    for words in ON_DATA_KEYS {
        user.ends(0, words).await;
    }
    let list = user.ends(0, &["list"]).await;
    assert!(list.err.contains("note: DataKeyPairs are left out. DataKeyPairs: you may not"), "{list:?}");
    // The Secret of the pair is no orphan for one who may not see whether it has its pair.
    assert_eq!(user.json(0, &["orphans"]).await["items"], json!([]));
    let refused = user.ends(1, &["status", "datakeypair/tokens"]).await;
    assert!(refused.err.contains("you may not"), "{refused:?}");
    let none = user.ends(1, &["status", "tokens"]).await;
    assert!(none.err.contains("there is no DataKey tokens"), "{none:?}");
}
