//! What the process counts, for whoever scrapes it: `GET /metrics` in the OpenMetrics text format.
//!
//! It listens by itself, since a process that only works has no other port, and since what is counted is the
//! operator's business and not the callers'. Absent on purpose: keys. Listen where only the operator gets.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{Router, extract::State, response::IntoResponse, routing::get, serve::Listener};
use futures::{Stream, StreamExt};
use http::header::CONTENT_TYPE;
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;

use super::connections::{self, Connection};
use crate::error::Error;

/// Scrapers that may be connected at once; one more is closed at once.
const MAX_CONNECTIONS: usize = 64;

/// A connection that sends nothing for this long after it was opened is closed.
const SILENCE: Duration = Duration::from_secs(10);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers until the future is dropped.
///
/// # Errors
/// If the listener has no address.
pub async fn serve_metrics(registry: Registry, listener: TcpListener) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!("metrics at http://{address}/metrics");
    let connections = connections::accept(listener, MAX_CONNECTIONS, "metrics", SILENCE);
    let scrapers = Scrapers {
        connections: Box::pin(connections),
        address,
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .with_state(Arc::new(registry));
    axum::serve(scrapers, router).await
}

async fn metrics(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            let error = Error::internal(format!("metrics cannot be written: {error}"));
            (
                http::StatusCode::INTERNAL_SERVER_ERROR,
                error.message().to_owned(),
            )
                .into_response()
        }
    }
}

struct Scrapers<S> {
    connections: Pin<Box<S>>,
    address: SocketAddr,
}

impl<S: Stream<Item = io::Result<Connection>> + Send + 'static> Listener for Scrapers<S> {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.connections.next().await {
                Some(Ok(connection)) => return (connection, self.address),
                Some(Err(error)) => {
                    tracing::warn!(%error, "a scraper could not connect");
                    // Out of file descriptors, most likely: at once it would fail again.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                // A listener has no end.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}
