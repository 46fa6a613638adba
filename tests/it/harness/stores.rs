//! Stores to test with: the same tests run on SQLite and on PostgreSQL.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use chroma_sync::{
    domain::{
        chunking::Chunking,
        embedding::{BM25, Embedding, MINILM, ModelForm, SparseSettings, Task},
        globs::Globs,
        ids::{InvocationId, WorkerId},
        invocation::{GitReference, Invocation, InvocationInput, NewInvocation},
        names::{CollectionName, DatabaseName, TenantName},
        source::{GithubSource, NewSource, RepositoryName, Source, SourceSettings},
        time::Timestamp,
    },
    store::{
        Claim, ClaimLimits, Clock, CreateInvocation, CreateSource, EmbeddingTable, ManualClock, Scope, Store,
        StoreOptions,
    },
};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection};

use super::postgres;

/// How long a lease lasts in these tests.
pub const LEASE: Duration = Duration::from_secs(30);
/// A bound that no test reaches by accident.
pub const MANY: ClaimLimits = ClaimLimits { per_tenant: 1_000 };

/// A migrated store in a database of its own, on a clock that stands still.
pub struct TestStore {
    pub store: Store,
    pub clock: ManualClock,
    pub url: String,
    names: AtomicU32,
    _directory: Option<tempfile::TempDir>,
}

impl TestStore {
    /// On SQLite, in a file of its own.
    pub async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("store.db").display());
        Self::open(url, Some(directory)).await
    }

    /// On PostgreSQL, in a database of its own.
    pub async fn postgres() -> Self {
        Self::open(postgres::fresh_database().await, None).await
    }

    async fn open(url: String, directory: Option<tempfile::TempDir>) -> Self {
        let clock = ManualClock::new(Timestamp(1_767_323_045_000));
        let store = Store::connect(&options(&url, &clock)).await.unwrap();
        store.migrate().await.unwrap();
        Self {
            store,
            clock,
            url,
            names: AtomicU32::new(0),
            _directory: directory,
        }
    }

    /// Another store on the same database and clock, as a second process would have it.
    pub async fn second(&self) -> Store {
        Store::connect(&options(&self.url, &self.clock)).await.unwrap()
    }

    /// A connection past the store, to look at the schema or to bring about what the store cannot yet.
    pub async fn raw(&self) -> DatabaseConnection {
        Database::connect(&self.url).await.unwrap()
    }

    /// Runs a statement past the store.
    pub async fn execute(&self, sql: &str) {
        let raw = self.raw().await;
        raw.execute_unprepared(sql).await.unwrap();
        raw.close().await.unwrap();
    }

    /// The embedding cache of this store, as one more process has it.
    pub async fn embeddings(&self) -> EmbeddingTable {
        let options = options(&self.url, &self.clock);
        self.store.embeddings(&options).await.unwrap()
    }

    /// A connection to where the embedding cache lies: with SQLite that is a file of its own.
    pub async fn raw_embeddings(&self) -> DatabaseConnection {
        match self.url.starts_with("sqlite:") {
            true => Database::connect(format!("{}-embeddings", self.url))
                .await
                .unwrap(),
            false => self.raw().await,
        }
    }

    /// Runs a statement on the embedding cache past the store.
    pub async fn execute_on_embeddings(&self, sql: &str) {
        let raw = self.raw_embeddings().await;
        raw.execute_unprepared(sql).await.unwrap();
        raw.close().await.unwrap();
    }

    /// What the store's clock shows.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A tenant that nothing has used yet.
    pub fn fresh_tenant(&self) -> TenantName {
        tenant(&format!("tenant-{}", self.names.fetch_add(1, Ordering::Relaxed)))
    }

    /// A source with settings that nothing else has.
    pub async fn source(&self, tenant: &TenantName) -> Source {
        let repository = format!("owner/repository-{}", self.names.fetch_add(1, Ordering::Relaxed));
        created_source(
            self.store
                .create_source(tenant, new_source("db", &repository), None)
                .await
                .unwrap(),
        )
    }

    /// An invocation of `source` into a collection that nothing else writes to.
    pub async fn invocation(&self, source: &Source) -> Invocation {
        let collection = format!("collection-{}", self.names.fetch_add(1, Ordering::Relaxed));
        let new = new_invocation(&collection);
        created(
            self.store
                .create_invocation(&source.tenant, source, new, None, None)
                .await
                .unwrap(),
        )
    }

    /// An invocation in work: its claim and the worker that holds it.
    pub async fn claimed(&self) -> (Claim, WorkerId) {
        let source = self.source(&self.fresh_tenant()).await;
        let invocation = self.invocation(&source).await;
        let worker = WorkerId::generate();
        let claim = self.claim(&worker).await.expect("something to claim");
        assert_eq!(claim.invocation.id, invocation.id);
        (claim, worker)
    }

    /// Claims whatever comes next.
    pub async fn claim(&self, worker: &WorkerId) -> Option<Claim> {
        self.store.claim(worker, self.now(), LEASE, MANY).await.unwrap()
    }

    /// The invocation as it is now.
    pub async fn reload(&self, tenant: &TenantName, id: InvocationId) -> Invocation {
        let scope = Scope::tenant(tenant.clone());
        self.store
            .get_invocation(&scope, id)
            .await
            .unwrap()
            .expect("the invocation exists")
    }
}

