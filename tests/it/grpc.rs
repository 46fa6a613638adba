//! Sources and invocations over gRPC: what the contract in `proto/` says of each method.

use chroma_sync::{
    domain::{embedding::MINILM, names::CollectionName},
    index::{CollectionSettings, EmbeddingFunction},
    proto::{self, chunking::Strategy, create_source_request::Settings, invocation::State},
};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::harness::{
    git_server::{Change, Repository},
    scenario::{Scenario, invocation_request},
    service::Service,
    stores::{Backend, on_both},
};

/// Reason and metadata of `ErrorInfo`, which every error has.
fn info(status: &Status) -> (String, std::collections::HashMap<String, String>) {
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "chroma-sync");
    (info.reason, info.metadata)
}

/// Asserts code, reason, and one entry of the metadata.
#[track_caller]
fn assert_refused(status: &Status, code: Code, reason: &str, (key, value): (&str, &str)) {
    assert_eq!(status.code(), code, "{status:?}");
    let (found, metadata) = info(status);
    assert_eq!(found, reason);
    assert_eq!(metadata.get(key).map(String::as_str), Some(value), "{metadata:?}");
}

fn get_source(id: &str) -> proto::GetSourceRequest {
    proto::GetSourceRequest {
        source_id: id.to_owned(),
    }
}

fn get_invocation(id: &str) -> proto::GetInvocationRequest {
    proto::GetInvocationRequest {
        invocation_id: id.to_owned(),
    }
}

async fn create(
    scenario: &Scenario,
    service: &Service,
    request: proto::CreateSourceRequest,
) -> Result<proto::Source, Status> {
    let answer = service.sources(&scenario.admin).create_source(request).await?;
    Ok(answer.into_inner())
}

async fn delete(scenario: &Scenario, service: &Service, id: &str) -> Result<(), Status> {
    let request = proto::DeleteSourceRequest {
        source_id: id.to_owned(),
    };
    service.sources(&scenario.admin).delete_source(request).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_created_read_listed_and_deleted() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let mut request = scenario.source_request("https://github.com/owner/name.git");
    request.chunking = Some(proto::Chunking {
        strategy: Some(Strategy::Lines(proto::LinesChunking {
            max_lines: Some(7),
            max_size_bytes: None,
        })),
    });
    let created = create(&scenario, &service, request).await.unwrap();
    let expected = proto::Source {
        id: created.id.clone(),
        database_name: scenario.database(),
        settings: Some(proto::source::Settings::Github(proto::GithubSource {
            repository: "owner/name".to_owned(),
            app_id: None,
            include_globs: vec![],
        })),
        embedding: Some(proto::Embedding {
            dense: Some(proto::DenseEmbedding {
                model: MINILM.to_owned(),
                task: None,
            }),
            sparse: None,
        }),
        chunking: Some(proto::Chunking {
            strategy: Some(Strategy::Lines(proto::LinesChunking {
                max_lines: Some(7),
                max_size_bytes: Some(1_024),
            })),
        }),
        create_time: created.create_time,
        webhook: None,
    };
    assert_eq!(created, expected);
    assert_eq!(Uuid::try_parse(&created.id).unwrap().get_version_num(), 7);

    let mut sources = service.sources(&scenario.admin);
    let read = sources
        .get_source(get_source(&created.id))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(read, expected);
    let listed = sources
        .list_sources(proto::ListSourcesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (listed.sources, listed.next_page_token),
        (vec![expected], String::new())
    );

    delete(&scenario, &service, &created.id).await.unwrap();
    let gone = sources.get_source(get_source(&created.id)).await.unwrap_err();
    let about = ("source_id", created.id.as_str());
    assert_refused(&gone, Code::NotFound, "SOURCE_NOT_FOUND", about);
    let resource = gone.get_details_resource_info().unwrap();
    assert_eq!(
        (resource.resource_type.as_str(), &resource.resource_name),
        ("source", &created.id)
    );
    let again = delete(&scenario, &service, &created.id).await.unwrap_err();
    assert_refused(&again, Code::NotFound, "SOURCE_NOT_FOUND", about);
}

