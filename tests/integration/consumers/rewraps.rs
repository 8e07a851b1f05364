//! What was encrypted or signed under version 1 goes on after a move to another KMS key, when the first KMS key is disabled:
//! each sample unwraps version 2, which is a rewrap. It uses no KMS key that its settings do not name, and tries no other one after a mismatch.

use std::{fs, path::Path};

use aws_config::SdkConfig;
use testbed::{commands, kms::Key, proxy::Fault};
use tokio::process::Command;

use super::{
    Workload, assert_failed, folder,
    key_pairs::{openssh_accepts, settings},
};
use crate::{
    harness::Data,
    plugin::{User, text},
};

const DATA: &[u8] = b"Three apples and a pear, for Ada.";

const GONE: &str = "DisabledException";

/// The other codes after which a rewrap is unwrapped.
const ALSO_GONE: [&str; 3] = ["AccessDeniedException", "KMSInvalidStateException", "NotFoundException"];

/// Codes after which none is. The last one is no code of AWS KMS today.
const REFUSED: [&str; 4] =
    ["InvalidCiphertextException", "IncorrectKeyException", "InvalidGrantTokenException", "AnotherException"];

/// A code after which the SDKs try again, up to three times.
const THROTTLED: &str = "ThrottlingException";

/// A workload whose key was moved to another KMS key.
struct Moved {
    workload: Workload,
    other: Key,
    /// The Secret with both versions.
    data: Data,
}

// === impl Moved ===

impl Moved {
    /// Mounts the Secret with a rewrap of version 1, and disables its KMS key.
    async fn of(workload: Workload) -> Self {
        let other = workload.test.kms.key().await;
        let data = workload.test.rewrapped(&workload.test.data(workload.secret).await, &other).await;
        workload.keys.show(&data);
        let client = workload.test.kms.client();
        client.disable_key().key_id(&workload.test.key.id).send().await.unwrap();
        Self { workload, other, data }
    }

    /// The KMS keys that a workload trusts: the first one, and with the move both.
    fn arns(&self) -> [String; 2] {
        let first = self.workload.test.key.arn.clone();
        [first.clone(), format!("{first} {}", self.other.arn)]
    }

    /// The Secret with a third version. The first two are wrapped by the first KMS key, and the others are rewraps of version 1.
    fn three(&self) -> Data {
        let mut three = self.data.clone();
        for (from, to) in [(".v1", ".v2"), (".v2", ".v3")] {
            let entries = self.data.iter().filter_map(|(entry, value)| Some((entry.strip_suffix(from)?, value)));
            three.extend(entries.map(|(entry, value)| (format!("{entry}{to}"), value.clone())));
        }
        three.insert("version".to_owned(), b"3".to_vec());
        three
    }

    /// How often a run calls KMS.
    async fn calls<T>(&self, run: impl Future<Output = T>) -> (usize, T) {
        let proxy = &self.workload.test.proxy;
        let before = proxy.calls_of("Decrypt");
        let ended = run.await;
        (proxy.calls_of("Decrypt") - before, ended)
    }

    /// Checks which errors of KMS let a sample, which trusts both KMS keys, unwrap version 2 in place of version 1.
    async fn only_errors_of_the_key_count<T: std::fmt::Debug>(&self, sample: impl AsyncFn(&str) -> Result<T, String>) {
        let (proxy, [_, both]) = (&self.workload.test.proxy, self.arns());
        for code in ALSO_GONE {
            proxy.fail_next_decrypts(1, Fault::code(code));
            let (calls, ended) = self.calls(sample(&both)).await;
            ended.unwrap_or_else(|error| panic!("{code}: {error}"));
            assert_eq!(calls, 2, "{code}");
        }
        for code in REFUSED {
            proxy.fail_next_decrypts(1, Fault::code(code));
            let (calls, ended) = self.calls(sample(&both)).await;
            assert_failed(ended, code);
            assert_eq!(calls, 1, "{code}");
        }
        proxy.fail_decrypt_always(Fault::code(THROTTLED));
        let (calls, ended) = self.calls(sample(&both)).await;
        assert_failed(ended, THROTTLED);
        assert!(calls <= 3, "{calls} calls, so it tried version 2");
        proxy.clear_faults();
    }

    /// Runs a sample, with the KMS keys that it trusts: version 1 is unwrapped if they include that of version 2, and if no other error
    /// than that of the KMS key occurs.
    async fn unwraps_the_rewrap<T: std::fmt::Debug>(&self, sample: impl AsyncFn(&str) -> Result<T, String>) -> T {
        let [first, both] = self.arns();
        assert_failed(sample(&first).await, GONE);
        self.only_errors_of_the_key_count(&sample).await;
        let mut other = self.data.clone();
        other.remove("rewrapOf.v2");
        self.workload.keys.show(&other);
        assert_failed(sample(&both).await, GONE);
        self.workload.keys.show(&self.data);
        // The first KMS key is not trusted any more: the end of the move.
        sample(&self.other.arn).await.unwrap();
        sample(&both).await.unwrap()
    }
}

