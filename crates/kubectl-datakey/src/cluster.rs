//! The API server: the only place that talks to it. Everything happens under the user's own credentials.

use std::{error::Error, path::PathBuf, time::Duration};

use clap::Args;
use datakey::{
    api::DataKey,
    secret::{
        decode,
        metadata::{SecretMetadata, WatchedSecret},
    },
    text::error_chain,
};
use k8s_openapi::api::core::v1::{Event, Secret};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{
        ApiResource, DeleteParams, DynamicObject, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions,
        PropagationPolicy,
    },
    config::{KubeConfigOptions, Kubeconfig},
    core::request::Request,
};
use serde_json::Value;

use crate::{
    answer::{Failure, Outcome},
    text::printable,
};

/// Longest wait for one answer of the API server; kube has none of its own.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Who changed a DataKey, in `metadata.managedFields`.
const MANAGER: &str = "kubectl-datakey";

/// Which cluster and namespace, as for kubectl.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct Connection {
    /// The kubeconfig file; without it $KUBECONFIG, else ~/.kube/config, else the service account of the pod.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig; without it the current one.
    #[arg(long, global = true)]
    pub context: Option<String>,

    /// The namespace; without it the context's.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
}

/// A cluster, and the namespace that the user means.
pub struct Cluster {
    client: Client,
    /// The namespace.
    pub namespace: String,
}

/// A `DataKey`: as it was answered, with fields that this plugin may not know, and as the operator understands it.
#[derive(Clone, Debug)]
pub struct Object {
    /// As it was answered.
    pub value: Value,
    /// As the operator understands it.
    pub key: DataKey,
}

/// Several `DataKey`s. One of a form that this plugin does not know must not hide the others.
#[derive(Debug, Default)]
pub struct Found {
    /// Those that were understood.
    pub objects: Vec<Object>,
    /// What to tell of the others.
    pub odd: Vec<String>,
}

// === impl Found ===

impl Found {
    fn of(answered: impl IntoIterator<Item = Result<Object, Failure>>) -> Self {
        let mut found = Self::default();
        for object in answered {
            match object {
                Ok(object) => found.objects.push(object),
                Err(failure) => found.odd.push(failure.to_string()),
            }
        }
        found
    }

    /// Whether all could be looked at.
    pub fn outcome(&self) -> Outcome {
        if self.odd.is_empty() { Outcome::Fine } else { Outcome::Incomplete }
    }
}

// === impl Object ===

