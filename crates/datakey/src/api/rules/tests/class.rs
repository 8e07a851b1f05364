//! The rules of a class.

use kube_cel::{Validator, compile_schema};
use serde_json::{Value, json};

use super::{Edit, edited, evaluator::rewrite};
use crate::{api::class_crd, class::Class, fixtures::ARN};

const ROLE: &str = "arn:aws:iam::111122223333:role/shop";

#[test]
fn definition_of_classes_refuses_what_the_operator_cannot_use() {
    let mut schema = json!(class_crd())["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
    rewrite(&mut schema);
    let (validator, schema) = (Validator::new(), compile_schema(&schema));
    let class = json!({ "spec": { "namespaces": ["shop"], "allow": [{ "keyIds": ["alias/orders"] }] } });
    let pair = |pair: Value| ("/spec/encryptionContext", json!({ "pairs": [{ "key": "a", "mode": "Require" }, pair] }));
    let role = |name: &str| ("/spec/aws", json!({ "roleArn": format!("arn:aws:iam::111122223333:role/{name}") }));
    let aws = |field: &str, value: Value| ("/spec/aws", json!({ "roleArn": ROLE, field: value }));
    let tag = |tag: Value| aws("sessionTags", json!([{ "key": "team", "value": "shop" }, tag]));
    let cases: [(Edit, Edit, &str); 22] = [
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
        (("/spec/aws", json!({ "roleArn": "shop" })), role("teams/shop/keys_+=,.@-1"), "roleArn must be"),
        (role("a b"), role("a~b/c"), "roleArn must be"),
        (role(&"n".repeat(65)), role(&"n".repeat(64)), "roleArn must be"),
        (role(&format!("{}/n", "p".repeat(511))), role(&format!("{}/n", "p".repeat(510))), "roleArn must be"),
        (aws("externalId", json!("a b")), aws("externalId", json!("a+=,.@:/-_1")), "externalId may have"),
        (tag(json!({ "key": "a" })), tag(json!({ "key": "a", "value": "" })), "needs either value or valueFrom"),
        (
            tag(json!({ "key": "a", "value": "b", "valueFrom": "Namespace" })),
            tag(json!({ "key": "a", "valueFrom": "Namespace" })),
            "needs either value or valueFrom",
        ),
        (
            tag(json!({ "key": "a*", "value": "b" })),
            tag(json!({ "key": "\u{e4} 1_.:/=+-@", "value": "\u{e4} 1_.:/=+-@" })),
            "keys and values of session tags",
        ),
        (
            tag(json!({ "key": "Aws:a", "value": "b" })),
            tag(json!({ "key": "aws-a", "value": "b" })),
            "keys that begin with aws:",
        ),
        (
            tag(json!({ "key": "TEAM", "value": "b" })),
            tag(json!({ "key": "team2", "value": "b" })),
            "two session tags have keys",
        ),
    ];
    for (refused, accepted, message) in cases {
        let errors = |edit: &Edit| {
            let checked = validator.validate_compiled(&schema, &edited(&class, std::slice::from_ref(edit)), None);
            let errors = checked.err().map(kube_cel::ValidationErrors::into_vec).unwrap_or_default();
            errors.into_iter().map(|error| error.message).collect::<Vec<_>>()
        };
        assert_eq!(errors(&accepted), Vec::<String>::new(), "{accepted:?}");
        // The operator judges by itself, because an older definition can let anything in.
        let flaw = |edit: &Edit| {
            let spec = edited(&class, std::slice::from_ref(edit))["spec"].take();
            let spec = serde_json::from_value(spec).map_err(|error| error.to_string());
            Class::new("shop", "u", 1, spec).flaw().map(str::to_owned)
        };
        assert!(flaw(&refused).is_some(), "{refused:?}");
        assert!(
            !accepted.0.starts_with("/spec/aws") || flaw(&accepted).is_none(),
            "{accepted:?}: {:?}",
            flaw(&accepted)
        );
        let found = errors(&refused);
        assert!(found.len() == 1 && found[0].contains(message), "{refused:?}: {found:?}");
    }
}
