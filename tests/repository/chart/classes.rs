//! Classes in the chart: as values, the roles about them, and the policy for the verb `use`.

use serde_json::{Value, json};

use super::{chart, nested, notes, objects, rendered};

/// The operator's own cluster role and its binding.
const OPERATOR: &str = "datakey-system:datakey-operator";

/// A class as a value.
fn class() -> Value {
    json!({
        "namespaces": ["shop", "shop-*"],
        "defaults": { "keyId": "alias/shop", "region": "eu-west-1" },
        "allow": [{
            "keyIds": ["alias/shop"],
            "keyArns": ["arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"],
            "regions": ["eu-west-1"],
            "keySpecs": ["AES_256"],
            "numberOfBytes": { "min": 32, "max": 64 },
            "keyPairSpecs": [],
        }],
        "encryptionContext": {
            "pairs": [{ "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" }, { "key": "purpose", "mode": "Require" }],
            "others": "Deny",
        },
    })
}

/// The objects of a kind.
fn of_kind(kind: &str, values: &Value) -> Vec<Value> {
    objects(values).into_iter().filter(|object| object["kind"] == kind).collect()
}

/// The one with this end of its name.
fn named(kind: &str, end: &str, values: &Value) -> Value {
    let is_it = |object: &Value| object["metadata"]["name"].as_str().unwrap().ends_with(end);
    of_kind(kind, values).into_iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {end}"))
}

/// The verbs that a role gives on classes, or on a subresource of them.
fn verbs(role: &Value) -> Vec<(String, Value)> {
    let rules = role["rules"].as_array().unwrap().iter();
    rules
        .flat_map(|rule| rule["resources"].as_array().unwrap().iter().map(move |resource| (resource, &rule["verbs"])))
        .map(|(resource, verbs)| (resource.as_str().unwrap().to_owned(), verbs.clone()))
        .filter(|(resource, _)| resource.starts_with("datakeyclasses") || resource.contains('*'))
        .collect()
}

// === roles ===

#[test]
fn operator_of_all_namespaces_writes_the_status_of_classes() {
    let role = named("ClusterRole", OPERATOR, &json!({}));
    let expected = [
        ("datakeyclasses".to_owned(), json!(["list", "watch"])),
        ("datakeyclasses/status".to_owned(), json!(["patch"])),
    ];
    assert_eq!(verbs(&role), expected);
    let without = named("ClusterRole", OPERATOR, &json!({ "rbac": { "classes": false } }));
    assert_eq!(verbs(&without), []);
    assert!(without["rules"].as_array().unwrap().len() > 3);
}

#[test]
fn operator_of_listed_namespaces_reads_classes_and_no_more() {
    let values = json!({ "watchNamespaces": ["shop", "bank", "shop"], "rbac": { "aggregate": false } });
    let [role] = of_kind("ClusterRole", &values).try_into().unwrap();
    let allowed = json!({ "apiGroups": ["datakey.dev"], "resources": ["datakeyclasses"], "verbs": ["list", "watch"] });
    assert_eq!(role["rules"], json!([allowed]));
    let [binding] = of_kind("ClusterRoleBinding", &values).try_into().unwrap();
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    let account = json!({ "kind": "ServiceAccount", "name": "datakey-operator", "namespace": "datakey-system" });
    assert_eq!(binding["subjects"], json!([account]));
    let roles = of_kind("Role", &values);
    let namespaces: Vec<_> = roles.iter().map(|role| role["metadata"]["namespace"].as_str().unwrap()).collect();
    assert_eq!(namespaces, ["shop", "bank", "datakey-system"]);
    // A Role cannot grant classes, which are in no namespace.
    assert!(roles.iter().all(|role| verbs(role).is_empty()));
}

#[test]
fn release_without_cluster_roles_is_possible() {
    let values = json!({ "watchNamespaces": ["shop"], "rbac": { "aggregate": false, "classes": false } });
    assert_eq!(of_kind("ClusterRole", &values), Vec::<Value>::new());
    assert_eq!(of_kind("ClusterRoleBinding", &values), Vec::<Value>::new());
    assert_eq!(of_kind("Role", &values).len(), 2);
}

#[test]
fn no_role_of_users_can_write_classes() {
    let everything =
        json!({ "classes": { "items": { "shop": class() }, "usePolicy": { "enabled": true }, "required": true } });
    for role in of_kind("ClusterRole", &everything) {
        let (name, labels) = (role["metadata"]["name"].as_str().unwrap(), &role["metadata"]["labels"]);
        let is_aggregated =
            labels.as_object().unwrap().keys().any(|label| label.starts_with("rbac.authorization.k8s.io/"));
        let verbs = verbs(&role);
        match name.strip_prefix(OPERATOR).unwrap() {
            "" => assert!(!is_aggregated),
            ":classes-reader" => {
                assert!(!is_aggregated);
                assert_eq!(verbs, [("datakeyclasses".to_owned(), json!(["get", "list", "watch"]))]);
            }
            ":view" | ":edit" => assert!(is_aggregated && verbs.is_empty(), "{name}: {verbs:?}"),
            other => panic!("{other}"),
        }
    }
    // No one is bound to the role for reading.
    let bound = of_kind("ClusterRoleBinding", &everything);
    assert!(bound.iter().all(|binding| binding["roleRef"]["name"] == OPERATOR), "{bound:?}");
}

