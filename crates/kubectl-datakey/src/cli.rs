//! The commands and their flags. clap prints the doc comments as help.

use std::{path::PathBuf, time::Duration};

use clap::{
    ArgGroup, Args, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};

use crate::{
    cluster::Connection,
    output::{Format, ListFormat},
};

pub mod aws;
pub mod create;
mod examples;
pub mod import;
mod values;

use create::Create;
use import::Import;
use values::role_arn;
pub use values::{CompletionTarget, Document, ExportFormat, PolicyFormat};

const EXIT_CODES: &str = "\
Exit codes: 0, all is well; 1, it could not be done or not be looked at in full; 2, something is not ready, or verify \
found a difference; 64, wrong flags or arguments.";

/// Looks after DataKeys: creates, imports, shows, verifies, exports, rotates and keeps them, and prints the policies that they need.
///
/// A DataKey is a data key of AWS KMS in its wrapped form. No plaintext key is ever printed.
#[derive(Debug, Parser)]
#[command(name = "kubectl-datakey", bin_name = "kubectl datakey", version, max_term_width = 120)]
#[command(after_help = EXIT_CODES)]
pub struct Cli {
    /// Which cluster and namespace.
    #[command(flatten)]
    pub connection: Connection,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The error with the nearest command alone, where clap suggests several.
pub fn with_nearest(mut error: clap::Error) -> clap::Error {
    // clap sorts them, and the nearest one is the last.
    if let Some(ContextValue::Strings(near)) = error.get(ContextKind::SuggestedSubcommand)
        && let Some(nearest) = near.last().cloned()
    {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![nearest]));
    }
    error
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the manifest of a DataKey, made from the parameters of aws kms generate-data-key-without-plaintext; with --apply
    /// apply it and wait until it is Ready.
    Create(Create),
    /// Print a DataKey for Git that pins an existing wrapped data key, after AWS KMS unwrapped it; with --from-csv or
    /// --from-folder many at once.
    Import(Import),
    /// List DataKeys.
    #[command(visible_alias = "ls")]
    #[command(after_help = examples::LIST)]
    List(List),
    /// Show the state of a DataKey: why it is not Ready, since when, what to do; its versions, its Secret, its events.
    ///
    /// Without a name it shows every DataKey of the namespace that is not Ready or whose Secret is not as it
    /// should be. Exit code 2 says that there is one.
    #[command(after_help = examples::STATUS)]
    Status(Status),
    /// Print a wrapped data key and what is needed to unwrap it: never the plaintext.
    #[command(after_help = examples::EXPORT)]
    Export(Export),
    /// Compare Secrets with what their DataKeys record; with --decrypt also ask AWS KMS to unwrap them.
    ///
    /// Without a name it verifies every DataKey of the namespace. Exit code 2 says that something differs.
    #[command(after_help = examples::VERIFY)]
    Verify(Verify),
    /// Have a new data key issued, by raising spec.version to the next free number. Earlier ones stay.
    #[command(after_help = examples::ROTATE)]
    Rotate(Rotate),
    /// Have DataKeys that are not Ready tried at once, for example after a fix in AWS. Each is tried at most once a minute.
    ///
    /// After a failure the operator waits before the next try, up to ten minutes. This sets the annotation
    /// datakey.dev/retry-at, which ends the wait. A DataKey that is Ready stays as it is.
    #[command(after_help = examples::RETRY)]
    Retry(Retry),
    /// Keep the Secret of a DataKey under deletionPolicy Delete: create the DataKey again under Retain, with the same data
    /// keys and the same Secret.
    ///
    /// deletionPolicy is fixed once a version is issued. So the DataKey is saved in a file with everything that was issued
    /// as spec.wrappedKeys, deleted without its Secret (--cascade=orphan), and created from that file. AWS KMS is not
    /// called. After an interruption, run the same command again, or kubectl create -f FILE.
    #[command(after_help = examples::KEEP)]
    Keep(Keep),
    /// Check the definition, the operator, its access to AWS KMS, and your rights. Exit code 2 says that something is not as it
    /// should be.
    #[command(after_help = examples::CHECK)]
    Check(Check),
    /// List Secrets with wrapped data keys that were kept when their DataKey was deleted.
    #[command(after_help = examples::ORPHANS)]
    Orphans(Orphans),
    /// Print the IAM and key policies that a DataKey needs, for the operator and for the workload.
    #[command(after_help = examples::POLICY)]
    Policy(Policy),
    /// Print a completion script for a shell, or for kubectl itself.
    ///
    /// "kubectl" prints the script by which kubectl completes "kubectl datakey", in every shell that kubectl's own
    /// completion is set up for: save it as kubectl_complete-datakey, executable, on the PATH. The others complete
    /// "kubectl-datakey".
    #[command(after_help = examples::COMPLETION)]
    Completion {
        /// The shell, or kubectl.
        shell: CompletionTarget,
    },
    /// Print the versions of the plugin, the API and the operator.
    #[command(after_help = examples::VERSION)]
    Version(Version),
    /// What kubectl_complete-datakey calls.
    #[command(name = "__complete", hide = true, disable_help_flag = true)]
    Complete {
        /// The arguments on the command line; the last one is completed.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// Flags of `list`.
#[derive(Debug, Args)]
pub struct List {
    /// DataKeys of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// DataKeys with these labels, as for kubectl get.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// How to print it.
    #[arg(short, long, default_value = "table")]
    pub output: ListFormat,
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// The DataKey; without it all.
    pub name: Option<String>,

    /// DataKeys of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "name")]
    pub all_namespaces: bool,

    /// How to print it. Without a name json and yaml have every DataKey, the ready ones too.
    #[arg(short, long, default_value = "table")]
    pub output: Format,
}

/// Flags of `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The DataKey.
    pub name: String,

    /// In what form.
    #[arg(short, long, default_value = "manifest")]
    pub output: ExportFormat,

    /// Which version; without it the one that the Secret's plain entries hold.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pub version: Option<i32>,

    /// Print the DataKey itself for Git, as YAML, with everything that was issued as spec.wrappedKeys: a user who applies
    /// it gets the same data keys again, in a new cluster too.
    #[arg(long, conflicts_with_all = ["output", "version"])]
    pub pin: bool,

    /// Write to this file instead of standard output. One that is there is not overwritten.
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
}

