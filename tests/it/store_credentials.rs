//! Credentials in the store, and the replacement of the key that seals secrets.

use chroma_sync::{
    app::rotation::{Rotated, rotate},
    domain::{
        credential::{
            AwsCredential, AwsCredentialId, GithubApp, NewAwsCredential, NewGithubApp, aws_sealing_context,
            github_sealing_context,
        },
        names::TenantName,
        page::PageRequest,
        s3::{AutoSync, BucketName, Region},
        source::{GithubAppId, S3Credential, S3Source, SourceSettings},
        webhook::{Webhook, WebhookUrl, sealing_context},
    },
    seal::SealingKey,
    secret::{Sealed, Secret},
    store::{CreateCredential, DeleteCredential, Resealed, Scope, SealedColumn},
};
use sea_orm::{ConnectionTrait, Statement};
use uuid::Uuid;

use crate::harness::stores::{
    TestStore, collection, created, created_source, new_invocation, new_source, on_both_stores,
};

on_both_stores! {
    an_access_key_is_seen_in_its_tenant_alone,
    a_request_that_is_repeated_stores_nothing_twice,
    an_app_is_registered_once_and_its_key_replaced_on_demand,
    a_credential_that_sources_name_stays,
    a_new_key_seals_everything_again_beside_writers,
    what_no_key_opens_stays_and_is_counted,
}

fn key(digit: &str) -> SealingKey {
    SealingKey::from_hex(&digit.repeat(64)).unwrap()
}

fn keys(current: &str, previous: &str) -> SealingKey {
    let previous = [Secret::new(previous.repeat(64))];
    key(current).with_previous(&previous).unwrap()
}

fn app_id(text: &str) -> GithubAppId {
    GithubAppId::parse("app_id", text).unwrap()
}

fn new_key(name: Option<&str>, sealed: Sealed) -> NewAwsCredential {
    NewAwsCredential {
        name: name.map(str::to_owned),
        access_key_id: "AKIDEXAMPLE".to_owned(),
        sealed_secret: sealed,
    }
}

fn new_app(id: &str, sealed: Sealed) -> NewGithubApp {
    NewGithubApp {
        app_id: app_id(id),
        sealed_private_key: sealed,
    }
}

fn sealed(byte: u8) -> Sealed {
    Sealed::from_bytes(vec![byte; 40])
}

#[track_caller]
fn stored<T: std::fmt::Debug>(outcome: CreateCredential<T>) -> T {
    match outcome {
        CreateCredential::Created(credential) => credential,
        other => panic!("expected a new credential, got {other:?}"),
    }
}

async fn store_key(test: &TestStore, tenant: &TenantName, name: &str) -> AwsCredential {
    let new = new_key(Some(name), sealed(1));
    stored(test.store.create_aws_credential(tenant, new, None).await.unwrap())
}

async fn store_app(test: &TestStore, tenant: &TenantName, id: &str) -> GithubApp {
    let new = new_app(id, sealed(1));
    let outcome = test.store.create_github_app(tenant, new, false, None).await;
    stored(outcome.unwrap())
}

async fn an_access_key_is_seen_in_its_tenant_alone(test: TestStore) {
    let (mine, other) = (test.fresh_tenant(), test.fresh_tenant());
    let (one, two) = (
        store_key(&test, &mine, "one").await,
        store_key(&test, &mine, "two").await,
    );
    let page = PageRequest::default();
    let listed = test.store.list_aws_credentials(&mine, &page).await.unwrap();
    assert_eq!(listed.items, [two.clone(), one.clone()]);
    assert_eq!(listed.next, None);
    let single = PageRequest { size: 1, ..page };
    let first = test.store.list_aws_credentials(&mine, &single).await.unwrap();
    let rest = PageRequest {
        after: first.next,
        ..page
    };
    let rest = test.store.list_aws_credentials(&mine, &rest).await.unwrap();
    assert_eq!((first.items, rest.items), (vec![two], vec![one.clone()]));
    let found = test.store.find_aws_credential(&mine, one.id).await.unwrap();
    assert_eq!(found, Some((one.clone(), sealed(1))));

    let hidden = test.store.list_aws_credentials(&other, &page).await.unwrap();
    assert_eq!(hidden.items, []);
    assert_eq!(
        test.store.find_aws_credential(&other, one.id).await.unwrap(),
        None
    );
    let delete = async |tenant| test.store.delete_aws_credential(tenant, one.id).await.unwrap();
    assert_eq!(delete(&other).await, DeleteCredential::NotFound);
    assert_eq!(delete(&mine).await, DeleteCredential::Deleted);
    assert_eq!(delete(&mine).await, DeleteCredential::NotFound);
    let unknown = AwsCredentialId::parse("id", 1).unwrap();
    assert_eq!(
        test.store.find_aws_credential(&mine, unknown).await.unwrap(),
        None
    );
}

