//! Decides what is unwrapped, under which KMS key and encryption context. Pure.
//!
//! The Secret names a KMS key and an encryption context for each version, and the arguments name those that are trusted. What the
//! Secret names chooses among the trusted ones and nothing else: a user who can write the Secret cannot have a key unwrapped that
//! the manifest of the workload does not accept.

use datakey::{
    api::{EncryptionContext, FIRST_VERSION, Material},
    text::{clause, printable_json},
};

use crate::{
    cli::{
        KeyArgs,
        values::{Trusted, Versions},
    },
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
    /// The wrapped key.
    pub wrapped: Wrapped,
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
        let is_selected = |version: &i32| match &args.versions {
            Versions::All => true,
            Versions::Current => *version == current,
            Versions::Only(numbers) => numbers.contains(version),
        };
        if let Versions::Only(numbers) = &args.versions
            && let Some(missing) = numbers.iter().find(|number| !source.versions.contains_key(number))
        {
            return Err(Failure::try_again(format!(
                "the Secret has no version {missing} yet, and --versions names it; version {current} is current"
            )));
        }
        check_pins(args, &source, is_selected)?;
        let calls = source.versions.into_iter().filter(|(version, _)| is_selected(version));
        let calls = calls.map(|(version, wrapped)| Call::new(args, version, wrapped)).collect::<Result<Vec<_>, _>>()?;
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
    fn new(args: &KeyArgs, version: i32, wrapped: Wrapped) -> Result<Self, Failure> {
        if let Some(pin) = args.blob_sha256.iter().find(|pin| pin.version == version) {
            let found = wrapped.sha256();
            if found != pin.sha256 {
                return Err(Failure::mismatch(format!(
                    "the wrapped key of version {version} has the SHA-256 {found}, and --blob-sha256 is {}: it was replaced",
                    pin.sha256
                )));
            }
        }
        let trusted = match &wrapped.claim {
            None => args.trust.clone(),
            Some(claim) => vec![chosen(&args.trust, version, claim)?.clone()],
        };
        Ok(Self { version, wrapped, trusted })
    }
}

/// The trusted KMS key and encryption context that the Secret names.
fn chosen<'a>(trust: &'a [Trusted], version: i32, claim: &Claim) -> Result<&'a Trusted, Failure> {
    let mut of_key = trust.iter().filter(|trusted| trusted.key_arn == claim.key_arn);
    if let Some(trusted) = of_key.clone().find(|trusted| trusted.context == claim.context) {
        return Ok(trusted);
    }
    Err(Failure::mismatch(match of_key.next() {
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
    }))
}

fn shown(context: &EncryptionContext) -> String {
    if context.is_empty() {
        return "none".to_owned();
    }
    printable_json(&serde_json::to_string(context).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests;
