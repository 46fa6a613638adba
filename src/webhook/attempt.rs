//! One attempt at one state change: send it, then write down how that went.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::Instant;

use super::{
    Environment, WebhookOptions,
    message::{Message, seconds},
    receiver,
    sender::{Answer, SendError, Sender},
};
use crate::{
    domain::{
        time::Timestamp,
        webhook::{sealing_context, signing_key},
    },
    error::chain,
    store::{DeliveryClaim, DeliveryOutcome, Event, Held, StoreError},
};

/// Times the end of an attempt is written before its lease is left to run out.
const WRITE_TRIES: u32 = 5;
const WRITE_PAUSE: Duration = Duration::from_millis(500);

/// Why a state change was not delivered. `Display` is for the owner of the webhook.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The receiver wants no more.
    #[error("the receiver answered 410 and gets nothing more")]
    Gone,
    /// The receiver answered with anything but success.
    #[error("the receiver answered {}", .0.status.as_u16())]
    Refused(Answer),
    /// There is no answer.
    #[error(transparent)]
    Unsent(#[from] SendError),
    /// The operator allows https alone.
    #[error("http:// is not allowed by the operator (webhooks.allow_http)")]
    Plain,
    /// The secret was sealed with another key.
    #[error(
        "the signing secret does not open with this worker's key; the operator has to give every process the \
         same encryption.key"
    )]
    SecretUnreadable,
}

impl Failure {
    /// How long the receiver asks to wait.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(answer) => answer.retry_after,
            Self::Gone | Self::Unsent(_) | Self::Plain | Self::SecretUnreadable => None,
        }
    }
}

/// Sends what `claim` says is due, unless the lease is about to end at `lease_end`.
pub(super) async fn run(
    environment: Environment,
    options: WebhookOptions,
    sender: Sender,
    claim: DeliveryClaim,
    lease_end: Instant,
) {
    let id = claim.invocation_id;
    let event = match event(&environment, &claim).await {
        Ok(Some(event)) => event,
        Ok(None) => {
            tracing::error!(invocation.id = %id, revision = claim.revision, "a state change that is due for a webhook is missing");
            return;
        }
        Err(error) => {
            tracing::warn!(invocation.id = %id, error = %chain(&error), "cannot read what is due for a webhook yet");
            return;
        }
    };
    // Another process may send it once the lease has ended.
    if Instant::now() + options.timeout > lease_end {
        return;
    }
    let delivered = deliver(&environment, &options, &sender, &claim, &event).await;
    for _ in 0..WRITE_TRIES {
        match settle(&environment, &options, &claim, &event, &delivered).await {
            Ok(Held::Held) => break,
            Ok(Held::Lost) => {
                tracing::warn!(invocation.id = %id, "a delivery to a webhook took longer than its lease");
                break;
            }
            Err(error) => {
                tracing::warn!(invocation.id = %id, error = %chain(&error), "cannot write how a delivery went yet");
                tokio::time::sleep(WRITE_PAUSE).await;
            }
        }
    }
}

async fn event(environment: &Environment, claim: &DeliveryClaim) -> Result<Option<Event>, StoreError> {
    let after = claim.revision.saturating_sub(1);
    let mut events = environment
        .store
        .events_after(claim.invocation_id, after, 1)
        .await?;
    Ok(events.pop())
}

async fn deliver(
    environment: &Environment,
    options: &WebhookOptions,
    sender: &Sender,
    claim: &DeliveryClaim,
    event: &Event,
) -> Result<(), Failure> {
    if claim.url.is_plain() && !options.allow_http {
        return Err(Failure::Plain);
    }
    let sealed = claim.sealed_secret.as_ref().ok_or(Failure::SecretUnreadable)?;
    let opened = environment
        .sealing_key
        .open(&sealing_context(&claim.tenant), sealed);
    let secret = opened.map_err(|error| {
        tracing::error!(error = %chain(&error), "the signing secret of a webhook cannot be opened");
        Failure::SecretUnreadable
    })?;
    let key = signing_key(&secret).ok_or(Failure::SecretUnreadable)?;
    let message = Message::new(event);
    let timestamp = seconds(Timestamp::now());
    let signature = message.signature(&key, timestamp);
    let answer = sender
        .send(claim.url.url(), &message, timestamp, &signature)
        .await?;
    match answer.status {
        status if status.is_success() => Ok(()),
        StatusCode::GONE => Err(Failure::Gone),
        _ => Err(Failure::Refused(answer)),
    }
}

async fn settle(
    environment: &Environment,
    options: &WebhookOptions,
    claim: &DeliveryClaim,
    event: &Event,
    delivered: &Result<(), Failure>,
) -> Result<Held, StoreError> {
    let (id, revision) = (claim.invocation_id, event.revision);
    let now = environment.store.now().await?;
    let last = event.invocation.state.name().is_terminal();
    let outcome = match delivered {
        Ok(()) => {
            tracing::debug!(invocation.id = %id, revision, receiver = receiver(claim), "delivered to a webhook");
            DeliveryOutcome::Delivered { revision, last }
        }
        Err(failure) => {
            let outcome = after_failure(options, claim, event, failure, now);
            tracing::warn!(
                invocation.id = %id, revision, receiver = receiver(claim), attempts = claim.attempts + 1,
                error = %chain(failure), given_up = !matches!(outcome, DeliveryOutcome::Retry { .. }),
                "a delivery to a webhook failed"
            );
            outcome
        }
    };
    environment.store.settle_delivery(claim, outcome, now).await
}

fn after_failure(
    options: &WebhookOptions,
    claim: &DeliveryClaim,
    event: &Event,
    failure: &Failure,
    now: Timestamp,
) -> DeliveryOutcome {
    let error = failure.to_string();
    if matches!(failure, Failure::Gone) {
        return DeliveryOutcome::Stopped { error };
    }
    let asked = failure.retry_after().unwrap_or_default().min(options.max_backoff);
    let at = now.plus(backoff(options, claim.attempts).max(asked));
    if at.since(claim.first_attempt_at) > options.give_up_after {
        return DeliveryOutcome::GivenUp {
            error,
            revision: event.revision,
            last: event.invocation.state.name().is_terminal(),
        };
    }
    DeliveryOutcome::Retry { error, at }
}

/// Doubles with every failure, with up to a quarter of jitter so that a receiver that comes back is not met
/// by everybody at once.
fn backoff(options: &WebhookOptions, failures: u32) -> Duration {
    let doubled = options
        .backoff
        .saturating_mul(2_u32.saturating_pow(failures.min(31)));
    let bounded = doubled.min(options.max_backoff);
    bounded.mul_f64(1.0 - 0.25 * rand::random::<f64>())
}
