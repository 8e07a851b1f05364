//! `check`: unwraps the keys and forgets them.

use datakey::{rewraps::Rewraps, selection::Versions};

use crate::{
    cli::CheckArgs,
    ended::{Ended, Failure},
    plan::Plan,
    source::Source,
};

pub fn run(args: &CheckArgs) -> Result<Ended, Failure> {
    let Some([one, other]) = args.same.as_deref() else {
        return super::unwrap(&args.keys, super::plan(&args.keys)?).map(|_| Ended::Success);
    };
    let source = Source::read(&args.keys.from)?;
    if let Some(version) = [one, other].into_iter().find(|version| !source.versions.contains_key(version)) {
        return Err(Failure::usage(format!("--same: version {version} is not there")));
    }
    let mut keys = args.keys.clone();
    keys.versions = Versions::Only([*one, *other].into());
    // A wrapped key that stands for both versions would prove nothing.
    let plan = Plan::new(&keys, Source { rewraps: Rewraps::default(), ..source })?;
    let mut unwrapped = super::unwrap(&keys, plan)?.into_iter().map(|key| key.plaintext);
    let first = unwrapped.next();
    if unwrapped.all(|plaintext| Some(plaintext) == first) {
        return Ok(Ended::Success);
    }
    Err(Failure::mismatch(format!("versions {one} and {other} have different plaintexts")))
}