/// Flags of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The DataKey; without it all.
    pub name: Option<String>,

    /// DataKeys of all namespaces.
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
    /// The DataKey.
    pub name: String,

    /// Let the API server check the change and don't keep it.
    #[arg(long, conflicts_with_all = ["patch", "wait"])]
    pub dry_run: bool,

    /// Print the change for Git, as a merge patch in YAML, and change nothing.
    #[arg(long, conflicts_with = "wait")]
    pub patch: bool,

    /// Rotate although the DataKey is not Ready.
    #[arg(long)]
    pub force: bool,

    /// Wait until the DataKey is Ready with the new version.
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
    /// The DataKey.
    #[arg(group = "which")]
    pub name: Option<String>,

    /// DataKeys with these labels, as for kubectl get.
    #[arg(short = 'l', long, value_name = "SELECTOR", group = "which", conflicts_with = "name")]
    pub selector: Option<String>,

    /// DataKeys of all namespaces.
    #[arg(short = 'A', long, group = "which", conflicts_with = "name")]
    pub all_namespaces: bool,

    /// Wait until the DataKeys are Ready.
    #[arg(long)]
    pub wait: bool,

    /// How long to wait.
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration, value_name = "DURATION", requires = "wait")]
    pub timeout: Duration,
}

/// Flags of `keep`.
#[derive(Debug, Args)]
pub struct Keep {
    /// The DataKey.
    pub name: String,

    /// The file in which the DataKey is saved before it is deleted; without it datakey-NAMESPACE-NAME.yaml in the current
    /// directory. A file that an earlier run left is used, no other one is overwritten.
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,

