//! `exec`: the command has the keys in its open files, and nowhere else.

use std::{collections::BTreeMap, fs};

use testbed::{commands::end_of, eventually};

use super::{Workload, assert_ended, assert_without};
use crate::harness::SOON;

// === impl Workload ===

impl Workload {
    /// Runs a script with the keys.
    async fn script(&self, more: &[&str], script: &str) -> testbed::commands::Ended {
        let arguments = [more, &["--", "/bin/sh", "-c", script]].concat();
        end_of(self.command("exec", &arguments)).await
    }
}

#[tokio::test]
async fn command_reads_its_keys_from_open_files() {
    let workload = Workload::new("unwrap-exec").await;
    workload.rotate(2).await;
    let (first, second) = (workload.plaintext(1).await, workload.plaintext(2).await);
    let ended = workload.script(&[], r#"cat "$DATAKEY_V1_FILE" "$DATAKEY_V2_FILE" "$DATAKEY_CURRENT_FILE""#).await;
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert_eq!(ended.out, [&first[..], &second, &second].concat());
    let ended = workload.script(
        &["--versions=1", "--format=hex"],
        r#"cat $DATAKEY_CURRENT_FILE; echo " $DATAKEY_CURRENT_VERSION $DATAKEY_V2_FILE""#,
    );
    let expected = format!("{} 1 \n", base16ct::lower::encode_string(&first));
    assert_eq!(String::from_utf8(ended.await.out).unwrap(), expected);
    // A program that takes the path as an argument needs no shell.
    let command = workload.command("exec", &["--", "cat", "{DATAKEY_V1_FILE}"]);
    assert_eq!(end_of(command).await.out, first);
}

#[tokio::test]
async fn exit_code_is_that_of_the_command() {
    let workload = Workload::new("unwrap-exec-code").await;
    assert_eq!(workload.script(&[], "exit 42").await.code, 42);
    for (program, code, words) in
        [("/no/such/program", 127, "cannot run /no/such/program"), ("/etc", 126, "cannot run /etc")]
    {
        assert_ended(&end_of(workload.command("exec", &["--", program])).await, code, words);
    }
    // Nothing is run without the keys.
    workload.mount.show(&BTreeMap::new());
    assert_ended(&workload.script(&[], "echo ran").await, 75, "no entry ciphertextBlob.v1");
}

#[tokio::test]
async fn keys_are_sealed_and_not_in_the_environment() {
    let workload = Workload::new("unwrap-sealed").await;
    let key = workload.plaintext(1).await;
    let script = r#"
        [ "$(stat -Lc %a "$DATAKEY_V1_FILE")" = 400 ] || echo "mode $(stat -Lc %a "$DATAKEY_V1_FILE")"
        { echo changed >"$DATAKEY_V1_FILE"; } 2>/dev/null && echo changed
        { true >"$DATAKEY_V1_FILE"; } 2>/dev/null && echo emptied
        { chmod 0500 "$DATAKEY_V1_FILE" && "$DATAKEY_V1_FILE"; } 2>/dev/null && echo executed
        ulimit -c
        sleep 60
    "#;
    let process = workload.start("exec", &["--", "/bin/sh", "-c", script]);
    // The script got to its end, and nothing of it succeeded; it makes no core dumps.
    eventually(SOON, "the script has run", async || process.log().ends_with("0\n")).await;
    assert_eq!(process.log(), "0\n");
    let of = |file: &str| fs::read(format!("/proc/{}/{file}", process.pid())).unwrap();
    let (environment, arguments) = (of("environ"), of("cmdline"));
    assert!(environment.windows(16).any(|text| text == b"DATAKEY_V1_FILE="));
    assert!(arguments.starts_with(b"/bin/sh\0"), "the command has replaced the program");
    assert_without(&key, &[&environment, &arguments, process.log().as_bytes()]);
}

#[tokio::test]
async fn variables_of_keys_come_from_the_program_alone() {
    let workload = Workload::new("unwrap-exec-stale").await;
    let mut command = workload.command("exec", &["--", "/usr/bin/env"]);
    command.env("DATAKEY_V9_FILE", "/forged").env("DATAKEY_CURRENT_FILE", "/forged").env("DATAKEY_OTHER", "kept");
    let out = String::from_utf8(end_of(command).await.out).unwrap();
    assert!(!out.contains("/forged") && out.contains("DATAKEY_OTHER=kept"), "{out}");
    assert!(out.contains("DATAKEY_CURRENT_FILE=/proc/self/fd/"), "{out}");
}
