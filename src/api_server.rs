//! The clients of the API server, and how soon they notice that a connection is dead.
//!
//! A connection can die without a sign: a node or a load balancer goes away, a firewall forgets it. kube's own client speaks
//! HTTP/1.1, where a watch that has nothing to say looks like one that is dead, for up to five minutes. The clients here speak
//! HTTP/2 where the server does. A connection that is silent is sent a PING, which also a proxy has to pass on or to answer,
//! and ends when no answer comes. Without HTTP/2, watches are short instead ([`Connectivity::watch_timeout`]).

pub mod connectivity;
pub mod errors;
pub mod events;
mod initial_events;
pub mod keys;
pub mod namespaces;
pub mod outage;
pub mod outcome;
mod redaction;
pub mod secrets;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, StatusCode, Uri};
use hyper::rt::{Read, Write};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::{
        legacy::{
            self,
            connect::{Connection, HttpConnector, capture_connection, proxy::Tunnel},
        },
        proxy::matcher::Matcher,
    },
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt, middleware::AuthLayer},
    config::InferConfigError,
};
use parking_lot::RwLock;
use rustls::pki_types::ServerName;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use connectivity::{Connectivity, InFlight};

/// A connection that was silent for this time is sent a PING; one that does not answer it within the second time is dead.
const PING_AFTER: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(8);

/// A connection that receives no byte for this time is dead, too; the answer to a PING counts. Over HTTP/1.1 this limits the
/// wait for an answer that never arrives, for example to a list request.
const SILENCE: Duration = Duration::from_secs(30);

/// An idle connection is not used again after this time: without HTTP/2 the connection can be dead, and there can be many idle
/// connections.
const IDLE: Duration = Duration::from_secs(20);

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The kernel's own check of the connection to the next proxy: the idle time before the first probe, the interval of the
/// probes, and the number of probes without an answer; and the longest wait for an acknowledgement.
const TCP_KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(10), Duration::from_secs(5), 3);
#[cfg(target_os = "linux")]
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the API server is and how it is reached.
#[derive(Clone)]
pub struct ApiServer {
    config: Config,
    connect_timeout: Duration,
    connectivity: Connectivity,
}

/// The credentials of requests. kube reads a token file again after 50 seconds.
struct Credentials {
    config: Config,
    layer: RwLock<Option<Arc<AuthLayer>>>,
}

type Answer = http::Response<hyper::body::Incoming>;

// === impl ApiServer ===

impl ApiServer {
    /// The API server of the kubeconfig, else of the pod's service account. Nothing is sent yet.
    ///
    /// # Errors
    /// There is neither.
    pub async fn infer(kube_timeout: Duration, connectivity: Connectivity) -> Result<Self, InferConfigError> {
        Ok(Self::new(Config::infer().await?, kube_timeout, connectivity))
    }

    fn new(config: Config, kube_timeout: Duration, connectivity: Connectivity) -> Self {
        Self { config, connect_timeout: kube_timeout.min(CONNECT_TIMEOUT), connectivity }
    }