async fn a_request_that_is_repeated_stores_nothing_twice(test: TestStore) {
    let tenant = test.fresh_tenant();
    let request = Some(Uuid::now_v7());
    let store_again = async |name| {
        let new = new_key(Some(name), sealed(2));
        test.store
            .create_aws_credential(&tenant, new, request)
            .await
            .unwrap()
    };
    let first = stored(store_again("name").await);
    assert_eq!(
        store_again("name").await,
        CreateCredential::Repeated(first, sealed(2))
    );
    assert_eq!(store_again("other").await, CreateCredential::RequestIdReused);
    let page = PageRequest::default();
    let listed = test.store.list_aws_credentials(&tenant, &page).await.unwrap();
    assert_eq!(listed.items.len(), 1);

    let app = async |id: &str| {
        let new = new_app(id, sealed(3));
        test.store
            .create_github_app(&tenant, new, false, request)
            .await
            .unwrap()
    };
    let first = stored(app("1").await);
    assert_eq!(app("1").await, CreateCredential::Repeated(first, sealed(3)));
    assert_eq!(app("2").await, CreateCredential::RequestIdReused);
}

async fn an_app_is_registered_once_and_its_key_replaced_on_demand(test: TestStore) {
    let (mine, other) = (test.fresh_tenant(), test.fresh_tenant());
    let first = store_app(&test, &mine, "4711").await;
    store_app(&test, &other, "4711").await;
    let again = async |replace| {
        test.clock.advance(std::time::Duration::from_secs(60));
        let new = new_app("4711", sealed(9));
        test.store
            .create_github_app(&mine, new, replace, None)
            .await
            .unwrap()
    };
    assert_eq!(again(false).await, CreateCredential::Exists);
    let replaced = stored(again(true).await);
    assert_eq!(replaced.create_time, first.create_time);
    assert_eq!(replaced.update_time.0, first.update_time.0 + 120_000);
    let found = async |tenant| {
        let found = test.store.find_github_app(tenant, &app_id("4711")).await;
        found.unwrap().map(|(_, sealed)| sealed)
    };
    assert_eq!(found(&mine).await, Some(sealed(9)));
    assert_eq!(found(&other).await, Some(sealed(1)), "another tenant's");
    let page = PageRequest::default();
    let listed = test.store.list_github_apps(&mine, &page).await.unwrap();
    assert_eq!(listed.items, [replaced]);
}

async fn a_credential_that_sources_name_stays(test: TestStore) {
    let (tenant, other) = (test.fresh_tenant(), test.fresh_tenant());
    store_app(&test, &tenant, "7").await;
    store_app(&test, &other, "7").await;
    let mut sources = Vec::new();
    for repository in ["owner/one", "owner/two"] {
        let mut new = new_source("db", repository);
        let SourceSettings::Github(github) = &mut new.settings else {
            panic!("{:?}", new.settings);
        };
        github.app_id = Some(app_id("7"));
        let source = test.store.create_source(&tenant, new, None).await;
        sources.push(created_source(source.unwrap()));
    }
    let delete = async |tenant| test.store.delete_github_app(tenant, &app_id("7")).await.unwrap();
    assert_eq!(delete(&tenant).await, DeleteCredential::InUse(2));
    assert_eq!(delete(&other).await, DeleteCredential::Deleted);
    for source in sources {
        let scope = Scope::tenant(tenant.clone());
        assert!(test.store.delete_source(&scope, source.id).await.unwrap());
    }
    assert_eq!(delete(&tenant).await, DeleteCredential::Deleted);

    let key = store_key(&test, &tenant, "of a bucket").await;
    let mut new = new_source("db", "owner/replaced");
    new.settings = SourceSettings::S3(S3Source {
        bucket: BucketName::parse("bucket", "bucket").unwrap(),
        region: Region::parse("region", "us-east-1").unwrap(),
        collection: collection("objects"),
        credential: S3Credential::Stored(key.id),
        path_prefix: None,
        auto_sync: AutoSync::None,
    });
    let source = created_source(test.store.create_source(&tenant, new, None).await.unwrap());
    let delete = async || test.store.delete_aws_credential(&tenant, key.id).await.unwrap();
    assert_eq!(delete().await, DeleteCredential::InUse(1));
    let scope = Scope::tenant(tenant.clone());
    assert!(test.store.delete_source(&scope, source.id).await.unwrap());
    assert_eq!(delete().await, DeleteCredential::Deleted);
}

