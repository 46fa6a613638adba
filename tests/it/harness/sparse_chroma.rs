//! A Chroma server that takes sparse vectors, as far as a single-node one can be made to look like it.
//!
//! Only Chroma's hosted service takes sparse vectors. This proxy stands before the real single-node server: it
//! keeps the requests that have a schema or sparse vectors as they came, hands them on without these, and shows the
//! schema where a collection is read. A search by dense and sparse vectors is answered with what the server finds
//! by the dense one. All else goes through unchanged.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode, Uri, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub body: Value,
}

#[derive(Clone)]
struct Shared {
    server: String,
    client: reqwest::Client,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// By id of the collection.
    schemas: Arc<Mutex<HashMap<String, Value>>>,
}

/// The proxy; it ends when dropped.
pub struct SparseChroma {
    address: SocketAddr,
    shared: Shared,
    serving: JoinHandle<()>,
}

impl Drop for SparseChroma {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl SparseChroma {
    /// Before the server at `url`.
    pub async fn before(url: &str) -> Self {
        let shared = Shared {
            server: url.trim_end_matches('/').to_owned(),
            client: reqwest::Client::new(),
            seen: Arc::default(),
            schemas: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            shared,
            serving,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Takes the requests that ended in this segment of their path, in the order in which they came.
    pub fn take(&self, segment: &str) -> Vec<Seen> {
        let ended = |seen: &mut Seen| seen.path.ends_with(&format!("/{segment}"));
        self.shared.seen.lock().unwrap().extract_if(.., ended).collect()
    }
}

/// The answer to a search whose first ranking is by the dense vector, with the scores of ranks.
async fn search(shared: &Shared, path: String, body: Value) -> Response {
    let search = &body["searches"][0];
    let ranking = &search["rank"]["$mul"][1]["$sum"][0]["$div"]["right"]["$sum"][1]["$knn"];
    let query = json!({
        "query_embeddings": [ranking["query"]], "n_results": search["limit"]["limit"],
        "where": search["filter"], "include": ["documents", "metadatas"],
    });
    let url = format!("{}{}", shared.server, path.replace("/search", "/query"));
    let found = shared.client.post(url).json(&query).send().await.unwrap();
    let found: Value = found.json().await.unwrap();
    let count = found["ids"][0].as_array().unwrap().len();
    let scores: Vec<f64> = (0..count).map(|rank| -2.0 / (60.0 + rank as f64)).collect();
    shared.seen.lock().unwrap().push(Seen { path, body });
    let answer = json!({
        "ids": found["ids"], "documents": found["documents"], "metadatas": found["metadatas"],
        "embeddings": [null], "scores": [scores], "select": [["#document", "#metadata", "#score"]],
    });
    axum::Json(answer).into_response()
}

async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    if method == Method::POST && path.ends_with("/search") {
        return search(&shared, path, serde_json::from_slice(&body).unwrap()).await;
    }
    let mut sent = body.to_vec();
    let (mut schema, mut exists) = (None, false);
    let kept = ["/collections", "/upsert", "/search"];
    if method == Method::POST && kept.iter().any(|segment| path.ends_with(segment)) {
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        let seen = Seen {
            path: path.clone(),
            body: body.clone(),
        };
        shared.seen.lock().unwrap().push(seen);
        schema = body.as_object_mut().unwrap().remove("schema");
        if let Some(name) = body["name"].as_str().filter(|_| schema.is_some()) {
            // A collection that exists keeps what it has.
            let found = shared
                .client
                .get(format!("{}{path}/{name}", shared.server))
                .send();
            exists = found.await.unwrap().status().is_success();
        }
        if let Some(schema) = &schema {
            let dense = &schema["keys"]["#embedding"]["float_list"]["vector_index"]["config"];
            body["configuration"] = json!({
                "hnsw": {"space": dense["space"]}, "embedding_function": dense["embedding_function"],
            });
        }
        for metadata in body["metadatas"].as_array_mut().into_iter().flatten() {
            let Some(metadata) = metadata.as_object_mut() else {
                continue;
            };
            metadata.retain(|_, value| value.get("#type").is_none());
        }
        sent = serde_json::to_vec(&body).unwrap();
    }
    let url = format!("{}{uri}", shared.server);
    let mut request = shared.client.request(method, url).body(sent);
    if let Some(kind) = headers.get(CONTENT_TYPE) {
        request = request.header(CONTENT_TYPE, kind);
    }
    let answer = request.send().await.unwrap();
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
    let bytes = answer.bytes().await.unwrap();
    let Ok(mut body) = serde_json::from_slice::<Value>(&bytes) else {
        return (status, bytes).into_response();
    };
    let mut schemas = shared.schemas.lock().unwrap();
    if let Some(id) = body["id"].as_str().map(str::to_owned) {
        if let (Some(schema), false) = (schema, exists) {
            schemas.entry(id.clone()).or_insert(schema);
        }
        if let Some(schema) = schemas.get(&id) {
            body["schema"] = schema.clone();
        }
    }
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
