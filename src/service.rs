//! Puts the parts together as configured and runs them until they drain.

mod models;
mod sources;

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{
        App, AppParts, Authenticator, UploadLimits,
        watch::{WatchHub, WatchOptions},
    },
    auto_sync::{self, Queue, QueueError},
    config::{AuthMode, ChromaRole, Config, SparseVectorsConfig},
    domain::{api_key::Role, embedding::ModelCatalog},
    embed::LoadError,
    fetch::{AllowListError, Egress, FetchError},
    index::{ChromaClient, ChromaOptions, IndexError, SparseVectors},
    parse::DescribeError,
    relay,
    seal::{SealError, SealingKey},
    server::{self, ServerError, ServerOptions, TlsError},
    store::{Store, StoreError, StoreOptions},
    uploads::UploadError,
    wake::{ChangeSignal, WorkSignal},
    webhook::{self, WebhookOptions},
    worker::{self, Environment, WorkerOptions},
};

pub use self::{
    models::{load_embedders, model_directories},
    sources::{parser, upload_store},
};

/// How long the Chroma server may take to say whose token a caller has.
const IDENTITY_DEADLINE: Duration = Duration::from_secs(10);

/// What one process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Answers calls.
    pub api: bool,
    /// Works on invocations.
    pub worker: bool,
}

