//! Certificates and keys of a control plane.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

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
