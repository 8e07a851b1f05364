//! `kubectl datakey`, run by the real kubectl as users run it.

mod completion;
mod installation;

use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex},
};

use datakey::secret::sha256;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use serde_json::{Value, json};
use testbed::{
    api_proxy::{ApiProxy, Fault},
    commands::{self, Ended},
    eventually, kms,
};

use crate::harness::{NO_RETRY, SOON, TestNamespace, UNSET, to_json};

/// The documented schema of `-o json`.
static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema = include_str!("../../docs/kubectl-datakey.schema.json");
    jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap()
});

/// A user at a terminal: a cluster admin with AWS credentials, who sees all that is printed.
pub struct User<'a> {
    test: &'a TestNamespace,
    environment: BTreeMap<&'static str, String>,
    seen: Mutex<Vec<u8>>,
}

// === impl User ===

impl<'a> User<'a> {
    pub fn of(test: &'a TestNamespace) -> Self {
        let mut environment: BTreeMap<_, _> = kms::environment(&test.proxy.url()).into();
        environment.insert("KUBECONFIG", test.plane.admin_kubeconfig().display().to_string());
        Self { test, environment, seen: Mutex::default() }
    }

    /// The same with another environment.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.insert(name, value.to_owned());
        self.environment.retain(|_, value| value != UNSET);
        self
    }

    /// The environment of the user's commands.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.environment.iter().map(|(name, value)| (*name, value.clone()))
    }

    /// Runs `kubectl datakey` with these words, in the test's namespace.
    pub async fn runs(&self, words: &[&str]) -> Ended {
        self.types(&[&["datakey"], words, &["-n", &self.test.namespace]].concat()).await
    }

    /// Runs kubectl with these words.
    pub async fn types(&self, words: &[&str]) -> Ended {
        let environment: Vec<_> = self.environment().collect();
        let ended = commands::plugin(&testbed::plugin(), &environment, words).await;
        let mut seen = self.seen.lock().unwrap();
        seen.extend(&ended.out);
        seen.extend(ended.err.as_bytes());
        ended
    }

    /// The same, and asserts the exit code.
    pub async fn ends(&self, code: i32, words: &[&str]) -> Ended {
        let ended = self.runs(words).await;
        assert_eq!(ended.code, code, "{words:?}:\n{}{}", text(&ended), ended.err);
        ended
    }

    /// The same with JSON as output, parsed.
    pub async fn json(&self, code: i32, words: &[&str]) -> Value {
        self.prints_json(code, &[words, &["-o", "json"]].concat()).await
    }

    /// The same of words that ask for JSON themselves.
    pub async fn prints_json(&self, code: i32, words: &[&str]) -> Value {
        let ended = self.ends(code, words).await;
        let read = serde_json::from_slice(&ended.out);
        let read = read.unwrap_or_else(|error| panic!("{words:?}: {error}:\n{}", text(&ended)));
        assert!(SCHEMA.is_valid(&read), "{words:?}: the documented schema has no such output: {read}");
        read
    }

    /// Whether the user saw these bytes, raw or in a usual encoding.
    pub fn saw(&self, bytes: &[u8]) -> bool {
        let seen = self.seen.lock().unwrap();
        let holds = |needle: &[u8]| seen.windows(needle.len()).any(|window| window == needle);
        let base64 = json!(k8s_openapi::ByteString(bytes.to_vec()));
        let base64 = base64.as_str().unwrap().trim_end_matches('=');
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let hex: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
        holds(bytes) || holds(base64.as_bytes()) || holds(hex.as_bytes()) || holds(hex.to_uppercase().as_bytes())
    }
}

pub fn text(ended: &Ended) -> String {
    String::from_utf8_lossy(&ended.out).into_owned()
}

