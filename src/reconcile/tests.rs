//! Tests of single reconciles against an API server that answers from a function.

use std::sync::OnceLock;

use datakey::{
    api::{DataKey, KindId},
    decode::Encoded,
    fixtures::{data_key, recorded},
    reason::Failure,
};
use futures::channel::mpsc;
use http::{Request, Response, StatusCode};
use kube::{Client, Resource, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::{BoxError, service_fn};

use super::*;
use crate::{
    controller::{
        slots::Slots,
        store::{Delivery, Facts, WorkingSet},
    },
    kms::{
        Kms, KmsSettings, TimeLimits,
        rates::{Rate, Rates},
    },
    metrics::{Gauges, Metrics},
    place::Place,
    reconcile::retry::RetryBounds,
};

const BOUNDS: RetryBounds = RetryBounds { min: Duration::from_secs(1), max: Duration::from_mins(10) };

/// One operator with one object that is not in memory.
pub struct Fixture {
    /// What reconciles work with.
    pub context: Arc<Context>,
    /// What the watches delivered.
    pub store: Arc<Store>,
    /// Method and path of each request.
    pub requests: Arc<Mutex<Vec<String>>>,
    /// Is called with the path of each request, before it is answered.
    pub on_request: OnRequest,
}

type OnRequest = Arc<Mutex<Box<dyn FnMut(&str) + Send>>>;

// === impl Fixture ===

impl Fixture {
    /// The API server has no object but this one, and KMS is at this URL.
    pub fn new(key: &DataKey, kms: &str) -> Self {
        Self::answering(key, kms, |_| None)
    }

    /// The same, where this answers some requests, by method and path.
    fn answering(key: &DataKey, kms: &str, answers: impl Fn(&str) -> Option<Value> + Send + Sync + 'static) -> Self {
        let answers = Arc::new(answers);
        let path_of_key = format!("{}/orders", DataKey::url_path(&(), Some("shop")));
        let stored = serde_json::to_value(key).unwrap();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let answered = Arc::clone(&requests);
        let on_request: OnRequest = Arc::new(Mutex::new(Box::new(|_| {})));
        let called = Arc::clone(&on_request);
        let client = Client::new(
            service_fn(move |request: Request<Body>| {
                let path = request.uri().path().to_owned();
                let asked = format!("{} {path}", request.method());
                answered.lock().push(asked.clone());
                called.lock()(&path);
                let (code, body) = match answers(&asked) {
                    Some(body) => (StatusCode::OK, body),
                    None if path == path_of_key => (StatusCode::OK, stored.clone()),
                    None => not_found(),
                };
                let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
                *answer.status_mut() = code;
                async move { Ok::<_, BoxError>(answer) }
            }),
            "shop",
        );
        let mut context = context(client, kms);
        // Nothing fits, so that each DataKey is read.
        context.working_set = Arc::new(WorkingSet::new(0));
        let store = Arc::new(Store::new(Arc::clone(&context.working_set), &[KindId::DataKey]));
        store.key_list_begins(KindId::DataKey);
        store.key_list_ends(KindId::DataKey);
        let fixture = Self { context: Arc::new(context), store, requests, on_request };
        fixture.put(key);
        fixture
    }

    /// The watch delivers this.
    pub fn put(&self, key: &DataKey) {
        let encoded = serde_json::from_value(serde_json::to_value(key).unwrap()).unwrap();
        self.store.put_watched(KindId::DataKey, encoded, Delivery::Event, Facts::of(key), Verdict::Open);
    }

    async fn reconcile(&self) -> Result<Next, Error> {
        let (requeue, _requeued) = mpsc::unbounded();
        let place = Place::new(KindId::DataKey, "shop", "orders");
        let loaded = load::<DataKey>(&place, &self.store, &requeue, &self.context).await?;
        let Loaded::Key(key, read) = loaded else { panic!("nothing to do") };
        assert!(read.is_some());
        let slot = Slots::new(1).begin("shop", false).await.unwrap();
        reconcile(key, slot, read, &self.store, &requeue, &self.context).await
    }
}

/// What reconciles work with, where KMS is at this URL.
pub fn context(client: Client, kms: &str) -> Context {
    let settings = KmsSettings {
        rates: Rates::new(Rate::parse("10").unwrap(), []),
        time_limits: TimeLimits { usual: Duration::from_secs(30), rsa: Duration::from_mins(1) },
    };
    let config = aws_config::SdkConfig::builder()
        .region(aws_config::Region::new("eu-west-1"))
        .behavior_version(aws_config::BehaviorVersion::latest())
        .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(
            aws_credential_types::Credentials::for_tests(),
        ))
        .endpoint_url(kms)
        .build();
    let metrics = Arc::new(Metrics::default());
    let kms = Kms::new(config, settings, Vec::new(), Arc::clone(&metrics));
    Context::new(client, kms, metrics, BOUNDS)
}

fn not_found() -> (StatusCode, Value) {
    let status =
        json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404 });
    (StatusCode::NOT_FOUND, status)
}

const SECRET: &str = "/api/v1/namespaces/shop/secrets/orders";

