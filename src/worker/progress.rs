//! How far an attempt has come, told to the database now and then.
//!
//! Counters of documents change only together with the ledger, in one transaction, so a later attempt
//! that reads both finds them in agreement. Phase, times and what was embedded may be reported in between.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior};

use super::{Environment, lease_guard::Lease};
use crate::{
    domain::invocation::{Phase, Progress, Statistics, Wait},
    error::chain,
    store::{Held, StoreError},
};

/// How often progress is written at most.
const REPORT_PERIOD: Duration = Duration::from_millis(500);
/// The time over which rates are taken: long enough to even out batches, short enough to follow a change
/// of pace.
const RATE_PERIOD: Duration = Duration::from_secs(30);
/// Counts that are remembered for the rates.
const MAX_SAMPLES: usize = 1_000;

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
    pace: Pace,
}

/// What was counted lately.
#[derive(Debug, Default)]
struct Pace(VecDeque<Sample>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    time: Instant,
    documents: u64,
    tokens: u64,
}

impl Pace {
    /// Takes the counts as they are at `time` and sets the rates.
    fn update(&mut self, statistics: &mut Statistics, time: Instant) {
        let newest = Sample {
            time,
            documents: statistics.documents_done(),
            tokens: statistics.tokens_embedded,
        };
        // Counts that fell are those of a listing written anew.
        if self
            .0
            .back()
            .is_some_and(|before| before.documents > newest.documents)
        {
            self.0.clear();
        }
        self.0.push_back(newest);
        while self.0.len() > MAX_SAMPLES
            || self
                .0
                .get(1)
                .is_some_and(|second| time - second.time >= RATE_PERIOD)
        {
            self.0.pop_front();
        }
        let oldest = self.0.front().copied().unwrap_or(newest);
        let milliseconds = u64::try_from((time - oldest.time).as_millis()).unwrap_or(u64::MAX);
        let rate = |now: u64, before: u64, period: u64| {
            let gained = now.saturating_sub(before).saturating_mul(period);
            gained.checked_div(milliseconds).unwrap_or_default()
        };
        statistics.documents_per_minute = rate(newest.documents, oldest.documents, 60_000);
        statistics.tokens_per_second = rate(newest.tokens, oldest.tokens, 1_000);
    }
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
            pace: Pace::default(),
        })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Shared) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.with(|shared| {
            shared.progress.phase = phase;
            shared.progress.wait = None;
            shared.changed = true;
        });
    }

    /// Shows that the attempt waits, and for what. It ends with the next phase.
    pub(super) fn wait(&self, wait: Wait) {
        self.with(|shared| {
            shared.progress.phase = Phase::Waiting;
            shared.progress.wait = Some(wait);
            shared.changed = true;
        });
    }

    /// Changes the counters; the caller writes them with the ledger.
    pub(super) fn count(&self, change: impl FnOnce(&mut Statistics)) {
        self.with(|shared| {
            let Shared { progress, pace, .. } = shared;
            change(&mut progress.statistics);
            pace.update(&mut progress.statistics, Instant::now());
        });
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

    /// Adds embeddings that were had: `computed` by the model, `cached` from before.
    pub(super) fn embedded(&self, computed: u64, cached: u64) {
        self.with(|shared| {
            let statistics = &mut shared.progress.statistics;
            statistics.embeddings_computed += computed;
            statistics.embeddings_cached += cached;
            shared.changed = true;
        });
    }

    pub(super) fn snapshot(&self) -> Progress {
        self.with(|shared| shared.progress.clone())
    }

    /// The counts at the end of an attempt, when there is no pace any more.
    pub(super) fn statistics(&self) -> Statistics {
        self.with(|shared| Statistics {
            documents_per_minute: 0,
            tokens_per_second: 0,
            ..shared.progress.statistics
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(documents: u64, tokens: u64) -> Statistics {
        Statistics {
            documents_discovered: 100,
            documents_indexed: documents,
            tokens_embedded: tokens,
            ..Statistics::default()
        }
    }

    #[test]
    fn rates_are_those_of_the_last_half_minute() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut rates = |seconds, documents, tokens| {
            let mut statistics = counted(documents, tokens);
            pace.update(&mut statistics, start + Duration::from_secs(seconds));
            (
                statistics.documents_per_minute,
                statistics.tokens_per_second,
                Progress {
                    phase: Phase::Indexing,
                    wait: None,
                    statistics,
                }
                .time_left_ms(),
            )
        };
        assert_eq!(rates(0, 0, 0), (0, 0, None));
        assert_eq!(rates(10, 5, 1_000), (30, 100, Some(190_000)));
        assert_eq!(rates(30, 15, 3_000), (30, 100, Some(170_000)));
        // What was before 30 seconds ago no longer counts.
        assert_eq!(rates(60, 75, 33_000), (120, 1_000, Some(12_500)));
    }

    #[test]
    fn a_listing_that_is_written_anew_starts_the_rates_anew() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        pace.update(&mut counted(50, 500), start);
        let mut statistics = counted(10, 500);
        pace.update(&mut statistics, start + Duration::from_secs(5));
        assert_eq!(statistics.documents_per_minute, 0);
    }
}
