//! The requests about namespaces.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, core::PartialObjectMeta};

/// The uid of a namespace, as it is now.
///
/// # Errors
/// There is no such namespace, the operator may not read it, or there is no usable answer.
pub async fn uid(client: &Client, name: &str) -> kube::Result<String> {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    Ok(api.get_metadata(name).await?.metadata.uid.unwrap_or_default())
}
