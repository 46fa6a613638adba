//! When a host that limits our requests takes them again.
//!
//! Source: GitHub's "Rate limits for the REST API", which its git host follows as well.

use std::time::Duration;

use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};

/// The longest wait that a host may ask for; GitHub's primary limits are for an hour.
const MAX_WAIT: Duration = Duration::from_secs(3_600);
/// The wait where a host limits our requests and does not say for how long.
pub(super) const DEFAULT_WAIT: Duration = Duration::from_secs(60);

/// How long to wait when an answer says that there were too many requests; none when it says something else.
pub(super) fn wait(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let known = || retry_after(headers).or_else(|| until_reset(headers));
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(known().unwrap_or(DEFAULT_WAIT)),
        // GitHub says it this way as well, and alone says when to come back.
        StatusCode::FORBIDDEN => known(),
        _ => None,
    }
}

/// How long to wait, from `Retry-After`: seconds or a date (RFC 9110, section 10.2.3), at most an hour.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => until(jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second()),
    };
    Some(wait.min(MAX_WAIT))
}

/// How long to wait when GitHub's primary limit is used up.
fn until_reset(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    let used_up = number("x-ratelimit-remaining")? == 0;
    let reset = number("x-ratelimit-reset")?;
    // A second more, since both clocks count whole ones.
    used_up.then(|| until(reset.saturating_add(1)).min(MAX_WAIT))
}

/// From now until a time in seconds since the Unix epoch; nothing when it has passed.
fn until(second: i64) -> Duration {
    let seconds = second.saturating_sub(jiff::Timestamp::now().as_second());
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn after(value: &str) -> Option<Duration> {
        retry_after(&headers(&[("retry-after", value)]))
    }

    #[test]
    fn a_wait_is_read_from_seconds_or_a_date_and_bounded() {
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("99999999"), Some(MAX_WAIT));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("Fri, 31 Dec 2100 23:59:59 GMT"), Some(MAX_WAIT));
        assert_eq!(after("soon"), None);
    }

    #[test]
    fn a_limit_that_is_used_up_is_waited_for_until_its_reset() {
        let now = jiff::Timestamp::now().as_second();
        let limited = |remaining: &str, reset: i64| {
            let pairs = headers(&[
                ("x-ratelimit-remaining", remaining),
                ("x-ratelimit-reset", &reset.to_string()),
            ]);
            wait(StatusCode::FORBIDDEN, &pairs)
        };
        let wait_of = limited("0", now + 100).unwrap().as_secs();
        assert!((99..=101).contains(&wait_of), "{wait_of}");
        assert_eq!(limited("0", now - 100), Some(Duration::ZERO));
        assert_eq!(limited("0", i64::MAX), Some(MAX_WAIT));
        assert_eq!(limited("1", now + 100), None, "refused for another reason");
        assert_eq!(wait(StatusCode::FORBIDDEN, &headers(&[])), None);
        assert_eq!(
            wait(StatusCode::TOO_MANY_REQUESTS, &headers(&[])),
            Some(DEFAULT_WAIT)
        );
        let secondary = headers(&[("retry-after", "3")]);
        for status in [StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS] {
            assert_eq!(wait(status, &secondary), Some(Duration::from_secs(3)));
        }
        assert_eq!(wait(StatusCode::SERVICE_UNAVAILABLE, &secondary), None);
    }
}
