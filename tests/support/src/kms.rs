//! A local KMS server, and what a workload does with its keys.

use std::{path::PathBuf, time::Duration};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_kms::{
    Client,
    config::Credentials,
    primitives::Blob,
    types::{KeySpec, KeyUsageType},
};

use crate::{
    eventually, free_port,
    process::{Process, Workdir},
    repository, tools,
};

/// The Region and the account of its keys, unless another one is asked for.
pub const REGION: &str = "eu-west-1";

/// The access key ID selects the account.
pub const ACCOUNT: &str = "111122223333";

/// ministack: decrypts for real, checks the encryption context, knows disabled and deleted keys. It has ReEncrypt from
/// `kms_with_reencrypt.py`.
pub struct KmsServer {
    _process: Process,
    port: u16,
}

/// A KMS key of the server.
#[derive(Clone, Debug)]
pub struct Key {
    /// The key ID.
    pub id: String,
    /// The key ARN.
    pub arn: String,
}

// === impl KmsServer ===

impl KmsServer {
    /// Starts one.
    pub async fn start(workdir: &Workdir) -> Self {
        Self::run("kms_with_reencrypt.py", "false", workdir.file("kms.log")).await
    }

    /// Starts one that asks IAM before each request: of its account's root, `ACCOUNT`, and of roles and users made there.
    pub async fn start_with_iam(workdir: &Workdir) -> Self {
        Self::run("kms_with_iam.py", "true", workdir.file("kms-with-iam.log")).await
    }

    async fn run(script: &str, auth: &str, log: PathBuf) -> Self {
        let program = tools().join("kms/bin/python");
        assert!(program.exists(), "the KMS server is missing: run `make tools`");
        let port = free_port();
        let settings = [
            ("GATEWAY_PORT", port.to_string()),
            ("BIND_HOST", "127.0.0.1".into()),
            ("LOG_LEVEL", "WARNING".into()),
            ("AUTH", auth.into()),
            // The folder of the scripts stays as it is.
            ("PYTHONDONTWRITEBYTECODE", "1".into()),
            // It leaves a file with its process ID there.
            ("TMPDIR", log.parent().expect("a folder of the log").display().to_string()),
        ];
        let mut process = Process::start(&program, [repository().join("tests/support").join(script)], settings, &log);
        eventually(Duration::from_mins(1), "the KMS server is ready", async || {
            assert!(process.is_running(), "the KMS server ended:\n{}", process.log());
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        Self { _process: process, port }
    }

    /// Its address, `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A client of a workload or an administrator, in the usual Region and account.
    pub fn client(&self) -> Client {
        self.client_in(REGION, ACCOUNT)
    }

    /// A client in a Region and an account.
    pub fn client_in(&self, region: &str, account: &str) -> Client {
        self.client_with(region, Credentials::new(account, "test", None, None, "testbed"))
    }

    /// A client in a Region, with credentials.
    pub fn client_with(&self, region: &str, credentials: Credentials) -> Client {
        client_at(&format!("http://{}", self.address()), region, credentials)
    }

    /// A new symmetric key.
    pub async fn key(&self) -> Key {
        create_key(&self.client()).await
    }

    /// A new symmetric key with an alias, `alias/NAME`.
    pub async fn key_with_alias(&self, name: &str) -> Key {
        let key = self.key().await;
        let alias = format!("alias/{name}");
        self.client().create_alias().alias_name(alias).target_key_id(&key.id).send().await.expect("create an alias");
        key
    }

    /// A new key that can't issue data keys.
    pub async fn signing_key(&self) -> Key {
        let create = self.client().create_key().key_usage(KeyUsageType::SignVerify).key_spec(KeySpec::Rsa2048);
        let key = create.send().await.expect("create a key").key_metadata.expect("metadata");
        Key { id: key.key_id, arn: key.arn.expect("an ARN") }
    }
}

/// A client of the server or the proxy at a URL, in a Region, with credentials.
pub fn client_at(url: &str, region: &str, credentials: Credentials) -> Client {
    let config = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(region.to_owned()))
        .credentials_provider(credentials)
        .endpoint_url(url)
        .build();
    Client::from_conf(config)
}

/// A new symmetric key where the client works.
pub async fn create_key(client: &Client) -> Key {
    let key = client.create_key().send().await.expect("create a key").key_metadata.expect("metadata");
    Key { id: key.key_id, arn: key.arn.expect("an ARN") }
}

/// Unwraps a data key as a workload does: with the recorded key ARN and an encryption context.
///
/// # Errors
/// The code of KMS's refusal.
pub async fn unwrap_key<'a>(
    client: &Client,
    key_arn: &str,
    blob: &[u8],
    context: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<Vec<u8>, String> {
    use aws_sdk_kms::error::ProvideErrorMetadata;

    let context = context.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let decrypt =
        client.decrypt().key_id(key_arn).ciphertext_blob(Blob::new(blob)).set_encryption_context(Some(context));
    match decrypt.send().await {
        Ok(answer) => Ok(answer.plaintext.expect("a plaintext").into_inner()),
        Err(error) => Err(error.code().unwrap_or("no code").to_owned()),
    }
}

/// The environment in which the operator, or any AWS tool, uses a KMS and an STS at an address with static credentials.
pub fn environment(endpoint: &str) -> [(&'static str, String); 6] {
    [
        ("AWS_ENDPOINT_URL_KMS", endpoint.to_owned()),
        ("AWS_ENDPOINT_URL_STS", endpoint.to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCOUNT.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ]
}