on_both!(
    a_source_with_the_same_settings_is_refused_with_the_id_of_the_first,
    same_settings_on
);
async fn same_settings_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let service = scenario.deployment.start_role("api");
    let request = |repository: &str, globs: &[&str]| {
        let mut request = scenario.source_request(repository);
        if let Some(Settings::Github(github)) = &mut request.settings {
            github.include_globs = globs.iter().map(|glob| (*glob).to_owned()).collect();
        }
        request
    };
    let first = create(&scenario, &service, request("owner/name", &["*.rs", "*.md"]))
        .await
        .unwrap();
    for repository in ["owner/name", "Owner/Name", "https://github.com/owner/name.git"] {
        let again = create(
            &scenario,
            &service,
            request(repository, &["*.md", "*.rs", "*.md"]),
        )
        .await;
        let refused = again.unwrap_err();
        let about = ("source_id", first.id.as_str());
        assert_refused(&refused, Code::AlreadyExists, "SOURCE_EXISTS", about);
        let resource = refused.get_details_resource_info().unwrap();
        assert_eq!(
            (resource.resource_type.as_str(), &resource.resource_name),
            ("source", &first.id)
        );
    }
    let other = create(&scenario, &service, request("owner/name", &["*.rs"]))
        .await
        .unwrap();
    assert_ne!(other.id, first.id);
    delete(&scenario, &service, &first.id).await.unwrap();
    let new = create(&scenario, &service, request("owner/name", &["*.rs", "*.md"]))
        .await
        .unwrap();
    assert_ne!(new.id, first.id);
}

