//! What goes wrong outside: an exit code for each kind, one line that says what to do, and the files stay.

use serde_json::json;
use testbed::{commands::end_of, proxy::Fault};
use tokio::{io::AsyncReadExt as _, time::timeout};

use super::{Workload, answer, assert_ended, assert_without, variables};
use crate::harness::SOON;

#[tokio::test]
async fn each_kind_of_failure_has_its_exit_code() {
    let workload = Workload::new("unwrap-failures").await;
    assert_eq!(workload.run("file", &[]).await.code, 0);
    let key = workload.plaintext(1).await;
    let mut truncated = answer(&workload.test.key.arn, &key);
    truncated["Plaintext"] = "not base64 !".into();
    for (fault, code, words) in [
        (Fault::code("AccessDeniedException"), 3, "needs kms:Decrypt"),
        (Fault::code("ExpiredTokenException"), 3, "check AWS credentials"),
        (Fault::code("DisabledException"), 4, "DisabledException"),
        (Fault::code("NotFoundException"), 4, "NotFoundException"),
        (Fault::code("InvalidCiphertextException"), 2, "don't belong together"),
        (Fault::code("IncorrectKeyException"), 2, "IncorrectKeyException"),
        (Fault::code("ThrottlingException"), 75, "ThrottlingException"),
        (Fault::Error(500, "KMSInternalException".into(), "odd".into()), 75, "KMSInternalException"),
        (Fault::Reset, 75, "could not be called"),
        (Fault::Truncate, 75, "AWS KMS"),
        (Fault::Answer(truncated), 75, "none of AWS KMS"),
        (Fault::Answer("text".into()), 75, "none of AWS KMS"),
        // A proxy on the way answers so.
        (Fault::Answer(json!({})), 75, "none of AWS KMS"),
        (Fault::Answer(answer("", &key)), 75, "none of AWS KMS"),
        (Fault::Answer(answer(&workload.test.key.arn, &[])), 75, "none of AWS KMS"),
        (Fault::Answer(json!({ "odd": " ".repeat(2 << 20) })), 75, "AWS KMS"),
    ] {
        let shown = format!("{fault:?}");
        workload.test.proxy.fail_decrypt_always(fault);
        let ended = workload.run("file", &[]).await;
        assert_eq!(ended.code, code, "{shown}: {ended:?}");
        assert_ended(&ended, code, words);
        assert_without(&key, &[ended.err.as_bytes()]);
        assert_eq!(workload.read("v1").as_ref(), Some(&key), "{shown}");
    }
    workload.test.proxy.fail_decrypt_always(Fault::Hang);
    assert_ended(&workload.run("check", &["--timeout=300ms"]).await, 75, "did not answer in time");
}

#[tokio::test]
async fn kms_key_that_is_disabled_or_deleted_is_reported() {
    let workload = Workload::new("unwrap-key-state").await;
    let client = workload.test.kms.client();
    client.disable_key().key_id(&workload.test.key.id).send().await.unwrap();
    assert_ended(&workload.run("check", &[]).await, 4, "version 1: AWS KMS refuses: DisabledException");
    client.schedule_key_deletion().key_id(&workload.test.key.id).pending_window_in_days(7).send().await.unwrap();
    assert_ended(&workload.run("check", &[]).await, 4, "KMSInvalidStateException");
}

#[tokio::test]
async fn retries_are_those_of_the_arguments() {
    let workload = Workload::new("unwrap-retries").await;
    workload.test.proxy.fail_decrypt_always(Fault::code("ThrottlingException"));
    let ended = workload.run("check", &["--retries=2", "--timeout=1m"]).await;
    assert_ended(&ended, 75, "ThrottlingException");
    assert_eq!(workload.calls(), 3);
    // What cannot change is not asked for again.
    workload.test.proxy.fail_decrypt_always(Fault::code("AccessDeniedException"));
    workload.run("check", &["--retries=2", "--timeout=1m"]).await;
    assert_eq!(workload.calls(), 4);
}

