//! Requests that are wrong by themselves: each is refused with the field that is wrong.

use chroma_sync::{
    domain::embedding::MINILM,
    proto::{self, chunking::Strategy, create_source_request::Settings, github_input::Reference},
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::harness::{
    scenario::{Scenario, invocation_request},
    service::Service,
    stores::Backend,
};

const UNKNOWN: &str = "0192e4a0-7f1c-7c3e-9a55-6a1d3c1b2f00";

/// Asserts that the call was refused, and that BadRequest names this field alone.
#[track_caller]
fn assert_names<T: std::fmt::Debug>(
    answer: Result<Response<T>, Status>,
    field: &str,
    reason: &str,
) -> Status {
    let status = answer.expect_err(field);
    assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
    assert_eq!(status.get_details_error_info().unwrap().reason, reason, "{field}");
    let violations = status.get_details_bad_request().unwrap().field_violations;
    let [violation] = violations.as_slice() else {
        panic!("{field}: {violations:?}");
    };
    assert_eq!(violation.field, field);
    let problem = &violation.description;
    assert!(
        !problem.is_empty() && status.message().ends_with(problem),
        "{status:?}"
    );
    status
}

fn github(request: &mut proto::CreateSourceRequest) -> &mut proto::GithubSource {
    match request.settings.as_mut().unwrap() {
        Settings::Github(github) => github,
        other => panic!("it is a repository: {other:?}"),
    }
}

fn tree_sitter(max_size_bytes: u32) -> Option<proto::Chunking> {
    let max_size_bytes = Some(max_size_bytes);
    Some(proto::Chunking {
        strategy: Some(Strategy::TreeSitter(proto::TreeSitterChunking { max_size_bytes })),
    })
}

fn lines(max_lines: u32, max_size_bytes: u32) -> Option<proto::Chunking> {
    Some(proto::Chunking {
        strategy: Some(Strategy::Lines(proto::LinesChunking {
            max_lines: Some(max_lines),
            max_size_bytes: Some(max_size_bytes),
        })),
    })
}

type Wrong<Request> = (&'static str, fn(&mut Request));

const WRONG_SOURCES: &[Wrong<proto::CreateSourceRequest>] = &[
    ("database_name", |r| r.database_name.clear()),
    ("database_name", |r| r.database_name = "a/b".into()),
    ("database_name", |r| r.database_name = "a\0b".into()),
    ("database_name", |r| r.database_name = "x".repeat(513)),
    ("settings", |r| r.settings = None),
    ("github.repository", |r| github(r).repository.clear()),
    ("github.repository", |r| github(r).repository = "name".into()),
    ("github.repository", |r| github(r).repository = "a/b/c".into()),
    ("github.repository", |r| github(r).repository = "../b".into()),
    ("github.repository", |r| github(r).repository = "a/b\0".into()),
    ("github.repository", |r| {
        github(r).repository = "https://gitlab.com/a/b".into();
    }),
    ("github.app_id", |r| github(r).app_id = Some("not an id".into())),
    ("github.include_globs[1]", |r| {
        github(r).include_globs = vec!["*".into(), "a[".into()];
    }),
    ("github.include_globs[0]", |r| {
        github(r).include_globs = vec![String::new()]
    }),
    ("github.include_globs[0]", |r| {
        github(r).include_globs = vec!["a\0".into()]
    }),
    ("github.include_globs[0]", |r| {
        github(r).include_globs = vec!["x".repeat(1_025)]
    }),
    ("github.include_globs", |r| {
        github(r).include_globs = vec!["*".into(); 1_001]
    }),
    ("chunking.strategy", |r| {
        r.chunking = Some(proto::Chunking::default())
    }),
    ("chunking.tree_sitter.max_size_bytes", |r| {
        r.chunking = tree_sitter(63)
    }),
    ("chunking.tree_sitter.max_size_bytes", |r| {
        r.chunking = tree_sitter(16_385)
    }),
    ("chunking.lines.max_size_bytes", |r| {
        r.chunking = lines(10, u32::MAX)
    }),
    ("chunking.lines.max_lines", |r| r.chunking = lines(0, 1_024)),
    ("chunking.lines.max_lines", |r| r.chunking = lines(16_385, 1_024)),
    ("request_id", |r| r.request_id = Some("not-a-uuid".into())),
];

const WRONG_INVOCATIONS: &[Wrong<proto::CreateInvocationRequest>] = &[
    ("source_id", |r| r.source_id.clear()),
    ("source_id", |r| r.source_id = "not-a-uuid".into()),
    // UUIDs without hyphens or in braces are written by nobody who read the contract.
    ("source_id", |r| r.source_id = UNKNOWN.replace('-', "")),
    ("source_id", |r| r.source_id = format!("{{{UNKNOWN}}}")),
    ("target_collection_name", |r| r.target_collection_name.clear()),
    ("target_collection_name", |r| {
        r.target_collection_name = "ab".into()
    }),
    ("target_collection_name", |r| {
        r.target_collection_name = "a b c".into()
    }),
    ("target_collection_name", |r| {
        r.target_collection_name = "-abc".into()
    }),
    ("target_collection_name", |r| {
        r.target_collection_name = "abc.".into()
    }),
    ("target_collection_name", |r| {
        r.target_collection_name = "x".repeat(513)
    }),
    ("github.branch", |r| refer(r, Reference::Branch(String::new()))),
    ("github.branch", |r| refer(r, Reference::Branch("a..b".into()))),
    ("github.branch", |r| refer(r, Reference::Branch("a\0".into()))),
    ("github.branch", |r| {
        refer(r, Reference::Branch("--upload-pack=x".into()))
    }),
    ("github.sha", |r| refer(r, Reference::Sha("abc".into()))),
    ("github.sha", |r| refer(r, Reference::Sha("g".repeat(40)))),
    ("request_id", |r| r.request_id = Some("not-a-uuid".into())),
];

fn refer(request: &mut proto::CreateInvocationRequest, reference: Reference) {
    request.input = Some(proto::create_invocation_request::Input::Github(
        proto::GithubInput {
            reference: Some(reference),
        },
    ));
}

const WRONG_SOURCE_LISTINGS: &[Wrong<proto::ListSourcesRequest>] = &[
    ("page_size", |r| r.page_size = -1),
    ("skip", |r| r.skip = -1),
    ("order_by", |r| r.order_by = "name".into()),
    ("order_by", |r| r.order_by = "create_time descending".into()),
    ("source_type", |r| r.source_type = 99),
    ("database_name", |r| r.database_name = "a/b".into()),
    ("github_app_id", |r| r.github_app_id = "1234".into()),
    ("github_repository", |r| r.github_repository = "owner/name".into()),
    ("github_repository", |r| {
        r.github_repository = "name".into();
        r.source_type = proto::SourceType::Github.into();
    }),
];

const WRONG_INVOCATION_LISTINGS: &[Wrong<proto::ListInvocationsRequest>] = &[
    ("page_size", |r| r.page_size = i32::MIN),
    ("skip", |r| r.skip = -1),
    ("order_by", |r| r.order_by = "CREATE_TIME".into()),
    ("source_type", |r| r.source_type = -1),
    ("state", |r| r.state = 6),
    ("source_id", |r| r.source_id = "not-a-uuid".into()),
    ("database_name", |r| r.database_name = "..".into()),
    ("database_name", |r| {
        r.source_id = UNKNOWN.into();
        r.database_name = "both".into();
    }),
];

const WRONG_DOCUMENT_LISTINGS: &[Wrong<proto::ListDocumentsRequest>] = &[
    ("invocation_id", |r| r.invocation_id = "not-a-uuid".into()),
    ("outcome", |r| r.outcome = 7),
    ("page_size", |r| r.page_size = -1),
];

fn changed<Request: Clone>(request: &Request, change: fn(&mut Request)) -> Request {
    let mut request = request.clone();
    change(&mut request);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_is_named() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let mut sources = service.sources(&scenario.admin);
    let mut invocations = service.invocations(&scenario.admin);
    let id = scenario.create_source(&service, "owner/name").await;
    let source = scenario.source_request("owner/other");
    for (field, change) in WRONG_SOURCES {
        let answer = sources.create_source(changed(&source, *change)).await;
        assert_names(answer, field, "INVALID_FIELD");
    }
    let invocation = invocation_request(&id, "target", None);
    for (field, change) in WRONG_INVOCATIONS {
        let answer = invocations.create_invocation(changed(&invocation, *change)).await;
        assert_names(answer, field, "INVALID_FIELD");
    }
    let listing = proto::ListSourcesRequest::default();
    for (field, change) in WRONG_SOURCE_LISTINGS {
        let answer = sources.list_sources(changed(&listing, *change)).await;
        assert_names(answer, field, "INVALID_FIELD");
    }
    let listing = proto::ListInvocationsRequest::default();
    for (field, change) in WRONG_INVOCATION_LISTINGS {
        let answer = invocations.list_invocations(changed(&listing, *change)).await;
        assert_names(answer, field, "INVALID_FIELD");
    }
    let listing = proto::ListDocumentsRequest {
        invocation_id: UNKNOWN.to_owned(),
        ..Default::default()
    };
    for (field, change) in WRONG_DOCUMENT_LISTINGS {
        let answer = invocations.list_documents(changed(&listing, *change)).await;
        assert_names(answer, field, "INVALID_FIELD");
    }
    let nothing = sources
        .list_sources(proto::ListSourcesRequest::default())
        .await
        .unwrap();
    assert_eq!(
        nothing.into_inner().sources.len(),
        1,
        "no refused request left anything"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_keys_and_page_tokens_that_are_wrong_are_named() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let mut sources = service.sources(&scenario.admin);
    let mut invocations = service.invocations(&scenario.admin);
    let source_id = || "not-a-uuid".to_owned();
    let get = proto::GetSourceRequest {
        source_id: source_id(),
    };
    assert_names(sources.get_source(get).await, "source_id", "INVALID_FIELD");
    let delete = proto::DeleteSourceRequest {
        source_id: source_id(),
    };
    assert_names(sources.delete_source(delete).await, "source_id", "INVALID_FIELD");
    let invocation_id = source_id();
    let get = proto::GetInvocationRequest { invocation_id };
    assert_names(
        invocations.get_invocation(get).await,
        "invocation_id",
        "INVALID_FIELD",
    );
    let invocation_id = source_id();
    let cancel = proto::CancelInvocationRequest { invocation_id };
    assert_names(
        invocations.cancel_invocation(cancel).await,
        "invocation_id",
        "INVALID_FIELD",
    );

    let cases = [
        ("source_id", source_id(), vec![]),
        ("object_keys", UNKNOWN.to_owned(), vec!["key".to_owned(); 1_001]),
        (
            "object_keys[1]",
            UNKNOWN.to_owned(),
            vec!["key".to_owned(), "k".repeat(1_025)],
        ),
        ("object_keys[0]", UNKNOWN.to_owned(), vec!["a\0".to_owned()]),
    ];
    for (field, source_id, object_keys) in cases {
        let request = proto::BatchGetLatestInvocationsRequest {
            source_id,
            object_keys,
        };
        let answer = invocations.batch_get_latest_invocations(request).await;
        assert_names(answer, field, "INVALID_FIELD");
    }

    let page_token = "damaged".to_owned();
    let listing = proto::ListSourcesRequest {
        page_token: page_token.clone(),
        ..Default::default()
    };
    let answer = sources.list_sources(listing).await;
    assert_names(answer, "page_token", "INVALID_PAGE_TOKEN");
    let listing = proto::ListInvocationsRequest {
        page_token: page_token.clone(),
        ..Default::default()
    };
    let answer = invocations.list_invocations(listing).await;
    assert_names(answer, "page_token", "INVALID_PAGE_TOKEN");
    let listing = proto::ListDocumentsRequest {
        invocation_id: UNKNOWN.to_owned(),
        page_token,
        ..Default::default()
    };
    let answer = invocations.list_documents(listing).await;
    assert_names(answer, "page_token", "INVALID_PAGE_TOKEN");
}

async fn create(
    service: &Service,
    scenario: &Scenario,
    change: fn(&mut proto::CreateSourceRequest),
) -> Result<Response<proto::Source>, Status> {
    let request = changed(&scenario.source_request("owner/name"), change);
    service.sources(&scenario.admin).create_source(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_does_not_have_is_named() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let model = create(&service, &scenario, |request| {
        let model = "nobody/nothing".to_owned();
        request.embedding = Some(proto::Embedding {
            dense: Some(proto::DenseEmbedding { model, task: None }),
            sparse: None,
        });
    })
    .await;
    let refused = assert_names(model, "embedding.dense.model", "UNKNOWN_MODEL");
    assert!(refused.message().contains(MINILM), "{refused:?}");

    let cases: [(fn(&mut proto::CreateSourceRequest), _, _, _); 2] = [
        (
            |request| github(request).app_id = Some("1234".to_owned()),
            "GITHUB_APP_NOT_FOUND",
            "github_app",
            "1234",
        ),
        (
            |request| request.database_name = "nowhere".to_owned(),
            "DATABASE_NOT_FOUND",
            "database",
            "nowhere",
        ),
    ];
    for (change, reason, kind, name) in cases {
        let refused = create(&service, &scenario, change).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
        assert_eq!(refused.get_details_error_info().unwrap().reason, reason);
        let resource = refused.get_details_resource_info().unwrap();
        assert_eq!(
            (resource.resource_type.as_str(), resource.resource_name.as_str()),
            (kind, name)
        );
    }

    let invocation = invocation_request(UNKNOWN, "target", None);
    let refused = service
        .invocations(&scenario.admin)
        .create_invocation(invocation)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(
        refused.get_details_error_info().unwrap().reason,
        "SOURCE_NOT_FOUND"
    );
}
