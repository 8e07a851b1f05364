//! Certificates and keys of a control plane.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::node;

/// Writes `ca.crt`; `server.*` for loopback and for pods; `admin.*`, `controller-manager.*`, `scheduler.*` and `node.*` as
/// clients; `service-accounts.*`, which sign tokens.
pub fn write(folder: &Path) {
    let key = || KeyPair::generate().expect("generate a key");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "testbed");
    let authority = CertifiedIssuer::self_signed(authority, key()).expect("sign the authority");
    fs::write(folder.join("ca.crt"), authority.pem()).expect("write ca.crt");

    let issue = |name: &str, params: CertificateParams| {
        let key = key();
        let certificate = params.signed_by(&key, &authority).expect("sign a certificate");
        fs::write(folder.join(format!("{name}.crt")), certificate.pem()).expect("write a certificate");
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("write a key");
    };

    let names = ["localhost", "127.0.0.1", node::KUBERNETES].map(str::to_owned);
    let mut server = CertificateParams::new(names).expect("valid names");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    issue("server", server);

    for (name, user, group) in [
        ("admin", "admin", Some("system:masters")),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("node", "system:node:node", Some("system:nodes")),
    ] {
        let mut client = CertificateParams::default();
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        client.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            client.distinguished_name.push(DnType::OrganizationName, group);
        }
        issue(name, client);
    }
    let tokens = key();
    fs::write(folder.join("service-accounts.key"), tokens.serialize_pem()).expect("write a key");
    fs::write(folder.join("service-accounts.pub"), tokens.public_key_pem()).expect("write a key");
}

/// What a server with `server.crt` speaks: TLS, with HTTP/2 for those who can.
pub fn server(folder: &Path) -> ServerConfig {
    // Several tests may be first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let certificate = CertificateDer::from_pem_file(folder.join("server.crt")).expect("server.crt");
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).expect("server.key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    let mut config = config.expect("a certificate and its key");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}
