use datakey::{fixtures::ARN, rewraps::Rewraps};

use super::*;
use crate::{
    ended::Ended,
    fixtures::{key_args, mounted},
};

/// Other KMS keys of the same account.
const OTHER_ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/99999999-12ab-34cd-56ef-1234567890ab";
const THIRD_ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/33333333-12ab-34cd-56ef-1234567890ab";
const FOURTH_ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/44444444-12ab-34cd-56ef-1234567890ab";

/// The plan for a Secret with these versions, after a change of it.
fn plan(versions: &[i32], more: &[&str], change: impl Fn(&mut Source)) -> Result<Plan, Failure> {
    let folder = mounted(versions);
    let mut source = Source::read(folder.path()).unwrap();
    change(&mut source);
    Plan::new(&key_args(folder.path(), more), source)
}

fn selected(versions: &[i32], more: &[&str]) -> (Vec<i32>, i32) {
    let plan = plan(versions, more, |_| {}).unwrap();
    (plan.calls.iter().map(|call| call.version).collect(), plan.current)
}

#[test]
fn versions_are_selected() {
    assert_eq!(selected(&[1, 2, 3], &[]), (vec![1, 2, 3], 3));
    assert_eq!(selected(&[1, 2, 3], &["--versions", "current"]), (vec![3], 3));
    assert_eq!(selected(&[1, 2, 3], &["--versions", "1,3"]), (vec![1, 3], 3));
    assert_eq!(selected(&[1, 2, 3], &["--versions", "1,2"]), (vec![1, 2], 2));
    // The one that the arguments name is the one that the program uses.
    assert_eq!(selected(&[1, 2, 3], &["--versions", "2"]), (vec![2], 2));
}

#[test]
fn version_that_is_not_there_yet_can_come_later() {
    let failure = plan(&[1], &["--versions", "1,2"], |_| {}).unwrap_err();
    assert_eq!(failure.ended, Ended::TryAgain);
    assert!(failure.why.contains("no version 2 yet"), "{}", failure.why);
}

#[test]
fn earlier_version_does_not_come_back() {
    assert!(plan(&[1, 2], &["--min-version", "2"], |_| {}).is_ok());
    let failure = plan(&[1, 2], &["--min-version", "2"], |source| source.current = Some(1)).unwrap_err();
    assert_eq!(failure.ended, Ended::Mismatch);
    assert!(failure.why.contains("an earlier version came back"), "{}", failure.why);
}

#[test]
fn secret_chooses_among_trusted_keys_only() {
    type Change = fn(&mut Claim);
    let changes: [(Change, &str); 5] = [
        (|claim| claim.key_arn = OTHER_ARN.to_owned(), "which no --trust names"),
        (|claim| claim.key_arn = "alias/orders".to_owned(), "which no --trust names"),
        (|claim| claim.key_arn += "\n", "which no --trust names"),
        (|claim| claim.context = EncryptionContext::new(), "has the encryption context none"),
        (|claim| _ = claim.context.insert("stage".into(), "prod\u{1b}".into()), r#""stage":"prod\u001b""#),
    ];
    for (change, part) in changes {
        let failure = plan(&[1, 2], &[], |source| {
            change(source.versions.get_mut(&1).unwrap().claim.as_mut().unwrap());
        });
        let failure = failure.unwrap_err();
        assert_eq!(failure.ended, Ended::Mismatch, "{failure:?}");
        assert!(failure.why.contains(part) && failure.why.starts_with("version 1 "), "{}", failure.why);
    }
}

#[test]
fn each_trusted_key_has_its_own_context() {
    let other = format!("{OTHER_ARN} none");
    let trust = ["--trust", &other];
    let set = |arn: &'static str, context: EncryptionContext| {
        move |source: &mut Source| {
            let claim = source.versions.get_mut(&1).unwrap().claim.as_mut().unwrap();
            (claim.key_arn, claim.context) = (arn.to_owned(), context.clone());
        }
    };
    let orders = EncryptionContext::from([("purpose".to_owned(), "orders".to_owned())]);
    let plan_ = plan(&[1], &trust, set(OTHER_ARN, EncryptionContext::new())).unwrap();
    assert_eq!(
        plan_.calls[0].candidates[0].trusted,
        [Trusted { key_arn: OTHER_ARN.to_owned(), context: EncryptionContext::new() }]
    );
    assert!(plan(&[1], &trust, set(ARN, orders.clone())).is_ok());
    // Crosswise, nothing is accepted.
    assert!(plan(&[1], &trust, set(OTHER_ARN, orders)).is_err());
    assert!(plan(&[1], &trust, set(ARN, EncryptionContext::new())).is_err());
}