#[tokio::test]
async fn python_reads_old_files_after_a_move() {
    let workload = Workload::new("consume-moved-python").await;
    let [data, sealed, opened] = ["data", "sealed", "opened"].map(|name| workload.file(name));
    let message = workload.file("message");
    fs::write(&data, DATA).unwrap();
    for (sample, output) in [("envelope.py", &sealed), ("encryption_sdk.py", &message)] {
        let mut command = workload.python(sample);
        workload.run(command.arg("encrypt").arg(&data).arg(output)).await.unwrap();
    }
    let moved = Moved::of(workload).await;
    for (sample, input) in [("envelope.py", &sealed), ("encryption_sdk.py", &message)] {
        let decrypt = async |arns: &str| {
            let mut command = moved.workload.python(sample);
            command.arg("decrypt").arg(input).arg(&opened).env("KMS_KEY_ARNS", arns);
            moved.workload.run(&mut command).await
        };
        if sample == "envelope.py" {
            moved.unwraps_the_rewrap(decrypt).await;
        } else {
            // It unwraps all versions. Version 2 is not tried again for itself.
            moved.workload.keys.show(&moved.three());
            let (calls, ended) = moved.calls(decrypt(&moved.arns()[1])).await;
            ended.unwrap();
            assert_eq!(calls, 3 + 1 + 1);
        }
        assert_eq!(fs::read(&opened).unwrap(), DATA, "{sample}");
        fs::remove_file(&opened).unwrap();
    }
}

