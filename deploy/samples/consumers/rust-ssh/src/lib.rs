//! Signs data for OpenSSH with the key pairs of a mounted wrapped-key-pair Secret, with Ed25519: `ssh-keygen -Y verify` checks the
//! signatures.

use std::{
    collections::BTreeMap,
    error::Error,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_config::{Region, SdkConfig, timeout::TimeoutConfig};
use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    signature::{Ed25519KeyPair, KeyPair},
};
use aws_sdk_kms::{
    Client, config::Builder, error::ProvideErrorMetadata as _, operation::decrypt::DecryptOutput, primitives::Blob,
};
use ssh_key::{
    Algorithm, HashAlg, LineEnding, Signature, SshSig,
    public::{Ed25519PublicKey, KeyData},
};
use zeroize::Zeroizing;

// Set here, not read from the Secret: a user who changes the Secret cannot make the workload unwrap another key pair.
const ENCRYPTION_CONTEXT: [(&str, &str); 1] = [("purpose", "releases")];

// Without it, a KMS endpoint that does not answer stops the workload for good.
const DEADLINE: Duration = Duration::from_secs(15);

// The KMS key is disabled or deleted, or this workload may not use it any more. Other errors can pass, or mean that the Secret was
// changed.
const KEY_IS_GONE: [&str; 4] =
    ["AccessDeniedException", "DisabledException", "KMSInvalidStateException", "NotFoundException"];

// What the signatures are for: OpenSSH refuses them for anything else (`ssh-keygen -n`). Git wants `git` for tags and commits.
const NAMESPACE: &str = "file";

/// Unwraps the private key of each version once, when it is first needed. AWS-LC wipes the memory of a key as it is dropped.
pub struct KeyPairs {
    settings: SdkConfig,
    secret: PathBuf,
    kms_key_arns: Vec<String>,
    private_keys: BTreeMap<u32, Ed25519KeyPair>,
}

impl KeyPairs {
    /// AWS's settings as `aws_config` loads them, the folder where the Secret is mounted, and the ARNs of the KMS keys that
    /// may have wrapped its private keys, from the workload's own settings.
    pub fn new(settings: SdkConfig, mount: &Path, kms_key_arns: Vec<String>) -> Self {
        // The kubelet replaces this link to all entries as one. The links beside it follow, so a new entry is here first.
        let secret = mount.join("..data");
        Self { settings, secret, kms_key_arns, private_keys: BTreeMap::new() }
    }

    /// Signs with the private key of a version. The version is a setting of the workload, not the current one of the Secret:
    /// verifiers need the public key of a version before it signs.
    ///
    /// # Errors
    /// The Secret is not there, its halves do not belong together, it names a KMS key that is not trusted, or KMS refuses.
    pub async fn sign(&mut self, version: u32, data: &[u8]) -> Result<String, Box<dyn Error>> {
        // The error of ssh-key is none of the standard library without its feature `std`.
        openssh(self.private_key(version).await?, data).map_err(|error| error.to_string().into())
    }

    /// The private key of a version. The entries of a version never change, so a rotation cannot mix two versions.
    async fn private_key(&mut self, version: u32) -> Result<&Ed25519KeyPair, Box<dyn Error>> {
        if !self.private_keys.contains_key(&version) {
            let plaintext = self.unwrap(version).await?;
            let private_key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&plaintext)
                .map_err(|_| format!("the private key of version {version} is no Ed25519 key"))?;
            let published = fs::read_to_string(self.secret.join(format!("publicKey.v{version}")))?;
            let (_, published) = pem_rfc7468::decode_vec(published.as_bytes())?;
            let derived: PublicKeyX509Der<'_> = private_key.public_key().as_der()?;
            if derived.as_ref() != published {
                return Err(format!("the public key of version {version} belongs to another private key").into());
            }
            self.private_keys.insert(version, private_key);
        }
        Ok(&self.private_keys[&version])
    }

    /// Has KMS unwrap a version; if its KMS key is gone, a version with the same private key, which another trusted KMS key
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

    /// The other versions with the same private key, in ascending order.
    fn same_key(&self, version: u32) -> Result<Vec<u32>, Box<dyn Error>> {
        let entries = fs::read_dir(&self.secret)?.collect::<Result<Vec<_>, _>>()?;
        let number = |name: &OsStr| name.to_str()?.strip_prefix("ciphertextBlob.v")?.parse().ok();
        let versions = entries.iter().filter_map(|entry| number(&entry.file_name()));
        let is_same = |other: &u32| *other != version && self.root(*other) == self.root(version);
        let mut same: Vec<u32> = versions.filter(is_same).collect();
        same.sort_unstable();
        Ok(same)
    }

    /// The version as which the private key of a version was issued: a rewrap names an earlier version, and no other does.
    fn root(&self, version: u32) -> u32 {
        let earlier = fs::read_to_string(self.secret.join(format!("rewrapOf.v{version}")));
        match earlier.ok().and_then(|number| number.parse().ok()) {
            Some(earlier) if earlier < version => self.root(earlier),
            _ => version,
        }
    }
}

/// Signs as OpenSSH does (its PROTOCOL.sshsig).
fn openssh(private_key: &Ed25519KeyPair, data: &[u8]) -> ssh_key::Result<String> {
    let public_key = Ed25519PublicKey::try_from(private_key.public_key().as_ref())?;
    let signed = private_key.sign(&SshSig::signed_data(NAMESPACE, HashAlg::Sha512, data)?);
    let signature = Signature::new(Algorithm::Ed25519, signed.as_ref())?;
    SshSig::new(KeyData::Ed25519(public_key), NAMESPACE, HashAlg::Sha512, signature)?.to_pem(LineEnding::LF)
}