on_both!(a_repeated_request_id_creates_nothing_twice, request_id_on);
async fn request_id_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "a\n")]);
    let service = scenario.deployment.start();
    let request = |repository: &str, id: &str| {
        let mut request = scenario.source_request(repository);
        request.request_id = Some(id.to_owned());
        request
    };
    let (one, two) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
    let source = create(&scenario, &service, request("owner/name", &one))
        .await
        .unwrap();
    let repeated = create(&scenario, &service, request("owner/name", &one))
        .await
        .unwrap();
    assert_eq!(repeated, source);
    let reused = create(&scenario, &service, request("owner/other", &one))
        .await
        .unwrap_err();
    assert_eq!(
        (reused.code(), info(&reused).0.as_str()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );
    let same_settings = create(&scenario, &service, request("owner/name", &two))
        .await
        .unwrap_err();
    assert_eq!(info(&same_settings).0, "SOURCE_EXISTS");

    let invoke = async |collection: &str| {
        let mut request = invocation_request(&source.id, collection, None);
        request.request_id = Some(one.clone());
        let answer = service
            .invocations(&scenario.admin)
            .create_invocation(request)
            .await?;
        Ok::<_, Status>(answer.into_inner())
    };
    let created = invoke("target").await.unwrap();
    let reused = invoke("other").await.unwrap_err();
    assert_eq!(
        (reused.code(), info(&reused).0.as_str()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );
    let ended = scenario.watch(&service, &created.id).await;
    let ended = ended.last().unwrap().invocation.clone().unwrap();
    assert_eq!(ended.state(), State::Complete, "{:?}", ended.failure);
    // The caller that lost the first answer learns what became of it, although the collection is finished.
    assert_eq!(invoke("target").await.unwrap(), ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn invocations_of_a_deleted_source_go_on_without_a_source_id() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "a\n")]);
    let api = scenario.deployment.start_role("api");
    let (source, created) = scenario.pending_invocation(&api).await;
    assert_eq!(created.source_id, Some(source.clone()));
    delete(&scenario, &api, &source).await.unwrap();

    let mut client = api.invocations(&scenario.admin);
    let left = client
        .get_invocation(get_invocation(&created.id))
        .await
        .unwrap()
        .into_inner();
    let expected = proto::Invocation {
        source_id: None,
        ..created.clone()
    };
    assert_eq!(left, expected);
    let watching = scenario.start_watch(&api, &created.id).await;
    let _worker = scenario.deployment.start_role("worker");
    let ended = watching.await.unwrap().pop().unwrap().invocation.unwrap();
    assert_eq!((ended.state(), &ended.source_id), (State::Complete, &None));
    assert_eq!(scenario.chroma.text_of("target", "a.txt").await, "a\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_another_node_deleted_is_not_found_by_a_node_that_used_it() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let api = scenario.deployment.start_role("api");
    let (source, _) = scenario.pending_invocation(&api).await;
    let other = scenario.deployment.start_role("api");
    delete(&scenario, &other, &source).await.unwrap();
    // The first into a collection that is busy as well, the second and the third into one that is not.
    for collection in ["target", "free", "free"] {
        let refused = scenario.create_invocation(&api, &source, collection).await;
        let about = ("source_id", source.as_str());
        assert_refused(&refused.unwrap_err(), Code::NotFound, "SOURCE_NOT_FOUND", about);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_invocations_of_a_repository_are_an_empty_map() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    scenario
        .create_invocation(&service, &source, "target")
        .await
        .unwrap();
    let latest = async |source_id: &str, object_keys: Vec<String>| {
        let request = proto::BatchGetLatestInvocationsRequest {
            source_id: source_id.to_owned(),
            object_keys,
        };
        let answer = service
            .invocations(&scenario.admin)
            .batch_get_latest_invocations(request)
            .await?;
        Ok::<_, Status>(answer.into_inner().invocations)
    };
    let keys = vec!["a".to_owned(), "b/ü".to_owned(), "a".to_owned()];
    assert!(latest(&source, keys).await.unwrap().is_empty());
    assert!(
        latest(&source, vec!["k".repeat(1_024); 1_000])
            .await
            .unwrap()
            .is_empty()
    );
    let unknown = "0192e4a0-7f1c-7c3e-9a55-6a1d3c1b2f00";
    let missing = latest(unknown, vec![]).await.unwrap_err();
    assert_refused(
        &missing,
        Code::NotFound,
        "SOURCE_NOT_FOUND",
        ("source_id", unknown),
    );
}

on_both!(an_invocation_is_cancelled_once, cancelled_once_on);
async fn cancelled_once_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let service = scenario.deployment.start_role("api");
    let (_, created) = scenario.pending_invocation(&service).await;
    let mut client = service.invocations(&scenario.admin);
    let request = proto::CancelInvocationRequest {
        invocation_id: created.id.clone(),
    };
    let cancelled = client
        .cancel_invocation(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!((cancelled.state(), cancelled.revision), (State::Cancelled, 2));
    assert!(cancelled.finish_time.is_some() && cancelled.start_time.is_none());
    let read = client.get_invocation(get_invocation(&created.id)).await.unwrap();
    assert_eq!(read.into_inner(), cancelled);

    let refused = client.cancel_invocation(request).await.unwrap_err();
    let about = ("state", "cancelled");
    assert_refused(
        &refused,
        Code::FailedPrecondition,
        "INVOCATION_NOT_CANCELABLE",
        about,
    );
    let failure = refused.get_details_precondition_failure().unwrap();
    let [violation] = failure.violations.as_slice() else {
        panic!("one violation: {failure:?}");
    };
    assert_eq!(
        (violation.r#type.as_str(), &violation.subject),
        ("STATE", &created.id)
    );
    assert_eq!(violation.description, refused.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_invocations_created_at_once_those_into_finished_collections_are_refused() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    let settings = CollectionSettings {
        embedding_function: EmbeddingFunction::for_model(MINILM, None),
        dimensions: 384,
        sparse: None,
        metadata: [("finished_ingest".to_owned(), json!(true))]
            .into_iter()
            .collect(),
    };
    let name = |n: usize| format!("collection-{n}");
    let finished = [3, 20];
    for n in finished {
        let name = CollectionName::parse("name", &name(n)).unwrap();
        let chroma = &scenario.chroma;
        let made = chroma
            .client
            .get_or_create_collection(&chroma.tenant, chroma.name(), &name, &settings)
            .await;
        made.unwrap();
    }
    let creations = (0..40).map(|n| {
        let (name, service, scenario, source) = (name(n), &service, &scenario, &source);
        async move { scenario.create_invocation(service, source, &name).await }
    });
    let ended = futures::future::join_all(creations).await;
    let refused: Vec<usize> = (0..ended.len()).filter(|n| ended[*n].is_err()).collect();
    assert_eq!(refused, finished);
    for status in ended.into_iter().filter_map(Result::err) {
        assert_eq!(
            status.get_details_error_info().unwrap().reason,
            "COLLECTION_FINISHED"
        );
    }
}
