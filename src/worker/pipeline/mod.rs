//! `fetch -> chunk -> embed -> index`: one direction, joined by channels that are bounded by bytes.
//!
//! A chunk holds a part of the byte budget from the moment it is cut until its window is written, and the records
//! that wait for the rest of their document are bounded by their number, so memory is bounded whatever the input.
//! Every document ends in the ledger, and its outcome is written
//! after its records, so whatever the ledger calls indexed is in the collection. An attempt that follows
//! a broken one goes on where the ledger ends.

mod copy;
mod embed_stage;
mod fetch;
mod index_stage;
mod ledger;
mod load_stage;
mod open_document;
mod prepare;
mod removal;
mod target;
mod unchanged;

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use self::{
    copy::Copying,
    embed_stage::Models,
    fetch::{Confirmed, Coverage, Fetched, Memory},
    load_stage::Loader,
    target::Target,
};
use super::{
    Environment, WorkerOptions, failure::AttemptError, lease_guard::Lease, progress::ProgressHandle,
};
use crate::{
    chunk::{Chunk, ChunkStrategy},
    domain::{
        document::{DocumentOutcome, sha256_hex},
        invocation::Phase,
    },
    embed::EmbeddedText,
    index::SparseEntry,
    store::Claim,
};

/// Items that may lie between the load and the embed stage; their bytes are bounded apart.
const LOADED_ITEMS: usize = 1_024;
/// Windows that may lie between the embed and the index stage.
const EMBEDDED_WINDOWS: usize = 2;

/// A document on its way through the stages.
#[derive(Debug)]
struct DocumentWork {
    ordinal: u32,
    document_key: String,
    document_key_sha256: String,
    version_key: String,
    version_key_sha256: String,
    /// Names its records, instead of the digest of its key.
    custom_id: Option<String>,
    /// What its records say beside what all records say.
    metadata: Map<String, Value>,
    strategy: ChunkStrategy,
    language: Option<&'static str>,
    /// Number of chunks it was cut into.
    chunks: u32,
}

impl DocumentWork {
    /// What its records are named after.
    fn record_base(&self) -> &str {
        self.custom_id.as_deref().unwrap_or(&self.document_key_sha256)
    }
}

/// What the load stage hands on.
#[derive(Debug)]
enum Loaded {
    /// A document that ends here.
    Settled { ordinal: u32, outcome: DocumentOutcome },
    /// The next chunk of a document; chunks of one document come in order and together.
    Chunk(LoadedChunk),
}

#[derive(Debug)]
struct LoadedChunk {
    document: Arc<DocumentWork>,
    n: u32,
    text: Arc<str>,
    place: Chunk,
    _budget: OwnedSemaphorePermit,
}

/// What the embed stage hands on, in the order it was loaded.
#[derive(Debug)]
struct EmbeddedWindow {
    items: Vec<Embedded>,
}

#[derive(Debug)]
enum Embedded {
    /// A document that ended before.
    Settled { ordinal: u32, outcome: DocumentOutcome },
    /// A chunk with its vectors.
    Chunk(LoadedChunk, EmbeddedChunk),
    /// A chunk that a model refuses, and why.
    Refused(LoadedChunk, String),
}

/// The vectors of a chunk.
#[derive(Debug)]
struct EmbeddedChunk {
    dense: EmbeddedText,
    /// Where the source has a sparse model.
    sparse: Option<SparseEntry>,
}

/// Runs one attempt of `claim`. When it returns, everything is in the collection.
pub(super) async fn run(
    environment: &Environment,
    options: &WorkerOptions,
    claim: &Claim,
    lease: &Lease,
    progress: &ProgressHandle,
) -> Result<(), AttemptError> {
    let models = Models::find(environment, &claim.plan.embedding)?;
    let models = models
        .with_cache(environment, &claim.invocation.tenant, progress)
        .await?;
    progress.enter(Phase::Fetching);
    let mut fetched = fetch::fetch(environment, claim, lease, progress, Memory::Kept).await?;
    let shows_source = fetched.coverage.shows_source();
    let target = Target::open(environment, claim, lease, &models, shows_source).await?;
    let mut unchanged = unchanged::find(environment, claim, &target, &fetched).await?;
    if !fetched.lacks_nothing(|ordinal| unchanged.contains_key(&ordinal)) {
        // Somebody deleted records of what did not change, so it has to be loaded after all.
        fetched = fetch::fetch(environment, claim, lease, progress, Memory::Dropped).await?;
        unchanged = unchanged::find(environment, claim, &target, &fetched).await?;
    }
    let Fetched {
        source,
        coverage,
        labels,
    } = fetched;
    let entries = Arc::clone(&source.entries);
    if coverage == Coverage::Removed {
        return removal::remove_listed(environment, lease, &target, &entries, progress).await;
    }
    let pending = ledger::prepare(&environment.store, lease, &entries, &unchanged, progress).await?;

    progress.enter(Phase::Indexing);
    let fingerprint = models.fingerprint().await?;
    let (store, id, attempt) = (&environment.store, lease.invocation, lease.attempt);
    ledger::held(store.record_fingerprint(id, attempt, &fingerprint).await?)?;
    let copying = Copying {
        environment,
        claim,
        lease,
        target: &target,
        fingerprint: &fingerprint,
        progress,
    };
    let pending = copying.run(&entries, pending).await?;
    let (loaded_in, loaded_out) = mpsc::channel(LOADED_ITEMS);
    let (embedded_in, embedded_out) = mpsc::channel(EMBEDDED_WINDOWS);
    let loader = Loader {
        source: source.clone(),
        parser: environment.parser.clone(),
        chunking: claim.plan.chunking,
        labels,
    };
    let loading = load_stage::run(
        loader,
        pending,
        options.stage_buffer_bytes,
        progress.clone(),
        loaded_in,
    );
    let embedding = embed_stage::run(models, loaded_out, embedded_in, progress);
    let indexing = index_stage::run(environment, lease, &target, embedded_out, progress);
    tokio::try_join!(loading, embedding, indexing)?;

    progress.enter(Phase::Finishing);
    match coverage {
        Coverage::Source { whole } => {
            if whole {
                removal::run(environment, claim, lease, &target, &entries, progress).await?;
            }
            target.mark_finished(lease).await
        }
        Coverage::Prefix => removal::run(environment, claim, lease, &target, &entries, progress).await,
        Coverage::Document => {
            ledger::require_indexed(&environment.store, lease).await?;
            match fetch::confirm(environment, claim, &source).await? {
                Confirmed::There => Ok(()),
                Confirmed::Gone(error) => {
                    let digests: Vec<String> = entries
                        .iter()
                        .map(|entry| sha256_hex(&entry.document_key))
                        .collect();
                    target.delete_written(lease, &digests).await?;
                    Err(error)
                }
            }
        }
        Coverage::Removed => Ok(()),
    }
}
