//! Invocations as callers see them.

use chroma_sync::{
    domain::{
        ids::{InvocationId, SourceId, WorkerId},
        invocation::{InvocationFilter, Phase, Progress, State, StateName, Statistics},
        page::{Order, PageRequest},
        source::{GithubAppId, RepositoryName, SourceSettings, SourceType},
    },
    store::{CancelInvocation, CreateInvocation, Scope},
};
use uuid::Uuid;

use crate::harness::stores::{TestStore, created, database, new_invocation, new_source, on_both_stores};

on_both_stores! {
    an_invocation_is_read_back_as_it_was_created,
    an_invocation_outside_the_scope_does_not_exist,
    a_repeated_request_gets_the_first_invocation_whatever_became_of_it,
    a_request_id_for_something_else_is_refused,
    an_earlier_request_is_found_before_anything_is_written,
    a_collection_takes_one_live_invocation_at_a_time,
    of_many_invocations_into_one_collection_at_once_one_is_created,
    a_source_that_was_deleted_takes_no_invocation,
    creations_at_once_are_judged_each_by_itself,
    deleting_a_source_leaves_its_invocations_readable_and_running,
    only_a_pending_invocation_can_be_cancelled,
    every_filter_picks_its_invocations,
    the_latest_invocation_of_each_key_is_found,
}

async fn an_invocation_is_read_back_as_it_was_created(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let new = new_invocation("docs");
    let outcome = test
        .store
        .create_invocation(&source.tenant, &source, new.clone(), None, None)
        .await
        .unwrap();
    let invocation = created(outcome);
    assert_eq!(
        (invocation.source_id, &invocation.tenant),
        (Some(source.id), &source.tenant)
    );
    assert_eq!(
        (&invocation.collection, &invocation.input),
        (&new.collection, &new.input)
    );
    assert_eq!((invocation.revision, invocation.attempt), (1, 0));
    assert_eq!(
        (&invocation.state, invocation.create_time),
        (&State::Pending, test.now())
    );
    assert_eq!(invocation.progress, Progress::default());
    assert_eq!(test.reload(&source.tenant, invocation.id).await, invocation);
}

async fn an_invocation_outside_the_scope_does_not_exist(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let invocation = test.invocation(&source).await;
    let elsewhere = Scope {
        tenant: source.tenant.clone(),
        databases: Some(vec![database("other")]),
    };
    for scope in [Scope::tenant(test.fresh_tenant()), elsewhere] {
        assert_eq!(
            test.store.get_invocation(&scope, invocation.id).await.unwrap(),
            None
        );
        let cancelled = test.store.cancel_invocation(&scope, invocation.id).await.unwrap();
        assert_eq!(cancelled, CancelInvocation::NotFound);
        let (filter, request) = (InvocationFilter::default(), PageRequest::default());
        assert_eq!(
            test.store
                .list_invocations(&scope, &filter, &request)
                .await
                .unwrap()
                .items,
            []
        );
    }
    assert_eq!(
        test.reload(&source.tenant, invocation.id).await.state,
        State::Pending
    );
}

async fn a_repeated_request_gets_the_first_invocation_whatever_became_of_it(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let request = Some(Uuid::now_v7());
    let create = || {
        test.store
            .create_invocation(&source.tenant, &source, new_invocation("docs"), request, None)
    };
    let first = created(create().await.unwrap());
    assert_eq!(create().await.unwrap(), CreateInvocation::Repeated(first.clone()));

    let scope = Scope::tenant(source.tenant.clone());
    test.store.cancel_invocation(&scope, first.id).await.unwrap();
    test.store.delete_source(&scope, source.id).await.unwrap();
    let CreateInvocation::Repeated(repeated) = create().await.unwrap() else {
        panic!("not repeated")
    };
    assert_eq!(
        (repeated.id, repeated.state.name()),
        (first.id, StateName::Cancelled)
    );
}

