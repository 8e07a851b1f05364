//! What became of many objects: counts, and each cause of a failure once. Pure.

use std::{collections::BTreeMap, fmt};

use crate::output::printable;

/// Why an object failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// The line or file; the name of the object where it has no line.
    pub place: String,
    /// The cause.
    pub why: String,
}

/// Failures, each with the name of its object.
#[derive(Debug, Default)]
pub struct Failures(Vec<(String, Failure)>);

// === impl Failure ===

impl Failure {
    pub fn new(place: &str, why: impl Into<String>) -> Self {
        Self { place: place.to_owned(), why: why.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.why)
    }
}

// === impl Failures ===

impl Failures {
    pub fn push(&mut self, name: String, failure: Failure) {
        self.0.push((name, failure));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What a progress bar shows beside the number of objects that are through: how many are done, and how many failed.
    pub fn progress(&self, done: usize, what: &str) -> String {
        format!(": {done} {what}, {} failed", self.len())
    }

    /// Returns a line for each cause, with the names that it concerns: a missing right or credentials fail all objects alike.
    /// `nouns` names several of them.
    pub fn text(&self, nouns: &str) -> String {
        let mut causes = BTreeMap::<&str, Vec<(&str, &str)>>::new();
        for (name, Failure { place, why }) in &self.0 {
            causes.entry(why).or_default().push((name, place));
        }
        let mut causes: Vec<_> = causes.into_iter().collect();
        for (_, concerned) in &mut causes {
            concerned.sort_unstable();
        }
        causes.sort_unstable_by_key(|(_, concerned)| concerned.first().copied());
        causes.into_iter().map(|(why, concerned)| cause_text(why, &concerned, nouns)).collect()
    }
}

fn cause_text(why: &str, concerned: &[(&str, &str)], nouns: &str) -> String {
    if let [(name, place)] = concerned {
        let name = if name == place { String::new() } else { format!("{name}: ") };
        return format!("  {}\n", printable(&format!("{name}{place}: {why}")));
    }
    let label = |(name, place): &(&str, &str)| {
        if name == place { (*name).to_owned() } else { format!("{name} ({place})") }
    };
    let names = concerned.iter().map(label).collect::<Vec<_>>().join(", ");
    format!("  {} {nouns}: {}\n    {}\n", concerned.len(), printable(why), printable(&names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_one_line_with_all_names() {
        let mut failures = Failures::default();
        for (name, place, why) in [
            ("c", "line 4", "AWS KMS refuses\u{1b}"),
            ("line 9", "line 9", "name is empty"),
            ("b", "line 3", "you may not"),
            ("a", "a", "you may not"),
        ] {
            failures.push(name.to_owned(), Failure::new(place, why));
        }
        assert_eq!(failures.progress(1, "Ready"), ": 1 Ready, 4 failed");
        assert_eq!(
            failures.text("DataKeys"),
            "  2 DataKeys: you may not\n    a, b (line 3)\n  c: line 4: AWS KMS refuses\\u{1b}\n  line 9: name is empty\n"
        );
    }
}
