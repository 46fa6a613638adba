//! What a collection keeps of its model, and what a stock client makes of it.

use chroma_sync::{
    domain::embedding::{MINILM, QWEN3, Task},
    index::{Collection, CollectionSettings, EmbeddingFunction, IndexError},
};
use serde_json::{Value, json};

use super::{name, record};
use crate::harness::chroma::ChromaDatabase;

fn task(task: &str, document_prompt: &str, query_prompt: &str) -> Task {
    Task {
        name: task.to_owned(),
        document_prompt: document_prompt.to_owned(),
        query_prompt: query_prompt.to_owned(),
    }
}

async fn open(
    database: &ChromaDatabase,
    collection: &str,
    function: Option<EmbeddingFunction>,
) -> Result<Collection, IndexError> {
    let settings = CollectionSettings {
        embedding_function: function,
        dimensions: 2,
        sparse: None,
        metadata: serde_json::Map::new(),
    };
    let (client, name) = (&database.client, name(collection));
    client
        .get_or_create_collection(&database.tenant, database.name(), &name, &settings)
        .await
}

/// Queries a collection by text with nothing set up but two variables, and prints what the embedding service, which
/// is this script, was asked.
const QUERY_BY_TEXT: &str = r#"
import json, os, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

asked = []

class EmbeddingService(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked.append({"model": self.headers["x-chroma-embedding-model"], **body})
        answer = json.dumps({"embeddings": [[0.1, 0.9]] * len(body["texts"])}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass

service = HTTPServer(("127.0.0.1", 0), EmbeddingService)
threading.Thread(target=service.serve_forever, daemon=True).start()
os.environ["CHROMA_API_KEY"] = "a key"
os.environ["CHROMA_EMBED_URL"] = f"http://127.0.0.1:{service.server_port}"

import chromadb
host, port, tenant, database = sys.argv[1:]
client = chromadb.HttpClient(host=host, port=int(port), tenant=tenant, database=database)
collection = client.get_collection("NAME")
found = collection.query(query_texts=["which one?"], n_results=1)
collection.upsert(ids=["c"], documents=["a document"])
print(json.dumps({"documents": found["documents"], "space": collection.configuration["hnsw"]["space"], "asked": asked}))
"#;

#[tokio::test]
async fn a_stock_python_client_rebuilds_the_function_of_a_task_and_asks_with_its_prompts() {
    let database = ChromaDatabase::create().await;
    for (n, task) in [Task::default(), task("mine", "Represent it", "Find it")]
        .iter()
        .enumerate()
    {
        let collection_name = format!("qwen3-{n}");
        let function = EmbeddingFunction::for_model(QWEN3, Some(task));
        let collection = open(&database, &collection_name, function).await.unwrap();
        let records = [
            record("a.rs", 0, vec![1.0, 0.0], "the first", None),
            record("b.rs", 0, vec![0.0, 1.0], "the second", None),
        ];
        database.client.upsert(&collection, &records).await.unwrap();

        let seen = database.python(&QUERY_BY_TEXT.replace("NAME", &collection_name));
        let ask = |prompt: &str, text: &str| json!({"model": QWEN3, "instructions": prompt, "texts": [text]});
        let expected = json!({
            "documents": [["the second"]], "space": "cosine",
            "asked": [ask(&task.query_prompt, "which one?"), ask(&task.document_prompt, "a document")],
        });
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn a_collection_is_refused_to_a_source_whose_documents_are_told_something_else() {
    let database = ChromaDatabase::create().await;
    let told =
        |document: &str, query: &str| EmbeddingFunction::for_model(QWEN3, Some(&task("t", document, query)));
    open(&database, "told", told("d", "q")).await.unwrap();
    assert!(open(&database, "told", told("d", "other")).await.is_ok());
    for other in [told("", "q"), EmbeddingFunction::for_model(MINILM, None), None] {
        let error = open(&database, "told", other).await.unwrap_err();
        assert!(
            matches!(error, IndexError::EmbeddingFunctionMismatch { .. }),
            "{error}"
        );
        assert!(
            error.to_string().contains("with the document prompt \"d\""),
            "{error}"
        );
        assert_eq!(error.failure().reason, "EMBEDDING_FUNCTION_MISMATCH");
    }
}

#[tokio::test]
async fn a_model_that_stock_clients_do_not_know_has_a_collection_that_they_still_open() {
    let database = ChromaDatabase::create().await;
    let made = open(&database, "unknown", EmbeddingFunction::for_model("a/b", None))
        .await
        .unwrap();
    assert_eq!(made.embedding_function, None);
    let records = [record("a.rs", 0, vec![1.0, 0.0], "the only one", None)];
    database.client.upsert(&made, &records).await.unwrap();
    let seen = database.python(
        r#"
import chromadb, json, sys
host, port, tenant, database = sys.argv[1:]
client = chromadb.HttpClient(host=host, port=int(port), tenant=tenant, database=database)
collection = client.get_collection("unknown")
print(json.dumps(collection.query(query_embeddings=[[0.1, 0.9]], n_results=1)["documents"]))
"#,
    );
    assert_eq!(seen, Value::from(vec![vec!["the only one"]]));
}
