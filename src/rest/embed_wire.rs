//! `/embed`: the wire between Chroma's stock clients and the embedding service of Chroma Cloud.
//!
//! A client whose `CHROMA_EMBED_URL` is this path embeds with this server, whatever it would have asked of
//! Chroma Cloud. Source of the wire: `chroma_cloud_qwen_embedding_function.py` and
//! `chroma_cloud_splade_embedding_function.py` of the Python package chromadb 1.5, and the packages
//! `@chroma-core/chroma-cloud-qwen` and `-splade` 0.1 for JavaScript.
//!
//! Members that are not known are passed over, as the clients are not ours. Errors have their message as
//! `error`, since that is what the Python client shows. Absent on purpose: labels of sparse vectors, which
//! clients ask for with `fetch_tokens` and do without.

use axum::{
    extract::{FromRequest, FromRequestParts, Request, State},
    response::Response,
};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    RestState,
    embed::json_answer,
    error::{RestResult, Told},
    extract::{Caller, JsonBody, read_object, required},
};
use crate::{
    app::{App, embedding::guess_purpose},
    domain::{embedding::SparseVector, texts::Texts},
    error::FieldViolation,
};

/// The header that names the model.
const MODEL_HEADER: &str = "x-chroma-embedding-model";

#[derive(Debug, Deserialize)]
struct DenseBody {
    instructions: Option<String>,
    texts: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct SparseBody {
    texts: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct DenseAnswer {
    embeddings: Vec<Vec<f32>>,
    num_tokens: u64,
    /// Ours: texts that were longer than the model reads.
    num_truncated: usize,
}

#[derive(Debug, Serialize)]
struct SparseAnswer {
    embeddings: Vec<SparseEmbedding>,
}

#[derive(Debug, Serialize)]
struct SparseEmbedding {
    indices: Vec<u32>,
    values: Vec<f32>,
}

/// `POST /embed`, `POST /embed/`.
pub(super) async fn dense(State(state): State<RestState>, request: Request) -> Response {
    let answer = async {
        let (model, bytes) = read(&state, request).await?;
        let DenseBody { instructions, texts } = read_object(&bytes)?;
        let texts = parse(texts, &state.app)?;
        let embeddings = state
            .app
            .embed_as_told(MODEL_HEADER, &model, instructions.unwrap_or_default(), texts)
            .await?;
        json_answer(DenseAnswer {
            num_tokens: embeddings.tokens(),
            num_truncated: embeddings.truncated(),
            embeddings: embeddings.texts.into_iter().map(|text| text.vector).collect(),
        })
        .await
    };
    answer.await.unwrap_or_else(|error| error.in_form(error_body))
}

/// `POST /embed/embed_sparse`.
pub(super) async fn sparse(State(state): State<RestState>, request: Request) -> Response {
    let answer = async {
        let (model, bytes) = read(&state, request).await?;
        let SparseBody { texts } = read_object(&bytes)?;
        let texts = parse(texts, &state.app)?;
        let purpose = guess_purpose(&texts);
        let vectors = state
            .app
            .embed_sparse(MODEL_HEADER, &model, purpose, texts)
            .await?;
        let embedding = |SparseVector { indices, values }| SparseEmbedding { indices, values };
        json_answer(SparseAnswer {
            embeddings: vectors.into_iter().map(embedding).collect(),
        })
        .await
    };
    answer.await.unwrap_or_else(|error| error.in_form(error_body))
}

/// Checks who calls; the model and the body.
async fn read(state: &RestState, request: Request) -> RestResult<(String, bytes::Bytes)> {
    let (mut parts, body) = request.into_parts();
    Caller::from_request_parts(&mut parts, state).await?;
    let model = model(&parts.headers)?;
    let JsonBody(bytes) = JsonBody::from_request(Request::from_parts(parts, body), state).await?;
    Ok((model, bytes))
}

fn model(headers: &HeaderMap) -> Result<String, FieldViolation> {
    let model = headers.get(MODEL_HEADER).and_then(|value| value.to_str().ok());
    required(MODEL_HEADER, model).map(str::to_owned)
}

fn parse(texts: Option<Vec<String>>, app: &App) -> Result<Texts, FieldViolation> {
    Texts::parse("texts", required("texts", texts)?, app.max_texts())
}

fn error_body(told: Told<'_>) -> (StatusCode, serde_json::Value) {
    (told.status, json!({"error": told.message, "reason": told.reason}))
}
