//! Key pairs of the kinds that the KMS server lacks, made by a real library: ML-KEM and SM2.

use aws_sdk_kms::types::DataKeyPairSpec;
use ml_kem::{Decapsulate, DecapsulationKey, Encapsulate, EncapsulationKey, Kem, MlKem512, MlKem768, MlKem1024};
use sm2::{
    elliptic_curve::Generate,
    pkcs8::{DecodePrivateKey, DecodePublicKey, Document, EncodePrivateKey, EncodePublicKey},
};

/// A key pair, in the encodings of KMS.
pub struct KeyPair {
    /// The SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
    /// The private half in PKCS#8 DER; that of ML-KEM as its seed.
    pub private_key: Vec<u8>,
}

// === impl KeyPair ===

impl KeyPair {
    /// A new key pair of a kind that the KMS server lacks; `None` for another kind.
    pub fn generate(spec: &DataKeyPairSpec) -> Option<Self> {
        match spec {
            DataKeyPairSpec::MlKem512 => {
                let (private_key, public_key) = MlKem512::generate_keypair();
                Some(Self::encode(&private_key, &public_key))
            }
            DataKeyPairSpec::MlKem768 => {
                let (private_key, public_key) = MlKem768::generate_keypair();
                Some(Self::encode(&private_key, &public_key))
            }
            DataKeyPairSpec::MlKem1024 => {
                let (private_key, public_key) = MlKem1024::generate_keypair();
                Some(Self::encode(&private_key, &public_key))
            }
            DataKeyPairSpec::Sm2 => {
                let private_key = sm2::SecretKey::generate();
                Some(Self::encode(&private_key, &private_key.public_key()))
            }
            _ => None,
        }
    }

    /// The public half of a private half that [`Self::generate`] made; `None` if it is not of this kind.
    pub fn public_key_of(spec: &DataKeyPairSpec, private_key: &[u8]) -> Option<Vec<u8>> {
        fn encode(public_key: &impl EncodePublicKey) -> Option<Vec<u8>> {
            public_key.to_public_key_der().ok().map(Document::into_vec)
        }
        match spec {
            DataKeyPairSpec::MlKem512 => {
                encode(DecapsulationKey::<MlKem512>::from_pkcs8_der(private_key).ok()?.encapsulation_key())
            }
            DataKeyPairSpec::MlKem768 => {
                encode(DecapsulationKey::<MlKem768>::from_pkcs8_der(private_key).ok()?.encapsulation_key())
            }
            DataKeyPairSpec::MlKem1024 => {
                encode(DecapsulationKey::<MlKem1024>::from_pkcs8_der(private_key).ok()?.encapsulation_key())
            }
            DataKeyPairSpec::Sm2 => encode(&sm2::SecretKey::from_pkcs8_der(private_key).ok()?.public_key()),
            _ => None,
        }
    }

    /// Whether a private half of ML-KEM-512 finds the secret that is encapsulated to a public half.
    ///
    /// # Panics
    /// If a half does not parse.
    pub fn shares_a_secret(public_key: &[u8], private_key: &[u8]) -> bool {
        let public_key = EncapsulationKey::<MlKem512>::from_public_key_der(public_key).expect("a public key");
        let private_key = DecapsulationKey::<MlKem512>::from_pkcs8_der(private_key).expect("a private key");
        let (ciphertext, secret) = public_key.encapsulate();
        private_key.decapsulate(&ciphertext) == secret
    }

    fn encode(private_key: &impl EncodePrivateKey, public_key: &impl EncodePublicKey) -> Self {
        Self {
            public_key: public_key.to_public_key_der().expect("a SubjectPublicKeyInfo").into_vec(),
            private_key: private_key.to_pkcs8_der().expect("PKCS#8").as_bytes().to_vec(),
        }
    }
}
