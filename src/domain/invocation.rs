//! Invocations: runs of a source into one collection, and the states they pass through.
//!
//! `pending -> processing -> complete | failed`, `pending -> cancelled`; a retry stays `processing`
//! and nothing moves back. The state carries its own data, so a complete invocation without a finish
//! time cannot exist. `revision` counts the state changes, from 1 at creation.

pub use super::input::{DEFAULT_BRANCH, GitReference, InvocationInput, S3Objects, UploadedFile};
use super::{
    chunking::Chunking,
    embedding::Embedding,
    ids::{InvocationId, SourceId},
    names::{CollectionName, DatabaseName, TenantName},
    source::{GithubAppId, RepositoryName, SourceSettings, SourceType},
    time::Timestamp,
    webhook::{Webhook, WebhookDelivery},
};
use crate::error::FieldViolation;

/// Names of the states, without their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    /// Waits for a worker.
    Pending,
    /// A worker has it, or will try again.
    Processing,
    /// Everything is in the collection.
    Complete,
    /// Ended with a failure.
    Failed,
    /// Was cancelled before a worker took it.
    Cancelled,
}

impl StateName {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Processing,
        Self::Complete,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state with this name; the violation names `field`.
    pub fn parse(field: &str, name: &str) -> Result<Self, FieldViolation> {
        Self::ALL
            .into_iter()
            .find(|known| known.as_str() == name)
            .ok_or_else(|| {
                let names: Vec<&str> = Self::ALL.iter().map(|known| known.as_str()).collect();
                FieldViolation::new(field, format!("must be one of {}, is {name:?}", names.join(", ")))
            })
    }

    /// The states from which this one may be entered. SQL transitions repeat them in their WHERE.
    pub const fn legal_predecessors(self) -> &'static [Self] {
        match self {
            Self::Pending => &[],
            Self::Processing | Self::Cancelled => &[Self::Pending],
            Self::Complete | Self::Failed => &[Self::Processing],
        }
    }

    /// Whether nothing follows this state.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Pending | Self::Processing => false,
            Self::Complete | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// Why an invocation failed, in words for its owner.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// Stable identifier, UPPER_SNAKE_CASE, listed in `docs/errors.md`.
    pub reason: String,
    /// What happened and what to do about it.
    pub message: String,
}

/// The state of an invocation with the data that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Waits for a worker.
    Pending,
    /// A worker has it, or will try again.
    Processing {
        /// When the first attempt began.
        start_time: Timestamp,
    },
    /// Everything is in the collection.
    Complete {
        /// When the first attempt began.
        start_time: Timestamp,
        /// When it ended.
        finish_time: Timestamp,
    },
    /// Ended with a failure.
    Failed {
        /// When the first attempt began.
        start_time: Timestamp,
        /// When it ended.
        finish_time: Timestamp,
        /// Why.
        failure: Failure,
    },
    /// Was cancelled before a worker took it.
    Cancelled {
        /// When it was cancelled.
        finish_time: Timestamp,
    },
}

impl State {
    /// The state's name.
    pub const fn name(&self) -> StateName {
        match self {
            Self::Pending => StateName::Pending,
            Self::Processing { .. } => StateName::Processing,
            Self::Complete { .. } => StateName::Complete,
            Self::Failed { .. } => StateName::Failed,
            Self::Cancelled { .. } => StateName::Cancelled,
        }
    }

    /// When the first attempt began.
    pub const fn start_time(&self) -> Option<Timestamp> {
        match self {
            Self::Pending | Self::Cancelled { .. } => None,
            Self::Processing { start_time }
            | Self::Complete { start_time, .. }
            | Self::Failed { start_time, .. } => Some(*start_time),
        }
    }

    /// When it ended.
    pub const fn finish_time(&self) -> Option<Timestamp> {
        match self {
            Self::Pending | Self::Processing { .. } => None,
            Self::Complete { finish_time, .. }
            | Self::Failed { finish_time, .. }
            | Self::Cancelled { finish_time } => Some(*finish_time),
        }
    }
}

/// What a caller asks for when creating an invocation; everything is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInvocation {
    /// Where the records go.
    pub collection: CollectionName,
    /// What is synced.
    pub input: InvocationInput,
    /// Where its state changes are sent to; none for where the source says.
    pub webhook: Option<Webhook>,
    /// Whether the collection may hold a finished sync, which is brought up to date then.
    pub update_collection: bool,
}

/// What an attempt is doing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not started.
    #[default]
    Queued,
    /// Fetches and lists the documents.
    Fetching,
    /// Chunks, embeds and indexes them.
    Indexing,
    /// Deletes what is gone and marks the collection.
    Finishing,
    /// Waits before the next attempt; `wait` says until when and for what.
    Waiting,
    /// Ended.
    Done,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Fetching,
        Self::Indexing,
        Self::Finishing,
        Self::Waiting,
        Self::Done,
    ];

    /// The name in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Fetching => "fetching",
            Self::Indexing => "indexing",
            Self::Finishing => "finishing",
            Self::Waiting => "waiting",
            Self::Done => "done",
        }
    }

    /// The phase with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == name)
    }
}

/// Why and until when an invocation waits.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wait {
    /// When the next attempt may begin.
    pub until: Timestamp,
    /// What is waited for, in words.
    pub cause: String,
}

