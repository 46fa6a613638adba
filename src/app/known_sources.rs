//! Sources that creations of invocations have read before.
//!
//! A source never changes, so what was read once can only be gone since. That an invocation was created from
//! it proves that it is not: the row refers to its source, and the database refuses it otherwise. So a
//! creation goes without reading its source again, and looks it up only before it says anything else than
//! that it succeeded (see [`App::create_invocation`](super::App::create_invocation)).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::domain::{ids::SourceId, source::Source};

/// Sources that are remembered at most; with one more all are forgotten, which costs each one reading.
const MAX_SOURCES: usize = 4_096;

/// Remembers sources by their ids.
#[derive(Debug, Default)]
pub(super) struct KnownSources(Mutex<HashMap<SourceId, Arc<Source>>>);

impl KnownSources {
    /// The source as it was read; the caller checks whether it may see it.
    pub(super) fn get(&self, id: SourceId) -> Option<Arc<Source>> {
        self.sources().get(&id).cloned()
    }

    pub(super) fn remember(&self, source: &Arc<Source>) {
        let mut sources = self.sources();
        if sources.len() >= MAX_SOURCES {
            sources.clear();
        }
        sources.insert(source.id, Arc::clone(source));
    }

    pub(super) fn forget(&self, id: SourceId) {
        self.sources().remove(&id);
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<SourceId, Arc<Source>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
