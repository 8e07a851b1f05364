//! What GitHub runs and updates: actions are pinned, and no folder with dependencies is forgotten.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::Value;

use crate::words::texts;

/// The actions that workflows use, with the rest of their lines.
fn used(workflow: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = workflow.lines().filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix("uses: "));
    lines.map(|line| line.split_once('@').unwrap_or((line, "")))
}

/// Whether it is a commit, followed by the version as a comment: a tag can be moved to other code, a commit cannot.
fn is_pinned(reference: &str) -> bool {
    let Some((commit, version)) = reference.split_once(" # v") else { return false };
    let numbers: Vec<_> = version.split('.').collect();
    commit.len() == 40
        && commit.bytes().all(|byte| b"0123456789abcdef".contains(&byte))
        && numbers.len() == 3
        && numbers.iter().all(|number| number.parse::<u32>().is_ok())
}

#[test]
fn actions_are_pinned_to_a_commit_with_their_version() {
    let mut pins = BTreeMap::new();
    for (path, text) in texts().iter().filter(|(path, _)| path.starts_with(".github/workflows/")) {
        for (action, reference) in used(text) {
            assert!(is_pinned(reference), "{path}: {action}@{reference}");
            let first = pins.entry(action.to_owned()).or_insert_with(|| reference.to_owned());
            assert_eq!(first, reference, "{action} has two versions");
        }
    }
    assert!(pins.len() > 10, "{pins:?}");
}

#[test]
fn a_tag_a_branch_and_a_short_commit_are_no_pins() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    assert!(is_pinned(&format!("{commit} # v1.2.3")));
    for reference in
        ["v5", "main", "v5 # v5.0.0", commit, &format!("{commit} # v5"), &format!("{} # v1.2.3", &commit[..12])]
    {
        assert!(!is_pinned(reference), "{reference}");
    }
}

/// What Dependabot would call the packages of a file.
fn ecosystem(path: &str, text: &str) -> Option<&'static str> {
    let name = Path::new(path).file_name()?.to_str()?;
    let is_text = Path::new(path).extension().is_some_and(|extension| extension == "txt");
    let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).peekable();
    match name {
        "go.mod" => Some("gomod"),
        "Cargo.lock" => Some("cargo"),
        "Dockerfile" => lines.any(|line| line.starts_with("FROM ") && line != "FROM scratch").then_some("docker"),
        "package.json" => Some("npm"),
        _ if is_text && lines.peek().is_some() => {
            lines.all(|line| line.contains("==") || line.starts_with("-r ")).then_some("pip")
        }
        _ => None,
    }
}

#[test]
fn dependabot_covers_every_folder_with_dependencies() {
    let texts = texts();
    let config: Value = serde_saphyr::from_str(&texts[".github/dependabot.yml"]).unwrap();
    let updates = config["updates"].as_array().unwrap();
    let mut folders = 0;
    for (path, text) in &texts {
        let Some(ecosystem) = ecosystem(path, text) else { continue };
        let folder = format!("/{}", path.rsplit_once('/').map_or("", |(folder, _)| folder));
        let covers = |update: &&Value| {
            let listed = update["directories"].as_array().into_iter().flatten().any(|listed| listed == &folder);
            update["package-ecosystem"] == ecosystem && listed
        };
        assert!(updates.iter().any(|update| covers(&update)), "{path}: {folder} is not listed for {ecosystem}");
        folders += 1;
    }
    assert!(folders > 15, "{folders}");
    // None is listed that is gone.
    for update in updates {
        for folder in update["directories"].as_array().into_iter().flatten() {
            let folder = format!("{}/", folder.as_str().unwrap().trim_matches('/'));
            let has_files = texts.keys().any(|path| folder == "/" || path.starts_with(&folder));
            assert!(has_files, "{folder}");
        }
    }
}

#[test]
fn release_publishes_every_image_with_its_own_list_of_parts() {
    let texts = texts();
    let workflow: Value = serde_saphyr::from_str(&texts[".github/workflows/release.yml"]).unwrap();
    let images = workflow["jobs"]["image"]["strategy"]["matrix"]["include"].as_array().unwrap();
    let field = |image: &Value, name: &str| image[name].as_str().unwrap().to_owned();
    let built: BTreeSet<_> = images.iter().map(|image| field(image, "file")).collect();
    let there = texts.keys().filter(|path| path.starts_with("deploy/") && path.ends_with("Dockerfile"));
    assert_eq!(built, there.cloned().collect());
    let makefile = &texts["deploy/dist.mk"];
    for image in images {
        let program = field(image, "program");
        let copies = format!("/{program} /{program}\n");
        assert!(texts[&field(image, "file")].contains(&copies), "{image}");
        // Those of the other architecture and of the other program have other names.
        let listed = format!(
            "{program}_bin_$(MUSL).cdx.json $(TARGET)/dist/{}",
            field(image, "sbom").replace("amd64", "$(GOARCH)")
        );
        assert!(makefile.contains(&listed), "{image}: {listed}");
    }
    let repositories: BTreeSet<_> = images.iter().map(|image| field(image, "repository")).collect();
    assert_eq!(repositories.len(), images.len(), "{repositories:?}");
}
