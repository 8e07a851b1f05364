//! The `DataKey` API and its protocol, without effects. The operator, the kubectl plugin and the tests all decide with this
//! crate.
//!
//! # The protocol
//!
//! 1. AWS KMS answers each call of `GenerateDataKeyWithoutPlaintext` with a new data key and keeps none. An answer that is not
//!    stored can be dropped: no data is encrypted under it yet.
//! 2. One guarded write makes an answer the data key of a version: the record, `status.versions`. It carries the resource version
//!    that the decision was made on, and the API server refuses to change or to remove an entry.
//! 3. The Secret is a function of the record ([`secret::Projection`]): each write of it, by any replica and at any time, has the
//!    same bytes.
//! 4. A Secret that can hold another data key than the recorded one is never overwritten ([`secret::compare`]). Where there is no
//!    record, a Secret that is whole and answers the spec becomes the record ([`secret::adopt`]); another one is a conflict.
//! 5. The status keeps the revision and the digest of the Secret that was last verified, so a change of one byte is seen from the
//!    metadata alone ([`secret::known`]).
//!
//! [`protocol::Attempt`] is the loop: it decides on the next step, and learns the answer to that step. It has no effects. The
//! operator carries out the steps; the model in `tests/model` gives every answer that a cluster can give.
//!
//! # The modules
//!
//! | module | is |
//! | --- | --- |
//! | [`api`] | the custom resource: spec, status, validation rules, definition |
//! | [`names`] | what is stored under a name: API group, labels, annotations, Secret type; the form of users' names |
//! | [`arn`] | the forms of a KMS key identifier, and what they say of Region and key |
//! | [`class`] | what a `DataKeyClass` allows, and what it fills in |
//! | [`protocol`] | every decision, as the next step of an attempt |
//! | [`public_key`] | the public half of a key pair: its check, and the forms that other programs read |
//! | [`key_format`] | the formats of a plaintext key, for the programs that write one |
//! | [`secret`] | the Secret from the record, its comparison, its adoption, its template |
//! | [`reason`], [`condition`] | why an object is not ready, and what its conditions say |
//! | [`decode`] | each object of a list by itself; what is reported of one that cannot be decoded |
//! | [`identity`] | which state of an object is older |
//! | [`rewraps`] | which versions have the same data key |
//! | [`text`] | text of users and servers as it may be shown |
//!
//! # Example
//!
//! A new object acquires a permit, gets the metadata of the Secret, and calls KMS only where the name is free:
//!
//! ```
//! use std::sync::Arc;
//!
//! use datakey::{
//!     api::DataKey,
//!     protocol::{Answer, Attempt, Inputs, Step},
//! };
//! use k8s_openapi::jiff::Timestamp;
//!
//! let key: DataKey = serde_json::from_value(serde_json::json!({
//!     "apiVersion": "datakey.dev/v1alpha1",
//!     "kind": "DataKey",
//!     "metadata": { "name": "orders", "namespace": "shop" },
//!     "spec": { "keyId": "alias/orders", "keySpec": "AES_256" },
//! }))?;
//! let mut attempt = Attempt::new(Arc::new(key), None);
//! let next = |attempt: &Attempt<_>| attempt.next(Inputs::default(), Timestamp::UNIX_EPOCH);
//! assert!(matches!(next(&attempt), Step::AcquirePermit(_)));
//! attempt.learn(Answer::Permit).unwrap();
//! assert!(matches!(next(&attempt), Step::GetSecretMetadata));
//! attempt.learn(Answer::Metadata(None)).unwrap();
//! assert!(matches!(next(&attempt), Step::CallKms(_)));
//! # Ok::<(), serde_json::Error>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod arn;
pub mod class;
pub mod condition;
pub mod decode;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
pub mod identity;
pub mod key_format;
pub mod names;
pub mod protocol;
pub mod public_key;
pub mod reason;
pub mod rewraps;
pub mod secret;
pub mod selection;
pub mod text;
