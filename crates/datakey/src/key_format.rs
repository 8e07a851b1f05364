//! The formats in which a plaintext key is written for other programs, and which material has which.

use std::str::FromStr;

use strum::{IntoStaticStr, VariantArray};

use crate::api::{KeyPairSpec, Material};

/// The format of a plaintext key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum KeyFormat {
    /// The bytes of a data key.
    Raw,
    /// A data key in lower-case hexadecimal digits, without a line end.
    Hex,
    /// A data key in base64, without a line end.
    Base64,
    /// A JSON Web Key (RFC 7517).
    Jwk,
    /// A private key in PKCS #8, as PEM (RFC 7468, section 10).
    Pem,
    /// A private key in PKCS #8, as DER (RFC 5958).
    Der,
}

// === impl KeyFormat ===

impl KeyFormat {
    /// Every format.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The name on a command line.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The format where none is named.
    pub fn default_of(material: Material) -> Self {
        if matches!(material, Material::Pair(_)) { Self::Pem } else { Self::Raw }
    }

    /// Checks that the material has this format.
    ///
    /// # Errors
    /// Says which formats it has.
    pub fn check_for(self, material: Material) -> Result<(), String> {
        match (self, material) {
            (Self::Jwk, Material::Pair(spec)) if !has_jwk(spec) => {
                Err(format!("a private key of {} has no JSON Web Key: write pem or der", spec.as_str()))
            }
            (Self::Pem | Self::Der | Self::Jwk, Material::Pair(_))
            | (Self::Raw | Self::Hex | Self::Base64 | Self::Jwk, Material::Spec(_) | Material::Bytes(_)) => Ok(()),
            (_, Material::Pair(_)) => Err("a private key is written as pem, der or jwk".to_owned()),
            _ => Err("a data key is written as raw, hex, base64 or jwk".to_owned()),
        }
    }
}

impl FromStr for KeyFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let format = Self::ALL.iter().find(|format| format.as_str() == name);
        format.copied().ok_or_else(|| {
            "write raw, hex, base64 or jwk for a data key, and pem, der or jwk for a key pair".to_owned()
        })
    }
}

/// Whether keys of a kind have a registered form as JSON Web Key (RFC 7518, section 6; RFC 8037; RFC 8812).
const fn has_jwk(spec: KeyPairSpec) -> bool {
    !matches!(spec, KeyPairSpec::MlKem512 | KeyPairSpec::MlKem768 | KeyPairSpec::MlKem1024 | KeyPairSpec::Sm2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::KeySpec, fixtures::public_key, public_key::PublicKey};

    #[test]
    fn each_material_has_its_formats() {
        let of = |material| {
            let formats = KeyFormat::ALL.iter().filter(|format| format.check_for(material).is_ok());
            formats.map(|format| format.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(of(Material::Spec(KeySpec::Aes256)), ["raw", "hex", "base64", "jwk"]);
        assert_eq!(of(Material::Bytes(7)), ["raw", "hex", "base64", "jwk"]);
        assert_eq!(of(Material::Pair(KeyPairSpec::Rsa2048)), ["jwk", "pem", "der"]);
        assert_eq!(of(Material::Pair(KeyPairSpec::MlKem768)), ["pem", "der"]);
        for material in [Material::Bytes(7), Material::Pair(KeyPairSpec::Sm2)] {
            assert_eq!(KeyFormat::default_of(material).check_for(material), Ok(()));
        }
        for format in KeyFormat::ALL {
            assert_eq!(format.as_str().parse(), Ok(*format));
        }
        assert!("JWK".parse::<KeyFormat>().is_err());
    }

    #[test]
    fn private_key_has_a_jwk_where_the_public_one_has() {
        for spec in KeyPairSpec::ALL {
            let public = PublicKey::parse(&public_key(*spec), *spec).unwrap();
            assert_eq!(has_jwk(*spec), public.to_jwk().is_ok(), "{spec:?}");
        }
    }
}
