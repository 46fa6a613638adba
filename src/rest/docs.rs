//! `/openapi.json`, and `/docs`, the page that shows it. Neither asks for a token: the contract is public.
//!
//! The page is Swagger UI, whose files `build.rs` unpacks, so it works without any other server. Its
//! policy lets it load from here alone.

use axum::{
    extract::State,
    http::{
        HeaderName, HeaderValue,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
};
use bytes::Bytes;

use super::RestState;

/// The icons of Swagger UI are data URLs; nothing else comes from outside these files.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

type File = ([(HeaderName, HeaderValue); 4], &'static str);

fn file(content_type: &'static str, text: &'static str) -> File {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // The files change with the version of the server only.
        (CACHE_CONTROL, HeaderValue::from_static("max-age=3600")),
    ];
    (headers, text)
}

pub(super) async fn openapi(State(state): State<RestState>) -> ([(HeaderName, HeaderValue); 1], Bytes) {
    let content_type = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ([content_type], state.openapi)
}

pub(super) async fn page() -> File {
    file(
        "text/html; charset=utf-8",
        include_str!("../../openapi/docs.html"),
    )
}

pub(super) async fn start() -> File {
    file(
        "text/javascript; charset=utf-8",
        include_str!("../../openapi/start.js"),
    )
}

pub(super) async fn style() -> File {
    file(
        "text/css; charset=utf-8",
        include_str!(concat!(env!("OUT_DIR"), "/swagger-ui.css")),
    )
}

pub(super) async fn bundle() -> File {
    file(
        "text/javascript; charset=utf-8",
        include_str!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js")),
    )
}
