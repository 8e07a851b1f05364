//! The requests of `check` and `orphans`: about the definition, the operator, rights, and Secrets without a `DataKey`.

use datakey::{
    api::{DataKey, KINDS, KeyKind as _, Kind},
    names::GROUP,
};
use futures::{AsyncRead, AsyncReadExt};
use k8s_openapi::api::{
    apps::v1::Deployment,
    authorization::v1::{
        ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
        SubjectAccessReviewSpec,
    },
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Secret, Service},
};
use kube::{
    Api, Resource,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams},
    core::request::{self, Request},
};
use serde_json::Value;

use super::{Cluster, answer, errors::explain, require_names};
use crate::output::{CommandError, printable};

/// What the Deployment and the Service of the operator are selected by.
const OPERATOR: &str = "app.kubernetes.io/name=datakey-operator";

/// The largest answer that is read as metrics, in bytes. The operator's take less than one MiB, and another program can answer.
const MAX_METRICS: u64 = 8 * 1024 * 1024;

/// The name of the definition of a resource.
pub fn definition_name(plural: &str) -> String {
    format!("{plural}.{GROUP}")
}

/// A right of the user.
#[derive(Clone, Copy, Debug)]
pub struct Right {
    /// The verb.
    pub verb: &'static str,
    /// The API group.
    pub group: &'static str,
    /// The resource, with the subresource after a slash.
    pub resource: &'static str,
}

/// The account of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// A Secret of one of the operator's types, without its data. Only what is used is decoded: a time that no Rust type can hold must not
/// hide the others.
#[derive(Clone, Debug)]
pub struct ListedSecret {
    /// The kind that has Secrets of its type.
    pub kind: &'static Kind,
    /// Its metadata.
    pub metadata: Value,
}

// === impl Right ===

impl Right {
    fn attributes(self, namespace: Option<&str>) -> ResourceAttributes {
        let (resource, subresource) = match self.resource.split_once('/') {
            None => (self.resource, None),
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        };
        ResourceAttributes {
            verb: Some(self.verb.to_owned()),
            group: Some(self.group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource,
            namespace: namespace.map(str::to_owned),
            ..ResourceAttributes::default()
        }
    }
}

// === impl ServiceAccount ===

impl ServiceAccount {
    /// The name of the user (Kubernetes documentation, "Authenticating").
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    /// The groups that each account is in.
    fn groups(&self) -> Vec<String> {
        let own = format!("system:serviceaccounts:{}", self.namespace);
        vec!["system:serviceaccounts".to_owned(), own, "system:authenticated".to_owned()]
    }
}

// === impl Cluster ===

impl Cluster {
    /// Gets the definition of a resource, or `None` if it does not exist.
    pub async fn definition(&self, plural: &str) -> Result<Option<Value>, CommandError> {
        let name = definition_name(plural);
        let definitions = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &ApiResource::from_gvk(&definitions));
        match api.get_opt(&name).await {
            Ok(object) => Ok(object.map(|object| object.data)),
            Err(error) => Err(explain(&error, &format!("CustomResourceDefinition {name}"))),
        }
    }

    /// The versions of the API group that the API server serves.
    pub async fn served_versions(&self) -> Result<Vec<String>, CommandError> {
        let groups = self.client.list_api_groups().await.map_err(|error| explain(&error, "API groups"))?;
        let group = groups.groups.into_iter().find(|group| group.name == GROUP);
        Ok(group.into_iter().flat_map(|group| group.versions).map(|version| version.version).collect())
    }

