//! Gives invocations back whose worker is gone. Every worker runs one; they do not disturb each other,
//! because each step is one conditional UPDATE.

use tokio_util::sync::CancellationToken;

use super::{Environment, WorkerOptions};
use crate::{error::chain, store::Reaped};

/// Looks twice a lease, until `drain`.
pub(super) async fn run(environment: Environment, options: WorkerOptions, drain: CancellationToken) {
    loop {
        tokio::select! {
            () = drain.cancelled() => return,
            () = tokio::time::sleep(options.lease / 2) => {}
        }
        match reap(&environment, &options).await {
            Ok(reaped) => {
                for reaped in reaped {
                    tracing::warn!(invocation.id = %reaped.id, "the worker of an invocation is gone; took it back");
                    environment.changes.changed(reaped.id);
                    environment.work.wake();
                }
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "cannot look for lost leases; will try again")
            }
        }
    }
}

async fn reap(
    environment: &Environment,
    options: &WorkerOptions,
) -> Result<Vec<Reaped>, crate::store::StoreError> {
    let now = environment.store.now().await?;
    environment
        .store
        .reap(now, options.max_failed_attempts, options.backoff)
        .await
}
