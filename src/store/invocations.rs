//! Invocations as callers see them: created, read, listed, cancelled.
//!
//! What workers do to them is in [`lease`](super::lease).

use std::collections::HashMap;

use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect,
    sea_query::{Expr, LockType, OnConflict},
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    Store,
    entities::{invocation, source},
    error::StoreError,
    paging::{padded, page},
    scope::Scope,
    sources::{github_columns, repository_column},
    stored::{self, StoredInput, StoredPlan, StoredSettings, encode},
    transition::{record_event, transition},
};
use crate::domain::{
    ids::{InvocationId, SourceId},
    invocation::{
        Invocation, InvocationFilter, InvocationInput, NewInvocation, Phase, StateName, Statistics,
    },
    names::TenantName,
    page::{Page, PageRequest},
    source::Source,
    time::Timestamp,
};
use crate::seal::Sealed;

/// Keys that one query looks up.
const KEYS_A_QUERY: usize = 1_024;

/// How a request to create an invocation ended.
#[derive(Debug, Clone, PartialEq)]
pub enum CreateInvocation {
    /// It was created.
    Created(Invocation),
    /// This live invocation writes to the collection, and only one may.
    CollectionBusy(InvocationId),
    /// The same request was answered before, with this invocation.
    Repeated(Invocation),
    /// The request id was used before, for another invocation.
    RequestIdReused,
    /// The source was deleted.
    SourceGone,
}

/// How a request to cancel an invocation ended.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one value a call, matched at once and never kept"
)]
pub enum CancelInvocation {
    /// It is cancelled.
    Cancelled(Invocation),
    /// It is in this state, which cannot be cancelled.
    NotCancelable(StateName),
    /// There is none with this id in scope.
    NotFound,
}

/// A row to insert, and what decides a conflict.
struct NewRow {
    row: invocation::ActiveModel,
    tenant: String,
    source_id: SourceId,
    database_name: String,
    collection_name: String,
    request: Option<(Uuid, Vec<u8>)>,
    now: Timestamp,
}

