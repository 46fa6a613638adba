//! Leases, fencing and the reaper.

use std::time::Duration;

use chroma_sync::{
    domain::{
        document::{Document, DocumentOutcome},
        ids::WorkerId,
        invocation::{Failure, Phase, Progress, State, StateName, Statistics, Wait},
    },
    store::{Held, Reaped, Renewal, RetryLater, Settled, lease::WORKER_LOST},
};

use crate::harness::stores::{LEASE, TestStore, on_both_stores};

on_both_stores! {
    a_renewed_lease_is_not_reaped,
    a_stranger_cannot_renew,
    a_lease_that_ran_out_is_returned_and_claimed_again_without_an_event,
    a_worker_that_lost_its_lease_writes_nothing,
    a_lease_that_ran_out_but_was_not_reaped_still_holds,
    an_invocation_fails_when_its_workers_are_lost_too_often,
    a_retry_waits_for_its_time_and_counts_only_when_it_is_a_failure,
    a_released_invocation_is_claimed_at_once,
    progress_is_reported_without_a_state_change,
    an_invocation_ends_once,
    texts_with_nul_characters_are_kept_without_them,
}

const BACKOFF: Duration = Duration::from_secs(5);

fn failure() -> Failure {
    Failure {
        reason: "REPOSITORY_NOT_FOUND".to_owned(),
        message: "no such repository".to_owned(),
    }
}

fn indexed(documents: u64) -> Statistics {
    Statistics {
        documents_discovered: documents,
        documents_indexed: documents,
        ..Statistics::default()
    }
}

async fn a_renewed_lease_is_not_reaped(test: TestStore) {
    let (claim, worker) = test.claimed().await;
    let now = test.clock.advance(LEASE / 2);
    let renewal = test
        .store
        .renew(claim.invocation.id, 1, &worker, now, LEASE)
        .await
        .unwrap();
    assert_eq!(
        renewal,
        Renewal::Renewed {
            lease_expires_at: now.plus(LEASE)
        }
    );
    test.clock.advance(LEASE - Duration::from_millis(1));
    assert_eq!(test.store.reap(test.now(), 3, BACKOFF).await.unwrap(), []);
    test.clock.advance(Duration::from_millis(1));
    assert_eq!(test.store.reap(test.now(), 3, BACKOFF).await.unwrap().len(), 1);
}

async fn a_stranger_cannot_renew(test: TestStore) {
    let (claim, worker) = test.claimed().await;
    let id = claim.invocation.id;
    let stranger = WorkerId::generate();
    assert_eq!(
        test.store
            .renew(id, 1, &stranger, test.now(), LEASE)
            .await
            .unwrap(),
        Renewal::Lost
    );
    assert_eq!(
        test.store.renew(id, 2, &worker, test.now(), LEASE).await.unwrap(),
        Renewal::Lost
    );
}

async fn a_lease_that_ran_out_is_returned_and_claimed_again_without_an_event(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    let now = test.clock.advance(LEASE);
    let until = now.plus(BACKOFF);
    let reaped = test.store.reap(now, 3, BACKOFF).await.unwrap();
    assert_eq!(
        reaped,
        [Reaped {
            id,
            attempt: 1,
            failures: 1,
            next_attempt_at: Some(until)
        }]
    );
    let waiting = test.reload(&claim.invocation.tenant, id).await;
    assert_eq!((waiting.revision, waiting.progress.phase), (2, Phase::Waiting));
    assert_eq!(waiting.progress.wait.as_ref().map(|wait| wait.until), Some(until));
    assert!(waiting.progress_version > claim.invocation.progress_version);
    assert_eq!(
        test.claim(&WorkerId::generate()).await,
        None,
        "not before its time"
    );

    let now = test.clock.advance(BACKOFF);
    let again = test
        .claim(&WorkerId::generate())
        .await
        .expect("its time has come");
    assert_eq!(
        (again.invocation.id, again.attempt, again.failures, again.first),
        (id, 2, 1, false)
    );
    assert_eq!(again.lease_expires_at, now.plus(LEASE));
    assert_eq!(
        (again.invocation.revision, again.invocation.progress.wait),
        (2, None)
    );
    assert!(again.invocation.progress_version > waiting.progress_version);
    assert_eq!(
        again.invocation.state, claim.invocation.state,
        "the start time is that of the first attempt"
    );
    assert_eq!(test.store.events_after(id, 0, 10).await.unwrap().len(), 2);
}

