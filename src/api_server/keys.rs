//! The requests about objects of the operator's kinds. kube logs a whole body that it cannot decode, so bodies are decoded here,
//! field by field.

use datakey::{api::KeyKind, decode::Encoded, names::FIELD_MANAGER};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource,
    api::{GetParams, PostParams},
    core::request::{self, Request},
};

use super::secrets::{RequestError, parse, send, send_text};

/// The API of a kind in one namespace or in all.
pub fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// An object in an answer of the API server.
pub struct Fetched<K> {
    /// The object.
    pub key: K,
    /// The same, as the operator keeps it in memory.
    pub encoded: Encoded,
    /// How many bytes it has as JSON, which is how etcd stores it.
    pub bytes: usize,
}

/// The object of this name as the API server has it now.
///
/// # Errors
/// No usable answer.
pub async fn get<K: KeyKind>(client: &Client, namespace: &str, name: &str) -> Result<Option<Encoded>, RequestError> {
    let request = Request::new(K::url_path(&(), Some(namespace)));
    let request = request.get(name, &GetParams::default()).map_err(RequestError::Build)?;
    match send::<Encoded>(client, request).await {
        Ok(found) => Ok(Some(found)),
        Err(RequestError::Kube(kube::Error::Api(status))) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces the status of exactly this object: its uid and resource version go with it. Returns the object as it is stored.
///
/// # Errors
/// The API server rejects the write, or there is no usable answer.
pub async fn put_status<K: KeyKind>(client: &Client, object: &K, dry_run: bool) -> Result<Fetched<K>, RequestError> {
    let metadata = object.meta();
    let (namespace, name) = (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref());
    let body = serde_json::to_vec(object).map_err(RequestError::Encode)?;
    let request = status_request::<K>(namespace, name.unwrap_or_default(), dry_run, body)?;
    let stored = send_text(client, request).await?;
    let encoded: Encoded = parse(&stored)?;
    // The watch handles an object that cannot be decoded.
    let key = encoded.decode().map_err(|_| RequestError::Decode)?;
    Ok(Fetched { key, encoded, bytes: stored.len() })
}

/// The request that replaces a status.
///
/// # Errors
/// The name is invalid.
pub fn status_request<K: KeyKind>(
    namespace: &str,
    name: &str,
    dry_run: bool,
    body: Vec<u8>,
) -> Result<http::Request<Vec<u8>>, request::Error> {
    let params = PostParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()) };
    Request::new(K::url_path(&(), Some(namespace))).replace_subresource("status", name, &params, body)
}
