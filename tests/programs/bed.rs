//! What each test has: a KMS server, issued versions, the mounted Secret, and `datakey-unwrap` with a folder in memory.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_sdk_kms::{
    primitives::Blob,
    types::{DataKeyPairSpec, DataKeySpec},
};
use datakey::{
    api::{
        DataKey, DataKeyPair, IssuedVersion, KeyKind, KeyPairSpec, KeyRequest, KeySpec, Rest, RewrapOf,
        truncate_to_seconds,
    },
    secret::Projection,
};
use k8s_openapi::{ByteString, jiff::Timestamp};
use serde_json::json;
use testbed::{
    commands, eventually,
    kms::{self, KmsServer},
    mount::Mount,
    process::{Process, Workdir},
    proxy::KmsProxy,
};
use tokio::process::Command;

use crate::Data;

/// Longest wait for what a program does on a busy machine.
pub const SOON: Duration = Duration::from_mins(1);

/// The server, the issued versions of one DataKey or DataKeyPair, and its Secret.
pub struct Bed {
    /// For files that may be on a disk.
    pub workdir: Workdir,
    memory: Workdir,
    kms: KmsServer,
    proxy: KmsProxy,
    request: KeyRequest,
    /// The KMS keys that may have wrapped a version.
    trusted: Vec<String>,
    versions: Vec<IssuedVersion>,
    secret: Mount,
}

// === impl Bed ===

impl Bed {
    /// Starts a KMS server, issues version 1 and mounts it: a key pair of this kind, else a data key for AES-256.
    pub async fn start(purpose: &str, pair: Option<KeyPairSpec>) -> Self {
        let workdir = Workdir::new(purpose);
        let memory = Workdir::in_memory(purpose);
        // Programs run as users of their own.
        fs::set_permissions(memory.path(), Permissions::from_mode(0o711)).unwrap();
        fs::create_dir(memory.file("keys")).unwrap();
        let kms = KmsServer::start(&workdir).await;
        let proxy = KmsProxy::start(kms.address()).await;
        let request = KeyRequest {
            key_id: kms.key().await.arn,
            key_spec: pair.is_none().then_some(KeySpec::Aes256),
            number_of_bytes: None,
            key_pair_spec: pair,
            encryption_context: Some([("purpose".to_owned(), purpose.to_owned())].into()),
            region: None,
            rest: Rest::new(),
        };
        let secret = Mount::new(&workdir.file("secret"));
        let trusted = vec![request.key_id.clone()];
        let mut bed = Self { workdir, memory, kms, proxy, request, trusted, versions: Vec::new(), secret };
        bed.rotate().await;
        bed
    }

    /// Issues the next version, and shows it in the mounted Secret.
    pub async fn rotate(&mut self) {
        let issued = self.issue(self.next_version()).await;
        self.show(issued);
    }

    /// Has KMS wrap the key of version 1 once more, under another KMS key, shows it as the next version, and disables the first KMS key.
    pub async fn move_away(&mut self) {
        let (client, first) = (self.kms.client(), self.versions[0].clone());
        let to = self.kms.key().await;
        let context = self.request.encryption_context.clone().map(|context| context.into_iter().collect());
        let call =
            client.re_encrypt().ciphertext_blob(Blob::new(&*first.ciphertext_blob.0)).source_key_id(&first.key_id);
        let call =
            call.set_source_encryption_context(Clone::clone(&context)).set_destination_encryption_context(context);
        let answer = call.destination_key_id(&to.arn).send().await.unwrap();
        self.request.key_id.clone_from(&to.arn);
        self.trusted.push(to.arn.clone());
        let rewrap = IssuedVersion {
            version: self.next_version(),
            request: self.request.clone(),
            rewrap_of: Some(RewrapOf { version: 1, request_id: None, rest: Rest::new() }),
            ciphertext_blob: ByteString(answer.ciphertext_blob.unwrap().into_inner()),
            key_id: to.arn,
            ..first.clone()
        };
        self.show(rewrap);
        client.disable_key().key_id(first.key_id).send().await.unwrap();
    }

    fn next_version(&self) -> i32 {
        i32::try_from(self.versions.len()).unwrap() + 1
    }

    /// Shows one more version in the mounted Secret, as the current one.
    fn show(&mut self, issued: IssuedVersion) {
        let version = issued.version;
        self.versions.push(issued);
        let data = match self.request.key_pair_spec {
            Some(_) => self.project::<DataKeyPair>(version),
            None => self.project::<DataKey>(version),
        };
        self.secret.show(&data);
    }

