use clap::Parser as _;
use serde_json::{Value, json};

use super::*;
use crate::{
    cli::{Cli, Command},
    fixtures::{edited, pair, ready},
};

const ROLE: &str = "--role-arn=arn:aws:iam::111122223333:role/orders";

/// A Deployment as people write it, with what must stay.
const DEPLOYMENT: &str = r#"# The shop.
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, labels: {app: shop, version: "1.10"}}
spec:
  replicas: 3
  selector:
    matchLabels:
      app: shop
  template:
    metadata:
      labels:
        app: shop
    spec:
      securityContext:
        runAsNonRoot: true
        runAsUser: 1000
      containers:
        # The application.
        - name: shop
          image: shop:1.10  # pinned elsewhere
          command: ["/shop", --port, "8080"]
          env:
            - name: ON
              value: "yes"
            - name: SCRIPT
              value: |
                line one

                line three
          volumeMounts:
            - {name: data, mountPath: /data}
        - name: proxy
          image: proxy
      volumes:
        - name: data
          configMap: {name: shop, defaultMode: 0440}
---
apiVersion: v1
kind: Service
metadata:
  name: shop   # other kinds stay
spec:
  ports:
  - port: 080
"#;

fn arguments(flags: &[&str]) -> Inject {
    let words = [&["kubectl-datakey", "inject", "orders", "-f", "-"], flags].concat();
    let parsed = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
    let Command::Inject(args) = parsed.command else { panic!("no inject") };
    args
}

fn injected(text: &str, flags: &[&str]) -> Result<Output, CommandError> {
    let args = arguments(flags);
    inject(text, &Unwrapping::of(&ready(&[1, 2]), &args).unwrap(), &args)
}

fn text(manifest: &str, flags: &[&str]) -> String {
    let output = injected(manifest, flags).unwrap_or_else(|error| panic!("{error}"));
    String::from_utf8(output.out).unwrap()
}