/// Counts of what an invocation has done so far. Documents that ended add up to `discovered`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// Documents found at the source, and those found gone from it.
    #[serde(skip_serializing_if = "is_zero")]
    pub documents_discovered: u64,
    /// Documents whose records are in the collection.
    #[serde(skip_serializing_if = "is_zero")]
    pub documents_indexed: u64,
    /// Those of the indexed ones whose records were copied from another collection of the source.
    #[serde(skip_serializing_if = "is_zero")]
    pub documents_copied: u64,
    /// Documents whose version was in the collection already.
    #[serde(skip_serializing_if = "is_zero")]
    pub documents_unchanged: u64,
    /// Documents gone from the source, deleted from the collection.
    #[serde(skip_serializing_if = "is_zero")]
    pub documents_removed: u64,
    /// Documents left out by a rule.
    #[serde(skip_serializing_if = "is_zero")]
    pub documents_skipped: u64,
    /// Documents that could not be processed.
    #[serde(skip_serializing_if = "is_zero")]
    pub documents_failed: u64,
    /// Records written.
    #[serde(skip_serializing_if = "is_zero")]
    pub chunks_indexed: u64,
    /// Bytes of text in those records.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes_indexed: u64,
    /// Tokens the model read for them, now or when a cached embedding was computed; those of copied documents
    /// are not known.
    #[serde(skip_serializing_if = "is_zero")]
    pub tokens_embedded: u64,
    /// Chunks of which the model read only the beginning.
    #[serde(skip_serializing_if = "is_zero")]
    pub chunks_truncated: u64,
    /// Embeddings that the model computed, in all attempts.
    #[serde(skip_serializing_if = "is_zero")]
    pub embeddings_computed: u64,
    /// Embeddings that were computed before and came from the cache, in all attempts.
    #[serde(skip_serializing_if = "is_zero")]
    pub embeddings_cached: u64,
    /// Milliseconds of work in the fetch stage.
    #[serde(skip_serializing_if = "is_zero")]
    pub fetch_ms: u64,
    /// Milliseconds of work in the chunk stage.
    #[serde(skip_serializing_if = "is_zero")]
    pub chunk_ms: u64,
    /// Milliseconds of work in the embed stage.
    #[serde(skip_serializing_if = "is_zero")]
    pub embed_ms: u64,
    /// Milliseconds of work in the index stage.
    #[serde(skip_serializing_if = "is_zero")]
    pub index_ms: u64,
    /// Documents that ended a minute, lately; 0 while nothing is indexed.
    #[serde(skip_serializing_if = "is_zero")]
    pub documents_per_minute: u64,
    /// Tokens that the model read a second, lately; 0 while nothing is indexed.
    #[serde(skip_serializing_if = "is_zero")]
    pub tokens_per_second: u64,
}

/// Zeros are what a field that is left out stands for, and most fields are zero most of the time.
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Statistics {
    /// Documents of which the end is known.
    pub fn documents_done(&self) -> u64 {
        self.documents_indexed
            + self.documents_unchanged
            + self.documents_removed
            + self.documents_skipped
            + self.documents_failed
    }
}

/// How far an invocation has come. Changes often and never counts as a state change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// What the attempt is doing.
    pub phase: Phase,
    /// Set while `phase` is waiting.
    pub wait: Option<Wait>,
    /// Counts.
    pub statistics: Statistics,
}

impl Progress {
    /// Documents that are left; none before all have been discovered, and afterwards.
    pub fn documents_left(&self) -> Option<u64> {
        let counts = &self.statistics;
        let left = counts
            .documents_discovered
            .saturating_sub(counts.documents_done());
        (self.phase == Phase::Indexing).then_some(left)
    }

    /// How long the rest takes if it goes on as lately, in milliseconds; none when nothing is known to be left,
    /// or nothing has ended lately.
    pub fn time_left_ms(&self) -> Option<u64> {
        let left = self.documents_left()?.saturating_mul(60_000);
        left.checked_div(self.statistics.documents_per_minute)
    }
}

/// A stored invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Its id.
    pub id: InvocationId,
    /// Whose it is.
    pub tenant: TenantName,
    /// The source it runs; none once the source was deleted.
    pub source_id: Option<SourceId>,
    /// Database it writes to.
    pub database: DatabaseName,
    /// Collection it writes to.
    pub collection: CollectionName,
    /// What is synced.
    pub input: InvocationInput,
    /// The state, with its data.
    pub state: State,
    /// Number of state changes so far; 1 is the creation.
    pub revision: u64,
    /// Number of progress reports so far; a hint that something changed.
    pub progress_version: u64,
    /// How far it has come.
    pub progress: Progress,
    /// Which attempt is the current or last one; 0 before the first.
    pub attempt: u32,
    /// The commit that the reference led to, once known.
    pub resolved_commit: Option<String>,
    /// When it was created.
    pub create_time: Timestamp,
    /// Where its state changes are sent to.
    pub webhook: Option<Webhook>,
    /// How far that has come; none where the invocation is shown as it was at a state change.
    pub webhook_delivery: Option<WebhookDelivery>,
}

/// The settings an attempt works with: those of the source when the invocation was created, so
/// that deleting the source does not disturb it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Settings of the source's type.
    pub settings: SourceSettings,
    /// The model.
    pub embedding: Embedding,
    /// The chunking.
    pub chunking: Chunking,
}

/// Which invocations a listing shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InvocationFilter {
    /// Only those of this source.
    pub source_id: Option<SourceId>,
    /// Only those of this database.
    pub database: Option<DatabaseName>,
    /// Only those of sources of this type.
    pub source_type: Option<SourceType>,
    /// Only those of sources with this GitHub App.
    pub github_app_id: Option<GithubAppId>,
    /// Only those of sources of this repository.
    pub github_repository: Option<RepositoryName>,
    /// Only those in this state.
    pub state: Option<StateName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_states_are_no_ones_predecessor() {
        for state in StateName::ALL {
            for next in StateName::ALL {
                if next.legal_predecessors().contains(&state) {
                    assert!(!state.is_terminal(), "{state:?} -> {next:?}");
                }
            }
        }
    }
}
