//! Links between files lead somewhere, and every page can be found: from the README on GitHub, and in the book.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use testbed::repository;

use crate::words::texts;

const SUMMARY: &str = "docs/book/SUMMARY.md";

/// The lines of a page that are not in a block of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// What the links and pictures of a page name.
fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in prose(text) {
        for (at, _) in line.match_indices("](") {
            // An odd number of marks before it: it is in code.
            if line[..at].matches('`').count() % 2 == 0 {
                found.extend(line[at + 2..].split_once(')').map(|(link, _)| link));
            }
        }
    }
    found
}

/// The anchors of a page, as GitHub makes them from its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in prose(text).filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        let anchor = kept.collect::<String>().replace(' ', "-");
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        let mut names = std::iter::once(anchor.clone()).chain(numbered);
        found.insert(names.find(|name| !found.contains(name)).unwrap());
    }
    found
}

/// The file that a link of a page leads to, and the anchor in it; nothing for a link out of the repository.
fn target<'a>(page: &str, link: &'a str) -> Option<(String, &'a str)> {
    if link.contains(':') {
        return None;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    if file.is_empty() {
        return Some((page.to_owned(), anchor));
    }
    let mut path = PathBuf::new();
    for part in Path::new(page).parent().unwrap().join(file).components() {
        match part {
            Component::ParentDir => path.pop().then_some(())?,
            other => path.push(other),
        }
    }
    Some((path.to_str().unwrap().to_owned(), anchor))
}

fn is_a(extension: &str, path: &str) -> bool {
    Path::new(path).extension().is_some_and(|own| own == extension)
}

/// Every page of the repository by its path.
fn pages() -> BTreeMap<String, String> {
    texts().into_iter().filter(|(path, _)| is_a("md", path)).collect()
}

/// The files that a page leads to.
fn neighbors(pages: &BTreeMap<String, String>, page: &str) -> Vec<String> {
    links(&pages[page]).into_iter().filter_map(|link| target(page, link)).map(|(file, _)| file).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_in_it() {
    let pages = pages();
    let (mut files, mut headings, mut broken) = (0, 0, Vec::new());
    for (page, text) in &pages {
        for link in links(text) {
            let Some((file, anchor)) = target(page, link) else { continue };
            files += 1;
            let is_right = if anchor.is_empty() {
                repository().join(&file).exists()
            } else {
                headings += 1;
                pages.get(&file).is_some_and(|text| anchors(text).contains(anchor))
            };
            if !is_right {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(files > 100 && headings > 10, "{files} links, {headings} of them to headings");
    assert!(broken.is_empty(), "these lead to nothing:\n{}", broken.join("\n"));
}

#[test]
fn every_page_of_the_documentation_is_in_the_book_once() {
    let pages = pages();
    let listed = neighbors(&pages, SUMMARY);
    let expected = pages.keys().filter(|page| page.starts_with("docs/") && *page != SUMMARY);
    for page in expected.chain(["README.md".to_owned()].iter()) {
        let times = listed.iter().filter(|listed| *listed == page).count();
        assert_eq!(times, 1, "{SUMMARY} must list {page} once");
    }
}

#[test]
fn every_page_and_picture_is_reached_from_the_readme() {
    let pages = pages();
    let mut reached = BTreeSet::new();
    let mut next = vec!["README.md".to_owned()];
    while let Some(file) = next.pop() {
        if reached.insert(file.clone()) && pages.contains_key(&file) {
            next.extend(neighbors(&pages, &file));
        }
    }
    let all = texts();
    let of_docs = all.keys().filter(|path| path.starts_with("docs/") && (is_a("md", path) || is_a("svg", path)));
    let missing: Vec<_> = of_docs.filter(|path| *path != SUMMARY && !reached.contains(*path)).collect();
    assert!(reached.len() > 40, "{reached:?}");
    assert!(missing.is_empty(), "no page leads to these: {missing:#?}");
}

#[test]
fn links_and_anchors_are_read_as_github_reads_them() {
    let text =
        "# A `title`, and *more*\n[a](b.md) ![c](d.svg) `[no](link)`\n```\n# no\n[no](link)\n```\n## Go_on\n## Go_on\n";
    assert_eq!(links(text), ["b.md", "d.svg"]);
    assert_eq!(anchors(text), ["a-title-and-more", "go_on", "go_on-1"].map(str::to_owned).into());
    let leads = |link| target("docs/design/page.md", link);
    assert_eq!(leads("../a.md#b"), Some(("docs/a.md".to_owned(), "b")));
    assert_eq!(leads("#b"), Some(("docs/design/page.md".to_owned(), "b")));
    assert_eq!(leads("../../src"), Some(("src".to_owned(), "")));
    assert_eq!(leads("../../../issues"), None);
    assert_eq!(leads("https://example.com/a.md"), None);
}