#[tokio::test]
async fn missing_credentials_are_reported_without_a_call() {
    let workload = Workload::new("unwrap-credentials").await;
    let mut command = workload.command("check", &[]);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    assert_ended(&end_of(command).await, 3, "no AWS credentials were found");
    for (url, words) in
        [("", "AWS_ENDPOINT_URL_KMS is empty"), ("http://192.0.2.1", "the key would be readable on the network")]
    {
        let mut command = workload.command("check", &[]);
        command.env("AWS_ENDPOINT_URL_KMS", url);
        assert_ended(&end_of(command).await, 64, words);
    }
    assert_eq!(workload.calls(), 0);
}

#[tokio::test]
async fn sts_that_is_not_reached_can_come_later() {
    let workload = Workload::new("unwrap-sts").await;
    let token = workload.test.plane.workdir().file("unwrap-sts-token");
    std::fs::write(&token, "token").unwrap();
    let role = "arn:aws:iam::111122223333:role/orders";
    let web_identity = [
        ("AWS_ROLE_ARN", role),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1"),
    ];
    let container = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/credentials")];
    for variables in [&web_identity[..], &container] {
        let mut command = workload.command("check", &[]);
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").envs(variables.iter().copied());
        assert_ended(&end_of(command).await, 75, "AWS credentials could not be obtained");
    }
    assert_eq!(workload.calls(), 0);
}

#[tokio::test]
async fn sts_is_called_in_the_region_of_the_kms_key() {
    let workload = Workload::new("unwrap-sts-region").await;
    let token = workload.test.plane.workdir().file("unwrap-sts-region-token");
    std::fs::write(&token, "token").unwrap();
    let proxy = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    for (more, host) in
        [(&[][..], "sts.eu-west-1.amazonaws.com"), (&["--region=us-west-2"], "sts.us-west-2.amazonaws.com")]
    {
        let mut command = workload.command("check", more);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL_STS"] {
            command.env_remove(name);
        }
        command.env("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/orders");
        command.env("AWS_WEB_IDENTITY_TOKEN_FILE", &token).env("HTTPS_PROXY", &url);
        let child = command.kill_on_drop(true).spawn().unwrap();
        let (mut connection, _) = timeout(SOON, proxy.accept()).await.unwrap().unwrap();
        let mut line = vec![0; 256];
        let length = timeout(SOON, connection.read(&mut line)).await.unwrap().unwrap();
        let line = String::from_utf8_lossy(&line[..length]).into_owned();
        assert!(line.starts_with(&format!("CONNECT {host}:443 ")), "{line}");
        drop(child);
    }
}

#[tokio::test]
async fn full_standard_error_changes_no_exit_code() {
    let workload = Workload::new("unwrap-full").await;
    for (more, code) in [("", 0), ("--min-version=2", 2)] {
        let inner = workload.command("file", &[]);
        let mut command = tokio::process::Command::new("/bin/sh");
        command.env_clear().envs(variables(&inner));
        let (inner, script) = (inner.as_std(), format!(r#""$@" {more} 2>/dev/full"#));
        command.args(["-c", &script, "sh"]).arg(inner.get_program()).args(inner.get_args());
        assert_eq!(end_of(command).await.code, code);
    }
}

#[tokio::test]
async fn endpoint_of_the_arguments_goes_before_the_environment() {
    let workload = Workload::new("unwrap-endpoint").await;
    let url = workload.test.proxy.url();
    let mut command = workload.command("check", &["--endpoint-url", &url, "--region", "us-west-2"]);
    command.env("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:1");
    let ended = end_of(command).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    // The Region of the call is that of the KMS key.
    let call = &workload.test.proxy.requests_of("Decrypt")[0];
    assert_eq!(call.region, testbed::kms::REGION);
    let ended = workload.run("check", &["--endpoint-url", "http://127.0.0.1:1"]).await;
    assert_ended(&ended, 75, "could not be called");
}

#[tokio::test]
async fn place_for_keys_must_be_in_memory() {
    let workload = Workload::new("unwrap-place").await;
    let folder = workload.test.plane.workdir().file("on-disk");
    std::fs::create_dir(&folder).unwrap();
    for (to, words) in [(folder.as_path(), "is not in memory"), ("/no/such".as_ref(), "mount an emptyDir")] {
        for name in ["file", "watch"] {
            let ended = end_of(workload.command_to(name, to, &workload.trust())).await;
            assert_ended(&ended, 64, words);
        }
    }
    assert_eq!(workload.calls(), 0);
}
