//! What a command returns, and the terminal that it is printed on.
//!
//! A command computes an [`Output`] and prints nothing. Some take time or ask a question; they reach the user through
//! [`Terminal`], the only place that writes to the standard streams.

use std::{
    io::{IsTerminal, Stderr, Stdin, Stdout, Write},
    process::ExitCode,
};

use clap::ValueEnum;
use datakey::text::{is_printable, printable_json, redact};
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

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For people.
    Table,
    /// The same with more columns, and whole ARNs.
    Wide,
    /// Kinds and names, for other commands.
    Name,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// The result of a command that did its work.
#[derive(Debug, Default)]
pub struct Output {
    /// Bytes for standard output.
    pub out: Vec<u8>,
    /// Lines for standard error.
    pub notes: Vec<String>,
    /// What the exit code reports.
    pub health: Health,
}

/// What a command found out about the DataKeys that it checked. The greatest of several values decides the exit code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Everything is as it should be.
    #[default]
    Healthy,
    /// Something is not Ready, or differs from the record.
    Unhealthy,
    /// Something could not be checked.
    Unknown,
}

/// Why a command could not do its work. Each message also says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// The arguments are wrong.
    #[error("{0}")]
    Usage(String),
    /// The `DataKey` is not in a state that allows the command.
    #[error("{0}")]
    NotReady(String),
    /// The user lacks a right.
    #[error("{0}")]
    Forbidden(String),
    /// The API server did not answer, or not in time, or failed. A change that was asked for may be done.
    #[error("{0}")]
    Unanswered(String),
    /// The command failed.
    #[error("{0}")]
    Failed(String),
}

/// Standard input, output and error.
///
/// Notes are written with invisible characters escaped. [`Output::out`] is written as it is: `export -o raw` prints
/// bytes, and the renderers below escape text.
#[derive(Debug)]
pub struct Terminal {
    stdin: Stdin,
    stdout: Stdout,
    stderr: Stderr,
}

// === impl Output ===

impl Output {
    /// Returns an output with this text and no notes.
    pub fn text(text: impl Into<String>) -> Self {
        Self { out: text.into().into_bytes(), ..Self::default() }
    }

    /// Returns the output with this health.
    pub fn with(self, health: Health) -> Self {
        Self { health, ..self }
    }
}

// === impl Health ===

impl From<Health> for ExitCode {
    fn from(health: Health) -> Self {
        Self::from(match health {
            Health::Healthy => 0,
            Health::Unknown => 1,
            Health::Unhealthy => 2,
        })
    }
}

// === impl CommandError ===

impl CommandError {
    /// Returns the same error without these secrets: a message of the API server can repeat a part of an object.
    pub fn redacted(self, secrets: &[String]) -> Self {
        let redacted = |text: String| redact(&text, secrets);
        match self {
            Self::Usage(text) => Self::Usage(redacted(text)),
            Self::NotReady(text) => Self::NotReady(redacted(text)),
            Self::Forbidden(text) => Self::Forbidden(redacted(text)),
            Self::Unanswered(text) => Self::Unanswered(redacted(text)),
            Self::Failed(text) => Self::Failed(redacted(text)),
        }
    }
}

impl From<CommandError> for ExitCode {
    fn from(error: CommandError) -> Self {
        Self::from(match error {
            CommandError::Failed(_) | CommandError::Forbidden(_) | CommandError::Unanswered(_) => 1,
            CommandError::NotReady(_) => 2,
            CommandError::Usage(_) => USAGE,
        })
    }
}

// === impl Terminal ===

impl Terminal {
    /// Returns the standard streams of the process.
    pub fn new() -> Self {
        Self { stdin: std::io::stdin(), stdout: std::io::stdout(), stderr: std::io::stderr() }
    }

