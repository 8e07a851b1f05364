//! Each sample encrypts under version 1, meets a rotation, decrypts the old data and encrypts new data under version 2;
//! and it refuses another data key.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kms::config::{Credentials, SharedCredentialsProvider};
use k8s_openapi::api::core::v1::ConfigMap;
use testbed::{commands, kms, process::Workdir};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

use super::{Workload, assert_failed, folder, from_base64};
use crate::plugin::{User, text};

const OLD: &[u8] = b"Three apples and a pear, for Ada.";
const NEW: &[u8] = b"Seven plums, for Grace.";

const REFUSED: &str = "InvalidCiphertextException";
const SHORT: &str = "the plaintext of version 1 has 16 bytes, not 32";
const NOT_TRUSTED: &str = "which is not in KMS_KEY_ARNS";

#[tokio::test]
async fn python_encrypts_files_through_a_rotation() {
    let workload = Workload::new("consume-python").await;
    let envelope = async |arguments: &[&Path]| {
        let mut command = workload.python("envelope.py");
        workload.run(command.args(arguments)).await
    };
    let [encrypt, decrypt, renew] = ["encrypt", "decrypt", "renew"].map(Path::new);
    let [data, sealed, opened] = ["data", "sealed", "opened"].map(|name| workload.file(name));

    fs::write(&data, OLD).unwrap();
    envelope(&[encrypt, &data, &sealed]).await.unwrap();
    let old = fs::read(&sealed).unwrap();
    assert_eq!(workload.open(&old).await, (1, OLD.to_vec()));
    envelope(&[renew, &sealed]).await.unwrap();
    assert_eq!(fs::read(&sealed).unwrap(), old, "it is of the current version");

    workload.rotate().await;
    envelope(&[decrypt, &sealed, &opened]).await.unwrap();
    assert_eq!(fs::read(&opened).unwrap(), OLD);
    envelope(&[renew, &sealed]).await.unwrap();
    let renewed = fs::read(&sealed).unwrap();
    assert_eq!(workload.open(&renewed).await, (2, OLD.to_vec()));
    envelope(&[decrypt, &sealed, &opened]).await.unwrap();
    assert_eq!(fs::read(&opened).unwrap(), OLD);

    // The version is authenticated too.
    let forged = [&1_u32.to_be_bytes(), &renewed[4..]].concat();
    fs::write(&sealed, forged).unwrap();
    fs::remove_file(&opened).unwrap();
    assert_failed(envelope(&[decrypt, &sealed, &opened]).await, "the data was changed");

    workload.mount_another().await;
    assert_failed(envelope(&[encrypt, &data, &opened]).await, REFUSED);
    workload.mount_short().await;
    assert_failed(envelope(&[encrypt, &data, &opened]).await, SHORT);
    workload.mount_right().await;
    let asked = workload.unwrappings();
    let mut other = workload.python("envelope.py");
    other.args([encrypt, &data, &opened]).env("KMS_KEY_ARNS", format!("{}0", workload.test.key.arn));
    assert_failed(workload.run(&mut other).await, NOT_TRUSTED);
    assert_eq!(workload.unwrappings(), asked, "KMS is not asked in vain");
    assert!(!opened.exists(), "nothing is written after a failure");
    workload.wrote_no_plaintext(&[&old, &renewed]).await;
}

