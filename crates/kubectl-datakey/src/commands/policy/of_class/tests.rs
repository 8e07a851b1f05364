use serde_json::{Value, json};

use super::*;
use crate::fixtures::{ARN, class};

const ROLE: &str = "arn:aws:iam::111122223333:role/shop";
const OPERATOR: &str = "arn:aws:iam::444455556666:role/operator";
const NONE: Roles<'_> = Roles { operator: None, workload: None };

/// The policies of a class with a role, after a change of its spec.
fn of(edit: impl FnOnce(&mut Value)) -> ClassPolicies {
    ClassPolicies::of(&with_role(edit), &NONE).unwrap()
}

fn with_role(edit: impl FnOnce(&mut Value)) -> Class {
    class("shop", |value| {
        let spec = &mut value["spec"];
        let tags = json!([{ "key": "datakey-namespace", "valueFrom": "Namespace" }]);
        spec["aws"] = json!({ "roleArn": ROLE, "externalId": "Example987", "sessionTags": tags });
        spec["encryptionContext"] = json!({
            "pairs": [
                { "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" },
                { "key": "cluster", "value": "prod", "mode": "Inject" },
                { "key": "purpose", "mode": "Require" },
            ],
            "others": "Deny",
        });
        edit(spec);
    })
    .class
}

fn statements(document: &PolicyDocument) -> Vec<Value> {
    json!(document)["Statement"].as_array().unwrap().clone()
}

/// The actions, resources and conditions of the role of a class with these entries of `allow`, without an encryption context.
fn of_entries(allow: &Value) -> Vec<Value> {
    let policies = of(|spec| {
        spec["allow"] = allow.clone();
        spec["defaults"] = Value::Null;
        spec["encryptionContext"] = Value::Null;
    });
    let mut found = statements(&policies.role);
    for statement in &mut found {
        let fields = statement.as_object_mut().unwrap();
        fields.retain(|name, _| ["Action", "Resource", "Condition"].contains(&name.as_str()));
        let action = fields["Action"].as_str().unwrap().replace("kms:Generate", "").replace("WithoutPlaintext", "");
        fields["Action"] = json!(action);
    }
    found
}

#[test]
fn role_may_issue_the_kinds_on_the_keys_in_the_context() {
    let of_context = json!({
        "Null": { "kms:EncryptionContext:purpose": "false" },
        "StringEquals": {
            "kms:EncryptionContext:cluster": "prod",
            "kms:EncryptionContext:namespace": "${aws:PrincipalTag/datakey-namespace}",
        },
        "ForAllValues:StringEquals": { "kms:EncryptionContextKeys": ["namespace", "cluster", "purpose"] },
    });
    let mut of_pairs = of_context.clone();
    of_pairs["StringEquals"]["kms:DataKeyPairSpec"] = json!("ECC_NIST_P256");
    let policies = of(|_| {});
    assert_eq!(
        json!(statements(&policies.role)),
        json!([
            {
                "Sid": "OperatorIssuesWrappedDataKeys",
                "Effect": "Allow",
                "Action": "kms:GenerateDataKeyWithoutPlaintext",
                "Resource": ARN,
                "Condition": of_context,
            },
            {
                "Sid": "OperatorIssuesWrappedKeyPairs",
                "Effect": "Allow",
                "Action": "kms:GenerateDataKeyPairWithoutPlaintext",
                "Resource": ARN,
                "Condition": of_pairs,
            },
        ])
    );
    let of_key = json!(policies.key_policy_statements)[ARN].take();
    for (number, condition) in [&of_context, &of_pairs].into_iter().enumerate() {
        assert_eq!((&of_key[number]["Principal"]["AWS"], &of_key[number]["Condition"]), (&json!(ROLE), condition));
    }
}

#[test]
fn workload_may_unwrap_what_the_namespaces_have() {
    let earlier = ARN.replace("1234abcd", "99999999");
    let policies = of(|spec| {
        spec["allow"][0]["keyArns"] = json!([ARN, earlier]);
        spec["allow"][0]["keyIds"] = json!([ARN]);
        spec["defaults"] = Value::Null;
    });
    let of_keys = json!(policies.key_policy_statements);
    assert_eq!(of_keys[ARN].as_array().unwrap().len(), 3);
    let of_earlier = of_keys[&earlier].as_array().unwrap();
    assert_eq!(of_earlier.len(), 1, "no request names the earlier key: {of_earlier:?}");
    let unwraps = &of_earlier[0];
    assert_eq!((&unwraps["Action"], &unwraps["Resource"]), (&json!("kms:Decrypt"), &json!("*")));
    assert_eq!(unwraps["Principal"]["AWS"], "arn:aws:iam::111122223333:role/WORKLOAD-ROLE");
    // A workload has no session of the operator.
    assert_eq!(unwraps["Condition"]["StringLike"], json!({ "kms:EncryptionContext:namespace": ["shop", "shop-*"] }));
    assert_eq!(unwraps["Condition"]["StringEquals"], json!({ "kms:EncryptionContext:cluster": "prod" }));
}

