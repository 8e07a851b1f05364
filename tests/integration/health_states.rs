//! A `DataKey` in every state that the operator leaves it in, and a `DataKeyPair` in many of them, recorded for the programs that read its status: Argo CD's health
//! script and kstatus (tests/gitops/status). `make generate` writes the files beside the script; this test compares them.

use std::collections::{BTreeMap, BTreeSet};

use datakey::{
    api::{DataKey, DataKeyPair, KeyKind as _, Kind, READY},
    condition::find,
    fixtures::PUBLIC_KEYS,
    reason::{Reason, RetryPolicy},
};
use k8s_openapi::jiff::Timestamp;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use testbed::{api_proxy, assert_fresh, eventually, http::Stop, proxy::Fault, repository};

use crate::{
    defect::Defect,
    harness::{SOON, TestKind, TestNamespace, to_json},
    tls::Tls,
};

const FOLDER: &str = "deploy/argocd/resource_customizations/datakey.dev";

/// Replaces what differs from run to run.
const NAMESPACE: &str = "shop";
const TIME: &str = "2026-01-02T03:04:05Z";
const UID: &str = "00000000-1111-2222-3333-444444444444";
const KEY_ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const BLOB: &str = "AQIDAHg=";

/// What Argo CD must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Healthy,
    Degraded,
    Progressing,
    /// Progressing, because the status is about an earlier spec or about none.
    NotSeen,
}

/// Recorded states, by name.
#[derive(Default)]
struct States(BTreeMap<String, (Value, Health)>);

// === impl Health ===

impl Health {
    fn of(reason: Reason) -> Self {
        if reason.retry_policy() == RetryPolicy::RetryRarely { Self::Degraded } else { Self::Progressing }
    }

    /// The expectation in the form of Argo CD's tests of health scripts.
    fn expectation(self, name: &str, key: &Value) -> Value {
        let conditions = key["status"]["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|condition| condition["type"] == READY).unwrap();
        let (status, message) = match self {
            Self::NotSeen => ("Progressing".to_owned(), json!("Waiting for the operator to see the present spec")),
            seen => (format!("{seen:?}"), ready["message"].clone()),
        };
        let health = json!({ "status": status, "message": message });
        json!({ "healthStatus": health, "inputPath": format!("testdata/{name}.yaml") })
    }
}

// === impl States ===

impl States {
    fn add<K: TestKind>(&mut self, test: &TestNamespace<K>, name: &str, key: &K, health: Health) {
        let mut value = to_json(key);
        normalize(&mut value);
        let normal = value.to_string().replace(&test.key.arn, ARN).replace(&test.namespace, NAMESPACE);
        let twin = self.0.insert(name.to_owned(), (serde_json::from_str(&normal).unwrap(), health));
        assert!(twin.is_none(), "{name}");
    }

    fn add_failure<K: TestKind>(&mut self, test: &TestNamespace<K>, key: &K, reason: Reason) {
        self.add(test, &file_name(reason), key, Health::of(reason));
    }

    /// Compares them with the files of their kind.
    fn are_as_recorded(self, kind: &Kind) {
        let folder = format!("{FOLDER}/{}", kind.name);
        let mut tests = Vec::new();
        for (name, (key, health)) in &self.0 {
            assert_fresh(&format!("{folder}/testdata/{name}.yaml"), &serde_saphyr::to_string(key).unwrap());
            tests.push(health.expectation(name, key));
        }
        let tests = serde_saphyr::to_string(&json!({ "tests": tests })).unwrap();
        assert_fresh(&format!("{folder}/health_test.yaml"), &tests);
        let files = std::fs::read_dir(repository().join(folder).join("testdata")).unwrap();
        let files = files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
        assert_eq!(files.collect::<BTreeSet<_>>(), self.0.into_keys().collect(), "nothing else is there");
    }
}

/// `KeyNotFound` as `key-not-found`.
fn file_name(reason: Reason) -> String {
    let dashed = reason.as_str().chars().flat_map(|letter| {
        let dash = letter.is_ascii_uppercase().then_some('-');
        dash.into_iter().chain([letter.to_ascii_lowercase()])
    });
    dashed.skip(1).collect()
}

/// Replaces every value that differs from run to run by a fixed one.
fn normalize(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(normalize),
        Value::Object(fields) => {
            fields.remove("managedFields");
            for (name, value) in fields {
                let fixed = match name.as_str() {
                    "uid" | "requestId" => UID,
                    "resourceVersion" => "1",
                    "ciphertextBlob" => BLOB,
                    "publicKey" => PUBLIC_KEYS[0],
                    "keyMaterialId" | "digest" | "publicKeySha256" => {
                        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
                    }
                    "creationTimestamp" | "deletionTimestamp" | "issuedAt" | "lastTransitionTime"
                        if *value != "1970-01-01T00:00:00Z" =>
                    {
                        TIME
                    }
                    "message" => {
                        with_fixed_time(value);
                        continue;
                    }
                    _ => {
                        normalize(value);
                        continue;
                    }
                };
                *value = fixed.into();
            }
        }
        _ => {}
    }
}

