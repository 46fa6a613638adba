//! Sends requests to receivers, within the egress policy.
//!
//! Addresses are checked where they come from, as for fetches (see `fetch::egress`). Redirects are not
//! followed: what is signed for one receiver is not for another. What a receiver answers beside its status
//! is neither kept nor shown, so nobody reads through a webhook what they cannot reach themselves.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{
    Client, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
    redirect::Policy,
};
use url::Url;

use super::message::Message;
use crate::fetch::{Egress, EgressError, egress::refusal};

/// The most of an answer that is read, so that the connection can be used again.
const MAX_ANSWER_BYTES: usize = 16 * 1_024;
/// Ports for which a client is kept.
const MAX_CLIENTS: usize = 16;
/// How long a connection that is not used stays open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const AGENT: &str = concat!("chroma-sync/", env!("CARGO_PKG_VERSION"));

/// How the receiver answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// How long it asks to wait.
    pub(super) retry_after: Option<Duration>,
}

/// Why there is no answer. `Display` is for the owner of the webhook: it names no address but the host of the
/// URL.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The policy.
    #[error(transparent)]
    Forbidden(EgressError),
    /// Time.
    #[error("the receiver did not answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// No connection, name resolution and TLS included.
    #[error("the receiver cannot be reached; check the name, the port and the certificate")]
    Unreachable(#[source] reqwest::Error),
    /// The connection broke, or what came back is no HTTP.
    #[error("the receiver broke the connection or did not answer with HTTP")]
    Broken(#[source] reqwest::Error),
    /// A fault of ours.
    #[error("the request could not be made")]
    Internal(#[source] reqwest::Error),
}

/// Sends requests. Clones share their connections.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    egress: Egress,
    timeout: Duration,
    /// By port: the policy may allow a host at one port alone.
    clients: Arc<Mutex<HashMap<Option<u16>, Client>>>,
}

impl Sender {
    pub(super) fn new(egress: Egress, timeout: Duration) -> Self {
        Self {
            egress,
            timeout,
            clients: Arc::default(),
        }
    }

    /// Sends a signed message; returns what the receiver answers, whatever it is.
    ///
    /// # Errors
    /// See [`SendError`].
    pub(super) async fn send(
        &self,
        url: &Url,
        message: &Message,
        timestamp: i64,
        signature: &str,
    ) -> Result<Answer, SendError> {
        self.egress.check(url).map_err(SendError::Forbidden)?;
        let request = self
            .client(url.port_or_known_default())?
            .post(url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, AGENT)
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(message.body.clone());
        let answer = async {
            let response = request.send().await?;
            let answer = Answer {
                status: response.status(),
                retry_after: retry_after(&response),
            };
            read_some(response).await;
            Ok(answer)
        };
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer.map_err(|error: reqwest::Error| self.failure(error.without_url())),
            Err(_) => Err(SendError::TimedOut(self.timeout)),
        }
    }

    fn failure(&self, error: reqwest::Error) -> SendError {
        match refusal(&error) {
            Some(refused) => SendError::Forbidden(refused.clone()),
            None if error.is_timeout() => SendError::TimedOut(self.timeout),
            None if error.is_connect() => SendError::Unreachable(error),
            None if error.is_builder() => SendError::Internal(error),
            None => SendError::Broken(error),
        }
    }

    fn client(&self, port: Option<u16>) -> Result<Client, SendError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&port) {
            return Ok(client.clone());
        }
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .dns_resolver(self.egress.resolver(port))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()
            .map_err(SendError::Internal)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(port, client.clone());
        Ok(client)
    }
}

/// The status has come, so what goes wrong afterwards changes nothing.
async fn read_some(mut response: Response) {
    let mut bytes = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes += chunk.len();
        if bytes > MAX_ANSWER_BYTES {
            return;
        }
    }
}

/// The seconds of a `Retry-After` header. Its other form, a date, needs clocks that agree.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}
