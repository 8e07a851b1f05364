//! Each check alone: what it refuses, no other check does.

use std::collections::BTreeSet;

use super::{
    super::checks::{self, Subject},
    *,
};

/// A class, what an object asks for, and what is judged of it.
struct Judged {
    check: Check,
    class: Class,
    key: Value,
    subject: Subject<'static>,
}

/// Judges by all checks but this one; returns the check that refuses it.
fn judge_without(left_out: Option<Check>, judged: &Judged) -> Option<Check> {
    let by = |object: Object<'_>| {
        let filled = judged.class.fill_in(object);
        let (class, request, own_region) = (&judged.class, filled.view(), Some("eu-west-1"));
        let case = checks::Case { class, object, request, own_region, subject: judged.subject };
        checks::judge_by(&case, |check| Some(check) != left_out).err().map(|(check, _)| check)
    };
    if judged.key["kind"] == "DataKeyPair" {
        by((&serde_json::from_value::<DataKeyPair>(judged.key.clone()).unwrap()).into())
    } else {
        by((&serde_json::from_value::<DataKey>(judged.key.clone()).unwrap()).into())
    }
}

fn all() -> Vec<Judged> {
    let asked = |check, class, key: DataKey| Judged { check, class, key: json!(key), subject: Subject::Question };
    let same = || object(|_| {});
    let many: Vec<_> =
        (0..32).map(|number| json!({ "key": format!("k{number}"), "value": "v", "mode": "Inject" })).collect();
    let mut by_arn = allowing();
    by_arn["defaults"] = json!({ "keyId": ARN });
    by_arn["allow"][0]["keyIds"] = json!([ARN]);
    let beside_an_arn = object(|key| (key.spec.key_id, key.spec.region) = (None, Some("eu-west-1".to_owned())));
    let pair = |specs| Judged {
        key: json!(DataKeyPair::like(&same())),
        ..asked(Check::KeyPairSpecs, with("/allow/0/keyPairSpecs", specs), same())
    };
    let named = with("/allow/0/keyArns", json!([ARN]));
    let of_answer = |class, subject| Judged { subject, ..asked(Check::KeyArns, class, same()) };
    let more = vec![
        asked(Check::Accepted, with("/newer", json!(true)), same()),
        asked(Check::Namespaces, with("/namespaces", json!(["bank", "shop-*"])), same()),
        asked(Check::Request, class(by_arn), beside_an_arn),
        asked(Check::Request, with("/encryptionContext", json!({ "pairs": many })), same()),
        pair(json!([])),
        pair(json!(["ECC_NIST_P384"])),
        asked(Check::KeyArns, with("/allow/0/keyArns", json!([])), same()),
        of_answer(named.clone(), Subject::Answer(OTHER_ARN)),
        of_answer(named, Subject::Claim(OTHER_ARN)),
        of_answer(class(allowing()), Subject::Claim(ARN)),
    ];
    // Keys that differ in the case of ASCII letters only are refused by the check of the request, too.
    let cases = cases().into_iter().filter(|case| case.refused.1.get("Namespace").is_none()).map(
        |Case { check, class: (field, value), refused, .. }| asked(check, with(field, value), with_field(refused)),
    );
    cases.chain(more).collect()
}

#[test]
fn each_check_is_needed() {
    let checks: Vec<_> = Check::all().collect();
    let mut needed = BTreeSet::new();
    for (number, judged) in all().iter().enumerate() {
        for check in &checks {
            let refused_by = (*check != judged.check).then_some(judged.check);
            assert_eq!(judge_without(Some(*check), judged), refused_by, "case {number} without {}", check.name());
        }
        assert_eq!(judge_without(None, judged), Some(judged.check), "case {number}");
        needed.insert(judged.check.name());
    }
    assert_eq!(needed, checks.iter().map(|check| check.name()).collect());
}
