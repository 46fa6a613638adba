//! Wake-ups inside one process, and what is to be told to other processes.
//!
//! A wake-up only says "look": it carries no truth and may be lost or doubled without harm, because
//! whoever is woken reads the database, and reads it by the clock as well. What happened in this process
//! goes to both sides, inside and outside; what was heard from outside stays inside.

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
pub struct WorkSignal(Arc<Work>);

#[derive(Debug, Default)]
struct Work {
    inside: Notify,
    outside: Notify,
}

impl WorkSignal {
    /// Wakes one worker, now or when it next waits, here and in other processes.
    pub fn wake(&self) {
        self.0.inside.notify_one();
        self.0.outside.notify_one();
    }

    /// Wakes one worker of this process.
    pub fn heard(&self) {
        self.0.inside.notify_one();
    }

    /// Waits for a wake-up; one given since the last wait counts.
    pub async fn wait(&self) {
        self.0.inside.notified().await;
    }

    /// Waits for a wake-up that other processes are to be told of.
    pub async fn wait_to_tell(&self) {
        self.0.outside.notified().await;
    }
}

/// Tells which invocations changed.
#[derive(Debug, Clone, Default)]
pub struct ChangeSignal(Arc<Changes>);

#[derive(Debug, Default)]
struct Changes {
    inside: Pending,
    outside: Pending,
    /// For deliveries to webhooks, which look for what is due whatever changed.
    deliveries: Notify,
}

/// What one side has not taken yet.
#[derive(Debug, Default)]
struct Pending {
    notify: Notify,
    changed: Mutex<Changed>,
}

/// What changed since somebody last looked.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed {
    /// These invocations; none when only the feed has grown.
    These(HashSet<InvocationId>),
    /// More than are remembered one by one.
    Many,
}

impl Changed {
    /// Adds what changed since.
    pub fn join(&mut self, later: Self) {
        match (&mut *self, later) {
            (Self::These(ids), Self::These(more)) if ids.len() < MAX_REMEMBERED => ids.extend(more),
            (Self::Many, _) | (Self::These(_), Self::Many | Self::These(_)) => *self = Self::Many,
        }
    }

    /// Whether nothing changed.
    pub fn is_none(&self) -> bool {
        match self {
            Self::These(ids) => ids.is_empty(),
            Self::Many => false,
        }
    }
}

impl Default for Changed {
    fn default() -> Self {
        Self::These(HashSet::new())
    }
}

impl Pending {
    fn add(&self, more: impl IntoIterator<Item = InvocationId>) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Changed::These(ids) = &mut *changed {
            ids.extend(more.into_iter().take(MAX_REMEMBERED));
            if ids.len() >= MAX_REMEMBERED {
                *changed = Changed::Many;
            }
        }
        drop(changed);
        self.notify.notify_one();
    }

    fn add_many(&self) {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = Changed::Many;
        self.notify.notify_one();
    }

    async fn take(&self) -> Changed {
        self.notify.notified().await;
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ChangeSignal {
    /// Says that this process changed an invocation, after the change was committed.
    pub fn changed(&self, id: InvocationId) {
        self.0.inside.add([id]);
        self.0.outside.add([id]);
        self.0.deliveries.notify_one();
    }

    /// Says which invocations some process has changed, as was heard from it.
    pub fn heard(&self, ids: Vec<InvocationId>) {
        self.0.inside.add(ids);
        self.0.deliveries.notify_one();
    }

    /// Says that any invocation may have changed.
    pub fn heard_many(&self) {
        self.0.inside.add_many();
        self.0.deliveries.notify_one();
    }

    /// Waits for changes and takes them.
    pub async fn wait(&self) -> Changed {
        self.0.inside.take().await
    }

    /// Waits for a change that may be due for a webhook; one since the last wait counts.
    pub async fn wait_to_deliver(&self) {
        self.0.deliveries.notified().await;
    }

    /// Waits for changes that other processes are to be told of, and takes them.
    pub async fn wait_to_tell(&self) -> Changed {
        self.0.outside.take().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_that_come_before_the_wait_are_taken_together() {
        let signal = ChangeSignal::default();
        let (one, two) = (InvocationId::generate(), InvocationId::generate());
        signal.changed(one);
        signal.changed(two);
        signal.changed(one);
        assert_eq!(signal.wait().await, Changed::These(HashSet::from([one, two])));
    }

    #[tokio::test]
    async fn more_changes_than_are_remembered_are_many() {
        let signal = ChangeSignal::default();
        for _ in 0..=MAX_REMEMBERED {
            signal.changed(InvocationId::generate());
        }
        assert_eq!(signal.wait().await, Changed::Many);
    }

    #[tokio::test]
    async fn what_was_heard_is_not_told_again() {
        let signal = ChangeSignal::default();
        let (ours, theirs) = (InvocationId::generate(), InvocationId::generate());
        signal.heard(vec![theirs]);
        signal.changed(ours);
        assert_eq!(signal.wait_to_tell().await, Changed::These(HashSet::from([ours])));
        assert_eq!(signal.wait().await, Changed::These(HashSet::from([ours, theirs])));
    }
}
