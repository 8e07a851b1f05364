//! `kubectl datakey inject`, run by the real kubectl: the API server accepts what it prints.

use serde_json::{Value, json};
use testbed::{asset, commands};

use crate::{
    harness::TestNamespace,
    key_pairs::pairs,
    plugin::{User, text},
    unwrap_manifests::{apply, arguments, assert_admitted, assert_the_program_takes, enforce, objects, pods},
};

/// A pod as restricted as the namespace demands, with a comment and a number that YAML 1.1 reads in octal digits.
const SPEC: &str = r"
  serviceAccountName: app
  securityContext:
    runAsNonRoot: true
    runAsUser: 1000
    seccompProfile: {type: RuntimeDefault}
  containers:
  # The application.
  - name: app
    image: app
    command: [/app]
    securityContext:
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
    volumeMounts:
    - {name: settings, mountPath: /settings}
  volumes:
  - name: settings
    configMap: {name: settings, optional: true, defaultMode: 0440}
";

/// The kinds whose pods can be changed, with where the pod is and what else the API server demands.
const KINDS: [(&str, &str, &str); 8] = [
    ("v1", "Pod", ""),
    ("v1", "ReplicationController", "SELECT"),
    ("apps/v1", "Deployment", "MATCH"),
    ("apps/v1", "StatefulSet", "MATCH"),
    ("apps/v1", "DaemonSet", "MATCH"),
    ("apps/v1", "ReplicaSet", "MATCH"),
    ("batch/v1", "Job", "JOB"),
    ("batch/v1", "CronJob", "CRON"),
];

/// One object of each kind.
fn manifest() -> String {
    let indent = |by: usize, text: &str| -> String {
        text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("{:by$}{line}\n", "") }).collect()
    };
    let labels = "metadata:\n  labels: {app: app}\n";
    let template = |restart: &str| format!("{labels}spec:{restart}{SPEC}");
    let once = "\n  restartPolicy: Never";
    let object = |(version, kind, form): &(&str, &str, &str)| {
        let head = format!("apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: app\n");
        let body = match *form {
            "" => format!("spec:{SPEC}"),
            "SELECT" => format!("spec:\n  selector: {{app: app}}\n  template:\n{}", indent(4, &template(""))),
            "MATCH" => {
                format!("spec:\n  selector: {{matchLabels: {{app: app}}}}\n  template:\n{}", indent(4, &template("")))
            }
            "JOB" => format!("spec:\n  template:\n{}", indent(4, &template(once))),
            _ => format!(
                "spec:\n  schedule: \"0 4 * * *\"\n  jobTemplate:\n    spec:\n      template:\n{}",
                indent(8, &template(once))
            ),
        };
        format!("---\n{head}{body}")
    };
    KINDS.iter().map(object).collect()
}

/// A user with a manifest in a file.
struct Injection<'a> {
    user: User<'a>,
    file: String,
}

// === impl Injection ===

impl<'a> Injection<'a> {
    fn of(test: &'a TestNamespace, manifest: &str) -> Self {
        let file = test.plane.workdir().file(&format!("{}-manifest.yaml", test.namespace));
        std::fs::write(&file, manifest).unwrap();
        Self { user: User::of(test), file: file.display().to_string() }
    }

    /// What `inject` prints, and its notes.
    async fn prints(&self, name: &str, flags: &[&str]) -> (String, String) {
        let ended = self.user.ends(0, &[&["inject", name, "-f", &self.file], flags].concat()).await;
        (text(&ended), ended.err)
    }

    /// What it says is wrong.
    async fn fails(&self, code: i32, name: &str, flags: &[&str]) -> String {
        let ended = self.user.ends(code, &[&["inject", name, "-f", &self.file], flags].concat()).await;
        assert_eq!(text(&ended), "", "nothing that could be applied");
        ended.err
    }
}

