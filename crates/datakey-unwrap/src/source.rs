//! Reads the wrapped keys from a mounted Secret or from a file. Nothing of it decides anything: [`crate::plan`] compares it with
//! the arguments.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use datakey::{
    api::{EncryptionContext, FIRST_VERSION, MAX_BLOB, MAX_VERSIONS, has_blob_length},
    public_key::{MAX_PUBLIC_KEY, der_of_pem},
    rewraps::Rewraps,
    secret::sha256,
    selection::version_number,
};
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use crate::ended::Failure;

/// The most bytes that are read of a text entry, and of the JSON of an export. A public key in PEM is the longest.
const LONGEST_TEXT: usize = 2 * MAX_PUBLIC_KEY;

/// How often a folder is read that the kubelet replaces meanwhile.
const ROUNDS: usize = 10;

/// The link that the kubelet replaces, so that all entries change at once.
const DATA: &str = "..data";

/// What is mounted, or in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The current version; `None` in a file of wrapped bytes.
    pub current: Option<i32>,
    /// The versions.
    pub versions: BTreeMap<i32, Wrapped>,
    /// Which of them have the same key, as the Secret claims.
    pub rewraps: Rewraps,
}

/// A wrapped key, and what the Secret claims about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// What KMS unwraps.
    pub blob: Vec<u8>,
    /// What else is known; `None` in a file of wrapped bytes.
    pub claim: Option<Claim>,
    /// The public key of a key pair: SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
}

/// What the Secret claims about the KMS key. [`crate::plan`] accepts it only if the arguments trust it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The ARN of the KMS key.
    pub key_arn: String,
    /// The encryption context.
    pub context: EncryptionContext,
}

/// What `kubectl datakey export -o json` prints, as far as it is needed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exported {
    version: i32,
    ciphertext_blob: String,
    key_id: String,
    #[serde(default)]
    encryption_context: EncryptionContext,
    #[serde(default)]
    public_key: Option<String>,
}

// === impl Source ===

impl Source {
    /// Reads a folder or a file.
    ///
    /// # Errors
    /// It is not there yet, or it holds no wrapped keys of a DataKey.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if !metadata.is_dir() {
            return Self::of_file(path);
        }
        settled(|| Folder::new(path), Folder::read)
    }

    fn of_file(path: &Path) -> Result<Self, Failure> {
        let limit = LONGEST_TEXT + 2 * MAX_BLOB;
        let bytes = read(path, limit)?;
        // No KMS key wraps to JSON.
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
        if let Ok(exported) = serde_json::from_slice::<Exported>(&bytes) {
            let blob = BASE64_STANDARD.decode(&exported.ciphertext_blob);
            let blob = blob.map_err(|_| mismatch(path, "ciphertextBlob is not base64"))?;
            let public_key = public_key(path, exported.public_key.as_deref())?;
            let claim = Some(Claim { key_arn: exported.key_id, context: exported.encryption_context });
            let wrapped = Wrapped { blob: checked_blob(path, blob)?, claim, public_key };
            if exported.version < FIRST_VERSION {
                return Err(mismatch(path, "its version is not 1 or more"));
            }
            return Ok(Self {
                current: Some(exported.version),
                versions: BTreeMap::from([(exported.version, wrapped)]),
                rewraps: Rewraps::default(),
            });
        }
        if is_json {
            return Err(Failure::usage(format!(
                "{} is not the JSON of one version: write it by kubectl datakey export -o json",
                path.display()
            )));
        }
        let wrapped = Wrapped { blob: checked_blob(path, bytes)?, claim: None, public_key: Vec::new() };
        let versions = BTreeMap::from([(FIRST_VERSION, wrapped)]);
        Ok(Self { current: None, versions, rewraps: Rewraps::default() })
    }
}

/// Reads a folder that is still the present one afterwards. The kubelet removes a folder as soon as it has replaced it, so
/// what is read meanwhile can be a part of it.
fn settled<F: PartialEq, T>(
    present: impl Fn() -> Result<F, Failure>,
    mut read: impl FnMut(&F) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut folder = present()?;
    for _ in 0..ROUNDS {
        let result = read(&folder);
        let now = present()?;
        if now == folder {
            return result;
        }
        folder = now;
    }
    Err(Failure::try_again("the mounted Secret changes all the time"))
}

/// The folder that holds the entries: all that is read belongs together, because the kubelet replaces no entry in it.
#[derive(PartialEq, Eq)]
struct Folder(PathBuf);

// === impl Folder ===

impl Folder {
    fn new(path: &Path) -> Result<Self, Failure> {
        let data = path.join(DATA);
        match fs::canonicalize(&data) {
            Ok(folder) => Ok(Self(folder)),
            // A folder that no kubelet mounted.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self(path.to_owned())),
            Err(error) => Err(unreadable(&data, &error)),
        }
    }

