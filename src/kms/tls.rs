//! Short texts about TLS failures, for the condition. The log has the error message of rustls.

use std::{error::Error, io};

use rustls::{CertificateError, Error as TlsError};

/// What is wrong with the TLS connection, if an error has such a cause.
pub fn problem(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let error = std::iter::successors(Some(error), |error| cause(*error)).find_map(|error| error.downcast_ref())?;
    Some(match error {
        TlsError::InvalidCertificate(invalid) => of_certificate(invalid),
        TlsError::NoCertificatesPresented => "the server shows no certificate",
        TlsError::InvalidMessage(_) => "the server does not speak TLS",
        TlsError::AlertReceived(_) => "the server refuses the TLS handshake",
        _ => "the TLS handshake fails; the certificate is not the reason",
    })
}

/// The next cause. [`Error::source`] of an I/O error skips the error that it wraps, so `get_ref` comes first.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

fn of_certificate(invalid: &CertificateError) -> &'static str {
    match invalid {
        CertificateError::UnknownIssuer => "the certificate is issued by a CA that the operator does not trust",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet; check the clock of the node"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate is for another host name"
        }
        CertificateError::Revoked => "the certificate is revoked",
        _ => "the certificate cannot be accepted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_error_is_found_among_the_causes() {
        let unknown = || TlsError::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, unknown()));
        for error in [&unknown() as &(dyn Error + 'static), &wrapped] {
            assert!(problem(error).unwrap().contains("a CA that the operator does not trust"));
        }
        for error in [io::Error::other("refused"), io::Error::from(io::ErrorKind::ConnectionRefused)] {
            assert_eq!(problem(&error), None);
        }
    }

    #[test]
    fn certificate_problems_name_the_certificate() {
        for invalid in [
            CertificateError::UnknownIssuer,
            CertificateError::Expired,
            CertificateError::NotValidYet,
            CertificateError::NotValidForName,
            CertificateError::Revoked,
            CertificateError::BadEncoding,
        ] {
            assert!(of_certificate(&invalid).starts_with("the certificate"), "{invalid:?}");
        }
    }
}
