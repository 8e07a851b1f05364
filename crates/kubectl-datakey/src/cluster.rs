//! The requests to the API server. Each uses the credentials of the user's kubeconfig.

use std::time::Duration;

use datakey::{
    api::{DataKey, DataKeyPair, Kind, KindId},
    names::{RETRY_AT_ANNOTATION, is_subdomain},
    secret::{
        decode,
        metadata::{SecretMetadata, WatchedSecret},
    },
};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Event, Secret},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
    core::request::{self, Request},
};
use serde_json::{Value, json};

use crate::output::{CommandError, printable};

mod answer;
mod classes;
mod config;
mod errors;
mod fetched_key;
mod inspect;
mod lookup;

pub use classes::{CLASSES, FetchedClass};
use config::config;
pub use config::{Connection, contexts};
use errors::{chain, explain, is_about_fields, is_missing};
pub use fetched_key::{AnyKey, FetchedKey, Listing, Unlisted};
pub use inspect::{ListedSecret, Right, ServiceAccount, definition_name};

/// The longest wait for an answer of the API server. kube sets no limit by default.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The field manager of the plugin's writes, as `metadata.managedFields` shows it.
const MANAGER: &str = "kubectl-datakey";

/// A client for one cluster, with the namespace that the user chose.
pub struct Cluster {
    client: Client,
    /// The URL of the API server.
    pub server: String,
    /// The namespace of `-n`, else that of the kubeconfig's context.
    pub namespace: String,
}

// === impl Cluster ===

