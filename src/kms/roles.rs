//! The roles of classes: the operator assumes them by AWS STS and calls KMS with the credentials of their sessions.
//!
//! A session belongs to one state of one class and to one namespace, by their uids: nothing that is created again under an old name
//! finds an old session. A role that cannot be assumed is a failure of the object. The operator never calls KMS as itself instead.

use std::{num::NonZeroUsize, sync::Arc};

use aws_credential_types::Credentials;
use datakey::{class::Role, reason::Reason};
use tokio::time::Instant;
use tracing::{info, warn};

use super::errors::KmsFailure;

use outcomes::Outcomes;
use sessions::Sessions;

mod assume;
pub mod outcomes;
mod sessions;

pub(super) use assume::assume;
pub use sessions::{MAX_REFUSED_FOR, Opened, SESSION_LENGTH, SessionKey};

/// The most sessions that are kept. Each takes about 1.5 KiB, most of it the session token.
const MAX_SESSIONS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// The sessions, and how the last calls of STS for each class ended.
pub struct Roles {
    /// The sessions.
    pub sessions: Sessions,
    /// How the last calls ended.
    pub outcomes: Outcomes,
}

/// A session of a role, for the calls of one object.
#[derive(Clone)]
pub struct Session {
    /// The role, with the class that names it.
    pub role: Role,
    /// Whose session it is.
    pub key: SessionKey,
    /// The credentials.
    pub opened: Arc<Opened>,
}

/// With whose credentials KMS is called.
#[derive(Clone)]
pub enum Caller {
    /// Those of the operator.
    Operator,
    /// Those of a session.
    Session(Box<Session>),
}

// === impl Roles ===

impl Default for Roles {
    fn default() -> Self {
        Self { sessions: Sessions::new(MAX_SESSIONS), outcomes: Outcomes::default() }
    }
}

impl Roles {
    /// Records how a call of STS for a role ended, and logs a failure, and the first success after one.
    pub fn record(&self, role: &Role, result: &Result<Opened, KmsFailure>) {
        let Role { arn, namespace, class, .. } = role;
        match result {
            Ok(_) => {
                if self.outcomes.assumed(class, namespace) {
                    info!(class = class.name, namespace, role = arn, "the role of the class can be assumed again");
                }
            }
            Err(failed) => {
                let KmsFailure { code, message, request_id, .. } = failed;
                let class_name = &class.name;
                warn!(
                    class = class_name,
                    namespace,
                    role = arn,
                    code,
                    request_id,
                    message,
                    "the role of the class is not assumed"
                );
                // Credentials of the operator that AWS rejects say nothing of the role.
                if failed.failure.reason == Reason::CredentialsRejected && !failed.concerns_own_credentials() {
                    self.outcomes.refused(class, namespace, code, Instant::now());
                }
            }
        }
    }

    /// Records that KMS rejected the credentials of a session.
    pub fn rejected(&self, session: &Session, failure: &KmsFailure) {
        let is_expired = failure.known_code.starts_with("ExpiredToken");
        self.sessions.reject(&session.key, &session.opened, is_expired, Instant::now());
    }

    /// Drops the sessions that have not been used for a while, and those that have ended.
    pub fn drop_idle(&self) {
        self.sessions.drop_idle(Instant::now());
    }
}

// === impl Session ===

impl Session {
    /// Whether it is the session of this role, and lasts long enough for a call.
    pub fn serves(&self, role: &Role) -> bool {
        self.role == *role && self.opened.is_usable(Instant::now())
    }
}

// === impl Caller ===

impl Caller {
    /// The credentials that go with the call; `None` for those of the client.
    pub fn credentials(&self) -> Option<Credentials> {
        match self {
            Self::Operator => None,
            Self::Session(session) => Some(session.opened.credentials.clone()),
        }
    }
}
