//! Wake-ups inside one process, and what is to be told to other processes.
//!
//! A wake-up mostly says "look": it carries no truth and may be lost or doubled without harm, because
//! whoever is woken reads the database, and reads it by the clock as well. A state change of this process comes
//! with what was committed, so that its watches need not read it; it may be lost or doubled like any other. What
//! happened in this process goes to both sides, inside and outside; what was heard from outside stays inside.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::domain::{ids::InvocationId, invocation::Invocation, webhook::Webhook};

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
    entered: Entered,
    /// For deliveries to webhooks, which look for what is due whatever changed.
    deliveries: Notify,
}

/// What one side has not taken yet.
#[derive(Debug, Default)]
struct Pending {
    notify: Notify,
    changed: Mutex<Option<Changed>>,
}

/// State changes of this process that have not been taken yet.
#[derive(Debug, Default)]
struct Entered {
    notify: Notify,
    invocations: Mutex<Vec<Arc<Invocation>>>,
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
        let mut pending = lock(&self.changed);
        let changed = pending.get_or_insert_default();
        if let Changed::These(ids) = changed {
            ids.extend(more.into_iter().take(MAX_REMEMBERED));
            if ids.len() >= MAX_REMEMBERED {
                *changed = Changed::Many;
            }
        }
        drop(pending);
        self.notify.notify_one();
    }

    fn add_many(&self) {
        *lock(&self.changed) = Some(Changed::Many);
        self.notify.notify_one();
    }

    fn take(&self) -> Option<Changed> {
        lock(&self.changed).take()
    }
}

impl ChangeSignal {
    /// Says that an invocation entered a state in this process, after that was committed, and how it is since. What a
    /// state change is told without, the delivery to its webhook and what only its creator is shown, is left out.
    pub fn entered(&self, invocation: &Invocation) {
        let webhook = invocation.webhook.as_ref();
        let entered = Arc::new(Invocation {
            webhook: webhook.map(|webhook| Webhook::shown(webhook.url.clone())),
            webhook_delivery: None,
            ..invocation.clone()
        });
        let mut untaken = lock(&self.0.entered.invocations);
        let remembered = untaken.len() < MAX_REMEMBERED;
        if remembered {
            untaken.push(entered);
        }
        drop(untaken);
        if invocation.webhook.is_some() {
            self.0.deliveries.notify_one();
        }
        self.0.outside.add([invocation.id]);
        if remembered {
            self.0.inside.notify.notify_one();
        } else {
            self.0.inside.add_many();
        }
        // The task that is woken last runs first.
        self.0.entered.notify.notify_one();
    }

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

    /// Waits for state changes of this process and takes them: how the invocations are since, those of one in the
    /// order of their commits.
    pub async fn wait_entered(&self) -> Vec<Arc<Invocation>> {
        self.0.entered.notify.notified().await;
        std::mem::take(&mut *lock(&self.0.entered.invocations))
    }

    /// Waits for changes and takes them; none when there was nothing but what [`ChangeSignal::wait_entered`] says.
    pub async fn wait(&self) -> Option<Changed> {
        self.0.inside.notify.notified().await;
        self.0.inside.take()
    }

    /// Waits for a change that may be due for a webhook; one since the last wait counts.
    pub async fn wait_to_deliver(&self) {
        self.0.deliveries.notified().await;
    }

    /// Waits for changes that other processes are to be told of, and takes them.
    pub async fn wait_to_tell(&self) -> Changed {
        self.0.outside.notify.notified().await;
        self.0.outside.take().unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::FutureExt;

    use super::*;
    use crate::domain::{
        input::InvocationInput,
        invocation::{Progress, State},
        names::{CollectionName, DatabaseName, TenantName},
        time::Timestamp,
        webhook::{DeliveryState, WebhookDelivery, WebhookUrl, parse_signing_secret},
    };

    #[tokio::test]
    async fn changes_that_come_before_the_wait_are_taken_together() {
        let signal = ChangeSignal::default();
        let (one, two) = (InvocationId::generate(), InvocationId::generate());
        signal.changed(one);
        signal.changed(two);
        signal.changed(one);
        let changed = signal.wait().await;
        assert_eq!(changed, Some(Changed::These(HashSet::from([one, two]))));
    }

    #[tokio::test]
    async fn more_changes_than_are_remembered_are_many() {
        let signal = ChangeSignal::default();
        for _ in 0..=MAX_REMEMBERED {
            signal.changed(InvocationId::generate());
        }
        assert_eq!(signal.wait().await, Some(Changed::Many));
    }

    #[tokio::test]
    async fn what_was_heard_is_not_told_again() {
        let signal = ChangeSignal::default();
        let (ours, theirs) = (InvocationId::generate(), InvocationId::generate());
        signal.heard(vec![theirs]);
        signal.changed(ours);
        assert_eq!(signal.wait_to_tell().await, Changed::These(HashSet::from([ours])));
        let changed = signal.wait().await;
        assert_eq!(changed, Some(Changed::These(HashSet::from([ours, theirs]))));
    }
    #[tokio::test]
    async fn a_state_change_comes_as_it_is_told_and_others_hear_of_it() {
        let url = WebhookUrl::from_stored("https://hooks.example/").unwrap();
        let told = Invocation {
            id: InvocationId::generate(),
            tenant: TenantName::from_stored("tenant".to_owned()),
            source_id: None,
            database: DatabaseName::from_stored("database".to_owned()),
            collection: CollectionName::from_stored("collection".to_owned()),
            input: InvocationInput::WebScrape,
            state: State::Cancelled {
                finish_time: Timestamp(1),
            },
            revision: 2,
            progress_version: 2,
            progress: Progress::default(),
            attempt: 0,
            resolved_commit: None,
            create_time: Timestamp(0),
            webhook: Some(Webhook::shown(url.clone())),
            webhook_delivery: None,
        };
        let secret = format!("whsec_{}", "x".repeat(32));
        let secret = parse_signing_secret("signing_secret", &secret).unwrap();
        let shown_to_its_creator = Invocation {
            webhook: Some(Webhook::requested(url, Some(secret))),
            webhook_delivery: Some(WebhookDelivery {
                state: DeliveryState::Pending,
                delivered_revision: 1,
                attempts: 0,
                given_up: 0,
                last_error: None,
                next_attempt_time: None,
            }),
            ..told.clone()
        };
        let signal = ChangeSignal::default();
        signal.entered(&shown_to_its_creator);
        assert_eq!(signal.wait_entered().await, [Arc::new(told.clone())]);
        assert_eq!(signal.wait().await, None);
        assert_eq!(
            signal.wait_to_tell().await,
            Changed::These(HashSet::from([told.id]))
        );
        assert_eq!(signal.wait_to_deliver().now_or_never(), Some(()));
        signal.entered(&Invocation {
            webhook: None,
            ..told.clone()
        });
        // Nothing is due for a webhook where there is none.
        assert_eq!(signal.wait_to_deliver().now_or_never(), None);
        signal.wait_entered().await;
        for _ in 0..=MAX_REMEMBERED {
            signal.entered(&told);
        }
        assert_eq!(signal.wait_entered().await.len(), MAX_REMEMBERED);
        assert_eq!(signal.wait().await, Some(Changed::Many));
    }
}
