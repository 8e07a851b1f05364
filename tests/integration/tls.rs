//! TLS connections to AWS: which certificates are trusted, and how a failure is reported.

use std::sync::Arc;

use datakey::{api::READY, condition::find};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::json;
use testbed::eventually;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::harness::{SOON, TestNamespace};

/// The KMS proxy of a test behind TLS, with a certificate of the control plane's CA for 127.0.0.1.
pub struct Tls {
    pub url: String,
    server: JoinHandle<()>,
}

// === impl Tls ===

impl Tls {
    pub async fn before(test: &TestNamespace) -> Self {
        let file = |name: &str| test.plane.workdir().file(name);
        let certificates = CertificateDer::pem_file_iter(file("server.crt")).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(certificates, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let behind = test.proxy.url().trim_start_matches("http://").to_owned();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    if let (Ok(mut stream), Ok(mut kms)) =
                        (acceptor.accept(stream).await, TcpStream::connect(behind).await)
                    {
                        let _ = copy_bidirectional(&mut stream, &mut kms).await;
                    }
                });
            }
        });
        Self { url: format!("https://127.0.0.1:{port}"), server }
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tokio::test]
async fn a_tls_failure_names_the_certificate_and_nothing_is_sent() {
    let test = TestNamespace::new("tls-failures").await;
    let tls = Tls::before(&test).await;
    let no_tls = test.proxy.url().replace("http://", "https://");
    test.create("orders", &json!({})).await;
    for (url, words) in
        [(&tls.url, "issued by a CA that the operator does not trust"), (&no_tls, "the server does not speak TLS")]
    {
        let _operator = test.operator_with(&[], &[("AWS_ENDPOINT_URL_KMS", url)]);
        let says_so = async || {
            let key = test.failed("orders", "TlsFailed").await;
            let message = &find(&key, READY).unwrap().message;
            message.contains(words) && message.contains("AWS_CA_BUNDLE") && !message.contains("DNS")
        };
        eventually(SOON, words, says_so).await;
    }
    assert_eq!(test.proxy.calls(), 0);
}

#[tokio::test]
async fn aws_ca_bundle_counts_as_with_the_aws_cli() {
    let test = TestNamespace::new("tls-bundle").await;
    let tls = Tls::before(&test).await;
    let authority = test.plane.workdir().file("ca.crt").display().to_string();
    let config = test.plane.workdir().file("tls-bundle-config");
    std::fs::write(&config, format!("[default]\nca_bundle = {authority}\n")).unwrap();
    let config = config.display().to_string();
    for (number, variables) in [
        &[("AWS_CA_BUNDLE", authority.as_str())][..],
        &[("AWS_CONFIG_FILE", &config)],
        &[("SSL_CERT_FILE", &authority)],
        // The bundle replaces the certificates of the system.
        &[("AWS_CA_BUNDLE", &authority), ("SSL_CERT_FILE", "/no/such/file")],
    ]
    .into_iter()
    .enumerate()
    {
        let _operator = test.operator_with(&[], &[&[("AWS_ENDPOINT_URL_KMS", tls.url.as_str())], variables].concat());
        test.issue(&format!("k{number}"), &json!({})).await;
    }
}
