//! Each check by name: a class, what an object asks for, and the check that refuses it.

use serde_json::{Value, json};

use super::*;
use crate::{
    api::{DataKey, DataKeyPair, EncryptionContext, KeyKind as _},
    fixtures::{ARN, Sample as _, data_key, issued, recorded},
};

mod alone;

const OTHER_ARN: &str = "arn:aws:kms:eu-west-1:444455556666:key/99999999-12ab-34cd-56ef-1234567890ab";

fn class(spec: Value) -> Class {
    Class::new("shop", "class-uid", 7, serde_json::from_value(spec).map_err(|error| error.to_string()))
}

/// A class that allows what the fixtures ask for.
fn allowing() -> Value {
    json!({ "namespaces": ["shop"], "allow": [{ "keyIds": ["alias/orders"] }] })
}

/// The same with other fields.
fn with(pointer: &str, value: Value) -> Class {
    let mut spec = allowing();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    spec.pointer_mut(parent).unwrap()[field] = value;
    class(spec)
}

fn object(edit: impl FnOnce(&mut DataKey)) -> DataKey {
    let mut key = data_key();
    key.spec.class_name = Some("shop".to_owned());
    edit(&mut key);
    key
}

fn tenancy(class: &Class) -> Tenancy<'_> {
    Tenancy { is_required: false, class: Lookup::Found(class) }
}

fn ask(class: &Class, key: &DataKey) -> Result<Ask, String> {
    tenancy(class).ask(key.into(), Some("eu-west-1")).map_err(why)
}

fn why(refusal: Refusal) -> String {
    let Refusal::Failed(failure) = refusal else { panic!("{refusal:?}") };
    assert_eq!(failure.reason, Reason::ClassRefused);
    failure.detail.unwrap()
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, String>, check: Check, words: &str) {
    let why = result.unwrap_err();
    let named = format!("class shop, check {}: ", check.name());
    assert!(why.starts_with(&named) && why.contains(words), "expected {named}...{words}, but: {why}");
    assert!(!why.contains("444455556666"), "{why}");
}

// === what is filled in ===

#[test]
fn request_that_the_class_leaves_alone_is_recorded_as_it_is() {
    let asked = ask(&class(allowing()), &object(|_| {})).unwrap();
    assert_eq!(asked.request, data_key().spec.request().unwrap());
    assert_eq!(asked.as_written, None);
    let reference = asked.class.unwrap();
    assert_eq!((&*reference.name, &*reference.uid, reference.generation), ("shop", "class-uid", 7));
}

#[test]
fn defaults_fill_in_key_and_region() {
    let class = with("/defaults", json!({ "keyId": "alias/orders", "region": "eu-north-1" }));
    let key = object(|key| key.spec.key_id = None);
    let asked = ask(&class, &key).unwrap();
    assert_eq!((&*asked.request.key_id, asked.request.region.as_deref()), ("alias/orders", Some("eu-north-1")));
    let written = asked.as_written.unwrap();
    assert_eq!((written.key_id.as_deref(), written.region.as_deref()), (None, None));
    assert!(written.view().is_same_request(key.as_object().spec.request));
    let key = object(|key| key.spec.region = Some("eu-west-1".to_owned()));
    assert_eq!(ask(&class, &key).unwrap().request.region.as_deref(), Some("eu-west-1"), "the spec has one");
}

#[test]
fn default_region_is_not_added_to_an_arn() {
    let mut spec = allowing();
    spec["defaults"] = json!({ "region": "eu-north-1" });
    spec["allow"][0]["keyIds"] = json!([ARN]);
    let asked = ask(&class(spec), &object(|key| key.spec.key_id = Some(ARN.to_owned()))).unwrap();
    assert_eq!((asked.request.region, asked.as_written), (None, None));
}

#[test]
fn inject_adds_a_pair_and_takes_an_equal_one() {
    let pairs = json!([
        { "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" },
        { "key": "name", "valueFrom": "Name", "mode": "Inject" },
        { "key": "cluster", "value": "prod-eu", "mode": "Inject" },
    ]);
    let class = with("/encryptionContext", json!({ "pairs": pairs }));
    let asked = ask(&class, &object(|_| {})).unwrap();
    let expected = [("cluster", "prod-eu"), ("name", "orders"), ("namespace", "shop"), ("purpose", "orders")];
    let expected: EncryptionContext = expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    assert_eq!(asked.request.encryption_context.as_ref(), Some(&expected));
    assert_eq!(asked.as_written.unwrap().encryption_context, data_key().spec.encryption_context);
    let asked = ask(&class, &object(|key| key.spec.encryption_context = Some(expected))).unwrap();
    assert_eq!(asked.as_written, None, "the spec has all pairs");
}

// === each check ===

