//! The commands of README.md and docs/, run one after another in one cluster. What replaces a part of one, and what is not
//! run, is in one table; a command that is new in the documentation is run, and fails here if it does not work.

pub mod commands;
mod shown;
mod table;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use testbed::{asset, control_plane::ControlPlane, iam, kms, proxy::KmsProxy, repository, tools};
use tokio::process;

use self::table::{FILES, MEANWHILE, MENTIONED, NOT_RUN, SUBSTITUTED};
use crate::{
    harness::{Operator, TestNamespace},
    releases::{stop, with_pods},
};

/// The registry whose images can be pulled.
const IMAGES: &str = "registry.example.com/";

/// The profiles of the AWS CLI in docs/tenancy.md, and their accounts.
pub const PROFILES: [(&str, &str); 2] = [("platform", kms::ACCOUNT), ("payroll", "222233334444")];

/// The file from which on no command may change a data key.
const INSTALLS: &str = "docs/install.md";

/// A reader who types the commands of the documentation in a copy of the repository.
struct Reader {
    test: TestNamespace,
    folder: PathBuf,
    /// The URL of the KMS server, which also serves IAM.
    iam_url: String,
    /// The operator that is deployed, and what distinguishes it from another one.
    operator: Option<(Value, Operator)>,
    /// The Secrets, and what their `DataKeys` record.
    held: Option<(Value, Vec<Value>)>,
    /// The table entries that were used: one that is not is stale.
    used: BTreeSet<&'static str>,
    /// Commands that print something else than the documentation shows.
    differing: Vec<String>,
}

// === impl Reader ===

impl Reader {
    async fn new() -> Self {
        let plane = Arc::new(ControlPlane::bare().await);
        let kubeconfig = plane.admin_kubeconfig();
        let address = TestNamespace::kms_address().await;
        let iam_url = format!("http://{address}");
        let kms = KmsProxy::start(address).await;
        let test = TestNamespace::on_control_plane("documented", plane, kubeconfig.clone(), kms).await;
        let folder = test.plane.workdir().file("reader");
        for made in ["", "bin", "target"] {
            fs::create_dir(folder.join(made)).unwrap();
        }
        fs::copy(kubeconfig, folder.join("kubeconfig")).unwrap();
        iam::write_profiles(&folder, &PROFILES);
        for part in ["charts", "deploy"] {
            symlink(repository().join(part), folder.join(part)).unwrap();
        }
        for (name, program) in [
            ("kubectl", asset("kubectl").unwrap()),
            ("helm", tools().join("bin/helm")),
            ("aws", tools().join("consumers/bin/aws")),
            ("kubectl-datakey", testbed::plugin()),
            ("datakey-unwrap", testbed::unwrap()),
        ] {
            symlink(program, folder.join("bin").join(name)).unwrap();
        }
        Self { test, folder, iam_url, operator: None, held: None, used: BTreeSet::new(), differing: Vec::new() }
    }

    /// Runs a script. Returns its output.
    async fn runs(&self, script: &str) -> String {
        let mut command = process::Command::new("bash");
        let path = format!("{}:/usr/bin:/bin", self.folder.join("bin").display());
        command.args(["-euo", "pipefail", "-c", script]).current_dir(&self.folder).env_clear();
        command.envs(kms::environment(&self.test.proxy.url())).env("AWS_DEFAULT_REGION", kms::REGION);
        command.env("AWS_ENDPOINT_URL_IAM", &self.iam_url);
        command.env("PATH", path).env("HOME", &self.folder).env("KUBECONFIG", self.folder.join("kubeconfig"));
        let run = testbed::commands::run(&mut command);
        let waits_for_pods = script.contains("--rollback-on-failure");
        let ended = if waits_for_pods { with_pods(&self.test.plane, run).await } else { run.await };
        ended.unwrap_or_else(|error| panic!("{script}\n{error}"))
    }

    async fn json(&self, what: &str) -> Value {
        serde_json::from_str(&self.runs(&format!("kubectl get {what} -o json")).await).unwrap()
    }

    /// Starts the operator that is deployed, and no other: of two, the one that watches all namespaces.
    async fn operator_follows(&mut self) {
        let list = self.json("deployments -A -l app.kubernetes.io/name=datakey-operator").await;
        let deployments = list["items"].as_array().unwrap();
        for deployment in deployments {
            let image = deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap();
            assert!(image.starts_with(IMAGES), "an image that can't be pulled: {image}");
        }
        let of_all = |deployment: &&Value| !deployment["spec"]["template"].to_string().contains("--namespace=");
        let Some(present) = deployments.iter().find(of_all).or(deployments.first()) else {
            if let Some((_, operator)) = self.operator.take() {
                stop(operator).await;
            }
            return;
        };
        let field = |name: &str| present["metadata"][name].as_str().unwrap();
        let known = serde_json::json!([present["metadata"]["uid"], present["metadata"]["generation"]]);
        if self.operator.as_ref().is_some_and(|(running, _)| *running == known) {
            return;
        }
        if let Some((_, operator)) = self.operator.take() {
            stop(operator).await;
        }
        let url = self.test.proxy.url();
        let operator = Operator::as_deployed(&self.test.plane, field("name"), field("namespace"), &url).await;
        self.operator = Some((known, operator));
    }

