//! The claim loop: takes an invocation whenever there is room for one.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Environment, WorkerOptions, attempt, lease_guard::LeaseGuard};
use crate::{domain::ids::WorkerId, error::chain, store::ClaimLimits};

/// Claims until `drain`, then waits for the attempts under way, at most `options.drain`; what is not
/// done by then is handed back.
pub(super) async fn run(
    environment: Environment,
    options: WorkerOptions,
    worker: WorkerId,
    drain: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(options.concurrency));
    let hand_back = CancellationToken::new();
    let mut attempts = JoinSet::new();
    while let Some(permit) = wait_for_room(&room, &drain).await {
        match claim(&environment, &options, worker).await {
            Some((claim, guard)) => {
                let attempt = attempt::run(environment.clone(), options, claim, guard, hand_back.clone());
                attempts.spawn(async move {
                    attempt.await;
                    drop(permit);
                });
            }
            None => {
                drop(permit);
                tokio::select! {
                    () = drain.cancelled() => break,
                    () = environment.work.wait() => {}
                    () = tokio::time::sleep(options.poll) => {}
                }
            }
        }
        while attempts.try_join_next().is_some() {}
    }
    let finished = async { while attempts.join_next().await.is_some() {} };
    if tokio::time::timeout(options.drain, finished).await.is_err() {
        hand_back.cancel();
        while attempts.join_next().await.is_some() {}
    }
}

async fn wait_for_room(
    room: &Arc<Semaphore>,
    drain: &CancellationToken,
) -> Option<tokio::sync::OwnedSemaphorePermit> {
    tokio::select! {
        biased;
        () = drain.cancelled() => None,
        permit = Arc::clone(room).acquire_owned() => permit.ok(),
    }
}

async fn claim(
    environment: &Environment,
    options: &WorkerOptions,
    worker: WorkerId,
) -> Option<(crate::store::Claim, LeaseGuard)> {
    // Read before the claim: the lease runs from some moment after this one, so it is never overrated.
    let asked_at = tokio::time::Instant::now();
    let limits = ClaimLimits {
        per_tenant: options.max_concurrency_per_tenant,
    };
    let claimed = async {
        let now = environment.store.now().await?;
        environment.store.claim(&worker, now, options.lease, limits).await
    };
    match claimed.await {
        Ok(Some(claim)) => {
            let guard = LeaseGuard::start(environment.clone(), &claim, worker, options.lease, asked_at);
            Some((claim, guard))
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "cannot look for invocations; will try again");
            None
        }
    }
}
