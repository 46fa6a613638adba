//! Who may call, and what for, on both surfaces.

use chroma_sync::proto::{self, watch_invocation_response::Kind};
use serde_json::json;
use tonic::{Code, Request, metadata::MetadataValue};

use crate::harness::{
    rest::RestClient,
    scenario::Scenario,
    service::reason,
    stores::{Backend, on_both},
};

on_both!(a_key_stops_when_it_is_revoked_or_expires, key_stops_on);
async fn key_stops_on(backend: Backend) {
    let mut scenario = Scenario::new(backend).await;
    scenario.deployment = scenario.deployment.with("watch.heartbeat_seconds", "1");
    let deployment = &scenario.deployment;
    let service = deployment.start_role("api");
    let name = ["--database", "one", "--database", "two", "--role", "owner"];
    let token = deployment.create_key(&name);
    // A stream that was opened before ends as well.
    let own_database = scenario.database();
    let streaming = deployment.create_key(&["--database", &own_database]);
    let (_, created) = scenario.pending_invocation(&service).await;
    let request = proto::WatchInvocationRequest {
        invocation_id: created.id,
        after_revision: None,
    };
    let watch = service.invocations(&streaming).watch_invocation(request).await;
    let mut watch = watch.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().revision, 1);
    let list = async |token: &str| {
        let request = proto::ListSourcesRequest::default();
        service.sources(token).list_sources(request).await.map(drop)
    };
    list(&token).await.unwrap();
    let expired = deployment.create_key(&["--expires-in-days", "0"]);
    let later = deployment.create_key(&["--tenant", "another_tenant", "--expires-in-days", "1"]);
    list(&later).await.unwrap();

    let id_of = |databases: &str| {
        let keys = deployment.run(&["keys", "list"]);
        let line = keys.lines().find(|line| line.contains(databases)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    let id = id_of("one,two");
    assert_eq!(
        deployment.run(&["keys", "revoke", &id]),
        format!("revoked {id}\n")
    );
    deployment.run(&["keys", "revoke", &id_of(&own_database)]);
    let ended = loop {
        match watch.message().await {
            Ok(message) => assert_eq!(message.unwrap().kind(), Kind::Heartbeat),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (ended.code(), reason(&ended).as_str()),
        (Code::Unauthenticated, "TOKEN_INVALID")
    );
    for token in [&token, &expired, &format!("{later}0"), &"x".repeat(5_000)] {
        let refused = list(token).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert_eq!(reason(&refused), "TOKEN_INVALID");
    }
    let (status, body) = RestClient::new(&service, &token).get("/api/v1/sources").await;
    let message = "the token is unknown, revoked or expired";
    assert_eq!(
        (status, body),
        (
            401,
            json!({"error": "UnauthenticatedError", "message": message, "reason": "TOKEN_INVALID"})
        )
    );

    let keys = deployment.run(&["keys", "list"]);
    let rows: Vec<Vec<&str>> = keys.lines().map(|line| line.split("  ").collect()).collect();
    // id, state, role, tenant, databases, time of creation, name; in the order of creation.
    let told: Vec<[&str; 5]> = rows
        .iter()
        .map(|row| [row[1], row[2], row[3], row[4], row[6]])
        .collect();
    assert_eq!(
        told,
        [
            ["active", "admin", "default_tenant", "all databases", "test"],
            ["revoked", "owner", "default_tenant", "one,two", "test"],
            ["revoked", "member", "default_tenant", &own_database, "test"],
            ["expired", "member", "default_tenant", "all databases", "test"],
            ["active", "member", "another_tenant", "all databases", "test"],
        ]
    );
    assert_eq!(rows[1][0], id);
    assert!(
        !keys.contains(&token) && !keys.contains("cs-"),
        "tokens are shown once"
    );
    let of_tenant = deployment.run(&["keys", "list", "--tenant", "another_tenant"]);
    assert_eq!(of_tenant.lines().count(), 1);
    let (status, errors) = deployment.run_refused(&["keys", "revoke", &id]);
    assert_eq!(status.code(), Some(1));
    assert!(
        errors.contains(&format!("no active key has the id {id}")),
        "{errors}"
    );
    service.terminate();
    let (_, log) = service.wait();
    for token in [&token, &streaming, &expired, &later, &scenario.admin] {
        assert!(!log.contains(token.as_str()), "the log has a token: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_taken_from_either_header() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let admin = &scenario.admin;
    let cases = [
        ("authorization", format!("Bearer {admin}"), true),
        ("authorization", format!("bearer {admin}"), true),
        ("authorization", admin.clone(), false),
        ("authorization", format!("Basic {admin}"), false),
        ("x-chroma-token", admin.clone(), true),
        ("x-chroma-token", format!("Bearer {admin}"), false),
        ("cookie", format!("x-chroma-token={admin}"), false),
    ];
    for (header, value, accepted) in cases {
        let mut request = Request::new(proto::ListSourcesRequest::default());
        request
            .metadata_mut()
            .insert(header, MetadataValue::try_from(&value).unwrap());
        let answer = service.sources("").list_sources(request).await;
        assert_eq!(answer.is_ok(), accepted, "gRPC {header}: {value}");
        let answer = reqwest::Client::new()
            .get(format!("{}/api/v1/sources", service.url))
            .header(header, &value)
            .send()
            .await
            .unwrap();
        let expected = if accepted { 200 } else { 401 };
        assert_eq!(answer.status(), expected, "REST {header}: {value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_authentication_everybody_is_owner_but_on_loopback_only() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let open = scenario.deployment.clone().with("auth.mode", "none");
    let service = open.start_role("api");
    let created = service
        .sources("")
        .create_source(scenario.source_request("owner/name"))
        .await
        .unwrap()
        .into_inner();
    let (status, listed) = RestClient::new(&service, "").get("/api/v1/sources").await;
    assert_eq!((status, &listed[0]["id"]), (200, &json!(created.id)));

    for listen in ["0.0.0.0:0", "[::]:0"] {
        let (status, errors) = open.run_refused(&["serve", "--listen", listen]);
        assert_eq!(status.code(), Some(1));
        assert!(
            errors.contains("auth.mode: \"none\" gives every caller all rights")
                && errors.contains("server.listen must be a loopback address"),
            "{errors}"
        );
    }
}
