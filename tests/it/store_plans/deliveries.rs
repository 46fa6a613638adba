//! The calls of what delivers to webhooks.

use chroma_sync::{
    domain::webhook::{Webhook, WebhookUrl},
    secret::Sealed,
    store::{DeliveryOutcome, Scope},
};

use crate::harness::stores::{LEASE, TestStore, created, new_invocation};

pub async fn call_all(test: &TestStore) {
    let store = &test.store;
    let source = test.source(&test.fresh_tenant()).await;
    let mut new = new_invocation("with-webhook");
    let url = WebhookUrl::parse("url", "https://example.com/").unwrap();
    let mut webhook = Webhook::requested(url, None);
    webhook.sealed_secret = Some(Sealed::from_bytes(vec![1]));
    new.webhook = Some(webhook);
    let outcome = store
        .create_invocation(&source.tenant, &source, new, None, None)
        .await;
    let id = created(outcome.unwrap()).id;
    let error = || "error".to_owned();
    let outcomes = [
        DeliveryOutcome::Retry {
            error: error(),
            at: test.now(),
        },
        DeliveryOutcome::GivenUp {
            error: error(),
            revision: 1,
            last: false,
        },
        DeliveryOutcome::Delivered {
            revision: 2,
            last: true,
        },
        DeliveryOutcome::Stopped { error: error() },
    ];
    let mut last = None;
    for (outcome, busy) in outcomes
        .into_iter()
        .zip([&[][..], &["https://example.org"]].into_iter().cycle())
    {
        assert_eq!(
            store.next_delivery_time().await.unwrap().is_some(),
            !matches!(outcome, DeliveryOutcome::Stopped { .. })
        );
        let busy = busy.iter().map(|receiver| (*receiver).to_owned()).collect();
        let claims = store.claim_deliveries(test.now(), LEASE, 10, busy).await.unwrap();
        last = claims.into_iter().next().or(last);
        let claim = last.as_ref().expect("the first is due");
        let _ = store.settle_delivery(claim, outcome, test.now()).await.unwrap();
        // The second state change, once the first was given up.
        store
            .cancel_invocation(&Scope::tenant(source.tenant.clone()), id)
            .await
            .unwrap();
    }
}
