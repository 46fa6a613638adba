//! The calls of what keeps credentials, and of what seals secrets again.

use chroma_sync::{
    domain::{
        credential::{NewAwsCredential, NewGithubApp},
        page::{Order, PageRequest},
        source::GithubAppId,
    },
    secret::Sealed,
    store::{CreateCredential, Resealed, SealedColumn},
};
use uuid::Uuid;

use crate::harness::stores::TestStore;

pub async fn call_all(test: &TestStore) {
    let store = &test.store;
    let tenant = test.fresh_tenant();
    let sealed = || Sealed::from_bytes(vec![1]);
    let request = Some(Uuid::now_v7());
    let new = || NewAwsCredential {
        name: None,
        access_key_id: "key".to_owned(),
        sealed_secret: sealed(),
    };
    let app_id = GithubAppId::parse("app_id", "1").unwrap();
    let app = || NewGithubApp {
        app_id: app_id.clone(),
        sealed_private_key: sealed(),
    };
    let CreateCredential::Created(key) = store
        .create_aws_credential(&tenant, new(), request)
        .await
        .unwrap()
    else {
        panic!("a new access key")
    };
    store
        .create_aws_credential(&tenant, new(), request)
        .await
        .unwrap();
    for (replace, request) in [(false, request), (false, request), (true, None)] {
        store
            .create_github_app(&tenant, app(), replace, request)
            .await
            .unwrap();
    }
    for order in [Order::Ascending, Order::Descending] {
        for after in [None, Some(Uuid::nil())] {
            let page = PageRequest {
                after,
                order,
                ..PageRequest::default()
            };
            store.list_aws_credentials(&tenant, &page).await.unwrap();
            store.list_github_apps(&tenant, &page).await.unwrap();
        }
    }
    store.find_aws_credential(&tenant, key.id).await.unwrap();
    let same = store.find_aws_credentials_of_key(&tenant, "key").await.unwrap();
    assert_eq!(same.len(), 1);
    store.find_github_app(&tenant, &app_id).await.unwrap();
    for column in SealedColumn::ALL {
        store.sealed_values(column, Uuid::nil(), 10).await.unwrap();
        let resealed = Resealed {
            id: Uuid::nil(),
            old: sealed(),
            new: sealed(),
        };
        store.replace_sealed(column, vec![resealed]).await.unwrap();
    }
    store.delete_aws_credential(&tenant, key.id).await.unwrap();
    store.delete_github_app(&tenant, &app_id).await.unwrap();
}
