//! The table of the flags of `datakey-unwrap` in docs/datakey-unwrap.md, from its help. `make generate` writes it.

use std::{collections::BTreeMap, fs};

use testbed::{assert_fresh, repository, unwrap};

use super::{
    help::help,
    reference::{code, sentence, table, with_part},
};

const FILE: &str = "docs/datakey-unwrap.md";

/// A flag in the help of a command.
#[derive(Debug, PartialEq)]
struct Flag {
    /// The flag with the name of its value, for example `--to <FOLDER>`.
    shown: String,
    meaning: String,
}

/// The flags in the help of one command, in its order.
fn flags(help: &str) -> Vec<Flag> {
    let mut flags = Vec::<Flag>::new();
    // Whether the last flag goes on.
    let mut is_inside = false;
    for line in help.lines() {
        let text = line.trim();
        if line.starts_with(' ') && text.starts_with("--") {
            // In the short form the meaning is in the same line.
            let (shown, meaning) = text.split_once("  ").unwrap_or((text, ""));
            flags.push(Flag { shown: shown.to_owned(), meaning: meaning.trim().to_owned() });
            is_inside = true;
        } else if !line.starts_with(' ') && !line.is_empty() || text.starts_with("-h") || text.starts_with('<') {
            is_inside = false;
        } else if is_inside && !text.is_empty() {
            let meaning = &mut flags.last_mut().unwrap().meaning;
            // The values of a flag: their meaning is in the text above the table.
            if text == "Possible values:" {
                is_inside = false;
            } else {
                if !meaning.is_empty() {
                    meaning.push(' ');
                }
                meaning.push_str(text);
            }
        }
    }
    flags
}

/// Each flag once, in the order in which the commands have it, with the commands that take it.
fn rows(help: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::<Flag>::new();
    let mut commands = BTreeMap::<String, Vec<String>>::new();
    for section in help.split("$ datakey-unwrap ").skip(1) {
        let (command, text) = section.split_once(" --help\n").unwrap_or_default();
        for flag in flags(text) {
            commands.entry(flag.shown.clone()).or_default().push(code(command));
            if !rows.iter().any(|row| row.shown == flag.shown) {
                rows.push(flag);
            }
        }
    }
    let row = |flag: Flag| {
        let (meaning, default) = flag.meaning.split_once(" [default: ").unwrap_or((&flag.meaning, ""));
        let default = default.trim_end_matches(']');
        let default = if default.is_empty() { String::new() } else { code(default) };
        vec![code(&flag.shown), commands[&flag.shown].join(", "), default, sentence(meaning)]
    };
    rows.into_iter().map(row).collect()
}

#[test]
fn flags_of_datakey_unwrap_are_those_of_its_help() {
    let rows = rows(&help(&unwrap(), &[]));
    assert!(rows.len() > 20, "{rows:?}");
    let text = fs::read_to_string(repository().join(FILE)).unwrap();
    let table = table(&["flag", "commands", "default", "meaning"], rows);
    assert_fresh(FILE, &with_part(&text, "flags of datakey-unwrap", &table));
}

#[test]
fn flags_are_read_from_both_forms_of_help() {
    let help = "$ datakey-unwrap file --help\nWrites.\n\nOptions:\n      --to <FOLDER>\n          The folder.\n          In memory\n\n\
                \n          [default: x]\n\n      --format <F>\n          The format\n\n          Possible values:\n          - raw: bytes\n\n  \
                -h, --help\n          Print help\n\n$ datakey-unwrap check --help\nOptions:\n      --to <FOLDER>  The folder.\n                     In \
                memory\n  -h, --help         Print help\n";
    let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
    let expected = [
        row(["`--to <FOLDER>`", "`file`, `check`", "`x`", "The folder. In memory."]),
        row(["`--format <F>`", "`file`", "", "The format."]),
    ];
    assert_eq!(rows(help), expected);
}
