//! Sources.

use chroma_sync::{
    domain::{
        ids::SourceId,
        page::{Order, PageRequest},
        source::{
            GithubAppId, GithubSource, NewSource, RepositoryName, Source, SourceFilter, SourceSettings,
            SourceType,
        },
    },
    store::{CreateSource, Scope},
};
use uuid::Uuid;

use crate::harness::stores::{TestStore, created_source, database, new_source, on_both_stores};

on_both_stores! {
    a_source_is_read_back_as_it_was_created,
    a_source_of_another_tenant_or_database_does_not_exist,
    the_same_settings_twice_name_the_first_source,
    two_tenants_may_have_the_same_source,
    a_repeated_request_gets_the_first_answer,
    a_request_id_with_other_settings_is_refused,
    many_equal_requests_at_once_create_one_source,
    every_filter_picks_its_sources,
    pages_neither_repeat_nor_lose_a_source_while_others_are_created,
    a_page_can_skip_and_can_be_empty,
    a_deleted_source_is_gone_and_can_be_created_again,
}

async fn a_source_is_read_back_as_it_was_created(test: TestStore) {
    let tenant = test.fresh_tenant();
    let mut new = new_source("db", "Owner/Name");
    let SourceSettings::Github(github) = &mut new.settings else {
        panic!("it is a repository")
    };
    github.app_id = Some(GithubAppId::parse("app_id", "12345").unwrap());
    let created = created_source(
        test.store
            .create_source(&tenant, new.clone(), None)
            .await
            .unwrap(),
    );
    let NewSource {
        database,
        settings,
        embedding,
        chunking,
        webhook,
    } = new;
    let (id, create_time) = (created.id, test.now());
    assert_eq!(
        created,
        Source {
            id,
            tenant: tenant.clone(),
            database,
            settings,
            embedding,
            chunking,
            create_time,
            webhook,
        }
    );
    assert_eq!(
        test.store.get_source(&Scope::tenant(tenant), id).await.unwrap(),
        Some(created)
    );
}

async fn a_source_of_another_tenant_or_database_does_not_exist(test: TestStore) {
    let tenant = test.fresh_tenant();
    let source = test.source(&tenant).await;
    let elsewhere = Scope {
        tenant: tenant.clone(),
        databases: Some(vec![database("other")]),
    };
    let nowhere = Scope {
        tenant: tenant.clone(),
        databases: Some(Vec::new()),
    };
    let here = Scope {
        tenant,
        databases: Some(vec![database("other"), database("db")]),
    };
    for scope in [Scope::tenant(test.fresh_tenant()), elsewhere, nowhere] {
        assert_eq!(test.store.get_source(&scope, source.id).await.unwrap(), None);
        let page = test
            .store
            .list_sources(&scope, &SourceFilter::default(), &PageRequest::default())
            .await
            .unwrap();
        assert_eq!(page.items, []);
        assert!(!test.store.delete_source(&scope, source.id).await.unwrap());
    }
    assert_eq!(
        test.store.get_source(&here, source.id).await.unwrap(),
        Some(source)
    );
}

async fn the_same_settings_twice_name_the_first_source(test: TestStore) {
    let tenant = test.fresh_tenant();
    let first = created_source(
        test.store
            .create_source(&tenant, new_source("db", "a/b"), None)
            .await
            .unwrap(),
    );
    for repository in ["a/b", "A/B"] {
        let again = test
            .store
            .create_source(&tenant, new_source("db", repository), None)
            .await
            .unwrap();
        assert_eq!(again, CreateSource::Exists(first.id));
    }
    created_source(
        test.store
            .create_source(&tenant, new_source("other", "a/b"), None)
            .await
            .unwrap(),
    );
}

async fn two_tenants_may_have_the_same_source(test: TestStore) {
    for tenant in [test.fresh_tenant(), test.fresh_tenant()] {
        created_source(
            test.store
                .create_source(&tenant, new_source("db", "a/b"), None)
                .await
                .unwrap(),
        );
    }
}

async fn a_repeated_request_gets_the_first_answer(test: TestStore) {
    let (tenant, request) = (test.fresh_tenant(), Some(Uuid::now_v7()));
    let first = created_source(
        test.store
            .create_source(&tenant, new_source("db", "a/b"), request)
            .await
            .unwrap(),
    );
    let again = test
        .store
        .create_source(&tenant, new_source("db", "a/b"), request)
        .await
        .unwrap();
    assert_eq!(again, CreateSource::Repeated(first));
}

async fn a_request_id_with_other_settings_is_refused(test: TestStore) {
    let (tenant, request) = (test.fresh_tenant(), Some(Uuid::now_v7()));
    created_source(
        test.store
            .create_source(&tenant, new_source("db", "a/b"), request)
            .await
            .unwrap(),
    );
    let other = test
        .store
        .create_source(&tenant, new_source("db", "a/c"), request)
        .await
        .unwrap();
    assert_eq!(other, CreateSource::RequestIdReused);
    let elsewhere = test.fresh_tenant();
    created_source(
        test.store
            .create_source(&elsewhere, new_source("db", "a/c"), request)
            .await
            .unwrap(),
    );
}

