//! The requests about Secrets. kube logs a whole body that it cannot decode, so bodies that hold Secrets are read as text and
//! decoded by [`datakey::secret::decode`], and no error repeats them.

use http::Request;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Resource,
    api::{GetParams, PostParams},
    core::request,
};
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::errors::describe;
use datakey::{
    names::FIELD_MANAGER,
    secret::{
        decode,
        metadata::{SecretMetadata, WatchedSecret},
    },
};

/// Why a request brought no answer that can be used.
#[derive(Debug, Error)]
pub enum RequestError {
    /// An error that the API server answered, or no answer. Its causes are in the text.
    #[error("{}", describe(.0))]
    Kube(kube::Error),
    /// The request could not be built.
    #[error("can't build the request: {0}")]
    Build(#[from] request::Error),
    /// The object could not be encoded.
    #[error("can't encode the object: {0}")]
    Encode(serde_json::Error),
    /// The answer could not be decoded. What it says is left out on purpose.
    #[error("can't decode the API server's answer")]
    Decode,
}

impl From<kube::Error> for RequestError {
    fn from(error: kube::Error) -> Self {
        Self::Kube(error)
    }
}

/// The metadata of a Secret as the server has them now.
pub async fn get_metadata(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<SecretMetadata>, RequestError> {
    let api: Api<WatchedSecret> = Api::namespaced(client.clone(), namespace);
    Ok(api.get_opt(name).await?.map(|secret| secret.metadata))
}

/// A whole Secret as the server has it now. Only one that is of the operator's type or is managed by it may be read.
pub async fn get(client: &Client, namespace: &str, name: &str) -> Result<Option<Secret>, RequestError> {
    let request = secrets(namespace).get(name, &GetParams::default())?;
    match secret(client, request).await {
        Ok(secret) => Ok(Some(secret)),
        Err(RequestError::Kube(kube::Error::Api(status))) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a Secret; one of that name is never overwritten. Returns it as it is stored, which an admission policy may have
/// changed.
pub async fn create(client: &Client, namespace: &str, new: &Secret) -> Result<Secret, RequestError> {
    let body = serde_json::to_vec(new).map_err(RequestError::Encode)?;
    secret(client, secrets(namespace).create(&ours(), body)?).await
}

/// Replaces a Secret that was read, if it is still the same: the new one carries its uid and resource version. Returns it as
/// it is stored.
pub async fn replace(client: &Client, namespace: &str, new: &Secret) -> Result<Secret, RequestError> {
    let metadata = &new.metadata;
    if metadata.uid.is_none() || metadata.resource_version.is_none() {
        // Without them, the API server would replace the Secret unconditionally.
        return Err(RequestError::Build(request::Error::Validation("uid or resourceVersion is missing".to_owned())));
    }
    let body = serde_json::to_vec(new).map_err(RequestError::Encode)?;
    let name = metadata.name.as_deref().unwrap_or_default();
    secret(client, secrets(namespace).replace(name, &ours(), body)?).await
}

fn secrets(namespace: &str) -> request::Request {
    request::Request::new(Secret::url_path(&(), Some(namespace)))
}

fn ours() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

async fn secret(client: &Client, request: Request<Vec<u8>>) -> Result<Secret, RequestError> {
    decode(&send_text(client, request).await?).map_err(|_| RequestError::Decode)
}

pub(crate) async fn send<T: DeserializeOwned>(client: &Client, request: Request<Vec<u8>>) -> Result<T, RequestError> {
    parse(&send_text(client, request).await?)
}

pub(crate) async fn send_text(client: &Client, request: Request<Vec<u8>>) -> Result<String, RequestError> {
    Ok(client.request_text(request).await?)
}

pub(crate) fn parse<T: DeserializeOwned>(answer: &str) -> Result<T, RequestError> {
    serde_json::from_str(answer).map_err(|_| RequestError::Decode)
}
