use datakey::selection::Versions;
use serde_json::{Value, json};

use super::*;
use crate::{
    cluster::FetchedKey,
    fixtures::{ARN, edited, pair, ready, recorded},
    output::{json as to_json, yaml},
};

const ROLE: &str = "arn:aws:iam::111122223333:role/rewrap";

fn other() -> String {
    ARN.replace("1234abcd", "99999999")
}

/// The ARN of a multi-Region key in this Region.
fn multi_region(region: &str) -> String {
    format!("arn:aws:kms:{region}:111122223333:key/mrk-{}", "0a".repeat(16))
}

fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn wanted(key_arn: &str, context: Option<&EncryptionContext>) -> Move {
    let to = plan::Destination { key_arn: key_arn.to_owned(), key_id: key_arn.to_owned(), context: context.cloned() };
    Move { to, versions: Versions::All, from: None, rotates: true, includes_adopted: true }
}

fn of(fetched: &FetchedKey, key_id: &str, context: Option<&EncryptionContext>) -> RewrapPolicies {
    RewrapPolicies::of(&fetched.key, &wanted(key_id, context), Some(ROLE)).unwrap()
}

fn refusal(fetched: &FetchedKey, key_id: &str) -> String {
    RewrapPolicies::of(&fetched.key, &wanted(key_id, None), None).unwrap_err()
}

/// The version at this index under another KMS key.
fn under(fetched: FetchedKey, index: usize, key_id: &str) -> FetchedKey {
    edited(fetched, |value| value["status"]["versions"][index]["keyId"] = json!(key_id))
}

/// The version at this index with another encryption context.
fn with_context(fetched: FetchedKey, index: usize, context: &EncryptionContext) -> FetchedKey {
    edited(fetched, |value| value["status"]["versions"][index]["request"]["encryptionContext"] = json!(context))
}

/// The action, resource and condition of each statement.
fn rights(policies: &RewrapPolicies) -> Vec<(String, String, Value)> {
    let right = |statement: &Statement| {
        let value = json!(statement);
        (statement.action.clone(), value["Resource"].as_str().unwrap().to_owned(), value["Condition"].clone())
    };
    policies.rewrap.statement.iter().map(right).collect()
}

/// The condition on an encryption context of one pair.
fn of_pair(key: &str, value: &str, is_same_key: bool) -> Value {
    json!({
        "StringEquals": { format!("kms:EncryptionContext:{key}"): value },
        "ForAllValues:StringEquals": { "kms:EncryptionContextKeys": key },
        "Bool": { "kms:ReEncryptOnSameKey": is_same_key.to_string() },
    })
}

fn right(action: &str, resource: &str, condition: Value) -> (String, String, Value) {
    (format!("kms:{action}"), resource.to_owned(), condition)
}

#[test]
fn policies_are_about_the_selected_versions() {
    let key = under(ready(&[1, 2]), 1, &other());
    let third = ARN.replace("1234abcd", "77777777");
    let sources = |narrow: fn(&mut Move)| {
        let mut wanted = wanted(&third, None);
        narrow(&mut wanted);
        let policies = RewrapPolicies::of(&key.key, &wanted, Some(ROLE)).unwrap();
        let from = rights(&policies).into_iter().filter(|(action, ..)| action == "kms:ReEncryptFrom");
        from.map(|(_, arn, _)| arn).collect::<Vec<_>>()
    };
    assert_eq!(sources(|_| {}), [ARN.to_owned(), other()]);
    assert_eq!(sources(|wanted| wanted.versions = Versions::Only([2].into())), [other()]);
    assert_eq!(sources(|wanted| wanted.from = Some(ARN.to_owned())), [ARN]);
}

#[test]
fn one_statement_unwraps_and_one_wraps() {
    let policies = of(&ready(&[1, 2]), &other(), None);
    let orders = of_pair("purpose", "orders", false);
    assert_eq!(
        rights(&policies),
        [right("ReEncryptFrom", ARN, orders.clone()), right("ReEncryptTo", &other(), orders.clone())]
    );
    let of_keys = &policies.key_policy_statements.0;
    assert_eq!(of_keys.keys().cloned().collect::<Vec<_>>(), [ARN.to_owned(), other()]);
    for (arn, action) in [(ARN, "kms:ReEncryptFrom"), (&other(), "kms:ReEncryptTo")] {
        let [statement] = of_keys[arn].as_slice() else { panic!("one for each side: {of_keys:?}") };
        let value = json!(statement);
        assert_eq!((&value["Principal"], &value["Resource"]), (&json!({ "AWS": ROLE }), &json!("*")), "{arn}");
        assert_eq!((statement.action.as_str(), &value["Condition"]), (action, &orders), "{arn}");
    }
}

