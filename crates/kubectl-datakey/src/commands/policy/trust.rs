//! The policies by which the operator may assume the role of a class. Pure.
//!
//! Source: IAM User Guide, "Pass session tags in AWS STS": a session with tags needs `sts:TagSession` in the policy of the caller and
//! in the trust policy, and the conditions on tags apply to both actions. Service Authorization Reference, "AWS Security Token
//! Service": `sts:ExternalId` is a key of `sts:AssumeRole`, and not of `sts:TagSession`. IAM User Guide, "Null condition operator" and
//! "Multivalued context keys".

use std::iter;

use datakey::api::{ClassAws, SessionTag};

use super::{
    document::{Condition, PolicyDocument, Statement, escape_arn, escape_policy_variables},
    of_class::Namespaces,
};

/// Returns the IAM policy of the operator's own role.
pub fn assume_role(aws: &ClassAws, namespaces: &[String]) -> PolicyDocument {
    PolicyDocument::of(iter::once(assumes(aws, namespaces)).chain(tags(aws, namespaces)).collect())
}

/// Returns the trust policy of the role of the class, for this operator.
pub fn trust(aws: &ClassAws, namespaces: &[String], operator: &str) -> PolicyDocument {
    let id = aws.external_id.iter().fold(Condition::default(), |condition, id| {
        condition.with("StringEquals", "sts:ExternalId", escape_policy_variables(id))
    });
    let statements = iter::once(assumes(aws, namespaces).under(id)).chain(tags(aws, namespaces));
    PolicyDocument::of(statements.map(|statement| statement.for_trust_policy(operator)).collect())
}

fn assumes(aws: &ClassAws, namespaces: &[String]) -> Statement {
    let sid = "OperatorAssumesRole".to_owned();
    Statement::allow(sid, "sts:AssumeRole", escape_arn(&aws.role_arn), of_tags(aws, namespaces))
}

/// The statement about the tags; `None` if sessions have none.
fn tags(aws: &ClassAws, namespaces: &[String]) -> Option<Statement> {
    let sid = "OperatorTagsSessions".to_owned();
    (!aws.session_tags.is_empty())
        .then(|| Statement::allow(sid, "sts:TagSession", escape_arn(&aws.role_arn), of_tags(aws, namespaces)))
}

/// The condition that a session has all tags of the class, and that a tag with the namespace has one that the class admits. It does
/// not forbid other tags: EKS Pod Identity adds some to the session of the operator, and sessions that are opened from there inherit
/// them.
fn of_tags(aws: &ClassAws, namespaces: &[String]) -> Condition {
    let of_tag = |condition: Condition, tag: &SessionTag| {
        let key = format!("aws:RequestTag/{}", tag.key);
        match &tag.value {
            Some(value) => condition.with("StringEquals", key, escape_policy_variables(value)),
            None => Namespaces::OfTheClass(namespaces).limit(condition, key),
        }
    };
    aws.session_tags.iter().fold(Condition::default(), of_tag)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ROLE: &str = "arn:aws:iam::111122223333:role/shop";
    const OPERATOR: &str = "arn:aws:iam::444455556666:role/operator";

    fn aws(fields: &Value) -> ClassAws {
        let mut aws = json!({ "roleArn": ROLE });
        aws.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(aws).unwrap()
    }

    fn namespaces(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|pattern| (*pattern).to_owned()).collect()
    }

    #[test]
    fn tag_of_any_namespace_is_demanded_where_the_class_admits_all() {
        let statements = json!(trust(&tagged(), &namespaces(&["*"]), OPERATOR))["Statement"].take();
        assert_eq!(statements[0]["Condition"]["Null"], json!({ "aws:RequestTag/datakey-namespace": "false" }));
    }

    fn tagged() -> ClassAws {
        aws(&json!({ "externalId": "Example987", "sessionTags": [
            { "key": "datakey-namespace", "valueFrom": "Namespace" },
            { "key": "team", "value": "shop" },
        ] }))
    }

    #[test]
    fn each_tag_is_demanded() {
        let tags = json!({
            "StringLike": { "aws:RequestTag/datakey-namespace": ["shop", "shop-*"] },
            "StringEquals": { "aws:RequestTag/team": "shop" },
        });
        let statements = json!(assume_role(&tagged(), &namespaces(&["shop", "shop-*"])))["Statement"].take();
        for (number, action) in ["sts:AssumeRole", "sts:TagSession"].into_iter().enumerate() {
            let found = &statements[number];
            assert_eq!(
                (&found["Action"], &found["Resource"], &found["Condition"]),
                (&json!(action), &json!(ROLE), &tags)
            );
        }
    }

    #[test]
    fn external_id_is_demanded_where_it_is_in_the_request() {
        let statements = json!(trust(&tagged(), &namespaces(&["shop-*"]), OPERATOR))["Statement"].take();
        let (assumes, tags) = (&statements[0], &statements[1]);
        assert_eq!(
            assumes["Condition"]["StringEquals"],
            json!({ "aws:RequestTag/team": "shop", "sts:ExternalId": "Example987" })
        );
        assert_eq!(tags["Condition"]["StringEquals"], json!({ "aws:RequestTag/team": "shop" }));
        for statement in [assumes, tags] {
            assert_eq!(statement["Principal"], json!({ "AWS": OPERATOR }));
            assert_eq!(statement.get("Resource"), None, "a trust policy is about its own role");
        }
    }

    #[test]
    fn role_without_tags_needs_one_action() {
        let plain = aws(&json!({}));
        let statement =
            json!({ "Sid": "OperatorAssumesRole", "Effect": "Allow", "Action": "sts:AssumeRole", "Resource": ROLE });
        assert_eq!(json!(assume_role(&plain, &namespaces(&["*"])))["Statement"], json!([statement]));
        let trust = json!(trust(&plain, &namespaces(&["*"]), OPERATOR))["Statement"].take();
        assert_eq!((trust.as_array().unwrap().len(), trust[0].get("Condition")), (1, None));
    }
}