// === classes as values ===

#[test]
fn class_in_the_values_becomes_an_object() {
    // YAML has names that are numbers.
    let items = json!({ "shop": class(), "1e3": class(), "gone": null });
    let classes = of_kind("DataKeyClass", &json!({ "classes": { "items": items } }));
    let names: Vec<_> = classes.iter().map(|class| class["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["1e3", "shop"]);
    for object in classes {
        assert_eq!(object["apiVersion"], "datakey.dev/v1alpha1");
        assert_eq!(object["spec"], class());
        assert!(object["metadata"]["namespace"].is_null());
    }
}

#[test]
fn schema_refuses_classes_that_are_wrong() {
    let cases = [
        ("/namespaces", json!(["Shop"])),
        ("/namespaces", json!(["*-shop"])),
        ("/namespaces", json!("shop")),
        ("/namespaces", Value::Null),
        ("/allow", json!([])),
        ("/allow", Value::Null),
        ("/allow/0/keyIds", json!([])),
        ("/allow/0/keyIds", Value::Null),
        // A limit that is misspelled would not be there.
        ("/allow/0/region", json!(["eu-west-1"])),
        ("/allow/0/regions", json!(["Ireland"])),
        ("/allow/0/keySpecs", json!(["AES_512"])),
        ("/allow/0/numberOfBytes", json!({ "min": 0, "max": 64 })),
        ("/allow/0/numberOfBytes", json!({ "min": 32 })),
        ("/allow/0/keyPairSpecs", json!(["RSA_1024"])),
        ("/defaults/keySpec", json!("AES_256")),
        ("/encryptionContext/pairs/0/mode", json!("Add")),
        ("/encryptionContext/pairs/0/valueFrom", json!("Pod")),
        ("/encryptionContext/others", json!("Refuse")),
        ("/roleArn", json!("arn:aws:iam::111122223333:role/x")),
    ];
    for (place, value) in cases {
        let mut wrong = class();
        let (parent, field) = place.rsplit_once('/').unwrap();
        wrong.pointer_mut(parent).unwrap()[field] = value.clone();
        let refused = rendered(&json!({ "classes": { "items": { "shop": wrong } } }));
        assert!(refused.is_err_and(|error| error.contains("don't meet")), "{place} = {value} is accepted");
    }
    for name in ["Shop", "shop_", "-shop", ""] {
        assert!(rendered(&json!({ "classes": { "items": { name: class() } } })).is_err(), "{name:?} is accepted");
    }
}

/// What `chart` allows and `definition` does not, or the reverse, by path.
fn differences(definition: &Value, chart: &Value, path: &str, found: &mut Vec<String>) {
    const BOUNDS: [&str; 8] =
        ["minItems", "maxItems", "minLength", "maxLength", "minimum", "maximum", "minProperties", "maxProperties"];
    let mut compare = |field: &str, one: &Value, other: &Value| {
        // JSON has 1 and 1.0.
        if one != other && (one.as_f64().is_none() || one.as_f64() != other.as_f64()) {
            found.push(format!("{path}: {field} is {one} in the definition, {other} in the chart"));
        }
    };
    let sorted = |value: &Value| {
        let mut all: Vec<_> = value.as_array().into_iter().flatten().map(ToString::to_string).collect();
        all.sort();
        json!(all)
    };
    for bound in BOUNDS {
        compare(bound, &definition[bound], &chart[bound]);
    }
    for list in ["enum", "required"] {
        compare(list, &sorted(&definition[list]), &sorted(&chart[list]));
    }
    let names = |value: &Value| {
        json!(value["properties"].as_object().into_iter().flat_map(|fields| fields.keys()).collect::<Vec<_>>())
    };
    compare("properties", &names(definition), &names(chart));
    if let Some(fields) = definition["properties"].as_object() {
        compare("additionalProperties", &json!(false), &chart["additionalProperties"]);
        for (name, field) in fields {
            differences(field, &chart["properties"][name], &format!("{path}.{name}"), found);
        }
    }
    if definition["items"].is_object() {
        differences(&definition["items"], &chart["items"], &format!("{path}[]"), found);
    }
}

#[test]
fn schema_of_classes_is_that_of_the_definition() {
    let definition = json!(datakey::api::class_crd());
    let definition = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let schema = std::fs::read_to_string(chart().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let chart = &schema["properties"]["classes"]["properties"]["items"]["additionalProperties"];
    let mut found = Vec::new();
    differences(definition, chart, "spec", &mut found);
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(definition["properties"].as_object().unwrap().len() > 3);
}

#[test]
fn values_of_the_tenancy_page_are_accepted() {
    let page = include_str!("../../../docs/tenancy.md");
    let (_, block) = page.split_once("\n```yaml\nclasses:\n").unwrap();
    let block = format!("classes:\n{}", block.split("```").next().unwrap());
    let [class] = of_kind("DataKeyClass", &serde_saphyr::from_str(&block).unwrap()).try_into().unwrap();
    let spec = serde_json::from_value(class["spec"].clone()).map_err(|error: serde_json::Error| error.to_string());
    assert_eq!(datakey::class::Class::new("shop", "uid", 1, spec).flaw(), None);
}

// === the policy ===

/// The policy, and the binding that puts it in force.
fn policy(values: &Value) -> (Value, Value) {
    let mut all = json!({ "classes": { "usePolicy": { "enabled": true } } });
    super::merge(&mut all, values.clone());
    let policy = named("ValidatingAdmissionPolicy", "-use-classes", &all);
    let binding = named("ValidatingAdmissionPolicyBinding", "-use-classes", &all);
    assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
    (policy, binding)
}

#[test]
fn use_policy_judges_specs_and_asks_the_authorizer() {
    let (policy, binding) = policy(&json!({}));
    let spec = &policy["spec"];
    assert_eq!(spec["failurePolicy"], "Fail");
    assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
    // No status, and no deletion.
    let rule = &spec["matchConstraints"]["resourceRules"][0];
    assert_eq!(rule["resources"], json!(["datakeys", "datakeypairs"]));
    assert_eq!(rule["operations"], json!(["CREATE", "UPDATE"]));
    let [validation] = spec["validations"].as_array().unwrap().as_slice() else { panic!() };
    let expression = validation["expression"].as_str().unwrap();
    for part in [r#"resource("datakeyclasses")"#, "name(variables.className)", r#"check("use").allowed()"#] {
        assert!(expression.contains(part), "{expression}");
    }
    assert!(validation["messageExpression"].as_str().unwrap().contains("ask the platform team for the verb use"));
}

#[test]
fn optional_use_policy_ignores_objects_without_a_class() {
    let conditions = |values: Value| -> Vec<String> {
        let (policy, _) = policy(&values);
        let all = policy["spec"]["matchConditions"].as_array().unwrap();
        all.iter().map(|condition| condition["expression"].as_str().unwrap().to_owned()).collect()
    };
    let another_spec = r#"request.operation == "CREATE" || object.spec != oldObject.spec"#;
    assert_eq!(conditions(json!({})), [another_spec, "has(object.spec.className)"]);
    assert_eq!(conditions(json!({ "classes": { "required": true } })), [another_spec]);
}

#[test]
fn use_policy_is_in_force_where_the_release_watches() {
    let (_, binding) = policy(&json!({}));
    assert!(binding["spec"]["matchResources"].is_null());
    let (_, binding) = policy(&json!({ "watchNamespaces": ["shop", "bank"] }));
    let selected = &binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"][0];
    assert_eq!(selected["key"], "kubernetes.io/metadata.name");
    assert_eq!(selected["values"], json!(["shop", "bank"]));
}

// === notes ===

#[test]
fn notes_say_what_optional_classes_are_not() {
    for values in [json!({}), json!({ "classes": { "items": { "shop": class() } } })] {
        let notes = notes(&values);
        assert!(notes.contains("this is no boundary between tenants (docs/tenancy.md)"), "{notes}");
        assert!(!notes.contains("WARNING"), "{notes}");
    }
}

#[test]
fn notes_warn_where_required_classes_cannot_be_there() {
    let warnings = |values: Value| {
        let notes = notes(&values);
        assert!(!notes.contains("no boundary"), "{notes}");
        let warnings = notes.split("\nWARNING: ").skip(1).map(|warning| warning.split('\n').next().unwrap().to_owned());
        warnings.collect::<Vec<_>>()
    };
    let with = |more: Value| {
        let mut values = nested("classes", &json!({ "required": true, "items": { "default": class() } }));
        super::merge(&mut values, more);
        values
    };
    assert_eq!(warnings(with(json!({}))), Vec::<String>::new());
    let [warning] = warnings(json!({ "classes": { "required": true } })).try_into().unwrap();
    assert!(warning.starts_with("classes.required is true and classes.items is empty: nothing is issued"), "{warning}");
    let [warning] = warnings(with(json!({ "rbac": { "classes": false } }))).try_into().unwrap();
    assert!(warning.starts_with("classes.required is true and rbac.classes is false"), "{warning}");
}
