//! `kubectl datakey policy`: prints the IAM and key policies that a `DataKey` needs, with no right beyond that.

use serde::Serialize;

use crate::{
    cli::{Document, Policy, PolicyFormat},
    cluster::Cluster,
    output::{CommandError, Output, json, yaml},
};

mod kms_key;
pub mod statements;

use statements::{Policies, Roles};

/// Prints the policies of a `DataKey`.
pub async fn run(cluster: &Cluster, args: &Policy) -> Result<Output, CommandError> {
    let fetched = cluster.resolve(&args.name).await?;
    let roles = Roles { operator: args.operator_role_arn.as_deref(), workload: args.role_arn.as_deref() };
    let mut policies = Policies::of(&fetched.key, &roles);
    if matches!(args.only, None | Some(Document::Key)) {
        policies.notes.extend(missing_roles(&roles));
    }
    let out = match args.only {
        None => encode(args.output, &policies)?,
        Some(Document::Operator) => encode(args.output, &policies.operator)?,
        Some(Document::Workload) => encode(args.output, &policies.workload)?,
        Some(Document::Key) => encode(args.output, &policies.key_policy_statements)?,
    };
    Ok(Output { notes: policies.notes, ..Output::text(out) })
}

fn encode(format: PolicyFormat, document: &impl Serialize) -> Result<String, CommandError> {
    match format {
        PolicyFormat::Json => json(document),
        PolicyFormat::Yaml => yaml(document),
    }
}

/// Returns a note for each role that is not given. Only the key policy needs them: an IAM policy is attached to its
/// role.
fn missing_roles(roles: &Roles<'_>) -> Vec<String> {
    let roles =
        [(roles.operator, "OPERATOR-ROLE", "--operator-role-arn"), (roles.workload, "WORKLOAD-ROLE", "--role-arn")];
    let missing = roles.into_iter().filter(|(role, _, _)| role.is_none());
    missing.map(|(_, placeholder, flag)| format!("note: fill in {placeholder}, or name the role by {flag}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_role_has_a_note() {
        let arn = Some("arn:aws:iam::111122223333:role/app");
        assert!(missing_roles(&Roles { operator: arn, workload: arn }).is_empty());
        let notes = missing_roles(&Roles { operator: None, workload: arn });
        assert!(notes.len() == 1 && notes[0].contains("--operator-role-arn"), "{notes:?}");
    }

    #[test]
    fn policy_is_printed_as_recorded() {
        let key = crate::fixtures::ready(&[1]).key;
        let policies = Policies::of(&key, &Roles { operator: None, workload: None });
        insta::assert_snapshot!("policy", json(&policies).unwrap());
        let pair = Policies::of(&crate::fixtures::pair(&[1]).key, &Roles { operator: None, workload: None });
        insta::assert_snapshot!("policy-pair", json(&pair).unwrap());
        insta::assert_snapshot!("policy-yaml", yaml(&policies).unwrap());
        insta::assert_snapshot!("policy-key", json(&policies.key_policy_statements).unwrap());
    }
}
