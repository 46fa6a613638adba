//! Errors as JSON: the one place that knows HTTP status codes.
//!
//! The body is the documented `{"error", "message"}` with our stable `reason` beside them.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;

use crate::error::{Error, ErrorCode, FieldViolation, Reason};

/// The body of every error.
#[derive(Debug, Serialize)]
struct ErrorBody<'a> {
    error: &'static str,
    message: &'a str,
    reason: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    violations: Vec<ViolationBody<'a>>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    details: &'a std::collections::BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
struct ViolationBody<'a> {
    field: &'a str,
    description: &'a str,
}

/// What a handler answers when it cannot do what was asked.
#[derive(Debug)]
pub(super) enum RestError {
    /// A use case, an extractor or a check refused.
    Refused(Error),
    /// HTTP itself has a status for it: 405, 413 or 415.
    Http(StatusCode, &'static str, String),
}

/// Result of a handler.
pub(super) type RestResult<T> = Result<T, RestError>;

impl From<Error> for RestError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<FieldViolation> for RestError {
    fn from(violation: FieldViolation) -> Self {
        Self::Refused(violation.into())
    }
}

/// Status and documented name of a kind of error (DESIGN §4).
fn status(code: ErrorCode) -> (StatusCode, &'static str) {
    match code {
        ErrorCode::InvalidArgument => (StatusCode::BAD_REQUEST, "InvalidArgumentError"),
        ErrorCode::Unauthenticated => (StatusCode::UNAUTHORIZED, "UnauthenticatedError"),
        ErrorCode::PermissionDenied => (StatusCode::FORBIDDEN, "PermissionDeniedError"),
        ErrorCode::NotFound => (StatusCode::NOT_FOUND, "NotFoundError"),
        ErrorCode::AlreadyExists => (StatusCode::CONFLICT, "AlreadyExistsError"),
        ErrorCode::FailedPrecondition => (StatusCode::PRECONDITION_FAILED, "FailedPreconditionError"),
        ErrorCode::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "ResourceExhaustedError"),
        ErrorCode::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "UnavailableError"),
        ErrorCode::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "DeadlineExceededError"),
        ErrorCode::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "UnimplementedError"),
        ErrorCode::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(error) => refused(&error),
            Self::Http(status, name, message) => {
                let details = std::collections::BTreeMap::new();
                let reason = Reason::MalformedRequest.as_str();
                let body = ErrorBody {
                    error: name,
                    message: &message,
                    reason,
                    violations: vec![],
                    details: &details,
                };
                (status, Json(body)).into_response()
            }
        }
    }
}

/// What an error says, for a body of another form than the documented one.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub(super) status: StatusCode,
    pub(super) message: &'a str,
    pub(super) reason: &'static str,
    /// The first field that is wrong.
    pub(super) field: Option<&'a str>,
}

impl RestError {
    /// The same headers with a status and a body in the form of another API, for its clients.
    pub(super) fn in_form(self, form: impl FnOnce(Told<'_>) -> (StatusCode, serde_json::Value)) -> Response {
        match self {
            Self::Refused(error) => {
                error.log_fault();
                let (status, _) = status(error.code());
                let (status, body) = form(Told {
                    status,
                    message: error.message(),
                    reason: error.reason().as_str(),
                    field: error
                        .violations()
                        .first()
                        .map(|violation| violation.field.as_str()),
                });
                with_headers(&error, (status, Json(body)).into_response())
            }
            Self::Http(status, _, message) => {
                let (status, body) = form(Told {
                    status,
                    message: &message,
                    reason: Reason::MalformedRequest.as_str(),
                    field: None,
                });
                (status, Json(body)).into_response()
            }
        }
    }
}

fn refused(error: &Error) -> Response {
    error.log_fault();
    let (status, name) = status(error.code());
    let violations = error
        .violations()
        .iter()
        .map(|violation| ViolationBody {
            field: &violation.field,
            description: &violation.description,
        })
        .collect();
    let body = ErrorBody {
        error: name,
        message: error.message(),
        reason: error.reason().as_str(),
        violations,
        details: error.metadata(),
    };
    with_headers(error, (status, Json(body)).into_response())
}

fn with_headers(error: &Error, mut response: Response) -> Response {
    let waits = matches!(
        error.code(),
        ErrorCode::ResourceExhausted | ErrorCode::Unavailable
    );
    if error.code() == ErrorCode::Unauthenticated {
        // HTTP asks for the scheme that a token may be sent with (RFC 9110, section 11.6.1).
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    let delay = error.retry_after().or(waits.then_some(Duration::from_secs(1)));
    if let Some(delay) = delay {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(delay.as_secs().max(1)));
    }
    response
}
