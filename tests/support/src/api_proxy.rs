//! A proxy before kube-apiserver: it counts the requests, and delays, refuses and loses them as a test asks.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::StreamExt;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::{
    Request, Response, StatusCode, Version,
    body::{Bytes, Incoming},
};
use kube::{
    Client,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    http::{Answer, Reset, Server, Stop, whole},
    pki,
};

/// The verb of a watch that begins with a list, as the metrics of the API server name it.
pub const STREAMED_LIST: &str = "watchlist";

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The server answers so, and does nothing: HTTP status, reason, message.
    Refuse(u16, &'static str, &'static str),
    /// The end of the connection, and nothing is done.
    Lose,
    /// It is done, and the answer is lost.
    LoseAnswer,
    /// No answer, and nothing is done.
    Hang,
    /// It is done after a time of up to this.
    Delay(Duration),
    /// It stands still before anything is done.
    StopBefore(Stop),
    /// It is done, and stands still before the answer.
    StopAfter(Stop),
    /// A watch begins, and ends with this error in the stream: code, message.
    EndWatch(u16, &'static str),
    /// A watch that begins ends after its first event, without an error.
    EndAfterOne,
}

/// A request as RBAC sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRequest {
    /// When it came.
    pub at: Instant,
    /// `get`, `list`, `watch`, `create`, `update`, `patch` or `delete`.
    pub verb: &'static str,
    /// The plural, with the subresource: `datakeys/status`.
    pub resource: String,
    /// The namespace, where it is in one.
    pub namespace: String,
    /// The name, where it has one.
    pub name: String,
}

struct Rule {
    verb: &'static str,
    resource: &'static str,
    /// Only for requests of this namespace; `None` for all.
    namespace: Option<&'static str>,
    fault: Fault,
    /// How many of them are let through before.
    skip: usize,
    /// How many more requests it is for; `None` for all.
    left: Option<usize>,
    /// Which share of them.
    share: f64,
}

#[derive(Default)]
struct State {
    requests: Vec<ApiRequest>,
    rules: Vec<Rule>,
    /// How late each event of a watch comes.
    lag: Duration,
}

/// One proxy. It ends with its value.
pub struct ApiProxy {
    server: Server,
    state: Arc<Mutex<State>>,
}

// === impl ApiProxy ===

impl ApiProxy {
    /// Starts one before the server of a kubeconfig. It speaks TLS and HTTP/2, as the server does, and each client has to
    /// prove who it is.
    pub async fn start(kubeconfig: &Path) -> Self {
        Self::start_by(kubeconfig, Some(pki::server(kubeconfig.parent().expect("a folder")))).await
    }

    /// Starts one that speaks plain HTTP/1.1.
    pub async fn with_http1(kubeconfig: &Path) -> Self {
        Self::start_by(kubeconfig, None).await
    }

    async fn start_by(kubeconfig: &Path, tls: Option<rustls::ServerConfig>) -> Self {
        let mut kubeconfig = Kubeconfig::read_from(kubeconfig).expect("read a kubeconfig");
        for user in &mut kubeconfig.auth_infos {
            user.auth_info = None;
        }
        let options = KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("use a kubeconfig");
        config.default_retry = false;
        config.proxy_url = None;
        let client = Client::try_from(config).expect("a client");
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let service = move |request| answer(request, Arc::clone(&shared), client.clone());
        let ip = Ipv4Addr::LOCALHOST.into();
        let server = match tls {
            Some(tls) => Server::start_tls(ip, tls, service).await,
            None => Server::start(ip, service).await,
        };
        Self { server, state }
    }

    /// A kubeconfig with the users of another one, that leads here.
    pub fn kubeconfig(&self, of: &Path) -> PathBuf {
        let mut config: Value =
            serde_json::from_str(&std::fs::read_to_string(of).expect("read a kubeconfig")).expect("JSON");
        config["clusters"][0]["cluster"]["server"] = json!(self.server.url());
        let path = of.with_extension(format!("through-{}", self.server.address.port()));
        std::fs::write(&path, config.to_string()).expect("write a kubeconfig");
        path
    }

