//! CreateInvocation, durable, against single-row inserts into the same database.
//!
//! The call asks the Chroma server whether the collection is finished already. So there are three
//! figures: the store's call alone, the whole call with a stand-in for Chroma that takes no time, and the
//! whole call with a real Chroma server.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chroma_sync::{
    domain::{names::TenantName, source::Source},
    proto,
    store::Store,
};
use tonic::{Request, metadata::AsciiMetadataValue};

use crate::{
    CONNECTIONS, IN_FLIGHT,
    get::clients,
    harness::{
        chroma::ChromaDatabase,
        postgres::Cluster,
        service::{Deployment, Service},
        stores::{created, created_source, new_invocation, new_source},
    },
    load::{Figure, Processes, Row, drive, print_ratio, print_table},
    migrated,
    peers::{Peer, STAND_IN},
    raw::{Pgbench, SqliteRows, postmaster},
    sqlite_url,
};

const ROUNDS: usize = 3;

/// Names that no other collection has.
static COLLECTIONS: AtomicUsize = AtomicUsize::new(0);

fn next_collection() -> String {
    format!("collection-{}", COLLECTIONS.fetch_add(1, Ordering::Relaxed))
}

pub async fn measure(cluster: &Cluster, directory: &Path) {
    let stand_in = Peer::start(&[STAND_IN]);
    let chroma = ChromaDatabase::create().await;
    on_sqlite(directory, &stand_in, &chroma).await;
    on_postgres(cluster, directory, &stand_in).await;
}

async fn on_sqlite(directory: &Path, stand_in: &Peer, chroma: &ChromaDatabase) {
    let url = |name: &str| sqlite_url(directory, name);
    let raw = migrated(&url("raw.db")).await;
    Alone::new(raw.clone()).await.create().await;
    let raw = SqliteRows::invocations(&url("raw.db"), raw).await;
    let least = SqliteRows::least(&url("least.db")).await;
    let alone = Alone::new(migrated(&url("alone.db")).await).await;
    let whole = Whole::new(&url("whole.db"), &stand_in.url, "db", directory).await;
    let real = Whole::new(&url("real.db"), chroma.url(), chroma.name().as_str(), directory).await;

    let mut rows = [
        Row::new("one row of invocations a transaction, sqlx"),
        Row::new("one row of two columns a transaction, sqlx"),
        Row::new(format!("store's call alone, {IN_FLIGHT} in flight")),
        Row::new("store's call alone, 1 in flight"),
        Row::new(format!(
            "CreateInvocation, Chroma stand-in, {IN_FLIGHT} in flight"
        )),
        Row::new("CreateInvocation, Chroma stand-in, 1 in flight"),
        Row::new(format!("CreateInvocation, real Chroma, {IN_FLIGHT} in flight")),
        Row::new("CreateInvocation, real Chroma, 1 in flight"),
    ];
    for _ in 0..ROUNDS {
        rows[0].add(raw.measure().await);
        rows[1].add(least.measure().await);
        rows[2].add(alone.measure(IN_FLIGHT).await);
        rows[3].add(alone.measure(1).await);
        rows[4].add(whole.measure(IN_FLIGHT, &[]).await);
        rows[5].add(whole.measure(1, &[]).await);
        rows[6].add(real.measure(IN_FLIGHT, &[]).await);
        rows[7].add(real.measure(1, &[]).await);
    }
    alone.store.close().await;
    print_table(
        &format!("CreateInvocation on SQLite, every commit synced, {CONNECTIONS} connections"),
        &rows.each_ref(),
    );
    print_ratio("stand-in, many / single rows", &rows[4], &rows[0], 2.0);
    print_ratio(
        "stand-in, many / single rows of two columns",
        &rows[4],
        &rows[1],
        2.0,
    );
    print_ratio("real Chroma, many / single rows", &rows[6], &rows[0], 2.0);
    print_ratio("store alone, many / single rows", &rows[2], &rows[0], 2.0);
    print_ratio("store alone, 1 / single rows", &rows[3], &rows[0], 1.0);
    print_ratio("stand-in, 1 / single rows", &rows[5], &rows[0], 1.0);
    print_ratio("real Chroma, 1 / single rows", &rows[7], &rows[0], 1.0);
}