/// The cells of a table's line that begins with this name.
pub fn row(table: &str, name: &str) -> Vec<String> {
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name} in:\n{table}")).split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn list_and_status_say_why_a_data_key_is_not_ready() {
    let test = TestNamespace::new("plugin-status").await;
    let operator = test.operator();
    test.issue("orders", &json!({ "encryptionContext": { "purpose": "orders" } })).await;
    test.create("missing", &json!({ "keyId": "alias/plugin-status-missing" })).await;
    test.failed("missing", "KeyNotFound").await;
    let user = User::of(&test);

    let list = text(&user.ends(0, &["list"]).await);
    let orders = row(&list, "orders");
    assert_eq!(
        (&orders[..4], &orders[5..7]),
        (&["orders", "True", "Issued", "1"].map(str::to_owned)[..], &[test.key.id.clone(), "orders".to_owned()][..],)
    );
    assert!(text(&user.ends(0, &["list", "-o", "wide"]).await).contains(&test.key.arn));
    assert_eq!(
        text(&user.ends(0, &["list", "-o", "name"]).await),
        "datakey.datakey.dev/missing\ndatakey.datakey.dev/orders\n"
    );
    test.patch("orders", &json!({ "metadata": { "labels": { "team": "shop" } } })).await;
    let selected = user.json(0, &["list", "-l", "team=shop"]).await;
    assert_eq!((selected["items"].as_array().unwrap().len(), &selected["items"][0]["name"]), (1, &json!("orders")));
    assert_eq!(row(&list, "missing")[..4], ["missing", "False", "KeyNotFound", "<none>"]);
    let items = user.json(0, &["list"]).await["items"].as_array().unwrap().len();
    assert_eq!(items, 2);
    let everywhere = text(&user.ends(0, &["list", "-A"]).await);
    let mine = |line: &&str| line.starts_with("plugin-status ");
    assert_eq!(everywhere.lines().filter(mine).count(), 2, "{everywhere}");
    let yaml: Value = serde_saphyr::from_str(&text(&user.ends(0, &["ls", "-o", "yaml"]).await)).unwrap();
    assert_eq!(yaml["items"][0]["name"], "missing");

    let all = user.ends(2, &["status"]).await;
    assert!(
        text(&all).starts_with("missing in namespace plugin-status: not Ready (KeyNotFound), for "),
        "{}",
        text(&all)
    );
    assert!(!text(&all).contains("orders in namespace"), "{}", text(&all));
    assert!(text(&all).contains("AWS KMS has no such key or alias"), "{}", text(&all));
    assert!(text(&all).contains("a user must act"), "{}", text(&all));
    assert_eq!(all.err, "1 of 2 DataKeys is not as it should be.\n");
    eventually(SOON, "the events are shown", async || {
        let one = user.json(2, &["status", "missing"]).await;
        let is_there = |event: &Value| event["reason"] == "KeyNotFound" && event["type"] == "Warning";
        one["events"].as_array().is_some_and(|events| events.iter().any(is_there))
    })
    .await;
    let one = user.json(0, &["status", "orders"]).await;
    assert_eq!(
        (&one["ready"], &one["version"], &one["secret"]["state"]),
        (&json!("True"), &json!(1), &json!("Intact"))
    );
    assert_eq!(one["versions"][0]["keyId"], json!(test.key.arn));
    assert_eq!(one["versions"][0]["encryptionContext"], json!({ "purpose": "orders" }));
    let missing = user.json(2, &["status", "missing"]).await;
    assert_eq!((&missing["stalled"], &missing["secret"]["state"]), (&json!(true), &json!("NotIssued")));

    // A condition cannot show that no operator runs.
    drop(operator);
    test.delete_secret("orders").await;
    let away = user.ends(2, &["status", "orders"]).await;
    assert!(
        text(&away).contains("orders: is not there") && text(&away).contains("whether the operator runs"),
        "{away:?}"
    );

    // Events of a deleted DataKey do not concern another one of its name.
    test.delete("missing").await;
    test.create("missing", &json!({})).await;
    let again = user.json(2, &["status", "missing"]).await;
    assert_eq!((&again["reason"], again.get("events")), (&json!("Pending"), None));
}

