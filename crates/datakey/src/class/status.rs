//! The status of a class.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::Class;
use crate::{
    api::{ACCEPTED, DataKeyClassStatus, ROLE_ASSUMED, truncate_to_seconds},
    text::printable,
};

/// The longest code of STS in a message, in characters.
const MAX_CODE: usize = 64;

/// How the last calls of AWS STS for the role of a class ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleOutcome {
    /// This operator has not asked for the role of this state of the class.
    Unknown,
    /// The role was assumed, and is refused for no namespace.
    Assumed,
    /// The role was refused, and nothing has asked for it since.
    Lapsed,
    /// The role is refused.
    Refused {
        /// One of the namespaces that it is refused for.
        namespace: String,
        /// The error code of STS.
        code: String,
        /// The number of other such namespaces.
        others: usize,
    },
}

/// The status that a class must have, for this number of objects that use it and this outcome of its role; `old` is the present one.
pub fn wanted_status(
    class: &Class,
    in_use: i64,
    role: &RoleOutcome,
    old: &DataKeyClassStatus,
    now: Timestamp,
) -> DataKeyClassStatus {
    let (status, reason, message) = match class.flaw() {
        None => ("True", ACCEPTED, "the class can be used".to_owned()),
        Some(flaw) => ("False", "Invalid", format!("the class allows nothing: {flaw}")),
    };
    let condition = |type_: &str, status: &str, reason: &str, message| {
        let same = old.conditions.iter().flatten().find(|old| old.type_ == type_ && old.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            // Kubernetes API conventions: the time is that of the last change of `status`, not of the last write.
            last_transition_time: same.map_or_else(|| truncate_to_seconds(now), |old| old.last_transition_time.clone()),
            observed_generation: Some(class.generation),
        }
    };
    let mut conditions = old.conditions.clone().unwrap_or_default();
    put(&mut conditions, condition(ACCEPTED, status, reason, message));
    match (class.spec.aws.as_ref().filter(|_| class.flaw().is_none()), role) {
        (Some(aws), RoleOutcome::Assumed) => {
            let message = format!("the operator assumes the role {}", aws.role_arn);
            put(&mut conditions, condition(ROLE_ASSUMED, "True", "Assumed", message));
        }
        (Some(aws), RoleOutcome::Refused { namespace, code, others }) => {
            let message = refused(&aws.role_arn, namespace, code, *others);
            put(&mut conditions, condition(ROLE_ASSUMED, "False", "Refused", message));
        }
        (Some(_), RoleOutcome::Lapsed) => conditions.retain(|condition| condition.type_ != ROLE_ASSUMED),
        // What is known of this state of the class stays, for example after a restart.
        _ => conditions
            .retain(|condition| condition.type_ != ROLE_ASSUMED || is_of_this_state(condition, class.generation)),
    }
    DataKeyClassStatus {
        observed_generation: Some(class.generation),
        conditions: Some(conditions),
        in_use: Some(in_use),
    }
}

/// Whether a condition describes the state of the class with this generation.
pub(super) fn is_of_this_state(condition: &Condition, generation: i64) -> bool {
    condition.observed_generation == Some(generation)
}

/// Puts a condition in the place of the one of its type. Their order stays: otherwise a condition of another client before this one
/// would make each status differ from the stored one.
fn put(conditions: &mut Vec<Condition>, condition: Condition) {
    match conditions.iter_mut().find(|old| old.type_ == condition.type_) {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

fn refused(role: &str, namespace: &str, code: &str, others: usize) -> String {
    let others = match others {
        0 => String::new(),
        1 => " and 1 other".to_owned(),
        others => format!(" and {others} others"),
    };
    format!(
        "AWS STS refuses the role {role} for namespace {namespace}{others} ({}). Check that its trust policy allows the operator's \
         identity sts:AssumeRole and, with session tags, sts:TagSession, with this external ID and these tags, and that the policy of \
         that identity allows both. The operator's log has the message of STS",
        printable(code, MAX_CODE)
    )
}