async fn on_postgres(cluster: &Cluster, directory: &Path, stand_in: &Peer) {
    let url = cluster.fresh_database().await;
    let alone = Alone::new(migrated(&url).await).await;
    alone.create().await;
    let pgbench = Pgbench::new(cluster, &url, directory).await;
    let whole = Whole::new(&cluster.fresh_database().await, &stand_in.url, "db", directory).await;
    let database = postmaster(cluster);

    let mut rows = [
        Row::new(format!("pgbench, one row a transaction, {IN_FLIGHT} clients")),
        Row::new("pgbench, one row a transaction, 16 clients"),
        Row::new("pgbench, one row a transaction, 1 client"),
        Row::new(format!("store's call alone, {IN_FLIGHT} in flight")),
        Row::new("store's call alone, 1 in flight"),
        Row::new(format!(
            "CreateInvocation, Chroma stand-in, {IN_FLIGHT} in flight"
        )),
        Row::new("CreateInvocation, Chroma stand-in, 1 in flight"),
    ];
    for _ in 0..ROUNDS {
        rows[0].add(pgbench.measure(IN_FLIGHT));
        rows[1].add(pgbench.measure(16));
        rows[2].add(pgbench.measure(1));
        rows[3].add(alone.measure(IN_FLIGHT).await);
        rows[4].add(alone.measure(1).await);
        rows[5].add(whole.measure(IN_FLIGHT, &[database]).await);
        rows[6].add(whole.measure(1, &[database]).await);
    }
    alone.store.close().await;
    print_table(
        "CreateInvocation on PostgreSQL, every commit synced (server us with PostgreSQL's)",
        &rows.each_ref(),
    );
    print_ratio("stand-in, many / pgbench, as many", &rows[5], &rows[0], 0.8);
    print_ratio("stand-in, many / pgbench, 16", &rows[5], &rows[1], 0.8);
    print_ratio("store alone, many / pgbench, as many", &rows[3], &rows[0], 0.8);
    print_ratio("store alone, 1 / pgbench, 1 (no target)", &rows[4], &rows[2], 0.0);
    print_ratio("stand-in, 1 / pgbench, 1 (no target)", &rows[6], &rows[2], 0.0);
}

/// The store in this process, without anything above it.
#[derive(Clone)]
struct Alone {
    store: Store,
    source: Arc<Source>,
}

impl Alone {
    async fn new(store: Store) -> Self {
        let tenant = TenantName::default_tenant();
        let source = store
            .create_source(&tenant, new_source("db", "owner/repository"), None)
            .await;
        let source = Arc::new(created_source(source.unwrap()));
        Self { store, source }
    }

    async fn create(&self) {
        let new = new_invocation(&next_collection());
        let outcome = self
            .store
            .create_invocation(&self.source.tenant, &self.source, new, None, None)
            .await;
        created(outcome.unwrap());
    }

    async fn measure(&self, tasks: usize) -> Figure {
        let alone = self.clone();
        drive(tasks, &Processes(vec![]), move |_| {
            let alone = alone.clone();
            async move { alone.create().await }
        })
        .await
    }
}

/// The whole service in a process of its own.
struct Whole {
    service: Service,
    token: AsciiMetadataValue,
    source_id: String,
}

impl Whole {
    async fn new(url: &str, chroma_url: &str, database: &str, directory: &Path) -> Self {
        let deployment = Deployment::new(url, chroma_url, "file:///", directory).with("log.filter", "warn");
        let token = deployment.create_key(&["--role", "admin"]);
        let service = deployment.start_role("api");
        let github = proto::GithubSource {
            repository: "owner/repository".to_owned(),
            app_id: None,
            include_globs: vec!["*.rs".to_owned(), "docs/*".to_owned()],
        };
        let request = proto::CreateSourceRequest {
            database_name: database.to_owned(),
            settings: Some(proto::create_source_request::Settings::Github(github)),
            ..Default::default()
        };
        let source = service.sources(&token).create_source(request).await;
        let source_id = source.unwrap().into_inner().id;
        Self {
            service,
            token: token.parse().unwrap(),
            source_id,
        }
    }

    async fn measure(&self, tasks: usize, others: &[u32]) -> Figure {
        let clients = Arc::new(clients(&self.service.url).await);
        let (token, source_id) = (self.token.clone(), self.source_id.clone());
        let mut processes = vec![self.service.process_id()];
        processes.extend(others);
        drive(tasks, &Processes(processes), move |task| {
            let mut client = clients[task % clients.len()].clone();
            let input = proto::GithubInput {
                reference: Some(proto::github_input::Reference::Branch("main".to_owned())),
            };
            let mut request = Request::new(proto::CreateInvocationRequest {
                source_id: source_id.clone(),
                target_collection_name: next_collection(),
                input: Some(proto::create_invocation_request::Input::Github(input)),
                request_id: None,
                webhook: None,
                update_collection: false,
            });
            request.metadata_mut().insert("x-chroma-token", token.clone());
            async move {
                client.create_invocation(request).await.unwrap();
            }
        })
        .await
    }
}
