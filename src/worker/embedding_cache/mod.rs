//! Embeddings that were computed before, so that none is computed twice.
//!
//! [`CachedEmbedder`] stands between the pipeline and a dense model, and its like before a sparse model that is
//! worth it. It looks all texts of a window up at once, has the
//! model compute the others, and leaves what was computed here to be written in the background. A vector is found
//! by the SHA-256 of all that it depends on: the model's fingerprint, the instruction, the text. So it serves other
//! branches, collections and sources, a sync that is repeated, and an attempt after one that broke off.
//!
//! Each tenant has its own entries, unless the configuration says that they are shared. Whoever may write texts
//! could else learn from the time a sync takes, or from `embeddings_cached`, whether another tenant has a certain
//! text: enough to guess a short secret line by line.
//!
//! Invariants: a sync never fails and hardly waits for the cache. A look takes at most [`LOOK_LIMIT`], and after
//! one that failed there is none for [`PAUSE`]. What waits to be written is bounded; beyond it vectors are not kept.
//! A vector that was read is checked before it is used. Nothing of a text is kept but its digest. Absent on
//! purpose: embeddings of queries, which seldom repeat, and of sparse models that only count words.

mod dense;
mod lookup;
mod sparse;
mod writer;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::AbortHandle, time::Instant};

pub(super) use self::{dense::CachedEmbedder, sparse::cached as cached_sparse};
use crate::{
    domain::names::TenantName,
    error::chain,
    store::{EmbeddingDigest, EmbeddingTable, FoundEmbeddings, StoredEmbedding},
};

/// How long a window waits for the cache.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// How long the cache is left alone after it failed.
const PAUSE: Duration = Duration::from_secs(30);
/// Bytes that may wait to be written. An embedder of 4,000 vectors of 1,024 numbers a second fills it in two
/// seconds, and both databases write faster than that.
const MAX_WAITING_BYTES: u64 = 32 << 20;
/// Marks of use that may wait to be written.
const MAX_WAITING_MARKS: usize = 65_536;
/// How long the end of the process waits for what is not written yet.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// How the cache is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddingCacheOptions {
    /// The most bytes that it may take, about: what is over goes after each write.
    pub max_bytes: u64,
    /// Whether tenants share entries.
    pub shared: bool,
}

/// The cache of one process; clones are the same one.
#[derive(Debug, Clone)]
pub struct EmbeddingCache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    options: EmbeddingCacheOptions,
    writer: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

/// What the looks and the writer have in common.
#[derive(Debug)]
struct Shared {
    table: EmbeddingTable,
    waiting: Mutex<Waiting>,
    /// There is something to write.
    work: Notify,
    /// Nothing is left to write.
    idle: Notify,
    failures: AtomicU64,
    dropped: AtomicU64,
}

/// What is to be written. It can be found here until it is.
#[derive(Debug, Default)]
struct Waiting {
    embeddings: HashMap<EmbeddingDigest, Arc<StoredEmbedding>>,
    order: VecDeque<EmbeddingDigest>,
    marks: HashSet<EmbeddingDigest>,
    bytes: u64,
    /// The cache failed, and is left alone until then.
    paused_until: Option<Instant>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.embeddings.is_empty() && self.marks.is_empty()
    }
}

impl EmbeddingCache {
    /// Starts the task that writes to `table`.
    pub fn start(table: EmbeddingTable, options: EmbeddingCacheOptions) -> Self {
        let shared = Arc::new(Shared {
            table,
            waiting: Mutex::default(),
            work: Notify::new(),
            idle: Notify::new(),
            failures: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let writer = tokio::spawn(writer::run(Arc::clone(&shared), options.max_bytes)).abort_handle();
        Self(Arc::new(Inner {
            shared,
            options,
            writer,
        }))
    }

    /// Waits until everything is written, though not for long, and closes what is the cache's own.
    pub async fn close(&self) {
        let shared = &self.0.shared;
        let written = async {
            loop {
                let idle = shared.idle.notified();
                if shared.waiting().is_empty() {
                    break;
                }
                idle.await;
            }
        };
        if tokio::time::timeout(CLOSE_LIMIT, written).await.is_err() {
            let left = shared.waiting().embeddings.len();
            tracing::warn!(left, "embeddings were not written to the cache before the end");
        }
        shared.table.close().await;
    }

    /// Whose entries an attempt of `tenant` finds and makes.
    fn owner<'a>(&self, tenant: &'a TenantName) -> &'a str {
        match self.0.options.shared {
            true => "",
            false => tenant.as_str(),
        }
    }

    /// What is known of `digests`. Whatever goes wrong, the answer is what was found until then.
    async fn find(&self, digests: &[EmbeddingDigest]) -> HashMap<EmbeddingDigest, Arc<StoredEmbedding>> {
        let shared = &self.0.shared;
        let mut found = HashMap::with_capacity(digests.len());
        let mut unknown = Vec::with_capacity(digests.len());
        let is_paused = {
            let waiting = shared.waiting();
            for digest in digests {
                match waiting.embeddings.get(digest) {
                    Some(embedding) => {
                        found.insert(*digest, Arc::clone(embedding));
                    }
                    None => unknown.push(*digest),
                }
            }
            waiting.paused_until.is_some_and(|until| Instant::now() < until)
        };
        if is_paused || unknown.is_empty() {
            return found;
        }
        unknown.sort_unstable();
        unknown.dedup();
        match tokio::time::timeout(LOOK_LIMIT, shared.table.find(&unknown)).await {
            Ok(Ok(FoundEmbeddings {
                found: read,
                unmarked,
            })) => {
                found.extend(
                    read.into_iter()
                        .map(|(digest, embedding)| (digest, Arc::new(embedding))),
                );
                shared.mark(unmarked);
            }
            Ok(Err(error)) => shared.failed("read", &chain(&error)),
            Err(_) => shared.failed("read", "it did not answer in time"),
        }
        found
    }

    /// Leaves embeddings to be written. What does not fit is dropped: it can be computed again.
    fn put(&self, embeddings: Vec<(EmbeddingDigest, StoredEmbedding)>) {
        let shared = &self.0.shared;
        let mut dropped = 0;
        {
            let mut waiting = shared.waiting();
            for (digest, embedding) in embeddings {
                let size = embedding.size();
                if waiting.bytes + size > MAX_WAITING_BYTES {
                    dropped += 1;
                } else if waiting.embeddings.insert(digest, Arc::new(embedding)).is_none() {
                    waiting.order.push_back(digest);
                    waiting.bytes += size;
                }
            }
        }
        if dropped > 0 {
            let total = shared.dropped.fetch_add(dropped, Ordering::Relaxed) + dropped;
            tracing::warn!(
                dropped,
                total,
                "the embedding cache is slower than the model; embeddings are not kept"
            );
        }
        shared.work.notify_one();
    }
}

impl Shared {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, digests: Vec<EmbeddingDigest>) {
        if digests.is_empty() {
            return;
        }
        let mut waiting = self.waiting();
        if waiting.marks.len() < MAX_WAITING_MARKS {
            waiting.marks.extend(digests);
        }
        drop(waiting);
        self.work.notify_one();
    }

    /// Leaves the cache alone for a while. There is one line in the log for each while.
    fn failed(&self, action: &str, problem: &str) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let now = Instant::now();
        let was_paused = self
            .waiting()
            .paused_until
            .replace(now + PAUSE)
            .is_some_and(|until| now < until);
        if !was_paused {
            tracing::warn!(
                action,
                failures,
                error = problem,
                "the embedding cache failed; embeddings are computed anew meanwhile"
            );
        }
    }
}