async fn many_equal_requests_at_once_create_one_source(test: TestStore) {
    let (tenant, request) = (test.fresh_tenant(), Uuid::now_v7());
    let outcomes = futures::future::join_all((0..24).map(|n| {
        let request = (n % 2 == 0).then_some(request);
        test.store
            .create_source(&tenant, new_source("db", "a/b"), request)
    }))
    .await;
    let outcomes: Vec<CreateSource> = outcomes.into_iter().collect::<Result<_, _>>().unwrap();
    let created: Vec<SourceId> = outcomes
        .iter()
        .filter_map(|o| {
            if let CreateSource::Created(source) = o {
                Some(source.id)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(created.len(), 1, "{outcomes:?}");
    for outcome in outcomes {
        match outcome {
            CreateSource::Created(source) | CreateSource::Repeated(source) => {
                assert_eq!(source.id, created[0])
            }
            CreateSource::Exists(id) => assert_eq!(id, created[0]),
            CreateSource::RequestIdReused => panic!("the content was the same"),
        }
    }
}

async fn every_filter_picks_its_sources(test: TestStore) {
    let tenant = test.fresh_tenant();
    let app = GithubAppId::parse("app_id", "7").unwrap();
    let mut with_app = new_source("db", "Owner/Two");
    let SourceSettings::Github(github) = &mut with_app.settings else {
        panic!("it is a repository")
    };
    *github = GithubSource {
        app_id: Some(app.clone()),
        ..github.clone()
    };
    let mut ids = Vec::new();
    for new in [
        new_source("db", "owner/one"),
        with_app,
        new_source("other", "owner/one"),
    ] {
        ids.push(created_source(test.store.create_source(&tenant, new, None).await.unwrap()).id);
    }
    let repository = RepositoryName::parse("repository", "OWNER/ONE").unwrap();
    let none = SourceFilter::default();
    let expectations = [
        (none.clone(), vec![ids[0], ids[1], ids[2]]),
        (
            SourceFilter {
                database: Some(database("db")),
                ..none.clone()
            },
            vec![ids[0], ids[1]],
        ),
        (
            SourceFilter {
                source_type: Some(SourceType::Github),
                ..none.clone()
            },
            vec![ids[0], ids[1], ids[2]],
        ),
        (
            SourceFilter {
                github_app_id: Some(app),
                ..none.clone()
            },
            vec![ids[1]],
        ),
        (
            SourceFilter {
                github_repository: Some(repository.clone()),
                ..none.clone()
            },
            vec![ids[0], ids[2]],
        ),
        (
            SourceFilter {
                github_repository: Some(repository),
                database: Some(database("other")),
                ..none
            },
            vec![ids[2]],
        ),
    ];
    let scope = Scope::tenant(tenant);
    let request = PageRequest {
        order: Order::Ascending,
        ..PageRequest::default()
    };
    for (filter, expected) in expectations {
        let page = test.store.list_sources(&scope, &filter, &request).await.unwrap();
        assert_eq!(
            page.items.iter().map(|source| source.id).collect::<Vec<_>>(),
            expected,
            "{filter:?}"
        );
    }
}

async fn pages_neither_repeat_nor_lose_a_source_while_others_are_created(test: TestStore) {
    for order in [Order::Ascending, Order::Descending] {
        let tenant = test.fresh_tenant();
        let mut before = Vec::new();
        for _ in 0..7 {
            before.push(test.source(&tenant).await.id);
        }
        if order == Order::Descending {
            before.reverse();
        }
        let scope = Scope::tenant(tenant.clone());
        let mut request = PageRequest {
            size: 2,
            order,
            ..PageRequest::default()
        };
        let mut seen = Vec::new();
        loop {
            let page = test
                .store
                .list_sources(&scope, &SourceFilter::default(), &request)
                .await
                .unwrap();
            seen.extend(page.items.iter().map(|source| source.id));
            let Some(next) = page.next else { break };
            assert_eq!(page.items.len(), 2);
            request.after = Some(next);
            if seen.len() < before.len() {
                test.source(&tenant).await;
            }
        }
        assert_eq!(
            seen.iter()
                .filter(|id| before.contains(id))
                .copied()
                .collect::<Vec<_>>(),
            before,
            "{order:?}"
        );
        let mut distinct = seen.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), seen.len(), "{order:?}");
    }
}

async fn a_page_can_skip_and_can_be_empty(test: TestStore) {
    let tenant = test.fresh_tenant();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(test.source(&tenant).await.id);
    }
    let scope = Scope::tenant(tenant);
    let filter = SourceFilter::default();
    let page = |size, skip| PageRequest {
        size,
        skip,
        after: None,
        order: Order::Ascending,
    };
    let list = |request: PageRequest| {
        let (store, scope, filter) = (test.store.clone(), scope.clone(), filter.clone());
        async move {
            let page = store.list_sources(&scope, &filter, &request).await.unwrap();
            (
                page.items.iter().map(|source| source.id).collect::<Vec<_>>(),
                page.next,
            )
        }
    };
    assert_eq!(list(page(0, 0)).await, (vec![], None));
    assert_eq!(list(page(1, 1)).await, (vec![ids[1]], Some(ids[1].0)));
    assert_eq!(list(page(3, 0)).await, (ids.clone(), None));
    assert_eq!(list(page(3, u64::MAX)).await, (vec![], None));
}

async fn a_deleted_source_is_gone_and_can_be_created_again(test: TestStore) {
    let (tenant, request) = (test.fresh_tenant(), Some(Uuid::now_v7()));
    let scope = Scope::tenant(tenant.clone());
    let source = created_source(
        test.store
            .create_source(&tenant, new_source("db", "a/b"), request)
            .await
            .unwrap(),
    );
    assert!(test.store.delete_source(&scope, source.id).await.unwrap());
    assert!(!test.store.delete_source(&scope, source.id).await.unwrap());
    assert_eq!(test.store.get_source(&scope, source.id).await.unwrap(), None);
    let again = created_source(
        test.store
            .create_source(&tenant, new_source("db", "a/b"), request)
            .await
            .unwrap(),
    );
    assert_ne!(again.id, source.id);
}
