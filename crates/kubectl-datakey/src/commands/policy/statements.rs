//! The statements of the IAM and key policies. Pure.
//!
//! Source: AWS KMS Developer Guide, "AWS KMS condition keys" (`kms:EncryptionContext:`, `kms:EncryptionContextKeys`,
//! `kms:ResourceAliases`); IAM User Guide, "Policy variables" and "Null condition operator".

use std::collections::BTreeMap;

use datakey::api::{EncryptionContext, Kind, KindId};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::kms_key::{ACCOUNT, KEY_ID, KmsKey, REGION};
use crate::cluster::AnyKey;

/// The action of the workload.
const DECRYPT: &str = "kms:Decrypt";

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

/// An IAM policy.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyDocument {
    version: &'static str,
    statement: Vec<Statement>,
}

/// A statement of an IAM policy or a key policy.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    sid: String,
    effect: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<Value>,
    action: String,
    resource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<Value>,
}

/// The statements of key policies, by KMS key.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("minProperties" = 1))]
pub struct KeyPolicyStatements(BTreeMap<String, Vec<Statement>>);

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
        let operator = roles.operator.map_or_else(|| issuing.placeholder_role("OPERATOR-ROLE"), str::to_owned);
        let (issues, unwraps) = sids(kind);
        let of_pair = request.key_pair_spec.map(|spec| json!({ "StringEquals": { "kms:DataKeyPairSpec": spec } }));
        let action = format!("kms:{}", kind.operation);
        let mut generate = Statement::allow(issues.to_owned(), &action, &issuing, of_pair.clone());
        statements.entry(issuing.name()).or_default().push(generate.clone().for_key_policy(&operator));
        generate.condition = merged(of_pair, issuing.alias_condition());
        let mut decrypt = Vec::new();
        for (number, (kms_key, context)) in (1..).zip(&unwrapping) {
            let workload = roles.workload.map_or_else(|| kms_key.placeholder_role("WORKLOAD-ROLE"), str::to_owned);
            let suffix = if number == 1 { String::new() } else { number.to_string() };
            let sid = format!("{unwraps}{suffix}");
            let condition = context_condition(context);
            let statement = Statement::allow(sid, DECRYPT, kms_key, Some(condition.clone()));
            statements.entry(kms_key.name()).or_default().push(statement.clone().for_key_policy(&workload));
            let condition = merged(Some(condition), kms_key.alias_condition());
            decrypt.push(Statement { condition, ..statement });
        }
        let class_name = key.object().spec.class_name.filter(|_| current.is_none());
        let of_class = class_name.iter().flat_map(|name| notes_of_a_class(name, &key.namespace(), &issuing));
        let notes = notes(kind, &issuing, unwrapping.iter().map(|(kms_key, _)| kms_key));
        let notes = of_class.chain(notes).collect();
        Self {
            operator: PolicyDocument::of(vec![generate]),
            workload: PolicyDocument::of(decrypt),
            key_policy_statements: KeyPolicyStatements(statements),
            notes,
        }
    }
}

/// Returns the condition that a request has each pair of this encryption context, or no pair at all if the context is
/// empty.
fn context_condition(context: &EncryptionContext) -> Value {
    if context.is_empty() {
        return json!({ "Null": { "kms:EncryptionContextKeys": "true" } });
    }
    let pairs: BTreeMap<_, _> = context
        .iter()
        .map(|(key, value)| (format!("kms:EncryptionContext:{key}"), escape_policy_variables(value)))
        .collect();
    json!({ "StringEquals": pairs })
}

/// Escapes a text so that IAM finds no policy variable in it: IAM replaces `${$}` with the character `$`.
fn escape_policy_variables(text: &str) -> String {
    text.replace("${", "${$}{")
}

/// Returns both conditions. They have different operators.
fn merged(one: Option<Value>, other: Option<Value>) -> Option<Value> {
    match (one, other) {
        (Some(Value::Object(mut one)), Some(Value::Object(other))) => {
            one.extend(other);
            Some(Value::Object(one))
        }
        (one, other) => one.or(other),
    }
}

