//! Decides what is unwrapped, under which KMS key and encryption context. Pure.
//!
//! The Secret names a KMS key and an encryption context for each version, and the arguments name those that are trusted. What the
//! Secret names chooses among the trusted ones and nothing else: a user who can write the Secret cannot have a key unwrapped that
//! the manifest of the workload does not accept.
//!
//! A version can have its key under several KMS keys: AWS KMS wrapped it once more, as another version (`rewrapOf`). The wrapped
//! key of the version itself comes first; the others are for the time when its KMS key cannot be used any more.

use datakey::{
    api::{EncryptionContext, FIRST_VERSION, Material},
    secret::sha256,
    selection::Versions,
    text::{clause, printable_json},
};

use crate::{
    cli::{KeyArgs, values::Trusted},
    ended::Failure,
    source::{Claim, Source, Wrapped},
};

/// What is unwrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The current version if it is selected, else the highest selected one.
    pub current: i32,
    /// The calls, by version in ascending order.
    pub calls: Vec<Call>,
    /// What each plaintext must be.
    pub material: Material,
}

/// One version to unwrap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The version.
    pub version: i32,
    /// Its own wrapped key, and the public key that must belong to the plaintext.
    pub wrapped: Wrapped,
    /// The wrapped keys to try, in this order, at least one: its own, then those of the versions that have the same key. There is
    /// one for each KMS key and encryption context, because AWS KMS refuses a second one for the same reason.
    pub candidates: Vec<Candidate>,
    /// Why its own wrapped key is not among them.
    pub own_refused: Option<String>,
}

/// A wrapped key that gives the key of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The version of which it is the wrapped key.
    pub version: i32,
    /// What KMS unwraps.
    pub blob: Vec<u8>,
    /// The KMS keys to try, in this order: one, unless nothing names it.
    pub trusted: Vec<Trusted>,
}

// === impl Plan ===

impl Plan {
    /// Compares what is mounted with the arguments.
    ///
    /// # Errors
    /// Something is not what the arguments say, or a version is not there yet.
    pub fn new(args: &KeyArgs, source: Source) -> Result<Self, Failure> {
        let source = numbered(args, source)?;
        let current = source.current.ok_or_else(|| Failure::mismatch("no version is current"))?;
        if let Some(minimum) = args.min_version.filter(|minimum| current < *minimum) {
            return Err(Failure::mismatch(format!(
                "the Secret says that version {current} is current, and --min-version is {minimum}: an earlier version came back; \
                 find out who changed the Secret (kubectl datakey verify)"
            )));
        }
        if !source.versions.contains_key(&current) {
            return Err(Failure::mismatch(format!(
                "the Secret says that version {current} is current, and does not hold it: find out who changed it (kubectl datakey \
                 verify)"
            )));
        }
        let is_selected = |version: &i32| args.versions.includes(*version, current);
        if let Versions::Only(numbers) = &args.versions
            && let Some(missing) = numbers.iter().find(|number| !source.versions.contains_key(number))
        {
            return Err(Failure::try_again(format!(
                "the Secret has no version {missing} yet, and --versions names it; version {current} is current"
            )));
        }
        check_pins(args, &source, is_selected)?;
        let selected = source.versions.iter().filter(|(version, _)| is_selected(version));
        let calls = selected.map(|(version, own)| Call::new(args, &source, *version, own));
        let calls = calls.collect::<Result<Vec<_>, _>>()?;
        // What the arguments name alone is what the program uses; it must not lose its key where the Secret goes on.
        let current = if is_selected(&current) { Some(current) } else { calls.last().map(|call| call.version) };
        let current = current.ok_or_else(|| Failure::mismatch("no version is selected"))?;
        Ok(Self { current, calls, material: args.material()? })
    }
}

/// Refuses pins that a user of the Secret could evade by another number: if one version is pinned, all that are unwrapped are.
fn check_pins(args: &KeyArgs, source: &Source, is_selected: impl Fn(&i32) -> bool) -> Result<(), Failure> {
    let pinned = |version: &i32| args.blob_sha256.iter().any(|pin| pin.version == *version);
    if let Some(missing) = args.blob_sha256.iter().find(|pin| !source.versions.contains_key(&pin.version)) {
        return Err(Failure::try_again(format!(
            "the Secret has no version {}, and --blob-sha256 names it",
            missing.version
        )));
    }
    let mut selected = source.versions.keys().filter(|version| is_selected(version));
    match selected.find(|version| !args.blob_sha256.is_empty() && !pinned(version)) {
        Some(version) => Err(Failure::mismatch(format!(
            "version {version} has no --blob-sha256, and others have: name it too, or leave it out by --versions"
        ))),
        None => Ok(()),
    }
}

/// Gives wrapped bytes that have no number the one that `--versions` names.
fn numbered(args: &KeyArgs, mut source: Source) -> Result<Source, Failure> {
    if source.current.is_some() {
        return Ok(source);
    }
    let number = match &args.versions {
        Versions::All | Versions::Current => FIRST_VERSION,
        Versions::Only(numbers) => match numbers.iter().collect::<Vec<_>>()[..] {
            [number] => *number,
            _ => return Err(Failure::usage("--versions: a file of wrapped bytes has one version: name one number")),
        },
    };
    if args.min_version.is_some() {
        return Err(Failure::usage("--min-version: a file of wrapped bytes has no current version: leave it out"));
    }
    source.versions = source.versions.into_values().map(|wrapped| (number, wrapped)).collect();
    source.current = Some(number);
    Ok(source)
}