/// A check, a field of the class and its value, the field of the spec that it refuses, one that it allows, and words of the refusal.
struct Case {
    check: Check,
    class: (&'static str, Value),
    refused: (&'static str, Value),
    allowed: (&'static str, Value),
    words: &'static str,
}

fn cases() -> Vec<Case> {
    let case = |check, class, refused, allowed, words| Case { check, class, refused, allowed, words };
    let keys = |keys: Value| ("/allow/0/keyIds", keys);
    let key = |key: &str| ("keyId", json!(key));
    let context = |context: Value| ("encryptionContext", context);
    let pairs = |pairs: Value| ("/encryptionContext", json!({ "pairs": pairs }));
    let inject = json!([{ "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" }]);
    let own = || context(json!({ "namespace": "shop" }));
    vec![
        case(Check::KeyIds, keys(json!(["alias/shop"])), key("alias/shop2"), key("alias/shop"), "it allows alias/shop"),
        case(Check::KeyIds, keys(json!(["alias/shop/*"])), key("alias/shop"), key("alias/shop/a"), "alias/shop/*"),
        case(Check::KeyIds, keys(json!(["alias/shop"])), key("alias/Shop"), key("alias/shop"), "alias/Shop"),
        case(
            Check::KeyIds,
            keys(json!(["alias/*"])),
            key("arn:aws:kms:eu-west-1:444455556666:alias/a".replace("444455556666", "111122223333").leak()),
            key("alias/a"),
            "alias/*",
        ),
        case(
            Check::KeyIds,
            keys(json!(["arn:aws:kms:eu-west-1:111122223333:alias/shop-*"])),
            key("alias/shop-a"),
            key("arn:aws:kms:eu-west-1:111122223333:alias/shop-a"),
            "by their IDs or ARNs only",
        ),
        case(Check::KeyIds, keys(json!([ARN])), key(&ARN[ARN.len() - 36..]), key(ARN), "by their IDs or ARNs only"),
        case(
            Check::Regions,
            ("/allow/0/regions", json!(["eu-west-1"])),
            ("region", json!("eu-north-1")),
            ("region", json!("eu-west-1")),
            "must be in eu-west-1",
        ),
        case(
            Check::Lengths,
            ("/allow/0/keySpecs", json!(["AES_256"])),
            ("keySpec", json!("AES_128")),
            ("keySpec", json!("AES_256")),
            "must be keySpec AES_256",
        ),
        case(
            Check::Lengths,
            ("/allow/0/numberOfBytes", json!({ "min": 32, "max": 64 })),
            ("numberOfBytes", json!(16)),
            ("numberOfBytes", json!(64)),
            "numberOfBytes 32 to 64",
        ),
        case(
            Check::Lengths,
            ("/allow/0/keySpecs", json!(["AES_256"])),
            ("numberOfBytes", json!(16)),
            ("keySpec", json!("AES_256")),
            "must be keySpec AES_256",
        ),
        case(
            Check::Pairs,
            pairs(inject.clone()),
            context(json!({ "namespace": "bank" })),
            own(),
            "must have namespace=shop",
        ),
        case(Check::Pairs, pairs(inject.clone()), context(json!({ "Namespace": "bank" })), own(), "only in case"),
        // The same letters in another form: full width, and a long s.
        case(
            Check::Pairs,
            pairs(inject.clone()),
            context(json!({ "\u{ff4e}amespace": "bank" })),
            own(),
            "only in case",
        ),
        case(Check::Pairs, pairs(inject), context(json!({ "name\u{17f}pace": "bank" })), own(), "only in case"),
        case(
            Check::Pairs,
            pairs(json!([{ "key": "stage", "mode": "Require" }])),
            context(json!({ "purpose": "orders" })),
            context(json!({ "stage": "anything" })),
            "needs a pair with the key stage",
        ),
        case(
            Check::Pairs,
            pairs(json!([{ "key": "stage", "value": "test", "mode": "Require" }])),
            context(json!({})),
            context(json!({ "stage": "test" })),
            "needs the pair stage=test",
        ),
        case(
            Check::OtherPairs,
            ("/encryptionContext", json!({ "others": "Deny", "pairs": [{ "key": "a", "mode": "Require" }] })),
            context(json!({ "a": "1", "purpose": "orders" })),
            context(json!({ "a": "1" })),
            "may not have the key purpose, only a",
        ),
    ]
}

fn with_field((field, value): (&str, Value)) -> DataKey {
    let mut key = json!(object(|_| {}));
    if field == "numberOfBytes" {
        key["spec"].as_object_mut().unwrap().remove("keySpec");
    }
    key["spec"][field] = value;
    serde_json::from_value(key).unwrap()
}

#[test]
fn each_check_refuses_and_says_what_is_allowed() {
    for Case { check, class: (field, value), refused, allowed, words } in cases() {
        let class = with(field, value);
        assert_eq!(class.flaw(), None);
        assert_refused(ask(&class, &with_field(refused)), check, words);
        ask(&class, &with_field(allowed.clone())).unwrap_or_else(|why| panic!("{allowed:?}: {why}"));
    }
}

#[test]
fn namespaces_are_names_or_beginnings() {
    for (patterns, is_admitted) in [
        (json!([]), false),
        (json!(["*"]), true),
        (json!(["shop"]), true),
        (json!(["sho"]), false),
        (json!(["shop-"]), false),
        (json!(["sh*"]), true),
        (json!(["shop*"]), true),
        (json!(["shop-*"]), false),
        (json!(["bank", "shop"]), true),
    ] {
        let mut spec = allowing();
        spec["namespaces"] = patterns.clone();
        let asked = tenancy(&class(spec)).ask((&object(|_| {})).into(), None);
        assert_eq!(asked.is_ok(), is_admitted, "{patterns}");
    }
    let elsewhere = object(|key| key.metadata.namespace = Some("bank".to_owned()));
    assert_refused(ask(&class(allowing()), &elsewhere), Check::Namespaces, "does not admit namespace bank");
}

#[test]
fn kinds_of_key_pairs_are_checked() {
    let pair = DataKeyPair::like(&object(|_| {}));
    let ask = |class: &Class| tenancy(class).ask((&pair).into(), None).map_err(why);
    for allowed in [json!(["ECC_NIST_P256"]), Value::Null] {
        ask(&with("/allow/0/keyPairSpecs", allowed)).unwrap();
    }
    for refused in [json!(["ECC_NIST_P384"]), json!([])] {
        assert_refused(ask(&with("/allow/0/keyPairSpecs", refused)), Check::KeyPairSpecs, "keyPairSpec must be");
    }
    // Lengths are about data keys.
    ask(&with("/allow/0/keySpecs", json!(["AES_256"]))).unwrap();
}

#[test]
fn request_that_kms_cannot_be_asked_is_refused() {
    assert_refused(ask(&class(allowing()), &object(|key| key.spec.key_id = None)), Check::Request, "set spec.keyId");
    let mut spec = allowing();
    spec["defaults"] = json!({ "keyId": ARN });
    spec["allow"][0]["keyIds"] = json!([ARN]);
    let key = object(|key| (key.spec.key_id, key.spec.region) = (None, Some("eu-west-1".to_owned())));
    assert_refused(ask(&class(spec), &key), Check::Request, "remove spec.region");
    let pairs: Vec<_> =
        (0..32).map(|number| json!({ "key": format!("k{number}"), "value": "v", "mode": "Inject" })).collect();
    let class = with("/encryptionContext", json!({ "pairs": pairs }));
    assert_refused(ask(&class, &object(|_| {})), Check::Request, "more than 32 pairs");
}

#[test]
fn one_entry_must_allow_all_of_a_request() {
    let class = class(json!({ "namespaces": ["*"], "allow": [
        { "keyIds": ["alias/orders"], "regions": ["eu-west-1"] },
        { "keyIds": ["alias/other"], "regions": ["eu-north-1"] },
    ] }));
    let asked = |key_id: &str, region: &str| {
        ask(&class, &object(|key| (key.spec.key_id, key.spec.region) = (Some(key_id.into()), Some(region.into()))))
    };
    assert!(asked("alias/orders", "eu-west-1").is_ok() && asked("alias/other", "eu-north-1").is_ok());
    assert_refused(asked("alias/orders", "eu-north-1"), Check::Regions, "must be in eu-west-1");
    assert_refused(asked("alias/third", "eu-north-1"), Check::KeyIds, "alias/orders or alias/other");
}

#[test]
fn region_is_that_of_the_arn_or_of_the_operator() {
    let class = with("/allow/0/regions", json!(["eu-west-1"]));
    let key = object(|_| {});
    assert!(tenancy(&class).ask((&key).into(), Some("eu-west-1")).is_ok());
    for own in [Some("eu-north-1"), None] {
        assert_refused(tenancy(&class).ask((&key).into(), own).map_err(why), Check::Regions, "eu-west-1");
    }
}

// === answers, pins and Secrets ===

#[test]
fn answer_must_be_of_a_key_of_the_class() {
    let judge = |class: &Class, arn: &str| {
        let issued = IssuedVersion { key_id: arn.to_owned(), ..issued(1) };
        tenancy(class).judge_answer((&object(|_| {})).into(), None, &issued).map_err(why)
    };
    assert!(judge(&class(allowing()), OTHER_ARN).is_ok(), "without keyArns the alias decides");
    let class = with("/allow/0/keyArns", json!([ARN]));
    assert!(judge(&class, ARN).is_ok());
    assert_refused(judge(&class, OTHER_ARN), Check::KeyArns, "not among keyArns");
}

#[test]
fn pins_and_secrets_are_judged_by_the_arn() {
    let admit = |class: &Class, version: IssuedVersion| {
        let versions = tenancy(class).admit((&object(|_| {})).into(), None, vec![version]);
        versions.map(|mut versions| versions.remove(0)).map_err(why)
    };
    let of = |arn: &str| IssuedVersion { key_id: arn.to_owned(), ..issued(1) };
    assert_refused(admit(&class(allowing()), of(ARN)), Check::KeyArns, "must add the ARN of the KMS key to keyArns");
    let class = with("/allow/0/keyArns", json!([ARN]));
    assert_refused(admit(&class, of(OTHER_ARN)), Check::KeyArns, "not among keyArns");
    // The alias has another name by now.
    let mut earlier = of(ARN);
    earlier.request.key_id = "alias/earlier".to_owned();
    let recorded = admit(&class, earlier.clone()).unwrap();
    assert_eq!(IssuedVersion { class: None, ..recorded.clone() }, earlier);
    assert_eq!(recorded.class.map(|class| class.name).as_deref(), Some("shop"));
    // What it says of its class is a claim.
    let claimed =
        ClassRef { name: "bank".to_owned(), uid: "x".to_owned(), generation: 1, rest: crate::api::Rest::new() };
    let recorded = admit(&class, IssuedVersion { class: Some(claimed.clone()), ..of(ARN) }).unwrap();
    assert_eq!(recorded.class.map(|class| class.uid).as_deref(), Some("class-uid"));
    let without =
        Tenancy::default().admit((&data_key()).into(), None, vec![IssuedVersion { class: Some(claimed), ..of(ARN) }]);
    assert_eq!(without.unwrap()[0].class, None);
}

#[test]
fn nothing_is_filled_into_pins_and_secrets() {
    let mut spec = allowing();
    spec["allow"][0]["keyArns"] = json!([ARN]);
    let pairs = json!([{ "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" }]);
    spec["encryptionContext"] = json!({ "pairs": pairs });
    let class = class(spec);
    let admit = |context: &[(&str, &str)]| {
        let mut version = issued(1);
        let context = context.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        version.request.encryption_context = Some(context.collect());
        tenancy(&class).admit((&object(|_| {})).into(), None, vec![version]).map_err(why)
    };
    assert!(admit(&[("namespace", "shop")]).is_ok());
    assert_refused(admit(&[("namespace", "bank")]), Check::Pairs, "version 1 of the pins or the Secret");
    assert_refused(admit(&[("purpose", "orders")]), Check::Pairs, "needs the pair namespace=shop");
}

#[test]
fn nothing_is_asked_that_no_key_of_the_class_can_answer() {
    let class = with("/allow/0/keyArns", json!([ARN]));
    let in_region = |region: &str| object(|key| key.spec.region = Some(region.to_owned()));
    assert!(ask(&class, &in_region("eu-west-1")).is_ok());
    assert_refused(ask(&class, &in_region("eu-north-1")), Check::KeyArns, "can be the KMS key alias/orders");
    assert!(tenancy(&class).ask((&object(|_| {})).into(), None).is_ok(), "there is no Region to call");
    assert_refused(ask(&with("/allow/0/keyArns", json!([])), &object(|_| {})), Check::KeyArns, "none of keyArns");
}

#[test]
fn versions_that_accompany_pins_are_judged() {
    use crate::{
        protocol::{Inputs, Observed, SecretState, Step, plan},
        secret::Projection,
    };
    let secret = {
        let mut key = recorded(&[1, 2]);
        key.status.as_mut().unwrap().versions[1].key_id = OTHER_ARN.to_owned();
        SecretState::Loaded(Box::new(Projection::of(&key, 1).unwrap().into_secret(&key)))
    };
    let mut key = object(|key| key.spec.wrapped_keys = Some(vec![issued(1)]));
    key.status = None;
    let reason = |class: &Class| {
        let inputs = Inputs { tenancy: tenancy(class), ..Inputs::default() };
        match plan(&Observed { inputs, ..Observed::new(&key, &secret) }, crate::fixtures::at(1)) {
            Step::Record(record) => Ok(record.versions.len()),
            Step::ReportFailure(failure) => Err(failure.reason),
            step => panic!("{step:?}"),
        }
    };
    assert_eq!(reason(&with("/allow/0/keyArns", json!([ARN, OTHER_ARN]))), Ok(2));
    assert_eq!(reason(&with("/allow/0/keyArns", json!([ARN]))), Err(Reason::ClassRefused));
}

#[test]
fn replicas_of_a_multi_region_key_are_other_keys() {
    let id = "mrk-1234abcd12ab34cd56ef1234567890ab";
    let replica = |region: &str| format!("arn:aws:kms:{region}:111122223333:key/{id}");
    let (here, there) = (replica("eu-west-1"), replica("eu-north-1"));
    let ask_for = |class: &Class, key_id: &str, region: Option<&str>| {
        ask(class, &object(|key| (key.spec.key_id, key.spec.region) = (Some(key_id.into()), region.map(str::to_owned))))
    };
    let by_arn = with("/allow/0/keyIds", json!([here]));
    assert!(ask_for(&by_arn, &here, None).is_ok());
    assert_refused(ask_for(&by_arn, &there, None), Check::KeyIds, "by their IDs or ARNs only");
    assert_refused(ask_for(&by_arn, id, None), Check::KeyIds, "by their IDs or ARNs only");

    // The ID is that of all replicas, so the Region restricts it.
    let by_id = class(json!({ "namespaces": ["*"], "allow": [{ "keyIds": [id], "regions": ["eu-west-1"] }] }));
    assert!(ask_for(&by_id, id, None).is_ok());
    assert_refused(ask_for(&by_id, id, Some("eu-north-1")), Check::Regions, "must be in eu-west-1");
    assert_refused(ask_for(&by_id, &there, None), Check::KeyIds, "does not allow the KMS key");

    let claims = with("/allow/0/keyArns", json!([here]));
    let admit = |arn: &str| {
        let version = IssuedVersion { key_id: arn.to_owned(), ..issued(1) };
        tenancy(&claims).admit((&object(|_| {})).into(), None, vec![version]).map_err(why)
    };
    assert!(admit(&here).is_ok());
    assert_refused(admit(&there), Check::KeyArns, "not among keyArns");
}

#[test]
fn pin_of_a_replica_is_judged_as_it_is_recorded() {
    use crate::protocol::{Inputs, Observed, SecretState, Step, plan};
    let replica = |region: &str| format!("arn:aws:kms:{region}:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab");
    let (here, there) = (replica("eu-west-1"), replica("eu-north-1"));
    let key = object(|key| key.spec.wrapped_keys = Some(vec![IssuedVersion { key_id: there.clone(), ..issued(1) }]));
    let step = |arns: &[&String]| {
        let class = with("/allow/0/keyArns", json!(arns));
        let inputs = Inputs { tenancy: tenancy(&class), default_region: Some("eu-west-1"), ..Inputs::default() };
        plan(&Observed { inputs, ..Observed::new(&key, &SecretState::Absent) }, crate::fixtures::at(0))
    };
    let Step::Record(record) = step(&[&here]) else { panic!() };
    assert_eq!(record.versions[0].key_id, here, "the replica of this Region");
    assert!(matches!(step(&[&there]), Step::ReportFailure(failure) if failure.reason == Reason::ClassRefused));
}

// === which class ===

#[test]
fn class_that_is_missing_allows_nothing() {
    let (named, unnamed) = (object(|_| {}), data_key());
    let ask = |is_required, class, key: &DataKey| {
        Tenancy { is_required, class }.ask(key.into(), None).map(|ask| ask.class.is_some())
    };
    let reason = |result: Result<bool, Refusal>| match result {
        Err(Refusal::Failed(failure)) => Some(failure.reason),
        _ => None,
    };
    assert_eq!(ask(false, Lookup::Absent, &unnamed), Ok(false));
    assert_eq!(ask(false, Lookup::Unlisted, &unnamed), Ok(false));
    assert_eq!(ask(true, Lookup::Unlisted, &unnamed), Err(Refusal::NotYet));
    assert_eq!(ask(false, Lookup::Unlisted, &named), Err(Refusal::NotYet));
    assert_eq!(reason(ask(true, Lookup::Absent, &unnamed)), Some(Reason::ClassMissing));
    assert_eq!(reason(ask(true, Lookup::Absent, &named)), Some(Reason::ClassNotFound));
    assert_eq!(reason(ask(false, Lookup::Absent, &named)), Some(Reason::ClassNotFound));
    assert_eq!(reason(ask(false, Lookup::Unavailable("forbidden"), &named)), Some(Reason::ClassesUnavailable));
    let class = class(allowing());
    assert_eq!(ask(true, Lookup::Found(&class), &unnamed), Ok(true));
    assert_eq!((class_name(&unnamed, true), class_name(&unnamed, false)), (Some("default"), None));
}

#[test]
fn spec_without_a_key_and_without_a_class_is_invalid() {
    let mut key = data_key();
    key.spec.key_id = None;
    let Err(Refusal::Failed(failure)) = Tenancy::default().ask((&key).into(), None) else { panic!() };
    assert_eq!(failure.reason, Reason::SpecInvalid);
    assert!(failure.detail.unwrap().starts_with("set keyId"));
}

// === the class itself ===

const ROLE: &str = "arn:aws:iam::111122223333:role/shop";

fn tagged(tags: &Value) -> Value {
    json!({ "roleArn": ROLE, "sessionTags": tags })
}

#[test]
fn role_of_a_class_has_the_tags_of_the_namespace() {
    let mut aws = tagged(&json!([
        { "key": "datakey-namespace", "valueFrom": "Namespace" },
        { "key": "team", "value": "Shop + co" },
        { "key": "empty", "value": "" },
    ]));
    aws["externalId"] = json!("prod-eu");
    let class = with("/aws", aws);
    assert_eq!(class.flaw(), None);
    let asked = ask(&class, &object(|_| {})).unwrap();
    let role = asked.identity.role().unwrap();
    let tags: Vec<_> = role.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(tags, [("datakey-namespace", "shop"), ("empty", ""), ("team", "Shop + co")]);
    assert_eq!((role.arn.as_str(), role.external_id.as_deref()), (ROLE, Some("prod-eu")));
    assert_eq!((role.account(), role.namespace.as_str()), (Some("111122223333"), "shop"));
    assert_eq!(Some(&role.class), asked.class.as_ref());
    let without = with("/namespaces", json!(["shop"]));
    assert_eq!(ask(&without, &object(|_| {})).unwrap().identity, Identity::Operator);
    assert_eq!(Tenancy::default().ask((&data_key()).into(), None).unwrap().identity, Identity::Operator);
}

#[test]
fn class_with_a_flaw_allows_nothing_and_says_where() {
    let mut entry = json!({ "keyIds": ["alias/orders"], "regions": ["eu-west-1"] });
    for (pointer, value, flaw) in [
        ("/namespaces", json!(["Shop"]), "spec.namespaces[0] is neither"),
        ("/namespaces", json!(["shop", "*-shop"]), "spec.namespaces[1]"),
        ("/allow", json!([]), "spec.allow is empty"),
        ("/allow/0/keyIds", json!([]), "spec.allow[0].keyIds is empty"),
        ("/allow/0/keyIds", json!(["*"]), "spec.allow[0].keyIds[0] is no key ID"),
        ("/allow/0/keyIds", json!(["alias/orders", "alias/a*b"]), "spec.allow[0].keyIds[1]"),
        ("/allow/0/keyIds", json!(["alias/aws/*"]), "spec.allow[0].keyIds[0]"),
        ("/allow/0/keyIds", json!([format!("{}*", &ARN[..60])]), "spec.allow[0].keyIds[0]"),
        ("/allow/0/keyArns", json!(["alias/orders"]), "spec.allow[0].keyArns[0] is not the ARN"),
        ("/allow/0/regions", json!(["Ireland"]), "spec.allow[0].regions[0]"),
        ("/allow/0/numberOfBytes", json!({ "min": 9, "max": 8 }), "spec.allow[0].numberOfBytes"),
        ("/allow/0/keyArn", json!([ARN]), "spec.allow[0].keyArn: this release"),
        ("/aws", json!({}), "missing field `roleArn`"),
        ("/aws", json!({ "roleArn": ROLE, "roleArns": [] }), "spec.aws.roleArns: this release"),
        ("/aws", json!({ "roleArn": "shop" }), "spec.aws.roleArn is not the ARN of an IAM role"),
        ("/aws", json!({ "roleArn": ROLE, "externalId": "a" }), "spec.aws.externalId must have 2 to 1224"),
        ("/aws", json!({ "roleArn": ROLE, "externalId": "a b" }), "spec.aws.externalId must have"),
        ("/aws", tagged(&json!([{ "key": "team" }])), "sessionTags[0] needs either value or valueFrom"),
        (
            "/aws",
            tagged(&json!([{ "key": "a", "value": "b", "valueFrom": "Namespace" }])),
            "sessionTags[0] needs either value or valueFrom",
        ),
        ("/aws", tagged(&json!([{ "key": "a", "value": "b", "values": [] }])), "sessionTags[0].values: this release"),
        ("/aws", tagged(&json!([{ "key": "AWS:a", "value": "b" }])), "sessionTags[0].key begins with aws:"),
        ("/aws", tagged(&json!([{ "key": "a*", "value": "b" }])), "sessionTags[0].key must have 1 to 128"),
        ("/aws", tagged(&json!([{ "key": "a".repeat(129), "value": "b" }])), "sessionTags[0].key must have"),
        ("/aws", tagged(&json!([{ "key": "a", "value": "b\n" }])), "sessionTags[0].value must have at most 256"),
        (
            "/aws",
            tagged(&json!([{ "key": "\u{3c3}", "value": "b" }, { "key": "\u{3c2}", "value": "b" }])),
            "sessionTags[1].key is that of sessionTags[0]",
        ),
        (
            "/aws",
            tagged(&(0..51).map(|number| json!({ "key": number.to_string(), "value": "b" })).collect()),
            "sessionTags has more than 50",
        ),
        ("/defaults", json!({ "keyId": "alias/other" }), "is allowed by no entry"),
        ("/defaults", json!({ "keyId": ARN, "region": "eu-west-1" }), "spec.defaults.region must be absent"),
        ("/defaults", json!({ "region": "x" }), "spec.defaults.region"),
        ("/defaults", json!({ "keyID": "alias/orders" }), "spec.defaults.keyID: this release"),
        ("/encryptionContext", json!({ "other": "Deny" }), "spec.encryptionContext.other: this release"),
        ("/encryptionContext", json!({ "pairs": [{ "key": "a", "mode": "Inject" }] }), "pairs[0] has the mode Inject"),
        (
            "/encryptionContext",
            json!({ "pairs": [{ "key": "a", "mode": "Require" }, { "key": "A", "mode": "Require" }] }),
            "pairs[1].key is that of pairs[0]",
        ),
        (
            "/encryptionContext",
            json!({ "pairs": [{ "key": "a", "value": "b", "valueFrom": "Name", "mode": "Require" }] }),
            "value and valueFrom",
        ),
        ("/encryptionContext", json!({ "pairs": [{ "key": "AWS:a", "mode": "Require" }] }), "reserved"),
    ] {
        let class = with(pointer, value.clone());
        let found = class.flaw().unwrap_or_default();
        assert!(found.contains(flaw), "{pointer} {value}: expected {flaw}, but: {found}");
        assert_refused(ask(&class, &object(|_| {})), Check::Accepted, "is not accepted and allows nothing");
        assert!(!class.admits("shop"));
    }
    entry["keyArns"] = json!([ARN.replace("eu-west-1", "eu-north-1")]);
    assert!(with("/allow", json!([entry])).flaw().unwrap().contains("keyArns[0] is in a Region"));
    for unreadable in
        [json!({}), json!({ "namespaces": "shop", "allow": [] }), json!({ "namespaces": [], "allow": [{}] })]
    {
        assert!(class(unreadable.clone()).flaw().is_some(), "{unreadable}");
    }
}

#[test]
fn status_of_a_class_says_whether_it_can_be_used() {
    let now = crate::fixtures::at(0);
    let accepted =
        wanted_status(&class(allowing()), 3, &RoleOutcome::Unknown, &crate::api::DataKeyClassStatus::default(), now);
    let condition = |status: &crate::api::DataKeyClassStatus| status.conditions.clone().unwrap()[0].clone();
    assert_eq!(
        (condition(&accepted).status.as_str(), accepted.in_use, accepted.observed_generation),
        ("True", Some(3), Some(7))
    );
    let later = wanted_status(&class(allowing()), 4, &RoleOutcome::Unknown, &accepted, crate::fixtures::at(9));
    assert_eq!(condition(&later), condition(&accepted), "only the number is another one");
    let invalid = wanted_status(&with("/allow", json!([])), 4, &RoleOutcome::Unknown, &later, crate::fixtures::at(9));
    assert_eq!(condition(&invalid).status, "False");
    assert_eq!(
        condition(&invalid).message,
        "the class allows nothing: spec.allow is empty: add what objects may ask for"
    );
}

#[test]
fn what_is_recorded_is_not_judged_again() {
    use crate::{
        protocol::{Inputs, Observed, SecretState, Step, plan},
        secret::{
            Projection,
            digest::Digest,
            known::{KnownSecret, Verified},
            metadata::SecretMetadata,
        },
    };
    let mut key = recorded(&[1]);
    key.spec.class_name = Some("shop".to_owned());
    let secret = Projection::of(&key, 1).unwrap().into_secret(&key);
    let verified = Some(Verified::written(Digest::of(&secret)));
    let view = SecretState::Watched(KnownSecret { metadata: SecretMetadata::of(&secret.metadata), verified });
    let narrow = with("/namespaces", json!([]));
    for class in [Lookup::Absent, Lookup::Unlisted, Lookup::Unavailable("x"), Lookup::Found(&narrow)] {
        let inputs = Inputs { tenancy: Tenancy { is_required: true, class }, ..Inputs::default() };
        let step = plan(&Observed { inputs, ..Observed::new(&key, &view) }, crate::fixtures::at(1));
        let Step::PutStatus(status) = step else { panic!("{class:?}: {step:?}") };
        assert_eq!(status.conditions[0].status, "True", "{class:?}");
    }
}

#[test]
fn condition_of_another_client_keeps_its_place() {
    let mut stored =
        wanted_status(&class(allowing()), 3, &RoleOutcome::Unknown, &<_>::default(), crate::fixtures::at(0));
    let accepted = stored.conditions.take().unwrap();
    let other = k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
        type_: "Reviewed".to_owned(),
        ..accepted[0].clone()
    };
    stored.conditions = Some([vec![other], accepted].concat());
    assert_eq!(
        wanted_status(&class(allowing()), 3, &RoleOutcome::Unknown, &stored, crate::fixtures::at(9)),
        stored,
        "nothing is written"
    );
}

#[test]
fn refusal_names_no_key_id_that_the_object_does_not() {
    let id = &OTHER_ARN[OTHER_ARN.len() - 36..];
    let class = with("/allow/0/keyIds", json!(["alias/shop", id]));
    let why = ask(&class, &object(|_| {})).unwrap_err();
    assert!(why.ends_with("it allows alias/shop, and some IDs or ARNs") && !why.contains(id), "{why}");
}

#[test]
fn letters_that_differ_in_case_only_are_the_same() {
    for (of_the_class, written) in
        [("\u{39f}\u{3a3}", "\u{3bf}\u{3c3}"), ("stadion", "stad\u{131}on"), ("ss", "\u{1e9e}")]
    {
        let pairs = json!([{ "key": of_the_class, "valueFrom": "Namespace", "mode": "Inject" }]);
        let class = with("/encryptionContext", json!({ "pairs": pairs }));
        let context = [(written.to_owned(), "bank".to_owned())].into();
        assert_refused(
            ask(&class, &object(|key| key.spec.encryption_context = Some(context))),
            Check::Pairs,
            "only in case",
        );
    }
}

#[test]
fn condition_of_the_role_is_that_of_this_state_of_the_class() {
    let (at, nothing) = (crate::fixtures::at, crate::api::DataKeyClassStatus::default());
    let with_role = with("/aws", json!({ "roleArn": ROLE, "externalId": "prod-eu" }));
    let role_of = |status: &crate::api::DataKeyClassStatus| {
        status.conditions.iter().flatten().find(|condition| condition.type_ == crate::api::ROLE_ASSUMED).cloned()
    };
    let wanted = |class: &Class, role: &RoleOutcome, old: &crate::api::DataKeyClassStatus| {
        wanted_status(class, 1, role, old, at(0))
    };
    assert_eq!(role_of(&wanted(&with_role, &RoleOutcome::Unknown, &nothing)), None);
    let refused =
        |others| RoleOutcome::Refused { namespace: "bank".to_owned(), code: "AccessDenied".to_owned(), others };
    for (others, words) in [(0, "for namespace bank ("), (1, "bank and 1 other ("), (2, "bank and 2 others (")] {
        let status = wanted(&with_role, &refused(others), &nothing);
        let condition = role_of(&status).unwrap();
        assert_eq!((&*condition.status, condition.observed_generation), ("False", Some(7)));
        for part in [ROLE, "AccessDenied", words] {
            assert!(condition.message.contains(part), "{}", condition.message);
        }
        assert!(!condition.message.contains("prod-eu"));
        // After a restart, nothing is known of it.
        assert_eq!(wanted(&with_role, &RoleOutcome::Unknown, &status), status);
    }
    let refused = wanted(&with_role, &refused(0), &nothing);
    let assumed = wanted_status(&with_role, 1, &RoleOutcome::Assumed, &refused, at(9));
    let condition = role_of(&assumed).unwrap();
    assert_eq!((&*condition.status, condition.last_transition_time.0), ("True", at(9)));
    assert_eq!(wanted_status(&with_role, 1, &RoleOutcome::Assumed, &assumed, at(99)), assumed);
    assert_eq!(role_of(&wanted(&with_role, &RoleOutcome::Lapsed, &refused)), None, "nothing asks for it any more");
    let mut changed = assumed.clone();
    changed.conditions.as_mut().unwrap()[1].observed_generation = Some(6);
    assert_eq!(role_of(&wanted(&with_role, &RoleOutcome::Unknown, &changed)), None, "of an earlier state");
}

#[test]
fn class_whose_role_the_definition_drops_allows_nothing() {
    let class = |aws: Value, observed: i64| {
        let mut spec = allowing();
        if !aws.is_null() {
            spec["aws"] = aws;
        }
        let condition = json!({
            "type": "RoleAssumed", "status": "True", "reason": "Assumed", "message": "", "observedGeneration": observed,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let object = json!({
            "metadata": { "name": "shop", "uid": "u", "generation": 7 },
            "spec": spec,
            "status": { "conditions": [condition] },
        });
        Class::of(&serde_json::from_value(object).unwrap())
    };
    assert_eq!(class(json!({ "roleArn": ROLE }), 7).flaw(), None);
    assert_eq!(class(Value::Null, 6).flaw(), None, "a change of the spec removed it");
    let lost = class(Value::Null, 7);
    assert!(lost.flaw().unwrap().starts_with("spec.aws is missing"), "{:?}", lost.flaw());
    // Without the condition, nothing would show the loss any more.
    let old = wanted_status(
        &Class { generation: 7, ..with("/aws", json!({ "roleArn": ROLE })) },
        1,
        &RoleOutcome::Assumed,
        &crate::api::DataKeyClassStatus::default(),
        crate::fixtures::at(0),
    );
    for role in [RoleOutcome::Unknown, RoleOutcome::Assumed, RoleOutcome::Lapsed] {
        let kept = wanted_status(&lost, 1, &role, &old, crate::fixtures::at(0));
        assert!(kept.conditions.unwrap().iter().any(|condition| condition.type_ == "RoleAssumed"), "{role:?}");
    }
}
