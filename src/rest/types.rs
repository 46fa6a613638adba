//! The documented JSON, both generations at once.
//!
//! Source of every name and form: the published OpenAPI description of Chroma Sync and its older
//! overview page. A source carries its type flattened and under `source_type`; an invocation has `id`
//! and the older `invocation_id`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{extract::Object, number::whole_number};
use crate::{
    domain::{
        chunking::{Chunking, ChunkingRequest},
        embedding::{Embedding, ModelForm},
        invocation::{DEFAULT_BRANCH, GitReference, Invocation, InvocationInput, State},
        source::{GithubSource, Source, SourceSettings},
    },
    error::FieldViolation,
};

/// Body of `POST /api/v1/sources`. What is required is optional here, so that its absence can be named;
/// the types that are not served are there for the same reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateSourceBody {
    pub(super) database_name: Option<String>,
    pub(super) github: Option<Object<GithubBody>>,
    pub(super) s3: Option<Value>,
    pub(super) web_scrape: Option<Value>,
    pub(super) file_upload: Option<Value>,
    pub(super) embedding_model: Option<Value>,
    pub(super) embedding: Option<Object<EmbeddingBody>>,
    pub(super) chunking: Option<Object<ChunkingBody>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GithubBody {
    pub(super) repository: Option<String>,
    pub(super) app_id: Option<String>,
    pub(super) include_globs: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmbeddingBody {
    pub(super) dense: Option<Object<DenseBody>>,
    pub(super) sparse: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DenseBody {
    pub(super) model: String,
    pub(super) task: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ChunkingBody {
    TreeSitter {
        #[serde(default, deserialize_with = "whole_number")]
        max_size_bytes: Option<u64>,
    },
    Lines {
        #[serde(default, deserialize_with = "whole_number")]
        max_lines: Option<u64>,
        #[serde(default, deserialize_with = "whole_number")]
        max_size_bytes: Option<u64>,
    },
}

impl From<ChunkingBody> for ChunkingRequest {
    fn from(body: ChunkingBody) -> Self {
        match body {
            ChunkingBody::TreeSitter { max_size_bytes } => Self::TreeSitter { max_size_bytes },
            ChunkingBody::Lines {
                max_lines,
                max_size_bytes,
            } => Self::Lines {
                max_lines,
                max_size_bytes,
            },
        }
    }
}

/// Body of `POST /api/v1/sources/{source_id}/invocations`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateInvocationBody {
    pub(super) target_collection_name: Option<String>,
    pub(super) ref_identifier: Option<Object<ReferenceBody>>,
    pub(super) object_key: Option<Value>,
    pub(super) custom_id: Option<Value>,
    pub(super) metadata: Option<Value>,
}

/// `ref_identifier`: exactly one of the two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReferenceBody {
    branch: Option<String>,
    sha: Option<String>,
}

impl ReferenceBody {
    /// The reference; none is the default branch.
    pub(super) fn reference(self) -> Result<Option<GitReference>, FieldViolation> {
        match (self.branch, self.sha) {
            (Some(branch), None) => GitReference::branch_or_default("ref_identifier.branch", &branch),
            (None, Some(sha)) => GitReference::sha("ref_identifier.sha", &sha).map(Some),
            (Some(_), Some(_)) | (None, None) => Err(FieldViolation::new(
                "ref_identifier",
                "must have exactly one of branch and sha",
            )),
        }
    }
}

/// Body of `latest-by-keys`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LatestByKeysBody {
    pub(super) object_keys: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
pub(super) struct CreateSourceAnswer {
    pub(super) source_id: String,
}

#[derive(Debug, Serialize)]
pub(super) struct CreateInvocationAnswer {
    pub(super) invocation_id: String,
}

/// A source as the documentation has it.
pub fn source(source: Source) -> Value {
    let Source {
        id,
        tenant: _,
        database,
        settings,
        embedding,
        chunking,
        create_time,
    } = source;
    let kind = match settings {
        SourceSettings::Github(GithubSource {
            repository,
            app_id,
            include_globs,
        }) => {
            // The documented default of the globs is filled in, as that of the chunking is.
            let globs = include_globs.map_or_else(|| vec!["*".to_owned()], |globs| globs.patterns().to_vec());
            json!({"github": {
                "repository": repository.as_str(),
                "app_id": app_id.as_ref().map(|id| id.as_str()),
                "include_globs": globs,
            }})
        }
    };
    let Embedding { model, model_form } = embedding;
    let embedding_model = match model_form {
        ModelForm::String => json!(model),
        ModelForm::Object => json!({"model": model}),
    };
    let mut body = json!({
        "id": id.to_string(),
        "database_name": database.as_str(),
        "embedding_model": embedding_model,
        "embedding": {"dense": {"model": model}},
        "chunking": chunking_value(chunking),
        "created_at": create_time.to_rfc3339(),
        "source_type": kind,
    });
    flatten(&mut body, kind);
    body
}

fn chunking_value(chunking: Chunking) -> Value {
    match chunking {
        Chunking::TreeSitter { max_size_bytes } => {
            json!({"type": "tree_sitter", "max_size_bytes": max_size_bytes})
        }
        Chunking::Lines {
            max_lines,
            max_size_bytes,
        } => {
            json!({"type": "lines", "max_lines": max_lines, "max_size_bytes": max_size_bytes})
        }
    }
}

/// An invocation as the documentation has it.
pub fn invocation(invocation: &Invocation) -> Value {
    let kind = match &invocation.input {
        InvocationInput::Github { reference } => {
            let identifier = match reference {
                Some(GitReference::Branch(branch)) => json!({"branch": branch}),
                Some(GitReference::Sha(sha)) => json!({"sha": sha}),
                // The documentation requires an identifier; this is git's name for the default branch.
                None => json!({"branch": DEFAULT_BRANCH}),
            };
            json!({"github": {"git_ref_identifier": identifier}})
        }
    };
    let mut metadata = json!({
        "database_name": invocation.database.as_str(),
        "collection_name": invocation.collection.as_str(),
    });
    flatten(&mut metadata, kind);
    json!({
        "id": invocation.id.to_string(),
        "invocation_id": invocation.id.to_string(),
        "source_id": invocation.source_id.map(|id| id.to_string()),
        "status": status(&invocation.state),
        "metadata": metadata,
        "created_at": invocation.create_time.to_rfc3339(),
    })
}

/// The documented union: strings and objects mixed.
fn status(state: &State) -> Value {
    match state {
        State::Pending => json!("pending"),
        State::Processing { .. } => json!("processing"),
        State::Complete {
            start_time,
            finish_time,
        } => json!({"complete": {
            "finished_at": finish_time.to_rfc3339(),
            "duration_ms": u64::try_from(finish_time.since(*start_time).as_millis()).unwrap_or(u64::MAX),
        }}),
        State::Failed { failure, .. } => json!({"failed": {"error": failure.message}}),
        State::Cancelled { .. } => json!("cancelled"),
    }
}

fn flatten(body: &mut Value, kind: Value) {
    if let (Value::Object(body), Value::Object(kind)) = (body, kind) {
        body.extend(kind);
    }
}