/// Returns the names of the statements of the operator and of the workload.
const fn sids(kind: &Kind) -> (&'static str, &'static str) {
    match kind.id {
        KindId::DataKey => ("OperatorIssuesWrappedDataKeys", "WorkloadUnwrapsDataKeys"),
        KindId::DataKeyPair => ("OperatorIssuesWrappedKeyPairs", "WorkloadUnwrapsPrivateKeys"),
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
    notes.push(
        "note: within one account the IAM policies or the key policy will do; a KMS key of another account needs both"
            .to_owned(),
    );
    notes
}

// === impl PolicyDocument ===

impl PolicyDocument {
    fn of(statement: Vec<Statement>) -> Self {
        Self { version: "2012-10-17", statement }
    }
}

// === impl Statement ===

impl Statement {
    fn allow(sid: String, action: &str, key: &KmsKey, condition: Option<Value>) -> Self {
        Self { sid, effect: "Allow", principal: None, action: action.to_owned(), resource: key.arn(), condition }
    }

    /// Returns the statement for a key policy: it names the role, and its resource is the key that has the policy.
    fn for_key_policy(self, role: &str) -> Self {
        Self { principal: Some(json!({ "AWS": role })), resource: "*".to_owned(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{ARN, edited, pair, ready, recorded};

    const GENERATE: &str = "kms:GenerateDataKeyWithoutPlaintext";
    const GENERATE_PAIR: &str = "kms:GenerateDataKeyPairWithoutPlaintext";

    fn of(key: &AnyKey) -> Policies {
        Policies::of(key, &Roles { operator: None, workload: None })
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
                (
                    statement.principal.clone().unwrap()["AWS"].clone(),
                    statement.action.as_str(),
                    statement.resource.as_str(),
                )
            })
            .collect();
        assert_eq!(grants, [(json!(operator), GENERATE, "*"), (json!(workload), DECRYPT, "*")]);
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
            assert_eq!((statement.action.as_str(), statement.condition.as_ref()), (GENERATE_PAIR, Some(&only)));
        }
        let unissued = edited(pair(&[1]), |value| value["status"]["versions"] = json!([]));
        let condition = of(&unissued.key).operator.statement[0].condition.clone().unwrap();
        assert_eq!(condition["StringEquals"], only["StringEquals"]);
        assert_eq!(condition["ForAnyValue:StringEquals"]["kms:ResourceAliases"], "alias/orders");
        let workload = policies.workload.statement[0].condition.clone().unwrap();
        assert_eq!(workload, json!({ "StringEquals": { "kms:EncryptionContext:purpose": "orders" } }));
    }

    #[test]
    fn empty_encryption_context_forbids_any_pair() {
        let fetched = edited(ready(&[1]), |value| {
            value["status"]["versions"][0]["request"].as_object_mut().unwrap().remove("encryptionContext");
        });
        let condition = of(&fetched.key).workload.statement[0].condition.clone();
        assert_eq!(condition, Some(json!({ "Null": { "kms:EncryptionContextKeys": "true" } })));
    }

    #[test]
    fn each_pair_is_required_and_escaped() {
        let context =
            [("a", "${aws:username}"), ("b", "$x {y} *")].map(|(key, value)| (key.into(), value.into())).into();
        assert_eq!(
            context_condition(&context),
            json!({ "StringEquals": { "kms:EncryptionContext:a": "${$}{aws:username}", "kms:EncryptionContext:b": "$x {y} *" } })
        );
    }

    #[test]
    fn every_recorded_key_and_context_can_be_unwrapped() {
        let other = ARN.replace("1234abcd", "99999999");
        let fetched = edited(ready(&[1, 2, 3]), |value| {
            value["status"]["versions"][1]["keyId"] = json!(other);
            value["status"]["versions"][2]["request"]["encryptionContext"] = json!({ "purpose": "else" });
        });
        let policies = of(&fetched.key);
        let resources: Vec<_> =
            policies.workload.statement.iter().map(|one| (one.sid.as_str(), one.resource.as_str())).collect();
        assert_eq!(
            resources,
            [("WorkloadUnwrapsDataKeys", ARN), ("WorkloadUnwrapsDataKeys2", &other), ("WorkloadUnwrapsDataKeys3", ARN)]
        );
        assert_eq!(policies.operator.statement[0].resource, ARN, "the current version's");
        assert_eq!(policies.key_policy_statements.0.keys().collect::<Vec<_>>(), [ARN, &other]);
    }

    #[test]
    fn alias_becomes_a_condition_before_issuance() {
        let policies = of(&spec(|_| {}));
        let statement = &policies.operator.statement[0];
        assert_eq!(statement.resource, "arn:aws:kms:REGION:ACCOUNT:key/*");
        let alias = json!({ "ForAnyValue:StringEquals": { "kms:ResourceAliases": "alias/orders" } });
        assert_eq!(statement.condition, Some(alias));
        let workload = policies.workload.statement[0].condition.clone().unwrap();
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
            (statement.resource.as_str(), &statement.condition),
            ("arn:aws:kms:REGION:ACCOUNT:key/KEY-ID", &None)
        );
        let command = "kubectl datakey classes shop -n shop";
        assert!(policies.notes[0].starts_with("note: fill in KEY-ID") && policies.notes[0].contains(command));
        assert!(policies.notes[1].contains("can add pairs") && policies.notes[1].contains(command));
        let named = by_class(recorded(&[]), Some("alias/orders"));
        assert!(named.notes[0].contains("can add pairs"), "{:?}", named.notes);
        let issued = by_class(ready(&[1]), None);
        assert_eq!((issued.operator.statement[0].resource.as_str(), issued.notes.len()), (ARN, 1));
    }

    #[test]
    fn region_of_the_spec_is_used_before_issuance() {
        let key = spec(|spec| spec["region"] = json!("cn-north-1"));
        assert_eq!(of(&key).operator.statement[0].resource, "arn:aws-cn:kms:cn-north-1:ACCOUNT:key/*");
    }

    #[test]
    fn sids_are_letters_and_digits() {
        let policies = of(&ready(&[1, 2]).key);
        let documents = [policies.operator, policies.workload];
        let sids = documents.iter().flat_map(|document| &document.statement).map(|statement| &statement.sid);
        assert!(sids.into_iter().all(|sid| sid.bytes().all(|byte| byte.is_ascii_alphanumeric())));
    }
}
