//! `kubectl datakey policy`: prints the IAM and key policies that an object or a class needs, with no right beyond that.

use datakey::selection::Versions;
use serde::Serialize;

use super::rewrap::plan::{Destination, Move};
use crate::{
    cli::{Document, Policy, PolicyFormat},
    cluster::{Cluster, FetchedClass},
    output::{CommandError, Output, json, yaml},
    reference::Reference,
};

pub mod document;
mod kms_key;
pub mod of_class;
pub mod rewrap;
pub mod statements;
mod trust;

use document::{OPERATOR_ROLE, WORKLOAD_ROLE};
use of_class::ClassPolicies;
use rewrap::{REWRAP_ROLE, RewrapPolicies};
use statements::{Policies, Roles};

/// Prints the policies of a `DataKey` or `DataKeyPair`, for its use or for a rewrap, or of a class.
pub async fn run(cluster: &Cluster, args: &Policy) -> Result<Output, CommandError> {
    match (&args.name, &args.class, &args.to_key_id) {
        (Some(name), _, Some(key_id)) => of_rewrap(cluster, name, key_id, args).await,
        (Some(name), _, None) => of_object(cluster, name, args).await,
        (None, Some(class), _) => of_class(cluster, class, args).await,
        (None, None, _) => Err(CommandError::Usage("name a DataKey or DataKeyPair, or a class by --class".to_owned())),
    }
}

async fn of_object(cluster: &Cluster, name: &Reference, args: &Policy) -> Result<Output, CommandError> {
    let only = match args.only {
        Some(document @ (Document::AssumeRole | Document::Trust | Document::Role)) => {
            return Err(no_such_document(document, "is a policy of a class (--class)", "operator, workload and key"));
        }
        Some(document @ Document::Rewrap) => {
            return Err(no_such_document(document, "is a policy of a rewrap (--rewrap)", "operator, workload and key"));
        }
        only => only,
    };
    let fetched = cluster.resolve(name).await?;
    let roles = roles(args);
    let mut policies = Policies::of(&fetched.key, &roles);
    let names_roles = matches!(only, None | Some(Document::Key));
    policies.notes.extend(missing_roles(&roles, names_roles, names_roles));
    let out = match only {
        Some(Document::Operator) => encode(args.output, &policies.operator)?,
        Some(Document::Workload) => encode(args.output, &policies.workload)?,
        Some(Document::Key) => encode(args.output, &policies.key_policy_statements)?,
        _ => encode(args.output, &policies)?,
    };
    Ok(Output { notes: policies.notes, ..Output::text(out) })
}

async fn of_rewrap(cluster: &Cluster, name: &Reference, key_id: &str, args: &Policy) -> Result<Output, CommandError> {
    if let Some(document) = args.only
        && !matches!(document, Document::Rewrap | Document::Key)
    {
        return Err(no_such_document(document, "is no policy of a rewrap", "rewrap and key"));
    }
    let fetched = cluster.resolve(name).await?;
    let wanted = Move {
        to: Destination { key_arn: key_id.to_owned(), key_id: key_id.to_owned(), context: args.to_context.clone() },
        versions: args.versions.clone().unwrap_or(Versions::All),
        from: args.from_key_id.clone(),
        rotates: true,
        includes_adopted: true,
    };
    let role = args.rewrap_role_arn.as_deref();
    let mut policies = RewrapPolicies::of(&fetched.key, &wanted, role).map_err(CommandError::NotReady)?;
    let names_the_role = matches!(args.only, None | Some(Document::Key));
    policies.notes.extend(missing(&[(role, names_the_role, REWRAP_ROLE, "--rewrap-role-arn")]));
    let out = match args.only {
        Some(Document::Rewrap) => encode(args.output, &policies.rewrap)?,
        Some(Document::Key) => encode(args.output, &policies.key_policy_statements)?,
        _ => encode(args.output, &policies)?,
    };
    Ok(Output { notes: policies.notes, ..Output::text(out) })
}

async fn of_class(cluster: &Cluster, name: &str, args: &Policy) -> Result<Output, CommandError> {
    if let Some(document @ (Document::Operator | Document::Workload | Document::Rewrap)) = args.only {
        return Err(no_such_document(document, "is a policy of one DataKey", "assume-role, trust, role and key"));
    }
    let missing = || CommandError::Failed(super::classes::NO_DEFINITION.to_owned());
    let found = cluster.named_classes(&[name]).await?.ok_or_else(missing)?;
    let class = found.first().ok_or_else(missing)?;
    accepted(class).map_err(CommandError::NotReady)?;
    let roles = roles(args);
    let mut policies = ClassPolicies::of(&class.class, &roles).map_err(CommandError::NotReady)?;
    let has_role = policies.trust.is_some();
    let names_the_operator = match args.only {
        None => true,
        Some(Document::Trust) => has_role,
        Some(Document::Key) => !has_role,
        Some(_) => false,
    };
    let names_the_workload = matches!(args.only, None | Some(Document::Key));
    policies.notes.extend(missing_roles(&roles, names_the_operator, names_the_workload));
    let of_a_role = |policy: &Option<_>| match policy {
        Some(policy) => encode(args.output, policy),
        None => Err(CommandError::NotReady(format!(
            "the class {name} has no spec.aws: the operator calls AWS KMS as itself and assumes no role"
        ))),
    };
    let out = match args.only {
        Some(Document::AssumeRole) => of_a_role(&policies.assume_role)?,
        Some(Document::Trust) => of_a_role(&policies.trust)?,
        Some(Document::Role) => encode(args.output, &policies.role)?,
        Some(Document::Key) => encode(args.output, &policies.key_policy_statements)?,
        _ => encode(args.output, &policies)?,
    };
    Ok(Output { notes: policies.notes, ..Output::text(out) })
}

