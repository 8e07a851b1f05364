//! `make demo` uses released servers only where they are what the index says. In every other case it builds them, and says why.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha512};
use testbed::{kubernetes::Built, process::Workdir, repository, tools};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    process::Command,
};

/// What is fetched.
#[derive(Clone)]
struct Release {
    version: String,
    /// What the index has for the checksum of the archive.
    sum: String,
    archive: Vec<u8>,
    /// How many bytes of it are sent.
    sent: usize,
}

/// How the script ended.
struct Outcome {
    folder: Workdir,
    said: String,
    took: Duration,
}

/// The newest Kubernetes of the tests, `1.37.2`.
fn version() -> String {
    Built::Newest.release().to_string().trim_start_matches('v').to_owned()
}

// === impl Release ===

impl Release {
    /// An archive with these programs, each of which says that it is this version.
    fn of(version: &str, programs: &[&str]) -> Self {
        let folder = Workdir::new("released");
        for program in programs {
            let path = folder.file(program);
            fs::write(&path, format!("#!/bin/sh\necho Kubernetes {version}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let tar = std::process::Command::new("tar")
            .args(["-czf", "-", "-C"])
            .arg(folder.path())
            .args(programs)
            .output()
            .unwrap();
        assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        Self { version: version.to_owned(), ..Self::whole(tar.stdout) }
    }

    fn whole(archive: Vec<u8>) -> Self {
        let sum = base16ct::lower::encode_string(&Sha512::digest(&archive));
        Self { version: String::new(), sum, sent: archive.len(), archive }
    }

    /// The answer to a request for the index or the archive.
    fn answer(&self, path: &str, address: &str) -> Vec<u8> {
        let system = if cfg!(target_os = "macos") { "darwin" } else { std::env::consts::OS };
        let machine = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let Self { version, sum, archive, sent } = self;
        let index = format!(
            "releases:\n  {version}:\n    envtest-{version}-{system}-{machine}.tar.gz:\n      hash: {sum}\n      \
             selfLink: http://{address}/archive\n"
        );
        let (length, body) = match path {
            "/index" => (index.len(), index.as_bytes()),
            _ => (archive.len(), &archive[..*sent]),
        };
        [format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n").as_bytes(), body].concat()
    }

    /// Serves it on loopback: the URL of the index.
    async fn serve(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let index = format!("http://{address}/index");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or_default();
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default();
                let _ = stream.write_all(&self.answer(path, &address)).await;
            }
        });
        index
    }
}

// === impl Outcome ===

impl Outcome {
    /// Runs the script with an index. What it would run to build the servers leaves a file.
    async fn with(index: &str) -> Self {
        let folder = Workdir::new("demo-servers");
        let setup_envtest = tools().join("bin/setup-envtest");
        assert!(setup_envtest.exists(), "setup-envtest is missing: run `make tools`");
        let begun = Instant::now();
        let output = Command::new(repository().join("tests/tools/envtest/servers.sh"))
            .arg(folder.path())
            .arg(version())
            .arg("touch")
            .arg(folder.file("built"))
            .env("SETUP_ENVTEST", setup_envtest)
            .env("ENVTEST_INDEX", index)
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        // It is folded.
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(output.status.success(), "{said}");
        assert!(!folder.file("envtest.part").exists(), "{said}");
        Self { folder, said, took: begun.elapsed() }
    }

    fn leads_to(&self) -> PathBuf {
        fs::read_link(self.folder.file("demo")).unwrap()
    }

    fn assert_built(&self, why: &str) {
        let Self { folder, said, .. } = self;
        assert!(said.contains(why), "not {why:?}: {said}");
        assert!(folder.file("built").exists() && !folder.file("envtest").exists(), "{why}: {said}");
        assert_eq!(self.leads_to(), Path::new("bin"), "{why}");
    }
}

#[tokio::test]
async fn released_servers_are_used_as_the_index_describes_them() {
    let minor = Built::Newest.release().minor();
    let newest = format!("v{minor}.99");
    let release = Release::of(&newest, &["etcd", "kube-apiserver", "kubectl"]);
    let outcome = Outcome::with(&release.serve().await).await;
    assert!(!outcome.folder.file("built").exists(), "{}", outcome.said);
    assert!(outcome.said.contains(&format!("{newest}: released")), "{}", outcome.said);
    assert_eq!(outcome.leads_to(), Path::new("envtest"));
    for name in ["etcd", "kube-apiserver", "kubectl", &format!("kubernetes-{}", version())] {
        assert!(outcome.folder.file("demo").join(name).exists(), "{name}");
    }
    // So that `rm` and `cargo clean` can remove it.
    let mode = fs::metadata(outcome.folder.file("envtest")).unwrap().permissions().mode();
    assert_eq!(mode & 0o200, 0o200);
}

#[tokio::test]
async fn servers_are_built_where_the_released_ones_are_wrong() {
    let minor = Built::Newest.release().minor();
    let newest = format!("v{minor}.99");
    let good = Release::of(&newest, &["etcd", "kube-apiserver", "kubectl"]);
    let cut = Release { version: newest.clone(), ..Release::whole(good.archive[..good.archive.len() / 2].to_vec()) };
    for (why, release) in [
        ("checksum mismatch", Release { sum: "0".repeat(128), ..good.clone() }),
        // The connection ends early.
        ("unexpected EOF", Release { sent: good.archive.len() / 2, ..good.clone() }),
        // The checksum is that of half an archive.
        ("unable to store version to disk", cut),
        ("has no kubectl", Release::of(&newest, &["etcd", "kube-apiserver"])),
        (
            "calls itself",
            Release { version: newest.clone(), ..Release::of("v1.2.3", &["etcd", "kube-apiserver", "kubectl"]) },
        ),
        (&format!("has no {minor} for this machine"), Release { version: "v1.2.3".to_owned(), ..good.clone() }),
    ] {
        Outcome::with(&release.serve().await).await.assert_built(why);
    }
}

#[tokio::test]
async fn servers_are_built_where_the_index_does_not_answer() {
    Outcome::with("none").await.assert_built("ENVTEST_INDEX is none");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent = Outcome::with(&format!("http://{address}/index")).await;
    silent.assert_built("no answer in time");
    drop(listener);
    let refused = Outcome::with(&format!("http://{address}/index")).await;
    refused.assert_built("connection refused");
    // 5 seconds, where the machine has nothing else to do.
    assert!(silent.took < Duration::from_secs(30), "{:?}", silent.took);
    assert!(refused.took < silent.took, "{:?}", refused.took);
}
