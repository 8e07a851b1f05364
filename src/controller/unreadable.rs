//! What is reported of a `DataKey` that cannot be decoded: conditions, one event, one line of the log. Its record, its
//! Secret and everything else of it stay as they are.

use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{Resource, core::ObjectMeta, runtime::events::EventType};
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
    api::DataKey,
    decode::{RawStatus, Unreadable},
};

/// The object as it is written: uid and resource version say which it was, and the server takes nothing but the status.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    api_version: String,
    kind: String,
    metadata: Value,
    status: &'a RawStatus,
}

/// The status to write; `None` if the object is being deleted, or if there is nothing to report or it is reported already.
fn wanted_status(metadata: &ObjectMeta, unreadable: &Unreadable) -> Option<RawStatus> {
    let leaves = metadata.deletion_timestamp.is_some();
    (!leaves).then(|| unreadable.report(metadata.generation, Timestamp::now()))?
}

/// Whether there is something to report.
pub fn verdict(metadata: &ObjectMeta, unreadable: &Unreadable) -> Verdict {
    if wanted_status(metadata, unreadable).is_some() { Verdict::Open } else { Verdict::Settled }
}

/// Reports once that the object cannot be decoded. The operator looks at the object again when it changes.
///
/// # Errors
/// The status could not be written; it is tried again.
pub async fn report(
    metadata: &ObjectMeta,
    unreadable: &Unreadable,
    store: &Store,
    context: &Context,
) -> Result<Next, Error> {
    let place = Place::of(metadata);
    let (namespace, name) = (place.namespace(), place.name());
    let uid = metadata.uid.as_deref().unwrap_or_default();
    // The object may have joined these queues while it could still be decoded.
    context.kms.queue.release(uid);
    context.reads.queue.release(uid);
    let Some(status) = wanted_status(metadata, unreadable) else {
        store.settle_alone(metadata);
        context.settled(uid);
        return Ok(Next::OnChange);
    };
    let report = Report {
        api_version: DataKey::api_version(&()).into_owned(),
        kind: DataKey::kind(&()).into_owned(),
        metadata: json!({
            "name": name, "namespace": namespace, "uid": metadata.uid, "resourceVersion": metadata.resource_version,
        }),
        status: &status,
    };
    let body = serde_json::to_vec(&report).map_err(RequestError::Encode)?;
    let request = status_request(namespace, name, false, body).map_err(RequestError::Build)?;
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
    warn!(namespace, name, reason, detail, "the DataKey cannot be decoded; its Secret stays as it is");
    let about = ObjectReference {
        api_version: Some(report.api_version),
        kind: Some(report.kind),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        ..ObjectReference::default()
    };
    context.emit(&about, EventType::Warning, reason, &failure.to_string()).await;
    Ok(Next::OnChange)
}
