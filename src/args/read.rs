//! From arguments and variables to flags, or to one line about what is wrong. Pure, but for the variables that clap reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
};

use clap::{CommandFactory, Parser, error::ErrorKind};
use humantime::format_duration;

use super::{Cli, Command, RunArgs, usage, variables};

/// Why a command line is not run.
#[derive(Debug)]
pub enum Refusal {
    /// Help or the version was asked for, or no command was given.
    Help(Box<clap::Error>),
    /// A flag or a variable is wrong; what to write, on one line.
    Usage(String),
}

// === impl Cli ===

impl Cli {
    /// Reads the arguments and the variables of the process. clap reads the variables of flags itself.
    pub fn read(arguments: &[OsString], variables: &[(OsString, OsString)]) -> Result<Self, Refusal> {
        let command = Self::command();
        let run = command.find_subcommand("run").unwrap_or(&command);
        let mut cli = Self::try_parse_from(arguments).map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Refusal::Help(Box::new(error)),
            _ => Refusal::Usage(usage::line(&error, run, arguments, variables)),
        })?;
        if let Command::Run(flags) = &mut cli.command {
            let known: Vec<_> = run.get_arguments().filter_map(|flag| flag.get_env()?.to_str()).collect();
            variables::refuse_unknown(&known, variables).map_err(Refusal::Usage)?;
            flags.check(run).map_err(Refusal::Usage)?;
        }
        Ok(cli)
    }
}

// === impl RunArgs ===

