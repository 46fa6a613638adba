//! The contract of `WatchInvocations`.

use chroma_sync::proto::{
    self, WatchInvocationsRequest, WatchInvocationsResponse, invocation::State,
    watch_invocations_response::Kind,
};
use tonic::{Code, Streaming};

use crate::harness::{
    scenario::Scenario,
    service::{Service, reason},
    stores::{Backend, on_both},
};

type Stream = Streaming<WatchInvocationsResponse>;

/// The next message that is not a heartbeat.
async fn next(stream: &mut Stream) -> WatchInvocationsResponse {
    loop {
        let message = stream.message().await.unwrap().unwrap();
        if message.kind() != Kind::Heartbeat {
            return message;
        }
    }
}

/// The next `count` messages that are not heartbeats: kind, id, state and revision.
async fn told(stream: &mut Stream, count: usize) -> Vec<(Kind, String, State, i64)> {
    let mut told = Vec::new();
    for _ in 0..count {
        let message = next(stream).await;
        let kind = message.kind();
        let invocation = message.invocation.unwrap();
        told.push((
            kind,
            invocation.id.clone(),
            invocation.state(),
            invocation.revision,
        ));
    }
    told
}

/// Opens a watch and takes its first message.
async fn open(scenario: &Scenario, service: &Service, request: WatchInvocationsRequest) -> (Stream, String) {
    let mut stream = scenario.watch_many(service, request).await.unwrap();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!((first.kind(), first.invocation), (Kind::Heartbeat, None));
    (stream, first.resume_token)
}

async fn invocation(scenario: &Scenario, service: &Service, source: &str, collection: &str) -> String {
    let created = scenario.create_invocation(service, source, collection).await;
    created.unwrap().id
}

fn changed(id: &str, state: State, revision: i64) -> (Kind, String, State, i64) {
    (Kind::StateChanged, id.to_owned(), state, revision)
}

