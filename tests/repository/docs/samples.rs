//! What pages show of files is in the files, so that what they show is what runs: tests/integration/consumers runs the samples of
//! code, tests/programs those of other programs.

use std::collections::BTreeSet;

use testbed::repository;

/// The pages that show parts of files, and how many files at least.
const PAGES: [(&str, usize); 2] = [("docs/consume.md", 15), ("docs/datakey-unwrap.md", 4)];

/// What a reader types or sees is no part of a file: tests/integration/documented.rs runs the commands.
fn is_typed(language: &str, body: &str) -> bool {
    ["sh", "console", "text"].contains(&language) || body.starts_with("( set -euo pipefail\n")
}

/// The files of which a page shows parts; each link stands right before its block.
fn shown<'a>(page: &str, text: &'a str) -> BTreeSet<&'a str> {
    let mut shown = BTreeSet::new();
    let mut parts = text.split("\n```");
    while let (Some(before), Some(block)) = (parts.next(), parts.next()) {
        let (language, body) = block.split_once('\n').unwrap();
        if is_typed(language, body) {
            continue;
        }
        let file = before.rsplit_once("](../").and_then(|(_, link)| link.split_once(')'));
        let (file, after) = file.unwrap_or_else(|| panic!("{page}: no link to a file before:\n{body}"));
        assert!(after.trim().is_empty(), "{page}: the link to {file} does not stand right before its block:\n{body}");
        let whole = std::fs::read_to_string(repository().join(file)).unwrap();
        assert!(format!("\n{whole}").contains(&format!("\n{body}\n")), "{file} does not have this any more:\n{body}");
        shown.insert(file);
    }
    shown
}

#[test]
fn every_documented_sample_is_cut_out_of_its_file() {
    for (page, least) in PAGES {
        let text = std::fs::read_to_string(repository().join(page)).unwrap();
        let shown = shown(page, &text);
        assert!(shown.len() >= least, "{page}: {shown:?}");
    }
}
