//! `check`: unwraps the keys and forgets them.

use crate::{
    cli::CheckArgs,
    ended::{Ended, Failure},
};

pub fn run(args: &CheckArgs) -> Result<Ended, Failure> {
    let Some([one, other]) = args.same.as_deref() else {
        return super::unwrap(&args.keys, super::plan(&args.keys)?).map(|_| Ended::Success);
    };
    // A wrapped key that stands for both versions would prove nothing.
    let keys = super::unwrap(&args.keys, super::plan_without_rewraps(&args.keys)?)?;
    let find = |version: i32| {
        let key = keys.iter().find(|key| key.version == version);
        key.ok_or_else(|| Failure::usage(format!("--same: version {version} is not there, or not among --versions")))
    };
    if find(*one)?.plaintext == find(*other)?.plaintext {
        return Ok(Ended::Success);
    }
    Err(Failure::mismatch(format!("versions {one} and {other} have different plaintexts")))
}
