//! The order of all events: whoever goes on from the last place it saw misses nothing.

use std::{sync::Arc, time::Duration};

use chroma_sync::{
    domain::{
        ids::{InvocationId, WorkerId},
        invocation::{Invocation, StateName, Statistics},
    },
    store::{FeedFilter, PlacedEvent, Scope, Store},
};
use futures::future::join_all;
use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, Statement, TransactionTrait};

use crate::harness::stores::{TestStore, database, new_source, on_both_stores};

on_both_stores! {
    the_feed_has_every_state_change_in_order,
    a_filter_picks_the_same_events_from_the_table_and_from_memory,
    the_events_of_a_deleted_source_still_name_it,
    events_of_the_release_before_get_their_places,
    a_reader_beside_many_writers_and_placers_misses_nothing,
}

/// Everything in the feed after `place`, as far as it has places.
async fn feed(store: &Store, place: u64, filter: &FeedFilter) -> Vec<PlacedEvent> {
    store.place_events().await.unwrap();
    store.feed_after(place, u64::MAX, filter, 1_000).await.unwrap()
}

fn names(events: &[PlacedEvent]) -> Vec<(InvocationId, u64, StateName)> {
    let name = |placed: &PlacedEvent| {
        let invocation = &placed.event.invocation;
        (invocation.id, placed.event.revision, invocation.state.name())
    };
    events.iter().map(name).collect()
}

async fn the_feed_has_every_state_change_in_order(test: TestStore) {
    assert_eq!(test.store.feed_head().await.unwrap(), 0);
    let source = test.source(&test.fresh_tenant()).await;
    let one = test.invocation(&source).await;
    test.clock.advance(Duration::from_secs(1));
    let two = test.invocation(&source).await;
    test.clock.advance(Duration::from_secs(1));
    let claim = test.claim(&WorkerId::generate()).await.unwrap();
    test.clock.advance(Duration::from_secs(1));
    let ended = test
        .store
        .complete(one.id, 1, Statistics::default(), test.now())
        .await;
    assert_eq!(ended.unwrap().unwrap().revision, 3);

    let events = feed(&test.store, 0, &FeedFilter::default()).await;
    assert_eq!(
        names(&events),
        [
            (one.id, 1, StateName::Pending),
            (two.id, 1, StateName::Pending),
            (one.id, 2, StateName::Processing),
            (one.id, 3, StateName::Complete),
        ]
    );
    assert_eq!(*events[2].event.invocation, claim.invocation);
    let places: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert!(places.is_sorted_by(|one, two| one < two), "{places:?}");
    assert_eq!(test.store.feed_head().await.unwrap(), places[3]);
    let all = FeedFilter::default();
    for (index, place) in places.iter().enumerate() {
        let rest = test
            .store
            .feed_after(*place, u64::MAX, &all, 1_000)
            .await
            .unwrap();
        assert_eq!(rest, events[index + 1..]);
        let until = test.store.feed_after(0, *place, &all, 1_000).await.unwrap();
        assert_eq!(until, events[..=index]);
    }
    assert_eq!(
        test.store.feed_after(0, u64::MAX, &all, 2).await.unwrap(),
        events[..2]
    );
}

async fn a_filter_picks_the_same_events_from_the_table_and_from_memory(test: TestStore) {
    let (tenant, other) = (test.fresh_tenant(), test.fresh_tenant());
    let source = test.source(&tenant).await;
    let elsewhere = test
        .store
        .create_source(&tenant, new_source("db2", "owner/elsewhere"), None)
        .await
        .unwrap();
    let elsewhere = crate::harness::stores::created_source(elsewhere);
    let cancelled = test.invocation(&source).await;
    test.invocation(&elsewhere).await;
    test.invocation(&test.source(&other).await).await;
    let scope = Scope::tenant(tenant.clone());
    test.store.cancel_invocation(&scope, cancelled.id).await.unwrap();

    let all = feed(&test.store, 0, &FeedFilter::default()).await;
    assert_eq!(all.len(), 4);
    let everything = FeedFilter::default;
    let of_tenant = || FeedFilter {
        tenant: Some(tenant.clone()),
        ..everything()
    };
    let expected = [
        (everything(), 4),
        (of_tenant(), 3),
        (
            FeedFilter {
                source_id: Some(source.id),
                ..of_tenant()
            },
            2,
        ),
        (
            FeedFilter {
                databases: Some(vec![database("db2"), database("db3")]),
                ..of_tenant()
            },
            1,
        ),
        (
            FeedFilter {
                databases: Some(Vec::new()),
                ..of_tenant()
            },
            0,
        ),
        (
            FeedFilter {
                states: vec![StateName::Cancelled, StateName::Failed],
                ..of_tenant()
            },
            1,
        ),
    ];
    for (filter, count) in expected {
        let picked = feed(&test.store, 0, &filter).await;
        assert_eq!(picked.len(), count, "{filter:?}");
        let kept: Vec<_> = all
            .iter()
            .filter(|event| filter.matches(event))
            .cloned()
            .collect();
        assert_eq!(picked, kept, "{filter:?}");
    }
}

