//! Webhooks: what a receiver gets, whatever happens to it and to the service.

use std::time::Duration;

use chroma_sync::proto::{self, invocation::State, webhook_delivery};
use serde_json::{Value, json};

use crate::harness::{
    git_server::{Change, Repository},
    receiver::{Receiver, delivered, ids, verified},
    rest::RestClient,
    scenario::{Scenario, invocation_request},
    service::Service,
    stores::{Backend, on_both},
    wait_for,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A scenario with a repository, whose service may send to loopback.
async fn scenario(backend: Backend) -> Scenario {
    let mut scenario = Scenario::new(backend).await;
    scenario.deployment = scenario
        .deployment
        .with("webhooks.allow_http", "true")
        .with("webhooks.backoff_milliseconds", "200")
        .with("egress.allow", "127.0.0.1");
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "a\n")]);
    scenario
}

fn webhook(url: &str) -> Option<proto::Webhook> {
    Some(proto::Webhook {
        url: url.to_owned(),
        signing_secret: SECRET.to_owned(),
    })
}

/// Creates an invocation with a webhook of its own.
async fn invoke(
    scenario: &Scenario,
    service: &Service,
    source_id: &str,
    collection: &str,
    url: &str,
) -> proto::Invocation {
    let mut request = invocation_request(source_id, collection, None);
    request.webhook = webhook(url);
    let mut client = service.invocations(&scenario.admin);
    client.create_invocation(request).await.unwrap().into_inner()
}

async fn get(scenario: &Scenario, service: &Service, id: &str) -> proto::Invocation {
    let request = proto::GetInvocationRequest {
        invocation_id: id.to_owned(),
    };
    let mut client = service.invocations(&scenario.admin);
    client.get_invocation(request).await.unwrap().into_inner()
}

/// Waits until the delivery of an invocation is as wanted.
async fn wait_for_delivery(
    scenario: &Scenario,
    service: &Service,
    id: &str,
    wanted: impl Fn(&proto::WebhookDelivery) -> bool,
) -> proto::WebhookDelivery {
    wait_for("a delivery", async || {
        let delivery = get(scenario, service, id).await.webhook_delivery.unwrap();
        if wanted(&delivery) {
            Ok(delivery)
        } else {
            Err(delivery)
        }
    })
    .await
}

fn settled(delivery: &proto::WebhookDelivery) -> bool {
    delivery.state() != webhook_delivery::State::Pending
}

on_both!(every_state_change_arrives_once_in_order_and_signed, arrives_on);
async fn arrives_on(backend: Backend) {
    let scenario = scenario(backend).await;
    let receiver = Receiver::start(&[]).await;
    let service = scenario.deployment.start();
    let mut request = scenario.source_request("owner/name");
    request.webhook = webhook(&receiver.url());
    let source = service.sources(&scenario.admin).create_source(request).await;
    let source = source.unwrap().into_inner();
    let shown = Some(proto::Webhook {
        url: receiver.url(),
        signing_secret: String::new(),
    });
    assert_eq!(
        source.webhook, shown,
        "a secret that the caller gave is not returned"
    );

    let ended = scenario.run(&service, &source.id, "target", None).await;
    assert_eq!((ended.state(), &ended.webhook), (State::Complete, &shown));
    let delivery = wait_for_delivery(&scenario, &service, &ended.id, |it| it.delivered_revision == 3).await;
    let expected = proto::WebhookDelivery {
        state: webhook_delivery::State::Delivered.into(),
        delivered_revision: 3,
        ..Default::default()
    };
    assert_eq!(delivery, expected);

    let received = receiver.received();
    assert_eq!((received.len(), ids(&received)), (3, 3));
    assert_eq!(delivered(&received, &ended.id), [1, 2, 3]);
    let plain_id = ended.id.replace('-', "");
    for (revision, request) in (1..).zip(&received) {
        assert_eq!(request.path, "/hooks?key=planted-path-secret");
        assert_eq!(request.header("content-type"), "application/json");
        assert!(request.header("user-agent").starts_with("chroma-sync/"));
        assert_eq!(request.id(), format!("msg_{plain_id}_{revision}"));
        let body = request.json();
        assert_eq!(body["type"], "invocation.state_changed");
        assert_eq!(body["timestamp"], body["data"]["time"]);
        assert_eq!(
            body["data"]["invocation"]["webhook"],
            json!({"url": receiver.url()})
        );
    }
    let statuses = received
        .iter()
        .map(|it| it.json()["data"]["invocation"]["status"].clone());
    let statuses: Vec<Value> = statuses.collect();
    assert_eq!(statuses[..2], [json!("pending"), json!("processing")]);
    let rest = RestClient::new(&service, &scenario.admin);
    let (_, mut now) = rest.get(&format!("/api/v1/invocations/{}", ended.id)).await;
    let delivery = now.as_object_mut().unwrap().remove("webhook_delivery").unwrap();
    assert_eq!(
        delivery,
        json!({"state": "delivered", "delivered_revision": 3, "attempts": 0, "given_up": 0,
               "last_error": null, "next_attempt_at": null})
    );
    assert_eq!(received[2].json()["data"]["invocation"], now);
    assert_eq!(received[2].json()["data"]["progress"]["documents_indexed"], 1);

    let mut altered = received[2].signed(SECRET);
    altered["body"] = json!(received[2].body.replace("complete", "failed"));
    let other_secret = SECRET.replace("MfKQ", "MfKR");
    let requests = [
        received[0].signed(SECRET),
        received[1].signed(SECRET),
        received[2].signed(SECRET),
        received[2].signed(&other_secret),
        altered,
    ];
    assert_eq!(verified(&requests).await, [true, true, true, false, false]);
}