#[tokio::test]
async fn exported_config_map_is_mounted_like_the_secret() {
    let workload = Workload::new("consume-config-map").await;
    let user = User::of(&workload.test);
    // As the kubelet mounts a ConfigMap: a file for each entry.
    let mount_exported = async |more: &[&str]| {
        let exported = user.ends(0, &[&["export", "orders"], more].concat()).await;
        let map: ConfigMap = serde_saphyr::from_str(&text(&exported)).unwrap();
        let texts = map.data.into_iter().flatten().map(|(name, value)| (name, value.into_bytes()));
        let bytes = map.binary_data.into_iter().flatten().map(|(name, value)| (name, value.0));
        workload.keys.show(&texts.chain(bytes).collect());
    };
    let envelope = async |arguments: &[&Path]| {
        let mut command = workload.python("envelope.py");
        workload.run(command.args(arguments)).await.unwrap();
    };
    let [encrypt, decrypt, renew] = ["encrypt", "decrypt", "renew"].map(Path::new);
    let [data, sealed, opened] = ["data", "sealed", "opened"].map(|name| workload.file(name));

    fs::write(&data, OLD).unwrap();
    mount_exported(&[]).await;
    envelope(&[encrypt, &data, &sealed]).await;
    assert_eq!(workload.open(&fs::read(&sealed).unwrap()).await, (1, OLD.to_vec()));
    workload.rotate().await;
    mount_exported(&[]).await;
    envelope(&[renew, &sealed]).await;
    assert_eq!(workload.open(&fs::read(&sealed).unwrap()).await, (2, OLD.to_vec()));
    mount_exported(&["--version=1"]).await;
    envelope(&[decrypt, &sealed, &opened]).await;
    assert_eq!(fs::read(&opened).unwrap(), OLD, "the entries of version 2 are there, too");
}

#[tokio::test]
async fn the_encryption_sdk_encrypts_through_a_rotation() {
    let workload = Workload::new("consume-encryption-sdk").await;
    let sdk = async |arguments: &[&Path]| {
        let mut command = workload.python("encryption_sdk.py");
        workload.run(command.args(arguments)).await
    };
    let [encrypt, decrypt] = ["encrypt", "decrypt"].map(Path::new);
    let [data, old, new, opened] = ["data", "old", "new", "opened"].map(|name| workload.file(name));
    // The message names the version in clear text.
    let names = |message: &Path, version: &str| {
        let message = fs::read(message).unwrap();
        message.windows(2).any(|window| window == version.as_bytes())
    };

    fs::write(&data, OLD).unwrap();
    sdk(&[encrypt, &data, &old]).await.unwrap();
    assert!(names(&old, "v1"));
    workload.rotate().await;
    sdk(&[decrypt, &old, &opened]).await.unwrap();
    assert_eq!(fs::read(&opened).unwrap(), OLD);
    fs::write(&data, NEW).unwrap();
    sdk(&[encrypt, &data, &new]).await.unwrap();
    assert!(names(&new, "v2"));
    sdk(&[decrypt, &new, &opened]).await.unwrap();
    assert_eq!(fs::read(&opened).unwrap(), NEW);

    fs::remove_file(&opened).unwrap();
    workload.mount_another().await;
    assert_failed(sdk(&[encrypt, &data, &opened]).await, REFUSED);
    workload.mount_short().await;
    assert_failed(sdk(&[encrypt, &data, &opened]).await, SHORT);
    assert!(!opened.exists(), "nothing is written after a failure");
    workload.wrote_no_plaintext(&[&fs::read(&old).unwrap(), &fs::read(&new).unwrap()]).await;
}

/// The Go sample, while it runs.
struct Running {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

// === impl Running ===

impl Running {
    fn start(workload: &Workload, program: &Path, operation: &str) -> Self {
        let mut command = workload.command(&program.display().to_string());
        command.arg(operation).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, output }
    }

    async fn send(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Sends a line. Returns what the sample prints for it.
    async fn translate(&mut self, line: &str) -> String {
        self.send(line).await;
        self.output.next_line().await.unwrap().expect("a line")
    }

    /// Waits for its end. The error is its output.
    async fn end(self) -> Result<(), String> {
        drop(self.input);
        let ended = self.child.wait_with_output().await.unwrap();
        if ended.status.success() { Ok(()) } else { Err(String::from_utf8(ended.stderr).unwrap()) }
    }
}

#[tokio::test]
async fn go_encrypts_lines_while_the_key_is_rotated() {
    let workload = Workload::new("consume-go").await;
    let program = workload.file("go");
    let go = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new("go");
        commands::run(command.args(arguments).current_dir(folder("go"))).await.unwrap()
    };
    let output = program.display().to_string();
    go(&["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-o", &output]).await;
    let start = |operation| Running::start(&workload, &program, operation);
    let [old, new] = [OLD, NEW].map(|data| std::str::from_utf8(data).unwrap());

