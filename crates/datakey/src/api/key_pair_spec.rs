//! The kinds of key pairs, and the request quotas of AWS KMS that calls for them count against.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

/// Kind of a key pair. RSA for signatures or encryption: `RSA_2048`, `RSA_3072`, `RSA_4096`. Elliptic curves for signatures or
/// key agreement: `ECC_NIST_P256`, `ECC_NIST_P384`, `ECC_NIST_P521`. Elliptic curves for signatures only: `ECC_SECG_P256K1`,
/// `ECC_NIST_EDWARDS25519`. Key encapsulation that resists quantum computers: `ML_KEM_512`, `ML_KEM_768`, `ML_KEM_1024`, not in
/// the China Regions. `SM2`, in the China Regions only. RSA key pairs have the smallest request quotas of AWS KMS: in most
/// Regions one `RSA_4096` key pair a second.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    IntoStaticStr,
    VariantArray,
)]
#[schemars(inline)]
pub enum KeyPairSpec {
    #[serde(rename = "RSA_2048")]
    #[strum(serialize = "RSA_2048")]
    #[allow(missing_docs)]
    Rsa2048,
    #[serde(rename = "RSA_3072")]
    #[strum(serialize = "RSA_3072")]
    #[allow(missing_docs)]
    Rsa3072,
    #[serde(rename = "RSA_4096")]
    #[strum(serialize = "RSA_4096")]
    #[allow(missing_docs)]
    Rsa4096,
    #[serde(rename = "ECC_NIST_P256")]
    #[strum(serialize = "ECC_NIST_P256")]
    #[allow(missing_docs)]
    EccNistP256,
    #[serde(rename = "ECC_NIST_P384")]
    #[strum(serialize = "ECC_NIST_P384")]
    #[allow(missing_docs)]
    EccNistP384,
    #[serde(rename = "ECC_NIST_P521")]
    #[strum(serialize = "ECC_NIST_P521")]
    #[allow(missing_docs)]
    EccNistP521,
    #[serde(rename = "ECC_SECG_P256K1")]
    #[strum(serialize = "ECC_SECG_P256K1")]
    #[allow(missing_docs)]
    EccSecgP256K1,
    #[serde(rename = "ECC_NIST_EDWARDS25519")]
    #[strum(serialize = "ECC_NIST_EDWARDS25519")]
    #[allow(missing_docs)]
    EccNistEdwards25519,
    #[serde(rename = "ML_KEM_512")]
    #[strum(serialize = "ML_KEM_512")]
    #[allow(missing_docs)]
    MlKem512,
    #[serde(rename = "ML_KEM_768")]
    #[strum(serialize = "ML_KEM_768")]
    #[allow(missing_docs)]
    MlKem768,
    #[serde(rename = "ML_KEM_1024")]
    #[strum(serialize = "ML_KEM_1024")]
    #[allow(missing_docs)]
    MlKem1024,
    #[serde(rename = "SM2")]
    #[strum(serialize = "SM2")]
    #[allow(missing_docs)]
    Sm2,
}

/// A request quota of AWS KMS (AWS KMS Developer Guide, "Request quotas"). KMS counts the calls of an account in a Region
/// against each quota separately, so the calls of one class never use up the quota of another class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, VariantArray)]
pub enum QuotaClass {
    /// Data keys without a pair. They share their quota with all symmetric cryptographic operations of the account.
    #[strum(serialize = "SYMMETRIC")]
    Symmetric,
    /// Key pairs of kind `RSA_2048`.
    #[strum(serialize = "RSA_2048")]
    Rsa2048,
    /// Key pairs of kind `RSA_3072`.
    #[strum(serialize = "RSA_3072")]
    Rsa3072,
    /// Key pairs of kind `RSA_4096`.
    #[strum(serialize = "RSA_4096")]
    Rsa4096,
    /// Key pairs on the NIST curves and on secp256k1.
    #[strum(serialize = "ECC")]
    EllipticCurve,
    /// Key pairs of ML-KEM.
    #[strum(serialize = "ML_KEM")]
    MlKem,
    /// Key pairs of SM2.
    #[strum(serialize = "SM2")]
    Sm2,
}

// === impl KeyPairSpec ===

impl KeyPairSpec {
    /// Every kind.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The name of the key pair spec in the KMS API.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The quota that KMS counts a call for this kind against.
    pub const fn quota_class(self) -> QuotaClass {
        match self {
            Self::Rsa2048 => QuotaClass::Rsa2048,
            Self::Rsa3072 => QuotaClass::Rsa3072,
            Self::Rsa4096 => QuotaClass::Rsa4096,
            Self::EccNistP256
            | Self::EccNistP384
            | Self::EccNistP521
            | Self::EccSecgP256K1
            | Self::EccNistEdwards25519 => QuotaClass::EllipticCurve,
            Self::MlKem512 | Self::MlKem768 | Self::MlKem1024 => QuotaClass::MlKem,
            Self::Sm2 => QuotaClass::Sm2,
        }
    }
}

// === impl QuotaClass ===

impl QuotaClass {
    /// Every class.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The name, in flags and messages.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether KMS generates RSA keys for a call of this class. That takes much longer than any other call.
    pub const fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_names_of_the_kms_api() {
        for spec in KeyPairSpec::ALL {
            assert_eq!(serde_json::to_value(spec).unwrap(), spec.as_str());
        }
        let names: Vec<_> = KeyPairSpec::ALL.iter().map(|spec| spec.as_str()).collect();
        assert_eq!(
            names.join(" "),
            "RSA_2048 RSA_3072 RSA_4096 ECC_NIST_P256 ECC_NIST_P384 ECC_NIST_P521 ECC_SECG_P256K1 ECC_NIST_EDWARDS25519 \
             ML_KEM_512 ML_KEM_768 ML_KEM_1024 SM2"
        );
    }

    #[test]
    fn each_kind_of_rsa_has_a_quota_of_its_own() {
        for spec in KeyPairSpec::ALL {
            let (class, name) = (spec.quota_class(), spec.as_str());
            assert_eq!(class.is_rsa(), name.starts_with("RSA_"), "{name}");
            assert!(name.starts_with(class.as_str()), "{name}: {class:?}");
        }
        assert!(!QuotaClass::Symmetric.is_rsa());
    }
}
