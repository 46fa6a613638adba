//! Requests, one at a time: allowed by the egress policy, in turn with others to the same host, tried again
//! where that may help, and with a bound on what comes back.
//!
//! Invariant: a request goes to a URL that [`Egress::check`] passed, by a client whose resolver applies the
//! same policy for that URL's port; [`Requests::client`] is the only way to get one. No client follows
//! redirects: whoever sends requests decides on each hop and comes here again.
//!
//! Bodies are decompressed here and not by the client, whose other users never ask for compression.

use std::{
    collections::HashMap,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use flate2::write::MultiGzDecoder;
use reqwest::{
    Response, StatusCode,
    header::{
        ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderName, IF_MODIFIED_SINCE,
        IF_NONE_MATCH, LOCATION, RETRY_AFTER, USER_AGENT,
    },
};
use url::Url;

use super::{CrawlOptions, CrawlProgress, Report, politeness::Host};
use crate::fetch::{
    egress::{EgressError, refusal},
    error::Cause,
};

/// What is wanted, best first.
const ACCEPTED: &str = "text/html,application/xhtml+xml;q=0.9,text/markdown;q=0.9,text/plain;q=0.8,application/pdf;q=0.7,*/*;q=0.1";

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// The policy refuses the address.
    Egress(EgressError),
    /// The host did not answer or cannot for now; tried as often as allowed.
    Transient {
        problem: String,
        retry_after: Option<Duration>,
        source: Option<Cause>,
    },
    /// A fault of this service.
    Internal(Cause),
}

/// What the cache of the last crawl knows of a page, sent so that the host need not send it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Validators {
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
}

/// Body of an answer, after decompression.
#[derive(Debug)]
pub(super) enum Body {
    Whole(Vec<u8>),
    /// It is larger than allowed; what came before.
    TooLarge(Vec<u8>),
}

/// An answer, of whatever status but those that stand for "not now".
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// None where `wants_body` did not want it.
    pub(super) body: Option<Body>,
}

impl Answer {
    /// A header as text.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Where a redirect leads, as seen from `url`.
    pub(super) fn redirect(&self, url: &Url) -> Option<Url> {
        let is_redirect = matches!(self.status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let location = self.header(&LOCATION).filter(|_| is_redirect)?;
        url.join(location).ok()
    }
}

/// Sends the requests of one crawl.
pub(super) struct Requests {
    pub(super) options: CrawlOptions,
    pub(super) report: Report,
    /// By port, since what the resolver allows may depend on it.
    clients: Mutex<HashMap<Option<u16>, reqwest::Client>>,
    /// Kept as long as the crawl, so that the count of each lasts.
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    /// Wait between two requests to a host.
    delay: Mutex<Duration>,
}

impl Requests {
    pub(super) fn new(options: CrawlOptions, report: Report) -> Self {
        let delay = Mutex::new(options.delay);
        Self {
            options,
            report,
            clients: Mutex::default(),
            hosts: Mutex::default(),
            delay,
        }
    }

    /// Waits at least this long between two requests, as robots.txt asks, up to the operator's limit.
    pub(super) fn slow_down(&self, delay: Duration) {
        let delay = delay.min(self.options.max_crawl_delay).max(self.options.delay);
        *self.delay.lock().unwrap_or_else(PoisonError::into_inner) = delay;
    }

    /// Asks for `url` and reads the body if `wants_body` says so after a look at status and headers, up to
    /// `max_bytes`. What fails for now is tried again.
    pub(super) async fn get(
        &self,
        url: &Url,
        validators: &Validators,
        max_bytes: usize,
        wants_body: impl Fn(StatusCode, &HeaderMap) -> bool,
    ) -> Result<Answer, Fault> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let fault = match self.attempt(url, validators, max_bytes, &wants_body).await {
                Err(Fault::Transient {
                    problem,
                    retry_after,
                    source,
                }) => (problem, retry_after, source),
                answer_or_fault => return answer_or_fault,
            };
            let (problem, retry_after, source) = fault;
            let exponent = u32::min(attempt - 1, 16);
            let backoff = self
                .options
                .backoff
                .saturating_mul(1 << exponent)
                .min(self.options.max_wait);
            let wait = retry_after.unwrap_or_default().max(backoff);
            if attempt >= self.options.attempts || wait > self.options.max_wait {
                return Err(Fault::Transient {
                    problem,
                    retry_after,
                    source,
                });
            }
            if retry_after.is_some() {
                // The host means all requests, not this one alone.
                self.host(url).pause(wait);
            }
            if let Ok(wait) = jiff::SignedDuration::try_from(wait) {
                (self.report)(CrawlProgress::Waiting {
                    until: jiff::Timestamp::now()
                        .saturating_add(wait)
                        .unwrap_or(jiff::Timestamp::MAX),
                });
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(
        &self,
        url: &Url,
        validators: &Validators,
        max_bytes: usize,
        wants_body: &impl Fn(StatusCode, &HeaderMap) -> bool,
    ) -> Result<Answer, Fault> {
        let client = self.client(url)?;
        let delay = *self.delay.lock().unwrap_or_else(PoisonError::into_inner);
        let _turn = self.host(url).turn(delay).await;
        let mut request = client
            .get(url.clone())
            .header(USER_AGENT, &self.options.user_agent)
            .header(ACCEPT, ACCEPTED)
            .header(ACCEPT_ENCODING, "gzip");
        if let Some(etag) = &validators.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if let Some(last_modified) = &validators.last_modified {
            request = request.header(IF_MODIFIED_SINCE, last_modified);
        }
        let exchange = async {
            let response = request.send().await.map_err(|error| broken(url, error))?;
            check_status(&response)?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = match wants_body(status, &headers) {
                true => Some(read(url, response, max_bytes).await?),
                false => None,
            };
            Ok(Answer {
                status,
                headers,
                body,
            })
        };
        tokio::time::timeout(self.options.request_timeout, exchange)
            .await
            .unwrap_or_else(|_elapsed| {
                let seconds = self.options.request_timeout.as_secs();
                Err(transient(format!(
                    "it did not answer within {seconds} seconds (web.request_timeout_seconds)"
                )))
            })
    }

    fn client(&self, url: &Url) -> Result<reqwest::Client, Fault> {
        self.options.egress.check(url).map_err(Fault::Egress)?;
        let port = url.port_or_known_default();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&port) {
            return Ok(client.clone());
        }
        let resolver = self
            .options
            .egress
            .resolver_over(port, Arc::clone(&self.options.names));
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.options.request_timeout)
            .dns_resolver(resolver)
            .build()
            .map_err(|source| Fault::Internal(source.into()))?;
        clients.insert(port, client.clone());
        Ok(client)
    }

