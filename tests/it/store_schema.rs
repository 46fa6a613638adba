//! Migrations, and the indexes that the claim depends on.

use chroma_sync::{
    domain::{invocation::InvocationFilter, page::PageRequest, source::SourceSettings},
    store::{
        Clock, Scope, Store, StoreOptions,
        lease::{CLAIMABLE_TENANTS_SQL, NEXT_OF_TENANT_SQL},
    },
};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, TransactionTrait};

use crate::harness::stores::{TestStore, on_both_stores};

on_both_stores! {
    migrations_go_up_down_and_up_again_to_the_same_schema,
    servers_that_start_at_once_migrate_once,
    invocations_from_before_the_filters_are_found_by_repository,
    a_store_without_its_schema_says_what_to_run,
    the_clock_of_the_database_is_used,
    the_claim_uses_the_partial_indexes_however_many_invocations_have_ended,
}

/// Tables, columns and indexes, as text.
async fn schema(raw: &DatabaseConnection) -> Vec<String> {
    let queries: &[&str] = match raw.get_database_backend() {
        DbBackend::Postgres => &[
            "SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable AS line \
             FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1",
            "SELECT indexdef AS line FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
            "SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) AS line FROM pg_constraint \
             WHERE connamespace = 'public'::regnamespace ORDER BY 1",
        ],
        _ => &["SELECT sql AS line FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"],
    };
    let mut lines = Vec::new();
    for query in queries {
        let statement = Statement::from_string(raw.get_database_backend(), *query);
        for row in raw.query_all_raw(statement).await.unwrap() {
            lines.push(row.try_get::<String>("", "line").unwrap());
        }
    }
    lines
}

async fn migrations_go_up_down_and_up_again_to_the_same_schema(test: TestStore) {
    let raw = test.raw().await;
    let states = test.store.migration_states().await.unwrap();
    assert!(!states.is_empty());
    assert!(states.iter().all(|migration| migration.applied), "{states:?}");
    let first = schema(&raw).await;
    for table in [
        "api_keys",
        "sources",
        "invocations",
        "invocation_events",
        "documents",
        "aws_credentials",
        "github_apps",
    ] {
        assert!(first.iter().any(|line| line.contains(table)), "{table}");
    }
    let steps = u32::try_from(states.len()).unwrap();
    test.store.revert_migrations(steps).await.unwrap();
    let states = test.store.migration_states().await.unwrap();
    assert!(states.iter().all(|migration| !migration.applied), "{states:?}");
    let left = schema(&raw).await;
    assert!(
        left.iter().all(|line| line.contains("seaql_migrations")),
        "{left:?}"
    );

    test.store.migrate().await.unwrap();
    test.store.migrate().await.unwrap();
    assert_eq!(schema(&raw).await, first);
    raw.close().await.unwrap();
}

