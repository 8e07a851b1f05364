//! Why a reconcile is repeated, and what of that the user sees.

use std::time::Duration;

use datakey::reason::{Failure, Reason};
use thiserror::Error;

use crate::api_server::{errors, outcome::Undecided, secrets::RequestError};

/// Why a reconcile did not finish; the object is reconciled again soon.
#[derive(Debug, Error)]
pub enum Error {
    /// Another client wrote the object meanwhile. What was not recorded is dropped.
    #[error("the object was changed meanwhile")]
    Conflict,
    /// The object is gone, and the watch does not know it yet.
    #[error("the object is gone")]
    Gone,
    /// The API server did not answer in time; the write may have happened.
    #[error("the API server did not answer within {0:?}")]
    Timeout(Duration),
    /// The API server rejected a write of the status.
    #[error("the API server refused to write the status: {0}")]
    StatusRejected(String),
    /// The API server failed to carry out a write.
    #[error("the API server answers {0}: {1}")]
    Server(u16, String),
    /// No usable answer of the API server.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Another client keeps writing the object or its Secret.
    #[error("the object and its Secret did not settle")]
    TooManySteps,
    /// A defect of the operator; the runtime has logged where.
    #[error("the reconcile panicked")]
    Panicked,
}

// === impl Error ===

impl Error {
    /// The failure that the user sees; `None` for an error that only repeats the reconcile.
    pub(super) fn failure(&self) -> Option<Failure> {
        let of_status = |code: u16, message: &str| match code {
            401 | 403 => Failure::new(Reason::WriteRejected, message),
            // These are messages of etcd and of the API server's etcd client, with the status code 500. The operator computed
            // the sizes before the write, but it does not know what other clients write into the object.
            _ if message.contains("request is too large") || message.contains("message larger than max") => {
                Failure::new(Reason::SecretTooLarge, format!("etcd cannot store the object: {message}"))
            }
            _ if message.contains("failed calling webhook") => Failure::new(Reason::AdmissionUnavailable, message),
            _ => Failure::new(Reason::ApiServerFailed, format!("it answers {code}: {message}")),
        };
        Some(match self {
            Self::Conflict | Self::Gone => return None,
            Self::Timeout(limit) => Failure::new(
                Reason::ApiServerFailed,
                format!("no answer within {limit:?}; a slow admission webhook can be the cause"),
            ),
            Self::StatusRejected(message) => Failure::new(Reason::WriteRejected, format!("the status: {message}")),
            Self::Server(code, message) => of_status(*code, message),
            Self::Request(RequestError::Kube(kube::Error::Api(status))) => of_status(status.code, &status.message),
            Self::Request(_) => Failure::new(Reason::ApiServerFailed, "no usable answer"),
            Self::TooManySteps => {
                Failure::new(Reason::ApiServerFailed, "the object or its Secret changes with every request")
            }
            Self::Panicked => Reason::InternalError.into(),
        })
    }

    /// Whether the API server did not answer. An API server that answers no request at all is logged once for all objects.
    pub(super) fn is_unanswered(&self) -> bool {
        match self {
            Self::Timeout(_) => true,
            Self::Request(RequestError::Kube(error)) => errors::is_unanswered(error),
            _ => false,
        }
    }

    /// Whether one such error is enough to report it: it does not pass by itself.
    pub(super) fn is_certain(&self) -> bool {
        matches!(self, Self::StatusRejected(_) | Self::Panicked)
    }
}

impl From<Undecided> for Error {
    fn from(undecided: Undecided) -> Self {
        match undecided {
            Undecided::Conflict => Self::Conflict,
            Undecided::Gone => Self::Gone,
            Undecided::Server(code, message) => Self::Server(code, message),
            Undecided::Request(error) => Self::Request(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_that_etcd_cannot_store_is_not_retried_soon() {
        for message in [
            "etcdserver: request is too large",
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2097292 vs. 2097152)",
        ] {
            let failure = Error::Server(500, message.to_owned()).failure().unwrap();
            assert_eq!(failure.reason, Reason::SecretTooLarge);
            assert!(failure.detail.unwrap().contains(message));
        }
        assert_eq!(Error::Server(500, "rpc error".to_owned()).failure().unwrap().reason, Reason::ApiServerFailed);
    }
}
