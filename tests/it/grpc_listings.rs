//! Listings over gRPC: pages, filters, order.

use chroma_sync::proto::{self, document::Outcome, invocation::State};
use tonic::{Code, Status};

use crate::harness::{
    chroma::ChromaDatabase,
    git_server::{Change, Repository},
    scenario::Scenario,
    service::reason,
    stores::Backend,
};

#[tokio::test(flavor = "multi_thread")]
async fn sources_are_listed_in_pages_by_filter_and_order() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let other = ChromaDatabase::create().await;
    let service = scenario.deployment.start_role("api");
    let mut names = Vec::new();
    for n in 0..5 {
        names.push(format!("owner/name-{n}"));
        scenario.create_source(&service, &names[n]).await;
    }
    let mut elsewhere = scenario.source_request("owner/name-0");
    elsewhere.database_name = other.name().to_string();
    service
        .sources(&scenario.admin)
        .create_source(elsewhere)
        .await
        .unwrap();

    let list = async |request: proto::ListSourcesRequest| {
        let answer = service.sources(&scenario.admin).list_sources(request).await?;
        let proto::ListSourcesResponse {
            sources,
            next_page_token,
        } = answer.into_inner();
        let name = |source: proto::Source| match source.settings.unwrap() {
            proto::source::Settings::Github(github) => github.repository,
            other => panic!("it is a repository: {other:?}"),
        };
        let names: Vec<String> = sources.into_iter().map(name).collect();
        Ok::<_, Status>((names, next_page_token))
    };
    let in_database = |page_size, page_token: &str, skip, order_by: &str| proto::ListSourcesRequest {
        database_name: scenario.database(),
        page_size,
        page_token: page_token.to_owned(),
        skip,
        order_by: order_by.to_owned(),
        ..Default::default()
    };

    let (first, token) = list(in_database(2, "", 0, "create_time")).await.unwrap();
    assert_eq!(first, names[..2]);
    // The size may change from page to page; a skip counts from the start of the page.
    let (rest, end) = list(in_database(3, &token, 0, "create_time")).await.unwrap();
    assert_eq!((&rest[..], end.as_str()), (&names[2..], ""));
    let (skipped, _) = list(in_database(2, &token, 1, "create_time")).await.unwrap();
    assert_eq!(skipped, names[3..]);
    let (newest, _) = list(in_database(0, "", 1, "")).await.unwrap();
    let backwards: Vec<String> = names[..4].iter().rev().cloned().collect();
    assert_eq!(newest, backwards);
    assert_eq!(
        list(in_database(5_000, "", 0, "create_time desc"))
            .await
            .unwrap()
            .0
            .len(),
        5
    );

    let of_repository = |app_id: &str| proto::ListSourcesRequest {
        source_type: proto::SourceType::Github.into(),
        github_repository: "https://github.com/Owner/NAME-0".to_owned(),
        github_app_id: app_id.to_owned(),
        ..Default::default()
    };
    assert_eq!(
        list(of_repository("")).await.unwrap().0,
        ["owner/name-0", "owner/name-0"]
    );
    assert_eq!(list(of_repository("1234")).await.unwrap().0, [""; 0]);

    let other_order = in_database(2, &token, 0, "create_time desc");
    let other_filter = proto::ListSourcesRequest {
        database_name: String::new(),
        ..in_database(2, &token, 0, "create_time")
    };
    for request in [other_order, other_filter] {
        let refused = list(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(reason(&refused), "INVALID_PAGE_TOKEN");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invocations_are_listed_by_source_database_and_state() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let one = scenario.create_source(&service, "owner/one").await;
    let two = scenario.create_source(&service, "owner/two").await;
    let mut ids = Vec::new();
    for (source, collection) in [(&one, "first"), (&one, "second"), (&two, "third")] {
        let created = scenario
            .create_invocation(&service, source, collection)
            .await
            .unwrap();
        ids.push(created.id);
    }
    let mut client = service.invocations(&scenario.admin);
    let cancel = proto::CancelInvocationRequest {
        invocation_id: ids[1].clone(),
    };
    client.cancel_invocation(cancel).await.unwrap();

    let list = async |change: fn(&mut proto::ListInvocationsRequest)| {
        let mut request = proto::ListInvocationsRequest {
            source_id: one.clone(),
            order_by: "create_time".to_owned(),
            ..Default::default()
        };
        change(&mut request);
        if request.database_name == "this" {
            request.database_name = scenario.database();
        }
        let answer = service
            .invocations(&scenario.admin)
            .list_invocations(request)
            .await?;
        let answer = answer.into_inner();
        let found: Vec<String> = answer.invocations.into_iter().map(|found| found.id).collect();
        Ok::<_, Status>((found, answer.next_page_token))
    };
    assert_eq!(list(|_| ()).await.unwrap().0, ids[..2]);
    let cancelled = list(|request| request.state = State::Cancelled.into()).await;
    assert_eq!(cancelled.unwrap().0, ids[1..2]);
    let all = list(|request| {
        request.source_id.clear();
        request.database_name = "this".to_owned();
        request.source_type = proto::SourceType::Github.into();
    })
    .await;
    assert_eq!(all.unwrap().0, ids);
    let (page, token) = list(|request| {
        request.source_id.clear();
        request.page_size = 2;
        request.skip = 1;
    })
    .await
    .unwrap();
    assert_eq!((&page[..], token.as_str()), (&ids[1..], ""));

    let both = list(|request| request.database_name = "this".to_owned())
        .await
        .unwrap_err();
    assert_eq!(
        (both.code(), reason(&both).as_str()),
        (Code::InvalidArgument, "INVALID_FIELD")
    );
    let missing = list(|request| "0192e4a0-7f1c-7c3e-9a55-6a1d3c1b2f00".clone_into(&mut request.source_id))
        .await
        .unwrap_err();
    assert_eq!(
        (missing.code(), reason(&missing).as_str()),
        (Code::NotFound, "SOURCE_NOT_FOUND")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_listed_in_pages_by_outcome() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    let mut files: Vec<Change> = (0..5)
        .map(|n| Change::file(format!("{n}.txt"), "text\n"))
        .collect();
    files.push(Change::file("binary.bin", b"\0"));
    repository.commit("main", &files);
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let ended = scenario.run(&service, &source, "target", None).await;
    assert_eq!(ended.state(), State::Complete, "{:?}", ended.failure);

    let list = async |outcome: Outcome, page_size, page_token: &str| {
        let request = proto::ListDocumentsRequest {
            invocation_id: ended.id.clone(),
            outcome: outcome.into(),
            page_size,
            page_token: page_token.to_owned(),
        };
        let answer = service
            .invocations(&scenario.admin)
            .list_documents(request)
            .await?;
        let answer = answer.into_inner();
        let keys: Vec<String> = answer
            .documents
            .into_iter()
            .map(|document| document.document_key)
            .collect();
        Ok::<_, Status>((keys, answer.next_page_token))
    };
    let (one, token) = list(Outcome::Indexed, 2, "").await.unwrap();
    let (two, token) = list(Outcome::Indexed, 2, &token).await.unwrap();
    let refused = list(Outcome::Skipped, 2, &token).await.unwrap_err();
    let (three, end) = list(Outcome::Indexed, 2, &token).await.unwrap();
    assert_eq!(
        [one, two, three].concat(),
        ["0.txt", "1.txt", "2.txt", "3.txt", "4.txt"]
    );
    assert_eq!(end, "");
    assert_eq!(reason(&refused), "INVALID_PAGE_TOKEN");
    let (skipped, end) = list(Outcome::Skipped, 1, "").await.unwrap();
    assert_eq!((skipped, end.as_str()), (vec!["binary.bin".to_owned()], ""));
    assert_eq!(list(Outcome::Unspecified, 6, "").await.unwrap().0.len(), 6);
}
