use std::time::Duration;

use datakey::{
    api::{DataKey, KeyStatus, KindId},
    condition::key_usable::{Cause, Verdict as OfKey, wanted},
    decode::Encoded,
    fixtures::{at, data_key, issued},
};
use serde_json::json;

use super::*;
use crate::controller::store::{Delivery, Facts, Verdict, WorkingSet};

const INTERVAL: Duration = Duration::from_hours(12);
const HOUR: Millis = 3_600_000;
const BAD: DryRun = DryRun::Unusable(Cause::KMSInvalidStateException);

/// An object of a namespace with a version of each of these KMS keys, of a class if it is given.
fn key(namespace: &str, name: &str, arns: &[String], class: Option<&str>) -> DataKey {
    let mut key = data_key();
    key.metadata.namespace = Some(namespace.to_owned());
    key.metadata.name = Some(name.to_owned());
    key.metadata.uid = Some(format!("{namespace}/{name}"));
    key.spec.class_name = class.map(str::to_owned);
    let version = |(number, arn): (usize, &String)| {
        let mut issued = issued(i32::try_from(number).unwrap() + 1);
        issued.key_id.clone_from(arn);
        issued
    };
    key.status = Some(KeyStatus { versions: arns.iter().enumerate().map(version).collect(), ..KeyStatus::default() });
    key
}

fn arn(number: usize) -> String {
    format!("arn:aws:kms:eu-west-1:111122223333:key/{number:08}-12ab-34cd-56ef-1234567890ab")
}

fn put(store: &Store, key: &DataKey) {
    let object: Encoded = serde_json::from_value(serde_json::to_value(key).unwrap()).unwrap();
    store.put_watched(KindId::DataKey, object, Delivery::Event, Facts::of(key), Verdict::Settled);
}

fn stores(keys: &[DataKey]) -> Vec<Arc<Store>> {
    let store = Store::new(Arc::new(WorkingSet::new(1 << 20)), &[KindId::DataKey]);
    for key in keys {
        put(&store, key);
    }
    vec![Arc::new(store)]
}

/// How often KMS is asked in this time, by processes that start at these times.
fn asked(stores: &[Arc<Store>], starts: &[Millis], end: Millis, answer: DryRun) -> usize {
    let classes = Classes::new(false);
    let mut count = 0;
    for (number, start) in starts.iter().enumerate() {
        let checks = KeyChecks::new(INTERVAL, true);
        let mut clocks = Clocks::new(INTERVAL, *start);
        let mut now = *start;
        let stop = starts.get(number + 1).copied().unwrap_or(end);
        while now < stop {
            now = stop.min(now + 60_000);
            for question in checks.questions(&mut clocks, now, &classes, stores) {
                count += 1;
                checks.learn(&question, answer, now, &classes, stores);
            }
        }
    }
    count
}

#[test]
fn many_objects_of_few_kms_keys_cost_few_calls() {
    let arns: Vec<_> = (0..20).map(arn).collect();
    let keys: Vec<_> = (0..10_000)
        .map(|number| key(&format!("n{}", number % 50), &number.to_string(), &arns[number % 20..][..1], None))
        .collect();
    let stores = stores(&keys);
    assert_eq!(asked(&stores, &[0], 24 * HOUR, DryRun::Usable), 40, "a day");
    let starts: Vec<_> = (0..50).map(|number| number * 24 * HOUR / 50).collect();
    assert_eq!(asked(&stores, &starts, 24 * HOUR, DryRun::Usable), 40, "a day with 50 restarts");
    let at_once: Vec<_> = (0..50).collect();
    assert_eq!(asked(&stores, &at_once, 50, DryRun::Usable), 0, "none at start");
}

#[test]
fn refused_kms_key_is_asked_about_each_hour() {
    let stores = stores(&[key("shop", "orders", &[arn(1)], None)]);
    // Once, then each hour from the first refusal on.
    let asked = asked(&stores, &[0], 24 * HOUR, BAD);
    assert!((12..=24).contains(&asked), "{asked}");
}

