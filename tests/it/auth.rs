//! Who may call, and what for, on both surfaces.

use chroma_sync::proto;
use serde_json::json;
use tonic::{Code, Request, Status, metadata::MetadataValue};
use tonic_types::StatusExt;

use crate::harness::{
    chroma::ChromaDatabase,
    rest::RestClient,
    scenario::{Scenario, invocation_request},
    service::Service,
    stores::{Backend, on_both},
};

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.unwrap_or_else(|| panic!("no ErrorInfo: {status:?}")).reason
}

/// Calls every method that takes an id, and returns how each ended.
async fn call_with_ids(
    service: &Service,
    token: &str,
    source: &str,
    invocation: &str,
) -> Vec<(&'static str, Result<(), Status>)> {
    let (source_id, invocation_id) = (source.to_owned(), invocation.to_owned());
    let mut sources = service.sources(token);
    let mut invocations = service.invocations(token);
    let mut ended = Vec::new();
    let request = proto::GetSourceRequest {
        source_id: source_id.clone(),
    };
    ended.push(("GetSource", sources.get_source(request).await.map(drop)));
    let request = invocation_request(source, "another", None);
    ended.push((
        "CreateInvocation",
        invocations.create_invocation(request).await.map(drop),
    ));
    let request = proto::ListInvocationsRequest {
        source_id: source_id.clone(),
        ..Default::default()
    };
    ended.push((
        "ListInvocations",
        invocations.list_invocations(request).await.map(drop),
    ));
    let request = proto::BatchGetLatestInvocationsRequest {
        source_id: source_id.clone(),
        object_keys: vec!["key".to_owned()],
    };
    ended.push((
        "BatchGetLatestInvocations",
        invocations.batch_get_latest_invocations(request).await.map(drop),
    ));
    let request = proto::GetInvocationRequest {
        invocation_id: invocation_id.clone(),
    };
    ended.push((
        "GetInvocation",
        invocations.get_invocation(request).await.map(drop),
    ));
    let request = proto::ListDocumentsRequest {
        invocation_id: invocation_id.clone(),
        ..Default::default()
    };
    ended.push((
        "ListDocuments",
        invocations.list_documents(request).await.map(drop),
    ));
    let request = proto::WatchInvocationRequest {
        invocation_id: invocation_id.clone(),
        after_revision: None,
    };
    ended.push((
        "WatchInvocation",
        invocations.watch_invocation(request).await.map(drop),
    ));
    let request = proto::CancelInvocationRequest { invocation_id };
    ended.push((
        "CancelInvocation",
        invocations.cancel_invocation(request).await.map(drop),
    ));
    let request = proto::DeleteSourceRequest { source_id };
    ended.push(("DeleteSource", sources.delete_source(request).await.map(drop)));
    ended
}

/// Asserts that every method that takes an id answers as if the id did not exist.
async fn assert_hidden(service: &Service, token: &str, source: &str, invocation: &str) {
    for (method, ended) in call_with_ids(service, token, source, invocation).await {
        let status = ended.expect_err(method);
        assert_eq!(status.code(), Code::NotFound, "{method}: {status:?}");
        let of_source = ["SOURCE_NOT_FOUND", "INVOCATION_NOT_FOUND"].contains(&reason(&status).as_str());
        assert!(of_source, "{method}: {status:?}");
    }
    let rest = RestClient::new(service, token);
    for path in [
        format!("/api/v1/sources/{source}"),
        format!("/api/v1/invocations/{invocation}"),
        format!("/api/v1/invocations?source_id={source}"),
    ] {
        assert_eq!(rest.get(&path).await.0, 404, "{path}");
    }
    let mut listing = service.sources(token);
    let listed = listing.list_sources(proto::ListSourcesRequest::default()).await;
    let sources = listed.unwrap().into_inner().sources;
    assert!(sources.iter().all(|listed| listed.id != source));
    let mut listing = service.invocations(token);
    let listed = listing
        .list_invocations(proto::ListInvocationsRequest::default())
        .await;
    let invocations = listed.unwrap().into_inner().invocations;
    assert!(invocations.iter().all(|listed| listed.id != invocation));
}

