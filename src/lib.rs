//! An operator that issues AWS KMS data keys into Kubernetes Secrets without ever seeing a plaintext key.
//!
//! One data key a (`DataKey`, version), never replaced, never lost. The record in the status is written first, by one
//! guarded write; the Secret is a function of the record.
//!
//! # Layout
//!
//! | module | is |
//! | --- | --- |
//! | [`args`] | the command line: flags, variables, and the values that they accept |
//! | [`run`] | the command `run`: starts the parts, and stops them in order |
//! | `shutdown` | signals, and the token that stops the parts |
//! | [`leader`] | leader election by a `Lease`: one replica works, the others stand by |
//! | [`controller`] | watches, store and work queue: which `DataKey` is reconciled when |
//! | [`reconcile`] | carries out the steps of `datakey::protocol`; the only module that knows both KMS and Kubernetes |
//! | [`classes`] | what is known of the classes of the cluster |
//! | [`kms`] | the one call to AWS KMS, and the queue of permits for it |
//! | [`api_server`] | the client of the API server: requests, time limits, and the meaning of answers |
//! | `round_robin`, `place` | a queue that serves namespaces in turn; namespace and name of an object |
//! | [`admin`], [`metrics`] | `/livez`, `/readyz` and `/metrics`, and the values behind them |
//! | [`logging`] | structured logs without requests and answers |
//! | [`exit_code`] | the exit codes of the process |
//!
//! The types of the API and every decision of the protocol are in the crate [`datakey`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admin;
pub mod api_server;
pub mod args;
pub mod classes;
pub mod controller;
pub mod exit_code;
pub mod key_check;
pub mod kms;
pub mod leader;
pub mod logging;
pub mod metrics;
mod place;
pub mod reconcile;
mod round_robin;
pub mod run;
mod shutdown;
