use std::time::Duration;

use datakey::{
    api::{DataKey, DataKeyPair, KeyKind as _},
    condition,
    fixtures::{Sample as _, at, data_key, issued, recorded},
    reason::Reason,
    secret::{
        digest::Digest,
        known::{Origin, Verified},
        metadata::WatchedSecret,
    },
};
use kube::runtime::watcher::Event;
use serde_json::json;
use tokio::time::Instant;

use super::*;

const HOUR: Duration = Duration::from_hours(1);

// === DataKeys ===

fn named(name: &str, uid: &str, version: &str) -> DataKey {
    let mut key = data_key();
    key.metadata.name = Some(name.to_owned());
    key.metadata.uid = Some(uid.to_owned());
    key.metadata.resource_version = Some(version.to_owned());
    key
}

fn encoded(key: &DataKey) -> Encoded {
    serde_json::from_value(serde_json::to_value(key).unwrap()).unwrap()
}

fn place(name: &str) -> Place {
    Place::new(KindId::DataKey, "shop", name)
}

/// Delivers a state by the watch, as `watch::put` does.
fn deliver(store: &Store, key: &DataKey, verdict: Verdict) -> bool {
    deliver_by(store, key, Delivery::Event, verdict)
}

fn deliver_by(store: &Store, key: &DataKey, by: Delivery, verdict: Verdict) -> bool {
    store.is_news(KindId::DataKey, &key.metadata, by)
        && store.put_watched(KindId::DataKey, encoded(key), by, Facts::of(key), verdict).unwrap().is_open
}

fn answer(store: &Store, key: &DataKey) {
    store.put_answer(KindId::DataKey, &Arc::new(encoded(key)), Facts::of(key));
}

/// The resource version of the newest state, if it is in memory.
fn held(store: &Store, name: &str) -> Option<String> {
    match store.find(&place(name)) {
        Some(Found::Held(object)) => object.metadata.resource_version.clone(),
        _ => None,
    }
}

fn is_settled(store: &Store, name: &str) -> bool {
    matches!(store.find(&place(name)), Some(Found::Settled(_)))
}

fn must_be_read(store: &Store, name: &str) -> bool {
    matches!(store.find(&place(name)), Some(Found::NotHeld(_)))
}

// === classes ===

fn of_class(name: &str, version: &str, class: Option<&str>) -> DataKey {
    let mut key = named(name, name, version);
    key.spec.class_name = class.map(str::to_owned);
    key
}

#[test]
fn objects_of_each_class_are_counted() {
    let store = Store::new(Arc::new(WorkingSet::new(1 << 20)), &[KindId::DataKey]);
    let counts = || {
        let mut named = store.class_counts();
        named.sort();
        let unnamed = store.count_without_class();
        (named.into_iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", "), unnamed)
    };
    for (name, class) in [("a", Some("shop")), ("b", Some("shop")), ("c", Some("bank")), ("d", None)] {
        deliver(&store, &of_class(name, "1", class), Verdict::Open);
    }
    assert_eq!(counts(), ("bank 1, shop 2".to_owned(), 1));
    deliver(&store, &of_class("a", "2", Some("bank")), Verdict::Settled);
    answer(&store, &of_class("b", "2", None));
    assert_eq!(counts(), ("bank 2".to_owned(), 2));
    store.remove(KindId::DataKey, &of_class("c", "1", None).metadata);
    store.key_list_begins(KindId::DataKey);
    store.key_list_ends(KindId::DataKey);
    assert_eq!(counts(), (String::new(), 0), "no name is kept");
}

#[test]
fn open_objects_are_found_by_class_and_state() {
    let store = Store::new(Arc::new(WorkingSet::new(1 << 20)), &[KindId::DataKey]);
    let refused = |mut key: DataKey| {
        key.status = Some(condition::failed(&key, &Reason::ClassRefused.into(), at(0)));
        key
    };
    deliver(&store, &refused(of_class("refused", "1", Some("shop"))), Verdict::Open);
    deliver(&store, &of_class("new", "1", Some("shop")), Verdict::Open);
    deliver(&store, &refused(of_class("settled", "1", Some("shop"))), Verdict::Settled);
    deliver(&store, &refused(of_class("other", "1", Some("bank"))), Verdict::Open);
    let found =
        store.open_where(|class, state| class == Some("shop") && state == ReadyState::Failed(Reason::ClassRefused));
    assert_eq!(found, [place("refused")]);
}

// === Secrets ===

fn secret(name: &str, uid: &str, version: &str, belongs_to: &str) -> WatchedSecret {
    let labels = json!({ datakey::names::NAME_LABEL: belongs_to });
    let metadata =
        json!({ "name": name, "namespace": "shop", "uid": uid, "resourceVersion": version, "labels": labels });
    serde_json::from_value(json!({ "metadata": metadata })).unwrap()
}

fn known(secret: WatchedSecret, verified: Option<Verified>) -> KnownSecret {
    KnownSecret { metadata: secret.metadata, verified }
}

fn read() -> Verified {
    Verified::read(Digest::of(&<_>::default()), Instant::now().into_std())
}

fn with(uid: &str, version: &str) -> Verdict {
    Verdict::SettledWith(Some(Revision { uid: uid.to_owned(), resource_version: version.to_owned() }))
}

fn relist_secrets(store: &Store, secrets: &[WatchedSecret]) -> Vec<Place> {
    let mut concerned = store.secret_changed(KindId::DataKey, Event::Init);
    for secret in secrets {
        concerned.extend(store.secret_changed(KindId::DataKey, Event::InitApply(secret.clone())));
    }
    concerned.extend(store.secret_changed(KindId::DataKey, Event::InitDone));
    concerned.sort();
    concerned
}

