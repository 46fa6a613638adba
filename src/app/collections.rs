//! Whether a collection holds a finished sync: the question to the Chroma server that every creation of an
//! invocation waits for.
//!
//! A few calls ask for their collection each. When many wait at the same time, they share a listing of the
//! database's collections: one request instead of one a call. Nothing is kept: a call joins a listing only
//! before it is sent, so every answer is younger than its question.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
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
    /// Listings that were not sent yet.
    waiting: Mutex<HashMap<Place, Listing>>,
    /// Held while a listing is under way.
    turn: tokio::sync::Mutex<()>,
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
            if let Some(finished) = self.listing(chroma, place).await {
                return Ok(finished.contains(name));
            }
        }
        // Alone, or the listing failed or was too long: what is wrong shows in the answer for this call.
        chroma.is_collection_finished(tenant, database, name).await
    }

    /// The next listing of this place.
    fn listing(&self, chroma: &ChromaClient, place: Place) -> Listing {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let key = place.clone();
        let listing = waiting.entry(key).or_insert_with(|| {
            let (inner, chroma) = (Arc::clone(&self.0), chroma.clone());
            async move { list(&inner, &chroma, place).await }.boxed().shared()
        });
        listing.clone()
    }
}

async fn list(inner: &Inner, chroma: &ChromaClient, place: Place) -> Finished {
    let _turn = inner.turn.lock().await;
    // Whoever comes from here on waits for the next one.
    inner
        .waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&place);
    let Place { tenant, database, .. } = &place;
    match chroma.finished_collections(tenant, database, MAX_LISTED).await {
        Ok(finished) => finished.map(Arc::new),
        Err(error) => {
            tracing::debug!(error = %crate::error::chain(&error), "cannot list collections; asking for each");
            None
        }
    }
}
