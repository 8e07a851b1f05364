//! What to do next, in addition to the message of the operator.

use datakey::{
    api,
    reason::{Reason, RetryPolicy},
};

/// Returns the next steps for a `DataKey` whose condition `Ready` has this reason.
pub fn advice(reason: &str, namespace: &str, name: &str) -> Vec<String> {
    if reason == api::PENDING {
        return vec![check_operator()];
    }
    let Ok(reason) = reason.parse::<Reason>() else {
        return Vec::new();
    };
    let command = |command: &str| format!("kubectl datakey {command} {name} -n {namespace}");
    let mut advice = match reason.retry_policy() {
        RetryPolicy::RetrySoon => vec!["the operator tries again by itself".to_owned()],
        RetryPolicy::RetrySlowly => {
            vec![format!("the operator tries again by itself within minutes; at once: {}", command("retry"))]
        }
        RetryPolicy::RetryRarely => vec![format!(
            "the operator acts on a change of the spec at once, and on others within about ten minutes; to try now: {}",
            command("retry")
        )],
    };
    match reason {
        Reason::AccessDenied => {
            advice.push(format!("see the policies that it needs: {}", command("policy")));
            advice.push(see_the_log());
        }
        Reason::SecretConflict | Reason::SecretContested => {
            advice.push(format!("see what differs: {}", command("verify")));
        }
        Reason::CredentialsMissing | Reason::CredentialsRejected | Reason::KmsError | Reason::RequestInvalid => {
            advice.push(see_the_log());
        }
        _ => {}
    }
    advice
}

/// The command for the operator's log. kubectl shows the log of one namespace only.
fn see_the_log() -> String {
    "see the operator's log: kubectl logs -n datakey-system -l app.kubernetes.io/name=datakey-operator (or the namespace that \
     it is installed in)"
        .to_owned()
}

/// Advises to check whether the operator runs.
pub fn check_operator() -> String {
    "see whether the operator runs: kubectl get deployments -A -l app.kubernetes.io/name=datakey-operator".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_access_leads_to_the_policies() {
        let advice = advice(Reason::AccessDenied.as_str(), "shop", "orders");
        assert!(advice.iter().any(|next| next.contains("kubectl datakey policy orders -n shop")), "{advice:?}");
    }

    #[test]
    fn pending_leads_to_the_operator() {
        assert_eq!(advice(api::PENDING, "shop", "orders"), [check_operator()]);
    }

    #[test]
    fn unknown_reason_has_no_advice() {
        assert!(advice("OfANewerOperator", "shop", "orders").is_empty());
    }
}
