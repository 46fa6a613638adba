//! One hub a process: it reads each change once and hands it to all streams that wait for it.
//!
//! It follows the feed of all state changes from the moment somebody watches. A wake-up, from this
//! process or another, only says "look"; the clock says it as well, so a wake-up that is lost costs a
//! polling period. A state change of this process comes with its wake-up and goes to the streams of that
//! invocation at once; the feed brings it again, which a topic passes over. Progress is no part of the feed: it is
//! read for the watched invocations that are in work, a little later and not as often, so that a state change
//! never waits for it.
//!
//! Invariant: the hub reads from a place in the feed that was its end before any open stream read its
//! first state, so whatever a stream has not read itself comes by.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    callers::{Callers, Limits},
    shared::SharedInvocation,
    topic::{Head, Topic},
};
use crate::{
    domain::ids::InvocationId,
    error::{Result, chain},
    store::{FeedFilter, PlacedEvent, Store},
    wake::{ChangeSignal, Changed},
};

/// Events that one read of the feed returns at most.
const EVENTS_A_READ: u64 = 500;
/// Events of the feed that are kept for its streams; what came before is read from the table.
const EVENTS_KEPT: usize = 4_096;
/// How long progress is gathered before it is read and handed on. State changes go at once.
const PROGRESS_PERIOD: Duration = Duration::from_millis(250);
/// Streams that read at once what is no longer kept.
const CATCHING_UP: usize = 4;

/// How watches behave.
#[derive(Debug, Clone, Copy)]
pub struct WatchOptions {
    /// Silence after which a heartbeat is sent.
    pub heartbeat: Duration,
    /// How often the database is read for changes that no wake-up told of.
    pub poll: Duration,
    /// Streams open at once in this process.
    pub max_streams: usize,
    /// Streams open at once with one token in this process.
    pub max_streams_per_key: usize,
}

/// The hub; clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct WatchHub(Arc<Hub>);

#[derive(Debug)]
pub(super) struct Hub {
    pub(super) store: Store,
    pub(super) options: WatchOptions,
    pub(super) callers: Arc<Callers>,
    changes: ChangeSignal,
    drain: CancellationToken,
    topics: Mutex<HashMap<InvocationId, Arc<Topic>>>,
    feed: Feed,
    /// Turns of streams that read what is no longer kept.
    pub(super) catching_up: Semaphore,
}

/// The end of the feed, as far as the hub has read it.
#[derive(Debug)]
struct Feed {
    /// The place up to which everything has been handed on; none while nobody watches.
    read_to: tokio::sync::Mutex<Option<u64>>,
    head: watch::Sender<FeedHead>,
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    /// Everything after this place is in `events`.
    after: u64,
    events: VecDeque<Arc<FeedEvent>>,
}

/// An event of the feed.
#[derive(Debug)]
pub(super) struct FeedEvent {
    pub(super) placed: PlacedEvent,
    /// As it is told.
    pub(super) invocation: Arc<SharedInvocation>,
}

impl From<PlacedEvent> for FeedEvent {
    fn from(placed: PlacedEvent) -> Self {
        Self {
            invocation: SharedInvocation::new(Arc::clone(&placed.event.invocation)),
            placed,
        }
    }
}

/// How far the feed goes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FeedHead {
    pub(super) sequence: u64,
    pub(super) draining: bool,
}

impl WatchHub {
    /// A hub over `store`; `drain` ends all of its streams.
    pub fn new(store: Store, options: WatchOptions, changes: ChangeSignal, drain: CancellationToken) -> Self {
        let limits = Limits {
            all: options.max_streams,
            each: options.max_streams_per_key,
        };
        Self(Arc::new(Hub {
            store,
            options,
            callers: Callers::new(limits),
            changes,
            drain,
            topics: Mutex::default(),
            feed: Feed {
                read_to: tokio::sync::Mutex::default(),
                head: watch::Sender::default(),
                recent: Mutex::default(),
            },
            catching_up: Semaphore::new(CATCHING_UP),
        }))
    }

    /// Hands on changes until the hub drains. One task a process runs this.
    pub async fn run(self) {
        let hub = &self.0;
        // Apart, so that what this process changes never waits for a read.
        tokio::join!(hub.tell_entered(), hub.read_changes());
        for topic in hub.topics().values() {
            topic.drain();
        }
        hub.feed.head.send_modify(|head| head.draining = true);
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.0
    }
}

impl Hub {
    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Tells state changes of this process to those who watch these invocations, before they are read from the feed,
    /// until the hub drains.
    async fn tell_entered(&self) {
        loop {
            let entered = tokio::select! {
                biased;
                () = self.drain.cancelled() => return,
                entered = self.changes.wait_entered() => entered,
            };
            for invocation in entered {
                if let Some(topic) = self.topic(invocation.id) {
                    topic.add_event(SharedInvocation::new(invocation));
                }
            }
        }
    }

    /// Reads what changes, until the hub drains.
    async fn read_changes(&self) {
        let mut tick = tokio::time::interval(self.options.poll);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progressed = Changed::default();
        let mut progress_at = Instant::now();
        loop {
            let looked = tokio::select! {
                biased;
                () = self.drain.cancelled() => break,
                changed = self.changes.wait() => match changed {
                    Some(changed) => {
                        if progressed.is_none() {
                            progress_at = Instant::now() + PROGRESS_PERIOD;
                        }
                        progressed.join(changed);
                        self.read_feed().await
                    }
                    // Those who watch the invocation have been told; those who follow the feed have not.
                    None if self.feed.head.receiver_count() > 0 => self.read_feed().await,
                    None => Ok(()),
                },
                () = tokio::time::sleep_until(progress_at), if !progressed.is_none() => {
                    self.look_for_progress(std::mem::take(&mut progressed)).await
                }
                _ = tick.tick() => {
                    progressed = Changed::Many;
                    self.place_and_look().await
                }
            };
            if let Err(error) = looked {
                tracing::warn!(error = %chain(&error), "the watch hub cannot read the database; will try again");
            }
        }
    }

