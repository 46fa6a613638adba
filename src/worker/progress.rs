//! How far an attempt has come, told to the database now and then.
//!
//! Counters of documents change only together with the ledger, in one transaction, so a later attempt
//! that reads both finds them in agreement. Phase and times may be reported in between.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior};

use super::{Environment, lease_guard::Lease};
use crate::{
    domain::invocation::{Phase, Progress, Statistics},
    error::chain,
    store::{Held, StoreError},
};

/// How often progress is written at most.
const REPORT_PERIOD: Duration = Duration::from_millis(500);

/// The stages whose work is timed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    Fetch,
    Chunk,
    Embed,
    Index,
}

#[derive(Debug, Default)]
struct Shared {
    progress: Progress,
    changed: bool,
}

/// Handle that every stage of one attempt writes to.
#[derive(Debug, Clone)]
pub(super) struct ProgressHandle(Arc<Mutex<Shared>>);

impl ProgressHandle {
    /// Goes on from what an earlier attempt reported.
    pub(super) fn new(statistics: Statistics) -> Self {
        let progress = Progress {
            phase: Phase::Queued,
            wait: None,
            statistics,
        };
        Self(Arc::new(Mutex::new(Shared {
            progress,
            changed: false,
        })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Shared) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.with(|shared| {
            shared.progress.phase = phase;
            shared.changed = true;
        });
    }

    /// Changes the counters; the caller writes them with the ledger.
    pub(super) fn count(&self, change: impl FnOnce(&mut Statistics)) {
        self.with(|shared| change(&mut shared.progress.statistics));
    }

    /// Adds the time since `start` to a stage.
    pub(super) fn time(&self, stage: Stage, start: Instant) {
        let spent = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.with(|shared| {
            let statistics = &mut shared.progress.statistics;
            match stage {
                Stage::Fetch => statistics.fetch_ms += spent,
                Stage::Chunk => statistics.chunk_ms += spent,
                Stage::Embed => statistics.embed_ms += spent,
                Stage::Index => statistics.index_ms += spent,
            }
        });
    }

    pub(super) fn snapshot(&self) -> Progress {
        self.with(|shared| shared.progress.clone())
    }

    pub(super) fn statistics(&self) -> Statistics {
        self.with(|shared| shared.progress.statistics)
    }

    fn take_change(&self) -> Option<Progress> {
        self.with(|shared| std::mem::take(&mut shared.changed).then(|| shared.progress.clone()))
    }
}

/// Writes the commit down before anything is done with it, so that every later attempt fetches the same.
pub(super) async fn record_commit(
    environment: &Environment,
    lease: &Lease,
    progress: &ProgressHandle,
    commit: &str,
) -> Result<Held, StoreError> {
    let latest = progress.snapshot();
    let (id, attempt) = (lease.invocation, lease.attempt);
    let held = environment
        .store
        .report_progress(id, attempt, &latest, Some(commit))
        .await?;
    environment.changes.changed(id);
    Ok(held)
}

/// Reports the phase while the attempt runs; never returns.
pub(super) async fn report(environment: &Environment, lease: &Lease, progress: &ProgressHandle) {
    let mut tick = tokio::time::interval(REPORT_PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(latest) = progress.take_change() else {
            continue;
        };
        let (id, attempt) = (lease.invocation, lease.attempt);
        match environment
            .store
            .report_progress(id, attempt, &latest, None)
            .await
        {
            Ok(Held::Held) => environment.changes.changed(id),
            // The guard of the lease ends the attempt; there is nothing to report any more.
            Ok(Held::Lost) => std::future::pending().await,
            Err(error) => {
                tracing::warn!(invocation.id = %id, error = %chain(&error), "cannot report progress yet");
                progress.with(|shared| shared.changed = true);
            }
        }
    }
}
