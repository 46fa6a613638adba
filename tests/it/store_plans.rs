//! Every statement of the store finds its rows by an index.
//!
//! The statements are taken from the log, as the store writes it when its functions are called one after
//! the other, and each is explained by the database. A statement that reads a whole table fails, and so
//! does a function of the store that is not called here.

mod auto_sync;
mod called;
mod credentials;
mod deliveries;
mod embeddings;
mod searches;
mod uploads;

use std::{collections::BTreeSet, time::Duration};

use chroma_sync::{
    domain::{
        api_key::{NewApiKey, Role},
        document::{Document, DocumentOutcome},
        ids::{InvocationId, SourceId, WorkerId},
        invocation::{Failure, InvocationFilter, Phase, Progress, StateName, Statistics, Wait},
        names::TenantName,
        page::{Order, PageRequest},
        source::{GithubAppId, RepositoryName, Source, SourceFilter, SourceType},
    },
    store::{DocumentPage, FeedFilter, OutcomeName, RetryLater, Scope, Settled},
};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, TransactionTrait};
use serde_json::Value;
use uuid::Uuid;

use crate::harness::{
    statement_log::StatementLog,
    stores::{LEASE, MANY, TestStore, database, new_invocation, new_source},
};

/// Indexes over so few rows that reading all of one is what is wanted: the work that waits or is held.
const INDEXES_TO_READ_WHOLE: [&str; 4] = [
    "invocation_events_open",
    "invocations_claimable",
    "invocations_leased",
    "webhook_deliveries_due",
];

#[tokio::test]
async fn every_statement_has_its_index_on_sqlite() {
    every_statement_has_its_index(TestStore::sqlite().await).await;
}

#[tokio::test]
async fn every_statement_has_its_index_on_postgres() {
    every_statement_has_its_index(TestStore::postgres().await).await;
}

async fn every_statement_has_its_index(test: TestStore) {
    let log = StatementLog::default();
    {
        let _recording = log.record();
        embeddings::call_all(&test).await;
        call_all_for_workers(&test).await;
        call_all_for_callers(&test).await;
        deliveries::call_all(&test).await;
        credentials::call_all(&test).await;
        uploads::call_all(&test).await;
        auto_sync::call_all(&test).await;
    }
    let statements = log.take();
    let statements: BTreeSet<&str> = statements.iter().flat_map(|sql| parts(sql)).collect();
    // Far fewer would mean that the log was not heard.
    assert!(statements.len() > 40, "only {} were logged", statements.len());
    let raw = test.raw().await;
    let without_index = "SELECT id FROM invocations WHERE phase = $1";
    assert_eq!(whole_reads(&raw, without_index).await.len(), 1);
    let mut wrong = Vec::new();
    let cache = test.raw_embeddings().await;
    for sql in &statements {
        let database = match sql.contains("embedding_cache") {
            true => &cache,
            false => &raw,
        };
        let problems = whole_reads(database, sql).await;
        wrong.extend(
            problems
                .into_iter()
                .map(|problem| format!("{problem}\n    in {sql}")),
        );
    }
    raw.close().await.unwrap();
    cache.close().await.unwrap();
    assert!(
        wrong.is_empty(),
        "{} of {} statements:\n{}",
        wrong.len(),
        statements.len(),
        wrong.join("\n")
    );
}

/// A script has no plan of its own; its statements have.
fn parts(sql: &str) -> impl Iterator<Item = &str> {
    let script = sql.strip_prefix("BEGIN IMMEDIATE; ");
    let script = script.and_then(|rest| rest.strip_suffix("; COMMIT"));
    script.unwrap_or(sql).split("; ")
}

/// Steps of the plan of a statement that read all of a table.
async fn whole_reads(raw: &DatabaseConnection, sql: &str) -> Vec<String> {
    match raw.get_database_backend() {
        DbBackend::Postgres => whole_reads_of_postgres(raw, sql).await,
        _ => whole_reads_of_sqlite(raw, sql).await,
    }
}

