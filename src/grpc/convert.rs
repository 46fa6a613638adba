//! Domain values as wire messages.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::convert_source;
use crate::{
    app::watch::{FeedUpdate, FeedUpdateKind, SharedInvocation, Update, UpdateKind},
    domain::{
        chunking::Chunking,
        document::{Document, DocumentOutcome},
        embedding::{Embedding, SparseSettings, Task},
        invocation::{Invocation, Phase, Progress, State, StateName, Statistics},
        source::Source,
        time::Timestamp,
        webhook::{DeliveryState, Webhook, WebhookDelivery},
    },
    proto,
};

pub(super) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(time.0.rem_euclid(1_000) * 1_000_000).unwrap_or_default();
    prost_types::Timestamp {
        seconds: time.0.div_euclid(1_000),
        nanos,
    }
}

fn duration(time: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.subsec_nanos()).unwrap_or_default(),
    }
}

fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn small_count(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

impl From<Source> for proto::Source {
    fn from(source: Source) -> Self {
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
        Self {
            id: id.to_string(),
            database_name: database.to_string(),
            settings: Some(convert_source::settings(settings)),
            embedding: Some(embedding.into()),
            chunking: Some(chunking.into()),
            create_time: Some(timestamp(create_time)),
            webhook: webhook.as_ref().map(Into::into),
        }
    }
}

impl From<Embedding> for proto::Embedding {
    fn from(embedding: Embedding) -> Self {
        let Embedding {
            model,
            model_form: _,
            task,
            sparse,
        } = embedding;
        let task = task.map(
            |Task {
                 name,
                 document_prompt,
                 query_prompt,
             }| proto::EmbeddingTask {
                task_name: name,
                document_prompt: Some(document_prompt),
                query_prompt: Some(query_prompt),
            },
        );
        Self {
            dense: Some(proto::DenseEmbedding { model, task }),
            sparse: sparse.map(|SparseSettings { model, key }| proto::SparseEmbedding { model, key }),
        }
    }
}

impl From<Chunking> for proto::Chunking {
    fn from(chunking: Chunking) -> Self {
        let strategy = match chunking {
            Chunking::TreeSitter { max_size_bytes } => {
                let max_size_bytes = Some(max_size_bytes);
                proto::chunking::Strategy::TreeSitter(proto::TreeSitterChunking { max_size_bytes })
            }
            Chunking::Lines {
                max_lines,
                max_size_bytes,
            } => {
                let (max_lines, max_size_bytes) = (Some(max_lines), Some(max_size_bytes));
                proto::chunking::Strategy::Lines(proto::LinesChunking {
                    max_lines,
                    max_size_bytes,
                })
            }
        };
        Self {
            strategy: Some(strategy),
        }
    }
}

impl From<StateName> for proto::invocation::State {
    fn from(state: StateName) -> Self {
        match state {
            StateName::Pending => Self::Pending,
            StateName::Processing => Self::Processing,
            StateName::Complete => Self::Complete,
            StateName::Failed => Self::Failed,
            StateName::Cancelled => Self::Cancelled,
        }
    }
}

impl From<Phase> for proto::invocation::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Queued => Self::Queued,
            Phase::Fetching => Self::Fetching,
            Phase::Indexing => Self::Indexing,
            Phase::Finishing => Self::Finishing,
            Phase::Waiting => Self::Waiting,
            Phase::Done => Self::Done,
        }
    }
}

impl From<&Progress> for proto::Statistics {
    fn from(progress: &Progress) -> Self {
        let millis = |value| Some(duration(Duration::from_millis(value)));
        let Statistics {
            documents_discovered,
            documents_indexed,
            documents_unchanged,
            documents_removed,
            documents_skipped,
            documents_failed,
            chunks_indexed,
            bytes_indexed,
            tokens_embedded,
            chunks_truncated,
            documents_copied,
            embeddings_computed,
            embeddings_cached,
            fetch_ms,
            chunk_ms,
            embed_ms,
            index_ms,
            documents_per_minute,
            tokens_per_second,
        } = progress.statistics;
        Self {
            documents_discovered: count(documents_discovered),
            documents_indexed: count(documents_indexed),
            documents_unchanged: count(documents_unchanged),
            documents_removed: count(documents_removed),
            documents_skipped: count(documents_skipped),
            documents_failed: count(documents_failed),
            chunks_indexed: count(chunks_indexed),
            bytes_indexed: count(bytes_indexed),
            tokens_embedded: count(tokens_embedded),
            chunks_truncated: count(chunks_truncated),
            documents_copied: count(documents_copied),
            embeddings_computed: count(embeddings_computed),
            embeddings_cached: count(embeddings_cached),
            fetch_duration: millis(fetch_ms),
            chunk_duration: millis(chunk_ms),
            embed_duration: millis(embed_ms),
            index_duration: millis(index_ms),
            documents_per_minute: count(documents_per_minute),
            tokens_per_second: count(tokens_per_second),
            documents_left: progress.documents_left().map(count),
            time_left: progress.time_left_ms().and_then(millis),
        }
    }
}

