//! What lies at the top of the repository, and that the Makefile names tests that exist.

use std::{collections::BTreeSet, process::Command};

use testbed::repository;

/// Everything at the top level. A scratch file that is committed by mistake fails the test.
const TOP_LEVEL: [&str; 21] = [
    ".ci",
    ".editorconfig",
    ".github",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "charts",
    "crates",
    "deny.toml",
    "deploy",
    "docs",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "src",
];

#[test]
fn top_level_has_no_other_file_or_folder() {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(repository()).output().unwrap();
    let paths = String::from_utf8(listed.stdout).unwrap();
    let found: BTreeSet<_> = paths.split_terminator('\0').filter_map(|path| path.split('/').next()).collect();
    assert_eq!(found, TOP_LEVEL.into_iter().chain(["tests"]).collect());
}

#[test]
fn core_tests_of_make_test_are_modules_that_exist() {
    let read = |path: &str| std::fs::read_to_string(repository().join(path)).unwrap();
    let (makefile, modules) = (read("Makefile"), read("tests/integration/main.rs"));
    let core = makefile.lines().find_map(|line| line.strip_prefix("CORE := ")).unwrap();
    let missing: Vec<_> = core
        .split_whitespace()
        .filter(|module| !modules.lines().any(|line| line == format!("mod {module};")))
        .collect();
    assert!(missing.is_empty() && core.split_whitespace().count() > 5, "{missing:?}");
}