async fn a_request_id_for_something_else_is_refused(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let request = Some(Uuid::now_v7());
    created(
        test.store
            .create_invocation(&source.tenant, &source, new_invocation("one"), request, None)
            .await
            .unwrap(),
    );
    let other = test
        .store
        .create_invocation(&source.tenant, &source, new_invocation("two"), request, None)
        .await
        .unwrap();
    assert_eq!(other, CreateInvocation::RequestIdReused);
}

async fn an_earlier_request_is_found_before_anything_is_written(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let (one, two, request) = (new_invocation("one"), new_invocation("two"), Uuid::now_v7());
    let find = |new| {
        test.store
            .find_create_request(&source.tenant, &source, new, request)
    };
    assert_eq!(find(&one).await.unwrap(), None);
    let create = test
        .store
        .create_invocation(&source.tenant, &source, one.clone(), Some(request), None);
    let first = created(create.await.unwrap());
    assert_eq!(find(&one).await.unwrap(), Some(CreateInvocation::Repeated(first)));
    assert_eq!(find(&two).await.unwrap(), Some(CreateInvocation::RequestIdReused));
}

async fn a_collection_takes_one_live_invocation_at_a_time(test: TestStore) {
    let tenant = test.fresh_tenant();
    let (one, two) = (test.source(&tenant).await, test.source(&tenant).await);
    let create = |source| {
        test.store
            .create_invocation(&tenant, source, new_invocation("docs"), None, None)
    };
    let first = created(create(&one).await.unwrap());
    assert_eq!(
        create(&two).await.unwrap(),
        CreateInvocation::CollectionBusy(first.id)
    );

    let claim = test.claim(&WorkerId::generate()).await.unwrap();
    assert_eq!(
        create(&two).await.unwrap(),
        CreateInvocation::CollectionBusy(first.id)
    );
    let ended = test
        .store
        .complete(first.id, claim.attempt, Statistics::default(), test.now())
        .await
        .unwrap();
    assert_eq!(ended.unwrap().id, first.id);
    let second = created(create(&two).await.unwrap());
    test.store
        .cancel_invocation(&Scope::tenant(tenant.clone()), second.id)
        .await
        .unwrap();
    created(create(&one).await.unwrap());

    let elsewhere = test.source(&test.fresh_tenant()).await;
    created(
        test.store
            .create_invocation(&elsewhere.tenant, &elsewhere, new_invocation("docs"), None, None)
            .await
            .unwrap(),
    );
}

