//! The arguments by which `datakey-unwrap` unwraps the versions of an object: what it trusts comes from the record.

use std::collections::BTreeSet;

use datakey::{
    api::{EncryptionContext, IssuedVersion},
    rewraps::Rewraps,
    selection::Versions,
};
use datakey_aws::parameters::encryption_context_argument;

use crate::{cli::inject::Inject, cluster::FetchedKey, commands::selected::select_version, output::CommandError};

/// How to unwrap an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwrapping {
    /// The namespace of the object and of its Secret.
    pub namespace: String,
    /// The name of the Secret.
    pub secret: String,
    /// The arguments, without those about places and AWS.
    pub args: Vec<String>,
    /// What the helper trusts, for the user to check.
    pub notes: Vec<String>,
}

// === impl Unwrapping ===

impl Unwrapping {
    /// The arguments for the record of an object.
    ///
    /// # Errors
    /// Returns an error if nothing is recorded, or if the flags do not fit the record.
    pub fn of(fetched: &FetchedKey, args: &Inject) -> Result<Self, CommandError> {
        let (titled, object) = (fetched.titled(), fetched.key.object());
        let current = select_version(object, None)?;
        let chosen = chosen(fetched, args.versions.as_ref(), current)?;
        if let Some(least) = args.min_version.filter(|least| *least > current.version) {
            let current = current.version;
            return Err(CommandError::NotReady(format!(
                "version {current} of {titled} is current, less than --min-version {least}: no pod could start"
            )));
        }
        let material = material(chosen[0]).ok_or_else(|| {
            CommandError::Failed(format!(
                "the record of {titled} names no length: install the plugin of the operator's version"
            ))
        })?;
        if let Some(other) = chosen.iter().find(|issued| self::material(issued).as_ref() != Some(&material)) {
            return Err(CommandError::Usage(format!(
                "version {} of {titled} is of another kind than version {}: choose versions of one kind by --versions",
                other.version, chosen[0].version
            )));
        }
        if let (Some(format), Some(material)) = (args.format, chosen[0].request.material()) {
            format
                .check_for(material)
                .map_err(|why| CommandError::Usage(format!("--format {}: {why}", format.as_str())))?;
        }
        // With `current`, any recorded version can become the current one, so the KMS keys of all versions are trusted.
        let trusted = if args.versions == Some(Versions::Current) {
            object.record().iter().collect()
        } else {
            with_rewraps(object.record(), chosen)
        };
        let mut trust: Vec<String> = Vec::new();
        let of_record = trusted.iter().map(|issued| (&issued.key_id, issued));
        let others = args.also_key_id.iter().flat_map(|key_id| trusted.iter().map(move |issued| (key_id, issued)));
        for (key_id, issued) in of_record.chain(others) {
            let flag = format!("--trust={key_id} {}", context(issued.request.context()));
            if !trust.contains(&flag) {
                trust.push(flag);
            }
        }
        let mut notes: Vec<_> =
            trust.iter().map(|flag| format!("note: trusted: {}", &flag["--trust=".len()..])).collect();
        notes.extend(note_about_pins(fetched, &trusted));
        trust.push(material);
        trust.extend(args.versions.as_ref().map(|versions| format!("--versions={versions}")));
        trust.extend(args.min_version.map(|least| format!("--min-version={least}")));
        trust.extend(args.format.map(|format| format!("--format={}", format.as_str())));
        Ok(Self { namespace: fetched.namespace(), secret: fetched.key.secret_name().to_owned(), args: trust, notes })
    }
}

/// A pin becomes the record without a call to AWS KMS, so its KMS key is the choice of the user who wrote it.
fn note_about_pins(fetched: &FetchedKey, trusted: &[&IssuedVersion]) -> Option<String> {
    let is_pinned =
        |issued: &&&IssuedVersion| fetched.key.pinned_versions().iter().any(|pin| pin.version == issued.version);
    let pinned: Vec<_> = trusted.iter().filter(is_pinned).map(|issued| issued.version.to_string()).collect();
    (!pinned.is_empty()).then(|| {
        format!(
            "note: spec.wrappedKeys of {} pins version {}: users who may write the spec can have chosen the KMS key, so check that it is \
             yours",
            fetched.titled(),
            pinned.join(", ")
        )
    })
}

