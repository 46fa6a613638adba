//! Hybrid search: what is sent is what Chroma's own client sends, and where it cannot be, that is said.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use chroma_sync::{
    domain::embedding::BM25,
    embed::Bm25,
    proto::{self, invocation::State, search_request::Place},
};
use prost_types::{Struct, Value as WireValue, value::Kind};
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::{
    git_server::{Change, Repository},
    scenario::Scenario,
    service::{Service, reason},
    sparse_chroma::SparseChroma,
    stock_clients::client,
    stores::Backend,
};

const QUESTION: &str = "how does a bridge carry its road?";
const BRIDGES: &str = "# Bridges\n\nA suspension bridge hangs its deck from cables.\n";

async fn synced(scenario: &Scenario, service: &Service, sparse: Option<proto::SparseEmbedding>) {
    let files = [
        Change::file("bread.md", "# Bread\n\nSourdough rises slowly.\n"),
        Change::file("bridges.md", BRIDGES),
        Change::file("load.rs", "pub fn load(deck: f64) -> f64 {\n    deck * 9.81\n}\n"),
    ];
    Repository::create(&scenario.repositories(), "owner/name").commit("main", &files);
    let mut request = scenario.source_request("owner/name");
    request.embedding = Some(proto::Embedding { dense: None, sparse });
    let mut sources = service.sources(&scenario.admin);
    let source = sources.create_source(request).await.unwrap().into_inner();
    let ended = scenario.run(service, &source.id, "target", None).await;
    assert_eq!(ended.state(), State::Complete, "{ended:?}");
}

fn request(scenario: &Scenario) -> proto::SearchRequest {
    proto::SearchRequest {
        query: QUESTION.to_owned(),
        place: Some(Place::DatabaseName(scenario.database())),
        collection_name: "target".to_owned(),
        hybrid: true,
        limit: 2,
        ..Default::default()
    }
}

/// `{key: {"$eq": value}}`
fn equals(key: &str, value: &str) -> Struct {
    let of = |key: &str, kind: Kind| Struct {
        fields: [(key.to_owned(), WireValue { kind: Some(kind) })].into(),
    };
    of(
        key,
        Kind::StructValue(of("$eq", Kind::StringValue(value.to_owned()))),
    )
}

/// What Chroma's own client makes of a search.
fn of_the_stock_client(asked: &Value) -> Value {
    let mut command: Command = client("hybrid_search.py");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(asked.to_string().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn dense_and_sparse_ranks_are_fused_with_the_search_that_the_stock_client_sends() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let chroma = SparseChroma::before(scenario.chroma.url()).await;
    let deployment = scenario.deployment.clone().with("chroma.url", &chroma.url());
    let service = deployment.start();
    let sparse = proto::SparseEmbedding {
        model: BM25.to_owned(),
        key: "sparse_embedding".to_owned(),
    };
    synced(&scenario, &service, Some(sparse)).await;
    let asked = proto::SearchRequest {
        r#where: Some(equals("language", "markdown")),
        ..request(&scenario)
    };
    let found = service
        .searches(&scenario.admin)
        .search(asked)
        .await
        .unwrap()
        .into_inner();
    let keys: Vec<&str> = found.hits.iter().map(|hit| hit.document_key.as_str()).collect();
    assert_eq!(keys, ["bridges.md", "bread.md"]);
    assert_eq!(
        (found.hits[0].start_line, found.hits[0].text.as_str()),
        (1, BRIDGES)
    );
    assert!(
        (found.hits[0].score - 2.0 / 60.0).abs() < 1e-6,
        "{}",
        found.hits[0].score
    );

    let [seen] = &mut chroma.take("search")[..] else {
        panic!("there was one search")
    };
    assert_eq!(seen.body["read_level"], "index_and_wal");
    let sent = seen.body["searches"][0].take();
    let vector = &sent["rank"]["$mul"][1]["$sum"][0]["$div"]["right"]["$sum"][1]["$knn"]["query"];
    assert_eq!(vector.as_array().unwrap().len(), 384);
    let words = Bm25::vector(QUESTION);
    let expected = of_the_stock_client(&json!({
        "vector": vector, "key": "sparse_embedding", "indices": words.indices, "values": words.values,
        "where": {"language": {"$eq": "markdown"}}, "ranked": 100, "limit": 2, "offset": 0,
    }));
    assert_eq!(sent, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_no_sparse_vectors_a_hybrid_search_is_refused() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start();
    synced(&scenario, &service, None).await;
    let refused = service
        .searches(&scenario.admin)
        .search(request(&scenario))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::FailedPrecondition, "HYBRID_UNAVAILABLE")
    );
    assert!(
        refused
            .message()
            .ends_with("search collection target without hybrid"),
        "{refused:?}"
    );
}
