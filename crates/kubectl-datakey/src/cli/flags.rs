//! The flags of the commands that look after DataKeys in the cluster. clap prints the doc comments as help.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};
use datakey::{api::EncryptionContext, selection::Versions};

use super::values::{Document, ExportFormat, PolicyFormat, key_arn, role_arn};
use crate::{
    aws_cli,
    output::{Format, ListFormat},
    reference::{Reference, class_name},
};

/// Flags of `list`.
#[derive(Debug, Args)]
pub struct List {
    /// DataKeys and DataKeyPairs of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// DataKeys and DataKeyPairs with these labels, as for kubectl get.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// How to print it.
    #[arg(short, long, default_value = "table")]
    pub output: ListFormat,
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// The DataKey or DataKeyPair, as NAME, datakey/NAME or datakeypair/NAME; without it all.
    #[arg(value_parser = Reference::parse)]
    pub name: Option<Reference>,

    /// DataKeys and DataKeyPairs of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "name")]
    pub all_namespaces: bool,

    /// How to print it. Without a name json and yaml have all, the ready ones too.
    #[arg(short, long, default_value = "table")]
    pub output: Format,
}

/// Flags of `classes`.
#[derive(Debug, Args)]
pub struct Classes {
    /// The classes, with all that they allow; without a name all, in a table.
    #[arg(id = "class", value_name = "NAME", value_parser = class_name)]
    pub names: Vec<String>,

    /// Judge this DataKey or DataKeyPair, as NAME, datakey/NAME or datakeypair/NAME, by each class. Exit code 2 says that its own
    /// class refuses it.
    #[arg(long = "for", id = "for_object", value_name = "OBJECT", value_parser = Reference::parse)]
    pub object: Option<Reference>,

    /// How to print it; wide has all that they allow.
    #[arg(short, long, default_value = "table")]
    pub output: ListFormat,
}

/// Flags of `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The DataKey or DataKeyPair, as NAME, datakey/NAME or datakeypair/NAME.
    #[arg(value_parser = Reference::parse)]
    pub name: Reference,

    /// In what form.
    #[arg(short, long, default_value = "manifest")]
    pub output: ExportFormat,

    /// Which version; without it the one that the Secret's plain entries hold.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pub version: Option<i32>,

    /// Print the object itself for Git, as YAML, with everything that was issued as spec.wrappedKeys: a user who applies it gets
    /// the same data keys or key pairs again, in a new cluster too.
    #[arg(long, conflicts_with_all = ["output", "version"])]
    pub pin: bool,

    /// Write to this file instead of standard output. One that is there is not overwritten.
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
}

/// Flags of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The DataKey or DataKeyPair, as NAME, datakey/NAME or datakeypair/NAME; without it all.
    #[arg(value_parser = Reference::parse)]
    pub name: Option<Reference>,

    /// DataKeys and DataKeyPairs of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "name")]
    pub all_namespaces: bool,

    /// Ask AWS KMS Decrypt whether each recorded version unwraps with what is recorded, under your own AWS
    /// credentials, found as the AWS CLI finds them; they need kms:Decrypt. The plaintext is measured, its SHA-256 is
    /// taken, and it is overwritten; it is not printed.
    #[arg(long)]
    pub decrypt: bool,

    /// How to print it.
    #[arg(short, long, default_value = "table")]
    pub output: Format,
}

/// Flags of `rotate`.
#[derive(Debug, Args)]
// Each bool is an independent flag; clap checks which of them conflict.
#[allow(clippy::struct_excessive_bools)]
pub struct Rotate {
    /// The DataKey or DataKeyPair, as NAME, datakey/NAME or datakeypair/NAME.
    #[arg(value_parser = Reference::parse)]
    pub name: Reference,

    /// Let the API server check the change and don't keep it.
    #[arg(long, conflicts_with_all = ["patch", "wait"])]
    pub dry_run: bool,

    /// Print the change for Git, as a merge patch in YAML, and change nothing.
    #[arg(long, conflicts_with = "wait")]
    pub patch: bool,

    /// Rotate although it is not Ready.
    #[arg(long)]
    pub force: bool,

    /// Wait until it is Ready with the new version.
    #[arg(long)]
    pub wait: bool,

    /// How long to wait.
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration, value_name = "DURATION", requires = "wait")]
    pub timeout: Duration,
}

/// Flags of `retry`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true))]
pub struct Retry {
    /// The DataKey or DataKeyPair, as NAME, datakey/NAME or datakeypair/NAME.
    #[arg(group = "which", value_parser = Reference::parse)]
    pub name: Option<Reference>,

    /// DataKeys and DataKeyPairs with these labels, as for kubectl get.
    #[arg(short = 'l', long, value_name = "SELECTOR", group = "which", conflicts_with = "name")]
    pub selector: Option<String>,

    /// DataKeys and DataKeyPairs of all namespaces.
    #[arg(short = 'A', long, group = "which", conflicts_with = "name")]
    pub all_namespaces: bool,

