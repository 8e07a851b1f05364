//! Encrypts under the data keys of a mounted wrapped-key Secret, with AES-256-GCM.
//!
//! Sealed data is: version (4 bytes, big-endian), nonce (12 bytes), what AES-GCM made of the data and the version.

use std::{collections::BTreeMap, error::Error, path::Path};

use aws_config::SdkConfig;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use unwrap::Secret;
use zeroize::Zeroizing;

// Set here, not read from the Secret: a user who changes the Secret cannot make the workload unwrap another data key.
const ENCRYPTION_CONTEXT: [(&str, &str); 1] = [("purpose", "orders")];

/// Unwraps each version once, when it is first needed. The plaintexts are wiped as they are dropped.
pub struct DataKeys {
    secret: Secret,
    plaintexts: BTreeMap<u32, Zeroizing<Vec<u8>>>,
}

impl DataKeys {
    /// AWS's settings as `aws_config` loads them, the folder where the Secret is mounted, and the ARNs of the KMS keys that
    /// may have wrapped its data keys, from the workload's own settings.
    pub fn new(settings: SdkConfig, mount: &Path, kms_key_arns: Vec<String>) -> Self {
        let secret = Secret::new(settings, mount, kms_key_arns, &ENCRYPTION_CONTEXT);
        Self { secret, plaintexts: BTreeMap::new() }
    }

    /// Encrypts under the current version.
    ///
    /// # Errors
    /// The Secret is not there, names a KMS key that is not trusted, or KMS refuses.
    pub async fn seal(&mut self, mut data: Vec<u8>) -> Result<Vec<u8>, Box<dyn Error>> {
        // Read each time, so that a rotation needs no restart.
        let version: u32 = self.secret.entry("version")?.parse()?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, self.plaintext(version).await?)?;
        let header = version.to_be_bytes();
        let nonce = key.seal_in_place_append_tag(Aad::from(header), &mut data)?;
        Ok([&header, &nonce.as_ref()[..], &data].concat())
    }

    /// Decrypts under the version that the sealed data names.
    ///
    /// # Errors
    /// As for `seal`; or the data was changed, or encrypted under another data key.
    pub async fn unseal(&mut self, sealed: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
        let (header, rest) = sealed.split_first_chunk::<4>().ok_or("this is no sealed data")?;
        let (nonce, ciphertext) = rest.split_first_chunk::<12>().ok_or("this is no sealed data")?;
        let version = u32::from_be_bytes(*header);
        let key = RandomizedNonceKey::new(&AES_256_GCM, self.plaintext(version).await?)?;
        let mut data = ciphertext.to_vec();
        let opened = key.open_in_place(Nonce::from(nonce), Aad::from(header), &mut data);
        let length = opened.map_err(|_| "the data was changed, or encrypted under another data key")?.len();
        data.truncate(length);
        Ok(data)
    }

    /// The plaintext of a version. The entries of a version never change, so a rotation cannot mix two versions.
    async fn plaintext(&mut self, version: u32) -> Result<&[u8], Box<dyn Error>> {
        if !self.plaintexts.contains_key(&version) {
            let plaintext = self.secret.unwrap(version).await?;
            let length = plaintext.len();
            if length != AES_256_GCM.key_len() {
                return Err(format!("the plaintext of version {version} has {length} bytes, not 32").into());
            }
            self.plaintexts.insert(version, plaintext);
        }
        Ok(&self.plaintexts[&version])
    }
}