/// Replaces the time in the message of `KeyUsable`.
fn with_fixed_time(message: &mut Value) {
    let text = message.as_str().unwrap_or_default();
    let time = text.split_once(" since ").and_then(|(_, rest)| rest.split_once(')')).map(|(time, _)| time.to_owned());
    if let Some(time) = time.filter(|time| time.parse::<Timestamp>().is_ok()) {
        *message = text.replace(&time, TIME).into();
    }
}

/// States from creation to deletion.
async fn a_life<K: TestKind>(test: TestNamespace<K>) -> States {
    let mut states = States::default();
    let created = test.create("created", &json!({})).await;
    states.add(&test, "created", &created, Health::NotSeen);
    test.delete("created").await;
    {
        let (api, kubeconfig) = test.api_proxy().await;
        let _operator = test.operator_by(&kubeconfig, &[]);
        let stop = Stop::default();
        api.fail_next(1, "create", "secrets", api_proxy::Fault::StopBefore(stop.clone()));
        test.create("recorded", &json!({})).await;
        tokio::time::timeout(SOON, stop.reached()).await.unwrap();
        states.add(&test, "recorded", &test.get("recorded").await, Health::NotSeen);
    }
    let second = json!({ "spec": { "version": 2 } });
    {
        let _operator = test.operator();
        for name in ["ready", "ready-version-2", "spec-changed", "failing-version-2", "waiting-version-2", "deleting"] {
            test.issue(name, &json!({ "encryptionContext": { "purpose": "orders" } })).await;
        }
        states.add(&test, "ready", &test.get("ready").await, Health::Healthy);

        test.patch("ready-version-2", &second).await;
        states.add(&test, "ready-version-2", &test.ready("ready-version-2").await, Health::Healthy);

        test.proxy.fail_always(Fault::code("ThrottlingException"));
        test.patch("waiting-version-2", &second).await;
        let key = test.failed("waiting-version-2", "Throttled").await;
        states.add(&test, "waiting-version-2", &key, Health::Progressing);

        // Last, because this fault would change how later ones fail.
        test.proxy.fail_always(Fault::code("AccessDeniedException"));
        test.patch("failing-version-2", &second).await;
        let key = test.failed("failing-version-2", "AccessDenied").await;
        states.add(&test, "failing-version-2", &key, Health::Degraded);
        test.create("spec-corrected", &json!({})).await;
        test.failed("spec-corrected", "AccessDenied").await;

        test.patch("deleting", &json!({ "metadata": { "finalizers": ["example.com/hold"] } })).await;
        test.keys().delete("deleting", &DeleteParams::default()).await.unwrap();
        states.add_failure(&test, &test.failed("deleting", "Deleting").await, Reason::Deleting);
        test.patch("deleting", &json!({ "metadata": { "finalizers": null } })).await;
    }
    // No operator has seen it.
    let key = test.patch("spec-changed", &second).await;
    states.add(&test, "spec-changed", &key, Health::NotSeen);
    let key = test.patch("spec-corrected", &json!({ "spec": { "keyId": "alias/another" } })).await;
    states.add(&test, "spec-corrected", &key, Health::NotSeen);
    states
}

