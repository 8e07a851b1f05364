//! The commands and their flags. clap prints the doc comments as help.

use clap::{
    CommandFactory, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};

use datakey::text::clause;

use crate::cluster::Connection;

pub mod aws;
pub mod create;
mod examples;
mod flags;
pub mod import;
pub mod inject;
pub mod public_key;
pub mod rewrap;
mod values;

use create::Create;
pub use flags::{Check, Classes, Export, Keep, KmsKeys, List, Orphans, Policy, Retry, Rotate, Status, Verify, Version};
use import::Import;
use inject::Inject;
use public_key::PublicKey;
use rewrap::Rewrap;
pub use values::{CompletionTarget, Document, ExportFormat, PolicyFormat};

const EXIT_CODES: &str = "\
Exit codes: 0, all is well; 1, it could not be done or not be looked at in full; 2, something is not ready, or verify \
found a difference; 64, wrong flags or arguments.";

/// Looks after DataKeys and DataKeyPairs: creates, imports, shows, verifies, exports, rotates and keeps them, and prints the
/// policies that they need.
///
/// A DataKey is a data key of AWS KMS in its wrapped form, a DataKeyPair is a key pair whose private key is wrapped. Commands take
/// their names as NAME, datakey/NAME or datakeypair/NAME. No plaintext key is ever printed.
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

/// The error with tips: the nearest command alone, where clap suggests several, and what to do about an option of the AWS CLI that
/// has no use here.
pub fn with_tips(mut error: clap::Error) -> clap::Error {
    escape_values(&mut error);
    // clap sorts them, and the nearest one is the last.
    if let Some(ContextValue::Strings(near)) = error.get(ContextKind::SuggestedSubcommand)
        && let Some(nearest) = near.last().cloned()
    {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![nearest]));
    }
    if let Some(tip) = tip_about_aws(&error) {
        // Another error, because the tips of clap, such as a flag of a similar name, would stay in this one.
        let mut other = clap::Error::new(error.kind()).with_cmd(&Cli::command());
        for kind in [ContextKind::InvalidArg, ContextKind::Usage] {
            if let Some(known) = error.get(kind) {
                other.insert(kind, known.clone());
            }
        }
        other.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        return other;
    }
    error
}

/// Shows control characters of the words that the error repeats as escape sequences: a word can be copied from what a tenant wrote.
fn escape_values(error: &mut clap::Error) {
    let texts = error.context().filter_map(|(kind, value)| match value {
        ContextValue::String(text) => Some((kind, ContextValue::String(clause(text)))),
        ContextValue::Strings(texts) => {
            Some((kind, ContextValue::Strings(texts.iter().map(|text| clause(text)).collect())))
        }
        _ => None,
    });
    for (kind, escaped) in texts.collect::<Vec<_>>() {
        error.insert(kind, escaped);
    }
}

