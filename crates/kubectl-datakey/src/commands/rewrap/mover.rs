//! Moves objects: AWS KMS rewraps their versions, then the manifest is written, then the object in the cluster is changed.

use std::collections::BTreeMap;

use datakey::{api::IssuedVersion, arn::KmsArn};
use datakey_decrypt::{Caller, Cause, Destination as Under, Rewrapper};
use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;

use super::{
    cannot_be_moved, change,
    files::{self, Target},
    owners::Owners,
    plan::{Move, Plan, Rewrap},
    plan_of,
    rights::Rights,
    select,
};
use crate::{
    APP,
    cli::rewrap::Rewrap as Args,
    cluster::{Cluster, FetchedKey},
    commands::{
        grant_tokens, managing_tool, of_all,
        rollout::{Place, Rollout, health_of},
    },
    output::{CommandError, Output, Terminal},
    progress::ProgressBar,
    reference::plural,
};

/// How many objects are moved at the same time.
const CONCURRENT_MOVES: usize = 16;

/// How often a change starts again because another client, such as the operator, changed the object after it was read.
const ATTEMPTS: usize = 5;

/// Moves objects.
pub struct Mover<'a> {
    cluster: &'a Cluster,
    terminal: &'a Terminal,
    args: &'a Args,
    wanted: Move,
    owners: Owners<'a>,
    rewrapper: Rewrapper,
    target: Option<Target>,
    rights: Rights<'a>,
}

/// What became of an object.
#[derive(Debug, PartialEq, Eq)]
struct Moved {
    /// How many versions AWS KMS rewrapped in this run.
    rewraps: usize,
    /// Whether a file was written.
    is_written: bool,
    /// Whether the object in the cluster was changed.
    is_changed: bool,
    /// The version that the spec makes current.
    version: i32,
}

// === impl Mover ===

impl<'a> Mover<'a> {
    /// Reads the AWS configuration. Calls no service.
    pub async fn new(
        cluster: &'a Cluster,
        terminal: &'a Terminal,
        args: &'a Args,
        wanted: Move,
        owners: Owners<'a>,
    ) -> Result<Self, CommandError> {
        let region = KmsArn::parse(&wanted.to.key_arn).map(|arn| arn.region.to_owned());
        let caller = Caller { fallback_region: region, ..Caller::person(APP).with_overrides(args.aws.overrides()) };
        let rewrapper = Rewrapper::new(&caller).await.map_err(CommandError::Usage)?;
        let target =
            args.output.clone().map(|path| if args.name.is_some() { Target::File(path) } else { Target::Folder(path) });
        Ok(Self { cluster, terminal, args, wanted, owners, rewrapper, target, rights: Rights::new(cluster) })
    }

    /// Moves these objects.
    pub async fn run(&self, keys: Vec<&FetchedKey>) -> Result<Output, CommandError> {
        let nouns = plural(keys.iter().map(|fetched| fetched.kind().id));
        let count = keys.len();
        let mut rollout = Rollout { with_namespaces: self.args.all_namespaces, ..Rollout::default() };
        let (mut waiting, mut done) = (BTreeMap::new(), Vec::new());
        let tools = tools(&keys);
        let mut outcomes = stream::iter(keys)
            .map(async |fetched| (Place::of(fetched), self.moved(fetched).await))
            .buffer_unordered(CONCURRENT_MOVES);
        let mut bar = ProgressBar::of(self.terminal, count, &nouns);
        while let Some((place, outcome)) = outcomes.next().await {
            match outcome {
                Ok(moved) => {
                    waiting.insert(place, moved.version);
                    done.push(moved);
                }
                Err(error) => rollout.fail(&place, error.to_string(), health_of(&error)),
            }
            bar.show(done.len() + rollout.failures.len(), &rollout.failures.progress(done.len(), "moved"));
        }
        drop(bar);
        let mut output = Output::text(self.summary(&done, count, &nouns));
        if self.args.apply && !waiting.is_empty() {
            self.terminal.print(&output)?;
            output = Output::default();
            self.terminal.notes([format!("waiting until {} Ready", of_all(waiting.len(), count, &nouns))]);
            let look = async || select(self.cluster, self.args).await;
            rollout.wait(look, self.terminal, waiting, &nouns, self.args.timeout).await;
            output.out = format!("{} Ready\n", of_all(rollout.ready, count, &nouns)).into_bytes();
        }
        output.out.extend(rollout.failures.text(&nouns).bytes());
        output.health = rollout.health;
        if self.args.apply && self.target.is_none() && count > 0 {
            output.notes.push(note_about_git(&tools));
        }
        Ok(output)
    }

    fn summary(&self, done: &[Moved], count: usize, nouns: &str) -> String {
        let number = |of: fn(&Moved) -> bool| done.iter().filter(|moved| of(moved)).count();
        let rewraps: usize = done.iter().map(|moved| moved.rewraps).sum();
        let mut parts = vec![format!("{rewraps} version{} rewrapped by AWS KMS", if rewraps == 1 { "" } else { "s" })];
        if let Some(Target::File(path) | Target::Folder(path)) = &self.target {
            let path = path.display();
            parts.push(match number(|moved| moved.is_written) {
                0 if done.is_empty() => "no manifest written".to_owned(),
                0 => format!("every manifest is in {path} already"),
                1 => format!("1 manifest written to {path}"),
                written => format!("{written} manifests written to {path}"),
            });
        }
        if self.args.apply {
            let changed = number(|moved| moved.is_changed);
            parts.push(format!("{changed} of {count} {nouns} changed in the cluster"));
        }
        parts.join(", ") + "\n"
    }