    /// Makes every request of this kind meet this fault; `*` stands for any verb or resource.
    pub fn fail_always(&self, verb: &'static str, resource: &'static str, fault: Fault) {
        self.rule(Rule { verb, resource, namespace: None, fault, skip: 0, left: None, share: 1.0 });
    }

    /// Makes every request of this kind in a namespace meet this fault.
    pub fn fail_in(&self, namespace: &'static str, verb: &'static str, resource: &'static str, fault: Fault) {
        self.rule(Rule { verb, resource, namespace: Some(namespace), fault, skip: 0, left: None, share: 1.0 });
    }

    /// Makes the next requests of this kind meet this fault.
    pub fn fail_next(&self, count: usize, verb: &'static str, resource: &'static str, fault: Fault) {
        self.rule(Rule { verb, resource, namespace: None, fault, skip: 0, left: Some(count), share: 1.0 });
    }

    /// Lets `skip` requests of this kind through and makes the one after them meet this fault.
    pub fn fail_after(&self, skip: usize, verb: &'static str, resource: &'static str, fault: Fault) {
        self.rule(Rule { verb, resource, namespace: None, fault, skip, left: Some(1), share: 1.0 });
    }

    /// Makes this share of the requests of this kind meet this fault.
    pub fn fail_often(&self, share: f64, verb: &'static str, resource: &'static str, fault: Fault) {
        self.rule(Rule { verb, resource, namespace: None, fault, skip: 0, left: None, share });
    }

    /// Every event of a watch comes so late.
    pub fn lag(&self, lag: Duration) {
        self.lock().lag = lag;
    }

    /// Ends all faults and the lag, and lets clients through again.
    pub fn clear_faults(&self) {
        let mut state = self.lock();
        state.rules.clear();
        state.lag = Duration::ZERO;
        drop(state);
        self.server.open();
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.server.cut();
    }

    /// Lets no client through.
    pub fn close(&self) {
        self.server.close();
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<ApiRequest> {
        self.lock().requests.clone()
    }

    /// How many lists of a resource were asked for, streamed or in pages.
    pub fn lists(&self, resource: &str) -> usize {
        self.count("list", resource) + self.count(STREAMED_LIST, resource)
    }

    /// How many of these requests came; `*` stands for any verb or resource.
    pub fn count(&self, verb: &str, resource: &str) -> usize {
        self.lock().requests.iter().filter(|request| request.is(verb, resource)).count()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.lock().requests.clear();
    }

    fn rule(&self, rule: Rule) {
        self.lock().rules.push(rule);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state")
    }
}

// === impl ApiRequest ===

impl ApiRequest {
    /// Whether it has this verb and resource; `*` stands for any.
    pub fn is(&self, verb: &str, resource: &str) -> bool {
        (verb == "*" || verb == self.verb) && (resource == "*" || resource == self.resource)
    }