async fn a_worker_that_lost_its_lease_writes_nothing(test: TestStore) {
    let (claim, worker) = test.claimed().await;
    let (id, tenant) = (claim.invocation.id, claim.invocation.tenant.clone());
    let document = Document {
        ordinal: 0,
        document_key: "a.rs".to_owned(),
        version_key: "1".to_owned(),
        size_bytes: Some(1),
        outcome: DocumentOutcome::Discovered,
        chunks: 0,
        memo: None,
    };
    let held = test
        .store
        .record_discovered(id, 1, vec![document.clone()])
        .await
        .unwrap();
    assert_eq!(held, Held::Held);
    let now = test.clock.advance(LEASE);
    test.store.reap(now, 5, Duration::ZERO).await.unwrap();

    // Once while nobody holds the lease, and once while another worker does.
    for round in ["returned", "claimed again"] {
        let before = test.reload(&tenant, id).await;
        let later = RetryLater {
            next_attempt_at: now,
            wait: Wait {
                until: now,
                cause: "late".to_owned(),
            },
            counts_as_failure: true,
        };
        let settled = [Settled {
            ordinal: 0,
            outcome: DocumentOutcome::Indexed,
            chunks: 3,
        }];
        let progress = Progress {
            phase: Phase::Indexing,
            wait: None,
            statistics: indexed(9),
        };
        let store = &test.store;
        assert_eq!(
            store.renew(id, 1, &worker, now, LEASE).await.unwrap(),
            Renewal::Lost,
            "{round}"
        );
        for (write, held) in [
            (
                "report_progress",
                store.report_progress(id, 1, &progress, Some("c0ffee")).await,
            ),
            ("retry_later", store.retry_later(id, 1, later, indexed(9)).await),
            ("release", store.release(id, 1, now).await),
            (
                "record_discovered",
                store
                    .record_discovered(
                        id,
                        1,
                        vec![Document {
                            ordinal: 1,
                            ..document.clone()
                        }],
                    )
                    .await,
            ),
            (
                "record_outcomes",
                store.record_outcomes(id, 1, &settled, &progress).await,
            ),
            ("clear_documents", store.clear_documents(id, 1).await),
        ] {
            assert_eq!(held.unwrap(), Held::Lost, "{write} when {round}");
        }
        for (write, ended) in [
            ("complete", store.complete(id, 1, indexed(9), now).await),
            ("fail", store.fail(id, 1, failure(), indexed(9), now).await),
        ] {
            assert_eq!(ended.unwrap(), None, "{write} when {round}");
        }
        assert_eq!(test.reload(&tenant, id).await, before, "{round}");
        let page = chroma_sync::store::DocumentPage {
            after: None,
            limit: 10,
        };
        assert_eq!(
            store.list_documents(id, None, page).await.unwrap(),
            std::slice::from_ref(&document),
            "{round}"
        );
        if round == "returned" {
            assert_eq!(test.claim(&WorkerId::generate()).await.unwrap().attempt, 2);
        }
    }
}

async fn a_lease_that_ran_out_but_was_not_reaped_still_holds(test: TestStore) {
    let (claim, worker) = test.claimed().await;
    let now = test.clock.advance(LEASE * 3);
    assert_eq!(
        test.claim(&WorkerId::generate()).await,
        None,
        "only the reaper takes a lease away"
    );
    let renewal = test
        .store
        .renew(claim.invocation.id, 1, &worker, now, LEASE)
        .await
        .unwrap();
    assert_eq!(
        renewal,
        Renewal::Renewed {
            lease_expires_at: now.plus(LEASE)
        }
    );
    assert_eq!(test.store.reap(now, 3, BACKOFF).await.unwrap(), []);
}

async fn an_invocation_fails_when_its_workers_are_lost_too_often(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    let now = test.clock.advance(LEASE);
    let first = test.store.reap(now, 2, Duration::ZERO).await.unwrap();
    assert_eq!(
        first,
        [Reaped {
            id,
            attempt: 1,
            failures: 1,
            next_attempt_at: Some(now)
        }]
    );
    assert_eq!(test.claim(&WorkerId::generate()).await.unwrap().failures, 1);
    let now = test.clock.advance(LEASE);
    let second = test.store.reap(now, 2, Duration::ZERO).await.unwrap();
    assert_eq!(
        second,
        [Reaped {
            id,
            attempt: 2,
            failures: 2,
            next_attempt_at: None
        }]
    );

    let failed = test.reload(&claim.invocation.tenant, id).await;
    let State::Failed {
        start_time,
        finish_time,
        failure,
    } = &failed.state
    else {
        panic!("{failed:?}")
    };
    assert_eq!(
        (Some(*start_time), *finish_time),
        (claim.invocation.state.start_time(), now)
    );
    assert_eq!(failure.reason, WORKER_LOST);
    assert!(failure.message.contains("2 attempts"), "{}", failure.message);
    assert_eq!((failed.revision, failed.progress.phase), (3, Phase::Done));
    assert_eq!(test.claim(&WorkerId::generate()).await, None);
}

