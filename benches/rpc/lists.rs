//! How the store's calls grow with what is stored: each is timed in turns on a database with a thousand
//! invocations and on one with a million.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use chroma_sync::{
    domain::{
        ids::InvocationId,
        invocation::{InvocationFilter, StateName},
        names::{DatabaseName, TenantName},
        page::{Order, PageRequest},
        source::Source,
    },
    store::{Scope, Store},
};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, DbBackend, Statement};
use uuid::Uuid;

use crate::{
    harness::{
        postgres::Cluster,
        stores::{created, created_source, new_invocation, new_source, tenant},
    },
    load::median,
    migrated, sqlite_url,
};

const FEW: usize = 1_000;
const MANY: usize = 1_000_000;
/// Calls of each kind on each database.
const CALLS: usize = 300;
/// What takes longer in all is called less often.
const PATIENCE: Duration = Duration::from_secs(4);
/// Rows a page, so few that the small database fills it for every listing.
const PAGE: u32 = 20;
const TARGET: f64 = 1.5;

/// Half of all invocations belong to one tenant, the rest to these.
const OTHER_TENANTS: usize = 20;
/// Sources of the large tenant, so few that each has an invocation of every key in the small database.
const SOURCES: usize = 4;
/// Every so many invocations one belongs to a source of the large tenant.
const APART: usize = 2 * SOURCES;
/// Cancelled invocations of each of them: as many of a thousand as of a million.
const CANCELLED: usize = 5;
/// Keys that the invocations of one source name in turn.
const KEYS: usize = 100;

struct Stored {
    store: Store,
    scope: Scope,
    bound: [Scope; 2],
    source: Source,
    ids: Vec<Uuid>,
}

pub async fn measure(cluster: &Cluster, directory: &Path) {
    let sqlite = async |name| {
        Stored::new(
            &sqlite_url(directory, name),
            if name == "few.db" { FEW } else { MANY },
        )
        .await
    };
    compare("SQLite", &sqlite("few.db").await, &sqlite("many.db").await).await;
    let postgres = async |count| Stored::new(&cluster.fresh_database().await, count).await;
    compare("PostgreSQL", &postgres(FEW).await, &postgres(MANY).await).await;
}

async fn compare(database: &str, few: &Stored, many: &Stored) {
    println!(
        "\nthe store's calls on {database}, {FEW} and {MANY} invocations stored, 1 call at a time, medians"
    );
    println!("  {:<48} {:>9} {:>9} {:>7}", "", "us", "us", "ratio");
    for call in Call::ALL {
        let (mut small, mut large) = (Vec::new(), Vec::new());
        let start = Instant::now();
        for number in 0..CALLS {
            small.push(few.time(call, number).await);
            large.push(many.time(call, number).await);
            if start.elapsed() > PATIENCE {
                break;
            }
        }
        let (small, large) = (median(small.into_iter()), median(large.into_iter()));
        let ratio = large / small;
        let verdict = if ratio <= TARGET { "" } else { "  MISSED" };
        println!(
            "  {:<48} {small:>9.0} {large:>9.0} {ratio:>7.2}{verdict}",
            call.name()
        );
    }
}

#[derive(Clone, Copy)]
enum Call {
    Get,
    First,
    Deep,
    OfSource,
    OfState,
    OfSourceAndState,
    OfBoundKey,
    OfRarelyUsedKey,
    Latest,
    Create,
}

impl Call {
    const ALL: [Self; 10] = [
        Self::Get,
        Self::First,
        Self::Deep,
        Self::OfSource,
        Self::OfState,
        Self::OfSourceAndState,
        Self::OfBoundKey,
        Self::OfRarelyUsedKey,
        Self::Latest,
        Self::Create,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::First => "list, first page",
            Self::Deep => "list, a page by token, in the middle",
            Self::OfSource => "list, first page of a source",
            Self::OfState => "list, first page of the failed",
            Self::OfSourceAndState => "list, the few cancelled of a source",
            Self::OfBoundKey => "list, first page, key bound to two databases",
            Self::OfRarelyUsedKey => "list, first page, key bound to two small databases",
            Self::Latest => "latest of 100 keys",
            Self::Create => "create",
        }
    }
}