fn relist_keys(store: &Store, keys: &[DataKey]) -> Removed {
    store.key_list_begins(KindId::DataKey);
    for key in keys {
        deliver_by(store, key, Delivery::List, Verdict::Open);
    }
    store.key_list_ends(KindId::DataKey)
}

fn empty() -> Store {
    Store::new(Arc::new(WorkingSet::new(1 << 20)), &[KindId::DataKey])
}

/// A store whose watches have listed these.
fn listed(keys: &[DataKey], secrets: &[WatchedSecret]) -> Store {
    let store = empty();
    relist_secrets(&store, secrets);
    relist_keys(&store, keys);
    assert!(store.is_listed());
    store
}

// === the newest state ===

#[test]
fn answer_is_the_newest_state_until_the_watch_delivers_it() {
    let store = listed(&[named("orders", "a", "99")], &[]);
    answer(&store, &named("orders", "a", "100"));
    assert!(!store.is_news(KindId::DataKey, &named("orders", "a", "99").metadata, Delivery::Event), "it is older");
    assert_eq!(held(&store, "orders").as_deref(), Some("100"));
    assert!(!store.is_news(KindId::DataKey, &named("orders", "a", "100").metadata, Delivery::Event), "it is known");
    assert!(
        store.is_news(KindId::DataKey, &named("orders", "a", "99").metadata, Delivery::Event),
        "the order of the watch is that of the changes"
    );
    assert!(deliver(&store, &named("orders", "a", "101"), Verdict::Open));
    assert_eq!(held(&store, "orders").as_deref(), Some("101"));
}

#[test]
fn answer_that_came_while_an_event_was_decoded_stays() {
    let store = listed(&[named("orders", "a", "98")], &[]);
    assert!(store.is_news(KindId::DataKey, &named("orders", "a", "99").metadata, Delivery::Event));
    answer(&store, &named("orders", "a", "100"));
    let late = named("orders", "a", "99");
    assert_eq!(
        store.put_watched(KindId::DataKey, encoded(&late), Delivery::Event, Facts::of(&late), Verdict::Settled),
        None
    );
    assert_eq!(held(&store, "orders").as_deref(), Some("100"));
}

#[test]
fn late_answer_does_not_replace_a_newer_state() {
    let store = listed(&[named("orders", "a", "101")], &[]);
    answer(&store, &named("orders", "a", "100"));
    assert_eq!(held(&store, "orders").as_deref(), Some("101"));
    answer(&store, &named("orders", "b", "200"));
    assert_eq!(held(&store, "orders").as_deref(), Some("101"), "of another object of the same name");
    answer(&store, &named("unknown", "c", "200"));
    assert!(store.find(&place("unknown")).is_none(), "the watch would not remove it");
}

#[test]
fn watch_replaces_an_answer_without_a_numeric_version() {
    let store = listed(&[named("orders", "a", "a")], &[]);
    answer(&store, &named("orders", "a", "b"));
    assert!(deliver(&store, &named("orders", "a", "c"), Verdict::Open));
    assert_eq!(held(&store, "orders").as_deref(), Some("c"));
}

#[test]
fn refused_write_puts_only_an_answer_in_doubt() {
    let store = listed(&[named("orders", "a", "99")], &[]);
    store.doubt_answer(&place("orders"));
    assert_eq!(held(&store, "orders").as_deref(), Some("99"), "the watch delivered it");
    answer(&store, &named("orders", "a", "100"));
    store.doubt_answer(&place("orders"));
    assert!(must_be_read(&store, "orders"));
    assert!(!deliver(&store, &named("orders", "a", "99"), Verdict::Open), "the watch may only be late");
    // The API server was restored to an earlier state.
    answer(&store, &named("orders", "a", "50"));
    assert_eq!(held(&store, "orders").as_deref(), Some("50"));
    store.doubt_answer(&place("orders"));
    relist_keys(&store, &[named("orders", "a", "40")]);
    assert_eq!(held(&store, "orders").as_deref(), Some("40"));
}

#[test]
fn recreated_object_replaces_the_earlier_one() {
    let store = listed(&[named("orders", "a", "99")], &[]);
    answer(&store, &named("orders", "a", "200"));
    assert!(deliver(&store, &named("orders", "b", "150"), Verdict::Open));
    assert_eq!(store.uid(&place("orders")).as_deref(), Some("b"));
    assert_eq!(store.working_set.bytes(), encoded(&named("orders", "b", "150")).size(), "nothing is kept of the other");
    assert!(store.remove(KindId::DataKey, &named("orders", "a", "99").metadata).concerned.is_empty());
    assert_eq!(held(&store, "orders").as_deref(), Some("150"), "a late event of the earlier one");
}

// === what there is to do ===

#[test]
fn settled_key_is_not_kept_in_memory() {
    let store = listed(&[], &[secret("orders", "s", "7", "orders")]);
    assert!(deliver(&store, &named("orders", "a", "1"), Verdict::Open));
    assert!(store.working_set.bytes() > 0);
    assert!(!deliver(&store, &named("orders", "a", "2"), with("s", "7")));
    assert!(is_settled(&store, "orders") && store.open().is_empty());
    assert_eq!(store.working_set.bytes(), 0);
}

