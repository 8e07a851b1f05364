//! `kubectl datakey keep`: changes an object from `deletionPolicy: Delete` to `Retain`, with the same Secret.
//!
//! `deletionPolicy` is immutable once a version is issued, so the command deletes the object without its Secret and
//! creates it again. Before it deletes anything, it saves the manifest in a file, with every recorded version as a pin.
//! After an interruption the file has all that is needed: the same command, or `kubectl create -f FILE`, finishes the
//! work. The operator never issues a pinned version again, so it does not call KMS even if the Secret is lost on the
//! way.

use std::path::{Path, PathBuf};

use datakey::api::{DataKey, KINDS, KeyKind as _, Kind};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{POLL_INTERVAL, Progress, grant_tokens, has_grant_tokens, managing_tool, wait, write_new_file};
use crate::{
    cli::Keep,
    cluster::{AnyKey, Cluster, FetchedKey},
    output::{CommandError, Output, Terminal, yaml},
    reference::{explicit, shown},
    view::secret_check::{SecretCheck, SecretVerdict},
};

mod messages;
mod plan;

use plan::{KeepStep, is_created_again, is_owned, is_retained, progress, require_intact, step};

/// Changes an object from `Delete` to `Retain`.
pub async fn run(cluster: &Cluster, terminal: &Terminal, args: &Keep) -> Result<Output, CommandError> {
    let fetched = cluster.locate(&args.name).await?;
    let known = fetched.as_ref().map(FetchedKey::kind).or(args.name.kind);
    let (file, saved) = find_saved(args, &cluster.namespace, known)?;
    let kind = known.or_else(|| kind_of(saved.as_ref()?)).unwrap_or(DataKey::KIND);
    let name = args.name.name.clone();
    let deadline = Instant::now() + args.timeout;
    let tokens = tokens(fetched.as_ref(), saved.as_ref());
    let mut keeper = Keeper { cluster, terminal, args, kind, name, file, tokens, output: Output::default(), deadline };
    match step(kind, &keeper.name, &cluster.namespace, fetched.as_ref(), saved)? {
        KeepStep::Nothing => Ok(Output::text(messages::retained_already(&shown(kind, &keeper.name)))),
        KeepStep::Replace(manifest) => {
            let Some(fetched) = &fetched else { return Ok(keeper.output) };
            require_intact(&keeper.check_secret(&fetched.key).await?, fetched)?;
            keeper.warn(fetched);
            // A manifest that the API server refuses must be known before anything is deleted.
            cluster.would_create(kind, &manifest).await.map_err(|error| error.redacted(&keeper.tokens))?;
            if args.dry_run {
                keeper.output.out = yaml(&manifest)?.into_bytes();
                return Ok(keeper.output);
            }
            keeper.confirm(&messages::question(fetched, &keeper.file))?;
            if read(&keeper.file)?.is_none() {
                write_new_file(&keeper.file, yaml(&manifest)?.as_bytes(), has_grant_tokens(fetched))?;
            }
            terminal.notes([messages::saved(kind, &keeper.file)]);
            // The time that the user took to answer does not count.
            keeper.deadline = Instant::now() + args.timeout;
            cluster.orphan(fetched).await.map_err(|error| keeper.not_deleted(error))?;
            keeper.create(&manifest, Some(fetched)).await
        }
        KeepStep::Create(manifest) => {
            // The file can come from a run in another cluster.
            if fetched.is_none() {
                let file = &keeper.file;
                let question =
                    messages::question_without_object(kind, &keeper.name, &cluster.namespace, &cluster.server, file);
                keeper.confirm(&question)?;
                keeper.deadline = Instant::now() + args.timeout;
            }
            keeper.create(&manifest, fetched.as_ref()).await
        }
        KeepStep::Verify(manifest) => keeper.verify(&manifest).await,
    }
}