impl Store {
    /// Creates an invocation of `source`, with a copy of its settings. It keeps `chroma_token` until it
    /// ends.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_invocation(
        &self,
        tenant: &TenantName,
        source: &Source,
        new: NewInvocation,
        request_id: Option<Uuid>,
        chroma_token: Option<Sealed>,
    ) -> Result<CreateInvocation, StoreError> {
        let NewInvocation { collection, input } = new;
        let exclusive = match &input {
            InvocationInput::Github { .. } => true,
        };
        let now = self.now().await?;
        let input_json = encode("invocations.input", &StoredInput::from(&input))?;
        let plan = StoredPlan {
            settings: StoredSettings::from(&source.settings),
            embedding: source.embedding.clone(),
            chunking: source.chunking,
        };
        let request = request_id.map(|id| (id, request_digest(source.id, collection.as_str(), &input_json)));
        let (github_repository, github_app_id) = github_columns(&source.settings);
        let row = invocation::ActiveModel {
            id: Set(InvocationId::generate().0),
            tenant: Set(tenant.as_str().to_owned()),
            source_id: Set(Some(source.id.0)),
            source_type: Set(input.source_type().as_str().to_owned()),
            database_name: Set(source.database.as_str().to_owned()),
            collection_name: Set(collection.as_str().to_owned()),
            exclusive: Set(exclusive),
            input: Set(input_json),
            object_key: Set(None),
            plan: Set(encode("invocations.plan", &plan)?),
            request_id: Set(request_id),
            request_sha256: Set(request.as_ref().map(|(_, digest)| digest.clone())),
            create_time: Set(now.0),
            state: Set(StateName::Pending.as_str().to_owned()),
            start_time: Set(None),
            finish_time: Set(None),
            failure: Set(None),
            revision: Set(1),
            phase: Set(Phase::Queued.as_str().to_owned()),
            wait: Set(None),
            statistics: Set(encode("invocations.statistics", &Statistics::default())?),
            progress_version: Set(0),
            resolved_commit: Set(None),
            attempt: Set(0),
            failures: Set(0),
            lease_owner: Set(None),
            lease_expires_at: Set(None),
            next_attempt_at: Set(now.0),
            github_repository: Set(github_repository),
            github_app_id: Set(github_app_id),
            sealed_chroma_token: Set(chroma_token.map(Sealed::into_bytes)),
        };
        let new_row = NewRow {
            row,
            tenant: tenant.as_str().to_owned(),
            source_id: source.id,
            database_name: source.database.as_str().to_owned(),
            collection_name: collection.as_str().to_owned(),
            request,
            now,
        };
        self.write(new_row, |transaction, new_row| {
            Box::pin(create(transaction, new_row))
        })
        .await
    }

    /// What an earlier request with this id led to, [`CreateInvocation::Repeated`] or
    /// [`CreateInvocation::RequestIdReused`]; none when the id is new.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find_create_request(
        &self,
        tenant: &TenantName,
        source_id: SourceId,
        new: &NewInvocation,
        request_id: Uuid,
    ) -> Result<Option<CreateInvocation>, StoreError> {
        let NewInvocation { collection, input } = new;
        let input_json = encode("invocations.input", &StoredInput::from(input))?;
        let digest = request_digest(source_id, collection.as_str(), &input_json);
        self.read(async |database| {
            answered_before(database, tenant.as_str(), Some(&(request_id, digest.clone()))).await
        })
        .await
    }

    /// The invocation with this id, if it is in scope.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn get_invocation(
        &self,
        scope: &Scope,
        id: InvocationId,
    ) -> Result<Option<Invocation>, StoreError> {
        let select = scope.select_invocations().filter(invocation::Column::Id.eq(id.0));
        self.read(async |database| select.one(database).await?.map(stored::invocation).transpose())
            .await
    }

    /// One page of the invocations in scope that pass `filter`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn list_invocations(
        &self,
        scope: &Scope,
        filter: &InvocationFilter,
        request: &PageRequest,
    ) -> Result<Page<Invocation>, StoreError> {
        let InvocationFilter {
            source_id,
            database,
            source_type,
            github_app_id,
            github_repository,
            state,
        } = filter;
        let repository = github_repository.as_ref().map(repository_column);
        let filter = Condition::all()
            .add_option(source_id.map(|id| invocation::Column::SourceId.eq(id.0)))
            .add_option(
                database
                    .as_ref()
                    .map(|name| invocation::Column::DatabaseName.eq(name.as_str())),
            )
            .add_option(source_type.map(|name| invocation::Column::SourceType.eq(name.as_str())))
            .add_option(
                github_app_id
                    .as_ref()
                    .map(|app| invocation::Column::GithubAppId.eq(app.as_str())),
            )
            .add_option(repository.map(|name| invocation::Column::GithubRepository.eq(name)))
            .add_option(state.map(|state| invocation::Column::State.eq(state.as_str())));
        let select = scope.select_invocations().filter(filter);
        self.read(async |database| {
            page(
                database,
                select,
                invocation::Column::Id,
                request,
                |row| row.id,
                stored::invocation,
            )
            .await
        })
        .await
    }

    /// Cancels an invocation that no worker has taken.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn cancel_invocation(
        &self,
        scope: &Scope,
        id: InvocationId,
    ) -> Result<CancelInvocation, StoreError> {
        let condition = scope.invocations().add(invocation::Column::Id.eq(id.0));
        let now = self.now().await?;
        self.write((condition, now), |transaction, (condition, now)| {
            Box::pin(cancel(transaction, condition, *now))
        })
        .await
    }

    /// The newest invocation of a source for each of `keys`; a key without one is absent.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn latest_invocations_by_keys(
        &self,
        scope: &Scope,
        source_id: SourceId,
        keys: &[String],
    ) -> Result<HashMap<String, Invocation>, StoreError> {
        let mut latest = HashMap::new();
        for keys in keys.chunks(KEYS_A_QUERY) {
            let select = scope
                .select_invocations()
                .filter(invocation::Column::SourceId.eq(source_id.0))
                .filter(invocation::Column::ObjectKey.is_in(padded(keys)))
                .filter(Expr::cust(IS_NEWEST_OF_ITS_KEY));
            let rows = self
                .read(async |database| Ok(select.all(database).await?))
                .await?;
            for row in rows {
                if let Some(key) = row.object_key.clone() {
                    latest.insert(key, stored::invocation(row)?);
                }
            }
        }
        Ok(latest)
    }
}

/// Ids are in the order of creation.
const IS_NEWEST_OF_ITS_KEY: &str = "NOT EXISTS (SELECT 1 FROM invocations AS newer \
     WHERE newer.source_id = invocations.source_id AND newer.object_key = invocations.object_key \
     AND newer.id > invocations.id)";

