//! Inserts new invocations with their first events, many at a time.
//!
//! Calls that wait together are inserted by one statement for the invocations and one for the events.
//! The indexes decide every conflict: a row that is not inserted is asked afterwards what it ran into.
//! When the database refuses the whole batch, for instance since the source of one was deleted, each
//! row is tried by itself, so none suffers from another. A row that is alone from the start goes to SQLite
//! as one script.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

use futures::future::BoxFuture;
use sea_orm::{
    ActiveModelTrait,
    ActiveValue::{NotSet, Set},
    ColumnTrait, DatabaseTransaction, DbBackend, DbErr, EntityTrait, Iterable, QueryFilter, QueryOrder,
    QueryTrait, SqlErr, Statement,
    sea_query::{Expr, OnConflict},
};
use uuid::Uuid;

use super::{
    coalesce::Answer,
    entities::invocation,
    error::StoreError,
    feed::{self, NewEvent},
    invocations::{CreateInvocation, answered_before, request_digest},
    reader::Reader,
    sources::github_columns,
    stored::{StoredInput, StoredInvocation, StoredPlan, StoredSettings, encode},
    uploads, webhooks,
    write::{Script, Writer},
};
use crate::{
    domain::{
        ids::{InvocationId, SourceId, UploadId},
        invocation::{InvocationInput, NewInvocation, Phase, StateName, Statistics},
        names::{CollectionName, DatabaseName, TenantName},
        source::Source,
        time::Timestamp,
        webhook::Webhook,
    },
    seal::Sealed,
};

/// The condition of the index `invocations_exclusive`, word for word, or the databases do not use it.
const WRITING_ALONE: &str = "exclusive AND state IN ('pending', 'processing')";

/// What creations need.
#[derive(Clone)]
pub(super) struct Creator {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

/// An invocation to insert, complete but for its time.
pub(super) struct NewRow {
    id: InvocationId,
    tenant: TenantName,
    source_id: SourceId,
    database: DatabaseName,
    collection: CollectionName,
    input: InvocationInput,
    input_json: serde_json::Value,
    plan_json: serde_json::Value,
    request: Option<(Uuid, Vec<u8>)>,
    github_repository: Option<String>,
    github_app_id: Option<String>,
    chroma_token: Option<Sealed>,
    webhook: Option<Webhook>,
}

struct NewRows {
    rows: Vec<Arc<NewRow>>,
    now: Timestamp,
}

impl NewRow {
    /// An invocation of `source`, with a copy of its settings.
    pub(super) fn new(
        tenant: &TenantName,
        source: &Source,
        new: NewInvocation,
        request_id: Option<Uuid>,
        chroma_token: Option<Sealed>,
    ) -> Result<Self, StoreError> {
        let NewInvocation {
            collection,
            input,
            webhook,
            update_collection: _,
        } = new;
        let plan = StoredPlan {
            settings: StoredSettings::of(&source.settings)?,
            embedding: source.embedding.clone(),
            chunking: source.chunking,
        };
        let input_json = encode("invocations.input", &StoredInput::from(&input))?;
        let own_url = webhook.as_ref().map(|webhook| &webhook.url);
        let digest = |id| {
            let digest = request_digest(source, collection.as_str(), &input, own_url)?;
            Ok::<_, StoreError>((id, digest))
        };
        let request = request_id.map(digest).transpose()?;
        let (github_repository, github_app_id) = github_columns(&source.settings);
        Ok(Self {
            id: InvocationId::generate(),
            tenant: tenant.clone(),
            source_id: source.id,
            database: source.database.clone(),
            collection,
            input,
            input_json,
            plan_json: encode("invocations.plan", &plan)?,
            request,
            github_repository,
            github_app_id,
            chroma_token,
            webhook: webhook.or_else(|| source.webhook.clone()),
        })
    }

    /// The upload that it takes over.
    fn upload(&self) -> Option<(UploadId, InvocationId)> {
        match &self.input {
            InvocationInput::FileUpload(file) => Some((file.upload_id, self.id)),
            InvocationInput::Github { .. } | InvocationInput::S3 { .. } | InvocationInput::WebScrape => None,
        }
    }

    fn stored(&self, now: Timestamp) -> StoredInvocation {
        StoredInvocation::pending(
            self.id,
            &self.tenant,
            self.source_id,
            &self.database,
            &self.collection,
            &self.input,
            now,
        )
        .with_webhook(self.webhook.as_ref())
    }

    fn created(&self, now: Timestamp) -> Answer<CreateInvocation> {
        self.stored(now).restore().map(CreateInvocation::Created)
    }