#[test]
fn key_is_settled_only_with_the_revision_of_the_verdict() {
    let store = listed(&[], &[secret("orders", "s", "8", "orders")]);
    assert!(deliver(&store, &named("orders", "a", "1"), with("s", "7")), "the Secret changed meanwhile");
    assert!(deliver(&store, &named("orders", "a", "2"), Verdict::SettledWith(None)), "there is a Secret");
    assert!(!deliver(&store, &named("other", "b", "2"), Verdict::SettledWith(None)));
    assert_eq!(store.open(), [place("orders")]);
}

#[test]
fn changed_secret_opens_its_key() {
    let store = listed(&[], &[secret("orders", "s", "7", "orders")]);
    deliver(&store, &named("orders", "a", "1"), with("s", "7"));
    assert!(
        store.secret_changed(KindId::DataKey, Event::Apply(secret("orders", "s", "7", "orders"))).is_empty(),
        "the same revision"
    );
    assert_eq!(
        store.secret_changed(KindId::DataKey, Event::Apply(secret("orders", "s", "8", "orders"))),
        [place("orders")]
    );
    assert!(must_be_read(&store, "orders"));
    deliver(&store, &named("orders", "a", "2"), with("s", "8"));
    assert_eq!(
        store.secret_changed(KindId::DataKey, Event::Delete(secret("orders", "s", "9", "orders"))),
        [place("orders")]
    );
    assert!(must_be_read(&store, "orders") && store.secret(&place("orders")).is_none());
}

#[test]
fn own_write_of_the_secret_opens_the_key_until_it_is_settled() {
    let store = listed(&[], &[secret("orders", "s", "7", "orders")]);
    deliver(&store, &named("orders", "a", "1"), with("s", "7"));
    store.put_secret(&place("orders"), known(secret("orders", "s", "7", "orders"), Some(read())));
    assert!(is_settled(&store, "orders"), "the same revision");
    store.put_secret(&place("orders"), known(secret("orders", "s", "8", "orders"), Some(read())));
    assert!(must_be_read(&store, "orders"));
}

#[test]
fn own_write_for_one_key_wakes_the_other_that_wants_the_secret() {
    let mut other = named("invoices", "b", "1");
    other.spec.secret_name = Some("orders".to_owned());
    let store = listed(&[], &[secret("orders", "s", "7", "orders")]);
    deliver(&store, &named("orders", "a", "1"), with("s", "7"));
    deliver(&store, &other, with("s", "7"));
    let written = || secret("orders", "s", "8", "orders");
    store.put_secret(&place("orders"), known(written(), Some(read())));
    store.settle(&named("orders", "a", "1"), Some(&known(written(), Some(read()))));
    assert_eq!(
        store.secret_changed(KindId::DataKey, Event::Apply(written())),
        [place("invoices")],
        "the writer has decided on it"
    );
    store.settle(&other, Some(&known(written(), Some(read()))));
    assert!(store.secret_changed(KindId::DataKey, Event::Apply(written())).is_empty());
}

#[test]
fn key_that_is_being_deleted_ignores_its_secret() {
    let store = listed(&[], &[secret("orders", "s", "7", "orders")]);
    deliver(&store, &named("orders", "a", "1"), Verdict::Settled);
    assert!(store.secret_changed(KindId::DataKey, Event::Delete(secret("orders", "s", "7", "orders"))).is_empty());
    assert!(is_settled(&store, "orders"));
    let mut leaving = named("orders", "a", "2");
    assert!(deliver(&store, &leaving, Verdict::Open));
    leaving.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(4)));
    store.settle(&leaving, None);
    assert!(is_settled(&store, "orders"));
}

#[test]
fn reported_undecodable_key_that_was_read_is_settled() {
    let store = listed(&[named("orders", "a", "1")], &[secret("orders", "s", "7", "orders")]);
    answer(&store, &named("orders", "a", "2"));
    store.settle_alone(KindId::DataKey, &named("orders", "a", "1").metadata);
    assert!(!is_settled(&store, "orders"), "another state");
    store.settle_alone(KindId::DataKey, &named("orders", "a", "2").metadata);
    assert!(is_settled(&store, "orders"));
    assert_eq!(store.working_set.bytes(), 0);
}

#[test]
fn reconcile_settles_only_what_it_has_seen() {
    let store = listed(&[named("orders", "a", "1")], &[secret("orders", "s", "7", "orders")]);
    let known = |version| known(secret("orders", "s", version, "orders"), None);
    store.settle(&named("orders", "a", "2"), Some(&known("7")));
    assert!(!is_settled(&store, "orders"), "another state");
    store.settle(&named("orders", "a", "1"), Some(&known("6")));
    assert!(!is_settled(&store, "orders"), "another revision of the Secret");
    store.settle(&named("orders", "a", "1"), None);
    assert!(!is_settled(&store, "orders"), "the Secret is there");
    store.settle(&named("orders", "a", "1"), Some(&known("7")));
    assert!(is_settled(&store, "orders"));
}

#[test]
fn content_that_the_status_names_is_not_kept_twice() {
    let mut key = named("orders", "a", "1");
    let saved = |version: &str| {
        Some(datakey::api::VerifiedSecret {
            uid: "s".to_owned(),
            resource_version: version.to_owned(),
            digest: read().digest.to_string(),
        })
    };
    let store = listed(&[key.clone()], &[]);
    let written = known(secret("orders", "s", "7", "orders"), Some(Verified::written(read().digest)));
    store.put_secret(&place("orders"), written.clone());
    key.status = Some(condition::ready(&key, &issued(1), saved("6"), at(1)));
    store.settle(&key, Some(&written));
    assert_eq!(store.secret(&place("orders")), Some(written.clone()), "the status names another revision");
    deliver(&store, &named("orders", "a", "2"), Verdict::Open);
    key.metadata.resource_version = Some("2".to_owned());
    key.status = Some(condition::ready(&key, &issued(1), saved("7"), at(1)));
    store.settle(&key, Some(&written));
    assert_eq!(store.secret(&place("orders")).unwrap().verified, None);
}

