//! The JSON Web Key of a private key: that of its public key, and the private members (RFC 7518, section 6; RFC 8037, section 2).

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use datakey::{api::KeyPairSpec, public_key::PublicKey};
use pkcs1::{RsaPrivateKey, UintRef};
use pkcs8::{
    PrivateKeyInfoRef,
    der::{Decode as _, asn1::OctetStringRef},
};
use sec1::EcPrivateKey;
use zeroize::Zeroizing;

const MALFORMED: &str = "the private key has not the form of its kind";

/// Returns the JSON Web Key of a private key (PKCS #8 in DER), to which the public key (SubjectPublicKeyInfo in DER) belongs.
///
/// # Errors
/// Says what has another form.
pub fn encode(private_key: &[u8], public_key: &[u8], spec: KeyPairSpec) -> Result<String, String> {
    let public = PublicKey::parse(public_key, spec).map_err(|flaw| format!("its public key: {flaw}"))?;
    let public = public.to_jwk().map_err(|error| error.to_string())?;
    let public = serde_json::to_string(&public).map_err(|error| error.to_string())?;
    let info = PrivateKeyInfoRef::try_from(private_key).map_err(|_| MALFORMED.to_owned())?;
    let members = members(&info, spec).ok_or_else(|| MALFORMED.to_owned())?;
    let public = public.strip_suffix('}').ok_or_else(|| MALFORMED.to_owned())?;
    // A growing string would leave copies of the key.
    let length: usize = members.iter().map(|(name, value)| name.len() + value.len() + r#","":"""#.len()).sum();
    let mut jwk = String::with_capacity(public.len() + length + 1);
    jwk += public;
    for (name, value) in &members {
        for part in [",\"", name, "\":\"", value.as_str(), "\""] {
            jwk += part;
        }
    }
    jwk.push('}');
    Ok(jwk)
}

/// The private members: names, and values in base64.
fn members(info: &PrivateKeyInfoRef<'_>, spec: KeyPairSpec) -> Option<Vec<(&'static str, Zeroizing<String>)>> {
    let key = info.private_key.as_bytes();
    match spec {
        KeyPairSpec::Rsa2048 | KeyPairSpec::Rsa3072 | KeyPairSpec::Rsa4096 => {
            let key = RsaPrivateKey::try_from(key).ok()?;
            let members: [(_, UintRef<'_>); 6] = [
                ("d", key.private_exponent),
                ("p", key.prime1),
                ("q", key.prime2),
                ("dp", key.exponent1),
                ("dq", key.exponent2),
                ("qi", key.coefficient),
            ];
            Some(members.map(|(name, number)| (name, base64(number.as_bytes()))).into())
        }
        KeyPairSpec::EccNistP256 | KeyPairSpec::EccSecgP256K1 => scalar(key, 32),
        KeyPairSpec::EccNistP384 => scalar(key, 48),
        KeyPairSpec::EccNistP521 => scalar(key, 66),
        // RFC 8410, section 7: an OCTET STRING within the one of PKCS #8.
        KeyPairSpec::EccNistEdwards25519 => {
            let seed = <&OctetStringRef>::from_der(key).ok()?.as_bytes();
            (seed.len() == 32).then(|| vec![("d", base64(seed))])
        }
        KeyPairSpec::MlKem512 | KeyPairSpec::MlKem768 | KeyPairSpec::MlKem1024 | KeyPairSpec::Sm2 => None,
    }
}

/// The private key of a curve: in the length of its order (RFC 7518, section 6.2.2.1).
fn scalar(key: &[u8], length: usize) -> Option<Vec<(&'static str, Zeroizing<String>)>> {
    let scalar = EcPrivateKey::from_der(key).ok()?.private_key;
    // An encoder may leave zeros out at the beginning.
    let mut padded = Zeroizing::new(vec![0; length]);
    padded.get_mut(length.checked_sub(scalar.len())?..)?.copy_from_slice(scalar);
    Some(vec![("d", base64(&padded))])
}

fn base64(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests;