    fn of(request: &Request<Incoming>) -> Self {
        let parts: Vec<_> = request.uri().path().split('/').skip(1).collect();
        let parts = match parts[..] {
            ["api", _, ref rest @ ..] | ["apis", _, _, ref rest @ ..] => rest,
            ref other => other,
        };
        let (namespace, parts) = match parts {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            other => ("", other),
        };
        let part = |index: usize| parts.get(index).copied().unwrap_or_default();
        let resource = [part(0), part(2)].join("/").trim_end_matches('/').to_owned();
        let has = |pair: &str| request.uri().query().is_some_and(|query| query.split('&').any(|own| own == pair));
        let verb = match (request.method().as_str(), part(1)) {
            ("GET", "") if has("sendInitialEvents=true") => STREAMED_LIST,
            ("GET", "") if has("watch=true") => "watch",
            ("GET", "") => "list",
            ("GET", _) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            _ => "delete",
        };
        Self { at: Instant::now(), verb, resource, namespace: namespace.to_owned(), name: part(1).to_owned() }
    }
}

fn faults(state: &Mutex<State>, request: ApiRequest) -> Vec<Fault> {
    let mut state = state.lock().expect("the state");
    let mut faults = Vec::new();
    for rule in &mut state.rules {
        let is_elsewhere = rule.namespace.is_some_and(|namespace| namespace != request.namespace);
        if is_elsewhere || !request.is(rule.verb, rule.resource) || rule.left == Some(0) {
            continue;
        }
        if rule.skip > 0 {
            rule.skip -= 1;
        } else if fastrand::f64() < rule.share {
            rule.left = rule.left.map(|left| left - 1);
            faults.push(rule.fault.clone());
        }
    }
    state.requests.push(request);
    faults
}

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>, client: Client) -> Result<Answer, Reset> {
    let api_request = ApiRequest::of(&request);
    let is_watch = ["watch", STREAMED_LIST].contains(&api_request.verb);
    let faults = faults(&state, api_request);
    for fault in &faults {
        match fault {
            Fault::Refuse(code, reason, message) => return Ok(refusal(*code, reason, message)),
            Fault::Lose => return Err(Reset),
            Fault::Hang => std::future::pending().await,
            Fault::Delay(most) => sleep(most.mul_f64(fastrand::f64())).await,
            Fault::StopBefore(stop) => stop.stand_still().await,
            Fault::EndWatch(code, message) => {
                let event = json!({ "type": "ERROR", "object": status(*code, "Expired", message) });
                return Ok(Response::new(whole(format!("{event}\n"))));
            }
            Fault::LoseAnswer | Fault::StopAfter(_) | Fault::EndAfterOne => {}
        }
    }
    let (mut parts, body) = request.into_parts();
    parts.headers.remove("host");
    // One that came by HTTP/2 goes on by HTTP/1.1.
    parts.version = Version::HTTP_11;
    let body = body.collect().await.map_err(|_| Reset)?.to_bytes();
    let response = client.send(Request::from_parts(parts, Body::from(body.to_vec()))).await.map_err(|_| Reset)?;
    for fault in &faults {
        match fault {
            Fault::LoseAnswer => return Err(Reset),
            Fault::StopAfter(stop) => stop.stand_still().await,
            _ => {}
        }
    }
    let (parts, body) = response.into_parts();
    if parts.status.is_success() && faults.iter().any(|fault| matches!(fault, Fault::EndAfterOne)) {
        return Ok(Response::from_parts(parts, whole(first_line(body).await?)));
    }
    let late = BodyStream::new(body).then(move |frame| {
        let lag = if is_watch { state.lock().expect("the state").lag } else { Duration::ZERO };
        async move {
            if !lag.is_zero() {
                sleep(lag).await;
            }
            frame.map_err(|_| Reset)
        }
    });
    Ok(Response::from_parts(parts, BodyExt::boxed_unsync(StreamBody::new(late))))
}

/// The first line of a body that goes on.
async fn first_line<B: hyper::body::Body<Data = Bytes> + Unpin>(mut body: B) -> Result<String, Reset> {
    let mut line = Vec::new();
    while !line.contains(&b'\n') {
        let frame = body.frame().await.ok_or(Reset)?.map_err(|_| Reset)?;
        line.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
    let end = line.iter().position(|byte| *byte == b'\n').ok_or(Reset)?;
    String::from_utf8(line[..=end].to_vec()).map_err(|_| Reset)
}

fn refusal(code: u16, reason: &str, message: &str) -> Answer {
    let answer = Response::builder()
        .status(StatusCode::from_u16(code).expect("an HTTP status"))
        .header("content-type", "application/json");
    answer.body(whole(status(code, reason, message).to_string())).expect("an answer")
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message })
}
