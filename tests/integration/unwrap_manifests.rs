//! What the samples, the Kustomize component, the library chart and `kubectl datakey inject` add to pods: the API server admits it
//! under the profile `restricted`, and it is what the program `datakey-unwrap` takes.

use std::{collections::BTreeSet, path::Path};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use testbed::repository;
use tokio::process::Command;

use crate::{chart::helm, harness::TestNamespace};

/// The program in its image, and where it is installed for `exec`.
const PROGRAM: &str = "/datakey-unwrap";
const INSTALLED: &str = "/datakey/datakey-unwrap";

/// The samples of pods, each a file to copy.
const SAMPLES: [&str; 5] = ["init-container.yaml", "sidecar.yaml", "exec.yaml", "job.yaml", "statefulset.yaml"];

/// The objects of a manifest in YAML.
pub fn objects(manifest: &str) -> Vec<Value> {
    let read: Vec<Value> = serde_saphyr::from_multiple(manifest).unwrap_or_else(|error| panic!("{error}:\n{manifest}"));
    read.into_iter().filter(|object| !object.is_null()).collect()
}

/// The pods of objects, by how messages name their objects. Each has the name of its object.
pub fn pods(objects: &[Value]) -> Vec<(String, Value)> {
    let pod = |object: &Value| {
        let path = match object["kind"].as_str()? {
            "Pod" => "",
            "CronJob" => "/spec/jobTemplate/spec/template",
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
                "/spec/template"
            }
            _ => return None,
        };
        let mut pod = object.pointer(path)?.clone();
        let name = &object["metadata"]["name"];
        pod["metadata"]["name"] = name.clone();
        // As the controller adds them to the pods of a StatefulSet.
        for claim in object["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
            let claim = &claim["metadata"]["name"];
            let volume = json!({ "name": claim, "persistentVolumeClaim": { "claimName": claim } });
            pod["spec"]["volumes"].as_array_mut().expect("volumes").push(volume);
        }
        Some((format!("{} {name}", object["kind"]), pod))
    };
    objects.iter().filter_map(pod).collect()
}

/// The arguments of each call of `datakey-unwrap` in a pod: of its containers, of their probes, and before the command of an
/// application. As the program gets them: Kubernetes reads `$$` as `$`.
pub fn arguments(pod: &Value) -> Vec<Vec<String>> {
    let words = |list: &Value| -> Vec<String> {
        let words = list.as_array().into_iter().flatten().map(|word| word.as_str().expect("a text").replace("$$", "$"));
        words.collect()
    };
    let lists = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array().cloned().unwrap_or_default());
    let mut found = Vec::new();
    for container in lists.iter().flatten() {
        let (command, args) = (words(&container["command"]), words(&container["args"]));
        let is_helper = container["image"].as_str().is_some_and(|image| image.contains("datakey-unwrap"));
        match command.first() {
            Some(program) if program == INSTALLED => found.push([&command[1..], &args].concat()),
            None if is_helper => found.push(args),
            _ => assert!(!is_helper, "the image has no shell: {container}"),
        }
        let probe = words(&container["startupProbe"]["exec"]["command"]);
        if probe.first().is_some_and(|program| program == PROGRAM) {
            found.push(probe[1..].to_vec());
        }
    }
    found
}

/// Asserts that the program at this path takes each of these lists of arguments. None of them finds a folder to read or write.
///
/// clap reads arguments from the left and ends with 0 at `--help`, so that a wrong one before it is an error; a run without it shows
/// whether one is missing.
pub async fn assert_the_program_takes(program: &Path, lists: &[Vec<String>], missing: &Path) {
    for list in lists {
        let path = |argument: &String| match argument.split_once('=') {
            Some((flag @ ("--from" | "--to"), _)) => format!("{flag}={}", missing.display()),
            _ if argument == "/datakey" => missing.display().to_string(),
            _ => argument.clone(),
        };
        let list: Vec<_> = list.iter().map(path).collect();
        let flags = list.iter().position(|argument| argument == "--").unwrap_or(list.len());
        let run = async |arguments: &[String]| {
            let mut command = Command::new(program);
            command.args(arguments).env_clear();
            command.output().await.unwrap()
        };
        let help = run(&[&list[..flags], &["--help".to_owned()]].concat()).await;
        let said = String::from_utf8_lossy(&help.stderr).into_owned();
        assert_eq!(help.status.code(), Some(0), "{list:?}: {said}");
        let ended = run(&list).await;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        let is_about_arguments = said.contains("required argument") || said.contains("unexpected argument");
        assert!(!ended.status.success() && !is_about_arguments, "{list:?}: {said}");
    }
}

