//! What is reported of an object that cannot be decoded: conditions, one event, one line of the log. Its record, its
//! Secret and everything else of it stay as they are.

use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{core::ObjectMeta, runtime::events::EventType};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::warn;

use super::store::{Store, Verdict};
use crate::{
    api_server::{
        keys::status_request,
        secrets::{RequestError, send},
    },
    place::Place,
    reconcile::{Context, Error, Next},
};
use datakey::{
    api::{KeyKind, Kind},
    decode::{RawStatus, Unreadable},
};

/// The object as it is written: uid and resource version say which it was, and the server takes nothing but the status.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Value,
    status: &'a RawStatus,
}

/// The status to write; `None` if the object is being deleted, or if there is nothing to report or it is reported already.
fn wanted_status(kind: &Kind, metadata: &ObjectMeta, unreadable: &Unreadable) -> Option<RawStatus> {
    let leaves = metadata.deletion_timestamp.is_some();
    (!leaves).then(|| unreadable.report(kind, metadata.generation, Timestamp::now()))?
}

/// Whether there is something to report.
pub fn verdict(kind: &Kind, metadata: &ObjectMeta, unreadable: &Unreadable) -> Verdict {
    if wanted_status(kind, metadata, unreadable).is_some() { Verdict::Open } else { Verdict::Settled }
}

/// Reports once that the object cannot be decoded. The operator looks at the object again when it changes.
///
/// # Errors
/// The status could not be written; it is tried again.
pub async fn report<K: KeyKind>(
    metadata: &ObjectMeta,
    unreadable: &Unreadable,
    store: &Store,
    context: &Context,
) -> Result<Next, Error> {
    let kind = K::KIND;
    let place = Place::of(kind.id, metadata);
    let (namespace, name) = (place.namespace(), place.name());
    let uid = metadata.uid.as_deref().unwrap_or_default();
    // The object may have joined these queues while it could still be decoded.
    context.kms.queue.release(uid);
    context.reads.queue.release(uid);
    let Some(status) = wanted_status(kind, metadata, unreadable) else {
        store.settle_alone(kind.id, metadata);
        context.settled(uid);
        return Ok(Next::OnChange);
    };
    let report = Report {
        api_version: kind.api_version,
        kind: kind.name,
        metadata: json!({
            "name": name, "namespace": namespace, "uid": metadata.uid, "resourceVersion": metadata.resource_version,
        }),
        status: &status,
    };
    let body = serde_json::to_vec(&report).map_err(RequestError::Encode)?;
    let request = status_request::<K>(namespace, name, false, body).map_err(RequestError::Build)?;
    let limit = context.kube_timeout;
    let written = send::<serde::de::IgnoredAny>(&context.client, request);
    match timeout(limit, written).await.map_err(|_| Error::Timeout(limit))? {
        Ok(_) => {}
        Err(RequestError::Kube(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
            return Err(Error::Conflict);
        }
        // The server's words can repeat what was sent.
        Err(RequestError::Kube(kube::Error::Api(status))) => {
            return Err(Error::StatusRejected(format!("{} {}", status.code, status.reason)));
        }
        Err(error) => return Err(error.into()),
    }
    let failure = unreadable.failure();
    let (reason, detail) = (failure.reason.as_str(), &failure.detail);
    warn!(namespace, name, reason, detail, "the {} cannot be decoded; its Secret stays as it is", kind.name);
    let about = ObjectReference {
        api_version: Some(kind.api_version.to_owned()),
        kind: Some(kind.name.to_owned()),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        ..ObjectReference::default()
    };
    context.emit(&about, EventType::Warning, reason, &failure.message(kind)).await;
    Ok(Next::OnChange)
}
