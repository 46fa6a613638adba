//! Follows one invocation to its end.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, stream};
use tokio::{
    sync::watch,
    time::{Instant, Sleep},
};

use super::{
    Update, UpdateKind,
    callers::Place,
    draining,
    hub::Hub,
    shared::SharedInvocation,
    topic::{Head, Topic},
};
use crate::{
    app::{App, Auth},
    domain::{ids::InvocationId, invocation::Invocation, time::Timestamp},
    error::{Error, FieldViolation, Reason, Result},
};

impl App {
    /// Follows an invocation to its end; see `WatchInvocation` in the contract.
    ///
    /// # Errors
    /// Before the first message: INVOCATION_NOT_FOUND, DATABASE_FORBIDDEN, REVISION_AHEAD,
    /// TOO_MANY_REQUESTS, DRAINING. In the stream: DRAINING, STORE_UNAVAILABLE, TOKEN_INVALID.
    pub async fn watch_invocation(
        &self,
        auth: &Auth,
        id: InvocationId,
        after_revision: Option<u64>,
    ) -> Result<impl Stream<Item = Result<Update>> + Send + use<>> {
        let hub = self.0.watches.hub();
        if hub.is_draining() {
            return Err(draining());
        }
        let place = hub.callers.enter(auth)?;
        // The hub follows before the state is read: a change between the two is told instead of lost.
        let (topic, head) = hub.follow(id).await?;
        let invocation = self.get_invocation(auth, id).await?;
        if let Some(after) = after_revision
            && after > invocation.revision
        {
            return Err(revision_ahead(after, invocation.revision));
        }
        let watch = Watch::start(self.clone(), place, topic, head, invocation, after_revision);
        Ok(stream::unfold(watch, |mut watch| async move {
            watch.next().await.map(|update| (update, watch))
        }))
    }
}

/// How long the end of a stream leaves the way free for each stream that is told the same: about what a message takes.
const MESSAGE: Duration = Duration::from_micros(20);
/// The shortest that a stream which is not alone stays open after its last message: what the timer can count.
const SHORTEST_WAY: Duration = Duration::from_millis(1);
/// The longest.
const LONGEST_WAY: Duration = Duration::from_secs(1);

/// The state of one stream.
struct Watch {
    app: App,
    place: Place,
    topic: Arc<Topic>,
    head: watch::Receiver<Head>,
    /// What the stream has told, or began with.
    last: Arc<SharedInvocation>,
    last_revision: u64,
    last_progress: u64,
    snapshot_due: bool,
    ended: bool,
    heartbeat_at: Instant,
    /// Wakes the stream at `heartbeat_at` or before: it is set anew when it has run out, not with each
    /// message.
    timer: Pin<Box<Sleep>>,
}

impl Watch {
    fn start(
        app: App,
        place: Place,
        topic: Arc<Topic>,
        head: watch::Receiver<Head>,
        invocation: Invocation,
        after_revision: Option<u64>,
    ) -> Self {
        // Shared with the other streams, unless the invocation has gone on since it was read.
        let invocation = SharedInvocation::new(Arc::new(invocation));
        let latest = topic.add_latest(Arc::clone(&invocation));
        let invocation = if latest.revision == invocation.revision {
            latest
        } else {
            invocation
        };
        let last_revision = after_revision.unwrap_or(invocation.revision);
        let caught_up = last_revision == invocation.revision;
        let heartbeat_at = Instant::now() + app.0.watches.hub().options.heartbeat;
        Self {
            heartbeat_at,
            timer: Box::pin(tokio::time::sleep_until(heartbeat_at)),
            app,
            place,
            topic,
            head,
            last_revision,
            last_progress: invocation.progress_version,
            snapshot_due: after_revision.is_none(),
            ended: caught_up && invocation.state.name().is_terminal(),
            last: invocation,
        }
    }

    /// The next message; `None` is the end.
    async fn next(&mut self) -> Option<Result<Update>> {
        if std::mem::take(&mut self.snapshot_due) {
            let snapshot = Arc::clone(&self.last);
            return Some(Ok(self.update(UpdateKind::Snapshot, snapshot)));
        }
        if self.ended {
            self.let_messages_pass().await;
            return None;
        }
        let update = self.wait().await;
        self.ended |= update.is_err();
        Some(update)
    }

