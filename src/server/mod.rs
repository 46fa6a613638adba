//! One port for gRPC, gRPC-Web and REST.
//!
//! tonic's server carries the router, because it sets HTTP/2 limits and keepalive that `axum::serve`
//! does not. The gRPC routes bring a fallback of their own inside the gRPC-Web layer; the router's
//! fallback here replaces it, so that an unknown path answers in the form its caller speaks.
//!
//! Native gRPC goes past the router's layers (see `surfaces`): they are for pages and REST.

mod admission;
mod connections;
mod gathering;
mod metrics;
mod surfaces;
mod tls;

use std::time::Duration;

use axum::{
    body::Body,
    extract::Request,
    middleware,
    response::{IntoResponse, Response},
};
use futures::{FutureExt, TryStreamExt};
use http::{HeaderName, HeaderValue, header::CONTENT_TYPE};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, CorsLayer},
};

use self::{
    admission::{Admission, admit},
    gathering::Gathering,
    surfaces::Surfaces,
};
pub use self::{
    metrics::serve_metrics,
    tls::{TlsError, acceptor},
};
use crate::{app::App, error::Error, grpc, rest};

/// What the server needs to be told; meanings in `config/default.toml`.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct ServerOptions {
    pub max_request_bytes: usize,
    pub max_connections: usize,
    pub max_concurrent_streams: u32,
    pub max_concurrent_requests: usize,
    pub request_timeout: Duration,
    pub upload_timeout: Duration,
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    pub drain: Duration,
}

/// Why the server ended or could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A surface cannot be built.
    #[error("cannot build the gRPC surface")]
    Build(#[from] grpc::BuildError),
    /// The listener failed.
    #[error("the listener failed")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves, over TLS with an `acceptor`, until `drain` is cancelled and the open calls have ended, or `options.drain` has passed.
///
/// # Errors
/// See [`ServerError`].
pub async fn serve(
    app: App,
    options: ServerOptions,
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    drain: CancellationToken,
) -> Result<(), ServerError> {
    let (surfaces, reporter) = surfaces(app, &options).await?;
    let server = Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(Some(options.max_concurrent_streams))
        .http2_keepalive_interval(Some(options.keepalive_interval))
        .http2_keepalive_timeout(Some(options.keepalive_timeout));
    let drained = report_drain(drain.clone(), reporter);
    let connections = connections::accept(
        listener,
        options.max_connections,
        "server.max_connections",
        options.keepalive_timeout,
    );
    let serving = match acceptor {
        Some(acceptor) => server
            .serve_with_incoming_shutdown(
                surfaces,
                tls::incoming(connections, acceptor).map_ok(Gathering::new),
                drained,
            )
            .boxed(),
        None => server
            .serve_with_incoming_shutdown(surfaces, connections.map_ok(Gathering::new), drained)
            .boxed(),
    };
    let deadline = async {
        drain.cancelled().await;
        tokio::time::sleep(options.drain).await;
    };
    tokio::select! {
        served = serving => Ok(served?),
        () = deadline => {
            tracing::warn!("calls were still open when the drain time ended");
            Ok(())
        }
    }
}

/// Health says NOT_SERVING before the first connection is told to go.
async fn report_drain(drain: CancellationToken, reporter: HealthReporter) {
    drain.cancelled().await;
    grpc::report_draining(&reporter).await;
}

async fn surfaces(app: App, options: &ServerOptions) -> Result<(Surfaces, HealthReporter), grpc::BuildError> {
    let ServerOptions {
        max_request_bytes, ..
    } = *options;
    let (services, reporter) = grpc::routes(app.clone(), grpc::GrpcOptions { max_request_bytes }).await?;
    let services = services.prepare().into_axum_router();
    let admission = Admission::new(
        options.max_concurrent_requests,
        options.request_timeout,
        options.upload_timeout,
    );
    let admit = middleware::from_fn_with_state(admission.clone(), admit);
    let for_pages = services
        .clone()
        .layer(admit.clone())
        .layer(tonic_web::GrpcWebLayer::new())
        .layer(cors());
    let rest_routes = rest::router(app, rest::RestOptions { max_request_bytes }).layer(admit);
    let router = for_pages
        .merge(rest_routes)
        .fallback(not_found)
        .layer(CatchPanicLayer::custom(answer_panic));
    Ok((
        Surfaces::new(services.fallback(not_found), admission, router),
        reporter,
    ))
}

/// gRPC-Web from any page: the token is a header that a page has to know, never a cookie.
fn cors() -> CorsLayer {
    let exposed = [
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "retry-after",
    ];
    CorsLayer::new()
        .allow_origin(tower_http::cors::Any)
        .allow_methods([http::Method::POST])
        // A wildcard does not cover `authorization`.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed.map(HeaderName::from_static))
        .max_age(Duration::from_secs(86_400))
}

async fn not_found(request: Request) -> Response {
    if is_grpc(&request) {
        return grpc_answer(&grpc::status::not_served(request.uri().path()));
    }
    rest::not_found(request.uri())
}

fn is_grpc<B>(request: &http::Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

fn grpc_answer(error: &Error) -> Response {
    grpc::status::status(error).into_http::<Body>().into_response()
}

/// A panic is a fault of ours like any other. Which surface it hit is not known any more; the JSON body
/// and its status serve both, since gRPC clients map 500 to UNKNOWN.
fn answer_panic(payload: Box<dyn std::any::Any + Send>) -> Response {
    rest::panicked(&panic_text(payload.as_ref()))
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
