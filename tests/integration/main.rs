//! The operator and its custom resource against a real kube-apiserver, etcd, controller manager and KMS server. One of
//! each for the whole run; a namespace, an operator process and a KMS proxy for each test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]
// Counts here are small.
#![allow(clippy::cast_precision_loss)]

#[macro_use]
mod for_each_kind;

mod admission;
mod adoption;
mod aws_cli;
mod chaos;
mod chart;
mod classes;
mod consumers;
mod costs;
mod credentials;
mod defect;
mod documented;
mod drift;
mod entries;
mod environment;
mod failures;
mod harness;
mod health_states;
mod issuance;
mod keep;
mod key_check;
mod key_pairs;
mod kms_server;
mod kubernetes;
mod leadership;
mod logs;
mod newer;
mod pins;
mod plugin;
mod plugin_classes;
mod plugin_create;
mod plugin_import;
mod plugin_inject;
mod plugin_pairs;
mod plugin_policy;
mod plugin_rewrap;
mod privilege;
mod process;
mod protection;
mod public_key;
mod reencrypt;
mod regions;
mod released_servers;
mod releases;
mod restored;
mod secret_names;
mod silence;
mod size;
mod template;
mod tenant;
mod texts;
mod tls;
mod unreadable;
#[cfg(target_os = "linux")]
mod unwrap;
mod unwrap_manifests;
mod upgrade;
mod use_policy;
mod velero;
mod wait;
mod webhooks;
mod write_once_record;