fn refusal(manifest: &str, flags: &[&str]) -> String {
    match injected(manifest, flags) {
        Err(CommandError::Usage(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

/// An object of a kind with one container.
fn object(version: &str, kind: &str, path: &[&str]) -> Value {
    let pod = json!({ "containers": [{ "name": "app", "image": "app", "command": ["/app"] }] });
    let mut inner = json!({ "spec": pod });
    for key in path.iter().rev() {
        inner = json!({ *key: inner });
    }
    inner["apiVersion"] = json!(version);
    inner["kind"] = json!(kind);
    inner["metadata"] = json!({ "name": "app" });
    inner
}

fn objects() -> Vec<Value> {
    let template = ["spec", "template"];
    let mut objects = vec![object("v1", "Pod", &[]), object("v1", "ReplicationController", &template)];
    objects.extend(
        ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"].map(|kind| object("apps/v1", kind, &template)),
    );
    objects.push(object("batch/v1", "Job", &template));
    objects.push(object("batch/v1", "CronJob", &["spec", "jobTemplate", "spec", "template"]));
    objects
}

#[test]
fn helper_is_added_in_each_mode() {
    insta::assert_snapshot!("inject-file", text(DEPLOYMENT, &["--image=registry/unwrap:1", ROLE]));
    insta::assert_snapshot!(
        "inject-watch",
        text(DEPLOYMENT, &["--mode=watch", "--container=proxy", "--versions=current"])
    );
    insta::assert_snapshot!(
        "inject-exec",
        text(DEPLOYMENT, &["--mode=exec", ROLE, "--format=base64", "--min-version=2"])
    );
}

#[test]
fn each_kind_with_pods_is_known_in_yaml_and_json() {
    for object in objects() {
        let kind = object["kind"].as_str().unwrap();
        let yaml = crate::output::yaml(&object).unwrap();
        for mode in ["--mode=file", "--mode=watch", "--mode=exec"] {
            let read: Value = serde_saphyr::from_str(&text(&yaml, &[mode])).unwrap();
            for json in [object.to_string(), serde_json::to_string_pretty(&object).unwrap()] {
                let of_json: Value = serde_json::from_str(&text(&json, &[mode])).unwrap();
                assert_eq!(of_json, read, "{kind} {mode}");
            }
        }
    }
    let all: Vec<_> = objects().iter().map(|object| crate::output::yaml(object).unwrap()).collect();
    let all = all.join("---\n");
    insta::assert_snapshot!("inject-kinds", text(&all, &[]));
    insta::assert_snapshot!(
        "inject-json",
        text(&serde_json::to_string_pretty(&objects()[0]).unwrap(), &["--mode=exec"])
    );
}

#[test]
fn items_of_a_list_are_injected() {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects() });
    let read: Value = serde_json::from_str(&text(&serde_json::to_string_pretty(&list).unwrap(), &[])).unwrap();
    for (item, object) in read["items"].as_array().unwrap().iter().zip(objects()) {
        let alone: Value = serde_json::from_str(&text(&object.to_string(), &[])).unwrap();
        assert_eq!(*item, alone);
    }
}

#[test]
fn injecting_again_gives_the_same() {
    let modes = [
        &["--mode=file"][..],
        &["--mode=watch", ROLE],
        &["--mode=exec", ROLE],
        &["--mode=exec"],
        &["--mode=file", "--container=proxy", "--container=shop"],
    ];
    let json = objects()[0].to_string();
    let pretty = serde_json::to_string_pretty(&objects()[7]).unwrap();
    for (manifest, modes) in [(DEPLOYMENT, &modes[..]), (&json, &modes[..4]), (&pretty, &modes[..4])] {
        for flags in modes {
            let once = text(manifest, flags);
            assert_eq!(text(&once, flags), once, "{flags:?}");
            // What another mode added is replaced, too.
            for others in modes {
                let (mut other, mut same) = (text(&text(&once, others), flags), once.clone());
                // The group that a mode adds stays.
                let read = |text: &mut String| {
                    let read: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
                    json!(read).to_string().replace(r#""securityContext":{"fsGroup":65532},"#, "")
                };
                assert_eq!(read(&mut other), read(&mut same), "{flags:?} after {others:?}:\n{other}");
            }
        }
    }
}

#[test]
fn every_other_line_stays_as_it_is() {
    for flags in [&["--mode=file"][..], &["--mode=watch", ROLE], &["--mode=exec", ROLE]] {
        let out = text(DEPLOYMENT, flags);
        let mut lines = out.lines();
        for line in DEPLOYMENT.lines().filter(|line| !line.contains("command:")) {
            assert!(lines.any(|found| found == line), "{line:?} is gone or moved:\n{out}");
        }
    }
}

#[test]
fn two_data_keys_have_their_own_helpers() {
    let args = arguments(&["--mount-path=/tokens"]);
    let tokens = edited(pair(&[1]), |value| {
        value["metadata"]["name"] = json!("tokens");
        value["status"]["secretName"] = json!("tokens");
    });
    let unwrapping = Unwrapping::of(&tokens, &args).unwrap();
    let first = text(DEPLOYMENT, &[]);
    let both = String::from_utf8(inject(&first, &unwrapping, &args).unwrap().out).unwrap();
    for name in ["datakey-unwrap-orders", "datakey-unwrap-tokens", "datakey-plaintext-tokens"] {
        assert!(both.contains(&format!("- name: {name}\n")), "{both}");
    }
    assert_eq!(text(&both, &[]), both);
    let args = arguments(&[]);
    let why = inject(&first, &unwrapping, &args).unwrap_err().to_string();
    assert!(why.contains("has the volume datakey-plaintext-orders at /plaintext"), "{why}");
}

#[test]
fn files_can_be_read_by_the_user_of_the_container() {
    let with = |pod: Value, container: Value| {
        let mut object = objects().remove(0);
        object["spec"]["securityContext"] = pod;
        object["spec"]["containers"][0]["securityContext"] = container;
        let output = injected(&object.to_string(), &["--image=x", ROLE]).unwrap();
        let read: Value = serde_json::from_slice(&output.out).unwrap();
        let helper = &read["spec"]["initContainers"][0];
        let mode = helper["args"].as_array().unwrap().iter().any(|arg| *arg == "--mode=0440");
        let user = helper["securityContext"]["runAsUser"].as_i64();
        let group = read["spec"]["securityContext"]["fsGroup"].as_i64();
        assert_eq!(output.notes.len(), 2 + usize::from(mode && pod_without_group(&object)), "{:?}", output.notes);
        (user, mode, group)
    };
    let user = |user: i64| json!({ "runAsUser": user });
    assert_eq!(with(user(1000), json!({})), (None, false, None));
    assert_eq!(with(user(1000), user(1001)), (Some(1001), false, None));
    assert_eq!(with(json!({}), user(1001)), (Some(1001), false, None));
    assert_eq!(with(json!({}), json!({})), (Some(65532), true, Some(65532)));
    assert_eq!(with(json!(null), json!({})), (Some(65532), true, Some(65532)));
    assert_eq!(with(json!({ "fsGroup": 7 }), json!({})), (Some(65532), true, Some(7)));
    assert_eq!(with(user(0), json!({})), (Some(65532), true, Some(65532)), "root without its capabilities");
}

fn pod_without_group(object: &Value) -> bool {
    object["spec"]["securityContext"]["fsGroup"].is_null()
}

#[test]
fn security_context_repeats_nothing_that_the_pod_sets() {
    let mut object = objects().remove(0);
    let context = |object: &Value| {
        let read: Value = serde_json::from_str(&text(&object.to_string(), &[])).unwrap();
        read["spec"]["initContainers"][0]["securityContext"].clone()
    };
    let own = json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } });
    object["spec"]["securityContext"] =
        json!({ "runAsUser": 5, "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
    assert_eq!(context(&object), own);
    object["spec"]["securityContext"] = json!({ "runAsNonRoot": false });
    let mut all = own.clone();
    all["runAsNonRoot"] = json!(true);
    all["runAsUser"] = json!(65532);
    all["seccompProfile"] = json!({ "type": "RuntimeDefault" });
    assert_eq!(context(&object), all);
}

#[test]
fn default_container_of_kubectl_is_chosen() {
    let annotated = DEPLOYMENT.replace(
        "    metadata:\n",
        "    metadata:\n      annotations: {kubectl.kubernetes.io/default-container: proxy}\n",
    );
    let read: Vec<Value> = serde_saphyr::from_multiple(&text(&annotated, &[])).unwrap();
    let containers = &read[0]["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[1]["volumeMounts"][0]["name"], "datakey-plaintext-orders");
    assert_eq!(containers[0]["volumeMounts"].as_array().unwrap().len(), 1);
}

#[test]
fn what_cannot_work_is_refused() {
    let edit = |from: &str, to: &str| {
        assert!(DEPLOYMENT.contains(from), "{from}");
        DEPLOYMENT.replacen(from, to, 1)
    };
    let exec = "--mode=exec";
    for (manifest, flags, why) in [
        (edit("x", "x"), &["--container=web"][..], "it has no container web: it has shop, proxy"),
        (
            edit("x", "x"),
            &[exec, "--container=proxy"],
            "its container proxy has no command, and what its image runs is not known",
        ),
        (
            edit("x", "x"),
            &["--mount-path=/data"],
            "its container shop has the volume data at /data: mount it elsewhere or choose",
        ),
        (edit("/data}", "/keys/}"), &[exec], "its container shop has the volume data at /keys"),
        (
            edit("- name: data\n", "- name: datakey-plaintext-orders\n"),
            &[],
            "a volume datakey-plaintext-orders of another type",
        ),
        (
            edit("- name: proxy", "- name: datakey-unwrap-orders"),
            &[],
            "a container datakey-unwrap-orders that inject did not write",
        ),
        (edit("- name: ON", "- name: AWS_ROLE_ARN"), &[exec, ROLE], "its container shop has an AWS role of its own"),
        (edit("{name: shop, ", "{name: shop, namespace: bank, "), &[], "it is in namespace bank"),
        (edit("      containers:\n", "      os: {name: windows}\n      containers:\n"), &[], "on Windows"),
        (edit("      volumes:", "      volumes: &v"), &[], "has an anchor"),
        (edit("image: proxy", "<<: {image: proxy}\n          volumeMounts: []"), &[], "merge key"),
        (edit("kind: Deployment", "kind: Rollout"), &[], "no object with pods"),
        (edit("      containers:", "      kontainers:"), &[], "it has no containers"),
        (edit("spec:", "{{ if x }}\nspec:"), &[], "no YAML or JSON"),
    ] {
        let found = refusal(&manifest, flags);
        assert!(found.contains(why), "{flags:?}: {found}");
    }
}

#[test]
fn notes_say_what_is_left_to_do() {
    let notes = injected(DEPLOYMENT, &[]).unwrap().notes;
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(
        notes[0].contains("trusted: arn:aws:kms:") && notes[1].contains("the image is datakey-unwrap"),
        "{notes:?}"
    );
    assert!(notes[2].contains("no --role-arn"), "{notes:?}");
    let mut set = object("apps/v1", "StatefulSet", &["spec", "template"]);
    set["spec"]["volumeClaimTemplates"] = json!([{ "metadata": { "name": "data" } }]);
    let notes = injected(&set.to_string(), &["--image=x", ROLE]).unwrap().notes;
    assert!(
        matches!(&notes[..], [one, two, _]
        if one.contains("fsGroup 65532 is added, for its persistent volumes, too") && two.contains("the service account default")),
        "{notes:?}"
    );
}

#[test]
fn samples_of_the_repository_keep_every_line() {
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/samples");
    let mut read = 0;
    for folder in ["unwrap", "consumers/aws-cli", "unwrap/example"] {
        for file in fs::read_dir(Path::new(samples).join(folder)).unwrap() {
            let file = file.unwrap().path();
            let manifest = if file.is_file() { fs::read_to_string(&file).unwrap() } else { continue };
            if !manifest.contains("containers:") {
                continue;
            }
            let out = text(&manifest, &["--mode=watch", "--mount-path=/run/orders"]);
            let mut lines = out.lines();
            for line in manifest.lines() {
                assert!(lines.any(|found| found == line), "{}: {line:?} is gone or moved:\n{out}", file.display());
            }
            assert_eq!(text(&out, &["--mode=watch", "--mount-path=/run/orders"]), out);
            read += 1;
        }
    }
    assert!(read > 5, "{read} samples");
}
