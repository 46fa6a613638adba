//! Durability, and several processes on one database.

use std::time::Duration;

use chroma_sync::{
    domain::{
        api_key::{NewApiKey, Role},
        ids::WorkerId,
        invocation::{Progress, Statistics},
        page::PageRequest,
        source::SourceFilter,
    },
    store::{CreateSource, Held, Scope, Store, StoreError, StoreOptions},
};
use futures::future::join_all;
use sea_orm::{ConnectionTrait, Statement};

use crate::harness::{
    stores::{LEASE, MANY, TestStore, new_source, on_both_stores, tenant},
    wait_for,
};

on_both_stores! {
    what_was_answered_is_committed,
    a_write_that_fails_does_not_harm_those_beside_it,
    two_processes_write_at_once,
    a_closed_store_finishes_its_writes_and_refuses_more,
}

async fn what_was_answered_is_committed(test: TestStore) {
    let raw = test.raw().await;
    let backend = raw.get_database_backend();
    let tenant = test.fresh_tenant();
    let checks = (0..60).map(|n| {
        let (store, raw, tenant) = (test.store.clone(), raw.clone(), tenant.clone());
        async move {
            let new = new_source("db", &format!("owner/name-{n}"));
            let outcome = store.create_source(&tenant, new, None).await.unwrap();
            let CreateSource::Created(source) = outcome else {
                panic!("{outcome:?}")
            };
            // Another connection sees only what is committed.
            let select = "SELECT 1 AS one FROM sources WHERE id = $1";
            let select = Statement::from_sql_and_values(backend, select, [source.id.0.into()]);
            raw.query_one_raw(select).await.unwrap().is_some()
        }
    });
    assert_eq!(join_all(checks).await, vec![true; 60]);
}

async fn a_write_that_fails_does_not_harm_those_beside_it(test: TestStore) {
    let key = |token: u8| NewApiKey {
        name: "key".to_owned(),
        tenant: tenant("a"),
        role: Role::Owner,
        token_sha256: [token; 32],
        databases: None,
        expire_time: None,
    };
    test.store.create_api_key(key(0)).await.unwrap();
    // Every other token is taken.
    let outcomes =
        join_all((0..40).map(|n| test.store.create_api_key(key(if n % 2 == 0 { n } else { 0 })))).await;
    for (n, outcome) in (0..40).zip(outcomes) {
        match outcome {
            Ok(_) => assert!(n % 2 == 0 && n != 0, "{n}"),
            Err(error) => {
                assert!(n % 2 == 1 || n == 0, "{n}: {error}");
                assert!(matches!(error, StoreError::Rejected(_)), "{error:?}");
            }
        }
    }
    assert_eq!(test.store.list_api_keys(None).await.unwrap().len(), 1 + 19);
}

async fn two_processes_write_at_once(test: TestStore) {
    const WRITES: usize = 60;
    let tenants = [test.fresh_tenant(), test.fresh_tenant()];
    let (claim, _) = test.claimed().await;
    let second = test.second().await;
    let writes = [&test.store, &second]
        .into_iter()
        .zip(&tenants)
        .flat_map(|(store, tenant)| {
            (0..WRITES).map(async |n| {
                let new = new_source("db", &format!("owner/name-{n}"));
                assert!(matches!(
                    store.create_source(tenant, new, None).await.unwrap(),
                    CreateSource::Created(_)
                ));
                let held = store
                    .report_progress(claim.invocation.id, 1, &Progress::default(), None)
                    .await
                    .unwrap();
                assert_eq!(held, Held::Held);
            })
        });
    join_all(writes).await;
    for tenant in &tenants {
        let (filter, request) = (
            SourceFilter::default(),
            PageRequest {
                size: 1_000,
                ..PageRequest::default()
            },
        );
        let page = second
            .list_sources(&Scope::tenant(tenant.clone()), &filter, &request)
            .await
            .unwrap();
        assert_eq!(page.items.len(), WRITES);
    }
    let invocation = test.reload(&claim.invocation.tenant, claim.invocation.id).await;
    assert_eq!(
        invocation.progress_version,
        claim.invocation.progress_version + 2 * WRITES as u64
    );

    // A worker in the second process ends what the first one created.
    let source = test.source(&tenants[0]).await;
    let id = test.invocation(&source).await.id;
    let taken = second
        .claim(&WorkerId::generate(), test.now(), LEASE, MANY)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(taken.invocation.id, id);
    let ended = second.complete(id, 1, Statistics::default(), test.now());
    assert_eq!(ended.await.unwrap().unwrap().id, id);
    second.close().await;
    assert!(test.reload(&tenants[0], id).await.state.name().is_terminal());
}

async fn a_closed_store_finishes_its_writes_and_refuses_more(test: TestStore) {
    let second = test.second().await;
    let tenant = test.fresh_tenant();
    let writes = (0..20).map(|n| {
        let (store, tenant) = (second.clone(), tenant.clone());
        tokio::spawn(async move {
            store
                .create_source(&tenant, new_source("db", &format!("a/b{n}")), None)
                .await
        })
    });
    let writes: Vec<_> = writes.collect();
    let outcomes = join_all(writes).await;
    second.close().await;
    assert!(
        outcomes
            .into_iter()
            .all(|outcome| matches!(outcome.unwrap(), Ok(CreateSource::Created(_))))
    );
    let refused = second
        .create_source(&tenant, new_source("db", "a/late"), None)
        .await;
    assert!(refused.is_err());
    let scope = Scope::tenant(tenant);
    let page = test
        .store
        .list_sources(&scope, &SourceFilter::default(), &PageRequest::default())
        .await
        .unwrap();
    assert_eq!(page.items.len(), 20);
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_a_transient_error() {
    let mut options = StoreOptions::new("postgres://nobody@127.0.0.1:1/none");
    options.acquire_timeout = Duration::from_millis(200);
    let error = Store::connect(&options).await.expect_err("nothing listens there");
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_url_of_no_known_database_is_refused_without_showing_its_password() {
    for url in [
        "mysql://user:secret@host/db",
        "secret",
        "sqlite::memory:",
        "sqlite://:memory:",
    ] {
        let error = Store::connect(&StoreOptions::new(url))
            .await
            .expect_err("no such database");
        assert!(matches!(error, StoreError::InvalidUrl { .. }), "{url}: {error:?}");
        assert!(!chroma_sync::error::chain(&error).contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn what_is_committed_reaches_the_file_of_sqlite_beside_the_commits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let url = format!("sqlite://{}", path.display());
    let store = Store::connect(&StoreOptions::new(&url)).await.unwrap();
    store.migrate().await.unwrap();
    // A few pages, of which SQLite by itself would move none.
    let new = new_source("db", "owner/a-name-to-look-for");
    store.create_source(&tenant("a"), new, None).await.unwrap();
    wait_for("the name in the file", async || {
        let file = std::fs::read(&path).unwrap();
        let name = b"owner/a-name-to-look-for";
        let found = file.windows(name.len()).any(|bytes| bytes == name);
        found.then_some(()).ok_or("it is in the log alone")
    })
    .await;
    store.close().await;
}
