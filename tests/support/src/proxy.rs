//! A proxy before the KMS server: it counts and keeps the calls, and makes them fail as told. No KMS server for tests
//! throttles or breaks.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{Request, Response, StatusCode, body::Bytes, body::Frame, body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// The operation that the operator calls.
pub const ISSUE: &str = "GenerateDataKeyWithoutPlaintext";

/// What becomes of a call instead of its answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An error of KMS: HTTP status, code, message.
    Error(u16, String, String),
    /// This answer, with HTTP status 200.
    Answer(Value),
    /// The first half of the answer, then the end of the connection.
    Truncate,
    /// The end of the connection before any answer.
    Reset,
    /// No answer.
    Hang,
    /// The answer, later.
    Delay(Duration),
    /// The answer of another account: the call is sent on with that account's credentials.
    AsAccount(String),
}

#[derive(Debug)]
struct Rule {
    fault: Fault,
    /// How many more calls it is for; `None` for all.
    left: Option<usize>,
}

#[derive(Debug, Default)]
struct State {
    calls: BTreeMap<String, Vec<Call>>,
    rule: Option<Rule>,
}

/// A call as it came.
#[derive(Clone, Debug)]
pub struct Call {
    /// The request's JSON.
    pub body: Value,
    /// The Region that it was signed for.
    pub region: String,
    /// The access key ID that it was signed with.
    pub access_key_id: String,
}

/// One proxy. It ends with its value.
pub struct KmsProxy {
    port: u16,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

type Upstream = Client<HttpConnector, Full<Bytes>>;

// === impl KmsProxy ===

impl KmsProxy {
    /// Starts one before a server at `host:port`.
    pub async fn start(upstream: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("a bound address").port();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            let client: Upstream = Client::builder(TokioExecutor::new()).build_http();
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, client, upstream) = (Arc::clone(&shared), client.clone(), upstream.clone());
                connections.spawn(async move {
                    let service =
                        service_fn(move |request| answer(request, state.clone(), client.clone(), upstream.clone()));
                    // An error here is a connection that a fault ended.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { port, state, server }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many data keys were asked for.
    pub fn calls(&self) -> usize {
        self.requests().len()
    }

    /// What was asked for, in the order of the calls.
    pub fn requests(&self) -> Vec<Call> {
        self.lock().calls.get(ISSUE).cloned().unwrap_or_default()
    }

    /// The operations that were called.
    pub fn operations(&self) -> Vec<String> {
        self.lock().calls.keys().cloned().collect()
    }

    /// From now on each call for a data key meets this fault.
    pub fn always(&self, fault: Fault) {
        self.lock().rule = Some(Rule { fault, left: None });
    }

    /// The next calls for a data key meet this fault.
    pub fn next(&self, calls: usize, fault: Fault) {
        self.lock().rule = Some(Rule { fault, left: Some(calls) });
    }

    /// The cause of the faults goes away.
    pub fn heal(&self) {
        self.lock().rule = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("the state")
    }
}

impl Drop for KmsProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

// === impl Fault ===

impl Fault {
    /// An error of KMS by its code, with HTTP status 400.
    pub fn code(code: &str) -> Self {
        Self::Error(400, code.to_owned(), format!("the proxy says {code}"))
    }
}

/// Ends the connection: hyper writes nothing for a service that fails.
#[derive(Debug)]
struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reset")
    }
}

impl std::error::Error for Reset {}

type Answer = Response<http_body_util::combinators::BoxBody<Bytes, Reset>>;

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    client: Upstream,
    upstream: String,
) -> Result<Answer, Reset> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Reset)?.to_bytes();
    let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let authorization = parts.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    // AWS4-HMAC-SHA256 Credential=ACCESS-KEY-ID/DATE/REGION/kms/aws4_request, ...
    let scope: Vec<_> = authorization.split(['=', '/']).map(str::to_owned).collect();
    let part = |index: usize| scope.get(index).cloned().unwrap_or_default();
    let body_json = serde_json::from_slice(&body).unwrap_or_default();
    let call = Call { body: body_json, region: part(3), access_key_id: part(1) };
    let fault = {
        let mut state = state.lock().expect("the state");
        state.calls.entry(operation.clone()).or_default().push(call);
        if operation == ISSUE { take(&mut state.rule) } else { None }
    };

    let mut truncate = false;
    match fault {
        Some(Fault::Error(status, code, message)) => {
            let status = StatusCode::from_u16(status).expect("an HTTP status");
            return Ok(json_answer(status, &json!({ "__type": code, "message": message })));
        }
        Some(Fault::Answer(answer)) => return Ok(json_answer(StatusCode::OK, &answer)),
        Some(Fault::Reset) => return Err(Reset),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::Truncate) => truncate = true,
        Some(Fault::AsAccount(account)) => {
            let value = authorization.replacen(&format!("={}/", part(1)), &format!("={account}/"), 1);
            parts.headers.insert("authorization", value.parse().expect("a header"));
        }
        None => {}
    }
    // The Host header stays: it is signed.
    parts.uri = format!("http://{upstream}{}", parts.uri).parse().map_err(|_| Reset)?;
    let response = client.request(Request::from_parts(parts, Full::new(body))).await.map_err(|_| Reset)?;
    let (parts, body) = response.into_parts();
    let mut body = body.collect().await.map_err(|_| Reset)?.to_bytes();
    if truncate {
        let half = body.split_to(body.len() / 2);
        let end = stream::once(async {
            // The half must be on its way before the connection ends.
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(Reset)
        });
        let broken = StreamBody::new(stream::iter([Ok(Frame::data(half))]).chain(end));
        return Ok(Response::from_parts(parts, BodyExt::boxed(broken)));
    }
    Ok(Response::from_parts(parts, Full::new(body).map_err(never).boxed()))
}

fn take(rule: &mut Option<Rule>) -> Option<Fault> {
    let Rule { fault, left } = rule.as_mut()?;
    let fault = fault.clone();
    if let Some(left) = left {
        *left -= 1;
        if *left == 0 {
            *rule = None;
        }
    }
    Some(fault)
}

fn json_answer(status: StatusCode, body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string())).map_err(never).boxed();
    let answer = Response::builder().status(status).header("content-type", "application/x-amz-json-1.1");
    answer.header("x-amzn-requestid", "11111111-2222-3333-4444-555555555555").body(body).expect("an answer")
}

fn never(never: Infallible) -> Reset {
    match never {}
}
