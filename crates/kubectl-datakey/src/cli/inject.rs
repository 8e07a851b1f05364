//! The flags of `inject`. clap prints the doc comments as help.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use datakey::{key_format::KeyFormat, names::MAX_LABEL, selection::Versions};

use super::values::{key_arn, role_arn};
use crate::reference::Reference;

/// The examples below the help.
pub const EXAMPLES: &str = "\
Examples:
  kubectl datakey inject orders -f app.yaml > injected.yaml
  kubectl datakey inject orders -f app.yaml --mode watch | kubectl apply -f -
  kubectl datakey inject datakeypair/tokens -f app.yaml --mode exec";

/// Flags of `inject`.
#[derive(Clone, Debug, Args)]
pub struct Inject {
    /// The DataKey or DataKeyPair, as NAME, datakey/NAME or datakeypair/NAME.
    #[arg(value_parser = Reference::parse)]
    pub name: Reference,

    /// The file with the manifests, YAML or JSON; - for standard input.
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    pub filename: PathBuf,

    /// How the pods get the plaintext.
    #[arg(long, default_value = "file")]
    pub mode: InjectMode,

    /// The container that gets it; several flags for several containers. Without it the one that
    /// kubectl.kubernetes.io/default-container names, else the first.
    #[arg(long, value_name = "CONTAINER")]
    pub container: Vec<String>,

    /// A KMS key to trust as well, with each encryption context of the record: the one that the data keys are moved to next (rewrap).
    #[arg(long, value_name = "ARN", value_parser = key_arn)]
    pub also_key_id: Vec<String>,

    /// The image of datakey-unwrap. Without it the image is named datakey-unwrap, for "images" in a kustomization.
    #[arg(long, value_parser = image)]
    pub image: Option<String>,

    /// The IAM role with kms:Decrypt, by a token of the pod's service account. Leave it out with EKS Pod Identity.
    #[arg(long, value_parser = role_arn, value_name = "ARN")]
    pub role_arn: Option<String>,

    /// Which versions are unwrapped: all, current, or numbers with commas between them. Without it all.
    #[arg(long, value_name = "all|current|N,...")]
    pub versions: Option<Versions>,

    /// The helper refuses a Secret whose current version is less than this.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub min_version: Option<i32>,

    /// How the plaintext is written: raw (the default), hex, base64 or jwk for a data key, pem (the default), der or jwk for a key pair.
    #[arg(long)]
    pub format: Option<KeyFormat>,

    /// The folder of the plaintext in the container, in memory. For the modes file and watch.
    #[arg(long, value_name = "PATH", default_value = "/plaintext", value_parser = folder)]
    pub mount_path: String,

    /// The permissions of the files, in octal digits (--mode of datakey-unwrap). Without it 0400 if the container has a known user, else 0440 and the pod's
    /// fsGroup.
    #[arg(long, value_name = "BITS", value_parser = file_mode)]
    pub file_mode: Option<String>,
}

/// How pods get the plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InjectMode {
    /// Files in memory, written by an init container once for each start of a pod.
    File,
    /// Files in memory, written by a sidecar, and written again after a rotation.
    Watch,
    /// Files that only the container's process has, by a command before its own.
    Exec,
}

/// Reads the name of an image.
fn image(text: &str) -> Result<String, String> {
    let is_image = !text.is_empty() && text.chars().all(|letter| letter.is_ascii_graphic());
    is_image.then(|| text.to_owned()).ok_or_else(|| "write it as REGISTRY/datakey-unwrap:TAG".to_owned())
}

/// Reads an absolute path that can be mounted.
fn folder(text: &str) -> Result<String, String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let is_plain = |part: &str| {
        let letters = part.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter));
        letters && !part.is_empty() && part != "." && part != ".." && part.len() <= MAX_LABEL
    };
    let parts = path.strip_prefix('/').map(|rest| rest.split('/').all(is_plain));
    match parts {
        Some(true) => Ok(path.to_owned()),
        _ => Err("write an absolute path of letters, digits, '.', '_' and '-', for example /plaintext".to_owned()),
    }
}

/// Reads permissions that let at least the owner read.
fn file_mode(text: &str) -> Result<String, String> {
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| bits & 0o400 != 0 && bits & !0o444 == 0);
    bits.map(|bits| format!("{bits:04o}")).ok_or_else(|| "write 0400, 0440 or 0444".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_absolute_and_plain() {
        for (text, path) in [("/plaintext", "/plaintext"), ("/run/keys/", "/run/keys")] {
            assert_eq!(folder(text).as_deref(), Ok(path));
        }
        for wrong in ["", "/", "plaintext", "/a//b", "/a/../b", "/a b", "/a:b"] {
            assert!(folder(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_can_be_read_and_not_written() {
        for (text, mode) in [("0400", "0400"), ("440", "0440"), ("0444", "0444")] {
            assert_eq!(file_mode(text).as_deref(), Ok(mode));
        }
        for wrong in ["", "0600", "0040", "0500", "8", "rw"] {
            assert!(file_mode(wrong).is_err(), "{wrong}");
        }
    }
}
