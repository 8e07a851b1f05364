//! Completion scripts for shells, and the candidates for kubectl.
//!
//! kubectl completes `kubectl datakey ...` by running an executable `kubectl_complete-datakey` with the arguments of the
//! command line; the last one is to be completed. The executable prints one candidate a line, with a tab and a
//! description, and then a directive (Kubernetes enhancement proposal 2379; cobra, "Shell completions").
//!
//! clap finds the candidates. This module adds what clap does not know, which is in the cluster or in the kubeconfig, and prints in
//! the format of kubectl.

use std::{collections::BTreeSet, ffi::OsStr, iter::once};

use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches, ValueHint};
use clap_complete::{
    engine::{self, ArgValueCompleter, CompletionCandidate},
    generate,
};

use datakey::api::{DataKeyPair, KeyKind as _};

use crate::{
    cli::{Cli, CompletionTarget},
    cluster::{Cluster, Connection, FetchedKey},
    output::{CommandError, Output},
    reference::Reference,
};

/// The directive of cobra by which the shell completes file names.
const FILES: &str = ":0\n";

/// The directive of cobra by which the shell offers the candidates and no file names.
const NO_FILES: &str = ":4\n";

/// The same, and the shell adds no blank: the word goes on.
const NO_FILES_NO_BLANK: &str = ":6\n";

/// The script `kubectl_complete-datakey`.
const KUBECTL_SCRIPT: &str = "#!/bin/sh\nexec kubectl-datakey __complete \"$@\"\n";

/// The name of the plugin's executable. Shells complete it by this name.
const EXECUTABLE: &str = "kubectl-datakey";

/// The ID of the candidate that clap returns in place of all file names.
const FILES_ID: &str = "files";

/// What can complete a word.
#[derive(Debug, PartialEq, Eq)]
enum Candidates {
    /// Candidates, each with its description if it has one.
    Words(Vec<String>),
    Files,
    /// What the cluster or the kubeconfig has.
    Found(Source),
}

/// Where candidates are that clap does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    DataKeys,
    KeyPairs,
    Classes,
    Labels,
    SecretEntries,
    ConfigMapEntries,
    Namespaces,
    Contexts,
}

/// Each source, the ID of the candidate that clap returns in its place, and the arguments that it completes.
const SOURCES: [(Source, &str, &[&str]); 8] = [
    (Source::DataKeys, "data-keys", &["name", "for_object"]),
    (Source::KeyPairs, "key-pairs", &["key_pair"]),
    (Source::Classes, "classes", &["class", "class_name"]),
    (Source::Labels, "labels", &["selector"]),
    (Source::SecretEntries, "secret-entries", &["from_secret"]),
    (Source::ConfigMapEntries, "config-map-entries", &["from_configmap"]),
    (Source::Namespaces, "namespaces", &["namespace", "operator_namespace"]),
    (Source::Contexts, "contexts", &["context"]),
];

/// Returns the completion script for a shell or for kubectl.
pub fn script(target: CompletionTarget) -> Output {
    let shell = match target {
        CompletionTarget::Bash => clap_complete::Shell::Bash,
        CompletionTarget::Elvish => clap_complete::Shell::Elvish,
        CompletionTarget::Fish => clap_complete::Shell::Fish,
        CompletionTarget::PowerShell => clap_complete::Shell::PowerShell,
        CompletionTarget::Zsh => clap_complete::Shell::Zsh,
        CompletionTarget::Kubectl => return Output::text(KUBECTL_SCRIPT),
    };
    let mut out = Vec::new();
    generate(shell, &mut Cli::command().bin_name(EXECUTABLE), EXECUTABLE, &mut out);
    Output { out, ..Output::default() }
}

/// Returns the candidates for the last word, in the format of kubectl. After an error there are none, because an error
/// message would disturb the user's typing.
pub async fn complete(words: &[String]) -> Output {
    let (last, before) = split_last_word(words);
    let (found, directive) = match candidates(last, before) {
        Candidates::Words(found) => (found, NO_FILES),
        Candidates::Files => return Output::text(FILES),
        Candidates::Found(source) => {
            let last = value_of(last);
            let found = find(source, last, before).await.unwrap_or_default();
            let found: Vec<_> = found.into_iter().filter(|word| word.starts_with(last)).collect();
            let goes_on = !found.is_empty() && found.iter().all(|word| word.ends_with(['=', '/']));
            (found, if goes_on { NO_FILES_NO_BLANK } else { NO_FILES })
        }
    };
    Output::text(found.into_iter().map(|candidate| candidate + "\n").collect::<String>() + directive)
}

/// Returns the part of a word that is completed: after `--flag=`, the value.
fn value_of(last: &str) -> &str {
    last.split_once('=').filter(|_| last.starts_with('-')).map_or(last, |(_, value)| value)
}

