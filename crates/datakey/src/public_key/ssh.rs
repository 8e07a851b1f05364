//! The OpenSSH form of a public key.

use super::Key;
use crate::api::KeyPairSpec;

/// The name of the format and the key in it (RFC 4253, section 6.6, RFC 5656, section 3.1, and RFC 8709, section 4); `None` if
/// OpenSSH knows no such keys.
pub(super) fn encode(key: &Key, spec: KeyPairSpec) -> Option<(&'static str, Vec<u8>)> {
    match key {
        Key::Rsa { modulus, exponent } => {
            let name = "ssh-rsa";
            Some((name, strings([name.as_bytes(), &integer(exponent), &integer(modulus)])))
        }
        Key::Point { x, y } => {
            let (name, curve) = match spec {
                KeyPairSpec::EccNistP256 => ("ecdsa-sha2-nistp256", "nistp256"),
                KeyPairSpec::EccNistP384 => ("ecdsa-sha2-nistp384", "nistp384"),
                KeyPairSpec::EccNistP521 => ("ecdsa-sha2-nistp521", "nistp521"),
                _ => return None,
            };
            let point = [&[4], x.as_slice(), y].concat();
            Some((name, strings([name.as_bytes(), curve.as_bytes(), &point])))
        }
        Key::Edwards(point) => {
            let name = "ssh-ed25519";
            Some((name, strings([name.as_bytes(), point])))
        }
        Key::MlKem => None,
    }
}

/// Strings, each after its length (RFC 4251, section 5).
fn strings<const N: usize>(strings: [&[u8]; N]) -> Vec<u8> {
    let length = |string: &[u8]| u32::try_from(string.len()).unwrap_or(u32::MAX).to_be_bytes();
    strings.iter().flat_map(|string| length(string).into_iter().chain(string.iter().copied())).collect()
}

/// A positive number in two's complement: without leading zeros, but for one where the first bit is set (RFC 4251, section 5).
fn integer(number: &[u8]) -> Vec<u8> {
    let sign = number.first().filter(|first| **first >= 0x80).map(|_| 0);
    sign.into_iter().chain(number.iter().copied()).collect()
}
