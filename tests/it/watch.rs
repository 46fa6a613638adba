//! The watch contract, as written at `WatchInvocation`.

use chroma_sync::proto::{self, invocation::State, watch_invocation_response::Kind};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{
    git_server::{Change, Repository},
    scenario::{Scenario, states, to_the_end},
    stores::{Backend, on_both},
};

on_both!(
    a_finished_invocation_gives_its_snapshot_or_what_was_missed,
    finished_on
);
async fn finished_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "a\n")]);
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let ended = scenario.run(&service, &source, "target", None).await;
    assert_eq!(ended.state(), State::Complete);

    let snapshot = to_the_end(scenario.open_watch(&service, &ended.id, None).await.unwrap()).await;
    assert_eq!(snapshot.len(), 1);
    assert_eq!((snapshot[0].kind(), snapshot[0].revision), (Kind::Snapshot, 3));
    assert_eq!(snapshot[0].invocation.as_ref(), Some(&ended));

    for after in 0..=3 {
        let missed = to_the_end(
            scenario
                .open_watch(&service, &ended.id, Some(after))
                .await
                .unwrap(),
        )
        .await;
        let path = [(1, State::Pending), (2, State::Processing), (3, State::Complete)];
        assert_eq!(
            states(&missed),
            path[usize::try_from(after).unwrap()..],
            "after {after}"
        );
        assert!(
            missed.iter().all(|message| message.kind() == Kind::StateChanged),
            "after {after}"
        );
        for message in &missed {
            let invocation = message.invocation.as_ref().unwrap();
            assert_eq!(
                (&invocation.id, invocation.revision),
                (&ended.id, message.revision)
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_is_refused_before_any_message() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let (_, created) = scenario.pending_invocation(&service).await;
    let elsewhere = scenario
        .deployment
        .create_key(&["--role", "owner", "--tenant", "another_tenant"]);
    let unknown = "0192e4a0-7f1c-7c3e-9a55-6a1d3c1b2f00".to_owned();
    let admin = scenario.admin.as_str();
    let cases = [
        (admin, unknown, None, Code::NotFound, "INVOCATION_NOT_FOUND"),
        (
            &elsewhere,
            created.id.clone(),
            None,
            Code::NotFound,
            "INVOCATION_NOT_FOUND",
        ),
        (
            "",
            created.id.clone(),
            None,
            Code::Unauthenticated,
            "TOKEN_MISSING",
        ),
        (
            admin,
            created.id.clone(),
            Some(2),
            Code::InvalidArgument,
            "REVISION_AHEAD",
        ),
        (
            admin,
            created.id.clone(),
            Some(-1),
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (
            admin,
            "not-a-uuid".to_owned(),
            None,
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
    ];
    for (token, invocation_id, after_revision, code, reason) in cases {
        let request = proto::WatchInvocationRequest {
            invocation_id,
            after_revision,
        };
        let refused = service
            .invocations(token)
            .watch_invocation(request)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
        assert_eq!(refused.get_details_error_info().unwrap().reason, reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_sends_heartbeats_and_a_cancellation_ends_it() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario.deployment.with("watch.heartbeat_seconds", "1");
    let service = scenario.deployment.start_role("api");
    let (_, created) = scenario.pending_invocation(&service).await;
    let mut stream = scenario.open_watch(&service, &created.id, Some(1)).await.unwrap();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!((first.kind(), first.revision), (Kind::Heartbeat, 1));
    assert_eq!(first.invocation.unwrap().id, created.id);
    scenario.cancel(&service, &created.id).await;
    let rest = to_the_end(stream).await;
    assert_eq!(states(&rest), [(2, State::Cancelled)]);
}

on_both!(
    an_api_process_sees_what_a_worker_process_does,
    separate_processes_on
);
async fn separate_processes_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "a\n")]);
    let api = scenario.deployment.start_role("api");
    let (_, created) = scenario.pending_invocation(&api).await;
    let watching = scenario.start_watch(&api, &created.id).await;
    let _worker = scenario.deployment.start_role("worker");
    let seen = states(&watching.await.unwrap());
    assert_eq!(
        seen,
        [(1, State::Pending), (2, State::Processing), (3, State::Complete)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_beyond_the_limit_are_refused_with_retry_info() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario.deployment.with("watch.max_streams", "2");
    let service = scenario.deployment.start_role("api");
    let (_, created) = scenario.pending_invocation(&service).await;
    let one = scenario.start_watch(&service, &created.id).await;
    let two = scenario.start_watch(&service, &created.id).await;
    let refused = scenario
        .open_watch(&service, &created.id, None)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        refused
            .get_details_retry_info()
            .unwrap()
            .retry_delay
            .unwrap()
            .as_secs()
            > 0
    );
    scenario.cancel(&service, &created.id).await;
    for watch in [one, two] {
        assert_eq!(states(&watch.await.unwrap()).last(), Some(&(2, State::Cancelled)));
    }
}