    /// Moves one object: what AWS KMS does comes first, then the file, then the cluster.
    async fn moved(&self, fetched: &FetchedKey) -> Result<Moved, CommandError> {
        let outcome = self.try_moved(fetched).await;
        outcome.map_err(|error| error.redacted(grant_tokens(fetched)))
    }

    async fn try_moved(&self, fetched: &FetchedKey) -> Result<Moved, CommandError> {
        let file = self.target.as_ref().map(|target| target.file(fetched));
        let saved = match &file {
            Some(file) => files::saved(file, fetched).map_err(CommandError::Failed)?,
            None => None,
        };
        let is_written = file.is_some() && saved.is_none();
        let before = saved.as_ref().unwrap_or(fetched);
        let plan = self.plan(before)?;
        if let (Some(file), Some(saved)) = (&file, &saved) {
            let fits = change::check_saved(fetched, &self.plan(fetched)?, saved, &self.wanted);
            let fits = fits
                .and_then(|()| if plan.is_done() { Ok(()) } else { Err("does not have all of this move".to_owned()) });
            fits.map_err(|why| CommandError::Failed(files::unusable(file, &why)))?;
        }
        if self.args.apply && !plan.is_done() {
            self.rights.check(fetched).await?;
        }
        if let Some(file) = file.as_ref().filter(|_| is_written) {
            files::prepare(file).map_err(CommandError::Failed)?;
        }
        let pins = self.rewrapped(&plan).await?;
        let moved = change::moved(before, &plan, &self.wanted.to, &pins)?;
        if let Some(file) = file.filter(|_| is_written) {
            files::write(&file, fetched, &change::manifest(&moved)?).map_err(CommandError::Failed)?;
        }
        let is_changed = self.args.apply && self.apply(fetched, &moved).await?;
        Ok(Moved { rewraps: pins.len(), is_written, is_changed, version: moved.key.wanted_version() })
    }

    fn plan(&self, fetched: &FetchedKey) -> Result<Plan, CommandError> {
        plan_of(fetched, &self.wanted, &self.owners).map_err(|why| cannot_be_moved(fetched, &why))
    }

    /// Has AWS KMS rewrap what the plan says, all of it or none.
    async fn rewrapped(&self, plan: &Plan) -> Result<Vec<IssuedVersion>, CommandError> {
        let mut pins = Vec::new();
        for rewrap in &plan.rewraps {
            pins.push(self.pin(rewrap).await?);
        }
        Ok(pins)
    }

    /// Has AWS KMS rewrap a version or, if its KMS key cannot be used any more, another one with the same data key.
    async fn pin(&self, rewrap: &Rewrap) -> Result<IssuedVersion, CommandError> {
        let mut refused = None;
        for rewrap in std::iter::once(rewrap).chain(&rewrap.alternatives) {
            let to = Under { key_arn: &self.wanted.to.key_arn, context: &rewrap.context };
            match self.rewrapper.rewrap(&rewrap.source, &to).await {
                Ok(answer) => return Ok(rewrap.pin(answer, Timestamp::now())),
                Err(refusal) => {
                    let is_gone = matches!(refusal.cause, Cause::KeyUnusable | Cause::AccessDenied);
                    let why = format!("version {}: {}", rewrap.source.version, refusal.why);
                    let why = refused.get_or_insert(why);
                    if !is_gone {
                        return Err(CommandError::Failed(why.clone()));
                    }
                }
            }
        }
        Err(CommandError::Failed(refused.unwrap_or_default()))
    }

    /// Brings the object in the cluster to where it is moved. Returns whether it was changed.
    async fn apply(&self, fetched: &FetchedKey, moved: &FetchedKey) -> Result<bool, CommandError> {
        let mut before = fetched.clone();
        for _ in 0..ATTEMPTS {
            let Some(patch) = change::patch(&before, moved)? else { return Ok(false) };
            self.rights.check(&before).await?;
            if self.cluster.patch_unless_changed(&before, &patch, false).await?.is_some() {
                return Ok(true);
            }
            let now = self.cluster.refreshed(fetched).await?;
            // The operator writes the status at any time. Another spec or record can need another plan.
            if now.value["spec"] != before.value["spec"]
                || now.value["status"]["versions"] != before.value["status"]["versions"]
            {
                break;
            }
            before = now;
        }
        Err(CommandError::Failed(format!(
            "{} in namespace {} was changed by another client meanwhile, and stays as it is now: run the command again",
            fetched.titled(),
            fetched.namespace()
        )))
    }
}

/// The tools that apply these objects from Git.
fn tools(keys: &[&FetchedKey]) -> Vec<&'static str> {
    let mut tools: Vec<_> = keys.iter().filter_map(|fetched| managing_tool(fetched)).collect();
    tools.sort_unstable();
    tools.dedup();
    tools
}

fn note_about_git(tools: &[&str]) -> String {
    match tools {
        [] => "note: if you keep manifests of these objects, change them, too: run the same command with --output PATH, which writes \
               them"
            .to_owned(),
        tools => format!(
            "note: {} applies such an object from Git and sets spec back, unless you change it there, too: run the same command with \
             --output PATH, and commit what it writes",
            tools.join(" and ")
        ),
    }
}
