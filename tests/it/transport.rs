//! The one port under strain and under TLS: deadlines, limits, compression, certificates.

use std::{path::Path, time::Duration};

use chroma_sync::proto::{
    self, invocation_service_client::InvocationServiceClient, source_service_client::SourceServiceClient,
};
use prost::Message;
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tonic::{
    Code, Status,
    codec::CompressionEncoding,
    transport::{Certificate, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt;

use crate::harness::{
    git_server::{Change, Repository},
    grpc_web::{self, Frames, frame},
    proxy::{Fault, FaultProxy},
    rest::RestClient,
    scenario::Scenario,
    service::{Service, reason},
    stores::Backend,
    wait_for,
};

const CREATE_SOURCE: &str = "chromasync.v1.SourceService/CreateSource";
const WATCH: &str = "chromasync.v1.InvocationService/WatchInvocation";

/// A service whose first question to the Chroma server is never answered.
async fn service_with_a_silent_chroma(
    scenario: &Scenario,
    options: &[(&str, &str)],
) -> (Service, FaultProxy) {
    let server = scenario.chroma.url().trim_start_matches("http://");
    let proxy = FaultProxy::start(server, &[Fault::Hang]).await;
    let mut deployment = scenario.deployment.clone().with("chroma.url", &proxy.url());
    for (option, value) in options {
        deployment = deployment.with(option, value);
    }
    (deployment.start_role("api"), proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_deadline_ends_the_call_and_its_work() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let (service, proxy) = service_with_a_silent_chroma(&scenario, &[]).await;
    let request = frame(&scenario.source_request("owner/name").encode_to_vec());
    let headers = [("grpc-timeout", "500m")];
    let answer = grpc_web::post_with(&service, &scenario.admin, CREATE_SOURCE, request, &headers).await;
    let status = Status::from_header_map(answer.headers()).unwrap();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        "{status:?}"
    );
    assert_eq!(proxy.connections(), 1, "Chroma was asked once and not again");
    let listed = RestClient::new(&service, &scenario.admin)
        .get("/api/v1/sources")
        .await;
    assert_eq!(listed, (200, json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_at_its_deadline_with_the_reason() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let (_, created) = scenario.pending_invocation(&service).await;
    let request = proto::WatchInvocationRequest {
        invocation_id: created.id,
        after_revision: None,
    };
    let request = frame(&request.encode_to_vec());
    let headers = [("grpc-timeout", "700m")];
    let answer = grpc_web::post_with(&service, &scenario.admin, WATCH, request, &headers).await;
    let mut messages = Frames::new(answer);
    let first: proto::WatchInvocationResponse = messages.next().await.unwrap();
    assert_eq!(first.revision, 1);
    let trailers = messages
        .next::<proto::WatchInvocationResponse>()
        .await
        .unwrap_err();
    assert_eq!(trailers["grpc-status"], "4", "{trailers:?}");
    assert!(trailers.contains_key("grpc-status-details-bin"), "{trailers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limit_are_shed_with_the_time_to_wait() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let limit = [("server.max_concurrent_requests", "1")];
    let (service, proxy) = service_with_a_silent_chroma(&scenario, &limit).await;
    let mut occupant = service.sources(&scenario.admin);
    let request = scenario.source_request("owner/name");
    let occupying = tokio::spawn(async move { occupant.create_source(request).await.map(drop) });
    wait_for("a request that waits for Chroma", async || {
        (proxy.connections() == 1)
            .then_some(())
            .ok_or(proxy.connections())
    })
    .await;
    let shed = service
        .sources(&scenario.admin)
        .list_sources(proto::ListSourcesRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        (shed.code(), reason(&shed).as_str()),
        (Code::ResourceExhausted, "TOO_MANY_REQUESTS")
    );
    let delay = shed.get_details_retry_info().unwrap().retry_delay;
    assert_eq!(delay, Some(Duration::from_secs(1)));
    let rest = RestClient::new(&service, &scenario.admin);
    let answer = rest.send(Method::GET, "/api/v1/sources", "", "").await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "1"));
    assert_eq!(
        answer.json(),
        json!({
            "error": "ResourceExhaustedError",
            "message": "the server is at its limit of requests; try again",
            "reason": "TOO_MANY_REQUESTS",
        })
    );
    occupying.abort();
    wait_for("room after the request was given up", async || {
        let listed = rest.get("/api/v1/sources").await;
        if listed.0 == 200 { Ok(()) } else { Err(listed) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_compressed_both_ways_for_clients_that_ask() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let mut client = SourceServiceClient::new(service.channel(&scenario.admin))
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let answer = client
        .create_source(scenario.source_request("owner/other"))
        .await
        .unwrap();
    assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert_eq!(answer.into_inner().database_name, scenario.database());
    let plain = service
        .sources(&scenario.admin)
        .list_sources(proto::ListSourcesRequest::default())
        .await
        .unwrap();
    assert!(plain.metadata().get("grpc-encoding").is_none());

    // What streams share is encoded once, but compressed for each stream that asks.
    let (_, created) = scenario.pending_invocation(&service).await;
    for compressed in [true, false] {
        let mut client = service.invocations(&scenario.admin);
        if compressed {
            client = client.accept_compressed(CompressionEncoding::Gzip);
        }
        let request = proto::WatchInvocationRequest {
            invocation_id: created.id.clone(),
            after_revision: Some(0),
        };
        let answer = client.watch_invocation(request).await.unwrap();
        let encoding = answer.metadata().get("grpc-encoding");
        assert_eq!(encoding.is_some_and(|encoding| encoding == "gzip"), compressed);
        let message = answer.into_inner().message().await.unwrap().unwrap();
        assert_eq!(
            message.invocation.as_ref(),
            Some(&created),
            "compressed: {compressed}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_closed_at_once_and_silent_ones_soon() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario
        .deployment
        .with("server.max_connections", "3")
        .with("server.keepalive_timeout_seconds", "1");
    let service = scenario.deployment.start_role("api");
    let address = service.url.replace("http://", "");
    let open = async || TcpStream::connect(&address).await.unwrap();
    // How many bytes come before the end of the connection.
    let ends = async |mut connection: TcpStream| connection.read_to_end(&mut Vec::new()).await.ok();
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(open().await);
    }
    // The limit is reached when these three are: the kernel takes connections before the server does.
    wait_for("a connection beyond the limit", async || {
        let beyond = tokio::time::timeout(Duration::from_millis(200), ends(open().await)).await;
        beyond.map(|_| ())
    })
    .await;
    for connection in silent {
        assert_eq!(ends(connection).await, Some(0));
    }
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    // Their places are free again.
    wait_for("an answer", async || {
        let answer = reqwest::get(format!("{}/health", service.url)).await;
        answer.map(|answer| assert_eq!(answer.status(), 200))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_answers_no_ping_is_closed() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario
        .deployment
        .clone()
        .with("server.keepalive_interval_seconds", "1")
        .with("server.keepalive_timeout_seconds", "1")
        .start_role("api");
    let address = service.url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.unwrap();
    // The preface of HTTP/2 and empty settings, and nothing ever after.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    connection.write_all(preface).await.unwrap();
    let mut received = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(60), connection.read_to_end(&mut received)).await;
    assert!(closed.is_ok(), "the connection is still open");
    // A frame's type is its fourth byte; 6 is a ping.
    let mut types = Vec::new();
    let mut rest = received.as_slice();
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        types.push(head[3]);
        rest = after.get(length..).unwrap_or_default();
    }
    assert!(types.contains(&6), "closed without a ping: {types:?}");
}

/// A certificate authority and a certificate of it for `localhost`, as PEM files.
struct Certificates {
    authority: String,
    certificate: String,
    key: String,
}

fn certificates(directory: &Path) -> Certificates {
    let write = |name: &str, pem: String| {
        let path = directory.join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    Certificates {
        authority: write("authority.pem", authority_certificate.pem()),
        certificate: write("certificate.pem", certificate.pem()),
        key: write("key.pem", key.serialize_pem()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_the_port_speaks_tls_over_both_versions_of_http() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "one line\n")]);
    let directory = tempfile::tempdir().unwrap();
    let files = certificates(directory.path());
    let deployment = scenario
        .deployment
        .clone()
        .with("server.tls_certificate", &files.certificate)
        .with("server.tls_key", &files.key);
    let service = deployment.start();
    assert!(service.url.starts_with("https://127.0.0.1:"), "{}", service.url);

    let authority = std::fs::read(&files.authority).unwrap();
    let trusted = reqwest::Certificate::from_pem(&authority).unwrap();
    for (version, client) in [
        (reqwest::Version::HTTP_11, reqwest::Client::builder().http1_only()),
        (reqwest::Version::HTTP_2, reqwest::Client::builder()),
    ] {
        let client = client.tls_certs_only([trusted.clone()]).build().unwrap();
        let answer = client
            .get(format!("{}/health", service.url))
            .send()
            .await
            .unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
    }
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority));
    let channel = Endpoint::from_shared(service.url.clone())
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let refused = InvocationServiceClient::new(channel)
        .list_invocations(proto::ListInvocationsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "TOKEN_MISSING");

    // The command line trusts what it is told to.
    let database = scenario.database();
    let sync = [
        "sync",
        "owner/name",
        "--database",
        &database,
        "--collection",
        "target",
    ];
    let trusting = [&sync[..], &["--ca-certificate", &files.authority]].concat();
    let (code, printed) = deployment.run_against(&service, &scenario.admin, &trusting);
    assert_eq!(code, Some(0), "{printed}");
    let (code, _) = deployment.run_against(&service, &scenario.admin, &sync);
    assert_eq!(code, Some(1), "an unknown authority is not trusted");

    let plain = service.url.replace("https://", "http://");
    assert!(
        reqwest::get(format!("{plain}/health")).await.is_err(),
        "plain HTTP"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_used_is_named_at_the_start() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let directory = tempfile::tempdir().unwrap();
    let files = certificates(directory.path());
    let cases = [
        (
            "/nowhere.pem",
            files.key.as_str(),
            "/nowhere.pem cannot be read as PEM",
        ),
        (
            &files.key,
            &files.key,
            "has no certificate (server.tls_certificate)",
        ),
        (&files.certificate, &files.certificate, "cannot be read as PEM"),
        (
            &files.authority,
            &files.key,
            "the certificate and the key cannot be used",
        ),
        (
            &files.certificate,
            "",
            "server.tls_certificate: needs server.tls_key as well",
        ),
    ];
    for (certificate, key, expected) in cases {
        let deployment = scenario
            .deployment
            .clone()
            .with("server.tls_certificate", certificate)
            .with("server.tls_key", key);
        let (status, errors) = deployment.run_refused(&["serve", "--role", "api"]);
        assert_eq!(status.code(), Some(1));
        assert!(errors.contains(expected), "{expected}: {errors}");
    }
}