#[test]
fn key_beyond_the_working_set_must_be_read() {
    let store = Store::new(Arc::new(WorkingSet::new(encoded(&named("orders", "a", "1")).size())), &[KindId::DataKey]);
    relist_secrets(&store, &[]);
    relist_keys(&store, &[named("orders", "a", "1"), named("bills", "b", "2")]);
    assert!(must_be_read(&store, "orders") && held(&store, "bills").is_some());
    answer(&store, &named("orders", "a", "1"));
    assert_eq!(held(&store, "orders").as_deref(), Some("1"), "it was read");
    assert!(must_be_read(&store, "bills"));
}

// === lists ===

#[test]
fn store_is_listed_after_both_first_lists() {
    let store = empty();
    relist_keys(&store, &[]);
    assert!(!store.is_listed());
    relist_secrets(&store, &[]);
    assert!(store.is_listed());
}

#[test]
fn keys_judged_before_secrets_are_listed_wait_for_them() {
    let store = empty();
    let mut key = named("same", "a", "1");
    let saved = datakey::api::VerifiedSecret { uid: "s".into(), resource_version: "7".into(), digest: "d".into() };
    key.status = Some(condition::ready(&key, &issued(1), Some(saved), at(1)));
    let assumed = store.secret_of(&key).unwrap();
    assert_eq!((assumed.metadata.revision.resource_version.as_str(), assumed.verified), ("7", None));
    assert_eq!(store.secret_of(&data_key()), None);
    for (name, version) in [("same", "7"), ("changed", "8"), ("gone", "9")] {
        assert!(!deliver(&store, &named(name, name, "1"), with("s", version)));
    }
    assert!(!deliver(&store, &named("none", "d", "1"), Verdict::SettledWith(None)));
    store.key_list_ends(KindId::DataKey);
    let secrets = [secret("same", "s", "7", "same"), secret("changed", "s", "80", "changed")];
    assert!(relist_secrets(&store, &secrets).is_empty(), "what is open is queued after the lists");
    assert!(is_settled(&store, "same") && is_settled(&store, "none"));
    let mut open = store.open();
    open.sort();
    assert_eq!(open, [place("changed"), place("gone")]);
    assert_eq!(store.secret_of(&named("same", "same", "2")).unwrap().metadata.revision.resource_version, "7");
}

#[test]
fn list_removes_keys_that_it_does_not_have() {
    let mut renamed = recorded(&[1]);
    renamed.metadata = named("other", "b", "2").metadata;
    renamed.status.as_mut().unwrap().secret_name = Some("orders".to_owned());
    let store = listed(&[named("orders", "a", "1"), renamed.clone()], &[]);
    let again = relist_keys(&store, &[named("orders", "a", "1"), renamed]);
    assert_eq!(again, Removed::default());
    let removed = relist_keys(&store, &[named("orders", "a", "1")]);
    assert_eq!(removed, Removed { uids: vec!["b".to_owned()], concerned: vec![place("orders")] });
    assert!(store.find(&place("other")).is_none() && held(&store, "orders").is_some());
    assert_eq!(store.working_set.bytes(), encoded(&named("orders", "a", "1")).size());
}

#[test]
fn list_of_secrets_wakes_keys_of_changed_and_deleted_secrets() {
    let secrets =
        [secret("same", "a", "1", "same"), secret("gone", "b", "2", "gone"), secret("changed", "c", "3", "changed")];
    let store = listed(&[], &secrets);
    for (name, uid, version) in [("same", "a", "1"), ("gone", "b", "2"), ("changed", "c", "3")] {
        assert!(!deliver(&store, &named(name, name, "1"), with(uid, version)));
    }
    deliver(&store, &named("new", "new", "1"), Verdict::SettledWith(None));
    let now =
        [secret("same", "a", "1", "same"), secret("changed", "c", "9", "changed"), secret("new", "d", "8", "new")];
    assert_eq!(relist_secrets(&store, &now), [place("changed"), place("gone"), place("new")]);
    assert_eq!(store.secret(&place("gone")), None);
    assert!(is_settled(&store, "same"));
}

#[test]
fn own_write_during_a_list_is_newer_than_what_the_list_has() {
    let store = listed(&[named("orders", "a", "1")], &[secret("orders", "s", "7", "orders")]);
    store.secret_changed(KindId::DataKey, Event::Init);
    store.put_secret(&place("orders"), known(secret("orders", "s", "9", "orders"), Some(read())));
    assert!(store.secret_changed(KindId::DataKey, Event::InitApply(secret("orders", "s", "8", "orders"))).is_empty());
    assert!(store.secret_changed(KindId::DataKey, Event::InitDone).is_empty());
    assert!(store.secret(&place("orders")).is_some_and(|known| known.verified.is_some()));
}

#[test]
fn created_secret_that_a_list_does_not_have_may_be_gone() {
    let store = listed(&[named("orders", "a", "1")], &[]);
    store.secret_changed(KindId::DataKey, Event::Init);
    store.put_secret(&place("orders"), known(secret("orders", "s", "7", "orders"), Some(read())));
    assert_eq!(store.secret_changed(KindId::DataKey, Event::InitDone), [place("orders")]);
    assert_eq!(store.secret(&place("orders")), None);
}

