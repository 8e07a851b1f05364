//! With whose credentials KMS is called for the object: those of the operator, or of a session of the role that its class names.

use datakey::{
    api::KeyKind,
    class::{Ask, Identity},
    reason::{Failure, Reason},
};

use super::{error::Error, reconciler::Reconciler};
use crate::{
    api_server::{namespaces, secrets::RequestError},
    kms::roles::Caller,
};

impl<K: KeyKind> Reconciler<'_, K> {
    /// The credentials for a call; `None` if a session must be opened first. A role never gives way to the operator's own credentials.
    pub(super) fn caller(&self, ask: &Ask) -> Option<Caller> {
        match &ask.identity {
            Identity::Operator => Some(Caller::Operator),
            Identity::Role(role) => {
                let session = self.session.as_ref().filter(|session| session.serves(role))?;
                Some(Caller::Session(Box::new(session.clone())))
            }
        }
    }

    /// Gets a session for a call. Returns whether the reconcile goes on: with a session and a permit, or with a failure.
    ///
    /// The object keeps its permit while STS is asked: after another wait for a permit, many other sessions could have taken the place of
    /// this one. If STS does not answer, other objects use the permit, so that only those wait that need a new session.
    pub(super) async fn open_session(&mut self, ask: &Ask) -> Result<bool, Error> {
        let Some(role) = ask.identity.role() else { return Ok(true) };
        let Some(namespace_uid) = self.namespace_uid().await? else { return Ok(true) };
        let kms = &self.context.kms;
        let known = kms.known_session(role, &namespace_uid);
        let session = if let Some(known) = known {
            known
        } else {
            if !kms.roles.sessions.is_answering() {
                self.permit = None;
            }
            self.slot.free_during(Box::pin(kms.open_session(role, &namespace_uid))).await
        };
        match session {
            Ok(session) => self.session = Some(session),
            Err(failed) => {
                self.fail(*failed.failure);
                return Ok(true);
            }
        }
        if self.permit.is_some() { Ok(true) } else { self.acquire_permit(ask) }
    }

    /// The uid of the namespace, as it is now. It is read for each call: only that shows that no other namespace has the name since the
    /// session was opened. Fails the attempt if the operator may not read it.
    async fn namespace_uid(&mut self) -> Result<Option<String>, Error> {
        let read = self.with_timeout(namespaces::uid(&self.context.client, &self.namespace)).await?;
        match read {
            Ok(uid) => Ok(Some(uid)),
            Err(kube::Error::Api(status)) if status.is_not_found() => Err(Error::Gone),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                let failure = Failure::new(Reason::ClassesUnavailable, status.message)
                    .with_what("the operator may not read the namespace, and so not use the role of the class")
                    .with_advice("Install the roles of this release, which allow the operator to get namespaces");
                self.fail(failure);
                Ok(None)
            }
            Err(error) => Err(Error::Request(RequestError::Kube(error))),
        }
    }
}
