//! What is rewrapped, under which numbers, and which version becomes current. Pure.
//!
//! The record decides, and what the spec pins: never the Secret. Each distinct data key is rewrapped once: versions that are rewraps of
//! one another have the same data key, so one of them under the destination is enough.

use std::collections::BTreeMap;

use datakey::{
    api::{EncryptionContext, IssuedVersion, KeyRequest, MAX_VERSIONS, Object, RequestView, WrittenRequest},
    arn,
    rewraps::Rewraps,
    selection::Versions,
};
use thiserror::Error;

use super::destination::{changed_context, source_key};

pub use super::destination::Destination;

/// What a user asks for.
#[derive(Clone, Debug)]
pub struct Move {
    /// Where to.
    pub to: Destination,
    /// Which versions.
    pub versions: Versions,
    /// Only versions that this KMS key wrapped.
    pub from: Option<String>,
    /// Whether a new version is issued under the destination, where the current one is moved.
    pub rotates: bool,
    /// Whether objects are moved whose record came from pins or a Secret.
    pub includes_adopted: bool,
}

/// The plan for one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The rewraps, by their new numbers.
    pub rewraps: Vec<Rewrap>,
    /// The selected versions whose data key is under the destination already, each with the version that is.
    pub present: BTreeMap<i32, i32>,
    /// What becomes current.
    pub next: Next,
    /// How many of the 64 versions are used afterwards.
    pub used: usize,
}

/// One call of `ReEncrypt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrap {
    /// The version that is unwrapped.
    pub source: IssuedVersion,
    /// The version that KMS issued with this data key.
    pub root: i32,
    /// The number of the new version.
    pub number: i32,
    /// The ARN of the KMS key that unwraps, in the Region of the destination.
    pub source_key: String,
    /// The encryption context under which it is wrapped.
    pub context: EncryptionContext,
    /// The settings of the new version.
    pub request: KeyRequest,
    /// These as the spec has them, where a class changed them.
    pub as_written: Option<WrittenRequest>,
    /// The same by other versions with this data key, for the case that the KMS key of this one cannot be used any more.
    pub alternatives: Vec<Rewrap>,
}

/// What becomes current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The version that is current now.
    Unchanged,
    /// A version with the same data key, or one that was issued under the destination before.
    Existing(i32),
    /// A new data key, which the operator issues under the destination.
    New(i32),
}

/// Why an object cannot be moved.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Obstacle {
    /// There is nothing to move.
    #[error("no version is issued yet: change spec.keyId instead")]
    NotIssued,
    /// It does not stay.
    #[error("it is being deleted")]
    Deleting,
    /// Another cause, and what to do.
    #[error("{0}")]
    Blocked(String),
}

// === impl Plan ===

impl Plan {
    /// Plans a move of an object.
    ///
    /// # Errors
    /// Why it cannot be moved, and what to do.
    pub fn of(object: Object<'_>, wanted: &Move) -> Result<Self, Obstacle> {
        if object.metadata.deletion_timestamp.is_some() {
            return Err(Obstacle::Deleting);
        }
        if object.record().is_empty() {
            return Err(Obstacle::NotIssued);
        }
        Self::of_record(object, wanted).map_err(Obstacle::Blocked)
    }

    fn of_record(object: Object<'_>, wanted: &Move) -> Result<Self, String> {
        let all = All::of(object);
        let mut plan = Self { rewraps: Vec::new(), present: BTreeMap::new(), next: Next::Unchanged, used: 0 };
        let mut number = all.highest(object)?;
        for (root, sources) in all.selected(object, wanted)? {
            if let Some(there) = all.at(&wanted.to, root) {
                plan.present.extend(sources.iter().map(|source| (source.version, there)));
                continue;
            }
            number = following(number)?;
            plan.rewraps.push(Rewrap::of_any(&sources, root, number, wanted, object.spec.request)?);
        }
        if !plan.rewraps.is_empty() && !wanted.includes_adopted && is_adopted(object) {
            return Err(ADOPTED.to_owned());
        }
        plan.next = plan.next(object, &all, wanted, number)?;
        let is_new = |number: &i32| !all.versions.contains_key(number);
        let fresh = match plan.next {
            Next::New(number) => usize::from(is_new(&number)),
            // A version that is not issued yet takes a number, too.
            Next::Existing(_) | Next::Unchanged => usize::from(is_new(&object.wanted_version())),
        };
        plan.used = all.versions.len() + plan.rewraps.len() + fresh;
        if plan.used > MAX_VERSIONS {
            return Err(format!(
                "it has {} of {MAX_VERSIONS} versions, and {} more are needed: move fewer by --versions, or leave out the new data \
                 key by --no-rotate",
                all.versions.len(),
                plan.used - all.versions.len()
            ));
        }
        Ok(plan)
    }