    fn invocation(&self, now: Timestamp) -> Result<invocation::ActiveModel, StoreError> {
        Ok(invocation::ActiveModel {
            id: Set(self.id.0),
            tenant: Set(self.tenant.as_str().to_owned()),
            source_id: Set(Some(self.source_id.0)),
            source_type: Set(self.input.source_type().as_str().to_owned()),
            database_name: Set(self.database.as_str().to_owned()),
            collection_name: Set(self.collection.as_str().to_owned()),
            exclusive: Set(self.input.is_exclusive()),
            input: Set(self.input_json.clone()),
            object_key: Set(self.input.object_key().map(str::to_owned)),
            plan: Set(self.plan_json.clone()),
            request_id: Set(self.request.as_ref().map(|(id, _)| *id)),
            request_sha256: Set(self.request.as_ref().map(|(_, digest)| digest.clone())),
            create_time: Set(now.0),
            state: Set(StateName::Pending.as_str().to_owned()),
            start_time: NotSet,
            finish_time: NotSet,
            failure: NotSet,
            revision: Set(1),
            phase: Set(Phase::Queued.as_str().to_owned()),
            wait: NotSet,
            statistics: Set(encode("invocations.statistics", &Statistics::default())?),
            progress_version: Set(0),
            resolved_commit: NotSet,
            attempt: Set(0),
            failures: Set(0),
            lease_owner: NotSet,
            lease_expires_at: NotSet,
            next_attempt_at: Set(now.0),
            github_repository: Set(self.github_repository.clone()),
            github_app_id: Set(self.github_app_id.clone()),
            sealed_chroma_token: Set(self.chroma_token.clone().map(Sealed::into_bytes)),
            webhook_url: Set(self
                .webhook
                .as_ref()
                .map(|webhook| webhook.url.as_str().to_owned())),
            fingerprint: NotSet,
        })
    }

    /// The event of the creation.
    fn event<'a>(&'a self, now: Timestamp, snapshot: &'a StoredInvocation) -> NewEvent<'a> {
        NewEvent {
            invocation_id: self.id.0,
            revision: 1,
            state: StateName::Pending,
            time: now,
            tenant: self.tenant.as_str(),
            source_id: Some(self.source_id.0),
            database: self.database.as_str(),
            snapshot,
        }
    }
}

/// Creates them all; the answers mean that the rows are durable.
pub(super) fn create<'a>(
    creator: &'a Creator,
    rows: &'a [Arc<NewRow>],
) -> BoxFuture<'a, Result<Vec<Answer<CreateInvocation>>, StoreError>> {
    Box::pin(async move {
        let now = creator.reader.now().await?;
        let batch = NewRows {
            rows: rows.to_vec(),
            now,
        };
        let inserted = creator
            .writer
            .write_or_script(
                batch,
                |transaction, batch| Box::pin(insert_all(transaction, batch)),
                script(rows),
            )
            .await;
        let answers = match inserted {
            Ok(answers) => answers,
            // What keeps the database from answering keeps each of them.
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => vec![Err(error); rows.len()],
        };
        let mut settled = Vec::with_capacity(rows.len());
        for (row, answer) in rows.iter().zip(answers) {
            settled.push(match answer {
                Ok(outcome) => Ok(outcome),
                Err(_) => create_alone(creator, row, now).await,
            });
        }
        Ok(settled)
    })
}

async fn create_alone(creator: &Creator, row: &Arc<NewRow>, now: Timestamp) -> Answer<CreateInvocation> {
    let batch = NewRows {
        rows: vec![Arc::clone(row)],
        now,
    };
    let created = creator
        .writer
        .write(batch, |transaction, batch| {
            Box::pin(insert_one(transaction, batch))
        })
        .await;
    match created {
        Err(StoreError::Rejected(error)) if is_without_source(&error) => Ok(CreateInvocation::SourceGone),
        created => created,
    }
}

/// An invocation refers to its source alone, and its event to the invocation.
fn is_without_source(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::ForeignKeyConstraintViolation(_)))
}

/// For a single row, so that the writer sees its conflict and tries it again.
async fn insert_one(
    transaction: &DatabaseTransaction,
    batch: &NewRows,
) -> Result<CreateInvocation, StoreError> {
    let answer = insert_all(transaction, batch).await?.pop();
    answer.unwrap_or(Err(StoreError::Closed))
}

