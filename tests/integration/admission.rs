//! What the API server accepts and refuses of a `DataKey` before anything is issued, and with which message.

use kube::ResourceExt as _;
use serde_json::{Map, Value, json};

use crate::harness::{TestKind, TestNamespace, assert_refused};

for_each_kind! {
    template_keys_and_values_are_validated: new("template-keys"),
    the_four_forms_of_a_key_id_are_accepted: new("key-id-forms"),
    malformed_key_ids_are_refused: new("malformed-key-ids"),
    region_must_be_well_formed_and_not_beside_an_arn: new("regions"),
    at_most_ten_grant_tokens_of_bounded_length_are_accepted: new("grant-tokens"),
    encryption_context_keys_and_values_are_validated: new("contexts"),
    an_encryption_context_has_at_most_32_pairs_and_8192_bytes: new("context-size"),
    secret_names_versions_and_policies_are_validated: new("other-fields"),
    names_of_more_than_63_characters_are_refused: new("long-names"),
    unknown_fields_are_refused_and_null_fields_are_dropped: new("unknown-fields"),
    new_data_key_is_unknown_whatever_status_the_client_sends: new("birth"),
}

const KEY_ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
const KEY_FORMS: &str = "keyId must be a key ID";

/// Creates an object with these changes to an accepted spec; null removes a field.
pub async fn try_spec<K: TestKind>(test: &TestNamespace<K>, changes: Value) -> Result<String, Box<kube::core::Status>> {
    let mut spec = json!({ "keyId": "alias/orders" });
    K::complete(spec.as_object_mut().unwrap());
    for (field, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(spec.as_object_mut().unwrap().remove(field)),
            value => spec[field] = value.clone(),
        }
    }
    let manifest = json!({
        "apiVersion": K::KIND.api_version,
        "kind": K::KIND.name,
        "metadata": { "generateName": "k-" },
        "spec": spec,
    });
    test.try_create(&manifest).await.map(|key| key.name_any())
}

async fn accepts<K: TestKind>(test: &TestNamespace<K>, changes: Value) {
    if let Err(refusal) = try_spec(test, changes.clone()).await {
        panic!("{changes}: {}", refusal.message);
    }
}

async fn refuses<K: TestKind>(test: &TestNamespace<K>, changes: Value, words: &str) {
    assert_refused(try_spec(test, changes).await, words);
}