    fn read(&self) -> Result<Source, Failure> {
        let entries = fs::read_dir(&self.0).map_err(|error| unreadable(&self.0, &error))?;
        let mut numbers = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(&self.0, &error))?;
            let name = entry.file_name();
            numbers.extend(name.to_str().and_then(|name| version_number(name.strip_prefix("ciphertextBlob.v")?)));
        }
        if numbers.is_empty() {
            return Err(Failure::try_again(format!(
                "{} has no entry ciphertextBlob.v1: mount the Secret of a DataKey there, and check whether the DataKey is Ready",
                self.0.display()
            )));
        }
        if numbers.len() > MAX_VERSIONS {
            return Err(mismatch(&self.0, &format!("it has more than {MAX_VERSIONS} versions")));
        }
        let current = self.text("version")?;
        let current =
            version_number(current.trim()).ok_or_else(|| mismatch(&self.0, "the entry version is no number"))?;
        let rewraps = numbers.iter().map(|number| Ok((*number, self.rewrap_of(*number)?))).collect::<Result<_, _>>()?;
        let versions =
            numbers.into_iter().map(|number| Ok((number, self.version(number)?))).collect::<Result<_, _>>()?;
        Ok(Source { current: Some(current), versions, rewraps })
    }

    /// The earlier version whose key this version has, if it is a rewrap.
    fn rewrap_of(&self, number: i32) -> Result<Option<i32>, Failure> {
        let entry = format!("rewrapOf.v{number}");
        let path = self.0.join(&entry);
        if !is_there(&path)? {
            return Ok(None);
        }
        let earlier = version_number(&self.text(&entry)?).filter(|earlier| *earlier < number);
        earlier.map(Some).ok_or_else(|| mismatch(&path, "it is no number of an earlier version"))
    }

    fn version(&self, number: i32) -> Result<Wrapped, Failure> {
        let path = |entry: &str| self.0.join(format!("{entry}.v{number}"));
        let blob = path("ciphertextBlob");
        let blob = checked_blob(&blob, Self::entry(&blob, MAX_BLOB)?)?;
        let context = path("encryptionContext");
        let json = self.text(&format!("encryptionContext.v{number}"))?;
        let context = serde_json::from_str(&json).map_err(|_| mismatch(&context, "it is no JSON object of strings"))?;
        let pem = path("publicKey");
        let pem = if is_there(&pem)? { Some(self.text(&format!("publicKey.v{number}"))?) } else { None };
        let public_key = public_key(&path("publicKey"), pem.as_deref())?;
        let claim = Some(Claim { key_arn: self.text(&format!("keyId.v{number}"))?, context });
        Ok(Wrapped { blob, claim, public_key })
    }

    fn text(&self, entry: &str) -> Result<String, Failure> {
        let path = self.0.join(entry);
        String::from_utf8(Self::entry(&path, LONGEST_TEXT)?).map_err(|_| mismatch(&path, "it is not text in UTF-8"))
    }

    fn entry(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
        if !is_there(path)? {
            return Err(mismatch(path, "the Secret has no such entry"));
        }
        read(path, limit)
    }
}

// === impl Wrapped ===

impl Wrapped {
    /// SHA-256 of the wrapped key, in hexadecimal digits.
    pub fn sha256(&self) -> String {
        sha256(&self.blob)
    }
}

/// What may change when the Secret does, cheap to ask for: where the kubelet's link points to, else when the folder or file
/// was changed.
pub fn revision(path: &Path) -> String {
    if let Ok(link) = fs::read_link(path.join(DATA)) {
        return link.display().to_string();
    }
    let folder = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut changed: Vec<_> = folder.chain([path.to_owned()]).map(|path| (modified(&path), path)).collect();
    changed.sort();
    format!("{changed:?}")
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// Whether there is such an entry. Where that cannot be found out, it is not taken for absent.
fn is_there(path: &Path) -> Result<bool, Failure> {
    path.try_exists().map_err(|error| unreadable(path, &error))
}

/// Reads a regular file of at most this many bytes.
fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    // A pipe would never end, and opening it would wait.
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let file = File::from(file.map_err(|error| unreadable(path, &error.into()))?);
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(mismatch(path, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() > limit {
        return Err(mismatch(path, &format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

fn checked_blob(path: &Path, blob: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if has_blob_length(&blob) {
        Ok(blob)
    } else {
        Err(mismatch(path, &format!("a wrapped key has 1 to {MAX_BLOB} bytes")))
    }
}

fn public_key(path: &Path, pem: Option<&str>) -> Result<Vec<u8>, Failure> {
    let Some(pem) = pem else { return Ok(Vec::new()) };
    der_of_pem(pem).ok_or_else(|| mismatch(path, "the public key is not in PEM"))
}

fn mismatch(path: &Path, what: &str) -> Failure {
    Failure::mismatch(format!("{}: {what}. The operator writes no such Secret: check who changed it", path.display()))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let path = path.display();
    match error.kind() {
        ErrorKind::PermissionDenied => Failure::usage(format!(
            "cannot read {path}: {error}; mount the Secret with defaultMode 0440, and set fsGroup or runAsGroup of the pod"
        )),
        // A rotation can replace the folder while it is read, and a mount can be late.
        _ => Failure::try_again(format!("cannot read {path}: {error}; mount the Secret of a DataKey there")),
    }
}

#[cfg(test)]
mod tests;
