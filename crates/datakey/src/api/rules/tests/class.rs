//! The rules of a class.

use kube_cel::{Validator, compile_schema};
use serde_json::{Value, json};

use super::{Edit, edited, evaluator::rewrite};
use crate::{api::class_crd, fixtures::ARN};

#[test]
fn definition_of_classes_refuses_what_the_operator_cannot_use() {
    let mut schema = json!(class_crd())["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
    rewrite(&mut schema);
    let (validator, schema) = (Validator::new(), compile_schema(&schema));
    let class = json!({ "spec": { "namespaces": ["shop"], "allow": [{ "keyIds": ["alias/orders"] }] } });
    let pair = |pair: Value| ("/spec/encryptionContext", json!({ "pairs": [{ "key": "a", "mode": "Require" }, pair] }));
    let cases: [(Edit, Edit, &str); 12] = [
        (
            ("/spec/namespaces", json!(["Shop"])),
            ("/spec/namespaces", json!(["*", "shop-*", "a"])),
            "each of namespaces",
        ),
        (("/spec/allow/0/keyIds", json!(["*"])), ("/spec/allow/0/keyIds", json!(["alias/*", ARN])), "each of keyIds"),
        (
            ("/spec/allow/0/keyIds", json!([format!("{}*", &ARN[..70])])),
            ("/spec/allow/0/keyIds", json!(["alias/a*"])),
            "each of keyIds",
        ),
        (
            ("/spec/allow/0/keyIds", json!(["alias/aws/s3"])),
            ("/spec/allow/0/keyIds", json!(["alias/awsome"])),
            "each of keyIds",
        ),
        (
            ("/spec/allow/0/keyArns", json!(["alias/orders"])),
            ("/spec/allow/0/keyArns", json!([ARN])),
            "each of keyArns",
        ),
        (
            ("/spec/allow/0/regions", json!(["Ireland"])),
            ("/spec/allow/0/regions", json!(["eu-west-1"])),
            "each of regions",
        ),
        (
            ("/spec/allow/0/numberOfBytes", json!({ "min": 9, "max": 8 })),
            ("/spec/allow/0/numberOfBytes", json!({ "min": 8, "max": 8 })),
            "min must not be greater",
        ),
        (
            ("/spec/defaults", json!({ "keyId": "orders" })),
            ("/spec/defaults", json!({ "keyId": ARN })),
            "keyId must be",
        ),
        (
            ("/spec/defaults", json!({ "keyId": ARN, "region": "eu-west-1" })),
            ("/spec/defaults", json!({ "keyId": "alias/a", "region": "eu-west-1" })),
            "remove region",
        ),
        (
            pair(json!({ "key": "A", "mode": "Require" })),
            pair(json!({ "key": "b", "mode": "Require" })),
            "two pairs have keys",
        ),
        (
            pair(json!({ "key": "b", "mode": "Inject" })),
            pair(json!({ "key": "b", "value": "", "mode": "Inject" })),
            "needs value",
        ),
        (
            pair(json!({ "key": "b", "value": "c", "valueFrom": "Name", "mode": "Inject" })),
            pair(json!({ "key": "b", "valueFrom": "Name", "mode": "Inject" })),
            "remove one of them",
        ),
    ];
    for (refused, accepted, message) in cases {
        let errors = |edit: &Edit| {
            let checked = validator.validate_compiled(&schema, &edited(&class, std::slice::from_ref(edit)), None);
            let errors = checked.err().map(kube_cel::ValidationErrors::into_vec).unwrap_or_default();
            errors.into_iter().map(|error| error.message).collect::<Vec<_>>()
        };
        assert_eq!(errors(&accepted), Vec::<String>::new(), "{accepted:?}");
        let found = errors(&refused);
        assert!(found.len() == 1 && found[0].contains(message), "{refused:?}: {found:?}");
    }
}
