//! The documented REST paths: a thin translation onto the same use cases as gRPC.
//!
//! Absent on purpose: rules, and any use of `grpc/`. Every answer that is not a success has the
//! documented error body, those of the router included.

mod add_file;
mod docs;
mod embedding;
mod error;
mod events;
mod extract;
mod filter;
mod form;
mod invocations;
mod number;
mod source_settings;
mod sources;
mod types;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use bytes::Bytes;
use http::{Method, StatusCode, Uri};

use self::{error::RestError, extract::Query};
// What a request says and what an answer shows, without a server around it.
pub use self::{
    events::{Poll, read_after_revision, read_feed_watch},
    extract::read_request_id,
    invocations::{read_invocation_listing, read_new_invocation, read_object_keys},
    sources::{read_new_source, read_source_listing},
    types::{invocation as write_invocation, source as write_source},
};
use crate::{
    app::App,
    domain::page::{DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Order, PageRequest},
    error::{Error, FieldViolation, Reason},
    openapi,
};

/// Path that takes files.
pub const ADD_FILE: &str = "/api/v1/add-file";

/// What the REST surface needs to be told.
#[derive(Debug, Clone, Copy)]
pub struct RestOptions {
    /// The largest body taken, in bytes.
    pub max_request_bytes: usize,
}

/// What every handler gets.
#[derive(Debug, Clone)]
struct RestState {
    app: App,
    max_request_bytes: usize,
    openapi: Bytes,
}

/// The documented paths. Has no fallback: see [`not_found`].
pub fn router(app: App, options: RestOptions) -> Router {
    let openapi = openapi::document(app.catalog()).into();
    let state = RestState {
        app,
        openapi,
        max_request_bytes: options.max_request_bytes,
    };
    routes()
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| {
            router.route(path, methods)
        })
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
}

/// Every path that is served, with its methods; tests compare it with the OpenAPI document.
fn routes() -> [(&'static str, MethodRouter<RestState>); 15] {
    [
        ("/health", get(health)),
        ("/openapi.json", get(docs::openapi)),
        ("/docs", get(docs::page)),
        ("/docs/start.js", get(docs::start)),
        ("/docs/swagger-ui.css", get(docs::style)),
        ("/docs/swagger-ui-bundle.js", get(docs::bundle)),
        ("/api/v1/sources", get(sources::list).post(sources::create)),
        (
            "/api/v1/sources/{source_id}",
            get(sources::get).delete(sources::delete),
        ),
        (
            "/api/v1/sources/{source_id}/invocations",
            post(invocations::create),
        ),
        (
            "/api/v1/sources/{source_id}/invocations/latest-by-keys",
            post(invocations::latest_by_keys),
        ),
        ("/api/v1/invocations", get(invocations::list)),
        (
            "/api/v1/invocations/{invocation_id}",
            get(invocations::get).put(invocations::cancel),
        ),
        ("/api/v1/invocations/{invocation_id}/events", get(events::of_one)),
        ("/api/v1/events", get(events::of_many)),
        (ADD_FILE, post(add_file::add)),
    ]
}

/// The paths that are served, as templates such as `/api/v1/sources/{source_id}`.
pub fn paths() -> Vec<&'static str> {
    routes().into_iter().map(|(path, _)| path).collect()
}

/// Answers a path that nothing serves.
pub fn not_found(uri: &Uri) -> Response {
    let error = Error::new(Reason::RouteNotFound, format!("no such path: {}", uri.path()));
    RestError::from(error).into_response()
}

/// Answers a request that was shed because too many are under way.
pub fn overloaded() -> Response {
    let error = Error::new(
        Reason::TooManyRequests,
        "the server is at its limit of requests; try again",
    );
    RestError::from(error).into_response()
}

/// Answers a request whose handler did not end in time.
pub fn timed_out() -> Response {
    let error = Error::new(
        Reason::DeadlineExceeded,
        "the request took longer than the server allows",
    );
    RestError::from(error).into_response()
}

/// Answers a request whose handler panicked.
pub fn panicked(payload: &str) -> Response {
    RestError::from(Error::internal(format!("a handler panicked: {payload}"))).into_response()
}

async fn method_not_allowed(method: Method, uri: Uri) -> RestError {
    RestError::Http(
        StatusCode::METHOD_NOT_ALLOWED,
        "MethodNotAllowedError",
        format!("{} does not take {method}", uri.path()),
    )
}

/// `GET /health`: 200 when the database answers, else 503.
async fn health(State(state): State<RestState>) -> Result<axum::Json<serde_json::Value>, RestError> {
    state.app.check_health().await?;
    Ok(axum::Json(serde_json::json!({"status": "ok"})))
}

/// `limit`, `offset` and `order_by`, as documented.
fn page(query: &mut Query) -> Result<PageRequest, FieldViolation> {
    let limit = query.take_number("limit", 0, u64::from(MAX_PAGE_SIZE))?;
    let skip = query
        .take_number("offset", 0, i64::MAX.unsigned_abs())?
        .unwrap_or(0);
    let order = match query.take("order_by").as_deref() {
        None | Some("DESC") => Order::Descending,
        Some("ASC") => Order::Ascending,
        Some(other) => {
            return Err(FieldViolation::new(
                "order_by",
                format!("must be ASC or DESC, is {other:?}"),
            ));
        }
    };
    let size = limit
        .and_then(|limit| u32::try_from(limit).ok())
        .unwrap_or(DEFAULT_PAGE_SIZE);
    Ok(PageRequest {
        size,
        skip,
        after: None,
        order,
    })
}
