//! Which way a request takes through the server.
//!
//! A layer of an axum router costs every request copies of all layers below it and a few allocations. Native
//! gRPC needs none of those for pages, so it meets its services with nothing but the limits in between; what
//! a page sends (gRPC-Web, or anything with an origin), HTTP/1.1 and REST take the router with all layers.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
};
use futures::{FutureExt, future::BoxFuture};
use http::{
    HeaderValue, Request, Version,
    header::{CONTENT_TYPE, ORIGIN},
};
use tower::{Service, ServiceExt};

use super::{
    admission::{Admission, Caller},
    grpc_answer, panic_text,
};
use crate::error::Error;

/// Everything that is served.
#[derive(Debug, Clone)]
pub(super) struct Surfaces {
    native: Router,
    admission: Admission,
    router: Router,
}

impl Surfaces {
    /// `native` answers native gRPC within the limits of `admission`, `router` everything else.
    pub(super) fn new(native: Router, admission: Admission, router: Router) -> Self {
        Self {
            native,
            admission,
            router,
        }
    }
}

impl Service<Request<tonic::body::Body>> for Surfaces {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routers are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        if !is_native(&request) {
            return self.router.clone().oneshot(request.map(Body::new)).boxed();
        }
        let (native, admission) = (self.native.clone(), self.admission.clone());
        let caller = Caller::of(&request);
        let answer = async move {
            let answer = native.oneshot(request).map(|response| response.into_response());
            match AssertUnwindSafe(admission.answer(caller, answer))
                .catch_unwind()
                .await
            {
                Ok(response) => Ok(response),
                Err(payload) => {
                    let problem = format!("a method panicked: {}", panic_text(payload.as_ref()));
                    Ok(grpc_answer(&Error::internal(problem)))
                }
            }
        };
        answer.boxed()
    }
}

fn is_native<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    request.version() == Version::HTTP_2
        // `application/grpc` alone or with `+proto`, not `application/grpc-web`.
        && rest.is_some_and(|rest| !rest.starts_with(b"-"))
        && !request.headers().contains_key(ORIGIN)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn request(version: Version, headers: &[(&str, &str)]) -> Request<()> {
        let builder = Request::builder().version(version);
        let builder = headers
            .iter()
            .fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap()
    }

    #[test]
    fn native_grpc_is_told_from_what_needs_layers() {
        for content_type in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;x=y",
        ] {
            let headers = [("content-type", content_type)];
            assert!(is_native(&request(Version::HTTP_2, &headers)), "{content_type}");
            assert!(!is_native(&request(Version::HTTP_11, &headers)), "{content_type}");
            let of_a_page = [headers[0], ("origin", "https://example.com")];
            assert!(
                !is_native(&request(Version::HTTP_2, &of_a_page)),
                "{content_type}"
            );
        }
        for content_type in [
            "application/grpc-web",
            "application/grpc-web-text+proto",
            "application/json",
        ] {
            let headers = [("content-type", content_type)];
            assert!(!is_native(&request(Version::HTTP_2, &headers)), "{content_type}");
        }
        assert!(!is_native(&request(Version::HTTP_2, &[])));
    }
}