/// Whether the class is accepted, by the plugin and, if it has said so, by the operator.
///
/// # Errors
/// Why not.
fn accepted(fetched: &FetchedClass) -> Result<(), String> {
    let name = fetched.class.name();
    match (fetched.class.flaw(), fetched.accepted()) {
        (None, None | Some((true, _))) => Ok(()),
        (Some(flaw), Some((true, _))) => {
            Err(format!("this plugin, of another release than the operator, does not accept the class {name}: {flaw}"))
        }
        (Some(why), _) | (None, Some((false, why))) => {
            Err(format!("the class {name} is not accepted and allows nothing, so it needs no policies: {why}"))
        }
    }
}

fn no_such_document(document: Document, why: &str, others: &str) -> CommandError {
    CommandError::Usage(format!("--only {} {why}; choose one of {others}", document.name()))
}

fn roles(args: &Policy) -> Roles<'_> {
    Roles { operator: args.operator_role_arn.as_deref(), workload: args.role_arn.as_deref() }
}

fn encode(format: PolicyFormat, document: &impl Serialize) -> Result<String, CommandError> {
    match format {
        PolicyFormat::Json => json(document),
        PolicyFormat::Yaml => yaml(document),
    }
}

/// Returns a note for each role that is not given where the output names it.
fn missing_roles(roles: &Roles<'_>, names_the_operator: bool, names_the_workload: bool) -> Vec<String> {
    missing(&[
        (roles.operator, names_the_operator, OPERATOR_ROLE, "--operator-role-arn"),
        (roles.workload, names_the_workload, WORKLOAD_ROLE, "--role-arn"),
    ])
}

/// Returns a note for each role that is not given where the output names it, with its placeholder and its flag. An IAM policy names
/// none: it is attached to its role.
fn missing(roles: &[(Option<&str>, bool, &str, &str)]) -> Vec<String> {
    let missing = roles.iter().filter(|(role, is_named, ..)| role.is_none() && *is_named);
    missing.map(|(.., placeholder, flag)| format!("note: fill in {placeholder}, or name the role by {flag}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json as value;

    use super::*;
    use crate::fixtures::class;

    const NONE: Roles<'_> = Roles { operator: None, workload: None };

    #[test]
    fn each_missing_role_has_a_note() {
        let arn = Some("arn:aws:iam::111122223333:role/app");
        assert!(missing_roles(&Roles { operator: arn, workload: arn }, true, true).is_empty());
        let notes = missing_roles(&Roles { operator: None, workload: arn }, true, true);
        assert!(notes.len() == 1 && notes[0].contains("--operator-role-arn"), "{notes:?}");
        let of_workload = missing_roles(&NONE, false, true);
        assert!(of_workload.len() == 1 && of_workload[0].contains("--role-arn"), "{of_workload:?}");
    }

    #[test]
    fn class_must_be_accepted_by_plugin_and_operator() {
        let says = |status: &str| {
            value!({ "conditions": [{
                "type": "Accepted", "status": status, "reason": "x", "message": "says the operator", "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }] })
        };
        let sound = |status| class("shop", |class| class["status"] = status);
        let flawed = |status| {
            class("shop", |class| {
                class["spec"]["defaults"]["keyId"] = value!("alias/other");
                class["status"] = status;
            })
        };
        assert_eq!((accepted(&sound(value!({}))), accepted(&sound(says("True")))), (Ok(()), Ok(())));
        assert!(accepted(&sound(says("False"))).unwrap_err().ends_with("so it needs no policies: says the operator"));
        assert!(accepted(&flawed(value!({}))).unwrap_err().contains("spec.defaults.keyId"));
        assert!(accepted(&flawed(says("True"))).unwrap_err().starts_with("this plugin, of another release"));
    }

    #[test]
    fn policy_is_printed_as_recorded() {
        let key = crate::fixtures::ready(&[1]).key;
        let policies = Policies::of(&key, &NONE);
        insta::assert_snapshot!("policy", json(&policies).unwrap());
        let pair = Policies::of(&crate::fixtures::pair(&[1]).key, &NONE);
        insta::assert_snapshot!("policy-pair", json(&pair).unwrap());
        insta::assert_snapshot!("policy-yaml", yaml(&policies).unwrap());
        insta::assert_snapshot!("policy-key", json(&policies.key_policy_statements).unwrap());
    }
}
