//! Each sample uses version 1 of a key pair, meets a rotation, and goes on with both versions: what was signed with version 1 or
//! encrypted to it stays valid. It refuses another key pair, another kind, and halves that do not belong together.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_sdk_kms::config::{Credentials, SharedCredentialsProvider};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use testbed::{commands, kms};
use tokio::process::Command;

use super::{Mount, Mutex, Workload, assert_failed, folder};
use crate::{
    harness::TestNamespace,
    key_pairs::{missing, pairs},
    plugin::{User, text},
};

/// Wrong key pairs of the same KMS key: with another encryption context, of another kind, and one that only its public key
/// distinguishes.
const ANOTHER: &str = "another";
const KIND: &str = "kind";
const TWIN: &str = "twin";

const REFUSED: &str = "InvalidCiphertextException";
const APART: &str = "the public key of version 1 belongs to another private key";

// === impl Workload ===

impl Workload {
    /// Issues the key pair `secret` for this purpose and wrong ones, and mounts the right one.
    pub async fn of_key_pair(namespace: &str, secret: &'static str, spec: &str, other: &str) -> Self {
        let test = TestNamespace::new(namespace).await;
        let operator = test.operator();
        for (name, purpose, spec) in
            [(secret, secret, spec), (ANOTHER, "another", spec), (KIND, secret, other), (TWIN, secret, spec)]
        {
            let pair = json!({ "encryptionContext": { "purpose": purpose }, "keyPairSpec": spec });
            pairs(&test).issue(name, &pair).await;
        }
        let keys = Mount::new(&test.plane.workdir().file(&format!("{namespace}-keys")));
        keys.show(&test.data(secret).await);
        Self { test, _operator: operator, secret, keys, said: Mutex::default() }
    }

    /// Issues version 2 and mounts it as workloads can see it for a moment: new entries have no links yet.
    async fn rotate_key_pair(&self) {
        pairs(&self.test).patch(self.secret, &json!({ "spec": { "version": 2 } })).await;
        pairs(&self.test).ready(self.secret).await;
        self.keys.replace(&self.test.data(self.secret).await);
    }

    async fn mount_key_pair(&self, name: &str) {
        self.keys.show(&self.test.data(name).await);
    }

    /// Mounts the wrapped private key of one key pair and the public key of another one, as an edit of the Secret would.
    async fn mount_halves_of_two(&self) {
        let mut halves = self.test.data(TWIN).await;
        halves.insert("publicKey.v1".to_owned(), self.test.data(self.secret).await["publicKey.v1"].clone());
        self.keys.show(&halves);
    }

    /// Asserts that what the samples must refuse is refused, and which words they use for another kind.
    async fn refuses_wrong_pairs(&self, kind: &str, sample: impl AsyncFn() -> Result<String, String>) {
        for (name, words) in [(ANOTHER, REFUSED), (KIND, kind)] {
            self.mount_key_pair(name).await;
            assert_failed(sample().await, words);
        }
        self.mount_halves_of_two().await;
        assert_failed(sample().await, APART);
        self.mount_right().await;
        sample().await.unwrap();
    }

    /// A file with what `kubectl datakey public-key` prints of the right key pair.
    pub async fn published(&self, file: &str, words: &[&str]) -> PathBuf {
        let path = self.file(file);
        let printed = User::of(&self.test).ends(0, &[&["public-key", self.secret], words].concat()).await;
        fs::write(&path, printed.out).unwrap();
        path
    }

    /// A folder with the entries of the ConfigMap that it prints, as the kubelet mounts them.
    pub async fn published_folder(&self, versions: &[&str]) -> PathBuf {
        let map = self.published("map.yaml", &[&["-o", "configmap"], versions].concat()).await;
        let map: ConfigMap = serde_saphyr::from_str(&fs::read_to_string(map).unwrap()).unwrap();
        let folder = self.file(&format!("published-{}", fastrand::u64(..)));
        fs::create_dir(&folder).unwrap();
        for (entry, value) in map.data.unwrap() {
            fs::write(folder.join(entry), value).unwrap();
        }
        folder
    }
}