async fn find(source: Source, last: &str, before: &[String]) -> Result<Vec<String>, CommandError> {
    let connection = connection(before);
    let cluster = || Cluster::connect(&connection);
    let listed = async || cluster().await?.all(in_all_namespaces(before)).await;
    Ok(match source {
        Source::DataKeys => names(last, &listed().await?.keys, FetchedKey::shown),
        Source::KeyPairs => names(last, &cluster().await?.of_kind(DataKeyPair::KIND).await?.keys, FetchedKey::name),
        Source::Classes => cluster().await?.class_names().await?,
        Source::Labels => {
            let listing = listed().await?;
            let labels = listing.keys.iter().flat_map(|fetched| fetched.key.metadata().labels.iter().flatten());
            selectors(last, labels.map(|(key, value)| (key.as_str(), value.as_str())))
        }
        Source::SecretEntries => {
            let cluster = cluster().await?;
            entries(last, cluster.secret_names().await, async |name| {
                cluster
                    .secret(&cluster.namespace, name)
                    .await
                    .ok()
                    .flatten()
                    .map(|secret| secret.data.unwrap_or_default().into_keys().collect())
            })
            .await
        }
        Source::ConfigMapEntries => {
            let cluster = cluster().await?;
            entries(last, cluster.config_map_names().await, async |name| cluster.config_map_entries(name).await.ok())
                .await
        }
        Source::Namespaces => cluster().await?.namespaces().await?,
        Source::Contexts => crate::cluster::contexts(&connection),
    })
}

/// The names of these objects: those of `DataKey`s alone and, once a kind is typed, those of that kind with it.
fn names(typed: &str, keys: &[FetchedKey], without_kind: impl Fn(&FetchedKey) -> String) -> Vec<String> {
    let names = |fetched: &FetchedKey| {
        let kind = typed.split_once('/').map(|(kind, _)| format!("{kind}/{}", fetched.name()));
        let is_meant = |name: &String| Reference::parse(name).is_ok_and(|read| read.kind == Some(fetched.kind()));
        kind.map_or_else(|| Some(without_kind(fetched)), |name| Some(name).filter(is_meant))
    };
    keys.iter().filter_map(names).collect()
}

/// Whether the words ask for the DataKeys of all namespaces.
fn in_all_namespaces(words: &[String]) -> bool {
    let is_set = |all: &ArgMatches| {
        let (_, of) = all.subcommand()?;
        of.try_get_one::<bool>("all_namespaces").ok()?.copied()
    };
    parse(words).as_ref().and_then(is_set).unwrap_or_default()
}

/// Completes the last requirement of a label selector: a key, or after an operator a value.
fn selectors<'a>(typed: &str, labels: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let done = typed.rfind(',').map_or(0, |comma| comma + 1);
    let (done, last) = typed.split_at(done);
    let found: BTreeSet<_> = match last.rfind('=') {
        Some(operator) => {
            let (with_operator, _) = last.split_at(operator + 1);
            let key = with_operator.trim_end_matches(['=', '!']);
            labels.filter(|label| label.0 == key).map(|(_, value)| format!("{done}{with_operator}{value}")).collect()
        }
        None => labels.map(|(key, _)| format!("{done}{key}=")).collect(),
    };
    found.into_iter().collect()
}

/// Completes `NAME/ENTRY`: a name or, after the slash, an entry.
async fn entries(
    typed: &str,
    names: Result<Vec<String>, CommandError>,
    of: impl AsyncFn(&str) -> Option<Vec<String>>,
) -> Vec<String> {
    match typed.split_once('/') {
        None => names.unwrap_or_default().into_iter().map(|name| name + "/").collect(),
        Some((name, _)) => {
            of(name).await.unwrap_or_default().into_iter().map(|entry| format!("{name}/{entry}")).collect()
        }
    }
}

/// Returns the word to be completed, and those before it.
fn split_last_word(words: &[String]) -> (&str, &[String]) {
    words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before))
}

/// Parses the words as far as clap understands them. `None` if they ask for help.
fn parse(words: &[String]) -> Option<ArgMatches> {
    let command = Cli::command().ignore_errors(true);
    command.try_get_matches_from(once(EXECUTABLE).chain(words.iter().map(String::as_str))).ok()
}

/// Returns the cluster that the words name so far.
fn connection(words: &[String]) -> Connection {
    parse(words).and_then(|matches| Connection::from_arg_matches(&matches).ok()).unwrap_or_default()
}

