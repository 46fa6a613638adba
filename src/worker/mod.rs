//! The worker: claims invocations and runs each through `fetch -> chunk -> embed -> index`.
//!
//! Many workers may share one database. What keeps them apart is the lease (see `store::lease`): an
//! attempt renews it in the background and is fenced by its number in every write. Absent on purpose:
//! any order from the transports. A wake-up only saves the wait for the next look at the database.

mod attempt;
mod credentials;
mod embedding_cache;
mod failure;
mod lease_guard;
mod pipeline;
mod progress;
mod reaper;
mod runner;
mod sweeper;

use std::time::Duration;

pub use credentials::CredentialError;
pub use embedding_cache::{EmbeddingCache, EmbeddingCacheOptions};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::ids::WorkerId,
    embed::Embedders,
    fetch::{GithubApps, GithubOptions, s3::S3Options, web::CrawlOptions},
    index::ChromaClient,
    parse::Parser,
    seal::SealingKey,
    store::Store,
    uploads::UploadStore,
    wake::{ChangeSignal, WorkSignal},
};

/// Everything an attempt needs from outside.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The service's own database.
    pub store: Store,
    /// The Chroma server.
    pub chroma: ChromaClient,
    /// Opens the tokens of callers that invocations write with, and credentials.
    pub sealing_key: SealingKey,
    /// The models.
    pub embedders: Embedders,
    /// What they computed before; none where it is turned off or cannot be opened.
    pub embedding_cache: Option<EmbeddingCache>,
    /// How repositories are fetched.
    pub github: GithubOptions,
    /// Makes the tokens of GitHub Apps.
    pub github_apps: GithubApps,
    /// How buckets are read.
    pub s3: S3Options,
    /// How web sites are crawled.
    pub web: CrawlOptions,
    /// Where uploaded files lie.
    pub uploads: UploadStore,
    /// Where an upload that is read lies meanwhile.
    pub upload_directory: std::path::PathBuf,
    /// Converts documents to Markdown.
    pub parser: Parser,
    /// Wakes this worker.
    pub work: WorkSignal,
    /// Wakes the watches of this process.
    pub changes: ChangeSignal,
}

/// How a worker behaves; meanings in `config/default.toml`.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct WorkerOptions {
    pub concurrency: usize,
    pub max_concurrency_per_tenant: u32,
    pub lease: Duration,
    pub poll: Duration,
    pub max_failed_attempts: u32,
    pub backoff: Duration,
    pub max_backoff: Duration,
    pub drain: Duration,
    pub stage_buffer_bytes: usize,
    pub keep_uploads: Duration,
    pub sweep_uploads: Duration,
}

/// Works until `drain` is cancelled, then finishes what it has or hands it back.
pub async fn run(environment: Environment, options: WorkerOptions, drain: CancellationToken) {
    let id = WorkerId::generate();
    tracing::info!(worker.id = %id, concurrency = options.concurrency, "worker started");
    let reaper = tokio::spawn(reaper::run(environment.clone(), options, drain.clone()));
    let sweeper = tokio::spawn(sweeper::run(environment.clone(), options, drain.clone()));
    runner::run(environment, options, id, drain).await;
    reaper.abort();
    sweeper.abort();
    tracing::info!(worker.id = %id, "worker ended");
}