    let (mut encrypt, mut decrypt) = (start("encrypt"), start("decrypt"));
    let first = encrypt.translate(old).await;
    assert_eq!(workload.open(&from_base64(&first)).await, (1, OLD.to_vec()));
    assert_eq!(decrypt.translate(&first).await, old);
    workload.rotate().await;
    let asked = workload.unwrappings();
    let second = encrypt.translate(new).await;
    assert_eq!(
        workload.open(&from_base64(&second)).await,
        (2, NEW.to_vec()),
        "the rotation reached the running workload"
    );
    assert_eq!([decrypt.translate(&first).await, decrypt.translate(&second).await], [old, new]);
    assert_eq!(decrypt.translate(&encrypt.translate("").await).await, "");
    assert_eq!(workload.unwrappings(), asked + 2, "each process asks KMS once for each version");
    encrypt.end().await.unwrap();
    decrypt.end().await.unwrap();

    workload.mount_another().await;
    let mut other = start("encrypt");
    other.send(new).await;
    assert_failed(other.end().await, REFUSED);
    workload.mount_short().await;
    let mut other = start("encrypt");
    other.send(new).await;
    assert_failed(other.end().await, SHORT);
    workload.wrote_no_plaintext(&[&from_base64(&first), &from_base64(&second)]).await;
}

#[tokio::test]
async fn rust_encrypts_through_a_rotation() {
    let workload = Workload::new("consume-rust").await;
    let settings = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        // The sample uses the Region of the KMS key instead.
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            kms::ACCOUNT,
            "test",
            None,
            None,
            "test",
        )))
        .endpoint_url(workload.test.proxy.url())
        .build();
    let trusting = |arn: &str| orders::DataKeys::new(settings.clone(), workload.keys.path(), vec![arn.to_owned()]);
    let mut keys = trusting(&workload.test.key.arn);

    let old = keys.seal(OLD.to_vec()).await.unwrap();
    assert_eq!(workload.open(&old).await, (1, OLD.to_vec()));
    workload.rotate().await;
    assert_eq!(keys.unseal(&old).await.unwrap(), OLD);
    let new = keys.seal(NEW.to_vec()).await.unwrap();
    assert_eq!(workload.open(&new).await, (2, NEW.to_vec()));
    assert_eq!(keys.unseal(&new).await.unwrap(), NEW);
    let forged = [&1_u32.to_be_bytes(), &new[4..]].concat();
    assert_failed(keys.unseal(&forged).await.map_err(|error| error.to_string()), "the data was changed");

    workload.mount_another().await;
    let refused = trusting(&workload.test.key.arn).seal(NEW.to_vec()).await;
    let refused = refused.map_err(|error| format!("{error:?}"));
    assert_failed(refused.clone(), REFUSED);
    workload.mount_short().await;
    let short = trusting(&workload.test.key.arn).seal(NEW.to_vec()).await;
    assert_failed(short.map_err(|error| error.to_string()), SHORT);
    let untrusted = trusting("arn:aws:kms:eu-west-1:111122223333:key/other").seal(NEW.to_vec()).await;
    assert_failed(untrusted.map_err(|error| error.to_string()), "which is not trusted");
    workload.wrote_no_plaintext(&[&old, &new, refused.unwrap_err().as_bytes()]).await;
}

