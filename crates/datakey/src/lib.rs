//! The `DataKey` API and its protocol, without effects: every decision of the operator is made here.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod arn;
pub mod condition;
pub mod decode;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
pub mod identity;
pub mod names;
pub mod protocol;
pub mod reason;
pub mod secret;
pub mod text;
