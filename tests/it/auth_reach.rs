//! What a token reaches: every method and path, with ids of another tenant, of another database, without a
//! token, and with a role that may not do it.

use chroma_sync::{
    domain::embedding::BM25,
    proto::{self, EmbeddingPurpose},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, MethodDescriptor};
use reqwest::Method;
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{
    chroma::ChromaDatabase,
    dynamic,
    keys::app_key,
    rest::RestClient,
    scenario::Scenario,
    service::{Service, reason},
    stores::{Backend, on_both},
};

/// Ids that a caller must not reach, and what a request needs besides.
struct Foreign<'a> {
    source: &'a str,
    invocation: &'a str,
    database: &'a str,
    aws_credential: i64,
    github_app: &'a str,
}

impl Foreign<'_> {
    /// The value of a request's field that names something; none for a field that names nothing.
    fn id(&self, method: &str, field: &FieldDescriptor) -> Option<Value> {
        match field.name() {
            "source_id" => Some(json!(self.source)),
            "invocation_id" => Some(json!(self.invocation)),
            "aws_credential_id" => Some(json!(self.aws_credential)),
            "app_id" if method.ends_with("DeleteGithubApp") => Some(json!(self.github_app)),
            // A name of the caller's own, and those that GitHub and AWS give.
            "request_id" | "github_app_id" | "app_id" | "access_key_id" => None,
            other if other.ends_with("_id") => {
                panic!("{method} takes {other}, of which this test does not know what it names")
            }
            _ => None,
        }
    }
}

/// Every method of our services, each with one request for every id that it takes, or without ids. False goes
/// with what names nothing: a listing, or plain computing.
fn requests(foreign: &Foreign) -> Vec<(MethodDescriptor, DynamicMessage, bool)> {
    let mut requests = Vec::new();
    for method in dynamic::methods() {
        let input = method.input();
        let fill = |id: Option<(&FieldDescriptor, &Value)>| {
            let mut message = DynamicMessage::new(input.clone());
            for field in input.fields() {
                let value = match field.name() {
                    "target_collection_name" => Some(json!("another")),
                    "collection_name" => Some(json!("another")),
                    "object_keys" => Some(json!(["key"])),
                    "purpose" => Some(json!(EmbeddingPurpose::Query as i32)),
                    "query" => Some(json!("text")),
                    "texts" => Some(json!(["text"])),
                    "model" if method.name() == "EmbedSparse" => Some(json!(BM25)),
                    "github" if id.is_none() => Some(json!({"repository": "owner/name"})),
                    "access_key_id" => Some(json!("AKIDEXAMPLE")),
                    "secret_access_key" => Some(json!("secret")),
                    "private_key" => Some(json!(app_key())),
                    "app_id" if id.is_none() => Some(json!("4711")),
                    "metadata" if method.name() == "AddFile" => Some(json!({
                        "database_name": foreign.database, "collection_name": "another",
                        "file_name": "a.txt", "size_bytes": 1,
                    })),
                    "database_name" if id.is_none() => Some(json!(foreign.database)),
                    _ => None,
                };
                if let Some(value) = value {
                    dynamic::set(&mut message, &field, &value);
                }
            }
            if let Some((field, id)) = id {
                dynamic::set(&mut message, field, id);
            }
            message
        };
        let ids: Vec<(FieldDescriptor, Value)> = input
            .fields()
            .filter_map(|field| {
                let id = foreign.id(method.full_name(), &field)?;
                Some((field, id))
            })
            .collect();
        for (field, id) in &ids {
            requests.push((method.clone(), fill(Some((field, id))), true));
        }
        if method.name().starts_with("List") {
            requests.push((method.clone(), DynamicMessage::new(input.clone()), false));
        } else if ids.is_empty() {
            // It computes, and reads nothing of anybody.
            let names_something = method.name() != "EmbedSparse";
            requests.push((method.clone(), fill(None), names_something));
        }
    }
    requests
}

