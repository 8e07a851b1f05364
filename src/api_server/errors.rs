//! What the log says of an error of the client.

use datakey::text::{error_chain, printable};
use kube::runtime::watcher;

use crate::logging::MAX_ERROR_LENGTH;

/// Describes an error of the client on one line. kube's own text for an error answer contains the Debug form of the answer.
pub fn describe(error: &kube::Error) -> String {
    let text = match error {
        kube::Error::Api(status) => describe_status(status),
        error => error_chain(error),
    };
    printable(&text, MAX_ERROR_LENGTH)
}

/// An error of a watch in one line.
pub fn describe_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) => format!("the list failed: {}", describe(error)),
        watcher::Error::WatchStartFailed(error) => format!("the watch did not start: {}", describe(error)),
        watcher::Error::WatchFailed(error) => format!("the watch failed: {}", describe(error)),
        watcher::Error::WatchError(status) => {
            printable(&format!("the watch ended: {}", describe_status(status)), MAX_ERROR_LENGTH)
        }
        error @ watcher::Error::NoResourceVersion => error.to_string(),
    }
}

fn describe_status(status: &kube::core::Status) -> String {
    format!("the API server answers {} {}: {}", status.code, status.reason, status.message)
}

/// Whether the API server did not answer. [`Connectivity`](super::connectivity::Connectivity) checks whether it answers
/// anything, and logs that once.
pub fn is_unanswered(error: &kube::Error) -> bool {
    matches!(error, kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_))
}

/// Whether the API server did not answer a watch.
pub fn is_watch_unanswered(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => is_unanswered(error),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => false,
    }
}

/// Why the API server refuses a watch: its definition is missing, or the user may not watch.
pub fn watch_refusal(error: &watcher::Error) -> Option<&str> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            if matches!(status.code, 403 | 404) =>
        {
            Some(&status.message)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_status_is_described_by_code_reason_and_message() {
        let status = |message: &str| {
            Box::new(kube::core::Status {
                code: 403,
                reason: "Forbidden".to_owned(),
                message: message.to_owned(),
                ..kube::core::Status::default()
            })
        };
        let short = kube::Error::Api(status("secrets need a ticket"));
        assert_eq!(describe(&short), "the API server answers 403 Forbidden: secrets need a ticket");
        assert!(!is_unanswered(&short));
        let long = watcher::Error::WatchError(status(&"a".repeat(5000)));
        assert_eq!(describe_watch(&long).len(), MAX_ERROR_LENGTH);
        assert!(!is_watch_unanswered(&long));
    }

    #[test]
    fn lost_connection_is_not_an_answer() {
        let lost = || kube::Error::Service("connection refused".into());
        assert!(is_unanswered(&lost()) && is_watch_unanswered(&watcher::Error::WatchFailed(lost())));
        assert_eq!(describe(&lost()), "ServiceError: connection refused");
    }
}