#[test]
fn list_replaces_newer_states_after_a_restore_of_the_api_server() {
    let store = listed(&[named("orders", "a", "100")], &[secret("orders", "s", "101", "orders")]);
    answer(&store, &named("orders", "a", "102"));
    store.put_secret(&place("orders"), known(secret("orders", "s", "103", "orders"), Some(read())));
    relist_secrets(&store, &[secret("orders", "s", "51", "orders")]);
    relist_keys(&store, &[named("orders", "a", "50")]);
    assert_eq!(held(&store, "orders").as_deref(), Some("50"));
    assert_eq!(store.secret(&place("orders")).unwrap().metadata.revision.resource_version, "51");
    assert!(!deliver(&store, &named("orders", "a", "52"), with("s", "51")));
}

// === Secrets ===

#[test]
fn changed_label_wakes_the_old_and_the_new_key() {
    let keys = ["orders", "bills", "s"].map(|name| named(name, name, "1"));
    let store = listed(&keys, &[secret("s", "a", "1", "orders")]);
    let mut concerned = store.secret_changed(KindId::DataKey, Event::Apply(secret("s", "a", "2", "bills")));
    concerned.sort();
    assert_eq!(concerned, [place("bills"), place("orders"), place("s")]);
    assert!(store.secret_changed(KindId::DataKey, Event::Apply(secret("other", "b", "3", "unknown"))).is_empty());
}

#[test]
fn late_deletion_event_keeps_the_recreated_secret() {
    let store = listed(&[named("orders", "a", "1")], &[secret("s", "a", "1", "orders")]);
    store.put_secret(&place("s"), known(secret("s", "b", "5", "orders"), None));
    assert!(store.secret_changed(KindId::DataKey, Event::Delete(secret("s", "a", "3", "orders"))).is_empty());
    assert_eq!(store.secret(&place("s")).map(|known| known.metadata.revision.uid), Some("b".to_owned()));
}

#[test]
fn late_answer_does_not_bring_a_deleted_secret_back() {
    let store = listed(&[named("orders", "a", "1")], &[secret("orders", "s", "7", "orders")]);
    assert_eq!(
        store.secret_changed(KindId::DataKey, Event::Delete(secret("orders", "s", "8", "orders"))),
        [place("orders")]
    );
    // It was read before its deletion.
    let late = known(secret("orders", "s", "7", "orders"), Some(read()));
    store.put_secret(&place("orders"), late.clone());
    assert_eq!(store.secret(&place("orders")), None);
    store.settle(&named("orders", "a", "1"), Some(&late));
    assert!(!is_settled(&store, "orders"), "it must be created again");
    store.put_secret(&place("orders"), known(secret("orders", "t", "9", "orders"), Some(read())));
    assert!(store.secret(&place("orders")).is_some(), "another one of the same name");
}

#[test]
fn event_older_than_an_own_write_is_ignored() {
    let store = listed(&[named("orders", "a", "1")], &[]);
    store.put_secret(&place("orders"), known(secret("orders", "a", "10", "orders"), Some(read())));
    for version in ["9", "10"] {
        assert!(
            store.secret_changed(KindId::DataKey, Event::Apply(secret("orders", "a", version, "orders"))).is_empty()
        );
        assert!(store.secret(&place("orders")).is_some_and(|known| known.verified.is_some()));
    }
    store.put_secret(&place("orders"), known(secret("orders", "a", "9", "orders"), Some(read())));
    assert_eq!(store.secret(&place("orders")).unwrap().metadata.revision.resource_version, "10");
    assert_eq!(
        store.secret_changed(KindId::DataKey, Event::Apply(secret("orders", "a", "11", "orders"))),
        [place("orders")]
    );
    assert!(store.secret(&place("orders")).is_some_and(|known| known.verified.is_none()));
}

#[test]
fn verification_is_valid_for_one_revision() {
    let store = listed(&[], &[secret("s", "a", "12", "orders")]);
    store.put_secret(&place("s"), known(secret("s", "a", "12", "orders"), Some(read())));
    relist_secrets(&store, &[secret("s", "a", "12", "orders")]);
    assert!(store.secret(&place("s")).unwrap().verified.is_some(), "the same after a list");
    relist_secrets(&store, &[secret("s", "b", "12", "orders")]);
    assert!(store.secret(&place("s")).unwrap().verified.is_none(), "another Secret");
}

#[test]
fn store_returns_the_metadata_that_the_watch_delivered() {
    let store = listed(&[], &[]);
    for (name, belongs_to) in [("orders", "orders"), ("orders", "other"), ("s", "orders")] {
        let secret = secret(name, "7c3c8f7e-5b0a-4c62-9d5e-000000000001", "12", belongs_to);
        store.secret_changed(KindId::DataKey, Event::Apply(secret.clone()));
        assert_eq!(store.secret(&place(name)), Some(known(secret, None)));
        store.secret_changed(KindId::DataKey, Event::Delete(store_secret(name)));
    }
    let unlabeled: WatchedSecret =
        serde_json::from_value(json!({ "metadata": { "name": "s", "namespace": "shop", "uid": "u" } })).unwrap();
    store.secret_changed(KindId::DataKey, Event::Apply(unlabeled.clone()));
    assert_eq!(store.secret(&place("s")), Some(known(unlabeled, None)));
}

fn store_secret(name: &str) -> WatchedSecret {
    secret(name, "7c3c8f7e-5b0a-4c62-9d5e-000000000001", "13", name)
}

