//! Commands and flags. Every flag has an environment variable. The doc comment of a flag is its documentation.
//!
//! An invalid value is refused at start, with one line that names the flag and its variable. The operator never ignores a value
//! or widens its meaning: an empty list of namespaces does not mean the whole cluster.

use std::{net::SocketAddr, num::NonZeroU32, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use datakey::api::QuotaClass;

use crate::kms::rates::Rate;

pub use read::Refusal;

#[cfg(test)]
mod cases;
mod log_level;
mod read;
mod usage;
mod values;
mod variables;

/// Issues AWS KMS data keys and key pairs into Kubernetes Secrets, without ever seeing a plaintext key.
///
/// It watches DataKeys and DataKeyPairs, calls AWS KMS GenerateDataKeyWithoutPlaintext or
/// GenerateDataKeyPairWithoutPlaintext once for each version, and keeps the wrapped data key, or the wrapped private key with
/// its public key, in the status of the object and in a Secret.
#[derive(Debug, Parser)]
#[command(name = "datakey-operator", version, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    ///
    /// The API server is found as kubectl finds it ($KUBECONFIG, ~/.kube/config), else by the service account of the
    /// pod. AWS configuration is read as the AWS CLI reads it: environment, profile, web identity (IRSA), container
    /// credentials (EKS Pod Identity), instance metadata; AWS_REGION, AWS_ENDPOINT_URL_KMS, AWS_USE_FIPS_ENDPOINT and
    /// AWS_USE_DUALSTACK_ENDPOINT are honored.
    ///
    /// Each flag has an environment variable; where both are given, the flag counts. A wrong or empty value, and a variable
    /// DATAKEY_... that is not listed here, are refused with exit code 64.
    Run(Box<RunArgs>),
    /// Print the CustomResourceDefinitions as YAML.
    Crd,
}

