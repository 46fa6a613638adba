//! The gRPC surface as clients of other languages and browsers meet it: reflection, health, gRPC-Web, CORS,
//! and what tonic itself answers.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use chroma_sync::proto::{self, invocation::State, watch_invocation_response::Kind};
use prost::Message;
use reqwest::Method;
use serde_json::{Value, json};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt;

use crate::harness::{
    git_server::{Change, Repository},
    grpc_web::{self, Frames, frame},
    rest::run_client,
    scenario::Scenario,
    service::Service,
    stores::Backend,
};

const SOURCES: &str = "chromasync.v1.SourceService";
const INVOCATIONS: &str = "chromasync.v1.InvocationService";
const UNKNOWN: &str = "0192e4a0-7f1c-7c3e-9a55-6a1d3c1b2f00";

fn address(service: &Service) -> &str {
    service.url.strip_prefix("http://").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_generated_code_syncs_a_repository_through_reflection() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    let commit = repository.commit("main", &[Change::file("a.txt", "a\n")]);
    let service = scenario.deployment.start();
    let arguments = [address(&service), &scenario.admin, &scenario.database()];
    let seen = run_client("reflection.py", &arguments);

    assert_eq!(
        seen["services"],
        json!([
            "chromasync.v1.CredentialService",
            "chromasync.v1.EmbeddingService",
            "chromasync.v1.FileService",
            INVOCATIONS,
            "chromasync.v1.SearchService",
            SOURCES,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection"
        ])
    );
    let methods = |service: &str| -> Vec<String> {
        seen["methods"][service]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    };
    assert_eq!(
        methods(SOURCES),
        ["CreateSource", "DeleteSource", "GetSource", "ListSources"]
    );
    assert_eq!(
        methods(INVOCATIONS),
        [
            "BatchGetLatestInvocations",
            "CancelInvocation",
            "CreateInvocation",
            "GetInvocation",
            "ListDocuments",
            "ListInvocations",
            "WatchInvocation",
            "WatchInvocations"
        ]
    );
    assert_eq!(
        seen["methods"][INVOCATIONS]["WatchInvocation"],
        json!({
            "request": "chromasync.v1.WatchInvocationRequest",
            "response": "chromasync.v1.WatchInvocationResponse",
            "server_streaming": true,
        })
    );

    let (source, invocation) = (&seen["source"], &seen["invocation"]);
    assert_eq!(source["database_name"], json!(scenario.database()));
    assert_eq!(source["github"], json!({"repository": "owner/name"}));
    assert_eq!(invocation["state"], "STATE_PENDING");
    assert_eq!(invocation["source_id"], source["id"]);
    assert_eq!(invocation["github"], json!({"branch": "main"}));
    let last = seen["messages"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["revision"], &last["invocation"]["state"]),
        (&json!("3"), &json!("STATE_COMPLETE"))
    );
    assert_eq!(last["invocation"]["id"], invocation["id"]);
    assert_eq!(last["invocation"]["resolved_commit"], json!(commit));
    assert_eq!(last["invocation"]["statistics"]["documents_indexed"], "1");
    assert_eq!(seen["refused"]["code"], "INVALID_ARGUMENT");
    let message = seen["refused"]["message"].as_str().unwrap();
    assert!(message.starts_with("source_id: "), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_current_version_of_reflection_is_served_beside_the_older_one() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let mut client = ServerReflectionClient::new(connect(&service).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = client
        .server_reflection_info(futures::stream::iter([request]))
        .await;
    let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let mut names: Vec<String> = services.service.into_iter().map(|service| service.name).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "chromasync.v1.CredentialService",
            "chromasync.v1.EmbeddingService",
            "chromasync.v1.FileService",
            INVOCATIONS,
            "chromasync.v1.SearchService",
            SOURCES,
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn health_answers_for_the_server_and_each_service_without_a_token() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let seen = run_client(
        "health.py",
        &[address(&service), "", SOURCES, INVOCATIONS, "nobody.Knows"],
    );
    assert_eq!(
        seen,
        json!({"": "SERVING", SOURCES: "SERVING", INVOCATIONS: "SERVING", "nobody.Knows": "NOT_FOUND"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_web_carries_calls_and_streams_over_http_1() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let post = async |method: &str, message: Vec<u8>| {
        let response = grpc_web::post(&service, &scenario.admin, method, frame(&message)).await;
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        response
    };
    let create = scenario.source_request("owner/name").encode_to_vec();
    let mut answer = Frames::new(post(&format!("{SOURCES}/CreateSource"), create).await);
    let source: proto::Source = answer.next().await.unwrap();
    assert_eq!(source.database_name, scenario.database());
    let trailers = answer.next::<proto::Source>().await.unwrap_err();
    assert_eq!(trailers["grpc-status"], "0");

    let created = scenario
        .create_invocation(&service, &source.id, "target")
        .await
        .unwrap();
    let watch = proto::WatchInvocationRequest {
        invocation_id: created.id.clone(),
        after_revision: None,
    };
    let mut messages =
        Frames::new(post(&format!("{INVOCATIONS}/WatchInvocation"), watch.encode_to_vec()).await);
    let first: proto::WatchInvocationResponse = messages.next().await.unwrap();
    // It has come while the invocation is still pending, so the stream is live and not a collected answer.
    assert_eq!(
        (first.kind(), first.invocation),
        (Kind::Snapshot, Some(created.clone()))
    );
    scenario.cancel(&service, &created.id).await;
    let second: proto::WatchInvocationResponse = messages.next().await.unwrap();
    assert_eq!((second.kind(), second.revision), (Kind::StateChanged, 2));
    assert_eq!(second.invocation.unwrap().state(), State::Cancelled);
    let trailers = messages
        .next::<proto::WatchInvocationResponse>()
        .await
        .unwrap_err();
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_web_error_has_its_code_and_details_where_a_page_may_read_them() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let request = proto::GetSourceRequest {
        source_id: UNKNOWN.to_owned(),
    };
    let method = format!("{SOURCES}/GetSource");
    let body = frame(&request.encode_to_vec());
    let response = grpc_web::post(&service, &scenario.admin, &method, body).await;
    let exposed = response.headers()["access-control-expose-headers"]
        .to_str()
        .unwrap();
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        assert!(exposed.contains(name), "{exposed}");
    }
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(
        status.get_details_error_info().unwrap().reason,
        "SOURCE_NOT_FOUND"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_lets_a_page_send_its_token() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let asked = "authorization,content-type,x-chroma-token,x-grpc-web";
    let response = reqwest::Client::new()
        .request(Method::OPTIONS, format!("{}/{SOURCES}/CreateSource", service.url))
        .header("origin", "https://example.com")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", asked)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let header = |name: &str| response.headers()[name].to_str().unwrap();
    assert_eq!(header("access-control-allow-origin"), "*");
    assert_eq!(header("access-control-allow-methods"), "POST");
    // A wildcard would not cover `authorization` (Fetch standard, CORS non-wildcard request-header name).
    assert_eq!(header("access-control-allow-headers"), asked);
    assert_eq!(header("access-control-max-age"), "86400");
}

async fn connect(service: &Service) -> Channel {
    let endpoint = Endpoint::from_shared(service.url.clone()).unwrap();
    endpoint.connect().await.unwrap()
}

async fn call(service: &Service, path: &str, message: proto::CreateSourceRequest) -> Status {
    let mut client = tonic::client::Grpc::new(connect(service).await);
    client.ready().await.unwrap();
    let codec = ProstCodec::<proto::CreateSourceRequest, proto::Source>::default();
    client
        .unary(tonic::Request::new(message), path.parse().unwrap(), codec)
        .await
        .unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_services_that_are_not_served_are_unimplemented() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    for path in [
        "/chromasync.v1.SourceService/Frobnicate",
        "/chromasync.v1.NoService/CreateSource",
        "/chromasync.v1.SourceService",
    ] {
        let status = call(&service, path, proto::CreateSourceRequest::default()).await;
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
        assert_eq!(status.message(), format!("method {path} is not served here"));
        let reason = status.get_details_error_info().unwrap().reason;
        assert_eq!(reason, "METHOD_NOT_SERVED", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_large_or_damaged_are_the_callers_fault() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let deployment = scenario
        .deployment
        .clone()
        .with("server.max_request_bytes", "4096");
    let service = deployment.start_role("api");
    let mut large = scenario.source_request("owner/name");
    large.database_name = "x".repeat(5_000);
    let size = large.encoded_len();
    let status = call(&service, &format!("/{SOURCES}/CreateSource"), large).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(
        status.get_details_error_info().unwrap().reason,
        "MALFORMED_REQUEST"
    );
    let message = status.message();
    assert!(
        message.contains(&size.to_string()) && message.contains("4096"),
        "{message}"
    );

    for body in [frame(b"\xff\xff\xff"), vec![], vec![0xff; 5]] {
        let method = format!("{SOURCES}/GetSource");
        let response = grpc_web::post(&service, &scenario.admin, &method, body).await;
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let reason = status.get_details_error_info().unwrap().reason;
        assert_eq!(reason, "MALFORMED_REQUEST", "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chroma_server_that_is_away_makes_creation_unavailable_and_nothing_else() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let nobody = free_address();
    let deployment = scenario
        .deployment
        .clone()
        .with("chroma.url", &format!("http://{nobody}"))
        .with("chroma.timeout_seconds", "1");
    let service = deployment.start_role("api");
    let mut client = service.sources(&scenario.admin);
    let status = client
        .create_source(scenario.source_request("owner/name"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(
        status.get_details_error_info().unwrap().reason,
        "CHROMA_UNAVAILABLE"
    );
    let listed = client
        .list_sources(proto::ListSourcesRequest::default())
        .await
        .unwrap();
    assert_eq!(listed.into_inner().sources, []);
    let health: Value = run_client("health.py", &[address(&service), ""]);
    assert_eq!(health, json!({"": "SERVING"}));
}

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}