    /// The topic of an invocation and what tells of its changes. Whatever changes from now on comes by.
    pub(super) async fn follow(&self, id: InvocationId) -> Result<(Arc<Topic>, watch::Receiver<Head>)> {
        let (topic, head) = {
            let mut topics = self.topics();
            let topic = topics.entry(id).or_insert_with(|| Arc::new(Topic::new(id)));
            (Arc::clone(topic), topic.subscribe())
        };
        self.start_reading().await?;
        if self.is_draining() {
            topic.drain();
        }
        Ok((topic, head))
    }

    /// What tells how far the feed goes.
    pub(super) async fn follow_feed(&self) -> Result<watch::Receiver<FeedHead>> {
        let head = self.feed.head.subscribe();
        self.start_reading().await?;
        Ok(head)
    }

    /// At most `limit` events after `sequence` that `filter` wants, and the place up to which that is all;
    /// none when some are no longer kept.
    pub(super) fn recent_events(
        &self,
        sequence: u64,
        filter: &FeedFilter,
        limit: usize,
    ) -> Option<(Vec<Arc<FeedEvent>>, u64)> {
        let recent = self.feed.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if sequence < recent.after {
            return None;
        }
        let start = recent
            .events
            .partition_point(|event| event.placed.sequence <= sequence);
        let wanted = recent
            .events
            .range(start..)
            .filter(|event| filter.matches(&event.placed));
        let wanted: Vec<_> = wanted.take(limit).cloned().collect();
        let end = match wanted.last() {
            Some(last) if wanted.len() >= limit => last.placed.sequence,
            Some(_) | None => recent
                .events
                .back()
                .map_or(recent.after, |event| event.placed.sequence),
        };
        Some((wanted, end.max(sequence)))
    }

    async fn start_reading(&self) -> Result<()> {
        let mut read_to = self.feed.read_to.lock().await;
        if read_to.is_none() {
            let head = self.store.feed_head().await?;
            *self.feed.recent.lock().unwrap_or_else(PoisonError::into_inner) = Recent {
                after: head,
                events: VecDeque::new(),
            };
            self.feed.head.send_modify(|known| known.sequence = head);
            *read_to = Some(head);
        }
        Ok(())
    }

    /// Forgets what nobody watches any more, places events whose process ended before it could, and looks.
    async fn place_and_look(&self) -> Result<()> {
        if self.is_watched().await {
            self.store.place_events().await?;
            self.read_feed().await?;
        }
        Ok(())
    }

    /// Reads how far watched invocations are that may have progressed.
    async fn look_for_progress(&self, progressed: Changed) -> Result<()> {
        let progressed = self.watched_among(progressed);
        for invocation in self.store.current(&progressed).await? {
            if let Some(topic) = self.topic(invocation.id) {
                topic.add_latest(SharedInvocation::new(Arc::new(invocation)));
            }
        }
        Ok(())
    }

    /// Drops topics that nobody watches any more, and stops reading when there is nobody at all.
    async fn is_watched(&self) -> bool {
        let mut read_to = self.feed.read_to.lock().await;
        let mut topics = self.topics();
        topics.retain(|_, topic| topic.watches() > 0);
        let watched = !topics.is_empty() || self.feed.head.receiver_count() > 0;
        if !watched {
            *read_to = None;
        }
        watched
    }

    /// Hands on all state changes since the last read, if anybody watches.
    async fn read_feed(&self) -> Result<()> {
        let mut read_to = self.feed.read_to.lock().await;
        let Some(mut place) = *read_to else {
            return Ok(());
        };
        loop {
            let events = self
                .store
                .feed_after(place, u64::MAX, &FeedFilter::default(), EVENTS_A_READ)
                .await?;
            let more = events.len() as u64 == EVENTS_A_READ;
            if let Some(last) = events.last() {
                place = last.sequence;
            }
            self.hand_on(events.into_iter().map(|event| Arc::new(event.into())).collect());
            *read_to = Some(place);
            if !more {
                return Ok(());
            }
        }
    }

    fn hand_on(&self, events: Vec<Arc<FeedEvent>>) {
        let Some(end) = events.last().map(|event| event.placed.sequence) else {
            return;
        };
        for event in &events {
            if let Some(topic) = self.topic(event.invocation.id) {
                topic.add_event(Arc::clone(&event.invocation));
            }
        }
        let mut recent = self.feed.recent.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            recent.events.push_back(event);
            if recent.events.len() > EVENTS_KEPT
                && let Some(oldest) = recent.events.pop_front()
            {
                recent.after = oldest.placed.sequence;
            }
        }
        drop(recent);
        self.feed.head.send_modify(|head| head.sequence = end);
    }

    /// The watched ones that are in work; nothing else makes progress.
    fn watched_among(&self, changed: Changed) -> Vec<InvocationId> {
        let topics = self.topics();
        let makes_progress = |id: &InvocationId| topics.get(id).is_some_and(|topic| topic.makes_progress());
        match changed {
            Changed::These(ids) => ids.into_iter().filter(makes_progress).collect(),
            Changed::Many => topics.keys().copied().filter(makes_progress).collect(),
        }
    }

    /// What is known of an invocation that somebody watches.
    fn topic(&self, id: InvocationId) -> Option<Arc<Topic>> {
        self.topics().get(&id).cloned()
    }

    fn topics(&self) -> std::sync::MutexGuard<'_, HashMap<InvocationId, Arc<Topic>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
