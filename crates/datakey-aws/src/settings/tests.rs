use std::ffi::OsString;

use aws_runtime::env_config::file::EnvConfigFiles;
use aws_types::os_shim_internal::{Env, Fs};

use super::*;

const KEYS: &str = "aws_access_key_id = AKIA\naws_secret_access_key = s\n";

async fn checked(variables: &[(&str, &str)], config: &str, user: User) -> Result<AwsSettings, String> {
    with_sources(variables, config, |sources| check(sources, user)).await
}

async fn with_sources<T>(variables: &[(&str, &str)], config: &str, use_: impl FnOnce(&Sources<'_>) -> T) -> T {
    let files = [("AWS_CONFIG_FILE", "/config"), ("AWS_SHARED_CREDENTIALS_FILE", "/none")];
    let all = [variables, &files].concat();
    let fs = Fs::from_slice(&[("/config", config)]);
    let (env, files) = (Env::from_slice(&all), EnvConfigFiles::default());
    let profiles = aws_config::profile::load(&fs, &env, &files, None).await.unwrap();
    let variables = all.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(*value))).collect();
    use_(&Sources { variables: &variables, profiles: &profiles })
}

#[tokio::test]
async fn each_variable_accepts_and_refuses_the_values_of_its_row() {
    let table: [(&str, &[&str], &[&str]); 19] = [
        ("AWS_REGION", &["", "eu-west-1", "us-gov-east-1"], &["eu-west-1\n", "EU", "eu west 1", "eu-west-1,"]),
        ("AWS_DEFAULT_REGION", &["", "eu-west-1"], &["eu-west-1 ", "nowhere"]),
        ("AWS_SESSION_TOKEN", &["", "IQoJb3/+=="], &["t\n", "t t", "\u{202e}"]),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", &["", "token"], &["token\r\nX: y"]),
        ("AWS_ENDPOINT_URL", &["http://localhost:4566", "https://[::1]:8443/kms"], &["", "localhost:4566", "kms"]),
        (
            "AWS_ENDPOINT_URL_KMS",
            &["http://127.0.0.1:4566/", "https://kms.example.com"],
            &["", "ftp://kms", "https://", "https://u:p@kms", "https://kms?x", "https://kms\n", "https://k ms"],
        ),
        ("AWS_ENDPOINT_URL_STS", &["https://sts.example.com"], &["", "sts"]),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &["http://[fd00:ec2::254]"], &["", "169.254.169.254\n"]),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &["http://169.254.170.23/v1", "http://localhost/v1?a=b"], &["", "/v1"]),
        (
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            &["/v2/credentials/1?a=b"],
            &["", "v2/credentials", "http://x/v2", "x:80", "/a b", "//x/v2\n"],
        ),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", &["", "IPv4", "ipv6"], &["6", "IPv5"]),
        ("AWS_USE_FIPS_ENDPOINT", &["", "true", "False"], &["yes", "1", "true "]),
        ("AWS_USE_DUALSTACK_ENDPOINT", &["", "TRUE"], &["on"]),
        ("AWS_EC2_METADATA_DISABLED", &["", "true"], &["1"]),
        ("AWS_MAX_ATTEMPTS", &["", "1", "10"], &["0", "-1", "many", "1.5", "99999999999"]),
        ("AWS_RETRY_MODE", &["", "standard", "adaptive"], &["legacy", "never"]),
        ("AWS_PROFILE", &["default"], &["", "other"]),
        ("HTTPS_PROXY", &["", "http://proxy:3128", "proxy:3128"], &["socks5://proxy", "http://", "pro xy"]),
        ("http_proxy", &["", "https://user:password@proxy"], &["http://\n"]),
    ];
    for (name, taken, refused) in table {
        for value in taken {
            let settings = checked(&[(name, value)], "[default]\n", User::Service).await;
            assert_eq!(settings.err(), None, "{name}={value:?}");
        }
        for value in refused {
            let settings = checked(&[(name, value)], "[default]\n", User::Service).await;
            let line = settings.err().unwrap_or_else(|| panic!("{name}={value:?} was taken"));
            assert!(line.starts_with(name) && !line.contains('\n'), "{line}");
        }
    }
}

#[tokio::test]
async fn incomplete_credentials_are_refused_without_their_values() {
    let (id, secret, marker) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "marker");
    for (variables, name) in [
        (&[(id, marker), (secret, marker)][..], None),
        (&[(id, ""), (secret, "")], None),
        (&[(id, "marker\n"), (secret, marker)], Some(id)),
        (&[(id, marker), (secret, "mar ker")], Some(secret)),
        (&[(id, marker)], Some(id)),
        (&[(secret, marker), (id, "")], Some(secret)),
        (&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/marker")], Some("AWS_WEB_IDENTITY_TOKEN_FILE")),
        (&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/marker"), ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/r")], None),
    ] {
        let line = checked(variables, "", User::Service).await.err();
        assert_eq!(line.as_ref().map(|line| line.split(' ').next().unwrap()), name, "{variables:?}");
        assert!(!line.is_some_and(|line| line.contains("marker") || line.contains("mar ker")));
    }
}

#[tokio::test]
async fn values_of_a_profile_are_checked_like_variables() {
    for (property, name) in [
        ("region = Mars", "region of"),
        ("max_attempts = 0", "max_attempts of"),
        ("retry_mode = legacy", "retry_mode of"),
        ("endpoint_url = kms", "endpoint_url of"),
        ("use_fips_endpoint = perhaps", "use_fips_endpoint of"),
        ("aws_access_key_id = AK IA", "aws_access_key_id of"),
    ] {
        let line = checked(&[], &format!("[default]\n{property}\n"), User::Person).await.unwrap_err();
        assert!(line.starts_with(name) && line.contains("profile \"default\""), "{line}");
    }
}