#[test]
fn each_recorded_key_and_context_has_a_statement() {
    let (third, bank) = (ARN.replace("1234abcd", "88888888"), context(&[("purpose", "bank")]));
    let key = with_context(under(ready(&[1, 2, 3, 4]), 1, &third), 2, &bank);
    let (orders, banks) = (of_pair("purpose", "orders", false), of_pair("purpose", "bank", false));
    let from = [
        right("ReEncryptFrom", ARN, orders.clone()),
        right("ReEncryptFrom", &third, orders.clone()),
        right("ReEncryptFrom", ARN, banks.clone()),
    ];
    let to = [right("ReEncryptTo", &other(), orders), right("ReEncryptTo", &other(), banks)];
    let policies = of(&key, &other(), None);
    assert_eq!(rights(&policies), [&from[..], &to].concat(), "each version keeps its context");
    let sids: Vec<_> = policies.rewrap.statement.iter().map(|statement| statement.sid.as_str()).collect();
    assert_eq!(sids, ["RewrapsFrom", "RewrapsFrom2", "RewrapsFrom3", "RewrapsTo", "RewrapsTo2"]);

    let one = context(&[("purpose", "all")]);
    let to = [right("ReEncryptTo", &other(), of_pair("purpose", "all", false))];
    assert_eq!(rights(&of(&key, &other(), Some(&one))), [&from[..], &to].concat(), "all get one context");
}

#[test]
fn same_key_is_allowed_only_where_the_context_changes() {
    let all = context(&[("purpose", "all")]);
    let here = [
        right("ReEncryptFrom", ARN, of_pair("purpose", "orders", true)),
        right("ReEncryptTo", ARN, of_pair("purpose", "all", true)),
    ];
    let policies = of(&ready(&[1]), ARN, Some(&all));
    assert_eq!(rights(&policies), here);
    assert_eq!(policies.key_policy_statements.0[ARN].len(), 2, "one KMS key is both");
    let mixed = of(&under(ready(&[1, 2]), 1, &other()), ARN, Some(&all));
    assert_eq!(
        rights(&mixed),
        [
            here[0].clone(),
            right("ReEncryptFrom", &other(), of_pair("purpose", "orders", false)),
            here[1].clone(),
            right("ReEncryptTo", ARN, of_pair("purpose", "all", false)),
        ]
    );
}

#[test]
fn absence_of_a_context_is_a_condition_too() {
    let none = EncryptionContext::default();
    let policies = of(&ready(&[1]), &other(), Some(&none));
    let condition = json!({
        "Null": { "kms:EncryptionContextKeys": "true" },
        "Bool": { "kms:ReEncryptOnSameKey": "false" },
    });
    assert_eq!(rights(&policies)[1], right("ReEncryptTo", &other(), condition.clone()));
    let from_none = of(&with_context(ready(&[1]), 0, &none), &other(), Some(&context(&[("purpose", "orders")])));
    assert_eq!(rights(&from_none)[0], right("ReEncryptFrom", ARN, condition));
}

#[test]
fn iam_policy_has_no_wildcard() {
    let keys = [ready(&[1, 2]), pair(&[1]), under(ready(&[1, 2]), 0, &multi_region("us-east-1"))];
    for fetched in keys {
        let text = json!(of(&fetched, &other(), None).rewrap).to_string();
        assert!(!text.contains('*') && text.contains(&other()), "{text}");
    }
}

#[test]
fn what_is_there_already_needs_no_statement() {
    let moved = under(ready(&[1, 2]), 1, &other());
    assert_eq!(rights(&of(&moved, &other(), None)).len(), 2, "version 1 alone");
    let all = refusal(&ready(&[1, 2]), ARN);
    assert!(all.contains("every selected version of orders is already under this KMS key"), "{all}");
    let orders = context(&[("purpose", "orders")]);
    let destination = wanted(ARN, Some(&orders));
    assert!(RewrapPolicies::of(&ready(&[1]).key, &destination, None).is_err(), "the same context by name");
}

#[test]
fn without_a_record_the_error_says_what_to_do() {
    let error = refusal(&recorded(&[]), &other());
    for words in ["orders has no issued version yet", "kubectl datakey status orders -n shop", "spec.keyId"] {
        assert!(error.contains(words), "{words}: {error}");
    }
    let error = refusal(&ready(&[1]), "alias/orders");
    assert_eq!(error, "alias/orders is not the ARN of a KMS key");
}