/// Returns the grant tokens of the object and of the saved manifest.
fn tokens(fetched: Option<&FetchedKey>, saved: Option<&Value>) -> Vec<String> {
    let saved = saved.and_then(|saved| saved["spec"]["grantTokens"].as_array()).into_iter().flatten();
    let saved = saved.filter_map(Value::as_str).map(str::to_owned);
    fetched.into_iter().flat_map(grant_tokens).cloned().chain(saved).collect()
}

fn default_file(kind: &Kind, namespace: &str, name: &str) -> PathBuf {
    format!("{}-{namespace}-{name}.yaml", kind.name.to_lowercase()).into()
}

/// Returns the file to save to, and the manifest that an earlier run saved there. The kind is not known if a bare name is that of no
/// object; then the file of an earlier run names it.
fn find_saved(
    args: &Keep,
    namespace: &str,
    kind: Option<&'static Kind>,
) -> Result<(PathBuf, Option<Value>), CommandError> {
    let of = |kind: &Kind| default_file(kind, namespace, &args.name.name);
    let file = match (&args.to, kind) {
        (Some(file), _) => file.clone(),
        (None, _) if args.name.kind.is_none() => file_of_a_bare_name(kind, &args.name.name, of)?,
        (None, kind) => of(kind.unwrap_or(DataKey::KIND)),
    };
    let saved = if args.dry_run { None } else { read(&file)? };
    Ok((file, saved))
}

/// Returns the default file where the user names no kind. A file of another kind can be of a run that deleted its object and was
/// interrupted, so what the user means is not known then.
fn file_of_a_bare_name(
    found: Option<&'static Kind>,
    name: &str,
    of: impl Fn(&Kind) -> PathBuf,
) -> Result<PathBuf, CommandError> {
    let saved: Vec<_> = KINDS.into_iter().filter(|kind| of(kind).exists()).collect();
    match (found, &saved[..]) {
        (Some(kind), []) => Ok(of(kind)),
        (Some(kind), [saved]) if kind == *saved => Ok(of(kind)),
        (None, []) => Ok(of(DataKey::KIND)),
        (None, [saved]) => Ok(of(saved)),
        (found, saved) => {
            let kinds: Vec<_> = KINDS.into_iter().filter(|kind| found == Some(kind) || saved.contains(kind)).collect();
            let files: Vec<_> = saved.iter().map(|kind| of(kind).display().to_string()).collect();
            let names: Vec<_> = kinds.into_iter().map(|kind| explicit(kind, name)).collect();
            Err(CommandError::Usage(format!(
                "an earlier run saved {}, so what {name} means is not known: write {}",
                files.join(" and "),
                names.join(" or ")
            )))
        }
    }
}

fn kind_of(manifest: &Value) -> Option<&'static Kind> {
    KINDS.into_iter().find(|kind| manifest["kind"] == kind.name)
}

/// Reads the manifest that an earlier run saved, or returns `None` if there is no file.
fn read(file: &Path) -> Result<Option<Value>, CommandError> {
    let unusable = |error: &dyn std::fmt::Display| {
        CommandError::Failed(format!(
            "can't read {}: {error}; it may be the only copy of what was issued, so keep it, and name another file by --to",
            file.display()
        ))
    };
    match std::fs::read_to_string(file) {
        // An error of the YAML reader has several lines with a part of the file.
        Ok(text) => serde_saphyr::from_str(&text).map(Some).map_err(|_| unusable(&"it is no YAML")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(&error)),
    }
}

/// Carries out the steps of one run.
struct Keeper<'a> {
    cluster: &'a Cluster,
    terminal: &'a Terminal,
    args: &'a Keep,
    kind: &'static Kind,
    name: String,
    /// The file with the manifest.
    file: PathBuf,
    /// The grant tokens, which a message of the API server can repeat.
    tokens: Vec<String>,
    output: Output,
    deadline: Instant,
}

// === impl Keeper ===