/// What tells a repeated request from another one under the same id.
fn request_digest(source_id: SourceId, collection: &str, input_json: &serde_json::Value) -> Vec<u8> {
    Sha256::digest(format!("{source_id}\n{collection}\n{input_json}")).to_vec()
}

async fn create(transaction: &DatabaseTransaction, new: &NewRow) -> Result<CreateInvocation, StoreError> {
    if let Some(answer) = answered_before(transaction, &new.tenant, new.request.as_ref()).await? {
        return Ok(answer);
    }
    // Until this transaction ends, nobody can delete the row it reads here.
    let source = source::Entity::find_by_id(new.source_id.0)
        .filter(source::Column::Tenant.eq(new.tenant.as_str()))
        .lock(LockType::KeyShare)
        .one(transaction)
        .await?;
    if source.is_none() {
        return Ok(CreateInvocation::SourceGone);
    }
    // Without a target, the clause covers every unique index of the table.
    let mut inserted = invocation::Entity::insert(new.row.clone())
        .on_conflict(OnConflict::new().do_nothing().to_owned())
        .exec_with_returning_many(transaction)
        .await?;
    let Some(row) = inserted.pop() else {
        return conflict(transaction, new).await;
    };
    record_event(transaction, &row, new.now).await?;
    Ok(CreateInvocation::Created(stored::invocation(row)?))
}

/// What the request id led to when it was used before.
async fn answered_before(
    database: &impl ConnectionTrait,
    tenant: &str,
    request: Option<&(Uuid, Vec<u8>)>,
) -> Result<Option<CreateInvocation>, StoreError> {
    let Some((request_id, digest)) = request else {
        return Ok(None);
    };
    let earlier = invocation::Entity::find()
        .filter(invocation::Column::Tenant.eq(tenant))
        .filter(invocation::Column::RequestId.eq(*request_id))
        .one(database)
        .await?;
    Ok(match earlier {
        None => None,
        Some(row) if row.request_sha256.as_ref() == Some(digest) => {
            Some(CreateInvocation::Repeated(stored::invocation(row)?))
        }
        Some(_) => Some(CreateInvocation::RequestIdReused),
    })
}

/// Why nothing was inserted: the request id or the collection is taken.
async fn conflict(transaction: &DatabaseTransaction, new: &NewRow) -> Result<CreateInvocation, StoreError> {
    if let Some(answer) = answered_before(transaction, &new.tenant, new.request.as_ref()).await? {
        return Ok(answer);
    }
    let live = StateName::ALL
        .into_iter()
        .filter(|state| !state.is_terminal())
        .map(StateName::as_str);
    let writer = invocation::Entity::find()
        .filter(invocation::Column::Tenant.eq(new.tenant.as_str()))
        .filter(invocation::Column::DatabaseName.eq(new.database_name.as_str()))
        .filter(invocation::Column::CollectionName.eq(new.collection_name.as_str()))
        .filter(invocation::Column::Exclusive.eq(true))
        .filter(invocation::Column::State.is_in(live))
        .order_by_asc(invocation::Column::Id)
        .one(transaction)
        .await?;
    match writer {
        Some(row) => Ok(CreateInvocation::CollectionBusy(InvocationId(row.id))),
        // Whoever was in the way ended in this very moment; the write is tried again.
        None => Err(StoreError::Contended(DbErr::RecordNotInserted)),
    }
}

async fn cancel(
    transaction: &DatabaseTransaction,
    condition: &Condition,
    now: Timestamp,
) -> Result<CancelInvocation, StoreError> {
    let update = invocation::Entity::update_many()
        .col_expr(invocation::Column::FinishTime, Expr::value(now.0))
        .col_expr(invocation::Column::Phase, Expr::value(Phase::Done.as_str()))
        .filter(condition.clone());
    if let Some(row) = transition(transaction, update, StateName::Cancelled, now).await? {
        return Ok(CancelInvocation::Cancelled(stored::invocation(row)?));
    }
    let row = invocation::Entity::find()
        .filter(condition.clone())
        .one(transaction)
        .await?;
    Ok(match row {
        None => CancelInvocation::NotFound,
        Some(row) => CancelInvocation::NotCancelable(stored::invocation(row)?.state.name()),
    })
}
