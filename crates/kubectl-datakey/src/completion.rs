//! Completion: the scripts of shells, and kubectl's own way to complete a plugin.
//!
//! kubectl completes `kubectl datakey ...` by calling an executable `kubectl_complete-datakey` with the words of the
//! command line, the last of which is to be completed. It prints the candidates line by line, each with a tab and a
//! text, and a directive at the end (Kubernetes enhancement proposal 2379; cobra's "shell completions").

use clap::{Arg, Command, CommandFactory, builder::StyledStr};
use clap_complete::generate;

use crate::{
    cli::{Cli, Target},
    cluster::{Cluster, Connection, FetchedKey},
    output::Output,
};

/// Cobra's directives.
const FILES: &str = ":0\n";
const NO_FILES: &str = ":4\n";

/// What kubectl calls.
const KUBECTL_SCRIPT: &str = "#!/bin/sh\nexec kubectl-datakey __complete \"$@\"\n";

/// The script for a shell, or for kubectl.
pub fn script(target: Target) -> Output {
    let shell = match target {
        Target::Bash => clap_complete::Shell::Bash,
        Target::Elvish => clap_complete::Shell::Elvish,
        Target::Fish => clap_complete::Shell::Fish,
        Target::PowerShell => clap_complete::Shell::PowerShell,
        Target::Zsh => clap_complete::Shell::Zsh,
        Target::Kubectl => return Output::text(KUBECTL_SCRIPT),
    };
    let mut out = Vec::new();
    // Shells know the plugin by its file.
    generate(shell, &mut Cli::command().bin_name("kubectl-datakey"), "kubectl-datakey", &mut out);
    Output { out, ..Output::default() }
}

/// The candidates for the last word. Whatever fails, there are none: nobody wants errors while typing.
pub async fn complete(words: &[String]) -> Output {
    let (prefix, before) = split(words);
    let cli = Cli::command();
    let line = Line::read(&cli, before);
    let found = match line.candidates(&cli, prefix) {
        Candidates::Words(found) => found,
        Candidates::Files => return Output::text(FILES),
        Candidates::DataKeys => data_keys(&line.connection).await,
    };
    let fitting = found.into_iter().filter(|candidate| candidate.starts_with(prefix));
    Output::text(fitting.map(|candidate| candidate + "\n").collect::<String>() + NO_FILES)
}

async fn data_keys(connection: &Connection) -> Vec<String> {
    let Ok(cluster) = Cluster::connect(connection).await else {
        return Vec::new();
    };
    let found = cluster.data_keys(false).await.unwrap_or_default();
    found.keys.iter().map(FetchedKey::name).collect()
}

/// The word to be completed, and those before it.
fn split(words: &[String]) -> (&str, &[String]) {
    words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before))
}

/// What the words before the last one come to.
struct Line<'a> {
    command: &'a Command,
    /// How many arguments the command has so far.
    arguments: usize,
    /// The flag whose value is next.
    waiting: Option<&'a Arg>,
    connection: Connection,
}

#[derive(Debug, PartialEq, Eq)]
enum Candidates {
    Words(Vec<String>),
    Files,
    DataKeys,
}

// === impl Line ===

impl<'a> Line<'a> {
    fn read(cli: &'a Command, words: &[String]) -> Self {
        let mut line = Self { command: cli, arguments: 0, waiting: None, connection: Connection::default() };
        for word in words {
            if let Some(flag) = line.waiting.take() {
                line.set(flag, word);
            } else if let Some(flag) = word.strip_prefix('-') {
                let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
                match (flag_of(cli, line.command, name), value) {
                    (Some(flag), Some(value)) => line.set(flag, value),
                    (flag, _) => line.waiting = flag,
                }
            } else if let Some(found) = line.command.find_subcommand(word) {
                line.command = found;
            } else {
                line.arguments += 1;
            }
        }
        line
    }

    /// Keeps the flags that say which cluster.
    fn set(&mut self, flag: &Arg, value: &str) {
        match flag.get_id().as_str() {
            "kubeconfig" => self.connection.kubeconfig = Some(value.into()),
            "context" => self.connection.context = Some(value.to_owned()),
            "namespace" => self.connection.namespace = Some(value.to_owned()),
            _ => {}
        }
    }

