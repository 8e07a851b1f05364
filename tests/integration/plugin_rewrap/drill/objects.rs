//! The objects of the drill, in several namespaces, and what is known of them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use datakey::api::{DataKey, DataKeyPair, IssuedVersion};
use futures::{StreamExt, stream};
use kube::{ResourceExt, api::ListParams};
use serde_json::{Value, json};
use testbed::kms::Key;

use super::super::{Asked, key_elsewhere, unwrapped};
use crate::harness::{Operator, TestKind, TestNamespace, to_json};

/// How many objects there are, in each of how many namespaces.
pub const OBJECTS: usize = 50;
pub const NAMESPACES: usize = 4;

/// Every so many objects one is a key pair.
const PAIRS: usize = 10;

/// Long enough for all of them on a busy machine.
pub const LONG: Duration = Duration::from_mins(2);

/// The objects of both kinds: their versions by namespace, kind and name.
pub type Records = BTreeMap<(String, &'static str, String), Vec<IssuedVersion>>;

/// The plaintext of each version, where KMS unwraps it: by namespace, kind, name and version.
pub type Unwrapped = BTreeMap<(String, &'static str, String, i32), Option<Vec<u8>>>;

/// The objects in their namespaces, the KMS keys that they are moved from, and the one that they are moved to.
pub struct Drill {
    pub namespaces: Vec<TestNamespace>,
    pub old: [Key; 3],
    pub new: Key,
}

// === impl Drill ===

impl Drill {
    pub async fn new() -> Self {
        let first = TestNamespace::new("drill-0").await;
        let mut namespaces = vec![];
        for number in 1..NAMESPACES {
            let (plane, operator) = (Arc::clone(&first.plane), first.operator_kubeconfig().to_owned());
            let proxy = Arc::clone(&first.proxy);
            namespaces.push(TestNamespace::on_control_plane(&format!("drill-{number}"), plane, operator, proxy).await);
        }
        let old = [first.kms.key().await, first.kms.key().await, first.kms.key().await];
        let new = key_elsewhere(first.kms).await;
        namespaces.insert(0, first);
        Self { namespaces, old, new }
    }

    /// Starts an operator of all its namespaces.
    pub fn operator(&self) -> Operator {
        let flags: Vec<_> = self.namespaces[1..].iter().map(|test| format!("--namespace={}", test.namespace)).collect();
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        self.first().operator_with(&flags, &[])
    }

    /// The first of its namespaces, whose proxy before KMS all share.
    pub fn first(&self) -> &TestNamespace {
        &self.namespaces[0]
    }

    pub fn asked(&self) -> Asked {
        Asked::of(&self.first().proxy)
    }

    /// Creates every object under one of the three KMS keys. Every second one gets another version, some of those under another KMS
    /// key.
    pub async fn issue(&self) {
        for round in 0..2 {
            let objects = self.namespaces.iter().flat_map(|test| (0..OBJECTS).map(move |number| (test, number)));
            let sent = stream::iter(objects).map(async |(test, number)| {
                if number.is_multiple_of(PAIRS) {
                    self.send::<DataKeyPair>(&test.of_kind(), number, round).await;
                } else {
                    self.send::<DataKey>(&test.of_kind(), number, round).await;
                }
            });
            sent.buffer_unordered(16).collect::<()>().await;
            self.ready().await;
        }
    }

    async fn send<K: TestKind>(&self, test: &TestNamespace<K>, number: usize, round: usize) {
        let name = format!("k-{number}");
        if round == 0 {
            let spec = json!({
                "keyId": self.old[number % 3].arn,
                "encryptionContext": { "namespace": test.namespace, "name": name },
            });
            let mut manifest = test.manifest(&name, &spec);
            manifest["metadata"]["labels"] = json!({ "drill": "rewrap" });
            test.try_create(&manifest).await.unwrap();
        } else if number.is_multiple_of(2) {
            let other = if number.is_multiple_of(4) { number } else { number + 1 };
            test.patch(&name, &json!({ "spec": { "version": 2, "keyId": self.old[other % 3].arn } })).await;
        }
    }

    pub async fn ready(&self) {
        for test in &self.namespaces {
            let pairs = OBJECTS.div_ceil(PAIRS);
            test.all_ready(OBJECTS - pairs, LONG).await;
            test.of_kind::<DataKeyPair>().all_ready(pairs, LONG).await;
        }
    }

    pub async fn records(&self) -> Records {
        async fn add<K: TestKind>(records: &mut Records, test: TestNamespace<K>) {
            for key in test.keys().list(&ListParams::default()).await.unwrap().items {
                let place = (test.namespace.clone(), K::KIND.name, key.name_any());
                records.insert(place, key.as_object().record().to_vec());
            }
        }
        let mut records = Records::new();
        for test in &self.namespaces {
            add::<DataKey>(&mut records, test.of_kind()).await;
            add::<DataKeyPair>(&mut records, test.of_kind()).await;
        }
        records
    }

    /// What everything that is written depends on: specs, records, and the data of Secrets.
    pub async fn state(&self) -> BTreeMap<String, Value> {
        async fn add<K: TestKind>(state: &mut BTreeMap<String, Value>, test: TestNamespace<K>) {
            for key in test.keys().list(&ListParams::default()).await.unwrap().items {
                let value = to_json(&key);
                let place = format!("{}/{}/{}", test.namespace, K::KIND.name, key.name_any());
                state.insert(
                    place,
                    json!([value["metadata"]["generation"], value["spec"], value["status"]["versions"]]),
                );
            }
            for secret in test.secrets().list(&ListParams::default()).await.unwrap().items {
                state.insert(format!("{}/{}", test.namespace, secret.name_any()), to_json(&secret.data));
            }
        }
        let mut state = BTreeMap::new();
        for test in &self.namespaces {
            add::<DataKey>(&mut state, test.of_kind()).await;
            add::<DataKeyPair>(&mut state, test.of_kind()).await;
        }
        state
    }

    /// What KMS unwraps every version to; `None` where it does not.
    pub async fn plaintexts(&self, records: &Records) -> Unwrapped {
        let versions = records.iter().flat_map(|(place, record)| record.iter().map(move |issued| (place, issued)));
        stream::iter(versions)
            .map(async |((namespace, kind, name), issued)| {
                let place = (namespace.clone(), *kind, name.clone(), issued.version);
                (place, unwrapped(self.first().kms, issued).await.ok())
            })
            .buffer_unordered(16)
            .collect()
            .await
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        self.first().plane.workdir().file(&format!("drill-{name}"))
    }

    pub async fn set_enabled(&self, is_enabled: bool) {
        let client = self.first().kms.client();
        for Key { id, .. } in &self.old {
            if is_enabled {
                client.enable_key().key_id(id).send().await.unwrap();
            } else {
                client.disable_key().key_id(id).send().await.unwrap();
            }
        }
    }
}

/// The versions that a KMS key wrapped.
pub fn wrapped_by<'a>(records: &'a Records, key: &Key) -> impl Iterator<Item = &'a IssuedVersion> {
    let arn = key.arn.clone();
    records.values().flatten().filter(move |issued| issued.key_id == arn)
}