impl Cluster {
    /// Creates a client for the cluster that kubectl would use. Sends no request.
    pub async fn connect(connection: &Connection) -> Result<Self, CommandError> {
        let mut config = config(connection).await?;
        config.read_timeout = Some(TIMEOUT);
        // kube would repeat a request that is answered 429, 503 or 504 for minutes, and say nothing meanwhile.
        config.default_retry = false;
        if connection.as_user.is_some() {
            config.auth_info.impersonate.clone_from(&connection.as_user);
            config.auth_info.impersonate_groups = Some(connection.as_group.clone()).filter(|groups| !groups.is_empty());
        }
        let namespace = connection.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config)
            .map_err(|error| CommandError::Failed(format!("the kubeconfig can't be used: {}", chain(&error))))?;
        Ok(Self { client, server, namespace })
    }

    /// Applies a merge patch to an object.
    ///
    /// `patch` has `metadata.resourceVersion`, so the API server refuses it if another client changed the object.
    pub async fn patch(&self, before: &FetchedKey, patch: &Value, dry_run: bool) -> Result<FetchedKey, CommandError> {
        self.patch_unless_changed(before, patch, dry_run).await?.ok_or_else(|| {
            CommandError::Failed(format!(
                "{} was changed meanwhile, and nothing was done: look at it, and try again",
                before.titled()
            ))
        })
    }

    /// Applies a merge patch like [`patch`](Self::patch). Returns `None` if another client changed the object.
    pub async fn patch_unless_changed(
        &self,
        before: &FetchedKey,
        patch: &Value,
        dry_run: bool,
    ) -> Result<Option<FetchedKey>, CommandError> {
        let (kind, name, namespace) = (before.kind(), before.name(), before.namespace());
        let params = PatchParams { dry_run, field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match self.send(objects_of(kind, Some(&namespace)).patch(&name, &params, &Patch::Merge(patch))).await {
            Ok(answer) => FetchedKey::decode(kind, &answer).map(Some),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(None),
            Err(error) => Err(explain(&error, &format!("{} in namespace {namespace}", before.titled()))),
        }
    }

    /// Requests a retry of an object. A condition that another client writes meanwhile does not matter, so the patch has no
    /// resource version.
    pub async fn request_retry(&self, fetched: &FetchedKey, at: Timestamp) -> Result<(), CommandError> {
        let namespace = fetched.namespace();
        let patch = json!({ "metadata": { "annotations": { RETRY_AT_ANNOTATION: at.to_string() } } });
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let objects = objects_of(fetched.kind(), Some(&namespace));
        match self.send(objects.patch_metadata(&fetched.name(), &params, &Patch::Merge(patch))).await {
            Ok(_) => Ok(()),
            Err(error) => Err(explain(&error, &format!("{} in namespace {namespace}", fetched.titled()))),
        }
    }

    /// Deletes an object without its Secret, unless another client changed the object after it was read. If another client
    /// deleted it, the error is [`CommandError::NotReady`].
    pub async fn orphan(&self, fetched: &FetchedKey) -> Result<(), CommandError> {
        let (titled, metadata) = (fetched.titled(), fetched.key.metadata());
        let (Some(uid), Some(read)) = (metadata.uid.clone(), metadata.resource_version.clone()) else {
            return Err(CommandError::Failed("the API server's answer has no uid or resourceVersion".to_owned()));
        };
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Orphan),
            preconditions: Some(Preconditions { uid: Some(uid), resource_version: Some(read) }),
            ..DeleteParams::default()
        };
        match self.send(self.own(fetched.kind()).delete(&fetched.name(), &params)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_conflict() => Err(CommandError::Failed(format!(
                "{titled} was changed meanwhile, and was not deleted: look at it, and try again"
            ))),
            Err(kube::Error::Api(status)) if is_missing(&status) => {
                Err(CommandError::NotReady(format!("another client deleted {titled} meanwhile")))
            }
            Err(error) => Err(explain(&error, &self.what(fetched.kind(), &fetched.name()))),
        }
    }

    /// Creates an object. Does nothing if it exists.
    pub async fn create(&self, kind: &'static Kind, manifest: &Value) -> Result<(), CommandError> {
        self.post(kind, manifest, false).await
    }

    /// Checks by a dry run whether the API server would accept an object. An existing one of that name is no error.
    pub async fn would_create(&self, kind: &'static Kind, manifest: &Value) -> Result<(), CommandError> {
        self.post(kind, manifest, true).await
    }

    async fn post(&self, kind: &'static Kind, manifest: &Value, dry_run: bool) -> Result<(), CommandError> {
        let what = self.what(kind, manifest["metadata"]["name"].as_str().unwrap_or_default());
        let params = PostParams { dry_run, field_manager: Some(MANAGER.to_owned()) };
        match self.send(self.own(kind).create(&params, manifest.to_string().into_bytes())).await {
            Ok(_) => Ok(()),
            // The API server validates an object before it looks for one of the same name.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(explain(&error, &what)),
        }
    }

    /// Applies an object by server-side apply as this manager. Nothing that another manager owns is taken over.
    ///
    /// Returns `None`, and does nothing, if it is not the object that `metadata.uid` and `metadata.resourceVersion` name.
    pub async fn apply(
        &self,
        kind: &'static Kind,
        manifest: &Value,
        manager: &str,
        dry_run: bool,
    ) -> Result<Option<FetchedKey>, CommandError> {
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
        let what = self.what(kind, name);
        let params = PatchParams { dry_run, field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        match self.send(self.own(kind).patch(name, &params, &Patch::Apply(manifest))).await {
            Ok(answer) => FetchedKey::decode(kind, &answer).map(Some),
            Err(kube::Error::Api(status)) if status.is_conflict() && !is_about_fields(&status) => Ok(None),
            Err(kube::Error::Api(status)) if status.is_conflict() => Err(CommandError::Failed(format!(
                "{what} has other values, which another client set, and nothing was changed: {}; change it where it is \
                 applied, or choose another name",
                printable(&status.message)
            ))),
            Err(error) => Err(explain(&error, &what)),
        }
    }

    /// Gets the metadata of a Secret, or `None` if it does not exist.
    pub async fn secret_metadata(&self, namespace: &str, name: &str) -> Result<Option<SecretMetadata>, CommandError> {
        require_names(&[name], &format!("Secret {name} in namespace {namespace}"))?;
        let api: Api<WatchedSecret> = Api::namespaced(self.client.clone(), namespace);
        match api.get_opt(name).await {
            Ok(secret) => Ok(secret.map(|secret| secret.metadata)),
            Err(error) => Err(explain(&error, &format!("Secret {name} in namespace {namespace}"))),
        }
    }

    /// Gets a Secret, or `None` if it does not exist.
    ///
    /// No error contains a part of it.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, CommandError> {
        let what = format!("Secret {name} in namespace {namespace}");
        require_names(&[name], &what)?;
        let request = Request::new(Secret::url_path(&(), Some(namespace))).get(name, &GetParams::default());
        match self.send(request).await {
            Ok(answer) => decode(&answer).map(Some).map_err(|error| CommandError::Failed(format!("{what}: {error}"))),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
            Err(error) => Err(explain(&error, &what)),
        }
    }

    /// Gets the bytes of an entry of a Secret. No error contains a part of them.
    pub async fn secret_entry(&self, name: &str, entry: &str) -> Result<Vec<u8>, CommandError> {
        let what = format!("Secret {name} in namespace {}", self.namespace);
        let secret = self.secret(&self.namespace, name).await?;
        let secret = secret.ok_or_else(|| CommandError::Failed(format!("there is no {what}")))?;
        let found = secret.data.unwrap_or_default().remove(entry).map(|bytes| bytes.0);
        found.ok_or_else(|| CommandError::Failed(format!("{what} has no entry {entry}")))
    }

    /// Gets the bytes of an entry of a ConfigMap, in `data` or `binaryData`.
    pub async fn config_map_entry(&self, name: &str, entry: &str) -> Result<Vec<u8>, CommandError> {
        let map = self.config_map(name).await?;
        let text = map.data.unwrap_or_default().remove(entry).map(String::into_bytes);
        let found = text.or_else(|| map.binary_data.unwrap_or_default().remove(entry).map(|bytes| bytes.0));
        let what = format!("ConfigMap {name} in namespace {}", self.namespace);
        found.ok_or_else(|| CommandError::Failed(format!("{what} has no entry {entry}")))
    }

    /// The names of the entries of a ConfigMap.
    pub async fn config_map_entries(&self, name: &str) -> Result<Vec<String>, CommandError> {
        let map = self.config_map(name).await?;
        let text = map.data.unwrap_or_default().into_keys();
        Ok(text.chain(map.binary_data.unwrap_or_default().into_keys()).collect())
    }

    async fn config_map(&self, name: &str) -> Result<ConfigMap, CommandError> {
        let what = format!("ConfigMap {name} in namespace {}", self.namespace);
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let map = maps.get_opt(name).await.map_err(|error| explain(&error, &what))?;
        map.ok_or_else(|| CommandError::Failed(format!("there is no {what}")))
    }

    /// Lists the events about an object.
    pub async fn events(&self, fetched: &FetchedKey) -> Result<Vec<Event>, CommandError> {
        // Events of a deleted DataKey of the same name stay for an hour.
        let uid = fetched.key.metadata().uid.as_deref().unwrap_or_default();
        let about = format!(
            "involvedObject.kind={},involvedObject.name={},involvedObject.uid={uid}",
            fetched.kind().name,
            fetched.name()
        );
        let path = Event::url_path(&(), Some(&fetched.namespace()));
        let request = Request::new(path).list(&ListParams::default().fields(&about));
        let listed = self.objects(request).await.map_err(|error| explain(&error, "events"))?;
        // Any client can write an Event with a time that the Rust type cannot hold. The others are shown.
        Ok(listed.into_iter().filter_map(|event| serde_json::from_value(event).ok()).collect())
    }

    fn own(&self, kind: &Kind) -> Request {
        objects_of(kind, Some(&self.namespace))
    }

    /// Sends a request and returns the body of the answer.
    ///
    /// It is decoded here, because kube fails a whole list for one object that it cannot decode, and logs the body.
    async fn send(&self, request: Result<http::Request<Vec<u8>>, request::Error>) -> Result<String, kube::Error> {
        self.client.request_text(request.map_err(kube::Error::BuildRequest)?).await
    }
}

/// Requires names that can be parts of a path of the API server: kube sends them as they are.
fn require_names(names: &[&str], what: &str) -> Result<(), CommandError> {
    if names.iter().all(|name| is_subdomain(name)) {
        return Ok(());
    }
    Err(CommandError::Failed(format!("{what}: no object can have such a name")))
}

/// The objects of a kind in one namespace, or in all.
fn objects_of(kind: &Kind, namespace: Option<&str>) -> Request {
    Request::new(match kind.id {
        KindId::DataKey => DataKey::url_path(&(), namespace),
        KindId::DataKeyPair => DataKeyPair::url_path(&(), namespace),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_become_parts_of_a_path() {
        assert_eq!(require_names(&["datakey-system", "keys.v1", "a"], "Lease"), Ok(()));
        for name in ["", "..", "../../../api/v1/secrets?", "a/b", "a%2fb", "a?", "a#", "A", "-a", "a.", "a..b"] {
            assert!(require_names(&["a", name], "Lease").is_err(), "{name}");
        }
    }
}
