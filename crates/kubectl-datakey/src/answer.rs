//! What a command ends with.

use std::process::ExitCode;

use clap::ValueEnum;
use datakey::text::{is_printable, printable_json};
use serde::Serialize;
use thiserror::Error;

/// Wrong flags or arguments (sysexits.h, `EX_USAGE`).
pub const USAGE: u8 = 64;

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// A command did what it was asked.
#[derive(Debug, Default)]
pub struct Answer {
    /// For standard output.
    pub out: Vec<u8>,
    /// For standard error, line by line.
    pub notes: Vec<String>,
    /// What the exit code tells.
    pub outcome: Outcome,
}

/// What a command found. The worst of several counts, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// All is well.
    #[default]
    Fine,
    /// Something is not ready, or not as it should be.
    Wanting,
    /// Something could not be looked at.
    Incomplete,
}

/// Why a command did not do what it was asked; each text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// Wrong arguments.
    #[error("{0}")]
    Usage(String),
    /// The `DataKey` is not in a state for it.
    #[error("{0}")]
    NotReady(String),
    /// It failed at work.
    #[error("{0}")]
    Work(String),
}

// === impl Answer ===

impl Answer {
    /// This text and nothing to complain of.
    pub fn text(text: impl Into<String>) -> Self {
        Self { out: text.into().into_bytes(), ..Self::default() }
    }

    /// The answer with this outcome.
    pub fn with(self, outcome: Outcome) -> Self {
        Self { outcome, ..self }
    }
}

// === impl Outcome ===

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Fine => 0,
            Outcome::Incomplete => 1,
            Outcome::Wanting => 2,
        })
    }
}

// === impl Failure ===

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        Self::from(match failure {
            Failure::Work(_) => 1,
            Failure::NotReady(_) => 2,
            Failure::Usage(_) => USAGE,
        })
    }
}

/// A value as a machine reads it, or as `table` draws it.
pub fn render<T: Serialize>(format: Format, value: &T, table: impl FnOnce(&T) -> String) -> Result<String, Failure> {
    match format {
        Format::Table => Ok(table(value)),
        Format::Json => json(value),
        Format::Yaml => yaml(value),
    }
}

/// JSON for people and machines, with a line's end.
pub fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| cannot_write("JSON", &error))?;
    Ok(printable_json(&text).into_owned() + "\n")
}

/// YAML. Where it would hold characters that can't be seen, which YAML takes as they are, it is JSON, which is YAML too.
pub fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(value).map_err(|error| cannot_write("YAML", &error))?;
    if text.chars().all(|character| character == '\n' || is_printable(character)) { Ok(text) } else { json(value) }
}

fn cannot_write(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::Work(format!("can't write this as {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_output_shows_a_terminal_what_cannot_be_seen() {
        let value = serde_json::json!({ "context": { "a\u{202e}": "b\u{1b}[2J\u{7f}\r\n" } });
        let (json, yaml) = (json(&value).unwrap(), yaml(&value).unwrap());
        for text in [&json, &yaml] {
            assert!(text.chars().all(|character| character == '\n' || is_printable(character)), "{text:?}");
        }
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
        assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap(), value);
    }
}