#[tokio::test]
async fn every_export_format_has_the_whole_record() {
    let test = TestNamespace::new("plugin-export").await;
    let _operator = test.operator();
    let context = json!({ "it's": "$(id) yes", "yes": "012", "n": "a\nb: c" });
    test.issue("k", &json!({ "encryptionContext": context, "secretName": "wrapped" })).await;
    let spec = json!({ "spec": { "version": 2, "encryptionContext": null, "keySpec": null, "numberOfBytes": 24 } });
    test.patch("k", &spec).await;
    let key = test.ready("k").await;
    let user = User::of(&test);

    let (one, two) = (key.recorded_version(1).unwrap(), key.recorded_version(2).unwrap());
    assert_eq!(user.ends(0, &["export", "k", "-o", "raw"]).await.out, two.ciphertext_blob.0);
    assert_eq!(user.ends(0, &["export", "k", "-o", "raw", "--version=1"]).await.out, one.ciphertext_blob.0);
    let exported = user.json(0, &["export", "k", "--version", "1"]).await;
    assert_eq!(exported["ciphertextBlob"], to_json(&one.ciphertext_blob));
    assert_eq!((&exported["encryptionContext"], &exported["keyId"]), (&context, &json!(test.key.arn)));

    let script = text(&user.ends(0, &["export", "k", "-o", "env", "--version=1"]).await)
        + r#"printf '%s' "$DATAKEY_CIPHERTEXT_BLOB $DATAKEY_ENCRYPTION_CONTEXT""#;
    let shell = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
    let read = String::from_utf8(shell.stdout).unwrap();
    let (blob, read) = read.split_once(' ').unwrap();
    assert_eq!((json!(blob), serde_json::from_str(read).unwrap()), (to_json(&one.ciphertext_blob), context));

    // A workload can mount the exported manifest in place of the Secret: the API server accepts it with the same data.
    let file = test.plane.workdir().file("plugin-export.yaml").display().to_string();
    let wrote = user.ends(0, &["export", "k", "--to", &file]).await;
    assert!(wrote.out.is_empty() && wrote.err.contains(&file), "{wrote:?}");
    test.plane.kubectl(&["apply", "-f", &file]).await.unwrap();
    let map = test.plane.kubectl(&["get", "configmap", "wrapped", "-n", "plugin-export", "-o", "json"]).await.unwrap();
    let map: ConfigMap = serde_json::from_str(&map).unwrap();
    let texts = map.data.into_iter().flatten().map(|(entry, value)| (entry, value.into_bytes()));
    let bytes = map.binary_data.into_iter().flatten().map(|(entry, value)| (entry, value.0));
    assert_eq!(texts.chain(bytes).collect::<BTreeMap<_, _>>(), test.data("wrapped").await);
    assert!(user.ends(1, &["export", "k", "--to", &file]).await.err.contains("is there already"));

    assert!(user.ends(64, &["export", "k", "--version=3"]).await.err.contains("it has 1, 2"));
    for suffix in [".v1", ".v2"] {
        let plaintext = test.decrypt(&test.data("wrapped").await, suffix).await;
        assert!(!user.saw(&plaintext));
    }
    assert!(user.saw(&two.ciphertext_blob.0), "the search finds what is printed");
}

#[tokio::test]
async fn a_pinned_manifest_is_the_spec_with_everything_issued() {
    let test = TestNamespace::new("plugin-pin").await;
    let operator = test.operator();
    let labels = json!({ "team": "yes", "tier": "1" });
    let mut manifest = test.manifest("k", &json!({ "encryptionContext": { "on": "1e3", "n": "a\nb" } }));
    manifest["metadata"]["labels"] = labels.clone();
    test.try_create(&manifest).await.unwrap();
    test.ready("k").await;
    test.patch("k", &json!({ "spec": { "version": 2 } })).await;
    let key = to_json(&test.ready("k").await);
    let user = User::of(&test);
    let printed = user.ends(0, &["export", "k", "--pin"]).await;

    // As kubectl reads YAML, and so Argo CD and Flux do.
    let file = test.plane.workdir().file("plugin-pin.yaml");
    std::fs::write(&file, &printed.out).unwrap();
    let file = file.display().to_string();
    let read = ["create", "--dry-run=client", "--validate=ignore", "-o", "json", "-f", &file];
    let pinned: Value = serde_json::from_str(&test.plane.kubectl(&read).await.unwrap()).unwrap();
    let mut spec = key["spec"].clone();
    spec["wrappedKeys"] = key["status"]["versions"].clone();
    assert_eq!(spec["wrappedKeys"].as_array().unwrap().len(), 2);
    assert_eq!(pinned["spec"], spec);
    assert_eq!(pinned["metadata"], json!({ "name": "k", "namespace": "plugin-pin", "labels": labels }));
    assert_eq!((&pinned["apiVersion"], &pinned["kind"]), (&json!("datakey.dev/v1alpha1"), &json!("DataKey")));

    // Applied to another cluster, it gives the same data keys without a call to KMS.
    let there = TestNamespace::new("plugin-pinned").await;
    let _operator = there.operator();
    let moved =
        std::fs::read_to_string(&file).unwrap().replace("namespace: plugin-pin\n", "namespace: plugin-pinned\n");
    std::fs::write(&file, moved).unwrap();
    there.plane.kubectl(&["apply", "-f", &file]).await.unwrap();
    let same = there.ready("k").await;
    assert_eq!(to_json(&same)["status"]["versions"], key["status"]["versions"]);
    assert_eq!(there.data("k").await, test.data("k").await);
    assert_eq!(there.proxy.calls(), 0);

    drop(operator);
    test.create("new", &json!({})).await;
    assert!(user.ends(2, &["export", "new", "--pin"]).await.err.contains("nothing to pin yet"));
}

