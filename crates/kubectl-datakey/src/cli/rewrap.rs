//! The flags of `rewrap`.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};
use datakey::{api::EncryptionContext, selection::Versions};

use super::{aws::EndpointArgs, values::key_arn};
use crate::{aws_cli, output::Format, reference::Reference};

pub const EXAMPLES: &str = "\
Examples:
  # The plan: calls nothing, changes nothing
  kubectl datakey rewrap orders --to-key-id \\
    arn:aws:kms:eu-west-1:999999999999:key/1234abcd-12ab-34cd-56ef-1234567890ab

  # Do it, and write the manifest for Git
  kubectl datakey rewrap orders --output orders.yaml --to-key-id \\
    arn:aws:kms:eu-west-1:999999999999:key/1234abcd-12ab-34cd-56ef-1234567890ab

  # All that a KMS key wrapped, in all namespaces: into files for Git, and in
  # the cluster. Run it again to go on after an interruption
  kubectl datakey rewrap -A --output moved --apply --to-key-id \\
   arn:aws:kms:eu-west-1:999999999999:key/1234abcd-12ab-34cd-56ef-1234567890ab \\
    --from-key-id \\
    arn:aws:kms:eu-west-1:111122223333:key/0987dcba-09fe-87dc-65ba-ab0987654321

  # Another encryption context alone, without a new data key
  kubectl datakey rewrap orders --to-context purpose=orders,stage=prod \\
    --no-rotate --apply --to-key-id \\
    arn:aws:kms:eu-west-1:111122223333:key/0987dcba-09fe-87dc-65ba-ab0987654321";

/// Flags of `rewrap`.
#[derive(Debug, Args)]
// Each bool is an independent flag; clap checks which of them conflict.
#[allow(clippy::struct_excessive_bools)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("which").required(true).multiple(true))]
pub struct Rewrap {
    /// The DataKey or DataKeyPair, as NAME, datakey/NAME or datakeypair/NAME.
    #[arg(group = "which", value_parser = Reference::parse)]
    pub name: Option<Reference>,

    /// DataKeys and DataKeyPairs with these labels, as for kubectl get.
    #[arg(short = 'l', long, value_name = "SELECTOR", group = "which", conflicts_with = "name")]
    pub selector: Option<String>,

    /// DataKeys and DataKeyPairs of all namespaces.
    #[arg(short = 'A', long, group = "which", conflicts_with = "name")]
    pub all_namespaces: bool,

    /// Move only versions that this KMS key wrapped: its key ARN. Required to move several objects; the plan works without it.
    #[arg(long, value_name = "ARN", group = "which", value_parser = key_arn)]
    pub from_key_id: Option<String>,

    /// The KMS key that is moved to: its key ARN.
    #[arg(long, value_name = "ARN", value_parser = key_arn)]
    pub to_key_id: String,

    /// The encryption context that is moved to: purpose=orders,stage=prod, or JSON, or file://FILE with either; {} for none.
    /// Without it, each version keeps its own. Not with -A, because the namespaces could then unwrap the data keys of one another.
    #[arg(long, value_parser = aws_cli::encryption_context, value_name = "CONTEXT", conflicts_with = "all_namespaces")]
    pub to_context: Option<EncryptionContext>,

    /// How spec.keyId names the KMS key: an alias or a key ID, for example mrk-..., in place of its ARN.
    #[arg(long, value_parser = aws_cli::key_id, value_name = "KEY")]
    pub spec_key_id: Option<String>,

    /// Which versions are moved: all, current, or numbers with commas between them.
    #[arg(long, default_value = "all", value_name = "all|current|N,...")]
    pub versions: Versions,

    /// Keep the current data key or key pair as the current one, under the new KMS key. Without this flag, the operator issues a new one.
    #[arg(long)]
    pub no_rotate: bool,

    /// Also move objects with versions that came from spec.wrappedKeys or from a Secret (status.adopted), as after an earlier move or
    /// a restore. Before that, check that each of them is their own: a user of the namespace can have put the wrapped data key of
    /// another team there, and a move could open it.
    #[arg(long)]
    pub include_adopted: bool,

    /// Do it, and write the manifest for Git, with all versions as spec.wrappedKeys: a file for one object, a folder for several. A
    /// file of an earlier run is used, and AWS KMS is not called again for it.
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    pub output: Option<PathBuf>,

    /// Do it, change the object in the cluster, and wait until it is Ready.
    #[arg(long)]
    pub apply: bool,

    /// How long to wait; for several, how long while none becomes Ready.
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration, value_name = "DURATION", requires = "apply")]
    pub timeout: Duration,

    /// How the plan is printed.
    #[arg(long, default_value = "table", conflicts_with_all = ["output", "apply"])]
    pub format: Format,

    /// How AWS KMS is called.
    #[command(flatten)]
    pub aws: EndpointArgs,
}