/// Steps of SQLite's plan that read all of a table.
async fn whole_reads_of_sqlite(raw: &DatabaseConnection, sql: &str) -> Vec<String> {
    let mut steps = plan_of_sqlite(raw, sql).await;
    steps.retain(|step| reads_whole(step));
    steps
}

/// The steps of SQLite's plan.
async fn plan_of_sqlite(raw: &DatabaseConnection, sql: &str) -> Vec<String> {
    let explain = Statement::from_string(DbBackend::Sqlite, format!("EXPLAIN QUERY PLAN {sql}"));
    let steps = raw.query_all_raw(explain).await.unwrap();
    let steps = steps.iter().map(|row| row.try_get("", "detail").unwrap());
    steps.collect()
}

/// What is scanned without being a table: lists of values and the parts of the claim's question.
const NO_TABLES: [&str; 6] = [
    "CONSTANT",
    "(subquery",
    "waiting",
    "candidates",
    "settled",
    "wanted",
];

fn reads_whole(step: &str) -> bool {
    let Some(scanned) = step.strip_prefix("SCAN ") else {
        return false;
    };
    let name = scanned.split_whitespace().next().unwrap();
    let is_small = INDEXES_TO_READ_WHOLE.iter().any(|index| scanned.contains(index));
    let is_values = name.ends_with("-ROW");
    !is_small && !is_values && !NO_TABLES.iter().any(|prefix| name.starts_with(prefix))
}

/// Steps of PostgreSQL's generic plan, which knows nothing of the parameters, that read all of a table. It
/// may not choose to read a table row by row, so a step that does so has no index to use.
async fn whole_reads_of_postgres(raw: &DatabaseConnection, sql: &str) -> Vec<String> {
    let transaction = raw.begin().await.unwrap();
    for setting in ["plan_cache_mode = force_generic_plan", "enable_seqscan = off"] {
        transaction
            .execute_unprepared(&format!("SET LOCAL {setting}"))
            .await
            .unwrap();
    }
    transaction
        .execute_unprepared(&format!("PREPARE explained AS {sql}"))
        .await
        .unwrap();
    let count = (1..).take_while(|number| has_parameter(sql, *number)).count();
    let arguments = match count {
        0 => String::new(),
        count => format!("({})", vec!["NULL"; count].join(", ")),
    };
    let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE explained{arguments}");
    let rows = transaction
        .query_all_raw(Statement::from_string(DbBackend::Postgres, explain))
        .await
        .unwrap();
    let plan: Value = rows[0].try_get("", "QUERY PLAN").unwrap();
    transaction
        .execute_unprepared("DEALLOCATE explained")
        .await
        .unwrap();
    transaction.rollback().await.unwrap();
    let mut problems = Vec::new();
    collect_whole_reads(&plan[0]["Plan"], &mut problems);
    problems
}