#[test]
fn only_the_kinds_of_the_class_are_allowed() {
    let key = |limits: Value| {
        let mut entry = json!({ "keyIds": [ARN] });
        entry.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        let found = of_entries(&json!([entry]));
        found.into_iter().map(|statement| statement["Action"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(key(json!({})), ["DataKey", "DataKeyPair"]);
    assert_eq!(key(json!({ "keyPairSpecs": [] })), ["DataKey"]);
    assert_eq!(key(json!({ "keySpecs": [] })), ["DataKeyPair"]);
    assert_eq!(key(json!({ "keySpecs": [], "numberOfBytes": { "min": 1, "max": 2 } })), ["DataKey", "DataKeyPair"]);
}

#[test]
fn alias_is_a_condition_on_the_account_of_the_role() {
    let of_aliases = |aliases: &Value, regions: &Value| {
        of_entries(&json!([{ "keyIds": aliases, "regions": regions, "keyPairSpecs": [] }]))
    };
    assert_eq!(
        of_aliases(&json!(["alias/shop", "alias/shop/*"]), &json!(["eu-west-1", "eu-north-1"])),
        [json!({
            "Action": "DataKey",
            "Resource": ["arn:aws:kms:eu-north-1:111122223333:key/*", "arn:aws:kms:eu-west-1:111122223333:key/*"],
            "Condition": { "StringLike": { "kms:RequestAlias": ["alias/shop", "alias/shop/*"] } },
        })]
    );
    // The account of an alias ARN is its own, and each account has its own aliases.
    let other = "arn:aws:kms:eu-west-1:999999999999:alias/bank";
    assert_eq!(
        of_aliases(&json!(["alias/shop", other]), &json!(["eu-west-1"])),
        [("999999999999", "alias/bank"), ("111122223333", "alias/shop")].map(|(account, alias)| json!({
            "Action": "DataKey",
            "Resource": format!("arn:aws:kms:eu-west-1:{account}:key/*"),
            "Condition": { "StringEquals": { "kms:RequestAlias": alias } },
        }))
    );
    let anywhere = of(|spec| spec["allow"] = json!([{ "keyIds": ["alias/shop"] }]));
    assert_eq!(statements(&anywhere.role)[0]["Resource"], "arn:aws:kms:*:111122223333:key/*");
    for word in ["known by an alias only", "allows any Region"] {
        assert!(anywhere.notes.iter().any(|note| note.contains(word)), "{word}: {:?}", anywhere.notes);
    }
}

#[test]
fn entries_of_the_same_condition_share_a_statement() {
    let other = ARN.replace("1234abcd", "99999999");
    let entries = [
        json!({ "keyIds": [ARN], "keyPairSpecs": ["RSA_2048"] }),
        json!({ "keyIds": [other, ARN], "keySpecs": ["AES_256"], "keyPairSpecs": ["RSA_4096", "RSA_3072"] }),
    ];
    let pairs = |resource: Value, specs: Value| json!({ "Action": "DataKeyPair", "Resource": resource, "Condition": { "StringEquals": { "kms:DataKeyPairSpec": specs } } });
    assert_eq!(
        of_entries(&json!(entries)),
        [
            json!({ "Action": "DataKey", "Resource": [ARN, other] }),
            pairs(json!(ARN), json!("RSA_2048")),
            pairs(json!([ARN, other]), json!(["RSA_4096", "RSA_3072"])),
        ]
    );
    let policies = of(|spec| {
        spec["allow"] = json!(entries);
        spec["defaults"] = Value::Null;
    });
    let sids = |statements: &[Value]| -> Vec<_> {
        statements.iter().map(|statement| statement["Sid"].as_str().unwrap().to_owned()).collect()
    };
    let of_role = ["OperatorIssuesWrappedDataKeys", "OperatorIssuesWrappedKeyPairs", "OperatorIssuesWrappedKeyPairs2"];
    assert_eq!(sids(&statements(&policies.role)), of_role);
    let of_key = json!(policies.key_policy_statements)[ARN].as_array().unwrap().clone();
    assert_eq!(sids(&of_key), [&of_role[..], &["WorkloadUnwrapsKeys"]].concat());
}

#[test]
fn answer_can_only_be_a_key_of_the_account_of_the_alias() {
    let elsewhere = ARN.replace("111122223333", "999999999999");
    let found = of_entries(&json!([{ "keyIds": ["alias/shop"], "keyArns": [ARN, elsewhere], "keyPairSpecs": [] }]));
    assert_eq!(found, [json!({ "Action": "DataKey", "Resource": ARN })]);
    let none = with_role(|spec| {
        spec["allow"] = json!([{ "keyIds": ["alias/shop"], "keyArns": [elsewhere] }]);
    });
    let why = ClassPolicies::of(&none, &NONE).unwrap_err();
    assert!(why.contains("allows no request") && why.contains("account of the aliases"), "{why}");
}

#[test]
fn namespaces_limit_the_context_without_a_tag() {
    let limit = |namespaces: Value| {
        let policies = of(|spec| {
            spec["namespaces"] = namespaces;
            spec["aws"].as_object_mut().unwrap().remove("sessionTags");
        });
        assert!(policies.notes.iter().any(|note| note.contains("no tag of the session has the namespace")));
        let condition = statements(&policies.role)[0]["Condition"].take();
        ["StringEquals", "StringLike", "Null"]
            .map(|operator| condition[operator]["kms:EncryptionContext:namespace"].clone())
    };
    assert_eq!(limit(json!(["shop"])), [json!("shop"), Value::Null, Value::Null]);
    assert_eq!(limit(json!(["bank", "shop-*"])), [Value::Null, json!(["bank", "shop-*"]), Value::Null]);
    assert_eq!(limit(json!(["shop", "*"])), [Value::Null, Value::Null, json!("false")]);
}

#[test]
fn class_that_forbids_all_pairs_forbids_a_context() {
    let policies = of(|spec| spec["encryptionContext"] = json!({ "others": "Deny" }));
    let none = json!({ "Null": { "kms:EncryptionContextKeys": "true" } });
    assert_eq!(statements(&policies.role)[0]["Condition"], none);
    assert_eq!(json!(policies.key_policy_statements)[ARN][2]["Condition"], none);
    assert!(policies.notes.iter().any(|note| note.contains("demands no pair")), "{:?}", policies.notes);
}

#[test]
fn class_without_a_role_is_about_that_of_the_operator() {
    let open = |roles: &Roles<'_>| {
        let class = with_role(|spec| {
            spec["aws"] = Value::Null;
            spec["allow"] = json!([{ "keyIds": ["alias/shop"], "regions": ["eu-west-1"] }]);
        });
        ClassPolicies::of(&class, roles).unwrap()
    };
    let policies = open(&NONE);
    assert!(policies.assume_role.is_none() && policies.trust.is_none());
    assert_eq!(statements(&policies.role)[0]["Resource"], "arn:aws:kms:eu-west-1:ACCOUNT:key/*");
    assert!(policies.notes[0].contains("has no spec.aws") && policies.notes[1].contains("fill in ACCOUNT"));
    // The role of the operator says in which account its aliases are.
    let known = open(&Roles { operator: Some(OPERATOR), workload: None });
    let key = "arn:aws:kms:eu-west-1:444455556666:alias/shop";
    assert_eq!(statements(&known.role)[0]["Resource"], "arn:aws:kms:eu-west-1:444455556666:key/*");
    assert_eq!(json!(known.key_policy_statements)[key][0]["Principal"]["AWS"], OPERATOR);
    assert!(!known.notes.iter().any(|note| note.contains("fill in")), "{:?}", known.notes);
}

#[test]
fn class_without_a_namespace_needs_no_policies() {
    let why = ClassPolicies::of(&with_role(|spec| spec["namespaces"] = json!([])), &NONE).unwrap_err();
    assert!(why.contains("admits no namespace"), "{why}");
}

#[test]
fn policies_of_a_class_are_printed_as_recorded() {
    let roles = Roles { operator: Some(OPERATOR), workload: None };
    let policies = ClassPolicies::of(&with_role(|_| {}), &roles).unwrap();
    insta::assert_snapshot!("policy-class", crate::output::json(&policies).unwrap());
    insta::assert_snapshot!("policy-class-notes", policies.notes.join("\n"));
    insta::assert_snapshot!("policy-class-trust-yaml", crate::output::yaml(&policies.trust).unwrap());
}
