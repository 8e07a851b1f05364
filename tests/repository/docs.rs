//! What the documentation says about tests is so.

use std::{collections::BTreeSet, fs, path::Path};

use datakey_operator::metrics::{Gauges, Metrics};

mod links;
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
        .filter_map(|definition| definition.split_once('(').map(|(name, _)| name))
        .collect();
    let is_a_metric = |name: &str| name.contains("datakey_") || name.starts_with("process_");
    let missing: Vec<_> = named.iter().filter(|name| !is_a_metric(name) && !there.contains(**name)).collect();
    assert!(missing.is_empty(), "the documentation names tests that are not there: {missing:#?}");
}

#[test]
fn the_readme_explains_every_reason() {
    let readme = include_str!("../../README.md");
    for &reason in datakey::reason::Reason::ALL {
        assert!(readme.contains(&format!("`{}`", reason.as_str())), "{reason:?}");
    }
}

#[test]
fn the_documentation_lists_every_metric_with_its_type() {
    let operations = include_str!("../../docs/operations.md");
    let rendered = Metrics::default().render(Gauges::default()).unwrap();
    let types = rendered.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut listed = 0;
    for (name, kind) in types {
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let row = operations.lines().find(|line| {
            let row = line.strip_prefix("| `").and_then(|line| line.strip_prefix(name)?.strip_prefix(suffix));
            row.is_some_and(|rest| rest.starts_with(['`', '{']))
        });
        let row = row.unwrap_or_else(|| panic!("docs/operations.md has no row for {name}{suffix}"));
        assert!(row.contains(&format!("| {kind} |")), "{name} is a {kind}: {row}");
        listed += 1;
    }
    assert!(listed > 10, "{rendered}");
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

/// So what it shows is what runs: tests/integration/consumers runs the files.
#[test]
fn every_documented_sample_is_cut_out_of_its_file() {
    const SAMPLES: &str = "../deploy/samples/consumers/";

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/consume.md")).unwrap();
    let mut shown = BTreeSet::new();
    let mut parts = text.split("\n```");
    while let (Some(before), Some(block)) = (parts.next(), parts.next()) {
        let (_, body) = block.split_once('\n').unwrap();
        let file = before.rsplit_once(SAMPLES).and_then(|(_, link)| link.split_once(')'));
        let (file, after) = file.unwrap_or_else(|| panic!("no link to a file before:\n{body}"));
        assert!(after.trim().is_empty(), "the link to {file} does not stand right before its block");
        let whole = fs::read_to_string(root.join("docs").join(SAMPLES).join(file)).unwrap();
        assert!(format!("\n{whole}").contains(&format!("\n{body}\n")), "{file} does not have this any more:\n{body}");
        shown.insert(file);
    }
    assert!(shown.len() > 7, "{shown:?}");
}
