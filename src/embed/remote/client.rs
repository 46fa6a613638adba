//! Sends the texts of a call in batches, until each is embedded or refused.
//!
//! A request that fails is sent again, first to another endpoint, then after a pause. One that is refused because of
//! its texts is halved until the text is found that is at fault. Before its first request an endpoint embeds
//! [`CANARY`], which shows that it runs the model: with the configured dimensions, and like the other endpoints.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use reqwest::{
    Client, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    batches::{BatchLimits, plan},
    endpoints::{AllDown, Endpoints, Place},
    error::RemoteError,
    lengths::Prepared,
    timeouts::Timeouts,
    wire::{Answer, AnswerFault, Wire},
};
use crate::{
    embed::{EmbedError, Purpose, RefusedText},
    outbound,
};

/// What every endpoint embeds first.
const CANARY: &str = "The quick brown fox jumps over the lazy dog.";
/// Tokens that it may have.
const CANARY_TOKENS: usize = 32;
/// What the vectors of the canary must have in common: servers may differ in precision, not in the model.
const LEAST_COSINE: f64 = 0.99;
/// How often one batch is sent.
const MAX_TRIES: u32 = 8;
/// How much of an error's body is read, and how much of its message is kept.
const MAX_ERROR_BYTES: usize = 65_536;
const MAX_MESSAGE_CHARS: usize = 300;

/// A text and what became of it.
pub(super) struct Embedded<V> {
    pub(super) vector: V,
    /// Its part of the tokens that the server counted, or as counted here.
    pub(super) tokens: u32,
    pub(super) truncated: bool,
}

/// The client of one model.
pub(super) struct RemoteClient<W: Wire> {
    pub(super) model: String,
    pub(super) wire: W,
    pub(super) http: Client,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Taken out of messages of servers.
    pub(super) api_key: crate::secret::Secret,
    pub(super) limits: BatchLimits,
    pub(super) endpoints: Endpoints,
    pub(super) timeouts: Mutex<Timeouts>,
    pub(super) deadline: Duration,
    /// The canary's vector of the endpoint that was asked first.
    pub(super) canary: OnceLock<W::Vector>,
}

/// What became of one text of a batch.
enum Outcome<V> {
    Embedded(Embedded<V>),
    Refused(String),
}

/// Why a request brought no vectors.
enum Fault {
    /// Because of its texts; the message is the server's.
    Texts(String),
    /// Whatever its texts.
    Server(RemoteError),
}

impl From<RemoteError> for Fault {
    fn from(error: RemoteError) -> Self {
        Self::Server(error)
    }
}

impl<W: Wire> RemoteClient<W> {
    /// Embeds all texts, several batches at once.
    ///
    /// # Errors
    /// [`EmbedError::TextsRefused`] with every text that is at fault, or the first failure of another kind.
    pub(super) async fn embed(
        &self,
        texts: &[Prepared],
        purpose: Purpose,
        instruction: &str,
    ) -> Result<Vec<Embedded<W::Vector>>, EmbedError> {
        let batches = plan(texts, self.limits);
        let mut sending = stream::iter(batches)
            .map(|batch| self.embed_batch(texts, batch, purpose, instruction))
            .buffer_unordered(self.endpoints.places());
        let mut embedded: Vec<Option<Embedded<W::Vector>>> = texts.iter().map(|_| None).collect();
        let mut refused = Vec::new();
        while let Some(batch) = sending.next().await {
            for (index, outcome) in batch? {
                match outcome {
                    Outcome::Embedded(text) => embedded[index] = Some(text),
                    Outcome::Refused(problem) => refused.push(RefusedText { index, problem }),
                }
            }
        }
        if refused.is_empty() {
            return Ok(embedded.into_iter().flatten().collect());
        }
        refused.sort_by_key(|text| text.index);
        Err(EmbedError::TextsRefused { texts: refused })
    }

    /// Asks every endpoint for the canary; says in the log which of them cannot be used, and why.
    pub(super) async fn check(&self) {
        let checks = (0..self.endpoints.len()).map(|index| async move {
            let others: Vec<usize> = (0..self.endpoints.len())
                .filter(|other| *other != index)
                .collect();
            let place = self
                .endpoints
                .place(Purpose::Query, &others, None, self.deadline)
                .await;
            let Ok(place) = place else { return };
            match self.check_endpoint(&place).await {
                Ok(()) => {
                    place.succeeded();
                    tracing::info!(
                        model = self.model,
                        endpoint = place.endpoint.name(),
                        "an embedding server is ready"
                    );
                }
                Err(error) => {
                    self.log_failure(&place, &error);
                    place.failed(error.retry_after());
                }
            }
        });
        futures::future::join_all(checks).await;
    }

