//! The requests about Secrets, made so that as little as possible of a Secret is answered, and nothing of it logged:
//! kube logs a whole body that it can't decode, so bodies are decoded here.

use http::{HeaderValue, Request, header::ACCEPT};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Resource,
    api::{GetParams, PostParams},
    core::{PartialObjectMeta, request},
};
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::{Facts, MANAGER};

const METADATA_ONLY: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// Why a request about a Secret brought no answer that can be used.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The API server's word, or none.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// The request could not be built.
    #[error("can't build the request: {0}")]
    Build(#[from] request::Error),
    /// The object could not be encoded.
    #[error("can't encode the Secret: {0}")]
    Encode(serde_json::Error),
    /// The answer could not be decoded. What it says is left out on purpose.
    #[error("can't decode the API server's answer about a Secret")]
    Decode,
}

/// The metadata of a Secret as the server has them now.
pub async fn look(client: &Client, namespace: &str, name: &str) -> Result<Option<Facts>, RequestError> {
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), namespace);
    Ok(api.get_opt(name).await?.map(|secret| Facts::of(&secret.metadata)))
}

/// A whole Secret as the server has it now: only one that is of this operator's type or bears its marks.
pub async fn read(client: &Client, namespace: &str, name: &str) -> Result<Option<Secret>, RequestError> {
    let request = secrets(namespace).get(name, &GetParams::default())?;
    match send(client, request).await {
        Ok(secret) => Ok(Some(secret)),
        Err(RequestError::Kube(kube::Error::Api(status))) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a Secret; one of that name is never overwritten.
pub async fn create(client: &Client, namespace: &str, secret: &Secret) -> Result<Facts, RequestError> {
    let body = serde_json::to_vec(secret).map_err(RequestError::Encode)?;
    written(client, secrets(namespace).create(&ours(), body)?).await
}

/// Replaces a Secret that was read, if it is still the same: it carries uid and resource version.
pub async fn replace(client: &Client, namespace: &str, secret: &Secret) -> Result<Facts, RequestError> {
    let metadata = &secret.metadata;
    if metadata.uid.is_none() || metadata.resource_version.is_none() {
        // The server would take a replacement without them as unconditional.
        return Err(RequestError::Build(request::Error::Validation("uid or resourceVersion is missing".to_owned())));
    }
    let body = serde_json::to_vec(secret).map_err(RequestError::Encode)?;
    let name = metadata.name.as_deref().unwrap_or_default();
    written(client, secrets(namespace).replace(name, &ours(), body)?).await
}

fn secrets(namespace: &str) -> request::Request {
    request::Request::new(Secret::url_path(&(), Some(namespace)))
}

fn ours() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

async fn written(client: &Client, mut request: Request<Vec<u8>>) -> Result<Facts, RequestError> {
    request.headers_mut().insert(ACCEPT, METADATA_ONLY);
    let secret: PartialObjectMeta<Secret> = send(client, request).await?;
    Ok(Facts::of(&secret.metadata))
}

pub(crate) async fn send<T: DeserializeOwned>(client: &Client, request: Request<Vec<u8>>) -> Result<T, RequestError> {
    let body = client.request_text(request).await?;
    serde_json::from_str(&body).map_err(|_| RequestError::Decode)
}