/// Asserts that the API server creates these pods in a namespace that enforces `restricted`, and that it checks that.
pub async fn assert_admitted(test: &TestNamespace, pods: &[(String, Value)]) {
    let api: Api<Pod> = Api::namespaced(test.client.clone(), &test.namespace);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    for (name, pod) in pods {
        // The names of fields are compared by the API server when the manifest is applied, not here.
        let mut pod: Pod = serde_json::from_value(pod.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        api.create(&dry_run, &pod).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        for container in pod.spec.as_mut().unwrap().init_containers.iter_mut().flatten() {
            container.security_context = None;
        }
        let refused = api.create(&dry_run, &pod).await.unwrap_err().to_string();
        assert!(refused.contains("violates PodSecurity"), "{name}: {refused}");
    }
}

/// Has the namespace of a test refuse pods that are not restricted.
pub async fn enforce(test: &TestNamespace) {
    let enforce = ["label", "namespace", &test.namespace, "pod-security.kubernetes.io/enforce=restricted"];
    test.plane.kubectl(&enforce).await.unwrap();
}

/// Applies a manifest, or only has the API server check it.
pub async fn apply(test: &TestNamespace, manifest: &str, flags: &[&str]) {
    let file = test.plane.workdir().file(&format!("{}-applied.yaml", test.namespace));
    std::fs::write(&file, manifest).unwrap();
    let file = file.display().to_string();
    let apply = ["apply", "-f", &file, "-n", &test.namespace, "--validate=strict"];
    test.plane.kubectl(&[&apply[..], flags].concat()).await.unwrap_or_else(|error| panic!("{error}:\n{manifest}"));
}

fn sample(name: &str) -> String {
    std::fs::read_to_string(repository().join("deploy/samples/unwrap").join(name)).unwrap()
}

/// What the example of the component renders to.
async fn component(test: &TestNamespace) -> String {
    let folder = repository().join("deploy/samples/unwrap/example").display().to_string();
    test.plane.kubectl(&["kustomize", &folder]).await.unwrap()
}

/// The templates of the library chart, by names.
const TEMPLATES: [&str; 2] = ["sidecar", "initContainer"];

/// A chart with a Deployment that includes a template of the library chart as its README shows it, rendered.
async fn chart(test: &TestNamespace, template: &str, values: &Value) -> Result<String, String> {
    let folder = test.plane.workdir().file(&format!("{}-{template}", test.namespace));
    let write = |name: &str, text: String| {
        let file = folder.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    };
    let library = repository().join("charts/datakey-unwrap");
    for file in ["Chart.yaml", "values.yaml", "values.schema.json", "templates/_settings.tpl", "templates/_unwrap.tpl"]
    {
        write(&format!("charts/datakey-unwrap/{file}"), std::fs::read_to_string(library.join(file)).unwrap());
    }
    let readme = std::fs::read_to_string(library.join("README.md")).unwrap();
    let blocks: Vec<_> = readme.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    let [dependency, settings, pod] = blocks[..] else { panic!("the README of the chart has {} blocks", blocks.len()) };
    write("Chart.yaml", format!("apiVersion: v2\nname: orders\nversion: 0.1.0\n{dependency}"));
    write("values.yaml", settings.to_owned());
    let security = "        securityContext:\n          allowPrivilegeEscalation: false\n          capabilities:\n            drop: [ALL]\n";
    let container = "      - name: orders\n";
    assert!(pod.contains(container) && pod.contains("datakey-unwrap.sidecar"), "{pod}");
    let pod = pod
        .replace("datakey-unwrap.sidecar", &format!("datakey-unwrap.{template}"))
        .replace(container, &format!("{container}        image: orders\n{security}"));
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: orders\n";
    let of_pod = "      serviceAccountName: orders\n      securityContext:\n        runAsNonRoot: true\n        runAsUser: 65532\n        \
                  fsGroup: 65532\n        seccompProfile: {type: RuntimeDefault}\n";
    let deployment = format!(
        "{account}---\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: orders-{}\nspec:\n  selector:\n    matchLabels:\n      \
         app: orders\n  template:\n    metadata:\n      labels:\n        app: orders\n{pod}{of_pod}",
        template.to_lowercase()
    );
    write("templates/deployment.yaml", deployment);
    let given = folder.join("given.json");
    std::fs::write(&given, values.to_string()).unwrap();
    let (folder, given) = (folder.display().to_string(), given.display().to_string());
    helm(&test.plane, &["template", "orders", &folder, "--values", &given]).await
}

/// All manifests, each with where it comes from.
async fn all(test: &TestNamespace) -> Vec<(String, String)> {
    let mut all: Vec<_> = SAMPLES.iter().map(|name| ((*name).to_owned(), sample(name))).collect();
    all.push(("the component".to_owned(), component(test).await));
    for template in TEMPLATES {
        all.push((format!("the template {template}"), chart(test, template, &json!({})).await.unwrap()));
    }
    all
}

#[tokio::test]
async fn manifests_are_admitted_under_the_restricted_standard() {
    let test = TestNamespace::new("unwrap-restricted").await;
    enforce(&test).await;
    for (source, manifest) in all(&test).await {
        apply(&test, &manifest, &[]).await;
        let pods = pods(&objects(&manifest));
        assert_eq!(pods.len(), 1, "{source}");
        assert_admitted(&test, &pods).await;
        for (name, pod) in pods {
            // The images of the kustomizations are the reader's.
            assert!(!arguments(&pod).is_empty(), "{source}: {name}");
            let spec = &pod["spec"];
            assert!(spec["automountServiceAccountToken"] != json!(true), "{source}");
        }
    }
}

#[tokio::test]
async fn each_way_unwraps_the_same() {
    let test = TestNamespace::new("unwrap-same").await;
    let settings = |arguments: &[String]| -> BTreeSet<String> {
        let flags = ["--from=", "--trust=", "--key-spec="];
        arguments.iter().filter(|argument| flags.iter().any(|flag| argument.starts_with(flag))).cloned().collect()
    };
    let expected: BTreeSet<_> = [
        "--from=/keys",
        "--trust=arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab purpose=orders",
        "--key-spec=AES_256",
    ]
    .map(str::to_owned)
    .into();
    for (source, manifest) in all(&test).await.into_iter().filter(|(source, _)| source != "statefulset.yaml") {
        let (_, pod) = pods(&objects(&manifest)).remove(0);
        let unwraps = arguments(&pod).into_iter().find(|list| list.iter().any(|word| word.starts_with("--trust=")));
        assert_eq!(settings(&unwraps.unwrap()), expected, "{source}");
    }
}

#[tokio::test]
async fn kustomizations_replace_the_images() {
    let test = TestNamespace::new("unwrap-images").await;
    let kustomization = sample("kustomization.yaml");
    for name in SAMPLES {
        let folder = test.plane.workdir().file(&format!("unwrap-images-{name}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), sample(name)).unwrap();
        std::fs::write(
            folder.join("kustomization.yaml"),
            kustomization.replace("- init-container.yaml", &format!("- {name}")),
        )
        .unwrap();
        let rendered = test.plane.kubectl(&["kustomize", &folder.display().to_string()]).await.unwrap();
        let images: Vec<_> =
            rendered.lines().filter(|line| line.trim_start_matches([' ', '-']).starts_with("image:")).collect();
        assert!(images.len() > 1 && images.iter().all(|image| image.contains(": REGISTRY/")), "{name}: {images:?}");
    }
}

#[tokio::test]
async fn component_adds_to_labeled_workloads_alone() {
    let test = TestNamespace::new("unwrap-component").await;
    let folder = test.plane.workdir().file("unwrap-component");
    let samples = repository().join("deploy/samples/unwrap");
    for (file, text) in [
        ("component/kustomization.yaml", sample("component/kustomization.yaml")),
        ("component/sidecar.yaml", sample("component/sidecar.yaml")),
        ("example/orders.yaml", sample("example/orders.yaml")),
    ] {
        std::fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
        std::fs::write(folder.join(file), text).unwrap();
    }
    let set = |name: &str, label: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": name, "labels": { "datakey.dev/unwrap": label } },
            "spec": { "template": { "spec": { "containers": [{
                "name": name, "image": name, "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            }] } } },
        })
    };
    let sets = format!("{}\n---\n{}\n", set("with", "true"), set("without", "false"));
    std::fs::write(folder.join("example/sets.yaml"), sets).unwrap();
    // The settings by a generator instead of a file.
    let settings: Value = serde_saphyr::from_str(&sample("example/settings.yaml")).unwrap();
    let literals: Vec<_> = settings["data"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap()))
        .collect();
    let kustomization = json!({
        "resources": ["orders.yaml", "sets.yaml"],
        "components": ["../component"],
        "configMapGenerator": [{
            "name": "datakey-unwrap", "literals": literals,
            "options": { "disableNameSuffixHash": true, "annotations": { "config.kubernetes.io/local-config": "true" } },
        }],
    });
    std::fs::write(folder.join("example/kustomization.yaml"), kustomization.to_string()).unwrap();
    let rendered =
        objects(&test.plane.kubectl(&["kustomize", &folder.join("example").display().to_string()]).await.unwrap());
    assert!(rendered.iter().all(|object| object["kind"] != "ConfigMap"), "the settings are not applied");
    let helpers = |name: &str| {
        let object = rendered
            .iter()
            .find(|object| object["metadata"]["name"] == name && object["kind"] != "ServiceAccount")
            .unwrap();
        let pod = &object["spec"]["template"]["spec"];
        (
            pod["initContainers"].as_array().map_or(0, Vec::len),
            pod["containers"][0]["volumeMounts"].as_array().map_or(0, Vec::len),
        )
    };
    assert_eq!([helpers("orders"), helpers("with"), helpers("without")], [(1, 1), (1, 2), (0, 1)]);
    let of_the_file = objects(&component(&test).await);
    assert!(of_the_file.iter().all(|object| rendered.contains(object)), "as with a file: {}", samples.display());
}

#[tokio::test]
async fn wrong_settings_of_the_library_chart_are_explained() {
    let test = TestNamespace::new("unwrap-chart").await;
    let refused = async |settings: Value| {
        chart(&test, "sidecar", &json!({ "datakey-unwrap": settings })).await.expect_err(&settings.to_string())
    };
    let arn = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    for (settings, message) in [
        (json!({ "image": "" }), "datakey-unwrap: image: write the image of datakey-unwrap"),
        (json!({ "secretName": null }), "datakey-unwrap: secretName: write the name of the Secret"),
        (json!({ "trust": [] }), "datakey-unwrap: trust: write a list of keyArn"),
        (
            json!({ "trust": [{ "keyArn": "alias/orders" }] }),
            "datakey-unwrap: trust: write the ARN of a KMS key as keyArn",
        ),
        (
            json!({ "keySpec": "" }),
            "datakey-unwrap: write exactly one of keySpec, numberOfBytes and keyPairSpec, not none",
        ),
        (
            json!({ "numberOfBytes": 32 }),
            "datakey-unwrap: write exactly one of keySpec, numberOfBytes and keyPairSpec, not keySpec and",
        ),
        (json!({ "format": "pem" }), "datakey-unwrap: format: write one of raw, hex, base64, jwk"),
        (json!({ "keySpec": "aes" }), "'/keySpec'"),
        (json!({ "mode": 440 }), "'/mode'"),
        (
            json!({ "trust": [{ "keyArn": arn, "encryptionContext": { "stage": 1 } }] }),
            "'/trust/0/encryptionContext/stage'",
        ),
        (json!({ "mountPath": "plaintext" }), "'/mountPath'"),
        (json!({ "noSuchSetting": 1 }), "noSuchSetting"),
    ] {
        let said = refused(settings.clone()).await;
        assert!(said.contains(message), "{settings}: {said}");
    }
}

#[tokio::test]
async fn settings_of_the_library_chart_reach_the_pods() {
    let test = TestNamespace::new("unwrap-values").await;
    let arn = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let context = json!({ "a": "$(HOME)", "b": "c,d=e" });
    let settings = json!({
        "secretName": "orders.v2", "trust": [{ "keyArn": arn, "encryptionContext": context }, { "keyArn": arn }],
        "keySpec": null, "numberOfBytes": 64, "versions": "1,2", "minVersion": 2, "format": "hex", "mountPath": "/run/keys", "mode": "0440",
        "runAsUser": 1_000_650_000, "roleArn": "", "imagePullPolicy": "Always", "resources": { "requests": null, "limits": { "memory": "32Mi" } },
    });
    let manifest = chart(&test, "initContainer", &json!({ "datakey-unwrap": settings })).await.unwrap();
    let (_, pod) = pods(&objects(&manifest)).remove(0);
    let expected = [
        "file",
        "--from=/keys",
        &format!("--trust={arn} {context}"),
        &format!("--trust={arn} none"),
        "--number-of-bytes=64",
        "--versions=1,2",
        "--min-version=2",
        "--format=hex",
        "--to=/run/keys",
        "--mode=0440",
    ];
    assert_eq!(arguments(&pod), [expected.map(str::to_owned).to_vec()]);
    let spec = &pod["spec"];
    let helper = &spec["initContainers"][0];
    assert_eq!(helper["args"][2], format!("--trust={arn} {context}").replace('$', "$$"), "no variable is expanded");
    assert_eq!(
        (&helper["securityContext"]["runAsUser"], &helper["imagePullPolicy"]),
        (&json!(1_000_650_000), &json!("Always"))
    );
    assert_eq!(helper["resources"], json!({ "limits": { "memory": "32Mi" } }));
    assert!(
        helper["env"].is_null() && spec["volumes"].as_array().unwrap().len() == 2,
        "EKS Pod Identity needs no token"
    );
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"], "/run/keys");
    assert_eq!(spec["volumes"][0]["secret"]["secretName"], "orders.v2");
    assert!(!spec["volumes"][0]["name"].as_str().unwrap().contains('.'), "{spec}");
}

// The program runs on Linux only.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn the_program_takes_the_arguments_of_all_manifests() {
    let test = TestNamespace::new("unwrap-arguments").await;
    let program = testbed::unwrap();
    let missing = test.plane.workdir().file("unwrap-missing/folder");
    for (_, manifest) in all(&test).await {
        for (_, pod) in pods(&objects(&manifest)) {
            assert_the_program_takes(&program, &arguments(&pod), &missing).await;
        }
    }
}
