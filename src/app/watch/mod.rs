//! Watching: streams of states that cannot lose the ending.
//!
//! `hub` reads changes for the whole process, `topic` keeps those of one invocation for its streams, as they
//! are in `shared`, `one` follows an invocation and `many` the feed. The database is the truth; nothing here is
//! remembered that it does not say. Invariants: the state changes of an invocation come to a stream in the
//! order of their revisions, none is skipped, none comes twice; nothing follows a terminal state; a stream
//! ends with an error only when the server drains, the database is away, or the caller's token is no longer
//! good. A stream that is not read keeps its place and nothing else, so it delays nobody and costs no
//! memory, and goes on from there.

mod callers;
mod hub;
mod many;
mod one;
mod shared;
mod topic;

use std::{sync::Arc, time::Duration};

pub use hub::{WatchHub, WatchOptions};
pub use many::{FeedUpdate, FeedUpdateKind, ResumeToken, WatchFilter, WatchStart};
pub use shared::SharedInvocation;

use crate::{
    domain::time::Timestamp,
    error::{Error, Reason},
};

/// What a client is told to wait before it connects again.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateKind {
    /// The invocation as it is at the start of the stream.
    Snapshot,
    /// The invocation as it was after one state change.
    StateChanged,
    /// Phase, counts, attempt or commit changed.
    Progress,
    /// Nothing changed; the stream is alive.
    Heartbeat,
}

/// One message of a watch of one invocation.
#[derive(Debug, Clone)]
pub struct Update {
    /// What it is about.
    pub kind: UpdateKind,
    /// The whole invocation.
    pub invocation: Arc<SharedInvocation>,
    /// When the server made the message.
    pub time: Timestamp,
}

fn draining() -> Error {
    Error::new(
        Reason::Draining,
        "the server is shutting down; connect again with the last revision seen",
    )
    .with_retry_after(RECONNECT_DELAY)
}