    fn host(&self, url: &Url) -> Arc<Host> {
        let name = format!(
            "{}:{}",
            url.host_str().unwrap_or_default(),
            url.port_or_known_default().unwrap_or_default()
        );
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            hosts
                .entry(name)
                .or_insert_with_key(|name| self.options.shared.hosts.host(name)),
        )
    }
}

fn transient(problem: String) -> Fault {
    Fault::Transient {
        problem,
        retry_after: None,
        source: None,
    }
}

/// Answers that mean "not now" are faults.
fn check_status(response: &Response) -> Result<(), Fault> {
    let status = response.status();
    let code = status.as_u16();
    if !status.is_server_error() && !matches!(code, 408 | 425 | 429) {
        return Ok(());
    }
    let problem = match code {
        429 => "it answered 429: too many requests".to_owned(),
        _ => format!("it answered {code}"),
    };
    Err(Fault::Transient {
        problem,
        retry_after: retry_after(response.headers()),
        source: None,
    })
}

/// How long to wait, from `Retry-After`: seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            let seconds = at.as_second().saturating_sub(jiff::Timestamp::now().as_second());
            u64::try_from(seconds).unwrap_or(0)
        }
    };
    Some(Duration::from_secs(seconds))
}

/// A connection that could not be made or that broke, in words that tell the usual causes apart.
fn broken(url: &Url, error: reqwest::Error) -> Fault {
    if let Some(refusal) = refusal(&error) {
        return Fault::Egress(refusal.clone());
    }
    let host = url.host_str().unwrap_or_default();
    let problem = if error.is_timeout() {
        format!("connecting to {host} took too long")
    } else if error.is_connect() {
        format!("cannot connect to {host}; check its name and its TLS certificate")
    } else {
        format!("the connection to {host} broke")
    };
    Fault::Transient {
        problem,
        retry_after: None,
        source: Some(error.into()),
    }
}

/// Keeps what it is given up to a limit.
struct Capped {
    bytes: Vec<u8>,
    max_bytes: usize,
    is_full: bool,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = self.max_bytes.saturating_sub(self.bytes.len());
        self.is_full |= bytes.len() > room;
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        if self.is_full {
            return Err(std::io::Error::other("the body is too large"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn read(url: &Url, mut response: Response, max_bytes: usize) -> Result<Body, Fault> {
    let length = response
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let encoding = response
        .headers()
        .get(CONTENT_ENCODING)
        .and_then(|value| value.to_str().ok());
    let is_gzip = match encoding.map(str::trim) {
        None | Some("" | "identity") => false,
        Some(name) if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => true,
        Some(_) => {
            return Err(transient(
                "it answered in an encoding that it was not asked for".to_owned(),
            ));
        }
    };
    let mut body = Capped {
        bytes: Vec::new(),
        max_bytes,
        is_full: length.is_some_and(|length: usize| length > max_bytes),
    };
    if body.is_full {
        return Ok(Body::TooLarge(Vec::new()));
    }
    if is_gzip {
        let mut decoder = MultiGzDecoder::new(body);
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(url, error))? {
            if let Err(error) = decoder.write_all(&chunk) {
                if decoder.get_ref().is_full {
                    return Ok(Body::TooLarge(std::mem::take(&mut decoder.get_mut().bytes)));
                }
                return Err(damaged(error));
            }
        }
        let finished = decoder.try_finish();
        let body = decoder.get_mut();
        return match finished {
            _ if body.is_full => Ok(Body::TooLarge(std::mem::take(&mut body.bytes))),
            Ok(()) => Ok(Body::Whole(std::mem::take(&mut body.bytes))),
            Err(error) => Err(damaged(error)),
        };
    }
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(url, error))? {
        if body.write_all(&chunk).is_err() {
            return Ok(Body::TooLarge(body.bytes));
        }
    }
    Ok(Body::Whole(body.bytes))
}

fn damaged(error: std::io::Error) -> Fault {
    Fault::Transient {
        problem: "its answer is damaged: it is not what its Content-Encoding says".to_owned(),
        retry_after: None,
        source: Some(error.into()),
    }
}
