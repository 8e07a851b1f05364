//! A proxy before the KMS server, and its STS: it counts and keeps the calls, and makes them fail as a test asks. No KMS server for
//! tests throttles or breaks.

mod answers;
mod faults;
mod quota;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use aws_sdk_kms::types::DataKeyPairSpec;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{CONTENT_LENGTH, HeaderValue},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::time::Instant;

pub use self::faults::Fault;
use self::{
    answers::{json_answer, made_up, made_up_plaintext, made_up_rewrap, would_succeed},
    faults::{Rule, take},
    quota::Quota,
};
use crate::{
    http::{Answer, Reset, Server, whole},
    key_pairs::KeyPair,
    sts::{self, ASSUME_ROLE, Session},
};

/// The operation that the operator calls.
pub const ISSUE: &str = "GenerateDataKeyWithoutPlaintext";

/// The operation that the operator calls for key pairs.
pub const ISSUE_PAIR: &str = "GenerateDataKeyPairWithoutPlaintext";

/// The operation that workloads call.
pub const DECRYPT: &str = "Decrypt";

/// The operation that the plugin calls for a rewrap.
pub const REENCRYPT: &str = "ReEncrypt";

/// What stands before the error code in the aliases of keys that fail, where the proxy answers by itself.
pub const FAILING: &str = "alias/failing/";

/// What the calls with `DryRun` are counted as, whatever the operation.
pub const DRY_RUN: &str = "DryRun";

#[derive(Debug, Default)]
struct State {
    calls: BTreeMap<String, Vec<Call>>,
    rule: Option<Rule>,
    /// What becomes of the calls of STS.
    sts_rule: Option<Rule>,
    /// What becomes of the calls of `Decrypt`.
    decrypt_rule: Option<Rule>,
    /// What becomes of the calls of `ReEncrypt`.
    rewrap_rule: Option<Rule>,
    /// What becomes of the dry runs.
    dry_run_rule: Option<Rule>,
    /// The sessions that STS issued, in the order of its answers.
    sessions: Vec<Session>,
    /// What becomes of the calls of a Region, whatever the rule.
    regional: BTreeMap<String, Fault>,
    /// The key with which nothing decrypts.
    incorrect_key: Option<String>,
    quota: Option<Quota>,
}

/// A call as it came.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it came.
    pub at: Instant,
    /// Whether it was throttled for the quota.
    pub is_throttled: bool,
    /// The request's JSON; of a call of STS, its form.
    pub body: Value,
    /// The Region that it was signed for.
    pub region: String,
    /// The access key ID that it was signed with.
    pub access_key_id: String,
}

/// One proxy. It ends with its value.
pub struct KmsProxy {
    server: Server,
    state: Arc<Mutex<State>>,
}

/// Who answers the calls that meet no fault.
#[derive(Clone)]
enum Upstream {
    Server(Box<Client<HttpConnector, Full<Bytes>>>, String),
    /// None: the proxy itself makes up a blob.
    Stub,
}

// === impl Call ===

impl Call {
    fn is_dry_run(&self) -> bool {
        self.body["DryRun"] == true
    }
}

// === impl KmsProxy ===

