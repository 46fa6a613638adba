//! Errors on the wire: the one place that knows gRPC codes.

use std::collections::HashMap;

use http::HeaderMap;
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::{Error, ErrorCode, Reason};

/// `ErrorInfo.domain` of every error.
pub const DOMAIN: &str = "chroma-sync";

/// The gRPC code of an error.
pub fn code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidArgument => Code::InvalidArgument,
        ErrorCode::Unauthenticated => Code::Unauthenticated,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::AlreadyExists => Code::AlreadyExists,
        ErrorCode::FailedPrecondition => Code::FailedPrecondition,
        ErrorCode::ResourceExhausted => Code::ResourceExhausted,
        ErrorCode::Unavailable => Code::Unavailable,
        ErrorCode::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorCode::Unimplemented => Code::Unimplemented,
        ErrorCode::Internal => Code::Internal,
    }
}

/// Turns an error into a status with `ErrorInfo` and the details that apply. Faults of ours are logged
/// here, once, with their causes.
pub fn status(error: &Error) -> Status {
    error.log_fault();
    let metadata: HashMap<String, String> = error
        .metadata()
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    let mut details = ErrorDetails::with_error_info(error.reason().as_str(), DOMAIN, metadata);
    for violation in error.violations() {
        details.add_bad_request_violation(&violation.field, &violation.description);
    }
    if let Some(resource) = error.resource() {
        details.set_resource_info(resource.kind, &resource.name, "", error.message());
    }
    let precondition = match error.reason() {
        Reason::InvocationNotCancelable => Some("STATE"),
        Reason::CredentialInUse => Some("IN_USE"),
        Reason::ModelNotServed
        | Reason::ModelUnknown
        | Reason::DimensionMismatch
        | Reason::HybridUnavailable => Some("MODEL"),
        _ => None,
    };
    if let Some(precondition) = precondition {
        let subject = error
            .resource()
            .map(|resource| resource.name.clone())
            .unwrap_or_default();
        details.add_precondition_failure_violation(precondition, subject, error.message());
    }
    if let Some(delay) = error.retry_after() {
        details.set_retry_info(Some(delay));
    }
    let mut status = Status::with_error_details(code(error.code()), error.message(), details);
    if let Some(delay) = error.retry_after() {
        status
            .metadata_mut()
            .insert("retry-after", MetadataValue::from(delay.as_secs().max(1)));
    }
    status
}

/// The error that an answer of tonic's own stands for: one made before a method ran, so without details.
/// `None` for every other answer.
///
/// tonic takes a message that it cannot read for a fault of the server (INTERNAL) and one that is too
/// large for OUT_OF_RANGE; both are the caller's to mend. An unsupported compression is UNIMPLEMENTED with
/// a message, as the protocol wants it, and is left alone.
pub fn explain(path: &str, headers: &HeaderMap) -> Option<Error> {
    let status = Status::from_header_map(headers)?;
    if !status.details().is_empty() {
        return None;
    }
    match status.code() {
        Code::Unimplemented if status.message().is_empty() => Some(not_served(path)),
        Code::Internal | Code::OutOfRange => Some(Error::new(
            Reason::MalformedRequest,
            format!("the message cannot be read: {}", status.message()),
        )),
        _ => None,
    }
}

/// The error of a method that is not part of the contract.
pub fn not_served(path: &str) -> Error {
    Error::new(
        Reason::MethodNotServed,
        format!("method {path} is not served here"),
    )
}

/// [`status`] for use with `map_err`.
pub fn from_error(error: Error) -> Status {
    status(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least that a common client takes: Java's and the core of Python's and Ruby's.
    const MAX_HEADER_BYTES: usize = 8 * 1024;

    #[test]
    fn an_error_fits_into_the_headers_that_every_client_takes() {
        for character in ["a", "\u{1f980}", "\0"] {
            let long = character.repeat(1_000_000);
            let error = Error::invalid_field(long.clone(), format!("must be short, is {long:?}; ask again"));
            let answer = status(&error).into_http::<()>();
            let headers = answer.headers().iter();
            let bytes: usize = headers
                .map(|(name, value)| name.as_str().len() + value.len() + 32)
                .sum();
            assert!(bytes <= MAX_HEADER_BYTES, "{bytes} bytes");
            assert!(error.message().ends_with("; ask again"), "{error}");
        }
    }
}
