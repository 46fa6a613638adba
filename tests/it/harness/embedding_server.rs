//! A server of embeddings that speaks both wires strictly, remembers what came, and fails as it is told. Its vectors
//! depend on the text alone.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    response::Response,
};
use http::{HeaderMap, Uri};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
};

use super::wait_for;

/// Length of its vectors.
pub const DIMENSIONS: usize = 4;

/// What becomes of one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status with this body, and `Retry-After` where it is given.
    Status(u16, &'static str, Option<u64>),
    /// No answer until the client gives up.
    Hang,
    /// Half of the answer, then the connection breaks.
    BreakOff,
    /// Vectors with one dimension more.
    Dimension,
    /// As Python's servers write it.
    NotFinite,
    /// The vectors in the order of their texts, backwards, with their indices.
    Backwards,
    /// The vectors as base64.
    Base64,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Received {
    /// The texts of a request of either wire.
    pub fn texts(&self) -> Vec<String> {
        let texts = self.body.get("input").or_else(|| self.body.get("texts")).unwrap();
        serde_json::from_value(texts.clone()).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// What it always refuses.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Texts with this word are refused with 400.
    pub poison: Option<&'static str>,
    /// A request with a text that has this word gets no answer until the client gives up.
    pub stall: Option<&'static str>,
    /// More texts are refused with 413.
    pub max_texts: Option<usize>,
    /// Longer texts are refused as llama.cpp does.
    pub max_bytes: Option<usize>,
    /// Another model: its vectors are turned.
    pub turned: bool,
}

struct Shared {
    rules: Rules,
    faults: Mutex<VecDeque<Fault>>,
    received: Mutex<Vec<Received>>,
    gate: Semaphore,
    under_way: watch::Sender<usize>,
}

/// A server on loopback that ends with this value.
pub struct EmbeddingServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Drop for EmbeddingServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What a text becomes: of length 1, and different for different texts.
pub fn vector_of(text: &str) -> [f32; DIMENSIONS] {
    let sum: u32 = text.bytes().map(u32::from).sum();
    let raw = [1.0, text.len() as f32, (sum % 97) as f32, (sum % 7) as f32];
    let length = raw.iter().map(|value| value * value).sum::<f32>().sqrt();
    raw.map(|value| value / length)
}

impl EmbeddingServer {
    pub async fn start(rules: Rules) -> Self {
        let shared = Arc::new(Shared {
            rules,
            faults: Mutex::default(),
            received: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            under_way: watch::Sender::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            shared,
            server,
        }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Base of OpenAI's wire.
    pub fn openai(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Base of Chroma Cloud's wire.
    pub fn chroma(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happens to the next requests, in order.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().extend(faults);
    }

    /// Takes requests and answers none, until the result is dropped.
    pub fn hold(&self) -> impl Drop + use<> {
        struct Held(Arc<Shared>, usize);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.gate.add_permits(self.1);
            }
        }
        let all = self.shared.gate.available_permits();
        Held(Arc::clone(&self.shared), self.shared.gate.forget_permits(all))
    }

    /// Everything that came so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// The texts of each request but that of the canary.
    pub fn batches(&self) -> Vec<Vec<String>> {
        let received = self.received().into_iter().map(|request| request.texts());
        received
            .filter(|texts| *texts != ["The quick brown fox jumps over the lazy dog."])
            .collect()
    }

    /// Waits until so many requests are under way at once.
    pub async fn wait_for_under_way(&self, count: usize) {
        let under_way = self.shared.under_way.subscribe();
        wait_for("requests under way", async || match *under_way.borrow() {
            seen if seen >= count => Ok(()),
            seen => Err(seen),
        })
        .await;
    }
}

/// Counts a request for as long as it lives.
struct UnderWay(Arc<Shared>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}

fn respond(status: u16, body: impl Into<Body>) -> Response {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap()
}

fn refused(status: u16, message: &str) -> Response {
    respond(
        status,
        json!({"error": {"message": message, "code": status}}).to_string(),
    )
}

/// That the body has these keys and no others.
fn has_keys(body: &Value, keys: &[&str]) -> bool {
    let mut found: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    found.sort_unstable();
    found == keys
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(body) = serde_json::from_slice::<Value>(&body) else {
        return refused(400, "the body is no JSON");
    };
    let received = Received {
        path: uri.path().to_owned(),
        headers: headers.clone(),
        body: body.clone(),
    };
    shared.received.lock().unwrap().push(received.clone());
    let is_chroma =
        headers.contains_key("x-chroma-token") && headers.contains_key("x-chroma-embedding-model");
    let is_known = match uri.path() {
        "/v1/embeddings" => has_keys(&body, &["encoding_format", "input", "model"]),
        "/" => is_chroma && has_keys(&body, &["instructions", "texts"]),
        "/embed_sparse" => is_chroma && has_keys(&body, &["fetch_tokens", "target", "task", "texts"]),
        _ => return refused(404, "no such route"),
    };
    if !is_known
        || headers
            .get("content-type")
            .is_none_or(|kind| kind != "application/json")
    {
        return refused(400, "the request is not of this wire");
    }
    let texts = received.texts();
    let fault = shared.faults.lock().unwrap().pop_front();
    shared.under_way.send_modify(|count| *count += 1);
    let counted = UnderWay(Arc::clone(&shared));
    drop(shared.gate.acquire().await.unwrap());
    drop(counted);
    match &fault {
        Some(Fault::Status(status, body, retry_after)) => {
            let mut response = respond(*status, *body);
            if let Some(seconds) = retry_after {
                response.headers_mut().insert("retry-after", (*seconds).into());
            }
            return response;
        }
        Some(Fault::Hang) => std::future::pending().await,
        _ => {}
    }
    let rules = &shared.rules;
    if rules.max_texts.is_some_and(|most| texts.len() > most) {
        return refused(413, "batch too large");
    }
    let has = |word: Option<&str>| word.is_some_and(|word| texts.iter().any(|text| text.contains(word)));
    if has(rules.stall) {
        std::future::pending::<()>().await;
    }
    if has(rules.poison) {
        return refused(400, "the input has a word that cannot be tokenized");
    }
    if rules
        .max_bytes
        .is_some_and(|most| texts.iter().any(|text| text.len() > most))
    {
        let message = "input (9 tokens) is too large to process. increase the physical batch size (current batch size: 8)";
        return refused(500, message);
    }
    let body = vectors(uri.path(), &texts, &fault, rules.turned);
    match fault {
        Some(Fault::BreakOff) => {
            let half = Bytes::from(body.as_bytes()[..body.len() / 2].to_vec());
            let parts = [Ok(half), Err(std::io::Error::other("broken off"))];
            respond(200, Body::from_stream(futures::stream::iter(parts)))
        }
        _ => respond(200, body),
    }
}

fn vectors(path: &str, texts: &[String], fault: &Option<Fault>, turned: bool) -> String {
    let dense = |text: &String| {
        let mut vector = vector_of(text).to_vec();
        if turned {
            vector.rotate_left(1);
        }
        if matches!(fault, Some(Fault::Dimension)) {
            vector.push(0.5);
        }
        // Not of length 1, as not all servers give them.
        vector.iter_mut().for_each(|value| *value *= 3.0);
        vector
    };
    let tokens: usize = texts.iter().map(|text| text.split_whitespace().count()).sum();
    let body = match path {
        "/embed_sparse" => {
            let sparse = texts
                .iter()
                .map(|text| json!({"indices": [text.len() + 1, 0], "values": [0.5, 1.5]}));
            json!({"embeddings": sparse.collect::<Vec<_>>(), "num_tokens": tokens})
        }
        "/" => json!({"embeddings": texts.iter().map(dense).collect::<Vec<_>>(), "num_tokens": tokens}),
        _ => {
            let items = texts.iter().enumerate().map(|(index, text)| {
                let vector = dense(text);
                let embedding = match fault {
                    Some(Fault::Base64) => {
                        use base64::Engine;
                        let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                        json!(base64::engine::general_purpose::STANDARD.encode(bytes))
                    }
                    _ => json!(vector),
                };
                json!({"object": "embedding", "index": index, "embedding": embedding})
            });
            let mut items: Vec<Value> = items.collect();
            if matches!(fault, Some(Fault::Backwards)) {
                items.reverse();
            }
            json!({"object": "list", "data": items, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})
        }
    };
    match fault {
        Some(Fault::NotFinite) => body
            .to_string()
            .replacen("\"embedding\":[", "\"embedding\":[NaN,", 1),
        _ => body.to_string(),
    }
}
