//! The history of an invocation: revisions 1, 2, 3 and so on without a gap, each legal after the last.

use std::{sync::Arc, time::Duration};

use chroma_sync::{
    domain::{
        ids::{InvocationId, WorkerId},
        invocation::{Failure, Progress, StateName, Statistics, Wait},
    },
    store::{Event, Held, RetryLater, Scope},
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use tokio::runtime::Handle;

use crate::harness::stores::{LEASE, MANY, TestStore, on_both_stores};

on_both_stores! {
    a_history_is_read_whole_or_from_any_revision,
    what_is_current_follows_every_change,
    every_history_counts_from_one_without_a_gap,
}

async fn a_history_is_read_whole_or_from_any_revision(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let created = test.invocation(&source).await;
    let created_at = test.now();
    let claimed_at = test.clock.advance(Duration::from_secs(1));
    let claim = test.claim(&WorkerId::generate()).await.unwrap();
    let ended_at = test.clock.advance(Duration::from_secs(1));
    let ended = test
        .store
        .complete(created.id, 1, Statistics::default(), ended_at)
        .await
        .unwrap();
    let completed = test.reload(&source.tenant, created.id).await;
    assert_eq!(ended.as_ref(), Some(&completed));

    let history = [
        Event {
            revision: 1,
            time: created_at,
            invocation: Arc::new(created.clone()),
        },
        Event {
            revision: 2,
            time: claimed_at,
            invocation: Arc::new(claim.invocation),
        },
        Event {
            revision: 3,
            time: ended_at,
            invocation: Arc::new(completed),
        },
    ];
    for after in 0..=3 {
        let events = test.store.events_after(created.id, after, 10).await.unwrap();
        assert_eq!(events, history[usize::try_from(after).unwrap()..]);
    }
    assert_eq!(
        test.store.events_after(created.id, 0, 2).await.unwrap(),
        history[..2]
    );
    assert_eq!(
        test.store.events_after(created.id, u64::MAX, 10).await.unwrap(),
        []
    );
    assert_eq!(
        test.store
            .events_after(InvocationId::generate(), 0, 10)
            .await
            .unwrap(),
        []
    );
}

async fn what_is_current_follows_every_change(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let ids = [
        test.invocation(&source).await.id,
        test.invocation(&source).await.id,
        test.invocation(&source).await.id,
    ];
    test.claim(&WorkerId::generate()).await.unwrap();
    let reported = test
        .store
        .report_progress(ids[0], 1, &Progress::default(), None)
        .await
        .unwrap();
    assert_eq!(reported, Held::Held);
    let unknown = InvocationId::generate();
    let current = test
        .store
        .current(&[ids[0], ids[1], unknown, ids[2]])
        .await
        .unwrap();
    let mut versions: Vec<_> = current
        .iter()
        .map(|invocation| (invocation.id, invocation.revision, invocation.progress_version))
        .collect();
    versions.sort();
    assert_eq!(versions, [(ids[0], 2, 2), (ids[1], 1, 0), (ids[2], 1, 0)]);
    assert_eq!(test.store.current(&[]).await.unwrap(), []);
}

/// Something that happens to an invocation, whether or not its state allows it.
#[derive(Debug, Clone, Copy)]
enum Step {
    Claim,
    Complete { attempt: u32 },
    Fail { attempt: u32 },
    RetryLater { attempt: u32 },
    Release { attempt: u32 },
    Report { attempt: u32 },
    Cancel,
    LeasesRunOut,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let attempt = || 1_u32..4;
    let step = prop_oneof![
        4 => Just(Step::Claim),
        1 => attempt().prop_map(|attempt| Step::Complete { attempt }),
        1 => attempt().prop_map(|attempt| Step::Fail { attempt }),
        1 => attempt().prop_map(|attempt| Step::RetryLater { attempt }),
        1 => attempt().prop_map(|attempt| Step::Release { attempt }),
        1 => attempt().prop_map(|attempt| Step::Report { attempt }),
        1 => Just(Step::Cancel),
        1 => Just(Step::LeasesRunOut),
    ];
    (0..INVOCATIONS, step)
}

const INVOCATIONS: usize = 3;
/// Steps of one history that run at the same time.
const AT_ONCE: usize = 4;

async fn every_history_counts_from_one_without_a_gap(test: TestStore) {
    let config = Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    };
    tokio::task::block_in_place(|| {
        TestRunner::new(config)
            .run(&vec(step(), 1..40), |steps| {
                Handle::current().block_on(check_history(&test, &steps))
            })
            .unwrap();
    });
}

async fn check_history(test: &TestStore, steps: &[(usize, Step)]) -> Result<(), TestCaseError> {
    let source = test.source(&test.fresh_tenant()).await;
    let mut ids = Vec::new();
    for _ in 0..INVOCATIONS {
        ids.push(test.invocation(&source).await.id);
    }
    let scope = Scope::tenant(source.tenant.clone());
    for steps in steps.chunks(AT_ONCE) {
        let steps = steps
            .iter()
            .map(|(which, step)| take(test, &scope, ids[*which], *step));
        futures::future::join_all(steps).await;
    }
    for id in ids {
        let current = test.reload(&source.tenant, id).await;
        let events = test.store.events_after(id, 0, 100).await.unwrap();
        let revisions: Vec<u64> = events.iter().map(|event| event.revision).collect();
        prop_assert_eq!(revisions, (1..=current.revision).collect::<Vec<_>>());
        let mut previous: Option<StateName> = None;
        for event in &events {
            let state = event.invocation.state.name();
            prop_assert_eq!(event.invocation.revision, event.revision);
            prop_assert_eq!(event.invocation.id, id);
            match previous {
                None => prop_assert_eq!(state, StateName::Pending),
                Some(before) => {
                    prop_assert!(
                        state.legal_predecessors().contains(&before),
                        "{before:?} -> {state:?}"
                    )
                }
            }
            previous = Some(state);
        }
        prop_assert_eq!(previous, Some(current.state.name()));
    }
    Ok(())
}

async fn take(test: &TestStore, scope: &Scope, id: InvocationId, step: Step) {
    let (store, now, statistics) = (&test.store, test.now(), Statistics::default());
    match step {
        Step::Claim => {
            store
                .claim(&WorkerId::generate(), now, LEASE, MANY)
                .await
                .unwrap();
        }
        Step::Complete { attempt } => {
            let _ = store.complete(id, attempt, statistics, now).await.unwrap();
        }
        Step::Fail { attempt } => {
            let failure = Failure {
                reason: "X".to_owned(),
                message: "x".to_owned(),
            };
            let _ = store.fail(id, attempt, failure, statistics, now).await.unwrap();
        }
        Step::RetryLater { attempt } => {
            let wait = Wait {
                until: now,
                cause: "x".to_owned(),
            };
            let later = RetryLater {
                next_attempt_at: now,
                wait,
                counts_as_failure: true,
            };
            let _ = store.retry_later(id, attempt, later, statistics).await.unwrap();
        }
        Step::Release { attempt } => {
            let _ = store.release(id, attempt, now).await.unwrap();
        }
        Step::Report { attempt } => {
            let _ = store
                .report_progress(id, attempt, &Progress::default(), None)
                .await
                .unwrap();
        }
        Step::Cancel => {
            store.cancel_invocation(scope, id).await.unwrap();
        }
        Step::LeasesRunOut => {
            let now = test.clock.advance(LEASE);
            store.reap(now, 3, Duration::ZERO).await.unwrap();
        }
    }
}
