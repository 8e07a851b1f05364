//! The AWS identity of a class: the operator calls KMS with sessions of the role that the class names, one for each namespace, and
//! never as itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use datakey::{
    api::{DataKeyPair, READY},
    condition::find,
};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use testbed::{eventually, proxy::Fault, sts::Session};

use crate::harness::{Accounts, NO_RETRY, Operator, SOON, Team, TestNamespace, message};

/// The refusal of STS.
const DENIED: &str = "AccessDenied";

/// The spec of an object of a class, with these fields.
fn spec(team: &Team, fields: &Value) -> Value {
    let mut spec = team.spec();
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    spec
}

/// The value of a metric, by its name and labels.
async fn metric(operator: &Operator, line: &str) -> Option<u64> {
    let (_, metrics) = operator.admin("/metrics").await;
    metrics.lines().find_map(|shown| shown.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
}

/// Asserts that each call of KMS was signed by a session of the role of its namespace. Returns the sessions that were used.
fn assert_signed_by_own_role(accounts: &Accounts, teams: &[&Team]) -> BTreeSet<String> {
    let sessions = accounts.proxy.sessions();
    let sessions: BTreeMap<_, _> = sessions.iter().map(|session| (&*session.access_key_id, session)).collect();
    let calls = [accounts.proxy.requests(), accounts.proxy.pair_requests()].concat();
    for call in &calls {
        let namespace = call.body["EncryptionContext"]["namespace"].as_str().unwrap();
        let team = teams.iter().find(|team| team.test.namespace == namespace).expect("a namespace of the test");
        assert_ne!(call.access_key_id, accounts.credentials.access_key_id(), "the operator called KMS as itself");
        let session = sessions.get(&*call.access_key_id).expect("a session that STS issued");
        let expected = Session {
            access_key_id: call.access_key_id.clone(),
            role_arn: team.role_arn.clone(),
            name: format!("datakey-{namespace}"),
            tags: [("datakey-namespace".to_owned(), namespace.to_owned())].into(),
        };
        assert_eq!(**session, expected);
    }
    calls.into_iter().map(|call| call.access_key_id).collect()
}

/// Asserts that what users in the namespace see of an object names neither the role nor the external ID.
async fn assert_names_no_role(team: &Team, name: &str) {
    let object = serde_json::to_string(&team.test.get(name).await.status.unwrap().conditions).unwrap();
    let about = format!("--field-selector=involvedObject.name={name}");
    let events = ["get", "events", "-n", &team.test.namespace, &about, "-o", "json"];
    let events = team.test.plane.kubectl(&events).await.unwrap();
    for place in [object, events] {
        for hidden in ["arn:aws:iam", &team.account, &team.external_id] {
            assert!(!place.contains(hidden), "{hidden}: {place}");
        }
    }
}

/// Waits for an event about the class of a team. Users who read events in the namespace default do not learn the role by it.
async fn assert_event_of_class(team: &Team, reason: &str) {
    let of_class = format!("involvedObject.name={},reason={reason}", team.test.namespace);
    let command = ["get", "events", "-n", "default", "-o", "json", "--field-selector", &of_class];
    let mut events = String::new();
    eventually(SOON, "an event of the class", async || {
        events = team.test.plane.kubectl(&command).await.unwrap();
        events.contains(reason)
    })
    .await;
    assert!(!events.contains("arn:aws:iam") && !events.contains(&team.account), "{events}");
}

/// Waits until an object is not ready, with a message that contains this text.
async fn fails_with(team: &Team, name: &str, words: &str) {
    eventually(SOON, &format!("{name} fails with {words}"), async || {
        let object = team.test.get(name).await;
        find(&object, READY).is_some_and(|ready| ready.status == "False" && ready.message.contains(words))
    })
    .await;
}

#[tokio::test]
async fn kms_key_of_another_team_is_refused_by_its_policy() {
    let accounts = Accounts::new().await;
    let [shop, bank] = accounts.teams(["identity-shop", "identity-bank"]).await;
    let operator = accounts.operator(&[&shop, &bank], &NO_RETRY);
    // The class of bank allows the KMS key of shop, too: only AWS knows better.
    let both = json!({ "allow": [{ "keyIds": [bank.alias(), shop.key.arn] }] });
    shop.class(&json!({ "allow": [{ "keyIds": [shop.key.arn] }], "defaults": { "keyId": shop.key.arn } })).await;
    bank.class(&both).await;
    let of_shop = json!({ "keyId": shop.key.arn });
    bank.test.create("orders", &spec(&bank, &of_shop)).await;
    bank.test.failed("orders", "AccessDenied").await;
    let denied = r#"datakey_kms_requests_total{region="eu-west-1",code="AccessDeniedException"}"#;
    assert_eq!(metric(&operator, denied).await, Some(1));
    shop.test.issue("orders", &spec(&shop, &of_shop)).await;
    bank.test.issue("own", &bank.spec()).await;
    let asked = accounts.proxy.requests();
    assert_eq!(asked[0].body["KeyId"], asked[1].body["KeyId"], "the same request, by another role");
    assert_eq!(assert_signed_by_own_role(&accounts, &[&shop, &bank]).len(), 2);

    // The role of another team does not help either: its trust policy knows the namespaces of its team.
    let of_shop =
        json!({ "aws": shop.aws(), "allow": [{ "keyIds": [shop.key.arn] }], "defaults": { "keyId": shop.key.arn } });
    bank.class(&of_shop).await;
    let calls = accounts.proxy.calls();
    bank.test.create("borrowed", &spec(&bank, &json!({ "keyId": shop.key.arn }))).await;
    bank.test.failed("borrowed", "CredentialsRejected").await;
    assert_eq!(accounts.proxy.calls(), calls);
}

#[tokio::test]
async fn operator_never_takes_the_place_of_a_role() {
    let accounts = Accounts::with_own_control_plane().await;
    let [trust, id, tag] = accounts.teams(["identity-trust", "identity-id", "identity-tag"]).await;
    let operator = accounts.operator_of_all(&trust);
    for team in [&trust, &id, &tag] {
        // The operator itself may use each KMS key: without a class it does.
        accounts.let_operator_use_key(team).await;
        team.test.issue("plain", &json!({ "keyId": team.key.arn })).await;
    }
    let calls = accounts.proxy.calls();

    let mut without_id = id.aws();
    without_id["externalId"] = json!("another-external-id");
    let mut without_tag = tag.aws();
    without_tag.as_object_mut().unwrap().remove("sessionTags");
    accounts.put_trust_policy(&trust, "arn:aws:iam::999900001111:root", &trust.external_id).await;
    // By its ARN, the KMS key is the same for each identity.
    let class = |team: &Team, aws: Value| json!({ "aws": aws, "allow": [{ "keyIds": [team.key.arn, team.alias()] }] });
    trust.class(&class(&trust, trust.aws())).await;
    id.class(&class(&id, without_id)).await;
    tag.class(&class(&tag, without_tag)).await;
    for team in [&trust, &id, &tag] {
        team.test.create("orders", &spec(team, &json!({ "keyId": team.key.arn }))).await;
        let refused = team.test.failed("orders", "CredentialsRejected").await;
        assert!(message(&refused).contains("AWS STS"), "{}", message(&refused));
        let says = team.test.role_becomes_assumed("False").await;
        assert!(says.contains(&team.role_arn) && says.contains(DENIED), "{says}");
        eventually(SOON, "an event", async || !team.test.events("orders", "CredentialsRejected").await.is_empty())
            .await;
        assert_names_no_role(team, "orders").await;
        assert!(team.test.secrets().get_opt("orders").await.unwrap().is_none());
        let log = operator.log_lines();
        let names = |line: &&Value| line.to_string().contains(&team.role_arn) && line.to_string().contains(DENIED);
        assert!(log.iter().any(|line| names(&line)), "the log names the role and the code");
    }
    assert_eq!(accounts.proxy.calls(), calls, "no role, no call");
    assert_event_of_class(&trust, "RoleRefused").await;

    // The owner of the account repairs the trust policy; the platform team repairs the classes.
    accounts.put_trust_policy(&trust, &accounts.operator, &trust.external_id).await;
    id.class(&class(&id, id.aws())).await;
    tag.class(&class(&tag, tag.aws())).await;
    for team in [&trust, &id, &tag] {
        // A refusal counts for up to two minutes, for all objects of the class in the namespace.
        let is_ready = async || find(&team.test.get("orders").await, READY).is_some_and(|ready| ready.status == "True");
        eventually(Duration::from_mins(3), "the DataKey is ready", is_ready).await;
        assert!(team.test.role_becomes_assumed("True").await.contains(&team.role_arn));
    }
    assert_event_of_class(&trust, "RoleAssumed").await;
    assert_eq!(accounts.proxy.calls(), calls + 3);
    for call in &accounts.proxy.requests()[calls..] {
        assert_ne!(call.access_key_id, accounts.credentials.access_key_id());
    }
    let (_, metrics) = operator.admin("/metrics").await;
    let log = operator.process.log();
    for hidden in [&*trust.external_id, &id.external_id, "another-external-id"] {
        assert!(!metrics.contains(hidden) && !log.contains(hidden), "{hidden}");
    }
}

#[tokio::test]
async fn calls_are_signed_by_the_session_of_their_namespace() {
    const KEYS: usize = 100;
    let accounts = Accounts::new().await;
    let names: [String; 10] = std::array::from_fn(|number| format!("identity-tenant-{number}"));
    let teams = accounts.teams(names.each_ref().map(String::as_str)).await;
    let all: Vec<_> = teams.iter().collect();
    let _operator = accounts.operator(&all, &["--kms-rate=1000", "--concurrency=16"]);
    for team in &teams {
        team.class(&json!({})).await;
    }
    let objects = (0..KEYS).flat_map(|number| teams.iter().map(move |team| (number, team)));
    let created = stream::iter(objects).map(|(number, team)| async move {
        team.test.create(&format!("k-{number}"), &team.spec()).await;
    });
    created.buffer_unordered(16).for_each(async |()| {}).await;
    for team in &teams {
        team.test.all_ready(KEYS, Duration::from_mins(5)).await;
    }
    let calls = accounts.proxy.requests();
    assert_eq!(calls.len(), KEYS * teams.len());
    let changes = calls.windows(2).filter(|pair| pair[0].access_key_id != pair[1].access_key_id).count();
    assert!(changes > calls.len() / 4, "the calls of tenants alternate: {changes}");
    let used = assert_signed_by_own_role(&accounts, &all);
    assert_eq!((used.len(), accounts.proxy.assume_role_requests().len()), (teams.len(), teams.len()));
}

#[tokio::test]
async fn session_is_shared_and_never_outlives_its_class() {
    const KEYS: usize = 50;
    let accounts = Accounts::with_own_control_plane().await;
    let [team] = accounts.teams(["identity-sessions"]).await;
    let _operator = accounts.operator_of_all(&team);
    let (test, proxy) = (&team.test, &accounts.proxy);
    team.class(&json!({})).await;
    test.create_many("k", KEYS, &team.spec()).await;
    test.all_ready(KEYS, Duration::from_mins(2)).await;
    let asked = proxy.assume_role_requests();
    assert_eq!((asked.len(), proxy.calls()), (1, KEYS));
    let request = &asked[0].body;
    assert_eq!(request["DurationSeconds"], "3600");
    assert_eq!(request["ExternalId"], team.external_id);
    assert_eq!(request["RoleSessionName"], format!("datakey-{}", test.namespace));
    assert_eq!((&*asked[0].region, &*asked[0].access_key_id), ("eu-west-1", accounts.credentials.access_key_id()));
    assert_eq!(request.get("TransitiveTagKeys.member.1"), None);

    // Another state of the class, another class of the name, and another namespace of the name.
    let pinned = json!({ "allow": [{ "keyIds": [team.alias()], "keyArns": [team.key.arn] }] });
    let mut sessions = 1;
    for change in ["changed", "created again", "namespace created again"] {
        match change {
            "changed" => team.class(&pinned).await,
            "created again" => {
                test.delete_class().await;
                test.create("between", &team.spec()).await;
                test.failed("between", "ClassNotFound").await;
                team.class(&pinned).await;
                test.ready("between").await;
            }
            _ if !test.plane.has_controllers() => break,
            _ => create_namespace_again(test).await,
        }
        sessions += 1;
        let before = proxy.calls();
        let name = format!("after-{sessions}");
        test.issue(&name, &team.spec()).await;
        assert_eq!(proxy.assume_role_requests().len(), sessions, "{change}");
        let newest = proxy.sessions().pop().unwrap().access_key_id;
        assert!(proxy.requests()[before..].iter().all(|call| call.access_key_id == newest), "{change}");
    }
    assert_eq!(assert_signed_by_own_role(&accounts, &[&team]).len(), sessions);
}

async fn create_namespace_again(test: &TestNamespace) {
    let namespaces: Api<Namespace> = Api::all(test.client.clone());
    let uid = namespaces.get(&test.namespace).await.unwrap().uid();
    namespaces.delete(&test.namespace, &<_>::default()).await.unwrap();
    eventually(2 * SOON, "the namespace is gone", async || {
        namespaces.get_opt(&test.namespace).await.unwrap().is_none()
    })
    .await;
    test.plane.namespace(&test.namespace).await;
    assert_ne!(namespaces.get(&test.namespace).await.unwrap().uid(), uid);
}

#[tokio::test]
async fn operator_in_a_role_chains_to_the_role_of_a_class() {
    let accounts = Accounts::new().await;
    let [team] = accounts.teams(["identity-chain"]).await;
    let (role_arn, credentials) = accounts.operator_role(&[&team]).await;
    accounts.put_trust_policy(&team, &role_arn, &team.external_id).await;
    let _operator = accounts.operator_as(&credentials, &[&team], &[]);
    team.class(&json!({})).await;
    team.test.issue("orders", &team.spec()).await;
    let asked = accounts.proxy.assume_role_requests();
    assert_eq!((asked.len(), &*asked[0].access_key_id), (1, credentials.access_key_id()));
    // STS gives no more than an hour to a session that a session opens.
    assert_eq!(asked[0].body["DurationSeconds"], "3600");
    assert_eq!(assert_signed_by_own_role(&accounts, &[&team]).len(), 1);
    assert_ne!(accounts.proxy.requests()[0].access_key_id, credentials.access_key_id());
}

/// How STS can be away.
fn outages() -> [(&'static str, Fault); 3] {
    let unavailable = Fault::Error(503, "ServiceUnavailable".to_owned(), "try again".to_owned());
    [("hang", Fault::Hang), ("unavailable", unavailable), ("throttled", Fault::code("Throttling"))]
}

#[tokio::test]
async fn open_session_outlasts_an_outage_of_sts() {
    let accounts = Accounts::new().await;
    let [team, fresh] = accounts.teams(["identity-outage", "identity-outage-2"]).await;
    let _operator = accounts.operator(&[&team, &fresh], &["--kms-timeout=2s"]);
    team.class(&json!({})).await;
    fresh.class(&json!({})).await;
    team.test.issue("first", &team.spec()).await;
    for (name, fault) in outages() {
        accounts.proxy.fail_sessions_always(fault);
        // A namespace without a session waits for STS, and delays no other.
        let asked = accounts.proxy.assume_role_requests().len();
        fresh.test.create(name, &fresh.spec()).await;
        let is_asked = async || accounts.proxy.assume_role_requests().len() > asked;
        eventually(2 * SOON, "STS is asked", is_asked).await;
        team.test.issue(name, &team.spec()).await;
    }
    assert_eq!(accounts.proxy.sessions().len(), 1);
    assert_eq!(accounts.proxy.calls(), 4);
    assert_eq!(assert_signed_by_own_role(&accounts, &[&team]).len(), 1);
}

#[tokio::test]
async fn outage_of_sts_is_named_and_calls_no_kms() {
    let accounts = Accounts::new().await;
    let teams = accounts.teams(["identity-hang", "identity-503", "identity-throttled"]).await;
    let all: Vec<_> = teams.iter().collect();
    let _operator = accounts.operator(&all, &["--kms-timeout=1s"]);
    for (team, (name, fault)) in teams.iter().zip(outages()) {
        let calls = accounts.proxy.calls();
        accounts.proxy.fail_sessions_always(fault);
        team.class(&json!({})).await;
        team.test.create(name, &team.spec()).await;
        fails_with(team, name, "AWS STS").await;
        let events = async || {
            let all = team.test.plane.kubectl(&["get", "events", "-n", &team.test.namespace, "-o", "name"]).await;
            !all.unwrap().is_empty()
        };
        eventually(SOON, "an event", events).await;
        assert_names_no_role(team, name).await;
        assert_eq!(accounts.proxy.calls(), calls, "{name}: no session, no call");
        accounts.proxy.clear_faults();
        team.test.ready(name).await;
    }
    assert_signed_by_own_role(&accounts, &all);
}

#[tokio::test]
async fn session_that_kms_calls_expired_is_replaced() {
    let accounts = Accounts::new().await;
    let [team] = accounts.teams(["identity-expired"]).await;
    let _operator = accounts.operator(&[&team], &[]);
    team.class(&json!({})).await;
    team.test.issue("first", &team.spec()).await;
    accounts.proxy.fail_always(Fault::code("ExpiredTokenException"));
    team.test.create("second", &team.spec()).await;
    eventually(SOON, "another session", async || accounts.proxy.sessions().len() > 1).await;
    accounts.proxy.clear_faults();
    team.test.ready("second").await;
    team.test.issue("third", &team.spec()).await;
    let issued: Vec<_> = accounts.proxy.sessions().into_iter().map(|session| session.access_key_id).collect();
    let used: Vec<_> = accounts.proxy.requests().into_iter().map(|call| call.access_key_id).collect();
    // The fault lasts until the test sees another session, so that one can be replaced, too.
    let first = used.iter().take_while(|id| **id == issued[0]).count();
    assert!(first > 1 && !used[first..].contains(&issued[0]), "{used:?}");
    assert_eq!(used[used.len() - 2..], [issued[issued.len() - 1].clone(), issued[issued.len() - 1].clone()]);
}

#[tokio::test]
async fn namespaced_operator_assumes_roles_and_counts_them() {
    let accounts = Accounts::new().await;
    let [team, refused] = accounts.teams(["identity-metrics", "identity-refused"]).await;
    let operator = accounts.operator(&[&team, &refused], &NO_RETRY);
    accounts.put_trust_policy(&refused, "arn:aws:iam::999900001111:root", &refused.external_id).await;
    team.class(&json!({})).await;
    refused.class(&json!({})).await;
    team.test.issue("orders", &team.spec()).await;
    // A key pair has the same identity, and the same session.
    team.test.of_kind::<DataKeyPair>().issue("tokens", &team.spec()).await;
    refused.test.create("orders", &refused.spec()).await;
    refused.test.failed("orders", "CredentialsRejected").await;

    assert_eq!(metric(&operator, r#"datakey_role_assumptions_total{code="OK"}"#).await, Some(1));
    assert_eq!(metric(&operator, r#"datakey_role_assumptions_total{code="AccessDenied"}"#).await, Some(1));
    let (_, metrics) = operator.admin("/metrics").await;
    for team in [&team, &refused] {
        for name in [&team.account, &team.external_id, &team.test.namespace] {
            assert!(!metrics.contains(name.as_str()), "{name}: {metrics}");
        }
    }
    assert_eq!(assert_signed_by_own_role(&accounts, &[&team]).len(), 1);
    assert!(refused.test.role_assumed().await.is_none(), "an operator for some namespaces writes no status of classes");
}
