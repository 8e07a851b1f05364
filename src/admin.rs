//! `/livez`, `/readyz` and `/metrics`.

use std::{future::Future, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tracing::info;

use crate::{
    controller::View,
    metrics::{Metrics, Snapshot},
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Binds the address, so that one that is taken stops the start.
///
/// # Errors
/// The address can't be bound.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    info!(address = %listener.local_addr()?, "serving /livez, /readyz and /metrics");
    Ok(listener)
}

/// Serves until `stop`.
///
/// # Errors
/// The listener is broken.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    view: View,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app = Router::new()
        // A missing definition or an API server out of reach does not get better by a restart.
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state((metrics, view));
    axum::serve(listener, app).with_graceful_shutdown(stop).await
}

type Shared = (Arc<Metrics>, View);

async fn readyz(State((_, view)): State<Shared>) -> impl IntoResponse {
    if view.is_ready().await {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "waiting for the API server, the definition, and the first lists of DataKeys and Secrets\n",
        )
    }
}

async fn scrape(State((metrics, view)): State<Shared>) -> impl IntoResponse {
    let (states, unreadable) = view.states();
    let snapshot = Snapshot { states, unreadable, waiting: view.waiting(), leads: view.leads() };
    match metrics.render(snapshot) {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
