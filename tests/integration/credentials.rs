//! AWS credentials and endpoints are found as every AWS tool finds them. The proxy sees with whose credentials KMS is
//! called; small servers replace the parts of AWS that hand credentials out.

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use http::{Method, Request, Response};
use serde_json::{Value, json};
use testbed::{eventually, kms, proxy::Fault};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    sync::Mutex,
};

use crate::harness::{SOON, TestNamespace, UNSET, message};

/// No static credentials, and no files of the user who runs the tests.
const NONE: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", ""),
    ("AWS_SECRET_ACCESS_KEY", ""),
    ("AWS_CONFIG_FILE", "/no/such/file"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/no/such/file"),
];

/// Issues a `DataKey` with the credentials of this environment. Returns the access key ID that KMS saw.
async fn access_key_id_used(test: &TestNamespace, environment: &[(&str, &str)]) -> String {
    // The KMS server finds the account by the access key ID, and knows only the one of the tests.
    test.proxy.fail_always(Fault::AsAccount(kms::ACCOUNT.to_owned()));
    let _operator = test.operator_with(&[], &[&NONE[..], environment].concat());
    let name = format!("k{}", test.proxy.calls());
    test.issue(&name, &json!({ "keyId": test.key.arn })).await;
    test.proxy.requests().last().unwrap().access_key_id.clone()
}

fn write_file(test: &TestNamespace, name: &str, content: &str) -> PathBuf {
    let path = test.plane.workdir().file(&format!("{}-{name}", test.namespace));
    std::fs::write(&path, content).unwrap();
    path
}

/// Serves fixed answers by method and path on loopback; keeps what it was asked, with the authorization.
struct Stub {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    async fn start(answers: Vec<(Method, &'static str, String)>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&asked);
        let answer = move |request: Request<axum::body::Body>| {
            let path = request.uri().path().to_owned();
            let token = request.headers().get("authorization").map_or("", |value| value.to_str().unwrap_or_default());
            let line = format!("{} {path} {token}", request.method());
            let found = answers.iter().find(|(method, answered, _)| method == request.method() && *answered == path);
            let (status, body) = found.map_or((404, String::new()), |(_, _, body)| (200, body.clone()));
            let kept = Arc::clone(&kept);
            async move {
                kept.lock().await.push(line);
                let response = Response::builder().status(status).header("x-aws-ec2-metadata-token-ttl-seconds", "600");
                Ok::<_, Infallible>(response.body(axum::body::Body::from(body)).unwrap())
            }
        };
        let app = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, asked }
    }

    async fn was_asked(&self, line: &str) -> bool {
        self.asked.lock().await.iter().any(|asked| asked == line)
    }
}

/// Credentials as the endpoints of containers and instances hand them out.
fn handed_out(access_key_id: &str) -> Value {
    json!({
        "Code": "Success",
        "AccessKeyId": access_key_id,
        "SecretAccessKey": "test",
        "Token": "session-token",
        "Expiration": "2099-01-01T00:00:00Z",
        "LastUpdated": "2026-01-01T00:00:00Z",
    })
}

#[tokio::test]
async fn credentials_of_environment_and_profile_are_used() {
    let test = TestNamespace::new("credentials-files").await;
    let static_keys = [("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT"), ("AWS_SECRET_ACCESS_KEY", "test")];
    assert_eq!(access_key_id_used(&test, &static_keys).await, "AKIAENVIRONMENT");

    let file =
        write_file(&test, "credentials", "[other]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = test\n");
    let file = file.display().to_string();
    let profile = [("AWS_SHARED_CREDENTIALS_FILE", file.as_str()), ("AWS_PROFILE", "other")];
    assert_eq!(access_key_id_used(&test, &profile).await, "AKIAPROFILE");
}

