//! What the answer to a write means.

use datakey::api::Object;

use super::{redaction::redacted, secrets::RequestError};

/// A write that the API server decided on.
#[derive(Debug)]
pub enum WriteOutcome<T> {
    /// It is stored.
    Accepted(T),
    /// It is rejected for a reason that the user can know: a quota, an admission policy, validation. The server's message.
    Rejected(String),
}

/// A write that the API server did not decide on.
#[derive(Debug)]
pub enum Undecided {
    /// Another client wrote the object meanwhile.
    Conflict,
    /// The object is gone.
    Gone,
    /// The API server failed: the HTTP status and the server's message.
    Server(u16, String),
    /// No usable answer.
    Request(RequestError),
}

/// Sorts the answer to a write of this object, or of its Secret.
///
/// # Errors
/// The write has to be repeated.
pub fn classify_write<T>(written: Result<T, RequestError>, sent: Object<'_>) -> Result<WriteOutcome<T>, Undecided> {
    match written {
        Ok(stored) => Ok(WriteOutcome::Accepted(stored)),
        Err(RequestError::Kube(kube::Error::Api(status))) => {
            let message = redacted(&status.message, sent);
            match status.code {
                409 => Err(Undecided::Conflict),
                404 => Err(Undecided::Gone),
                400 | 403 | 413 | 422 => Ok(WriteOutcome::Rejected(message)),
                code => Err(Undecided::Server(code, message)),
            }
        }
        Err(error) => Err(Undecided::Request(error)),
    }
}

#[cfg(test)]
mod tests {
    use datakey::fixtures::{issued, recorded};

    use super::*;

    #[test]
    fn sensitive_values_are_redacted_from_server_messages() {
        let mut key = recorded(&[1]);
        key.spec.grant_tokens = Some(vec!["a grant token".to_owned()]);
        key.spec.wrapped_keys = Some(vec![issued(2)]);
        let blobs = [1, 2].map(|version| serde_json::to_value(issued(version).ciphertext_blob).unwrap());
        let secrets = [blobs[0].as_str().unwrap(), blobs[1].as_str().unwrap(), "a grant token"];
        let status = kube::core::Status { code: 422, message: secrets.join(" and "), ..kube::core::Status::default() };
        let rejected =
            classify_write::<()>(Err(RequestError::Kube(kube::Error::Api(Box::new(status)))), (&key).into()).unwrap();
        let WriteOutcome::Rejected(message) = rejected else { panic!() };
        assert!(secrets.iter().all(|secret| !message.contains(secret)), "{message}");
    }
}