impl From<&Invocation> for proto::Invocation {
    fn from(invocation: &Invocation) -> Self {
        let Invocation {
            id,
            tenant: _,
            source_id,
            database,
            collection,
            input,
            state,
            revision,
            progress_version: _,
            progress,
            attempt,
            resolved_commit,
            create_time,
            webhook,
            webhook_delivery,
        } = invocation;
        let (start, finish) = (state.start_time(), state.finish_time());
        let failure = match state {
            State::Failed { failure, .. } => Some(proto::Failure {
                reason: failure.reason.clone(),
                message: failure.message.clone(),
            }),
            State::Pending | State::Processing { .. } | State::Complete { .. } | State::Cancelled { .. } => {
                None
            }
        };
        Self {
            id: id.to_string(),
            source_id: source_id.map(|id| id.to_string()),
            state: proto::invocation::State::from(state.name()).into(),
            revision: count(*revision),
            create_time: Some(timestamp(*create_time)),
            start_time: start.map(timestamp),
            finish_time: finish.map(timestamp),
            duration: start
                .zip(finish)
                .map(|(start, finish)| duration(finish.since(start))),
            failure,
            database_name: database.to_string(),
            collection_name: collection.to_string(),
            input: Some(convert_source::input(input)),
            resolved_commit: resolved_commit.clone().unwrap_or_default(),
            phase: proto::invocation::Phase::from(progress.phase).into(),
            wait: progress.wait.as_ref().map(|wait| proto::Wait {
                until: Some(timestamp(wait.until)),
                cause: wait.cause.clone(),
            }),
            statistics: Some(progress.into()),
            attempt: small_count(*attempt),
            webhook: webhook.as_ref().map(Into::into),
            webhook_delivery: webhook_delivery.as_ref().map(Into::into),
        }
    }
}

impl From<&Webhook> for proto::Webhook {
    fn from(webhook: &Webhook) -> Self {
        let Webhook {
            url,
            signing_secret,
            sealed_secret: _,
        } = webhook;
        Self {
            url: url.as_str().to_owned(),
            signing_secret: signing_secret
                .as_ref()
                .map(|made| made.expose().to_owned())
                .unwrap_or_default(),
        }
    }
}

impl From<&WebhookDelivery> for proto::WebhookDelivery {
    fn from(delivery: &WebhookDelivery) -> Self {
        use proto::webhook_delivery::State;

        let WebhookDelivery {
            state,
            delivered_revision,
            attempts,
            given_up,
            last_error,
            next_attempt_time,
        } = delivery;
        let state = match state {
            DeliveryState::Pending => State::Pending,
            DeliveryState::Delivered => State::Delivered,
            DeliveryState::Failed => State::Failed,
            DeliveryState::Stopped => State::Stopped,
        };
        Self {
            state: state.into(),
            delivered_revision: count(*delivered_revision),
            attempts: small_count(*attempts),
            given_up: small_count(*given_up),
            last_error: last_error.clone().unwrap_or_default(),
            next_attempt_time: next_attempt_time.map(timestamp),
        }
    }
}

impl From<Invocation> for proto::Invocation {
    fn from(invocation: Invocation) -> Self {
        Self::from(&invocation)
    }
}

impl From<Document> for proto::Document {
    fn from(document: Document) -> Self {
        use proto::document::Outcome;

        let Document {
            ordinal: _,
            document_key,
            version_key,
            size_bytes,
            outcome,
            chunks,
            memo: _,
        } = document;
        let (outcome, detail) = match outcome {
            DocumentOutcome::Discovered => (Outcome::Discovered, String::new()),
            DocumentOutcome::Indexed => (Outcome::Indexed, String::new()),
            DocumentOutcome::Unchanged => (Outcome::Unchanged, String::new()),
            DocumentOutcome::Removed => (Outcome::Removed, String::new()),
            DocumentOutcome::Skipped(rule) => (Outcome::Skipped, rule.as_str().to_owned()),
            DocumentOutcome::Failed(reason) => (Outcome::Failed, reason),
        };
        Self {
            document_key,
            version_key,
            size_bytes: size_bytes.map(count),
            outcome: outcome.into(),
            detail,
            chunks: small_count(chunks),
        }
    }
}

/// The invocation as a field of a watch's message. It has the same number in both kinds of message.
fn invocation_field(invocation: &SharedInvocation) -> Bytes {
    invocation.encoded(|invocation| {
        let message = proto::WatchInvocationResponse {
            invocation: Some(invocation.into()),
            ..Default::default()
        };
        message.encode_to_vec().into()
    })
}

impl From<Update> for proto::SharedWatchInvocationResponse {
    fn from(update: Update) -> Self {
        use proto::watch_invocation_response::Kind;

        let Update {
            kind,
            invocation,
            time,
        } = update;
        let kind = match kind {
            UpdateKind::Snapshot => Kind::Snapshot,
            UpdateKind::StateChanged => Kind::StateChanged,
            UpdateKind::Progress => Kind::Progress,
            UpdateKind::Heartbeat => Kind::Heartbeat,
        };
        let message = proto::WatchInvocationResponse {
            kind: kind.into(),
            revision: count(invocation.revision),
            invocation: None,
            time: Some(timestamp(time)),
        };
        Self::new(message, invocation_field(&invocation))
    }
}

impl From<FeedUpdate> for proto::SharedWatchInvocationsResponse {
    fn from(update: FeedUpdate) -> Self {
        use proto::watch_invocations_response::Kind;

        let FeedUpdate {
            kind,
            invocation,
            resume_token,
            time,
        } = update;
        let kind = match kind {
            FeedUpdateKind::Snapshot => Kind::Snapshot,
            FeedUpdateKind::StateChanged => Kind::StateChanged,
            FeedUpdateKind::Heartbeat => Kind::Heartbeat,
        };
        let message = proto::WatchInvocationsResponse {
            kind: kind.into(),
            invocation: None,
            resume_token: resume_token.encode(),
            time: Some(timestamp(time)),
        };
        Self::new(
            message,
            invocation.as_deref().map(invocation_field).unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_have_positive_nanoseconds() {
        let wire = timestamp(Timestamp(-1));
        assert_eq!((wire.seconds, wire.nanos), (-1, 999_000_000));
    }
}
