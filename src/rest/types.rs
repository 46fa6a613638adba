//! The documented JSON, both generations at once.
//!
//! Source of every name and form: the published OpenAPI description of Chroma Sync and its older
//! overview page. A source carries its type flattened and under `source_type`; an invocation has `id`
//! and the older `invocation_id`.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    extract::{Object, required},
    number::whole_number,
    source_settings::{self, GithubBody, S3Body, WebScrapeBody},
};
use crate::json::flatten;
pub use crate::json::invocation;
use crate::{
    domain::{
        chunking::{Chunking, ChunkingRequest},
        embedding::{Embedding, ModelForm, SparseRequest, SparseSettings, Task, TaskRequest},
        invocation::GitReference,
        source::Source,
        webhook::{Webhook, WebhookUrl, parse_signing_secret},
    },
    error::FieldViolation,
};

/// Body of `POST /api/v1/sources`. What is required is optional here, so that its absence can be named;
/// the type that cannot be created is there for the same reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateSourceBody {
    pub(super) database_name: Option<String>,
    pub(super) github: Option<Object<GithubBody>>,
    pub(super) s3: Option<Object<S3Body>>,
    pub(super) web_scrape: Option<Object<WebScrapeBody>>,
    pub(super) file_upload: Option<Value>,
    pub(super) embedding_model: Option<Value>,
    pub(super) embedding: Option<Object<EmbeddingBody>>,
    pub(super) chunking: Option<Object<ChunkingBody>>,
    pub(super) webhook: Option<Object<WebhookBody>>,
}

/// A webhook to send state changes to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookBody {
    url: Option<String>,
    signing_secret: Option<String>,
}

/// Prints nothing of it: the secret is one, and the URL may hold one.
impl fmt::Debug for WebhookBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WebhookBody")
    }
}

impl WebhookBody {
    /// The webhook, checked.
    pub(super) fn read(self) -> Result<Webhook, FieldViolation> {
        let url = required("webhook.url", self.url)?;
        let secret = self
            .signing_secret
            .map(|secret| parse_signing_secret("webhook.signing_secret", &secret))
            .transpose()?;
        Ok(Webhook::requested(
            WebhookUrl::parse("webhook.url", &url)?,
            secret,
        ))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmbeddingBody {
    pub(super) dense: Option<Object<DenseBody>>,
    pub(super) sparse: Option<Object<SparseBody>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DenseBody {
    pub(super) model: String,
    pub(super) task: Option<Object<TaskBody>>,
}

/// What a model that takes instructions is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskBody {
    task_name: Option<String>,
    document_prompt: Option<String>,
    query_prompt: Option<String>,
}

impl From<TaskBody> for TaskRequest {
    fn from(body: TaskBody) -> Self {
        let TaskBody {
            task_name,
            document_prompt,
            query_prompt,
        } = body;
        Self {
            task_name,
            document_prompt,
            query_prompt,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SparseBody {
    model: Option<String>,
    key: Option<String>,
}

impl From<SparseBody> for SparseRequest {
    fn from(body: SparseBody) -> Self {
        let SparseBody { model, key } = body;
        Self { model, key }
    }
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
    pub(super) object_key: Option<String>,
    pub(super) custom_id: Option<String>,
    pub(super) metadata: Option<Value>,
    pub(super) sync_prefix: Option<bool>,
    pub(super) update_collection: Option<bool>,
    pub(super) webhook: Option<Object<WebhookBody>>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) webhook: Option<CreatedWebhook>,
}

#[derive(Debug, Serialize)]
pub(super) struct CreateInvocationAnswer {
    pub(super) invocation_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) webhook: Option<CreatedWebhook>,
}

/// The secret that the server made; shown in this answer alone.
#[derive(Serialize)]
pub(super) struct CreatedWebhook {
    signing_secret: String,
}

impl fmt::Debug for CreatedWebhook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CreatedWebhook")
    }
}

impl CreatedWebhook {
    /// None where the server made no secret.
    pub(super) fn of(webhook: Option<&Webhook>) -> Option<Self> {
        let made = webhook?.signing_secret.as_ref()?;
        Some(Self {
            signing_secret: made.expose().to_owned(),
        })
    }
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
        webhook,
    } = source;
    let kind = source_settings::value(settings);
    let Embedding {
        model,
        model_form,
        task,
        sparse,
    } = embedding;
    let mut dense = json!({"model": model});
    if let Some(task) = task {
        flatten(&mut dense, json!({"task": task_value(task)}));
    }
    let embedding_model = match model_form {
        ModelForm::String => json!(model),
        ModelForm::Object => dense.clone(),
    };
    let mut embedding = json!({"dense": dense});
    if let Some(SparseSettings { model, key }) = sparse {
        flatten(&mut embedding, json!({"sparse": {"model": model, "key": key}}));
    }
    let mut body = json!({
        "id": id.to_string(),
        "database_name": database.as_str(),
        "embedding_model": embedding_model,
        "embedding": embedding,
        "chunking": chunking_value(chunking),
        "created_at": create_time.to_rfc3339(),
        "source_type": kind,
    });
    flatten(&mut body, kind);
    if let Some(Webhook { url, .. }) = webhook {
        flatten(&mut body, json!({"webhook": {"url": url.as_str()}}));
    }
    body
}

fn task_value(task: Task) -> Value {
    let Task {
        name,
        document_prompt,
        query_prompt,
    } = task;
    json!({"task_name": name, "document_prompt": document_prompt, "query_prompt": query_prompt})
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
