//! API keys.

use std::time::Duration;

use chroma_sync::domain::{
    api_key::{NewApiKey, Role},
    ids::{ApiKeyId, InvocationId},
};

use crate::harness::stores::{TestStore, database, on_both_stores, tenant};

on_both_stores! {
    a_key_is_found_by_the_digest_of_its_token_with_everything_it_was_made_with,
    a_revoked_key_is_no_longer_found_and_is_revoked_once,
    a_key_is_found_until_it_expires,
    a_key_and_an_invocation_of_its_tenant_are_found_together,
    a_listing_shows_one_tenant_or_all,
    a_token_that_is_taken_is_refused,
}

fn new_key(tenant_name: &str, token: u8) -> NewApiKey {
    NewApiKey {
        name: format!("key {token}"),
        tenant: tenant(tenant_name),
        role: Role::Member,
        token_sha256: [token; 32],
        databases: None,
        expire_time: None,
    }
}

async fn a_key_is_found_by_the_digest_of_its_token_with_everything_it_was_made_with(test: TestStore) {
    let expire_time = Some(test.now().plus(Duration::from_secs(60)));
    let databases = Some(vec![database("one"), database("two")]);
    let new = NewApiKey {
        databases: databases.clone(),
        expire_time,
        role: Role::Admin,
        ..new_key("a", 1)
    };
    let created = test.store.create_api_key(new).await.unwrap();

    let found = test.store.find_api_key(&[1; 32]).await.unwrap().expect("the key");
    assert_eq!(found, created);
    assert_eq!((found.name.as_str(), found.role), ("key 1", Role::Admin));
    assert_eq!((found.databases, found.expire_time), (databases, expire_time));
    assert_eq!(found.create_time, test.now());
    assert_eq!(test.store.find_api_key(&[2; 32]).await.unwrap(), None);
}

async fn a_revoked_key_is_no_longer_found_and_is_revoked_once(test: TestStore) {
    let key = test.store.create_api_key(new_key("a", 1)).await.unwrap();
    assert!(test.store.revoke_api_key(key.id).await.unwrap());
    assert!(!test.store.revoke_api_key(key.id).await.unwrap());
    assert!(!test.store.revoke_api_key(ApiKeyId::generate()).await.unwrap());
    assert_eq!(test.store.find_api_key(&[1; 32]).await.unwrap(), None);
    let listed = test.store.list_api_keys(None).await.unwrap();
    assert_eq!(
        listed.iter().map(|key| key.revoke_time).collect::<Vec<_>>(),
        [Some(test.now())]
    );
}

async fn a_key_is_found_until_it_expires(test: TestStore) {
    let expire_time = test.now().plus(Duration::from_secs(60));
    let new = NewApiKey {
        expire_time: Some(expire_time),
        ..new_key("a", 1)
    };
    let key = test.store.create_api_key(new).await.unwrap();
    test.clock.advance(Duration::from_millis(59_999));
    assert_eq!(test.store.find_api_key(&[1; 32]).await.unwrap(), Some(key));
    assert_eq!(test.clock.advance(Duration::from_millis(1)), expire_time);
    assert_eq!(test.store.find_api_key(&[1; 32]).await.unwrap(), None);
}

async fn a_key_and_an_invocation_of_its_tenant_are_found_together(test: TestStore) {
    let store = &test.store;
    let invocation = test.invocation(&test.source(&tenant("a")).await).await;
    let own = store.create_api_key(new_key("a", 1)).await.unwrap();
    let foreign = store.create_api_key(new_key("b", 2)).await.unwrap();
    let find = async |token: u8, id| store.find_api_key_and_invocation(&[token; 32], id).await.unwrap();
    let (id, unknown) = (invocation.id, InvocationId::generate());
    // At once, so that they share their turns and each still gets its own answer.
    let found = tokio::join!(find(1, id), find(2, id), find(1, unknown), find(3, id));
    assert_eq!(found.0, Some((own.clone(), Some(invocation))));
    assert_eq!(found.1, Some((foreign, None)));
    assert_eq!(found.2, Some((own.clone(), None)));
    assert_eq!(found.3, None);
    store.revoke_api_key(own.id).await.unwrap();
    assert_eq!(find(1, id).await, None);
}

async fn a_listing_shows_one_tenant_or_all(test: TestStore) {
    let mut ids = Vec::new();
    for (tenant_name, token) in [("a", 1), ("b", 2), ("a", 3)] {
        ids.push(
            test.store
                .create_api_key(new_key(tenant_name, token))
                .await
                .unwrap()
                .id,
        );
    }
    let listed =
        |keys: Vec<chroma_sync::domain::api_key::ApiKey>| keys.iter().map(|key| key.id).collect::<Vec<_>>();
    assert_eq!(listed(test.store.list_api_keys(None).await.unwrap()), ids);
    assert_eq!(
        listed(test.store.list_api_keys(Some(&tenant("a"))).await.unwrap()),
        [ids[0], ids[2]]
    );
    assert_eq!(
        listed(test.store.list_api_keys(Some(&tenant("c"))).await.unwrap()),
        []
    );
}

async fn a_token_that_is_taken_is_refused(test: TestStore) {
    test.store.create_api_key(new_key("a", 1)).await.unwrap();
    let error = test.store.create_api_key(new_key("b", 1)).await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert_eq!(test.store.list_api_keys(None).await.unwrap().len(), 1);
}