// === impl Call ===

impl Call {
    fn new(args: &KeyArgs, source: &Source, version: i32, own: &Wrapped) -> Result<Self, Failure> {
        let mut candidates = Vec::new();
        let own_refused = match accepted(args, version, version, own) {
            Ok(trusted) => {
                candidates.push(Candidate { version, blob: own.blob.clone(), trusted });
                None
            }
            Err(refusal) => Some(refusal),
        };
        let mut refused = Vec::new();
        for other in source.rewraps.same_as(version) {
            // Only the versions that are there have links.
            let Some(wrapped) = source.versions.get(&other) else { continue };
            match accepted(args, version, other, wrapped) {
                Ok(trusted) if candidates.iter().any(|candidate| candidate.trusted == trusted) => {}
                Ok(trusted) => candidates.push(Candidate { version: other, blob: wrapped.blob.clone(), trusted }),
                Err(refusal) => refused.push((other, refusal)),
            }
        }
        match own_refused {
            Some(refusal) if candidates.is_empty() => Err(none_accepted(version, &refusal, &refused)),
            refusal => {
                Ok(Self { version, wrapped: own.clone(), candidates, own_refused: refusal.map(|refusal| refusal.why) })
            }
        }
    }

    /// SHA-256 of what can give the key, and in which order; nothing if that is its own wrapped key alone.
    pub fn candidates_sha256(&self) -> Option<String> {
        if self.own_refused.is_none() && self.candidates.len() == 1 {
            return None;
        }
        let all: Vec<_> = self.candidates.iter().map(|one| (one.version, sha256(&one.blob), &one.trusted)).collect();
        Some(sha256(format!("{all:?}").as_bytes()))
    }
}

/// Why a wrapped key is not accepted.
struct Refusal {
    /// Whether another one has its place. Otherwise no argument trusts it.
    is_pin: bool,
    why: String,
}

/// The KMS keys under which the wrapped key `of` is accepted as that of `version`.
fn accepted(args: &KeyArgs, version: i32, of: i32, wrapped: &Wrapped) -> Result<Vec<Trusted>, Refusal> {
    let pins: Vec<_> = args.blob_sha256.iter().filter(|pin| pin.version == version).collect();
    let found = wrapped.sha256();
    // A rewrap has the key of the version by a claim of the Secret alone, so a pin of its own version does not count here.
    if !pins.is_empty() && pins.iter().all(|pin| pin.sha256 != found) {
        let pins: Vec<_> = pins.iter().map(|pin| pin.sha256.as_str()).collect();
        let why = format!(
            "the wrapped key of version {of} has the SHA-256 {found}, and --blob-sha256 is {}: it was replaced",
            pins.join(" or ")
        );
        return Err(Refusal { is_pin: true, why });
    }
    match &wrapped.claim {
        None => Ok(args.trust.clone()),
        Some(claim) => match chosen(&args.trust, of, claim) {
            Ok(trusted) => Ok(vec![trusted.clone()]),
            Err(why) => Err(Refusal { is_pin: false, why }),
        },
    }
}

/// The failure of a version of which no wrapped key is accepted.
fn none_accepted(version: i32, own: &Refusal, others: &[(i32, Refusal)]) -> Failure {
    let of = |is_pin: bool| -> Vec<_> {
        let those = others.iter().filter(|(_, refusal)| refusal.is_pin == is_pin);
        those.map(|(other, _)| other.to_string()).collect()
    };
    let mut why = vec![own.why.clone()];
    let (unpinned, untrusted) = (of(true), of(false));
    if !untrusted.is_empty() {
        let those = untrusted.join(", ");
        why.push(format!(
            "no --trust names the KMS key and encryption context of its rewraps (version {those}) either"
        ));
    }
    if !unpinned.is_empty() {
        let those = unpinned.join(", ");
        why.push(format!("no --blob-sha256 of version {version} names one of its rewraps (version {those})"));
    }
    Failure::mismatch(why.join("; "))
}

/// The trusted KMS key and encryption context that the Secret names.
fn chosen<'a>(trust: &'a [Trusted], version: i32, claim: &Claim) -> Result<&'a Trusted, String> {
    let mut of_key = trust.iter().filter(|trusted| trusted.key_arn == claim.key_arn);
    if let Some(trusted) = of_key.clone().find(|trusted| trusted.context == claim.context) {
        return Ok(trusted);
    }
    Err(match of_key.next() {
        Some(trusted) => format!(
            "version {version} has the encryption context {}, and --trust of its KMS key names {}: the Secret was changed, or \
             the argument is wrong",
            shown(&claim.context),
            shown(&trusted.context)
        ),
        None => format!(
            "version {version} is wrapped by {}, which no --trust names: the Secret was changed, or an argument is missing",
            clause(&claim.key_arn)
        ),
    })
}

fn shown(context: &EncryptionContext) -> String {
    if context.is_empty() {
        return "none".to_owned();
    }
    printable_json(&serde_json::to_string(context).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests;
