//! Unwraps data keys and key pairs with `Decrypt` of AWS KMS, and rewraps them with `ReEncrypt`.
//!
//! This is the only crate of the workspace that calls `Decrypt` and `ReEncrypt`; the operator does not depend on it. A [`Decrypter`]
//! uses the credentials of the user or the workload that runs the program.
//!
//! | item | purpose |
//! | --- | --- |
//! | [`Decrypter::new`] | reads the AWS configuration, as the AWS CLI does |
//! | [`Decrypter::decrypt`] | asks KMS to unwrap one recorded version |
//! | [`Decryption`] | the result: it unwraps, it does not, or that is not known |
//! | [`Decrypter::decrypt_comparably`] | the same, with a [`PlaintextTag`] by which the plaintexts of several versions are compared |
//! | [`Refusal`] | why a wrapped data key was neither unwrapped nor rewrapped |
//!
//! Of a plaintext these report its length and, if it is too long to be guessed, its SHA-256; of a private key, whether it
//! belongs to the recorded public key. The plaintext is overwritten. Only with the feature `plaintext`, which the program
//! `datakey-unwrap` uses, there is `Decrypter::unwrap_key`, which returns the plaintext. Only with the feature `rewrap`, which
//! `kubectl datakey` uses, there is `Rewrapper`, which has KMS wrap a data key once more.
//!
//! # Example
//!
//! ```no_run
//! use datakey::api::DataKey;
//! use datakey_decrypt::{Caller, Decrypter, Decryption};
//!
//! # async fn example(key: DataKey) -> Result<(), String> {
//! let decrypter = Decrypter::new(&Caller::person("my-program-1.0")).await?;
//! for issued in key.record() {
//!     match decrypter.decrypt(issued).await {
//!         Decryption::Unwrapped { length, .. } => println!("version {}: {length} bytes", issued.version),
//!         Decryption::UnwrappedPair { public_half, .. } => println!("version {}: {public_half:?}", issued.version),
//!         Decryption::Failed { why } => println!("version {} does not unwrap: {why}", issued.version),
//!         Decryption::Unknown { why } => println!("version {}: {why}", issued.version),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod caller;
mod clients;
mod comparison;
mod decrypter;
mod decryption;
mod key_pair;
mod refusal;
#[cfg(feature = "rewrap")]
mod rewrapper;

pub use caller::Caller;
pub use comparison::PlaintextTag;
pub use decrypter::{Comparable, Decrypter, Identity, WrappedKey};
pub use decryption::{Decryption, check_plaintext};
pub use key_pair::PublicHalf;
pub use refusal::{Cause, Refusal};
#[cfg(feature = "rewrap")]
pub use rewrapper::{Destination, Rewrapped, Rewrapper};