#[test]
fn one_key_is_trusted_with_two_contexts() {
    let moved = format!("{ARN} purpose=moved");
    let plan = plan(&[1, 2], &["--trust", &moved], |source| {
        let claim = source.versions.get_mut(&2).unwrap().claim.as_mut().unwrap();
        claim.context.insert("purpose".into(), "moved".into());
    });
    let contexts: Vec<_> =
        plan.unwrap().calls.iter().map(|call| call.candidates[0].trusted[0].context["purpose"].clone()).collect();
    assert_eq!(contexts, ["orders", "moved"]);
}

#[test]
fn pinned_data_key_cannot_be_replaced() {
    let folder = mounted(&[1]);
    let sha256 = Source::read(folder.path()).unwrap().versions[&1].sha256();
    let pin = format!("1={}", sha256.to_uppercase());
    assert!(plan(&[1], &["--blob-sha256", &pin], |_| {}).is_ok());
    let failure = plan(&[1], &["--blob-sha256", &pin], |source| source.versions.get_mut(&1).unwrap().blob[0] ^= 1);
    let failure = failure.unwrap_err();
    assert_eq!(failure.ended, Ended::Mismatch);
    assert!(failure.why.contains("it was replaced"), "{}", failure.why);
}

#[test]
fn pin_is_not_evaded_by_another_number() {
    let folder = mounted(&[1, 2]);
    let sha256 = Source::read(folder.path()).unwrap().versions[&1].sha256();
    let pin = format!("1={sha256}");
    let pinned =
        |more: &[&str], change: fn(&mut Source)| plan(&[1, 2], &[&["--blob-sha256", &pin], more].concat(), change);
    assert!(pinned(&["--versions", "1"], |_| {}).is_ok());
    let failure = pinned(&[], |_| {}).unwrap_err();
    assert_eq!(failure.ended, Ended::Mismatch);
    assert!(failure.why.contains("version 2 has no --blob-sha256"), "{}", failure.why);
    let failure = pinned(&[], |source| _ = source.versions.remove(&1)).unwrap_err();
    assert!(failure.why.contains("no version 1, and --blob-sha256 names it"), "{}", failure.why);
}

#[test]
fn current_version_must_be_there() {
    let failure = plan(&[1, 2], &[], |source| source.current = Some(3)).unwrap_err();
    assert_eq!(failure.ended, Ended::Mismatch);
}

#[test]
fn wrapped_bytes_get_their_number_from_the_arguments() {
    let folder = mounted(&[1]);
    let file = folder.path().join("blob");
    std::fs::write(&file, "wrapped").unwrap();
    let other = format!("{OTHER_ARN} none");
    let plan = |more: &[&str]| Plan::new(&key_args(&file, more), Source::read(&file).unwrap()).unwrap();
    let plan_ = plan(&["--versions", "7", "--trust", &other]);
    assert_eq!((plan_.current, plan_.calls[0].version), (7, 7));
    // Nothing names the KMS key: each trusted one is tried.
    let tried: Vec<_> = plan_.calls[0].candidates[0].trusted.iter().map(|trusted| trusted.key_arn.as_str()).collect();
    assert_eq!(tried, [ARN, OTHER_ARN]);
    assert_eq!(plan(&[]).current, 1);
    for more in [&["--versions", "1,2"][..], &["--min-version", "1"]] {
        let failure = Plan::new(&key_args(&file, more), Source::read(&file).unwrap()).unwrap_err();
        assert_eq!(failure.ended, Ended::Usage, "{failure:?}");
    }
}

