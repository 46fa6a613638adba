//! `fetch -> chunk -> embed -> index`: one direction, joined by channels that are bounded by bytes.
//!
//! A chunk holds a part of the byte budget from the moment it is cut until its record is written, so
//! memory is bounded whatever the input. Every document ends in the ledger, and its outcome is written
//! after its records, so whatever the ledger calls indexed is in the collection. An attempt that follows
//! a broken one goes on where the ledger ends.

mod embed_stage;
mod index_stage;
mod ledger;
mod load_stage;
mod removal;
mod target;

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};

use self::{load_stage::Loader, target::Target};
use super::{
    Environment, WorkerOptions,
    failure::AttemptError,
    lease_guard::Lease,
    progress::{ProgressHandle, Stage, record_commit},
    repository,
};
use crate::{
    chunk::{Chunk, ChunkStrategy},
    domain::{
        document::DocumentOutcome,
        invocation::{GitReference, InvocationInput, Phase},
        source::SourceSettings,
    },
    embed::EmbeddedText,
    fetch::Snapshot,
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
    strategy: ChunkStrategy,
    language: Option<&'static str>,
    /// Number of chunks it was cut into.
    chunks: u32,
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

/// What the embed stage hands on: items in the order they were loaded, each chunk with its vector.
#[derive(Debug)]
struct EmbeddedWindow {
    items: Vec<(Loaded, Option<EmbeddedText>)>,
}

/// Runs one attempt of `claim`. When it returns, everything is in the collection.
pub(super) async fn run(
    environment: &Environment,
    options: &WorkerOptions,
    claim: &Claim,
    lease: &Lease,
    progress: &ProgressHandle,
) -> Result<(), AttemptError> {
    let model = &claim.plan.embedding.model;
    let embedder = environment
        .embedders
        .get(model)
        .ok_or_else(|| AttemptError::ModelNotServed(model.clone()))?;
    progress.enter(Phase::Fetching);
    let snapshot = fetch(environment, claim, lease, progress).await?;
    ledger::held(record_commit(environment, lease, progress, snapshot.commit()).await?)?;
    let entries = Arc::clone(snapshot.entries());
    let reader = snapshot.reader();
    drop(snapshot);
    let pending = ledger::prepare(&environment.store, lease, &entries, progress).await?;
    let target = Target::open(environment, claim, lease, embedder.model()).await?;

    progress.enter(Phase::Indexing);
    let (loaded_in, loaded_out) = mpsc::channel(LOADED_ITEMS);
    let (embedded_in, embedded_out) = mpsc::channel(EMBEDDED_WINDOWS);
    let loader = Loader {
        entries: Arc::clone(&entries),
        reader,
        chunking: claim.plan.chunking,
    };
    let loading = load_stage::run(
        loader,
        pending,
        options.stage_buffer_bytes,
        progress.clone(),
        loaded_in,
    );
    let embedding = embed_stage::run(embedder, loaded_out, embedded_in, progress);
    let indexing = index_stage::run(environment, lease, &target, embedded_out, progress);
    tokio::try_join!(loading, embedding, indexing)?;

    progress.enter(Phase::Finishing);
    removal::run(environment, claim, lease, &target, &entries, progress).await?;
    target.mark_finished(lease).await
}

/// Fetches what the invocation asks for. A later attempt fetches the very commit that the first one
/// resolved, so that all attempts write the same records.
async fn fetch(
    environment: &Environment,
    claim: &Claim,
    lease: &Lease,
    progress: &ProgressHandle,
) -> Result<Snapshot, AttemptError> {
    let SourceSettings::Github(github) = &claim.plan.settings;
    let InvocationInput::Github { reference } = &claim.invocation.input;
    let pinned = claim.invocation.resolved_commit.clone().map(GitReference::Sha);
    let reference = pinned.as_ref().or(reference.as_ref());
    let cancel = lease.lost().child_token();
    // Dropping this future stops the blocking transfer as well.
    let _stop = cancel.clone().drop_guard();
    let start = Instant::now();
    let tenant = &claim.invocation.tenant;
    let snapshot = repository::fetch(environment, tenant, github, reference, cancel).await;
    progress.time(Stage::Fetch, start);
    snapshot
}
