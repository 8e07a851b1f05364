//! `kubectl datakey keep`: a `DataKey` under `deletionPolicy: Delete` becomes one under `Retain`, with the same Secret.
//!
//! `deletionPolicy` is fixed once a version is issued, so the `DataKey` is deleted without its Secret and created again.
//! The manifest is saved before anything is deleted and pins every recorded version: whatever interrupts the command, the
//! file has all that is needed, and running the command again, or `kubectl create -f FILE`, finishes it. A pinned version
//! is never issued again, so KMS is not called even if the Secret were lost on the way.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use datakey::api::{DataKey, DeletionPolicy};
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    answer::{Answer, Failure, yaml},
    args::Keep,
    cluster::{Cluster, Object},
    comparison::{Comparison, State},
    export::write,
    rotate::{EVERY, applied_by},
};

mod plan;

use plan::{Progress, Step, is_owned, progress, step};

/// Keeps the Secret of a `DataKey`.
pub async fn run(cluster: &Cluster, args: &Keep) -> Result<Answer, Failure> {
    let file = args.to.clone().unwrap_or_else(|| default_file(&cluster.namespace, &args.name));
    let saved = if args.dry_run { None } else { read(&file)? };
    let object = cluster.find(&args.name).await?;
    let mut keep = Keeping { cluster, args, file, answer: Answer::default(), until: Instant::now() + args.timeout };
    match step(&args.name, &cluster.namespace, object.as_ref(), saved)? {
        Step::Nothing => {
            let text =
                format!("{} has deletionPolicy Retain already: its Secret stays when it is deleted\n", args.name);
            Ok(Answer::text(text))
        }
        Step::Replace(manifest) => {
            let Some(object) = &object else { return Ok(keep.answer) };
            keep.secret_can_be_kept(object).await?;
            keep.warn(object);
            // What the API server would refuse later is refused while nothing is deleted.
            cluster.would_create(&manifest).await?;
            if args.dry_run {
                keep.answer.out = yaml(&manifest)?.into_bytes();
                return Ok(keep.answer);
            }
            keep.ask(object)?;
            if read(&keep.file)?.is_none() {
                write(&keep.file, yaml(&manifest)?.as_bytes())?;
            }
            eprintln!("saved the DataKey in {}", keep.file.display());
            // The time runs from the answer on.
            keep.until = Instant::now() + args.timeout;
            cluster.orphan(object).await.map_err(|failure| Failure::Work(keep.unfinished(&failure.to_string())))?;
            keep.create(&manifest).await
        }
        Step::Create(manifest) => keep.create(&manifest).await,
        Step::Verify(manifest) => keep.verify(&manifest).await,
    }
}

fn default_file(namespace: &str, name: &str) -> PathBuf {
    format!("datakey-{namespace}-{name}.yaml").into()
}

/// What an earlier run saved.
fn read(file: &Path) -> Result<Option<Value>, Failure> {
    let unusable = |error: &dyn std::fmt::Display| {
        Failure::Work(format!("can't read {}: {error}; remove it, or name another file by --to", file.display()))
    };
    match std::fs::read_to_string(file) {
        Ok(text) => serde_saphyr::from_str(&text).map(Some).map_err(|error| unusable(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(&error)),
    }
}

/// The command at work.
struct Keeping<'a> {
    cluster: &'a Cluster,
    args: &'a Keep,
    file: PathBuf,
    answer: Answer,
    until: Instant,
}

// === impl Keeping ===