impl Object {
    /// Reads a `DataKey` as the API server answers it.
    pub fn parse(value: Value) -> Result<Self, Failure> {
        match serde_json::from_value(value.clone()) {
            Ok(key) => Ok(Self { value, key }),
            Err(error) => {
                let part = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
                let (name, namespace) = (part("name"), part("namespace"));
                Err(Failure::Work(format!(
                    "DataKey {name} in namespace {namespace} is not of a form that this plugin knows ({error}): install the plugin of the \
                     operator's version"
                )))
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.key.name_any()
    }

    /// Its namespace.
    pub fn namespace(&self) -> String {
        self.key.namespace().unwrap_or_default()
    }
}

// === impl Cluster ===

impl Cluster {
    /// Finds the cluster as kubectl does. Nothing is asked yet.
    pub async fn connect(connection: &Connection) -> Result<Self, Failure> {
        let mut config = config(connection).await?;
        config.read_timeout = Some(TIMEOUT);
        let namespace = connection.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config)
            .map_err(|error| Failure::Work(format!("the kubeconfig can't be used: {}", chain(&error))))?;
        Ok(Self { client, namespace })
    }

    /// The `DataKey` of that name in the namespace.
    pub async fn data_key(&self, name: &str) -> Result<Object, Failure> {
        match self.data_keys_in(Some(&self.namespace)).get(name).await {
            Ok(object) => parsed(object),
            Err(error) => Err(failure(&error, &format!("DataKey {name} in namespace {}", self.namespace))),
        }
    }

    /// The `DataKey` of that name in the namespace, where there is one.
    pub async fn find(&self, name: &str) -> Result<Option<Object>, Failure> {
        match self.data_keys_in(Some(&self.namespace)).get_opt(name).await {
            Ok(object) => object.map(parsed).transpose(),
            Err(error) => Err(failure(&error, &format!("DataKey {name} in namespace {}", self.namespace))),
        }
    }

    /// The `DataKey`s of the namespace, or of all.
    pub async fn data_keys(&self, all_namespaces: bool) -> Result<Found, Failure> {
        let namespace = (!all_namespaces).then_some(self.namespace.as_str());
        let listed = self.data_keys_in(namespace).list(&ListParams::default()).await;
        Ok(Found::of(listed.map_err(|error| failure(&error, "DataKeys"))?.items.into_iter().map(parsed)))
    }

    /// The `DataKey` of that name, else all.
    pub async fn selected(&self, name: Option<&str>, all_namespaces: bool) -> Result<Found, Failure> {
        match name {
            Some(name) => Ok(Found { objects: vec![self.data_key(name).await?], odd: Vec::new() }),
            None => self.data_keys(all_namespaces).await,
        }
    }

    /// Changes a `DataKey` by a merge patch, if it still is as `patch` says (`metadata.resourceVersion`).
    pub async fn patch(&self, name: &str, patch: &Value, dry_run: bool) -> Result<Object, Failure> {
        let params = PatchParams { dry_run, field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match self.data_keys_in(Some(&self.namespace)).patch(name, &params, &Patch::Merge(patch)).await {
            Ok(object) => parsed(object),
            Err(kube::Error::Api(status)) if status.is_conflict() => Err(Failure::Work(format!(
                "DataKey {name} was changed meanwhile, and nothing was done: look at it, and try again"
            ))),
            Err(error) => Err(failure(&error, &format!("DataKey {name} in namespace {}", self.namespace))),
        }
    }

    /// Deletes a `DataKey` without its Secret, if it still is as it was read.
    pub async fn orphan(&self, object: &Object) -> Result<(), Failure> {
        let (name, metadata) = (object.name(), &object.key.metadata);
        let (Some(uid), Some(read)) = (metadata.uid.clone(), metadata.resource_version.clone()) else {
            return Err(Failure::Work("the API server's answer has no uid or resourceVersion".to_owned()));
        };
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Orphan),
            preconditions: Some(Preconditions { uid: Some(uid), resource_version: Some(read) }),
            ..DeleteParams::default()
        };
        match self.data_keys_in(Some(&self.namespace)).delete(&name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_conflict() => Err(Failure::Work(format!(
                "DataKey {name} was changed meanwhile, and was not deleted: look at it, and try again"
            ))),
            Err(error) => Err(failure(&error, &format!("DataKey {name} in namespace {}", self.namespace))),
        }
    }

    /// Creates a `DataKey`. One that is there already is left alone.
    pub async fn create(&self, manifest: &Value) -> Result<(), Failure> {
        self.post(manifest, false).await
    }

    /// Has the API server check a `DataKey` as if it were created, whether or not one of that name is there.
    pub async fn would_create(&self, manifest: &Value) -> Result<(), Failure> {
        self.post(manifest, true).await
    }

    async fn post(&self, manifest: &Value, dry_run: bool) -> Result<(), Failure> {
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
        let what = format!("DataKey {name} in namespace {}", self.namespace);
        let object: DynamicObject = serde_json::from_value(manifest.clone())
            .map_err(|error| Failure::Work(format!("{what} is not of a form that can be created: {error}")))?;
        let params = PostParams { dry_run, field_manager: Some(MANAGER.to_owned()) };
        match self.data_keys_in(Some(&self.namespace)).create(&params, &object).await {
            Ok(_) => Ok(()),
            // Everything else is checked before.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(failure(&error, &what)),
        }
    }

    /// The metadata of a Secret.
    pub async fn look_at_secret(&self, namespace: &str, name: &str) -> Result<Option<SecretMetadata>, Failure> {
        let api: Api<WatchedSecret> = Api::namespaced(self.client.clone(), namespace);
        match api.get_opt(name).await {
            Ok(secret) => Ok(secret.map(|secret| secret.metadata)),
            Err(error) => Err(failure(&error, &format!("Secret {name} in namespace {namespace}"))),
        }
    }

    /// A whole Secret. No error repeats what the API server answered: kube logs a body that it cannot decode, so it is decoded
    /// here.
    pub async fn read_secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, Failure> {
        let what = format!("Secret {name} in namespace {namespace}");
        let request = Request::new(Secret::url_path(&(), Some(namespace))).get(name, &GetParams::default());
        let request = request.map_err(|error| Failure::Work(format!("{what}: can't build the request: {error}")))?;
        match self.client.request_text(request).await {
            Ok(answer) => decode(&answer).map(Some).map_err(|error| Failure::Work(format!("{what}: {error}"))),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
            Err(error) => Err(failure(&error, &what)),
        }
    }

