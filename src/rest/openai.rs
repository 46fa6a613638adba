//! `/v1/embeddings` and `/v1/models` in the form of OpenAI's API, for the many clients that speak it.
//!
//! Source: OpenAI's API reference, "Embeddings", and what its Python client 3.54 sends: it asks for base64
//! unless told otherwise. A model that takes instructions gets the texts as they are, as with other servers
//! of this API: a caller puts the instruction into the query itself. Errors have OpenAI's form too.
//! Absent on purpose: token ids in place of texts, since they are those of another model's tokenizer.

use axum::{
    extract::{FromRequest, FromRequestParts, Request, State},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    RestState,
    embed::json_answer,
    error::{RestResult, Told},
    extract::{Caller, JsonBody, read_object, required},
};
use crate::{
    app::embedding::Embeddings,
    domain::texts::Texts,
    error::{FieldViolation, Reason},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbeddingsBody {
    input: Option<Value>,
    model: Option<String>,
    #[serde(default)]
    encoding_format: EncodingFormat,
    dimensions: Option<u64>,
    /// Who the caller's own user is, which OpenAI asks for and nobody needs here.
    #[serde(rename = "user")]
    _user: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EncodingFormat {
    #[default]
    Float,
    /// Little-endian `f32`s.
    Base64,
}

#[derive(Debug, Serialize)]
struct EmbeddingsAnswer {
    object: &'static str,
    data: Vec<EmbeddingAnswer>,
    model: String,
    usage: Usage,
}

#[derive(Debug, Serialize)]
struct EmbeddingAnswer {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f32>),
    Base64(String),
}

#[derive(Debug, Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
    /// Ours: texts that were longer than the model reads.
    truncated_inputs: usize,
}

/// `POST /v1/embeddings`.
pub(super) async fn embeddings(State(state): State<RestState>, request: Request) -> Response {
    embed(&state, request)
        .await
        .unwrap_or_else(|error| error.in_form(error_body))
}

/// `GET /v1/models`.
pub(super) async fn models(State(state): State<RestState>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    if let Err(error) = Caller::from_request_parts(&mut parts, &state).await {
        return error.in_form(error_body);
    }
    let models = state.app.catalog().models().iter();
    let data: Vec<Value> = models
        .map(|model| {
            let owner = model.name.split_once('/').map_or("", |(owner, _)| owner);
            json!({"id": model.name, "object": "model", "created": 0, "owned_by": owner})
        })
        .collect();
    axum::Json(json!({"object": "list", "data": data})).into_response()
}

async fn embed(state: &RestState, request: Request) -> RestResult<Response> {
    let (mut parts, body) = request.into_parts();
    Caller::from_request_parts(&mut parts, state).await?;
    let JsonBody(bytes) = JsonBody::from_request(Request::from_parts(parts, body), state).await?;
    let EmbeddingsBody {
        input,
        model,
        encoding_format,
        dimensions,
        _user: _,
    } = read_object(&bytes)?;
    let model = required("model", model)?;
    let texts = read_input(required("input", input)?)?;
    let texts = Texts::parse("input", texts, state.app.max_texts())?;
    let mut embeddings = state
        .app
        .embed_as_told("model", &model, String::new(), texts)
        .await?;
    embeddings.shorten("dimensions", dimensions)?;
    json_answer(answer(embeddings, encoding_format)).await
}

/// A text, or an array of texts.
fn read_input(input: Value) -> Result<Vec<String>, FieldViolation> {
    let wrong = || {
        let problem = "must be a string or an array of strings; token ids are not taken, send the text";
        FieldViolation::new("input", problem)
    };
    match input {
        Value::String(text) => Ok(vec![text]),
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    Err(wrong())
                }
            })
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(wrong()),
    }
}

fn answer(embeddings: Embeddings, format: EncodingFormat) -> EmbeddingsAnswer {
    let tokens = embeddings.tokens();
    let usage = Usage {
        prompt_tokens: tokens,
        total_tokens: tokens,
        truncated_inputs: embeddings.truncated(),
    };
    let data = embeddings.texts.into_iter().enumerate();
    let data = data.map(|(index, text)| EmbeddingAnswer {
        object: "embedding",
        index,
        embedding: match format {
            EncodingFormat::Float => Vector::Floats(text.vector),
            EncodingFormat::Base64 => Vector::Base64(base64(&text.vector)),
        },
    });
    EmbeddingsAnswer {
        object: "list",
        data: data.collect(),
        model: embeddings.model.name,
        usage,
    }
}

fn base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    BASE64_STANDARD.encode(bytes)
}

fn error_body(told: Told<'_>) -> (StatusCode, Value) {
    let kind = match told.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    };
    let (status, code) = match told.reason {
        reason if reason == Reason::UnknownModel.as_str() => (StatusCode::NOT_FOUND, "model_not_found"),
        reason => (told.status, reason),
    };
    let error = json!({"message": told.message, "type": kind, "param": told.field, "code": code});
    (status, json!({"error": error}))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn texts_are_taken_and_token_ids_are_not() {
        assert_eq!(read_input(json!("a")).unwrap(), ["a"]);
        assert_eq!(read_input(json!(["a", "b"])).unwrap(), ["a", "b"]);
        for input in [
            json!([1, 2]),
            json!([[1, 2]]),
            json!(["a", 1]),
            json!({"a": 1}),
            json!(1),
        ] {
            assert_eq!(read_input(input.clone()).unwrap_err().field, "input", "{input}");
        }
    }

    #[test]
    fn base64_has_little_endian_floats() {
        assert_eq!(base64(&[1.0, -2.0]), "AACAPwAAAMA=");
    }
}
