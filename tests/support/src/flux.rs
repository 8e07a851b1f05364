//! Flux's kustomize-controller, and Git repositories that it is served from. The part of source-controller is played here:
//! an archive of a commit on loopback, and its address and digest in the status of a GitRepository.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use hyper::{Response, StatusCode, body::Bytes};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::{
    commands,
    control_plane::ControlPlane,
    free_port,
    http::{Server, whole},
    process::Process,
    tools,
};

/// The controller, on a control plane. It ends with its value.
pub struct Flux {
    _controller: Process,
}

/// A Git repository in the folder of a control plane, with one branch, `main`.
pub struct Repository {
    folder: PathBuf,
    server: Server,
    archives: Archives,
}

/// What is served, by path.
type Archives = Arc<Mutex<BTreeMap<String, Bytes>>>;

// === impl Flux ===

impl Flux {
    /// Installs the definitions and starts the controller.
    pub async fn start(plane: &ControlPlane) -> Self {
        let definitions = tools().join("flux").display().to_string();
        plane.kubectl(&["apply", "--server-side", "-f", &definitions]).await.expect("run `make flux-tools`");
        plane.kubectl(&["wait", "--for=condition=Established", "-f", &definitions]).await.expect("the definitions");
        plane.namespace("flux-system").await;
        let scratch = plane.workdir().file("flux");
        std::fs::create_dir_all(&scratch).expect("create a folder");
        let flags = [
            format!("--health-addr=127.0.0.1:{}", free_port()),
            "--metrics-addr=0".to_owned(),
            "--events-addr=".to_owned(),
            "--enable-leader-election=false".to_owned(),
            "--requeue-dependency=1s".to_owned(),
            "--interval-jitter-percentage=0".to_owned(),
        ];
        let environment = [
            ("KUBECONFIG", plane.admin_kubeconfig().display().to_string()),
            ("RUNTIME_NAMESPACE", "flux-system".to_owned()),
            ("TMPDIR", scratch.display().to_string()),
        ];
        let program = tools().join("bin/kustomize-controller");
        Self { _controller: Process::start(&program, flags, environment, &log_file(plane)) }
    }
}

/// The log of the controller of a control plane.
pub fn log_file(plane: &ControlPlane) -> PathBuf {
    plane.workdir().file("kustomize-controller.log")
}

// === impl Repository ===

impl Repository {
    /// An empty one.
    pub async fn new(plane: &ControlPlane, name: &str) -> Self {
        let folder = plane.workdir().file(&format!("{name}.git"));
        std::fs::create_dir_all(&folder).expect("create a folder");
        let archives = Archives::default();
        let shared = Arc::clone(&archives);
        let server = Server::start(Ipv4Addr::LOCALHOST.into(), move |request| {
            let archive = shared.lock().expect("the archives").get(request.uri().path()).cloned();
            let status = if archive.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
            let mut answer = Response::new(whole(archive.unwrap_or_default()));
            *answer.status_mut() = status;
            async { Ok(answer) }
        })
        .await;
        let repository = Self { folder, server, archives };
        repository.git(&["init", "--quiet", "--initial-branch=main"]).await;
        repository
    }

    /// Writes a file of the work tree.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.folder.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("create a folder");
        std::fs::write(path, text).expect("write a file");
    }

    /// Removes a file of the work tree.
    pub fn remove(&self, path: &str) {
        std::fs::remove_file(self.folder.join(path)).expect("remove a file");
    }

    /// Commits the work tree.
    pub async fn commit(&self, subject: &str) {
        self.git(&["add", "--all"]).await;
        self.git(&["commit", "--quiet", "--message", subject]).await;
    }

    /// Reverts the last commit.
    pub async fn revert(&self) {
        self.git(&["revert", "--no-edit", "HEAD"]).await;
    }

    /// Serves the last commit as the artifact of a `GitRepository`; its revision.
    pub async fn publish(&self, client: &Client, namespace: &str, name: &str) -> String {
        let commit = self.git(&["rev-parse", "HEAD"]).await.trim().to_owned();
        let file = self.folder.with_extension("tar.gz");
        let output = format!("--output={}", file.display());
        // Of the tree: an archive of a commit begins with a header of its own.
        self.git(&["archive", "--format=tar.gz", &output, "HEAD^{tree}"]).await;
        let archive = std::fs::read(&file).expect("the archive");
        let path = format!("/{namespace}/{name}/{commit}.tar.gz");
        let revision = format!("main@sha1:{commit}");
        let artifact = json!({
            "url": format!("{}{path}", self.server.url()),
            "path": path,
            "digest": format!("sha256:{}", base16ct::lower::encode_string(&Sha256::digest(&archive))),
            "size": archive.len(),
            "revision": revision,
            "lastUpdateTime": Timestamp::now().to_string(),
        });
        self.archives.lock().expect("the archives").insert(path, archive.into());
        let kind = GroupVersionKind::gvk("source.toolkit.fluxcd.io", "v1", "GitRepository");
        let resource = ApiResource::from_gvk_with_plural(&kind, "gitrepositories");
        let sources: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let status = json!({ "status": { "artifact": artifact } });
        let patched = sources.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await;
        patched.expect("the GitRepository");
        revision
    }

    async fn git(&self, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        // The user's own settings must not take part.
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        git.args(["-c", "user.name=Tests", "-c", "user.email=tests@example.com"]);
        let done = commands::run(git.arg("-C").arg(&self.folder).args(arguments)).await;
        done.unwrap_or_else(|error| panic!("git {arguments:?}: {error}"))
    }
}
