//! What became of messages and events, counted since the process started.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts that only grow. Shared by reference; each is read by itself.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages that were done with and deleted.
    pub messages_handled: Count,
    /// Messages that were left, to be received again.
    pub messages_left: Count,
    /// Messages that nobody will ever be able to read, left to the queue's dead-letter policy.
    pub messages_unreadable: Count,
    /// Events of buckets that no source follows.
    pub events_of_unknown_buckets: Count,
    /// Events that no source follows: another prefix, another mode, a folder.
    pub events_passed_over: Count,
    /// Invocations created to sync an object.
    pub invocations_created: Count,
    /// Invocations created to remove a document.
    pub removals_created: Count,
    /// Events that led to an invocation before.
    pub repeated: Count,
}

/// One count.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