#[tokio::test]
async fn verify_names_what_was_changed_in_a_secret_and_shows_no_value() {
    let test = TestNamespace::new("plugin-verify").await;
    let operator = test.operator();
    for name in ["good", "edited", "gone", "foreign"] {
        test.issue(name, &json!({ "encryptionContext": { "purpose": name } })).await;
    }
    let user = User::of(&test);
    let all = user.ends(0, &["verify"]).await;
    assert_eq!((all.err.as_str(), text(&all).matches(": verified\n").count()), ("4 of 4 DataKeys are verified.\n", 4));
    let calls = test.proxy.operations();
    assert_eq!(calls, ["GenerateDataKeyWithoutPlaintext"], "KMS is not asked without --decrypt");

    drop(operator);
    let edit = json!({
        "metadata": { "labels": { "datakey.dev/name": null }, "annotations": { "datakey.dev/version": "7" } },
        "stringData": { "keyId": "correct horse", "more": "battery staple" },
    });
    test.edit_secret("edited", &edit).await;
    test.delete_secret("gone").await;
    let mut foreign = test.secret("foreign").await;
    test.delete_secret("foreign").await;
    foreign.type_ = Some("Opaque".into());
    foreign.metadata = kube::api::ObjectMeta { name: Some("foreign".into()), ..<_>::default() };
    test.create_secret(&foreign).await;

    let all = user.json(2, &["verify"]).await;
    let states: BTreeMap<_, _> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            (item["name"].as_str().unwrap(), (item["secret"]["state"].as_str().unwrap(), item["verified"] == true))
        })
        .collect();
    let expected = [
        ("edited", ("Changed", false)),
        ("foreign", ("Conflict", false)),
        ("gone", ("Missing", false)),
        ("good", ("Intact", true)),
    ];
    assert_eq!(states, expected.into());
    let edited = user.json(2, &["verify", "edited"]).await;
    let differences = [
        "entry keyId was changed",
        "entry more was added",
        "label datakey.dev/name is missing",
        "annotation datakey.dev/version was changed",
    ];
    assert_eq!(edited["secret"]["differences"], json!(differences));
    let words = text(&user.ends(2, &["verify", "edited"]).await);
    assert!(words.contains("NOT as recorded"), "{words}");
    assert!(!user.saw(b"correct horse") && !user.saw(b"battery staple"));
    user.ends(0, &["verify", "good"]).await;
    let everywhere = user.runs(&["verify", "-A", "-o", "json"]).await;
    let everywhere: Value = serde_json::from_slice(&everywhere.out).unwrap();
    let here = everywhere["items"].as_array().unwrap().iter().filter(|item| item["namespace"] == "plugin-verify");
    assert_eq!(here.count(), 4);
}

