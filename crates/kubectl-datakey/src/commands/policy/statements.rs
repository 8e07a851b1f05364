//! The policies of one object. Pure.
//!
//! Source: AWS KMS Developer Guide, "AWS KMS condition keys" (`kms:DataKeyPairSpec`, `kms:ResourceAliases`).

use std::collections::BTreeMap;

use datakey::api::{EncryptionContext, Kind};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    document::{
        Condition, DECRYPT, EITHER_OR_BOTH, KeyPolicyStatements, OPERATOR_ROLE, PolicyDocument, Statement,
        WORKLOAD_ROLE, numbered, role_or_placeholder, sids,
    },
    kms_key::{ACCOUNT, KEY_ID, KmsKey, REGION},
};
use crate::cluster::AnyKey;

/// The policies of a `DataKey` or a `DataKeyPair`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Policies {
    /// The IAM policy of the operator's role.
    pub operator: PolicyDocument,
    /// The IAM policy of the workload's role.
    pub workload: PolicyDocument,
    /// The statements of the key policies, by KMS key. Versions can have different keys.
    pub key_policy_statements: KeyPolicyStatements,
    /// What the user must know or fill in.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// The condition key of the kind of a key pair.
pub const PAIR_SPEC: &str = "kms:DataKeyPairSpec";

/// The ARNs of the roles that a key policy names; a placeholder is printed for each missing one.
pub struct Roles<'a> {
    /// The role of the operator.
    pub operator: Option<&'a str>,
    /// The role of the workload.
    pub workload: Option<&'a str>,
}

// === impl Policies ===

impl Policies {
    /// Returns the policies for issuing the version of the spec, and for unwrapping every recorded version.
    pub fn of(key: &AnyKey, roles: &Roles<'_>) -> Self {
        let (kind, request) = (key.kind(), key.object().spec.request);
        let current = key.recorded_version(key.wanted_version());
        let issuing = current
            .and_then(|issued| KmsKey::from_arn(&issued.key_id))
            .unwrap_or_else(|| KmsKey::from_spec(request.key_id, request.region));
        let wanted = (issuing.clone(), request.context());
        let recorded = key
            .record()
            .iter()
            .filter_map(|issued| KmsKey::from_arn(&issued.key_id).map(|kms_key| (kms_key, issued.request.context())));
        let mut unwrapping: Vec<(KmsKey, &EncryptionContext)> = Vec::new();
        for pair in recorded.chain(current.is_none().then_some(wanted)) {
            if !unwrapping.contains(&pair) {
                unwrapping.push(pair);
            }
        }

        let mut statements = BTreeMap::<String, Vec<Statement>>::new();
        let operator = role_or_placeholder(roles.operator, &issuing, OPERATOR_ROLE);
        let (issues, unwraps) = sids(kind);
        let of_pair = request.key_pair_spec.map_or_else(Condition::default, |spec| {
            Condition::default().with("StringEquals", PAIR_SPEC, spec.as_str())
        });
        let action = format!("kms:{}", kind.operation);
        let generate = Statement::allow(issues.to_owned(), &action, issuing.arn(), of_pair);
        statements.entry(issuing.name()).or_default().push(generate.clone().for_key_policy(&operator));
        let mut decrypt = Vec::new();
        for (number, (kms_key, context)) in (1..).zip(&unwrapping) {
            let workload = role_or_placeholder(roles.workload, kms_key, WORKLOAD_ROLE);
            let condition = Condition::of_context(context);
            let statement = Statement::allow(numbered(unwraps, number), DECRYPT, kms_key.arn(), condition);
            statements.entry(kms_key.name()).or_default().push(statement.clone().for_key_policy(&workload));
            decrypt.push(statement.under(kms_key.alias_condition()));
        }
        let class_name = key.object().spec.class_name;
        let decides = class_name.filter(|_| current.is_none());
        let of_class = decides.iter().flat_map(|name| notes_of_a_class(name, &key.namespace(), &issuing));
        let of_class = of_class.chain(class_name.map(note_of_a_role));
        let notes = notes(kind, &issuing, unwrapping.iter().map(|(kms_key, _)| kms_key));
        let notes = of_class.chain(notes).collect();
        Self {
            operator: PolicyDocument::of(vec![generate.under(issuing.alias_condition())]),
            workload: PolicyDocument::of(decrypt),
            key_policy_statements: KeyPolicyStatements(statements),
            notes,
        }
    }
}

/// Returns what the user must know where a class decides on what is issued next.
fn notes_of_a_class(name: &str, namespace: &str, issuing: &KmsKey) -> Vec<String> {
    let look = format!("kubectl datakey classes {name} -n {namespace}");
    let mut notes = Vec::new();
    if !issuing.is_named() {
        notes.push(format!(
            "note: fill in {KEY_ID}, the KMS key: spec.keyId is absent, so the class {name} names it ({look})"
        ));
    }
    notes.push(format!(
        "note: the class {name} can add pairs to the encryption context, which the policies lack until the version of the spec is \
         issued: add them ({look}), or print the policies again afterwards"
    ));
    notes
}

