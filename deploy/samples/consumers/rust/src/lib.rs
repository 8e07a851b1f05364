//! Encrypts under the data keys of a mounted wrapped-key Secret, with AES-256-GCM.
//!
//! Sealed data is: version (4 bytes, big-endian), nonce (12 bytes), what AES-GCM made of the data and the version.

use std::{
    collections::BTreeMap,
    error::Error,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_config::{Region, SdkConfig, timeout::TimeoutConfig};
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_sdk_kms::{
    Client, config::Builder, error::ProvideErrorMetadata as _, operation::decrypt::DecryptOutput, primitives::Blob,
};
use zeroize::Zeroizing;

// Set here, not read from the Secret: a user who changes the Secret cannot make the workload unwrap another data key.
const ENCRYPTION_CONTEXT: [(&str, &str); 1] = [("purpose", "orders")];

// Without it, a KMS endpoint that does not answer stops the workload for good.
const DEADLINE: Duration = Duration::from_secs(15);

// The KMS key is disabled or deleted, or this workload may not use it any more. Other errors can pass, or mean that the Secret was
// changed.
const KEY_IS_GONE: [&str; 4] =
    ["AccessDeniedException", "DisabledException", "KMSInvalidStateException", "NotFoundException"];

/// Unwraps each version once, when it is first needed. The plaintexts are wiped as they are dropped.
pub struct DataKeys {
    settings: SdkConfig,
    secret: PathBuf,
    kms_key_arns: Vec<String>,
    plaintexts: BTreeMap<u32, Zeroizing<Vec<u8>>>,
}

impl DataKeys {
    /// AWS's settings as `aws_config` loads them, the folder where the Secret is mounted, and the ARNs of the KMS keys that
    /// may have wrapped its data keys, from the workload's own settings.
    pub fn new(settings: SdkConfig, mount: &Path, kms_key_arns: Vec<String>) -> Self {
        // The kubelet replaces this link to all entries as one. The links beside it follow, so a new entry is here first.
        let secret = mount.join("..data");
        Self { settings, secret, kms_key_arns, plaintexts: BTreeMap::new() }
    }

    /// Encrypts under the current version.
    ///
    /// # Errors
    /// The Secret is not there, names a KMS key that is not trusted, or KMS refuses.
    pub async fn seal(&mut self, mut data: Vec<u8>) -> Result<Vec<u8>, Box<dyn Error>> {
        // Read each time, so that a rotation needs no restart.
        let version: u32 = fs::read_to_string(self.secret.join("version"))?.parse()?;
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
            let plaintext = self.unwrap(version).await?;
            let length = plaintext.len();
            if length != AES_256_GCM.key_len() {
                return Err(format!("the plaintext of version {version} has {length} bytes, not 32").into());
            }
            self.plaintexts.insert(version, plaintext);
        }
        Ok(&self.plaintexts[&version])
    }

    /// Has KMS unwrap a version; if its KMS key is gone, a version with the same data key, which another trusted KMS key
    /// wrapped.
    async fn unwrap(&self, version: u32) -> Result<Zeroizing<Vec<u8>>, Box<dyn Error>> {
        let mut first = None::<Box<dyn Error>>;
        for number in [version].into_iter().chain(self.same_key(version)?) {
            let key_arn = fs::read_to_string(self.secret.join(format!("keyId.v{number}")))?;
            if !self.kms_key_arns.contains(&key_arn) {
                let why = format!("version {number} is wrapped by {key_arn}, which is not trusted");
                first.get_or_insert(why.into());
                continue;
            }
            let blob = fs::read(self.secret.join(format!("ciphertextBlob.v{number}")))?;
            match self.decrypt(key_arn, blob).await {
                Ok(answer) => {
                    // This is the buffer that the SDK decoded, not a copy. The body of the answer cannot be overwritten.
                    let plaintext = answer.plaintext.ok_or("KMS answered without a plaintext")?.into_inner();
                    return Ok(Zeroizing::new(plaintext));
                }
                Err(error) if error.code().is_some_and(|code| KEY_IS_GONE.contains(&code)) => {
                    first.get_or_insert(error.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(first.unwrap_or_else(|| "there is no such version".into()))
    }

    async fn decrypt(&self, key_arn: String, blob: Vec<u8>) -> Result<DecryptOutput, aws_sdk_kms::Error> {
        let region = key_arn.split(':').nth(3).unwrap_or_default().to_owned();
        let deadline = TimeoutConfig::builder().operation_timeout(DEADLINE).build();
        let settings = Builder::from(&self.settings).region(Region::new(region)).timeout_config(deadline).build();
        let context = ENCRYPTION_CONTEXT.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let decrypt = Client::from_conf(settings)
            .decrypt()
            .key_id(key_arn)
            .ciphertext_blob(Blob::new(blob))
            .set_encryption_context(Some(context.into()));
        Ok(decrypt.send().await?)
    }

    /// The other versions with the same data key, in ascending order.
    fn same_key(&self, version: u32) -> Result<Vec<u32>, Box<dyn Error>> {
        let entries = fs::read_dir(&self.secret)?.collect::<Result<Vec<_>, _>>()?;
        let number = |name: &OsStr| name.to_str()?.strip_prefix("ciphertextBlob.v")?.parse().ok();
        let versions = entries.iter().filter_map(|entry| number(&entry.file_name()));
        let is_same = |other: &u32| *other != version && self.root(*other) == self.root(version);
        let mut same: Vec<u32> = versions.filter(is_same).collect();
        same.sort_unstable();
        Ok(same)
    }

    /// The version as which the data key of a version was issued: a rewrap names an earlier version, and no other does.
    fn root(&self, version: u32) -> u32 {
        let earlier = fs::read_to_string(self.secret.join(format!("rewrapOf.v{version}")));
        match earlier.ok().and_then(|number| number.parse().ok()) {
            Some(earlier) if earlier < version => self.root(earlier),
            _ => version,
        }
    }
}