#[tokio::test(start_paused = true)]
async fn secret_that_changes_all_the_time_is_read_at_the_limit() {
    let key = recorded(&[1]);
    let fixture = Fixture::new(&key, "http://127.0.0.1:9");
    let secret = json!({ "metadata": {
        "name": "orders", "namespace": "shop", "uid": "s", "resourceVersion": "7",
        "labels": {
            datakey::names::NAME_LABEL: "orders",
            datakey::names::MANAGED_BY_LABEL: datakey::names::FIELD_MANAGER,
        },
    } });
    fixture
        .store
        .secret_changed(KindId::DataKey, kube::runtime::watcher::Event::Apply(serde_json::from_value(secret).unwrap()));
    let uid = key.metadata.uid.as_deref().unwrap();
    for _ in 0..100 {
        fixture.context.retries.secret_read(uid);
    }
    let next = fixture.reconcile().await;
    assert!(!fixture.requests.lock().iter().any(|request| request.ends_with(SECRET)), "{:?}", fixture.requests.lock());
    assert!(matches!(next, Ok(Next::After(_))), "{next:?}");
    assert!(!fixture.context.reads.queue.is_busy(""), "the permit is free again");
}

#[tokio::test]
async fn hanging_call_to_kms_holds_no_permit_to_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let key = data_key();
    let kms = format!("http://{}", listener.local_addr().unwrap());
    let fixture = Fixture::new(&key, &kms);
    let called = async {
        let _call = listener.accept().await.unwrap();
        assert!(fixture.context.kms.queue.is_busy("eu-west-1"));
        assert!(!fixture.context.reads.queue.is_busy(""));
    };
    tokio::select! {
        next = fixture.reconcile() => panic!("{next:?} without a call: {:?}", fixture.requests.lock()),
        () = called => {}
    }
}

#[tokio::test]
async fn permit_is_acquired_again_in_another_region_of_the_class() {
    let class = |generation: i64, region: &str| -> Encoded {
        let spec = json!({
            "namespaces": ["*"],
            "defaults": { "region": region },
            "allow": [{ "keyIds": ["alias/orders"], "regions": [region] }],
        });
        let metadata = json!({ "name": "shop", "uid": "class", "generation": generation });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut key = data_key();
    key.spec.class_name = Some("shop".to_owned());
    let fixture = Fixture::new(&key, &format!("http://{}", listener.local_addr().unwrap()));
    fixture.context.classes.put(&class(1, "eu-west-1"));
    let context = Arc::clone(&fixture.context);
    *fixture.on_request.lock() = Box::new(move |path| {
        if path == SECRET {
            context.classes.put(&class(2, "eu-north-1"));
        }
    });
    let called = async {
        let _call = listener.accept().await.unwrap();
        let queue = &fixture.context.kms.queue;
        assert!(queue.is_busy("eu-north-1") && !queue.is_busy("eu-west-1"));
    };
    tokio::select! {
        next = fixture.reconcile() => panic!("{next:?} without a call: {:?}", fixture.requests.lock()),
        () = called => {}
    }
}

#[tokio::test(start_paused = true)]
async fn failed_read_of_a_key_counts_as_a_failed_reconcile() {
    let mut key = data_key();
    let fixture = Fixture::new(&key, "http://127.0.0.1:9");
    // The watch still has it.
    key.metadata.name = Some("gone".to_owned());
    fixture.put(&key);
    let (requeue, _requeued) = mpsc::unbounded();
    let loaded =
        load::<DataKey>(&Place::new(KindId::DataKey, "shop", "gone"), &fixture.store, &requeue, &fixture.context).await;
    assert!(matches!(loaded, Err(Error::Gone)));
    let metrics = fixture.context.metrics.render(Gauges::default()).unwrap();
    assert!(metrics.contains("outcome=\"Error\"} 1"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn class_that_comes_while_its_absence_is_written_counts() {
    let mut key = data_key();
    key.spec.class_name = Some("shop".to_owned());
    let failure = Failure::new(Reason::ClassNotFound, "shop");
    let mut reported = key.with_status(condition::failed(&key, &failure, Timestamp::now()));
    reported.metadata.resource_version = Some("101".to_owned());
    let reported = serde_json::to_value(&reported).unwrap();
    let operator: Arc<OnceLock<Arc<Context>>> = Arc::default();
    let during_the_write = Arc::clone(&operator);
    // The watch delivers the class before the API server answers. The object has no failure yet, so that wakes nothing.
    let fixture = Fixture::answering(&key, "http://127.0.0.1:9", move |asked| {
        asked.starts_with("PUT ").then(|| {
            let class = json!({
                "metadata": { "name": "shop", "uid": "u", "generation": 1 },
                "spec": { "namespaces": ["*"], "allow": [{ "keyIds": ["alias/orders"] }] },
            });
            assert!(during_the_write.get().unwrap().classes.put(&serde_json::from_value(class).unwrap()));
            reported.clone()
        })
    });
    fixture.context.classes.list_begins();
    fixture.context.classes.list_ends();
    assert!(operator.set(Arc::clone(&fixture.context)).is_ok());
    let next = fixture.reconcile().await.unwrap();
    assert!(fixture.requests.lock().iter().any(|asked| asked.starts_with("PUT ")), "{:?}", fixture.requests.lock());
    assert_eq!(next, Next::After(Duration::ZERO), "it is decided again, with the class");
}
