//! Which invocation a worker gets, and what a claim does to it.

use std::time::Duration;

use chroma_sync::{
    domain::{
        ids::WorkerId,
        invocation::{Phase, State, StateName, Statistics},
        names::TenantName,
    },
    store::{Claim, ClaimLimits},
};

use crate::harness::stores::{LEASE, MANY, TestStore, on_both_stores};

on_both_stores! {
    nothing_to_claim_is_no_claim,
    the_first_claim_is_the_transition_to_processing,
    a_claim_carries_the_settings_of_its_source,
    the_oldest_invocation_of_a_tenant_goes_first,
    the_tenant_with_the_fewest_in_work_goes_first,
    a_tenant_has_no_more_in_work_than_it_may,
}

async fn nothing_to_claim_is_no_claim(test: TestStore) {
    assert_eq!(test.claim(&WorkerId::generate()).await, None);
}

async fn the_first_claim_is_the_transition_to_processing(test: TestStore) {
    let (claim, _) = test.claimed().await;
    assert_eq!((claim.attempt, claim.failures, claim.first), (1, 0, true));
    assert_eq!(claim.lease_expires_at, test.now().plus(LEASE));
    let invocation = claim.invocation;
    assert_eq!(
        invocation.state,
        State::Processing {
            start_time: test.now()
        }
    );
    assert_eq!((invocation.revision, invocation.attempt), (2, 1));
    assert_eq!(invocation.progress.phase, Phase::Fetching);
    assert_eq!(test.reload(&invocation.tenant, invocation.id).await, invocation);
    assert_eq!(test.claim(&WorkerId::generate()).await, None, "it is taken");
}

async fn a_claim_carries_the_settings_of_its_source(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    test.invocation(&source).await;
    let plan = test.claim(&WorkerId::generate()).await.unwrap().plan;
    assert_eq!(
        (plan.settings, plan.embedding, plan.chunking),
        (source.settings, source.embedding, source.chunking)
    );
}

async fn the_oldest_invocation_of_a_tenant_goes_first(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(test.invocation(&source).await.id);
        test.clock.advance(Duration::from_millis(1));
    }
    let worker = WorkerId::generate();
    for id in ids {
        assert_eq!(test.claim(&worker).await.unwrap().invocation.id, id);
    }
}

/// Claims until nothing is left and says whose each was.
async fn claim_all(test: &TestStore, limits: ClaimLimits) -> Vec<(TenantName, Claim)> {
    let worker = WorkerId::generate();
    let mut claims = Vec::new();
    while let Some(claim) = test
        .store
        .claim(&worker, test.now(), LEASE, limits)
        .await
        .unwrap()
    {
        claims.push((claim.invocation.tenant.clone(), claim));
    }
    claims
}

async fn the_tenant_with_the_fewest_in_work_goes_first(test: TestStore) {
    let (greedy, modest, late) = (test.fresh_tenant(), test.fresh_tenant(), test.fresh_tenant());
    for (tenant, invocations) in [(&greedy, 5), (&modest, 2), (&late, 1)] {
        let source = test.source(tenant).await;
        for _ in 0..invocations {
            test.invocation(&source).await;
        }
        test.clock.advance(Duration::from_millis(1));
    }
    let order: Vec<TenantName> = claim_all(&test, MANY)
        .await
        .into_iter()
        .map(|(tenant, _)| tenant)
        .collect();
    let [g, m, l] = [greedy, modest, late];
    assert_eq!(order, [&g, &m, &l, &g, &m, &g, &g, &g].map(Clone::clone));
}

async fn a_tenant_has_no_more_in_work_than_it_may(test: TestStore) {
    let (one, two) = (test.fresh_tenant(), test.fresh_tenant());
    for tenant in [&one, &two] {
        let source = test.source(tenant).await;
        for _ in 0..4 {
            test.invocation(&source).await;
        }
    }
    let limits = ClaimLimits { per_tenant: 2 };
    let claims = claim_all(&test, limits).await;
    for tenant in [&one, &two] {
        assert_eq!(claims.iter().filter(|(owner, _)| owner == tenant).count(), 2);
    }
    let (_, ended) = claims.iter().find(|(owner, _)| *owner == two).unwrap();
    let ended = test
        .store
        .complete(ended.invocation.id, 1, Statistics::default(), test.now());
    assert_eq!(ended.await.unwrap().unwrap().state.name(), StateName::Complete);
    let next = claim_all(&test, limits).await;
    assert_eq!(
        next.iter().map(|(owner, _)| owner).collect::<Vec<_>>(),
        [&two],
        "one place became free"
    );
}
