//! What a host's HTTP answer means for the owner of the invocation.

use std::{error::Error as _, time::Duration};

use reqwest::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
};

use super::session::Session;
use crate::fetch::error::FetchError;

/// The longest wait that a host may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

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
    let retry_after = retry_after(headers);
    let network = |problem: String| FetchError::Network {
        repository: repository.clone(),
        problem,
        retry_after,
        source: None,
    };
    match status {
        StatusCode::UNAUTHORIZED if !authenticated => FetchError::CredentialsMissing { repository },
        // GitHub's answer to too many requests is a 403 that says when to come back.
        StatusCode::FORBIDDEN if retry_after.is_some() => {
            network(format!("{host} limits our requests (403)"))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FetchError::AccessRefused {
            repository,
            host: host.to_owned(),
        },
        StatusCode::NOT_FOUND | StatusCode::GONE => FetchError::RepositoryNotFound {
            repository,
            host: host.to_owned(),
        },
        StatusCode::TOO_MANY_REQUESTS => network(format!("{host} limits our requests (429)")),
        StatusCode::REQUEST_TIMEOUT => network(format!("{host} gave up waiting (408)")),
        status if status.is_server_error() => network(format!("{host} answered {}", status.as_u16())),
        status => session.unexpected(format!(
            "{host} answered {}; check github.git_url",
            status.as_u16()
        )),
    }
}

/// How long to wait, from `Retry-After`: seconds or a date (RFC 9110, section 10.2.3), at most an hour.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            let seconds = at.as_second().saturating_sub(jiff::Timestamp::now().as_second());
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn after(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        retry_after(&headers)
    }

    #[test]
    fn a_wait_is_read_from_seconds_or_a_date_and_bounded() {
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("99999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("Fri, 31 Dec 2100 23:59:59 GMT"), Some(MAX_RETRY_AFTER));
        assert_eq!(after("soon"), None);
    }
}
