//! Delivers state changes to webhooks.
//!
//! Every worker runs one of these. What is due stands in the database (see `store::webhooks`): a wake-up only
//! saves the wait for the next look at it, and the lease on a delivery lets one process alone send, so that a
//! receiver gets the state changes of an invocation in order. One that is slow or away holds a bounded part
//! of the room. Absent on purpose: any effect on the invocation, whatever a receiver does.

mod attempt;
mod message;
mod sender;

use std::{collections::HashMap, time::Duration};

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    error::chain,
    fetch::Egress,
    seal::SealingKey,
    store::{DeliveryClaim, Store, StoreError},
    wake::ChangeSignal,
};
use sender::Sender;

/// Wake-ups that come within this time share one look at the database.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// How much longer than a request a lease holds: time to read what is sent and to write how it went.
const LEASE_MARGIN: Duration = Duration::from_secs(15);

/// Everything deliveries need from outside.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The service's own database.
    pub store: Store,
    /// Opens the signing secrets.
    pub sealing_key: SealingKey,
    /// What may be reached.
    pub egress: Egress,
    /// Wakes the deliveries of this process.
    pub changes: ChangeSignal,
}

/// How deliveries behave; meanings in `config/default.toml`.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct WebhookOptions {
    pub concurrency: usize,
    pub max_concurrency_per_receiver: usize,
    pub timeout: Duration,
    pub backoff: Duration,
    pub max_backoff: Duration,
    pub give_up_after: Duration,
    pub allow_http: bool,
    pub poll: Duration,
    pub drain: Duration,
}

impl WebhookOptions {
    fn lease(&self) -> Duration {
        self.timeout + LEASE_MARGIN
    }
}

/// Attempts under way, each with its receiver.
#[derive(Default)]
struct UnderWay {
    attempts: JoinSet<()>,
    receivers: HashMap<Id, String>,
}

impl UnderWay {
    /// Waits for the end of an attempt; for ever while there is none.
    async fn ended(&mut self) {
        let id = match self.attempts.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => {
                // Its lease runs out, and the delivery is due again.
                tracing::error!(error = %chain(&error), "a delivery to a webhook broke off");
                error.id()
            }
            None => std::future::pending().await,
        };
        self.receivers.remove(&id);
    }

    /// Receivers that have as many attempts as they may.
    fn busy(&self, most: usize) -> Vec<String> {
        let mut counts: HashMap<&String, usize> = HashMap::new();
        for receiver in self.receivers.values() {
            *counts.entry(receiver).or_default() += 1;
        }
        let busy = counts.into_iter().filter(|(_, count)| *count >= most);
        busy.map(|(receiver, _)| receiver.clone()).collect()
    }
}

/// Delivers until `drain` is cancelled, then waits for the requests under way.
pub async fn run(environment: Environment, options: WebhookOptions, drain: CancellationToken) {
    let sender = Sender::new(environment.egress.clone(), options.timeout);
    let mut under_way = UnderWay::default();
    loop {
        let wait = match look(&environment, &options, &sender, &mut under_way).await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "cannot look for deliveries to webhooks; will try again");
                options.poll
            }
        };
        tokio::select! {
            () = drain.cancelled() => break,
            () = environment.changes.wait_to_deliver() => tokio::time::sleep(LOOK_PAUSE).await,
            () = under_way.ended() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    let ended = async { while under_way.attempts.join_next().await.is_some() {} };
    if tokio::time::timeout(options.drain, ended).await.is_err() {
        tracing::warn!("deliveries to webhooks broke off; they are made again when their leases run out");
    }
}

/// Starts what is due, as far as there is room; says when to look again.
async fn look(
    environment: &Environment,
    options: &WebhookOptions,
    sender: &Sender,
    under_way: &mut UnderWay,
) -> Result<Duration, StoreError> {
    loop {
        let room = options.concurrency.saturating_sub(under_way.attempts.len());
        if room == 0 {
            return Ok(options.poll);
        }
        // Asked often and mostly in vain, so the question alone must not take a write lock.
        let Some(next) = environment.store.next_delivery_time().await? else {
            return Ok(options.poll);
        };
        let now = environment.store.now().await?;
        if next > now {
            return Ok(next.since(now).min(options.poll));
        }
        // Before the claim: the lease runs from some moment after this one, so it is never overrated.
        let claimed_at = tokio::time::Instant::now();
        let limit = room.min(options.max_concurrency_per_receiver);
        let busy = under_way.busy(options.max_concurrency_per_receiver);
        let claims = environment
            .store
            .claim_deliveries(now, options.lease(), limit, busy)
            .await?;
        if claims.is_empty() {
            return Ok(options.poll);
        }
        for claim in claims {
            let receiver = claim.url.receiver();
            let attempt = attempt::run(
                environment.clone(),
                *options,
                sender.clone(),
                claim,
                claimed_at + options.lease(),
            );
            let id = under_way.attempts.spawn(attempt).id();
            under_way.receivers.insert(id, receiver);
        }
    }
}

/// What log lines say of a delivery; never the path of its URL, which may hold a secret.
fn receiver(claim: &DeliveryClaim) -> String {
    claim.url.receiver()
}