impl Stored {
    async fn new(url: &str, count: usize) -> Self {
        let store = migrated(url).await;
        let owner = TenantName::default_tenant();
        let mut source = None;
        for number in 0..SOURCES {
            source = Some(create_source(&store, &owner, number).await);
        }
        for number in 0..OTHER_TENANTS {
            create_source(&store, &tenant(&format!("tenant-{number}")), number).await;
        }
        let source = source.unwrap();
        let template = store
            .create_invocation(&owner, &source, new_invocation("template"), None, None)
            .await;
        let template = created(template.unwrap());
        let start = Instant::now();
        let database = Database::connect(url).await.unwrap();
        load(&database, template.id.0, &source, count).await;
        let ids = ids(&database, count).await;
        database.close().await.unwrap();
        println!("{count} invocations were loaded in {:.1?}", start.elapsed());
        let bound = [["db-1", "db-3"], ["db-small", "db-empty"]].map(|names| Scope {
            tenant: owner.clone(),
            databases: Some(
                names
                    .map(|name| DatabaseName::parse("database", name).unwrap())
                    .to_vec(),
            ),
        });
        Self {
            store,
            bound,
            scope: Scope::tenant(owner),
            source,
            ids,
        }
    }

    /// Microseconds of one call.
    async fn time(&self, call: Call, number: usize) -> f64 {
        let id = self.ids[number * 7919 % self.ids.len()];
        let page = PageRequest {
            size: PAGE,
            skip: 0,
            after: None,
            order: Order::Descending,
        };
        let deep = PageRequest {
            after: Some(self.ids[self.ids.len() / 2]),
            ..page
        };
        let all = InvocationFilter::default();
        let source = InvocationFilter {
            source_id: Some(self.source.id),
            ..all.clone()
        };
        let failed = InvocationFilter {
            state: Some(StateName::Failed),
            ..all.clone()
        };
        let cancelled = InvocationFilter {
            state: Some(StateName::Cancelled),
            ..source.clone()
        };
        let keys: Vec<String> = (0..KEYS).map(|key| format!("key-{key}")).collect();
        let start = Instant::now();
        let listed = match call {
            Call::Get => {
                let found = self.store.get_invocation(&self.scope, InvocationId(id)).await;
                assert!(found.unwrap().is_some());
                return start.elapsed().as_secs_f64() * 1e6;
            }
            Call::Latest => {
                let latest = self
                    .store
                    .latest_invocations_by_keys(&self.scope, self.source.id, &keys)
                    .await;
                let elapsed = start.elapsed();
                assert_eq!(latest.unwrap().len(), KEYS);
                return elapsed.as_secs_f64() * 1e6;
            }
            Call::Create => {
                let new = new_invocation(&format!("new-{}", Uuid::now_v7()));
                let outcome = self
                    .store
                    .create_invocation(&self.source.tenant, &self.source, new, None, None)
                    .await;
                let elapsed = start.elapsed();
                created(outcome.unwrap());
                return elapsed.as_secs_f64() * 1e6;
            }
            Call::First => self.store.list_invocations(&self.scope, &all, &page).await,
            Call::Deep => self.store.list_invocations(&self.scope, &all, &deep).await,
            Call::OfSource => self.store.list_invocations(&self.scope, &source, &page).await,
            Call::OfState => self.store.list_invocations(&self.scope, &failed, &page).await,
            Call::OfSourceAndState => self.store.list_invocations(&self.scope, &cancelled, &page).await,
            Call::OfBoundKey => self.store.list_invocations(&self.bound[0], &all, &page).await,
            Call::OfRarelyUsedKey => self.store.list_invocations(&self.bound[1], &all, &page).await,
        };
        let elapsed = start.elapsed();
        let expected = match call {
            Call::OfSourceAndState => CANCELLED,
            _ => PAGE as usize,
        };
        assert_eq!(listed.unwrap().items.len(), expected, "{}", call.name());
        elapsed.as_secs_f64() * 1e6
    }
}

async fn create_source(store: &Store, owner: &TenantName, number: usize) -> Source {
    let new = new_source("db-1", &format!("owner/repository-{number}"));
    created_source(store.create_source(owner, new, None).await.unwrap())
}