    /// Asserts that no data key changed since the last call.
    async fn assert_unchanged(&mut self, after: &str) {
        let secrets = self.json("secrets -n shop").await["items"].take();
        // Where there is no definition, there are no DataKeys. kubectl may print an empty list before it fails.
        let keys = "keys=$(kubectl get datakeys -n shop -o json) || keys='{\"items\": []}'; echo \"$keys\"";
        let keys = self.runs(keys).await;
        let keys: Value = serde_json::from_str(&keys).unwrap();
        let record = |key: &Value| key["status"]["versions"].clone();
        let versions: Vec<_> = keys["items"].as_array().unwrap().iter().map(record).collect();
        let (held, recorded) = self.held.get_or_insert_with(|| (secrets.clone(), versions.clone()));
        assert_eq!(secrets, *held, "Secrets after: {after}");
        assert!(versions.is_empty() || versions == *recorded, "the record after: {after}");
    }

    fn uses(&mut self, entry: &'static str) {
        self.used.insert(entry);
    }

    /// Runs a command of the documentation; `before` is the text before it.
    async fn types(&mut self, file: &str, text: &str, before: &str, shown: &str) {
        for (words, script, _) in MEANWHILE.iter().filter(|(words, _, _)| before.contains(words)) {
            self.uses(words);
            self.runs(script).await;
            self.operator_follows().await;
        }
        let mut command = text.to_owned();
        for (part, place, _) in SUBSTITUTED.iter().filter(|(part, _, _)| text.contains(part)) {
            self.uses(part);
            command = command.replace(part, place);
        }
        if shown::is_compared(file, &command) {
            let printed = self.runs(&format!("{command} 2>&1")).await;
            if shown::masked(shown) != shown::masked(&printed) {
                self.differing.push(format!("{file}: {text} prints:\n{printed}"));
            }
        } else {
            self.runs(&command).await;
        }
        if ["helm ", "kubectl apply", "kubectl delete"].iter().any(|change| command.starts_with(change)) {
            self.operator_follows().await;
            if [INSTALLS, "docs/operations.md"].contains(&file) {
                self.assert_unchanged(text).await;
            }
        }
    }
}

/// Whether one of the makefiles has the target of this command.
fn has_target(makefile: &str, command: &str) -> bool {
    command.split(' ').nth(1).is_some_and(|target| makefile.contains(&format!("\n{target}:")))
}

#[tokio::test]
async fn every_command_of_the_documentation_runs_in_its_order() {
    let root = repository();
    let makefiles = ["Makefile", "deploy/dist.mk", "tests/tools/tools.mk"];
    let makefile: String = makefiles.iter().map(|file| fs::read_to_string(root.join(file)).unwrap()).collect();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let mut reader = Reader::new().await;
    let (_, first) = readme.split_once("\n```yaml\n").unwrap();
    fs::write(reader.folder.join("orders.yaml"), first.split_once("\n```").unwrap().0).unwrap();

    let mut run = 0;
    for file in FILES {
        let mut before = String::new();
        for command in commands::commands(&fs::read_to_string(root.join(file)).unwrap()) {
            before.push_str(&command.before);
            let text = command.text.as_str();
            if let Some(name) = MENTIONED.iter().find(|name| **name == text) {
                reader.uses(name);
            } else if let Some((beginning, _)) = NOT_RUN.iter().find(|(beginning, _)| text.starts_with(beginning)) {
                assert!(!text.starts_with("make ") || has_target(&makefile, text), "{file}: no target: {text}");
                reader.uses(beginning);
            } else {
                eprintln!("{file}: {text}");
                reader.types(file, text, &before, &command.shown).await;
                before.clear();
                run += 1;
            }
        }
    }
    assert!(run > 40, "{run} commands run");
    assert!(reader.differing.is_empty(), "{}", reader.differing.join("\n"));
    let entries = SUBSTITUTED.iter().map(|entry| entry.0).chain(MEANWHILE.iter().map(|entry| entry.0));
    let entries: BTreeSet<_> = entries.chain(NOT_RUN.iter().map(|entry| entry.0)).chain(MENTIONED).collect();
    assert_eq!(entries, reader.used, "entries of the table that no command needs");
}

#[test]
fn every_file_of_the_documentation_is_read() {
    let docs = fs::read_dir(repository().join("docs")).unwrap().map(|file| file.unwrap().file_name());
    let markdown = docs.map(|name| format!("docs/{}", name.display())).filter(|name| is_markdown(Path::new(name)));
    let missing: Vec<_> = markdown.filter(|name| !FILES.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}
