//! Several demands in one rule: the API server evaluates a rule of an object faster than several, and the error has the message of
//! the first demand that is not met.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use kube::core::{Message, Rule};

/// Something that must be true.
pub(crate) struct Demand {
    /// The CEL expression.
    pub holds: String,
    /// What the user must do if it is false.
    pub message: String,
}

/// A CEL expression for whether all are met.
pub(super) fn all_hold(demands: &[Demand]) -> String {
    let all: Vec<_> = demands.iter().map(|demand| format!("({})", demand.holds)).collect();
    all.join(" && ")
}

/// A CEL expression for the message of the first demand that is not met, or else the expression `otherwise`.
pub(super) fn message_of_the_first_broken(demands: &[Demand], otherwise: &str) -> String {
    let choices = demands.iter().map(|Demand { holds, message }| format!("!({holds}) ? {} : ", literal(message)));
    choices.collect::<String>() + otherwise
}

/// A rule with these demands on `self`.
pub(super) fn rule_of(demands: &[Demand]) -> ValidationRule {
    let (message, message_expression) = match demands {
        [Demand { message, .. }] => (Some(message.clone()), None),
        [others @ .., Demand { message, .. }] => (None, Some(message_of_the_first_broken(others, &literal(message)))),
        [] => (None, None),
    };
    ValidationRule { rule: all_hold(demands), message, message_expression, ..ValidationRule::default() }
}

/// A rule with these demands on a value without fields, which the API server need not check again where the value stays as it is.
/// Without this the API server accepts such a value, too, but evaluates the demands and sends a warning.
pub(super) fn rule_of_new_values(demands: &[Demand]) -> Rule {
    let rule = Rule::new(format!("oldSelf.hasValue() && self == oldSelf.value() || {}", all_hold(demands)));
    with_message(rule.optional_old_self(true), demands)
}

/// A rule with these demands on a value of a small object.
pub(super) fn rule_of_values(demands: &[Demand]) -> Rule {
    with_message(Rule::new(all_hold(demands)), demands)
}

/// The expression of a message must not name `oldSelf` where it is optional: the API server gives it the value that it has where it
/// is not.
fn with_message(rule: Rule, demands: &[Demand]) -> Rule {
    match demands {
        [Demand { message, .. }] => rule.message(Message::Message(message.clone())),
        [others @ .., Demand { message, .. }] => {
            rule.message(Message::Expression(message_of_the_first_broken(others, &literal(message))))
        }
        [] => rule,
    }
}

/// A string literal of CEL. The messages have no other characters that CEL would read as an escape.
fn literal(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
