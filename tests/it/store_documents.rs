//! The ledger.

use chroma_sync::{
    domain::{
        document::{Document, DocumentOutcome, SkipRule},
        ids::InvocationId,
        invocation::{Phase, Progress, Statistics},
    },
    store::{DocumentPage, Held, OutcomeName, Settled, StoreError},
};

use crate::harness::stores::{TestStore, on_both_stores};

on_both_stores! {
    every_outcome_is_read_back_with_its_data,
    outcomes_and_the_progress_that_counts_them_are_written_together,
    a_document_that_was_never_discovered_cannot_be_settled,
    a_ledger_is_listed_page_by_page_and_by_outcome,
    a_row_that_is_there_already_keeps_what_it_says,
    a_large_listing_is_recorded_and_settled_whole,
    a_cleared_ledger_is_empty_and_only_that_one,
}

const ALL: DocumentPage = DocumentPage {
    after: None,
    limit: 10_000,
};

fn document(ordinal: u32, key: &str, outcome: DocumentOutcome) -> Document {
    Document {
        ordinal,
        document_key: key.to_owned(),
        version_key: format!("version of {key}"),
        size_bytes: Some(10),
        outcome,
        chunks: 0,
        memo: None,
    }
}

fn discovered(count: u32) -> Vec<Document> {
    (0..count)
        .map(|n| document(n, &format!("src/{n}.rs"), DocumentOutcome::Discovered))
        .collect()
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
    let mut documents: Vec<Document> = (0..)
        .zip(outcomes)
        .map(|(n, outcome)| document(n, &format!("{n}"), outcome))
        .collect();
    documents[0].size_bytes = None;
    documents[1].chunks = u32::MAX;
    documents[2].document_key = "k".repeat(5_000);
    assert_eq!(
        test.store
            .record_discovered(id, 1, documents.clone())
            .await
            .unwrap(),
        Held::Held
    );
    assert_eq!(test.store.list_documents(id, None, ALL).await.unwrap(), documents);
    assert_eq!(test.store.next_ordinal(id).await.unwrap(), 6);
    assert_eq!(
        test.store.next_ordinal(InvocationId::generate()).await.unwrap(),
        0
    );
}

async fn outcomes_and_the_progress_that_counts_them_are_written_together(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    assert_eq!(
        test.store.record_discovered(id, 1, discovered(5)).await.unwrap(),
        Held::Held
    );
    let settled = [
        Settled {
            ordinal: 4,
            outcome: DocumentOutcome::Indexed,
            chunks: 7,
        },
        Settled {
            ordinal: 0,
            outcome: DocumentOutcome::Skipped(SkipRule::Binary),
            chunks: 0,
        },
        Settled {
            ordinal: 2,
            outcome: DocumentOutcome::Failed("no".to_owned()),
            chunks: 0,
        },
    ];
    let statistics = Statistics {
        documents_discovered: 5,
        documents_indexed: 1,
        documents_skipped: 1,
        documents_failed: 1,
        chunks_indexed: 7,
        ..Statistics::default()
    };
    let progress = Progress {
        phase: Phase::Indexing,
        wait: None,
        statistics,
    };
    assert_eq!(
        test.store
            .record_outcomes(id, 1, &settled, &progress)
            .await
            .unwrap(),
        Held::Held
    );

    let invocation = test.reload(&claim.invocation.tenant, id).await;
    assert_eq!(invocation.progress, progress);
    assert_eq!(invocation.progress_version, claim.invocation.progress_version + 1);
    let documents = test.store.list_documents(id, None, ALL).await.unwrap();
    let count = |name| {
        documents
            .iter()
            .filter(|document| OutcomeName::of(&document.outcome) == name)
            .count() as u64
    };
    assert_eq!(
        count(OutcomeName::Indexed),
        invocation.progress.statistics.documents_indexed
    );
    assert_eq!(
        count(OutcomeName::Skipped),
        invocation.progress.statistics.documents_skipped
    );
    assert_eq!(
        count(OutcomeName::Failed),
        invocation.progress.statistics.documents_failed
    );
    assert_eq!(
        count(OutcomeName::Discovered),
        statistics.documents_discovered - statistics.documents_done()
    );
    assert_eq!((documents[4].chunks, documents[3].chunks), (7, 0));
    assert_eq!(documents[2].outcome, DocumentOutcome::Failed("no".to_owned()));
}

