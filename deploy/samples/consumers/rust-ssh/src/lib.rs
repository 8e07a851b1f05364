//! Signs data for OpenSSH with the key pairs of a mounted wrapped-key-pair Secret, with Ed25519: `ssh-keygen -Y verify` checks the
//! signatures.

use std::{collections::BTreeMap, error::Error, path::Path};

use aws_config::SdkConfig;
use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    signature::{Ed25519KeyPair, KeyPair},
};
use ssh_key::{
    Algorithm, HashAlg, LineEnding, Signature, SshSig,
    public::{Ed25519PublicKey, KeyData},
};
use unwrap::Secret;

// Set here, not read from the Secret: a user who changes the Secret cannot make the workload unwrap another key pair.
const ENCRYPTION_CONTEXT: [(&str, &str); 1] = [("purpose", "releases")];

// What the signatures are for: OpenSSH refuses them for anything else (`ssh-keygen -n`). Git wants `git` for tags and commits.
const NAMESPACE: &str = "file";

/// Unwraps the private key of each version once, when it is first needed. AWS-LC wipes the memory of a key as it is dropped.
pub struct KeyPairs {
    secret: Secret,
    private_keys: BTreeMap<u32, Ed25519KeyPair>,
}

impl KeyPairs {
    /// AWS's settings as `aws_config` loads them, the folder where the Secret is mounted, and the ARNs of the KMS keys that
    /// may have wrapped its private keys, from the workload's own settings.
    pub fn new(settings: SdkConfig, mount: &Path, kms_key_arns: Vec<String>) -> Self {
        let secret = Secret::new(settings, mount, kms_key_arns, &ENCRYPTION_CONTEXT);
        Self { secret, private_keys: BTreeMap::new() }
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
            let plaintext = self.secret.unwrap(version).await?;
            let private_key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&plaintext)
                .map_err(|_| format!("the private key of version {version} is no Ed25519 key"))?;
            let published = self.secret.entry(&format!("publicKey.v{version}"))?;
            let (_, published) = pem_rfc7468::decode_vec(published.as_bytes())?;
            let derived: PublicKeyX509Der<'_> = private_key.public_key().as_der()?;
            if derived.as_ref() != published {
                return Err(format!("the public key of version {version} belongs to another private key").into());
            }
            self.private_keys.insert(version, private_key);
        }
        Ok(&self.private_keys[&version])
    }
}

/// Signs as OpenSSH does (its PROTOCOL.sshsig).
fn openssh(private_key: &Ed25519KeyPair, data: &[u8]) -> ssh_key::Result<String> {
    let public_key = Ed25519PublicKey::try_from(private_key.public_key().as_ref())?;
    let signed = private_key.sign(&SshSig::signed_data(NAMESPACE, HashAlg::Sha512, data)?);
    let signature = Signature::new(Algorithm::Ed25519, signed.as_ref())?;
    SshSig::new(KeyData::Ed25519(public_key), NAMESPACE, HashAlg::Sha512, signature)?.to_pem(LineEnding::LF)
}
