//! The log of deliveries: what is due, who may send it, and what follows.

use std::time::Duration;

use chroma_sync::{
    domain::{
        ids::InvocationId,
        invocation::Statistics,
        source::Source,
        webhook::{DeliveryState, Webhook, WebhookUrl},
    },
    secret::Sealed,
    store::{DeliveryClaim, DeliveryOutcome, Held, Scope, Store},
};

use crate::harness::stores::{TestStore, created, new_invocation, on_both_stores};

on_both_stores! {
    a_delivery_is_due_after_every_state_change_and_taken_once,
    a_state_change_during_an_attempt_is_due_after_it,
    a_lease_that_ran_out_lets_another_process_send,
    deliveries_to_busy_receivers_are_passed_by,
    claims_at_once_never_take_the_same_delivery,
    a_state_change_at_the_moment_an_attempt_ends_is_not_missed,
}

const LEASE: Duration = Duration::from_secs(30);

async fn invocation_with_webhook(test: &TestStore, source: &Source, n: usize, url: &str) -> InvocationId {
    let mut new = new_invocation(&format!("webhook-{n}"));
    let mut webhook = Webhook::requested(WebhookUrl::parse("url", url).unwrap(), None);
    webhook.sealed_secret = Some(Sealed::from_bytes(vec![1, 2, 3]));
    new.webhook = Some(webhook);
    let outcome = test
        .store
        .create_invocation(&source.tenant, source, new, None, None);
    created(outcome.await.unwrap()).id
}

async fn one(test: &TestStore) -> (Source, InvocationId) {
    let source = test.source(&test.fresh_tenant()).await;
    let id = invocation_with_webhook(test, &source, 0, "https://example.com/").await;
    (source, id)
}

async fn claim(test: &TestStore, store: &Store) -> Vec<DeliveryClaim> {
    let claimed = store.claim_deliveries(test.now(), LEASE, 10, Vec::new());
    claimed.await.unwrap()
}

fn delivered(revision: u64, last: bool) -> DeliveryOutcome {
    DeliveryOutcome::Delivered { revision, last }
}

async fn settle(test: &TestStore, claim: &DeliveryClaim, outcome: DeliveryOutcome) -> Held {
    let settled = test.store.settle_delivery(claim, outcome, test.now());
    settled.await.unwrap()
}

async fn a_delivery_is_due_after_every_state_change_and_taken_once(test: TestStore) {
    let (source, id) = one(&test).await;
    assert_eq!(test.store.next_delivery_time().await.unwrap(), Some(test.now()));
    let claims = claim(&test, &test.store).await;
    assert_eq!(claims.len(), 1);
    assert_eq!((claims[0].invocation_id, claims[0].revision), (id, 1));
    assert_eq!(claims[0].sealed_secret, Some(Sealed::from_bytes(vec![1, 2, 3])));
    assert_eq!(claim(&test, &test.store).await, []);
    assert_eq!(settle(&test, &claims[0], delivered(1, false)).await, Held::Held);
    let shown = test.reload(&source.tenant, id).await.webhook_delivery.unwrap();
    assert_eq!(
        (shown.state, shown.delivered_revision),
        (DeliveryState::Delivered, 1)
    );
    assert_eq!(test.store.next_delivery_time().await.unwrap(), None);

    let scope = Scope::tenant(source.tenant.clone());
    test.store.cancel_invocation(&scope, id).await.unwrap();
    let claims = claim(&test, &test.store).await;
    assert_eq!(claims[0].revision, 2);
    let error = "the receiver answered 500".to_owned();
    let at = test.now().plus(Duration::from_secs(7));
    let retry = DeliveryOutcome::Retry {
        error: error.clone(),
        at,
    };
    assert_eq!(settle(&test, &claims[0], retry).await, Held::Held);
    let shown = test.reload(&source.tenant, id).await.webhook_delivery.unwrap();
    assert_eq!((shown.state, shown.attempts), (DeliveryState::Pending, 1));
    assert_eq!(
        (shown.last_error, shown.next_attempt_time),
        (Some(error), Some(at))
    );
    assert_eq!(claim(&test, &test.store).await, [], "not before its time");
    let first = claims[0].first_attempt_at;
    test.clock.advance(Duration::from_secs(7));
    let claims = claim(&test, &test.store).await;
    assert_eq!((claims[0].revision, claims[0].attempts), (2, 1));
    assert_eq!(claims[0].first_attempt_at, first);
    assert_eq!(settle(&test, &claims[0], delivered(2, true)).await, Held::Held);
    assert_eq!(claim(&test, &test.store).await, []);
}

