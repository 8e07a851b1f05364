//! The JSON schema of what the commands print with `-o json`. The test writes docs/kubectl-datakey.schema.json where the variable
//! `UPDATE` is set.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::{
    commands::{
        Items,
        check::Finding,
        export::Exported,
        kms_keys::KmsKey,
        orphans::Orphan,
        policy::{
            document::{KeyPolicyStatements, PolicyDocument},
            of_class::ClassPolicies,
            rewrap::RewrapPolicies,
            statements::Policies,
        },
        rewrap::view::MovePlan,
        verify::KeyCheck,
        version::Versions,
    },
    view::{class_summary::ClassSummary, summary::KeySummary},
};

/// Returns the schema: a definition for each output, and any of them as a whole.
fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let outputs = [
        output::<Items<KeySummary>>(&mut generator),
        output::<KeySummary>(&mut generator),
        output::<Items<ClassSummary>>(&mut generator),
        output::<Items<KeyCheck>>(&mut generator),
        output::<KeyCheck>(&mut generator),
        output::<Exported<'_>>(&mut generator),
        output::<Items<Finding>>(&mut generator),
        output::<Items<KmsKey>>(&mut generator),
        output::<Items<Orphan>>(&mut generator),
        output::<Policies>(&mut generator),
        output::<ClassPolicies>(&mut generator),
        output::<RewrapPolicies>(&mut generator),
        output::<MovePlan>(&mut generator),
        output::<PolicyDocument>(&mut generator),
        output::<KeyPolicyStatements>(&mut generator),
        output::<Versions>(&mut generator),
    ];
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kubectl datakey -o json",
        "anyOf": outputs,
        "$defs": generator.take_definitions(true),
    })
}

fn output<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

mod tests {
    use datakey::selection;

    use super::*;
    use crate::{
        cluster::ListedSecret,
        commands::{
            check::CheckResult,
            policy::statements::Roles,
            rewrap::plan::{Destination, Move},
            version::OperatorVersion,
        },
        fixtures::{ARN, class, edited, pair, ready, recorded, secret},
        output::json as to_json,
        view::{class_summary::Place, secret_check::SecretCheck},
    };

    #[test]
    fn documented_schema_is_that_of_the_outputs() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kubectl-datakey.schema.json");
        let wanted = to_json(&schema()).unwrap();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(file, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(file).unwrap_or_default();
        assert!(found == wanted, "{file} is stale: UPDATE=1 cargo test -p kubectl-datakey writes it");
    }

    /// Fails unless a value is what this definition says.
    fn assert_valid(definition: &str, value: &Value) {
        let mut schema = schema();
        schema["anyOf"] = json!([{ "$ref": format!("#/$defs/{definition}") }]);
        let errors: Vec<_> =
            jsonschema::validator_for(&schema).unwrap().iter_errors(value).map(|error| error.to_string()).collect();
        assert_eq!(errors, [""; 0], "{definition}: {value}");
    }

