//! The allow-list: which words may be in which files, and why.

use std::fmt;

/// In the place of a word: a file that is not read at all.
pub const NOT_READ: &str = "*";

/// One word of a line of the list.
pub struct Entry {
    files: String,
    word: String,
}

// === impl Entry ===

impl Entry {
    pub fn allows(&self, path: &str, word: &str) -> bool {
        self.word == word && matches(&self.files, path)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} | {}", self.files, self.word)
    }
}

/// Reads `files | word, word | reason` on each line.
pub fn parse(list: &str) -> Vec<Entry> {
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entries = lines.flat_map(|line| {
        let columns: Vec<_> = line.split('|').map(str::trim).collect();
        let [files, words, reason] = columns[..] else { panic!("not files, words and a reason: {line}") };
        assert!(!reason.is_empty(), "without a reason: {line}");
        words.split(", ").map(move |word| Entry { files: files.to_owned(), word: word.to_owned() })
    });
    entries.collect()
}

pub fn entries() -> Vec<Entry> {
    parse(include_str!("allowed.txt"))
}

/// Whether a pattern is this path: `*` is a part of a name, `**` any names.
pub fn matches(pattern: &str, path: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == path };
    let Some(path) = path.strip_prefix(before) else { return false };
    let (after, whole_names) = match after.strip_prefix('*') {
        Some(after) => (after, true),
        None => (after, false),
    };
    let mut ends = path.char_indices().map(|(at, _)| at).chain([path.len()]);
    ends.any(|end| (whole_names || !path[..end].contains('/')) && matches(after, &path[end..]))
}
