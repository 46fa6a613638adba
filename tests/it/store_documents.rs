//! The ledger.

use chroma_sync::{
    domain::{
        document::{Document, DocumentOutcome, SkipRule},
        ids::{InvocationId, WorkerId},
        invocation::{Phase, Progress, Statistics},
        names::DatabaseName,
        source::Source,
    },
    store::{DocumentPage, Held, OutcomeName, OwnedDocuments, Settled, StoreError},
};

use crate::harness::stores::{TestStore, collection, created, new_invocation, on_both_stores};

on_both_stores! {
    every_outcome_is_read_back_with_its_data,
    outcomes_and_the_progress_that_counts_them_are_written_together,
    a_document_that_was_never_discovered_cannot_be_settled,
    a_ledger_is_listed_page_by_page_and_by_outcome,
    a_row_that_is_there_already_keeps_what_it_says,
    a_large_listing_is_recorded_and_settled_whole,
    a_cleared_ledger_is_empty_and_only_that_one,
    a_source_owns_what_its_earlier_invocations_left_in_the_collection,
    what_says_nothing_about_the_collection_leaves_ownership_as_it_was,
    what_the_asking_invocation_removed_is_no_longer_owned,
    ownership_is_read_page_by_page_without_repeating_a_key,
}

const ALL: DocumentPage = DocumentPage { after: None, limit: 10_000 };

fn document(ordinal: u32, key: &str, outcome: DocumentOutcome) -> Document {
    Document {
        ordinal,
        document_key: key.to_owned(),
        version_key: format!("version of {key}"),
        size_bytes: Some(10),
        outcome,
        chunks: 0,
    }
}

fn discovered(count: u32) -> Vec<Document> {
    (0..count).map(|n| document(n, &format!("src/{n}.rs"), DocumentOutcome::Discovered)).collect()
}

async fn every_outcome_is_read_back_with_its_data(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    let outcomes = [
        DocumentOutcome::Discovered,
        DocumentOutcome::Indexed,
        DocumentOutcome::Unchanged,
        DocumentOutcome::Removed,
        DocumentOutcome::Skipped(SkipRule::TooLarge),
        DocumentOutcome::Failed("the parser gave up".to_owned()),
    ];
    let mut documents: Vec<Document> =
        (0..).zip(outcomes).map(|(n, outcome)| document(n, &format!("{n}"), outcome)).collect();
    documents[0].size_bytes = None;
    documents[1].chunks = u32::MAX;
    documents[2].document_key = "k".repeat(5_000);
    assert_eq!(test.store.record_discovered(id, 1, documents.clone()).await.unwrap(), Held::Held);
    assert_eq!(test.store.list_documents(id, None, ALL).await.unwrap(), documents);
    assert_eq!(test.store.next_ordinal(id).await.unwrap(), 6);
    assert_eq!(test.store.next_ordinal(InvocationId::generate()).await.unwrap(), 0);
}

async fn outcomes_and_the_progress_that_counts_them_are_written_together(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    assert_eq!(test.store.record_discovered(id, 1, discovered(5)).await.unwrap(), Held::Held);
    let settled = [
        Settled { ordinal: 4, outcome: DocumentOutcome::Indexed, chunks: 7 },
        Settled { ordinal: 0, outcome: DocumentOutcome::Skipped(SkipRule::Binary), chunks: 0 },
        Settled { ordinal: 2, outcome: DocumentOutcome::Failed("no".to_owned()), chunks: 0 },
    ];
    let statistics = Statistics {
        documents_discovered: 5,
        documents_indexed: 1,
        documents_skipped: 1,
        documents_failed: 1,
        chunks_indexed: 7,
        ..Statistics::default()
    };
    let progress = Progress { phase: Phase::Indexing, wait: None, statistics };
    assert_eq!(test.store.record_outcomes(id, 1, &settled, &progress).await.unwrap(), Held::Held);

    let invocation = test.reload(&claim.invocation.tenant, id).await;
    assert_eq!(invocation.progress, progress);
    assert_eq!(invocation.progress_version, claim.invocation.progress_version + 1);
    let documents = test.store.list_documents(id, None, ALL).await.unwrap();
    let count = |name| documents.iter().filter(|document| OutcomeName::of(&document.outcome) == name).count() as u64;
    assert_eq!(count(OutcomeName::Indexed), invocation.progress.statistics.documents_indexed);
    assert_eq!(count(OutcomeName::Skipped), invocation.progress.statistics.documents_skipped);
    assert_eq!(count(OutcomeName::Failed), invocation.progress.statistics.documents_failed);
    assert_eq!(count(OutcomeName::Discovered), statistics.documents_discovered - statistics.documents_done());
    assert_eq!((documents[4].chunks, documents[3].chunks), (7, 0));
    assert_eq!(documents[2].outcome, DocumentOutcome::Failed("no".to_owned()));
}

