//! Processes that die, are told to end, or lose a peer in the middle of the work.

use chroma_sync::proto::{self, invocation::Phase, invocation::State};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{
    gate::Gate,
    git_server::{Change, Repository},
    scenario::{Scenario, invocation_request, states, to_the_end},
    service::Service,
    stores::{Backend, on_both},
    wait_for,
};

/// Enough text to keep the model busy for some seconds.
fn many_files() -> Vec<Change> {
    (0..80)
        .map(|n| {
            let text: String = (0..40)
                .map(|line| format!("file {n}, line {line}: words to embed {}\n", n * line))
                .collect();
            Change::file(format!("directory/file-{n:03}.txt"), text)
        })
        .collect()
}

/// Waits until some of the documents are indexed, but not all of them.
async fn wait_until_under_way(scenario: &Scenario, service: &Service, id: &str) {
    let mut client = service.invocations(&scenario.admin);
    wait_for("an invocation in the middle of its work", async || {
        let request = proto::GetInvocationRequest {
            invocation_id: id.to_owned(),
        };
        let invocation = client.get_invocation(request).await.unwrap().into_inner();
        let live = matches!(invocation.state(), State::Pending | State::Processing);
        assert!(live, "it ended before it was disturbed: {invocation:?}");
        let counts = invocation.statistics.unwrap_or_default();
        if counts.documents_indexed > 0 {
            Ok(())
        } else {
            Err(counts)
        }
    })
    .await;
}

on_both!(
    a_killed_workers_invocation_is_completed_by_another,
    killed_worker_on
);
async fn killed_worker_on(backend: Backend) {
    let mut scenario = Scenario::new(backend).await;
    scenario.deployment = scenario
        .deployment
        .with("worker.lease_seconds", "6")
        .with("worker.max_failed_attempts", "20");
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &many_files());
    let api = scenario.deployment.start_role("api");
    let source = scenario.create_source(&api, "owner/name").await;
    let created = scenario
        .create_invocation(&api, &source, "disturbed")
        .await
        .unwrap();
    let watching = scenario.start_watch(&api, &created.id).await;

    let first = scenario.deployment.start_role("worker");
    wait_until_under_way(&scenario, &api, &created.id).await;
    // A new commit must not get into what the first attempt began.
    repository.commit("main", &[Change::file("directory/file-000.txt", "later\n")]);
    first.kill();
    let second = scenario.deployment.start_role("worker");

    let messages = watching.await.unwrap();
    let seen = states(&messages);
    assert_eq!(
        seen,
        [(1, State::Pending), (2, State::Processing), (3, State::Complete)]
    );
    let ended = messages.last().unwrap().invocation.clone().unwrap();
    assert!(ended.attempt >= 2, "attempt {}", ended.attempt);
    let counts = ended.statistics.unwrap();
    assert_eq!((counts.documents_discovered, counts.documents_indexed), (80, 80));

    let reference = Some(proto::github_input::Reference::Sha(ended.resolved_commit.clone()));
    // A source of its own, whose records nobody gives it.
    let mut request = scenario.source_request("owner/name");
    if let Some(proto::create_source_request::Settings::Github(github)) = &mut request.settings {
        github.include_globs = vec!["directory/*".to_owned()];
    }
    let source = api.sources(&scenario.admin).create_source(request).await;
    let source = source.unwrap().into_inner().id;
    let undisturbed = scenario.run(&api, &source, "undisturbed", reference).await;
    assert_eq!(undisturbed.state(), State::Complete);
    let expected = scenario.chroma.records("undisturbed").await;
    assert_eq!(counts.chunks_indexed, i64::try_from(expected.len()).unwrap());
    assert_eq!(
        undisturbed.statistics.unwrap().bytes_indexed,
        counts.bytes_indexed
    );
    assert_eq!(scenario.chroma.records("disturbed").await, expected);
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_service_ends_watches_with_retry_info_and_hands_its_invocation_back() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario.deployment.with("server.drain_seconds", "1");
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &many_files());
    let service = scenario.deployment.start();
    let (_, created) = scenario.pending_invocation(&service).await;
    let mut stream = scenario.open_watch(&service, &created.id, None).await.unwrap();
    wait_until_under_way(&scenario, &service, &created.id).await;
    service.terminate();
    let mut revision = 0;
    let end = loop {
        match stream.message().await {
            Ok(Some(message)) => revision = message.revision,
            Ok(None) => panic!("the stream ended OK before the invocation did"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    assert_eq!(end.get_details_error_info().unwrap().reason, "DRAINING");
    assert!(
        end.get_details_retry_info()
            .unwrap()
            .retry_delay
            .unwrap()
            .as_millis()
            > 0
    );
    assert_eq!(revision, 2);
    let (status, log) = service.wait();
    assert!(status.success(), "{status}\n{log}");

    let restarted = scenario.deployment.start();
    let stream = scenario
        .open_watch(&restarted, &created.id, Some(revision))
        .await
        .unwrap();
    let messages = to_the_end(stream).await;
    assert_eq!(states(&messages), [(3, State::Complete)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_waits_visibly_while_the_chroma_server_is_away() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    let proxy = Gate::start(scenario.chroma.url()).await;
    scenario.deployment = scenario
        .deployment
        .with("chroma.url", &proxy.url())
        .with("chroma.timeout_seconds", "2")
        .with("worker.max_failed_attempts", "50")
        .with("worker.backoff_seconds", "1")
        .with("worker.max_backoff_seconds", "1");
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "a\n")]);
    let api = scenario.deployment.start_role("api");
    let source = scenario.create_source(&api, "owner/name").await;
    let request = invocation_request(&source, "target", None);
    let created = api
        .invocations(&scenario.admin)
        .create_invocation(request)
        .await
        .unwrap()
        .into_inner();
    proxy.close();
    let watching = scenario.start_watch(&api, &created.id).await;
    let _worker = scenario.deployment.start_role("worker");
    let mut client = api.invocations(&scenario.admin);
    let waiting = wait_for("a visible wait", async || {
        let request = proto::GetInvocationRequest {
            invocation_id: created.id.clone(),
        };
        let invocation = client.get_invocation(request).await.unwrap().into_inner();
        if invocation.phase() == Phase::Waiting {
            Ok(invocation)
        } else {
            Err(invocation.phase)
        }
    })
    .await;
    assert_eq!(waiting.state(), State::Processing);
    let cause = waiting.wait.unwrap().cause;
    assert!(cause.contains("chroma"), "{cause}");
    proxy.open();
    let messages = watching.await.unwrap();
    assert_eq!(
        messages.last().unwrap().invocation.as_ref().unwrap().state(),
        State::Complete
    );
    let mut revisions: Vec<i64> = states(&messages)
        .into_iter()
        .map(|(revision, _)| revision)
        .collect();
    assert_eq!(revisions.last(), Some(&3));
    revisions.dedup();
    assert_eq!(
        revisions.len(),
        states(&messages).len(),
        "no revision comes twice"
    );
}
