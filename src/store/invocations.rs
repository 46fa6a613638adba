//! Invocations as callers see them: created, read, listed, cancelled.
//!
//! What workers do to them is in [`lease`](super::lease).

use std::{collections::HashMap, sync::Arc};

use futures::future::BoxFuture;
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait, ExprTrait, Order, QueryFilter,
    QueryResult, QuerySelect, QueryTrait,
    sea_query::{Expr, Query, SelectStatement},
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    Store,
    coalesce::{Answer, distinct, in_order},
    create_invocation::NewRow,
    entities::invocation,
    error::StoreError,
    paging::{padded, page},
    reader::Reader,
    scope::Scope,
    sources::repository_column,
    stored::{self, StoredInput, StoredInvocation, encode},
    transition::transition,
    webhooks,
};
use crate::{
    domain::{
        ids::{InvocationId, SourceId},
        invocation::{Invocation, InvocationFilter, InvocationInput, NewInvocation, Phase, StateName},
        names::TenantName,
        page::{Page, PageRequest},
        source::Source,
        webhook::WebhookUrl,
    },
    seal::Sealed,
};

/// Names of the tables in the search for the newest invocations of keys.
const NEWEST: &str = "newest";
const WANTED: &str = "wanted";
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
        let row = NewRow::new(tenant, source, new, request_id, chroma_token)?;
        let creation = self.inner.coalesced.creations.call(Arc::new(row));
        let mut outcome = self.within(creation).await?;
        if let CreateInvocation::Created(invocation) | CreateInvocation::Repeated(invocation) = &mut outcome {
            self.read(async |database| webhooks::add_deliveries(database, [invocation]).await)
                .await?;
        }
        Ok(outcome)
    }

    /// What an earlier request with this id led to, [`CreateInvocation::Repeated`] or
    /// [`CreateInvocation::RequestIdReused`]; none when the id is new.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find_create_request(
        &self,
        tenant: &TenantName,
        source: &Source,
        new: &NewInvocation,
        request_id: Uuid,
    ) -> Result<Option<CreateInvocation>, StoreError> {
        let NewInvocation {
            collection,
            input,
            webhook,
            update_collection: _,
        } = new;
        let own_url = webhook.as_ref().map(|webhook| &webhook.url);
        let digest = request_digest(source, collection.as_str(), input, own_url)?;
        self.read(async |database| {
            let mut answer =
                answered_before(database, tenant.as_str(), Some(&(request_id, digest.clone()))).await?;
            if let Some(CreateInvocation::Repeated(invocation)) = &mut answer {
                webhooks::add_deliveries(database, [invocation]).await?;
            }
            Ok(answer)
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
        let found = self.within(self.inner.coalesced.invocations.call(id)).await?;
        Ok(found.filter(|invocation| scope.includes(&invocation.tenant, &invocation.database)))
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
        let scopes = match (source_id, database, request.skip) {
            (None, None, 0) => scope.by_database(),
            _ => vec![scope.clone()],
        };
        let selects: Vec<_> = scopes
            .iter()
            .map(|scope| scope.select_invocations().filter(filter.clone()))
            .collect();
        self.read(async |database| {
            let mut page = page(
                database,
                selects,
                invocation::Column::Id,
                request,
                stored::shown,
                |invocation| invocation.id.0,
            )
            .await?;
            webhooks::add_deliveries(database, &mut page.items).await?;
            Ok(page)
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
        let now = self.inner.reader.now_expression();
        let outcome = self.write((condition, now), |transaction, (condition, now)| {
            Box::pin(cancel(transaction, condition, now))
        });
        let mut outcome = outcome.await?;
        if let CancelInvocation::Cancelled(invocation) = &mut outcome {
            self.read(async |database| webhooks::add_deliveries(database, [invocation]).await)
                .await?;
        }
        Ok(outcome)
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
            let select = select_newest(scope, source_id, keys);
            let rows = self
                .read(async |database| Ok(database.query_all(&select).await?))
                .await?;
            for row in rows {
                let key = row.try_get_by_index(StoredInvocation::COLUMNS.len())?;
                latest.insert(key, stored::shown(&row)?);
            }
        }
        let found = latest.values_mut();
        self.read(async |database| webhooks::add_deliveries(database, found).await)
            .await?;
        Ok(latest)
    }
}

/// Selects [`StoredInvocation::COLUMNS`] of the newest invocation of each of `keys`, and its key.
fn select_newest(scope: &Scope, source_id: SourceId, keys: &[String]) -> SelectStatement {
    let column = |column: invocation::Column| (invocation::Entity, column);
    let is_newest = Expr::col(column(invocation::Column::Id)).eq(newest_of_key(source_id));
    Query::select()
        .columns(StoredInvocation::COLUMNS.map(column))
        .column(column(invocation::Column::ObjectKey))
        .from_values(with_nulls(keys), WANTED)
        // SQLite keeps the order of a cross join. In another it would rather read all invocations of the tenant and
        // look for each among the keys.
        .cross_join(invocation::Entity)
        .and_where(is_newest)
        .cond_where(scope.invocations())
        .to_owned()
}

/// The invocations with these ids, whoever owns them.
pub(super) fn find<'a>(
    reader: &'a Reader,
    ids: &'a [InvocationId],
) -> BoxFuture<'a, Result<Vec<Answer<Option<Invocation>>>, StoreError>> {
    Box::pin(async move {
        let [rows] = reader.query_each([select(ids)]).await?;
        answers(reader, ids, &rows).await
    })
}

