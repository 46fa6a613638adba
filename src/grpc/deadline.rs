//! How long a caller waits: the `grpc-timeout` header.
//!
//! Source of its form: the gRPC protocol over HTTP/2, *Requests*: at most 8 digits and a unit. What is not of
//! that form is no deadline, as with other servers.

use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use http::HeaderMap;
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, Reason, Result};

/// The time that the caller gives the call, from its arrival.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3_600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// The stream until `end`; when it has not ended by itself then, DEADLINE_EXCEEDED follows as the last item.
pub(super) fn until<T>(
    messages: impl Stream<Item = Result<T>> + Send,
    end: Instant,
) -> impl Stream<Item = Result<T>> + Send {
    let messages = Box::pin(messages);
    stream::unfold(Some(messages), move |messages| async move {
        let mut messages = messages?;
        // A timer that is set to the past goes off a little later.
        if Instant::now() >= end {
            return Some((Err(exceeded()), None));
        }
        tokio::select! {
            biased;
            () = sleep_until(end) => Some((Err(exceeded()), None)),
            message = messages.next() => message.map(|message| (message, Some(messages))),
        }
    })
}

/// The caller's deadline has passed.
pub fn exceeded() -> Error {
    Error::new(
        Reason::DeadlineExceeded,
        "the call did not end within the deadline that came with it",
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(text: &'static str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", HeaderValue::from_static(text));
        timeout(&headers)
    }

    #[test]
    fn every_unit_of_the_protocol_is_read() {
        assert_eq!(read("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("4S"), Some(Duration::from_secs(4)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999u"), Some(Duration::from_micros(99_999_999)));
        assert_eq!(read("1n"), Some(Duration::from_nanos(1)));
    }

    #[test]
    fn what_is_not_of_the_protocols_form_is_no_deadline() {
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1 S"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    async fn seen(
        messages: impl Stream<Item = Result<u8>> + Send,
        end: Instant,
    ) -> Vec<std::result::Result<u8, Reason>> {
        let messages = until(messages, end);
        messages
            .map(|message| message.map_err(|error| error.reason()))
            .collect()
            .await
    }

    #[tokio::test]
    async fn a_stream_ends_with_an_error_at_its_deadline_and_not_before() {
        let endless = || stream::iter([Ok(1)]).chain(stream::pending());
        let soon = Instant::now() + Duration::from_millis(50);
        let exceeded = Err(Reason::DeadlineExceeded);
        assert_eq!(seen(endless(), soon).await, [Ok(1), exceeded]);
        assert_eq!(seen(endless(), Instant::now()).await, [exceeded]);
        let later = Instant::now() + Duration::from_secs(3_600);
        assert_eq!(seen(stream::iter([Ok(1), Ok(2)]), later).await, [Ok(1), Ok(2)]);
    }
}