/// Flags of `run`.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct RunArgs {
    /// Watch this namespace only; repeat it, or separate by commas, for several. Without it, every namespace is
    /// watched.
    #[arg(
        long = "namespace",
        env = "DATAKEY_NAMESPACES",
        value_delimiter = ',',
        value_parser = values::watched_namespace,
        value_name = "NAMESPACE"
    )]
    pub namespaces: Vec<String>,

    /// How many DataKeys are reconciled at the same time. Those that wait for KMS do not count.
    #[arg(
        long,
        env = "DATAKEY_CONCURRENCY",
        default_value_t = 32,
        value_parser = values::number::<u16>(65_535),
        value_name = "NUMBER"
    )]
    pub concurrency: u16,

    /// Memory for the DataKeys that have something to do, in MiB. The operator reads a DataKey that does not fit from the API
    /// server when it reconciles it.
    #[arg(
        long,
        env = "DATAKEY_WORKING_SET",
        default_value = "8",
        value_parser = values::number::<NonZeroU32>(65_536),
        value_name = "MIB"
    )]
    pub working_set: NonZeroU32,

    /// Whether data keys are issued. With --issue=false KMS is never called: what is recorded, pinned or in a Secret is
    /// published, and every other version reads IssuingDisabled. For restore drills, and until a restore is complete.
    #[arg(
        long,
        env = "DATAKEY_ISSUE",
        default_value_t = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub issue: bool,

    /// Whether DataKeyPairs are watched. With --key-pairs=false the operator needs neither their definition nor their
    /// permissions.
    #[arg(
        long,
        env = "DATAKEY_KEY_PAIRS",
        default_value_t = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub key_pairs: bool,

    /// Whether each DataKey and DataKeyPair needs a DataKeyClass. With --classes=required, one without spec.className is of the
    /// class named default, and nothing is issued, adopted or pinned that no class allows. With --classes=optional, a class binds
    /// only those that name one, so it is no boundary between tenants.
    #[arg(long, env = "DATAKEY_CLASSES", default_value = "optional", value_name = "WHEN")]
    pub classes: ClassRequirement,

    /// Calls to KMS for data keys a second, at most, in each Region. The quota of AWS KMS is shared by everything in the account
    /// that encrypts, S3 and EBS included. Calls for key pairs count against other quotas: see --kms-pair-rates.
    #[arg(
        long,
        env = "DATAKEY_KMS_RATE",
        default_value = "100",
        value_parser = values::number::<NonZeroU32>(1_000_000),
        value_name = "PER_SECOND"
    )]
    pub kms_rate: NonZeroU32,

    /// Calls to KMS for key pairs a second, at most, in each Region: CLASS=RATE, for example RSA_4096=0.5; repeat it, or separate
    /// by commas, for several. The classes are RSA_2048, RSA_3072, RSA_4096, ECC, ML_KEM and SM2; a rate is from 0.001 to
    /// 1000000. Without it, each class has a quarter of the default quota of AWS KMS: RSA_2048=5, RSA_3072=1, RSA_4096=0.25,
    /// ECC=25, ML_KEM=6.25, SM2=6.25, and in the Regions of China RSA_2048=0.25, RSA_3072=0.125, RSA_4096=0.025.
    #[arg(
        long,
        env = "DATAKEY_KMS_PAIR_RATES",
        value_delimiter = ',',
        value_parser = values::pair_rate,
        value_name = "CLASS=RATE"
    )]
    pub kms_pair_rates: Vec<(QuotaClass, Rate)>,

    /// Call KMS in these Regions, too; repeat it, or separate by commas, for several. The Regions of AWS that this
    /// version knows and the operator's own need not be named. A DataKey that names another one is not issued
    /// (RegionUnknown).
    #[arg(
        long,
        env = "DATAKEY_EXTRA_REGIONS",
        value_delimiter = ',',
        value_parser = values::region,
        value_name = "REGION"
    )]
    pub extra_regions: Vec<String>,

    /// Refuse these keys in spec.secretTemplate, too; repeat it, or separate by commas, for several. A key that ends with a
    /// slash reserves a domain and its subdomains (example.com/), another one reserves that key alone (example.com/owner).
    #[arg(
        long,
        env = "DATAKEY_RESERVED_TEMPLATE_KEYS",
        value_delimiter = ',',
        value_parser = values::reserved_key,
        value_name = "KEY"
    )]
    pub reserved_template_keys: Vec<String>,

    /// How long to wait for KMS to answer, credentials included.
    #[arg(
        long,
        env = "DATAKEY_KMS_TIMEOUT",
        default_value = "10s",
        value_parser = values::duration(values::TIMEOUT),
        value_name = "DURATION"
    )]
    pub kms_timeout: Duration,

    /// How long to wait for KMS to answer a call for an RSA key pair, credentials included. KMS searches for primes, which can
    /// take seconds.
    #[arg(
        long,
        env = "DATAKEY_KMS_RSA_TIMEOUT",
        default_value = "60s",
        value_parser = values::duration(values::TIMEOUT),
        value_name = "DURATION"
    )]
    pub kms_rsa_timeout: Duration,

    /// How long to wait for the API server to answer.
    #[arg(
        long,
        env = "DATAKEY_KUBE_TIMEOUT",
        default_value = "10s",
        value_parser = values::duration(values::TIMEOUT),
        value_name = "DURATION"
    )]
    pub kube_timeout: Duration,

    /// First delay after a failure that passes by itself; it doubles with each failure. After a failure outside the cluster
    /// the first delay is 15 times as long, after one that a user must fix 30 times.
    #[arg(
        long,
        env = "DATAKEY_RETRY_MIN",
        default_value = "1s",
        value_parser = values::duration(values::RETRY),
        value_name = "DURATION"
    )]
    pub retry_min: Duration,

    /// Longest wait between two tries; a fifth of it for failures that pass by themselves.
    #[arg(
        long,
        env = "DATAKEY_RETRY_MAX",
        default_value = "10m",
        value_parser = values::duration(values::RETRY),
        value_name = "DURATION"
    )]
    pub retry_max: Duration,

    /// How often the operator queues the DataKeys that are not settled. It queues a settled one when it or its Secret
    /// changes.
    #[arg(
        long,
        env = "DATAKEY_RESYNC",
        default_value = "10h",
        value_parser = values::duration(values::RESYNC),
        value_name = "DURATION"
    )]
    pub resync: Duration,

    /// How often each KMS key that wrapped a recorded version is asked about, by a dry run that generates nothing; 0 for never. A KMS
    /// key that AWS KMS does not use any more shows in the condition KeyUsable and in metrics.
    #[arg(
        long,
        env = "DATAKEY_KEY_CHECK_INTERVAL",
        default_value = "12h",
        value_parser = values::key_check_interval,
        value_name = "DURATION"
    )]
    pub key_check_interval: Duration,

    /// How long reconciles that are running may go on after SIGTERM. Keep it below the pod's
    /// terminationGracePeriodSeconds.
    #[arg(
        long,
        env = "DATAKEY_SHUTDOWN_GRACE",
        default_value = "20s",
        value_parser = values::duration(values::GRACE),
        value_name = "DURATION"
    )]
    pub shutdown_grace: Duration,

    /// Work only while holding a Lease, so that one of several replicas works and the others stand by. Data keys are safe
    /// without it; it saves calls to KMS.
    #[arg(
        long,
        env = "DATAKEY_LEADER_ELECT",
        default_value_t = false,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub leader_elect: bool,

    /// Namespace of the Lease; the pod's own where it is not given.
    #[arg(long, env = "DATAKEY_LEASE_NAMESPACE", value_parser = values::namespace, value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of the Lease. Of the operators with the same Lease, one works at a time.
    #[arg(
        long,
        env = "DATAKEY_LEASE_NAME",
        default_value = "datakey-operator",
        value_parser = values::lease_name,
        value_name = "NAME"
    )]
    pub lease_name: String,

    /// How long a standby waits after the last renewal of the Lease before it takes over, in whole seconds. A leader that
    /// cannot renew the Lease stops after two thirds of this time.
    #[arg(
        long,
        env = "DATAKEY_LEASE_DURATION",
        default_value = "15s",
        value_parser = values::whole_seconds,
        value_name = "DURATION"
    )]
    pub lease_duration: Duration,

    /// Where /livez, /readyz and /metrics are served. [::] is every address, of IPv6 and of IPv4; on a node without IPv6 it
    /// is 0.0.0.0.
    #[allow(rustdoc::broken_intra_doc_links, reason = "[::] is an address, and this text is what --help prints")]
    #[arg(
        long,
        env = "DATAKEY_ADMIN_ADDRESS",
        default_value = "[::]:8080",
        value_parser = values::address,
        value_name = "ADDRESS:PORT"
    )]
    pub admin_address: SocketAddr,

    /// The log level: error, warn, info, debug or trace, or directives of tracing-subscriber's EnvFilter, for example
    /// info,datakey_operator=debug. Directives cannot turn off the log of the operator itself. The AWS and Kubernetes clients
    /// log errors only, because their warnings repeat requests, which carry grant tokens.
    #[arg(
        long,
        env = "DATAKEY_LOG_LEVEL",
        default_value = "info",
        value_parser = log_level::log_level,
        value_name = "LEVEL"
    )]
    pub log_level: String,

    /// How it is logged.
    #[arg(long, env = "DATAKEY_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Which objects need a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClassRequirement {
    /// Those that name one.
    Optional,
    /// All.
    Required,
}

/// How it is logged.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