#[tokio::test(start_paused = true)]
async fn revision_settles_once_after_its_quiet_time() {
    let store = listed(&[], &[]);
    for (name, version) in [("read", "1"), ("own", "2"), ("seen", "3")] {
        store.secret_changed(KindId::DataKey, Event::Apply(secret(name, name, version, name)));
        assert!(!deliver(&store, &named(name, name, "1"), with(name, version)));
    }
    store.put_secret(&place("read"), known(secret("read", "read", "1", "read"), Some(read())));
    let written = Verified::written(read().digest);
    store.put_secret(&place("own"), known(secret("own", "own", "2", "own"), Some(written)));
    tokio::time::advance(HOUR / 2).await;
    assert!(store.settle_reads(HOUR).is_empty());
    tokio::time::advance(HOUR / 2).await;
    assert_eq!(store.settle_reads(HOUR), [place("read")]);
    assert!(must_be_read(&store, "read") && is_settled(&store, "own") && is_settled(&store, "seen"));
    assert!(store.settle_reads(HOUR).is_empty());
    assert_eq!(store.secret(&place("read")).unwrap().verified.unwrap().origin, Origin::Settled);
}

// === names of Secrets ===

/// An object with a record and this Secret.
fn with_secret(name: &str, uid: &str, version: &str, secret: &str) -> DataKey {
    let mut key = named(name, uid, version);
    key.spec.secret_name = Some(secret.to_owned());
    key
}

#[test]
fn only_the_last_name_of_a_secret_counts() {
    let store = listed(&[], &[]);
    for number in 0..1000 {
        let version = (number + 1).to_string();
        deliver(&store, &with_secret("orders", "a", &version, &format!("secret-{number}")), Verdict::Open);
    }
    deliver(&store, &with_secret("other", "b", "2000", "secret-999"), Verdict::Open);
    assert_eq!(store.rows.lock().by_place.len(), 3, "two DataKeys and the Secret that they want");
    let changed = |name: &str| store.secret_changed(KindId::DataKey, Event::Apply(secret(name, name, "1", "none")));
    assert_eq!(changed("secret-999"), [place("orders"), place("other")]);
    assert!(changed("secret-998").is_empty());
    deliver(&store, &named("orders", "a", "3000"), Verdict::Open);
    assert_eq!(
        store.secret_changed(KindId::DataKey, Event::Apply(secret("secret-999", "secret-999", "2", "none"))),
        [place("other")]
    );
    store.remove(KindId::DataKey, &named("other", "b", "2000").metadata);
    store.remove(KindId::DataKey, &named("orders", "a", "3000").metadata);
    for name in ["secret-998", "secret-999"] {
        store.secret_changed(KindId::DataKey, Event::Delete(secret(name, name, "9", "none")));
    }
    assert!(store.rows.lock().by_place.is_empty(), "nothing is left");
}

#[test]
fn rival_is_another_key_with_a_record_for_the_same_secret() {
    let recorded = |name: &str, uid: &str, secret: &str| {
        let mut key = recorded(&[1]);
        key.metadata = named(name, uid, "1").metadata;
        key.status.as_mut().unwrap().secret_name = Some(secret.to_owned());
        key
    };
    let store = listed(&[named("orders", "a", "1"), with_secret("other", "b", "1", "orders")], &[]);
    let rival = |name: &str, uid: &str, secret: &str| {
        store.rival(&with_secret(name, uid, "1", secret)).map(|rival| rival.name().to_owned())
    };
    assert_eq!(rival("orders", "a", "orders"), None, "none has a record");
    answer(&store, &{
        let mut key = recorded("other", "b", "orders");
        key.metadata.resource_version = Some("2".to_owned());
        key
    });
    assert_eq!(rival("orders", "a", "orders").as_deref(), Some("other"), "our own write counts");
    assert_eq!(rival("other", "b", "orders"), None, "not its own");
    deliver(&store, &recorded("third", "c", "third"), Verdict::Open);
    assert_eq!(rival("orders", "a", "third").as_deref(), Some("third"));
}

#[tokio::test(start_paused = true)]
async fn secret_stays_claimed_while_its_first_record_is_in_doubt() {
    let key = named("orders", "a", "5");
    let secret = place("orders");
    let in_doubt = || {
        let store = listed(&[key.clone(), with_secret("other", "b", "1", "orders")], &[]);
        store.claim(&secret, "a").unwrap().keep_in_doubt(&key);
        assert!(store.claim(&secret, "b").is_none());
        store
    };
    // The object itself goes on, and the doubt outlives that.
    let store = in_doubt();
    assert!(store.claim(&secret, "a").is_some() && store.claim(&secret, "b").is_none());
    // A list from before the write, or the same state again, says nothing.
    for version in ["4", "5"] {
        deliver_by(&store, &named("orders", "a", version), Delivery::List, Verdict::Open);
        assert!(store.claim(&secret, "b").is_none(), "{version}");
    }
    // A later state does, by any client.
    answer(&store, &named("orders", "a", "6"));
    assert!(store.claim(&secret, "b").is_some());
    let store = in_doubt();
    let mut written = recorded(&[1]);
    written.metadata = named("orders", "a", "6").metadata;
    deliver(&store, &written, Verdict::Open);
    assert!(store.claim(&secret, "b").is_some());
    assert!(store.rival(&with_secret("other", "b", "1", "orders")).is_some(), "its record keeps the name");
    // So does its end, and another object of its name.
    let store = in_doubt();
    store.remove(KindId::DataKey, &key.metadata);
    assert!(store.claim(&secret, "b").is_some());
    let store = in_doubt();
    deliver(&store, &named("orders", "c", "7"), Verdict::Open);
    assert!(store.claim(&secret, "c").is_some());
    // No write takes longer.
    let store = in_doubt();
    tokio::time::advance(Duration::from_secs(59)).await;
    assert!(store.claim(&secret, "b").is_none());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(store.claim(&secret, "b").is_some());
}