fn options(url: &str, clock: &ManualClock) -> StoreOptions {
    let mut options = StoreOptions::new(url);
    options.max_connections = 12;
    options.clock = Clock::Manual(clock.clone());
    options
}

pub fn tenant(name: &str) -> TenantName {
    TenantName::parse("tenant", name).unwrap()
}

pub fn database(name: &str) -> DatabaseName {
    DatabaseName::parse("database", name).unwrap()
}

pub fn collection(name: &str) -> CollectionName {
    CollectionName::parse("collection", name).unwrap()
}

/// Everything a source can have, so that reading it back proves all of it.
pub fn new_source(database_name: &str, repository: &str) -> NewSource {
    let patterns = ["*.rs".to_owned(), "docs/*".to_owned()];
    NewSource {
        database: database(database_name),
        settings: SourceSettings::Github(GithubSource {
            repository: RepositoryName::parse("repository", repository).unwrap(),
            app_id: None,
            include_globs: Some(Globs::parse("include_globs", &patterns).unwrap()),
        }),
        embedding: Embedding {
            model: MINILM.to_owned(),
            model_form: ModelForm::String,
            task: Some(Task::default()),
            sparse: Some(SparseSettings {
                model: BM25.to_owned(),
                key: "words".to_owned(),
            }),
        },
        chunking: Chunking::Lines {
            max_lines: 10,
            max_size_bytes: 4_096,
        },
        webhook: None,
    }
}

pub fn new_invocation(collection_name: &str) -> NewInvocation {
    NewInvocation {
        collection: collection(collection_name),
        input: InvocationInput::Github {
            reference: Some(GitReference::Branch("main".to_owned())),
        },
        webhook: None,
        update_collection: false,
    }
}

pub fn created_source(outcome: CreateSource) -> Source {
    match outcome {
        CreateSource::Created(source) => source,
        other => panic!("expected a new source, got {other:?}"),
    }
}

pub fn created(outcome: CreateInvocation) -> Invocation {
    match outcome {
        CreateInvocation::Created(invocation) => invocation,
        other => panic!("expected a new invocation, got {other:?}"),
    }
}

/// Makes two tests of each function: one on SQLite, one on PostgreSQL.
macro_rules! on_both_stores {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::harness::stores::TestStore::sqlite().await).await;
            })+
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::harness::stores::TestStore::postgres().await).await;
            })+
        }
    };
}
pub(crate) use on_both_stores;

/// The kinds of store that the service runs on.
#[derive(Debug, Clone, Copy)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    /// The URL of a database that nothing has used; a file of SQLite lies in `directory`.
    pub async fn fresh_url(self, directory: &std::path::Path) -> String {
        match self {
            Self::Sqlite => format!("sqlite://{}", directory.join("service.db").display()),
            Self::Postgres => postgres::fresh_database().await,
        }
    }
}

/// Makes two tests of a function that takes a [`Backend`].
macro_rules! on_both {
    ($name:ident, $test:ident $(,)?) => {
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn on_sqlite() {
                super::$test($crate::harness::stores::Backend::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_postgres() {
                super::$test($crate::harness::stores::Backend::Postgres).await;
            }
        }
    };
}
pub(crate) use on_both;
