//! The `DataKey` API and its protocol, without effects: every decision of the operator is made here.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod arn;
pub mod decode;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
pub mod flaws;
pub mod identity;
pub mod newer;
pub mod pins;
pub mod plan;
pub mod secret;
pub mod size;
pub mod status;
pub mod template;
pub mod text;