#[tokio::test]
async fn rewritten_profile_is_read_again() {
    let test = TestNamespace::new("credentials-rotated").await;
    test.proxy.fail_always(Fault::AsAccount(kms::ACCOUNT.to_owned()));
    let profile = |id: &str| format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = test\n");
    let file = write_file(&test, "credentials", &profile("AKIAFIRST"));
    let path = file.display().to_string();
    let environment = [&NONE[..3], &[("AWS_SHARED_CREDENTIALS_FILE", path.as_str())]].concat();
    let _operator = test.operator_with(&[], &environment);
    let spec = json!({ "keyId": test.key.arn });
    test.issue("first", &spec).await;
    std::fs::write(&file, profile("AKIASECOND")).unwrap();
    test.issue("before-a-refusal", &spec).await;
    test.proxy.fail_always(Fault::code("UnrecognizedClientException"));
    test.create("second", &spec).await;
    test.failed("second", "CredentialsRejected").await;
    test.proxy.fail_always(Fault::AsAccount(kms::ACCOUNT.to_owned()));
    test.ready("second").await;
    // A file that is missing for a while is not a permanent error.
    std::fs::remove_file(&file).unwrap();
    test.proxy.fail_always(Fault::code("ExpiredTokenException"));
    test.create("third", &spec).await;
    test.failed("third", "CredentialsMissing").await;
    test.proxy.fail_always(Fault::AsAccount(kms::ACCOUNT.to_owned()));
    std::fs::write(&file, profile("AKIATHIRD")).unwrap();
    test.ready("third").await;
    let mut used: Vec<_> = test.proxy.requests().into_iter().map(|call| call.access_key_id).collect();
    assert_eq!(used.iter().filter(|id| *id == "AKIAFIRST").count(), 3, "issued, issued, refused: {used:?}");
    used.dedup();
    assert_eq!(used, ["AKIAFIRST", "AKIASECOND", "AKIATHIRD"]);
}

#[tokio::test]
async fn credentials_that_no_request_can_carry_are_reported() {
    let test = TestNamespace::new("credentials-odd").await;
    let stub = Stub::start(vec![(Method::GET, "/v1/credentials", handed_out("ASIA\nODD").to_string())]).await;
    let url = format!("{}/v1/credentials", stub.url);
    let operator = test.operator_with(&[], &[&NONE[..], &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)]].concat());
    test.create("orders", &json!({})).await;
    test.failed("orders", "CredentialsMissing").await;
    operator.logs("the access key ID has blanks, control characters").await;
    assert!(!operator.process.log().contains("panicked"));
}

#[tokio::test]
async fn web_identity_credentials_of_irsa_are_used() {
    let test = TestNamespace::new("credentials-irsa").await;
    let sts = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
               <AccessKeyId>ASIAWEBIDENTITY</AccessKeyId><SecretAccessKey>test</SecretAccessKey>\
               <SessionToken>session-token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
               </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
    let stub = Stub::start(vec![(Method::POST, "/", sts.to_owned())]).await;
    let token = write_file(&test, "token", "projected-token").display().to_string();
    let irsa = [
        ("AWS_ENDPOINT_URL_STS", stub.url.as_str()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
        ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/datakey-operator"),
    ];
    assert_eq!(access_key_id_used(&test, &irsa).await, "ASIAWEBIDENTITY");
}

#[tokio::test]
async fn container_credentials_of_eks_pod_identity_are_used() {
    let test = TestNamespace::new("credentials-pod-identity").await;
    let stub = Stub::start(vec![(Method::GET, "/v1/credentials", handed_out("ASIAPODIDENTITY").to_string())]).await;
    let token = write_file(&test, "token", "projected-token").display().to_string();
    let url = format!("{}/v1/credentials", stub.url);
    let pod_identity =
        [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token)];
    assert_eq!(access_key_id_used(&test, &pod_identity).await, "ASIAPODIDENTITY");
    assert!(stub.was_asked("GET /v1/credentials projected-token").await);
}

#[tokio::test]
async fn instance_metadata_credentials_are_used() {
    let test = TestNamespace::new("credentials-imds").await;
    let role = "/latest/meta-data/iam/security-credentials/";
    let stub = Stub::start(vec![
        (Method::PUT, "/latest/api/token", "imds-token".to_owned()),
        (Method::GET, role, "node-role".to_owned()),
        (Method::GET, "/latest/meta-data/iam/security-credentials/node-role", handed_out("ASIANODE").to_string()),
    ])
    .await;
    let imds = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", stub.url.as_str()), ("AWS_EC2_METADATA_DISABLED", "false")];
    assert_eq!(access_key_id_used(&test, &imds).await, "ASIANODE");
}

/// A proxy that records the requested hosts and connects to none.
async fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let wanted = Arc::<Mutex<Vec<String>>>::default();
    let kept = Arc::clone(&wanted);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut line = String::new();
            if BufReader::new(stream).read_line(&mut line).await.is_ok() {
                kept.lock().await.push(line.split(' ').nth(1).unwrap_or_default().to_owned());
            }
        }
    });
    (proxy, wanted)
}