#[tokio::test]
async fn exactly_one_of_key_spec_and_number_of_bytes_is_required() {
    let test = TestNamespace::new("one-length").await;
    let words = "set exactly one of keySpec (AES_256 or AES_128) and numberOfBytes (1 to 1024)";
    accepts(&test, json!({ "keySpec": "AES_128" })).await;
    accepts(&test, json!({ "keySpec": null, "numberOfBytes": 64 })).await;
    refuses(&test, json!({ "keySpec": "AES_256", "numberOfBytes": 32 }), words).await;
    refuses(&test, json!({ "keySpec": null }), words).await;
    refuses(&test, json!({ "keySpec": "AES_512" }), r#"supported values: "AES_256", "AES_128""#).await;
}

#[tokio::test]
async fn number_of_bytes_is_1_to_1024() {
    let test = TestNamespace::new("number-of-bytes").await;
    let bytes = |bytes: i32| json!({ "keySpec": null, "numberOfBytes": bytes });
    accepts(&test, bytes(1)).await;
    accepts(&test, bytes(1024)).await;
    refuses(&test, bytes(0), "spec.numberOfBytes in body should be greater than or equal to 1").await;
    refuses(&test, bytes(1025), "spec.numberOfBytes in body should be less than or equal to 1024").await;
}

async fn template_keys_and_values_are_validated<K: TestKind>(test: TestNamespace<K>) {
    let template =
        |field: &str, key: &str, value: &str| json!({ "secretTemplate": { "metadata": { field: { key: value } } } });
    let (form, reserved) = ("must be a name of up to 63 letters", "in secretTemplate.metadata is reserved");
    let domain = format!("{}.{}", ["a".repeat(63).as_str(); 3].join("."), "a".repeat(61));
    for field in ["labels", "annotations"] {
        for key in ["team", "A", "a.b/C_d-1", "app.kubernetes.io/part-of", "mykubernetes.io/x", "helm.sh"] {
            accepts(&test, template(field, key, "x")).await;
        }
        accepts(&test, template(field, &"a".repeat(63), "")).await;
        accepts(&test, template(field, &format!("{domain}/{}", "a".repeat(63)), "x")).await;
        for key in
            ["", "/a", "a/", "a/b/c", "-a", "a b", "A.b/c", "a\n", "\u{e4}", &"a".repeat(64), &format!("{domain}a/a")]
        {
            refuses(&test, template(field, key, "x"), form).await;
        }
        for key in [
            "datakey.dev/name",
            "app.kubernetes.io/managed-by",
            "kubernetes.io/x",
            "kubectl.kubernetes.io/last-applied-configuration",
            "x.app.kubernetes.io/x",
            "k8s.io/x",
            "argocd.argoproj.io/tracking-id",
            "kustomize.toolkit.fluxcd.io/name",
            "helm.toolkit.fluxcd.io/name",
            "helm.sh/chart",
            "meta.helm.sh/release-name",
        ] {
            refuses(&test, template(field, key, "x"), reserved).await;
        }
        let many: Map<_, _> = (0..33).map(|number| (format!("k{number}"), json!("x"))).collect();
        refuses(&test, json!({ "secretTemplate": { "metadata": { field: many } } }), "must have at most 32 items")
            .await;
        refuses(&test, template(field, "a", &"x".repeat(2049)), "Too long").await;
    }
    accepts(&test, template("annotations", "a", &"\u{e4} ".repeat(1024))).await;
    accepts(&test, json!({ "secretTemplate": {} })).await;
    for value in ["a b", "-a", "a-", "\u{e4}", &"x".repeat(64)] {
        let words = if value.len() > 63 { "Too long" } else { "should match" };
        refuses(&test, template("labels", "a", value), words).await;
    }
}

async fn the_four_forms_of_a_key_id_are_accepted<K: TestKind>(test: TestNamespace<K>) {
    let mrk = format!("mrk-{}", "a1".repeat(16));
    for prefix in ["", "arn:aws:kms:eu-west-1:111122223333:", "arn:aws-us-gov:kms:us-gov-west-1:111122223333:"] {
        let key = if prefix.is_empty() { "" } else { "key/" };
        for form in [format!("{prefix}{key}{KEY_ID}"), format!("{prefix}{key}{mrk}"), format!("{prefix}alias/a/B_c-1")]
        {
            accepts(&test, json!({ "keyId": form })).await;
        }
    }
    accepts(&test, json!({ "keyId": format!("alias/{}", "a".repeat(250)) })).await;
}

async fn malformed_key_ids_are_refused<K: TestKind>(test: TestNamespace<K>) {
    for malformed in [
        "orders".to_owned(),
        KEY_ID.to_uppercase(),
        KEY_ID[1..].to_owned(),
        format!("key/{KEY_ID}"),
        "mrk-1234".to_owned(),
        "alias/".to_owned(),
        "alias/with space".to_owned(),
        format!("alias/{}", "a".repeat(251)),
        format!("arn:aws:kms:eu-west-1:1111:key/{KEY_ID}"),
        format!("arn:aws:s3:eu-west-1:111122223333:key/{KEY_ID}"),
        format!("arn:aws:kms:eu-west-1:111122223333:{KEY_ID}"),
        format!(" {KEY_ID}"),
        format!("{KEY_ID}\nalias/orders"),
    ] {
        refuses(&test, json!({ "keyId": malformed }), KEY_FORMS).await;
    }
    refuses(&test, json!({ "keyId": "" }), "should be at least 1 chars long").await;
    refuses(&test, json!({ "keyId": null }), "spec: Invalid value: set keyId, or set className").await;
    let aws_managed = "name a customer managed key";
    refuses(&test, json!({ "keyId": "alias/aws/s3" }), aws_managed).await;
    refuses(&test, json!({ "keyId": "arn:aws:kms:eu-west-1:111122223333:alias/aws/ebs" }), aws_managed).await;
}

async fn region_must_be_well_formed_and_not_beside_an_arn<K: TestKind>(test: TestNamespace<K>) {
    for region in ["eu-west-1", "us-gov-east-1", "ap-southeast-4", "us-iso-west-1"] {
        accepts(&test, json!({ "region": region })).await;
    }
    for region in ["europe", "eu-west", "EU-WEST-1", "eu-west-1a", "eu-west-1.attacker.example"] {
        refuses(&test, json!({ "region": region }), "region must be the code of an AWS Region, for example eu-west-1")
            .await;
    }
    let arn = format!("arn:aws:kms:eu-west-1:111122223333:key/{KEY_ID}");
    refuses(&test, json!({ "keyId": arn, "region": "eu-west-1" }), "remove region: the ARN in keyId names the Region")
        .await;
}

async fn at_most_ten_grant_tokens_of_bounded_length_are_accepted<K: TestKind>(test: TestNamespace<K>) {
    accepts(&test, json!({ "grantTokens": [] })).await;
    accepts(&test, json!({ "grantTokens": vec!["t".repeat(8192); 10] })).await;
    refuses(
        &test,
        json!({ "grantTokens": vec!["t"; 11] }),
        "spec.grantTokens: Too many: 11: must have at most 10 items",
    )
    .await;
    refuses(&test, json!({ "grantTokens": [""] }), "should be at least 1 chars long").await;
    refuses(&test, json!({ "grantTokens": ["t".repeat(8193)] }), "may not be more than 8192 bytes").await;
}

async fn encryption_context_keys_and_values_are_validated<K: TestKind>(test: TestNamespace<K>) {
    let context = |pairs: &[(&str, &str)]| {
        let pairs: Map<_, _> = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        json!({ "encryptionContext": pairs })
    };
    accepts(&test, context(&[])).await;
    accepts(&test, context(&[("purpose", "")])).await;
    accepts(&test, context(&[("Zweck", "Aufträge"), ("目的", "注文 🔑"), ("app.kubernetes.io/name", "shop")])).await;
    accepts(&test, context(&[("awsome", "x"), ("my-aws:", "x")])).await;

    refuses(&test, context(&[("", "x")]), "an encryption context key must not be empty").await;
    for reserved in ["aws:s3:arn", "AWS:x", "aws-crypto-public-key", "Aws-Crypto-x"] {
        refuses(&test, context(&[(reserved, "x")]), "are reserved for AWS services").await;
    }
    refuses(&test, context(&[("purpose", "a"), ("Purpose", "b")]), "differ in case only").await;
    refuses(&test, json!({ "encryptionContext": { "purpose": 7 } }), "must be of type string").await;
}

async fn an_encryption_context_has_at_most_32_pairs_and_8192_bytes<K: TestKind>(test: TestNamespace<K>) {
    let pairs = |count: usize| -> Map<_, _> { (0..count).map(|n| (format!("k{n}"), "v".into())).collect() };
    accepts(&test, json!({ "encryptionContext": pairs(32) })).await;
    refuses(&test, json!({ "encryptionContext": pairs(33) }), "must have at most 32 items").await;

    let words = "the encryption context is too long: its keys and values may have 8192 bytes together";
    accepts(&test, json!({ "encryptionContext": { "key": "v".repeat(8189) } })).await;
    refuses(&test, json!({ "encryptionContext": { "key": "v".repeat(8190) } }), words).await;
    // 4,095 characters, 8,190 bytes and the key.
    refuses(&test, json!({ "encryptionContext": { "key": "ä".repeat(4095) } }), words).await;
}

async fn secret_names_versions_and_policies_are_validated<K: TestKind>(test: TestNamespace<K>) {
    accepts(&test, json!({ "secretName": "orders.key-1", "version": 7, "deletionPolicy": "Delete" })).await;
    for name in ["Orders", "-orders", "orders-", "orders..key", "a/b"] {
        refuses(&test, json!({ "secretName": name }), "secretName must be a DNS subdomain").await;
    }
    refuses(&test, json!({ "secretName": "a".repeat(254) }), "may not be more than 253 bytes").await;
    refuses(&test, json!({ "version": 0 }), "should be greater than or equal to 1").await;
    refuses(&test, json!({ "deletionPolicy": "Keep" }), r#"supported values: "Retain", "Delete""#).await;
}

async fn names_of_more_than_63_characters_are_refused<K: TestKind>(test: TestNamespace<K>) {
    let named = |length: usize| test.manifest(&"n".repeat(length), &json!({}));
    test.try_create(&named(63)).await.unwrap();
    assert_refused(test.try_create(&named(64)).await, "metadata.name: Too long: may not be more than 63 bytes");
}

async fn unknown_fields_are_refused_and_null_fields_are_dropped<K: TestKind>(test: TestNamespace<K>) {
    refuses(&test, json!({ "keyid": "alias/orders" }), r#"unknown field "spec.keyid""#).await;
    let mut manifest = test.manifest("nothing", &json!({}));
    manifest["spec"]["region"] = Value::Null;
    test.try_create(&manifest).await.unwrap();
    let stored: Value = test.send("GET", "/nothing", &Value::Null).await.unwrap();
    assert_eq!(stored["spec"].get("region"), None);
}

#[tokio::test]
async fn every_field_can_be_corrected_before_issuance() {
    let test = TestNamespace::new("corrections").await;
    test.create("k", &json!({ "keyId": "alias/wrong", "secretName": "wrong" })).await;
    let spec = json!({
        "keyId": "alias/right",
        "keySpec": null,
        "numberOfBytes": 7,
        "encryptionContext": { "a": "b" },
        "region": "eu-north-1",
        "secretName": "right",
        "version": 3,
    });
    test.patch("k", &json!({ "spec": spec })).await;
}

#[tokio::test]
async fn a_changed_spec_agrees_with_itself() {
    let test = TestNamespace::new("changed-specs").await;
    test.create("k", &json!({ "wrappedKeys": [test.pin(1)], "version": 2 })).await;
    let arn = format!("arn:aws:kms:eu-west-1:111122223333:key/{KEY_ID}");
    for (change, words) in [
        (json!({ "numberOfBytes": 32 }), "set exactly one of keySpec"),
        (json!({ "keySpec": null }), "set exactly one of keySpec"),
        (json!({ "keyId": arn, "region": "eu-west-1" }), "remove region: the ARN in keyId names the Region"),
        (json!({ "version": 1, "keySpec": "AES_128" }), "wrappedKeys pins this version's data key"),
    ] {
        assert_refused(test.try_patch("k", &json!({ "spec": change })).await, words);
    }
    test.patch("k", &json!({ "spec": { "version": 1 } })).await;
}

async fn new_data_key_is_unknown_whatever_status_the_client_sends<K: TestKind>(test: TestNamespace<K>) {
    let mut manifest = test.manifest("k", &json!({}));
    manifest["status"] = json!({ "observedGeneration": 1, "secretName": "mine" });
    let key = test.try_create(&manifest).await.unwrap();
    let status = key.status().unwrap();
    assert_eq!(status.observed_generation, Some(-1));
    assert_eq!(status.secret_name, None);
    let ready = &status.conditions[0];
    assert_eq!((ready.type_.as_str(), ready.status.as_str(), ready.reason.as_str()), ("Ready", "Unknown", "Pending"));
    assert_eq!(ready.observed_generation, Some(-1));
}

#[tokio::test]
async fn kubectl_explain_describes_every_field() {
    let test = TestNamespace::new("explain").await;
    for (field, words) in [
        ("", "wrapped form only"),
        (".spec.keyId", "four forms"),
        (".spec.keySpec", "AES_256"),
        (".spec.numberOfBytes", "1 to 1024"),
        (".spec.encryptionContext", "AWS CloudTrail"),
        (".spec.grantTokens", "Up to 10"),
        (".spec.region", "eu-west-1"),
        (".spec.version", "At most 64 versions"),
        (".spec.secretName", "Fixed once a version is issued"),
        (".spec.deletionPolicy", "Retain"),
        (".spec.wrappedKeys", "never issued again"),
        (".status.versions", "refuses to change or to remove"),
        (".status.versions.request", "that the operator sent to KMS"),
    ] {
        let explained = test.plane.kubectl(&["explain", &format!("datakeys{field}")]).await.unwrap();
        let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(explained.contains(words), "{field}: {explained}");
    }
}

#[tokio::test]
async fn kubectl_get_shows_the_columns_under_every_name() {
    let test = TestNamespace::new("columns").await;
    test.create("k", &json!({})).await;
    for kind in ["dk", "datakeys", "datakeys.datakey.dev"] {
        let listed = test.plane.kubectl(&["get", kind, "-n", "columns"]).await.unwrap();
        let header: Vec<_> = listed.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(header, ["NAME", "READY", "REASON", "VERSION", "KEY", "SECRET", "AGE"]);
        assert!(listed.contains("Unknown") && listed.contains("Pending"), "{listed}");
        // kubectl takes no name with a category, and would take the plural for one of the same name.
        let one = test.plane.kubectl(&["get", kind, "k", "-n", "columns"]).await.unwrap();
        assert_eq!(one.lines().next(), listed.lines().next());
    }
    let all = test.plane.kubectl(&["get", "datakey-operator", "-n", "columns", "-o", "name"]).await.unwrap();
    assert_eq!(all, "datakey.datakey.dev/k\n");
    let wide = test.plane.kubectl(&["get", "dk", "-n", "columns", "-o", "wide"]).await.unwrap();
    for column in ["SPEC", "BYTES", "ISSUED"] {
        assert!(wide.contains(column), "{wide}");
    }
}