/// Copies the template, spread over tenants, sources, databases and states as in use. The indexes are
/// dropped meanwhile, since filling them row by row takes minutes.
async fn load(database: &DatabaseConnection, template: Uuid, source: &Source, count: usize) {
    let backend = database.get_database_backend();
    let execute = async |sql: &str| database.execute_unprepared(sql).await.unwrap();
    let indexes = match backend {
        DbBackend::Postgres => {
            execute("SET synchronous_commit = off; SET maintenance_work_mem = '1GB'").await;
            "SELECT indexname AS name, indexdef AS sql FROM pg_indexes \
             WHERE tablename = 'invocations' AND indexname <> 'invocations_pkey'"
        }
        _ => {
            execute("PRAGMA synchronous = off; PRAGMA cache_size = -500000; PRAGMA temp_store = memory")
                .await;
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'invocations' AND sql IS NOT NULL"
        }
    };
    let rows = database
        .query_all_raw(Statement::from_string(backend, indexes))
        .await
        .unwrap();
    let mut restore = Vec::new();
    for row in rows {
        let name: String = row.try_get("", "name").unwrap();
        execute(&format!("DROP INDEX {name}")).await;
        restore.push(row.try_get::<String>("", "sql").unwrap());
    }
    let (numbers, new_id) = match backend {
        DbBackend::Postgres => (
            format!("SELECT n FROM generate_series(1, {count}) AS numbers (n)"),
            "(lpad(to_hex(1700000000000 + n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid",
        ),
        _ => (
            format!(
                "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) SELECT n FROM numbers"
            ),
            "unhex(printf('%012x70008000%012x', 1700000000000 + n, n))",
        ),
    };
    let measured = match backend {
        DbBackend::Postgres => format!("'{}'::uuid", source.id),
        _ => format!("x'{}'", source.id.0.simple()),
    };
    execute(
        "CREATE TABLE source_places AS SELECT tenant, id, \
         row_number() OVER (PARTITION BY tenant ORDER BY id) - 1 AS place FROM sources",
    )
    .await;
    // In twos the large tenant and another; in eights each source of the large tenant once.
    let rows = format!(
        "SELECT n, CASE WHEN n % 2 = 0 THEN 'default_tenant' ELSE 'tenant-' || (n / 2 % {OTHER_TENANTS}) END AS owner, \
         CASE WHEN n % 2 = 0 THEN n / 2 % {SOURCES} ELSE 0 END AS place, \
         CASE WHEN n % 1000 = 1 THEN 'pending' WHEN n <= {FEW} AND n / {APART} % 25 = 3 THEN 'cancelled' \
         WHEN n / {APART} % 10 = 5 THEN 'failed' ELSE 'complete' END AS new_state \
         FROM ({numbers}) AS numbered"
    );
    let copied = "source_type, exclusive, input, plan, phase, statistics, attempt, failures";
    let started = "start_time, finish_time, failure";
    let failure = r#"'{"reason":"GIT_REFERENCE_NOT_FOUND","message":"the repository has no such branch"}'"#;
    let failure = match backend {
        DbBackend::Postgres => format!("{failure}::jsonb"),
        _ => failure.to_owned(),
    };
    execute(&format!(
        "INSERT INTO invocations (id, tenant, source_id, database_name, collection_name, object_key, create_time, state, \
         revision, progress_version, next_attempt_at, {started}, {copied}) \
         SELECT {new_id}, owner, source_places.id, CASE WHEN n <= 100 THEN 'db-small' ELSE 'db-' || (n / 3 % 5) END, 'collection-' || n, \
         CASE WHEN source_places.id = {measured} THEN 'key-' || (n / {APART} % {KEYS}) END, \
         1700000000000 + n, new_state, CASE WHEN new_state = 'pending' THEN 1 ELSE 3 END, 7, 1700000000000 + n, \
         1700000000000 + n, 1700000001000 + n, CASE WHEN new_state = 'failed' THEN {failure} END, {copied} \
         FROM ({rows}) AS new_rows \
         JOIN source_places ON source_places.tenant = owner AND source_places.place = new_rows.place \
         JOIN (SELECT {copied} FROM invocations WHERE id = {template}) AS template ON true ORDER BY n",
        template = match backend {
            DbBackend::Postgres => format!("'{template}'::uuid"),
            _ => format!("x'{}'", template.simple()),
        },
    ))
    .await;
    execute(
        "INSERT INTO invocation_events (invocation_id, revision, state, time, snapshot) \
         SELECT id, revision, state, create_time, input FROM invocations WHERE revision = 3",
    )
    .await;
    for index in restore {
        execute(&index).await;
    }
    if backend == DbBackend::Postgres {
        // As the server does by itself after a while.
        execute("VACUUM ANALYZE").await;
    } else {
        execute("PRAGMA wal_checkpoint(TRUNCATE)").await;
    }
}

/// Up to a thousand ids of the large tenant, from all over the listing, in order.
async fn ids(database: &DatabaseConnection, count: usize) -> Vec<Uuid> {
    let step = count / 1_000;
    let select = format!(
        "SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM invocations \
         WHERE tenant = 'default_tenant' AND revision = 3) AS placed WHERE place % {step} = 0 ORDER BY id"
    );
    let select = Statement::from_string(database.get_database_backend(), select);
    let rows = database.query_all_raw(select).await.unwrap();
    rows.into_iter()
        .map(|row| row.try_get("", "id").unwrap())
        .collect()
}