#[test]
fn undecodable_key_keeps_the_name_of_its_secret() {
    let store = listed(&[named("orders", "a", "1")], &[]);
    let put = |key: &DataKey| {
        let (object, facts) = (encoded(key), Facts::unreadable(&encoded(key)));
        store.put_watched(KindId::DataKey, object, Delivery::Event, facts, Verdict::Settled);
    };
    let rival =
        |secret: &str| store.rival(&with_secret("orders", "a", "1", secret)).map(|rival| rival.name().to_owned());
    let mut odd = named("odd", "d", "1");
    odd.status = recorded(&[1]).status;
    odd.status.as_mut().unwrap().secret_name = Some("kept".to_owned());
    put(&odd);
    assert_eq!((rival("kept").as_deref(), rival("odd")), (Some("odd"), None));
    // Without a record there is nothing to keep.
    put(&named("empty", "e", "1"));
    assert_eq!(rival("empty"), None);
}

#[test]
fn deleted_key_wakes_those_that_want_its_secret() {
    let store = listed(&[named("orders", "a", "1"), with_secret("other", "b", "1", "orders")], &[]);
    let removed = store.remove(KindId::DataKey, &named("orders", "a", "2").metadata);
    assert_eq!(removed, Removed { uids: vec!["a".to_owned()], concerned: vec![place("other")] });
}

#[test]
fn secret_is_claimed_by_one_key_at_a_time() {
    let store = empty();
    let claim = store.claim(&place("orders"), "a");
    assert!(
        claim.is_some() && store.claim(&place("orders"), "a").is_none() && store.claim(&place("other"), "a").is_some()
    );
    drop(claim);
    assert!(store.claim(&place("orders"), "a").is_some());
}

// === two kinds ===

/// A store whose watches have listed these objects and these counterparts of others as `DataKeyPair`s.
fn listed_both(keys: &[DataKey], pairs: &[DataKey]) -> Store {
    let store = Store::new(Arc::new(WorkingSet::new(1 << 20)), &[KindId::DataKey, KindId::DataKeyPair]);
    relist_secrets(&store, &[]);
    relist_keys(&store, keys);
    assert!(!store.is_listed(), "key pairs are not listed");
    for event in [Event::Init, Event::InitDone] {
        store.secret_changed(KindId::DataKeyPair, event);
    }
    store.key_list_begins(KindId::DataKeyPair);
    for pair in pairs {
        deliver_pair(&store, pair);
    }
    store.key_list_ends(KindId::DataKeyPair);
    assert!(store.is_listed());
    store
}

fn deliver_pair(store: &Store, like: &DataKey) {
    let pair = DataKeyPair::like(like);
    let encoded = serde_json::from_value(serde_json::to_value(&pair).unwrap()).unwrap();
    store.put_watched(DataKeyPair::KIND.id, encoded, Delivery::List, Facts::of(&pair), Verdict::Open).unwrap();
}

fn recorded_as(name: &str, uid: &str) -> DataKey {
    DataKey { metadata: named(name, uid, "1").metadata, ..recorded(&[1]) }
}

#[test]
fn objects_of_two_kinds_with_one_name_have_rows_of_their_own() {
    let store = listed_both(&[named("orders", "a", "1")], &[named("orders", "b", "1")]);
    assert_eq!(store.uid(&place("orders")).as_deref(), Some("a"));
    let pair = place("orders").of_kind(KindId::DataKeyPair);
    assert_eq!(store.uid(&pair).as_deref(), Some("b"));
    assert_eq!(store.states().0.iter().filter(|(kind, _)| *kind == KindId::DataKeyPair).count(), 1);
    assert_eq!(relist_keys(&store, &[]).uids, ["a"], "a list of one kind says nothing of the other");
    assert_eq!((store.uid(&place("orders")), store.uid(&pair).as_deref()), (None, Some("b")));
}

#[test]
fn record_of_one_kind_reserves_the_name_from_the_other() {
    let store = listed_both(&[named("orders", "a", "1")], &[recorded_as("orders", "b")]);
    let pair = place("orders").of_kind(KindId::DataKeyPair);
    assert_eq!(store.rival(&named("orders", "a", "1")), Some(pair));
    let removed = store.remove(KindId::DataKeyPair, &named("orders", "b", "2").metadata);
    assert_eq!(removed.concerned, [place("orders")], "the name is free");
    assert_eq!(store.rival(&named("orders", "a", "1")), None);

    let store = listed_both(&[recorded_as("orders", "a")], &[named("orders", "b", "1")]);
    assert_eq!(store.rival(&DataKeyPair::like(&named("orders", "b", "1"))), Some(place("orders")));
}

#[test]
fn claim_holds_for_all_kinds() {
    let store = empty();
    let pair = place("orders").of_kind(KindId::DataKeyPair);
    let claim = store.claim(&pair, "a");
    assert!(claim.is_some() && store.claim(&place("orders"), "a").is_none());
    drop(claim);
    assert!(store.claim(&place("orders"), "a").is_some());
}