#[tokio::test]
async fn every_kind_is_accepted_in_each_mode() {
    let test = TestNamespace::new("plugin-inject").await;
    enforce(&test).await;
    test.plane.kubectl(&["create", "serviceaccount", "app", "-n", &test.namespace]).await.unwrap();
    let _operator = test.operator();
    test.issue("orders", &json!({ "encryptionContext": { "purpose": "orders", "note": "a, b" } })).await;
    let injection = Injection::of(&test, &manifest());
    let role = "--role-arn=arn:aws:iam::111122223333:role/orders";
    for mode in ["file", "watch", "exec"] {
        let mode = format!("--mode={mode}");
        let flags = [&mode, role, "--image=registry.example.com/datakey-unwrap:1"];
        let (once, notes) = injection.prints("orders", &flags).await;
        assert!(notes.contains(&format!("note: trusted: {} ", test.key.arn)), "{notes}");
        apply(&test, &once, &["--dry-run=server"]).await;
        // The API server reads octal digits there, and the YAML reader of this test does not.
        let pods = pods(&objects(&once.replace("defaultMode: 0440", "defaultMode: 288")));
        assert_eq!(pods.len(), KINDS.len());
        assert_admitted(&test, &pods).await;
        let trust = format!(r#"--trust={} {{"note":"a, b","purpose":"orders"}}"#, test.key.arn);
        for (name, pod) in &pods {
            let lists = arguments(pod);
            assert!(lists.iter().any(|list| list.contains(&trust)), "{name}: {lists:?}");
        }
        let comments = once.matches("# The application.").count();
        assert_eq!((comments, once.matches("defaultMode: 0440").count()), (KINDS.len(), KINDS.len()));
        // Again, and in the other forms that kubectl prints.
        let again = Injection::of(&test, &once);
        assert_eq!(again.prints("orders", &flags).await.0, once);
        let as_json = ["apply", "-f", &again.file, "-n", &test.namespace, "--dry-run=client", "-o", "json"];
        let json = test.plane.kubectl(&as_json).await.unwrap();
        let of_json = Injection::of(&test, &json).prints("orders", &flags).await.0;
        let list: Value = serde_json::from_str(&of_json).unwrap();
        assert_eq!((&list["kind"], self::pods(list["items"].as_array().unwrap()).len()), (&json!("List"), KINDS.len()));
        apply(&test, &of_json, &["--dry-run=server"]).await;
        std::fs::write(&injection.file, manifest()).unwrap();
    }
}

#[tokio::test]
async fn manifest_is_read_from_standard_input() {
    let test = TestNamespace::new("plugin-inject-input").await;
    let _operator = test.operator();
    test.issue("orders", &json!({})).await;
    let injection = Injection::of(&test, &manifest());
    let (printed, _) = injection.prints("orders", &["--mode=watch"]).await;
    let kubectl = asset("kubectl").map_or_else(|| "kubectl".into(), |found| found.display().to_string());
    let folders = [testbed::plugin().parent().unwrap().to_owned()];
    let environment: Vec<_> = injection.user.environment().collect();
    let line = format!("{kubectl} datakey inject orders -n {} --mode watch -f - < {}", test.namespace, injection.file);
    let ended = commands::shell(&folders, &environment, &line).await;
    assert_eq!((ended.code, text(&ended)), (0, printed), "{}", ended.err);
}

#[tokio::test]
async fn key_pair_and_data_key_share_a_pod() {
    let test = TestNamespace::new("plugin-inject-two").await;
    enforce(&test).await;
    let _operator = test.operator();
    test.issue("orders", &json!({})).await;
    pairs(&test).issue("tokens", &json!({ "keyPairSpec": "ECC_NIST_P256" })).await;
    let injection = Injection::of(&test, &manifest());
    let (first, _) = injection.prints("orders", &["--mode=watch"]).await;
    let second = Injection::of(&test, &first);
    let refused = second.fails(64, "datakeypair/tokens", &["--mode=watch"]).await;
    assert!(refused.contains("its container app has the volume datakey-plaintext-orders at /plaintext"), "{refused}");
    let (both, _) = second.prints("datakeypair/tokens", &["--mode=watch", "--mount-path=/tokens"]).await;
    apply(&test, &both, &["--dry-run=server"]).await;
    for (name, pod) in pods(&objects(&both)) {
        let lists = arguments(&pod);
        assert_eq!(lists.len(), 4, "{name}: two sidecars with their probes");
        assert!(lists.iter().flatten().any(|word| word == "--key-pair-spec=ECC_NIST_P256"), "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_injected_has_an_exit_code() {
    let test = TestNamespace::new("plugin-inject-errors").await;
    let _operator = test.operator();
    test.issue("orders", &json!({})).await;
    test.create("missing", &json!({ "keyId": "alias/plugin-inject-missing" })).await;
    let injection = Injection::of(&test, &manifest());
    let unknown = injection.fails(1, "nothing", &[]).await;
    assert!(unknown.contains("nothing"), "{unknown}");
    let unissued = injection.fails(2, "missing", &[]).await;
    assert!(unissued.contains("has no version 1 yet"), "{unissued}");
    let container = injection.fails(64, "orders", &["--container=web"]).await;
    assert!(container.contains("Pod app can't have the helper: it has no container web: it has app"), "{container}");
    let version = injection.fails(64, "orders", &["--versions=1,2"]).await;
    assert!(version.contains("has no version 2"), "{version}");
    for (text, why) in
        [("kind: ConfigMap\napiVersion: v1\n", "no object with pods"), ("a: [", "no YAML or JSON"), ("", "no object")]
    {
        let refused = Injection::of(&test, text).fails(64, "orders", &[]).await;
        assert!(refused.contains(why), "{refused}");
    }
    std::fs::remove_file(&injection.file).unwrap();
    assert!(injection.fails(64, "orders", &[]).await.contains("can't read"));
}

// The program runs on Linux only.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn the_program_takes_what_inject_writes() {
    let test = TestNamespace::new("plugin-inject-program").await;
    let _operator = test.operator();
    test.issue("orders", &json!({ "encryptionContext": { "purpose": "orders", "note": "a, b" } })).await;
    let program = testbed::unwrap();
    let missing = test.plane.workdir().file("plugin-inject-missing/folder");
    let injection = Injection::of(&test, &manifest());
    for mode in ["file", "watch", "exec"] {
        let mode = format!("--mode={mode}");
        let flags = [
            &mode,
            "--versions=current",
            "--min-version=1",
            "--format=jwk",
            "--role-arn=arn:aws:iam::111122223333:role/orders",
        ];
        let (manifest, _) = injection.prints("orders", &flags).await;
        let (_, pod) = pods(&objects(&manifest)).remove(0);
        assert_the_program_takes(&program, &arguments(&pod), &missing).await;
    }
}
