//! What the clients of other HTTP servers share: how a client is made, how much of an answer is read, and how
//! long to wait before another try.
//!
//! These servers are the operator's choice, so no egress policy applies. Redirects are never followed here,
//! since a token would go along.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, Response,
    header::{HeaderMap, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};

use crate::secret::Secret;

/// How the service calls itself.
pub const USER_AGENT: &str = concat!("chroma-sync/", env!("CARGO_PKG_VERSION"));

/// A client that gives up connecting after `connect_timeout`. Requests have no other limit of time until they
/// are given one.
///
/// # Errors
/// When the system's certificates or resolver cannot be used.
pub fn client(connect_timeout: Duration) -> Result<Client, reqwest::Error> {
    Client::builder()
        .connect_timeout(connect_timeout)
        .redirect(Policy::none())
        .user_agent(USER_AGENT)
        .build()
}

/// A header that is printed nowhere; none when `secret` has characters that no header can carry.
pub fn secret_header(secret: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.expose()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Reads at most `limit` bytes of the body; false when there are more.
///
/// # Errors
/// When the connection breaks before the body is whole.
pub async fn read(mut response: Response, limit: usize) -> Result<(Bytes, bool), reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(part) = response.chunk().await? {
        let room = limit - body.len();
        if part.len() > room {
            body.extend_from_slice(&part[..room]);
            return Ok((body.freeze(), false));
        }
        body.extend_from_slice(&part);
    }
    Ok((body.freeze(), true))
}

/// The seconds of a `Retry-After` header. Its other form, a date, needs clocks that agree.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Half to all of an exponential wait, so that clients which failed together come back apart: `first` after the
/// first try, doubled with each of `retries`, at most `longest`.
pub fn backoff(first: Duration, longest: Duration, retries: u32) -> Duration {
    let full = first.saturating_mul(1 << retries.min(16)).min(longest);
    full.mul_f64(rand::random_range(0.5..=1.0))
}

/// What a request that got no whole answer died of, in words.
pub fn broken(error: &reqwest::Error) -> &'static str {
    if error.is_connect() {
        "connecting failed"
    } else if error.is_timeout() {
        "it took too long"
    } else {
        "the connection broke"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_limit_and_spread_over_half_of_it() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        for (retries, full) in [(0, 100), (1, 200), (5, 3_200), (6, 5_000), (60, 5_000)] {
            let wait = backoff(first, longest, retries);
            let full = Duration::from_millis(full);
            assert!(wait >= full / 2 && wait <= full, "{wait:?} after {retries}");
        }
    }

    #[test]
    fn only_seconds_are_taken_from_retry_after() {
        let after = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            retry_after(&headers)
        };
        assert_eq!(after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(after("-1"), None);
    }

    #[test]
    fn a_secret_that_no_header_can_carry_is_refused_and_others_never_print() {
        assert!(secret_header(&Secret::new("a\nb")).is_none());
        let header = secret_header(&Secret::new("planted")).unwrap();
        assert!(!format!("{header:?}").contains("planted"));
    }
}
