//! What to do next, in addition to the message of the operator.

use datakey::{
    api,
    reason::{Reason, RetryPolicy},
};

/// Returns the next steps for a `DataKey` whose condition `Ready` has this reason.
pub fn advice(reason: &str, namespace: &str, name: &str) -> Vec<String> {
    if reason == api::PENDING {
        return vec![check_operator(namespace)];
    }
    let Ok(reason) = reason.parse::<Reason>() else {
        return Vec::new();
    };
    let command = |command: &str| format!("kubectl datakey {command} {name} -n {namespace}");
    let retry = format!("to try now: {} (at most once a minute)", command("retry"));
    let mut advice = match reason.retry_policy() {
        RetryPolicy::RetrySoon => vec![format!("the operator tries again by itself, at growing intervals; {retry}")],
        RetryPolicy::RetrySlowly => vec![format!("the operator tries again by itself within minutes; {retry}")],
        RetryPolicy::RetryRarely if matches!(reason, Reason::SecretConflict) => vec![format!(
            "the operator acts on a change of the spec at once, and within seconds after the Secret is changed or removed (it \
             watches up to 100 such names, and looks at others within ten minutes); {retry}"
        )],
        RetryPolicy::RetryRarely if reason.depends_on_class() => {
            vec![format!("the operator acts on a change of the spec or of the class at once; {retry}")]
        }
        RetryPolicy::RetryRarely => vec![format!(
            "the operator acts on a change of the spec at once, and on others within about ten minutes; {retry}"
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
        Reason::ClassMissing | Reason::ClassNotFound => {
            advice.push(format!("see which classes this namespace may use: kubectl datakey classes -n {namespace}"));
        }
        Reason::ClassRefused => advice.push(format!(
            "see what each class allows, and which would allow it: kubectl datakey classes --for {name} -n {namespace}"
        )),
        Reason::ClassesUnavailable => {
            advice.push(format!("see what the operator may do: kubectl datakey check -n {namespace}"));
        }
        Reason::CredentialsMissing
        | Reason::CredentialsRejected
        | Reason::KmsError
        | Reason::KmsTimeout
        | Reason::KmsUnreachable
        | Reason::RequestInvalid
        | Reason::TlsFailed => advice.push(see_the_log()),
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

/// Advises to check whether the operator runs, and watches the namespace.
pub fn check_operator(namespace: &str) -> String {
    format!(
        "see whether the operator runs, and whether it watches namespace {namespace}: kubectl datakey check -n {namespace}"
    )
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
    fn every_reason_names_the_retry_and_its_limit() {
        for reason in Reason::ALL {
            let advice = advice(reason.as_str(), "shop", "orders");
            let retry = "to try now: kubectl datakey retry orders -n shop (at most once a minute)";
            assert!(advice[0].ends_with(retry), "{advice:?}");
        }
    }

    #[test]
    fn class_that_refuses_leads_to_the_classes() {
        for (reason, command) in [
            (Reason::ClassMissing, "kubectl datakey classes -n shop"),
            (Reason::ClassNotFound, "kubectl datakey classes -n shop"),
            (Reason::ClassRefused, "kubectl datakey classes --for datakeypair/tokens -n shop"),
            (Reason::ClassesUnavailable, "kubectl datakey check -n shop"),
        ] {
            let advice = advice(reason.as_str(), "shop", "datakeypair/tokens");
            assert!(advice[1].ends_with(command), "{advice:?}");
            assert_eq!(
                advice[0].contains("or of the class at once"),
                reason != Reason::ClassesUnavailable,
                "{advice:?}"
            );
        }
    }

    #[test]
    fn kms_that_does_not_answer_leads_to_the_log() {
        for reason in [Reason::KmsUnreachable, Reason::KmsTimeout, Reason::TlsFailed] {
            let advice = advice(reason.as_str(), "shop", "orders");
            assert!(advice.iter().any(|next| next.contains("kubectl logs")), "{advice:?}");
        }
    }

    #[test]
    fn conflict_is_looked_at_within_seconds() {
        let advice = advice(Reason::SecretConflict.as_str(), "shop", "orders");
        assert!(advice[0].contains("within seconds after the Secret is changed") && advice[0].contains("up to 100"));
    }

    #[test]
    fn pending_leads_to_the_operator() {
        assert_eq!(advice(api::PENDING, "shop", "orders"), [check_operator("shop")]);
    }

    #[test]
    fn unknown_reason_has_no_advice() {
        assert!(advice("OfANewerOperator", "shop", "orders").is_empty());
    }
}