/// Returns what can complete the last word after the words before it.
fn candidates(last: &str, before: &[String]) -> Candidates {
    let before = from_command(before);
    // For a single dash clap would offer short flags, and a long one only for an argument without a short one.
    let typed = if last == "-" { "--" } else { last };
    let words = once(EXECUTABLE).chain(before.iter().map(String::as_str)).chain(once(typed));
    let found = engine::complete(&mut command(), words.map(Into::into).collect(), before.len() + 1, None);
    let mut found = found.unwrap_or_default();
    let has = |id: &str| found.iter().any(|candidate| candidate.get_id().is_some_and(|found| found == id));
    if has(FILES_ID) {
        return Candidates::Files;
    }
    if let Some((source, ..)) = SOURCES.into_iter().find(|(_, id, _)| has(id)) {
        return Candidates::Found(source);
    }
    // clap also offers flags for an empty word.
    found.retain(|candidate| last.starts_with('-') || !candidate.get_value().to_string_lossy().starts_with('-'));
    Candidates::Words(found.iter().map(|candidate| described(candidate, last)).collect())
}

/// Returns the words from the command on or, while there is none, a flag whose value may be next.
///
/// The words before the command are flags of the cluster and their values. clap's engine, unlike its parser, would
/// mistake a value such as the namespace `policy` for the command of that name.
fn from_command(words: &[String]) -> &[String] {
    let is_command = |&last: &usize| parse(&words[..=last]).is_some_and(|matches| matches.subcommand_name().is_some());
    let flag = || words.last().filter(|last| last.starts_with('-')).map(|_| words.len() - 1);
    &words[(0..words.len()).find(is_command).or_else(flag).unwrap_or(words.len())..]
}

/// Returns the command line with completers for file names and for what is in the cluster.
fn command() -> Command {
    let complete = |id: &'static str| {
        // A word with a dash is a flag, not a name.
        let candidate =
            move |word: &str| (!word.starts_with('-')).then(|| CompletionCandidate::new("").id(Some(id.into())));
        ArgValueCompleter::new(move |word: &OsStr| word.to_str().and_then(candidate).into_iter().collect())
    };
    let with_completer = move |arg: Arg| match arg.get_value_hint() {
        ValueHint::AnyPath => arg.add(complete(FILES_ID)),
        _ => match SOURCES.iter().find(|(.., args)| args.contains(&arg.get_id().as_str())) {
            Some((_, id, _)) => arg.add(complete(id)),
            None => arg,
        },
    };
    let command = Cli::command().disable_help_flag(true).disable_version_flag(true);
    command.mut_args(with_completer).mut_subcommands(move |command| command.mut_args(with_completer))
}