    /// Prints the output of a command: its notes, then its bytes.
    ///
    /// A closed pipe is not an error: in `kubectl datakey list | head` the reader has what it needs.
    pub fn print(&self, output: &Output) -> Result<(), CommandError> {
        self.notes(&output.notes);
        let mut out = self.stdout.lock();
        match out.write_all(&output.out).and_then(|()| out.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(CommandError::Failed(format!("can't write to standard output: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Prints lines on standard error at once, for example the progress of a command that waits.
    pub fn notes<T: AsRef<str>>(&self, notes: impl IntoIterator<Item = T>) {
        for note in notes {
            // A closed standard error leaves no way to report anything.
            let _ = writeln!(self.stderr.lock(), "{}", printable(note.as_ref()));
        }
    }

    /// Asks a question, and returns whether the user answered `y` or `yes`.
    pub fn confirms(&self, question: &[&str]) -> bool {
        let question: Vec<_> = question.iter().map(|line| printable(line)).collect();
        let mut answer = String::new();
        let asked = write!(self.stderr.lock(), "{} (y/n): ", question.join("\n"));
        let asked = asked.and_then(|()| self.stdin.read_line(&mut answer));
        // The echo of an answer ends the line, and only a terminal has one.
        if !self.reads_keyboard() || answer.is_empty() {
            let _ = writeln!(self.stderr.lock());
        }
        asked.is_ok() && ["y", "yes"].contains(&answer.trim().to_lowercase().as_str())
    }

    /// Writes a line of progress in place of the last one, which a line feed does not end. Only a terminal can show that.
    pub fn redraw(&self, line: &str) {
        // Carriage return, and the control sequence that erases to the end of the line.
        let _ = write!(self.stderr.lock(), "\r{}\x1b[K", printable(line));
    }

    /// Returns whether standard error is a terminal, not a file or a pipe.
    pub fn shows_progress(&self) -> bool {
        self.stderr.is_terminal()
    }

    /// Returns whether the user types standard input.
    pub fn reads_keyboard(&self) -> bool {
        self.stdin.is_terminal()
    }

    /// Returns whether standard output is a terminal, not a file or a pipe.
    pub fn shows_output(&self) -> bool {
        self.stdout.is_terminal()
    }
}

/// Renders a value as JSON or YAML, or as the text that `table` makes of it.
pub fn render<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<String, CommandError> {
    match format {
        Format::Table => Ok(table(value)),
        Format::Json => json(value),
        Format::Yaml => yaml(value),
    }
}

/// Renders a list as JSON, YAML or names, or as the table that `table` makes of it, wide or not.
pub fn render_list<T: Serialize>(
    format: ListFormat,
    value: &T,
    table: impl FnOnce(&T, bool) -> String,
    names: impl FnOnce(&T) -> Vec<String>,
) -> Result<String, CommandError> {
    match format {
        ListFormat::Table => Ok(table(value, false)),
        ListFormat::Wide => Ok(table(value, true)),
        ListFormat::Name => Ok(names(value).into_iter().map(|name| name + "\n").collect()),
        ListFormat::Json => json(value),
        ListFormat::Yaml => yaml(value),
    }
}

/// Renders a value as indented JSON that ends with a line feed.
pub fn json(value: &impl Serialize) -> Result<String, CommandError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| cannot_write("JSON", &error))?;
    Ok(printable_json(&text).into_owned() + "\n")
}

/// Renders a value as YAML.
///
/// The YAML writer does not escape every invisible character. A value with such a character is rendered as JSON, which
/// is also YAML.
pub fn yaml(value: &impl Serialize) -> Result<String, CommandError> {
    let text = serde_saphyr::to_string(value).map_err(|error| cannot_write("YAML", &error))?;
    if text.chars().all(|character| character == '\n' || is_printable(character)) { Ok(text) } else { json(value) }
}

/// Escapes the invisible characters of a text. A cluster's text must not control the user's terminal.
pub fn printable(text: &str) -> String {
    datakey::text::printable(text, usize::MAX)
}

fn cannot_write(what: &str, error: &dyn std::fmt::Display) -> CommandError {
    CommandError::Failed(format!("can't write this as {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn json_and_yaml_escape_invisible_characters() {
        let value = serde_json::json!({ "context": { "a\u{202e}": "b\u{1b}[2J\u{7f}\r\n" } });
        let (json, yaml) = (json(&value).unwrap(), yaml(&value).unwrap());
        for text in [&json, &yaml] {
            assert!(text.chars().all(|character| character == '\n' || is_printable(character)), "{text:?}");
        }
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
        assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap(), value);
    }

    #[test]
    fn yaml_keeps_text_that_looks_like_another_type() {
        let odd = [
            "yes",
            "on",
            "1e3",
            "0x1F",
            "012",
            "1_000",
            "null",
            "~",
            "12:30:45",
            "2026-01-01",
            " a",
            "a ",
            "- a",
            "#",
            "a: b",
            "'",
            "\"",
            "\\",
            "a\nb",
            "a\n",
            "\t",
            "\u{85}",
            "\u{7f}",
            "é",
            "{}",
            "!x",
            "&x",
            "*x",
            "%",
            "@",
            "`",
            "",
        ];
        let context: BTreeMap<_, _> = odd.iter().map(|text| (format!("key {text}"), (*text).to_owned())).collect();
        let back: BTreeMap<String, String> = serde_saphyr::from_str(&yaml(&context).unwrap()).unwrap();
        assert_eq!(back, context);
    }

    #[test]
    fn text_is_escaped_in_full() {
        assert_eq!(printable("a\u{1b}[2Jb\rc\nd\u{9b}ä\u{202e}"), r"a\u{1b}[2Jb\rc\nd\u{9b}ä\u{202e}");
    }

    #[test]
    fn secrets_are_redacted_in_each_error() {
        let text = || "the token t0ken is wrong".to_owned();
        for error in [
            CommandError::Usage(text()),
            CommandError::NotReady(text()),
            CommandError::Forbidden(text()),
            CommandError::Unanswered(text()),
            CommandError::Failed(text()),
        ] {
            assert_eq!(error.redacted(&["t0ken".to_owned()]).to_string(), "the token [redacted] is wrong");
        }
    }

    #[test]
    fn unknown_outweighs_unhealthy() {
        assert_eq!([Health::Unhealthy, Health::Unknown, Health::Healthy].into_iter().max(), Some(Health::Unknown));
    }
}
