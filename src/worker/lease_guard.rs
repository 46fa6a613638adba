//! Keeps a lease while an attempt runs, and tells the attempt at once when it is lost.
//!
//! The guard counts by its own clock and from before each renewal was sent, so it gives the lease up
//! no later than the database does. A failed renewal is tried again until then: one lost write must not
//! end hours of work.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Environment;
use crate::{
    domain::ids::{InvocationId, WorkerId},
    error::chain,
    store::{Claim, Renewal},
};

/// What an attempt holds.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) invocation: InvocationId,
    pub(super) attempt: u32,
    worker: WorkerId,
    duration: Duration,
    held_until: Arc<Mutex<Instant>>,
    lost: CancellationToken,
}

impl Lease {
    /// Is cancelled when the lease is lost.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// How long the lease holds without another renewal.
    pub(super) fn remaining(&self) -> Duration {
        let until = *self.held_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.saturating_duration_since(Instant::now())
    }

    /// Whether less than a tenth of the lease is left: too little to begin something.
    pub(super) fn is_about_to_end(&self) -> bool {
        self.remaining() < self.duration / 10
    }

    fn extend(&self, until: Instant) {
        *self.held_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// Renews in the background until it is dropped.
#[derive(Debug)]
pub(super) struct LeaseGuard {
    lease: Lease,
    renewal: JoinHandle<()>,
}

impl LeaseGuard {
    /// Guards a claim that was asked for at `asked_at`.
    pub(super) fn start(
        environment: Environment,
        claim: &Claim,
        worker: WorkerId,
        duration: Duration,
        asked_at: Instant,
    ) -> Self {
        let lease = Lease {
            invocation: claim.invocation.id,
            attempt: claim.attempt,
            worker,
            duration,
            held_until: Arc::new(Mutex::new(asked_at + duration)),
            lost: CancellationToken::new(),
        };
        let renewal = tokio::spawn(renew(environment, lease.clone(), duration));
        Self { lease, renewal }
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

async fn renew(environment: Environment, lease: Lease, duration: Duration) {
    let period = duration / 3;
    let mut pause = period;
    loop {
        tokio::time::sleep(pause.min(lease.remaining())).await;
        if lease.remaining().is_zero() {
            tracing::warn!(invocation.id = %lease.invocation, attempt = lease.attempt, "lease ran out");
            lease.lost.cancel();
            return;
        }
        let asked_at = Instant::now();
        let renewal = async {
            let now = environment.store.now().await?;
            let (id, attempt) = (lease.invocation, lease.attempt);
            environment
                .store
                .renew(id, attempt, &lease.worker, now, duration)
                .await
        };
        match tokio::time::timeout(lease.remaining(), renewal).await {
            Ok(Ok(Renewal::Renewed { .. })) => {
                lease.extend(asked_at + duration);
                pause = period;
            }
            Ok(Ok(Renewal::Lost)) => {
                tracing::warn!(invocation.id = %lease.invocation, attempt = lease.attempt, "lease was lost");
                lease.lost.cancel();
                return;
            }
            Ok(Err(error)) => {
                tracing::warn!(invocation.id = %lease.invocation, error = %chain(&error), "cannot renew the lease yet");
                pause = period / 10;
            }
            Err(_) => pause = Duration::ZERO,
        }
    }
}