    /// Ends come after the last message of all streams: ending a stream takes as long as a message, for the client too, so
    /// that the last of ten thousand would wait for the ends of all others.
    async fn let_messages_pass(&mut self) {
        let free = free_way(self.topic.watches());
        if !free.is_zero() && !self.hub().is_draining() {
            self.timer.as_mut().reset(Instant::now() + free);
            self.timer.as_mut().await;
        }
    }

    async fn wait(&mut self) -> Result<Update> {
        loop {
            if let Some(update) = self.catch_up().await? {
                return Ok(update);
            }
            tokio::select! {
                // The topic keeps the sender, so this never fails.
                _ = self.head.changed() => continue,
                () = self.timer.as_mut() => {}
            }
            if Instant::now() >= self.heartbeat_at {
                let last = Arc::clone(&self.last);
                let heartbeat = self.update(UpdateKind::Heartbeat, last);
                self.timer.as_mut().reset(self.heartbeat_at);
                return Ok(heartbeat);
            }
            self.timer.as_mut().reset(self.heartbeat_at);
        }
    }

    /// What is known to have happened since the last message.
    async fn catch_up(&mut self) -> Result<Option<Update>> {
        let head = *self.head.borrow_and_update();
        let period = self.hub().options.heartbeat;
        self.place.check(&self.app.0.authenticator, period).await?;
        if head.revision > self.last_revision {
            let event = self
                .topic
                .event_after(self.last_revision, &self.hub().store)
                .await?;
            let event = event.ok_or_else(|| self.history_ends())?;
            self.last_revision = event.revision;
            self.last_progress = event.progress_version;
            self.ended = event.state.name().is_terminal();
            return Ok(Some(self.update(UpdateKind::StateChanged, event)));
        }
        if head.draining {
            return Err(draining());
        }
        if head.progress_version > self.last_progress
            && let Some(latest) = self.topic.latest_of(self.last_revision)
            && latest.progress_version > self.last_progress
        {
            self.last_progress = latest.progress_version;
            return Ok(Some(self.update(UpdateKind::Progress, latest)));
        }
        Ok(None)
    }

    fn hub(&self) -> &Hub {
        self.app.0.watches.hub()
    }

    fn update(&mut self, kind: UpdateKind, invocation: Arc<SharedInvocation>) -> Update {
        self.heartbeat_at = Instant::now() + self.hub().options.heartbeat;
        self.last = Arc::clone(&invocation);
        Update {
            kind,
            invocation,
            time: Timestamp::now(),
        }
    }

    fn history_ends(&self) -> Error {
        let (id, revision) = (self.topic.id, self.last_revision);
        Error::internal(format!(
            "invocation {id} has no event after revision {revision}, but a later revision"
        ))
    }
}

/// How long the end of one of `watches` of an invocation waits; the only one ends together with its last message.
fn free_way(watches: usize) -> Duration {
    if watches < 2 {
        return Duration::ZERO;
    }
    let watches = u32::try_from(watches).unwrap_or(u32::MAX);
    MESSAGE.saturating_mul(watches).clamp(SHORTEST_WAY, LONGEST_WAY)
}

fn revision_ahead(after: u64, revision: u64) -> Error {
    let problem = format!("must not be larger than the invocation's revision {revision}, is {after}");
    Error::new(Reason::RevisionAhead, format!("after_revision: {problem}"))
        .with_violations(vec![FieldViolation::new("after_revision", problem)])
        .with_metadata("revision", revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_several_watches_wait_and_never_for_longer_than_a_second() {
        assert_eq!(free_way(1), Duration::ZERO);
        assert_eq!(free_way(2), Duration::from_millis(1));
        assert_eq!(free_way(49), Duration::from_millis(1));
        assert_eq!(free_way(50), Duration::from_millis(1));
        assert_eq!(free_way(10_000), Duration::from_millis(200));
        assert_eq!(free_way(50_000), Duration::from_secs(1));
        assert_eq!(free_way(usize::MAX), Duration::from_secs(1));
    }
}
