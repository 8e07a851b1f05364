//! Has AWS KMS unwrap the versions of a mounted wrapped-key Secret, under this workload's own `kms:Decrypt`.

use std::{
    error::Error,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_config::{Region, SdkConfig, timeout::TimeoutConfig};
use aws_sdk_kms::{
    Client, config::Builder, error::ProvideErrorMetadata as _, operation::decrypt::DecryptOutput, primitives::Blob,
};
use zeroize::Zeroizing;

// Without it, a KMS endpoint that does not answer stops the workload for good.
const DEADLINE: Duration = Duration::from_secs(15);

// The KMS key is disabled or deleted, or this workload may not use it any more. Other errors can pass, or mean that the Secret was
// changed.
const KEY_IS_GONE: [&str; 4] =
    ["AccessDeniedException", "DisabledException", "KMSInvalidStateException", "NotFoundException"];

/// A mounted Secret, and what the workload accepts of it.
pub struct Secret {
    settings: SdkConfig,
    folder: PathBuf,
    kms_key_arns: Vec<String>,
    encryption_context: &'static [(&'static str, &'static str)],
}

impl Secret {
    /// AWS's settings as `aws_config` loads them, the folder where the Secret is mounted, and the ARNs of the KMS keys and the
    /// encryption context that its versions may have, from the workload's own settings.
    pub fn new(
        settings: SdkConfig,
        mount: &Path,
        kms_key_arns: Vec<String>,
        encryption_context: &'static [(&'static str, &'static str)],
    ) -> Self {
        // The kubelet replaces this link to all entries as one. The links beside it follow, so a new entry is here first.
        Self { settings, folder: mount.join("..data"), kms_key_arns, encryption_context }
    }

    /// An entry, which is read each time, so that a rotation needs no restart.
    ///
    /// # Errors
    /// It is not there, or no text.
    pub fn entry(&self, name: &str) -> io::Result<String> {
        fs::read_to_string(self.folder.join(name))
    }

    /// Has KMS unwrap a version; if its KMS key is gone, a version with the same plaintext, which another trusted KMS key
    /// wrapped. The plaintext is wiped as it is dropped.
    ///
    /// # Errors
    /// The version is not there, names a KMS key that is not trusted, or KMS refuses.
    pub async fn unwrap(&self, version: u32) -> Result<Zeroizing<Vec<u8>>, Box<dyn Error>> {
        let mut first = None::<Box<dyn Error>>;
        for number in [version].into_iter().chain(self.same_key(version)?) {
            let key_arn = self.entry(&format!("keyId.v{number}"))?;
            if !self.kms_key_arns.contains(&key_arn) {
                let why = format!("version {number} is wrapped by {key_arn}, which is not trusted");
                first.get_or_insert(why.into());
                continue;
            }
            let blob = fs::read(self.folder.join(format!("ciphertextBlob.v{number}")))?;
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
        let context = self.encryption_context.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let decrypt = Client::from_conf(settings)
            .decrypt()
            .key_id(key_arn)
            .ciphertext_blob(Blob::new(blob))
            .set_encryption_context(Some(context.collect()));
        Ok(decrypt.send().await?)
    }

    /// The other versions with the same plaintext, in ascending order.
    fn same_key(&self, version: u32) -> io::Result<Vec<u32>> {
        let entries = fs::read_dir(&self.folder)?.collect::<Result<Vec<_>, _>>()?;
        let number = |name: &OsStr| name.to_str()?.strip_prefix("ciphertextBlob.v")?.parse().ok();
        let versions = entries.iter().filter_map(|entry| number(&entry.file_name()));
        let is_same = |other: &u32| *other != version && self.root(*other) == self.root(version);
        let mut same: Vec<u32> = versions.filter(is_same).collect();
        same.sort_unstable();
        Ok(same)
    }

    /// The version as which the plaintext of a version was issued: a rewrap names an earlier version, and no other does.
    fn root(&self, version: u32) -> u32 {
        let earlier = self.entry(&format!("rewrapOf.v{version}"));
        match earlier.ok().and_then(|number| number.parse().ok()) {
            Some(earlier) if earlier < version => self.root(earlier),
            _ => version,
        }
    }
}
