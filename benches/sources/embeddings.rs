//! A server of embeddings that computes none: every text is answered at once with a vector of its own.

use axum::{Json, Router, routing::post};
use serde_json::{Value, json};

/// Name of the model that it serves.
pub const MODEL: &str = "bench/instant";
const DIMENSIONS: usize = 384;

/// Runs until the process ends.
pub struct Embeddings {
    url: String,
}

impl Embeddings {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/embeddings", post(answer));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url }
    }

    /// What makes a service ask it.
    pub fn options(&self) -> [(&'static str, String); 3] {
        let provider = format!(
            "[{{model = {MODEL:?}, provider = \"openai\", endpoints = [{:?}], dimensions = {DIMENSIONS}, \
             max_tokens = 8192, takes_instructions = false, max_batch_texts = 128}}]",
            self.url
        );
        [
            ("embedding.models", format!("[{MODEL:?}]")),
            ("embedding.default_model", MODEL.to_owned()),
            ("embedding.providers", provider),
        ]
    }
}

async fn answer(Json(request): Json<Value>) -> Json<Value> {
    let texts = match &request["input"] {
        Value::String(text) => vec![text.clone()],
        texts => serde_json::from_value(texts.clone()).unwrap(),
    };
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| json!({"object": "embedding", "index": index, "embedding": vector(text)}))
        .collect();
    Json(
        json!({"object": "list", "model": MODEL, "data": data, "usage": {"prompt_tokens": 0, "total_tokens": 0}}),
    )
}

/// Small numbers that depend on the text, so that no two are alike.
fn vector(text: &str) -> Vec<f32> {
    let mut state = text.bytes().fold(14_695_981_039_346_656_037_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(1_099_511_628_211)
    });
    (0..DIMENSIONS)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            f32::from((state >> 48) as u16) / 65_536.0 - 0.5
        })
        .collect()
}