#[test]
fn secret_of_one_kind_settles_no_object_of_the_other() {
    let store = listed_both(&[], &[named("orders", "b", "1")]);
    let pair = place("orders").of_kind(KindId::DataKeyPair);
    store.secret_changed(KindId::DataKey, Event::Apply(secret("orders", "s", "7", "orders")));
    assert!(store.secret(&place("orders")).is_some() && store.secret(&pair).is_none());
    let concerned = store.secret_changed(KindId::DataKeyPair, Event::Apply(secret("orders", "t", "8", "orders")));
    assert_eq!(concerned, [pair]);
}

// === metrics ===

#[test]
fn states_follow_the_ready_condition() {
    let mut ready = named("ready", "a", "1");
    ready.status = Some(condition::ready(&ready, &issued(1), None, at(1)));
    let mut failed = named("failed", "b", "1");
    failed.status = Some(condition::failed(&failed, &Reason::KeyDisabled.into(), at(1)));
    let store = listed(&[ready, failed, named("new", "c", "1")], &[]);
    let odd = encoded(&named("odd", "d", "1"));
    let facts = Facts::unreadable(&odd);
    store.put_watched(KindId::DataKey, odd, Delivery::Event, facts, Verdict::Open);
    let (mut states, unreadable) = store.states();
    states.sort_by_key(|(_, state)| state.reason());
    assert_eq!(unreadable, 1);
    assert_eq!(
        states,
        [
            ReadyState::Issued,
            ReadyState::Failed(Reason::KeyDisabled),
            ReadyState::Pending,
            ReadyState::Failed(Reason::SpecInvalid)
        ]
        .map(|state| (KindId::DataKey, state))
    );
}

// === KMS keys ===

/// An object whose record has versions of these KMS keys.
fn wrapped(name: &str, version: &str, arns: &[&str]) -> DataKey {
    let mut key = named(name, name, version);
    let of = |(number, arn): (usize, &&str)| {
        let mut issued = issued(i32::try_from(number).unwrap() + 1);
        issued.key_id = (*arn).to_owned();
        issued
    };
    key.status = Some(datakey::api::KeyStatus {
        versions: arns.iter().enumerate().map(of).collect(),
        ..datakey::api::KeyStatus::default()
    });
    key
}

#[test]
fn dependents_of_a_kms_key_are_those_of_its_record() {
    let store = Store::new(Arc::new(WorkingSet::new(1 << 20)), &[KindId::DataKey]);
    let names = |arn: &str| {
        let mut names: Vec<_> = store
            .wrapped_by(&[Arc::from(arn)].into())
            .iter()
            .map(|(_, member)| member.place.name().to_owned())
            .collect();
        names.sort();
        names
    };
    let arns = || store.key_arns().iter().map(ToString::to_string).collect::<Vec<_>>();
    deliver(&store, &wrapped("one", "1", &["a"]), Verdict::Open);
    deliver(&store, &wrapped("both", "2", &["b", "a", "b"]), Verdict::Settled);
    deliver(&store, &wrapped("unissued", "3", &[]), Verdict::Open);
    assert_eq!(
        (arns(), names("a"), names("b")),
        (vec!["a".into(), "b".into()], vec!["both".into(), "one".into()], vec!["both".into()])
    );
    let has_others = |name: &str| {
        store
            .wrapped_by(&[Arc::from("a")].into())
            .iter()
            .any(|(_, member)| member.place.name() == name && member.has_others)
    };
    assert!(has_others("both") && !has_others("one"));
    let of_both = store.wrapped_by(&[Arc::from("a"), Arc::from("b")].into());
    let mut of_both: Vec<_> = of_both.iter().map(|(arn, member)| (&**arn, member.place.name())).collect();
    of_both.sort_unstable();
    assert_eq!(of_both, [("a", "both"), ("a", "one"), ("b", "both")], "once for each KMS key");
    // A further version, by an answer of our own.
    answer(&store, &wrapped("one", "4", &["a", "c"]));
    assert_eq!((arns().len(), names("c")), (3, vec!["one".to_owned()]));
    store.remove(KindId::DataKey, &wrapped("both", "2", &[]).metadata);
    assert_eq!((arns(), names("a")), (vec!["a".to_owned(), "c".to_owned()], vec!["one".to_owned()]));
    store.key_list_begins(KindId::DataKey);
    store.key_list_ends(KindId::DataKey);
    assert!(arns().is_empty(), "a list lacks them");
}

#[test]
fn reported_kms_keys_are_known_without_the_object() {
    use datakey::condition::key_usable::{Cause, Said, wanted};
    let store = Store::new(Arc::new(WorkingSet::new(1 << 20)), &[KindId::DataKey]);
    let arn = issued(1).key_id;
    let mut key = wrapped("one", "1", &[&arn]);
    let verdict = datakey::condition::key_usable::Verdict::Unusable(Cause::DisabledException, at(1));
    key.status = wanted(&key, |_| Some(verdict), at(2));
    deliver(&store, &key, Verdict::Settled);
    deliver(&store, &wrapped("other", "2", &[&arn]), Verdict::Settled);
    assert_eq!(store.unusable(), [(Cause::DisabledException, "shop".to_owned())]);
    let reported = Reported {
        place: place("one"),
        class: None,
        said: Said::Unusable(Cause::DisabledException),
        arns: Some([Arc::from(&*arn)].into()),
    };
    assert_eq!(store.reported(), [reported]);
    deliver(&store, &wrapped("one", "3", &[&arn]), Verdict::Settled);
    assert!(store.unusable().is_empty() && store.reported().is_empty());
}
