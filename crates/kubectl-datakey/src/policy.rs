//! `kubectl datakey policy`: the IAM and key policies that a `DataKey` needs, and no more than that.
//!
//! Source: AWS KMS Developer Guide, "AWS KMS condition keys" (`kms:EncryptionContext:`, `kms:EncryptionContextKeys`,
//! `kms:ResourceAliases`); IAM User Guide, "Policy variables" and "Null condition operator".

use std::collections::BTreeMap;

use datakey::{
    api::{DataKey, EncryptionContext},
    arn::KmsArn,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    answer::{Answer, Failure, json as to_json, yaml},
    args::{Document, Policy, PolicyFormat},
    cluster::Cluster,
};

/// The one call of the operator.
const ISSUE: &str = "kms:GenerateDataKeyWithoutPlaintext";

/// The one call of the workload.
const UNWRAP: &str = "kms:Decrypt";

/// In place of what nobody knows yet.
const ACCOUNT: &str = "ACCOUNT";
const REGION: &str = "REGION";

/// All that a `DataKey` needs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Policies {
    /// The IAM policy of the operator's role.
    operator: PolicyDocument,
    /// The IAM policy of the workload's role.
    workload: PolicyDocument,
    /// Statements of the KMS key's policy; one KMS key each, if the versions have several.
    key_policy_statements: BTreeMap<String, Vec<Statement>>,
    /// What to know and to fill in.
    #[serde(skip)]
    notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PolicyDocument {
    version: &'static str,
    statement: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    sid: String,
    effect: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<Value>,
    action: &'static str,
    resource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<Value>,
}

/// A KMS key as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct KmsKey {
    partition: String,
    region: String,
    account: String,
    resource: Resource,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Resource {
    /// `key/KEY-ID`.
    Key(String),
    /// `alias/NAME`: it is not known yet which key that is.
    Alias(String),
}

/// Prints the policies of a `DataKey`.
pub async fn run(cluster: &Cluster, args: &Policy) -> Result<Answer, Failure> {
    let object = cluster.data_key(&args.name).await?;
    let roles = Roles { operator: args.operator_role_arn.as_deref(), workload: args.role_arn.as_deref() };
    let mut policies = policies(&object.key, &roles);
    if matches!(args.only, None | Some(Document::Key)) {
        policies.notes.extend(roles_to_fill_in(&roles));
    }
    let out = match args.only {
        None => written(args.output, &policies)?,
        Some(Document::Operator) => written(args.output, &policies.operator)?,
        Some(Document::Workload) => written(args.output, &policies.workload)?,
        Some(Document::Key) => written(args.output, &policies.key_policy_statements)?,
    };
    Ok(Answer { notes: policies.notes, ..Answer::text(out) })
}

fn written(format: PolicyFormat, document: &impl Serialize) -> Result<String, Failure> {
    match format {
        PolicyFormat::Json => to_json(document),
        PolicyFormat::Yaml => yaml(document),
    }
}

/// Whom the key policy names.
struct Roles<'a> {
    operator: Option<&'a str>,
    workload: Option<&'a str>,
}