async fn insert_all(
    transaction: &DatabaseTransaction,
    batch: &NewRows,
) -> Result<Vec<Answer<CreateInvocation>>, StoreError> {
    let NewRows { rows, now } = batch;
    // Two batches that insert the same names in the same order cannot block each other.
    let mut ordered: Vec<&NewRow> = rows.iter().map(Arc::as_ref).collect();
    ordered.sort_by_key(|row| (&row.tenant, &row.database, &row.collection));
    let mut inserted = HashSet::with_capacity(ordered.len());
    for rows in in_powers_of_two(&ordered) {
        let models = rows.iter().map(|row| row.invocation(*now));
        let models = models.collect::<Result<Vec<_>, _>>()?;
        let ids = invocation::Entity::insert_many(models)
            // Without a target, the clause covers every unique index of the table.
            .on_conflict(OnConflict::new().do_nothing().to_owned())
            .exec_with_returning_keys(transaction)
            .await?;
        inserted.extend(ids);
    }
    ordered.retain(|row| inserted.contains(&row.id.0));
    for rows in in_powers_of_two(&ordered) {
        let snapshots: Vec<_> = rows.iter().map(|row| row.stored(*now)).collect();
        let events = rows.iter().zip(&snapshots);
        let events = events.map(|(row, snapshot)| row.event(*now, snapshot));
        feed::record(transaction, &events.collect::<Vec<_>>()).await?;
    }
    let deliveries = ordered.iter().filter_map(|row| {
        let webhook = row.webhook.as_ref()?;
        Some(webhooks::first_delivery(row.id, &row.tenant, webhook, *now))
    });
    webhooks::insert(transaction, deliveries.collect()).await?;
    let taken_over = ordered.iter().filter_map(|row| row.upload());
    uploads::claim(transaction, taken_over.collect::<Vec<_>>(), *now).await?;
    let mut answers = Vec::with_capacity(rows.len());
    for row in rows {
        answers.push(if inserted.contains(&row.id.0) {
            row.created(*now)
        } else {
            conflict(transaction, row).await
        });
    }
    Ok(answers)
}

/// The script that inserts a row that is alone and has neither a webhook nor an upload.
fn script(rows: &[Arc<NewRow>]) -> Option<Script<NewRows, Vec<Answer<CreateInvocation>>>> {
    let is_plain = matches!(rows, [row] if row.webhook.is_none() && row.upload().is_none());
    is_plain.then_some(Script {
        statements: insert_script,
        answer: |batch| {
            let answers = batch.rows.iter().map(|row| row.created(batch.now));
            Ok(answers.collect())
        },
    })
}

/// Fails on any conflict; then the row is inserted as one of several would be, and asked what is in its way.
fn insert_script(batch: &NewRows) -> Result<Statement, StoreError> {
    let mut sql = "BEGIN IMMEDIATE".to_owned();
    let mut values = Vec::new();
    for row in &batch.rows {
        let snapshot = row.stored(batch.now);
        let event = feed::insert(DbBackend::Sqlite, &[row.event(batch.now, &snapshot)])?;
        for statement in [insert_statement(row.invocation(batch.now)?), event] {
            sql.push_str("; ");
            sql.push_str(&statement.sql);
            values.extend(statement.values.into_iter().flatten());
        }
    }
    sql.push_str("; COMMIT");
    Ok(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values))
}

/// The statement that inserts `row`. [`NewRow::invocation`] sets the same columns of each, so its text is built once.
fn insert_statement(mut row: invocation::ActiveModel) -> Statement {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| {
        invocation::Entity::insert(row.clone())
            .build(DbBackend::Sqlite)
            .sql
    });
    let values = invocation::Column::iter().filter_map(|column| row.take(column).into_value());
    Statement::from_sql_and_values(DbBackend::Sqlite, text, values)
}

/// Pieces whose lengths are powers of two, so that lists of any length need few prepared statements.
fn in_powers_of_two<T>(mut rest: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = 1 << rest.len().checked_ilog2()?;
        let (piece, after) = rest.split_at(length);
        rest = after;
        Some(piece)
    })
}

/// Why nothing was inserted: the request id or the collection is taken.
async fn conflict(transaction: &DatabaseTransaction, new: &NewRow) -> Answer<CreateInvocation> {
    let tenant = new.tenant.as_str();
    if let Some(answer) = answered_before(transaction, tenant, new.request.as_ref()).await? {
        return Ok(answer);
    }
    let writer = invocation::Entity::find()
        .filter(invocation::Column::Tenant.eq(tenant))
        .filter(invocation::Column::DatabaseName.eq(new.database.as_str()))
        .filter(invocation::Column::CollectionName.eq(new.collection.as_str()))
        .filter(Expr::cust(WRITING_ALONE))
        .order_by_asc(invocation::Column::Id)
        .one(transaction)
        .await?;
    match writer {
        Some(row) => Ok(CreateInvocation::CollectionBusy(InvocationId(row.id))),
        // Whoever was in the way ended in this very moment; the write is tried again.
        None => Err(StoreError::Contended(DbErr::RecordNotInserted)),
    }
}

#[cfg(test)]
mod tests {
    use super::in_powers_of_two;

    #[test]
    fn a_list_is_cut_into_powers_of_two_from_the_largest_on() {
        let lengths =
            |count: usize| -> Vec<usize> { in_powers_of_two(&vec![(); count]).map(<[()]>::len).collect() };
        assert_eq!(lengths(0), Vec::<usize>::new());
        assert_eq!(lengths(1), [1]);
        assert_eq!(lengths(7), [4, 2, 1]);
        assert_eq!(lengths(128), [128]);
    }
}
