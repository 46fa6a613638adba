//! `/api/v1/embed` and `/api/v1/models`: texts of callers, in our own form.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    RestState,
    error::{RestError, RestResult},
    extract::{Caller, JsonBody, read_object, required},
};
use crate::{
    app::embedding::{EmbeddedText, EmbeddingSettings, Purpose},
    domain::texts::Texts,
    error::{Error, FieldViolation},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbedBody {
    texts: Option<Vec<String>>,
    purpose: Option<PurposeBody>,
    model: Option<String>,
    source_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PurposeBody {
    Document,
    Query,
}

#[derive(Debug, Serialize)]
struct EmbedAnswer {
    model: String,
    instruction: String,
    embeddings: Vec<EmbeddingAnswer>,
}

#[derive(Debug, Serialize)]
struct EmbeddingAnswer {
    vector: Vec<f32>,
    tokens: u32,
    truncated: bool,
}

/// `POST /api/v1/embed`.
pub(super) async fn embed(
    State(state): State<RestState>,
    Caller(auth): Caller,
    JsonBody(body): JsonBody,
) -> RestResult<Response> {
    let EmbedBody {
        texts,
        purpose,
        model,
        source_id,
    } = read_object(&body)?;
    let settings = match (model, source_id) {
        (model, None) => EmbeddingSettings::Model(model),
        (None, Some(id)) => EmbeddingSettings::Source(id.parse()?),
        (Some(_), Some(_)) => {
            let problem = "must not be given with source_id, whose model is taken";
            return Err(FieldViolation::new("model", problem).into());
        }
    };
    let purpose = match required("purpose", purpose)? {
        PurposeBody::Document => Purpose::Document,
        PurposeBody::Query => Purpose::Query,
    };
    let texts = Texts::parse("texts", required("texts", texts)?, state.app.max_texts())?;
    let embeddings = state.app.embed(&auth, settings, purpose, texts).await?;
    let answer = |text: EmbeddedText| EmbeddingAnswer {
        vector: text.vector,
        tokens: text.tokens,
        truncated: text.truncated,
    };
    json_answer(EmbedAnswer {
        model: embeddings.model.name,
        instruction: embeddings.instruction,
        embeddings: embeddings.texts.into_iter().map(answer).collect(),
    })
    .await
}

/// `GET /api/v1/models`.
pub(super) async fn models(State(state): State<RestState>, Caller(_): Caller) -> Json<Value> {
    let catalog = state.app.catalog();
    let dense = catalog.models().iter();
    let dense = dense.map(|model| {
        json!({
            "name": model.name,
            "dimensions": model.dimensions,
            "max_tokens": model.max_tokens,
            "takes_instructions": model.takes_instructions,
            "default": model.name == catalog.default_model(),
            "sparse": false,
        })
    });
    let sparse = catalog.sparse_models().iter();
    let sparse = sparse.map(|name| json!({"name": name, "default": false, "sparse": true}));
    Json(dense.chain(sparse).collect())
}

/// An answer with many numbers; writing them takes too long for a thread that others wait for.
pub(super) async fn json_answer<T: Serialize + Send + 'static>(answer: T) -> RestResult<Response> {
    let written = tokio::task::spawn_blocking(move || serde_json::to_vec(&answer)).await;
    let body = written
        .map_err(Error::internal)
        .and_then(|body| body.map_err(Error::internal))
        .map_err(RestError::from)?;
    Ok((
        [(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        body,
    )
        .into_response())
}