/// An object that is Ready, with a KMS key that AWS KMS does not use any more.
async fn unusable_kms_key<K: TestKind>(test: &TestNamespace<K>) -> States {
    let mut states = States::default();
    let _operator = test.operator_with(&["--key-check-interval=2s"], &[]);
    let name = "ready-key-unusable";
    test.issue(name, &json!({})).await;
    test.proxy.fail_dry_runs_always(Fault::code("KMSInvalidStateException"));
    eventually(SOON, "KeyUsable is False", async || {
        let key = test.get(name).await;
        key.as_object().status.is_some_and(|of| of.conditions.key_usable().is_some())
    })
    .await;
    states.add(test, name, &test.get(name).await, Health::Healthy);
    states
}

/// Failures of KMS.
async fn failures_of_kms<K: TestKind>(test: &TestNamespace<K>) -> States {
    let mut states = States::default();
    let _operator = test.operator_with(&["--kms-timeout=1s"], &[]);
    for (reason, fault) in [
        (Reason::KeyNotFound, Fault::code("NotFoundException")),
        (Reason::KeyDisabled, Fault::code("DisabledException")),
        (Reason::KeyStateInvalid, Fault::code("KMSInvalidStateException")),
        (Reason::KeyUsageInvalid, Fault::code("InvalidKeyUsageException")),
        (Reason::GrantTokenInvalid, Fault::code("InvalidGrantTokenException")),
        (Reason::AccessDenied, Fault::code("AccessDeniedException")),
        (Reason::RequestInvalid, Fault::code("ValidationException")),
        (Reason::CredentialsRejected, Fault::code("ExpiredTokenException")),
        (Reason::Throttled, Fault::code("ThrottlingException")),
        (Reason::KmsUnavailable, Fault::code("KMSInternalException")),
        (Reason::KmsError, Fault::code("MadeUpException")),
        (Reason::KmsAnswerInvalid, Fault::Answer(json!({}))),
        (Reason::KmsUnreachable, Fault::Reset),
        (Reason::KmsTimeout, Fault::Hang),
    ] {
        test.proxy.fail_always(fault);
        let name = file_name(reason);
        test.create(&name, &json!({})).await;
        states.add_failure(test, &test.failed(&name, reason.as_str()).await, reason);
        test.delete(&name).await;
    }
    states
}

/// A failure of the connection to KMS.
async fn failure_of_tls() -> States {
    let (test, mut states) = (TestNamespace::new("recorded-tls").await, States::default());
    let tls = Tls::before(&test).await;
    let _operator = test.operator_with(&[], &[("AWS_ENDPOINT_URL_KMS", &tls.url)]);
    let name = file_name(Reason::TlsFailed);
    test.create(&name, &json!({})).await;
    states.add_failure(&test, &test.failed(&name, "TlsFailed").await, Reason::TlsFailed);
    states
}

/// Failures of the operator's configuration.
async fn failures_of_the_settings() -> States {
    let (test, mut states) = (TestNamespace::new("recorded-settings").await, States::default());
    let nowhere = test.plane.workdir().file("no-such-file").display().to_string();
    for (reason, missing) in [
        (Reason::RegionMissing, ["AWS_REGION", "AWS_DEFAULT_REGION"]),
        (Reason::CredentialsMissing, ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]),
    ] {
        let files = ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"].map(|name| (name, nowhere.as_str()));
        let environment = [&missing.map(|name| (name, ""))[..], &files[..]].concat();
        let _operator = test.operator_with(&[], &environment);
        let name = file_name(reason);
        test.create(&name, &json!({})).await;
        states.add_failure(&test, &test.failed(&name, reason.as_str()).await, reason);
        test.delete(&name).await;
    }
    let _operator = test.operator();
    let name = file_name(Reason::RegionUnknown);
    test.create(&name, &json!({ "region": "xx-nowhere-1" })).await;
    states.add_failure(&test, &test.failed(&name, "RegionUnknown").await, Reason::RegionUnknown);
    states
}