/// Returns the note that the class can name another role than that of the operator.
fn note_of_a_role(class: &str) -> String {
    format!(
        "note: if the class {class} has an AWS role (spec.aws), the statements of the operator are for that role: kubectl datakey policy \
         --class {class}"
    )
}

/// Returns what the user must know or fill in.
fn notes<'a>(kind: &Kind, issuing: &'a KmsKey, unwrapping: impl Iterator<Item = &'a KmsKey>) -> Vec<String> {
    let keys: Vec<_> = std::iter::once(issuing).chain(unwrapping).collect();
    let mut notes = Vec::new();
    if keys.iter().any(|key| !key.has_account()) {
        notes.push(format!(
            "note: fill in {ACCOUNT}, the AWS account of the KMS key: it is known once a {} is issued",
            kind.noun
        ));
    }
    if keys.iter().any(|key| !key.has_region()) {
        notes.push(format!("note: fill in {REGION}, the operator's own: it is known once a {} is issued", kind.noun));
    }
    if keys.iter().any(|key| key.is_alias()) {
        notes.push(
            "note: the version of the spec is not issued yet, so its KMS key is known by an alias only; print the \
             policies again afterwards to bind them to the key. Until then a user who may change aliases decides which \
             keys they allow"
                .to_owned(),
        );
    }
    notes.push(EITHER_OR_BOTH.to_owned());
    notes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::{ARN, edited, pair, ready, recorded};

    const GENERATE: &str = "kms:GenerateDataKeyWithoutPlaintext";
    const GENERATE_PAIR: &str = "kms:GenerateDataKeyPairWithoutPlaintext";

    fn of(key: &AnyKey) -> Policies {
        Policies::of(key, &Roles { operator: None, workload: None })
    }

    fn resource(statement: &Statement) -> String {
        json!(statement)["Resource"].as_str().unwrap().to_owned()
    }

    fn condition(statement: &Statement) -> Value {
        json!(statement)["Condition"].clone()
    }

    fn spec(edit: impl FnOnce(&mut Value)) -> AnyKey {
        edited(recorded(&[]), |value| edit(&mut value["spec"])).key
    }

    #[test]
    fn each_role_may_do_one_action_on_the_recorded_key() {
        let policies = of(&ready(&[1]).key);
        assert_eq!(
            json!(policies.operator),
            json!({
                "Version": "2012-10-17",
                "Statement": [{
                    "Sid": "OperatorIssuesWrappedDataKeys",
                    "Effect": "Allow",
                    "Action": "kms:GenerateDataKeyWithoutPlaintext",
                    "Resource": ARN,
                }],
            })
        );
        assert_eq!(
            json!(policies.workload),
            json!({
                "Version": "2012-10-17",
                "Statement": [{
                    "Sid": "WorkloadUnwrapsDataKeys",
                    "Effect": "Allow",
                    "Action": "kms:Decrypt",
                    "Resource": ARN,
                    "Condition": { "StringEquals": { "kms:EncryptionContext:purpose": "orders" } },
                }],
            })
        );
    }

    #[test]
    fn key_policy_names_the_roles_and_one_action_each() {
        let (operator, workload) = ("arn:aws:iam::111122223333:role/op", "arn:aws:iam::111122223333:role/app");
        let roles = Roles { operator: Some(operator), workload: Some(workload) };
        let policies = Policies::of(&ready(&[1]).key, &roles);
        let statements = &policies.key_policy_statements.0[ARN];
        let grants: Vec<_> = statements
            .iter()
            .map(|statement| {
                (statement.principal.clone().unwrap()["AWS"].clone(), statement.action.as_str(), resource(statement))
            })
            .collect();
        assert_eq!(grants, [(json!(operator), GENERATE, "*".to_owned()), (json!(workload), DECRYPT, "*".to_owned())]);
        assert_eq!(statements[1].condition, of(&ready(&[1]).key).workload.statement[0].condition);
        assert_eq!(policies.notes.len(), 1, "nothing to fill in: {:?}", policies.notes);
    }

    #[test]
    fn no_action_is_a_wildcard() {
        for key in [ready(&[1, 2]).key, recorded(&[]).key, pair(&[1]).key] {
            let text = json!(of(&key)).to_string();
            for action in text.split("\"Action\":\"").skip(1) {
                let action = action.split('"').next().unwrap();
                assert!([GENERATE, GENERATE_PAIR, DECRYPT].contains(&action), "{action}");
            }
        }
    }

    #[test]
    fn operator_may_issue_pairs_of_the_kind_only() {
        let policies = of(&pair(&[1]).key);
        let only = json!({ "StringEquals": { "kms:DataKeyPairSpec": "ECC_NIST_P256" } });
        for statement in [&policies.operator.statement[0], &policies.key_policy_statements.0[ARN][0]] {
            assert_eq!((statement.action.as_str(), condition(statement)), (GENERATE_PAIR, only.clone()));
        }
        let unissued = edited(pair(&[1]), |value| value["status"]["versions"] = json!([]));
        let both = condition(&of(&unissued.key).operator.statement[0]);
        assert_eq!(both["StringEquals"], only["StringEquals"]);
        assert_eq!(both["ForAnyValue:StringEquals"]["kms:ResourceAliases"], "alias/orders");
        let workload = condition(&policies.workload.statement[0]);
        assert_eq!(workload, json!({ "StringEquals": { "kms:EncryptionContext:purpose": "orders" } }));
    }

    #[test]
    fn empty_encryption_context_forbids_any_pair() {
        let fetched = edited(ready(&[1]), |value| {
            value["status"]["versions"][0]["request"].as_object_mut().unwrap().remove("encryptionContext");
        });
        let condition = condition(&of(&fetched.key).workload.statement[0]);
        assert_eq!(condition, json!({ "Null": { "kms:EncryptionContextKeys": "true" } }));
    }

    #[test]
    fn every_recorded_key_and_context_can_be_unwrapped() {
        let other = ARN.replace("1234abcd", "99999999");
        let fetched = edited(ready(&[1, 2, 3]), |value| {
            value["status"]["versions"][1]["keyId"] = json!(other);
            value["status"]["versions"][2]["request"]["encryptionContext"] = json!({ "purpose": "else" });
        });
        let policies = of(&fetched.key);
        let sids: Vec<_> = policies.workload.statement.iter().map(|one| one.sid.as_str()).collect();
        assert_eq!(sids, ["WorkloadUnwrapsDataKeys", "WorkloadUnwrapsDataKeys2", "WorkloadUnwrapsDataKeys3"]);
        let resources: Vec<_> = policies.workload.statement.iter().map(resource).collect();
        assert_eq!(resources, [ARN, &other, ARN]);
        assert_eq!(resource(&policies.operator.statement[0]), ARN, "the current version's");
        assert_eq!(policies.key_policy_statements.0.keys().collect::<Vec<_>>(), [ARN, &other]);
    }

    #[test]
    fn alias_becomes_a_condition_before_issuance() {
        let policies = of(&spec(|_| {}));
        let statement = &policies.operator.statement[0];
        assert_eq!(resource(statement), "arn:aws:kms:REGION:ACCOUNT:key/*");
        let alias = json!({ "ForAnyValue:StringEquals": { "kms:ResourceAliases": "alias/orders" } });
        assert_eq!(condition(statement), alias);
        let workload = condition(&policies.workload.statement[0]);
        assert_eq!(workload["ForAnyValue:StringEquals"]["kms:ResourceAliases"], "alias/orders");
        assert_eq!(workload["StringEquals"]["kms:EncryptionContext:purpose"], "orders");
        for word in ["fill in ACCOUNT", "fill in REGION", "by an alias only"] {
            assert!(policies.notes.iter().any(|note| note.contains(word)), "{word}: {:?}", policies.notes);
        }
    }

    #[test]
    fn key_of_a_class_is_to_be_filled_in() {
        let by_class = |fetched, key_id: Option<&str>| {
            let edit = |value: &mut Value| {
                value["spec"]["keyId"] = json!(key_id);
                value["spec"]["className"] = json!("shop");
            };
            of(&edited(fetched, edit).key)
        };
        let policies = by_class(recorded(&[]), None);
        let statement = &policies.operator.statement[0];
        assert_eq!(
            (resource(statement).as_str(), condition(statement)),
            ("arn:aws:kms:REGION:ACCOUNT:key/KEY-ID", Value::Null)
        );
        let command = "kubectl datakey classes shop -n shop";
        assert!(policies.notes[0].starts_with("note: fill in KEY-ID") && policies.notes[0].contains(command));
        assert!(policies.notes[1].contains("can add pairs") && policies.notes[1].contains(command));
        let named = by_class(recorded(&[]), Some("alias/orders"));
        assert!(named.notes[0].contains("can add pairs"), "{:?}", named.notes);
        let issued = by_class(ready(&[1]), None);
        assert_eq!((resource(&issued.operator.statement[0]).as_str(), issued.notes.len()), (ARN, 2));
        assert!(issued.notes[0].contains("kubectl datakey policy --class shop"), "{:?}", issued.notes);
    }

    #[test]
    fn region_of_the_spec_is_used_before_issuance() {
        let key = spec(|spec| spec["region"] = json!("cn-north-1"));
        assert_eq!(resource(&of(&key).operator.statement[0]), "arn:aws-cn:kms:cn-north-1:ACCOUNT:key/*");
    }

    #[test]
    fn sids_are_letters_and_digits() {
        let policies = of(&ready(&[1, 2]).key);
        let documents = [policies.operator, policies.workload];
        let sids = documents.iter().flat_map(|document| &document.statement).map(|statement| &statement.sid);
        assert!(sids.into_iter().all(|sid| sid.bytes().all(|byte| byte.is_ascii_alphanumeric())));
    }
}
