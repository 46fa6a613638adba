//! Sends one request until it is answered, refused, or out of time.
//!
//! Invariants: no try lasts longer than [`ChromaOptions::timeout`], no call longer than
//! [`ChromaOptions::deadline`] with all its tries and waits, no answer is read past
//! [`MAX_RESPONSE_BYTES`], and redirects are not followed, since the token would go along.

use std::{fmt, time::Duration};

use bytes::Bytes;
use reqwest::{
    Client, Method, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::Instant;
use url::Url;

use super::{error::IndexError, sparse::SparseVectors};
use crate::{outbound, secret::Secret};

/// The largest answer that is read: a page of 1,000 records of 16 KiB text and a vector, with room.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;
/// How much of an error's body is read, and how much of its message is kept.
const MAX_ERROR_BYTES: usize = 64 * 1024;
const MAX_MESSAGE_CHARS: usize = 500;
const TOKEN_HEADER: &str = "x-chroma-token";

/// Where the Chroma server is and how patient to be with it.
#[derive(Clone)]
pub struct ChromaOptions {
    /// `http://` or `https://`, with the path of a reverse proxy if there is one.
    pub url: Url,
    /// Sent as `x-chroma-token` with every request.
    pub token: Option<Secret>,
    /// The most time for a connection to be made.
    pub connect_timeout: Duration,
    /// The most time for one try, from the request to the last byte of the answer.
    pub timeout: Duration,
    /// The most time for a call with all its tries and the waits between them.
    pub deadline: Duration,
    /// How often a call is repeated after the first try.
    pub max_retries: u32,
    /// The wait before the first repetition; it doubles each time up to `max_backoff`.
    pub backoff: Duration,
    /// The longest wait between two tries.
    pub max_backoff: Duration,
    /// Whether it is sent sparse vectors.
    pub sparse_vectors: SparseVectors,
}

impl ChromaOptions {
    /// Options for the server at `url`: 5 s to connect, 60 s a try, 120 s a call, 5 repetitions.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            token: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(60),
            deadline: Duration::from_secs(120),
            max_retries: 5,
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            sparse_vectors: SparseVectors::Auto,
        }
    }
}

/// Prints no password that the URL may hold.
impl fmt::Debug for ChromaOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ChromaOptions")
            .field("url", &self.url.origin().ascii_serialization())
            .field("token", &self.token)
            .field("timeout", &self.timeout)
            .field("deadline", &self.deadline)
            .field("max_retries", &self.max_retries)
            .finish_non_exhaustive()
    }
}

/// One HTTP request, kept so that it can be sent again.
pub(super) struct Call {
    /// What it is for, in the log.
    operation: &'static str,
    method: Method,
    url: Url,
    /// JSON.
    body: Option<Bytes>,
}

impl Call {
    pub fn get(operation: &'static str, url: Url) -> Self {
        Self {
            operation,
            method: Method::GET,
            url,
            body: None,
        }
    }

    pub fn post(operation: &'static str, url: Url, body: Bytes) -> Self {
        Self {
            operation,
            method: Method::POST,
            url,
            body: Some(body),
        }
    }