/// Specs that must not be issued.
async fn failures_of_restores() -> States {
    let (test, mut states) = (TestNamespace::new("recorded-restores").await, States::default());
    let name = file_name(Reason::RestoredWithoutKey);
    {
        let _operator = test.operator();
        let mut manifest = test.manifest(&name, &json!({}));
        manifest["metadata"]["labels"] = json!({ "velero.io/restore-name": "drill" });
        test.try_create(&manifest).await.unwrap();
        let key = test.failed(&name, "RestoredWithoutKey").await;
        states.add_failure(&test, &key, Reason::RestoredWithoutKey);
    }
    let _operator = test.operator_with(&["--issue=false"], &[]);
    let name = file_name(Reason::IssuingDisabled);
    test.create(&name, &json!({})).await;
    states.add_failure(&test, &test.failed(&name, "IssuingDisabled").await, Reason::IssuingDisabled);
    assert_eq!(test.proxy.calls(), 0);
    states
}

/// Objects that no class allows.
async fn failures_of_classes() -> States {
    let (test, mut states) = (TestNamespace::new("recorded-classes").await, States::default());
    test.class(&json!({ "namespaces": ["bank"] })).await;
    let (missing, unavailable) = (file_name(Reason::ClassMissing), file_name(Reason::ClassesUnavailable));
    {
        let _operator = test.operator_with(&["--classes=required"], &[]);
        test.create(&missing, &json!({})).await;
        states.add_failure(&test, &test.failed(&missing, "ClassMissing").await, Reason::ClassMissing);
        for (reason, class) in [(Reason::ClassNotFound, "shop"), (Reason::ClassRefused, &*test.namespace)] {
            let name = file_name(reason);
            test.create(&name, &json!({ "className": class })).await;
            states.add_failure(&test, &test.failed(&name, reason.as_str()).await, reason);
        }
        test.delete(&missing).await;
    }
    let (api, kubeconfig) = test.api_proxy().await;
    api.fail_always(
        "list",
        "datakeyclasses",
        api_proxy::Fault::Refuse(403, "Forbidden", "datakeyclasses is forbidden"),
    );
    let _operator = test.operator_by(&kubeconfig, &[]);
    test.create(&unavailable, &json!({ "className": test.namespace })).await;
    let key = test.failed(&unavailable, "ClassesUnavailable").await;
    states.add_failure(&test, &key, Reason::ClassesUnavailable);
    states
}

