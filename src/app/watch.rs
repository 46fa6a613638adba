//! Watching an invocation: a stream of states that cannot lose the ending.
//!
//! The database is the truth. A wake-up only says "look", so a lost one costs a polling period and
//! nothing else. Invariants: revisions of state changes strictly increase and none is skipped, because
//! each stream reads the event table from its own last revision on; nothing follows a terminal state;
//! the stream ends with an error only when the server drains, the database is away, or the caller's token
//! is no longer good, which is looked at once a heartbeat.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{App, Auth, invocations::invocation_not_found};
use crate::{
    domain::{ids::InvocationId, invocation::Invocation, time::Timestamp},
    error::{Error, Reason, Result, chain},
    store::Store,
    wake::{ChangeSignal, Changed},
};

/// Events that one read of the event table returns at most.
const EVENTS_PER_READ: u32 = 64;
/// Ids that one read of the heads asks for at most.
const IDS_PER_READ: usize = 500;
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

/// One message of a watch.
#[derive(Debug, Clone)]
pub struct Update {
    /// What it is about.
    pub kind: UpdateKind,
    /// The whole invocation.
    pub invocation: Invocation,
    /// When the server made the message.
    pub time: Timestamp,
}

/// How far an invocation has come, as the hub last read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Head {
    revision: u64,
    progress_version: u64,
}

/// How watches behave.
#[derive(Debug, Clone, Copy)]
pub struct WatchOptions {
    /// Silence after which a heartbeat is sent.
    pub heartbeat: Duration,
    /// How often the database is read for changes of other processes.
    pub poll: Duration,
    /// Watches open at once in this process.
    pub max_streams: usize,
}

/// One hub a process: it reads which watched invocations changed, and wakes their streams.
#[derive(Debug, Clone)]
pub struct WatchHub(Arc<HubInner>);

#[derive(Debug)]
struct HubInner {
    store: Store,
    options: WatchOptions,
    changes: ChangeSignal,
    drain: CancellationToken,
    permits: Arc<Semaphore>,
    topics: Mutex<HashMap<InvocationId, watch::Sender<Head>>>,
}

impl WatchHub {
    /// A hub over `store`; `drain` ends all of its streams.
    pub fn new(store: Store, options: WatchOptions, changes: ChangeSignal, drain: CancellationToken) -> Self {
        let permits = Arc::new(Semaphore::new(options.max_streams.min(Semaphore::MAX_PERMITS)));
        Self(Arc::new(HubInner {
            store,
            options,
            changes,
            drain,
            permits,
            topics: Mutex::default(),
        }))
    }

    /// Reads changes until the hub drains. One task a process runs this.
    pub async fn run(self) {
        let mut tick = tokio::time::interval(self.0.options.poll);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ids = tokio::select! {
                () = self.0.drain.cancelled() => return,
                _ = tick.tick() => self.watched(&Changed::Many),
                changed = self.0.changes.wait() => self.watched(&changed),
            };
            for ids in ids.chunks(IDS_PER_READ) {
                if let Err(error) = self.refresh(ids).await {
                    tracing::warn!(error = %chain(&error), "watch hub cannot read the store; will try again");
                }
            }
        }
    }

    /// The watched ids among `changed`; topics nobody listens to any more are dropped on the way.
    fn watched(&self, changed: &Changed) -> Vec<InvocationId> {
        let mut topics = self.0.topics.lock().unwrap_or_else(PoisonError::into_inner);
        match changed {
            Changed::Many => {
                topics.retain(|_, topic| topic.receiver_count() > 0);
                topics.keys().copied().collect()
            }
            Changed::These(ids) => ids.iter().filter(|id| topics.contains_key(id)).copied().collect(),
        }
    }

    async fn refresh(&self, ids: &[InvocationId]) -> Result<()> {
        let heads = self.0.store.heads(ids).await?;
        let topics = self.0.topics.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, revision, progress_version) in heads {
            if let Some(topic) = topics.get(&id) {
                let head = Head {
                    revision,
                    progress_version,
                };
                topic.send_if_modified(|known| {
                    let newer = head != *known;
                    *known = head;
                    newer
                });
            }
        }
        Ok(())
    }

    fn subscribe(&self, id: InvocationId) -> watch::Receiver<Head> {
        let mut topics = self.0.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics
            .entry(id)
            .or_insert_with(|| watch::Sender::new(Head::default()))
            .subscribe()
    }
}

impl App {
    /// Follows an invocation to its end; see `WatchInvocation` in the contract.
    ///
    /// # Errors
    /// Before the first message: INVOCATION_NOT_FOUND, REVISION_AHEAD, TOO_MANY_REQUESTS, DRAINING. In
    /// the stream: DRAINING, STORE_UNAVAILABLE, TOKEN_INVALID.
    pub async fn watch_invocation(
        &self,
        auth: &Auth,
        id: InvocationId,
        after_revision: Option<u64>,
    ) -> Result<impl Stream<Item = Result<Update>> + Send + use<>> {
        let hub = &self.0.watches;
        if hub.0.drain.is_cancelled() {
            return Err(draining());
        }
        let permit = Arc::clone(&hub.0.permits)
            .try_acquire_owned()
            .map_err(|_| too_many_streams())?;
        // Subscribing before reading: a change between the two wakes the stream instead of being lost.
        let head = hub.subscribe(id);
        let invocation = self.get_invocation(auth, id).await?;
        if after_revision.is_some_and(|after| after > invocation.revision) {
            return Err(revision_ahead(
                after_revision.unwrap_or_default(),
                invocation.revision,
            ));
        }
        let watch = Watch::start(
            self.clone(),
            auth.clone(),
            head,
            invocation,
            after_revision,
            permit,
        );
        Ok(stream::unfold(watch, |mut watch| async move {
            watch.next().await.map(|update| (update, watch))
        }))
    }
}

