//! `demo` shows the operator at work against real servers and checks every step; `dev` starts the same and stays.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use sha2::{Digest, Sha256};
use testbed::{
    asset,
    control_plane::ControlPlane,
    eventually,
    kms::{self, KmsServer},
    process::Process,
    proxy::KmsProxy,
    repository,
};

const NAMESPACE: &str = "demo";
const ALIAS: &str = "datakey-samples";

/// Everything that runs.
struct Playground {
    operator: Process,
    proxy: KmsProxy,
    kms: KmsServer,
    plane: ControlPlane,
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = std::env::args().nth(1).unwrap_or_default();
    let run = async {
        match command.as_str() {
            "demo" => demo().await,
            "dev" => dev().await,
            _ => Err("say demo or dev".to_owned()),
        }
    };
    let result = tokio::select! {
        result = run => result,
        _ = tokio::signal::ctrl_c() => if command == "dev" { Ok(()) } else { Err("interrupted".to_owned()) },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{command} failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn dev() -> Result<(), String> {
    let playground = Playground::start().await?;
    let Playground { plane, kms, operator, .. } = &playground;
    let kubectl = asset("kubectl").and_then(|path| path.parent().map(|folder| folder.display().to_string()));
    println!("\nThe operator watches every namespace. In another terminal:\n");
    println!("  export KUBECONFIG={}", plane.admin_kubeconfig().display());
    if let Some(folder) = kubectl {
        println!("  export PATH={folder}:$PATH");
    }
    println!("  kubectl apply -n {NAMESPACE} -f {}", repository().join("deploy/samples").display());
    println!("\nKMS: http://{} (account {}, {}), alias/{ALIAS}", kms.address(), kms::ACCOUNT, kms::REGION);
    println!("Operator: process {}, log {}", operator.pid(), plane.workdir().file("operator.log").display());
    println!("\nCtrl-C ends all of it.");
    std::future::pending().await
}

async fn demo() -> Result<(), String> {
    let playground = Playground::start().await?;
    let Playground { plane, kms, proxy, operator } = &playground;
    let samples = repository().join("deploy/samples").display().to_string();

    step("DataKeys are applied, and are ready when their Secrets are there");
    shell(plane, &["apply", "-n", NAMESPACE, "-f", &samples]).await?;
    let wait = ["wait", "-n", NAMESPACE, "--for=condition=Ready", "datakeys", "--all", "--timeout=60s"];
    shell(plane, &wait).await.map_err(|error| format!("{error}\n{}", operator.log()))?;
    shell(plane, &["get", "datakeys", "-n", NAMESPACE, "-o", "wide"]).await?;

    step("The Secret holds the wrapped data key, and how to unwrap it");
    shell(plane, &["describe", "secret", "orders", "-n", NAMESPACE]).await?;

    step("A consumer with kms:Decrypt unwraps it; here only length and fingerprint are shown");
    let secrets: Api<Secret> = Api::namespaced(plane.admin().await, NAMESPACE);
    let held = read(&secrets, "orders").await?;
    let context: BTreeMap<String, String> =
        serde_json::from_slice(&held["encryptionContext"]).map_err(|error| error.to_string())?;
    let arn = String::from_utf8_lossy(&held["keyId"]).into_owned();
    let plaintext = kms::unwrap_key(&kms.client(), &arn, &held["ciphertextBlob"], &context).await?;
    println!(
        "{} bytes, SHA-256 {:.16}...",
        plaintext.len(),
        base16ct::lower::encode_string(&Sha256::digest(&plaintext))
    );
    check(plaintext.len() == 32, "an AES_256 data key has 32 bytes")?;

    step("Under another encryption context it can't be unwrapped");
    let other = BTreeMap::from([("purpose".to_owned(), "something else".to_owned())]);
    let refused = kms::unwrap_key(&kms.client(), &arn, &held["ciphertextBlob"], &other).await;
    println!("KMS answers: {}", refused.as_ref().err().map_or("nothing is wrong", String::as_str));
    check(refused == Err("InvalidCiphertextException".to_owned()), "KMS refuses another encryption context")?;

    step("The Secret is deleted, and comes back with the same bytes");
    let before = secrets.get("orders").await.map_err(|error| error.to_string())?.metadata.uid;
    shell(plane, &["delete", "secret", "orders", "-n", NAMESPACE]).await?;
    eventually(Duration::from_secs(30), "the Secret is back", async || {
        secrets.get_opt("orders").await.is_ok_and(|secret| secret.is_some_and(|secret| secret.metadata.uid != before))
    })
    .await;
    check(read(&secrets, "orders").await? == held, "the bytes are the same")?;
    println!("same bytes, another Secret");

    step("Calls to KMS: one a DataKey");
    let keys = plane.kubectl(&["get", "datakeys", "-n", NAMESPACE, "-o", "name"]).await?.lines().count();
    println!("{keys} DataKeys, {} calls, operations: {}", proxy.calls(), proxy.operations().join(", "));
    check(keys > 0 && proxy.calls() == keys, "one call to KMS a DataKey")?;
    check(proxy.operations() == [testbed::proxy::ISSUE], "no other operation of KMS is called")?;
    println!("\nAll of it held.");
    Ok(())
}

// === impl Playground ===

impl Playground {
    async fn start() -> Result<Self, String> {
        let binary = testbed::operator();

        step("etcd, kube-apiserver, the controller manager and a KMS server start; deploy/ is installed");
        let plane = ControlPlane::start().await;
        let kms = KmsServer::start(plane.workdir()).await;
        let key = kms.key_with_alias(ALIAS).await;
        println!("KMS key {} as alias/{ALIAS}", key.arn);
        let proxy = KmsProxy::start(kms.address()).await;
        plane.namespace(NAMESPACE).await;

        step("The operator starts under its own identity");
        let mut environment: BTreeMap<_, _> = kms::environment(&proxy.url()).into();
        environment.insert("KUBECONFIG", plane.operator_kubeconfig().await.display().to_string());
        let log = plane.workdir().file("operator.log");
        let mut operator = Process::start(&binary, ["run", "--admin-address=127.0.0.1:0"], environment, &log);
        eventually(Duration::from_secs(30), "the operator has started", async || {
            assert!(operator.is_running(), "the operator ended:\n{}", operator.log());
            operator.log().contains("AWS configuration read")
        })
        .await;
        println!("process {}", operator.pid());
        Ok(Self { operator, proxy, kms, plane })
    }
}

fn step(what: &str) {
    println!("\n== {what}");
}

fn check(held: bool, what: &str) -> Result<(), String> {
    if held { Ok(()) } else { Err(format!("this does not hold: {what}")) }
}

/// Runs kubectl and shows both what is run and what it prints.
async fn shell(plane: &ControlPlane, arguments: &[&str]) -> Result<(), String> {
    let root = format!("{}/", repository().display());
    println!("$ kubectl {}", arguments.join(" ").replace(&root, ""));
    print!("{}", plane.kubectl(arguments).await?);
    Ok(())
}

async fn read(secrets: &Api<Secret>, name: &str) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let secret = secrets.get(name).await.map_err(|error| error.to_string())?;
    Ok(secret.data.unwrap_or_default().into_iter().map(|(entry, value)| (entry, value.0)).collect())
}