#[tokio::test]
async fn fips_and_dual_stack_need_the_endpoints_of_aws() {
    let (fips, url) = ("AWS_USE_FIPS_ENDPOINT", "https://kms.example.com");
    let services = "[default]\nservices = here\n[services here]\nkms =\n  endpoint_url = https://kms.example.com\n";
    for (variables, config, is_taken) in [
        (&[(fips, "true")][..], "", true),
        (&[(fips, "false"), ("AWS_ENDPOINT_URL_KMS", url)], "", true),
        (&[(fips, "true"), ("AWS_ENDPOINT_URL_STS", url)], "", true),
        (&[(fips, "true"), ("AWS_ENDPOINT_URL", url), ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")], "", true),
        (&[(fips, "true"), ("AWS_ENDPOINT_URL_KMS", url)], "", false),
        (&[(fips, "true"), ("AWS_ENDPOINT_URL", url)], "", false),
        (&[("AWS_USE_DUALSTACK_ENDPOINT", "true"), ("AWS_ENDPOINT_URL_KMS", url)], "", false),
        (&[("AWS_ENDPOINT_URL", url)], "[default]\nuse_fips_endpoint = true\n", false),
        (&[(fips, "true")], services, false),
        (&[(fips, "true")], "[default]\nendpoint_url = https://kms.example.com\n", false),
    ] {
        let line = checked(variables, config, User::Service).await.err();
        assert_eq!(line.is_none(), is_taken, "{variables:?} {config}: {line:?}");
        assert!(line.is_none_or(|line| line.contains("remove one of them")));
    }
}

#[tokio::test]
async fn settings_that_need_a_prompt_are_refused_for_a_service() {
    let role = "role_arn = arn:aws:iam::111122223333:role/r\n";
    let sso = "[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://x\n";
    for (config, property) in [
        (format!("[default]\n{KEYS}"), None),
        ("[default]\ncredential_process = /bin/x\n".to_owned(), Some("credential_process")),
        (format!("[default]\ncredential_process = /bin/x\n{KEYS}"), Some("credential_process")),
        (format!("[default]\nsso_session = s\n{sso}"), Some("sso_session")),
        ("[default]\nlogin_session = arn:aws:iam::111122223333:user/a\n".to_owned(), Some("login_session")),
        (
            format!("[default]\n{role}source_profile = b\n[profile b]\ncredential_process = x\n"),
            Some("credential_process"),
        ),
        (format!("[default]\n{role}source_profile = b\n[profile b]\ncredential_process = x\n{KEYS}"), None),
        (format!("[default]\n{role}source_profile = default\n{KEYS}"), None),
        (format!("[default]\n{role}source_profile = b\n[profile b]\n{role}source_profile = default\n"), None),
        (format!("[default]\n{role}credential_source = Environment\ncredential_process = x\n"), None),
        (format!("[default]\n{KEYS}[profile b]\ncredential_process = x\n"), None),
    ] {
        let line = checked(&[], &config, User::Service).await.err();
        assert_eq!(line.is_some(), property.is_some(), "{config}: {line:?}");
        if let (Some(line), Some(property)) = (line, property) {
            assert!(line.contains(property) && line.contains("IRSA"), "{line}");
        }
        assert!(checked(&[], &config, User::Person).await.is_ok(), "{config}");
        let keys = [("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "s")];
        assert!(checked(&keys, &config, User::Service).await.is_ok(), "{config}");
    }
}

#[tokio::test]
async fn environment_has_priority_over_the_profile() {
    let config = "[default]\nca_bundle = /profile.pem\nmax_attempts = 7\n";
    let settings = checked(&[], config, User::Service).await.unwrap();
    assert_eq!(settings.ca_bundle.unwrap().value, "/profile.pem");
    assert_eq!(settings.retry.max_attempts(), 7);
    let variables = [("AWS_CA_BUNDLE", "/variable.pem"), ("AWS_MAX_ATTEMPTS", "2")];
    let settings = checked(&variables, config, User::Service).await.unwrap();
    assert_eq!(settings.ca_bundle.unwrap().value, "/variable.pem");
    assert_eq!(settings.retry.max_attempts(), 2);
}

#[tokio::test]
async fn workload_does_not_call_kms_without_tls() {
    const FLAG: &str = "--endpoint-url";
    let services = "[default]\nservices = local\n[services local]\nkms =\n  endpoint_url = http://kms.example.com\n";
    for (variables, config, is_refused) in [
        (&[][..], "", false),
        (&[("AWS_ENDPOINT_URL_KMS", "https://kms.example.com")], "", false),
        (&[("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:4566/")], "", false),
        (&[("AWS_ENDPOINT_URL_KMS", "http://localhost")], "", false),
        (&[("AWS_ENDPOINT_URL_KMS", "http://[::1]:4566")], "", false),
        (&[("AWS_ENDPOINT_URL_KMS", "http://kms.example.com")], "", true),
        (&[("AWS_ENDPOINT_URL", "HTTP://10.0.0.1:4566")], "", true),
        (&[("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1.example.com")], "", true),
        (&[], "[default]\nendpoint_url = http://kms.example.com\n", true),
        (&[], services, true),
        (&[("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")], services, false),
    ] {
        let result = with_sources(variables, config, refuse_cleartext).await;
        assert_eq!(result.is_err(), is_refused, "{variables:?} {config}: {result:?}");
        assert!(result.is_ok() || result.is_err_and(|error| error.contains(FLAG)));
    }
}