/// Versions, and those that are unwrapped in their place when their KMS keys are gone.
fn with_rewraps<'a>(record: &'a [IssuedVersion], chosen: Vec<&'a IssuedVersion>) -> Vec<&'a IssuedVersion> {
    let rewraps = Rewraps::of(record);
    let others = chosen.iter().flat_map(|issued| rewraps.same_as(issued.version)).collect::<BTreeSet<_>>();
    let is_more = |issued: &&IssuedVersion| {
        others.contains(&issued.version) && chosen.iter().all(|chosen| chosen.version != issued.version)
    };
    let more: Vec<_> = record.iter().filter(is_more).collect();
    chosen.into_iter().chain(more).collect()
}

/// The versions that are unwrapped, at least one.
fn chosen<'a>(
    fetched: &'a FetchedKey,
    selection: Option<&Versions>,
    current: &'a IssuedVersion,
) -> Result<Vec<&'a IssuedVersion>, CommandError> {
    let object = fetched.key.object();
    match selection {
        Some(Versions::Current) => Ok(vec![current]),
        Some(Versions::Only(numbers)) => numbers.iter().map(|number| select_version(object, Some(*number))).collect(),
        None | Some(Versions::All) => Ok(fetched.key.record().iter().collect()),
    }
}

/// The flag of what a version is.
fn material(issued: &IssuedVersion) -> Option<String> {
    let request = &issued.request;
    let key = request.key_spec.map(|spec| format!("--key-spec={}", spec.as_str()));
    let bytes = || request.number_of_bytes.map(|bytes| format!("--number-of-bytes={bytes}"));
    let pair = || request.key_pair_spec.map(|spec| format!("--key-pair-spec={}", spec.as_str()));
    key.or_else(bytes).or_else(pair)
}

