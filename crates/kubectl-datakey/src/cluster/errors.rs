//! Errors of the API server as messages that say what to do.

use std::error::Error;

use datakey::text::{error_chain, on_one_line};
use kube::core::{Status, response::StatusDetails};

use crate::output::{CommandError, printable};

/// Explains why a request failed. `what` names the object of the request.
pub fn explain(error: &kube::Error, what: &str) -> CommandError {
    CommandError::Failed(match error {
        kube::Error::Api(status) if status.code == 403 => {
            let message = line(&status.message);
            return CommandError::Forbidden(format!(
                "{what}: you may not: {message}; ask for that right, or choose another -n or --context"
            ));
        }
        kube::Error::Api(status) if status.code >= 500 || [408, 429].contains(&status.code) => {
            return CommandError::Unanswered(format!(
                "{what}: the API server could not answer ({}): {}; try again later",
                status.code,
                line(&status.message)
            ));
        }
        kube::Error::Api(status) => {
            let missing = status.details.as_ref().filter(|details| !details.name.is_empty());
            let message = line(&status.message);
            match (status.code, missing) {
                (401, _) => {
                    "the API server does not accept your credentials: log in again, or choose another --context"
                        .to_owned()
                }
                // The details name the object if only the object is missing, and no object if the kind is unknown.
                (404, Some(StatusDetails { kind, name, .. })) if kind == "namespaces" => format!(
                    "namespace {name} does not exist: create it (kubectl create namespace {name}), or choose another -n or \
                     --context"
                ),
                (404, Some(_)) => format!("there is no {what}; look at kubectl datakey list -A"),
                (404, None) => format!(
                    "{what}: the API server does not know DataKeys; install the definition \
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
        kube::Error::SerdeError(error) => format!(
            "{what}: the API server's answer can't be decoded: {}; check that --kubeconfig and --context lead to an API server",
            line(&error.to_string())
        ),
        kube::Error::BuildRequest(error) => format!("{what}: the request can't be made: {}", chain(error)),
        error => {
            return CommandError::Unanswered(format!(
                "{what}: no answer from the API server: {}; check the network, --kubeconfig and --context",
                chain(error)
            ));
        }
    })
}

/// Whether a conflict of a server-side apply is about fields that another client set, not about another revision of the object.
pub fn is_about_fields(conflict: &Status) -> bool {
    let mut causes = conflict.details.iter().flat_map(|details| &details.causes);
    causes.any(|cause| cause.reason == "FieldManagerConflict")
}

/// Returns an error and its causes on one line, with invisible characters escaped.
pub fn chain(error: &dyn Error) -> String {
    line(&error_chain(error))
}

fn line(text: &str) -> String {
    printable(&on_one_line(text))
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
        assert!(matches!(explain(&decoded, "DataKeys"), CommandError::Failed(why) if why.contains("can't be decoded")));
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