async fn of_many_invocations_into_one_collection_at_once_one_is_created(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let outcomes = futures::future::join_all((0..16).map(|_| {
        test.store
            .create_invocation(&source.tenant, &source, new_invocation("docs"), None, None)
    }))
    .await;
    let mut winners = Vec::new();
    let mut busy = Vec::new();
    for outcome in outcomes {
        match outcome.unwrap() {
            CreateInvocation::Created(invocation) => winners.push(invocation.id),
            CreateInvocation::CollectionBusy(id) => busy.push(id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(busy, vec![winners[0]; 15]);
}

async fn a_source_that_was_deleted_takes_no_invocation(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    test.store
        .delete_source(&Scope::tenant(source.tenant.clone()), source.id)
        .await
        .unwrap();
    let outcome = test
        .store
        .create_invocation(&source.tenant, &source, new_invocation("docs"), None, None)
        .await
        .unwrap();
    assert_eq!(outcome, CreateInvocation::SourceGone);
}

async fn creations_at_once_are_judged_each_by_itself(test: TestStore) {
    let tenant = test.fresh_tenant();
    let (source, gone) = (test.source(&tenant).await, test.source(&tenant).await);
    let scope = Scope::tenant(tenant);
    assert!(test.store.delete_source(&scope, gone.id).await.unwrap());
    let request = Some(Uuid::now_v7());
    let creations = (0..40).map(|number| {
        let (source, request, collection) = match number % 4 {
            0 => (&gone, None, format!("gone-{number}")),
            1 => (&source, None, "same".to_owned()),
            2 => (&source, request, "requested".to_owned()),
            _ => (&source, None, format!("own-{number}")),
        };
        test.store
            .create_invocation(&source.tenant, source, new_invocation(&collection), request, None)
    });
    let (mut gone, mut new, mut busy, mut repeated) = (0, Vec::new(), Vec::new(), Vec::new());
    for outcome in futures::future::join_all(creations).await {
        match outcome.unwrap() {
            CreateInvocation::SourceGone => gone += 1,
            CreateInvocation::Created(invocation) => new.push(invocation),
            CreateInvocation::CollectionBusy(id) => busy.push(id),
            CreateInvocation::Repeated(invocation) => repeated.push(invocation.id),
            CreateInvocation::RequestIdReused => panic!("no request id was used for something else"),
        }
    }
    let id_of = |name: &str| new.iter().find(|one| one.collection.as_str() == name).unwrap().id;
    assert_eq!((gone, new.len()), (10, 12));
    assert_eq!(busy, [id_of("same"); 9]);
    assert_eq!(repeated, [id_of("requested"); 9]);
    for invocation in new {
        let events = test.store.events_after(invocation.id, 0, 10).await.unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(*events[0].invocation, invocation);
        let read = test.store.get_invocation(&scope, invocation.id).await.unwrap();
        assert_eq!(read, Some(invocation));
    }
}

async fn deleting_a_source_leaves_its_invocations_readable_and_running(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let (running, waiting) = (test.invocation(&source).await, test.invocation(&source).await);
    let worker = WorkerId::generate();
    assert_eq!(test.claim(&worker).await.unwrap().invocation.id, running.id);
    assert!(
        test.store
            .delete_source(&Scope::tenant(source.tenant.clone()), source.id)
            .await
            .unwrap()
    );

    let completed = test
        .store
        .complete(running.id, 1, Statistics::default(), test.now())
        .await
        .unwrap();
    let ended = completed.unwrap();
    let completed = test.reload(&source.tenant, running.id).await;
    assert_eq!(ended, completed);
    assert_eq!(
        (completed.source_id, completed.state.name()),
        (None, StateName::Complete)
    );

    let claim = test.claim(&worker).await.expect("the other one still runs");
    assert_eq!(
        (claim.invocation.id, claim.invocation.source_id),
        (waiting.id, None)
    );
    assert_eq!(
        (claim.plan.settings, claim.plan.chunking),
        (source.settings, source.chunking)
    );
    assert_eq!(claim.plan.embedding, source.embedding);
    let events = test.store.events_after(running.id, 0, 10).await.unwrap();
    assert_eq!(
        events[0].invocation.source_id,
        Some(source.id),
        "an event is as it was"
    );
}

async fn only_a_pending_invocation_can_be_cancelled(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let scope = Scope::tenant(source.tenant.clone());
    let pending = test.invocation(&source).await;
    let outcome = test.store.cancel_invocation(&scope, pending.id).await.unwrap();
    let CancelInvocation::Cancelled(cancelled) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        cancelled.state,
        State::Cancelled {
            finish_time: test.now()
        }
    );
    assert_eq!((cancelled.revision, cancelled.progress.phase), (2, Phase::Done));
    assert_eq!(
        test.claim(&WorkerId::generate()).await,
        None,
        "nobody works on a cancelled invocation"
    );

    let (claim, _) = test.claimed().await;
    let scope = Scope::tenant(claim.invocation.tenant.clone());
    let cancel = |id| test.store.cancel_invocation(&scope, id);
    let id = claim.invocation.id;
    assert_eq!(
        cancel(id).await.unwrap(),
        CancelInvocation::NotCancelable(StateName::Processing)
    );
    let ended = test.store.complete(id, 1, Statistics::default(), test.now());
    assert_eq!(ended.await.unwrap().unwrap().state.name(), StateName::Complete);
    assert_eq!(
        cancel(id).await.unwrap(),
        CancelInvocation::NotCancelable(StateName::Complete)
    );
    assert_eq!(
        cancel(InvocationId::generate()).await.unwrap(),
        CancelInvocation::NotFound
    );
    assert_eq!(test.reload(&claim.invocation.tenant, id).await.revision, 3);
}

async fn every_filter_picks_its_invocations(test: TestStore) {
    let tenant = test.fresh_tenant();
    let (one, mut two) = (test.source(&tenant).await, new_source("other", "owner/elsewhere"));
    let SourceSettings::Github(github) = &mut two.settings else {
        panic!("it is a repository")
    };
    github.app_id = Some(GithubAppId::parse("app_id", "1234").unwrap());
    let two =
        crate::harness::stores::created_source(test.store.create_source(&tenant, two, None).await.unwrap());
    let ids = [
        test.invocation(&one).await.id,
        test.invocation(&one).await.id,
        test.invocation(&two).await.id,
    ];
    assert_eq!(
        test.claim(&WorkerId::generate()).await.unwrap().invocation.id,
        ids[0]
    );
    let none = InvocationFilter::default();
    let expectations = [
        (none.clone(), vec![ids[0], ids[1], ids[2]]),
        (
            InvocationFilter {
                source_id: Some(one.id),
                ..none.clone()
            },
            vec![ids[0], ids[1]],
        ),
        (
            InvocationFilter {
                source_id: Some(SourceId::generate()),
                ..none.clone()
            },
            vec![],
        ),
        (
            InvocationFilter {
                database: Some(database("other")),
                ..none.clone()
            },
            vec![ids[2]],
        ),
        (
            InvocationFilter {
                source_type: Some(SourceType::Github),
                ..none.clone()
            },
            ids.to_vec(),
        ),
        (
            InvocationFilter {
                github_repository: Some(RepositoryName::parse("repository", "Owner/Elsewhere").unwrap()),
                ..none.clone()
            },
            vec![ids[2]],
        ),
        (
            InvocationFilter {
                github_app_id: Some(GithubAppId::parse("app_id", "1234").unwrap()),
                ..none.clone()
            },
            vec![ids[2]],
        ),
        (
            InvocationFilter {
                state: Some(StateName::Processing),
                ..none.clone()
            },
            vec![ids[0]],
        ),
        (
            InvocationFilter {
                state: Some(StateName::Pending),
                source_id: Some(one.id),
                ..none
            },
            vec![ids[1]],
        ),
    ];
    let scope = Scope::tenant(tenant);
    for (filter, mut expected) in expectations {
        for order in [Order::Ascending, Order::Descending] {
            let request = PageRequest {
                order,
                ..PageRequest::default()
            };
            let page = test
                .store
                .list_invocations(&scope, &filter, &request)
                .await
                .unwrap();
            let listed: Vec<_> = page.items.iter().map(|invocation| invocation.id).collect();
            assert_eq!(listed, expected, "{filter:?} {order:?}");
            expected.reverse();
        }
    }
}

async fn the_latest_invocation_of_each_key_is_found(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let other = test.source(&source.tenant).await;
    let mut ids = Vec::new();
    for (source, key) in [(&source, "a"), (&source, "b"), (&source, "a"), (&other, "a")] {
        let invocation = test.invocation(source).await;
        // No type of source takes keys yet, so the column is set past the store.
        let sql = format!("UPDATE invocations SET object_key = '{key}' WHERE object_key IS NULL");
        test.execute(&sql).await;
        ids.push(invocation.id);
    }
    let keys: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
    let scope = Scope::tenant(source.tenant.clone());
    let latest = test
        .store
        .latest_invocations_by_keys(&scope, source.id, &keys)
        .await
        .unwrap();
    let mut found: Vec<_> = latest
        .iter()
        .map(|(key, invocation)| (key.as_str(), invocation.id))
        .collect();
    found.sort();
    assert_eq!(found, [("a", ids[2]), ("b", ids[1])]);
    let stranger = Scope::tenant(test.fresh_tenant());
    assert!(
        test.store
            .latest_invocations_by_keys(&stranger, source.id, &keys)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        test.store
            .latest_invocations_by_keys(&scope, source.id, &[])
            .await
            .unwrap()
            .is_empty()
    );
}
