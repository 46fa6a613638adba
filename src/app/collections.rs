//! Whether a collection holds a finished sync: the question to the Chroma server that every creation of an
//! invocation waits for.
//!
//! A few calls ask for their collection each. When many wait at the same time, they share a listing of the
//! database's collections: one request instead of one a call. No answer is kept: a call joins a listing only
//! before it is sent, so every answer is younger than its question. Kept is only that a listing was too long
//! to be of use, for a while.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};

use crate::{
    domain::names::{CollectionName, DatabaseName, TenantName},
    index::{ChromaClient, IndexError},
    secret::Secret,
};

/// Calls that may ask by themselves at a time; with more, a listing is cheaper.
const ASKING_ALONE: usize = 4;
/// The most collections that a listing reads. A database that has more is asked for each collection.
const MAX_LISTED: usize = 1_000;
/// How long a database that has more is not listed again.
const TOO_LONG_FOR: Duration = Duration::from_secs(60);
/// Places that are known at most, before those without anything under way are forgotten.
const MAX_PLACES: usize = 1_000;

/// Finished collections of a database; none when it cannot be told from a listing.
type Finished = Option<Arc<HashSet<CollectionName>>>;
type Listing = Shared<BoxFuture<'static, Finished>>;

/// Whose view of which database: what one token shows is no answer for another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    tenant: TenantName,
    database: DatabaseName,
    token: Option<Secret>,
}

/// Answers the question for all calls of this process.
#[derive(Clone, Default)]
pub(super) struct CollectionChecks(Arc<Inner>);

#[derive(Default)]
struct Inner {
    asking: AtomicUsize,
    listings: Mutex<HashMap<Place, Listings>>,
}

/// The listings of one place.
#[derive(Default)]
struct Listings {
    /// The one that was not sent yet.
    waiting: Option<Listing>,
    /// Held while one is under way.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Until when none is worth its while.
    too_long_until: Option<Instant>,
}

impl Listings {
    fn is_too_long(&self) -> bool {
        self.too_long_until.is_some_and(|until| Instant::now() < until)
    }
}

impl Inner {
    fn listings(&self) -> MutexGuard<'_, HashMap<Place, Listings>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for CollectionChecks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("CollectionChecks")
    }
}

/// Counts a call while it is under way.
struct Asking<'a>(&'a AtomicUsize);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl CollectionChecks {
    /// See [`ChromaClient::is_collection_finished`]; `chroma` sends `token`.
    pub(super) async fn is_finished(
        &self,
        chroma: &ChromaClient,
        token: Option<&Secret>,
        (tenant, database, name): (&TenantName, &DatabaseName, &CollectionName),
    ) -> Result<bool, IndexError> {
        let others = self.0.asking.fetch_add(1, Ordering::Relaxed);
        let _asking = Asking(&self.0.asking);
        if others >= ASKING_ALONE {
            let place = Place {
                tenant: tenant.clone(),
                database: database.clone(),
                token: token.cloned(),
            };
            let listing = self.listing(chroma, place);
            if let Some(listing) = listing
                && let Some(finished) = listing.await
            {
                return Ok(finished.contains(name));
            }
        }
        // Alone, or the listing failed or was too long: what is wrong shows in the answer for this call.
        chroma.is_collection_finished(tenant, database, name).await
    }

    /// The next listing of this place; none while the last one was too long.
    fn listing(&self, chroma: &ChromaClient, place: Place) -> Option<Listing> {
        let mut places = self.0.listings();
        if places.len() >= MAX_PLACES {
            places.retain(|_, listings| listings.waiting.is_some() || listings.is_too_long());
        }
        let listings = places.entry(place.clone()).or_default();
        if listings.is_too_long() {
            return None;
        }
        let turn = &listings.turn;
        let listing = listings.waiting.get_or_insert_with(|| {
            let (inner, chroma, turn) = (Arc::clone(&self.0), chroma.clone(), Arc::clone(turn));
            async move {
                let _turn = turn.lock().await;
                list(&inner, &chroma, place).await
            }
            .boxed()
            .shared()
        });
        Some(listing.clone())
    }
}

async fn list(inner: &Inner, chroma: &ChromaClient, place: Place) -> Finished {
    // Whoever comes from here on waits for the next one.
    if let Some(listings) = inner.listings().get_mut(&place) {
        listings.waiting = None;
    }
    let Place { tenant, database, .. } = &place;
    match chroma.finished_collections(tenant, database, MAX_LISTED).await {
        Ok(Some(finished)) => Some(Arc::new(finished)),
        Ok(None) => {
            inner.listings().entry(place).or_default().too_long_until = Some(Instant::now() + TOO_LONG_FOR);
            None
        }
        Err(error) => {
            tracing::debug!(error = %crate::error::chain(&error), "cannot list collections; asking for each");
            None
        }
    }
}