/// Returns a candidate with the first line of its description. For `--flag=value` kubectl's scripts expect the value
/// alone.
fn described(candidate: &CompletionCandidate, last: &str) -> String {
    let value = candidate.get_value().to_string_lossy();
    let value = match value.split_once('=') {
        Some((_, value)) if last.starts_with('-') => value,
        _ => &*value,
    };
    let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
    help.lines().next().map_or_else(|| value.to_owned(), |line| format!("{value}\t{line}"))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::fixtures::{pair, ready};

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    /// The candidates for the last word of a line, without their descriptions.
    fn found(line: &str) -> Vec<String> {
        let words = words(line);
        let (last, before) = split_last_word(&words);
        match candidates(last, before) {
            Candidates::Words(found) => {
                found.iter().map(|word| word.split('\t').next().unwrap_or_default().to_owned()).collect()
            }
            Candidates::Files => vec!["FILES".to_owned()],
            Candidates::Found(Source::DataKeys) => vec!["DATAKEYS".to_owned()],
            Candidates::Found(source) => vec![format!("{source:?}")],
        }
    }

    #[test]
    fn commands_are_completed() {
        assert_eq!(found("st"), ["status"]);
        assert_eq!(found("").len(), 20, "without the hidden one");
        assert_eq!(found("-n shop st"), ["status"]);
    }

    #[test]
    fn names_of_data_keys_are_completed() {
        for line in [
            "status or",
            "-n shop export ",
            "export -o json ",
            "export --output=json ",
            "keep ",
            "rotate --wait ",
            "classes --for ",
        ] {
            assert_eq!(found(line), ["DATAKEYS"], "{line}");
        }
        for line in ["status orders ", "list "] {
            assert_eq!(found(line), [""; 0], "{line}");
        }
    }

    #[test]
    fn kind_before_a_name_stays_as_it_is_typed() {
        let keys = [ready(&[1]), pair(&[1])];
        assert_eq!(names("", &keys, FetchedKey::shown), ["orders", "datakeypair/orders"]);
        assert_eq!(names("dkp/o", &keys, FetchedKey::shown), ["dkp/orders"]);
        assert_eq!(names("datakey/", &keys, FetchedKey::shown), ["datakey/orders"]);
        assert_eq!(names("t", &keys[1..], FetchedKey::name), ["orders"]);
        assert_eq!(names("datakeypair/", &keys[1..], FetchedKey::name), ["datakeypair/orders"]);
    }

    #[test]
    fn flags_are_completed() {
        assert_eq!(found("rotate orders --dr"), ["--dry-run"]);
        assert_eq!(found("rotate orders --name"), ["--namespace"]);
        assert_eq!(found("rotate --name"), ["--namespace"]);
        assert!(found("list -").iter().all(|flag| flag.starts_with("--")));
    }

    #[test]
    fn values_of_flags_and_arguments_are_completed() {
        for line in ["export orders -o j", "export orders -o=j", "export orders --output=j", "list -Ao j", "list -Ao=j"]
        {
            assert_eq!(found(line), ["json"], "{line}");
        }
        assert_eq!(found("completion z"), ["zsh"]);
    }

    #[test]
    fn values_in_the_cluster_are_completed() {
        for (line, source) in [
            ("list -l ", "Labels"),
            ("list -l team=s", "Labels"),
            ("retry --selector=team=s", "Labels"),
            ("import orders --from-secret ", "SecretEntries"),
            ("import orders --from-secret=old/k", "SecretEntries"),
            ("import orders --from-configmap old", "ConfigMapEntries"),
            ("public-key -o jwks to", "KeyPairs"),
            ("classes sh", "Classes"),
            ("classes shop ", "Classes"),
            ("create k --class-name ", "Classes"),
            ("create k --class-name=sh", "Classes"),
            ("list -n ", "Namespaces"),
            ("-n sh", "Namespaces"),
            ("check --operator-namespace ", "Namespaces"),
            ("status --context ", "Contexts"),
        ] {
            assert_eq!(found(line), [source], "{line}");
        }
        assert_eq!([value_of("--selector=a=b"), value_of("a=b"), value_of("--wait")], ["a=b", "a=b", "--wait"]);
    }

    #[test]
    fn last_requirement_of_a_selector_is_completed() {
        let labels = [("team", "shop"), ("team", "bank"), ("stage", "prod"), ("team", "shop")];
        for (typed, expected) in [
            ("", &["stage=", "team="][..]),
            ("te", &["stage=", "team="]),
            ("team=", &["team=bank", "team=shop"]),
            ("team==b", &["team==bank", "team==shop"]),
            ("team!=b", &["team!=bank", "team!=shop"]),
            ("stage=prod,team=s", &["stage=prod,team=bank", "stage=prod,team=shop"]),
            ("stage=prod,", &["stage=prod,stage=", "stage=prod,team="]),
            ("none=", &[]),
        ] {
            assert_eq!(selectors(typed, labels.into_iter()), expected, "{typed}");
        }
    }

    #[test]
    fn labels_are_those_of_all_namespaces_where_the_words_say_so() {
        for line in ["list -A", "list -A -l", "-n shop list --all-namespaces --selector", "list -Aojson -l"] {
            assert!(in_all_namespaces(&words(line)), "{line}");
        }
        for line in
            ["list -l", "list -lteam=A", "list -l A", "list -n A", "status orders -oA", "list -- -A", "export -A"]
        {
            assert!(!in_all_namespaces(&words(line)), "{line}");
        }
    }

    #[test]
    fn file_names_are_left_to_the_shell() {
        for line in ["export orders --to ", "keep orders --to ", "--kubeconfig ", "export orders --to=x"] {
            assert_eq!(found(line), ["FILES"], "{line}");
        }
    }

    #[test]
    fn names_of_commands_are_accepted_as_values() {
        assert_eq!(found("-n policy status "), ["DATAKEYS"]);
        assert_eq!(
            (found("policy "), found("policy --class ")),
            (vec!["DATAKEYS".to_owned()], vec!["Classes".to_owned()])
        );
        assert_eq!(found("--context list export orders -o j"), ["json"]);
        assert_eq!(found("-n status st"), ["status"]);
        assert_eq!(found("status list"), ["DATAKEYS"]);
    }

    #[test]
    fn first_line_of_the_help_is_the_description() {
        let Candidates::Words(found) = candidates("lis", &[]) else { panic!("no words") };
        assert_eq!(found, ["list\tList DataKeys and DataKeyPairs"]);
    }

    #[test]
    fn connection_has_the_flags_that_are_typed_so_far() {
        for line in ["status -n shop --context=c --output json", "-n shop --context c rotate orders --unknown"] {
            let connection = connection(&words(line));
            let names = (connection.namespace.as_deref(), connection.context.as_deref());
            assert_eq!(names, (Some("shop"), Some("c")), "{line}");
        }
    }

    #[test]
    fn each_shell_has_a_script() {
        for target in CompletionTarget::value_variants() {
            assert!(String::from_utf8(script(*target).out).unwrap().contains("kubectl-datakey"), "{target:?}");
        }
    }
}
