//! The flags of `public-key`. clap prints the doc comments as help.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use datakey::selection::Versions;

use crate::reference::Reference;

/// The examples below the help.
pub const EXAMPLES: &str = "\
Examples:
  kubectl datakey public-key tokens > tokens.pem
  kubectl datakey public-key tokens -o ssh --to tokens.pub
  kubectl datakey public-key tokens -o jwks
  kubectl datakey public-key tokens -o configmap --versions 1,2";

/// Flags of `public-key`.
#[derive(Debug, Args)]
pub struct PublicKey {
    /// The DataKeyPair, as NAME or datakeypair/NAME.
    #[arg(id = "key_pair", value_name = "NAME", value_parser = Reference::parse)]
    pub name: Reference,

    /// In what form.
    #[arg(short, long, default_value = "pem")]
    pub output: PublicKeyFormat,

    /// Which versions: all, current, or numbers with commas between them. The default is all for jwks and configmap, else the one
    /// that the Secret's plain entries hold.
    #[arg(long, value_name = "all|current|N,...")]
    pub versions: Option<Versions>,

    /// Write to this file instead of standard output. One that is there is not overwritten.
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
}

/// In what form public keys are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PublicKeyFormat {
    /// PEM (SubjectPublicKeyInfo), one block for each version.
    Pem,
    /// The bytes of the SubjectPublicKeyInfo in DER.
    Der,
    /// One JSON Web Key.
    Jwk,
    /// A JSON Web Key Set: a key for each version, its thumbprint (RFC 7638) as kid.
    Jwks,
    /// Lines of OpenSSH, as in authorized_keys.
    Ssh,
    /// A ConfigMap NAME-public-keys with the keys in PEM and their JSON Web Key Set, as YAML.
    #[value(name = "configmap")]
    ConfigMap,
}