    #[test]
    fn outputs_are_as_the_schema_says() {
        let key = ready(&[1, 2]).key;
        let summary = KeySummary::of(&key).with_secret(SecretCheck::from_secret(&key, Some(&secret(&key, 2))));
        assert_valid("KeySummary", &json!(summary));
        assert_valid("KeySummaryList", &json!(Items { items: vec![KeySummary::of(&recorded(&[]).key), summary] }));
        let by_class = edited(recorded(&[1]), |value| {
            value["spec"].as_object_mut().unwrap().remove("keyId");
            value["spec"]["className"] = json!("shop");
            value["status"]["versions"][0]["class"] = json!({ "name": "shop", "uid": "u", "generation": 1 });
        });
        let unissued = edited(by_class.clone(), |value| value["status"] = json!({}));
        for fetched in [by_class, unissued] {
            assert_valid("KeySummary", &json!(KeySummary::of(&fetched.key)));
        }
        let classes = ["shop", "bank"].map(|namespace| {
            let place = Place { namespace, object: None, region: None };
            let pairs = json!([
                { "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" },
                { "key": "name", "valueFrom": "Name", "mode": "Inject" },
                { "key": "purpose", "mode": "Require" },
            ]);
            let context = json!({ "pairs": pairs, "others": "Deny" });
            let tags = json!([{ "key": "datakey-namespace", "valueFrom": "Namespace" }]);
            let shop = class("shop", |value| {
                value["spec"]["encryptionContext"] = context;
                value["spec"]["aws"] = json!({ "roleArn": "arn:aws:iam::111122223333:role/shop", "sessionTags": tags });
                value["status"] = json!({ "conditions": [{
                    "type": "RoleAssumed", "status": "True", "reason": "x", "message": "why", "observedGeneration": 1,
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }] });
            });
            ClassSummary::of(&shop, place)
        });
        let open =
            class("open", |value| value["spec"] = json!({ "namespaces": [], "allow": [{ "keyIds": ["alias/a"] }] }));
        let open = ClassSummary::of(&open, Place { namespace: "shop", object: None, region: None });
        assert_valid("ClassSummaryList", &json!(Items { items: [&classes[..], &[open]].concat() }));
        assert_valid("ClassSummaryList", &json!(Items::<ClassSummary> { items: Vec::new() }));
        let mut check = KeyCheck::of(&key, SecretCheck::from_secret(&key, None));
        check.versions[0].decrypt = Some(datakey_decrypt::Decryption::Unwrapped { length: 8, plaintext_sha256: None });
        check.versions[1].decrypt = Some(datakey_decrypt::Decryption::Unknown { why: "no credentials".into() });
        assert_valid("KeyCheck", &json!(check));
        assert_valid("KeyCheckList", &json!(Items { items: vec![check] }));
        for fetched in [ready(&[1]), pair(&[1])] {
            assert_valid("Exported", &json!(Exported::of(&fetched, &fetched.key.record()[0])));
            assert_valid("KeySummary", &json!(KeySummary::of(&fetched.key)));
        }
        for api in [None, Some(vec!["v1alpha1".to_owned()])] {
            let operator = OperatorVersion { namespace: "a".into(), name: "b".into(), image: "c".into() };
            let operators = api.is_some().then(|| vec![operator]);
            assert_valid("Versions", &json!(Versions { plugin: "0.1.0".into(), api, operators }));
        }
        let findings = [CheckResult::Ok, CheckResult::Failed, CheckResult::NotChecked].map(|result| Finding {
            check: "kms".into(),
            result,
            detail: "found".into(),
            next: (result != CheckResult::Ok).then(|| "do it".into()),
        });
        assert_valid("FindingList", &json!(Items { items: findings.to_vec() }));
        let listed = ListedSecret { kind: key.kind(), metadata: json!(secret(&key, 2).metadata) };
        let kept = Orphan { data_key: None, created: None, ..Orphan::of(&listed) };
        assert_valid("OrphanList", &json!(Items { items: vec![Orphan::of(&listed), kept] }));
        for key in [ready(&[1, 2]).key, recorded(&[]).key, pair(&[1]).key] {
            let policies = Policies::of(&key, &Roles { operator: None, workload: None });
            assert_valid("Policies", &json!(policies));
            assert_valid("PolicyDocument", &json!(policies.workload));
            assert_valid("KeyPolicyStatements", &json!(policies.key_policy_statements));
        }
        let with_role = class("shop", |value| {
            let tags = json!([{ "key": "datakey-namespace", "valueFrom": "Namespace" }]);
            value["spec"]["aws"] = json!({ "roleArn": "arn:aws:iam::111122223333:role/shop", "sessionTags": tags });
        });
        for fetched in [with_role, class("shop", |_| {})] {
            let policies = ClassPolicies::of(&fetched.class, &Roles { operator: None, workload: None }).unwrap();
            assert_valid("ClassPolicies", &json!(policies));
        }
        let key_arn = ARN.replace("1234abcd", "99999999");
        let to = Destination { key_id: key_arn.clone(), key_arn, context: None };
        let wanted = Move { to, versions: selection::Versions::All, from: None, rotates: true, includes_adopted: true };
        for fetched in [ready(&[1, 2]), pair(&[1])] {
            let policies = RewrapPolicies::of(&fetched.key, &wanted, None).unwrap();
            assert_valid("RewrapPolicies", &json!(policies));
            assert_valid("PolicyDocument", &json!(policies.rewrap));
        }
    }

    #[test]
    fn other_values_are_refused() {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        for wrong in [json!({}), json!({ "items": [{ "name": 7 }] }), json!([])] {
            assert!(!validator.is_valid(&wrong), "{wrong}");
        }
    }
}