#[tokio::test]
async fn servers_on_the_node_are_never_reached_through_a_proxy() {
    let test = TestNamespace::new("proxy-node").await;
    let (proxy, wanted) = proxy().await;
    let role = "/latest/meta-data/iam/security-credentials/";
    let stub = Stub::start(vec![
        (Method::PUT, "/latest/api/token", "imds-token".to_owned()),
        (Method::GET, role, "node-role".to_owned()),
        (Method::GET, "/latest/meta-data/iam/security-credentials/node-role", handed_out("ASIANODE").to_string()),
        (Method::GET, "/v1/credentials", handed_out("ASIAPODIDENTITY").to_string()),
    ])
    .await;
    // A host name that is not in NO_PROXY; the API server's address is in it.
    let node = stub.url.replace("127.0.0.1", "localhost");
    let pod_identity = format!("{node}/v1/credentials");
    test.create("orders", &json!({ "keyId": test.key.arn })).await;
    for (variables, asked) in [
        (&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", pod_identity.as_str())][..], "GET /v1/credentials "),
        (
            &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", node.as_str()), ("AWS_EC2_METADATA_DISABLED", "false")],
            "PUT /latest/api/token ",
        ),
    ] {
        let proxies = [("HTTPS_PROXY", proxy.as_str()), ("HTTP_PROXY", &proxy)];
        let proxies = [&proxies[..], &[("NO_PROXY", "127.0.0.1"), ("AWS_ENDPOINT_URL_KMS", UNSET)]].concat();
        wanted.lock().await.clear();
        let _operator = test.operator_with(&["--kms-timeout=2s"], &[&NONE[..], &proxies, variables].concat());
        let host = "kms.eu-west-1.amazonaws.com:443";
        eventually(SOON, "KMS is wanted", async || wanted.lock().await.iter().any(|wanted| wanted == host)).await;
        let wanted = wanted.lock().await.clone();
        assert!(wanted.iter().all(|wanted| wanted == host), "{wanted:?}");
        assert!(stub.was_asked(asked).await, "{asked}");
    }
}

#[tokio::test]
async fn endpoints_follow_region_fips_and_dual_stack() {
    let test = TestNamespace::new("endpoints").await;
    let (proxy, wanted) = proxy().await;
    test.create("orders", &json!({ "region": "eu-north-1" })).await;
    for (settings, host) in [
        (&[][..], "kms.eu-north-1.amazonaws.com:443"),
        (&[("AWS_USE_FIPS_ENDPOINT", "true")], "kms-fips.eu-north-1.amazonaws.com:443"),
        (&[("AWS_USE_DUALSTACK_ENDPOINT", "true")], "kms.eu-north-1.api.aws:443"),
    ] {
        let common = [("HTTPS_PROXY", proxy.as_str()), ("NO_PROXY", "127.0.0.1"), ("AWS_ENDPOINT_URL_KMS", UNSET)];
        let _operator = test.operator_with(&["--kms-timeout=2s"], &[&common, settings].concat());
        eventually(SOON, host, async || wanted.lock().await.iter().any(|wanted| wanted == host)).await;
        test.failed("orders", "KmsUnreachable").await;
    }
    assert_eq!(test.proxy.calls(), 0);
}

#[tokio::test]
async fn sts_is_called_in_the_operators_own_region_only() {
    let test = TestNamespace::new("endpoints-sts").await;
    let (proxy, wanted) = proxy().await;
    let role = json!({ "roleArn": "arn:aws:iam::444455556666:role/shop" });
    test.class(&json!({ "allow": [{ "keyIds": [test.alias()] }], "aws": role })).await;
    test.create("orders", &json!({ "className": test.namespace, "region": "eu-north-1" })).await;
    for (settings, host) in [
        (&[][..], "sts.eu-west-1.amazonaws.com:443"),
        (&[("AWS_REGION", "us-east-1")], "sts.us-east-1.amazonaws.com:443"),
        (&[("AWS_USE_FIPS_ENDPOINT", "true")], "sts-fips.eu-west-1.amazonaws.com:443"),
        (&[("AWS_USE_DUALSTACK_ENDPOINT", "true")], "sts.eu-west-1.api.aws:443"),
    ] {
        let unset = [("AWS_ENDPOINT_URL_KMS", UNSET), ("AWS_ENDPOINT_URL_STS", UNSET)];
        let common = [&[("HTTPS_PROXY", proxy.as_str()), ("NO_PROXY", "127.0.0.1")], &unset[..], settings].concat();
        wanted.lock().await.clear();
        let _operator = test.operator_with(&["--kms-timeout=2s"], &common);
        eventually(SOON, host, async || wanted.lock().await.iter().any(|wanted| wanted == host)).await;
        let failed = test.failed("orders", "KmsUnreachable").await;
        assert!(message(&failed).starts_with("No connection to AWS STS"), "{}", message(&failed));
        let wanted = wanted.lock().await.clone();
        assert!(wanted.iter().all(|wanted| wanted == host), "KMS is called by no other identity: {wanted:?}");
    }
}