/// A plan for three versions, the later two of which are rewraps of version 1 under other KMS keys.
fn moved(more: &[&str], change: impl Fn(&mut Source)) -> Result<Plan, Failure> {
    plan(&[1, 2, 3], more, |source| {
        for (version, key_arn) in [(2, OTHER_ARN), (3, THIRD_ARN)] {
            source.versions.get_mut(&version).unwrap().claim.as_mut().unwrap().key_arn = key_arn.to_owned();
        }
        source.rewraps = Rewraps::from_iter([(1, None), (2, Some(1)), (3, Some(1))]);
        change(source);
    })
}

/// The versions whose wrapped keys are tried for version 1.
fn candidates(plan: &Plan) -> Vec<i32> {
    plan.calls[0].candidates.iter().map(|candidate| candidate.version).collect()
}

fn set_key_arn(source: &mut Source, version: i32, key_arn: &str) {
    source.versions.get_mut(&version).unwrap().claim.as_mut().unwrap().key_arn = key_arn.to_owned();
}

/// The pin of a version: the SHA-256 of the wrapped key of another one, or its own.
fn pin(version: i32, of: i32) -> String {
    let folder = mounted(&[1, 2, 3]);
    format!("{version}={}", Source::read(folder.path()).unwrap().versions[&of].sha256())
}

#[test]
fn own_wrapped_key_is_tried_first_and_then_rewraps() {
    let (other, third) = (format!("{OTHER_ARN} purpose=orders"), format!("{THIRD_ARN} purpose=orders"));
    let all = ["--trust", &other, "--trust", &third];
    let plan = moved(&all, |_| {}).unwrap();
    let versions = |call: &Call| call.candidates.iter().map(|one| one.version).collect::<Vec<_>>();
    assert_eq!(plan.calls.iter().map(versions).collect::<Vec<_>>(), [[1, 2, 3], [2, 1, 3], [3, 1, 2]]);
    // Those that are not selected count, too.
    let plan = moved(&[&all[..], &["--versions", "1"]].concat(), |_| {}).unwrap();
    assert_eq!((plan.calls.len(), candidates(&plan)), (1, vec![1, 2, 3]));
    // Nothing but a rewrap has the same key.
    let plan = moved(&all, |source| source.rewraps = Rewraps::from_iter([(1, None), (2, None), (3, Some(2))]));
    assert_eq!(plan.unwrap().calls.iter().map(versions).collect::<Vec<_>>(), [vec![1], vec![2, 3], vec![3, 2]]);
}

#[test]
fn rewrap_is_tried_under_a_trusted_key_only() {
    let other = format!("{OTHER_ARN} purpose=orders");
    let trust = ["--trust", &other, "--versions", "1"];
    assert_eq!(candidates(&moved(&trust, |_| {}).unwrap()), [1, 2]);
    let wrong_context = format!("{OTHER_ARN} purpose=moved");
    let plan = moved(&["--trust", &wrong_context, "--versions", "1"], |_| {}).unwrap();
    assert_eq!(candidates(&plan), [1], "the KMS key is trusted with another encryption context");
    // AWS KMS would refuse a second wrapped key under the same KMS key for the same reason.
    let plan = moved(&trust, |source| set_key_arn(source, 3, OTHER_ARN)).unwrap();
    assert_eq!(candidates(&plan), [1, 2], "the earlier one: a later claim can be false");
    let plan = moved(&trust, |source| set_key_arn(source, 2, ARN)).unwrap();
    assert_eq!(candidates(&plan), [1]);
}

#[test]
fn rewrap_is_used_where_the_own_key_is_not_trusted() {
    let other = format!("{OTHER_ARN} purpose=orders");
    let distrusted = |source: &mut Source| set_key_arn(source, 1, FOURTH_ARN);
    let plan = moved(&["--trust", &other, "--versions", "1"], distrusted).unwrap();
    assert_eq!(candidates(&plan), [2]);
    assert!(plan.calls[0].own_refused.as_ref().unwrap().contains("which no --trust names"));
    let failure = moved(&["--versions", "1"], distrusted).unwrap_err();
    assert_eq!(failure.ended, Ended::Mismatch);
    let own = format!(
        "version 1 is wrapped by {FOURTH_ARN}, which no --trust names: the Secret was changed, or an argument is missing"
    );
    let rest = "; no --trust names the KMS key and encryption context of its rewraps (version 2, 3) either";
    assert_eq!(failure.why, own + rest);
}

