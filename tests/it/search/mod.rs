//! SearchService and EmbeddingService over gRPC and REST, and `chroma-sync search`, which goes through them.

mod surfaces;

use std::collections::BTreeMap;

use chroma_sync::{
    domain::embedding::{MINILM, QWEN3},
    index::{CollectionSettings, EmbeddingFunction, Metadata, Record},
    proto::{self, EmbeddingPurpose, embed_request::Settings, search_request::Place},
};
use prost_types::{Struct, Value as WireValue, value::Kind};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{
    git_server::{Change, Repository},
    scenario::Scenario,
    service::{Service, reason},
    stores::Backend,
};

const BRIDGES: &str = "# Bridges\n\nA suspension bridge hangs its deck from cables.\n";
const BREAD: &str = "# Bread\n\nSourdough rises slowly, without yeast from a packet.\n";
const CODE: &str =
    "/// The load that the cables of a bridge carry.\npub fn load(deck: f64) -> f64 {\n    deck * 9.81\n}\n";

/// A source whose collection `target` has three documents.
async fn synced(scenario: &Scenario, service: &Service) -> String {
    let files = [
        Change::file("bread.md", BREAD),
        Change::file("bridges.md", BRIDGES),
        Change::file("src/load.rs", CODE),
    ];
    Repository::create(&scenario.repositories(), "owner/name").commit("main", &files);
    let source = scenario.create_source(service, "owner/name").await;
    let ended = scenario.run(service, &source, "target", None).await;
    assert_eq!(ended.state(), proto::invocation::State::Complete, "{ended:?}");
    source
}

fn in_database(scenario: &Scenario, collection: &str) -> proto::SearchRequest {
    proto::SearchRequest {
        query: "how does a bridge carry its road?".to_owned(),
        place: Some(Place::DatabaseName(scenario.database())),
        collection_name: collection.to_owned(),
        ..Default::default()
    }
}

fn filter(key: &str, value: Kind) -> Option<Struct> {
    let value = WireValue { kind: Some(value) };
    Some(Struct {
        fields: BTreeMap::from([(key.to_owned(), value)]),
    })
}

async fn search(
    service: &Service,
    token: &str,
    request: proto::SearchRequest,
) -> Result<Vec<proto::SearchHit>, Status> {
    let answer = service.searches(token).search(request).await?;
    Ok(answer.into_inner().hits)
}

