use datakey::fixtures::ARN;

use super::*;
use crate::{
    ended::Ended,
    fixtures::{key_args, mounted},
};

/// Another KMS key of the same account.
const OTHER_ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/99999999-12ab-34cd-56ef-1234567890ab";

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
    assert_eq!(plan_.calls[0].trusted, [Trusted { key_arn: OTHER_ARN.to_owned(), context: EncryptionContext::new() }]);
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
    let contexts: Vec<_> = plan.unwrap().calls.iter().map(|call| call.trusted[0].context["purpose"].clone()).collect();
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
    let tried: Vec<_> = plan_.calls[0].trusted.iter().map(|trusted| trusted.key_arn.as_str()).collect();
    assert_eq!(tried, [ARN, OTHER_ARN]);
    assert_eq!(plan(&[]).current, 1);
    for more in [&["--versions", "1,2"][..], &["--min-version", "1"]] {
        let failure = Plan::new(&key_args(&file, more), Source::read(&file).unwrap()).unwrap_err();
        assert_eq!(failure.ended, Ended::Usage, "{failure:?}");
    }
}