async fn invocations_from_before_the_filters_are_found_by_repository(test: TestStore) {
    let tenant = test.fresh_tenant();
    let source = test.source(&tenant).await;
    let SourceSettings::Github(github) = source.settings.clone() else {
        panic!("it is a repository")
    };
    let (first, orphan) = (test.invocation(&source).await, {
        let gone = test.source(&tenant).await;
        let orphan = test.invocation(&gone).await;
        assert!(
            test.store
                .delete_source(&Scope::tenant(tenant.clone()), gone.id)
                .await
                .unwrap()
        );
        orphan
    });
    // Back to the first migration, whose table has no such columns.
    let states = test.store.migration_states().await.unwrap();
    let steps = u32::try_from(states.len() - 1).unwrap();
    test.store.revert_migrations(steps).await.unwrap();
    test.store.migrate().await.unwrap();
    let filter = InvocationFilter {
        github_repository: Some(github.repository),
        ..InvocationFilter::default()
    };
    let scope = Scope::tenant(tenant);
    let list = async |filter: &InvocationFilter| {
        let page = test
            .store
            .list_invocations(&scope, filter, &PageRequest::default())
            .await;
        let items = page.unwrap().items;
        items
            .into_iter()
            .map(|invocation| invocation.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(list(&filter).await, [first.id]);
    assert_eq!(list(&InvocationFilter::default()).await, [orphan.id, first.id]);
}

async fn servers_that_start_at_once_migrate_once(test: TestStore) {
    let steps = u32::try_from(test.store.migration_states().await.unwrap().len()).unwrap();
    test.store.revert_migrations(steps).await.unwrap();
    let stores = [test.store.clone(), test.second().await, test.second().await];
    let migrated = futures::future::join_all(stores.iter().map(Store::migrate)).await;
    for outcome in migrated {
        outcome.unwrap();
    }
    assert!(
        stores[2]
            .migration_states()
            .await
            .unwrap()
            .iter()
            .all(|migration| migration.applied)
    );
}

async fn a_store_without_its_schema_says_what_to_run(test: TestStore) {
    let steps = u32::try_from(test.store.migration_states().await.unwrap().len()).unwrap();
    test.store.revert_migrations(steps).await.unwrap();
    let error = test.store.list_api_keys(None).await.unwrap_err();
    assert!(!error.is_transient());
    assert!(error.to_string().contains("chroma-sync migrate"), "{error}");
}

async fn the_clock_of_the_database_is_used(test: TestStore) {
    let mut options = StoreOptions::new(&test.url);
    options.clock = Clock::System;
    let store = Store::connect(&options).await.unwrap();
    let before = chroma_sync::domain::time::Timestamp::now();
    let now = store.now().await.unwrap();
    let after = chroma_sync::domain::time::Timestamp::now();
    assert!(before <= now && now <= after, "{before:?} {now:?} {after:?}");
    store.ping().await.unwrap();
    store.close().await;
    assert!(store.ping().await.is_err());
}

async fn the_claim_uses_the_partial_indexes_however_many_invocations_have_ended(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let template = test.invocation(&source).await;
    test.invocation(&source).await;
    let raw = test.raw().await;
    copy_as_ended(&raw, template.id.0, 20_000).await;
    raw.execute_unprepared("ANALYZE").await.unwrap();

    let tenants = plan(&raw, CLAIMABLE_TENANTS_SQL, &["BIGINT", "BIGINT"], "1, 1").await;
    let next = plan(&raw, NEXT_OF_TENANT_SQL, &["TEXT", "BIGINT"], "'tenant', 1").await;
    for (plan, indexes) in [
        (&tenants, &["invocations_claimable", "invocations_leased"][..]),
        (&next, &["invocations_claimable"][..]),
    ] {
        for index in indexes {
            assert!(plan.contains(index), "{index} is not used:\n{plan}");
        }
        for scan in ["Seq Scan on invocations", "SCAN invocations\n"] {
            assert!(!plan.contains(scan), "all invocations are read:\n{plan}");
        }
    }
    raw.close().await.unwrap();
}

/// Copies one invocation many times, as invocations that have ended.
async fn copy_as_ended(raw: &DatabaseConnection, id: uuid::Uuid, copies: u32) {
    let backend = raw.get_database_backend();
    let (numbers, new_id) = match backend {
        DbBackend::Postgres => (
            format!("generate_series(1, {copies}) AS numbers (n)"),
            "gen_random_uuid()",
        ),
        _ => {
            let numbers = format!(
                "(WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {copies}) \
                 SELECT n FROM numbers)"
            );
            (numbers, "randomblob(16)")
        }
    };
    let copied = "tenant, source_id, source_type, database_name, collection_name, exclusive, input, plan, create_time, \
                  revision, phase, statistics, progress_version, attempt, failures, next_attempt_at";
    let sql = format!(
        "INSERT INTO invocations (id, state, {copied}) SELECT {new_id}, 'complete', {copied} \
         FROM invocations, {numbers} WHERE invocations.id = $1"
    );
    let result = raw
        .execute_raw(Statement::from_sql_and_values(backend, sql, [id.into()]))
        .await
        .unwrap();
    assert_eq!(result.rows_affected(), u64::from(copies));
}

/// The plan of a statement. On PostgreSQL that is the generic plan, the one a prepared statement ends up
/// with, which knows nothing of the parameters.
async fn plan(raw: &DatabaseConnection, sql: &str, types: &[&str], arguments: &str) -> String {
    let backend = raw.get_database_backend();
    let transaction = raw.begin().await.unwrap();
    let (explain, column) = match backend {
        DbBackend::Postgres => {
            let types = types.join(", ");
            transaction
                .execute_unprepared("SET LOCAL plan_cache_mode = force_generic_plan")
                .await
                .unwrap();
            transaction
                .execute_unprepared(&format!("PREPARE claim ({types}) AS {sql}"))
                .await
                .unwrap();
            (format!("EXPLAIN EXECUTE claim ({arguments})"), "QUERY PLAN")
        }
        _ => (format!("EXPLAIN QUERY PLAN {sql}"), "detail"),
    };
    let rows = transaction
        .query_all_raw(Statement::from_string(backend, explain))
        .await
        .unwrap();
    let mut plan = String::new();
    for row in rows {
        plan.push_str(&row.try_get::<String>("", column).unwrap());
        plan.push('\n');
    }
    if backend == DbBackend::Postgres {
        transaction.execute_unprepared("DEALLOCATE claim").await.unwrap();
    }
    transaction.rollback().await.unwrap();
    plan
}
