//! Environments that the operator refuses to start with.

use crate::harness::{SOON, TestNamespace};

/// Starts the operator in this environment. Returns its exit code and its output.
async fn refused(test: &TestNamespace, environment: &[(&str, &str)]) -> (i32, String) {
    let mut operator = test.operator_with(&[], environment);
    let ended = tokio::time::timeout(SOON, operator.process.ended());
    let code = ended.await.unwrap_or_else(|_| panic!("it runs with {environment:?}"));
    (code, operator.process.log())
}

#[tokio::test]
async fn an_environment_that_cannot_work_is_refused_with_one_line() {
    let test = TestNamespace::new("environment").await;
    let empty = test.plane.workdir().file("environment-empty");
    std::fs::create_dir_all(&empty).unwrap();
    let empty = empty.display().to_string();
    let (no_keys, endpoint) = ([("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")], "https://kms.example.com");
    let file = |name: &str, content: &str| {
        let path = test.plane.workdir().file(&format!("environment-{name}"));
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let process = file("process", "[default]\ncredential_process = /bin/echo\n");
    let sso = file("sso", "[default]\nsso_start_url = https://example.awsapps.com/start\n");
    let attempts = file("attempts", "[default]\nmax_attempts = 0\n");
    for (environment, words) in [
        (&[("AWS_ACCESS_KEY_ID", "key\n")][..], "AWS_ACCESS_KEY_ID"),
        (&[("AWS_SESSION_TOKEN", "to ken")], "AWS_SESSION_TOKEN"),
        (&[("AWS_ENDPOINT_URL_KMS", "")], "AWS_ENDPOINT_URL_KMS is empty"),
        (&[("AWS_ENDPOINT_URL", "kms")], "AWS_ENDPOINT_URL is \"kms\""),
        (&[("AWS_MAX_ATTEMPTS", "0")], "AWS_MAX_ATTEMPTS is \"0\""),
        (&[("AWS_CONFIG_FILE", &attempts)], "max_attempts of the profile \"default\" is \"0\""),
        (&[("AWS_RETRY_MODE", "legacy")], "AWS_RETRY_MODE is \"legacy\""),
        (&[("AWS_REGION", "eu-west-1\n")], "AWS_REGION is \"eu-west-1\\n\""),
        (&[("AWS_USE_FIPS_ENDPOINT", "true"), ("AWS_ENDPOINT_URL_KMS", endpoint)], "AWS_ENDPOINT_URL_KMS is set"),
        (&[("AWS_USE_DUALSTACK_ENDPOINT", "yes")], "AWS_USE_DUALSTACK_ENDPOINT is \"yes\""),
        (&[("AWS_PROFILE", "missing")], "AWS_PROFILE is \"missing\""),
        (&[("AWS_CA_BUNDLE", "/no/such/file")], "AWS_CA_BUNDLE names \"/no/such/file\""),
        (&[("SSL_CERT_DIR", &empty)], "no CA certificates in SSL_CERT_DIR"),
        (&[("SSL_CERT_FILE", "/no/such/file")], "no CA certificates in SSL_CERT_FILE"),
        (&[("HTTPS_PROXY", "socks5://proxy")], "HTTPS_PROXY cannot be used"),
        (&[no_keys[0], no_keys[1], ("AWS_CONFIG_FILE", &process)], "has credential_process"),
        (&[no_keys[0], no_keys[1], ("AWS_CONFIG_FILE", &sso)], "has sso_start_url"),
    ] {
        let (code, said) = refused(&test, environment).await;
        let lines: Vec<_> = said.lines().collect();
        assert_eq!((code, lines.len()), (64, 1), "{environment:?}: {said}");
        assert!(lines[0].starts_with("datakey-operator: ") && lines[0].contains(words), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}