    /// Whether the move concerns the object at all.
    pub fn is_concerned(&self) -> bool {
        !self.is_done() || !self.present.is_empty()
    }

    /// Whether there is nothing to do.
    pub fn is_done(&self) -> bool {
        self.rewraps.is_empty() && self.next == Next::Unchanged
    }

    /// The current version decides: where it is not moved, the spec stays as it is.
    fn next(&self, object: Object<'_>, all: &All<'_>, wanted: &Move, last: i32) -> Result<Next, String> {
        let current = object.wanted_version();
        let Some(issued) = all.versions.get(&current) else {
            // Nothing binds a version that is not issued: it is issued under the destination instead.
            let asks_there = wanted.to.is_asked_by(object.spec.request);
            let is_from = wanted.from.as_deref().is_none_or(|from| is_asked_from(object, from));
            let is_selected = is_from && !matches!(wanted.versions, Versions::Only(_));
            return Ok(if asks_there || !is_selected { Next::Unchanged } else { Next::New(current) });
        };
        if !wanted.selects(object, issued) {
            return Ok(Next::Unchanged);
        }
        if wanted.rotates {
            // One that KMS issued there is what a rotation would bring.
            let is_fresh = |issued: &IssuedVersion| wanted.to.has(issued) && issued.rewrap_of.is_none();
            if is_fresh(issued) {
                return Ok(Next::Unchanged);
            }
            // An earlier run had one issued there, and then the spec was set back, for example from Git. Otherwise each run would
            // need another one.
            let material = object.spec.request.material();
            let is_later = |issued: &&IssuedVersion| {
                issued.version > current && is_fresh(issued) && issued.request.material() == material
            };
            let later = object.record().iter().filter(is_later).map(|issued| issued.version).max();
            return later.map(Next::Existing).map_or_else(|| following(last).map(Next::New), Ok);
        }
        if wanted.to.has(issued) {
            return Ok(Next::Unchanged);
        }
        let root = all.rewraps.root(current);
        let planned = self.rewraps.iter().find(|rewrap| rewrap.root == root).map(|rewrap| rewrap.number);
        let there = planned.or_else(|| all.at(&wanted.to, root));
        Ok(there.map_or(Next::Unchanged, Next::Existing))
    }
}

/// Whether the spec names this KMS key: by its ARN, or by an alias or ID that was this KMS key when a version was issued.
fn is_asked_from(object: Object<'_>, from: &str) -> bool {
    let request = object.spec.request;
    let is_same = |issued: &&IssuedVersion| {
        let written = issued.written();
        (written.key_id, written.region) == (request.key_id, request.region)
    };
    let issued = object.record().iter().filter(is_same).max_by_key(|issued| issued.version);
    request.key_id == Some(from) || issued.is_some_and(|issued| arn::decrypts_for(from, &issued.key_id))
}

/// Whether a version came from pins or from a Secret, and not from KMS.
pub fn is_adopted(object: Object<'_>) -> bool {
    object.status.is_some_and(|status| status.adopted == Some(true))
}

/// A user of a namespace can pin the wrapped data key of another team. Its own workloads cannot unwrap it, but they may under the KMS
/// key or the encryption context that it is moved to.
const ADOPTED: &str = "it has versions that came from spec.wrappedKeys or from a Secret (status.adopted), and a user of the namespace can \
                       have put the wrapped data key of another team there: check that its versions, with their KMS keys and encryption \
                       contexts, are its own, and add --include-adopted";

/// The number after this one.
fn following(number: i32) -> Result<i32, String> {
    number
        .checked_add(1)
        .ok_or_else(|| format!("it has version {number}, the highest number there is: no version can follow"))
}

/// What is recorded, and what is pinned and will be.
struct All<'a> {
    versions: BTreeMap<i32, &'a IssuedVersion>,
    rewraps: Rewraps,
}

// === impl All ===

impl<'a> All<'a> {
    fn of(object: Object<'a>) -> Self {
        // The record takes precedence.
        let both = object.spec.pins.iter().chain(object.record());
        let versions: BTreeMap<_, _> = both.map(|issued| (issued.version, issued)).collect();
        let rewraps = Rewraps::of(versions.values().copied());
        Self { versions, rewraps }
    }

