//! Errors of the API server as messages that say what to do.

use std::error::Error;

use datakey::text::{clause, error_chain};
use kube::core::{Status, response::StatusDetails};

use crate::output::CommandError;

/// Explains why a request failed. `what` names the object of the request.
pub fn explain(error: &kube::Error, what: &str) -> CommandError {
    let undecodable = |why: &dyn Error| {
        format!(
            "{what}: the API server's answer can't be decoded: {}; check that --kubeconfig and --context lead to an API server",
            clause(&why.to_string())
        )
    };
    CommandError::Failed(match error {
        kube::Error::Api(status) if status.code == 403 => {
            let message = clause(&status.message);
            return CommandError::Forbidden(format!(
                "{what}: you may not: {message}; ask for that right, or choose another -n or --context"
            ));
        }
        kube::Error::Api(status) if status.code >= 500 || [408, 429].contains(&status.code) => {
            return CommandError::Unanswered(format!(
                "{what}: the API server could not answer ({}): {}; try again later",
                status.code,
                clause(&status.message)
            ));
        }
        kube::Error::Api(status) => {
            let message = clause(&status.message);
            match (status.code, named(status)) {
                (401, _) => {
                    "the API server does not accept your credentials: log in again, or choose another --context"
                        .to_owned()
                }
                (404, Some(StatusDetails { kind, name, .. })) if kind == "namespaces" => format!(
                    "namespace {name} does not exist: create it (kubectl create namespace {name}), or choose another -n or \
                     --context"
                ),
                (404, Some(_)) => format!("there is no {what}; look at kubectl datakey list -A"),
                (404, None) => format!(
                    "{what}: the API server does not know this kind; install the definitions \
                     (datakey-operator crd | kubectl apply -f -), or choose another --context"
                ),
                _ => format!("{what}: the API server refuses: {message}"),
            }
        }
        kube::Error::Auth(error) => {
            format!(
                "{what}: no credentials for the API server: {}; log in again, or choose another --context",
                chain(error)
            )
        }
        kube::Error::SerdeError(error) => undecodable(error),
        kube::Error::FromUtf8(error) => undecodable(error),
        kube::Error::BuildRequest(error) => format!("{what}: the request can't be made: {}", chain(error)),
        error => {
            return CommandError::Unanswered(format!(
                "{what}: no answer from the API server: {}; check the network, --kubeconfig and --context",
                chain(error)
            ));
        }
    })
}

/// Returns the details that name the missing object. They name none if the kind is unknown.
fn named(status: &Status) -> Option<&StatusDetails> {
    status.details.as_ref().filter(|details| !details.name.is_empty())
}

/// Whether an object does not exist. Without its definition, that is not known.
pub fn is_missing(status: &Status) -> bool {
    status.is_not_found() && named(status).is_some()
}

/// Whether a conflict of a server-side apply is about fields that another client set, not about another revision of the object.
pub fn is_about_fields(conflict: &Status) -> bool {
    let mut causes = conflict.details.iter().flat_map(|details| &details.causes);
    causes.any(|cause| cause.reason == "FieldManagerConflict")
}

/// Returns an error and its causes on one line, with invisible characters escaped.
pub fn chain(error: &dyn Error) -> String {
    clause(&error_chain(error))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn error(code: u16, details: Value) -> CommandError {
        let details = serde_json::from_value(details).unwrap();
        let status = Status { code, message: "words\u{1b}[2J\n* more".to_owned(), details, ..Status::default() };
        explain(&kube::Error::Api(Box::new(status)), "DataKey orders")
    }

    fn explained(code: u16, details: Value) -> String {
        error(code, details).to_string()
    }

    #[test]
    fn only_an_answer_says_that_nothing_was_done() {
        for code in [408, 429, 500, 502, 503, 504] {
            assert!(matches!(error(code, json!(null)), CommandError::Unanswered(_)), "{code}");
        }
        for code in [400, 401, 404, 409, 422] {
            assert!(matches!(error(code, json!(null)), CommandError::Failed(_)), "{code}");
        }
        let lost = explain(&kube::Error::Service("reset".into()), "DataKey orders");
        assert!(matches!(lost, CommandError::Unanswered(why) if why.contains("check the network")));
        let decoded = kube::Error::SerdeError(serde_json::from_str::<Value>("{").unwrap_err());
        let read = kube::Error::FromUtf8(String::from_utf8(vec![0xff]).unwrap_err());
        for error in [decoded, read] {
            let why = explain(&error, "DataKeys");
            assert!(matches!(&why, CommandError::Failed(why) if why.contains("can't be decoded")), "{why:?}");
        }
    }

    #[test]
    fn object_is_missing_only_where_the_answer_names_it() {
        let missing = |reason: &str, details| {
            let details = serde_json::from_value(details).unwrap();
            is_missing(&Status { code: 404, reason: reason.to_owned(), details, ..Status::default() })
        };
        let named = json!({ "name": "orders", "group": "datakey.dev", "kind": "datakeys" });
        assert!(missing("NotFound", named.clone()));
        for without_definition in [json!(null), json!({}), json!({ "name": "" })] {
            assert!(!missing("NotFound", without_definition));
        }
        assert!(!missing("Conflict", named));
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        assert!(explained(401, json!(null)).contains("log in"));
        assert!(explained(403, json!(null)).contains("ask for that right"));
        assert_eq!(
            explained(404, json!({ "name": "orders", "kind": "datakeys" })),
            "there is no DataKey orders; look at kubectl datakey list -A"
        );
        assert!(
            explained(404, json!({ "name": "shop", "kind": "namespaces" }))
                .starts_with("namespace shop does not exist")
        );
        assert!(explained(404, json!(null)).contains("install the definition"));
        assert!(explained(500, json!(null)).contains(r"words\u{1b}[2J * more"));
    }
}