async fn a_state_change_during_an_attempt_is_due_after_it(test: TestStore) {
    let (source, id) = one(&test).await;
    let first = claim(&test, &test.store).await.remove(0);
    let scope = Scope::tenant(source.tenant.clone());
    test.store.cancel_invocation(&scope, id).await.unwrap();
    assert_eq!(
        claim(&test, &test.store).await,
        [],
        "the first one is still being sent"
    );
    let given_up = DeliveryOutcome::GivenUp {
        error: "away".to_owned(),
        revision: 1,
        last: false,
    };
    assert_eq!(settle(&test, &first, given_up).await, Held::Held);
    let second = claim(&test, &test.store).await.remove(0);
    assert_eq!((second.revision, second.attempts), (2, 0));
    assert_eq!(settle(&test, &second, delivered(2, true)).await, Held::Held);
    let shown = test.reload(&source.tenant, id).await.webhook_delivery.unwrap();
    assert_eq!((shown.state, shown.given_up), (DeliveryState::Delivered, 1));
    assert_eq!((shown.delivered_revision, shown.last_error), (2, None));
}

async fn a_lease_that_ran_out_lets_another_process_send(test: TestStore) {
    let (_, id) = one(&test).await;
    let lost = claim(&test, &test.store).await.remove(0);
    let second = test.second().await;
    test.clock.advance(LEASE);
    let taken = claim(&test, &second).await.remove(0);
    assert_eq!((taken.invocation_id, taken.revision), (id, 1));
    assert_eq!(settle(&test, &lost, delivered(1, false)).await, Held::Lost);
    assert_eq!(settle(&test, &taken, delivered(1, false)).await, Held::Held);
    assert_eq!(
        settle(&test, &taken, delivered(1, false)).await,
        Held::Lost,
        "once"
    );
}

async fn deliveries_to_busy_receivers_are_passed_by(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    invocation_with_webhook(&test, &source, 1, "https://busy.example.com/one").await;
    let idle = invocation_with_webhook(&test, &source, 2, "https://idle.example.com/").await;
    let busy = vec!["https://busy.example.com".to_owned()];
    let claims = test
        .store
        .claim_deliveries(test.now(), LEASE, 10, busy)
        .await
        .unwrap();
    assert_eq!(
        claims.iter().map(|it| it.invocation_id).collect::<Vec<_>>(),
        [idle]
    );
    assert_eq!(claim(&test, &test.store).await.len(), 1);
}

async fn claims_at_once_never_take_the_same_delivery(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    for n in 0..40 {
        invocation_with_webhook(&test, &source, n, "https://example.com/").await;
    }
    let stores = [test.store.clone(), test.second().await];
    let now = test.now();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..16 {
        let store = stores[n % 2].clone();
        tasks.spawn(async move { store.claim_deliveries(now, LEASE, 5, Vec::new()).await.unwrap() });
    }
    let mut taken: Vec<InvocationId> = Vec::new();
    while let Some(claims) = tasks.join_next().await {
        taken.extend(claims.unwrap().iter().map(|claim| claim.invocation_id));
    }
    let rest = test
        .store
        .claim_deliveries(now, LEASE, 100, Vec::new())
        .await
        .unwrap();
    taken.extend(rest.iter().map(|claim| claim.invocation_id));
    let count = taken.len();
    taken.sort_unstable();
    taken.dedup();
    assert_eq!((count, taken.len()), (40, 40));
    // An invocation that runs is marked by the worker's transitions as well.
    let worker = chroma_sync::domain::ids::WorkerId::generate();
    let running = test.claim(&worker).await.unwrap();
    let id = running.invocation.id;
    let statistics = Statistics::default();
    let ended = test
        .store
        .complete(id, running.attempt, statistics, now)
        .await
        .unwrap();
    assert_eq!(ended.unwrap().revision, 3);
    let shown = test.reload(&source.tenant, id).await;
    assert_eq!(shown.revision, 3);
    assert_eq!(shown.webhook_delivery.unwrap().state, DeliveryState::Pending);
}

async fn a_state_change_at_the_moment_an_attempt_ends_is_not_missed(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let scope = Scope::tenant(source.tenant.clone());
    for n in 0..40 {
        invocation_with_webhook(&test, &source, n, "https://example.com/").await;
    }
    let now = test.now();
    let claims = test
        .store
        .claim_deliveries(now, LEASE, 40, Vec::new())
        .await
        .unwrap();
    assert_eq!(claims.len(), 40);
    let mut tasks = tokio::task::JoinSet::new();
    for claim in claims {
        let (store, scope, id) = (test.store.clone(), scope.clone(), claim.invocation_id);
        tasks.spawn(async move {
            store.cancel_invocation(&scope, id).await.unwrap();
        });
        let store = test.store.clone();
        tasks.spawn(async move {
            let settled = store.settle_delivery(&claim, delivered(1, false), now).await;
            assert_eq!(settled.unwrap(), Held::Held);
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let due = test
        .store
        .claim_deliveries(now, LEASE, 100, Vec::new())
        .await
        .unwrap();
    assert_eq!(due.len(), 40);
    assert!(due.iter().all(|claim| claim.revision == 2));
}