#[test]
fn reported_key_is_asked_about_within_an_hour_of_a_restart() {
    let mut reported = key("shop", "orders", &[arn(1)], None);
    let verdict = OfKey::Unusable(Cause::KMSInvalidStateException, at(1));
    reported.status = wanted(&reported, |_| Some(verdict), at(2));
    let stores = stores(&[reported, key("shop", "other", &[arn(2)], None)]);
    let classes = Classes::new(false);
    for start in [0, 5 * HOUR, 9 * HOUR] {
        let checks = KeyChecks::new(INTERVAL, true);
        let mut clocks = Clocks::new(INTERVAL, start);
        let asked: Vec<_> = (1..=60)
            .flat_map(|minute| checks.questions(&mut clocks, start + minute * 60_000, &classes, &stores))
            .collect();
        assert_eq!(asked.iter().filter(|question| *question.arn == *arn(1)).count(), 1, "{start}");
        // From the first answer on, the process has its own time for it.
        checks.learn(&Question::new(Asker::Operator, arn(1).into(), Vec::new()), BAD, start + HOUR, &classes, &stores);
        let more = (61..120)
            .flat_map(|minute| checks.questions(&mut clocks, start + minute * 60_000, &classes, &stores))
            .filter(|question| *question.arn == *arn(1));
        let is_usual = Clock::new(INTERVAL, start + HOUR).advance(start + 2 * HOUR - 60_000)(&arn(1));
        assert_eq!(more.count(), usize::from(is_usual), "{start}");
    }
}