on_both!(every_state_change_is_told_and_any_token_resumes, told_on);
async fn told_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    let earlier = invocation(&scenario, &service, &source, "earlier").await;
    let (mut stream, begin) = open(&scenario, &service, WatchInvocationsRequest::default()).await;
    let one = invocation(&scenario, &service, &source, "one").await;
    let two = invocation(&scenario, &service, &source, "two").await;
    scenario.cancel(&service, &one).await;
    scenario.cancel(&service, &earlier).await;
    let expected = [
        changed(&one, State::Pending, 1),
        changed(&two, State::Pending, 1),
        changed(&one, State::Cancelled, 2),
        changed(&earlier, State::Cancelled, 2),
    ];
    let mut tokens = vec![begin];
    for expected in &expected {
        let message = next(&mut stream).await;
        let invocation = message.invocation.as_ref().unwrap();
        assert_eq!(
            (
                message.kind(),
                &invocation.id,
                invocation.state(),
                invocation.revision
            ),
            (expected.0, &expected.1, expected.2, expected.3)
        );
        tokens.push(message.resume_token);
    }
    // Another process of the same database goes on just as well.
    let second = scenario.deployment.start_role("api");
    for (index, resume_token) in tokens.iter().enumerate() {
        let service = if index % 2 == 0 { &service } else { &second };
        let request = WatchInvocationsRequest {
            resume_token: resume_token.clone(),
            ..Default::default()
        };
        let (mut stream, first) = open(&scenario, service, request).await;
        assert_eq!(first, *resume_token, "nothing was sent yet");
        assert_eq!(told(&mut stream, expected.len() - index).await, expected[index..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_of_its_source_its_database_and_its_states_alone() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let other_database = crate::harness::chroma::ChromaDatabase::create().await;
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    let beside = scenario.create_source(&service, "owner/beside").await;
    let request = proto::CreateSourceRequest {
        database_name: other_database.name().to_string(),
        ..scenario.source_request("owner/elsewhere")
    };
    let elsewhere = service.sources(&scenario.admin).create_source(request).await;
    let elsewhere = elsewhere.unwrap().into_inner().id;

    let everything = WatchInvocationsRequest::default;
    let of_source = WatchInvocationsRequest {
        source_id: source.clone(),
        ..everything()
    };
    let of_database = WatchInvocationsRequest {
        database_name: other_database.name().to_string(),
        ..everything()
    };
    let of_states = WatchInvocationsRequest {
        states: vec![State::Cancelled.into(), State::Failed.into()],
        ..everything()
    };
    let (mut of_source, _) = open(&scenario, &service, of_source).await;
    let (mut of_database, _) = open(&scenario, &service, of_database).await;
    let (mut of_states, _) = open(&scenario, &service, of_states).await;
    let bound = scenario
        .deployment
        .create_key(&["--database", &other_database.name().to_string()]);
    let of_key = service.invocations(&bound).watch_invocations(everything()).await;
    let mut of_key = of_key.unwrap().into_inner();

    let one = invocation(&scenario, &service, &source, "one").await;
    let two = invocation(&scenario, &service, &beside, "two").await;
    let three = invocation(&scenario, &service, &elsewhere, "three").await;
    // The source goes, and its invocations stay and are still told of.
    let delete = proto::DeleteSourceRequest {
        source_id: source.clone(),
    };
    service
        .sources(&scenario.admin)
        .delete_source(delete)
        .await
        .unwrap();
    for id in [&one, &two, &three] {
        scenario.cancel(&service, id).await;
    }
    let whole = |id| [changed(id, State::Pending, 1), changed(id, State::Cancelled, 2)];
    assert_eq!(told(&mut of_source, 2).await, whole(&one));
    assert_eq!(told(&mut of_database, 2).await, whole(&three));
    assert_eq!(told(&mut of_key, 2).await, whole(&three));
    let cancelled = [&one, &two, &three].map(|id| changed(id, State::Cancelled, 2));
    assert_eq!(told(&mut of_states, 3).await, cancelled);
}

on_both!(a_watch_may_begin_with_what_is_live, live_on);
async fn live_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    let ended = invocation(&scenario, &service, &source, "ended").await;
    scenario.cancel(&service, &ended).await;
    // More than are read at a time.
    let mut live = Vec::new();
    for number in 0..70 {
        live.push(invocation(&scenario, &service, &source, &format!("live-{number}")).await);
    }
    let request = WatchInvocationsRequest {
        source_id: source.clone(),
        include_live: true,
        ..Default::default()
    };
    let (mut stream, _) = open(&scenario, &service, request).await;
    let snapshots: Vec<_> = live
        .iter()
        .map(|id| (Kind::Snapshot, id.clone(), State::Pending, 1))
        .collect();
    assert_eq!(told(&mut stream, live.len()).await, snapshots);
    scenario.cancel(&service, &live[3]).await;
    assert_eq!(
        told(&mut stream, 1).await,
        [changed(&live[3], State::Cancelled, 2)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_is_refused_before_any_message() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    let (_, begin) = open(&scenario, &service, WatchInvocationsRequest::default()).await;
    let stranger = ["--role", "owner", "--tenant", "another_tenant"];
    let stranger = scenario.deployment.create_key(&stranger);
    let bound = scenario
        .deployment
        .create_key(&["--database", "another_database"]);
    let everything = WatchInvocationsRequest::default;
    let of_source = |source_id: &str| WatchInvocationsRequest {
        source_id: source_id.to_owned(),
        ..everything()
    };
    let resumed = |token: &str| WatchInvocationsRequest {
        resume_token: token.to_owned(),
        ..everything()
    };
    let both = WatchInvocationsRequest {
        database_name: scenario.database(),
        ..of_source(&source)
    };
    let state = |state: i32| WatchInvocationsRequest {
        states: vec![State::Failed.into(), state],
        ..everything()
    };
    let resumed_with_live = WatchInvocationsRequest {
        include_live: true,
        ..resumed(&begin)
    };
    let of_database = WatchInvocationsRequest {
        database_name: scenario.database(),
        ..everything()
    };
    // A true token of a place that nothing has reached.
    let ahead = {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        use sha2::{Digest, Sha256};
        let place = u64::MAX.to_be_bytes();
        let digest = Sha256::new_with_prefix(b"invocations feed")
            .chain_update(place)
            .finalize();
        URL_SAFE_NO_PAD.encode([&place[..], &digest[..4]].concat())
    };
    let unknown = "0192e4a0-7f1c-7c3e-9a55-6a1d3c1b2f00";
    let admin = scenario.admin.as_str();
    let cases = [
        ("", everything(), Code::Unauthenticated, "TOKEN_MISSING"),
        (admin, of_source("x"), Code::InvalidArgument, "INVALID_FIELD"),
        (admin, both, Code::InvalidArgument, "INVALID_FIELD"),
        (admin, state(0), Code::InvalidArgument, "INVALID_FIELD"),
        (admin, state(77), Code::InvalidArgument, "INVALID_FIELD"),
        (admin, resumed_with_live, Code::InvalidArgument, "INVALID_FIELD"),
        (admin, resumed("x"), Code::InvalidArgument, "INVALID_RESUME_TOKEN"),
        (
            admin,
            resumed(&ahead),
            Code::InvalidArgument,
            "INVALID_RESUME_TOKEN",
        ),
        (admin, of_source(unknown), Code::NotFound, "SOURCE_NOT_FOUND"),
        (&stranger, of_source(&source), Code::NotFound, "SOURCE_NOT_FOUND"),
        (&bound, of_database, Code::PermissionDenied, "DATABASE_FORBIDDEN"),
        (
            &bound,
            of_source(&source),
            Code::PermissionDenied,
            "DATABASE_FORBIDDEN",
        ),
    ];
    for (token, request, code, expected) in cases {
        let answer = service
            .invocations(token)
            .watch_invocations(request.clone())
            .await;
        let refused = answer.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (code, expected),
            "{request:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_is_told_nothing_of_ours() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let stranger = ["--role", "owner", "--tenant", "another_tenant"];
    let stranger = scenario.deployment.create_key(&stranger);
    let strange = service
        .invocations(&stranger)
        .watch_invocations(WatchInvocationsRequest {
            include_live: true,
            ..Default::default()
        })
        .await;
    let mut strange = strange.unwrap().into_inner();
    let (mut ours, _) = open(&scenario, &service, WatchInvocationsRequest::default()).await;
    let (_, created) = scenario.pending_invocation(&service).await;
    assert_eq!(
        told(&mut ours, 1).await,
        [changed(&created.id, State::Pending, 1)]
    );
    // What comes to the stranger first is the end of the server.
    service.terminate();
    let end = loop {
        match strange.message().await {
            Ok(message) => assert_eq!(message.unwrap().kind(), Kind::Heartbeat),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (end.code(), reason(&end).as_str()),
        (Code::Unavailable, "DRAINING")
    );
}
