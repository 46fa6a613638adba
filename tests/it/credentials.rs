//! `CredentialService`: what is stored, listed, repeated and refused.

use chroma_sync::proto::{self, AwsCredential};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{
    keys::{app_key, other_app_key},
    scenario::Scenario,
    service::{Service, reason},
    stores::{Backend, on_both},
};

const REQUEST: &str = "0192e4a0-7f1c-7c3e-9a55-6a1d3c1b2f00";

fn aws(access_key_id: &str, secret: &str, name: &str) -> proto::CreateAwsCredentialRequest {
    proto::CreateAwsCredentialRequest {
        access_key_id: access_key_id.to_owned(),
        secret_access_key: secret.to_owned(),
        name: name.to_owned(),
        request_id: None,
    }
}

fn app(app_id: &str, private_key: &str) -> proto::CreateGithubAppRequest {
    proto::CreateGithubAppRequest {
        app_id: app_id.to_owned(),
        private_key: private_key.to_owned(),
        ..Default::default()
    }
}

async fn create(
    service: &Service,
    token: &str,
    request: proto::CreateAwsCredentialRequest,
) -> Result<AwsCredential, Status> {
    let created = service.credentials(token).create_aws_credential(request).await?;
    Ok(created.into_inner())
}

async fn list(service: &Service, token: &str, page_size: i32) -> Vec<AwsCredential> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = proto::ListAwsCredentialsRequest {
            page_size,
            page_token,
        };
        let page = service.credentials(token).list_aws_credentials(request).await;
        let page = page.unwrap().into_inner();
        all.extend(page.aws_credentials);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

#[track_caller]
fn violated(status: &Status) -> String {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let violations = status.get_details_bad_request().unwrap().field_violations;
    violations[0].field.clone()
}

on_both!(credentials_are_stored_listed_and_deleted_in_their_tenant, kept_on);
async fn kept_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let service = scenario.deployment.start_role("api");
    let admin = &scenario.admin;
    let mut created = Vec::new();
    for (number, name) in ["", "backups", "naïve name"].iter().enumerate() {
        let request = aws(&format!("AKID{number}"), "secret", name);
        created.insert(0, create(&service, admin, request).await.unwrap());
    }
    assert_eq!(created[0].name, "naïve name");
    assert!(created.iter().all(|key| (1..=2_147_483_647).contains(&key.id)));
    for page_size in [0, 1, 2] {
        assert_eq!(list(&service, admin, page_size).await, created);
    }
    let member = scenario.deployment.create_key(&[]);
    assert_eq!(list(&service, &member, 0).await, created, "members see them");

    let other = ["--role", "owner", "--tenant", "another_tenant"];
    let other = scenario.deployment.create_key(&other);
    assert_eq!(list(&service, &other, 0).await, []);
    let delete = async |token: &str, id: i64| {
        let request = proto::DeleteAwsCredentialRequest {
            aws_credential_id: id,
        };
        service
            .credentials(token)
            .delete_aws_credential(request)
            .await
            .map(drop)
    };
    let hidden = delete(&other, created[0].id).await.unwrap_err();
    let message = format!("aws credential {} does not exist", created[0].id);
    assert_eq!(
        (hidden.code(), hidden.message()),
        (Code::NotFound, message.as_str())
    );
    delete(admin, created[0].id).await.unwrap();
    assert_eq!(list(&service, admin, 0).await, created[1..]);
    assert_eq!(
        violated(&delete(admin, 0).await.unwrap_err()),
        "aws_credential_id"
    );
    assert_eq!(
        violated(&delete(admin, i64::MAX).await.unwrap_err()),
        "aws_credential_id"
    );

    // What belongs to the tenant is not changed with a key for one database.
    let bound = ["--role", "admin", "--database", "one"];
    let bound = scenario.deployment.create_key(&bound);
    let refused = create(&service, &bound, aws("AKID", "secret", ""))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::PermissionDenied, "DATABASE_FORBIDDEN")
    );
    assert_eq!(list(&service, &bound, 0).await, created[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_makes_one_credential_of_many_requests() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let admin = &scenario.admin;
    let request_id = Some(REQUEST.to_owned());
    let request = proto::CreateAwsCredentialRequest {
        request_id: request_id.clone(),
        ..aws("AKID", "secret", "name")
    };
    let first = create(&service, admin, request.clone()).await.unwrap();
    assert_eq!(create(&service, admin, request.clone()).await.unwrap(), first);
    for other in [
        aws("AKID", "another", "name"),
        aws("AKID", "secret", "another"),
        aws("ANOTHER", "secret", "name"),
    ] {
        let request = proto::CreateAwsCredentialRequest {
            request_id: request_id.clone(),
            ..other
        };
        let refused = create(&service, admin, request).await.unwrap_err();
        assert_eq!(reason(&refused), "REQUEST_ID_REUSED");
    }
    assert_eq!(list(&service, admin, 0).await, [first]);

    let register = async |request: proto::CreateGithubAppRequest| {
        let request = proto::CreateGithubAppRequest {
            request_id: request_id.clone(),
            ..request
        };
        let app = service.credentials(admin).create_github_app(request).await;
        app.map(tonic::Response::into_inner)
    };
    let first = register(app("1", app_key())).await.unwrap();
    assert_eq!(register(app("1", app_key())).await.unwrap(), first);
    for other in [app("2", app_key()), app("1", other_app_key())] {
        assert_eq!(reason(&register(other).await.unwrap_err()), "REQUEST_ID_REUSED");
    }
    let refused = service
        .credentials(admin)
        .create_github_app(app("1", app_key()))
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::AlreadyExists, "GITHUB_APP_EXISTS")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_credential_is_refused_by_its_field_and_never_repeated() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let admin = &scenario.admin;
    for (request, field) in [
        (aws("", "secret", ""), "access_key_id"),
        (aws("with space", "secret", ""), "access_key_id"),
        (aws(&"A".repeat(129), "secret", ""), "access_key_id"),
        (aws("AKID", "", ""), "secret_access_key"),
        (aws("AKID", "planted secret", ""), "secret_access_key"),
        (aws("AKID", "secret", "a\nb"), "name"),
        (aws("AKID", "secret", &"n".repeat(101)), "name"),
    ] {
        let refused = create(&service, admin, request).await.unwrap_err();
        assert_eq!(violated(&refused), field);
        assert!(!format!("{refused:?}").contains("planted"), "{refused:?}");
    }
    let not_a_key = app_key().replace("BEGIN", "START");
    for (request, field) in [
        (app("", app_key()), "app_id"),
        (app("a b", app_key()), "app_id"),
        (app("1", ""), "private_key"),
        (app("1", &not_a_key), "private_key"),
    ] {
        let refused = service.credentials(admin).create_github_app(request).await;
        let refused = refused.unwrap_err();
        assert_eq!(violated(&refused), field);
        let line = app_key().lines().nth(3).unwrap();
        assert!(!format!("{refused:?}").contains(line));
    }
}