async fn a_document_that_was_never_discovered_cannot_be_settled(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    assert_eq!(test.store.record_discovered(id, 1, discovered(2)).await.unwrap(), Held::Held);
    let settled = [1, 2].map(|ordinal| Settled { ordinal, outcome: DocumentOutcome::Indexed, chunks: 1 });
    let progress = Progress { phase: Phase::Indexing, ..Progress::default() };
    let error = test.store.record_outcomes(id, 1, &settled, &progress).await.unwrap_err();
    assert!(matches!(&error, StoreError::UnknownDocuments { invocation } if *invocation == id.to_string()), "{error:?}");
    assert_eq!(test.store.list_documents(id, None, ALL).await.unwrap(), discovered(2), "all or nothing");
    assert_eq!(test.reload(&claim.invocation.tenant, id).await, claim.invocation);
}

async fn a_ledger_is_listed_page_by_page_and_by_outcome(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    assert_eq!(test.store.record_discovered(id, 1, discovered(7)).await.unwrap(), Held::Held);
    let settled = [1, 3, 5].map(|ordinal| Settled { ordinal, outcome: DocumentOutcome::Indexed, chunks: 1 });
    let held = test.store.record_outcomes(id, 1, &settled, &Progress::default()).await.unwrap();
    assert_eq!(held, Held::Held);
    for (outcome, expected) in [
        (None, vec![vec![0, 1, 2], vec![3, 4, 5], vec![6], vec![]]),
        (Some(OutcomeName::Discovered), vec![vec![0, 2, 4], vec![6], vec![]]),
        (Some(OutcomeName::Indexed), vec![vec![1, 3, 5], vec![]]),
        (Some(OutcomeName::Removed), vec![vec![]]),
    ] {
        let mut after = None;
        for expected in expected {
            let page = test.store.list_documents(id, outcome, DocumentPage { after, limit: 3 }).await.unwrap();
            assert_eq!(page.iter().map(|document| document.ordinal).collect::<Vec<_>>(), expected, "{outcome:?}");
            after = page.last().map(|document| document.ordinal);
        }
    }
}

async fn a_row_that_is_there_already_keeps_what_it_says(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    let first = vec![document(0, "a", DocumentOutcome::Indexed)];
    assert_eq!(test.store.record_discovered(id, 1, first.clone()).await.unwrap(), Held::Held);
    let again = vec![document(0, "a", DocumentOutcome::Discovered), document(1, "b", DocumentOutcome::Discovered)];
    assert_eq!(test.store.record_discovered(id, 1, again.clone()).await.unwrap(), Held::Held);
    let expected = [first[0].clone(), again[1].clone()];
    assert_eq!(test.store.list_documents(id, None, ALL).await.unwrap(), expected);
}

async fn a_large_listing_is_recorded_and_settled_whole(test: TestStore) {
    const DOCUMENTS: u32 = 3_000;
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    assert_eq!(test.store.record_discovered(id, 1, discovered(DOCUMENTS)).await.unwrap(), Held::Held);
    let settled: Vec<Settled> = (0..DOCUMENTS)
        .map(|ordinal| Settled { ordinal, outcome: DocumentOutcome::Indexed, chunks: ordinal })
        .collect();
    let held = test.store.record_outcomes(id, 1, &settled, &Progress::default()).await.unwrap();
    assert_eq!(held, Held::Held);
    let documents = test.store.list_documents(id, Some(OutcomeName::Indexed), ALL).await.unwrap();
    assert_eq!(documents.len(), DOCUMENTS as usize);
    assert!(documents.iter().all(|document| document.chunks == document.ordinal));
}

async fn a_cleared_ledger_is_empty_and_only_that_one(test: TestStore) {
    let (one, _) = test.claimed().await;
    let (two, _) = test.claimed().await;
    for claim in [&one, &two] {
        let held = test.store.record_discovered(claim.invocation.id, 1, discovered(3)).await.unwrap();
        assert_eq!(held, Held::Held);
    }
    assert_eq!(test.store.clear_documents(one.invocation.id, 1).await.unwrap(), Held::Held);
    assert_eq!(test.store.list_documents(one.invocation.id, None, ALL).await.unwrap(), []);
    assert_eq!(test.store.list_documents(two.invocation.id, None, ALL).await.unwrap().len(), 3);
}

/// An invocation of `source` into `collection_name` that records `ledger` and ends.
async fn past_invocation(
    test: &TestStore,
    source: &Source,
    collection_name: &str,
    ledger: &[(&str, DocumentOutcome)],
) -> InvocationId {
    let id = current_invocation(test, source, collection_name, ledger).await;
    let ended = test.store.complete(id, 1, Statistics::default(), test.now()).await.unwrap();
    assert_eq!(ended, Held::Held);
    id
}

