//! Errors on the wire: the one place that knows gRPC codes.

use std::collections::HashMap;

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
    if error.reason() == Reason::InvocationNotCancelable {
        let subject = error
            .resource()
            .map(|resource| resource.name.clone())
            .unwrap_or_default();
        details.add_precondition_failure_violation("STATE", subject, error.message());
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

/// [`status`] for use with `map_err`.
pub fn from_error(error: Error) -> Status {
    status(&error)
}
