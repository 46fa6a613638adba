//! How domain values lie in JSON columns.
//!
//! These types are the only description of that JSON. A field may be added when it has a default; a
//! field is never renamed, because rows of earlier releases must stay readable.

use sea_orm::{QueryResult, TryGetable, TryGetableFromJson};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

pub(super) use super::stored_kinds::{StoredInput, StoredSettings};
use super::{entities::invocation, error::StoreError};
use crate::domain::{
    chunking::Chunking,
    embedding::Embedding,
    ids::{InvocationId, SourceId},
    invocation::{
        Failure, Invocation, InvocationInput, Phase, Plan, Progress, State, StateName, Statistics, Wait,
    },
    names::{CollectionName, DatabaseName, TenantName},
    time::Timestamp,
    webhook::{Webhook, WebhookUrl},
};

/// Writes a value as JSON.
pub(super) fn encode<T: Serialize>(column: &'static str, value: &T) -> Result<Value, StoreError> {
    serde_json::to_value(value).map_err(|_| StoreError::Corrupt {
        column,
        row: "a new row".to_owned(),
    })
}

/// Reads a JSON column of the row named by `row`.
pub(super) fn decode<T: DeserializeOwned>(
    column: &'static str,
    row: impl std::fmt::Display,
    value: Value,
) -> Result<T, StoreError> {
    serde_json::from_value(value).map_err(|_| corrupt(column, row))
}

/// The error of a column whose value is outside its type.
pub(super) fn corrupt(column: &'static str, row: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt {
        column,
        row: row.to_string(),
    }
}

/// Replaces NUL characters, which PostgreSQL keeps in no text.
pub(super) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A count as SQL keeps it; counts beyond 2^63 stay at that.
pub(super) fn to_sql(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

// These are read from a JSON column without a tree of values in between.
impl TryGetableFromJson for StoredInput {}
impl TryGetableFromJson for Failure {}
impl TryGetableFromJson for Wait {}
impl TryGetableFromJson for Statistics {}

/// A [`Plan`].
#[derive(Serialize, Deserialize)]
pub(super) struct StoredPlan {
    pub(super) settings: StoredSettings,
    pub(super) embedding: Embedding,
    pub(super) chunking: Chunking,
}

impl StoredPlan {
    /// None when the settings can no longer be read.
    pub(super) fn restore(self) -> Option<Plan> {
        let Self {
            settings,
            embedding,
            chunking,
        } = self;
        Some(Plan {
            settings: settings.restore()?,
            embedding,
            chunking,
        })
    }
}

/// An [`Invocation`] as it was at one revision.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredInvocation {
    id: InvocationId,
    tenant: String,
    source_id: Option<SourceId>,
    database: String,
    collection: String,
    input: StoredInput,
    state: StateName,
    start_time: Option<Timestamp>,
    finish_time: Option<Timestamp>,
    failure: Option<Failure>,
    revision: u64,
    progress_version: u64,
    phase: Phase,
    wait: Option<Wait>,
    statistics: Statistics,
    attempt: u32,
    resolved_commit: Option<String>,
    create_time: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    webhook_url: Option<String>,
}

impl StoredInvocation {
    /// What callers are shown, in the order in which [`StoredInvocation::from_columns`] reads it. The other
    /// columns are for workers.
    pub(super) const COLUMNS: [invocation::Column; 19] = [
        invocation::Column::Id,
        invocation::Column::Tenant,
        invocation::Column::SourceId,
        invocation::Column::DatabaseName,
        invocation::Column::CollectionName,
        invocation::Column::Input,
        invocation::Column::State,
        invocation::Column::StartTime,
        invocation::Column::FinishTime,
        invocation::Column::Failure,
        invocation::Column::Revision,
        invocation::Column::ProgressVersion,
        invocation::Column::Phase,
        invocation::Column::Wait,
        invocation::Column::Statistics,
        invocation::Column::Attempt,
        invocation::Column::ResolvedCommit,
        invocation::Column::CreateTime,
        invocation::Column::WebhookUrl,
    ];

    /// Reads a row of [`StoredInvocation::COLUMNS`], by position, which is faster than by name.
    pub(super) fn from_columns(row: &QueryResult) -> Result<Self, StoreError> {
        let id = InvocationId(row.try_get_by_index(0)?);
        let state: String = row.try_get_by_index(6)?;
        let phase: String = row.try_get_by_index(12)?;
        let revision: i64 = row.try_get_by_index(10)?;
        let progress_version: i64 = row.try_get_by_index(11)?;
        let attempt: i32 = row.try_get_by_index(15)?;
        let out_of_range = |column| move |_| corrupt(column, id);
        Ok(Self {
            id,
            tenant: row.try_get_by_index(1)?,
            source_id: row.try_get_by_index::<Option<Uuid>>(2)?.map(SourceId),
            database: row.try_get_by_index(3)?,
            collection: row.try_get_by_index(4)?,
            input: json(row, 5, "invocations.input", id)?,
            state: StateName::parse("state", &state).map_err(|_| corrupt("invocations.state", id))?,
            start_time: row.try_get_by_index::<Option<i64>>(7)?.map(Timestamp),
            finish_time: row.try_get_by_index::<Option<i64>>(8)?.map(Timestamp),
            failure: json(row, 9, "invocations.failure", id)?,
            revision: u64::try_from(revision).map_err(out_of_range("invocations.revision"))?,
            progress_version: u64::try_from(progress_version)
                .map_err(out_of_range("invocations.progress_version"))?,
            phase: Phase::from_name(&phase).ok_or_else(|| corrupt("invocations.phase", id))?,
            wait: json(row, 13, "invocations.wait", id)?,
            statistics: json(row, 14, "invocations.statistics", id)?,
            attempt: u32::try_from(attempt).map_err(out_of_range("invocations.attempt"))?,
            resolved_commit: row.try_get_by_index(16)?,
            create_time: Timestamp(row.try_get_by_index(17)?),
            webhook_url: row.try_get_by_index(18)?,
        })
    }