#[test]
fn multi_region_key_unwraps_in_the_region_of_the_destination() {
    let (here, there) = (multi_region("eu-west-1"), multi_region("us-east-1"));
    let destination = other().replace("eu-west-1", "us-east-1");
    let policies = of(&under(ready(&[1]), 0, &here), &destination, None);
    assert_eq!(rights(&policies)[0], right("ReEncryptFrom", &there, of_pair("purpose", "orders", false)));
    assert!(policies.key_policy_statements.0.contains_key(&there), "replicas have key policies of their own");
    let note = policies.notes.iter().find(|note| note.contains("multi-Region")).unwrap();
    assert!(note.starts_with("note: version 1 is rewrapped by") && note.contains(&there), "{note}");
    let there_already = of(&under(ready(&[1]), 0, &there), &destination, None);
    assert_eq!((rights(&there_already), there_already.notes.len()), (rights(&policies), policies.notes.len() - 1));
}

#[test]
fn key_of_another_region_cannot_be_moved() {
    let destination = other().replace("eu-west-1", "us-east-1");
    let error = refusal(&ready(&[1, 2]), &destination);
    for words in [
        "orders cannot be moved to this KMS key: version 1:",
        ARN,
        "no multi-Region key and not in us-east-1",
        "--to-key-id",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
    let china = "arn:aws-cn:kms:cn-north-1:111122223333:key/99999999-12ab-34cd-56ef-1234567890ab";
    for key in [ready(&[1]), under(ready(&[1]), 0, &multi_region("eu-west-1"))] {
        assert!(refusal(&key, china).contains("is in the partition aws, the destination in aws-cn"));
    }
}

#[test]
fn keys_and_role_of_several_accounts_need_both_sides() {
    let abroad = other().replace("111122223333", "444455556666");
    let notes = |key_id: &str, role| {
        let destination = wanted(key_id, None);
        let policies = RewrapPolicies::of(&ready(&[1]).key, &destination, role).unwrap();
        let principal = json!(policies.key_policy_statements.0[ARN][0])["Principal"]["AWS"].take();
        let both = policies.notes.into_iter().filter(|note| note.contains("key policies") && note.contains("account"));
        (principal, both.collect::<Vec<_>>().join("\n"))
    };
    let placeholder = |account: &str| json!(format!("arn:aws:iam::{account}:role/REWRAP-ROLE"));
    assert_eq!(notes(&other(), None), (placeholder("111122223333"), String::new()));
    assert_eq!(notes(&other(), Some(ROLE)), (json!(ROLE), String::new()));
    let (principal, note) = notes(&abroad, None);
    assert_eq!(principal, placeholder("ACCOUNT"));
    assert!(note.contains("in the accounts 111122223333 and 444455556666"), "{note}");
    let (_, note) = notes(&abroad, Some(ROLE));
    assert!(note.contains("in the account 111122223333, so the KMS keys of 444455556666 need both"), "{note}");
    let (_, note) = notes(&other(), Some(&ROLE.replace("1111222", "7777222")));
    assert!(note.contains("so the KMS keys of 111122223333 need both"), "{note}");
}

#[test]
fn notes_warn_and_name_what_is_next() {
    let notes = of(&ready(&[1]), &other(), None).notes;
    assert!(notes[0].contains("is as good as kms:Decrypt") && notes[0].contains("remove them afterwards"), "{notes:?}");
    assert_eq!(notes[1], EITHER_OR_BOTH);
    let next = format!("the operator needs kms:GenerateDataKeyWithoutPlaintext on {}", other());
    assert!(notes[2].contains(&next) && notes[2].contains("kubectl datakey policy orders -n shop"), "{notes:?}");
    let of_pair = of(&pair(&[1]), &other(), None).notes.remove(2);
    assert!(of_pair.contains("kms:GenerateDataKeyPairWithoutPlaintext"), "{of_pair}");
    assert!(of_pair.contains("kubectl datakey policy datakeypair/orders -n shop"), "{of_pair}");
}

#[test]
fn policies_of_a_rewrap_are_printed_as_recorded() {
    let moved = under(ready(&[1, 2]), 0, &multi_region("us-east-1"));
    let abroad = other().replace("111122223333", "444455556666");
    let context = context(&[("namespace", "shop"), ("purpose", "orders")]);
    let destination = wanted(&abroad, Some(&context));
    let policies = RewrapPolicies::of(&moved.key, &destination, None).unwrap();
    insta::assert_snapshot!("policy-rewrap", to_json(&policies).unwrap());
    insta::assert_snapshot!("policy-rewrap-notes", policies.notes.join("\n"));
    insta::assert_snapshot!("policy-rewrap-yaml", yaml(&of(&ready(&[1]), &other(), None).rewrap).unwrap());
}