fn keys(hits: &[proto::SearchHit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.document_key.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nearest_chunks_come_first_with_their_place_text_and_score() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start();
    let source = synced(&scenario, &service).await;
    let request = in_database(&scenario, "target");
    let answer = service.searches(&scenario.admin).search(request.clone()).await;
    let answer = answer.unwrap().into_inner();
    assert_eq!(answer.model, MINILM);
    assert_eq!(keys(&answer.hits), ["bridges.md", "src/load.rs", "bread.md"]);
    let hit = &answer.hits[1];
    assert_eq!((hit.start_line, hit.end_line, hit.text.as_str()), (1, 4, CODE));
    let metadata = &hit.metadata.as_ref().unwrap().fields;
    let language = metadata["language"].kind.clone();
    assert_eq!(language, Some(Kind::StringValue("rust".to_owned())));
    assert_eq!(metadata["start_line"].kind, Some(Kind::NumberValue(1.0)));

    // The score is the cosine similarity of the vectors in the collection and of the query.
    let embedded = proto::EmbedRequest {
        texts: vec![request.query.clone()],
        purpose: EmbeddingPurpose::Query.into(),
        settings: Some(Settings::SourceId(source.clone())),
    };
    let query = service.embeddings(&scenario.admin).embed(embedded).await.unwrap();
    let query = query.into_inner().embeddings.remove(0).vector;
    let records = scenario.chroma.records("target").await;
    for hit in &answer.hits {
        let vector = records[&hit.id].vector.as_ref().unwrap();
        let similarity: f32 = vector.iter().zip(&query).map(|(a, b)| a * b).sum();
        assert!(
            (similarity - hit.score).abs() < 1e-4,
            "{similarity} {}",
            hit.score
        );
    }

    // By its source it is the same search.
    let by_source = proto::SearchRequest {
        place: Some(Place::SourceId(source.clone())),
        ..request.clone()
    };
    let hits = search(&service, &scenario.admin, by_source.clone())
        .await
        .unwrap();
    assert_eq!(hits, answer.hits);

    // A page of the hits, and what filters leave.
    let page = proto::SearchRequest {
        limit: 1,
        offset: 1,
        ..request.clone()
    };
    assert_eq!(
        search(&service, &scenario.admin, page).await.unwrap(),
        answer.hits[1..2]
    );
    let text = |text: &str| Kind::StringValue(text.to_owned());
    let rust = proto::SearchRequest {
        r#where: filter("language", text("rust")),
        ..request.clone()
    };
    assert_eq!(
        keys(&search(&service, &scenario.admin, rust).await.unwrap()),
        ["src/load.rs"]
    );
    let later = Kind::StructValue(filter("$gte", Kind::NumberValue(4.0)).unwrap());
    let later = proto::SearchRequest {
        r#where: filter("end_line", later),
        ..request.clone()
    };
    assert_eq!(
        keys(&search(&service, &scenario.admin, later).await.unwrap()),
        ["src/load.rs"]
    );
    let sourdough = proto::SearchRequest {
        where_document: filter("$contains", text("Sourdough")),
        ..request.clone()
    };
    let hits = search(&service, &scenario.admin, sourdough).await.unwrap();
    assert_eq!(keys(&hits), ["bread.md"]);

    // What the collection says outlives its source.
    let delete = proto::DeleteSourceRequest { source_id: source };
    service
        .sources(&scenario.admin)
        .delete_source(delete)
        .await
        .unwrap();
    assert_eq!(
        search(&service, &scenario.admin, request).await.unwrap(),
        answer.hits
    );
    let gone = search(&service, &scenario.admin, by_source).await.unwrap_err();
    assert_eq!(
        (gone.code(), reason(&gone).as_str()),
        (Code::NotFound, "SOURCE_NOT_FOUND")
    );
}

/// A collection with one record of these dimensions.
async fn collection(scenario: &Scenario, name: &str, function: EmbeddingFunction, dimensions: u32) {
    let settings = CollectionSettings {
        embedding_function: Some(function),
        dimensions,
        sparse: None,
        metadata: Metadata::new(),
    };
    let name = chroma_sync::domain::names::CollectionName::parse("name", name).unwrap();
    let chroma = &scenario.chroma;
    let made = chroma
        .client
        .get_or_create_collection(&chroma.tenant, chroma.name(), &name, &settings)
        .await
        .unwrap();
    let mut vector = vec![0.0; dimensions as usize];
    vector[0] = 1.0;
    let record = Record {
        id: "one".to_owned(),
        vector,
        document: "by hand".into(),
        metadata: Metadata::new(),
        sparse: None,
    };
    chroma.client.upsert(&made, &[record]).await.unwrap();
}

fn unknown_function() -> EmbeddingFunction {
    serde_json::from_value(json!({"name": "onnx_mini_lm_l6_v2", "config": {}})).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_this_server_cannot_embed_for_is_refused_with_what_to_do() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let refused = async |request: proto::SearchRequest| {
        let status = search(&service, &scenario.admin, request).await.unwrap_err();
        (status.code(), reason(&status), status.message().to_owned())
    };
    collection(
        &scenario,
        "qwen",
        EmbeddingFunction::for_model(QWEN3, None).unwrap(),
        1_024,
    )
    .await;
    let (code, reason, message) = refused(in_database(&scenario, "qwen")).await;
    assert_eq!(
        (code, reason.as_str()),
        (Code::FailedPrecondition, "MODEL_NOT_SERVED")
    );
    assert_eq!(
        message,
        format!("this server does not serve model {QWEN3:?}; it serves: {MINILM}")
    );

    collection(&scenario, "short", unknown_function(), 3).await;
    let (code, reason, message) = refused(in_database(&scenario, "short")).await;
    assert_eq!(
        (code, reason.as_str()),
        (Code::FailedPrecondition, "DIMENSION_MISMATCH")
    );
    assert!(
        message.contains("3 dimensions") && message.contains("384"),
        "{message}"
    );
    let contradicted = proto::SearchRequest {
        model: QWEN3.to_owned(),
        ..in_database(&scenario, "short")
    };
    let (code, reason, message) = refused(contradicted).await;
    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    assert!(
        message.starts_with(&format!("model: must be {MINILM:?}")),
        "{message}"
    );

    // One that says nothing, as other programs make it, is searched with the model that the caller names.
    scenario.chroma.python(
        r#"
import chromadb, json, sys
host, port, tenant, database = sys.argv[1:]
client = chromadb.HttpClient(host=host, port=int(port), tenant=tenant, database=database)
collection = client.create_collection("silent", embedding_function=None)
collection.add(ids=["one"], embeddings=[[1.0] + [0.0] * 383], documents=["by hand"])
print(json.dumps(None))
"#,
    );
    let (code, reason, message) = refused(in_database(&scenario, "silent")).await;
    assert_eq!(
        (code, reason.as_str()),
        (Code::FailedPrecondition, "MODEL_UNKNOWN")
    );
    assert!(message.ends_with("give model"), "{message}");
    let named = proto::SearchRequest {
        model: MINILM.to_owned(),
        ..in_database(&scenario, "silent")
    };
    let hits = search(&service, &scenario.admin, named).await.unwrap();
    assert_eq!(
        (
            hits[0].id.as_str(),
            hits[0].document_key.as_str(),
            hits[0].start_line
        ),
        ("one", "", 0)
    );
    assert_eq!(hits[0].text, "by hand");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_reaches_what_its_token_reaches() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let bound = scenario
        .deployment
        .create_key(&["--role", "member", "--database", "another"]);
    let stranger = scenario
        .deployment
        .create_key(&["--role", "admin", "--tenant", "stranger"]);
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    let by_source = proto::SearchRequest {
        place: Some(Place::SourceId(source.clone())),
        ..in_database(&scenario, "target")
    };
    let refused = async |token: &str, request: proto::SearchRequest| {
        let status = search(&service, token, request).await.unwrap_err();
        (status.code(), reason(&status))
    };
    let forbidden = (Code::PermissionDenied, "DATABASE_FORBIDDEN".to_owned());
    let missing = |reason: &str| (Code::NotFound, reason.to_owned());
    assert_eq!(refused(&bound, by_source.clone()).await, forbidden);
    assert_eq!(refused(&bound, in_database(&scenario, "target")).await, forbidden);
    assert_eq!(refused(&stranger, by_source).await, missing("SOURCE_NOT_FOUND"));
    // The database of another tenant is none of this one's.
    let theirs = refused(&stranger, in_database(&scenario, "target")).await;
    assert_eq!(theirs, missing("DATABASE_NOT_FOUND"));
    let absent = in_database(&scenario, "absent");
    assert_eq!(
        refused(&scenario.admin, absent.clone()).await,
        missing("COLLECTION_NOT_FOUND")
    );
    let without_token = (Code::Unauthenticated, "TOKEN_MISSING".to_owned());
    assert_eq!(refused("", absent).await, without_token);

    // Embedding with a source's settings is no way around.
    let embed = async |token: &str| {
        let request = proto::EmbedRequest {
            texts: vec!["a".to_owned()],
            purpose: EmbeddingPurpose::Document.into(),
            settings: Some(Settings::SourceId(source.clone())),
        };
        let status = service.embeddings(token).embed(request).await.unwrap_err();
        (status.code(), reason(&status))
    };
    assert_eq!(embed(&bound).await, forbidden);
    assert_eq!(embed(&stranger).await, missing("SOURCE_NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_search_gets_wrong_is_named() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    collection(&scenario, "target", unknown_function(), 384).await;
    let request = || in_database(&scenario, "target");
    let number = |number: f64| Kind::NumberValue(number);
    let refused = async |request: proto::SearchRequest| {
        let status = search(&service, &scenario.admin, request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        violations[0].field.clone()
    };
    type Change = fn(&mut proto::SearchRequest);
    let changes: [(&str, Change); 6] = [
        ("query", |request| request.query.clear()),
        ("database_name", |request| request.place = None),
        ("collection_name", |request| {
            request.collection_name = "a".to_owned()
        }),
        ("limit", |request| request.limit = 101),
        ("limit", |request| request.limit = -1),
        ("offset", |request| request.offset = 201),
    ];
    for (field, change) in changes {
        let mut request = request();
        change(&mut request);
        assert_eq!(refused(request).await, field);
    }
    // Chroma reads filters; what it does not read is the caller's to mend.
    for (field, mut wrong) in [("where", request()), ("where_document", request())] {
        let operator = filter("$nothing", number(1.0));
        match field {
            "where" => wrong.r#where = operator,
            _ => wrong.where_document = operator,
        }
        assert_eq!(refused(wrong).await, field);
    }
    let not_json = proto::SearchRequest {
        r#where: filter("a", number(f64::NAN)),
        ..request()
    };
    assert_eq!(refused(not_json).await, "where.a");

    let purpose = proto::EmbedRequest {
        texts: vec!["a".to_owned()],
        ..Default::default()
    };
    let status = service
        .embeddings(&scenario.admin)
        .embed(purpose)
        .await
        .unwrap_err();
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "purpose");
}
