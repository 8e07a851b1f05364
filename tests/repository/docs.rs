//! What the documentation says about tests is so.

use std::{collections::BTreeSet, fs, path::Path};

use datakey::names::{RESTORED_ANNOTATION, RETRY_AT_ANNOTATION, VELERO_RESTORE_LABEL};

mod links;
mod samples;
mod tenancy;
mod unwrap;
mod versions;

/// All files below a folder with this extension.
fn files(folder: &Path, extension: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_documentation_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut texts, mut sources) = (vec![fs::read_to_string(root.join("README.md")).unwrap()], Vec::new());
    files(&root.join("docs"), "md", &mut texts);
    for folder in ["src", "crates", "tests"] {
        files(&root.join(folder), "rs", &mut sources);
    }
    // A test's name is a sentence.
    let is_a_name = |code: &&str| {
        code.matches('_').count() >= 3
            && code.bytes().all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte))
    };
    let named: BTreeSet<_> = texts.iter().flat_map(|text| text.split('`')).filter(is_a_name).collect();
    assert!(named.len() > 30, "{named:?}");
    let there: BTreeSet<_> = sources
        .iter()
        .flat_map(|source| source.split("fn ").skip(1))
        .filter_map(|definition| definition.split_once(['(', '<']).map(|(name, _)| name))
        .collect();
    let is_a_metric = |name: &str| name.contains("datakey_") || name.starts_with("process_");
    let missing: Vec<_> = named.iter().filter(|name| !is_a_metric(name) && !there.contains(**name)).collect();
    assert!(missing.is_empty(), "the documentation names tests that are not there: {missing:#?}");
}

#[test]
fn each_reason_has_a_section_in_the_troubleshooting_page() {
    let text = include_str!("../../docs/troubleshooting.md");
    let (_, by_reason) = text.split_once("\n## By reason\n").unwrap();
    let sections: Vec<_> = by_reason.split("\n### ").skip(1).collect();
    let titles: BTreeSet<_> = sections.iter().filter_map(|section| section.lines().next()).collect();
    assert_eq!(titles.len(), sections.len(), "a reason has two sections");
    assert_eq!(titles, datakey::reason::Reason::ALL.iter().map(|reason| reason.as_str()).collect());
    for section in sections {
        for part in ["\n**Meaning.** ", "\n**Cause.** ", "\n**What to do.**"] {
            assert_eq!(section.matches(part).count(), 1, "{part:?} in {section}");
        }
    }
}

#[test]
fn the_readme_is_short() {
    let lines = include_str!("../../README.md").lines().count();
    assert!(lines <= 150, "{lines} lines: move details to docs/");
}

#[test]
fn every_page_is_in_the_index() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let index = fs::read_to_string(docs.join("README.md")).unwrap();
    for entry in fs::read_dir(&docs).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(
                name == "README.md" || index.contains(&format!("]({name})")),
                "docs/README.md does not list {name}"
            );
        }
    }
}

/// What is there to be copied.
#[test]
fn every_json_and_yaml_block_of_the_documentation_can_be_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = vec![fs::read_to_string(root.join("README.md")).unwrap()];
    files(&root.join("docs"), "md", &mut texts);
    let mut read = 0;
    for text in &texts {
        for block in text.split("\n```").skip(1).step_by(2) {
            let (language, body) = block.split_once('\n').unwrap();
            let problem = match language {
                "json" => serde_json::from_str::<serde_json::Value>(body).err().map(|error| error.to_string()),
                "yaml" => serde_saphyr::from_str::<serde_json::Value>(body).err().map(|error| error.to_string()),
                _ => continue,
            };
            assert_eq!(problem, None, "{body}");
            read += 1;
        }
    }
    assert!(read > 5, "{read} blocks");
}

#[test]
fn each_term_of_the_glossary_has_one_or_two_sentences() {
    let text = include_str!("../../docs/glossary.md");
    let terms: Vec<_> = text.split("\n### ").skip(1).map(|term| term.split_once('\n').unwrap()).collect();
    assert!(terms.len() > 20 && terms.is_sorted_by_key(|(term, _)| term.to_lowercase()), "{terms:?}");
    for (term, explained) in terms {
        let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
        let sentences = explained.split(". ").count();
        assert!(explained.ends_with('.') && sentences <= 2, "{term}: {sentences} sentences");
    }
}

/// These tables are written by hand; the list of the names that never change is in stored_names.rs.
#[test]
fn the_reference_has_every_stored_label_annotation_and_entry() {
    let text = include_str!("../../docs/reference.md");
    for (place, names) in crate::stored_names::NAMES {
        if ["labels of a Secret", "annotations of a Secret", "entries of a Secret"].contains(&place) {
            for name in names {
                let shown = name.replace(".vN", ".v1");
                assert!(text.contains(&format!("`{shown}`")), "{place}: {name}");
            }
        }
    }
    for name in [VELERO_RESTORE_LABEL, RESTORED_ANNOTATION, RETRY_AT_ANNOTATION] {
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
}
