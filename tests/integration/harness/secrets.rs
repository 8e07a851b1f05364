//! Secrets of a test: what they hold, how other clients change them, and how a workload decrypts them.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_kms::primitives::Blob;
use datakey::secret::Projection;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::Value;
use testbed::{
    eventually,
    kms::{self, Key},
};

use super::{SOON, TestKind, TestNamespace};

/// A Secret's data as a consumer reads it.
pub type Data = BTreeMap<String, Vec<u8>>;

// === impl TestNamespace ===

impl<K: TestKind> TestNamespace<K> {
    /// A Secret that exists.
    pub async fn secret(&self, name: &str) -> Secret {
        self.secrets().get(name).await.unwrap()
    }

    /// The data of a Secret; waits until the Secret exists.
    pub async fn data(&self, name: &str) -> Data {
        let mut data = None;
        eventually(SOON, "the Secret is there", async || {
            data = self.secrets().get_opt(name).await.unwrap().and_then(|secret| secret.data);
            data.is_some()
        })
        .await;
        data.unwrap_or_default().into_iter().map(|(name, value)| (name, value.0)).collect()
    }

    /// Waits until a Secret holds exactly this.
    pub async fn secret_becomes(&self, name: &str, expected: &Data) {
        let mut last = Data::new();
        eventually(SOON, "the Secret holds what it should", async || {
            last = self.data(name).await;
            &last == expected
        })
        .await;
    }

    /// Waits until the Secret of each object holds exactly what the object records.
    pub async fn secrets_hold_the_record(&self, keys: &[K]) {
        let all_hold = async || {
            let secrets = self.secrets().list(&ListParams::default()).await.unwrap().items;
            let held: BTreeMap<_, _> = secrets.iter().map(|secret| (secret.name_any(), secret.data.as_ref())).collect();
            let wanted = |key: &K| Projection::of(key, key.as_object().wanted_version()).unwrap().data;
            let holds = |key: &K| held.get(key.as_object().secret_name()) == Some(&Some(&wanted(key)));
            keys.iter().all(holds)
        };
        let what = format!("{} Secrets hold what is recorded", keys.len());
        eventually(SOON, &what, all_hold).await;
    }

    /// Creates a Secret as a cluster admin.
    pub async fn create_secret(&self, secret: &Secret) -> Secret {
        self.secrets().create(&PostParams::default(), secret).await.unwrap()
    }

    /// Edits a Secret by a merge patch, under a field manager of a user.
    pub async fn edit_secret(&self, name: &str, patch: &Value) -> Secret {
        let params = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
        self.secrets().patch(name, &params, &Patch::Merge(patch)).await.unwrap()
    }

    /// Deletes a Secret, unless garbage collection was faster.
    pub async fn delete_secret(&self, name: &str) {
        match self.secrets().delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            deleted => drop(deleted.unwrap()),
        }
    }

    /// Decrypts a version of a Secret as a workload does, with the key ID and the encryption context of the Secret. The suffix
    /// is empty for the current version and `.vN` for version N.
    pub async fn decrypt(&self, data: &Data, suffix: &str) -> Vec<u8> {
        let context: BTreeMap<String, String> =
            serde_json::from_slice(&data[&format!("encryptionContext{suffix}")]).unwrap();
        self.decrypt_with_context(data, suffix, &context).await.unwrap()
    }

    /// The same with another encryption context; an error where KMS refuses.
    pub async fn decrypt_with_context(
        &self,
        data: &Data,
        suffix: &str,
        context: &BTreeMap<String, String>,
    ) -> Result<Vec<u8>, String> {
        let arn = text(data, &format!("keyId{suffix}"));
        let region = arn.split(':').nth(3).unwrap();
        let account = arn.split(':').nth(4).unwrap();
        let client = self.kms.client_in(region, account);
        kms::unwrap_key(&client, &arn, &data[&format!("ciphertextBlob{suffix}")], context).await
    }

    /// A Secret after its version 1 was moved to another KMS key, with the same encryption context: version 2 is a rewrap of
    /// version 1, and the current version.
    pub async fn rewrapped(&self, data: &Data, key: &Key) -> Data {
        let context: HashMap<String, String> = serde_json::from_slice(&data["encryptionContext.v1"]).unwrap();
        let plaintext = Blob::new(self.decrypt(data, ".v1").await);
        let encrypt = self.kms.client().encrypt().key_id(&key.arn).plaintext(plaintext);
        let wrapped = encrypt.set_encryption_context(Some(context)).send().await.unwrap();
        let mut of_second: Data = data
            .iter()
            .filter_map(|(entry, value)| Some((entry.strip_suffix(".v1")?.to_owned(), value.clone())))
            .collect();
        of_second.insert("ciphertextBlob".to_owned(), wrapped.ciphertext_blob.unwrap().into_inner());
        of_second.insert("keyId".to_owned(), key.arn.clone().into());
        of_second.insert("rewrapOf".to_owned(), b"1".to_vec());
        let mut both = data.clone();
        both.extend(of_second.iter().map(|(entry, value)| (format!("{entry}.v2"), value.clone())));
        both.extend(of_second);
        both.insert("version".to_owned(), b"2".to_vec());
        both
    }
}

/// The text of an entry of a Secret.
pub fn text(data: &Data, entry: &str) -> String {
    String::from_utf8(data[entry].clone()).unwrap()
}

/// A Secret as a backup tool restores it: without uid, owner, managed fields and times.
pub fn restored(secret: &Secret) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: secret.metadata.name.clone(),
            namespace: secret.metadata.namespace.clone(),
            labels: secret.metadata.labels.clone(),
            annotations: secret.metadata.annotations.clone(),
            ..ObjectMeta::default()
        },
        ..secret.clone()
    }
}
