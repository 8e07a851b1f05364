//! What both proxies are made of.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

/// An answer, whole or streamed.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Reset>>;

/// Ends the connection: hyper writes nothing more for a service or a body that fails.
#[derive(Debug)]
pub(crate) struct Reset;

/// A place where a request stops until the test lets it go on, or kills the process that sent it.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    reached: Arc<Notify>,
    released: Arc<Notify>,
}

/// A server. It ends with its value, and its connections with it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    is_tls: bool,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// The connections of earlier epochs are ended.
    epoch: usize,
    is_closed: bool,
}

// === impl Reset ===

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reset")
    }
}

impl std::error::Error for Reset {}

impl From<Infallible> for Reset {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

// === impl Stop ===

impl Stop {
    /// Waits until a request stands there.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets the request go on that stands there.
    pub fn release(&self) {
        self.released.notify_one();
    }

    pub(crate) async fn stand_still(&self) {
        self.reached.notify_one();
        self.released.notified().await;
    }
}

// === impl Server ===

impl Server {
    /// Starts one on a free port of an address.
    pub(crate) async fn start<S, F>(ip: IpAddr, service: S) -> Self
    where
        S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Answer, Reset>> + Send + 'static,
    {
        Self::start_by(ip, None, service).await
    }

    /// Starts one that speaks TLS, and HTTP/2 with those who can.
    pub(crate) async fn start_tls<S, F>(ip: IpAddr, tls: ServerConfig, service: S) -> Self
    where
        S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Answer, Reset>> + Send + 'static,
    {
        Self::start_by(ip, Some(TlsAcceptor::from(Arc::new(tls))), service).await
    }

    async fn start_by<S, F>(ip: IpAddr, tls: Option<TlsAcceptor>, service: S) -> Self
    where
        S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Answer, Reset>> + Send + 'static,
    {
        let listener = TcpListener::bind((ip, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let (state, changes) = watch::channel(State::default());
        let is_tls = tls.is_some();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let State { epoch, is_closed } = *changes.borrow();
                if is_closed {
                    continue;
                }
                let (tls, service, mut changes) = (tls.clone(), service.clone(), changes.clone());
                let connection = async move {
                    let _ = stream.set_nodelay(true);
                    let builder = auto::Builder::new(TokioExecutor::new());
                    // An error here is a connection that a fault or the client ended.
                    match tls {
                        None => drop(builder.serve_connection(TokioIo::new(stream), service_fn(service)).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(builder.serve_connection(TokioIo::new(stream), service_fn(service)).await);
                            }
                        }
                    }
                };
                connections.spawn(async move {
                    tokio::select! {
                        () = connection => {}
                        _ = changes.wait_for(|state| state.epoch != epoch) => {}
                    }
                });
            }
        });
        Self { address, is_tls, state, task }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.address)
    }

    /// Ends all connections; new ones are served.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.epoch += 1);
    }

    /// Ends all connections, and every new one at once, until it is opened again.
    pub(crate) fn close(&self) {
        self.state.send_modify(|state| *state = State { epoch: state.epoch + 1, is_closed: true });
    }

    /// Serves again.
    pub(crate) fn open(&self) {
        self.state.send_modify(|state| state.is_closed = false);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A whole body.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> UnsyncBoxBody<Bytes, Reset> {
    Full::new(bytes.into()).map_err(Reset::from).boxed_unsync()
}