impl RunArgs {
    /// Checks the rules that concern several flags, and removes repeated names from the lists.
    fn check(&mut self, command: &clap::Command) -> Result<(), String> {
        for names in [&mut self.namespaces, &mut self.extra_regions, &mut self.reserved_template_keys] {
            let mut seen = BTreeSet::new();
            names.retain(|name| seen.insert(name.clone()));
        }
        let mut rates = BTreeMap::new();
        for (class, rate) in &self.kms_pair_rates {
            if rates.insert(*class, *rate).is_some_and(|other| other != *rate) {
                let (flag, class) = (usage::with_variable(command, "--kms-pair-rates"), class.as_str());
                return Err(format!("{flag}: {class} has two rates: write one"));
            }
        }
        self.kms_pair_rates = rates.into_iter().collect();
        if self.retry_min > self.retry_max {
            let [min, max] = ["--retry-min", "--retry-max"].map(|flag| usage::with_variable(command, flag));
            let [least, most] = [self.retry_min, self.retry_max].map(format_duration);
            return Err(format!(
                "{min}: {least} is longer than {most}, the value of {max}: write the shorter wait in --retry-min"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::cases::{FlagCases, ROWS};

    fn read(arguments: &[&str]) -> Result<RunArgs, String> {
        let arguments: Vec<_> = ["datakey-operator", "run"].iter().chain(arguments).map(OsString::from).collect();
        match Cli::read(&arguments, &[]) {
            Ok(Cli { command: Command::Run(run) }) => Ok(*run),
            Err(Refusal::Usage(line)) => Err(line),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_flag_has_a_variable_help_and_a_row() {
        Cli::command().debug_assert();
        let cli = Cli::command();
        let run = cli.find_subcommand("run").unwrap();
        let flags = run.get_arguments().filter(|flag| flag.get_id() != "help");
        let flags: BTreeSet<_> = flags
            .map(|flag| {
                let name = flag.get_long().unwrap();
                assert!(flag.get_help().is_some(), "{name}");
                (format!("--{name}"), flag.get_env().unwrap().to_str().unwrap().to_owned())
            })
            .collect();
        let rows: BTreeSet<_> = ROWS.iter().map(|row| (row.flag.to_owned(), row.variable.to_owned())).collect();
        assert_eq!(flags, rows);
        assert_eq!(rows.len(), ROWS.len(), "a flag has two rows");
        assert!(rows.iter().all(|(_, variable)| variable.starts_with("DATAKEY_")), "{rows:?}");
        assert!(ROWS.iter().all(|row| row.refused.contains(&"")), "no empty value is accepted");
    }

    #[test]
    fn every_flag_accepts_and_refuses_what_its_row_says() {
        for FlagCases { flag, variable, accepted, refused, write, .. } in ROWS {
            for (value, field) in *accepted {
                let run = read(&[&format!("{flag}={value}")]).unwrap_or_else(|line| panic!("{flag}={value:?}: {line}"));
                assert!(format!("{run:?}").contains(field), "{flag}={value:?}: {run:?}");
            }
            for value in *refused {
                let Err(line) = read(&[&format!("{flag}={value}")]) else { panic!("{flag}={value:?} is accepted") };
                let line = datakey::text::printable(&line, usize::MAX);
                assert!(line.starts_with(&format!("{flag} ({variable}): ")), "{value:?}: {line}");
                assert!(line.contains(write), "{value:?}: {line}");
            }
        }
    }

    #[test]
    fn list_flags_take_repetition_and_commas() {
        let run =
            read(&["--namespace", "a,b", "--namespace", "c,a", "--extra-regions=xx-a-1", "--extra-regions=xx-b-1"]);
        let RunArgs { namespaces, extra_regions, .. } = run.unwrap();
        assert_eq!(namespaces, ["a", "b", "c"]);
        assert_eq!(extra_regions, ["xx-a-1", "xx-b-1"]);
    }

    #[test]
    fn quota_class_has_one_rate() {
        let line = read(&["--kms-pair-rates=ECC=2,SM2=1", "--kms-pair-rates=ECC=3"]).unwrap_err();
        assert_eq!(line, "--kms-pair-rates (DATAKEY_KMS_PAIR_RATES): ECC has two rates: write one");
    }

    #[test]
    fn last_value_of_a_repeated_flag_is_used() {
        assert_eq!(read(&["--concurrency=1", "--concurrency=2"]).unwrap().concurrency, 2);
    }

    #[test]
    fn switch_without_a_value_is_on() {
        let run = read(&[]).unwrap();
        assert!(run.issue && !run.leader_elect);
        let run = read(&["--issue=false", "--leader-elect"]).unwrap();
        assert!(!run.issue && run.leader_elect);
        assert!(read(&["--issue"]).unwrap().issue);
    }

    #[test]
    fn shortest_wait_above_the_longest_is_refused() {
        for (flags, is_accepted) in [
            (&["--retry-min=1s", "--retry-max=1s"][..], true),
            (&["--retry-min=1001ms", "--retry-max=1s"], false),
            // Each flag is also compared with the default of the other one.
            (&["--retry-min=11m"], false),
            (&["--retry-max=999ms"], false),
        ] {
            let read = read(flags);
            assert_eq!(read.is_ok(), is_accepted, "{flags:?}");
            if let Err(line) = read {
                assert!(line.starts_with("--retry-min (DATAKEY_RETRY_MIN): "), "{line}");
                assert!(line.contains("--retry-max (DATAKEY_RETRY_MAX)"), "{line}");
            }
        }
    }

    #[test]
    fn argument_error_is_one_line_with_the_fix() {
        for (arguments, words) in [
            (&["--namespaces=a"][..], "there is no flag --namespaces (did you mean --namespace?); "),
            (&["--kms-rate"], "--kms-rate (DATAKEY_KMS_RATE): a value is missing: write --kms-rate=VALUE"),
            (&["--issue", "false"], "there is no flag false"),
        ] {
            let line = read(arguments).unwrap_err();
            assert!(line.contains(words) && line.lines().count() == 1, "{line}");
        }
        let line = Cli::read(&["datakey-operator".into(), "walk".into()], &[]).unwrap_err();
        let Refusal::Usage(line) = line else { panic!("{line:?}") };
        assert!(line.contains("'walk'") && line.lines().count() == 1, "{line}");
    }

    #[test]
    fn help_and_version_are_printed() {
        for arguments in [&["--help"][..], &["run", "--help"], &["--version"]] {
            let arguments: Vec<_> = ["datakey-operator"].iter().chain(arguments).map(OsString::from).collect();
            assert!(matches!(Cli::read(&arguments, &[]), Err(Refusal::Help(_))));
        }
    }

    #[test]
    fn unknown_variable_is_refused_for_run_only() {
        let variables = [("DATAKEY_NAMESPACE".into(), "shop".into())];
        let read = |command: &str| Cli::read(&["datakey-operator".into(), command.into()], &variables);
        let Err(Refusal::Usage(line)) = read("run") else { panic!() };
        assert!(line.contains("DATAKEY_NAMESPACE (did you mean DATAKEY_NAMESPACES?)"), "{line}");
        assert!(read("crd").is_ok());
    }
}