impl Keeper<'_> {
    async fn check_secret(&self, key: &AnyKey) -> Result<SecretCheck, CommandError> {
        let secret = self.cluster.secret(&self.cluster.namespace, key.secret_name()).await?;
        Ok(SecretCheck::from_secret(key, secret.as_ref()))
    }

    fn warn(&mut self, fetched: &FetchedKey) {
        if let Some(tool) = managing_tool(fetched) {
            self.output.notes.push(messages::applied_by(self.kind, tool));
        }
        if fetched.key.metadata().owner_references.as_ref().is_some_and(|owners| !owners.is_empty()) {
            self.output.notes.push(messages::owners(fetched));
        }
        if has_grant_tokens(fetched) {
            self.output.notes.push(messages::GRANT_TOKENS.to_owned());
        }
    }

    /// Asks before the object is deleted or created, as `kubectl delete --interactive` does.
    fn confirm(&mut self, plan: &str) -> Result<(), CommandError> {
        self.terminal.notes(self.output.notes.drain(..));
        if self.args.yes || self.terminal.confirms(&[plan, "Do you want to continue?"]) {
            return Ok(());
        }
        Err(CommandError::Failed(messages::NOT_CONFIRMED.to_owned()))
    }

    /// Returns the error of a run that stopped while the object may be deleted.
    fn unfinished(&self, why: &impl std::fmt::Display) -> CommandError {
        CommandError::Failed(messages::unfinished(why, &explicit(self.kind, &self.name), &self.file))
            .redacted(&self.tokens)
    }

    /// Returns the error of a deletion that the API server did not confirm. After a refusal the object is as before.
    fn not_deleted(&self, error: CommandError) -> CommandError {
        match error {
            CommandError::Unanswered(_) | CommandError::NotReady(_) => self.unfinished(&error),
            refused => refused.redacted(&self.tokens),
        }
    }

    /// Reads until the API server answers, or the time is over.
    async fn answered<T>(&self, read: impl AsyncFn() -> Result<T, CommandError>) -> Result<T, CommandError> {
        let answer = wait::answered(self.deadline, POLL_INTERVAL, read).await;
        answer.map_err(|error| self.unfinished(&error))
    }

    /// Waits until the old object is deleted and its Secret has no owner, creates the new one, and verifies it.
    async fn create(self, manifest: &Value, old: Option<&FetchedKey>) -> Result<Output, CommandError> {
        while let Some(found) = self.find().await? {
            if is_retained(&found) {
                break;
            }
            if is_created_again(&found, old) {
                return Err(CommandError::NotReady(messages::created_again(&found, &self.file)));
            }
            self.pause(|| messages::still_being_deleted(&found)).await?;
        }
        self.wait_until_secret_is_free(manifest).await?;
        let created = self.cluster.create(self.kind, manifest).await;
        created.map_err(|error| self.unfinished(&error))?;
        self.verify(manifest).await
    }

    async fn find(&self) -> Result<Option<FetchedKey>, CommandError> {
        self.answered(async || self.cluster.find(self.kind, &self.name).await).await
    }

    /// Waits until the garbage collector has removed the owner reference from the Secret.
    ///
    /// It does that before the object is gone. If the reference remains, the garbage collector may delete the
    /// Secret, and the operator restores it from the pins; waiting longer does not help.
    async fn wait_until_secret_is_free(&self, manifest: &Value) -> Result<(), CommandError> {
        let name = manifest["spec"]["secretName"].as_str().unwrap_or(&self.name);
        loop {
            let secret = self.answered(async || self.cluster.secret(&self.cluster.namespace, name).await).await?;
            if !secret.is_some_and(|secret| is_owned(&secret, self.kind, &self.name)) {
                return Ok(());
            }
            if self.pause(String::new).await.is_err() {
                self.terminal.notes([messages::still_owned(self.kind, name)]);
                return Ok(());
            }
        }
    }

    /// Waits until the new object is Ready with the pinned versions, and its Secret holds them.
    async fn verify(mut self, manifest: &Value) -> Result<Output, CommandError> {
        // The new object gets a minimum of time even if the deletion took all of it.
        self.deadline = self.deadline.max(Instant::now() + POLL_INTERVAL * 20);
        loop {
            let Some(fetched) = self.find().await? else {
                return Err(self.unfinished(&messages::gone_again(self.kind, &self.name)));
            };
            let why = match progress(&fetched, manifest) {
                Progress::Failed(why) => return Err(self.not_ready(&why)),
                Progress::Pending(why) => why,
                Progress::Done => {
                    let check = self.answered(async || self.check_secret(&fetched.key).await).await?;
                    if check.state == SecretVerdict::Intact {
                        return Ok(self.success(&fetched));
                    }
                    format!("Secret {}", check.line())
                }
            };
            if self.pause(String::new).await.is_err() {
                return Err(self.not_ready(&why));
            }
        }
    }

    fn success(mut self, fetched: &FetchedKey) -> Output {
        self.output.out = messages::done(fetched).into();
        self.output.notes.push(messages::file_stays(self.kind, &self.file));
        self.output
    }

    fn not_ready(&self, why: &str) -> CommandError {
        CommandError::NotReady(messages::not_as_before(self.kind, &self.name, &self.cluster.namespace, why, &self.file))
    }

    /// Waits for one interval, or returns an error if that would pass the deadline.
    async fn pause(&self, why: impl FnOnce() -> String) -> Result<(), CommandError> {
        if Instant::now() + POLL_INTERVAL > self.deadline {
            return Err(CommandError::NotReady(messages::unfinished(
                &why(),
                &explicit(self.kind, &self.name),
                &self.file,
            )));
        }
        sleep(POLL_INTERVAL).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use datakey::api::DataKeyPair;
    use serde_json::json;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(words: &[&str]) -> Keep {
        match Cli::try_parse_from([&["kubectl-datakey", "keep", "tokens"], words].concat()).unwrap().command {
            Command::Keep(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bare_name_means_nothing_beside_a_file_of_another_kind() {
        let (key, pair) = (DataKey::KIND, DataKeyPair::KIND);
        let folder = std::env::temp_dir().join(format!("kubectl-datakey-kinds-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let of = |kind: &Kind| folder.join(kind.plural);
        let file = |found| file_of_a_bare_name(found, "tokens", of);
        assert_eq!(file(None), Ok(of(key)));
        assert_eq!(file(Some(pair)), Ok(of(pair)));
        std::fs::write(of(pair), "").unwrap();
        assert_eq!(file(None), Ok(of(pair)));
        assert_eq!(file(Some(pair)), Ok(of(pair)));
        let other = file(Some(key)).unwrap_err().to_string();
        assert!(
            other.ends_with("so what tokens means is not known: write datakey/tokens or datakeypair/tokens"),
            "{other}"
        );
        std::fs::write(of(key), "").unwrap();
        assert!([None, Some(key), Some(pair)].into_iter().all(|found| file(found).is_err()));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn file_of_an_earlier_run_names_the_kind() {
        let file = std::env::temp_dir().join(format!("kubectl-datakey-keep-{}.yaml", std::process::id()));
        std::fs::write(&file, "kind: DataKeyPair\n").unwrap();
        let to = format!("--to={}", file.display());
        let (found, saved) = find_saved(&args(&[&to]), "shop", None).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!((found, kind_of(&saved.unwrap())), (file, Some(DataKeyPair::KIND)));
        assert_eq!(kind_of(&json!({ "kind": "Secret" })), None);
    }

    #[test]
    fn each_kind_has_a_file_of_its_own() {
        for (kind, name) in [
            (Some(DataKeyPair::KIND), "datakeypair-shop-tokens.yaml"),
            (Some(DataKey::KIND), "datakey-shop-tokens.yaml"),
            (None, "datakey-shop-tokens.yaml"),
        ] {
            assert_eq!(find_saved(&args(&[]), "shop", kind).unwrap(), (name.into(), None));
        }
    }
}
