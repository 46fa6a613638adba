//! What a host's HTTP answer means for the owner of the invocation.

use std::error::Error as _;

use reqwest::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap},
};

use super::session::Session;
use crate::fetch::{error::FetchError, rate_limit};

/// Checks that an answer is one of git's smart protocol.
///
/// # Errors
/// What the answer says instead. `authenticated` is whether a token was sent.
pub(super) fn check(session: &Session, authenticated: bool, response: &Response) -> Result<(), FetchError> {
    let host = response.url().host_str().unwrap_or_default();
    if response.status() != StatusCode::OK {
        return Err(refused(
            session,
            authenticated,
            host,
            response.status(),
            response.headers(),
        ));
    }
    let media_type = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if media_type.starts_with("application/x-git-") {
        return Ok(());
    }
    Err(session.unexpected(format!(
        "{host} answers {media_type:?} instead of git's smart HTTP protocol; check github.git_url"
    )))
}

fn refused(
    session: &Session,
    authenticated: bool,
    host: &str,
    status: StatusCode,
    headers: &HeaderMap,
) -> FetchError {
    let repository = session.repository.clone();
    if let Some(retry_after) = rate_limit::wait(status, headers) {
        return FetchError::RateLimited {
            repository,
            host: host.to_owned(),
            retry_after,
        };
    }
    let network = |problem: String| FetchError::Network {
        repository: repository.clone(),
        problem,
        retry_after: rate_limit::retry_after(headers),
        source: None,
    };
    match status {
        StatusCode::UNAUTHORIZED if !authenticated => FetchError::CredentialsMissing { repository },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FetchError::AccessRefused {
            repository,
            host: host.to_owned(),
        },
        StatusCode::NOT_FOUND | StatusCode::GONE => FetchError::RepositoryNotFound {
            repository,
            host: host.to_owned(),
        },
        StatusCode::REQUEST_TIMEOUT => network(format!("{host} gave up waiting (408)")),
        status if status.is_server_error() => network(format!("{host} answered {}", status.as_u16())),
        status => session.unexpected(format!(
            "{host} answered {}; check github.git_url",
            status.as_u16()
        )),
    }
}

/// A connection that could not be made or that broke, in words that tell the usual causes apart.
pub(super) fn broken_connection(session: &Session, error: reqwest::Error) -> FetchError {
    let host = error
        .url()
        .and_then(|url| url.host_str())
        .unwrap_or(&session.host);
    let problem = if error.is_timeout() {
        format!("connecting to {host} took too long")
    } else if is_certificate(&error) {
        format!("the TLS certificate of {host} is not trusted by this server")
    } else if error.is_connect() {
        format!("cannot connect to {host}")
    } else {
        format!("the connection to {host} broke")
    };
    session.network(problem, Some(error.without_url().into()))
}

/// rustls wraps certificate errors in an I/O error; its text is the one thing that all versions share.
fn is_certificate(error: &reqwest::Error) -> bool {
    std::iter::successors(error.source(), |cause| (**cause).source())
        .any(|cause| cause.to_string().contains("invalid peer certificate"))
}