    /// Whether the API server serves a resource. Every authenticated user may read that.
    pub async fn serves(&self, plural: &str) -> Result<bool, CommandError> {
        // All kinds have one version.
        match self.client.list_api_group_resources(DataKey::KIND.api_version).await {
            Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == plural)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(explain(&error, "API resources")),
        }
    }

    /// Lists the Deployments of the operator, in one namespace or in all.
    pub async fn operators(&self, namespace: Option<&str>) -> Result<Vec<Deployment>, CommandError> {
        let request = Request::new(Deployment::url_path(&(), namespace)).list(&ListParams::default().labels(OPERATOR));
        let found = self.objects(request).await.map_err(|error| explain(&error, "Deployments of the operator"))?;
        // The API server validates Deployments, so one that cannot be decoded here is none that it runs.
        Ok(found.into_iter().filter_map(|object| serde_json::from_value(object).ok()).collect())
    }

    /// Gets a Lease, or `None` if it does not exist.
    pub async fn lease(&self, namespace: &str, name: &str) -> Result<Option<Lease>, CommandError> {
        let what = format!("Lease {name} in namespace {namespace}");
        // Both come from the flags of a Deployment, and become parts of a path.
        require_names(&[namespace, name], &what)?;
        let api: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        api.get_opt(name).await.map_err(|error| explain(&error, &what))
    }

    /// Whether the user has a right, in one namespace or in all.
    pub async fn may(&self, right: Right, namespace: Option<&str>) -> Result<bool, CommandError> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(right.attributes(namespace)),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| explain(&error, "SelfSubjectAccessReview"))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Whether an account has a right in all namespaces, or on what is in none. Few users may ask that of another one.
    pub async fn account_may(&self, account: &ServiceAccount, right: Right) -> Result<bool, CommandError> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                resource_attributes: Some(right.attributes(None)),
                user: Some(account.user()),
                groups: Some(account.groups()),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| explain(&error, "SubjectAccessReview"))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// The metrics of the operator in this namespace, through its Service; `None` if there is no such Service.
    pub async fn operator_metrics(&self, namespace: &str) -> Result<Option<String>, CommandError> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let listed = services.list(&ListParams::default().labels(OPERATOR)).await;
        let listed = listed.map_err(|error| explain(&error, &format!("Services in namespace {namespace}")))?;
        let has_metrics = |service: &&Service| {
            let mut ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
            ports.any(|port| port.name.as_deref() == Some("metrics"))
        };
        let Some(name) = listed.items.iter().find(has_metrics).and_then(|service| service.metadata.name.as_deref())
        else {
            return Ok(None);
        };
        let what = format!("metrics of Service {name} in namespace {namespace}");
        let path = format!("/api/v1/namespaces/{namespace}/services/{name}:metrics/proxy/metrics");
        let request = http::Request::get(path).body(Vec::new());
        let request =
            request.map_err(|error| CommandError::Failed(format!("{what}: can't build the request: {error}")))?;
        let answer = self.client.request_stream(request).await.map_err(|error| explain(&error, &what))?;
        text_of(answer, MAX_METRICS)
            .await
            .map(Some)
            .map_err(|why| CommandError::Failed(format!("{what}: {}", printable(&why))))
    }

    /// The names of the Secrets of the namespace, by their metadata.
    pub async fn secret_names(&self) -> Result<Vec<String>, CommandError> {
        self.names(Secret::url_path(&(), Some(&self.namespace)), "Secrets").await
    }

    /// The names of the ConfigMaps of the namespace, by their metadata.
    pub async fn config_map_names(&self) -> Result<Vec<String>, CommandError> {
        self.names(ConfigMap::url_path(&(), Some(&self.namespace)), "ConfigMaps").await
    }

    /// The names of all namespaces.
    pub async fn namespaces(&self) -> Result<Vec<String>, CommandError> {
        self.names(Namespace::url_path(&(), None), "Namespaces").await
    }

    /// Lists the Secrets of the operator's types, without their data, in the namespace or in all.
    pub async fn wrapped_keys(&self, all_namespaces: bool) -> Result<Vec<ListedSecret>, CommandError> {
        let namespace = (!all_namespaces).then_some(self.namespace.as_str());
        let mut secrets = Vec::new();
        for kind in KINDS {
            let params = ListParams::default().fields(&format!("type={}", kind.secret_type));
            let request = Request::new(Secret::url_path(&(), namespace)).list_metadata(&params);
            let found = self.objects(request).await.map_err(|error| explain(&error, "Secrets"))?;
            let metadata = found.into_iter().map(|mut secret| secret["metadata"].take());
            secrets.extend(metadata.map(|metadata| ListedSecret { kind, metadata }));
        }
        Ok(secrets)
    }

    pub(super) async fn names(&self, path: String, what: &str) -> Result<Vec<String>, CommandError> {
        let request = Request::new(path).list_metadata(&ListParams::default());
        let found = self.objects(request).await.map_err(|error| explain(&error, what))?;
        let name = |object: Value| object["metadata"]["name"].as_str().map(str::to_owned);
        Ok(found.into_iter().filter_map(name).collect())
    }

    /// The objects of a list that are JSON of a usual depth.
    pub(super) async fn objects(
        &self,
        request: Result<http::Request<Vec<u8>>, request::Error>,
    ) -> Result<Vec<Value>, kube::Error> {
        let list = self.send(request).await?;
        Ok(answer::items(&list)?.iter().filter_map(|item| answer::object(item.get()).ok()).collect())
    }
}

/// Reads a text of at most this many bytes.
async fn text_of(answer: impl AsyncRead, limit: u64) -> Result<String, String> {
    let mut answer = Box::pin(answer).take(limit + 1);
    let mut bytes = Vec::new();
    answer.read_to_end(&mut bytes).await.map_err(|error| format!("the answer ended early: {error}"))?;
    if bytes.len() as u64 > limit {
        return Err(format!("the answer is longer than {limit} bytes, so it is not the operator's"));
    }
    String::from_utf8(bytes).map_err(|_| "the answer is no text, so it is not the operator's".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subresource_is_an_attribute_of_its_own() {
        let attributes = |resource| Right { verb: "patch", group: GROUP, resource }.attributes(Some("shop"));
        let status = attributes("datakeyclasses/status");
        assert_eq!(
            (status.resource.as_deref(), status.subresource.as_deref()),
            (Some("datakeyclasses"), Some("status"))
        );
        assert_eq!(attributes("secrets").subresource, None);
    }

    #[tokio::test]
    async fn endless_answer_is_not_read_to_its_end() {
        assert_eq!(text_of(&b"datakey_leader 1"[..], 16).await.as_deref(), Ok("datakey_leader 1"));
        assert!(text_of(&b"datakey_leader 10"[..], 16).await.unwrap_err().contains("longer than 16 bytes"));
        assert!(text_of(futures::io::repeat(b'x'), 16).await.is_err());
    }
}