#[tokio::test]
async fn verify_says_what_a_secret_in_the_way_is() {
    let test = TestNamespace::new("plugin-in-the-way").await;
    let operator = test.operator();
    test.issue("orders", &json!({})).await;
    let mut damaged = test.secret("orders").await;
    let foreign =
        json!({ "metadata": { "name": "foreign", "namespace": test.namespace }, "stringData": { "a": "hunter2" } });
    test.create_secret(&serde_json::from_value(foreign).unwrap()).await;
    damaged.metadata = kube::api::ObjectMeta {
        name: Some("damaged".into()),
        labels: damaged.metadata.labels.clone(),
        annotations: damaged.metadata.annotations.clone(),
        ..<_>::default()
    };
    damaged.metadata.labels.as_mut().unwrap().insert("datakey.dev/name".into(), "damaged".into());
    damaged.data.as_mut().unwrap().remove("keyId.v1");
    test.create_secret(&damaged).await;
    for name in ["foreign", "damaged"] {
        test.create(name, &json!({})).await;
        test.failed(name, "SecretConflict").await;
    }
    test.create("another", &json!({ "secretName": "orders" })).await;
    test.failed("another", "SecretConflict").await;
    drop(operator);
    test.delete("orders").await;
    test.create("orders", &json!({})).await;

    let user = User::of(&test);
    for (name, state, what) in [
        ("foreign", "Conflict", "it is of type \"Opaque\""),
        ("damaged", "Conflict", "keyId"),
        ("another", "Conflict", "it belongs to DataKey orders"),
        ("orders", "Adoptable", "versions 1"),
    ] {
        for command in ["verify", "status"] {
            let found = user.json(2, &[command, name]).await;
            let detail = found["secret"]["detail"].as_str().unwrap_or_default();
            assert!(found["secret"]["state"] == state && detail.contains(what), "{command} {name}: {found}");
        }
    }
    let words = text(&user.ends(2, &["verify", "foreign"]).await);
    assert!(words.starts_with("foreign in namespace plugin-in-the-way: not issued yet\n"), "{words}");
    assert!(!user.saw(b"hunter2"));
}