/// One secret in every column, sealed with `key`; each with what it was sealed for.
async fn plant(test: &TestStore, key: &SealingKey) -> Vec<(SealedColumn, Uuid, String, Secret)> {
    let tenant = test.fresh_tenant();
    let seal = |context: &str, text: &str| key.seal(context, &Secret::new(text)).unwrap();
    let aws = aws_sealing_context(&tenant, "AKIDEXAMPLE");
    let new = new_key(None, seal(&aws, "aws"));
    stored(
        test.store
            .create_aws_credential(&tenant, new, None)
            .await
            .unwrap(),
    );
    let app = github_sealing_context(&tenant, "4711");
    let new = new_app("4711", seal(&app, "app"));
    stored(
        test.store
            .create_github_app(&tenant, new, false, None)
            .await
            .unwrap(),
    );
    let hook = sealing_context(&tenant);
    let webhook = |text: &str| {
        let url = WebhookUrl::parse("url", "https://example.com/").unwrap();
        let mut webhook = Webhook::requested(url, None);
        webhook.sealed_secret = Some(seal(&hook, text));
        Some(webhook)
    };
    let mut new = new_source("db", "owner/hooked");
    new.webhook = webhook("source");
    let source = created_source(test.store.create_source(&tenant, new, None).await.unwrap());
    let mut new = new_invocation("hooked");
    new.webhook = webhook("delivery");
    let token = Some(seal(tenant.as_str(), "token"));
    let invocation = test
        .store
        .create_invocation(&tenant, &source, new, None, token)
        .await;
    created(invocation.unwrap());
    let mut planted = Vec::new();
    for (column, context, text) in [
        (SealedColumn::AwsCredentials, aws, "aws"),
        (SealedColumn::GithubApps, app, "app"),
        (SealedColumn::Sources, hook.clone(), "source"),
        (SealedColumn::WebhookDeliveries, hook, "delivery"),
        (SealedColumn::Invocations, tenant.as_str().to_owned(), "token"),
    ] {
        let values = test.store.sealed_values(column, Uuid::nil(), 1_000).await;
        let mut values = values.unwrap().into_iter();
        let value = values.find(|value| value.context == context);
        let id = value.unwrap_or_else(|| panic!("{column:?} of {context}")).id;
        planted.push((column, id, context, Secret::new(text)));
    }
    planted
}

/// The secret in this row.
async fn value(test: &TestStore, column: SealedColumn, id: Uuid) -> Sealed {
    let values = test.store.sealed_values(column, Uuid::nil(), 1_000).await;
    let found = values.unwrap().into_iter().find(|value| value.id == id);
    found.unwrap().sealed
}

/// Every column of the schema that has sealed secrets is one that is rotated.
async fn assert_all_columns(test: &TestStore) {
    let raw = test.raw().await;
    let backend = raw.get_database_backend();
    let sql = match backend {
        sea_orm::DbBackend::Postgres => {
            "SELECT column_name AS name FROM information_schema.columns \
             WHERE table_schema = 'public' AND column_name LIKE 'sealed%'"
        }
        _ => {
            "SELECT c.name AS name FROM sqlite_master t, pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND c.name LIKE 'sealed%'"
        }
    };
    let rows = raw.query_all_raw(Statement::from_string(backend, sql)).await;
    assert_eq!(rows.unwrap().len(), SealedColumn::ALL.len());
    raw.close().await.unwrap();
}

async fn a_new_key_seals_everything_again_beside_writers(test: TestStore) {
    assert_all_columns(&test).await;
    let old = key("a");
    let mut planted = Vec::new();
    for _ in 0..120 {
        planted.extend(plant(&test, &old).await);
    }
    // A server that is restarted writes with the new key, and one that is not yet with the old one.
    let both = keys("b", "a");
    planted.extend(plant(&test, &both).await);
    let (rotated, late) = tokio::join!(rotate(&test.store, &both), plant(&test, &old));
    planted.extend(late);
    for Rotated {
        column,
        resealed,
        unreadable,
    } in rotated.unwrap()
    {
        assert!((120..=121).contains(&resealed), "{column:?}: {resealed}");
        assert_eq!(unreadable, 0);
    }
    // What the last server wrote meanwhile.
    rotate(&test.store, &both).await.unwrap();
    let again = rotate(&test.store, &both).await.unwrap();
    assert!(again.iter().all(|column| column.resealed == 0), "{again:?}");
    let new = key("b");
    for (column, id, context, secret) in planted {
        let sealed = value(&test, column, id).await;
        assert_eq!(new.open(&context, &sealed).unwrap(), secret, "{column:?}");
        assert!(old.open(&context, &sealed).is_err(), "{column:?}");
    }
    // A value that was changed since it was read is left alone.
    let column = SealedColumn::GithubApps;
    let values = test.store.sealed_values(column, Uuid::nil(), 1).await.unwrap();
    let stale = Resealed {
        id: values[0].id,
        old: sealed(1),
        new: sealed(2),
    };
    assert_eq!(test.store.replace_sealed(column, vec![stale]).await.unwrap(), 0);
    assert_eq!(value(&test, column, values[0].id).await, values[0].sealed);
}

async fn what_no_key_opens_stays_and_is_counted(test: TestStore) {
    let planted = plant(&test, &key("c")).await;
    let before = value(&test, planted[0].0, planted[0].1).await;
    for rotated in rotate(&test.store, &keys("b", "a")).await.unwrap() {
        assert_eq!((rotated.resealed, rotated.unreadable), (0, 1), "{rotated:?}");
    }
    assert_eq!(value(&test, planted[0].0, planted[0].1).await, before);
}