    /// Wait until all are Ready.
    #[arg(long)]
    pub wait: bool,

    /// How long to wait.
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration, value_name = "DURATION", requires = "wait")]
    pub timeout: Duration,
}

/// Flags of `keep`.
#[derive(Debug, Args)]
pub struct Keep {
    /// The DataKey or DataKeyPair, as NAME, datakey/NAME or datakeypair/NAME.
    #[arg(value_parser = Reference::parse)]
    pub name: Reference,

    /// The file in which it is saved before it is deleted; without it datakey-NAMESPACE-NAME.yaml, or
    /// datakeypair-NAMESPACE-NAME.yaml, in the current directory. A file that an earlier run left is used, no other one is overwritten.
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,

    /// Print what would be saved and created, have the API server check it, and change nothing.
    #[arg(long, conflicts_with_all = ["to", "yes"])]
    pub dry_run: bool,

    /// Do not ask before it is deleted, or created from a file of an earlier run.
    #[arg(short, long)]
    pub yes: bool,

    /// How long to wait until it is deleted, created and Ready again.
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Your rights in all namespaces, not in one.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// The namespace of the operator; without it datakey-system. Deployments of the operator in others are named, but not
    /// checked.
    #[arg(long, value_name = "NAMESPACE")]
    pub operator_namespace: Option<String>,

    /// How to print it.
    #[arg(short, long, default_value = "table")]
    pub output: Format,
}

/// Flags of `kms-keys`.
#[derive(Debug, Args)]
pub struct KmsKeys {
    /// KMS keys of the DataKeys and DataKeyPairs of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Of DataKeys and DataKeyPairs with these labels, as for kubectl get.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// How to print it.
    #[arg(short, long, default_value = "table")]
    pub output: Format,
}

/// Flags of `orphans`.
#[derive(Debug, Args)]
pub struct Orphans {
    /// Secrets of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// How to print it.
    #[arg(short, long, default_value = "table")]
    pub output: ListFormat,
}

/// Flags of `version`.
#[derive(Debug, Args)]
pub struct Version {
    /// The version of the plugin alone, without a request to a cluster.
    #[arg(long)]
    pub client: bool,

    /// How to print it.
    #[arg(short, long, default_value = "table")]
    pub output: Format,
}

/// Flags of `policy`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("subject").required(true))]
pub struct Policy {
    /// The DataKey or DataKeyPair, as NAME, datakey/NAME or datakeypair/NAME.
    #[arg(group = "subject", value_parser = Reference::parse)]
    pub name: Option<Reference>,

    /// The DataKeyClass, instead of a DataKey or DataKeyPair: the policies for all that it allows, and, if it has an AWS role, those
    /// by which the operator assumes that role.
    #[arg(long, group = "subject", value_name = "CLASS", value_parser = class_name)]
    pub class: Option<String>,

    /// The workload's IAM role, for the key policy.
    #[arg(long, value_parser = role_arn, value_name = "ARN")]
    pub role_arn: Option<String>,

    /// The operator's IAM role, for the key policy and the trust policy.
    #[arg(long, value_parser = role_arn, value_name = "ARN")]
    pub operator_role_arn: Option<String>,

    /// Instead of the policies of the operator and the workload those of a role that moves every recorded version to another KMS key
    /// or encryption context by KMS ReEncrypt, for the time of the move.
    #[arg(long, requires = "to_key_id", conflicts_with_all = ["class", "role_arn", "operator_role_arn"])]
    pub rewrap: bool,

    /// The KMS key to move to, by its ARN; the present one if only the encryption context changes.
    #[arg(long, value_parser = key_arn, value_name = "ARN", requires = "rewrap")]
    pub to_key_id: Option<String>,

    /// The encryption context to move to, as for aws kms: purpose=orders, JSON, or file://NAME; {} for none. Without it each version
    /// keeps its own.
    #[arg(long, value_parser = aws_cli::encryption_context, value_name = "CONTEXT", requires = "rewrap")]
    pub to_context: Option<EncryptionContext>,

    /// Only for versions that this KMS key wrapped: its key ARN, as for kubectl datakey rewrap.
    #[arg(long, value_parser = key_arn, value_name = "ARN", requires = "rewrap")]
    pub from_key_id: Option<String>,

    /// Only for these versions, as for kubectl datakey rewrap: all, current, or numbers with commas between them.
    #[arg(long, value_name = "all|current|N,...", requires = "rewrap")]
    pub versions: Option<Versions>,

    /// The IAM role that rewraps, for the key policies.
    #[arg(long, value_parser = role_arn, value_name = "ARN", requires = "rewrap")]
    pub rewrap_role_arn: Option<String>,

    /// Only one of the documents, to be copied as it is.
    #[arg(long, value_name = "DOCUMENT")]
    pub only: Option<Document>,

    /// How to print it.
    #[arg(short, long, default_value = "json")]
    pub output: PolicyFormat,
}