    /// Print what would be saved and created, have the API server check it, and change nothing.
    #[arg(long, conflicts_with_all = ["to", "yes"])]
    pub dry_run: bool,

    /// Do not ask before the DataKey is deleted.
    #[arg(short, long)]
    pub yes: bool,

    /// How long to wait until the DataKey is deleted, created and Ready again.
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Your rights in all namespaces, not in one.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// The namespace of the operator; without it all, or datakey-system if you may not look in all.
    #[arg(long, value_name = "NAMESPACE")]
    pub operator_namespace: Option<String>,

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
pub struct Policy {
    /// The DataKey.
    pub name: String,

    /// The workload's IAM role, for the key policy.
    #[arg(long, value_parser = role_arn, value_name = "ARN")]
    pub role_arn: Option<String>,

    /// The operator's IAM role, for the key policy.
    #[arg(long, value_parser = role_arn, value_name = "ARN")]
    pub operator_role_arn: Option<String>,

    /// Only one of the documents, to be copied as it is.
    #[arg(long, value_name = "DOCUMENT")]
    pub only: Option<Document>,

    /// How to print it.
    #[arg(short, long, default_value = "json")]
    pub output: PolicyFormat,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["kubectl-datakey"], words].concat())
    }

    #[test]
    fn every_flag_and_argument_has_help() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn near_misses_suggest_the_nearest_command() {
        for (typed, meant) in [("statu", "status"), ("verfy", "verify"), ("lsit", "list"), ("rotat", "rotate")] {
            let error = with_nearest(parse(&[typed]).unwrap_err()).to_string();
            assert!(error.contains(&format!("a similar subcommand exists: '{meant}'")), "{error}");
        }
        let error = parse(&["list", "--nmespace", "shop"]).unwrap_err().to_string();
        assert!(error.contains("--namespace"), "{error}");
    }

    #[test]
    fn every_command_has_examples_that_work() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default().replace("\\\n", " ");
            let examples: Vec<_> =
                help.lines().filter_map(|line| line.trim().strip_prefix("kubectl datakey ")).collect();
            assert!(!examples.is_empty(), "{}", command.get_name());
            for example in examples {
                let words: Vec<_> = example.split_whitespace().take_while(|word| !["|", ">"].contains(word)).collect();
                assert_eq!(words[0], command.get_name());
                // The files are those of the reader.
                if let Err(error) = parse(&words) {
                    assert!(
                        example.contains("file://") && error.to_string().contains("can't read"),
                        "{example}: {error}"
                    );
                }
            }
        }
    }

    #[test]
    fn cluster_flags_may_precede_or_follow_the_command() {
        for words in [["-n", "shop", "--context", "c", "list"], ["list", "-n", "shop", "--context", "c"]] {
            let cli = parse(&words).unwrap();
            assert_eq!(cli.connection.namespace.as_deref(), Some("shop"));
            assert_eq!(cli.connection.context.as_deref(), Some("c"));
        }
    }

    #[test]
    fn wrong_and_conflicting_arguments_are_refused() {
        for wrong in [
            &["status", "orders", "-A"][..],
            &["verify", "orders", "-A"],
            &["export", "orders", "--pin", "-o", "json"],
            &["export", "orders", "--pin", "--version", "1"],
            &["export", "orders", "--version", "0"],
            &["rotate", "orders", "--patch", "--wait"],
            &["rotate", "orders", "--dry-run", "--patch"],
            &["rotate", "orders", "--timeout", "1m"],
            &["retry"],
            &["retry", "--wait"],
            &["retry", "orders", "-A"],
            &["retry", "orders", "-l", "team=shop"],
            &["retry", "orders", "--timeout", "1m"],
            &["keep"],
            &["keep", "orders", "--dry-run", "--yes"],
            &["policy", "orders", "--role-arn", "arn:aws:iam::1111:role/x"],
            &["policy", "orders", "--role-arn", "orders"],
            &["export"],
            &["list", "-o", "xml"],
            &[],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
