//! `exec`: runs a command with the keys in its open files.

use std::{collections::BTreeMap, ffi::OsString, io::ErrorKind, os::unix::process::CommandExt as _, process::Command};

use crate::{
    cli::ExecArgs,
    descriptors,
    encode::encode,
    ended::{Ended, Failure},
};

/// What the variables of the command begin with.
const PREFIX: &str = "DATAKEY_";

pub fn run(args: ExecArgs) -> Result<Ended, Failure> {
    let plan = super::plan(&args.keys)?;
    let (access, format) = args.output.access_and_format(plan.material)?;
    let (current, material) = (plan.current, plan.material);
    let mut variables = BTreeMap::new();
    // Dropped, and so overwritten, before the command is run.
    for key in super::unwrap(&args.keys, plan)? {
        let content = encode(&key, material, format)?;
        let name = format!("V{}", key.version);
        let path = descriptors::create_inherited(&format!("datakey-{name}"), &content, access).map_err(|error| {
            Failure::usage(format!("cannot keep a key in memory: {error}; each version needs an open file (ulimit -n)"))
        })?;
        let path = path.into_os_string();
        if current == key.version {
            variables.insert(format!("{PREFIX}CURRENT_FILE"), path.clone());
            variables.insert(format!("{PREFIX}CURRENT_VERSION"), key.version.to_string().into());
        }
        variables.insert(format!("{PREFIX}{name}_FILE"), path);
    }
    let words: Vec<_> = args.command.into_iter().map(|word| expand(word, &variables)).collect::<Result<_, _>>()?;
    let mut words = words.into_iter();
    // clap demands one.
    let program = words.next().unwrap_or_default();
    // A variable of a key that is not there must not come from elsewhere.
    let stale = std::env::vars_os().map(|(name, _)| name).filter(|name| is_own(name));
    let mut command = Command::new(&program);
    stale.for_each(|name| _ = command.env_remove(name));
    let error = command.args(words).envs(&variables).exec();
    let ended = if error.kind() == ErrorKind::NotFound { Ended::NotFound } else { Ended::NotExecutable };
    Err(Failure { ended, why: format!("cannot run {}: {error}", program.display()) })
}

/// Whether a variable is one that a command gets from here.
fn is_own(name: &std::ffi::OsStr) -> bool {
    name.to_str().and_then(|name| name.strip_prefix(PREFIX)).is_some_and(|name| {
        let number = name.strip_prefix('V').and_then(|name| name.strip_suffix("_FILE"));
        number.is_some_and(|number| number.parse::<u32>().is_ok()) || matches!(name, "CURRENT_FILE" | "CURRENT_VERSION")
    })
}

/// Replaces `{NAME}` by the variable of that name.
///
/// # Errors
/// It names a key that is not there: the command would use another file.
fn expand(word: OsString, variables: &BTreeMap<String, OsString>) -> Result<OsString, Failure> {
    // A word that is not UTF-8 stays as it is.
    let Some(text) = word.to_str().filter(|text| text.contains('{')) else { return Ok(word) };
    let replaced = variables
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), &value.to_string_lossy()));
    let mut names = replaced.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name);
    match names.find(|name| is_own(name.as_ref())) {
        Some(missing) => Err(Failure::try_again(format!(
            "there is no key for {{{missing}}} in the arguments of the command: the Secret has no such version, or --versions leaves it out"
        ))),
        None => Ok(replaced.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_get_the_paths_of_keys() {
        let variables = BTreeMap::from([("DATAKEY_CURRENT_FILE".to_owned(), OsString::from("/proc/self/fd/5"))]);
        for (word, expected) in [
            ("--password-file={DATAKEY_CURRENT_FILE}", "--password-file=/proc/self/fd/5"),
            ("{DATAKEY_CURRENT_FILE},{DATAKEY_CURRENT_FILE}", "/proc/self/fd/5,/proc/self/fd/5"),
            ("{DATAKEY_OTHER} {}", "{DATAKEY_OTHER} {}"),
        ] {
            assert_eq!(expand(word.into(), &variables), Ok(expected.into()));
        }
        let failure = expand("--key={DATAKEY_V7_FILE}".into(), &variables).unwrap_err();
        assert!(failure.why.contains("no key for {DATAKEY_V7_FILE}"), "{failure:?}");
    }

    #[test]
    fn variables_of_an_earlier_process_are_removed() {
        for (name, expected) in [
            ("DATAKEY_V1_FILE", true),
            ("DATAKEY_CURRENT_FILE", true),
            ("DATAKEY_CURRENT_VERSION", true),
            ("DATAKEY_VX_FILE", false),
            ("DATAKEY_PORT", false),
            ("V1_FILE", false),
        ] {
            assert_eq!(is_own(name.as_ref()), expected, "{name}");
        }
    }
}