on_both!(
    a_receiver_that_fails_gets_the_same_again_after_growing_pauses,
    fails_on
);
async fn fails_on(backend: Backend) {
    let scenario = scenario(backend).await;
    let receiver = Receiver::start(&[500, 503, 429]).await;
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let created = invoke(&scenario, &service, &source, "target", &receiver.url()).await;
    let first = created.webhook_delivery.unwrap();
    assert_eq!(first.state(), webhook_delivery::State::Pending);
    assert_eq!((first.delivered_revision, first.attempts), (0, 0));

    let delivery = wait_for_delivery(&scenario, &service, &created.id, |it| it.attempts >= 2).await;
    assert_eq!(delivery.state(), webhook_delivery::State::Pending);
    assert!(
        delivery.last_error.starts_with("the receiver answered "),
        "{delivery:?}"
    );

    let received = receiver.wait_for(6).await;
    let delivery = wait_for_delivery(&scenario, &service, &created.id, settled).await;
    assert_eq!((delivery.delivered_revision, delivery.attempts), (3, 0));
    assert_eq!((delivery.given_up, delivery.last_error.as_str()), (0, ""));
    let answered: Vec<u16> = received.iter().map(|it| it.answered).collect();
    assert_eq!(answered, [500, 503, 429, 204, 204, 204]);
    let first = &received[0];
    for again in &received[1..4] {
        assert_eq!((again.id(), &again.body), (first.id(), &first.body));
    }
    assert_eq!(delivered(&received, &created.id), [1, 2, 3]);
    // 200 ms, doubled each time, less at most a quarter.
    for (pause, least) in received.windows(2).zip([150, 300, 600]) {
        let pause = pause[1].at - pause[0].at;
        assert!(pause >= Duration::from_millis(least), "{pause:?} < {least} ms");
    }
    let requests: Vec<Value> = received.iter().map(|it| it.signed(SECRET)).collect();
    assert_eq!(
        verified(&requests).await,
        [true; 6],
        "each attempt is signed anew"
    );
}

