//! Where wrapped keys come from besides a mounted Secret.

use std::{collections::BTreeMap, fs};

use serde_json::Value;
use testbed::commands::{Ended, end_of};

use super::{ORDERS, Workload, assert_ended};
use crate::plugin::{User, text};

// === impl Workload ===

impl Workload {
    /// Runs `file` with another source.
    async fn from(&self, source: &std::path::Path, more: &[&str]) -> Ended {
        let mut command = tokio::process::Command::new(testbed::unwrap());
        command.env_clear().envs(testbed::kms::environment(&self.test.proxy.url()));
        command.arg("file").arg("--from").arg(source).arg("--to").arg(self.memory.path());
        command.args(self.trust()).args(more);
        end_of(command).await
    }
}

#[tokio::test]
async fn exports_of_the_plugin_are_unwrapped() {
    let workload = Workload::new("unwrap-exports").await;
    workload.rotate(2).await;
    let user = User::of(&workload.test);
    let export = async |arguments: &[&str]| text(&user.ends(0, &[&["export", ORDERS], arguments].concat()).await);
    let (first, second) = (workload.plaintext(1).await, workload.plaintext(2).await);

    let map: Value = serde_saphyr::from_str(&export(&["-o", "manifest"]).await).unwrap();
    let entries = |field: &str| map[field].as_object().unwrap().clone();
    let decoded = |value: &Value| serde_json::from_value::<k8s_openapi::ByteString>(value.clone()).unwrap().0;
    let mut data: BTreeMap<_, _> =
        entries("binaryData").iter().map(|(name, value)| (name.clone(), decoded(value))).collect();
    data.extend(entries("data").iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().into())));
    workload.mount.show(&data);
    assert_ended(&workload.run("file", &[]).await, 0, "version 1, 2");
    assert_eq!((workload.read("v1").as_ref(), workload.read("current").as_ref()), (Some(&first), Some(&second)));

    let file = workload.test.plane.workdir().file("unwrap-exports.json");
    fs::write(&file, export(&["-o", "json", "--version", "1"]).await).unwrap();
    assert_ended(&workload.from(&file, &[]).await, 0, "version 1 to");
    assert_eq!((workload.read("current").as_ref(), workload.read("v2")), (Some(&first), None));

    let blob = workload.test.plane.workdir().file("unwrap-exports.blob");
    fs::write(&blob, &workload.test.data(ORDERS).await["ciphertextBlob.v2"]).unwrap();
    assert_ended(&workload.from(&blob, &["--versions=2"]).await, 0, "version 2 to");
    assert_eq!(workload.read("v2"), Some(second));
}

#[tokio::test]
async fn wrapped_bytes_are_tried_under_each_trusted_key() {
    let workload = Workload::new("unwrap-blob").await;
    let blob = workload.test.plane.workdir().file("unwrap-blob.blob");
    fs::write(&blob, &workload.test.data(ORDERS).await["ciphertextBlob"]).unwrap();
    // The encryption context is wrong, then right.
    let wrong = format!("--trust={} purpose=invoices", workload.test.key.arn);
    let mut command = workload.command_to("check", workload.memory.path(), &[wrong.as_str()]);
    command.args(workload.trust());
    let arguments: Vec<_> = command.as_std().get_args().map(std::ffi::OsStr::to_owned).collect();
    let mut of_file = tokio::process::Command::new(testbed::unwrap());
    of_file.env_clear().envs(testbed::kms::environment(&workload.test.proxy.url()));
    of_file.args(arguments.iter().map(|argument| {
        if argument == workload.mount.path().as_os_str() { blob.as_os_str() } else { argument.as_os_str() }
    }));
    let ended = end_of(of_file).await;
    assert_eq!((ended.code, workload.calls()), (0, 2), "{ended:?}");
}

#[tokio::test]
async fn program_installs_itself() {
    let workload = Workload::new("unwrap-install").await;
    let folder = workload.test.plane.workdir().file("unwrap-install");
    fs::create_dir(&folder).unwrap();
    let install = |to: &std::path::Path| {
        let mut command = tokio::process::Command::new(testbed::unwrap());
        command.arg("install").arg(to);
        end_of(command)
    };
    // Again, over the running one.
    for _ in 0..2 {
        assert_eq!(install(&folder).await.code, 0);
    }
    let mut command = tokio::process::Command::new(folder.join("datakey-unwrap"));
    command.arg("--version");
    assert_eq!(end_of(command).await.out, format!("datakey-unwrap {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
    // Where this machine has its CA certificates where the image has them.
    let certificates = fs::read("/etc/ssl/certs/ca-certificates.crt").ok();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1 + usize::from(certificates.is_some()));
    assert_eq!(fs::read(folder.join("ca-certificates.crt")).ok(), certificates);
    assert_ended(&install("/no/such/folder".as_ref()).await, 64, "cannot copy this program");
}
