//! The form of IAM and key policies. Pure.
//!
//! Source: IAM User Guide, "IAM JSON policy elements", "Policy variables" and "Null condition operator"; AWS KMS Developer Guide,
//! "AWS KMS condition keys" (`kms:EncryptionContext:`, `kms:EncryptionContextKeys`).

use std::collections::BTreeMap;

use datakey::api::{EncryptionContext, Kind, KindId};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::kms_key::KmsKey;

/// The action of the workload.
pub const DECRYPT: &str = "kms:Decrypt";

/// The placeholder for the name of the operator's role.
pub const OPERATOR_ROLE: &str = "OPERATOR-ROLE";

/// The placeholder for the name of the workload's role.
pub const WORKLOAD_ROLE: &str = "WORKLOAD-ROLE";

/// The note about which of the policies are needed.
pub const EITHER_OR_BOTH: &str =
    "note: within one account the IAM policies or the key policy will do; a KMS key of another account needs both";

/// An IAM policy.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct PolicyDocument {
    version: &'static str,
    /// The statements.
    pub(super) statement: Vec<Statement>,
}

/// A statement of an IAM policy or a key policy.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    /// The name, of letters and digits.
    pub(super) sid: String,
    effect: &'static str,
    /// Whom a key policy or a trust policy allows the action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) principal: Option<Value>,
    /// The action.
    pub(super) action: String,
    /// On what. The trust policy of a role has no resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resource: Option<Values>,
    /// When.
    #[serde(skip_serializing_if = "Condition::is_empty")]
    pub(super) condition: Condition,
}

/// The statements of key policies, by KMS key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("minProperties" = 1))]
pub struct KeyPolicyStatements(pub(super) BTreeMap<String, Vec<Statement>>);

/// One value, or several of which one must fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Values {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// When a statement applies: keys of the request and their values, by operator. All must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Condition(BTreeMap<&'static str, BTreeMap<String, Values>>);

// === impl PolicyDocument ===

impl PolicyDocument {
    /// Returns the policy of these statements.
    pub fn of(statement: Vec<Statement>) -> Self {
        Self { version: "2012-10-17", statement }
    }
}

// === impl Statement ===

impl Statement {
    /// Returns a statement that allows an action.
    pub fn allow(sid: String, action: &str, resource: impl Into<Values>, condition: Condition) -> Self {
        let resource = Some(resource.into());
        Self { sid, effect: "Allow", principal: None, action: action.to_owned(), resource, condition }
    }

    /// Returns the statement with this further condition.
    pub fn under(self, other: Condition) -> Self {
        Self { condition: self.condition.and(other), ..self }
    }

    /// Returns the statement for a key policy: it names the role, and its resource is the key that has the policy.
    pub fn for_key_policy(self, role: &str) -> Self {
        Self { principal: Some(json!({ "AWS": role })), resource: Some("*".into()), ..self }
    }

    /// Returns the statement for a trust policy: it names the caller, and is about the role that has the policy.
    pub fn for_trust_policy(self, caller: &str) -> Self {
        Self { principal: Some(json!({ "AWS": caller })), resource: None, ..self }
    }
}

// === impl Values ===

impl From<&str> for Values {
    fn from(one: &str) -> Self {
        Self::One(one.to_owned())
    }
}

impl From<String> for Values {
    fn from(one: String) -> Self {
        Self::One(one)
    }
}

impl FromIterator<String> for Values {
    fn from_iter<T: IntoIterator<Item = String>>(values: T) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        match values.pop() {
            Some(one) if values.is_empty() => Self::One(one),
            last => {
                values.extend(last);
                Self::Several(values)
            }
        }
    }
}

// === impl Condition ===

impl Condition {
    /// Returns the condition that a key of the request also has one of these values, by this operator.
    pub fn with(mut self, operator: &'static str, key: impl Into<String>, values: impl Into<Values>) -> Self {
        self.0.entry(operator).or_default().insert(key.into(), values.into());
        self
    }

