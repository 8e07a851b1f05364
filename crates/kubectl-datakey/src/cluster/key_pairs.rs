//! The requests about `DataKeyPair`s. Nothing else of the plugin reads them.

use datakey::{
    api::{DataKeyPair, KeyKind},
    decode::Encoded,
};
use kube::{Resource, api::GetParams, core::request::Request};

use super::{Cluster, errors::explain, require_names};
use crate::output::{CommandError, printable};

// === impl Cluster ===

impl Cluster {
    /// Gets a `DataKeyPair` of the namespace.
    ///
    /// # Errors
    /// Names the object, and repeats no value of its spec.
    pub async fn key_pair(&self, name: &str) -> Result<DataKeyPair, CommandError> {
        let what = format!("DataKeyPair {name} in namespace {}", self.namespace);
        require_names(&[name], &what)?;
        let request = Request::new(self.key_pairs_path()).get(name, &GetParams::default());
        match self.send(request).await {
            Ok(answer) => decode(&answer).map_err(|why| {
                CommandError::Failed(format!(
                    "{what} can't be read ({}): correct it, or install the plugin of the operator's version",
                    printable(&why)
                ))
            }),
            Err(kube::Error::Api(status)) if status.code == 404 => Err(match status.details.as_ref() {
                // The details name the object if only the object is missing, and no object if the kind is unknown.
                Some(details) if details.kind == DataKeyPair::KIND.plural => {
                    CommandError::Failed(format!("there is no {what}; look at kubectl get datakeypairs -A"))
                }
                Some(details) if !details.name.is_empty() => explain(&kube::Error::Api(status), &what),
                _ => CommandError::Failed(format!(
                    "{what}: the API server does not know DataKeyPairs; install the definition \
                     (datakey-operator crd | kubectl apply -f -), or choose another --context"
                )),
            }),
            Err(error) => Err(explain(&error, &what)),
        }
    }

    /// The names of the `DataKeyPair`s of the namespace, by their metadata.
    pub async fn key_pair_names(&self) -> Result<Vec<String>, CommandError> {
        self.names(self.key_pairs_path(), "DataKeyPairs").await
    }

    /// Whether the API server serves `DataKeyPair`s. Every authenticated user may read that.
    pub async fn serves_key_pairs(&self) -> Result<bool, CommandError> {
        match self.client.list_api_group_resources(DataKeyPair::KIND.api_version).await {
            Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == DataKeyPair::KIND.plural)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(explain(&error, "API resources")),
        }
    }

    fn key_pairs_path(&self) -> String {
        DataKeyPair::url_path(&(), Some(&self.namespace))
    }
}

fn decode(answer: &str) -> Result<DataKeyPair, String> {
    let encoded: Encoded = serde_json::from_str(answer).map_err(|error| error.to_string())?;
    encoded.decode().map_err(|unreadable| unreadable.failure().detail.unwrap_or_default())
}
