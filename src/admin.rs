//! `/livez`, `/readyz` and `/metrics`.

use std::{
    future::Future,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tracing::info;

use crate::{
    controller::Readiness,
    metrics::{Gauges, Metrics},
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Binds the address. An address that is in use stops the start of the operator. `[::]` also accepts IPv4 connections; on a
/// node without IPv6 the operator binds `0.0.0.0` instead.
///
/// # Errors
/// The address can't be bound.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = bind_by(address, listen)?;
    info!(address = %listener.local_addr()?, "serving /livez, /readyz and /metrics");
    Ok(listener)
}

fn bind_by<T>(address: SocketAddr, listen: impl Fn(SocketAddr) -> std::io::Result<T>) -> std::io::Result<T> {
    listen(address).or_else(|error| {
        let Some(instead) = fallback(address, error.kind()) else { return Err(error) };
        info!(%error, "this node has no IPv6: binding {instead} in place of {address}");
        listen(instead)
    })
}

/// Returns the IPv4 address to bind if the node has no IPv6; `None` if that cannot help. An address that is in use or forbidden
/// is also in use or forbidden for IPv4, and the address of a single interface is the user's choice.
fn fallback(address: SocketAddr, why: ErrorKind) -> Option<SocketAddr> {
    let is_any = address.is_ipv6() && address.ip().is_unspecified();
    let is_taken = matches!(why, ErrorKind::AddrInUse | ErrorKind::PermissionDenied);
    (is_any && !is_taken).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // The socket accepts IPv4 connections even if `net.ipv6.bindv6only` is set.
        socket.set_only_v6(false)?;
    }
    // A restarted process can bind the port while the kernel still keeps closed connections of the previous process.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves until `stop`.
///
/// # Errors
/// The listener is broken.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app = Router::new()
        // Liveness does not depend on the API server or on the CustomResourceDefinition: a restart fixes neither.
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state((metrics, readiness));
    axum::serve(listener, app).with_graceful_shutdown(stop).await
}

type Shared = (Arc<Metrics>, Readiness);

async fn readyz(State((_, readiness)): State<Shared>) -> impl IntoResponse {
    if readiness.is_ready() {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "waiting for the API server, the definition, and the first lists of DataKeys and Secrets\n",
        )
    }
}

async fn scrape(State((metrics, readiness)): State<Shared>) -> impl IntoResponse {
    let (states, unreadable) = readiness.states();
    let (kms_keys, unusable) = readiness.kms_keys();
    let gauges = Gauges {
        states,
        unreadable,
        kms_queue_length: readiness.kms_queue_length(),
        role_sessions: readiness.role_sessions(),
        kms_keys,
        unusable,
        leads: readiness.leads(),
    };
    match metrics.render(gauges) {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::{io, net::Ipv6Addr};

    use tokio::net::TcpStream;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

    #[tokio::test]
    async fn default_address_answers_on_ipv4_and_ipv6() {
        let listener = bind(ANY).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip().to_canonical(), Ipv4Addr::LOCALHOST);
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.is_err() {
            println!("this machine has no IPv6: only IPv4 is tested");
            return;
        }
        TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip(), Ipv6Addr::LOCALHOST);
    }

    #[test]
    fn default_address_is_ipv4_without_ipv6() {
        // EAFNOSUPPORT of a kernel without IPv6, EADDRNOTAVAIL of a network without.
        for error in [97, 99] {
            let only_ipv4 = |address: SocketAddr| match address {
                SocketAddr::V4(_) => Ok(address),
                SocketAddr::V6(_) => Err(io::Error::from_raw_os_error(error)),
            };
            let bound = bind_by(([0; 8], 8080).into(), only_ipv4).unwrap();
            assert_eq!(bound, (Ipv4Addr::UNSPECIFIED, 8080).into());
        }
    }

    #[test]
    fn configured_address_is_not_replaced_by_ipv4() {
        let one: SocketAddr = (Ipv6Addr::LOCALHOST, 8080).into();
        assert_eq!(fallback(one, ErrorKind::AddrNotAvailable), None);
        assert_eq!(fallback((Ipv4Addr::UNSPECIFIED, 8080).into(), ErrorKind::AddrNotAvailable), None);
        assert_eq!(fallback(ANY, ErrorKind::AddrInUse), None);
        assert_eq!(fallback(ANY, ErrorKind::PermissionDenied), None);
    }

    #[tokio::test]
    async fn address_in_use_is_an_error() {
        let first = bind(ANY).unwrap();
        let error = bind(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    }
}
