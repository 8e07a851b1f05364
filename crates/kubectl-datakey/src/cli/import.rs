//! The flags of `import`.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};
use datakey::api::{EncryptionContext, KeySpec};
use k8s_openapi::jiff::Timestamp;

use super::aws::{AwsArgs, data_key_name};
use crate::aws_cli;

const EXAMPLES: &str = "\
Examples:
  # From what the AWS CLI prints
  aws kms generate-data-key-without-plaintext --key-id alias/orders \\
    --key-spec AES_256 |
    kubectl datakey import orders --key-id alias/orders

  # From a file of bytes, with its encryption context
  kubectl datakey import orders --ciphertext-blob fileb://orders.blob \\
    --encryption-context purpose=orders

  # From an entry of a Secret, as version 2, without a call to AWS KMS
  kubectl datakey import orders --from-secret old-orders/key --version 2 \\
    --no-verify --key-spec AES_256 \\
    --key-id \"$KEY_ARN\"

  # Many at once: each DataKey becomes a file in a folder. Run it again to go on
  # after an interruption
  kubectl datakey import --from-csv keys.csv --to datakeys --apply";

/// Flags of `import`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("source").args(["ciphertext_blob", "from_secret", "from_configmap", "from_csv", "from_folder"]))]
#[command(group = ArgGroup::new("many").args(["from_csv", "from_folder"]).requires("to").conflicts_with_all(["new-name", "version"]))]
pub struct Import {
    /// The name of the DataKey.
    #[arg(id = "new-name", value_name = "NAME", value_parser = data_key_name, required_unless_present = "many")]
    pub name: Option<String>,

    /// The wrapped data key: fileb://FILE with its bytes, file://FILE with base64 or with the JSON that the AWS CLI
    /// printed, or base64. Without it, or as -, standard input: base64 or that JSON.
    #[arg(long, value_name = "BLOB", allow_hyphen_values = true)]
    pub ciphertext_blob: Option<String>,

    /// The wrapped data key in an entry of a Secret: its bytes, base64, or the JSON that the AWS CLI printed.
    #[arg(long, value_name = "SECRET/ENTRY")]
    pub from_secret: Option<String>,

    /// The same in an entry of a ConfigMap.
    #[arg(long, value_name = "CONFIGMAP/ENTRY")]
    pub from_configmap: Option<String>,

    /// Many at once, from a CSV file whose first line names the columns: name and ciphertext_blob (base64), and where
    /// needed version, key_id, encryption_context, key_spec, number_of_bytes, region, issued_at. Lines with one name are
    /// versions of one DataKey.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    pub from_csv: Option<PathBuf>,

    /// Many at once, from the files of a folder: NAME.json, or NAME.v2.json for version 2, with the JSON that the AWS CLI
    /// printed; NAME.blob and NAME.v2.blob with the bytes or base64.
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::AnyPath)]
    pub from_folder: Option<PathBuf>,

    /// The folder to which many DataKeys are written, each as NAME.yaml. What is there already is not asked again.
    #[arg(long, value_name = "FOLDER", requires = "many", value_hint = clap::ValueHint::AnyPath)]
    pub to: Option<PathBuf>,

    /// The KMS key that wrapped the data key: a key ID, a key ARN, an alias name or an alias ARN. AWS KMS is asked with it.
    /// Without it the ARN that the JSON or AWS KMS names.
    #[arg(long, value_parser = aws_cli::key_id)]
    pub key_id: Option<String>,

    /// The encryption context: purpose=orders,stage=prod, or JSON, or file://FILE with either.
    #[arg(long, value_parser = aws_cli::encryption_context, value_name = "CONTEXT")]
    pub encryption_context: Option<EncryptionContext>,

    /// The kind of the data key: AES_256 or AES_128. AWS KMS is asked for the length if this is not given.
    #[arg(long, value_parser = aws_cli::key_spec, conflicts_with = "number_of_bytes")]
    pub key_spec: Option<KeySpec>,

    /// The length of the data key in bytes.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=1024), value_name = "BYTES")]
    pub number_of_bytes: Option<i32>,

    /// The version that the data key becomes; without it 1.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pub version: Option<i32>,

    /// When the data key was issued, such as 2026-11-24T01:02:03Z; without it the time of the import is recorded.
    #[arg(long, value_name = "TIME")]
    pub issued_at: Option<Timestamp>,

    /// Do not ask AWS KMS whether the data key unwraps. Then --key-id must be the ARN of the KMS key, and --key-spec or
    /// --number-of-bytes must be given.
    #[arg(long)]
    pub no_verify: bool,

    /// Apply the DataKey to the cluster, and wait until it is Ready. Many are applied from the folder.
    #[arg(long)]
    pub apply: bool,

    /// How long to wait; for many, how long while none becomes Ready.
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration, value_name = "DURATION", requires = "apply")]
    pub timeout: Duration,

    /// How AWS KMS is called.
    #[command(flatten)]
    pub aws: AwsArgs,
}