    fn candidates(&self, cli: &Command, prefix: &str) -> Candidates {
        if let Some(flag) = self.waiting {
            let is_file = ["kubeconfig", "to"].contains(&flag.get_id().as_str());
            return if is_file { Candidates::Files } else { Candidates::Words(values(flag)) };
        }
        if prefix.starts_with('-') {
            return Candidates::Words(flags(cli, self.command));
        }
        if self.command.has_subcommands() {
            let visible = self.command.get_subcommands().filter(|found| !found.is_hide_set());
            return Candidates::Words(visible.map(|found| described(found.get_name(), found.get_about())).collect());
        }
        match self.command.get_positionals().nth(self.arguments) {
            Some(argument) if argument.get_id() == "name" => Candidates::DataKeys,
            Some(argument) => Candidates::Words(values(argument)),
            None => Candidates::Words(Vec::new()),
        }
    }
}

/// The flag of a word without its first dash, if a value follows it.
fn flag_of<'a>(cli: &'a Command, command: &'a Command, word: &str) -> Option<&'a Arg> {
    let long = word.strip_prefix('-');
    // Flags for every command stand with the command line's own.
    let known = command.get_arguments().chain(cli.get_arguments());
    let found = known.into_iter().find(|flag| match long {
        Some(long) => flag.get_long() == Some(long),
        None => flag.get_short().is_some_and(|short| word == short.to_string()),
    });
    found.filter(|flag| flag.get_action().takes_values())
}

fn flags(cli: &Command, command: &Command) -> Vec<String> {
    let mut all: Vec<_> = command.get_arguments().collect();
    if command.get_name() != cli.get_name() {
        all.extend(cli.get_arguments());
    }
    all.into_iter().filter_map(|flag| Some(described(&format!("--{}", flag.get_long()?), flag.get_help()))).collect()
}

fn values(argument: &Arg) -> Vec<String> {
    argument.get_possible_values().iter().map(|value| described(value.get_name(), value.get_help())).collect()
}

/// A candidate and the first line of its text.
fn described(candidate: &str, text: Option<&StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.lines().next().map_or_else(|| candidate.to_owned(), |line| format!("{candidate}\t{line}"))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    fn found(line: &str) -> Vec<String> {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let (prefix, before) = split(&words);
        let cli = Cli::command();
        match Line::read(&cli, before).candidates(&cli, prefix) {
            Candidates::Words(found) => {
                let words = found.iter().map(|word| word.split('\t').next().unwrap_or_default().to_owned());
                words.filter(|word| word.starts_with(prefix)).collect()
            }
            Candidates::Files => vec!["FILES".to_owned()],
            Candidates::DataKeys => vec!["DATAKEYS".to_owned()],
        }
    }

    #[test]
    fn commands_flags_values_and_data_keys_are_completed_where_they_stand() {
        assert_eq!(found("st"), ["status"]);
        assert_eq!(found("").len(), 8, "the hidden one is not among them");
        assert_eq!(found("status or"), ["DATAKEYS"]);
        assert_eq!(found("status orders "), [""; 0]);
        assert_eq!(found("-n shop export "), ["DATAKEYS"]);
        assert_eq!(found("export orders -o j"), ["json"]);
        assert_eq!(found("export -o json "), ["DATAKEYS"]);
        assert_eq!(found("export --output=json "), ["DATAKEYS"]);
        assert_eq!(found("export orders --to "), ["FILES"]);
        assert_eq!(found("rotate orders --dr"), ["--dry-run"]);
        assert_eq!(found("keep "), ["DATAKEYS"]);
        assert_eq!(found("keep orders --to "), ["FILES"]);
        assert_eq!(found("rotate orders --name"), ["--namespace"]);
        assert_eq!(found("completion z"), ["zsh"]);
        assert_eq!(found("list "), [""; 0]);
    }

    #[test]
    fn the_cluster_is_the_one_of_the_flags_that_are_typed_so_far() {
        let words = ["status", "-n", "shop", "--context=c", "--output", "json"].map(str::to_owned);
        let connection = Line::read(&Cli::command(), &words).connection;
        assert_eq!((connection.namespace.as_deref(), connection.context.as_deref()), (Some("shop"), Some("c")));
    }

    #[test]
    fn there_is_a_script_for_every_shell() {
        for target in Target::value_variants() {
            assert!(String::from_utf8(script(*target).out).unwrap().contains("kubectl-datakey"), "{target:?}");
        }
    }
}
