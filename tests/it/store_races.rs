//! Many workers and callers at once: whatever the order, each thing happens once.

use std::collections::{BTreeMap, BTreeSet};

use chroma_sync::{
    domain::{
        ids::{InvocationId, WorkerId},
        invocation::{Progress, StateName, Statistics},
    },
    store::{CancelInvocation, ClaimLimits, Held, Scope},
};
use futures::future::{join, join_all};

use crate::harness::stores::{LEASE, MANY, TestStore, on_both_stores};

on_both_stores! {
    of_a_cancel_and_a_claim_exactly_one_wins,
    of_many_cancels_one_wins,
    eight_workers_never_claim_the_same_attempt,
    claims_at_once_respect_the_bound_of_a_tenant,
    two_reapers_reap_a_lease_once,
    a_completion_and_the_reaper_never_both_win,
}

async fn of_a_cancel_and_a_claim_exactly_one_wins(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let scope = Scope::tenant(source.tenant.clone());
    let (one, two) = (test.store.clone(), test.second().await);
    let mut winners = BTreeMap::new();
    for round in 0..60 {
        let id = test.invocation(&source).await.id;
        let worker = WorkerId::generate();
        let (cancelling, claiming) = if round % 2 == 0 {
            (&one, &two)
        } else {
            (&two, &one)
        };
        let (cancelled, claimed) = join(
            cancelling.cancel_invocation(&scope, id),
            claiming.claim(&worker, test.now(), LEASE, MANY),
        )
        .await;
        let invocation = test.reload(&source.tenant, id).await;
        assert_eq!(invocation.revision, 2, "exactly one of them changed the state");
        match (cancelled.unwrap(), claimed.unwrap()) {
            (CancelInvocation::Cancelled(_), None) => {
                assert_eq!(invocation.state.name(), StateName::Cancelled);
                *winners.entry("cancel").or_insert(0) += 1;
            }
            (CancelInvocation::NotCancelable(StateName::Processing), Some(claim)) => {
                assert_eq!(
                    (claim.invocation.id, invocation.state.name()),
                    (id, StateName::Processing)
                );
                let ended = one
                    .complete(id, 1, Statistics::default(), test.now())
                    .await
                    .unwrap();
                assert_eq!(ended.unwrap().id, id);
                *winners.entry("claim").or_insert(0) += 1;
            }
            both => panic!("both or neither won: {both:?}"),
        }
    }
    assert_eq!(winners.values().sum::<i32>(), 60);
    two.close().await;
}

async fn of_many_cancels_one_wins(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let scope = Scope::tenant(source.tenant.clone());
    for _ in 0..5 {
        let id = test.invocation(&source).await.id;
        let outcomes = join_all((0..12).map(|_| test.store.cancel_invocation(&scope, id))).await;
        let won = outcomes
            .into_iter()
            .filter(|outcome| match outcome.as_ref().unwrap() {
                CancelInvocation::Cancelled(_) => true,
                CancelInvocation::NotCancelable(state) => {
                    assert_eq!(*state, StateName::Cancelled);
                    false
                }
                CancelInvocation::NotFound => panic!("it exists"),
            })
            .count();
        assert_eq!(won, 1);
        assert_eq!(test.store.events_after(id, 0, 10).await.unwrap().len(), 2);
    }
}

async fn eight_workers_never_claim_the_same_attempt(test: TestStore) {
    const INVOCATIONS: usize = 80;
    let mut created = BTreeSet::new();
    for _ in 0..4 {
        let source = test.source(&test.fresh_tenant()).await;
        for _ in 0..INVOCATIONS / 4 {
            created.insert(test.invocation(&source).await.id);
        }
    }
    let second = test.second().await;
    let workers = (0..8).map(|n| {
        let (store, now) = (
            if n % 2 == 0 {
                test.store.clone()
            } else {
                second.clone()
            },
            test.now(),
        );
        tokio::spawn(async move {
            let worker = WorkerId::generate();
            let mut claimed: Vec<(InvocationId, u32)> = Vec::new();
            while let Some(claim) = store.claim(&worker, now, LEASE, MANY).await.unwrap() {
                claimed.push((claim.invocation.id, claim.attempt));
            }
            claimed
        })
    });
    let claimed: Vec<(InvocationId, u32)> = join_all(workers)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    assert_eq!(claimed.len(), INVOCATIONS);
    assert!(claimed.iter().all(|(_, attempt)| *attempt == 1));
    assert_eq!(
        claimed.into_iter().map(|(id, _)| id).collect::<BTreeSet<_>>(),
        created
    );
    second.close().await;
}

async fn claims_at_once_respect_the_bound_of_a_tenant(test: TestStore) {
    let limits = ClaimLimits { per_tenant: 3 };
    for _ in 0..4 {
        let source = test.source(&test.fresh_tenant()).await;
        for _ in 0..8 {
            test.invocation(&source).await;
        }
        let worker = WorkerId::generate();
        let claims = join_all((0..8).map(|_| test.store.claim(&worker, test.now(), LEASE, limits))).await;
        let claims: Vec<_> = claims.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(claims.len(), 3);
        assert!(
            claims
                .iter()
                .all(|claim| claim.invocation.tenant == source.tenant)
        );
    }
}

async fn two_reapers_reap_a_lease_once(test: TestStore) {
    let mut ids = BTreeSet::new();
    for _ in 0..10 {
        ids.insert(test.claimed().await.0.invocation.id);
    }
    let now = test.clock.advance(LEASE);
    let second = test.second().await;
    let (one, two) = join(test.store.reap(now, 9, LEASE), second.reap(now, 9, LEASE)).await;
    let reaped: Vec<_> = one.unwrap().into_iter().chain(two.unwrap()).collect();
    assert!(reaped.iter().all(|reaped| reaped.failures == 1));
    assert_eq!(reaped.len(), ids.len());
    assert_eq!(
        reaped
            .into_iter()
            .map(|reaped| reaped.id)
            .collect::<BTreeSet<_>>(),
        ids
    );
    second.close().await;
}

async fn a_completion_and_the_reaper_never_both_win(test: TestStore) {
    let second = test.second().await;
    for _ in 0..20 {
        let (claim, _) = test.claimed().await;
        let (id, now) = (claim.invocation.id, test.clock.advance(LEASE));
        let (completed, reaped) = join(
            test.store.complete(id, 1, Statistics::default(), now),
            second.reap(now, 1, LEASE),
        )
        .await;
        let ended = test.reload(&claim.invocation.tenant, id).await;
        let expected = match (completed.unwrap(), reaped.unwrap().as_slice()) {
            (Some(_), []) => StateName::Complete,
            (None, [reaped]) if reaped.id == id => StateName::Failed,
            both => panic!("both or neither won: {both:?}"),
        };
        assert_eq!((ended.state.name(), ended.revision), (expected, 3));
        let late = test
            .store
            .report_progress(id, 1, &Progress::default(), None)
            .await
            .unwrap();
        assert_eq!(late, Held::Lost);
    }
    second.close().await;
}
