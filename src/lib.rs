//! An operator that issues AWS KMS data keys into Kubernetes Secrets without ever seeing a plaintext key.
//!
//! One data key a (`DataKey`, version), never replaced, never lost. The record in the status is written first, by one
//! guarded write; the Secret is a function of the record.
//!
//! # Layout
//!
//! | module | is |
//! | --- | --- |
//! | [`api`] | the custom resource: spec, status, validation rules |
//! | [`plan`] | pure: every decision, as the next step |
//! | [`newer`] | pure: what a newer release wrote, and this one must leave alone |
//! | [`pins`] | pure: what the spec pins, against the record and the Secret |
//! | [`flaws`] | pure: what a pin or a version out of a Secret must be to be recorded |
//! | [`template`] | pure: labels and annotations that a `DataKey` wants on its Secret |
//! | `size` | pure: whether Kubernetes can store what a record would become |
//! | [`status`] | pure: conditions, reasons, classes of failure |
//! | [`secret`] | pure: the Secret from the record, drift, adoption; its requests and its cache |
//! | [`kms`] | the one call to KMS: client, error classes, known Regions, queue, shares |
//! | [`reconcile`] | carries a step out; the only place that knows both KMS and Kubernetes |
//! | [`controller`], [`cache`] | watches, queue, waits; `DataKey`s in memory |
//! | [`caches`], `conflicts` | what the watches delivered, and which `DataKey` wants which Secret; watches over foreign Secrets in the way |
//! | [`slots`], `round_robin` | how many reconciles work at the same time; namespaces take turns |
//! | [`backoff`], `streaks`, [`reads`] | how long to wait after a failure, while another client fights for a Secret, and before a Secret is read |
//! | [`decode`], `unreadable` | each `DataKey` by itself; what is reported of one that cannot be decoded |
//! | [`admin`], [`metrics`], [`logging`] | what is seen from outside |
//! | [`leader`] | which of several replicas works |
//! | [`identity`] | pure: which state of an object is older |
//! | [`text`] | pure: text of users and servers as it may be shown |
//! | [`args`], [`run`] | flags; start and stop |

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admin;
pub mod api_server;
pub mod args;
pub mod backoff;
mod conflicts;
pub mod controller;
pub mod kms;
pub mod leader;
pub mod logging;
pub mod metrics;
pub mod reads;
pub mod reconcile;
mod round_robin;
pub mod run;
mod streaks;