async fn a_retry_waits_for_its_time_and_counts_only_when_it_is_a_failure(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    for (attempt, counts_as_failure, failures) in [(1, false, 0), (2, true, 1), (3, true, 2)] {
        let until = test.now().plus(BACKOFF);
        let wait = Wait {
            until,
            cause: "the rate limit of github.com".to_owned(),
        };
        let later = RetryLater {
            next_attempt_at: until,
            wait: wait.clone(),
            counts_as_failure,
        };
        let held = test
            .store
            .retry_later(id, attempt, later, indexed(4))
            .await
            .unwrap();
        assert_eq!(held, Held::Held);
        let waiting = test.reload(&claim.invocation.tenant, id).await;
        let progress = Progress {
            phase: Phase::Waiting,
            wait: Some(wait),
            statistics: indexed(4),
        };
        assert_eq!(
            (waiting.state.name(), waiting.revision),
            (StateName::Processing, 2)
        );
        assert_eq!(waiting.progress, progress);
        assert_eq!(
            test.store.reap(test.now(), 1, BACKOFF).await.unwrap(),
            [],
            "it has no lease to lose"
        );

        test.clock.advance(BACKOFF - Duration::from_millis(1));
        assert_eq!(test.claim(&WorkerId::generate()).await, None);
        test.clock.advance(Duration::from_millis(1));
        let again = test
            .claim(&WorkerId::generate())
            .await
            .expect("its time has come");
        assert_eq!((again.attempt, again.failures), (attempt + 1, failures));
        assert_eq!(again.invocation.progress.statistics, indexed(4), "counts go on");
    }
}

async fn a_released_invocation_is_claimed_at_once(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let id = claim.invocation.id;
    assert_eq!(test.store.release(id, 1, test.now()).await.unwrap(), Held::Held);
    assert_eq!(
        test.store.release(id, 1, test.now()).await.unwrap(),
        Held::Lost,
        "it is no longer ours"
    );
    let again = test.claim(&WorkerId::generate()).await.expect("it is free");
    assert_eq!((again.invocation.id, again.attempt, again.failures), (id, 2, 0));
}

async fn progress_is_reported_without_a_state_change(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let (id, tenant) = (claim.invocation.id, claim.invocation.tenant.clone());
    let progress = Progress {
        phase: Phase::Indexing,
        wait: None,
        statistics: indexed(3),
    };
    assert_eq!(
        test.store
            .report_progress(id, 1, &progress, Some("c0ffee"))
            .await
            .unwrap(),
        Held::Held
    );
    let reported = test.reload(&tenant, id).await;
    assert_eq!(
        (&reported.progress, reported.resolved_commit.as_deref()),
        (&progress, Some("c0ffee"))
    );
    assert_eq!(
        (reported.revision, reported.progress_version),
        (2, claim.invocation.progress_version + 1)
    );

    assert_eq!(
        test.store
            .report_progress(id, 1, &Progress::default(), None)
            .await
            .unwrap(),
        Held::Held
    );
    let reported = test.reload(&tenant, id).await;
    assert_eq!(
        reported.resolved_commit.as_deref(),
        Some("c0ffee"),
        "none means no news"
    );
    assert_eq!(test.store.current(&[id]).await.unwrap(), [reported]);
}

async fn an_invocation_ends_once(test: TestStore) {
    let (claim, worker) = test.claimed().await;
    let id = claim.invocation.id;
    let now = test.clock.advance(Duration::from_secs(1));
    let ended = test.store.fail(id, 1, failure(), indexed(1), now).await.unwrap();
    let failed = test.reload(&claim.invocation.tenant, id).await;
    assert_eq!(ended.as_ref(), Some(&failed));
    let start_time = claim.invocation.state.start_time().unwrap();
    assert_eq!(
        failed.state,
        State::Failed {
            start_time,
            finish_time: now,
            failure: failure()
        }
    );
    let progress = Progress {
        phase: Phase::Done,
        wait: None,
        statistics: indexed(1),
    };
    assert_eq!((failed.revision, &failed.progress), (3, &progress));

    for ended in [
        test.store.complete(id, 1, indexed(2), now).await,
        test.store.fail(id, 1, failure(), indexed(2), now).await,
    ] {
        assert_eq!(ended.unwrap(), None);
    }
    let untouched = Progress::default();
    let reported = test.store.report_progress(id, 1, &untouched, None);
    assert_eq!(reported.await.unwrap(), Held::Lost);
    assert_eq!(
        test.store.renew(id, 1, &worker, now, LEASE).await.unwrap(),
        Renewal::Lost
    );
    assert_eq!(test.reload(&claim.invocation.tenant, id).await, failed);
}

async fn texts_with_nul_characters_are_kept_without_them(test: TestStore) {
    let (claim, _) = test.claimed().await;
    let failure = Failure {
        reason: "X".to_owned(),
        message: "bad\0name".to_owned(),
    };
    let ended = test
        .store
        .fail(claim.invocation.id, 1, failure, indexed(0), test.now())
        .await
        .unwrap();
    let failed = test.reload(&claim.invocation.tenant, claim.invocation.id).await;
    assert_eq!(ended.as_ref(), Some(&failed));
    let State::Failed { failure, .. } = failed.state else {
        panic!("{failed:?}")
    };
    assert_eq!(failure.message, "bad\u{fffd}name");
}
