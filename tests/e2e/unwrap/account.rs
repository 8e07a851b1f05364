//! A second KMS server, which asks IAM: the workload's role unwraps, another role is refused.

use std::fs;

use aws_sdk_kms::{config::Credentials, types::DataKeySpec};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use testbed::{
    iam::{self, Call},
    kms::{ACCOUNT, Key, KmsServer},
    repository,
};

use super::{
    EXAMPLE, FOREIGN_ROLE, ROLE, SERVE,
    workload::{ORDERS, Workload},
};
use crate::{cluster::Cluster, step};

/// The encryption context of the other role.
const INVOICES: &str = "invoices";

/// The account with its two workloads.
pub struct Account<'a> {
    /// It ends with its value.
    _server: KmsServer,
    /// Has the role with the policy of the documentation.
    pub allowed: Workload<'a>,
    /// Has the same policy for another encryption context.
    refused: Workload<'a>,
}

// === impl Account ===

impl<'a> Account<'a> {
    /// Sets up the account, and starts one workload under each role. Both have the same data key.
    pub async fn start(cluster: &'a Cluster) -> Self {
        step(
            "IAM is enforced: a workload with its role unwraps, one with a role for another encryption context does not",
        );
        let server = KmsServer::start_with_iam(cluster.workdir()).await;
        let key = server.key().await;
        let pin = pin(&server, &key).await;
        let credentials = roles(&server, &key).await;
        let mut workloads = [
            Workload::new(cluster, ROLE, &server, &key).await,
            Workload::new(cluster, FOREIGN_ROLE, &server, &key).await,
        ];
        for (workload, credentials) in workloads.iter_mut().zip(&credentials) {
            // The operator has no access to this KMS server: it writes the Secret from the spec.
            workload.create_key(json!({ "wrappedKeys": [pin] })).await;
            workload.start_as(credentials, "init-container.yaml", &SERVE).await;
        }
        let [allowed, refused] = workloads;
        Self { _server: server, allowed, refused }
    }

    /// Asserts that IAM decides.
    pub async fn decides(&self) {
        self.allowed.decrypts("/", 1).await;
        assert_eq!(self.allowed.calls(), 1);
        self.refused.ends("unwrap", 3).await;
        self.refused.prints("unwrap", "AccessDeniedException").await;
        let containers = self.refused.containers().await;
        assert_eq!(containers[ORDERS].id, None, "the application must not start without its key");
        println!("{}", self.refused.cluster.kubectl(&["get", "pods", "-n", FOREIGN_ROLE]).await.unwrap().trim_end());
    }
}

/// A data key of this server, as a DataKey pins it.
async fn pin(server: &KmsServer, key: &Key) -> Value {
    let issue = server.client().generate_data_key_without_plaintext().key_id(&key.arn).key_spec(DataKeySpec::Aes256);
    let issued = issue.encryption_context("purpose", ORDERS).send().await.unwrap();
    json!({
        "version": 1,
        "request": { "keyId": key.arn, "keySpec": "AES_256", "encryptionContext": { "purpose": ORDERS } },
        "ciphertextBlob": BASE64_STANDARD.encode(issued.ciphertext_blob.unwrap()),
        "keyId": key.arn,
        "issuedAt": "2026-11-23T00:00:00Z",
    })
}

/// Creates and assumes two roles: with the policy of the documentation, and with the same for another encryption context.
async fn roles(server: &KmsServer, key: &Key) -> [Credentials; 2] {
    let policy = fs::read_to_string(repository().join("deploy/samples/consumers/iam/workload.json")).unwrap();
    let policy = policy.replace(EXAMPLE, &key.arn);
    let other = policy.replace(&format!("{ORDERS:?}"), &format!("{INVOICES:?}"));
    assert_ne!(policy, other);
    let call = |service, method, arguments| Call { account: ACCOUNT.to_owned(), service, method, arguments };
    let root = format!("arn:aws:iam::{ACCOUNT}:root");
    let trust = json!({ "Effect": "Allow", "Principal": { "AWS": root }, "Action": "sts:AssumeRole" });
    let trust = json!({ "Version": "2012-10-17", "Statement": [trust] }).to_string();
    let mut calls = Vec::new();
    for (name, policy) in [(ORDERS, policy), (INVOICES, other)] {
        let role = json!({ "RoleName": name, "AssumeRolePolicyDocument": trust });
        calls.push(call("iam", "create_role", role));
        let policy = json!({ "RoleName": name, "PolicyName": "unwrap", "PolicyDocument": policy });
        calls.push(call("iam", "put_role_policy", policy));
        let role = json!({ "RoleArn": format!("arn:aws:iam::{ACCOUNT}:role/{name}"), "RoleSessionName": "e2e" });
        calls.push(call("sts", "assume_role", role));
    }
    let answers = server.call_as_root(&calls).await;
    [2, 5].map(|index| iam::credentials(&answers[index]["Credentials"]))
}