    /// Returns the condition that both hold. They are about different keys, or of different operators.
    pub fn and(mut self, other: Self) -> Self {
        for (operator, keys) in other.0 {
            self.0.entry(operator).or_default().extend(keys);
        }
        self
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the condition that a request has each pair of this encryption context, or no pair at all if the context is empty.
    pub fn of_context(context: &EncryptionContext) -> Self {
        if context.is_empty() {
            return Self::without_context();
        }
        context.iter().fold(Self::default(), |condition, (key, value)| {
            condition.with("StringEquals", context_key(key), escape_policy_variables(value))
        })
    }

    /// Returns the condition that a request has this encryption context: each pair, and no other one. It also compares the case of the
    /// keys, which a condition on a pair alone ignores.
    pub fn of_whole_context(context: &EncryptionContext) -> Self {
        let keys = context.keys().map(|key| escape_policy_variables(key));
        let no_other = |condition: Self| {
            condition.with("ForAllValues:StringEquals", "kms:EncryptionContextKeys", keys.collect::<Values>())
        };
        let of_pairs = Self::of_context(context);
        if context.is_empty() { of_pairs } else { no_other(of_pairs) }
    }

    /// Returns the condition that a request has no encryption context.
    pub fn without_context() -> Self {
        Self::default().with("Null", "kms:EncryptionContextKeys", "true")
    }
}

/// Returns the key of a condition on a pair of the encryption context.
pub fn context_key(key: &str) -> String {
    format!("kms:EncryptionContext:{key}")
}

/// Escapes a text so that IAM finds no policy variable in it: IAM replaces `${$}` with the character `$`.
pub fn escape_policy_variables(text: &str) -> String {
    text.replace("${", "${$}{")
}

/// Escapes an ARN so that IAM finds neither a wildcard nor a policy variable in it. The path of a role can have any of these characters.
pub fn escape_arn(arn: &str) -> String {
    let escaped = |character: char| match character {
        '*' | '?' | '$' => format!("${{{character}}}"),
        character => character.to_string(),
    };
    arn.chars().map(escaped).collect()
}

/// Returns the ARN of a role, or one with a placeholder in the account of a KMS key.
pub fn role_or_placeholder(role: Option<&str>, key: &KmsKey, placeholder: &str) -> String {
    role.map_or_else(|| key.placeholder_role(placeholder), str::to_owned)
}

/// Returns the names of the statements of the operator and of the workload.
pub const fn sids(kind: &Kind) -> (&'static str, &'static str) {
    match kind.id {
        KindId::DataKey => ("OperatorIssuesWrappedDataKeys", "WorkloadUnwrapsDataKeys"),
        KindId::DataKeyPair => ("OperatorIssuesWrappedKeyPairs", "WorkloadUnwrapsPrivateKeys"),
    }
}

/// Returns the name of a statement of several: the first one has no number.
pub fn numbered(sid: &str, number: usize) -> String {
    if number <= 1 { sid.to_owned() } else { format!("{sid}{number}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_is_required_and_escaped() {
        let context =
            [("a", "${aws:username}"), ("b", "$x {y} *")].map(|(key, value)| (key.into(), value.into())).into();
        assert_eq!(
            json!(Condition::of_context(&context)),
            json!({ "StringEquals": { "kms:EncryptionContext:a": "${$}{aws:username}", "kms:EncryptionContext:b": "$x {y} *" } })
        );
    }

    #[test]
    fn whole_context_has_no_other_pair() {
        let context = [("a", "1"), ("${b}", "2")].map(|(key, value)| (key.into(), value.into())).into();
        assert_eq!(
            json!(Condition::of_whole_context(&context)),
            json!({
                "StringEquals": { "kms:EncryptionContext:a": "1", "kms:EncryptionContext:${b}": "2" },
                "ForAllValues:StringEquals": { "kms:EncryptionContextKeys": ["${$}{b}", "a"] },
            })
        );
        let none = json!(Condition::of_whole_context(&EncryptionContext::default()));
        assert_eq!(none, json!({ "Null": { "kms:EncryptionContextKeys": "true" } }));
    }

    #[test]
    fn path_of_a_role_is_no_wildcard() {
        let escaped = escape_arn("arn:aws:iam::111122223333:role/a*/${b}?/c");
        assert_eq!(escaped, "arn:aws:iam::111122223333:role/a${*}/${$}{b}${?}/c");
        assert_eq!(escape_arn(crate::fixtures::ARN), crate::fixtures::ARN);
    }

    #[test]
    fn conditions_of_one_operator_are_kept_together() {
        let one = Condition::default().with("StringEquals", "a", "1").with("Null", "b", "false");
        let both = one.and(Condition::default().with(
            "StringEquals",
            "c",
            ["2".to_owned(), "3".to_owned()].into_iter().collect::<Values>(),
        ));
        assert_eq!(json!(both), json!({ "Null": { "b": "false" }, "StringEquals": { "a": "1", "c": ["2", "3"] } }));
    }

    #[test]
    fn one_value_is_no_list() {
        let values = |values: &[&str]| json!(values.iter().map(|value| (*value).to_owned()).collect::<Values>());
        assert_eq!((values(&["a"]), values(&["a", "b"])), (json!("a"), json!(["a", "b"])));
        assert_eq!(values(&[]), json!([]));
    }
}