impl Keeping<'_> {
    async fn comparison(&self, key: &DataKey) -> Result<(Option<Secret>, Comparison), Failure> {
        let secret = self.cluster.read_secret(&self.cluster.namespace, key.secret_name()).await?;
        let compared = Comparison::whole(key, secret.as_ref());
        Ok((secret, compared))
    }

    /// A Secret that the operator would not touch stays one. A missing or changed one comes back from the pins.
    async fn secret_can_be_kept(&mut self, object: &Object) -> Result<(), Failure> {
        let (_, compared) = self.comparison(&object.key).await?;
        match compared.state {
            State::Intact => Ok(()),
            State::Missing | State::Changed => {
                self.answer
                    .notes
                    .push(format!("note: Secret {}; the pins in the manifest bring it back", compared.line()));
                Ok(())
            }
            State::Conflict | State::NotIssued | State::Unknown => Err(Failure::NotReady(format!(
                "Secret {}, and nothing was done: see kubectl datakey status {}",
                compared.line(),
                self.args.name
            ))),
        }
    }

    fn warn(&mut self, object: &Object) {
        if let Some(tool) = applied_by(object) {
            self.answer.notes.push(format!(
                "note: {tool} applies this DataKey: set deletionPolicy to Retain there first and suspend it meanwhile, or it \
                 creates the DataKey under Delete again"
            ));
        }
        if object.key.spec.grant_tokens.is_some() {
            self.answer.notes.push("note: spec.grantTokens is in the manifest: keep the file from others".to_owned());
        }
    }

    /// Asks as `kubectl delete --interactive` does.
    fn ask(&mut self, object: &Object) -> Result<(), Failure> {
        for note in self.answer.notes.drain(..) {
            eprintln!("{note}");
        }
        if self.args.yes {
            return Ok(());
        }
        let (name, namespace) = (object.name(), object.namespace());
        eprint!(
            "DataKey {name} in namespace {namespace} will be saved in {}, deleted without its Secret {}, and created again \
             under deletionPolicy Retain.\nDo you want to continue? (y/n): ",
            self.file.display(),
            object.key.secret_name()
        );
        let mut line = String::new();
        let asked = std::io::stderr().flush().and_then(|()| std::io::stdin().read_line(&mut line));
        if asked.is_ok() && ["y", "yes"].contains(&line.trim().to_lowercase().as_str()) {
            return Ok(());
        }
        Err(Failure::Work("nothing was done: answer y, or add --yes".to_owned()))
    }

    /// What to say of a command that stopped while the `DataKey` may be gone.
    fn unfinished(&self, why: &str) -> String {
        format!(
            "{why}; to finish, run the same command again (with --to {file}), or kubectl create -f {file}",
            file = self.file.display()
        )
    }

    /// Waits until the `DataKey` is gone and its Secret free, creates it, and verifies it.
    async fn create(self, manifest: &Value) -> Result<Answer, Failure> {
        let name = &self.args.name;
        while let Some(found) = self.found().await? {
            if found.key.spec.deletion_policy() == DeletionPolicy::Retain {
                break;
            }
            self.pause(|| {
                let held = found.key.metadata.finalizers.as_ref().map(|held| held.join(", ")).unwrap_or_default();
                format!("DataKey {name} is still being deleted (finalizers: {held})")
            })
            .await?;
        }
        self.secret_is_free(manifest).await?;
        self.cluster.create(manifest).await.map_err(|failure| Failure::Work(self.unfinished(&failure.to_string())))?;
        self.verify(manifest).await
    }

    async fn found(&self) -> Result<Option<Object>, Failure> {
        let found = self.cluster.find(&self.args.name).await;
        found.map_err(|failure| Failure::Work(self.unfinished(&failure.to_string())))
    }

    /// Garbage collection has taken the owner reference away by the time the `DataKey` is gone. Where it did not, it may
    /// delete the Secret, and the pins bring it back: then waiting would help no one.
    async fn secret_is_free(&self, manifest: &Value) -> Result<(), Failure> {
        let secret = manifest["spec"]["secretName"].as_str().unwrap_or(&self.args.name);
        loop {
            let found = self.cluster.read_secret(&self.cluster.namespace, secret).await;
            let found = found.map_err(|failure| Failure::Work(self.unfinished(&failure.to_string())))?;
            if !found.is_some_and(|found| is_owned(&found, &self.args.name)) {
                return Ok(());
            }
            if self.pause(String::new).await.is_err() {
                eprintln!("note: Secret {secret} still has an owner reference to the deleted DataKey");
                return Ok(());
            }
        }
    }

    /// Waits until it is Ready with what was pinned, and its Secret holds that.
    async fn verify(mut self, manifest: &Value) -> Result<Answer, Failure> {
        let name = &self.args.name;
        // What was created may still have its time, where everything before took it.
        self.until = self.until.max(Instant::now() + EVERY * 20);
        loop {
            let Some(object) = self.found().await? else {
                return Err(Failure::Work(self.unfinished(&format!("DataKey {name} is gone again"))));
            };
            let why = match progress(&object, manifest) {
                Progress::GiveUp(why) => return Err(self.not_ready(&why)),
                Progress::GoOn(why) => why,
                Progress::Done => {
                    let (_, compared) = self.comparison(&object.key).await?;
                    if compared.state == State::Intact {
                        return Ok(self.kept(&object));
                    }
                    format!("Secret {}", compared.line())
                }
            };
            if self.pause(String::new).await.is_err() {
                return Err(self.not_ready(&why));
            }
        }
    }

    fn kept(mut self, object: &Object) -> Answer {
        let (name, secret, count) = (object.name(), object.key.secret_name(), object.key.record().len());
        self.answer.out =
            format!("{name} has deletionPolicy Retain, and Secret {secret} holds its data keys as before ({count})\n")
                .into();
        self.answer.notes.push(format!(
            "note: {} has the DataKey with its pins: commit it where the DataKey comes from, or remove the file",
            self.file.display()
        ));
        self.answer
    }

    fn not_ready(&self, why: &str) -> Failure {
        let name = &self.args.name;
        Failure::NotReady(format!(
            "DataKey {name} was created under deletionPolicy Retain, but is not as before: {why}; look at kubectl datakey \
             status {name}; {} has all its data keys",
            self.file.display()
        ))
    }

    /// Waits a moment, or fails where the time is over.
    async fn pause(&self, why: impl FnOnce() -> String) -> Result<(), Failure> {
        if Instant::now() + EVERY > self.until {
            return Err(Failure::NotReady(self.unfinished(&why())));
        }
        sleep(EVERY).await;
        Ok(())
    }
}