impl KmsProxy {
    /// Starts one before a server at `host:port`.
    pub async fn start(upstream: String) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST.into(), upstream).await
    }

    /// Starts one on another address than loopback, for pods.
    pub async fn start_on(ip: IpAddr, upstream: String) -> Self {
        let client = Box::new(Client::builder(TokioExecutor::new()).build_http());
        Self::before(ip, Upstream::Server(client, upstream)).await
    }

    /// Starts one that answers by itself, for tests that count data keys and decrypt none.
    pub async fn stub() -> Self {
        Self::before(Ipv4Addr::LOCALHOST.into(), Upstream::Stub).await
    }

    async fn before(ip: IpAddr, upstream: Upstream) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let server = Server::start(ip, move |request| answer(request, Arc::clone(&shared), upstream.clone())).await;
        Self { server, state }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// How many data keys and key pairs were asked for.
    pub fn calls(&self) -> usize {
        self.calls_of(ISSUE) + self.calls_of(ISSUE_PAIR)
    }

    /// What was asked for, in the order of the calls.
    pub fn requests(&self) -> Vec<Call> {
        self.lock().calls.get(ISSUE).cloned().unwrap_or_default()
    }

    /// What was asked for as key pairs, in the order of the calls.
    pub fn pair_requests(&self) -> Vec<Call> {
        self.lock().calls.get(ISSUE_PAIR).cloned().unwrap_or_default()
    }

    /// The calls for sessions, in their order.
    pub fn assume_role_requests(&self) -> Vec<Call> {
        self.lock().calls.get(ASSUME_ROLE).cloned().unwrap_or_default()
    }

    /// The sessions that STS issued, in the order of its answers.
    pub fn sessions(&self) -> Vec<Session> {
        self.lock().sessions.clone()
    }

    /// The dry runs, in their order. No other number counts them.
    pub fn dry_runs(&self) -> Vec<Call> {
        self.requests_of(DRY_RUN)
    }

    /// How many calls of another operation there were.
    pub fn calls_of(&self, operation: &str) -> usize {
        self.lock().calls.get(operation).map_or(0, Vec::len)
    }

    /// All calls of an operation.
    pub fn requests_of(&self, operation: &str) -> Vec<Call> {
        self.lock().calls.get(operation).cloned().unwrap_or_default()
    }

    /// The operations that were called.
    pub fn operations(&self) -> Vec<String> {
        self.lock().calls.keys().cloned().collect()
    }

    /// From now on more calls a second than this are throttled; none are without a number.
    pub fn quota(&self, per_second: Option<NonZeroU32>) {
        self.lock().quota = per_second.map(Quota::new);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state")
    }
}

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>, upstream: Upstream) -> Result<Answer, Reset> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Reset)?.to_bytes();
    let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let authorization = parts.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    // AWS4-HMAC-SHA256 Credential=ACCESS-KEY-ID/DATE/REGION/kms/aws4_request, ...
    let scope: Vec<_> = authorization.split(['=', '/']).map(str::to_owned).collect();
    let part = |index: usize| scope.get(index).cloned().unwrap_or_default();
    // STS has the operation in a form.
    let is_form = target.is_empty();
    let body_json = if is_form { sts::form(&body) } else { serde_json::from_slice(&body).unwrap_or_default() };
    let operation = if is_form { body_json["Action"].as_str() } else { target.rsplit('.').next() };
    let operation = operation.unwrap_or_default().to_owned();
    let call =
        Call { at: Instant::now(), is_throttled: false, body: body_json, region: part(3), access_key_id: part(1) };
    let is_dry_run = call.is_dry_run();
    let counted = if is_dry_run { DRY_RUN } else { &operation };
    let fault = take(&mut state.lock().expect("the state"), counted, call.clone());

    let mut truncate = false;
    let mut stop = None;
    match fault {
        Some(Fault::Error(status, code, message)) => {
            let status = StatusCode::from_u16(status).expect("an HTTP status");
            return Ok(match &*operation {
                ASSUME_ROLE => sts::error(status, &code, &message),
                _ => json_answer(status, &json!({ "__type": code, "message": message })),
            });
        }
        Some(Fault::Answer(answer)) => return Ok(json_answer(StatusCode::OK, &answer)),
        Some(Fault::Reset) => return Err(Reset),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::StopBefore(stop)) => stop.stand_still().await,
        Some(Fault::StopAfter(after)) => stop = Some(after),
        Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::Truncate) => truncate = true,
        Some(Fault::AsAccount(account)) => {
            let value = authorization.replacen(&format!("={}/", part(1)), &format!("={account}/"), 1);
            parts.headers.insert("authorization", value.parse().expect("a header"));
        }
        None => {}
    }
    let pair =
        (operation == ISSUE_PAIR).then(|| DataKeyPairSpec::from(call.body["KeyPairSpec"].as_str().unwrap_or_default()));
    let Upstream::Server(client, upstream) = upstream else {
        return Ok(made_up_answer(&operation, &call, pair.as_ref(), &state));
    };
    let lacking = pair.and_then(|spec| Some((KeyPair::generate(&spec)?, spec)));
    let mut body = body;
    if let Some((pair, _)) = &lacking {
        // The KMS server wraps the private half as it wraps its own, and refuses the KMS key where it would refuse the call.
        let mut encrypt = call.body.clone();
        encrypt["Plaintext"] = BASE64_STANDARD.encode(&pair.private_key).into();
        body = encrypt.to_string().into();
        parts.headers.insert("x-amz-target", HeaderValue::from_static("TrentService.Encrypt"));
        parts.headers.insert(CONTENT_LENGTH, body.len().into());
    }
    // The Host header stays: it is signed.
    parts.uri = format!("http://{upstream}{}", parts.uri).parse().map_err(|_| Reset)?;
    let response = client.request(Request::from_parts(parts, Full::new(body))).await.map_err(|_| Reset)?;
    let (mut parts, body) = response.into_parts();
    let mut body = body.collect().await.map_err(|_| Reset)?.to_bytes();
    if operation == ASSUME_ROLE {
        state.lock().expect("the state").sessions.extend(Session::of(&call.body, &body));
    }
    if lacking.is_some() && is_dry_run && parts.status == StatusCode::OK {
        return Ok(would_succeed());
    }
    if let (Some((pair, spec)), StatusCode::OK) = (lacking, parts.status) {
        let encrypted: Value = serde_json::from_slice(&body).map_err(|_| Reset)?;
        let answer = json!({
            "KeyId": encrypted["KeyId"],
            "KeyPairSpec": spec.as_str(),
            "PrivateKeyCiphertextBlob": encrypted["CiphertextBlob"],
            "PublicKey": BASE64_STANDARD.encode(pair.public_key),
        });
        body = answer.to_string().into();
        parts.headers.insert(CONTENT_LENGTH, body.len().into());
    }
    if let Some(stop) = stop {
        stop.stand_still().await;
    }
    if truncate {
        let half = body.split_to(body.len() / 2);
        let end = stream::once(async {
            // The half must be on its way before the connection ends.
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(Reset)
        });
        let broken = StreamBody::new(stream::iter([Ok(Frame::data(half))]).chain(end));
        return Ok(Response::from_parts(parts, BodyExt::boxed_unsync(broken)));
    }
    Ok(Response::from_parts(parts, whole(body)))
}

/// The answer where no server is behind the proxy.
fn made_up_answer(operation: &str, call: &Call, pair: Option<&DataKeyPairSpec>, state: &Mutex<State>) -> Answer {
    if operation == ASSUME_ROLE {
        let answer = sts::made_up();
        state.lock().expect("the state").sessions.extend(Session::of(&call.body, answer.as_bytes()));
        return sts::xml(StatusCode::OK, &answer);
    }
    if operation == DECRYPT {
        return json_answer(StatusCode::OK, &made_up_plaintext(call));
    }
    let is_rewrap = operation == REENCRYPT;
    let key = call.body[if is_rewrap { "DestinationKeyId" } else { "KeyId" }].as_str().unwrap_or_default();
    if call.is_dry_run() {
        return would_succeed();
    }
    match key.strip_prefix(FAILING) {
        Some(code) => json_answer(StatusCode::BAD_REQUEST, &json!({ "__type": code, "message": "as the key says" })),
        None if is_rewrap => json_answer(StatusCode::OK, &made_up_rewrap(call)),
        None => json_answer(StatusCode::OK, &made_up(call, pair)),
    }
}