async fn a_document_that_was_never_discovered_cannot_be_settled(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    assert_eq!(
        test.store.record_discovered(id, 1, discovered(2)).await.unwrap(),
        Held::Held
    );
    let settled = [1, 2].map(|ordinal| Settled {
        ordinal,
        outcome: DocumentOutcome::Indexed,
        chunks: 1,
    });
    let progress = Progress {
        phase: Phase::Indexing,
        ..Progress::default()
    };
    let error = test
        .store
        .record_outcomes(id, 1, &settled, &progress)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, StoreError::UnknownDocuments { invocation } if *invocation == id.to_string()),
        "{error:?}"
    );
    assert_eq!(
        test.store.list_documents(id, None, ALL).await.unwrap(),
        discovered(2),
        "all or nothing"
    );
    assert_eq!(test.reload(&claim.invocation.tenant, id).await, claim.invocation);
}

async fn a_ledger_is_listed_page_by_page_and_by_outcome(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    assert_eq!(
        test.store.record_discovered(id, 1, discovered(7)).await.unwrap(),
        Held::Held
    );
    let settled = [1, 3, 5].map(|ordinal| Settled {
        ordinal,
        outcome: DocumentOutcome::Indexed,
        chunks: 1,
    });
    let held = test
        .store
        .record_outcomes(id, 1, &settled, &Progress::default())
        .await
        .unwrap();
    assert_eq!(held, Held::Held);
    for (outcome, expected) in [
        (None, vec![vec![0, 1, 2], vec![3, 4, 5], vec![6], vec![]]),
        (
            Some(OutcomeName::Discovered),
            vec![vec![0, 2, 4], vec![6], vec![]],
        ),
        (Some(OutcomeName::Indexed), vec![vec![1, 3, 5], vec![]]),
        (Some(OutcomeName::Removed), vec![vec![]]),
    ] {
        let mut after = None;
        for expected in expected {
            let page = test
                .store
                .list_documents(id, outcome, DocumentPage { after, limit: 3 })
                .await
                .unwrap();
            assert_eq!(
                page.iter().map(|document| document.ordinal).collect::<Vec<_>>(),
                expected,
                "{outcome:?}"
            );
            after = page.last().map(|document| document.ordinal);
        }
    }
}

async fn a_row_that_is_there_already_keeps_what_it_says(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    let first = vec![document(0, "a", DocumentOutcome::Indexed)];
    assert_eq!(
        test.store.record_discovered(id, 1, first.clone()).await.unwrap(),
        Held::Held
    );
    let again = vec![
        document(0, "a", DocumentOutcome::Discovered),
        document(1, "b", DocumentOutcome::Discovered),
    ];
    assert_eq!(
        test.store.record_discovered(id, 1, again.clone()).await.unwrap(),
        Held::Held
    );
    let expected = [first[0].clone(), again[1].clone()];
    assert_eq!(test.store.list_documents(id, None, ALL).await.unwrap(), expected);
}

async fn a_large_listing_is_recorded_and_settled_whole(test: TestStore) {
    const DOCUMENTS: u32 = 3_000;
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    assert_eq!(
        test.store
            .record_discovered(id, 1, discovered(DOCUMENTS))
            .await
            .unwrap(),
        Held::Held
    );
    let settled: Vec<Settled> = (0..DOCUMENTS)
        .map(|ordinal| Settled {
            ordinal,
            outcome: DocumentOutcome::Indexed,
            chunks: ordinal,
        })
        .collect();
    let held = test
        .store
        .record_outcomes(id, 1, &settled, &Progress::default())
        .await
        .unwrap();
    assert_eq!(held, Held::Held);
    let documents = test
        .store
        .list_documents(id, Some(OutcomeName::Indexed), ALL)
        .await
        .unwrap();
    assert_eq!(documents.len(), DOCUMENTS as usize);
    assert!(
        documents
            .iter()
            .all(|document| document.chunks == document.ordinal)
    );
}

async fn a_cleared_ledger_is_empty_and_only_that_one(test: TestStore) {
    let (one, _) = test.claimed().await;
    let (two, _) = test.claimed().await;
    for claim in [&one, &two] {
        let held = test
            .store
            .record_discovered(claim.invocation.id, 1, discovered(3))
            .await
            .unwrap();
        assert_eq!(held, Held::Held);
    }
    assert_eq!(
        test.store.clear_documents(one.invocation.id, 1).await.unwrap(),
        Held::Held
    );
    assert_eq!(
        test.store
            .list_documents(one.invocation.id, None, ALL)
            .await
            .unwrap(),
        []
    );
    assert_eq!(
        test.store
            .list_documents(two.invocation.id, None, ALL)
            .await
            .unwrap()
            .len(),
        3
    );
}