/// An encryption context as `--trust` takes it: `none` if it is empty.
fn context(context: &EncryptionContext) -> String {
    if context.is_empty() { "none".to_owned() } else { encryption_context_argument(context) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;
    use crate::{
        cli::{Cli, Command},
        fixtures::{ARN, edited, pair, ready, recorded},
    };

    fn unwrapping(fetched: &FetchedKey, flags: &[&str]) -> Result<Unwrapping, CommandError> {
        let words = [&["kubectl-datakey", "inject", "orders", "-f", "-"], flags].concat();
        let Command::Inject(args) = Cli::try_parse_from(words).unwrap().command else { panic!("no inject") };
        Unwrapping::of(fetched, &args)
    }

    fn args(fetched: &FetchedKey, flags: &[&str]) -> Vec<String> {
        unwrapping(fetched, flags).unwrap().args
    }

    #[test]
    fn each_key_and_context_of_the_record_is_trusted_once() {
        let other = ARN.replace("1234abcd", "4321abcd");
        let fetched = edited(ready(&[1, 2, 3]), |value| {
            value["status"]["versions"][2]["keyId"] = json!(other);
            value["status"]["versions"][2]["request"]["encryptionContext"] = json!({ "a": "b c", "d": "e" });
        });
        let first = format!("--trust={ARN} purpose=orders");
        let third = format!(r#"--trust={other} {{"a":"b c","d":"e"}}"#);
        assert_eq!(args(&fetched, &[]), [&first, &third, "--key-spec=AES_256"]);
        assert_eq!(args(&fetched, &["--versions=1,2"]), [&first, "--key-spec=AES_256", "--versions=1,2"]);
        assert_eq!(
            args(&fetched, &["--versions=current", "--min-version=2", "--format=hex"]),
            [&first, &third, "--key-spec=AES_256", "--versions=current", "--min-version=2", "--format=hex"]
        );
    }

    #[test]
    fn keys_of_rewraps_are_trusted_with_those_of_their_version() {
        let (other, third) = (ARN.replace("1234abcd", "4321abcd"), ARN.replace("1234abcd", "3333abcd"));
        let fetched = edited(ready(&[1, 2, 3, 4]), |value| {
            let versions = &mut value["status"]["versions"];
            versions[1]["keyId"] = json!(third);
            versions[2]["keyId"] = json!(other);
            versions[2]["rewrapOf"] = json!({ "version": 1, "requestId": "request" });
            versions[3]["rewrapOf"] = json!({ "version": 2 });
            versions[3]["request"]["encryptionContext"] = json!({});
        });
        let [first, second, of_first, of_second] = [
            format!("--trust={ARN} purpose=orders"),
            format!("--trust={third} purpose=orders"),
            format!("--trust={other} purpose=orders"),
            format!("--trust={ARN} none"),
        ];
        let spec = "--key-spec=AES_256";
        assert_eq!(args(&fetched, &[]), [&first, &second, &of_first, &of_second, spec]);
        assert_eq!(args(&fetched, &["--versions=1"]), [&first, &of_first, spec, "--versions=1"]);
        assert_eq!(args(&fetched, &["--versions=4"]), [&of_second, &second, spec, "--versions=4"]);
        assert_eq!(args(&fetched, &["--versions=1,3"]), [&first, &of_first, spec, "--versions=1,3"]);
        let current = args(&fetched, &["--versions=current"]);
        assert_eq!(current[..4], [first, second, of_first, of_second]);
    }

    #[test]
    fn kms_key_of_a_move_is_trusted_before_it() {
        let other = ARN.replace("1234abcd", "4321abcd");
        let fetched = edited(ready(&[1, 2]), |value| {
            value["status"]["versions"][1]["request"]["encryptionContext"] = json!({});
        });
        let trusts = |arn: &str| [format!("--trust={arn} purpose=orders"), format!("--trust={arn} none")];
        let [before, after] = [trusts(ARN), trusts(&other)];
        let wanted = [&before[..], &after, &["--key-spec=AES_256".to_owned()]].concat();
        assert_eq!(args(&fetched, &["--also-key-id", &other]), wanted);
        assert_eq!(args(&fetched, &["--also-key-id", ARN]), args(&fetched, &[]));
    }

    #[test]
    fn what_is_trusted_is_shown() {
        let pinned =
            edited(ready(&[1, 2]), |value| value["spec"]["wrappedKeys"] = json!([value["status"]["versions"][1]]));
        let notes = unwrapping(&pinned, &[]).unwrap().notes;
        assert_eq!(notes[0], format!("note: trusted: {ARN} purpose=orders"));
        assert!(notes[1].contains("DataKey orders pins version 2") && notes.len() == 2, "{notes:?}");
        assert_eq!(unwrapping(&pinned, &["--versions=1"]).unwrap().notes.len(), 1);
    }

    #[test]
    fn contexts_are_written_without_ambiguity() {
        let write = |value: serde_json::Value| context(&serde_json::from_value(value).unwrap());
        assert_eq!(write(json!({})), "none");
        assert_eq!(write(json!({ "a": "b", "c": "d/e:f" })), "a=b,c=d/e:f");
        assert_eq!(write(json!({ "a": "b,c=d" })), r#"{"a":"b,c=d"}"#);
        assert_eq!(write(json!({ "a": "\u{202e}" })), r#"{"a":"\u202e"}"#);
    }

    #[test]
    fn pair_is_named_by_its_kind() {
        assert_eq!(args(&pair(&[1]), &["--format=jwk"])[1..], ["--key-pair-spec=ECC_NIST_P256", "--format=jwk"]);
        assert!(
            unwrapping(&pair(&[1]), &["--format=hex"])
                .unwrap_err()
                .to_string()
                .contains("--format hex: a private key is written as pem, der or jwk")
        );
        assert!(unwrapping(&ready(&[1]), &["--format=pem"]).is_err());
    }

    #[test]
    fn versions_of_different_length_are_not_mixed() {
        let fetched = edited(ready(&[1, 2]), |value| {
            value["status"]["versions"][0]["request"]["keySpec"] = json!("AES_128");
        });
        let error = unwrapping(&fetched, &[]).unwrap_err();
        assert!(error.to_string().contains("version 2 of DataKey orders is of another kind than version 1"), "{error}");
        assert_eq!(args(&fetched, &["--versions=1"])[1], "--key-spec=AES_128");
    }

    #[test]
    fn what_is_not_issued_cannot_be_unwrapped() {
        assert!(matches!(unwrapping(&recorded(&[]), &[]), Err(CommandError::NotReady(_))));
        assert!(matches!(unwrapping(&ready(&[1]), &["--versions=2"]), Err(CommandError::Usage(_))));
        assert!(matches!(unwrapping(&ready(&[1]), &["--min-version=2"]), Err(CommandError::NotReady(_))));
    }
}
