//! Recorded objects of an earlier operator, created in a namespace of this run.

use datakey::{
    api::DataKey,
    names::{FIELD_MANAGER, SECRET_TYPE},
    secret::Projection,
};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use serde_json::{Value, json};
use testbed::{eventually, proxy::FAILING, repository};

use crate::harness::{SOON, TestNamespace, to_json};

/// What an earlier operator left: a `DataKey`, and the Secret of its name where there is one.
pub struct Recorded {
    pub name: String,
    pub key: Value,
    pub secret: Option<Value>,
}

/// The same in a namespace of this run.
pub struct Loaded {
    pub name: String,
    pub key: DataKey,
    pub secret: Option<Secret>,
    /// Whether the earlier operator had nothing more to do.
    pub is_settled: bool,
}

// === impl Recorded ===

impl Recorded {
    /// All of a folder, by name.
    pub fn all(folder: &str) -> Vec<Self> {
        let files = std::fs::read_dir(repository().join(folder)).unwrap().map(|file| file.unwrap().path());
        let mut all: Vec<_> = files
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .map(|path| {
                let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                let secret = file["secret"].take();
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                Self { name, key: file["dataKey"].take(), secret: (!secret.is_null()).then_some(secret) }
            })
            .collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// The condition `Ready`.
    pub fn ready(&self) -> &Value {
        let conditions = self.key["status"]["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == "Ready").unwrap()
    }

    /// Whether the status is about the current spec.
    fn is_observed(&self) -> bool {
        self.key["status"]["observedGeneration"] == self.key["metadata"]["generation"]
    }

    fn is_settled(&self) -> bool {
        self.is_observed() && self.ready()["status"] == "True" && self.secret.is_some()
    }

    /// Creates the same objects. The server gives them new uids, revisions and generations, so these are translated.
    pub async fn load(&self, test: &TestNamespace) -> Loaded {
        let metadata = &self.key["metadata"];
        let mut manifest = test.manifest(&self.name, &self.key["spec"]);
        for field in ["labels", "annotations", "finalizers"] {
            manifest["metadata"][field] = metadata[field].clone();
        }
        let created = test.try_create(&manifest).await.unwrap();
        let secret = match &self.secret {
            Some(secret) => Some(create(test, secret, &created).await),
            None => None,
        };
        let mut status = self.key["status"].clone();
        let generation = if self.is_observed() { created.metadata.generation.unwrap() } else { -1 };
        status["observedGeneration"] = json!(generation);
        for condition in status["conditions"].as_array_mut().unwrap() {
            condition["observedGeneration"] = json!(generation);
        }
        if let (Some(before), Some(now)) = (&self.secret, &secret) {
            for field in ["uid", "resourceVersion"] {
                if status["secret"][field] == before["metadata"][field] {
                    status["secret"][field] = to_json(now)["metadata"][field].clone();
                }
            }
        }
        let key = test.try_patch_status(&self.name, &status).await.unwrap();
        assert_eq!(to_json(&key)["status"]["versions"], self.key["status"]["versions"], "{}", self.name);
        Loaded { name: self.name.clone(), key, secret, is_settled: self.is_settled() }
    }
}

/// Creates a recorded Secret with its field managers; its owners are the new objects of the same names.
async fn create(test: &TestNamespace, recorded: &Value, key: &DataKey) -> Secret {
    let mut secret: Secret = serde_json::from_value(recorded.clone()).unwrap();
    let metadata = &mut secret.metadata;
    let owns_data = |entry: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:data").is_some())
    };
    let writer = metadata.managed_fields.iter().flatten().find(owns_data).and_then(|entry| entry.manager.clone());
    for owner in metadata.owner_references.iter_mut().flatten() {
        owner.uid = if owner.kind == "DataKey" {
            assert_eq!(owner.name, key.name_any());
            key.uid().unwrap()
        } else {
            let maps: Api<ConfigMap> = Api::namespaced(test.client.clone(), &test.namespace);
            let metadata = ObjectMeta { name: Some(owner.name.clone()), ..ObjectMeta::default() };
            let map = ConfigMap { metadata, ..ConfigMap::default() };
            maps.create(&PostParams::default(), &map).await.unwrap().uid().unwrap()
        };
    }
    (metadata.uid, metadata.resource_version, metadata.creation_timestamp) = (None, None, None);
    metadata.namespace = Some(test.namespace.clone());
    let params =
        PostParams { field_manager: Some(writer.unwrap_or_else(|| FIELD_MANAGER.to_owned())), ..PostParams::default() };
    test.secrets().create(&params, &secret).await.unwrap()
}

// === impl Loaded ===

impl Loaded {
    /// Whether the version that the spec wants is not recorded: only then may KMS be asked.
    fn wants_a_data_key(&self) -> bool {
        self.key.recorded_version(self.key.wanted_version()).is_none()
    }

    fn is_failing(&self) -> bool {
        self.key.spec.key_id.as_deref().is_some_and(|key_id| key_id.starts_with(FAILING))
            || self.secret.as_ref().is_some_and(is_foreign)
    }

    /// Waits until the current operator has taken the object over, and asserts that nothing was lost.
    pub async fn is_taken_over(&self, test: &TestNamespace) {
        let name = &self.name;
        let key = if self.is_failing() {
            eventually(SOON, &format!("{name} is handled"), async || {
                let status = test.get(name).await.status.unwrap();
                let is_current = status.observed_generation == self.key.metadata.generation;
                is_current && status.conditions.iter().any(|ready| ready.type_ == "Ready" && ready.status == "False")
            })
            .await;
            test.get(name).await
        } else {
            test.ready(name).await
        };
        let (before, after) = (self.key.record(), key.record());
        assert_eq!(before, &after[..before.len()], "{name}: the record");
        assert_eq!(after.len() - before.len(), usize::from(self.wants_a_data_key() && !self.is_failing()), "{name}");

        let secret = test.secrets().get_opt(key.secret_name()).await.unwrap();
        match (&self.secret, secret) {
            (None, None) => assert!(self.is_failing(), "{name}: no Secret"),
            (None, Some(secret)) => {
                assert_eq!(secret.data, Projection::of(&key, key.wanted_version()).map(|wanted| wanted.data), "{name}");
            }
            (Some(_), None) => panic!("{name}: the Secret is gone"),
            (Some(before), Some(after)) => {
                assert_eq!(before.uid(), after.uid(), "{name}");
                assert_eq!(before.owner_references(), after.owner_references(), "{name}: owner references");
                if !self.wants_a_data_key() || self.is_failing() {
                    assert_eq!(before.data, after.data, "{name}: bytes");
                }
                let after = after.data.unwrap_or_default();
                for (entry, bytes) in before.data.iter().flatten().filter(|(entry, _)| entry.contains(".v")) {
                    assert_eq!(after.get(entry), Some(bytes), "{name}: {entry}");
                }
            }
        }
    }
}

fn is_foreign(secret: &Secret) -> bool {
    secret.type_.as_deref() != Some(SECRET_TYPE)
}
