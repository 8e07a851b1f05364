//! The help of the programs as text files, so that a review shows what a user reads. `make generate` writes them.

use std::{path::Path, process::Command};

use testbed::{assert_fresh, operator, plugin, unwrap};

/// The help of a command and of its subcommands, in their order, each after its command line.
pub fn help(program: &Path, command: &[&str]) -> String {
    let shown = Command::new(program).args(command).arg("--help").env("COLUMNS", "100").output().unwrap();
    assert!(shown.status.success(), "{command:?}");
    let text = String::from_utf8(shown.stdout).unwrap();
    let name = program.file_name().unwrap().to_str().unwrap();
    let mut all = format!("$ {} --help\n{}\n\n", [&[name], command].concat().join(" "), text.trim_end());
    for subcommand in subcommands(&text) {
        all += &help(program, &[command, &[subcommand]].concat());
    }
    all
}

/// The names below `Commands:`; `help` has no help of its own to show.
fn subcommands(text: &str) -> Vec<&str> {
    let below = text.split_once("\nCommands:\n").map_or("", |(_, below)| below);
    let names = below.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    names
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(' ').next())
        .filter(|&n| n != "help")
        .collect()
}

#[test]
fn help_of_the_operator_is_as_recorded() {
    let text = help(&operator(), &[]);
    assert!(text.contains("--kms-rate"), "the help of run is in it");
    assert_fresh("tests/repository/help/datakey-operator.txt", &text);
}

#[test]
fn help_of_the_plugin_is_as_recorded() {
    let text = help(&plugin(), &[]);
    assert!(text.contains("$ kubectl-datakey status --help"), "the help of each command is in it");
    assert_fresh("tests/repository/help/kubectl-datakey.txt", &text);
}

#[test]
fn help_of_datakey_unwrap_is_as_recorded() {
    let text = help(&unwrap(), &[]);
    assert!(text.contains("$ datakey-unwrap ready --help"), "the help of each command is in it");
    assert_fresh("tests/repository/help/datakey-unwrap.txt", &text);
}