    /// The highest number that was ever used.
    fn highest(&self, object: Object<'_>) -> Result<i32, String> {
        let used = self.versions.keys().next_back().copied();
        used.map(|used| used.max(object.wanted_version())).ok_or_else(|| "no version is issued yet".to_owned())
    }

    /// The recorded versions that the user selects, by the version that their data key was issued as.
    fn selected(&self, object: Object<'a>, wanted: &Move) -> Result<BTreeMap<i32, Vec<&'a IssuedVersion>>, String> {
        if let Versions::Only(numbers) = &wanted.versions
            && let Some(missing) = numbers.iter().find(|number| object.recorded_version(**number).is_none())
        {
            let issued: Vec<_> = object.record().iter().map(|issued| issued.version.to_string()).collect();
            return Err(format!("it has no version {missing}: it has {}", issued.join(", ")));
        }
        let mut selected = BTreeMap::<_, Vec<_>>::new();
        for issued in object.record().iter().filter(|issued| wanted.selects(object, issued)) {
            selected.entry(self.rewraps.root(issued.version)).or_default().push(issued);
        }
        for sources in selected.values_mut() {
            sources.sort_by_key(|source| source.version);
        }
        Ok(selected)
    }

    /// The first version under the destination with the data key of this root.
    fn at(&self, to: &Destination, root: i32) -> Option<i32> {
        let is_there =
            |(number, issued): &(&i32, &&IssuedVersion)| self.rewraps.root(**number) == root && to.has(issued);
        self.versions.iter().find(is_there).map(|(number, _)| *number)
    }
}

// === impl Move ===

impl Move {
    /// Whether a version is moved.
    fn selects(&self, object: Object<'_>, issued: &IssuedVersion) -> bool {
        let is_named = self.versions.includes(issued.version, object.wanted_version());
        is_named && self.from.as_ref().is_none_or(|from| arn::decrypts_for(from, &issued.key_id))
    }
}

// === impl Rewrap ===

impl Rewrap {
    /// The call for the first of these versions that KMS can move there, with the others as alternatives. They are in ascending order:
    /// what is recorded never changes, so a later pin that names the data key falsely does not take the place of an earlier one.
    ///
    /// # Errors
    /// KMS can move none of them there.
    fn of_any(
        sources: &[&IssuedVersion],
        root: i32,
        number: i32,
        wanted: &Move,
        spec: RequestView<'_>,
    ) -> Result<Self, String> {
        let mut refused = None;
        let mut possible = Vec::new();
        for source in sources {
            match Self::of(source, root, number, wanted, spec) {
                Ok(rewrap) => possible.push(rewrap),
                Err(why) => _ = refused.get_or_insert(why),
            }
        }
        let mut possible = possible.into_iter();
        let first = possible.next();
        let alternatives = possible.collect();
        let first = first.map(|first| Self { alternatives, ..first });
        first.ok_or_else(|| refused.unwrap_or_else(|| "there is no version to move".to_owned()))
    }

    /// The call for this version, and the settings of what it returns.
    ///
    /// # Errors
    /// KMS cannot move it there.
    pub fn of(
        source: &IssuedVersion,
        root: i32,
        number: i32,
        wanted: &Move,
        spec: RequestView<'_>,
    ) -> Result<Self, String> {
        let Destination { key_arn, key_id, context } = &wanted.to;
        if let Some(field) = source.unknown_fields().next() {
            return Err(format!(
                "version {} has {field}, which this release does not know: install the plugin of the operator's version",
                source.version
            ));
        }
        let source_key =
            source_key(&source.key_id, key_arn).map_err(|why| format!("version {}: {why}", source.version))?;
        let (written, whole) = (source.written(), source.request.context());
        let (whole, written_context) = match context {
            None => (whole.clone(), written.context().clone()),
            Some(context) => (changed_context(source, context)?, context.clone()),
        };
        let region = wanted.to.region_of_spec(spec.region);
        let view = |context| RequestView { key_id: Some(key_id), region, encryption_context: Some(context), ..written };
        let as_written = (whole != written_context).then(|| view(&written_context).to_written());
        let of_context = |mut request: KeyRequest| {
            request.encryption_context = request.encryption_context.filter(|context| !context.is_empty());
            request
        };
        let request = view(&whole).to_request().map(of_context);
        let request = request.ok_or_else(|| "the destination names no KMS key".to_owned())?;
        let alternatives = Vec::new();
        Ok(Self { source: source.clone(), root, number, source_key, context: whole, request, as_written, alternatives })
    }
}

#[cfg(test)]
mod tests;