    pub fn put(operation: &'static str, url: Url, body: Bytes) -> Self {
        Self {
            operation,
            method: Method::PUT,
            url,
            body: Some(body),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Transport {
    http: Client,
    options: ChromaOptions,
    /// Marked as sensitive, so it is printed nowhere.
    token: Option<HeaderValue>,
}

impl Transport {
    pub fn new(options: ChromaOptions) -> Result<Self, IndexError> {
        if !matches!(options.url.scheme(), "http" | "https") {
            return Err(IndexError::InvalidOptions {
                problem: "chroma.url must be an http:// or https:// URL".to_owned(),
                source: None,
            });
        }
        let token = options.token.as_ref().map(token_header).transpose()?;
        let http =
            outbound::client(options.connect_timeout).map_err(|source| IndexError::InvalidOptions {
                problem: "the HTTP client cannot start".to_owned(),
                source: Some(source),
            })?;
        Ok(Self { http, options, token })
    }

    /// The same connections with another token.
    pub fn with_token(&self, token: &Secret) -> Result<Self, IndexError> {
        Ok(Self {
            token: Some(token_header(token)?),
            ..self.clone()
        })
    }

    /// The same connections with another limit for a whole call.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        let mut copy = self.clone();
        copy.options.deadline = deadline;
        copy
    }

    pub fn sparse_vectors(&self) -> SparseVectors {
        self.options.sparse_vectors
    }

    /// `{url}/api/v2/{segments}`, each segment percent-encoded.
    pub fn endpoint(&self, segments: &[&str]) -> Url {
        let mut url = self.options.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        // Only a URL that cannot be a base has no segments, and those are neither http nor https.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v2"]).extend(segments);
        }
        url
    }

    /// Sends `call`, repeating it while that can help, and reads the answer as JSON.
    pub async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, IndexError> {
        let operation = call.operation;
        let body = self.send(call).await?;
        serde_json::from_slice(&body).map_err(|source| IndexError::InvalidResponse {
            problem: format!("the answer to '{operation}' is not what the API promises"),
            source: Some(source),
        })
    }

    /// Sends `call`, repeating it while that can help; the answer's body is of no interest.
    pub async fn call_unit(&self, call: Call) -> Result<(), IndexError> {
        self.send(call).await.map(drop)
    }

    async fn send(&self, call: Call) -> Result<Bytes, IndexError> {
        let end = Instant::now() + self.options.deadline;
        let mut retries = 0;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let error = match self.try_once(&call, left.min(self.options.timeout)).await {
                Ok(body) => return Ok(body),
                Err(error) => error,
            };
            let delay = error.retry_after().unwrap_or_else(|| {
                outbound::backoff(self.options.backoff, self.options.max_backoff, retries)
            });
            let in_time = Instant::now() + delay < end;
            if !error.is_transient() || retries >= self.options.max_retries || !in_time {
                return Err(error);
            }
            retries += 1;
            let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(
                operation = call.operation,
                retries,
                delay_ms = milliseconds,
                error = crate::error::chain(&error),
                "repeating a call to the chroma server"
            );
            tokio::time::sleep(delay).await;
        }
    }

    async fn try_once(&self, call: &Call, timeout: Duration) -> Result<Bytes, IndexError> {
        let mut request = self
            .http
            .request(call.method.clone(), call.url.clone())
            .timeout(timeout);
        if let Some(token) = &self.token {
            request = request.header(TOKEN_HEADER, token.clone());
        }
        if let Some(body) = &call.body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone());
        }
        let response = request.send().await.map_err(unavailable)?;
        let status = response.status();
        if status.is_success() {
            let (body, whole) = outbound::read(response, MAX_RESPONSE_BYTES)
                .await
                .map_err(unavailable)?;
            return if whole {
                Ok(body)
            } else {
                let problem = format!("an answer has more than {MAX_RESPONSE_BYTES} bytes");
                Err(IndexError::InvalidResponse {
                    problem,
                    source: None,
                })
            };
        }
        let retry_after = outbound::retry_after(response.headers());
        let (body, _) = outbound::read(response, MAX_ERROR_BYTES)
            .await
            .map_err(unavailable)?;
        Err(refusal(status, retry_after, &body))
    }
}

fn token_header(token: &Secret) -> Result<HeaderValue, IndexError> {
    outbound::secret_header(token).ok_or_else(|| IndexError::InvalidOptions {
        problem: "the token has characters that an HTTP header cannot carry".to_owned(),
        source: None,
    })
}

fn unavailable(source: reqwest::Error) -> IndexError {
    IndexError::Unavailable {
        problem: outbound::broken(&source).to_owned(),
        retry_after: None,
        source: Some(source),
    }
}

/// Chroma's error body.
#[derive(Deserialize)]
struct ErrorBody {
    error: String,
    message: String,
}