#[tokio::test]
async fn verify_decrypts_with_kms_and_never_shows_the_plaintext() {
    let test = TestNamespace::new("plugin-decrypt").await;
    let operator = test.operator();
    test.issue("k", &json!({ "encryptionContext": { "purpose": "orders" } })).await;
    test.issue("short", &json!({ "numberOfBytes": 8 })).await;
    let (data, short) = (test.data("k").await, test.data("short").await);
    let (plaintext, guessable) = (test.decrypt(&data, "").await, test.decrypt(&short, "").await);
    drop(operator);
    let user = User::of(&test).with("AWS_REGION", UNSET);

    let found = user.json(0, &["verify", "k", "--decrypt"]).await;
    let expected = json!({ "result": "Unwrapped", "length": 32, "plaintextSha256": sha256(&plaintext) });
    assert_eq!(found["versions"][0]["decrypt"], expected);
    let found = user.json(0, &["verify", "short", "--decrypt"]).await;
    assert_eq!(found["versions"][0]["decrypt"], json!({ "result": "Unwrapped", "length": 8 }));
    let words = text(&user.ends(0, &["verify", "--decrypt"]).await);
    assert!(words.contains(&sha256(&plaintext)) && !words.contains(&sha256(&guessable)), "{words}");
    assert_eq!(test.proxy.calls_of("Decrypt"), 4);

    // KMS decrypts what is recorded, not an edited Secret; the edit is reported beside it.
    test.edit_secret("k", &json!({ "data": { "ciphertextBlob": "eA==" } })).await;
    let tampered = user.json(2, &["verify", "k", "--decrypt"]).await;
    assert_eq!((&tampered["secret"]["state"], &tampered["versions"][0]["decrypt"]), (&json!("Changed"), &expected));

    // A record that does not match its data key.
    let request = json!({ "keyId": test.alias(), "keySpec": "AES_256", "encryptionContext": { "purpose": "else" } });
    test.create("belied", &json!({ "encryptionContext": { "purpose": "else" } })).await;
    let mut version = to_json(&test.get("k").await.record()[0]);
    version["request"] = request;
    test.try_patch_status("belied", &json!({ "secretName": "belied", "versions": [version] })).await.unwrap();
    let belied = user.json(2, &["verify", "belied", "--decrypt"]).await;
    assert_eq!(belied["versions"][0]["decrypt"]["result"], "Failed");
    let why = belied["versions"][0]["decrypt"]["why"].as_str().unwrap();
    assert!(why.contains("InvalidCiphertextException") && why.contains("don't belong together"), "{why}");

    let admin = test.kms.client();
    admin.disable_key().key_id(&test.key.id).send().await.unwrap();
    let disabled = user.ends(2, &["verify", "short", "--decrypt"]).await;
    assert!(text(&disabled).contains("does NOT unwrap: AWS KMS refuses: DisabledException"), "{disabled:?}");
    admin.enable_key().key_id(&test.key.id).send().await.unwrap();

    let half = User::of(&test).with("AWS_ACCESS_KEY_ID", UNSET);
    let refused = half.ends(64, &["verify", "short", "--decrypt"]).await;
    assert!(refused.err.contains("AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not"), "{refused:?}");
    let anonymous = half.with("AWS_SECRET_ACCESS_KEY", UNSET).with("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    let anonymous = anonymous.with("AWS_CONFIG_FILE", "/dev/null");
    let unknown = anonymous.ends(1, &["verify", "short", "--decrypt"]).await;
    assert!(
        text(&unknown).contains("not known whether it unwraps") && text(&unknown).contains("check AWS credentials"),
        "{unknown:?}"
    );
    for bytes in [&plaintext, &guessable] {
        assert!(!user.saw(bytes));
    }
}

#[tokio::test]
async fn retry_has_what_is_fixed_tried_at_once() {
    let test = TestNamespace::new("plugin-retry").await;
    let operator = test.operator_with(&NO_RETRY, &[]);
    operator.is_ready().await;
    test.issue("good", &json!({})).await;
    let admin = test.kms.client();
    admin.disable_key().key_id(&test.key.id).send().await.unwrap();
    for (name, team) in [("a", "shop"), ("b", "shop"), ("c", "bank")] {
        let mut manifest = test.manifest(name, &json!({}));
        manifest["metadata"]["labels"] = json!({ "team": team });
        test.try_create(&manifest).await.unwrap();
        test.failed(name, "KeyDisabled").await;
    }
    let user = User::of(&test);
    let late = user.ends(2, &["retry", "a", "--wait", "--timeout=2s"]).await;
    assert_eq!(text(&late), "a: a retry is requested (KeyDisabled)\n");
    assert!(late.err.contains("not Ready within 2s:\na in namespace plugin-retry: KeyDisabled"), "{late:?}");

    admin.enable_key().key_id(&test.key.id).send().await.unwrap();
    let waited = user.ends(0, &["retry", "-l", "team=bank", "--wait"]).await;
    assert_eq!(text(&waited), "c: a retry is requested (KeyDisabled)\nc is Ready\n");
    assert_eq!(waited.err, "waiting until c is Ready\n");
    let everywhere = user.runs(&["retry", "-A", "-l", "team=shop"]).await;
    let lines = text(&everywhere);
    for name in ["a", "b"] {
        assert!(lines.contains(&format!("plugin-retry/{name}: a retry is requested (KeyDisabled)")), "{lines}");
    }
    assert_eq!(lines.matches("there is at most one a minute, and the last one was ").count(), 1, "that of a: {lines}");
    test.ready("b").await;
    let before = test.get("good").await;
    let none = user.ends(0, &["retry", "good"]).await;
    assert_eq!(none.err, "Nothing waits: 1 of 1 DataKeys is Ready or being deleted.\n");
    assert_eq!(test.get("good").await.resource_version(), before.resource_version());
    drop(operator);

    // One who may not change them reads that once.
    for name in ["x", "y", "z"] {
        test.create(name, &json!({})).await;
    }
    let kubeconfig = test.kubeconfig_with_role("view").await;
    let viewer = User::of(&test).with("KUBECONFIG", &kubeconfig.display().to_string());
    eventually(SOON, "the rights are there", async || viewer.runs(&["list"]).await.code == 0).await;
    let refused = viewer.ends(1, &["retry", "-l", "team!=shop"]).await;
    assert_eq!((refused.out.len(), refused.err.matches("you may not").count()), (0, 1), "{refused:?}");
    assert!(refused.err.contains("no retry is requested for 3 DataKeys in plugin-retry"), "{refused:?}");
}

#[tokio::test]
async fn rotate_issues_the_next_version_and_keeps_earlier_ones() {
    let test = TestNamespace::new("plugin-rotate").await;
    let operator = test.operator();
    let before = test.issue("k", &json!({})).await;
    let user = User::of(&test);

    let dry = user.ends(0, &["rotate", "k", "--dry-run"]).await;
    assert_eq!(text(&dry), "version 2 of k would be requested (dry run)\n");
    let patch = user.ends(0, &["rotate", "k", "--patch"]).await;
    assert_eq!(test.get("k").await.resource_version(), before.resource_version(), "nothing was changed");

    let rotated = user.ends(0, &["rotate", "k", "--wait"]).await;
    assert_eq!(text(&rotated), "version 2 of k is issued and current\n");
    let key = test.get("k").await;
    assert_eq!((key.record().len(), key.status.as_ref().unwrap().version), (2, Some(2)));
    assert_eq!(key.record()[0], before.record()[0]);
    assert_eq!(test.data("k").await["ciphertextBlob.v1"], before.record()[0].ciphertext_blob.0);

    // Reverted in Git and applied again, version 2 is not issued again, and the next rotation uses a new number.
    test.patch("k", &json!({ "spec": { "version": 1 } })).await;
    test.ready("k").await;
    let file = test.plane.workdir().file("plugin-rotate.yaml");
    std::fs::write(&file, &patch.out).unwrap();
    let file = format!("--patch-file={}", file.display());
    test.plane.kubectl(&["patch", "dk", "k", "-n", "plugin-rotate", "--type=merge", &file]).await.unwrap();
    assert_eq!(test.ready("k").await.record().len(), 2, "the change for Git wants version 2, which is there");
    test.patch("k", &json!({ "spec": { "version": 1 } })).await;
    test.ready("k").await;
    user.ends(0, &["rotate", "k", "--wait", "--timeout=1m"]).await;
    let versions: Vec<_> = test.get("k").await.record().iter().map(|issued| issued.version).collect();
    assert_eq!(versions, [1, 2, 3]);

    // A failure that a user must fix ends the wait at once.
    test.kms.client().disable_key().key_id(&test.key.id).send().await.unwrap();
    let stalled = user.ends(2, &["rotate", "k", "--wait", "--timeout=10m"]).await;
    assert!(stalled.err.contains("KeyDisabled"), "{stalled:?}");
    let refused = user.ends(2, &["rotate", "k"]).await;
    assert!(refused.err.contains("is not Ready (KeyDisabled") && refused.err.contains("--force"), "{refused:?}");
    assert_eq!(test.get("k").await.wanted_version(), 4);
    user.ends(0, &["rotate", "k", "--force"]).await;
    assert_eq!(test.get("k").await.wanted_version(), 5);
    drop(operator);
    let late = user.ends(2, &["rotate", "k", "--force", "--wait", "--timeout=1s"]).await;
    assert!(late.err.contains("not within 1s"), "{late:?}");
}

#[tokio::test]
async fn rotate_finds_its_change_although_the_answer_was_lost() {
    let test = TestNamespace::new("plugin-rotate-lost").await;
    let _operator = test.operator();
    test.issue("k", &json!({})).await;
    let kubeconfig = test.kubeconfig_with_role("cluster-admin").await;
    let api = ApiProxy::start(&kubeconfig).await;
    let user = User::of(&test).with("KUBECONFIG", &api.kubeconfig(&kubeconfig).display().to_string());
    api.fail_next(1, "patch", "datakeys", Fault::LoseAnswer);
    assert_eq!(text(&user.ends(0, &["rotate", "k"]).await), "version 2 of k is requested\n");
    test.ready("k").await;
    api.fail_next(1, "patch", "datakeys", Fault::Refuse(504, "Timeout", "Timeout: request did not complete"));
    let unclear = user.ends(1, &["rotate", "k"]).await;
    assert!(unclear.err.contains("look whether spec.version is 3"), "{unclear:?}");
    // A poll without an answer does not end the wait; the first GET reads the DataKey before the change.
    api.fail_after(1, "get", "datakeys", Fault::Refuse(503, "ServiceUnavailable", "away"));
    assert_eq!(text(&user.ends(0, &["rotate", "k", "--wait"]).await), "version 3 of k is issued and current\n");
    assert_eq!(test.get("k").await.record().len(), 3);
}

#[tokio::test]
async fn policies_are_those_of_the_recorded_key_and_context() {
    let test = TestNamespace::new("plugin-policy").await;
    let _operator = test.operator();
    test.issue("k", &json!({ "encryptionContext": { "purpose": "orders" } })).await;
    let user = User::of(&test);
    let role = "arn:aws:iam::111122223333:role/app";
    let all = user.json(0, &["policy", "k", "--role-arn", role]).await;
    let workload = user.json(0, &["policy", "k", "--only=workload"]).await;
    assert_eq!(all["workload"], workload);
    assert_eq!(workload["Statement"][0]["Resource"], json!(test.key.arn));
    assert_eq!(
        workload["Statement"][0]["Condition"],
        json!({ "StringEquals": { "kms:EncryptionContext:purpose": "orders" } })
    );
    assert_eq!(all["operator"]["Statement"][0]["Action"], "kms:GenerateDataKeyWithoutPlaintext");
    let key = &all["keyPolicyStatements"][&test.key.arn];
    assert_eq!(key[1]["Principal"], json!({ "AWS": role }));
    let yaml = user.ends(0, &["policy", "k", "--role-arn", role, "-o", "yaml"]).await;
    assert_eq!(serde_saphyr::from_str::<Value>(&text(&yaml)).unwrap(), all);
    assert!(yaml.err.contains("fill in OPERATOR-ROLE") && !yaml.err.contains("WORKLOAD-ROLE"), "{}", yaml.err);
    assert!(!user.ends(0, &["policy", "k", "--only=operator"]).await.err.contains("ROLE"));
}

#[tokio::test]
async fn errors_exit_with_their_code_and_say_what_to_do() {
    let test = TestNamespace::new("plugin-codes").await;
    let user = User::of(&test);
    for wrong in
        [&["list", "-o", "xml"][..], &["status", "k", "-A"], &["export"], &["rotate", "k", "--timeout=1m"], &["no"]]
    {
        let ended = user.ends(64, wrong).await;
        assert!(ended.out.is_empty() && !ended.err.is_empty(), "{wrong:?}: {ended:?}");
    }
    assert_eq!(user.types(&["datakey"]).await.code, 64);
    let help = user.types(&["datakey", "--help"]).await;
    assert!(help.code == 0 && text(&help).contains("Usage: kubectl datakey"), "{help:?}");
    let version = user.types(&["datakey", "--version"]).await;
    assert_eq!(text(&version), concat!("kubectl-datakey ", env!("CARGO_PKG_VERSION"), "\n"));

    for command in [
        &["status", "k"][..],
        &["export", "k"],
        &["verify", "k"],
        &["retry", "k"],
        &["rotate", "k"],
        &["policy", "k"],
        &["keep", "k"],
    ] {
        let ended = user.ends(1, command).await;
        assert!(ended.err.contains("there is no DataKey k in namespace plugin-codes"), "{ended:?}");
    }
    let none = user.ends(0, &["list"]).await;
    assert_eq!(none.err, "No DataKeys or DataKeyPairs found in namespace plugin-codes.\n");
    assert!(user.ends(1, &["list", "--context=no-such"]).await.err.contains("--context"));
    assert!(user.ends(1, &["list", "--kubeconfig=/no/such/file"]).await.err.contains("--kubeconfig"));

    // The namespace of the context counts as it does for kubectl.
    let config = std::fs::read_to_string(test.plane.admin_kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["contexts"][0]["context"]["namespace"] = json!("plugin-codes");
    let file = test.plane.workdir().file("plugin-codes.kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    let flag = format!("--kubeconfig={}", file.display());
    assert_eq!(user.types(&["datakey", "list", &flag]).await.err, none.err);
}

#[tokio::test]
async fn user_without_access_to_secrets_sees_the_rest() {
    let test = TestNamespace::new("plugin-viewer").await;
    let _operator = test.operator();
    test.issue("k", &json!({})).await;
    let kubeconfig = test.kubeconfig_with_role("view").await;
    let viewer = User::of(&test).with("KUBECONFIG", &kubeconfig.display().to_string());
    eventually(SOON, "the rights are there", async || viewer.runs(&["list"]).await.code == 0).await;
    let status = viewer.ends(1, &["status", "k"]).await;
    assert!(text(&status).contains("could not be looked at") && text(&status).contains("you may not"), "{status:?}");
    let all = viewer.ends(1, &["status"]).await;
    assert!(all.err.contains("1 of 1 DataKeys is Ready, and 1 Secret was not looked at."), "{all:?}");
    assert!(text(&viewer.ends(1, &["verify", "k"]).await).contains("could not be verified in full"));
    test.issue("more", &json!({})).await;
    let all = viewer.ends(1, &["verify"]).await;
    assert_eq!(all.err.matches("you may not").count(), 1, "{all:?}");
    assert!(all.err.contains("2 Secrets were not looked at, in plugin-viewer: "), "{all:?}");
    let everywhere = viewer.ends(1, &["list", "-A"]).await;
    assert!(everywhere.err.contains("ask for that right"), "{everywhere:?}");
    assert!(viewer.ends(1, &["rotate", "k"]).await.err.contains("you may not"));
}