fn has_parameter(sql: &str, number: usize) -> bool {
    let name = format!("${number}");
    sql.match_indices(&name)
        .any(|(at, _)| !sql[at + name.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

fn collect_whole_reads(step: &Value, problems: &mut Vec<String>) {
    let kind = step["Node Type"].as_str().unwrap();
    let index = step["Index Name"].as_str().unwrap_or_default();
    let is_bounded = match kind {
        "Seq Scan" => false,
        "Index Scan" | "Index Only Scan" | "Bitmap Index Scan" => {
            step.get("Index Cond").is_some() || INDEXES_TO_READ_WHOLE.contains(&index)
        }
        _ => true,
    };
    if !is_bounded {
        problems.push(format!("{kind} on {} {index}", step["Relation Name"]));
    }
    for part in step["Plans"].as_array().into_iter().flatten() {
        collect_whole_reads(part, problems);
    }
}

async fn call_all_for_callers(test: &TestStore) {
    let store = &test.store;
    let tenant = test.fresh_tenant();
    let key = NewApiKey {
        name: "key".to_owned(),
        tenant: tenant.clone(),
        role: Role::Admin,
        token_sha256: [1; 32],
        databases: None,
        expire_time: None,
    };
    let key = store.create_api_key(key).await.unwrap();
    store.find_api_key(&[1; 32]).await.unwrap();
    let id = InvocationId::generate();
    store.find_api_key_and_invocation(&[1; 32], id).await.unwrap();
    store.revoke_api_key(key.id).await.unwrap();
    // All keys of all tenants are listed for the operator alone, who has no index to wait for.
    store.list_api_keys(Some(&tenant)).await.unwrap();

    let request = Some(Uuid::now_v7());
    for request in [request, request, None] {
        let new = new_source("db", "owner/repository");
        store.create_source(&tenant, new, request).await.unwrap();
    }
    let source = test.source(&tenant).await;
    for request in [request, request, None] {
        let new = new_invocation("collection");
        store
            .create_invocation(&tenant, &source, new, request, None)
            .await
            .unwrap();
    }
    let invocation = test.invocation(&source).await;
    store
        .find_create_request(&tenant, &source, &new_invocation("collection"), Uuid::now_v7())
        .await
        .unwrap();
    for scope in scopes(&tenant) {
        store.get_source(&scope, source.id).await.unwrap();
        store.get_invocation(&scope, invocation.id).await.unwrap();
        let keys = ["one".to_owned(), "two".to_owned(), "three".to_owned()];
        store
            .latest_invocations_by_keys(&scope, source.id, &keys)
            .await
            .unwrap();
        list_all(test, &scope, &source).await;
    }
    store.events_after(invocation.id, 0, 10).await.unwrap();
    store.current(&[invocation.id]).await.unwrap();
    store.feed_head().await.unwrap();
    store.place_events().await.unwrap();
    for filter in feed_filters(&tenant, source.id) {
        store.feed_after(0, 1_000, &filter, 10).await.unwrap();
    }
    for _ in 0..2 {
        let scope = Scope::tenant(tenant.clone());
        store.cancel_invocation(&scope, invocation.id).await.unwrap();
    }
    for scope in scopes(&tenant) {
        store.delete_source(&scope, source.id).await.unwrap();
    }
}

/// None, and each by itself and with the tenant, as callers ask.
fn feed_filters(tenant: &TenantName, source_id: SourceId) -> [FeedFilter; 5] {
    let all = FeedFilter::default;
    let of_tenant = || FeedFilter {
        tenant: Some(tenant.clone()),
        ..all()
    };
    [
        all(),
        of_tenant(),
        FeedFilter {
            source_id: Some(source_id),
            ..of_tenant()
        },
        FeedFilter {
            databases: Some(vec![database("db"), database("other")]),
            ..of_tenant()
        },
        FeedFilter {
            states: vec![StateName::Failed, StateName::Complete],
            ..of_tenant()
        },
    ]
}

/// A key for all databases of the tenant, and one that is bound to two.
fn scopes(tenant: &TenantName) -> [Scope; 2] {
    let bound = Scope {
        tenant: tenant.clone(),
        databases: Some(vec![database("db"), database("other")]),
    };
    [Scope::tenant(tenant.clone()), bound]
}

/// Lists with every filter by itself, and each of a source's with a state, in both orders.
async fn list_all(test: &TestStore, scope: &Scope, source: &Source) {
    let invocations = {
        let all = InvocationFilter::default;
        let of_source = InvocationFilter {
            source_id: Some(source.id),
            ..all()
        };
        let failed = Some(StateName::Failed);
        [
            all(),
            InvocationFilter {
                state: failed,
                ..all()
            },
            InvocationFilter {
                state: failed,
                ..of_source.clone()
            },
            of_source,
            InvocationFilter {
                database: Some(database("db")),
                ..all()
            },
            InvocationFilter {
                source_type: Some(SourceType::Github),
                ..all()
            },
        ]
    };
    let sources = {
        let all = SourceFilter::default;
        [
            all(),
            SourceFilter {
                database: Some(database("db")),
                ..all()
            },
            SourceFilter {
                source_type: Some(SourceType::Github),
                ..all()
            },
            SourceFilter {
                github_app_id: Some(GithubAppId::parse("app", "1").unwrap()),
                ..all()
            },
            SourceFilter {
                github_repository: Some(RepositoryName::parse("name", "a/b").unwrap()),
                ..all()
            },
        ]
    };
    for order in [Order::Ascending, Order::Descending] {
        for after in [None, Some(Uuid::now_v7())] {
            let page = PageRequest {
                after,
                order,
                ..PageRequest::default()
            };
            for filter in &invocations {
                test.store.list_invocations(scope, filter, &page).await.unwrap();
            }
            for filter in &sources {
                test.store.list_sources(scope, filter, &page).await.unwrap();
            }
        }
    }
}

async fn call_all_for_workers(test: &TestStore) {
    let store = &test.store;
    let statistics = Statistics::default;
    let progress = Progress {
        phase: Phase::Indexing,
        wait: None,
        statistics: statistics(),
    };
    let (claim, worker) = test.claimed().await;
    let (id, source_id) = (claim.invocation.id, claim.invocation.source_id.unwrap());
    let _ = store.renew(id, 1, &worker, test.now(), LEASE).await.unwrap();
    let _ = store
        .report_progress(id, 1, &progress, Some("commit"))
        .await
        .unwrap();
    let documents = (0..3).map(|ordinal| Document {
        ordinal,
        document_key: format!("document {ordinal}"),
        version_key: "version".to_owned(),
        size_bytes: None,
        outcome: DocumentOutcome::Discovered,
        chunks: 0,
        memo: None,
    });
    let _ = store.record_discovered(id, 1, documents.collect()).await.unwrap();
    let settled = [Settled {
        ordinal: 0,
        outcome: DocumentOutcome::Indexed,
        chunks: 1,
    }];
    let _ = store.record_outcomes(id, 1, &settled, &progress).await.unwrap();
    for outcome in [None, Some(OutcomeName::Indexed)] {
        for after in [None, Some(0)] {
            let page = DocumentPage { after, limit: 10 };
            store.list_documents(id, outcome, page).await.unwrap();
        }
    }
    store.next_ordinal(id).await.unwrap();
    let (database, collection) = (&claim.invocation.database, &claim.invocation.collection);
    let mut owned = store.owned_documents(source_id, database, collection, InvocationId::generate());
    while owned.next_page().await.unwrap().is_some() {}
    let _ = store.clear_documents(id, 1).await.unwrap();
    let _ = store.release(id, 1, test.now()).await.unwrap();

    let again = store.claim(&WorkerId::generate(), test.now(), LEASE, MANY).await;
    assert_eq!(again.unwrap().expect("what was released").attempt, 2);
    let later = RetryLater {
        next_attempt_at: test.now(),
        wait: Wait {
            until: test.now(),
            cause: "rate limit".to_owned(),
        },
        counts_as_failure: true,
    };
    let _ = store.retry_later(id, 2, later, statistics()).await.unwrap();
    let claim = test
        .claim(&WorkerId::generate())
        .await
        .expect("what was to be tried later");
    let _ = store
        .complete(claim.invocation.id, claim.attempt, statistics(), test.now())
        .await
        .unwrap();
    let (claim, _) = test.claimed().await;
    let failure = Failure {
        reason: "REASON".to_owned(),
        message: "message".to_owned(),
    };
    let _ = store
        .fail(claim.invocation.id, 1, failure, statistics(), test.now())
        .await
        .unwrap();
    test.claimed().await;
    test.clock.advance(LEASE + Duration::from_secs(1));
    assert_eq!(store.reap(test.now(), 5, Duration::ZERO).await.unwrap().len(), 1);
}