    async fn issue(&self, version: i32) -> IssuedVersion {
        let client = self.kms.client();
        let context = self.request.encryption_context.clone().map(|context| context.into_iter().collect());
        let (blob, public_key): (Blob, Option<Blob>) = if let Some(spec) = self.request.key_pair_spec {
            let call = client.generate_data_key_pair_without_plaintext().key_id(&self.request.key_id);
            let call = call.set_encryption_context(context).key_pair_spec(DataKeyPairSpec::from(<&str>::from(spec)));
            let answer = call.send().await.unwrap();
            (answer.private_key_ciphertext_blob.unwrap(), answer.public_key)
        } else {
            let call = client.generate_data_key_without_plaintext().key_id(&self.request.key_id);
            let call = call.key_spec(DataKeySpec::Aes256);
            (call.set_encryption_context(context).send().await.unwrap().ciphertext_blob.unwrap(), None)
        };
        IssuedVersion {
            version,
            request: self.request.clone(),
            as_written: None,
            rewrap_of: None,
            class: None,
            ciphertext_blob: ByteString(blob.into_inner()),
            public_key: public_key.map(|key| ByteString(key.into_inner())),
            key_id: self.request.key_id.clone(),
            key_material_id: None,
            issued_at: truncate_to_seconds(Timestamp::now()),
            request_id: None,
            rest: Rest::new(),
        }
    }

    /// The Secret, as the operator writes it.
    fn project<K: KeyKind>(&self, current: i32) -> Data {
        let mut spec = json!(self.request);
        spec["version"] = json!(current);
        let object = json!({
            "apiVersion": K::KIND.api_version,
            "kind": K::KIND.name,
            "metadata": { "name": "orders", "namespace": "shop" },
            "spec": spec,
            "status": { "versions": self.versions },
        });
        let object: K = serde_json::from_value(object).unwrap();
        let data = Projection::of(object.as_object(), current).unwrap().data;
        data.into_iter().map(|(entry, ByteString(value))| (entry, value)).collect()
    }

    /// The public key of a version, in DER.
    pub fn public_key(&self, version: usize) -> &[u8] {
        &self.versions[version - 1].public_key.as_ref().unwrap().0
    }

    /// The folder of the key files.
    pub fn keys(&self) -> PathBuf {
        self.memory.file("keys")
    }

    /// A key file by its name.
    pub fn key(&self, name: &str) -> String {
        self.keys().join(name).display().to_string()
    }

    /// The arguments that each command begins with.
    fn arguments(&self, command: &str) -> Vec<String> {
        let context = &self.request.encryption_context.as_ref().unwrap()["purpose"];
        let trust = self.trusted.iter().map(|arn| format!("--trust={arn} purpose={context}"));
        let material = match self.request.key_pair_spec {
            Some(pair) => ["--key-pair-spec", pair.into()],
            None => ["--key-spec", "AES_256"],
        };
        let secret = self.secret.path().display().to_string();
        let first = [command, "--from", &secret, "--endpoint-url", &self.proxy.url()];
        first.into_iter().chain(material).map(str::to_owned).chain(trust).collect()
    }

    fn environment(&self) -> impl Iterator<Item = (&'static str, String)> {
        kms::environment(&self.proxy.url()).into_iter()
    }

    /// `datakey-unwrap file` into the folder of the key files, with further flags.
    pub async fn file(&self, flags: &[&str]) {
        let mut command = Command::new(testbed::unwrap());
        command.env_clear().envs(self.environment()).args(self.arguments("file"));
        commands::run(command.args(["--to", &self.key("")]).args(flags)).await.unwrap();
    }

    /// `datakey-unwrap watch`, once the key files are there.
    pub async fn watch(&self, flags: &[&str]) -> Process {
        let flags = ["--to".to_owned(), self.key("")].into_iter().chain(flags.iter().map(|&flag| flag.to_owned()));
        let arguments = self.arguments("watch").into_iter().chain(flags);
        let mut watch =
            Process::start(&testbed::unwrap(), arguments, self.environment(), &self.workdir.file("watch.log"));
        eventually(SOON, "datakey-unwrap ready succeeds", async || {
            assert!(watch.is_running(), "{}", watch.log());
            let mut ready = Command::new(testbed::unwrap());
            commands::run(ready.env_clear().args(["ready", "--to", &self.key("")])).await.is_ok()
        })
        .await;
        watch
    }

    /// Waits until the key files show a version as the current one.
    pub async fn shows(&self, version: &str) {
        let file = self.key("version");
        eventually(SOON, "the key files show another version", async || {
            fs::read_to_string(&file).is_ok_and(|found| found.trim() == version)
        })
        .await;
    }

    /// Runs a program under `datakey-unwrap exec`: what it prints, or what it says is wrong.
    pub async fn exec(&self, format: &str, program: &Path, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(testbed::unwrap());
        command.env_clear().envs(self.environment()).args(self.arguments("exec"));
        commands::run(command.args(["--format", format, "--"]).arg(program).args(arguments)).await
    }
}
