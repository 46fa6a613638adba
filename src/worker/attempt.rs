//! One attempt at one invocation: run the pipeline, then write down how it ended.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    Environment, WorkerOptions,
    failure::{AttemptError, Disposition},
    lease_guard::{Lease, LeaseGuard},
    pipeline,
    progress::{self, ProgressHandle},
};
use crate::{
    domain::invocation::{Failure, Invocation, Statistics, Wait},
    error::chain,
    store::{Claim, Held, RetryLater, StoreError},
};

/// Times the end of an attempt is written before it is left to the reaper.
const WRITE_TRIES: u32 = 5;
const WRITE_PAUSE: Duration = Duration::from_millis(500);

/// What the end of an attempt made of its invocation.
enum Written {
    /// It ended.
    Ended(Box<Invocation>),
    /// It waits for its next attempt.
    Later,
    /// Nothing: the attempt holds it no longer.
    LeaseLost,
}

impl From<Option<Invocation>> for Written {
    fn from(ended: Option<Invocation>) -> Self {
        ended.map_or(Self::LeaseLost, |invocation| Self::Ended(Box::new(invocation)))
    }
}

impl From<Held> for Written {
    fn from(held: Held) -> Self {
        match held {
            Held::Held => Self::Later,
            Held::Lost => Self::LeaseLost,
        }
    }
}

/// How the pipeline ended.
enum End {
    Complete(Statistics),
    Failed(AttemptError, Statistics),
    HandedBack,
}

/// Runs the attempt to its end; `hand_back` asks to give the invocation back instead.
pub(super) async fn run(
    environment: Environment,
    options: WorkerOptions,
    claim: Claim,
    guard: LeaseGuard,
    hand_back: CancellationToken,
) {
    let lease = guard.lease().clone();
    let (id, attempt) = (lease.invocation, lease.attempt);
    tracing::info!(invocation.id = %id, attempt, "attempt started");
    // The claim itself is a change that watchers wait for.
    if claim.first {
        environment.changes.entered(&claim.invocation);
    } else {
        environment.changes.changed(id);
    }
    let before = claim.invocation.progress.statistics;
    let progress = ProgressHandle::new(before);
    let end = {
        let work = pipeline::run(&environment, &options, &claim, &lease, &progress);
        tokio::select! {
            biased;
            () = lease.lost().cancelled() => End::Failed(AttemptError::LeaseLost, before),
            () = hand_back.cancelled() => End::HandedBack,
            result = work => match result {
                Ok(()) => End::Complete(progress.statistics()),
                Err(error) => End::Failed(error, progress.statistics()),
            },
            () = progress::report(&environment, &lease, &progress) => End::HandedBack,
        }
    };
    let failures = claim.failures;
    for _ in 0..WRITE_TRIES {
        match write_end(&environment, &options, &lease, &end, failures).await {
            Ok(written) => {
                match written {
                    Written::Ended(invocation) => environment.changes.entered(&invocation),
                    Written::Later => environment.changes.changed(id),
                    Written::LeaseLost => {
                        tracing::warn!(invocation.id = %id, attempt, "the lease was lost before the end was written");
                        // Or by an earlier try, which was committed and could not say so.
                        environment.changes.changed(id);
                    }
                }
                break;
            }
            Err(error) => {
                tracing::warn!(invocation.id = %id, attempt, error = %chain(&error), "cannot write the end yet");
                tokio::time::sleep(WRITE_PAUSE).await;
            }
        }
    }
    drop(guard);
    environment.work.wake();
}

async fn write_end(
    environment: &Environment,
    options: &WorkerOptions,
    lease: &Lease,
    end: &End,
    failures: u32,
) -> Result<Written, StoreError> {
    let (store, id, attempt) = (&environment.store, lease.invocation, lease.attempt);
    let now = store.now().await?;
    Ok(match end {
        End::Complete(statistics) => {
            tracing::info!(invocation.id = %id, attempt, ?statistics, "invocation complete");
            store.complete(id, attempt, *statistics, now).await?.into()
        }
        End::HandedBack => {
            tracing::info!(invocation.id = %id, attempt, "attempt handed back");
            store.release(id, attempt, now).await?.into()
        }
        End::Failed(error, statistics) => match error.disposition() {
            Disposition::Abandon => Written::LeaseLost,
            Disposition::Fail(failure) => {
                tracing::warn!(invocation.id = %id, attempt, error = %chain(error), "invocation failed");
                store.fail(id, attempt, failure, *statistics, now).await?.into()
            }
            Disposition::Retry {
                failure,
                counts: true,
                ..
            } if failures + 1 >= options.max_failed_attempts => {
                tracing::warn!(invocation.id = %id, attempt, error = %chain(error), "invocation failed, out of attempts");
                let failure = out_of_attempts(failure, failures + 1);
                store.fail(id, attempt, failure, *statistics, now).await?.into()
            }
            Disposition::Retry {
                failure,
                wait,
                counts,
            } => {
                let delay = backoff(options, failures).max(wait.unwrap_or_default());
                tracing::warn!(
                    invocation.id = %id, attempt, error = %chain(error), delay_ms = delay.as_millis(),
                    "attempt failed; will try again"
                );
                let wait = Wait {
                    until: now.plus(delay),
                    cause: failure.message,
                };
                let later = RetryLater {
                    next_attempt_at: wait.until,
                    wait,
                    counts_as_failure: counts,
                };
                store.retry_later(id, attempt, later, *statistics).await?.into()
            }
        },
    })
}

fn out_of_attempts(failure: Failure, attempts: u32) -> Failure {
    let Failure { reason, message } = failure;
    Failure {
        reason,
        message: format!("{message} (gave up after {attempts} attempts)"),
    }
}

/// Doubles with every failure, with up to a quarter of jitter so that workers do not march in step.
fn backoff(options: &WorkerOptions, failures: u32) -> Duration {
    let doubled = options
        .backoff
        .saturating_mul(2_u32.saturating_pow(failures.min(16)));
    let bounded = doubled.min(options.max_backoff);
    bounded.mul_f64(1.0 - 0.25 * rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_up_to_its_bound() {
        let options = WorkerOptions {
            concurrency: 1,
            max_concurrency_per_tenant: 1,
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            max_failed_attempts: 5,
            backoff: Duration::from_secs(2),
            max_backoff: Duration::from_secs(60),
            drain: Duration::from_secs(1),
            stage_buffer_bytes: 1,
            keep_uploads: Duration::ZERO,
            sweep_uploads: Duration::from_secs(1),
        };
        for (failures, most) in [(0, 2), (1, 4), (3, 16), (9, 60), (u32::MAX, 60)] {
            let delay = backoff(&options, failures).as_secs_f64();
            assert!(
                delay <= f64::from(most) && delay >= 0.75 * f64::from(most),
                "{failures}: {delay}"
            );
        }
    }
}