    /// The events about a `DataKey` that the API server still has.
    pub async fn events(&self, object: &Object) -> Result<Vec<Event>, Failure> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &object.namespace());
        let about = format!("involvedObject.kind=DataKey,involvedObject.name={}", object.name());
        let listed = events.list(&ListParams::default().fields(&about)).await;
        Ok(listed.map_err(|error| failure(&error, "events"))?.items)
    }

    fn data_keys_in(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<DataKey>(&());
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }
}

async fn config(connection: &Connection) -> Result<Config, Failure> {
    let unusable = |error: &dyn Error| {
        Failure::Work(format!(
            "no way to a cluster: {}; set KUBECONFIG, or name a file by --kubeconfig and a context by --context",
            chain(error)
        ))
    };
    let kubeconfig = match &connection.kubeconfig {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let options = KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
    match kubeconfig {
        Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unusable(&error)),
        // A pod has no kubeconfig. Whoever names one means it.
        Err(error) if connection.kubeconfig.is_some() || connection.context.is_some() => Err(unusable(&error)),
        Err(error) => Config::incluster().map_err(|_| unusable(&error)),
    }
}

fn parsed(object: DynamicObject) -> Result<Object, Failure> {
    match serde_json::to_value(object) {
        Ok(value) => Object::parse(value),
        Err(error) => Err(Failure::Work(format!("can't read the API server's answer: {error}"))),
    }
}

/// What to tell of a request that failed.
fn failure(error: &kube::Error, what: &str) -> Failure {
    Failure::Work(match error {
        kube::Error::Api(status) => {
            let named = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
            let words = printable(&status.message);
            match status.code {
                401 => "the API server does not accept your credentials: log in again, or choose another --context"
                    .to_owned(),
                403 => format!("{what}: you may not: {words}; ask for that right, or choose another -n or --context"),
                404 if named => format!("{what}: there is none; look at kubectl datakey list -A"),
                404 => format!(
                    "{what}: the API server does not know DataKeys; install the definition \
                     (datakey-operator crd | kubectl apply -f -), or choose another --context"
                ),
                _ => format!("{what}: the API server refuses: {words}"),
            }
        }
        kube::Error::Auth(error) => {
            format!(
                "{what}: no credentials for the API server: {}; log in again, or choose another --context",
                chain(error)
            )
        }
        error => format!(
            "{what}: no answer from the API server: {}; check the network, --kubeconfig and --context",
            chain(error)
        ),
    })
}

/// An error and its causes, as a terminal may show them.
pub fn chain(error: &dyn Error) -> String {
    printable(&error_chain(error))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use serde_json::json;

    use super::*;
    use crate::fixtures::{edited, recorded};

    fn told(code: u16, details: Value) -> String {
        let details = serde_json::from_value(details).unwrap();
        let status = Status { code, message: "words\u{1b}[2J".to_owned(), details, ..Status::default() };
        failure(&kube::Error::Api(Box::new(status)), "DataKey orders").to_string()
    }

    #[test]
    fn every_refusal_of_the_api_server_tells_what_to_do() {
        assert!(told(401, json!(null)).contains("log in"));
        assert!(told(403, json!(null)).contains("ask for that right"));
        assert!(told(404, json!({ "name": "orders" })).contains("there is none"));
        assert!(told(404, json!(null)).contains("install the definition"));
        assert!(told(500, json!(null)).contains(r"words\u{1b}[2J"));
    }

    #[test]
    fn fields_that_the_plugin_does_not_know_are_kept() {
        let object = edited(recorded(&[1]), |value| value["spec"]["more"] = json!("x"));
        assert_eq!(object.value["spec"]["more"], "x");
    }

    #[test]
    fn an_object_of_another_form_is_an_error_that_names_it() {
        let mut value = recorded(&[1]).value;
        value["spec"]["keySpec"] = json!("AES_512");
        let error = Object::parse(value).unwrap_err().to_string();
        assert!(error.contains("orders in namespace shop") && error.contains("install the plugin"), "{error}");
    }

    #[test]
    fn an_odd_object_hides_no_other_one_and_is_told() {
        let mut odd = recorded(&[1]).value;
        odd["spec"]["keySpec"] = json!("AES_512");
        let found = Found::of([Object::parse(odd), Ok(recorded(&[1]))]);
        assert_eq!((found.objects.len(), found.odd.len(), found.outcome()), (1, 1, Outcome::Incomplete));
        assert_eq!(Found::of([Ok(recorded(&[1]))]).outcome(), Outcome::Fine);
    }
}
