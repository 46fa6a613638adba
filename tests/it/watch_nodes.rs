//! Watches over several processes, restarts, readers that stop and readers that vanish.

use std::{collections::BTreeSet, fmt, sync::Arc, sync::Mutex, time::Duration};

use chroma_sync::{
    app::{
        Auth,
        watch::{UpdateKind, WatchOptions},
    },
    domain::{ids::InvocationId, invocation::StateName},
    proto::{
        WatchInvocationRequest, WatchInvocationsRequest, invocation::State,
        invocation_service_client::InvocationServiceClient, watch_invocations_response::Kind,
    },
};
use futures::{StreamExt, future::join_all};
use sea_orm::{ConnectionTrait, Database, DbBackend, Statement};
use tonic::{Code, Request, transport::Endpoint};
use tonic_types::StatusExt;
use tracing::{Event, Subscriber, field::Visit};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

use crate::harness::{
    git_server::{Change, Repository},
    node::Node,
    scenario::{Scenario, states, to_the_end},
    service::{Service, reason},
    stores::{Backend, TestStore, on_both},
    wait_for,
};

on_both!(a_watcher_on_either_node_sees_every_change, two_nodes_on);
async fn two_nodes_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "a\n")]);
    let nodes = [0; 2].map(|_| scenario.deployment.start_role("api"));
    let (_, created) = scenario.pending_invocation(&nodes[0]).await;
    let watching = [
        scenario.start_watch(&nodes[0], &created.id).await,
        scenario.start_watch(&nodes[1], &created.id).await,
    ];
    // One that breaks off resumes on the other node by its revision.
    let mut broken_off = scenario.open_watch(&nodes[0], &created.id, None).await.unwrap();
    let seen = broken_off.message().await.unwrap().unwrap().revision;
    drop(broken_off);
    let resumed = scenario
        .open_watch(&nodes[1], &created.id, Some(seen))
        .await
        .unwrap();
    let _worker = scenario.deployment.start_role("worker");
    let path = [(1, State::Pending), (2, State::Processing), (3, State::Complete)];
    for watch in watching {
        assert_eq!(states(&watch.await.unwrap()), path);
    }
    assert_eq!(states(&to_the_end(resumed).await), path[1..]);
}

