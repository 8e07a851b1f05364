//! What is wrong with a command line or a variable, on one line: the flag, its variable, and what to write. Pure.

use std::{error::Error as _, ffi::OsString};

use clap::{
    Command, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// The longest part of a wrong value that is shown.
const SHOWN: usize = 100;

/// A flag, and its variable where it has one.
pub fn with_variable(command: &Command, flag: &str) -> String {
    let is_it = |known: &&clap::Arg| known.get_long().is_some_and(|long| flag.strip_prefix("--") == Some(long));
    let variable = command.get_arguments().find(is_it).and_then(clap::Arg::get_env);
    variable.map_or_else(|| flag.to_owned(), |variable| format!("{flag} ({})", variable.to_string_lossy()))
}

/// One line of what clap refuses.
pub fn line(error: &Error, command: &Command, arguments: &[OsString], variables: &[(OsString, OsString)]) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    // clap names a flag with its value: `--kms-rate <PER_SECOND>`, `--issue[=<BOOL>]`.
    let flag = text(ContextKind::InvalidArg).unwrap_or_default();
    let flag = flag.split([' ', '=', '[']).next().unwrap_or_default();
    let name = with_variable(command, flag);
    let value = printable_value(text(ContextKind::InvalidValue).unwrap_or_default());
    let choice = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => Some(values.join(" or ")),
        _ => None,
    };
    match (error.kind(), choice) {
        (ErrorKind::ValueValidation, _) => {
            let what = error.source().map_or_else(String::new, |what| format!(": {what}"));
            format!("{name}: {value} is refused{what}")
        }
        (ErrorKind::InvalidValue, Some(choice)) => format!("{name}: {value} is refused: write {choice}"),
        (ErrorKind::InvalidValue, None) => format!("{name}: a value is missing: write {flag}=VALUE"),
        (ErrorKind::UnknownArgument, _) => {
            let near =
                text(ContextKind::SuggestedArg).map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
            format!("there is no flag {flag}{near}; `datakey-operator run --help` lists the flags")
        }
        (ErrorKind::InvalidUtf8, _) => not_utf8(command, arguments, variables),
        _ => {
            let rendered = error.render().to_string();
            let first = rendered.lines().next().unwrap_or_default();
            format!("{}; see `datakey-operator --help`", first.trim_start_matches("error: "))
        }
    }
}

/// clap does not say where the bytes are.
fn not_utf8(command: &Command, arguments: &[OsString], variables: &[(OsString, OsString)]) -> String {
    let argument = arguments.iter().find(|argument| argument.to_str().is_none());
    let is_ours = |name: &OsString| command.get_arguments().any(|flag| flag.get_env() == Some(name));
    let variable = variables.iter().find(|(name, value)| value.to_str().is_none() && is_ours(name));
    let place = match (argument, variable) {
        (Some(argument), _) => format!("the argument {}", argument.to_string_lossy()),
        (None, Some((name, _))) => format!("the variable {}", name.to_string_lossy()),
        (None, None) => "an argument or a variable".to_owned(),
    };
    format!("{place} is refused: write it in UTF-8")
}

fn printable_value(value: &str) -> String {
    format!("\"{}\"", datakey::text::printable(value, SHOWN))
}
