//! The language of the repository: no text uses a word of words/words.txt, no test has a longer name than a person reads
//! at a glance, no source file is too long to know. words/allowed.txt lists the exceptions, each with its reason; one
//! that is not needed any more fails, so that the list only shrinks.

use std::{collections::BTreeMap, fmt, path::Path, process::Command};

use testbed::repository;

use allowed::Entry;

mod allowed;
mod search;
mod source;

/// What the lint finds in a text.
#[derive(Debug, PartialEq)]
struct Finding {
    path: String,
    line: usize,
    /// How the allow-list calls it: a word, or one of the names in `source`.
    word: String,
    advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, word, advice } = self;
        write!(to, "{path}:{line}: {word:?}: {advice}")
    }
}

fn findings(path: &str, text: &str) -> Vec<Finding> {
    let mut found = search::find(&search::words(), path, text);
    if Path::new(path).extension().is_some_and(|extension| extension == "rs") {
        found.extend(source::find(path, text));
    }
    found
}

/// The text of every file that git knows or would take, by its path.
pub fn texts() -> BTreeMap<String, String> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").args(list).current_dir(repository()).output().unwrap();
    assert!(listed.status.success(), "not a git repository: {}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    // A file that is deleted and not committed yet is listed, too.
    let read = |path: &str| {
        let bytes = std::fs::read(repository().join(path)).ok()?;
        Some((path.to_owned(), String::from_utf8_lossy(&bytes).into_owned()))
    };
    listed.split_terminator('\0').filter_map(read).collect()
}

/// The findings in texts, as the allow-list divides them: those that it does not allow, and its entries without one.
fn divide(texts: &BTreeMap<String, String>, entries: &[Entry]) -> (Vec<Finding>, Vec<String>) {
    let mut unused: Vec<_> = entries.iter().map(|entry| (entry, true)).collect();
    let mut allows = |path: &str, word: &str| {
        let mut allowed = false;
        for (entry, unused) in &mut unused {
            if entry.allows(path, word) {
                (allowed, *unused) = (true, false);
            }
        }
        allowed
    };
    let mut left = Vec::new();
    for (path, text) in texts {
        if !allows(path, allowed::NOT_READ) {
            left.extend(findings(path, text).into_iter().filter(|found| !allows(path, &found.word)));
        }
    }
    let unused = unused.into_iter().filter(|(_, unused)| *unused).map(|(entry, _)| entry.to_string());
    (left, unused.collect())
}

fn lines(all: &[impl ToString]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn texts_names_and_files_keep_to_the_rules() {
    let texts = texts();
    for path in ["README.md", "Makefile", "src/main.rs", "charts/datakey-operator/values.yaml", "deploy/Dockerfile"] {
        assert!(texts.contains_key(path), "{path} is not read");
    }
    let (left, unused) = divide(&texts, &allowed::entries());
    assert!(left.is_empty(), "write it in other words, or allow it in words/allowed.txt:\n{}", lines(&left));
    assert!(unused.is_empty(), "remove these from words/allowed.txt, nothing needs them:\n{}", lines(&unused));
}

fn planted(path: &str, text: &str) -> Vec<(usize, String)> {
    findings(path, text).into_iter().map(|found| (found.line, found.word)).collect()
}

#[test]
fn each_word_is_found_with_its_line() {
    for word in search::words() {
        let phrase = word.phrase();
        let path = word.within().map_or("docs/planted.md", |_| "src/kms/planted.rs");
        let expected = vec![(2, phrase.clone())];
        let name = phrase.replace(' ', "_");
        for text in [
            format!("fine\n{phrase}\nfine"),
            format!("fine\nIt is ({phrase}), \"really\".\n"),
            format!("fine\n{}'s", phrase.to_uppercase()),
            format!("fine\nfn a_{name}_of_it() {{}}"),
            format!("fine\n// {}", phrase.replace(' ', "\n    /// ")),
        ] {
            assert_eq!(planted(path, &text), expected, "{text}");
        }
        for text in [format!("x{phrase}"), format!("{phrase}x"), format!("fine\n{}", phrase.replace(' ', ", or "))] {
            let whole = !phrase.contains(' ') && text.starts_with("fine");
            assert_eq!(planted(path, &text).is_empty(), !whole, "{text}");
        }
    }
    assert_eq!(planted("docs/planted.md", "It takes turns."), []);
}

#[test]
fn long_test_names_and_long_files_are_found() {
    let (fits, long) = ("a".repeat(60), "a".repeat(61));
    let text = |name: &str| format!("#[tokio::test]\n#[ignore]\nasync fn {name}() {{}}\n\nfn {long}() {{}}\n");
    assert_eq!(planted("tests/planted.rs", &text(&fits)), []);
    assert_eq!(planted("tests/planted.rs", &text(&long)), [(3, source::TEST_NAME.to_owned())]);
    assert_eq!(planted("docs/planted.md", &text(&long)), []);

    let tests = format!("mod tests {{\n{}}}\n", "\n".repeat(500));
    let fits = "\n".repeat(400) + &tests;
    let long = "\n".repeat(401) + &tests;
    assert_eq!(planted("src/planted.rs", &fits), []);
    assert_eq!(planted("src/planted.rs", &long), [(401, source::LINES.to_owned())]);
    for path in ["tests/planted.rs", "crates/datakey/tests/planted.rs", "src/planted/tests.rs", "docs/planted.md"] {
        assert_eq!(planted(path, &long), [], "{path}");
    }
}

#[test]
fn allow_list_covers_its_entries_and_reports_unused_ones() {
    let entries = allowed::parse(
        "# comment\n\nsrc/*.rs | nobody, anew | a reason\n*.lock | * | not read\ndocs/** | anew | a reason\n",
    );
    let texts = |files: &[(&str, &str)]| files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
    let needed = texts(&[("src/a.rs", "nobody, anew"), ("x.lock", "nobody"), ("docs/a/b.md", "anew")]);
    assert_eq!(divide(&needed, &entries), (vec![], vec![]));
    let (left, unused) = divide(&texts(&[("src/a/b.rs", "anew"), ("src/a.rs", "nobody")]), &entries);
    assert_eq!(left.iter().map(|found| found.path.as_str()).collect::<Vec<_>>(), ["src/a/b.rs"]);
    assert_eq!(unused, ["src/*.rs | anew", "*.lock | *", "docs/** | anew"]);
}