fn policies(key: &DataKey, roles: &Roles<'_>) -> Policies {
    // The next version is issued under the key of the spec; every issued one must still unwrap.
    let current = key.issued(key.version());
    let issuing = current
        .and_then(|issued| KmsKey::of_arn(&issued.key_id))
        .unwrap_or_else(|| KmsKey::of_spec(&key.spec.key_id, key.spec.region.as_deref()));
    let mut unwrapping: Vec<(KmsKey, &EncryptionContext)> = Vec::new();
    let request = key.spec.request();
    let wanted = (issuing.clone(), request.context());
    let recorded = key
        .record()
        .iter()
        .filter_map(|issued| KmsKey::of_arn(&issued.key_id).map(|known| (known, issued.request.context())));
    for pair in recorded.chain(current.is_none().then_some(wanted)) {
        if !unwrapping.contains(&pair) {
            unwrapping.push(pair);
        }
    }

    let sid = |word: &str, number: usize| if number == 0 { word.to_owned() } else { format!("{word}{}", number + 1) };
    let mut statements = BTreeMap::<String, Vec<Statement>>::new();
    let operator_arn = roles.operator.map_or_else(|| issuing.placeholder("OPERATOR-ROLE"), str::to_owned);
    let mut issue = Statement::allow(sid("OperatorIssuesWrappedDataKeys", 0), ISSUE, &issuing, None);
    statements.entry(issuing.name()).or_default().push(issue.clone().for_key(&operator_arn));
    issue.condition = issuing.condition();
    let mut unwrap = Vec::new();
    for (number, (kms_key, context)) in unwrapping.iter().enumerate() {
        let workload_arn = roles.workload.map_or_else(|| kms_key.placeholder("WORKLOAD-ROLE"), str::to_owned);
        let bound = bound_to(context);
        let statement = Statement::allow(sid("WorkloadUnwrapsDataKeys", number), UNWRAP, kms_key, Some(bound.clone()));
        statements.entry(kms_key.name()).or_default().push(statement.clone().for_key(&workload_arn));
        let condition = Some(merged(bound, kms_key.condition()));
        unwrap.push(Statement { condition, ..statement });
    }
    let notes = notes(&issuing, unwrapping.iter().map(|(known, _)| known));
    Policies {
        operator: PolicyDocument::of(vec![issue]),
        workload: PolicyDocument::of(unwrap),
        key_policy_statements: statements,
        notes,
    }
}

/// The condition by which a request must have each pair of this encryption context; Null demands that it has none.
fn bound_to(context: &EncryptionContext) -> Value {
    if context.is_empty() {
        return json!({ "Null": { "kms:EncryptionContextKeys": "true" } });
    }
    let pairs: BTreeMap<_, _> =
        context.iter().map(|(key, value)| (format!("kms:EncryptionContext:{key}"), without_variables(value))).collect();
    json!({ "StringEquals": pairs })
}

/// A text in which IAM sees no policy variable: `${$}` stands for the character `$`.
fn without_variables(text: &str) -> String {
    text.replace("${", "${$}{")
}

fn merged(mut one: Value, other: Option<Value>) -> Value {
    if let (Value::Object(one), Some(Value::Object(other))) = (&mut one, other) {
        one.extend(other);
    }
    one
}