on_both!(keys_reach_their_tenant_and_databases_alone, keys_reach_on);
async fn keys_reach_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let other = ChromaDatabase::create().await;
    let other_name = other.name().to_string();
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    let created = scenario
        .create_invocation(&service, &source, "target")
        .await
        .unwrap();

    let foreign = ["--role", "owner", "--tenant", "another_tenant"];
    let foreign = scenario.deployment.create_key(&foreign);
    assert_hidden(&service, &foreign, &source, &created.id).await;
    let refused = service
        .sources(&foreign)
        .create_source(scenario.source_request("owner/name"))
        .await
        .unwrap_err();
    assert_eq!(
        reason(&refused),
        "DATABASE_NOT_FOUND",
        "the database is another tenant's"
    );

    let bound = [
        "--role",
        "admin",
        "--database",
        &other_name,
        "--database",
        "third",
    ];
    let bound = scenario.deployment.create_key(&bound);
    assert_hidden(&service, &bound, &source, &created.id).await;
    let database_name = scenario.database();
    let by_name = [
        service
            .sources(&bound)
            .create_source(scenario.source_request("owner/name"))
            .await
            .map(drop),
        service
            .sources(&bound)
            .list_sources(proto::ListSourcesRequest {
                database_name: database_name.clone(),
                ..Default::default()
            })
            .await
            .map(drop),
        service
            .invocations(&bound)
            .list_invocations(proto::ListInvocationsRequest {
                database_name: database_name.clone(),
                ..Default::default()
            })
            .await
            .map(drop),
    ];
    for refused in by_name {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), &info.metadata["database_name"]),
            ("DATABASE_FORBIDDEN", &database_name)
        );
    }
    let (status, body) = RestClient::new(&service, &bound)
        .get(&format!("/api/v1/sources?database_name={database_name}"))
        .await;
    assert_eq!(
        (status, &body["error"], &body["reason"]),
        (403, &json!("PermissionDeniedError"), &json!("DATABASE_FORBIDDEN"))
    );

    let mut within = scenario.source_request("owner/name");
    within.database_name = other_name;
    let within = service
        .sources(&bound)
        .create_source(within)
        .await
        .unwrap()
        .into_inner();
    let everything = proto::ListSourcesRequest::default();
    let listed = service
        .sources(&bound)
        .list_sources(everything.clone())
        .await
        .unwrap();
    assert_eq!(listed.into_inner().sources, [within]);
    let listed = service
        .sources(&scenario.admin)
        .list_sources(everything)
        .await
        .unwrap();
    assert_eq!(listed.into_inner().sources.len(), 2, "nothing was deleted");
}

on_both!(a_key_stops_when_it_is_revoked_or_expires, key_stops_on);
async fn key_stops_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let deployment = &scenario.deployment;
    let service = deployment.start_role("api");
    let name = ["--database", "one", "--database", "two", "--role", "owner"];
    let token = deployment.create_key(&name);
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
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_token_is_refused_before_anything_else() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    for (method, ended) in call_with_ids(&service, "", "not-a-uuid", "not-a-uuid").await {
        let status = ended.expect_err(method);
        assert_eq!(status.code(), Code::Unauthenticated, "{method}: {status:?}");
        assert_eq!(reason(&status), "TOKEN_MISSING");
    }
    let rest = RestClient::new(&service, "");
    for path in [
        "/api/v1/sources",
        "/api/v1/sources?limit=x",
        "/api/v1/invocations/x",
    ] {
        let (status, body) = rest.get(path).await;
        assert_eq!(
            (status, &body["reason"]),
            (401, &json!("TOKEN_MISSING")),
            "{path}"
        );
    }
    let nonsense = rest
        .send(reqwest::Method::POST, "/api/v1/sources", "text/plain", "x")
        .await;
    assert_eq!(nonsense.status, 401);
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
async fn a_member_syncs_but_creates_and_deletes_no_sources() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    let created = scenario
        .create_invocation(&service, &source, "target")
        .await
        .unwrap();
    // Without --role a key is a member's.
    let member = scenario.deployment.create_key(&[]);
    for (method, ended) in call_with_ids(&service, &member, &source, &created.id).await {
        match ended {
            Ok(()) => assert_ne!(method, "DeleteSource"),
            Err(status) => {
                assert_eq!((method, status.code()), ("DeleteSource", Code::PermissionDenied));
                assert_eq!(reason(&status), "ROLE_INSUFFICIENT");
            }
        }
    }
    let refused = service
        .sources(&member)
        .create_source(scenario.source_request("owner/other"))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "ROLE_INSUFFICIENT");
    let rest = RestClient::new(&service, &member);
    let expected = json!({
        "error": "PermissionDeniedError",
        "message": "only keys with role owner or admin may delete sources; this key has role member",
        "reason": "ROLE_INSUFFICIENT",
        "details": {"role": "member"},
    });
    assert_eq!(
        rest.delete(&format!("/api/v1/sources/{source}")).await,
        (403, expected)
    );
    let body = json!({"database_name": scenario.database(), "github": {"repository": "owner/other"}});
    let (status, body) = rest.post("/api/v1/sources", &body).await;
    assert_eq!((status, &body["reason"]), (403, &json!("ROLE_INSUFFICIENT")));
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