/// A tip where an option of the AWS CLI was given that has no use here.
fn tip_about_aws(error: &clap::Error) -> Option<String> {
    let usage = error.get(ContextKind::Usage)?.to_string();
    let command = usage.split_whitespace().nth(3).filter(|command| ["create", "import"].contains(command))?;
    match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(option) if aws::WITHOUT_USE.contains(&option.as_str()) => {
            Some(format!("{option} is an option of the AWS CLI that {command} does not have: leave it out"))
        }
        _ => None,
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the manifest of a DataKey or DataKeyPair, made from the parameters of aws kms generate-data-key-without-plaintext or
    /// generate-data-key-pair-without-plaintext; with --apply apply it and wait until it is Ready.
    Create(Create),
    /// Print a DataKey for Git that pins an existing wrapped data key, after AWS KMS unwrapped it; with --apply apply it and wait
    /// until it is Ready; with --from-csv or --from-folder many at once.
    Import(Import),
    /// List DataKeys and DataKeyPairs.
    #[command(visible_alias = "ls")]
    #[command(after_help = examples::LIST)]
    List(List),
    /// Show the state of a DataKey or DataKeyPair: why it is not Ready, since when, what to do; its versions, its Secret, its
    /// events.
    ///
    /// Without a name it shows every one of the namespace that is not Ready or whose Secret is not as it
    /// should be. Exit code 2 says that there is one.
    #[command(after_help = examples::STATUS)]
    Status(Status),
    /// Show which DataKeyClasses the namespace may use, what they allow, and why not.
    ///
    /// With --for it shows which of them allow an object as it is, and what they refuse. The plugin judges as the operator does.
    #[command(after_help = examples::CLASSES)]
    Classes(Classes),
    /// Print a wrapped data key or key pair and what is needed to unwrap it: never the plaintext.
    #[command(after_help = examples::EXPORT)]
    Export(Export),
    /// Print the public key of a DataKeyPair, for programs that verify its signatures or encrypt to it.
    ///
    /// The key comes from the record in the status. No Secret is read, and AWS KMS is not called.
    #[command(after_help = public_key::EXAMPLES)]
    PublicKey(PublicKey),
    /// Print a manifest with datakey-unwrap added to its pods, so that a container gets the plaintext of a data key or key pair.
    ///
    /// What the helper may trust comes from the record in the status: the KMS keys with their encryption contexts. Nothing in the
    /// cluster changes, and AWS KMS is not called. All else of the manifest stays as it is written, with its comments. Injecting again
    /// replaces what was added.
    #[command(after_help = inject::EXAMPLES)]
    Inject(Inject),
    /// Compare Secrets with what their DataKeys and DataKeyPairs record; with --decrypt also ask AWS KMS to unwrap them.
    ///
    /// Without a name it verifies all of the namespace. Exit code 2 says that something differs.
    #[command(after_help = examples::VERIFY)]
    Verify(Verify),
    /// Have a new data key or key pair issued, by raising spec.version to the next free number. Earlier ones stay.
    #[command(after_help = examples::ROTATE)]
    Rotate(Rotate),
    /// Have DataKeys and DataKeyPairs that are not Ready tried at once, for example after a fix in AWS. Each is tried at most once a minute.
    ///
    /// After a failure the operator waits before the next try, up to ten minutes. This sets the annotation
    /// datakey.dev/retry-at, which ends the wait. One that is Ready stays as it is.
    #[command(after_help = examples::RETRY)]
    Retry(Retry),
    /// Move data keys and key pairs to another KMS key, account or encryption context, with the same plaintexts: AWS KMS wraps them
    /// once more (ReEncrypt), under your own AWS credentials. Prints the plan, unless --output or --apply is given.
    ///
    /// Each recorded version gets a new number, as an entry of spec.wrappedKeys, and stays under its old one, too. Then a new data key
    /// or key pair is issued under the new KMS key and becomes current; --no-rotate leaves that out. What is moved already is not
    /// moved again, so an interrupted command can be repeated. To undo a move, move back: a version that is there already is used.
    Rewrap(Rewrap),
    /// Keep the Secret of a DataKey or DataKeyPair under deletionPolicy Delete: create it again under Retain, with the same data
    /// keys or key pairs and the same Secret.
    ///
    /// deletionPolicy is fixed once a version is issued. So the object is saved in a file with everything that was issued
    /// as spec.wrappedKeys, deleted without its Secret (--cascade=orphan), and created from that file. AWS KMS is not
    /// called. After an interruption, run the same command again, or kubectl create -f FILE.
    #[command(after_help = examples::KEEP)]
    Keep(Keep),
    /// Check the definitions, the operator, its access to AWS KMS, and your rights. Exit code 2 says that something is not as it
    /// should be.
    #[command(after_help = examples::CHECK)]
    Check(Check),
    /// List the KMS keys that wrapped the recorded data keys and key pairs, how many of them, and which AWS KMS does not use any more.
    /// Exit code 2 says that there is such a KMS key.
    #[command(after_help = examples::KMS_KEYS)]
    KmsKeys(KmsKeys),
    /// List Secrets with data keys or key pairs that were kept when their DataKey or DataKeyPair was deleted.
    #[command(after_help = examples::ORPHANS)]
    Orphans(Orphans),
    /// Print the IAM and key policies that a DataKey or DataKeyPair needs, for the operator and for the workload; with --class those
    /// that a DataKeyClass needs, with the trust policy of its AWS role; with --rewrap those for a move to another KMS key.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::ARN;

    const ROLE: &str = "arn:aws:iam::111122223333:role/x";

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
        for (typed, meant) in
            [("statu", "status"), ("verfy", "verify"), ("lsit", "list"), ("rotat", "rotate"), ("clases", "classes")]
        {
            let error = with_tips(parse(&[typed]).unwrap_err()).to_string();
            assert!(error.contains(&format!("a similar subcommand exists: '{meant}'")), "{error}");
        }
        for (line, near) in [
            ("list --nmespace shop", "'--namespace'"),
            ("create k --keyid alias/a", "'--key-id'"),
            ("import --from-cvs x", "'--from-csv'"),
            ("list -o jsn", "'json'"),
            ("create --generate-cli-skeleton yaml-inptu", "'yaml-input'"),
            ("policy orders --only wrkload", "'workload'"),
            ("create k --clas-name shop", "'--class-name'"),
        ] {
            let error = parse(&line.split(' ').collect::<Vec<_>>()).unwrap_err().to_string();
            assert!(error.contains("a similar ") && error.contains(near), "{error}");
        }
    }

    #[test]
    fn control_characters_of_a_word_are_escaped() {
        for words in [
            &["status", "a\u{1b}[2J\u{202e}"][..],
            &["list", "--lab\u{202e}"],
            &["st\u{202e}"],
            &["list", "-o", "\u{202e}"],
        ] {
            let error = with_tips(parse(words).unwrap_err()).to_string();
            let is_plain = |character: char| character == '\n' || datakey::text::is_printable(character);
            assert!(error.chars().all(is_plain) && error.contains(r"\u{202e}"), "{error:?}");
        }
    }

    #[test]
    fn option_of_the_aws_cli_without_use_is_named_as_such() {
        for option in aws::WITHOUT_USE {
            let parsed = parse(&["create", "k", "--key-id=alias/a", "--key-spec=AES_256", option, "x"]);
            let error = with_tips(parsed.unwrap_err()).to_string();
            let tip = format!("tip: {option} is an option of the AWS CLI that create does not have");
            assert!(error.contains(&tip) && error.matches("tip:").count() == 1, "{error}");
        }
        let import = with_tips(parse(&["import", "k", "--query", "x"]).unwrap_err()).to_string();
        assert!(import.contains("that import does not have"), "{import}");
    }

    #[test]
    fn every_command_has_examples_that_work() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            // A terminal wraps longer lines, and what is copied from it does not run.
            let long: Vec<_> = help.lines().filter(|line| line.chars().count() > 80).collect();
            assert!(long.is_empty(), "{}: {long:?}", command.get_name());
            let help = help.replace("\\\n", " ");
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
            &["classes", "Shop"],
            &["classes", "datakey/shop"],
            &["classes", "--for", "secret/orders"],
            &["create", "k", "--class-name", "a/b"],
            &["public-key"],
            &["public-key", "tokens", "--versions", "0"],
            &["public-key", "tokens", "-o", "json"],
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
            &["policy"],
            &["policy", "orders", "--class", "shop"],
            &["policy", "--class", "Shop"],
            &["policy", "--class", "shop", "--only", "assumeRole"],
            &["policy", "orders", "--rewrap"],
            &["policy", "orders", "--rewrap", "--to-key-id", "alias/orders"],
            &["policy", "orders", "--to-key-id", ARN],
            &["policy", "orders", "--to-context", "a=b"],
            &["policy", "orders", "--rewrap-role-arn", ROLE],
            &["policy", "--rewrap", "--to-key-id", ARN],
            &["policy", "--class", "shop", "--rewrap", "--to-key-id", ARN],
            &["policy", "orders", "--rewrap", "--to-key-id", ARN, "--to-context", "a"],
            &["policy", "orders", "--rewrap", "--to-key-id", ARN, "--role-arn", ROLE],
            &["policy", "orders", "--rewrap", "--to-key-id", ARN, "--operator-role-arn", ROLE],
            &["export"],
            &["list", "-o", "xml"],
            &["import", "k", "--apply", "--from-csv=x", "--to=y"],
            &["import", "--apply", "--from-csv=x"],
            &["import", "k", "--timeout=1m"],
            &[],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn policies_of_a_rewrap_need_its_destination_alone() {
        let destination = ["policy", "orders", "--rewrap", "--to-key-id", ARN];
        for more in [&[][..], &["--to-context", "{}"], &["--rewrap-role-arn", ROLE, "--only", "rewrap"]] {
            assert!(parse(&[&destination[..], more].concat()).is_ok(), "{more:?}");
        }
    }
}