/// Records without room, and conflicts over Secrets.
async fn failures_of_the_cluster() -> States {
    let (test, mut states) = (TestNamespace::new("recorded-cluster").await, States::default());
    let name = file_name(Reason::TooManyVersions);
    let request = to_json(&test.create(&name, &json!({})).await.spec.request());
    let blob = |version: i32| format!("AQID{version:04}");
    let version = |version: i32| json!({ "version": version, "request": request, "ciphertextBlob": blob(version), "keyId": ARN, "issuedAt": TIME });
    let full = json!({ "secretName": name, "versions": (1..=64).map(version).collect::<Vec<_>>() });
    test.try_patch_status(&name, &full).await.unwrap();
    test.patch(&name, &json!({ "spec": { "version": 65 } })).await;
    let large = file_name(Reason::SecretTooLarge);
    let context = json!({ "note": "\u{1}".repeat(8000) });
    let request = json!({ "keyId": test.alias(), "keySpec": "AES_256", "encryptionContext": context });
    let version = |version: i32| json!({ "version": version, "request": request, "ciphertextBlob": blob(version), "keyId": ARN, "issuedAt": TIME });
    test.create(&large, &json!({ "encryptionContext": context })).await;
    let full = json!({ "secretName": large, "versions": (2..=22).map(version).collect::<Vec<_>>() });
    test.try_patch_status(&large, &full).await.unwrap();
    let _operator = test.operator_with(&["--retry-min=200ms", "--retry-max=10m"], &[]);
    let mut key = test.failed(&name, "TooManyVersions").await;
    // Further versions add nothing.
    key.status.as_mut().unwrap().versions.truncate(1);
    states.add_failure(&test, &key, Reason::TooManyVersions);

    let mut key = test.failed(&large, "SecretTooLarge").await;
    key.spec.encryption_context = None;
    key.status.as_mut().unwrap().versions.clear();
    states.add_failure(&test, &key, Reason::SecretTooLarge);

    test.issue("owner", &json!({ "secretName": "shared" })).await;
    let name = file_name(Reason::SecretConflict);
    test.create(&name, &json!({ "secretName": "shared" })).await;
    states.add_failure(&test, &test.failed(&name, "SecretConflict").await, Reason::SecretConflict);

    let name = file_name(Reason::SecretContested);
    test.issue(&name, &json!({})).await;
    let mut contested = None;
    eventually(SOON, "the competing writer is reported", async || {
        test.edit_secret(&name, &json!({ "data": { "ciphertextBlob": "eA==" } })).await;
        let key = test.get(&name).await;
        let is_reported = find(&key, READY).is_some_and(|ready| ready.reason == "SecretContested");
        contested = is_reported.then_some(key);
        contested.is_some()
    })
    .await;
    states.add_failure(&test, &contested.unwrap(), Reason::SecretContested);

    let name = file_name(Reason::SecretImmutable);
    test.issue(&name, &json!({})).await;
    test.edit_secret(&name, &json!({ "immutable": true, "data": { "ciphertextBlob": "eA==" } })).await;
    states.add_failure(&test, &test.failed(&name, "SecretImmutable").await, Reason::SecretImmutable);

    test.refuse_secrets().await;
    let name = file_name(Reason::WriteRejected);
    test.create(&name, &json!({})).await;
    states.add_failure(&test, &test.failed(&name, "WriteRejected").await, Reason::WriteRejected);
    test.accept_secrets().await;
    states
}

/// Failures of admission, of the API server and of the operator itself.
async fn failures_around_the_cluster() -> States {
    let (test, mut states) = (TestNamespace::new("recorded-around").await, States::default());
    for (reason, words) in [
        (Reason::AdmissionUnavailable, "Internal error occurred: failed calling webhook \"policy.example.com\""),
        (Reason::ApiServerFailed, "etcdserver: leader changed"),
    ] {
        let (api, kubeconfig) = test.api_proxy().await;
        api.fail_always("create", "secrets", api_proxy::Fault::Refuse(500, "InternalError", words));
        let _operator = test.operator_by(&kubeconfig, &[]);
        let name = file_name(reason);
        test.create(&name, &json!({})).await;
        states.add_failure(&test, &test.failed(&name, reason.as_str()).await, reason);
        test.delete(&name).await;
    }
    let _defect = Defect::at_kms(&test, test.operator_kubeconfig()).await;
    let name = file_name(Reason::InternalError);
    test.create(&name, &json!({})).await;
    states.add_failure(&test, &test.failed(&name, "InternalError").await, Reason::InternalError);
    states
}