on_both!(a_receiver_that_was_away_during_a_restart_gets_everything, away_on);
async fn away_on(backend: Backend) {
    let scenario = scenario(backend).await;
    let address = Receiver::address_of_none().await;
    let url = format!("http://{address}/");
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let created = invoke(&scenario, &service, &source, "target", &url).await;
    scenario.watch(&service, &created.id).await;
    let delivery = wait_for_delivery(&scenario, &service, &created.id, |it| it.attempts > 0).await;
    assert!(
        delivery.last_error.starts_with("the receiver cannot be reached"),
        "{delivery:?}"
    );
    service.kill();

    let service = scenario.deployment.start();
    let receiver = Receiver::start_at(address, &[]).await;
    let delivery = wait_for_delivery(&scenario, &service, &created.id, settled).await;
    assert_eq!((delivery.delivered_revision, delivery.given_up), (3, 0));
    assert_eq!(delivered(&receiver.received(), &created.id), [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_answers_410_gets_nothing_more() {
    let scenario = scenario(Backend::Sqlite).await;
    let receiver = Receiver::start(&[410]).await;
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let first = invoke(&scenario, &service, &source, "first", &receiver.url()).await;
    let delivery = wait_for_delivery(&scenario, &service, &first.id, settled).await;
    assert_eq!(delivery.state(), webhook_delivery::State::Stopped);
    assert_eq!(
        delivery.last_error,
        "the receiver answered 410 and gets nothing more"
    );
    let messages = scenario.watch(&service, &first.id).await;
    let ended = messages.last().unwrap().invocation.as_ref().unwrap();
    assert_eq!(
        ended.state(),
        State::Complete,
        "the invocation itself is not disturbed"
    );

    // Another one gets all of its own, which is later than what the first one did not get.
    let second = invoke(&scenario, &service, &source, "second", &receiver.url()).await;
    wait_for_delivery(&scenario, &service, &second.id, |it| it.delivered_revision == 3).await;
    let received = receiver.received();
    let of_first = received.iter().filter(|it| it.invocation() == first.id).count();
    assert_eq!((of_first, received.len()), (1, 4));
    let delivery = get(&scenario, &service, &first.id)
        .await
        .webhook_delivery
        .unwrap();
    assert_eq!(delivery.state(), webhook_delivery::State::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_does_not_keep_the_next_state_change_back() {
    let mut scenario = scenario(Backend::Sqlite).await;
    scenario.deployment = scenario.deployment.with("webhooks.give_up_after_seconds", "0");
    let receiver = Receiver::start(&[500]).await;
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let created = invoke(&scenario, &service, &source, "target", &receiver.url()).await;
    let delivery = wait_for_delivery(&scenario, &service, &created.id, |it| it.delivered_revision == 3).await;
    assert_eq!(
        (delivery.state(), delivery.given_up),
        (webhook_delivery::State::Delivered, 1)
    );
    assert_eq!(delivered(&receiver.received(), &created.id), [2, 3]);

    receiver.then(500);
    let lost = invoke(&scenario, &service, &source, "lost", &receiver.url()).await;
    let delivery = wait_for_delivery(&scenario, &service, &lost.id, |it| it.given_up == 3).await;
    assert_eq!(delivery.state(), webhook_delivery::State::Failed);
    assert_eq!((delivery.delivered_revision, delivery.attempts), (0, 1));
    assert_eq!(delivery.last_error, "the receiver answered 500");
    assert_eq!(delivery.next_attempt_time, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_a_failure_and_not_followed() {
    let scenario = scenario(Backend::Sqlite).await;
    let elsewhere = Receiver::start(&[]).await;
    let receiver = Receiver::start(&[]).await;
    receiver.next(307, "location", &elsewhere.url());
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let created = invoke(&scenario, &service, &source, "target", &receiver.url()).await;
    let received = receiver.wait_for(4).await;
    assert_eq!(received[0].answered, 307);
    assert_eq!(delivered(&received, &created.id), [1, 2, 3]);
    assert_eq!(elsewhere.received().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_asks_to_wait_is_left_alone_for_that_long() {
    let scenario = scenario(Backend::Sqlite).await;
    let receiver = Receiver::start(&[]).await;
    receiver.next(503, "retry-after", "2");
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let created = invoke(&scenario, &service, &source, "target", &receiver.url()).await;
    let received = receiver.wait_for(4).await;
    let pause = received[1].at - received[0].at;
    assert!(pause >= Duration::from_millis(1_900), "{pause:?}");
    assert_eq!(delivered(&received, &created.id), [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_receiver_keeps_no_other_one_waiting() {
    let mut scenario = scenario(Backend::Sqlite).await;
    scenario.deployment = scenario
        .deployment
        .with("webhooks.concurrency", "2")
        .with("webhooks.max_concurrency_per_receiver", "1");
    let (slow, quick) = (Receiver::start(&[]).await, Receiver::start(&[]).await);
    let held = slow.hold();
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let mut waiting = Vec::new();
    for collection in ["one", "two", "three"] {
        waiting.push(
            invoke(&scenario, &service, &source, collection, &slow.url())
                .await
                .id,
        );
    }
    let created = invoke(&scenario, &service, &source, "four", &quick.url()).await;
    wait_for_delivery(&scenario, &service, &created.id, |it| it.delivered_revision == 3).await;
    assert_eq!(slow.received().len(), 1, "one request at a time");
    drop(held);
    for id in waiting {
        wait_for_delivery(&scenario, &service, &id, |it| it.delivered_revision == 3).await;
        assert_eq!(delivered(&slow.received(), &id), [1, 2, 3]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_egress_forbids_is_not_reached_and_the_invocation_goes_on() {
    let mut scenario = scenario(Backend::Sqlite).await;
    scenario.deployment = scenario.deployment.with("egress.allow", "");
    let receiver = Receiver::start(&[]).await;
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let port = receiver.address.port();
    for (collection, host) in [("by-address", "127.0.0.1"), ("by-name", "localhost")] {
        let url = format!("http://{host}:{port}/");
        let created = invoke(&scenario, &service, &source, collection, &url).await;
        let messages = scenario.watch(&service, &created.id).await;
        let ended = messages.last().unwrap().invocation.as_ref().unwrap();
        assert_eq!(ended.state(), State::Complete, "{host}");
        let delivery = wait_for_delivery(&scenario, &service, &created.id, |it| it.attempts > 0).await;
        let expected = format!(
            "{host} leads to an address that is not public; the operator can allow it with egress.allow"
        );
        assert_eq!(delivery.last_error, expected);
        assert_eq!(delivery.delivered_revision, 0);
    }
    assert_eq!(receiver.received().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_the_server_made_is_shown_once_and_neither_logged_nor_stored() {
    let scenario = scenario(Backend::Sqlite).await;
    let receiver = Receiver::start(&[500]).await;
    let service = scenario.deployment.start();
    let mut request = scenario.source_request("owner/name");
    request.request_id = Some("6f9619ff-8b86-4d11-b42d-00c04fc964ff".to_owned());
    request.webhook = Some(proto::Webhook {
        url: receiver.url(),
        signing_secret: String::new(),
    });
    let mut sources = service.sources(&scenario.admin);
    let created = sources.create_source(request.clone()).await.unwrap().into_inner();
    let secret = created.webhook.clone().unwrap().signing_secret;
    assert!(secret.starts_with("whsec_"), "{secret}");
    let again = sources.create_source(request).await.unwrap().into_inner();
    assert_eq!(
        (again.id, again.webhook.unwrap().signing_secret),
        (created.id.clone(), String::new())
    );

    let ended = scenario.run(&service, &created.id, "target", None).await;
    wait_for_delivery(&scenario, &service, &ended.id, |it| it.delivered_revision == 3).await;
    let received = receiver.received();
    let requests: Vec<Value> = received.iter().map(|it| it.signed(&secret)).collect();
    assert_eq!(verified(&requests).await, [true; 4]);

    let rest = RestClient::new(&service, &scenario.admin);
    for path in [
        format!("/api/v1/sources/{}", created.id),
        "/api/v1/sources".to_owned(),
        format!("/api/v1/invocations/{}", ended.id),
        "/api/v1/invocations".to_owned(),
    ] {
        let shown = rest.get(&path).await.1.to_string();
        assert!(
            shown.contains("planted-path-secret") && !shown.contains("whsec_"),
            "{path}: {shown}"
        );
    }
    service.terminate();
    let (status, log) = service.wait();
    assert!(status.success());
    assert!(log.contains("a delivery to a webhook failed"), "{log}");
    let key = secret.trim_start_matches("whsec_");
    assert!(
        !log.contains(key) && !log.contains("planted-path-secret"),
        "{log}"
    );
    let file = scenario.store_url.trim_start_matches("sqlite://");
    for file in [file.to_owned(), format!("{file}-wal")] {
        let bytes = std::fs::read(file).unwrap_or_default();
        let found = bytes.windows(key.len()).any(|window| window == key.as_bytes());
        assert!(!found, "the secret is stored in the clear");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_another_key_says_so_and_one_with_the_key_delivers() {
    let scenario = scenario(Backend::Sqlite).await;
    let receiver = Receiver::start(&[]).await;
    let api = scenario.deployment.start_role("api");
    let source = scenario.create_source(&api, "owner/name").await;
    let created = invoke(&scenario, &api, &source, "target", &receiver.url()).await;
    let other = scenario
        .deployment
        .clone()
        .with("encryption.key", &"ab".repeat(32));
    let worker = other.start_role("worker");
    let delivery = wait_for_delivery(&scenario, &api, &created.id, |it| it.attempts > 0).await;
    assert!(delivery.last_error.contains("encryption.key"), "{delivery:?}");
    worker.kill();
    let _worker = scenario.deployment.start_role("worker");
    wait_for_delivery(&scenario, &api, &created.id, |it| it.delivered_revision == 3).await;
    assert_eq!(delivered(&receiver.received(), &created.id), [1, 2, 3]);
}

on_both!(
    two_workers_deliver_each_state_change_once_and_in_order,
    two_workers_on
);
async fn two_workers_on(backend: Backend) {
    let scenario = scenario(backend).await;
    let receiver = Receiver::start(&[]).await;
    let api = scenario.deployment.start_role("api");
    let _workers = [
        scenario.deployment.start_role("worker"),
        scenario.deployment.start_role("worker"),
    ];
    // Nothing is there to fetch, so they end at once.
    let source = scenario.create_source(&api, "owner/missing").await;
    let mut created = Vec::new();
    for n in 0..12 {
        let collection = format!("collection-{n}");
        created.push(
            invoke(&scenario, &api, &source, &collection, &receiver.url())
                .await
                .id,
        );
    }
    for id in &created {
        wait_for_delivery(&scenario, &api, id, |it| it.delivered_revision == 3).await;
    }
    let received = receiver.received();
    for id in &created {
        assert_eq!(delivered(&received, id), [1, 2, 3]);
    }
    assert_eq!((received.len(), ids(&received)), (36, 36));
}