/// What an answer other than 2xx means.
fn refusal(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> IndexError {
    let parsed = serde_json::from_slice::<ErrorBody>(body).ok();
    let is_chroma = parsed.is_some();
    let ErrorBody { error: kind, message } = parsed.unwrap_or_else(|| ErrorBody {
        error: status.canonical_reason().unwrap_or("Error").to_owned(),
        message: String::from_utf8_lossy(body).trim().to_owned(),
    });
    let message: String = message.chars().take(MAX_MESSAGE_CHARS).collect();
    let status_code = status.as_u16();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => IndexError::Unauthorized {
            status: status_code,
            message,
        },
        StatusCode::TOO_MANY_REQUESTS => IndexError::RateLimited { retry_after },
        StatusCode::NOT_IMPLEMENTED => IndexError::Unsupported { message },
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED if !is_chroma => {
            let problem = format!("it answered {status_code} without Chroma's error message");
            IndexError::InvalidResponse {
                problem,
                source: None,
            }
        }
        _ if status == StatusCode::REQUEST_TIMEOUT || status.is_server_error() => {
            let problem = if message.is_empty() {
                format!("it answered {status_code}")
            } else {
                format!("it answered {status_code}: {message}")
            };
            IndexError::Unavailable {
                problem,
                retry_after,
                source: None,
            }
        }
        _ if status.is_client_error() => IndexError::Rejected {
            status: status_code,
            kind,
            message,
        },
        _ => {
            let problem = format!("it answered {status_code}, which is no answer of the API");
            IndexError::InvalidResponse {
                problem,
                source: None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn transport(url: &str) -> Transport {
        Transport::new(ChromaOptions::new(Url::parse(url).unwrap())).unwrap()
    }

    #[test]
    fn path_segments_are_percent_encoded_below_the_path_of_the_url() {
        for base in ["http://h:1/proxy", "http://h:1/proxy/", "http://h:1/proxy?x=1#y"] {
            let url = transport(base).endpoint(&["tenants", "a/b", "ä %?#"]);
            assert_eq!(
                url.as_str(),
                "http://h:1/proxy/api/v2/tenants/a%2Fb/%C3%A4%20%25%3F%23"
            );
        }
    }

    #[test]
    fn neither_the_token_nor_a_password_is_printed() {
        let url = Url::parse("http://user:hunter2@h:1/").unwrap();
        let options = ChromaOptions {
            token: Some(Secret::new("ck-secret")),
            ..ChromaOptions::new(url)
        };
        let printed = format!("{options:?} {:?}", Transport::new(options.clone()).unwrap());
        assert!(
            !printed.contains("hunter2") && !printed.contains("ck-secret"),
            "{printed}"
        );
    }

    #[test]
    fn a_token_that_no_header_can_carry_and_a_url_of_another_scheme_are_refused() {
        let url = Url::parse("http://h").unwrap();
        let options = ChromaOptions {
            token: Some(Secret::new("a\nb")),
            ..ChromaOptions::new(url)
        };
        assert!(matches!(
            Transport::new(options),
            Err(IndexError::InvalidOptions { .. })
        ));
        let options = ChromaOptions::new(Url::parse("ftp://h").unwrap());
        assert!(matches!(
            Transport::new(options),
            Err(IndexError::InvalidOptions { .. })
        ));
    }

    #[test]
    fn statuses_are_sorted_into_what_passes_by_itself_and_what_does_not() {
        let body = br#"{"error":"InvalidArgumentError","message":"no"}"#;
        let of = |status: u16| refusal(StatusCode::from_u16(status).unwrap(), None, body);
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(of(status).is_transient(), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 409, 413, 422, 501] {
            assert!(!of(status).is_transient(), "{status}");
        }
        assert!(matches!(of(400), IndexError::Rejected { kind, .. } if kind == "InvalidArgumentError"));
        assert!(matches!(of(501), IndexError::Unsupported { message } if message == "no"));
        let foreign = refusal(StatusCode::NOT_FOUND, None, b"<html>");
        assert!(matches!(foreign, IndexError::InvalidResponse { .. }));
    }
}