    /// An invocation that was just created.
    pub(super) fn pending(
        id: InvocationId,
        tenant: &TenantName,
        source_id: SourceId,
        database: &DatabaseName,
        collection: &CollectionName,
        input: &InvocationInput,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            tenant: tenant.as_str().to_owned(),
            source_id: Some(source_id),
            database: database.as_str().to_owned(),
            collection: collection.as_str().to_owned(),
            input: input.into(),
            state: StateName::Pending,
            start_time: None,
            finish_time: None,
            failure: None,
            revision: 1,
            progress_version: 0,
            phase: Phase::Queued,
            wait: None,
            statistics: Statistics::default(),
            attempt: 0,
            resolved_commit: None,
            create_time: now,
            webhook_url: None,
        }
    }

    /// The same with a webhook.
    pub(super) fn with_webhook(mut self, webhook: Option<&Webhook>) -> Self {
        self.webhook_url = webhook.map(|webhook| webhook.url.as_str().to_owned());
        self
    }

    /// Reads the row of an invocation.
    pub(super) fn from_row(row: invocation::Model) -> Result<Self, StoreError> {
        let id = InvocationId(row.id);
        let out_of_range = |column| move |_| corrupt(column, id);
        Ok(Self {
            id,
            tenant: row.tenant,
            source_id: row.source_id.map(SourceId),
            database: row.database_name,
            collection: row.collection_name,
            input: decode("invocations.input", id, row.input)?,
            state: StateName::parse("state", &row.state).map_err(|_| corrupt("invocations.state", id))?,
            start_time: row.start_time.map(Timestamp),
            finish_time: row.finish_time.map(Timestamp),
            failure: row
                .failure
                .map(|json| decode("invocations.failure", id, json))
                .transpose()?,
            revision: u64::try_from(row.revision).map_err(out_of_range("invocations.revision"))?,
            progress_version: u64::try_from(row.progress_version)
                .map_err(out_of_range("invocations.progress_version"))?,
            phase: Phase::from_name(&row.phase).ok_or_else(|| corrupt("invocations.phase", id))?,
            wait: row
                .wait
                .map(|json| decode("invocations.wait", id, json))
                .transpose()?,
            statistics: decode("invocations.statistics", id, row.statistics)?,
            attempt: u32::try_from(row.attempt).map_err(out_of_range("invocations.attempt"))?,
            resolved_commit: row.resolved_commit,
            create_time: Timestamp(row.create_time),
            webhook_url: row.webhook_url,
        })
    }

    /// The invocation; an error when the state lacks the data that belongs to it.
    pub(super) fn restore(self) -> Result<Invocation, StoreError> {
        let missing = || corrupt("invocations.state", self.id);
        let start_time = self.start_time.ok_or_else(missing);
        let finish_time = self.finish_time.ok_or_else(missing);
        let state = match self.state {
            StateName::Pending => State::Pending,
            StateName::Processing => State::Processing {
                start_time: start_time?,
            },
            StateName::Complete => State::Complete {
                start_time: start_time?,
                finish_time: finish_time?,
            },
            StateName::Failed => State::Failed {
                start_time: start_time?,
                finish_time: finish_time?,
                failure: self.failure.ok_or_else(missing)?,
            },
            StateName::Cancelled => State::Cancelled {
                finish_time: finish_time?,
            },
        };
        let webhook = self.webhook_url.as_deref().map(|url| {
            let url = WebhookUrl::from_stored(url);
            url.map(Webhook::shown)
                .ok_or_else(|| corrupt("invocations.webhook_url", self.id))
        });
        Ok(Invocation {
            id: self.id,
            tenant: TenantName::from_stored(self.tenant),
            source_id: self.source_id,
            database: DatabaseName::from_stored(self.database),
            collection: CollectionName::from_stored(self.collection),
            input: self.input.restore(),
            state,
            revision: self.revision,
            progress_version: self.progress_version,
            progress: Progress {
                phase: self.phase,
                wait: self.wait,
                statistics: self.statistics,
            },
            attempt: self.attempt,
            resolved_commit: self.resolved_commit,
            create_time: self.create_time,
            webhook: webhook.transpose()?,
            webhook_delivery: None,
        })
    }
}

/// A JSON column, read straight into its type.
fn json<T: TryGetable>(
    row: &QueryResult,
    index: usize,
    column: &'static str,
    id: InvocationId,
) -> Result<T, StoreError> {
    row.try_get_by_index(index).map_err(|_| corrupt(column, id))
}

/// Reads an invocation from a row of [`StoredInvocation::COLUMNS`].
pub(super) fn shown(row: &QueryResult) -> Result<Invocation, StoreError> {
    StoredInvocation::from_columns(row)?.restore()
}

/// Reads an invocation from its row.
pub(super) fn invocation(row: invocation::Model) -> Result<Invocation, StoreError> {
    StoredInvocation::from_row(row)?.restore()
}