/// Invalid and conflicting pins.
async fn failures_of_pins() -> States {
    let (test, mut states) = (TestNamespace::new("recorded-pins").await, States::default());
    let operator = test.operator();
    let pin = |key_id: &str, arn: &str| {
        let request = json!({ "keyId": key_id, "keySpec": "AES_256" });
        json!([{ "version": 1, "request": request, "ciphertextBlob": BLOB, "keyId": arn, "issuedAt": TIME }])
    };
    let name = file_name(Reason::PinInvalid);
    let another = "ffffffff-12ab-34cd-56ef-1234567890ab";
    test.create(&name, &json!({ "keyId": another, "wrappedKeys": pin(another, ARN) })).await;
    states.add_failure(&test, &test.failed(&name, "PinInvalid").await, Reason::PinInvalid);

    // The rule of the definition cannot distinguish two multi-Region keys.
    let name = file_name(Reason::PinConflict);
    let multi_region = |digit: &str| pin("alias/orders", &ARN.replace(KEY_ID, &format!("mrk-{}", digit.repeat(32))));
    test.issue(&name, &json!({ "keyId": "alias/orders", "wrappedKeys": multi_region("1") })).await;
    test.patch(&name, &json!({ "spec": { "wrappedKeys": multi_region("2") } })).await;
    states.add_failure(&test, &test.failed(&name, "PinConflict").await, Reason::PinConflict);

    // A record of a newer release: the definition keeps unknown fields of a version.
    let name = file_name(Reason::SpecNewer);
    let mut newer = pin("alias/orders", ARN);
    newer[0]["madeBy"] = json!({ "keyId": "alias/short" });
    test.create(&name, &json!({ "keyId": "alias/orders", "wrappedKeys": newer })).await;
    states.add_failure(&test, &test.failed(&name, "SpecNewer").await, Reason::SpecNewer);

    let name = file_name(Reason::RecordNewer);
    drop(operator);
    test.create(&name, &json!({ "keyId": "alias/orders" })).await;
    test.try_patch_status(&name, &json!({ "secretName": name, "versions": newer })).await.unwrap();
    let _operator = test.operator();
    states.add_failure(&test, &test.failed(&name, "RecordNewer").await, Reason::RecordNewer);
    assert_eq!(test.proxy.calls(), 0);
    states
}

/// A definition without the rules that the operator relies on.
async fn failures_of_an_outdated_definition() -> States {
    let (test, mut states) = (TestNamespace::with_own_control_plane("recorded-outdated").await, States::default());
    let rules = "/spec/versions/0/schema/openAPIV3Schema/x-kubernetes-validations";
    let patch = json!([{ "op": "remove", "path": rules }]).to_string();
    let crd = ["patch", "crd", "datakeys.datakey.dev", "--type=json", "-p", &patch];
    test.plane.kubectl(&crd).await.unwrap();
    let _operator = test.operator();
    let name = file_name(Reason::SpecInvalid);
    let manifest = test.manifest(&name, &json!({ "keySpec": "AES_256", "numberOfBytes": 32 }));
    eventually(SOON, "the outdated definition works", async || test.try_create(&manifest).await.is_ok()).await;
    states.add_failure(&test, &test.failed(&name, "SpecInvalid").await, Reason::SpecInvalid);
    states
}

#[tokio::test]
async fn the_recorded_states_are_what_the_operator_leaves_today() {
    let kms = TestNamespace::new("recorded-kms").await;
    let (life, unusable, kms, tls, settings, restores, classes, cluster, around, pins, definition) = tokio::join!(
        async { a_life(TestNamespace::new("recorded-life").await).await },
        async { unusable_kms_key(&TestNamespace::new("recorded-usable").await).await },
        failures_of_kms(&kms),
        failure_of_tls(),
        failures_of_the_settings(),
        failures_of_restores(),
        failures_of_classes(),
        failures_of_the_cluster(),
        failures_around_the_cluster(),
        failures_of_pins(),
        failures_of_an_outdated_definition(),
    );
    let states: BTreeMap<_, _> =
        [life, unusable, kms, tls, settings, restores, classes, cluster, around, pins, definition]
            .into_iter()
            .flat_map(|part| part.0)
            .collect();
    for &reason in Reason::ALL {
        assert!(states.contains_key(&file_name(reason)), "{reason:?} is not recorded");
    }
    States(states).are_as_recorded(DataKey::KIND);
}

#[tokio::test]
async fn the_recorded_states_of_pairs_are_those_of_today() {
    let (life, kms, unusable) = tokio::join!(
        async { a_life(TestNamespace::new("recorded-pair-life").await.of_kind::<DataKeyPair>()).await },
        async { failures_of_kms(&TestNamespace::new("recorded-pair-kms").await.of_kind::<DataKeyPair>()).await },
        async { unusable_kms_key(&TestNamespace::new("recorded-pair-usable").await.of_kind::<DataKeyPair>()).await },
    );
    let States(mut states) = life;
    states.extend(kms.0);
    states.extend(unusable.0);
    States(states).are_as_recorded(DataKeyPair::KIND);
}
