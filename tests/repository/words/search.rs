//! Words and phrases in a text, as whole words.

use super::{Finding, allowed};

/// A word or a phrase to avoid.
pub struct Word {
    parts: Vec<&'static str>,
    advice: &'static str,
    within: Option<&'static str>,
}

// === impl Word ===

impl Word {
    pub fn phrase(&self) -> String {
        self.parts.join(" ")
    }

    /// The files that it is about, if not all.
    pub fn within(&self) -> Option<&'static str> {
        self.within
    }
}

pub fn words() -> Vec<Word> {
    let lines = include_str!("words.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let words = lines.flat_map(|line| {
        let mut columns = line.split('|').map(str::trim);
        let (words, advice, within) = (columns.next().unwrap(), columns.next().unwrap(), columns.next());
        words.split(", ").map(move |word| Word { parts: word.split(' ').collect(), advice, within })
    });
    words.collect()
}

/// Where runs of letters and digits begin and end.
fn tokens(text: &str) -> Vec<(usize, usize)> {
    let mut tokens = Vec::new();
    let mut begin = None;
    for (at, letter) in text.char_indices().chain([(text.len(), ' ')]) {
        match (begin, letter.is_alphanumeric()) {
            (None, true) => begin = Some(at),
            (Some(from), false) => {
                tokens.push((from, at));
                begin = None;
            }
            _ => {}
        }
    }
    tokens
}

/// Whether two words belong together: in a line, a name, or over the end of a line of a comment.
fn is_joint(between: &str) -> bool {
    between.chars().all(|letter| letter.is_whitespace() || "_-/!#*".contains(letter))
}

pub fn find(words: &[Word], path: &str, text: &str) -> Vec<Finding> {
    let words: Vec<_> =
        words.iter().filter(|word| word.within.is_none_or(|files| allowed::matches(files, path))).collect();
    let tokens = tokens(text);
    let mut found = Vec::new();
    let (mut line, mut counted) = (1, 0);
    for (number, &(begin, _)) in tokens.iter().enumerate() {
        for word in &words {
            let Some(here) = tokens.get(number..number + word.parts.len()) else { continue };
            let same =
                here.iter().zip(&word.parts).all(|(&(from, to), part)| text[from..to].eq_ignore_ascii_case(part));
            if same && here.windows(2).all(|pair| is_joint(&text[pair[0].1..pair[1].0])) {
                line += text[counted..begin].matches('\n').count();
                counted = begin;
                let advice = format!("better: {}", word.advice);
                found.push(Finding { path: path.to_owned(), line, word: word.phrase(), advice });
            }
        }
    }
    found
}
