//! `kubectl datakey` and `DataKeyClass`es, run by the real kubectl: what may be used here, and why not.

use serde_json::{Value, json};
use testbed::eventually;

use crate::{
    harness::{NO_RETRY, SOON, TestNamespace, message, to_json},
    key_pairs::pairs,
    plugin::{User, row, text},
};

/// The item of a list with this name.
fn item<'a>(list: &'a Value, name: &str) -> &'a Value {
    let items = list["items"].as_array().unwrap();
    items.iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("no {name} in {list}"))
}

/// What a class of this namespace fills in.
fn filling_in(test: &TestNamespace) -> Value {
    json!({
        "defaults": { "keyId": test.alias(), "region": "eu-west-1" },
        "encryptionContext": { "pairs": [{ "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" }] },
    })
}

#[tokio::test]
async fn classes_say_what_can_be_used_and_why_not() {
    let test = TestNamespace::new("plugin-classes").await;
    let user = User::of(&test);
    test.class(&filling_in(&test)).await;
    test.class_of_name("plugin-classes-elsewhere", &json!({ "namespaces": ["plugin-classes-2"] })).await;

    // Classes of other tests are in the same list.
    let table = text(&user.ends(0, &["classes"]).await);
    let lines: Vec<_> = table.lines().filter(|line| line.starts_with("plugin-classes")).collect();
    let usable: Vec<_> = lines.iter().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(
        (usable, lines[1].contains("the class does not admit namespace plugin-classes")),
        (vec!["yes", "no"], true)
    );
    assert!(lines[0].contains(&test.alias()) && lines[0].contains("any data key; any key pair; any Region"), "{table}");
    let list = user.json(0, &["classes"]).await;
    let (here, elsewhere) = (item(&list, "plugin-classes"), item(&list, "plugin-classes-elsewhere"));
    assert_eq!((&here["usable"], &elsewhere["usable"]), (&json!("Yes"), &json!("No")));
    assert_eq!((&here["defaultKeyId"], &here["defaultRegion"]), (&json!(test.alias()), &json!("eu-west-1")));
    let pair = json!({ "key": "namespace", "value": "plugin-classes", "valueFrom": "Namespace", "mode": "Inject" });
    assert_eq!(here["encryptionContext"], json!({ "pairs": [pair], "others": "Allow" }));
    let names = text(&user.ends(0, &["classes", "-o", "name"]).await);
    assert!(names.contains("datakeyclass.datakey.dev/plugin-classes\n"), "{names}");

    let described = text(&user.ends(0, &["classes", "datakeyclass.datakey.dev/plugin-classes"]).await);
    assert!(described.starts_with("plugin-classes: usable in namespace plugin-classes\n"), "{described}");
    assert!(described.contains("adds namespace=plugin-classes") && described.contains(&test.key.arn), "{described}");
    let missing = user.ends(1, &["classes", "plugin-classes-none"]).await;
    assert!(missing.err.contains("there is no DataKeyClass plugin-classes-none"), "{missing:?}");
    let yaml = user.ends(0, &["classes", "plugin-classes", "plugin-classes-elsewhere", "-o", "yaml"]).await;
    let yaml: Value = serde_saphyr::from_str(&text(&yaml)).unwrap();
    assert_eq!(yaml["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn object_is_judged_by_the_plugin_as_by_the_operator() {
    let test = TestNamespace::new("plugin-class-for").await;
    let _operator = test.operator_with(&NO_RETRY, &[]);
    let user = User::of(&test);
    let limits = json!([{ "keyIds": [test.alias()], "keySpecs": ["AES_128"], "keyPairSpecs": [] }]);
    test.class(&json!({ "allow": limits })).await;
    test.class_of_name("plugin-class-for-open", &json!({})).await;
    test.create("orders", &json!({ "className": test.namespace })).await;
    pairs(&test).create("tokens", &json!({ "className": test.namespace })).await;
    let refused = [
        ("orders", message(&test.failed("orders", "ClassRefused").await).to_owned()),
        ("datakeypair/tokens", message(&pairs(&test).failed("tokens", "ClassRefused").await).to_owned()),
    ];
    for (name, message) in &refused {
        let list = user.json(2, &["classes", "--for", name]).await;
        let (own, open) = (item(&list, "plugin-class-for"), item(&list, "plugin-class-for-open"));
        assert_eq!((&own["usable"], &open["usable"]), (&json!("No"), &json!("Yes")), "{name}");
        let why = own["why"].as_str().unwrap();
        assert!(message.contains(why), "{message}\n{why}");
    }
    let text_of_own = user.ends(2, &["classes", "plugin-class-for", "--for", "orders"]).await;
    assert!(text(&text_of_own).starts_with("plugin-class-for: not usable for orders in namespace plugin-class-for\n"));
    assert!(text_of_own.err.contains("note: DataKey orders is of the class plugin-class-for\n"), "{text_of_own:?}");

    // The status leads there, and to the class that would allow it.
    let status = text(&user.ends(2, &["status", "orders"]).await);
    for line in [
        "not Ready (ClassRefused)",
        "check keySpecs and numberOfBytes: the length must be keySpec AES_128",
        "Class     plugin-class-for",
        "kubectl datakey classes --for orders -n plugin-class-for",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
    test.patch("orders", &json!({ "spec": { "className": "plugin-class-for-open" } })).await;
    test.ready("orders").await;
    let issued = user.ends(0, &["classes", "--for", "orders"]).await;
    assert!(issued.err.contains("version 1 of orders is issued and not judged again"), "{issued:?}");
    test.create("lost", &json!({ "className": "plugin-class-for-none" })).await;
    test.failed("lost", "ClassNotFound").await;
    let lost = user.ends(2, &["classes", "--for", "lost"]).await;
    assert!(lost.err.contains("is of the class plugin-class-for-none, and there is no such class"), "{lost:?}");
}

#[tokio::test]
async fn user_without_rights_on_classes_reads_what_to_ask_for() {
    let test = TestNamespace::new("plugin-class-viewer").await;
    test.class(&json!({})).await;
    test.create("orders", &json!({ "className": test.namespace })).await;
    let kubeconfig = test.kubeconfig_with_role("view").await;
    let viewer = User::of(&test).with("KUBECONFIG", &kubeconfig.display().to_string());
    eventually(SOON, "the rights are there", async || viewer.runs(&["list"]).await.code == 0).await;
    for words in [&["classes"][..], &["classes", "plugin-class-viewer"], &["classes", "--for", "orders"]] {
        let refused = viewer.ends(1, words).await;
        assert!(refused.out.is_empty() && refused.err.contains("you may not"), "{refused:?}");
        assert!(refused.err.contains("a ClusterRoleBinding to the ClusterRole RELEASE:classes-reader"), "{refused:?}");
    }
    let checked = viewer.json(2, &["check"]).await;
    let right =
        checked["items"].as_array().unwrap().iter().find(|item| item["check"] == "list datakeyclasses").unwrap();
    assert_eq!((&right["result"], right["next"].is_string()), (&json!("Ok"), true), "{right}");

    // The right on one class is enough to look at that one.
    let rbac = "rbac.authorization.k8s.io";
    let metadata = json!({ "name": "plugin-class-viewer" });
    test.apply(&[
        json!({
            "apiVersion": format!("{rbac}/v1"),
            "kind": "ClusterRole",
            "metadata": metadata,
            "rules": [{
                "apiGroups": ["datakey.dev"], "resources": ["datakeyclasses"], "resourceNames": [test.namespace], "verbs": ["get"],
            }],
        }),
        json!({
            "apiVersion": format!("{rbac}/v1"),
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": { "apiGroup": rbac, "kind": "ClusterRole", "name": "plugin-class-viewer" },
            "subjects": [{ "kind": "ServiceAccount", "name": test.namespace, "namespace": test.namespace }],
        }),
    ])
    .await;
    eventually(SOON, "the right is there", async || viewer.runs(&["classes", "plugin-class-viewer"]).await.code == 0)
        .await;
    let own = viewer.json(0, &["classes", "--for", "orders"]).await;
    assert_eq!((own["items"].as_array().unwrap().len(), &own["items"][0]["usable"]), (1, &json!("Yes")));
    viewer.ends(1, &["classes"]).await;
}

#[tokio::test]
async fn class_names_the_key_of_what_create_applies() {
    let test = TestNamespace::new("plugin-class-create").await;
    let operator = test.operator();
    let user = User::of(&test);
    test.class(&filling_in(&test)).await;
    let words = ["create", "orders", "--class-name=plugin-class-create", "--key-spec=AES_256"];
    let printed: Value = serde_saphyr::from_str(&text(&user.ends(0, &words).await)).unwrap();
    assert_eq!(printed["spec"], json!({ "className": "plugin-class-create", "keySpec": "AES_256" }));
    let dry = user.ends(64, &[&words[..], &["--dry-run"]].concat()).await;
    assert!(dry.err.contains("give --key-id, too"), "{dry:?}");
    user.ends(0, &[&words[..], &["--dry-run=server"]].concat()).await;
    let created = user.ends(0, &[&words[..], &["--apply"]].concat()).await;
    assert_eq!(text(&created), "orders created: Secret orders holds data key version 1\n");
    // What the class filled in is no difference to what the command asks for.
    user.ends(0, &[&words[..], &["--apply"]].concat()).await;
    let other =
        user.ends(1, &["create", "orders", "--class-name=plugin-class-create", "--key-spec=AES_128", "--apply"]).await;
    assert!(other.err.contains("keySpec AES_128 in the command, AES_256 in the cluster"), "{other:?}");
    assert_eq!(test.proxy.calls(), 1);
    let pair = ["create", "tokens", "--class-name=plugin-class-create", "--key-pair-spec=ECC_NIST_P256", "--apply"];
    user.ends(0, &pair).await;

    let status = user.json(0, &["status", "orders"]).await;
    assert_eq!((&status["keyId"], &status["className"]), (&json!(test.key.arn), &json!("plugin-class-create")));
    assert_eq!(status["versions"][0]["class"]["name"], "plugin-class-create");
    assert_eq!(status["versions"][0]["encryptionContext"], json!({ "namespace": "plugin-class-create" }));
    let shown = text(&user.ends(0, &["status", "orders"]).await);
    assert!(
        shown.contains("Class     plugin-class-create") && shown.contains("REQUEST") && shown.contains("CLASS"),
        "{shown}"
    );

    // What is exported is pinned as it is.
    let pinned = user.ends(0, &["export", "orders", "--pin"]).await;
    let mut pinned: Value = serde_saphyr::from_str(&text(&pinned)).unwrap();
    let recorded = to_json(&test.get("orders").await)["status"]["versions"].take();
    assert_eq!(pinned["spec"]["wrappedKeys"], recorded);
    pinned["metadata"]["name"] = json!("copy");
    test.try_create(&pinned).await.unwrap();
    assert_eq!(to_json(&test.ready("copy").await)["status"]["versions"], recorded);
    user.ends(0, &["verify"]).await;
    drop(operator);

    // Until it is issued, the class is shown in place of the key.
    let unissued =
        ["create", "later", "--class-name=plugin-class-create", "--key-spec=AES_256", "--apply", "--timeout=1s"];
    user.ends(2, &unissued).await;
    let list = text(&user.ends(0, &["list"]).await);
    assert!(row(&list, "later").contains(&"class/plugin-class-create".to_owned()), "{list}");
    let status = user.json(2, &["status", "later"]).await;
    assert_eq!((status.get("keyId"), &status["className"]), (None, &json!("plugin-class-create")));
    let policy = user.ends(0, &["policy", "later"]).await;
    assert!(policy.err.contains("fill in KEY-ID") && text(&policy).contains("key/KEY-ID"), "{policy:?}");
    assert!(policy.err.contains("kubectl datakey classes plugin-class-create -n plugin-class-create"), "{policy:?}");
}

/// The result, the detail and what to do of one check.
fn finding(checked: &Value, check: &str) -> (String, String, bool) {
    let mut items = checked["items"].as_array().unwrap().iter();
    let found = items.find(|item| item["check"] == check).unwrap_or_else(|| panic!("no {check}: {checked}"));
    let field = |name: &str| found[name].as_str().unwrap().to_owned();
    (field("result"), field("detail"), found["next"].is_string())
}

#[tokio::test]
async fn requirement_of_classes_is_seen_in_the_deployment() {
    let test = TestNamespace::with_own_control_plane("plugin-class-required").await;
    let user = User::of(&test);
    let deployment = |flags: &[&str]| {
        let labels = json!({ "app.kubernetes.io/name": "datakey-operator" });
        let arguments = [&["run"], flags].concat();
        let container = json!({
            "name": "operator", "image": "registry.example.com/datakey-operator:v0.1.0", "args": arguments,
            "env": [{ "name": "AWS_REGION", "value": "eu-west-1" }],
        });
        let pod = json!({ "serviceAccountName": "datakey-operator", "containers": [container] });
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": "keys", "namespace": "datakey-system", "labels": labels },
            "spec": {
                "replicas": 1,
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": pod },
            },
        })
    };
    // Of two, none would be known to watch the namespace.
    test.plane.kubectl(&["delete", "deployment", "--all", "-n", "datakey-system"]).await.unwrap();
    test.apply(&[deployment(&[])]).await;
    let limits = json!([{ "keyIds": [test.alias()], "regions": ["eu-north-1"] }]);
    test.class(&json!({ "allow": limits })).await;
    test.create("orders", &json!({})).await;
    let optional = user.ends(0, &["classes", "--for", "orders"]).await;
    assert!(optional.err.contains("note: the operator requires no class (--classes=optional)"), "{optional:?}");
    // The Region of the Deployment decides.
    let why = "check regions: the KMS key must be in eu-north-1";
    assert!(text(&optional).contains(why), "{optional:?}");
    let (result, detail, _) = finding(&user.json(2, &["check"]).await, "classes");
    assert!(
        result == "Ok" && detail.ends_with("only objects that name a class need it (--classes=optional)"),
        "{detail}"
    );

    test.apply(&[deployment(&["--classes=required"])]).await;
    let required = user.ends(2, &["classes", "--for", "orders"]).await;
    let names_none = "note: DataKey orders names no class, so it is of the class default, and there is no such class\n";
    assert!(required.err.contains("there is no class default, so each object must name one"), "{required:?}");
    assert!(required.err.contains(names_none), "{required:?}");
    let checked = user.json(2, &["check"]).await;
    assert_eq!(finding(&checked, "definition of classes").0, "Ok");
    let (result, detail, _) = finding(&checked, "classes");
    assert!(result == "Ok" && detail.ends_with("each object needs a class (--classes=required)"), "{detail}");
    let (result, detail, warns) = finding(&checked, "class default");
    assert!(result == "Ok" && detail.contains("ClassMissing") && warns, "{detail}");
    test.class_of_name("default", &json!({ "allow": [{ "keyIds": [test.alias()] }] })).await;
    let (result, _, warns) = finding(&user.json(2, &["check"]).await, "class default");
    assert_eq!((result.as_str(), warns), ("Ok", false));
    let table = text(&user.ends(0, &["classes", "--for", "orders"]).await);
    assert_eq!(row(&table, "default")[..3], ["default", "(default)", "yes"]);

    // An operator without its rights, and a cluster without the definition.
    let mut powerless = deployment(&["--classes=required"]);
    powerless["spec"]["template"]["spec"]["serviceAccountName"] = json!("default");
    test.apply(&[powerless]).await;
    let (result, detail, _) = finding(&user.json(2, &["check"]).await, "classes");
    assert!(
        result == "Failed" && detail.contains("serviceaccount:datakey-system:default may not list datakeyclasses"),
        "{detail}"
    );
    test.plane.kubectl(&["delete", "crd", "datakeyclasses.datakey.dev"]).await.unwrap();
    let (result, detail, _) = finding(&user.json(2, &["check"]).await, "definition of classes");
    assert!(result == "Failed" && detail.contains("requires classes"), "{detail}");
    let none = user.json(0, &["classes"]).await;
    assert_eq!(none, json!({ "items": [] }));
    let none = user.ends(0, &["classes", "shop"]).await;
    assert!(none.err.contains("This cluster has no DataKeyClasses"), "{none:?}");
    test.apply(&[deployment(&[])]).await;
    assert_eq!(finding(&user.json(2, &["check"]).await, "definition of classes").0, "Ok", "nothing needs one");
    assert_eq!(user.ends(0, &["list"]).await.err, "");
}
