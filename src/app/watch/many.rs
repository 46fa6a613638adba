//! Follows the state changes of all invocations of a source, a database or the tenant.
//!
//! A stream is a place in the feed and moves on with it: through what the hub keeps, or where that begins
//! too late, through the table in bounded steps. Every message carries the place, as a token to resume
//! by. Absent: progress, which belongs to the watch of one invocation.

use std::{collections::VecDeque, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::{Stream, stream};
use sha2::{Digest, Sha256};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::{
    callers::Place,
    draining,
    hub::{FeedEvent, FeedHead, Hub},
    shared::SharedInvocation,
};
use crate::{
    app::{App, Auth},
    domain::{
        ids::SourceId,
        invocation::{Invocation, InvocationFilter, StateName},
        names::DatabaseName,
        page::{Order, PageRequest},
        time::Timestamp,
    },
    error::{Error, FieldViolation, Reason, Result},
    store::{FeedFilter, Scope},
};

/// Events or snapshots that a stream takes at a time.
const STEP: u32 = 64;
/// Places that one read of the table goes over at most, so that a filter that matches little cannot make it
/// long.
const PLACES_A_READ: u64 = 50_000;
/// What a token's digest begins with, so that it is no other kind of token.
const TOKEN_KIND: &[u8] = b"invocations feed";

/// Which invocations are followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchFilter {
    /// Only those of this source. Not together with `database`.
    pub source_id: Option<SourceId>,
    /// Only those into this database.
    pub database: Option<DatabaseName>,
    /// Only changes to these states; empty for all.
    pub states: Vec<StateName>,
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchStart {
    /// With what happens from now on.
    Now,
    /// With a snapshot of each invocation that has not ended.
    Snapshots,
    /// With what followed the message that had this token.
    After(ResumeToken),
}

/// A place in the feed, as callers keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeToken(u64);

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedUpdateKind {
    /// An invocation as it is at the start of the stream.
    Snapshot,
    /// An invocation as it was after one state change.
    StateChanged,
    /// Nothing changed; the stream is alive. Has no invocation.
    Heartbeat,
}

/// One message of a watch of many invocations.
#[derive(Debug, Clone)]
pub struct FeedUpdate {
    /// What it is about.
    pub kind: FeedUpdateKind,
    /// The whole invocation, except in heartbeats.
    pub invocation: Option<Arc<SharedInvocation>>,
    /// Resumes after this message.
    pub resume_token: ResumeToken,
    /// When the server made the message.
    pub time: Timestamp,
}

impl ResumeToken {
    /// As callers see it: opaque, 16 characters that need no quoting anywhere.
    pub fn encode(self) -> String {
        let place = self.0.to_be_bytes();
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&place);
        bytes[8..].copy_from_slice(&token_digest(place));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token that a watch sent.
    ///
    /// # Errors
    /// INVALID_RESUME_TOKEN when it is damaged or no such token.
    pub fn decode(token: &str) -> Result<Self> {
        let refuse = || invalid_token("must be a token that a watch of invocations sent");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| refuse())?;
        let (place, digest) = bytes.split_first_chunk::<8>().ok_or_else(refuse)?;
        if digest != token_digest(*place) {
            return Err(refuse());
        }
        Ok(Self(u64::from_be_bytes(*place)))
    }
}