    /// One batch, halved as often as it takes.
    async fn embed_batch(
        &self,
        texts: &[Prepared],
        batch: Vec<usize>,
        purpose: Purpose,
        instruction: &str,
    ) -> Result<Vec<(usize, Outcome<W::Vector>)>, EmbedError> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let (mut was_halved, mut has_refused) = (false, false);
        let mut open = vec![batch];
        while let Some(mut part) = open.pop() {
            match self.send(texts, &part, purpose, instruction).await {
                Ok(answer) => outcomes.extend(share(texts, &part, answer)),
                Err(Fault::Texts(problem)) if part.len() <= 1 => {
                    has_refused = true;
                    outcomes.extend(
                        part.into_iter()
                            .map(|index| (index, Outcome::Refused(problem.clone()))),
                    );
                }
                Err(Fault::Texts(problem)) => {
                    tracing::debug!(
                        model = self.model,
                        texts = part.len(),
                        problem,
                        "halving a batch that was refused"
                    );
                    was_halved = true;
                    let second = part.split_off(part.len() / 2);
                    open.extend([second, part]);
                }
                Err(Fault::Server(error)) => return Err(EmbedError::Remote(error)),
            }
        }
        if was_halved && !has_refused {
            tracing::warn!(
                model = self.model,
                "an embedding server refuses batches of a size that is configured; lower \
                 embedding.providers.max_batch_texts, max_batch_tokens or max_batch_bytes"
            );
        }
        Ok(outcomes)
    }

    /// One request, with all its tries.
    async fn send(
        &self,
        texts: &[Prepared],
        part: &[usize],
        purpose: Purpose,
        instruction: &str,
    ) -> Result<Answer<W::Vector>, Fault> {
        let sent: Vec<&str> = part.iter().map(|index| texts[*index].text()).collect();
        let tokens = part.iter().map(|index| texts[*index].tokens).sum();
        let body = Bytes::from(self.wire.body(&sent, instruction));
        // Counts from the first try, since any time may pass until a busy server has a place.
        let mut end: Option<Instant> = None;
        let mut without = Vec::new();
        let mut last = None;
        for _ in 0..MAX_TRIES {
            let place = self.endpoints.place(purpose, &without, end, self.deadline).await;
            let place = match place {
                Ok(place) => place,
                Err(AllDown { wait }) => return Err(Fault::Server(down(last, wait))),
            };
            let end = *end.get_or_insert_with(|| Instant::now() + self.deadline);
            let tried = match self.check_endpoint(&place).await {
                Ok(()) => self.request(&place, &body, tokens, part.len(), end).await,
                Err(error) => Err(Fault::Server(error)),
            };
            match tried {
                Ok(answer) => {
                    place.succeeded();
                    return Ok(answer);
                }
                Err(Fault::Texts(problem)) => {
                    place.succeeded();
                    return Err(Fault::Texts(problem));
                }
                Err(Fault::Server(error)) => {
                    self.log_failure(&place, &error);
                    place.failed(error.retry_after());
                    if !error.is_transient() {
                        without.push(place.index);
                    }
                    if without.len() == self.endpoints.len() || Instant::now() >= end {
                        return Err(Fault::Server(error));
                    }
                    last = Some(error);
                }
            }
        }
        Err(Fault::Server(down(last, Duration::ZERO)))
    }

    fn log_failure(&self, place: &Place<'_>, error: &RemoteError) {
        tracing::warn!(
            model = self.model,
            endpoint = place.endpoint.name(),
            error = crate::error::chain(error),
            "an embedding server failed"
        );
    }

    /// That the endpoint runs the model, once for each endpoint.
    async fn check_endpoint(&self, place: &Place<'_>) -> Result<(), RemoteError> {
        let checking = || async {
            let body = Bytes::from(self.wire.body(&[CANARY], ""));
            let end = Instant::now() + self.deadline;
            let answer = self.request(place, &body, CANARY_TOKENS, 1, end).await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(Fault::Server(error)) => return Err(error),
                Err(Fault::Texts(problem)) => {
                    let problem = format!("it refuses a plain sentence ({problem})");
                    return Err(RemoteError::InvalidResponse { problem });
                }
            };
            for vector in answer.vectors {
                let first = self.canary.get_or_init(|| vector.clone());
                let cosine = self.wire.cosine(first, &vector);
                if cosine < LEAST_COSINE {
                    return Err(RemoteError::Differs { cosine });
                }
            }
            Ok(())
        };
        place.endpoint.checked.get_or_try_init(checking).await.map(drop)
    }

    /// One try.
    async fn request(
        &self,
        place: &Place<'_>,
        body: &Bytes,
        tokens: usize,
        count: usize,
        end: Instant,
    ) -> Result<Answer<W::Vector>, Fault> {
        let begun = Instant::now();
        let timeout = self.timeouts().of(tokens).min(end - begun);
        let mut request = self
            .http
            .post(self.wire.url(&place.endpoint.url))
            .header(CONTENT_TYPE, "application/json")
            .timeout(timeout)
            .body(body.clone());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = request.send().await.map_err(|error| self.unavailable(error))?;
        let status = response.status();
        if !status.is_success() {
            let retry_after = outbound::retry_after(response.headers());
            let (body, _) = outbound::read(response, MAX_ERROR_BYTES)
                .await
                .map_err(|error| self.unavailable(error))?;
            return Err(refusal(status, retry_after, self.message(&body)));
        }
        let limit = self.wire.max_answer_bytes(count);
        let (body, whole) = outbound::read(response, limit)
            .await
            .map_err(|error| self.unavailable(error))?;
        if !whole {
            let problem = format!("it has more than {limit} bytes for {count} texts");
            return Err(Fault::Server(RemoteError::InvalidResponse { problem }));
        }
        let answer = self.wire.parse(&body, count).map_err(|fault| match fault {
            AnswerFault::NotFinite => Fault::Texts("the model gave a vector that is not finite".to_owned()),
            AnswerFault::BrokenOff => Fault::Server(RemoteError::Unavailable {
                problem: "its answer broke off".to_owned(),
                retry_after: None,
                source: None,
            }),
            AnswerFault::Wrong(error) => Fault::Server(error),
        })?;
        self.timeouts().observe(tokens, begun.elapsed());
        Ok(answer)
    }

    fn timeouts(&self) -> std::sync::MutexGuard<'_, Timeouts> {
        self.timeouts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unavailable(&self, source: reqwest::Error) -> RemoteError {
        if source.is_timeout() && !source.is_connect() {
            self.timeouts().missed();
        }
        RemoteError::Unavailable {
            problem: outbound::broken(&source).to_owned(),
            retry_after: None,
            // The URL may hold a password.
            source: Some(source.without_url()),
        }
    }

    /// What an error's body says: one line, short, and without the key that some servers repeat.
    fn message(&self, body: &[u8]) -> String {
        let parsed: Option<Value> = serde_json::from_slice(body).ok();
        let said = parsed.as_ref().and_then(|body| {
            let candidates = ["/error/message", "/message", "/error", "/detail"];
            candidates.iter().find_map(|path| body.pointer(path)?.as_str())
        });
        let said = match said {
            Some(said) => said.to_owned(),
            None => String::from_utf8_lossy(body).into_owned(),
        };
        let said = match self.api_key.non_empty() {
            Some(key) => said.replace(key, "***"),
            None => said,
        };
        let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
        line.chars()
            .filter(|c| !c.is_control())
            .take(MAX_MESSAGE_CHARS)
            .collect()
    }
}