fn notes<'a>(issuing: &'a KmsKey, unwrapping: impl Iterator<Item = &'a KmsKey>) -> Vec<String> {
    let keys: Vec<_> = std::iter::once(issuing).chain(unwrapping).collect();
    let mut notes = Vec::new();
    if keys.iter().any(|key| key.account == ACCOUNT) {
        notes.push(format!(
            "note: fill in {ACCOUNT}, the AWS account of the KMS key: it is known once a data key is issued"
        ));
    }
    if keys.iter().any(|key| key.region == REGION) {
        notes.push(format!("note: fill in {REGION}, the operator's own: it is known once a data key is issued"));
    }
    if keys.iter().any(|key| matches!(key.resource, Resource::Alias(_))) {
        notes.push(
            "note: the version of the spec is not issued yet, so its KMS key is known by an alias only; print the \
             policies again afterwards to bind them to the key. Until then whoever may change aliases decides which \
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

/// What the key policy lacks: IAM policies name no role.
fn roles_to_fill_in(roles: &Roles<'_>) -> Vec<String> {
    let lacking =
        [(roles.operator, "OPERATOR-ROLE", "--operator-role-arn"), (roles.workload, "WORKLOAD-ROLE", "--role-arn")];
    let lacking = lacking.into_iter().filter(|(role, _, _)| role.is_none());
    lacking.map(|(_, word, flag)| format!("note: fill in {word}, or name the role by {flag}")).collect()
}

// === impl PolicyDocument ===

impl PolicyDocument {
    fn of(statement: Vec<Statement>) -> Self {
        Self { version: "2012-10-17", statement }
    }
}

// === impl Statement ===

impl Statement {
    fn allow(sid: String, action: &'static str, key: &KmsKey, condition: Option<Value>) -> Self {
        Self { sid, effect: "Allow", principal: None, action, resource: key.arn(), condition }
    }

    /// The same in the policy of the key, where the resource is the key itself.
    fn for_key(self, role: &str) -> Self {
        Self { principal: Some(json!({ "AWS": role })), resource: "*".to_owned(), ..self }
    }
}

// === impl KmsKey ===

impl KmsKey {
    fn of_arn(arn: &str) -> Option<Self> {
        let parsed = KmsArn::parse(arn)?;
        Some(Self {
            partition: arn.split(':').nth(1)?.to_owned(),
            region: parsed.region.to_owned(),
            account: parsed.account.to_owned(),
            resource: Resource::parse(parsed.resource),
        })
    }

    /// The key of a spec for which nothing is issued yet.
    fn of_spec(key_id: &str, region: Option<&str>) -> Self {
        Self::of_arn(key_id).unwrap_or_else(|| {
            let region = region.unwrap_or(REGION);
            let resource = if key_id.starts_with("alias/") { key_id.to_owned() } else { format!("key/{key_id}") };
            Self {
                partition: partition_of(region).to_owned(),
                region: region.to_owned(),
                account: ACCOUNT.to_owned(),
                resource: Resource::parse(&resource),
            }
        })
    }

    /// What a policy allows the use of. No alias can stand there: it would be the alias, not its key.
    fn arn(&self) -> String {
        let resource = match &self.resource {
            Resource::Key(key) => key,
            Resource::Alias(_) => "key/*",
        };
        format!("arn:{}:kms:{}:{}:{resource}", self.partition, self.region, self.account)
    }

    /// By what the key policies are told apart.
    fn name(&self) -> String {
        match &self.resource {
            Resource::Key(_) => self.arn(),
            Resource::Alias(alias) => format!("arn:{}:kms:{}:{}:{alias}", self.partition, self.region, self.account),
        }
    }

    /// The condition that stands for an alias.
    fn condition(&self) -> Option<Value> {
        match &self.resource {
            Resource::Key(_) => None,
            Resource::Alias(alias) => Some(json!({ "ForAnyValue:StringEquals": { "kms:ResourceAliases": alias } })),
        }
    }

    fn placeholder(&self, role: &str) -> String {
        format!("arn:{}:iam::{}:role/{role}", self.partition, self.account)
    }
}

// === impl Resource ===

impl Resource {
    fn parse(text: &str) -> Self {
        if text.starts_with("alias/") { Self::Alias(text.to_owned()) } else { Self::Key(text.to_owned()) }
    }
}

/// The partition of a Region (AWS General Reference).
fn partition_of(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ if region.starts_with("us-iso-") => "aws-iso",
        _ if region.starts_with("us-isob-") => "aws-iso-b",
        _ if region.starts_with("eu-isoe-") => "aws-iso-e",
        _ if region.starts_with("us-isof-") => "aws-iso-f",
        _ if region.starts_with("eusc-") => "aws-eusc",
        _ => "aws",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{ARN, edited, ready, recorded};

    fn of(key: &DataKey) -> Policies {
        policies(key, &Roles { operator: None, workload: None })
    }

    fn spec(edit: impl FnOnce(&mut Value)) -> DataKey {
        edited(recorded(&[]), |value| edit(&mut value["spec"])).key
    }

    #[test]
    fn each_party_gets_its_one_call_on_the_recorded_key() {
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
    fn the_key_policy_names_the_roles_and_no_other_call() {
        let (operator, workload) = ("arn:aws:iam::111122223333:role/op", "arn:aws:iam::111122223333:role/app");
        let roles = Roles { operator: Some(operator), workload: Some(workload) };
        let policies = policies(&ready(&[1]).key, &roles);
        let statements = &policies.key_policy_statements[ARN];
        let told: Vec<_> = statements
            .iter()
            .map(|statement| {
                (statement.principal.clone().unwrap()["AWS"].clone(), statement.action, statement.resource.as_str())
            })
            .collect();
        assert_eq!(told, [(json!(operator), ISSUE, "*"), (json!(workload), UNWRAP, "*")]);
        assert_eq!(statements[1].condition, of(&ready(&[1]).key).workload.statement[0].condition);
        assert_eq!(policies.notes.len(), 1, "nothing to fill in: {:?}", policies.notes);
        assert!(roles_to_fill_in(&roles).is_empty());
    }

    #[test]
    fn no_action_is_a_wildcard() {
        for key in [ready(&[1, 2]).key, recorded(&[]).key] {
            let text = json!(of(&key)).to_string();
            for action in text.split("\"Action\":\"").skip(1) {
                let action = action.split('"').next().unwrap();
                assert!([ISSUE, UNWRAP].contains(&action), "{action}");
            }
        }
    }

    #[test]
    fn without_an_encryption_context_none_may_be_given() {
        let object = edited(ready(&[1]), |value| {
            value["status"]["versions"][0]["request"].as_object_mut().unwrap().remove("encryptionContext");
        });
        let condition = of(&object.key).workload.statement[0].condition.clone();
        assert_eq!(condition, Some(json!({ "Null": { "kms:EncryptionContextKeys": "true" } })));
    }

    #[test]
    fn every_pair_is_demanded_and_a_value_is_never_a_policy_variable() {
        let context =
            [("a", "${aws:username}"), ("b", "$x {y} *")].map(|(key, value)| (key.into(), value.into())).into();
        assert_eq!(
            bound_to(&context),
            json!({ "StringEquals": { "kms:EncryptionContext:a": "${$}{aws:username}", "kms:EncryptionContext:b": "$x {y} *" } })
        );
    }

    #[test]
    fn each_kms_key_and_each_context_of_the_record_can_still_be_unwrapped() {
        let other = ARN.replace("1234abcd", "99999999");
        let object = edited(ready(&[1, 2, 3]), |value| {
            value["status"]["versions"][1]["keyId"] = json!(other);
            value["status"]["versions"][2]["request"]["encryptionContext"] = json!({ "purpose": "else" });
        });
        let policies = of(&object.key);
        let resources: Vec<_> =
            policies.workload.statement.iter().map(|one| (one.sid.as_str(), one.resource.as_str())).collect();
        assert_eq!(
            resources,
            [("WorkloadUnwrapsDataKeys", ARN), ("WorkloadUnwrapsDataKeys2", &other), ("WorkloadUnwrapsDataKeys3", ARN)]
        );
        assert_eq!(policies.operator.statement[0].resource, ARN, "the current version's");
        assert_eq!(policies.key_policy_statements.keys().collect::<Vec<_>>(), [ARN, &other]);
    }

    #[test]
    fn before_anything_is_issued_an_alias_is_a_condition_and_what_is_unknown_is_to_be_filled_in() {
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
    fn what_the_spec_says_of_the_key_is_used_and_the_partition_goes_with_the_region() {
        let resource = |edit: fn(&mut Value)| of(&spec(edit)).operator.statement[0].resource.clone();
        assert_eq!(resource(|spec| spec["keyId"] = json!(ARN)), ARN);
        assert_eq!(
            resource(|spec| {
                spec["keyId"] = json!("1234abcd-12ab-34cd-56ef-1234567890ab");
                spec["region"] = json!("cn-north-1");
            }),
            "arn:aws-cn:kms:cn-north-1:ACCOUNT:key/1234abcd-12ab-34cd-56ef-1234567890ab"
        );
        assert_eq!(
            resource(|spec| spec["keyId"] = json!("arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/orders")),
            "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/*"
        );
    }

    #[test]
    fn sids_are_letters_and_digits_as_iam_demands() {
        let policies = of(&ready(&[1, 2]).key);
        let documents = [policies.operator, policies.workload];
        let sids = documents.iter().flat_map(|document| &document.statement).map(|statement| &statement.sid);
        assert!(sids.into_iter().all(|sid| sid.bytes().all(|byte| byte.is_ascii_alphanumeric())));
    }
}
