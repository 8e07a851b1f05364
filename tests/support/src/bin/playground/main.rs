//! `demo` shows the operator at work against real servers and checks every step; `dev` starts the same with Kubernetes'
//! controllers, and stays.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use testbed::{
    control_plane::ControlPlane,
    eventually,
    kms::{self, KmsServer},
    process::Process,
    proxy::KmsProxy,
    repository,
};

use tokio::signal::unix::{SignalKind, signal};

use terminal::Terminal;

mod demo;
mod terminal;

const NAMESPACE: &str = "demo";
/// The alias of the samples, and that of the first `DataKey` in the README.
const ALIAS: &str = "datakey-samples";
const README_ALIAS: &str = "orders";

/// What `dev` shows once the variables are set. The data key is measured, not shown.
const EXAMPLES: &str = r"
  kubectl apply -f SAMPLES
  kubectl get datakeys
  kubectl get secret orders -o jsonpath='{.data.ciphertextBlob}' | base64 --decode > orders.blob
  aws kms decrypt --key-id alias/ALIAS --ciphertext-blob fileb://orders.blob \
    --encryption-context purpose=orders --query Plaintext --output text | base64 --decode | wc -c
  kubectl datakey rotate orders --wait
  kubectl datakey verify orders --decrypt
";

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
            "demo" => demo::run().await,
            "dev" => dev().await,
            _ => Err("say demo or dev".to_owned()),
        }
    };
    let result = tokio::select! {
        result = run => result,
        () = stop_requested() => if command == "dev" { Ok(()) } else { Err("interrupted".to_owned()) },
    };
    match result {
        Ok(()) if command == "dev" => {
            println!("\nStopped. The servers and all that they held are deleted.");
            ExitCode::SUCCESS
        }
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{command} failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Until Ctrl-C or SIGTERM, which is how a process in the background is stopped.
async fn stop_requested() {
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

async fn dev() -> Result<(), String> {
    let Playground { plane, kms, operator, proxy: _proxy } = Playground::start().await?;
    let plane = plane.with_usual_controllers();
    let exports = Terminal::of(&plane, &kms).exports();
    let file = plane.workdir().file("dev.env");
    std::fs::write(&file, exports.join("\n") + "\n").map_err(|error| format!("{}: {error}", file.display()))?;
    println!("\nReady. The operator watches every namespace. In another terminal:\n\n  . {}\n", file.display());
    println!("This file sets:\n");
    for line in exports {
        println!("  {line}");
    }
    println!(
        "\nWithout it a terminal uses your own cluster and AWS account. Then, for example, in the namespace {NAMESPACE}:"
    );
    let samples = repository().join("deploy/samples").display().to_string();
    println!("{}", EXAMPLES.replace("SAMPLES", &samples).replace("ALIAS", ALIAS));
    println!("The KMS has alias/{ALIAS} and alias/{README_ALIAS} (account {}, {}).", kms::ACCOUNT, kms::REGION);
    println!("It evaluates no key policies and answers no dry runs.");
    println!("Steps 3 and 4 of the README work as they are.");
    println!(
        "The operator is process {}. The cluster has no pod of it, so `kubectl datakey check` finds none. Its log:",
        operator.pid()
    );
    println!("  {}", plane.workdir().file("operator.log").display());
    println!("\nCtrl-C, or SIGTERM, ends the servers and deletes all that they hold.");
    std::future::pending().await
}

fn step(what: &str) {
    println!("\n== {what}");
}

// === impl Playground ===

impl Playground {
    /// Starts the servers, installs the operator and starts it.
    async fn start() -> Result<Self, String> {
        let binary = testbed::operator();

        step("Servers start on loopback: etcd, kube-apiserver and a KMS server");
        let plane = ControlPlane::bare().await;
        println!("Kubernetes {}", plane.release());
        let kms = KmsServer::start(plane.workdir()).await;
        let key = kms.key_with_alias(ALIAS).await;
        println!("alias/{ALIAS}:\n  {}", key.arn);
        kms.key_with_alias(README_ALIAS).await;
        let proxy = KmsProxy::start(kms.address()).await;

        step("The operator is installed, and runs under its own identity");
        let terminal = Terminal::of(&plane, &kms);
        for line in [
            // Without the API groups of the objects, which no terminal has room for.
            "kubectl apply --kustomize deploy | sed 's,[.][^/]*/,/,'",
            "kubectl wait --for=condition=Established crd/datakeys.datakey.dev",
            &format!("kubectl create namespace {NAMESPACE}"),
            &format!("kubectl config set-context --current --namespace={NAMESPACE}"),
        ] {
            terminal.run(line).await?;
        }
        println!("$ datakey-operator run --admin-address=127.0.0.1:0 &");
        let mut environment: BTreeMap<_, _> = kms::environment(&proxy.url()).into();
        environment.insert("KUBECONFIG", plane.operator_kubeconfig().await.display().to_string());
        let log = plane.workdir().file("operator.log");
        let mut operator = Process::start(&binary, ["run", "--admin-address=127.0.0.1:0"], environment, &log);
        eventually(Duration::from_secs(30), "the operator has started", async || {
            assert!(operator.is_running(), "the operator ended:\n{}", operator.log());
            operator.log().contains("AWS configuration read")
        })
        .await;
        Ok(Self { operator, proxy, kms, plane })
    }
}