#[tokio::test]
async fn python_issues_tokens_through_a_rotation() {
    let workload = Workload::of_key_pair("consume-tokens", "tokens", "ECC_NIST_P256", "ECC_NIST_P384").await;
    let issued = async |version: &str, subject: &str| {
        let mut command = workload.python("tokens.py");
        workload.prints(command.args(["issue", subject]).env("SIGNING_VERSION", version)).await
    };
    let verified = async |key_set: &Path, token: &str| {
        let mut command = workload.python("tokens.py");
        workload.prints(command.arg("verify").arg(key_set).arg(token.trim())).await
    };
    let first_set = workload.published("first", &["-o", "jwks"]).await;
    let first = issued("1", "Ada").await.unwrap();
    assert_eq!(verified(&first_set, &first).await.unwrap(), "Ada\n");

    // The public key of version 2 is published before the workload signs with it.
    workload.rotate_key_pair().await;
    let both = workload.published("both", &["-o", "jwks", "--versions", "all"]).await;
    let between = issued("1", "Ada").await.unwrap();
    let second = issued("2", "Grace").await.unwrap();
    for (token, subject) in [(&first, "Ada\n"), (&between, "Ada\n"), (&second, "Grace\n")] {
        assert_eq!(verified(&both, token).await.unwrap(), subject);
    }
    assert_eq!(verified(&first_set, &between).await.unwrap(), "Ada\n", "it is signed with version 1");
    assert_failed(verified(&first_set, &second).await, "there is no");
    let (_, of_second) = second.rsplit_once('.').unwrap();
    let (signed, _) = first.rsplit_once('.').unwrap();
    assert_failed(verified(&both, &format!("{signed}.{of_second}")).await, "Signature verification failed");

    workload
        .refuses_wrong_pairs("the private key of version 1 is of another kind", async || issued("1", "Ada").await)
        .await;
    let asked = workload.unwrappings();
    let mut other = workload.python("tokens.py");
    other.args(["issue", "Ada"]).env("SIGNING_VERSION", "1").env("KMS_KEY_ARNS", "arn:aws:kms:eu-west-1:1:key/other");
    assert_failed(workload.run(&mut other).await, "which is not in KMS_KEY_ARNS");
    assert_eq!(workload.unwrappings(), asked, "KMS is not asked in vain");
    workload.wrote_no_plaintext(&[first.as_bytes(), second.as_bytes()]).await;
}

#[tokio::test]
async fn python_opens_letters_through_a_rotation() {
    let workload = Workload::of_key_pair("consume-letters", "letters", "RSA_2048", "ECC_NIST_P256").await;
    let [data, old, new, opened] = ["data", "old", "new", "opened"].map(|name| workload.file(name));
    let seal = async |published: &Path, sealed: &Path| {
        let mut command = workload.python("letters.py");
        // It needs neither the Secret nor rights in AWS.
        command.env("KEYS", "/none").env("KMS_KEY_ARNS", "");
        workload.run(command.arg("seal").arg(published).arg(&data).arg(sealed)).await.unwrap();
        fs::read(sealed).unwrap()
    };
    let open = async |sealed: &Path| {
        let mut command = workload.python("letters.py");
        workload.prints(command.arg("open").arg(sealed).arg(&opened)).await
    };
    fs::write(&data, b"a key for more data").unwrap();
    let published = workload.published_folder(&[]).await;
    let first = seal(&published, &old).await;
    assert_eq!(first[..4], [0, 0, 0, 1]);
    open(&old).await.unwrap();
    assert_eq!(fs::read(&opened).unwrap(), b"a key for more data");

    workload.rotate_key_pair().await;
    let again = seal(&published, &new).await;
    assert_eq!(again[..4], [0, 0, 0, 1], "the new public key is not published yet");
    let published = workload.published_folder(&["--versions", "all"]).await;
    let second = seal(&published, &new).await;
    assert_eq!(second[..4], [0, 0, 0, 2]);
    for sealed in [&old, &new] {
        fs::remove_file(&opened).unwrap();
        open(sealed).await.unwrap();
        assert_eq!(fs::read(&opened).unwrap(), b"a key for more data");
    }
    // Another library opens it, with the version as label.
    let key = PrivateDecryptingKey::from_pkcs8(&workload.plaintext(2).await).unwrap();
    let key = OaepPrivateDecryptingKey::new(key).unwrap();
    let mut buffer = vec![0; key.min_output_size()];
    let read = key.decrypt(&OAEP_SHA256_MGF1SHA256, &second[4..], &mut buffer, Some(&second[..4])).unwrap();
    assert_eq!(read, b"a key for more data");

    fs::remove_file(&opened).unwrap();
    fs::write(&new, [&[0, 0, 0, 1], &second[4..]].concat()).unwrap();
    assert_failed(open(&new).await, "ecryption failed");
    assert!(!opened.exists(), "nothing is written after a failure");
    workload.refuses_wrong_pairs("the private key of version 1 is of another kind", async || open(&old).await).await;
    workload.wrote_no_plaintext(&[&first, &second]).await;
}

