//! Which certificate authorities the calls to AWS trust: those of `AWS_CA_BUNDLE` alone where it is set, as with the AWS CLI and
//! boto3, else those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, else the system's.

use std::{collections::BTreeMap, ffi::OsString};

use aws_smithy_http_client::tls::TrustStore;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::forms::Found;

const END: &str = "-----END CERTIFICATE-----";

/// The trusted certificates.
///
/// # Errors
/// There is none: then no call over TLS could succeed.
pub fn trust(bundle: Option<&Found>, variables: &BTreeMap<String, OsString>) -> Result<TrustStore, String> {
    let Some(Found { name, value: path }) = bundle else { return of_the_system(variables) };
    let pem = std::fs::read_to_string(path)
        .map_err(|error| format!("{name} names {path:?}, which cannot be read: {error}"))?;
    let usable: Vec<_> = pem.split_inclusive(END).filter(|section| is_usable(section)).collect();
    if usable.is_empty() {
        return Err(format!("{name}: no CA certificates in {path:?}; it has to be a file of PEM certificates"));
    }
    // Add the usable certificates one by one: the SDK panics on a certificate that it cannot read, and bundles of systems
    // contain such certificates.
    let trust = TrustStore::empty();
    Ok(usable.into_iter().fold(trust, TrustStore::with_pem_certificate))
}

fn of_the_system(variables: &BTreeMap<String, OsString>) -> Result<TrustStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let (usable, _) = RootCertStore::empty().add_parsable_certificates(found.certs);
    if usable > 0 {
        return Ok(TrustStore::default());
    }
    let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
    let named: Vec<_> =
        named.iter().filter_map(|name| Some(format!("{name} {:?}", variables.get(*name)?.to_string_lossy()))).collect();
    let place = if named.is_empty() { "the system's certificate store".to_owned() } else { named.join(" and ") };
    let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
    Err(format!(
        "no CA certificates in {place}{why}: name a file of PEM certificates in AWS_CA_BUNDLE or SSL_CERT_FILE"
    ))
}

/// Whether a section of a PEM file has certificates, all of which can be trusted.
fn is_usable(section: &str) -> bool {
    let Ok(certificates) = CertificateDer::pem_slice_iter(section.as_bytes()).collect::<Result<Vec<_>, _>>() else {
        return false;
    };
    let count = certificates.len();
    count > 0 && RootCertStore::empty().add_parsable_certificates(certificates) == (count, 0)
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine as _};

    use super::*;

    fn bundle(content: &str) -> Result<TrustStore, String> {
        let file = std::env::temp_dir().join(format!("datakey-bundle-{:016x}.pem", fastrand::u64(..)));
        std::fs::write(&file, content).unwrap();
        let found = Found { name: "AWS_CA_BUNDLE".to_owned(), value: file.display().to_string() };
        let trust = trust(Some(&found), &BTreeMap::new());
        std::fs::remove_file(&file).unwrap();
        trust
    }

    #[test]
    fn bundle_without_a_certificate_is_refused_by_name() {
        let odd = format!("-----BEGIN CERTIFICATE-----\nAAAA\n{END}\n");
        for content in ["", "no certificate", &odd] {
            let refused = bundle(content).unwrap_err();
            assert!(refused.starts_with("AWS_CA_BUNDLE: no CA certificates in"), "{refused}");
        }
        let missing = Found { name: "AWS_CA_BUNDLE".to_owned(), value: "/no/such/file".to_owned() };
        let refused = trust(Some(&missing), &BTreeMap::new()).unwrap_err();
        assert!(refused.starts_with("AWS_CA_BUNDLE names \"/no/such/file\", which cannot be read"), "{refused}");
    }

    #[test]
    fn sections_that_are_no_certificate_are_ignored() {
        let system = rustls_native_certs::load_native_certs();
        assert!(!system.certs.is_empty(), "the system that runs the tests has CA certificates");
        let base64 = BASE64_STANDARD.encode(&system.certs[0]);
        let good = format!("# a comment\n-----BEGIN CERTIFICATE-----\n{base64}\n{END}\n");
        let odd = format!("-----BEGIN CERTIFICATE-----\nAAAA\n{END}\n");
        for content in [good.clone(), format!("{odd}{good}"), format!("{good}{odd}the end\n")] {
            let trusted = format!("{:?}", bundle(&content).unwrap());
            assert_eq!(trusted.matches("CertificatePEM").count(), 1, "{content}");
        }
    }
}