/// The last failure, or that nothing is left to be asked.
fn down(last: Option<RemoteError>, wait: Duration) -> RemoteError {
    let asked = (!wait.is_zero()).then_some(wait);
    match last {
        Some(error) if error.retry_after().is_some() || asked.is_none() => error,
        Some(RemoteError::RateLimited { .. }) => RemoteError::RateLimited { retry_after: asked },
        Some(RemoteError::Unavailable { problem, source, .. }) => RemoteError::Unavailable {
            problem,
            retry_after: asked,
            source,
        },
        Some(error) => error,
        None => RemoteError::Unavailable {
            problem: "it failed shortly before and is left alone".to_owned(),
            retry_after: asked,
            source: None,
        },
    }
}

/// What an answer other than 2xx means.
fn refusal(status: StatusCode, retry_after: Option<Duration>, message: String) -> Fault {
    let code = status.as_u16();
    let said = if message.is_empty() {
        format!("the embedding server answers {code}")
    } else {
        format!("the embedding server answers {code}: {message}")
    };
    match status {
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Fault::Texts(said)
        }
        // llama.cpp: a text that is longer than its physical batch can never be embedded there.
        StatusCode::INTERNAL_SERVER_ERROR if is_about_length(&message) => Fault::Texts(said),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RemoteError::Unauthorized { status: code }.into(),
        StatusCode::TOO_MANY_REQUESTS => RemoteError::RateLimited { retry_after }.into(),
        StatusCode::NOT_IMPLEMENTED => RemoteError::Rejected { status: code }.into(),
        _ if status == StatusCode::REQUEST_TIMEOUT || status.is_server_error() => RemoteError::Unavailable {
            problem: format!("it answers {code}"),
            retry_after,
            source: None,
        }
        .into(),
        _ => RemoteError::Rejected { status: code }.into(),
    }
}

fn is_about_length(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    [
        "physical batch size",
        "too large to process",
        "context length",
        "context size",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// Pairs texts with their vectors, and shares the tokens that the server counted out among them by length.
fn share<V>(texts: &[Prepared], part: &[usize], answer: Answer<V>) -> Vec<(usize, Outcome<V>)> {
    let counted: u64 = part.iter().map(|index| texts[*index].tokens as u64).sum();
    let total = answer.tokens.unwrap_or(counted);
    let (mut seen, mut given) = (0_u64, 0_u64);
    part.iter()
        .zip(answer.vectors)
        .map(|(index, vector)| {
            let text = &texts[*index];
            seen += text.tokens as u64;
            // The parts add up to the total, whatever is lost by rounding.
            let upto = u128::from(total) * u128::from(seen) / u128::from(counted.max(1));
            let upto = u64::try_from(upto).unwrap_or(u64::MAX);
            let tokens = u32::try_from(upto - given).unwrap_or(u32::MAX);
            given = upto;
            let truncated = text.truncated;
            (
                *index,
                Outcome::Embedded(Embedded {
                    vector,
                    tokens,
                    truncated,
                }),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests;