#[tokio::test]
async fn go_signs_lines_through_a_rotation() {
    for (namespace, spec, other) in [
        ("consume-sign-ed25519", "ECC_NIST_EDWARDS25519", "ECC_NIST_P256"),
        ("consume-sign-p256", "ECC_NIST_P256", "ECC_NIST_EDWARDS25519"),
    ] {
        let workload = Workload::of_key_pair(namespace, "receipts", spec, other).await;
        let program = workload.file("sign").display().to_string();
        let mut go = Command::new("go");
        go.args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-o", &program, "./sign"]);
        commands::run(go.current_dir(folder("go"))).await.unwrap();
        let input = workload.file("input");
        let run = async |arguments: &[&str], version: &str, lines: &str| {
            fs::write(&input, lines).unwrap();
            let mut command = workload.command("/bin/sh");
            command.args(["-c", r#"exec "$0" "$@" <"$INPUT""#, &program]).args(arguments).env("INPUT", &input);
            workload.prints(command.env("SIGNING_VERSION", version).env("KEY_PAIR_SPEC", spec)).await
        };
        let sign = async |version: &str| run(&["sign"], version, "for Ada\n").await;
        let verify = async |published: &Path, signature: &str, line: &str| {
            let published = published.display().to_string();
            run(&["verify", &published], "", &format!("{} {line}\n", signature.trim())).await
        };

        let only_first = workload.published_folder(&[]).await;
        let first = sign("1").await.unwrap();
        workload.rotate_key_pair().await;
        let both = workload.published_folder(&["--versions", "all"]).await;
        let second = sign("2").await.unwrap();
        assert!(first.starts_with("1.") && second.starts_with("2."), "{first} {second}");
        for signature in [&first, &second] {
            assert_eq!(verify(&both, signature, "for Ada").await.unwrap(), "for Ada\n");
        }
        assert_eq!(verify(&only_first, &first, "for Ada").await.unwrap(), "for Ada\n");
        assert_failed(verify(&only_first, &second, "for Ada").await, "publicKey.v2");
        assert_failed(verify(&both, &first, "for Eve").await, "the signature is not one of version 1");
        let as_second = first.replacen("1.", "2.", 1);
        assert_failed(verify(&both, &as_second, "for Ada").await, "the signature is not one of version 2");
        assert_eq!(run(&["sign"], "1", "a\nb\n").await.unwrap().lines().count(), 2);

        let kind = format!("the private key of version 1 is no {spec}");
        workload.refuses_wrong_pairs(&kind, async || sign("1").await).await;
        workload.wrote_no_plaintext(&[]).await;
    }
}

/// Whether OpenSSH accepts a signature of these data by one of these keys.
pub fn openssh_accepts(workload: &Workload, allowed: &str, signature: &str, data: &[u8]) -> bool {
    let [signers, signed, file] = ["allowed", "signature", "data"].map(|name| workload.file(name));
    // A line of allowed_signers has the name of the signer before the key.
    let allowed: String = allowed.lines().flat_map(|line| ["release ", line, "\n"]).collect();
    fs::write(&signers, allowed).unwrap();
    fs::write(&signed, signature).unwrap();
    fs::write(&file, data).unwrap();
    let mut command = std::process::Command::new("ssh-keygen");
    command.args(["-Y", "verify", "-I", "release", "-n", "file", "-f"]).arg(signers).arg("-s").arg(signed);
    command.stdin(fs::File::open(file).unwrap()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap_or_else(|error| missing("ssh-keygen", "openssh-client", &error)).success()
}

/// The settings of a workload in Rust.
pub fn settings(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new(kms::ACCOUNT, "test", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        // The sample uses the Region of the KMS key instead.
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(endpoint)
        .build()
}

#[tokio::test]
async fn rust_signs_for_openssh_through_a_rotation() {
    let workload = Workload::of_key_pair("consume-ssh", "releases", "ECC_NIST_EDWARDS25519", "ECC_NIST_P256").await;
    let settings = settings(&workload.test.proxy.url());
    let trusting =
        |arn: &str| ssh_signatures::KeyPairs::new(settings.clone(), workload.keys.path(), vec![arn.to_owned()]);
    let published = async |words: &[&str]| {
        let user = User::of(&workload.test);
        text(&user.ends(0, &[&["public-key", "releases", "-o", "ssh"], words].concat()).await)
    };
    let data = b"release 1.2.3";

    let mut keys = trusting(&workload.test.key.arn);
    let first = keys.sign(1, data).await.unwrap();
    let only_first = published(&[]).await;
    assert!(openssh_accepts(&workload, &only_first, &first, data));
    workload.rotate_key_pair().await;
    let both = published(&["--versions", "all"]).await;
    let asked = workload.unwrappings();
    let second = keys.sign(2, data).await.unwrap();
    keys.sign(1, data).await.unwrap();
    assert_eq!(workload.unwrappings(), asked + 1, "each version is unwrapped once");
    assert!(openssh_accepts(&workload, &both, &first, data) && openssh_accepts(&workload, &both, &second, data));
    assert!(!openssh_accepts(&workload, &only_first, &second, data), "its public key is not published there");
    assert!(!openssh_accepts(&workload, &both, &first, b"release 1.2.4"));

    let sign = async |arn: &str| {
        // The error of KMS has its code in the debug form only.
        trusting(arn).sign(1, data).await.map_err(|error| format!("{error}, {error:?}"))
    };
    let arn = &workload.test.key.arn;
    workload.refuses_wrong_pairs("the private key of version 1 is no Ed25519 key", async || sign(arn).await).await;
    assert_failed(sign("arn:aws:kms:eu-west-1:111122223333:key/other").await, "which is not trusted");
    workload.wrote_no_plaintext(&[first.as_bytes(), second.as_bytes()]).await;
}

#[tokio::test]
async fn python_wipes_its_copy_of_a_private_key() {
    let workload = Workload::of_key_pair("consume-wipe-pair", "tokens", "ECC_NIST_P256", "ECC_NIST_P384").await;
    let check = "
import key_pairs
load, copies = key_pairs.load_der_private_key, []
def spy(copy, password):
    assert any(copy)
    copies.append(copy)
    return load(copy, password)
key_pairs.load_der_private_key = spy
key_pairs.KeyPairs({'purpose': 'tokens'}, lambda key: True).private_key(1)
[copy] = copies
assert len(copy) > 64 and not any(copy)
";
    let mut python = workload.interpreter();
    python.env("PYTHONPATH", folder("python")).args(["-c", check]);
    workload.run(&mut python).await.unwrap();
}

/// The kernel accepts connections, and no program answers on them.
#[tokio::test]
async fn samples_of_pairs_end_where_kms_does_not_answer() {
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let test = TestNamespace::new("consume-silent-pair").await;
    let operator = test.operator();
    pairs(&test).issue("pairs", &json!({})).await;
    let keys = Mount::new(&test.plane.workdir().file("consume-silent-pair-keys"));
    keys.show(&test.data("pairs").await);
    let workload = Workload { test, _operator: operator, secret: "pairs", keys, said: Mutex::default() };
    let begun = std::time::Instant::now();

    let with_endpoint = |command: &mut Command| {
        command
            .env("AWS_ENDPOINT_URL_KMS", &endpoint)
            .env("SIGNING_VERSION", "1")
            .env("KEY_PAIR_SPEC", "ECC_NIST_P256");
    };
    let mut python = workload.python("tokens.py");
    with_endpoint(python.args(["issue", "Ada"]));
    let input = workload.file("input");
    fs::write(&input, "a line\n").unwrap();
    let mut go = workload.command("/bin/sh");
    go.args(["-c", r#"exec go run -mod=readonly ./sign sign <"$INPUT""#])
        .current_dir(folder("go"))
        .env("INPUT", &input);
    go.envs(std::env::vars().filter(|(name, _)| name == "HOME" || name.starts_with("GO")));
    with_endpoint(&mut go);
    let arns = vec![workload.test.key.arn.clone()];
    let mut rust = ssh_signatures::KeyPairs::new(settings(&endpoint), workload.keys.path(), arns);
    let (python, go, rust) = tokio::join!(workload.run(&mut python), workload.run(&mut go), rust.sign(1, b"data"));
    assert_failed(python, "timeout");
    assert_failed(go, "deadline exceeded");
    assert!(rust.is_err());
    assert!(begun.elapsed() < std::time::Duration::from_secs(90), "{:?}", begun.elapsed());
}