/// The state of one stream.
struct Watch {
    app: App,
    auth: Auth,
    id: InvocationId,
    head: watch::Receiver<Head>,
    latest: Invocation,
    last_revision: u64,
    last_progress: u64,
    ready: VecDeque<Update>,
    ended: bool,
    heartbeat_at: Instant,
    check_token_at: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    fn start(
        app: App,
        auth: Auth,
        head: watch::Receiver<Head>,
        invocation: Invocation,
        after_revision: Option<u64>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let heartbeat_at = Instant::now() + app.0.watches.0.options.heartbeat;
        let mut watch = Self {
            app,
            auth,
            id: invocation.id,
            head,
            last_revision: after_revision.unwrap_or(invocation.revision),
            last_progress: invocation.progress_version,
            ready: VecDeque::new(),
            ended: false,
            heartbeat_at,
            check_token_at: heartbeat_at,
            _permit: permit,
            latest: invocation.clone(),
        };
        let caught_up = watch.last_revision == invocation.revision;
        watch.ended = caught_up && invocation.state.name().is_terminal();
        if after_revision.is_none() {
            watch.push(UpdateKind::Snapshot, invocation);
        }
        watch
    }

    /// The next message; `None` is the end.
    async fn next(&mut self) -> Option<Result<Update>> {
        loop {
            if let Err(error) = self.check_token().await {
                self.ended = true;
                self.ready.clear();
                return Some(Err(error));
            }
            if let Some(update) = self.ready.pop_front() {
                self.heartbeat_at = Instant::now() + self.hub().options.heartbeat;
                return Some(Ok(update));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.catch_up().await {
                self.ended = true;
                return Some(Err(error));
            }
            if !self.ready.is_empty() || self.ended || self.latest.revision > self.last_revision {
                continue;
            }
            let drain = self.hub().drain.clone();
            tokio::select! {
                () = drain.cancelled() => {
                    self.ended = true;
                    return Some(Err(draining()));
                }
                changed = self.head.changed() => if changed.is_err() {
                    self.ended = true;
                    return Some(Err(draining()));
                },
                () = tokio::time::sleep_until(self.heartbeat_at) => {
                    let latest = self.latest.clone();
                    self.push(UpdateKind::Heartbeat, latest);
                }
            }
        }
    }

    fn hub(&self) -> &HubInner {
        &self.app.0.watches.0
    }

    /// A key may be revoked while its streams are open.
    async fn check_token(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.ended || now < self.check_token_at {
            return Ok(());
        }
        self.check_token_at = now + self.hub().options.heartbeat;
        self.app.0.authenticator.check_again(&self.auth).await
    }

    /// Reads what happened since the last message.
    async fn catch_up(&mut self) -> Result<()> {
        let head = *self.head.borrow_and_update();
        if head.revision > self.last_revision || self.latest.revision > self.last_revision {
            let store = self.hub().store.clone();
            for event in store
                .events_after(self.id, self.last_revision, EVENTS_PER_READ)
                .await?
            {
                self.last_revision = event.revision;
                self.ended = event.invocation.state.name().is_terminal();
                self.push(UpdateKind::StateChanged, event.invocation);
            }
            return Ok(());
        }
        if head.progress_version > self.last_progress {
            let scope = self.auth.tenant_scope();
            let current = self.hub().store.get_invocation(&scope, self.id).await?;
            let current = current.ok_or_else(|| invocation_not_found(self.id))?;
            if current.revision == self.last_revision {
                self.last_progress = current.progress_version;
                self.push(UpdateKind::Progress, current);
            } else {
                // A state change came between the two reads; its event goes first.
                self.latest = current;
            }
        }
        Ok(())
    }

    fn push(&mut self, kind: UpdateKind, invocation: Invocation) {
        if invocation.revision >= self.latest.revision {
            self.latest = invocation.clone();
        }
        self.ready.push_back(Update {
            kind,
            invocation,
            time: Timestamp::now(),
        });
    }
}

fn draining() -> Error {
    Error::new(
        Reason::Draining,
        "the server is shutting down; connect again with the last revision seen",
    )
    .with_retry_after(RECONNECT_DELAY)
}

fn too_many_streams() -> Error {
    Error::new(
        Reason::TooManyRequests,
        "too many watches are open on this server; try again later",
    )
    .with_retry_after(Duration::from_secs(5))
}

fn revision_ahead(after: u64, revision: u64) -> Error {
    let problem = format!("must not be larger than the invocation's revision {revision}, is {after}");
    Error::new(Reason::RevisionAhead, format!("after_revision: {problem}"))
        .with_violations(vec![crate::error::FieldViolation::new("after_revision", problem)])
        .with_metadata("revision", revision)
}