#[tokio::test]
async fn go_reads_old_lines_after_a_move() {
    let workload = Workload::new("consume-moved-go").await;
    let program = workload.file("go").display().to_string();
    build(&program, ".").await;
    let input = workload.file("input");
    let line = std::str::from_utf8(DATA).unwrap();
    fs::write(&input, line).unwrap();
    let run = async |workload: &Workload, operation: &str, arns: &str| {
        let mut command = workload.command("/bin/sh");
        command.args(["-c", r#"exec "$0" "$1" <"$INPUT""#, &program, operation]);
        workload.prints(command.env("INPUT", &input).env("KMS_KEY_ARNS", arns)).await
    };
    let sealed = run(&workload, "encrypt", &workload.test.key.arn).await.unwrap();
    let moved = Moved::of(workload).await;
    fs::write(&input, sealed).unwrap();
    let opened = moved.unwraps_the_rewrap(async |arns| run(&moved.workload, "decrypt", arns).await).await;
    assert_eq!(opened.trim_end(), line);
}

#[tokio::test]
async fn rust_reads_old_data_after_a_move() {
    let workload = Workload::new("consume-moved-rust").await;
    let settings = settings(&workload.test.proxy.url());
    let keys = |workload: &Workload, arns: &str| {
        let arns = arns.split(' ').map(str::to_owned).collect();
        orders::DataKeys::new(settings.clone(), workload.keys.path(), arns)
    };
    let sealed = keys(&workload, &workload.test.key.arn).seal(DATA.to_vec()).await.unwrap();
    let moved = Moved::of(workload).await;
    let unseal = async |arns: &str| {
        let opened = keys(&moved.workload, arns).unseal(&sealed).await;
        opened.map_err(|error| format!("{error:?}"))
    };
    assert_eq!(moved.unwraps_the_rewrap(unseal).await, DATA);
}

/// On Linux only, which has a folder in memory.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn aws_cli_unwraps_both_versions_after_a_move() {
    use testbed::process::Workdir;

    let workload = Workload::new("consume-moved-cli").await;
    let key = workload.plaintext(1).await;
    let moved = Moved::of(workload).await;
    let path = format!("{}:{}", testbed::tools().join("consumers/bin").display(), std::env::var("PATH").unwrap());
    let memory = Workdir::in_memory("moved");
    let unwrap = async |arns: &str| {
        let mut command = moved.workload.command("/bin/bash");
        command.arg(folder("aws-cli").join("unwrap.sh")).env("PATH", &path).env("PLAINTEXT", memory.path());
        command.env("HOME", moved.workload.file("home")).env("KMS_KEY_ARNS", arns);
        moved.workload.run(&mut command).await
    };
    let [first, both] = moved.arns();
    assert_failed(unwrap(&first).await, GONE);
    moved.only_errors_of_the_key_count(unwrap).await;
    for file in ["v1", "v2"] {
        fs::remove_file(memory.file(file)).unwrap();
    }
    let mut other = moved.data.clone();
    other.remove("rewrapOf.v2");
    moved.workload.keys.show(&other);
    assert_failed(unwrap(&both).await, GONE);
    assert!(!memory.file("v1").exists(), "nothing is written of version 1");
    for (data, arns, expected) in
        [(&moved.data, &both, 2), (&moved.data, &moved.other.arn, 1), (&moved.three(), &both, 3)]
    {
        moved.workload.keys.show(data);
        let (calls, ended) = moved.calls(unwrap(arns)).await;
        ended.unwrap();
        assert_eq!(calls, expected, "each version is a call at most");
        for file in fs::read_dir(memory.path()).unwrap().map(|file| file.unwrap().path()) {
            let is_key = !file.ends_with("version");
            assert!(!is_key || fs::read(&file).unwrap() == key, "{file:?}");
            fs::remove_file(&file).unwrap();
        }
    }
    // With no KMS key left, the versions of one data key are not tried for each other.
    moved.workload.keys.show(&moved.three());
    let other = &moved.other.id;
    moved.workload.test.kms.client().disable_key().key_id(other).send().await.unwrap();
    let (calls, ended) = moved.calls(unwrap(&both)).await;
    assert_failed(ended, GONE);
    assert_eq!(calls, 3);
    assert_eq!(fs::read_dir(memory.path()).unwrap().count(), 0, "nothing is written");
}

#[tokio::test]
async fn python_signs_with_the_old_version_after_a_move() {
    let workload = Workload::of_key_pair("consume-moved-tokens", "tokens", "ECC_NIST_P256", "ECC_NIST_P384").await;
    let set = workload.published("set", &["-o", "jwks"]).await;
    let moved = Moved::of(workload).await;
    let issue = async |arns: &str| {
        let mut command = moved.workload.python("tokens.py");
        command.args(["issue", "Ada"]).env("SIGNING_VERSION", "1").env("KMS_KEY_ARNS", arns);
        moved.workload.prints(&mut command).await
    };
    let token = moved.unwraps_the_rewrap(issue).await;
    let mut verify = moved.workload.python("tokens.py");
    verify.arg("verify").arg(set).arg(token.trim());
    assert_eq!(moved.workload.prints(&mut verify).await.unwrap(), "Ada\n");
}

#[tokio::test]
async fn python_opens_old_letters_after_a_move() {
    let workload = Workload::of_key_pair("consume-moved-letters", "letters", "RSA_2048", "ECC_NIST_P256").await;
    let [data, sealed, opened] = ["data", "sealed", "opened"].map(|name| workload.file(name));
    fs::write(&data, DATA).unwrap();
    let published = workload.published_folder(&[]).await;
    let mut seal = workload.python("letters.py");
    workload.run(seal.arg("seal").arg(published).arg(&data).arg(&sealed)).await.unwrap();
    let moved = Moved::of(workload).await;
    let open = async |arns: &str| {
        let mut command = moved.workload.python("letters.py");
        moved.workload.run(command.arg("open").arg(&sealed).arg(&opened).env("KMS_KEY_ARNS", arns)).await
    };
    moved.unwraps_the_rewrap(open).await;
    assert_eq!(fs::read(&opened).unwrap(), DATA);
}

#[tokio::test]
async fn go_signs_with_the_old_version_after_a_move() {
    let spec = "ECC_NIST_P256";
    let workload = Workload::of_key_pair("consume-moved-sign", "receipts", spec, "ECC_NIST_EDWARDS25519").await;
    let program = workload.file("sign").display().to_string();
    build(&program, "./sign").await;
    let published = workload.published_folder(&[]).await;
    let moved = Moved::of(workload).await;
    let input = moved.workload.file("input");
    let run = async |arguments: &[&Path], line: &str, arns: &str| {
        fs::write(&input, line).unwrap();
        let mut command = moved.workload.command("/bin/sh");
        command.args(["-c", r#"exec "$0" "$@" <"$INPUT""#, &program]).args(arguments).env("INPUT", &input);
        command.env("SIGNING_VERSION", "1").env("KEY_PAIR_SPEC", spec).env("KMS_KEY_ARNS", arns);
        moved.workload.prints(&mut command).await
    };
    let signature = moved.unwraps_the_rewrap(async |arns| run(&["sign".as_ref()], "for Ada\n", arns).await).await;
    let verified = run(&["verify".as_ref(), &published], &format!("{} for Ada\n", signature.trim()), "").await;
    assert_eq!(verified.unwrap(), "for Ada\n");
}

#[tokio::test]
async fn rust_signs_with_the_old_version_after_a_move() {
    let workload =
        Workload::of_key_pair("consume-moved-ssh", "releases", "ECC_NIST_EDWARDS25519", "ECC_NIST_P256").await;
    let published = User::of(&workload.test).ends(0, &["public-key", "releases", "-o", "ssh"]).await;
    let moved = Moved::of(workload).await;
    let settings: SdkConfig = settings(&moved.workload.test.proxy.url());
    let sign = async |arns: &str| {
        let arns = arns.split(' ').map(str::to_owned).collect();
        let mut keys = ssh_signatures::KeyPairs::new(settings.clone(), moved.workload.keys.path(), arns);
        keys.sign(1, DATA).await.map_err(|error| format!("{error:?}"))
    };
    let signature = moved.unwraps_the_rewrap(sign).await;
    assert!(openssh_accepts(&moved.workload, &text(&published), &signature, DATA));
}

/// Builds a program of the samples in Go.
async fn build(program: &str, package: &str) {
    let mut go = Command::new("go");
    go.args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-o", program, package]);
    commands::run(go.current_dir(folder("go"))).await.unwrap();
}
