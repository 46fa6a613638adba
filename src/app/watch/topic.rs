//! What the hub knows of one watched invocation, shared by all of its streams.
//!
//! Invariant: `events` has the newest state changes without a gap, and the head is never ahead of what
//! can be read: from `events`, or where those begin too late, from the table.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::shared::SharedInvocation;
use crate::{
    domain::{
        ids::InvocationId,
        invocation::{Invocation, StateName},
    },
    error::Result,
    store::Store,
};

/// State changes that are kept; what came before is read from the table. An invocation has three.
const EVENTS_KEPT: usize = 64;
/// State changes that one read of the table returns at most.
const EVENTS_A_READ: u32 = 64;

/// How far an invocation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Head {
    pub(super) revision: u64,
    pub(super) progress_version: u64,
    /// The server shuts down; no stream gets any further.
    pub(super) draining: bool,
}

/// One watched invocation.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) id: InvocationId,
    head: watch::Sender<Head>,
    known: Mutex<Known>,
    /// Held by the one stream that reads the table for all.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    /// By revision, each one more than the one before.
    events: VecDeque<Arc<SharedInvocation>>,
    /// As it was last read.
    latest: Option<Arc<SharedInvocation>>,
}

impl Known {
    fn event_after(&self, revision: u64) -> Option<Arc<SharedInvocation>> {
        let first = self.events.front()?.revision;
        let index = usize::try_from((revision + 1).checked_sub(first)?).ok()?;
        self.events.get(index).cloned()
    }

    fn add_event(&mut self, event: Arc<SharedInvocation>) {
        match self.events.back().map(|newest| newest.revision) {
            Some(newest) if event.revision <= newest => return,
            Some(newest) if event.revision > newest + 1 => self.events.clear(),
            Some(_) | None => {}
        }
        self.events.push_back(event);
        if self.events.len() > EVENTS_KEPT {
            self.events.pop_front();
        }
    }

    fn add_latest(&mut self, invocation: &Arc<SharedInvocation>) {
        let newer = self
            .latest
            .as_ref()
            .is_none_or(|latest| version(invocation) > version(latest));
        if newer {
            self.latest = Some(Arc::clone(invocation));
        }
    }
}

fn version(invocation: &Invocation) -> (u64, u64) {
    (invocation.revision, invocation.progress_version)
}

impl Topic {
    pub(super) fn new(id: InvocationId) -> Self {
        Self {
            id,
            head: watch::Sender::default(),
            known: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// How many streams there are of it.
    pub(super) fn watches(&self) -> usize {
        self.head.receiver_count()
    }

    /// Whether the invocation may make progress: it is in work, as far as is known.
    pub(super) fn makes_progress(&self) -> bool {
        self.with(|known| {
            let latest = known.latest.as_ref();
            latest.is_none_or(|latest| latest.state.name() == StateName::Processing)
        })
    }

    /// Takes a committed state change over. From the feed they come in the order of their revisions; one of this
    /// process may come before an earlier one of another process, which is then read from the table.
    pub(super) fn add_event(&self, event: Arc<SharedInvocation>) {
        let version = version(&event);
        self.with(|known| {
            known.add_latest(&event);
            known.add_event(event);
        });
        self.raise(version);
    }

    /// Takes over how the invocation is now.
    pub(super) fn add_latest(&self, invocation: Arc<SharedInvocation>) -> Arc<SharedInvocation> {
        let version = version(&invocation);
        let latest = self.with(|known| {
            known.add_latest(&invocation);
            known.latest.clone().unwrap_or(invocation)
        });
        self.raise(version);
        latest
    }

    pub(super) fn drain(&self) {
        self.head.send_modify(|head| head.draining = true);
    }

    /// The newest that is known of the state `revision`.
    pub(super) fn latest_of(&self, revision: u64) -> Option<Arc<SharedInvocation>> {
        self.with(|known| known.latest.clone())
            .filter(|latest| latest.revision == revision)
    }

    /// The state change after `revision`, which the caller knows to have happened. However many streams ask
    /// for it, one of them reads the table.
    pub(super) async fn event_after(
        &self,
        revision: u64,
        store: &Store,
    ) -> Result<Option<Arc<SharedInvocation>>> {
        if let Some(event) = self.with(|known| known.event_after(revision)) {
            return Ok(Some(event));
        }
        // In a box, so that its size is not part of every open stream.
        Box::pin(self.read_after(revision, store)).await
    }

    async fn read_after(&self, revision: u64, store: &Store) -> Result<Option<Arc<SharedInvocation>>> {
        let _reading = self.reading.lock().await;
        if let Some(event) = self.with(|known| known.event_after(revision)) {
            return Ok(Some(event));
        }
        let events = store.events_after(self.id, revision, EVENTS_A_READ).await?;
        let events = events
            .into_iter()
            .map(|event| SharedInvocation::new(event.invocation));
        let events: Vec<_> = events.collect();
        let next = events.first().cloned();
        self.with(|known| {
            // What was read may begin before what is kept and reach into it.
            let newer: Vec<_> = known.events.drain(..).collect();
            for event in events.into_iter().chain(newer) {
                known.add_event(event);
            }
        });
        Ok(next)
    }

    fn raise(&self, (revision, progress_version): (u64, u64)) {
        self.head.send_if_modified(|head| {
            let newer = revision > head.revision || progress_version > head.progress_version;
            head.revision = head.revision.max(revision);
            head.progress_version = head.progress_version.max(progress_version);
            newer
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