async fn current_invocation(
    test: &TestStore,
    source: &Source,
    collection_name: &str,
    ledger: &[(&str, DocumentOutcome)],
) -> InvocationId {
    let new = new_invocation(collection_name);
    let id = created(test.store.create_invocation(&source.tenant, source, new, None).await.unwrap()).id;
    assert_eq!(test.claim(&WorkerId::generate()).await.unwrap().invocation.id, id);
    let rows = (0..).zip(ledger).map(|(n, (key, outcome))| Document { chunks: 2, ..document(n, key, outcome.clone()) });
    assert_eq!(test.store.record_discovered(id, 1, rows.collect()).await.unwrap(), Held::Held);
    id
}

fn owned(test: &TestStore, source: &Source, database: &DatabaseName, name: &str, asking: InvocationId) -> OwnedDocuments {
    test.store.owned_documents(source.id, database, &collection(name), asking)
}

async fn keys(mut owned: OwnedDocuments) -> Vec<String> {
    let mut keys = Vec::new();
    while let Some(page) = owned.next_page().await.unwrap() {
        assert!(!page.is_empty());
        keys.extend(page.into_iter().map(|document| document.document_key));
    }
    assert_eq!(owned.next_page().await.unwrap(), None);
    keys.sort();
    keys
}

async fn a_source_owns_what_its_earlier_invocations_left_in_the_collection(test: TestStore) {
    use DocumentOutcome::{Indexed, Removed, Unchanged};
    let tenant = test.fresh_tenant();
    let (source, other) = (test.source(&tenant).await, test.source(&tenant).await);
    past_invocation(&test, &source, "docs", &[("a", Indexed), ("b", Indexed), ("c", Indexed)]).await;
    past_invocation(&test, &source, "docs", &[("a", Unchanged), ("b", Removed), ("d", Indexed)]).await;
    past_invocation(&test, &source, "elsewhere", &[("e", Indexed)]).await;
    past_invocation(&test, &other, "docs", &[("f", Indexed)]).await;
    let asking = current_invocation(&test, &source, "docs", &[("g", Indexed)]).await;

    let database = &source.database;
    assert_eq!(keys(owned(&test, &source, database, "docs", asking)).await, ["a", "c", "d"]);
    assert_eq!(keys(owned(&test, &source, database, "elsewhere", asking)).await, ["e"]);
    assert_eq!(keys(owned(&test, &other, database, "docs", asking)).await, ["f"]);
    let nowhere = crate::harness::stores::database("nowhere");
    assert!(keys(owned(&test, &source, &nowhere, "docs", asking)).await.is_empty());
    let mut pages = owned(&test, &source, database, "elsewhere", asking);
    let page = pages.next_page().await.unwrap().expect("a page");
    assert_eq!((page[0].version_key.as_str(), page[0].chunks), ("version of e", 2));
}

async fn what_says_nothing_about_the_collection_leaves_ownership_as_it_was(test: TestStore) {
    use DocumentOutcome::{Discovered, Failed, Indexed, Removed, Skipped};
    let source = test.source(&test.fresh_tenant()).await;
    past_invocation(&test, &source, "docs", &[("a", Indexed), ("b", Indexed), ("c", Indexed), ("d", Removed)]).await;
    let silent = [("a", Discovered), ("b", Skipped(SkipRule::Binary)), ("c", Failed("no".to_owned())), ("d", Discovered)];
    past_invocation(&test, &source, "docs", &silent).await;
    let asking = current_invocation(&test, &source, "docs", &[]).await;
    assert_eq!(keys(owned(&test, &source, &source.database, "docs", asking)).await, ["a", "b", "c"]);
}

async fn what_the_asking_invocation_removed_is_no_longer_owned(test: TestStore) {
    use DocumentOutcome::{Indexed, Removed};
    let source = test.source(&test.fresh_tenant()).await;
    past_invocation(&test, &source, "docs", &[("a", Indexed), ("b", Indexed), ("c", Indexed)]).await;
    let asking = current_invocation(&test, &source, "docs", &[("a", Indexed), ("b", Removed)]).await;
    assert_eq!(keys(owned(&test, &source, &source.database, "docs", asking)).await, ["a", "c"]);
}

async fn ownership_is_read_page_by_page_without_repeating_a_key(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let names: Vec<String> = (0..2_300).map(|n| format!("{n:05}")).collect();
    let indexed = |range: std::ops::Range<usize>| -> Vec<(&str, DocumentOutcome)> {
        names[range].iter().map(|name| (name.as_str(), DocumentOutcome::Indexed)).collect()
    };
    past_invocation(&test, &source, "docs", &indexed(0..2_100)).await;
    past_invocation(&test, &source, "docs", &indexed(1_000..2_300)).await;
    let asking = current_invocation(&test, &source, "docs", &[]).await;
    assert_eq!(keys(owned(&test, &source, &source.database, "docs", asking)).await, names);
}
