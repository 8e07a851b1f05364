//! The flags of `public-key`. clap prints the doc comments as help.

use std::{collections::BTreeSet, path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};

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

    /// Which versions: all, or numbers with commas between them. The default is all for jwks and configmap, else the one
    /// that the Secret's plain entries hold.
    #[arg(long, value_name = "all|N,...")]
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

/// Which versions of a key pair are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Versions {
    /// All recorded ones.
    All,
    /// These, at least one.
    These(BTreeSet<i32>),
}

// === impl Versions ===

impl FromStr for Versions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let number = |part: &str| part.parse().ok().filter(|version| *version >= 1);
        let numbers: Option<BTreeSet<_>> = text.split(',').map(number).collect();
        numbers.map(Self::These).ok_or_else(|| "write all, or numbers from 1 with commas between them: 1,2".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_all_or_numbers() {
        let these = |versions: &[i32]| Ok(Versions::These(versions.iter().copied().collect()));
        assert_eq!("all".parse(), Ok(Versions::All));
        assert_eq!("1".parse(), these(&[1]));
        assert_eq!("3,1,3".parse(), these(&[1, 3]));
        for wrong in ["", "0", "-1", "1,", ",", "1, 2", "1-2", "ALL", "all,1", "v1", "99999999999"] {
            assert!(wrong.parse::<Versions>().is_err(), "{wrong}");
        }
    }
}
