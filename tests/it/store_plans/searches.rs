//! Searches for which an index is not enough: it has to be the right one.

use chroma_sync::store::CreateInvocation;

use super::{plan_of_sqlite, scopes};
use crate::harness::{
    statement_log::StatementLog,
    stores::{TestStore, created, new_invocation},
};

/// An index that has all of a tenant is no help: where most invocations belong to one, they are read all the same.
#[tokio::test]
async fn the_newest_of_each_key_is_found_by_its_id_on_sqlite() {
    let test = TestStore::sqlite().await;
    let source = test.source(&test.fresh_tenant()).await;
    let log = StatementLog::default();
    for scope in scopes(&source.tenant) {
        let keys = ["one".to_owned(), "two".to_owned()];
        let _recording = log.record();
        let latest = test.store.latest_invocations_by_keys(&scope, source.id, &keys);
        latest.await.unwrap();
    }
    let raw = test.raw().await;
    let statements = log.take();
    assert_eq!(statements.len(), scopes(&source.tenant).len());
    for sql in statements {
        let steps = plan_of_sqlite(&raw, &sql).await;
        let is_by_id = |step: &String| step.starts_with("SEARCH invocations ") && step.ends_with(" id=?)");
        assert!(steps.iter().any(is_by_id), "{steps:#?}");
    }
    raw.close().await.unwrap();
}

/// Whoever runs into the writer of a collection waits for the answer, and on SQLite so does every other write.
#[tokio::test]
async fn the_writer_of_a_collection_is_found_by_the_index_that_allows_one_on_sqlite() {
    let test = TestStore::sqlite().await;
    let source = test.source(&test.fresh_tenant()).await;
    let create = || {
        let new = new_invocation("collection");
        test.store
            .create_invocation(&source.tenant, &source, new, None, None)
    };
    let writer = created(create().await.unwrap()).id;
    let log = StatementLog::default();
    {
        let _recording = log.record();
        assert_eq!(create().await.unwrap(), CreateInvocation::CollectionBusy(writer));
    }
    let raw = test.raw().await;
    let statements = log.take();
    let searches = statements.iter().filter(|sql| sql.starts_with("SELECT "));
    let mut plans = Vec::new();
    for sql in searches {
        plans.push(plan_of_sqlite(&raw, sql).await);
    }
    assert_eq!(
        plans,
        [[
            "SEARCH invocations USING INDEX invocations_exclusive (tenant=? AND database_name=? AND collection_name=?)"
        ]]
    );
    raw.close().await.unwrap();
}
