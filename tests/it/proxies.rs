//! The service behind an nginx with default settings, as `docs/api.md` describes it to operators.

use chroma_sync::proto::{
    self, invocation::State, invocation_service_client::InvocationServiceClient,
    watch_invocation_response::Kind,
};
use serde_json::json;
use tonic::Code;

use crate::harness::{
    event_stream::Curl,
    nginx::Nginx,
    rest::RestClient,
    scenario::{Scenario, states, to_the_end},
    service::{Authenticated, channel, reason},
    stores::Backend,
};

fn through(nginx: &Nginx, token: &str) -> InvocationServiceClient<Authenticated> {
    InvocationServiceClient::new(channel(&nginx.grpc_url, token))
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_a_watch_to_its_end_go_through_grpc_pass() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let nginx = Nginx::start(&service.url, &[]);
    let (_, created) = scenario.pending_invocation(&service).await;
    let mut client = through(&nginx, &scenario.admin);

    let request = proto::GetInvocationRequest {
        invocation_id: created.id.clone(),
    };
    let got = client.get_invocation(request).await.unwrap().into_inner();
    assert_eq!(got, created);

    let request = proto::WatchInvocationRequest {
        invocation_id: created.id.clone(),
        after_revision: None,
    };
    let mut watch = client.watch_invocation(request).await.unwrap().into_inner();
    // It is there although the stream goes on: nothing on the way waits for more.
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!((first.kind(), first.revision), (Kind::Snapshot, 1));
    let request = proto::CancelInvocationRequest {
        invocation_id: created.id,
    };
    client.cancel_invocation(request).await.unwrap();
    assert_eq!(states(&to_the_end(watch).await), [(2, State::Cancelled)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_keeps_its_details_through_grpc_pass() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let nginx = Nginx::start(&service.url, &[]);
    let request = proto::WatchInvocationRequest {
        invocation_id: "0192e4a0-7f1c-7c3e-9a55-6a1d3c1b2f00".to_owned(),
        after_revision: None,
    };
    let refused = through(&nginx, &scenario.admin)
        .watch_invocation(request)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(reason(&refused), "INVOCATION_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_goes_through_proxy_pass() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let nginx = Nginx::start(&service.url, &[]);
    let (source, created) = scenario.pending_invocation(&service).await;
    let direct = RestClient::new(&service, &scenario.admin);
    let proxied = RestClient::at(&nginx.rest_url, &scenario.admin);

    let path = format!("/api/v1/sources/{source}");
    let answer = proxied.get(&path).await;
    assert_eq!(answer.0, 200);
    assert_eq!(answer, direct.get(&path).await);

    let (status, refused) = RestClient::at(&nginx.rest_url, "").get(&path).await;
    assert_eq!(status, 401, "{refused}");

    let path = format!("/api/v1/sources/{source}/invocations");
    let body = json!({"target_collection_name": "another", "ref_identifier": {"branch": "main"}});
    let (status, another) = proxied.post(&path, &body).await;
    assert_eq!(status, 201, "{another}");
    assert_ne!(another["invocation_id"], json!(created.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_long_polls_go_through_proxy_pass_without_being_held_back() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario.deployment.with("watch.heartbeat_seconds", "1");
    let service = scenario.deployment.start_role("api");
    // With the lines of the page, and as nginx comes.
    let documented = ["proxy_http_version 1.1;", "proxy_set_header Connection \"\";"];
    let source = scenario.create_source(&service, "owner/name").await;
    for (number, lines) in [&documented[..], &[]].into_iter().enumerate() {
        let nginx = Nginx::start(&service.url, lines);
        let collection = format!("collection-{number}");
        let created = scenario
            .create_invocation(&service, &source, &collection)
            .await
            .unwrap();
        let path = format!("{}/api/v1/invocations/{}", nginx.rest_url, created.id);
        let token = [format!("x-chroma-token: {}", scenario.admin)];
        let mut one = Curl::open(&format!("{path}/events"), &token);
        let mut many = Curl::open(&format!("{}/api/v1/events", nginx.rest_url), &token);
        assert_eq!(one.head().await[0], "http/1.1 200 ok");
        assert_eq!(many.head().await[0], "http/1.1 200 ok");
        // It is there although the stream goes on: nothing on the way waits for more.
        assert_eq!(one.next_change().await.unwrap().event, "snapshot");
        while many.next().await.unwrap().comments != ["heartbeat"] {}
        let polling = RestClient::at(&nginx.rest_url, &scenario.admin);
        let poll = format!("/api/v1/invocations/{}?wait=50s&after_revision=1", created.id);
        let cancelling = async {
            while one.next().await.unwrap().comments != ["heartbeat"] {}
            scenario.cancel(&service, &created.id).await;
        };
        let (polled, ()) = tokio::join!(polling.get(&poll), cancelling);
        assert_eq!((polled.0, &polled.1["revision"]), (200, &json!(2)));
        let end = one.next_change().await.unwrap();
        assert_eq!((end.event.as_str(), end.id.as_str()), ("state_changed", "2"));
        assert_eq!(one.next_change().await, None);
        assert_eq!(many.next_change().await.unwrap().data["revision"], json!(2));
    }
}