/// A scenario on PostgreSQL whose nodes as good as never poll.
async fn without_polling() -> Scenario {
    let mut scenario = Scenario::new(Backend::Postgres).await;
    scenario.deployment = scenario
        .deployment
        .with("watch.poll_milliseconds", "3600000")
        .with("worker.poll_seconds", "3600");
    scenario
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_wake_the_watches_and_workers_of_other_nodes_on_postgres() {
    let scenario = without_polling().await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "a\n")]);
    let nodes = [0; 2].map(|_| scenario.deployment.start_role("api"));
    let _worker = scenario.deployment.start_role("worker");
    let source = scenario.create_source(&nodes[0], "owner/name").await;
    let mut feed = scenario
        .watch_many(&nodes[1], WatchInvocationsRequest::default())
        .await
        .unwrap();
    assert_eq!(feed.message().await.unwrap().unwrap().kind(), Kind::Heartbeat);
    let created = scenario
        .create_invocation(&nodes[0], &source, "target")
        .await
        .unwrap();
    let seen = scenario.watch(&nodes[1], &created.id).await;
    assert_eq!(states(&seen).last(), Some(&(3, State::Complete)));
    let mut told = Vec::new();
    while told.len() < 3 {
        let message = feed.message().await.unwrap().unwrap();
        told.extend(message.invocation.map(|invocation| invocation.revision));
    }
    assert_eq!(told, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_that_are_cut_off_again_and_again_miss_nothing() {
    let scenario = Scenario::new(Backend::Postgres).await;
    let nodes = [0; 2].map(|_| scenario.deployment.start_role("api"));
    let source = scenario.create_source(&nodes[0], "owner/name").await;
    let mut feed = scenario
        .watch_many(&nodes[1], WatchInvocationsRequest::default())
        .await
        .unwrap();
    let raw = Database::connect(&scenario.store_url).await.unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE 'LISTEN%'";
    let mut cut_off = 0;
    for number in 0..20 {
        let created = scenario
            .create_invocation(&nodes[0], &source, &format!("collection-{number}"))
            .await
            .unwrap();
        let killed = Statement::from_string(DbBackend::Postgres, cut);
        cut_off += raw.query_all_raw(killed).await.unwrap().len();
        scenario.cancel(&nodes[0], &created.id).await;
    }
    assert!(cut_off > 0, "there were listeners");
    let mut told = Vec::new();
    while told.len() < 40 {
        let message = feed.message().await.unwrap().unwrap();
        told.extend(
            message
                .invocation
                .map(|invocation| (invocation.id, invocation.revision)),
        );
    }
    let distinct: BTreeSet<_> = told.iter().collect();
    assert_eq!(distinct.len(), 40, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_restarts_during_a_watch_lose_nothing() {
    const RESTARTS: usize = 100;
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario.deployment.on_one_port().with("log.filter", "warn");
    let mut service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    let followed = scenario
        .create_invocation(&service, &source, "followed")
        .await
        .unwrap();
    let url = service.url.clone();
    let one = tokio::spawn(follow_one(
        url.clone(),
        scenario.admin.clone(),
        followed.id.clone(),
    ));
    let (ready, began) = tokio::sync::oneshot::channel();
    let many = tokio::spawn(follow_many(url, scenario.admin.clone(), RESTARTS, ready));
    began.await.unwrap();
    let mut expected = Vec::new();
    for number in 0..RESTARTS {
        let created = scenario
            .create_invocation(&service, &source, &format!("collection-{number}"))
            .await
            .unwrap();
        expected.push((created.id, 1));
        // Half are told to stop, half are killed.
        if number % 2 == 0 {
            service.terminate();
            service.wait();
        } else {
            service.kill();
        }
        service = scenario.deployment.start_role("api");
    }
    scenario.cancel(&service, &followed.id).await;
    expected.push((followed.id, 2));
    assert_eq!(many.await.unwrap(), expected);
    assert_eq!(one.await.unwrap(), [1, 2]);
}

type Client = InvocationServiceClient<tonic::transport::Channel>;

fn client(url: &str) -> Client {
    InvocationServiceClient::new(Endpoint::from_shared(url.to_owned()).unwrap().connect_lazy())
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("x-chroma-token", token.parse().unwrap());
    request
}

/// Follows an invocation as the documentation says: connect again with the last revision seen.
async fn follow_one(url: String, token: String, invocation_id: String) -> Vec<i64> {
    let mut client = client(&url);
    let mut seen: Vec<i64> = Vec::new();
    let mut pause = tokio::time::interval(Duration::from_millis(10));
    loop {
        pause.tick().await;
        let request = WatchInvocationRequest {
            invocation_id: invocation_id.clone(),
            after_revision: Some(seen.last().copied().unwrap_or_default()),
        };
        let Ok(stream) = client.watch_invocation(with_token(request, &token)).await else {
            continue;
        };
        let mut stream = stream.into_inner();
        loop {
            match stream.message().await {
                Ok(Some(message))
                    if message.kind()
                        == chroma_sync::proto::watch_invocation_response::Kind::StateChanged =>
                {
                    seen.push(message.revision);
                }
                Ok(Some(_)) => {}
                Ok(None) => return seen,
                Err(_) => break,
            }
        }
    }
}

/// Follows everything until one invocation more than `invocations` was told of; says when it has begun.
async fn follow_many(
    url: String,
    token: String,
    invocations: usize,
    ready: tokio::sync::oneshot::Sender<()>,
) -> Vec<(String, i64)> {
    let mut client = client(&url);
    let (mut seen, mut resume_token, mut ready) = (Vec::new(), String::new(), Some(ready));
    let mut pause = tokio::time::interval(Duration::from_millis(10));
    while seen.len() <= invocations {
        pause.tick().await;
        let request = WatchInvocationsRequest {
            resume_token: resume_token.clone(),
            ..Default::default()
        };
        let Ok(stream) = client.watch_invocations(with_token(request, &token)).await else {
            continue;
        };
        let mut stream = stream.into_inner();
        while seen.len() <= invocations {
            let Ok(Some(message)) = stream.message().await else {
                break;
            };
            resume_token = message.resume_token;
            if let Some(ready) = ready.take() {
                ready.send(()).unwrap();
            }
            seen.extend(
                message
                    .invocation
                    .map(|invocation| (invocation.id, invocation.revision)),
            );
        }
    }
    seen
}

/// Resident memory of a process, in KiB.
fn resident(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.process_id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_delays_nobody_costs_nothing_and_gets_everything_later() {
    const INVOCATIONS: usize = 600;
    const READERS: usize = 40;
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    // A window that a few messages fill.
    let channel = Endpoint::from_shared(service.url.clone())
        .unwrap()
        .initial_stream_window_size(1_024)
        .connect()
        .await
        .unwrap();
    let mut slow = Vec::new();
    for _ in 0..READERS {
        let request = with_token(WatchInvocationsRequest::default(), &scenario.admin);
        let stream = InvocationServiceClient::new(channel.clone())
            .watch_invocations(request)
            .await;
        let mut stream = stream.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        slow.push(stream);
    }
    let mut fast = scenario
        .watch_many(&service, WatchInvocationsRequest::default())
        .await
        .unwrap();
    fast.message().await.unwrap().unwrap();
    let before = resident(&service);
    let work = async {
        let creating = (0..INVOCATIONS).map(async |number| {
            let created = scenario
                .create_invocation(&service, &source, &format!("collection-{number}"))
                .await
                .unwrap();
            scenario.cancel(&service, &created.id).await;
        });
        futures::stream::iter(creating).buffer_unordered(32).count().await
    };
    let reading = async {
        let mut told = Vec::new();
        while told.len() < 2 * INVOCATIONS {
            let message = fast.message().await.unwrap().unwrap();
            told.extend(
                message
                    .invocation
                    .map(|invocation| (invocation.id, invocation.revision)),
            );
        }
        told
    };
    // Nobody has read the slow ones when the fast one has everything.
    let (_, told) = tokio::join!(work, reading);
    let grown = resident(&service).saturating_sub(before);
    // The events themselves are kept once, at some KiB each; forty copies would be ten times the bound.
    assert!(grown < 24 * 1_024, "{grown} KiB more");
    let late = join_all(slow.into_iter().map(async |mut stream| {
        let mut late = Vec::new();
        while late.len() < 2 * INVOCATIONS {
            let message = stream.message().await.unwrap().unwrap();
            late.extend(
                message
                    .invocation
                    .map(|invocation| (invocation.id, invocation.revision)),
            );
        }
        late
    }));
    for late in late.await {
        assert!(late == told, "a slow reader saw something else");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_of_a_reader_that_vanished_is_free_again() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario
        .deployment
        .with("watch.max_streams", "1")
        .with("server.keepalive_interval_seconds", "1")
        .with("server.keepalive_timeout_seconds", "1");
    let service = scenario.deployment.start_role("api");
    let (_, created) = scenario.pending_invocation(&service).await;
    let gate = crate::harness::gate::Gate::start(&service.url).await;
    let request = WatchInvocationRequest {
        invocation_id: created.id.clone(),
        after_revision: None,
    };
    let stream = client(&gate.url())
        .watch_invocation(with_token(request, &scenario.admin))
        .await;
    let mut stream = stream.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let refused = scenario
        .open_watch(&service, &created.id, None)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    // The reader's machine is gone: nothing is answered any more, and nothing says so.
    gate.freeze();
    wait_for("a free place", async || {
        scenario.open_watch(&service, &created.id, None).await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_cannot_take_the_places_of_the_others() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario.deployment.with("watch.max_streams_per_key", "2");
    let service = scenario.deployment.start_role("api");
    let (_, created) = scenario.pending_invocation(&service).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(scenario.open_watch(&service, &created.id, None).await.unwrap());
    }
    let refused = [
        scenario
            .open_watch(&service, &created.id, None)
            .await
            .map(drop)
            .unwrap_err(),
        scenario
            .watch_many(&service, WatchInvocationsRequest::default())
            .await
            .map(drop)
            .unwrap_err(),
    ];
    for refused in refused {
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(reason(&refused), "TOO_MANY_REQUESTS");
        assert!(refused.get_details_retry_info().is_some());
    }
    let another = scenario.deployment.create_key(&["--role", "member"]);
    let request = WatchInvocationsRequest::default();
    let stream = service.invocations(&another).watch_invocations(request).await;
    drop(stream.unwrap());
    open.pop();
    wait_for("a free place", async || {
        scenario.open_watch(&service, &created.id, None).await.map(drop)
    })
    .await;
}

/// Counts the statements that read.
#[derive(Clone, Default)]
struct Reads(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Reads {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sql" {
            event.record(&mut self.clone());
        }
    }
}

impl Visit for Reads {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "sql" && value.starts_with("SELECT") {
            self.0.lock().unwrap().push(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn fmt::Debug) {}
}

/// How many reads it takes until so many watchers have been told of a change.
async fn reads_until_told(
    watchers: usize,
    reads: &Reads,
    change: impl AsyncFnOnce(&TestStore, &Node, &Auth, InvocationId),
) -> usize {
    let test = TestStore::sqlite().await;
    let options = WatchOptions {
        heartbeat: Duration::from_secs(3_600),
        poll: Duration::from_secs(3_600),
        max_streams: 1_000,
        max_streams_per_key: 1_000,
    };
    let node = Node::start(&test, options, false).await;
    let source = test.source(&test.fresh_tenant()).await;
    let invocation = test.invocation(&source).await;
    let auth = Auth::owner(source.tenant.clone());
    let mut streams = Vec::new();
    for _ in 0..watchers {
        let stream = node
            .app
            .watch_invocation(&auth, invocation.id, None)
            .await
            .unwrap();
        let mut stream = Box::pin(stream);
        assert_eq!(stream.next().await.unwrap().unwrap().invocation.revision, 1);
        streams.push(stream);
    }
    reads.0.lock().unwrap().clear();
    change(&test, &node, &auth, invocation.id).await;
    for mut stream in streams {
        let told = stream.next().await.unwrap().unwrap();
        assert_eq!(
            (told.kind, told.invocation.revision, told.invocation.state.name()),
            (UpdateKind::StateChanged, 2, StateName::Cancelled)
        );
        assert!(stream.next().await.is_none());
    }
    std::mem::take(&mut *reads.0.lock().unwrap()).len()
}

#[tokio::test]
async fn the_reads_of_a_change_do_not_grow_with_its_watchers() {
    let reads = Reads::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(reads.clone()));
    for watchers in [1, 500] {
        // Past the node, which is then told.
        let count = reads_until_told(watchers, &reads, async |test, node, auth, id| {
            let scope = chroma_sync::store::Scope::tenant(auth.tenant().clone());
            test.store.cancel_invocation(&scope, id).await.unwrap();
            node.changes.changed(id);
        });
        assert_eq!(count.await, 1, "{watchers} watchers");
    }
}

#[tokio::test]
async fn a_change_of_the_own_process_is_told_without_a_read() {
    let reads = Reads::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(reads.clone()));
    let count = reads_until_told(20, &reads, async |_, node, auth, id| {
        node.app.cancel_invocation(auth, id).await.unwrap();
    });
    assert_eq!(count.await, 0);
}