/// Selects the invocations with these ids.
pub(super) fn select(ids: &[InvocationId]) -> SelectStatement {
    let wanted: Vec<Uuid> = distinct(ids).into_iter().map(|id| id.0).collect();
    invocation::Entity::find()
        .select_only()
        .columns(StoredInvocation::COLUMNS)
        .filter(invocation::Column::Id.is_in(padded(&wanted)))
        .into_query()
}

/// Which of the rows of [`select`] belongs to which id.
pub(super) async fn answers(
    reader: &Reader,
    ids: &[InvocationId],
    rows: &[QueryResult],
) -> Result<Vec<Answer<Option<Invocation>>>, StoreError> {
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        found.insert(InvocationId(row.try_get_by_index(0)?), stored::shown(row));
    }
    webhooks::add_deliveries(&reader.database, found.values_mut().flatten()).await?;
    Ok(in_order(ids, found))
}

/// The id of the newest invocation of a wanted key: one step in the index, however many invocations it has. Ids
/// are in the order of creation.
fn newest_of_key(source_id: SourceId) -> Expr {
    let newest = |column: invocation::Column| Expr::col((NEWEST, column));
    let newest_of_key = Query::select()
        .expr(newest(invocation::Column::Id))
        .from_as(invocation::Entity, NEWEST)
        .and_where(newest(invocation::Column::SourceId).eq(source_id.0))
        // What both databases call the column of a list of values.
        .and_where(newest(invocation::Column::ObjectKey).eq(Expr::col((WANTED, "column1"))))
        .order_by((NEWEST, invocation::Column::Id), Order::Desc)
        .limit(1)
        .to_owned();
    Expr::from(newest_of_key)
}

/// The keys, and as many nulls as make their number a power of two, so that few statements need be prepared.
/// Nothing has null for its key.
fn with_nulls(keys: &[String]) -> Vec<Option<&str>> {
    let mut keys: Vec<_> = keys.iter().map(|key| Some(key.as_str())).collect();
    keys.resize(keys.len().next_power_of_two(), None);
    keys
}

/// What tells a repeated request from another one under the same id.
pub(super) fn request_digest(
    source: &Source,
    collection: &str,
    input: &InvocationInput,
    webhook_url: Option<&WebhookUrl>,
) -> Result<Vec<u8>, StoreError> {
    let input_json: serde_json::Value = encode("invocations.input", &StoredInput::of_request(input))?;
    let mut text = format!("{}\n{collection}\n{input_json}", source.id);
    if let Some(url) = webhook_url {
        text.push('\n');
        text.push_str(url.as_str());
    }
    if let InvocationInput::FileUpload(_) = input {
        // An upload may have settings of its own.
        let embedding: serde_json::Value = encode("sources.embedding", &source.embedding)?;
        let chunking: serde_json::Value = encode("sources.chunking", &source.chunking)?;
        text.push_str(&format!("\n{embedding}\n{chunking}"));
    }
    Ok(Sha256::digest(text).to_vec())
}

/// What the request id led to when it was used before.
pub(super) async fn answered_before(
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

async fn cancel(
    transaction: &DatabaseTransaction,
    condition: &Condition,
    now: &Expr,
) -> Result<CancelInvocation, StoreError> {
    let update = invocation::Entity::update_many()
        .col_expr(invocation::Column::FinishTime, now.clone())
        .col_expr(invocation::Column::Phase, Expr::value(Phase::Done.as_str()))
        .filter(condition.clone());
    if let Some(row) = transition(transaction, update, StateName::Cancelled).await? {
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
