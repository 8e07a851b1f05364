//! `file`: writes the keys into files in memory, and ends.

use std::collections::BTreeMap;

use crate::{
    cli::FileArgs,
    encode::encode,
    ended::{Ended, Failure, note},
    folder::Folder,
};

pub fn run(args: &FileArgs) -> Result<Ended, Failure> {
    let folder = Folder::open(&args.to)?;
    let plan = super::plan(&args.keys)?;
    let origin = super::origin(args, &plan)?;
    let (access, format) = args.output.access_and_format(plan.material)?;
    let material = plan.material;
    let keys = super::unwrap(&args.keys, plan)?;
    let contents = keys.iter().map(|key| Ok((key.version, encode(key, material, format)?)));
    let contents = contents.collect::<Result<BTreeMap<_, _>, Failure>>()?;
    folder.replace(&origin, &contents, access)?;
    let versions: Vec<_> = contents.keys().map(ToString::to_string).collect();
    let current = origin.current;
    note(&format!(
        "wrote the keys of version {} to {}; version {current} is current",
        versions.join(", "),
        args.to.display()
    ));
    Ok(Ended::Success)
}
