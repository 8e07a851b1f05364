//! The krew manifest of the kubectl plugin is what krew demands and what the release makes.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::{Value, json};

const PLATFORMS: [&str; 4] = ["linux_amd64", "linux_arm64", "darwin_amd64", "darwin_arm64"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

/// What a release makes of the manifest, from a folder with checksums of these platforms; or why it can't.
fn rendered(platforms: &[&str]) -> Result<Value, String> {
    let folder = testbed::process::Workdir::new("krew");
    for platform in platforms {
        let archive = format!("kubectl-datakey_{platform}.tar.gz");
        let sum = datakey::secret::sha256(platform.as_bytes());
        std::fs::write(folder.file(&format!("{archive}.sha256")), format!("{sum}  {archive}\n")).unwrap();
    }
    let mut render = Command::new(root().join("deploy/krew/render.sh"));
    let output = render.arg("example/datakey-operator").arg(folder.path()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() {
        Ok(serde_saphyr::from_str(&text(output.stdout)).unwrap())
    } else {
        Err(text(output.stderr))
    }
}

#[test]
fn krew_manifest_has_this_version_and_every_platform() {
    let manifest = rendered(&PLATFORMS).unwrap();
    assert_eq!(manifest["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!(manifest["kind"], "Plugin");
    // krew runs kubectl-NAME.
    assert_eq!(manifest["metadata"], json!({ "name": "datakey" }));
    let spec = &manifest["spec"];
    assert_eq!(spec["version"], concat!("v", env!("CARGO_PKG_VERSION")));
    assert_eq!(spec["homepage"], "https://github.com/example/datakey-operator");
    let short = spec["shortDescription"].as_str().unwrap();
    assert!(short.len() <= 50 && !short.ends_with('.'), "krew-index demands it: {short}");
    let download =
        concat!("https://github.com/example/datakey-operator/releases/download/v", env!("CARGO_PKG_VERSION"));
    let expected: Vec<_> = PLATFORMS
        .iter()
        .map(|platform| {
            let (os, arch) = platform.split_once('_').unwrap();
            json!({
                "selector": { "matchLabels": { "os": os, "arch": arch } },
                "uri": format!("{download}/kubectl-datakey_{platform}.tar.gz"),
                "sha256": datakey::secret::sha256(platform.as_bytes()),
                "bin": "kubectl-datakey",
                "files": [{ "from": "kubectl-datakey", "to": "." }, { "from": "LICENSE", "to": "." }],
            })
        })
        .collect();
    assert_eq!(spec["platforms"], json!(expected));
    let fields: BTreeSet<_> = spec.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        ["caveats", "description", "homepage", "platforms", "shortDescription", "version"].into(),
        "krew knows no others"
    );
}

#[test]
fn krew_text_and_documentation_name_every_command() {
    let krew = text("deploy/krew/datakey.yaml");
    let page = text("docs/kubectl-datakey.md");
    let help = text("tests/repository/help/kubectl-datakey.txt");
    let (_, below) = help.split_once("\nCommands:\n").unwrap();
    let names = below.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    let names: Vec<_> = names.filter(|line| !line.starts_with(' ')).filter_map(|line| line.split(' ').next()).collect();
    assert!(names.len() > 14, "{names:?}");
    for name in names.into_iter().filter(|name| *name != "help") {
        // "create" is in "Creates", "retry" in "retries", and "public-key" in "public keys".
        let stem = name.strip_suffix(['e', 'y']).unwrap_or(name).to_lowercase().replace('-', " ");
        assert!(krew.to_lowercase().contains(&stem), "krew: {name}");
        assert!(page.contains(&format!("\n| `{name}")), "docs/kubectl-datakey.md: {name}");
    }
}

#[test]
fn a_release_without_an_archive_has_no_krew_manifest() {
    let error = rendered(&PLATFORMS[1..]).unwrap_err();
    assert!(error.contains("linux_amd64"), "{error}");
}

#[test]
fn the_release_makes_the_archives_that_the_krew_manifest_names() {
    let workflow: Value = serde_saphyr::from_str(&text(".github/workflows/release.yml")).unwrap();
    let built = workflow["jobs"]["plugin"]["strategy"]["matrix"]["include"].as_array().unwrap();
    let built: BTreeSet<_> = built.iter().map(|platform| platform["platform"].as_str().unwrap()).collect();
    assert_eq!(built, PLATFORMS.into());
    let folder = testbed::process::Workdir::new("krew");
    std::fs::write(folder.file("binary"), "of the plugin").unwrap();
    for platform in PLATFORMS {
        let mut archive = Command::new(root().join("deploy/krew/archive.sh"));
        let output = archive.arg(folder.file("binary")).arg(folder.path()).arg(platform).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let name = format!("kubectl-datakey_{platform}.tar.gz");
        let sum = datakey::secret::sha256(&std::fs::read(folder.file(&name)).unwrap());
        let written = std::fs::read_to_string(folder.file(&format!("{name}.sha256"))).unwrap();
        assert_eq!(written, format!("{sum}  {name}\n"));
        let listed = Command::new("tar").arg("-tzf").arg(folder.file(&name)).output().unwrap();
        assert_eq!(String::from_utf8(listed.stdout).unwrap(), "kubectl-datakey\nLICENSE\n");
    }
    assert!(text("deploy/dist.mk").contains("deploy/krew/archive.sh $(BUILT) $(PLUGIN) $(OS)_$(GOARCH)"));
}