    /// A client with connections of its own. A server takes about a hundred requests at a time on a connection, and watches
    /// never end: beside many of them, or behind a backlog of one, other requests would wait.
    ///
    /// # Errors
    /// The configuration cannot be used: certificates, credentials, a proxy.
    pub fn client(&self) -> Result<Client, kube::Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // HTTP/2 frames are small; Nagle's algorithm would only delay each of them.
        tcp.set_nodelay(true);
        let (after, interval, retries) = TCP_KEEPALIVE;
        tcp.set_keepalive(Some(after));
        tcp.set_keepalive_interval(Some(interval));
        tcp.set_keepalive_retries(Some(retries));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT));

        let Some(proxy) = &self.config.proxy_url else { return self.client_over(tcp) };
        match proxy.scheme_str() {
            Some("http") => self.client_over(self.tunnel(proxy, tcp)),
            Some("https") => {
                let tls = self.config.rustls_https_connector_with_connector(tcp)?;
                self.client_over(self.tunnel(proxy, tls))
            }
            _ => Err(kube::Error::ProxyProtocolUnsupported { proxy_url: Box::new(proxy.clone()) }),
        }
    }

    /// Returns a connector through a proxy, with the user and password of the proxy's URL.
    fn tunnel<C>(&self, proxy: &Uri, connector: C) -> Tunnel<C> {
        let tunnel = Tunnel::new(proxy.clone(), connector);
        let matcher = Matcher::builder().all(proxy.to_string()).build();
        match matcher.intercept(&self.config.cluster_url).as_ref().and_then(|proxy| proxy.basic_auth()) {
            Some(credentials) => tunnel.with_auth(credentials.clone()),
            None => tunnel,
        }
    }

    fn client_over<C>(&self, connector: C) -> Result<Client, kube::Error>
    where
        C: Service<Uri> + Clone + Send + Sync + 'static,
        C::Response: Connection + Read + Write + Send + Unpin + 'static,
        C::Future: Send + 'static,
        C::Error: std::error::Error + Send + Sync + 'static,
    {
        let mut connector = TimeoutConnector::new(self.tls(connector)?);
        connector.set_connect_timeout(Some(self.connect_timeout));
        connector.set_read_timeout(Some(SILENCE));
        connector.set_write_timeout(Some(SILENCE));
        // Each request restarts the read timeout: the idle time before it does not count as a wait for an answer.
        connector.set_reset_reader_on_write(true);
        let http: legacy::Client<_, Body> = legacy::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http2_keep_alive_interval(PING_AFTER)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            .build(connector);

        let base_uri = self.config.base_uri_layer();
        let headers = self.config.extra_headers_layer()?;
        let credentials = Arc::new(Credentials::new(self.config.clone())?);
        let connectivity = self.connectivity.clone();
        let service = service_fn(move |mut request: Request<Body>| {
            initial_events::make_consistent(request.uri_mut());
            let in_flight = InFlight::new(capture_connection(&mut request), connectivity.clone());
            let credentials = Arc::clone(&credentials);
            let http = headers.layer(http.clone().map_err(|error| -> BoxError { error.into() }));
            let sent: BoxFuture<'static, Result<Answer, BoxError>> = match credentials.layer() {
                Some(layer) => base_uri.layer(layer.layer(http)).oneshot(request).boxed(),
                None => base_uri.layer(http).oneshot(request).boxed(),
            };
            async move {
                let answer = sent.await?;
                in_flight.answered(answer.version());
                if answer.status() == StatusCode::UNAUTHORIZED {
                    credentials.refused();
                }
                Ok::<_, BoxError>(answer)
            }
        });
        Ok(ClientBuilder::new(service, self.config.default_namespace.clone()).build())
    }

    /// TLS where the URL says so, as kube does it, with HTTP/2 where the server has it.
    fn tls<C>(&self, connector: C) -> Result<HttpsConnector<C>, kube::Error> {
        let builder = HttpsConnectorBuilder::new().with_tls_config(self.config.rustls_client_config()?).https_or_http();
        let builder = match &self.config.tls_server_name {
            Some(name) => {
                let name = ServerName::try_from(name.clone()).map_err(|error| kube::Error::Service(error.into()))?;
                builder.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
            None => builder,
        };
        Ok(builder.enable_all_versions().wrap_connector(connector))
    }
}

// === impl Credentials ===

impl Credentials {
    fn new(config: Config) -> Result<Self, kube::Error> {
        let layer = RwLock::new(config.auth_layer()?.map(Arc::new));
        Ok(Self { config, layer })
    }

    fn layer(&self) -> Option<Arc<AuthLayer>> {
        self.layer.read().clone()
    }

    /// Reads the token file again immediately after the API server refused the credentials, as client-go does: the kubelet may
    /// have replaced the file.
    fn refused(&self) {
        if self.config.auth_info.token_file.is_none() {
            return;
        }
        // A file that cannot be read now may be readable after the next refusal.
        if let Ok(Some(layer)) = self.config.auth_layer() {
            *self.layer.write() = Some(Arc::new(layer));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncBufReadExt, BufReader},
        net::TcpListener,
    };

    use super::*;

    /// Checks the longest times to detect a dead connection, and to detect that a new connection cannot be made.
    #[test]
    fn dead_connection_is_detected_within_30_seconds() {
        const LIMIT: Duration = Duration::from_secs(30);

        assert!(PING_AFTER + PING_TIMEOUT + CONNECT_TIMEOUT < LIMIT);
        assert!(SILENCE <= LIMIT && IDLE + CONNECT_TIMEOUT <= LIMIT);
        // The answers to PINGs arrive within the silence limit.
        assert!(PING_AFTER < SILENCE);
    }

    #[tokio::test]
    async fn proxy_receives_the_user_and_password_of_its_url() {
        let proxy = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = proxy.local_addr().unwrap();
        let mut config = Config::new(Uri::from_static("https://kubernetes.example.com"));
        config.root_cert = Some(vec![]);
        config.proxy_url = Some(format!("http://user:p%40ss@{address}").parse().unwrap());
        let server = ApiServer::new(config, CONNECT_TIMEOUT, Connectivity::default());
        let client = server.client().unwrap();
        let request = tokio::spawn(async move { client.send(Request::new(Body::empty())).await.is_ok() });
        let (stream, _) = proxy.accept().await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next_line().await.unwrap().unwrap();
        assert_eq!(first, "CONNECT kubernetes.example.com:443 HTTP/1.1");
        let mut headers = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap().filter(|line| !line.is_empty()) {
            headers.push(line.to_lowercase());
        }
        assert!(headers.contains(&"proxy-authorization: basic dxnlcjpwqhnz".to_owned()), "{headers:?}");
        drop(lines);
        assert!(!request.await.unwrap());
    }
}