/// The kernel accepts connections, and no program answers on them.
#[tokio::test]
async fn samples_end_where_kms_does_not_answer() {
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let workload = Workload::new("consume-silent").await;
    let data = workload.file("data");
    fs::write(&data, OLD).unwrap();
    let begun = std::time::Instant::now();

    let mut python = workload.python("envelope.py");
    python.args([Path::new("encrypt"), &data, &workload.file("sealed")]).env("AWS_ENDPOINT_URL_KMS", &endpoint);
    let rust = async {
        let settings = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new("a", "b", None, None, "test")))
            .endpoint_url(&endpoint)
            .build();
        let arns = vec![workload.test.key.arn.clone()];
        orders::DataKeys::new(settings, workload.keys.path(), arns).seal(OLD.to_vec()).await.map_err(|e| e.to_string())
    };
    let memory = Workdir::in_memory("silent");
    let mut cli = workload.command("/bin/bash");
    let path = format!("{}:{}", testbed::tools().join("consumers/bin").display(), std::env::var("PATH").unwrap());
    cli.arg(folder("aws-cli").join("unwrap.sh")).env("PATH", path).env("PLAINTEXT", memory.path());
    cli.env("HOME", workload.file("home")).env("AWS_ENDPOINT_URL_KMS", &endpoint);
    let mut go = tokio::process::Command::new("go");
    let program = workload.file("go").display().to_string();
    go.args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-o", &program]).current_dir(folder("go"));
    let go = async {
        commands::run(&mut go).await.unwrap();
        let mut command = workload.command("/bin/sh");
        command.args(["-c", "exec \"$0\" encrypt <\"$1\"", &program]).arg(&data);
        command.env("AWS_ENDPOINT_URL_KMS", &endpoint);
        workload.run(&mut command).await
    };
    let (python, cli, go, rust) = tokio::join!(workload.run(&mut python), workload.run(&mut cli), go, rust);
    assert_failed(python, "timeout");
    assert_failed(cli, "timeout");
    assert_failed(go, "deadline exceeded");
    assert!(rust.is_err());
    assert!(begun.elapsed() < std::time::Duration::from_secs(90), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_samples_wipe_the_plaintexts_of_data_keys() {
    let mut go = tokio::process::Command::new("go");
    let go = go.args(["test", "-mod=readonly", "-trimpath", "./..."]).current_dir(folder("go"));
    // go test prints failures on standard output.
    let tested = commands::run(go).await.unwrap_or_default();
    assert_eq!(tested.matches("ok ").count(), 2, "go test fails in the folder of the samples: {tested}");

    let workload = Workload::new("consume-wipe").await;
    let check = "
from data_keys import DataKeys
with DataKeys() as keys:
    plaintext = keys.plaintext(1)
    assert len(plaintext) == 32 and any(plaintext)
assert len(plaintext) == 32 and not any(plaintext)
assert not keys._plaintexts
";
    let mut python = workload.interpreter();
    python.env("PYTHONPATH", folder("python")).args(["-c", check]);
    workload.run(&mut python).await.unwrap();
}

/// On Linux only, which has a folder in memory.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_aws_cli_unwraps_into_memory_through_a_rotation() {
    let workload = Workload::new("consume-aws-cli").await;
    let script = folder("aws-cli").join("unwrap.sh");
    let path = format!("{}:{}", testbed::tools().join("consumers/bin").display(), std::env::var("PATH").unwrap());
    let unwrap = async |plaintext: &Path| {
        let mut command = workload.command("/bin/bash");
        command.arg(&script).env("PATH", &path).env("PLAINTEXT", plaintext).env("HOME", workload.file("home"));
        workload.run(&mut command).await
    };
    let memory = Workdir::in_memory("plaintext");
    let held = || {
        let files = fs::read_dir(memory.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        files.collect::<BTreeSet<_>>()
    };
    let read = |name: &str| fs::read(memory.file(name)).unwrap();

    unwrap(memory.path()).await.unwrap();
    assert_eq!(held(), ["v1", "version"].map(str::to_owned).into());
    assert_eq!((read("v1"), read("version")), (workload.plaintext(1).await, b"1".to_vec()));
    workload.rotate().await;
    unwrap(memory.path()).await.unwrap();
    let both = BTreeSet::from(["v1", "v2", "version"].map(str::to_owned));
    assert_eq!(held(), both);
    assert_eq!((read("v1"), read("v2")), (workload.plaintext(1).await, workload.plaintext(2).await));
    assert_eq!(read("version"), b"2");
    for file in &both {
        let mode = fs::metadata(memory.file(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    workload.wrote_no_plaintext(&[]).await;

    let before = (read("v1"), read("v2"));
    workload.mount_another().await;
    assert_failed(unwrap(memory.path()).await, REFUSED);
    workload.mount_short().await;
    assert_failed(unwrap(memory.path()).await, SHORT);
    assert_eq!((read("v1"), read("v2"), held()), (before.0, before.1, both), "nothing is written after a failure");
    assert_failed(unwrap(Path::new("/proc")).await, "is not in memory");

    let mut without = workload.test.data(super::ORDERS).await;
    without.insert("version".to_owned(), b"99".to_vec());
    workload.keys.show(&without);
    assert_failed(unwrap(memory.path()).await, "says that version 99 is current");
}
