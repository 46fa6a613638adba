//! Wake-ups inside one process.
//!
//! A wake-up only says "look": it carries no truth and may be lost or doubled without harm, because
//! whoever is woken reads the database, and reads it by the clock as well.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::domain::ids::InvocationId;

/// Changed ids that are remembered one by one; beyond it "look at everything" takes their place.
const MAX_REMEMBERED: usize = 4_096;

/// Tells workers that an invocation may be waiting.
#[derive(Debug, Clone, Default)]
pub struct WorkSignal(Arc<Notify>);

impl WorkSignal {
    /// Wakes one worker, now or when it next waits.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Waits for a wake-up; one given since the last wait counts.
    pub async fn wait(&self) {
        self.0.notified().await;
    }
}

/// Tells the watch hub which invocations changed.
#[derive(Debug, Clone, Default)]
pub struct ChangeSignal(Arc<Changes>);

#[derive(Debug, Default)]
struct Changes {
    notify: Notify,
    pending: Mutex<HashSet<InvocationId>>,
}

/// What changed since the hub last looked.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed {
    /// These invocations.
    These(HashSet<InvocationId>),
    /// More than are remembered one by one.
    Many,
}

impl ChangeSignal {
    /// Says that an invocation changed, after the change was committed.
    pub fn changed(&self, id: InvocationId) {
        let mut pending = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() < MAX_REMEMBERED {
            pending.insert(id);
        }
        drop(pending);
        self.0.notify.notify_one();
    }

    /// Waits for changes and takes them.
    pub async fn wait(&self) -> Changed {
        self.0.notify.notified().await;
        let mut pending = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::take(&mut *pending);
        if taken.len() < MAX_REMEMBERED {
            Changed::These(taken)
        } else {
            Changed::Many
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_made_before_the_wait_is_not_lost() {
        let signal = ChangeSignal::default();
        let id = InvocationId::generate();
        signal.changed(id);
        signal.changed(id);
        assert_eq!(signal.wait().await, Changed::These(HashSet::from([id])));
    }

    #[tokio::test]
    async fn too_many_changes_become_look_at_everything() {
        let signal = ChangeSignal::default();
        for _ in 0..=MAX_REMEMBERED {
            signal.changed(InvocationId::generate());
        }
        assert_eq!(signal.wait().await, Changed::Many);
    }
}