/// Calls every method of the contract with ids that the token must not reach. Each that names one of them
/// is refused with one of `reasons`; each listing that names none shows none of them.
async fn assert_out_of_reach(
    service: &Service,
    token: &str,
    foreign: &Foreign<'_>,
    code: Code,
    reasons: &[&str],
) {
    let mut methods = 0;
    for (method, request, names_something) in requests(foreign) {
        methods += 1;
        let name = method.full_name().to_owned();
        // These make something of the caller's own; see `credentials`.
        if name.ends_with("CreateAwsCredential") || name.ends_with("CreateGithubApp") {
            continue;
        }
        let answer = dynamic::call(service, token, &method, request).await;
        match answer {
            Err(status) if names_something => {
                assert_eq!(status.code(), code, "{name}: {status:?}");
                assert!(reasons.contains(&reason(&status).as_str()), "{name}: {status:?}");
            }
            Err(status) if name.ends_with("ListDocuments") => {
                assert_eq!(status.code(), Code::InvalidArgument)
            }
            Err(status) => panic!("{name}: {status:?}"),
            Ok(answers) => {
                assert!(!names_something, "{name} was allowed");
                let shown = format!("{answers:?}");
                assert!(!shown.contains(foreign.source), "{name} shows the source");
                assert!(!shown.contains(foreign.invocation), "{name} shows the invocation");
                assert!(
                    code != Code::NotFound || !shown.contains(&foreign.aws_credential.to_string()),
                    "{name} shows the access key"
                );
            }
        }
    }
    assert!(methods >= 20, "the contract lost methods: {methods}");
    let rest = RestClient::new(service, token);
    let status_code = if code == Code::NotFound { 404 } else { 403 };
    let Foreign {
        source, invocation, ..
    } = foreign;
    let target = json!({"target_collection_name": "another"}).to_string();
    for (verb, path, body) in [
        (Method::GET, format!("/api/v1/sources/{source}"), ""),
        (Method::DELETE, format!("/api/v1/sources/{source}"), ""),
        (
            Method::POST,
            format!("/api/v1/sources/{source}/invocations"),
            &*target,
        ),
        (
            Method::POST,
            format!("/api/v1/sources/{source}/invocations/latest-by-keys"),
            r#"{"object_keys": ["key"]}"#,
        ),
        (Method::GET, format!("/api/v1/invocations?source_id={source}"), ""),
        (Method::GET, format!("/api/v1/invocations/{invocation}"), ""),
        (Method::PUT, format!("/api/v1/invocations/{invocation}"), ""),
    ] {
        let content_type = if body.is_empty() { "" } else { "application/json" };
        let answer = rest
            .send(verb.clone(), &path, content_type, body.to_owned())
            .await;
        let (status, body) = answer.parts();
        assert_eq!(status, status_code, "{verb} {path}: {body}");
        let reason = body["reason"].as_str().unwrap();
        assert!(reasons.contains(&reason), "{verb} {path}: {body}");
    }
    for path in ["/api/v1/sources", "/api/v1/invocations"] {
        let (status, body) = rest.get(path).await;
        assert_eq!(status, 200, "{path}");
        let shown = body.to_string();
        assert!(
            !shown.contains(source) && !shown.contains(invocation),
            "{path}: {shown}"
        );
    }
}

/// An access key and a GitHub App of the caller's tenant.
async fn create_credentials(service: &Service, token: &str) -> (i64, String) {
    let mut credentials = service.credentials(token);
    let key = proto::CreateAwsCredentialRequest {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: "secret".to_owned(),
        ..Default::default()
    };
    let key = credentials.create_aws_credential(key).await.unwrap().into_inner();
    let app = proto::CreateGithubAppRequest {
        app_id: "4711".to_owned(),
        private_key: app_key().to_owned(),
        ..Default::default()
    };
    let app = credentials.create_github_app(app).await.unwrap().into_inner();
    (key.id, app.app_id)
}

on_both!(keys_reach_their_tenant_and_databases_alone, keys_reach_on);
async fn keys_reach_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let other = ChromaDatabase::create().await;
    let other_name = other.name().to_string();
    let service = scenario.deployment.start_role("api");
    let (source, created) = scenario.pending_invocation(&service).await;

    let (aws_credential, github_app) = create_credentials(&service, &scenario.admin).await;
    let foreign = ["--role", "owner", "--tenant", "another_tenant"];
    let foreign = scenario.deployment.create_key(&foreign);
    let database = scenario.database();
    let out_of_reach = Foreign {
        source: &source,
        invocation: &created.id,
        database: &database,
        aws_credential,
        github_app: &github_app,
    };
    let hidden = [
        "SOURCE_NOT_FOUND",
        "INVOCATION_NOT_FOUND",
        "DATABASE_NOT_FOUND",
        "AWS_CREDENTIAL_NOT_FOUND",
        "GITHUB_APP_NOT_FOUND",
    ];
    assert_out_of_reach(&service, &foreign, &out_of_reach, Code::NotFound, &hidden).await;
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
    let forbidden = ["DATABASE_FORBIDDEN"];
    assert_out_of_reach(
        &service,
        &bound,
        &out_of_reach,
        Code::PermissionDenied,
        &forbidden,
    )
    .await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_token_is_refused_before_anything_else() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let wrong = Foreign {
        source: "not-a-uuid",
        invocation: "not-a-uuid",
        database: "",
        aws_credential: 1,
        github_app: "",
    };
    for (method, request, _) in requests(&wrong) {
        let method_name = method.full_name();
        let status = dynamic::call(&service, "", &method, request)
            .await
            .expect_err(method_name);
        assert_eq!(status.code(), Code::Unauthenticated, "{method_name}: {status:?}");
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
async fn a_member_syncs_but_creates_and_deletes_no_sources_and_credentials() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let (source, created) = scenario.pending_invocation(&service).await;
    // Without --role a key is a member's.
    let member = scenario.deployment.create_key(&[]);
    let database = scenario.database();
    let own = Foreign {
        source: &source,
        invocation: &created.id,
        database: &database,
        aws_credential: 1,
        github_app: "4711",
    };
    let mut refused = Vec::new();
    for (method, request, complete) in requests(&own) {
        // Without its content, or its collection, it is refused to everybody; see `uploads` and `search`.
        if matches!(method.name(), "AddFile" | "Search") {
            continue;
        }
        let answer = dynamic::call(&service, &member, &method, request).await;
        if let Err(status) = answer
            && complete
        {
            assert_eq!(
                status.code(),
                Code::PermissionDenied,
                "{}: {status:?}",
                method.name()
            );
            assert_eq!(reason(&status), "ROLE_INSUFFICIENT");
            refused.push(method.name().to_owned());
        }
    }
    refused.sort();
    assert_eq!(
        refused,
        [
            "CreateAwsCredential",
            "CreateGithubApp",
            "CreateSource",
            "DeleteAwsCredential",
            "DeleteGithubApp",
            "DeleteSource"
        ]
    );
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