fn token_digest(place: [u8; 8]) -> [u8; 4] {
    let digest = Sha256::new_with_prefix(TOKEN_KIND).chain_update(place).finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

fn invalid_token(problem: &'static str) -> Error {
    Error::new(Reason::InvalidResumeToken, format!("resume_token: {problem}"))
        .with_violations(vec![FieldViolation::new("resume_token", problem)])
}

impl App {
    /// Follows many invocations; see `WatchInvocations` in the contract. Ends only with an error.
    ///
    /// # Errors
    /// Before the first message: INVALID_FIELD, INVALID_RESUME_TOKEN, SOURCE_NOT_FOUND,
    /// DATABASE_FORBIDDEN, TOO_MANY_REQUESTS, DRAINING. In the stream: DRAINING, STORE_UNAVAILABLE,
    /// TOKEN_INVALID.
    pub async fn watch_invocations(
        &self,
        auth: &Auth,
        filter: WatchFilter,
        start: WatchStart,
    ) -> Result<impl Stream<Item = Result<FeedUpdate>> + Send + use<>> {
        let hub = self.0.watches.hub();
        if hub.is_draining() {
            return Err(draining());
        }
        self.require_visible(auth, &filter).await?;
        let place = hub.callers.enter(auth)?;
        // What was committed before the call lies before the beginning, also what has no place yet.
        hub.store.place_events().await?;
        let head = hub.follow_feed().await?;
        let end = hub.store.feed_head().await?;
        let sequence = match start {
            WatchStart::Now | WatchStart::Snapshots => end,
            WatchStart::After(ResumeToken(sequence)) if sequence > end => {
                return Err(invalid_token(
                    "lies ahead of everything that has happened; begin without one",
                ));
            }
            WatchStart::After(ResumeToken(sequence)) => sequence,
        };
        let snapshots = match start {
            WatchStart::Snapshots => Snapshots::of(auth.scope(), &filter),
            WatchStart::Now | WatchStart::After(_) => Snapshots::default(),
        };
        let watch = Watch {
            app: self.clone(),
            place,
            head,
            filter: feed_filter(auth, filter),
            sequence,
            snapshots,
            ready: VecDeque::new(),
            // The first message tells where the stream begins, so nothing is lost if it breaks at once.
            heartbeat_due: true,
            heartbeat_at: Instant::now(),
            ended: false,
        };
        Ok(stream::unfold(watch, |mut watch| async move {
            watch.next().await.map(|update| (update, watch))
        }))
    }

    async fn require_visible(&self, auth: &Auth, filter: &WatchFilter) -> Result<()> {
        if filter.source_id.is_some() && filter.database.is_some() {
            let problem = "cannot be given together with source_id";
            return Err(FieldViolation::new("database_name", problem).into());
        }
        if let Some(database) = &filter.database {
            auth.require_database(database)?;
        }
        if let Some(id) = filter.source_id {
            self.get_source(auth, id).await?;
        }
        Ok(())
    }
}

fn feed_filter(auth: &Auth, filter: WatchFilter) -> FeedFilter {
    let Scope { tenant, databases } = auth.scope();
    FeedFilter {
        tenant: Some(tenant),
        source_id: filter.source_id,
        databases: filter.database.map(|database| vec![database]).or(databases),
        states: filter.states,
    }
}

/// The state of one stream.
struct Watch {
    app: App,
    place: Place,
    head: watch::Receiver<FeedHead>,
    filter: FeedFilter,
    /// Everything up to this place is in `ready` or was sent.
    sequence: u64,
    snapshots: Snapshots,
    ready: VecDeque<FeedUpdate>,
    /// Whether a heartbeat comes whatever the time: at the beginning, and after the snapshots.
    heartbeat_due: bool,
    heartbeat_at: Instant,
    ended: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<FeedUpdate>> {
        if self.ended {
            return None;
        }
        let update = self.wait().await;
        self.ended = update.is_err();
        Some(update)
    }

    async fn wait(&mut self) -> Result<FeedUpdate> {
        let period = self.hub().options.heartbeat;
        loop {
            self.place.check(&self.app.0.authenticator, period).await?;
            let now = Instant::now();
            if let Some(update) = self.ready.pop_front() {
                self.heartbeat_at = now + period;
                return Ok(update);
            }
            if self.heartbeat_due || now >= self.heartbeat_at {
                self.heartbeat_due = false;
                self.heartbeat_at = now + period;
                return Ok(self.update(FeedUpdateKind::Heartbeat, None, self.sequence));
            }
            if self.snapshots.remain() {
                self.read_snapshots().await?;
                continue;
            }
            let head = *self.head.borrow_and_update();
            if head.sequence > self.sequence {
                self.read_events(head.sequence).await?;
                continue;
            }
            if head.draining {
                return Err(draining());
            }
            tokio::select! {
                // The hub keeps the sender, so this never fails.
                _ = self.head.changed() => {}
                () = tokio::time::sleep_until(self.heartbeat_at) => {}
            }
        }
    }

    async fn read_snapshots(&mut self) -> Result<()> {
        let hub = Arc::clone(self.hub());
        for invocation in Box::pin(self.snapshots.read(&hub)).await? {
            let update = self.update(
                FeedUpdateKind::Snapshot,
                Some(SharedInvocation::new(Arc::new(invocation))),
                self.sequence,
            );
            self.ready.push_back(update);
        }
        self.heartbeat_due = !self.snapshots.remain();
        Ok(())
    }

    async fn read_events(&mut self, head: u64) -> Result<()> {
        let kept = self
            .hub()
            .recent_events(self.sequence, &self.filter, STEP as usize);
        let (events, end) = match kept {
            Some(kept) => kept,
            None => {
                self.hub()
                    .earlier_events(self.sequence, head, &self.filter)
                    .await?
            }
        };
        for event in events {
            let FeedEvent { placed, invocation } = event.as_ref();
            let invocation = Some(Arc::clone(invocation));
            let update = self.update(FeedUpdateKind::StateChanged, invocation, placed.sequence);
            self.ready.push_back(update);
        }
        self.sequence = end;
        Ok(())
    }

    fn hub(&self) -> &Arc<Hub> {
        self.app.0.watches.hub()
    }

    fn update(
        &self,
        kind: FeedUpdateKind,
        invocation: Option<Arc<SharedInvocation>>,
        place: u64,
    ) -> FeedUpdate {
        FeedUpdate {
            kind,
            invocation,
            resume_token: ResumeToken(place),
            time: Timestamp::now(),
        }
    }
}

impl Hub {
    /// The events after `sequence` that `filter` wants, read from the table in one bounded step, and the place
    /// up to which that is all. Few streams read at a time.
    async fn earlier_events(
        &self,
        sequence: u64,
        head: u64,
        filter: &FeedFilter,
    ) -> Result<(Vec<Arc<FeedEvent>>, u64)> {
        let _turn = self.catching_up.acquire().await.map_err(|_| draining())?;
        let until = head.min(sequence.saturating_add(PLACES_A_READ));
        let events = self
            .store
            .feed_after(sequence, until, filter, u64::from(STEP))
            .await?;
        let end = match events.last() {
            Some(last) if events.len() >= STEP as usize => last.sequence,
            Some(_) | None => until,
        };
        let events = events.into_iter().map(|event| Arc::new(event.into()));
        Ok((events.collect(), end))
    }
}

/// The snapshots that a stream has not sent yet, page by page.
#[derive(Default)]
struct Snapshots {
    /// A listing for each state, the next one last.
    listings: Vec<(Scope, InvocationFilter)>,
    after: Option<Uuid>,
}

impl Snapshots {
    fn of(scope: Scope, filter: &WatchFilter) -> Self {
        let live = StateName::ALL
            .into_iter()
            .filter(|state| !state.is_terminal())
            .filter(|state| filter.states.is_empty() || filter.states.contains(state));
        let listings = live.map(|state| {
            let filter = InvocationFilter {
                source_id: filter.source_id,
                database: filter.database.clone(),
                state: Some(state),
                ..InvocationFilter::default()
            };
            (scope.clone(), filter)
        });
        Self {
            listings: listings.collect(),
            after: None,
        }
    }

    fn remain(&self) -> bool {
        !self.listings.is_empty()
    }

    async fn read(&mut self, hub: &Hub) -> Result<Vec<Invocation>> {
        let Some((scope, filter)) = self.listings.last() else {
            return Ok(Vec::new());
        };
        let request = PageRequest {
            size: STEP,
            skip: 0,
            after: self.after,
            order: Order::Ascending,
        };
        let page = hub.store.list_invocations(scope, filter, &request).await?;
        self.after = page.next;
        if page.next.is_none() {
            self.listings.pop();
        }
        Ok(page.items)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_leads_back_to_its_place(place in any::<u64>()) {
            prop_assert_eq!(ResumeToken::decode(&ResumeToken(place).encode()).unwrap(), ResumeToken(place));
        }

        #[test]
        fn any_other_text_is_refused_without_a_panic(token in ".{0,64}") {
            let refused = ResumeToken::decode(&token).unwrap_err();
            prop_assert_eq!(refused.reason(), Reason::InvalidResumeToken);
        }
    }
}