#[test]
fn condition_of_a_rewrapped_object_is_looked_at_again() {
    let mut moved = key("shop", "moved", &[arn(1)], None);
    let verdict = OfKey::Unusable(Cause::KMSInvalidStateException, at(1));
    moved.status = wanted(&moved, |_| Some(verdict), at(2));
    let status = moved.status.as_mut().unwrap();
    let mut rewrap = issued(2);
    rewrap.key_id = arn(2);
    rewrap.rewrap_of = Some(serde_json::from_value(json!({ "version": 1 })).unwrap());
    status.versions.push(rewrap);
    let mut bad = key("shop", "bad", &[arn(1)], None);
    bad.status = wanted(&bad, |_| Some(verdict), at(2));
    let stores = stores(&[moved, bad, key("shop", "other", &[arn(2)], None)]);
    let (checks, classes) = (KeyChecks::new(INTERVAL, true), Classes::new(false));
    let mut named = HashMap::new();
    let mut outdated = |checks: &KeyChecks, now| {
        let places = checks.outdated(&mut named, now, &classes, &stores);
        places.iter().map(|place| place.name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(outdated(&checks, 0), ["moved"], "also where nothing is known of the new KMS key");
    assert!(outdated(&checks, HOUR - 1).is_empty(), "once in an hour");
    assert_eq!(outdated(&checks, HOUR), ["moved"]);
    // The condition could not be removed when AWS KMS used the KMS key again.
    let question = Question::new(Asker::Operator, arn(1).into(), Vec::new());
    checks.learn(&question, DryRun::Usable, HOUR + 1, &classes, &stores);
    assert_eq!(outdated(&checks, HOUR + 2), ["bad"]);
}

#[test]
fn question_is_asked_with_objects_of_many_namespaces() {
    let many = (0..1000).map(|number| (None, place_of("loud", number)));
    let few = (0..5).map(|number| (Some(Arc::from("class")), place_of(&format!("quiet-{number}"), number)));
    let question = Question::new(Asker::Operator, arn(1).into(), many.chain(few).collect());
    let namespaces: BTreeSet<_> = question.candidates().iter().map(|place| place.namespace().to_owned()).collect();
    assert_eq!((namespaces.len(), question.candidates().len()), (6, 8));
}

fn place_of(namespace: &str, number: usize) -> Place {
    Place::new(KindId::DataKey, namespace, &number.to_string())
}

#[test]
fn question_without_an_answer_is_asked_again_within_an_hour() {
    let stores = stores(&[key("shop", "orders", &[arn(1)], None)]);
    let answered = |answer| asked(&stores, &[0], 24 * HOUR, answer);
    assert_eq!(answered(DryRun::Denied("AccessDeniedException")), 2, "in each interval");
    assert!(answered(DryRun::NoAnswer("NotAsked")) > 10);
}

#[test]
fn kms_key_that_does_not_exist_costs_three_calls_a_day() {
    let stores = stores(&[key("shop", "orders", &[arn(1)], None)]);
    assert_eq!(asked(&stores, &[0], 24 * HOUR, DryRun::Unusable(Cause::NotFoundException)), 3);
    assert_eq!(asked(&stores, &[0], 48 * HOUR, DryRun::Unusable(Cause::NotFoundException)), 5);
}

#[test]
fn only_objects_that_say_something_else_are_written() {
    let mut reported = key("shop", "reported", &[arn(1)], None);
    let verdict = OfKey::Unusable(Cause::KMSInvalidStateException, at(1));
    reported.status = wanted(&reported, |_| Some(verdict), at(2));
    let stores = stores(&[
        key("shop", "new", &[arn(1)], None),
        key("shop", "both", &[arn(1), arn(2)], None),
        key("shop", "other", &[arn(2)], None),
        reported,
    ]);
    let (checks, classes) = (KeyChecks::new(INTERVAL, true), Classes::new(false));
    let question = Question::new(Asker::Operator, arn(1).into(), Vec::new());
    let mut now = 0;
    let mut learn = |answer| {
        now += 2 * HOUR;
        let mut names: Vec<_> = checks
            .learn(&question, answer, now, &classes, &stores)
            .iter()
            .map(|place| place.name().to_owned())
            .collect();
        names.sort();
        names
    };
    assert!(learn(BAD).is_empty(), "once says little");
    assert_eq!(learn(BAD), ["both", "new"], "one has the condition already");
    assert_eq!(learn(BAD), ["both", "new"], "they have no condition yet");
    assert!(learn(DryRun::Denied("AccessDeniedException")).is_empty());
    assert_eq!(learn(DryRun::Unusable(Cause::NotFoundException)), ["both", "new", "reported"], "another cause");
    assert_eq!(learn(DryRun::Usable), ["reported"]);
    let states = checks.states(stores.iter().map(|store| &**store));
    assert_eq!(states, KmsKeyStates { usable: 1, unusable: 0, unknown: 1 });
}

#[test]
fn identity_is_that_of_the_present_class() {
    let class = |name: &str, role: Option<&str>| -> Encoded {
        let aws = role.map(|role| json!({ "roleArn": format!("arn:aws:iam::444455556666:role/{role}") }));
        let spec = json!({ "namespaces": ["shop"], "allow": [{ "keyIds": [arn(1)] }], "aws": aws });
        let metadata = json!({ "name": name, "uid": name, "generation": 1 });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    };
    let classes = Classes::new(false);
    classes.put(&class("plain", None));
    classes.put(&class("role", Some("shop")));
    let stores = stores(&[
        key("shop", "none", &[arn(1)], None),
        key("shop", "plain", &[arn(1)], Some("plain")),
        key("shop", "role", &[arn(1)], Some("role")),
        key("bank", "not-admitted", &[arn(1)], Some("role")),
        key("shop", "absent", &[arn(1)], Some("absent")),
    ]);
    let mut askers = BTreeMap::<_, Vec<String>>::new();
    for (asker, _, member) in members_of(&BTreeSet::from([Arc::from(arn(1))]), &classes, &stores) {
        askers.entry(asker).or_default().push(member.place.name().to_owned());
    }
    for names in askers.values_mut() {
        names.sort();
    }
    let role = Asker::Role("arn:aws:iam::444455556666:role/shop".to_owned(), None);
    let expected = [(Asker::Operator, vec!["none".to_owned(), "plain".to_owned()]), (role, vec!["role".to_owned()])];
    assert_eq!(askers, expected.into());
}
