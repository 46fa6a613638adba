//! Invocations, their events and the hits of searches as JSON: what REST answers and streams, what webhooks get, and
//! what the command line prints.
//!
//! Source of every name and form: the published OpenAPI description of Chroma Sync and its older overview
//! page. What they do not have comes in fields of its own, and only where it applies.

use serde_json::{Map, Value, json};

use crate::domain::{
    invocation::{DEFAULT_BRANCH, GitReference, Invocation, InvocationInput, S3Objects, State, UploadedFile},
    s3::{BucketName, CustomId},
    search::SearchHit,
    time::Timestamp,
    user_metadata::UserMetadata,
    webhook::WebhookDelivery,
};

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
        InvocationInput::S3 { bucket, objects } => json!({"s3": s3(bucket, objects)}),
        InvocationInput::WebScrape => json!({"web_scrape": null}),
        InvocationInput::FileUpload(UploadedFile {
            upload_id: _,
            file_name,
            custom_id,
            metadata,
            content_type,
            content_sha256: _,
            size_bytes,
        }) => json!({"file_upload": {
            "file_name": file_name.as_str(),
            "custom_id": custom_id.as_ref().map(CustomId::as_str),
            "additional_metadata": some_metadata(metadata),
            "content_type": content_type,
            "size_bytes": size_bytes,
        }}),
    };
    let mut metadata = json!({
        "database_name": invocation.database.as_str(),
        "collection_name": invocation.collection.as_str(),
    });
    flatten(&mut metadata, kind);
    let mut body = json!({
        "id": invocation.id.to_string(),
        "invocation_id": invocation.id.to_string(),
        "source_id": invocation.source_id.map(|id| id.to_string()),
        "status": status(&invocation.state),
        "metadata": metadata,
        "created_at": invocation.create_time.to_rfc3339(),
    });
    if let Some(webhook) = &invocation.webhook {
        flatten(&mut body, json!({"webhook": {"url": webhook.url.as_str()}}));
    }
    if let Some(delivery) = &invocation.webhook_delivery {
        flatten(&mut body, json!({"webhook_delivery": webhook_delivery(delivery)}));
    }
    body
}

/// Which objects of a bucket. The documentation knows single objects alone, so the others say it in a field
/// of their own.
fn s3(bucket: &BucketName, objects: &S3Objects) -> Value {
    let mut body = json!({
        "bucket_name": bucket.as_str(),
        "object_key": null,
        "custom_id": null,
        "additional_metadata": null,
    });
    let more = match objects {
        S3Objects::Object {
            key,
            custom_id,
            metadata,
        } => json!({
            "object_key": key.as_str(),
            "custom_id": custom_id.as_ref().map(CustomId::as_str),
            "additional_metadata": some_metadata(metadata),
        }),
        S3Objects::Removed { key } => json!({"object_key": key.as_str(), "removed": true}),
        S3Objects::Prefix => json!({"sync_prefix": true}),
    };
    flatten(&mut body, more);
    body
}

/// A caller who gave no metadata is shown none.
fn some_metadata(metadata: &UserMetadata) -> Option<&Map<String, Value>> {
    (!metadata.is_empty()).then(|| metadata.as_map())
}

/// How far the delivery to a webhook has come; callers that name no webhook never see it.
fn webhook_delivery(delivery: &WebhookDelivery) -> Value {
    json!({
        "state": delivery.state.as_str(),
        "delivered_revision": delivery.delivered_revision,
        "attempts": delivery.attempts,
        "given_up": delivery.given_up,
        "last_error": delivery.last_error,
        "next_attempt_at": delivery.next_attempt_time.map(Timestamp::to_rfc3339),
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

/// What an event says; JSON without line breaks.
pub fn event_data(invocation: &Invocation, time: Timestamp) -> Value {
    json!({
        "revision": invocation.revision,
        "time": time.to_rfc3339(),
        "invocation": self::invocation(invocation),
        "progress": progress(invocation),
    })
}

/// How far an invocation has come; the documented shape has nothing of it.
pub fn progress(invocation: &Invocation) -> Value {
    let progress = &invocation.progress;
    let counts = &progress.statistics;
    json!({
        "phase": progress.phase.as_str(),
        "attempt": invocation.attempt,
        "resolved_commit": invocation.resolved_commit,
        "wait": progress.wait.as_ref().map(|wait| json!({
            "until": wait.until.to_rfc3339(),
            "cause": wait.cause,
        })),
        "documents_discovered": counts.documents_discovered,
        "documents_indexed": counts.documents_indexed,
        "documents_unchanged": counts.documents_unchanged,
        "documents_removed": counts.documents_removed,
        "documents_skipped": counts.documents_skipped,
        "documents_failed": counts.documents_failed,
        "chunks_indexed": counts.chunks_indexed,
        "bytes_indexed": counts.bytes_indexed,
        "tokens_embedded": counts.tokens_embedded,
        "chunks_truncated": counts.chunks_truncated,
        "documents_copied": counts.documents_copied,
        "embeddings_computed": counts.embeddings_computed,
        "embeddings_cached": counts.embeddings_cached,
        "documents_per_minute": counts.documents_per_minute,
        "tokens_per_second": counts.tokens_per_second,
        "documents_left": progress.documents_left(),
        "time_left_ms": progress.time_left_ms(),
    })
}

/// A hit of a search. What no sync wrote has neither a document nor lines.
pub fn search_hit(hit: SearchHit) -> Value {
    json!({
        "id": hit.id,
        "score": hit.score,
        "document_key": hit.document_key,
        "start_line": hit.start_line,
        "end_line": hit.end_line,
        "text": hit.text,
        "metadata": hit.metadata,
    })
}

/// Adds the fields of `kind` to `body`.
pub fn flatten(body: &mut Value, kind: Value) {
    if let (Value::Object(body), Value::Object(kind)) = (body, kind) {
        body.extend(kind);
    }
}
