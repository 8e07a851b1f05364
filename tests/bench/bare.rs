//! Requests to the API server and nothing more: HTTP/2 over TLS, bodies as bytes. What it can do in a second is what the
//! API server can.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http2::{Builder, SendRequest},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{net::TcpStream, sync::Mutex};
use tokio_rustls::TlsConnector;

/// Whole objects.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

const MERGE_PATCH: HeaderValue = HeaderValue::from_static("application/merge-patch+json");

/// What the operator asks for where it needs the metadata only.
pub const METADATA: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

type Connection = SendRequest<Full<Bytes>>;

/// Some connections with one identity, used in turn.
#[derive(Clone)]
pub struct Bare {
    connections: Arc<Vec<Mutex<Connection>>>,
    next: Arc<AtomicUsize>,
    connector: TlsConnector,
    server: String,
    authorization: HeaderValue,
}

/// An answer, read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

// === impl Bare ===

impl Bare {
    /// Connects so many times as the user of a kubeconfig of the testbed, by token.
    pub async fn connect(kubeconfig: &Path, connections: usize) -> Self {
        let config: Value = serde_json::from_slice(&std::fs::read(kubeconfig).unwrap()).unwrap();
        let cluster = &config["clusters"][0]["cluster"];
        let server = cluster["server"].as_str().unwrap().to_owned();
        let token = config["users"][0]["user"]["token"].as_str().unwrap();
        let authorization = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
        let authority = server.strip_prefix("https://").unwrap().to_owned();

        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(cluster["certificate-authority"].as_str().unwrap()).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let mut tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(tls));

        let mut opened = Vec::new();
        for _ in 0..connections {
            opened.push(Mutex::new(connect(&connector, &authority).await));
        }
        Self { connections: Arc::new(opened), next: Arc::default(), connector, server, authorization }
    }

    /// One of the connections. The API server ends those that are idle for minutes: such a one is opened again.
    async fn connection(&self) -> Connection {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        let mut connection = self.connections[next].lock().await;
        if connection.is_closed() {
            *connection = connect(&self.connector, self.server.strip_prefix("https://").unwrap()).await;
        }
        connection.clone()
    }

    /// Sends a request; the body of its answer is not read yet.
    pub async fn send(&self, method: Method, path: &str, accept: HeaderValue, body: Bytes) -> Response<Incoming> {
        let content = if method == Method::PATCH { MERGE_PATCH } else { JSON };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .header(AUTHORIZATION, &self.authorization)
            .header(ACCEPT, accept)
            .header(CONTENT_TYPE, content)
            .body(Full::new(body))
            .unwrap();
        self.connection().await.send_request(request).await.unwrap()
    }

    /// Sends a request and reads its answer.
    pub async fn ask(&self, method: Method, path: &str, accept: HeaderValue, body: Bytes) -> Answer {
        let response = self.send(method, path, accept, body).await;
        let status = response.status();
        Answer { status, body: response.into_body().collect().await.unwrap().to_bytes() }
    }

    /// Reads an object or a list.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.ask(Method::GET, path, JSON, Bytes::new()).await;
        answer.must_be(StatusCode::OK);
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Sends a JSON body, and must be answered with this status.
    pub async fn write(&self, method: Method, path: &str, body: Bytes, expected: StatusCode) -> Bytes {
        let answer = self.ask(method, path, JSON, body).await;
        answer.must_be(expected);
        answer.body
    }
}

async fn connect(connector: &TlsConnector, authority: &str) -> Connection {
    let stream = TcpStream::connect(authority).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let host = authority.split(':').next().unwrap().to_owned();
    let stream = connector.connect(ServerName::try_from(host).unwrap(), stream).await.unwrap();
    let mut builder = Builder::new(TokioExecutor::new());
    // A watch that is read late must not hold up the answers beside it.
    builder.initial_stream_window_size(1 << 20).initial_connection_window_size(1 << 24);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

// === impl Answer ===

impl Answer {
    /// Panics with the server's words unless it has this status.
    pub fn must_be(&self, expected: StatusCode) {
        assert_eq!(self.status, expected, "{}", String::from_utf8_lossy(&self.body));
    }

    /// `metadata.resourceVersion`, found without decoding the object.
    pub fn resource_version(&self) -> &str {
        const FIELD: &str = r#""resourceVersion":""#;
        let text = std::str::from_utf8(&self.body).unwrap();
        let begin = text.find(FIELD).unwrap() + FIELD.len();
        text[begin..].split('"').next().unwrap()
    }
}