#[test]
fn rewrap_counts_only_if_the_version_itself_is_pinned_to_it() {
    let other = format!("{OTHER_ARN} purpose=orders");
    let plan = |pins: &[String]| {
        let pins = pins.iter().flat_map(|pin| ["--blob-sha256", pin]).collect::<Vec<_>>();
        moved(&[&["--trust", &other, "--versions", "1"], &pins[..]].concat(), |_| {})
    };
    assert_eq!(candidates(&plan(&[pin(1, 1)]).unwrap()), [1]);
    assert_eq!(candidates(&plan(&[pin(1, 1), pin(2, 2)]).unwrap()), [1]);
    assert_eq!(candidates(&plan(&[pin(1, 1), pin(1, 2)]).unwrap()), [1, 2]);
    assert_eq!(candidates(&plan(&[pin(1, 2)]).unwrap()), [2]);
    let failure = plan(&[pin(1, 3)]).unwrap_err();
    assert!(failure.why.contains("it was replaced"), "the pinned one has a KMS key that is not trusted: {failure:?}");
    assert!(failure.why.contains("KMS key and encryption context of its rewraps (version 3) either"), "{failure:?}");
    assert!(failure.why.ends_with("no --blob-sha256 of version 1 names one of its rewraps (version 2)"), "{failure:?}");
}

#[test]
fn pins_are_not_evaded_by_a_false_rewrap() {
    let other = format!("{OTHER_ARN} purpose=orders");
    let pins = [pin(1, 1), pin(2, 2)];
    let attack = |pins: &[&str], change: fn(&mut Source)| {
        plan(&[1, 2], &[&["--trust", &other], pins].concat(), |source| {
            // Version 2 has a key of its own, under a trusted KMS key, and the Secret says that it is that of version 1.
            set_key_arn(source, 2, OTHER_ARN);
            source.rewraps = Rewraps::from_iter([(1, None), (2, Some(1))]);
            change(source);
        })
    };
    let pinned = ["--blob-sha256", &pins[0], "--blob-sha256", &pins[1]];
    let spoils: [fn(&mut Source); 3] = [
        |source| set_key_arn(source, 1, FOURTH_ARN),
        |source| source.versions.get_mut(&1).unwrap().claim.as_mut().unwrap().context.clear(),
        |source| source.versions.get_mut(&1).unwrap().blob[0] ^= 1,
    ];
    for (number, spoil) in spoils.into_iter().enumerate() {
        let failure = attack(&pinned, spoil).unwrap_err();
        assert_eq!(failure.ended, Ended::Mismatch, "{failure:?}");
        let part = "no --blob-sha256 of version 1 names one of its rewraps (version 2)";
        assert!(failure.why.contains(part), "{number}: {failure:?}");
    }
    // A trusted KMS key that did not wrap it is a mismatch for AWS KMS, after which nothing else is tried.
    assert_eq!(candidates(&attack(&pinned, |source| set_key_arn(source, 1, OTHER_ARN)).unwrap()), [1]);
    // Without pins, what the documentation says of other numbers holds for rewraps, too.
    assert_eq!(candidates(&attack(&[], |source| set_key_arn(source, 1, FOURTH_ARN)).unwrap()), [2]);
}

#[test]
fn set_of_files_belongs_to_what_can_give_its_keys() {
    let trust = format!("{OTHER_ARN} purpose=orders");
    let trust = ["--trust", &trust, "--versions", "1"];
    let sha256 = |more: &[&str], change: fn(&mut Source)| moved(more, change).unwrap().calls[0].candidates_sha256();
    assert_eq!(sha256(&["--versions", "1"], |_| {}), None, "its own wrapped key alone is compared already");
    let before = sha256(&trust, |_| {});
    let changes: [fn(&mut Source); 3] = [
        |source| source.rewraps = Rewraps::default(),
        |source| source.versions.get_mut(&2).unwrap().blob[0] ^= 1,
        |source| set_key_arn(source, 1, FOURTH_ARN),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert_ne!(sha256(&trust, change), before, "{number}");
    }
    // What is not accepted changes nothing.
    assert_eq!(sha256(&trust, |source| source.versions.get_mut(&3).unwrap().blob[0] ^= 1), before);
}
