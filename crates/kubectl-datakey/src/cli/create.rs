//! The flags of `create`: those of `aws kms generate-data-key-without-plaintext` and of `aws kms
//! generate-data-key-pair-without-plaintext` by their names, and kubectl's.

use std::time::Duration;

use clap::{Args, ValueEnum};
use datakey::api::{EncryptionContext, KeyPairSpec, KeySpec};

use super::aws::{AwsArgs, data_key_name, key_pair_spec};
use crate::{aws_cli, reference::class_name};

const EXAMPLES: &str = "\
Examples:
  # Print a DataKey for Git
  kubectl datakey create orders --key-id alias/orders --key-spec AES_256 \\
    --encryption-context purpose=orders,stage=prod

  # Ask AWS KMS, under your own credentials, whether it would issue the data key
  kubectl datakey create orders --key-id alias/orders --number-of-bytes 64 \\
    --dry-run

  # Create it in the cluster, and wait until the data key is in its Secret
  kubectl datakey create orders -n shop --key-id alias/orders \\
    --key-spec AES_256 --apply

  # Leave the KMS key to a class
  kubectl datakey create orders -n shop --class-name shop --key-spec AES_256

  # Print a DataKeyPair
  kubectl datakey create tokens --key-id alias/tokens \\
    --key-pair-spec ECC_NIST_P256 --encryption-context purpose=tokens

  # Take the parameters that the AWS CLI takes
  kubectl datakey create orders --cli-input-json file://orders.json";

/// Flags of `create`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Create {
    /// The name of the DataKey or DataKeyPair.
    #[arg(id = "new-name", value_name = "NAME", value_parser = data_key_name, required_unless_present = "generate_cli_skeleton")]
    pub name: Option<String>,

    /// The symmetric KMS key that wraps the data key or the private key: a key ID, a key ARN, an alias name or an alias ARN. With
    /// --class-name it may be absent, if the class names one.
    #[arg(long, value_parser = aws_cli::key_id)]
    pub key_id: Option<String>,

    /// The DataKeyClass, which can name the KMS key and add to the encryption context. kubectl datakey classes shows those of the
    /// namespace.
    #[arg(long, value_parser = class_name, value_name = "NAME")]
    pub class_name: Option<String>,

    /// The kind of the data key: AES_256 (32 bytes) or AES_128 (16 bytes).
    #[arg(long, value_parser = aws_cli::key_spec)]
    pub key_spec: Option<KeySpec>,

    /// The length of the data key in bytes, from 1 to 1024, in place of --key-spec.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=1024), value_name = "BYTES")]
    pub number_of_bytes: Option<i32>,

    /// The kind of a key pair: makes a DataKeyPair. Takes the place of --key-spec and --number-of-bytes.
    #[arg(long, value_parser = key_pair_spec(), conflicts_with_all = ["key_spec", "number_of_bytes"], value_name = "SPEC")]
    pub key_pair_spec: Option<KeyPairSpec>,

    /// The encryption context: purpose=orders,stage=prod, or JSON, or file://FILE with either. Quote a value that has a
    /// comma: purpose='a,b'.
    #[arg(long, value_parser = aws_cli::encryption_context, value_name = "CONTEXT")]
    pub encryption_context: Option<EncryptionContext>,

    /// KMS grant tokens, one or more, or a JSON list of them, or file://FILE with either.
    // They are read after clap, whose errors repeat a value.
    #[arg(long, num_args = 1.., value_name = "TOKEN")]
    pub grant_tokens: Option<Vec<String>>,

    /// All of these parameters as one JSON document, or file://FILE; the flags go before it.
    #[arg(long, value_name = "JSON", conflicts_with = "cli_input_yaml")]
    pub cli_input_json: Option<String>,

    /// The same in YAML.
    #[arg(long, value_name = "YAML")]
    pub cli_input_yaml: Option<String>,

    /// Print a document for --cli-input-json or --cli-input-yaml, and do nothing else. With --key-pair-spec it is that of a key
    /// pair.
    #[arg(long, num_args = 0..=1, default_missing_value = "input", value_name = "FORMAT")]
    pub generate_cli_skeleton: Option<Skeleton>,

    /// Change nothing. Without a value as for the AWS CLI: AWS KMS checks under your own credentials whether it would
    /// issue it. With client the manifest is only printed, with server the API server checks it.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "aws", value_name = "BY")]
    pub dry_run: Option<DryRun>,

    /// No dry run, whatever DryRun is in --cli-input-json or --cli-input-yaml.
    #[arg(long, conflicts_with = "dry_run")]
    pub no_dry_run: bool,

    /// Apply it to the cluster in place of printing it, and wait until it is Ready.
    #[arg(long)]
    pub apply: bool,

    /// How long to wait.
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration, value_name = "DURATION", requires = "apply")]
    pub timeout: Duration,

    /// How AWS KMS is called.
    #[command(flatten)]
    pub aws: AwsArgs,
}

/// Which check takes the place of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// AWS KMS checks the request, under your own credentials.
    Aws,
    /// The manifest is only printed.
    Client,
    /// The API server checks the manifest.
    Server,
}

/// The form of a skeleton.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Skeleton {
    /// JSON.
    Input,
    /// YAML.
    YamlInput,
}