/// Why the service cannot start or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The database.
    #[error("the database (store.url) cannot be used")]
    Store(#[from] StoreError),
    /// The Chroma client.
    #[error("the Chroma server (chroma.url) cannot be used")]
    Chroma(#[from] IndexError),
    /// A model.
    #[error("a model of embedding.models cannot be loaded")]
    Model(#[from] LoadError),
    /// The egress policy.
    #[error("egress.allow cannot be used")]
    Egress(#[from] AllowListError),
    /// The directory for repositories.
    #[error("the directory for repositories (worker.directory) cannot be used")]
    Directory(#[from] FetchError),
    /// The provider of descriptions of pictures.
    #[error("the provider of image descriptions (parse.image_descriptions) cannot be used")]
    Describe(#[from] DescribeError),
    /// The store of uploads.
    #[error("uploaded files cannot be stored")]
    Uploads(#[from] UploadError),
    /// The queue of events.
    #[error("the queue of events (sqs.queue_url) cannot be used")]
    Queue(#[from] QueueError),
    /// The key for secrets at rest.
    #[error("secrets cannot be sealed")]
    Seal(#[from] SealError),
    /// The certificate or its key.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// The server.
    #[error("the server ended with an error")]
    Server(#[from] ServerError),
    /// A part of the service panicked.
    #[error("a part of the service ended unexpectedly")]
    Task(#[from] tokio::task::JoinError),
}

/// Connects to the configured database.
///
/// # Errors
/// See [`Store::connect`].
pub async fn connect_store(config: &Config) -> Result<Store, StoreError> {
    let mut options = StoreOptions::new(config.store.url.expose());
    options.max_connections = config.store.max_connections;
    Store::connect(&options).await
}

/// A client of the configured Chroma server.
///
/// # Errors
/// See [`ChromaClient::new`].
pub fn chroma_client(config: &Config) -> Result<ChromaClient, IndexError> {
    let mut options = ChromaOptions::new(config.chroma.url.clone());
    options.timeout = Duration::from_secs(config.chroma.timeout_seconds);
    options.deadline = options.timeout.saturating_mul(2);
    options.sparse_vectors = match config.chroma.sparse_vectors {
        SparseVectorsConfig::Auto => SparseVectors::Auto,
        SparseVectorsConfig::On => SparseVectors::On,
        SparseVectorsConfig::Off => SparseVectors::Off,
    };
    options.token = config
        .chroma
        .token
        .non_empty()
        .map(|_| config.chroma.token.clone());
    ChromaClient::new(options)
}

/// A service that runs.
#[derive(Debug)]
pub struct Service {
    store: Store,
    server: Option<JoinHandle<Result<(), ServerError>>>,
    worker: Option<JoinHandle<()>>,
    webhooks: Option<JoinHandle<()>>,
    auto_sync: Option<JoinHandle<()>>,
    hub: Option<JoinHandle<()>>,
    relay: JoinHandle<()>,
}

/// Starts what `roles` asks for; `listener` is needed for the API. Everything ends once `drain` is
/// cancelled: streams with UNAVAILABLE, invocations finished or handed back.
///
/// # Errors
/// See [`ServiceError`].
pub async fn start(
    config: Config,
    roles: Roles,
    listener: Option<TcpListener>,
    drain: CancellationToken,
) -> Result<Service, ServiceError> {
    let store = connect_store(&config).await?;
    if config.store.migrate_on_start {
        store.migrate().await?;
    }
    let chroma = chroma_client(&config)?;
    let (sealing_key, egress) = (sealing_key(&config)?, Egress::parse(&config.egress.allow)?);
    let acceptor = tls_acceptor(&config)?;
    let uploads = upload_store(&config)?;
    let models = config.clone();
    // Reading and preparing the weights takes long enough to keep it off the runtime's threads.
    let embedders = tokio::task::spawn_blocking(move || load_embedders(&models)).await??;
    // A server that is away for now must not keep this one from starting.
    tokio::spawn(embedders.check());
    let (work, changes) = (WorkSignal::default(), ChangeSignal::default());
    let relay = tokio::spawn(relay::run(store.clone(), changes.clone(), work.clone()));
    let webhooks = roles.worker.then(|| {
        let environment = webhook::Environment {
            store: store.clone(),
            sealing_key: sealing_key.clone(),
            egress: egress.clone(),
            changes: changes.clone(),
        };
        tokio::spawn(webhook::run(environment, webhook_options(&config), drain.clone()))
    });
    let queue = sources::queue_options(&config).filter(|_| roles.worker);
    let auto_sync = queue.map(Queue::new).transpose()?.map(|queue| {
        let environment = auto_sync::Environment {
            store: store.clone(),
            sealing_key: sealing_key.clone(),
            s3: sources::s3_options(&config, egress.clone()),
            work: work.clone(),
            changes: changes.clone(),
            counts: Arc::default(),
            delete_removed_objects: config.sqs.delete_removed_objects,
            drain: Duration::from_secs(config.server.drain_seconds),
        };
        tokio::spawn(auto_sync::run(environment, queue, drain.clone()))
    });
    let worker = if roles.worker {
        let environment = Environment {
            store: store.clone(),
            chroma: chroma.clone(),
            sealing_key: sealing_key.clone(),
            embedders: embedders.clone(),
            github: sources::github_options(&config, egress.clone())?,
            github_apps: sources::github_apps(&config, egress.clone())?,
            s3: sources::s3_options(&config, egress.clone()),
            web: sources::crawl_options(&config, egress.clone()),
            uploads: uploads.clone(),
            upload_directory: sources::scratch_root(&config),
            parser: sources::parser(&config)?,
            work: work.clone(),
            changes: changes.clone(),
        };
        Some(tokio::spawn(worker::run(
            environment,
            worker_options(&config),
            drain.clone(),
        )))
    } else {
        None
    };
    let (mut server, mut hub) = (None, None);
    if let Some(listener) = listener {
        let watches = WatchHub::new(
            store.clone(),
            watch_options(&config),
            changes.clone(),
            drain.clone(),
        );
        hub = Some(tokio::spawn(watches.clone().run()));
        let app = App::new(AppParts {
            store: store.clone(),
            authenticator: authenticator(&config, &store, &chroma),
            chroma,
            sealing_key,
            allow_http_webhooks: config.webhooks.allow_http,
            uploads,
            upload_limits: upload_limits(&config),
            catalog: ModelCatalog::new(embedders.catalog(), config.embedding.default_model.clone())
                .with_sparse(embedders.sparse_names()),
            watches,
            work,
            changes,
        });
        server = Some(tokio::spawn(server::serve(
            app,
            server_options(&config),
            listener,
            acceptor,
            drain,
        )));
    }
    Ok(Service {
        store,
        server,
        worker,
        webhooks,
        auto_sync,
        hub,
        relay,
    })
}

impl Service {
    /// Waits until everything has drained.
    ///
    /// # Errors
    /// The first part that ended with one.
    pub async fn join(self) -> Result<(), ServiceError> {
        let Self {
            store,
            server,
            worker,
            webhooks,
            auto_sync,
            hub,
            relay,
        } = self;
        let served = match server {
            Some(server) => server
                .await
                .map_err(ServiceError::from)
                .and_then(|served| Ok(served?)),
            None => Ok(()),
        };
        if let Some(worker) = worker {
            worker.await?;
        }
        if let Some(webhooks) = webhooks {
            webhooks.await?;
        }
        if let Some(auto_sync) = auto_sync {
            auto_sync.await?;
        }
        if let Some(hub) = hub {
            hub.abort();
        }
        relay.abort();
        store.close().await;
        served
    }
}

fn authenticator(config: &Config, store: &Store, chroma: &ChromaClient) -> Authenticator {
    match config.auth.mode {
        AuthMode::Keys => Authenticator::keys(store.clone()),
        AuthMode::Chroma => {
            let role = match config.auth.chroma_role {
                ChromaRole::Owner => Role::Owner,
                ChromaRole::Admin => Role::Admin,
                ChromaRole::Member => Role::Member,
            };
            let keep = Duration::from_secs(config.auth.cache_seconds);
            // Whoever waits to be let in does not wait long.
            Authenticator::chroma(chroma.with_deadline(IDENTITY_DEADLINE), role, keep)
        }
        AuthMode::None => Authenticator::none(),
    }
}

fn tls_acceptor(config: &Config) -> Result<Option<TlsAcceptor>, TlsError> {
    let server = &config.server;
    server
        .speaks_tls()
        .then(|| server::acceptor(&server.tls_certificate, &server.tls_key))
        .transpose()
}

/// The keys for secrets at rest. Mode `chroma` always has secrets to keep, the others only once there is a
/// webhook or a credential; until then they make no key file.
///
/// # Errors
/// See [`SealError`].
pub fn sealing_key(config: &Config) -> Result<SealingKey, SealError> {
    let encryption = &config.encryption;
    let key = match (config.auth.mode, encryption.key.non_empty()) {
        (_, Some(key)) => SealingKey::from_hex(key)?,
        (AuthMode::Chroma, None) => SealingKey::from_file(&encryption.key_file)?,
        (AuthMode::Keys | AuthMode::None, None) => SealingKey::from_file_when_needed(&encryption.key_file),
    };
    key.with_previous(&encryption.previous_keys)
}

fn worker_options(config: &Config) -> WorkerOptions {
    let worker = &config.worker;
    WorkerOptions {
        concurrency: worker.concurrency,
        max_concurrency_per_tenant: worker.max_concurrency_per_tenant,
        lease: worker.lease(),
        poll: Duration::from_secs(worker.poll_seconds),
        max_failed_attempts: worker.max_failed_attempts,
        backoff: Duration::from_secs(worker.backoff_seconds),
        max_backoff: Duration::from_secs(worker.max_backoff_seconds),
        drain: Duration::from_secs(config.server.drain_seconds),
        stage_buffer_bytes: worker.stage_buffer_bytes,
        keep_uploads: Duration::from_secs(config.uploads.keep_hours.saturating_mul(3_600)),
        sweep_uploads: Duration::from_secs(config.uploads.sweep_seconds),
    }
}

fn upload_limits(config: &Config) -> UploadLimits {
    let uploads = &config.uploads;
    UploadLimits {
        max_file_bytes: uploads.max_file_bytes,
        max_per_tenant: uploads.max_uploads_per_tenant,
        idle: Duration::from_secs(uploads.idle_seconds),
    }
}

fn webhook_options(config: &Config) -> WebhookOptions {
    let webhooks = &config.webhooks;
    WebhookOptions {
        concurrency: webhooks.concurrency,
        max_concurrency_per_receiver: webhooks.max_concurrency_per_receiver,
        timeout: Duration::from_secs(webhooks.timeout_seconds),
        backoff: Duration::from_millis(webhooks.backoff_milliseconds),
        max_backoff: Duration::from_secs(webhooks.max_backoff_seconds),
        give_up_after: Duration::from_secs(webhooks.give_up_after_seconds),
        allow_http: webhooks.allow_http,
        poll: Duration::from_secs(config.worker.poll_seconds),
        drain: Duration::from_secs(config.server.drain_seconds),
    }
}

fn watch_options(config: &Config) -> WatchOptions {
    WatchOptions {
        heartbeat: Duration::from_secs(config.watch.heartbeat_seconds),
        poll: Duration::from_millis(config.watch.poll_milliseconds),
        max_streams: config.watch.max_streams,
        max_streams_per_key: config.watch.max_streams_per_key,
    }
}

fn server_options(config: &Config) -> ServerOptions {
    ServerOptions {
        max_request_bytes: config.server.max_request_bytes,
        max_connections: config.server.max_connections,
        max_concurrent_streams: config.server.max_concurrent_streams,
        max_concurrent_requests: config.server.max_concurrent_requests,
        request_timeout: Duration::from_secs(config.server.request_timeout_seconds),
        upload_timeout: Duration::from_secs(config.uploads.timeout_seconds),
        keepalive_interval: Duration::from_secs(config.server.keepalive_interval_seconds),
        keepalive_timeout: Duration::from_secs(config.server.keepalive_timeout_seconds),
        drain: Duration::from_secs(config.server.drain_seconds),
    }
}