async fn the_events_of_a_deleted_source_still_name_it(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let invocation = test.invocation(&source).await;
    let scope = Scope::tenant(source.tenant.clone());
    assert!(test.store.delete_source(&scope, source.id).await.unwrap());
    test.store.cancel_invocation(&scope, invocation.id).await.unwrap();
    let filter = FeedFilter {
        source_id: Some(source.id),
        ..FeedFilter::default()
    };
    let events = feed(&test.store, 0, &filter).await;
    assert_eq!(
        names(&events),
        [
            (invocation.id, 1, StateName::Pending),
            (invocation.id, 2, StateName::Cancelled)
        ]
    );
    assert!(events.iter().all(|event| event.source_id == Some(source.id)));
    assert_eq!(events[1].event.invocation.source_id, None);
}

/// Writes the next event of an invocation as the release before does.
async fn record_as_before(database: &impl ConnectionTrait, id: InvocationId) {
    let insert = "INSERT INTO invocation_events (invocation_id, revision, state, time, snapshot) \
                  SELECT invocation_id, revision + 1, state, time - 1, snapshot FROM invocation_events \
                  WHERE invocation_id = $1 ORDER BY revision DESC LIMIT 1";
    let backend = database.get_database_backend();
    let insert = Statement::from_sql_and_values(backend, insert, [id.0.into()]);
    assert_eq!(database.execute_raw(insert).await.unwrap().rows_affected(), 1);
}

async fn events_of_the_release_before_get_their_places(test: TestStore) {
    let source = test.source(&test.fresh_tenant()).await;
    let invocation = test.invocation(&source).await;
    test.store.place_events().await.unwrap();
    let raw = test.raw().await;
    // Their times run backwards, as those of two machines may; their revisions do not.
    record_as_before(&raw, invocation.id).await;
    record_as_before(&raw, invocation.id).await;
    assert_eq!(test.store.place_events().await.unwrap(), 2);
    assert_eq!(test.store.place_events().await.unwrap(), 0);
    let filter = FeedFilter {
        tenant: Some(source.tenant.clone()),
        source_id: Some(source.id),
        databases: Some(vec![source.database.clone()]),
        states: Vec::new(),
    };
    let events = feed(&test.store, 0, &filter).await;
    let revisions: Vec<u64> = events.iter().map(|event| event.event.revision).collect();
    assert_eq!(revisions, [1, 2, 3]);
}

async fn a_reader_beside_many_writers_and_placers_misses_nothing(test: TestStore) {
    const WRITERS: usize = 6;
    const EACH: usize = 12;
    let second = test.second().await;
    let test = Arc::new(test);
    let source = test.source(&test.fresh_tenant()).await;
    let scope = Scope::tenant(source.tenant.clone());
    let writing = (0..WRITERS).map(|writer| {
        let (test, source, scope, second) =
            (Arc::clone(&test), source.clone(), scope.clone(), second.clone());
        tokio::spawn(async move {
            for _ in 0..EACH {
                let invocation = test.invocation(&source).await;
                let store = if writer % 2 == 0 { &test.store } else { &second };
                store.cancel_invocation(&scope, invocation.id).await.unwrap();
                store.place_events().await.unwrap();
            }
        })
    });
    let mut writing = Box::pin(join_all(writing.collect::<Vec<_>>()));
    let (mut seen, mut place, mut wrote) = (Vec::new(), 0, false);
    loop {
        let last_round = wrote;
        let events = feed(&test.store, place, &FeedFilter::default()).await;
        if let Some(last) = events.last() {
            place = last.sequence;
        }
        seen.extend(names(&events));
        if last_round {
            break;
        }
        tokio::select! {
            biased;
            done = &mut writing, if !wrote => {
                done.into_iter().for_each(|writer| writer.unwrap());
                wrote = true;
            }
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(seen.len(), 2 * WRITERS * EACH);
    for (index, (id, revision, _)) in seen.iter().enumerate() {
        let before = seen[..index].iter().filter(|(other, _, _)| other == id).count();
        assert_eq!(*revision, before as u64 + 1);
    }
}

/// Begins a transaction that records the next event of `invocation` and stays open.
async fn open_transaction(raw: &DatabaseConnection, invocation: &Invocation) -> DatabaseTransaction {
    let transaction = raw.begin().await.unwrap();
    record_as_before(&transaction, invocation.id).await;
    transaction
}

#[tokio::test]
async fn a_transaction_that_commits_after_a_later_one_is_not_missed_on_postgres() {
    let test = TestStore::postgres().await;
    let source = test.source(&test.fresh_tenant()).await;
    let (one, two) = (test.invocation(&source).await, test.invocation(&source).await);
    let begun = feed(&test.store, 0, &FeedFilter::default()).await;
    let (raw, beside) = (test.raw().await, test.raw().await);

    // The first takes its transaction id and writes its event first, and commits last.
    let first = open_transaction(&raw, &one).await;
    let second = open_transaction(&beside, &two).await;
    second.commit().await.unwrap();
    let place = begun.last().unwrap().sequence;
    let seen = feed(&test.store, place, &FeedFilter::default()).await;
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].event.invocation.id, seen[0].event.revision),
        (two.id, 2),
        "what is committed is not held back by what is not"
    );
    first.commit().await.unwrap();
    let late = feed(&test.store, seen[0].sequence, &FeedFilter::default()).await;
    assert_eq!(late.len(), 1);
    assert_eq!((late[0].event.invocation.id, late[0].event.revision), (one.id, 2));
}
