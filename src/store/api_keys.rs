//! API keys. A key is found by the digest of its token, so the token itself is never stored.

use std::collections::HashMap;

use futures::future::BoxFuture;
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, Condition, DatabaseTransaction, EntityTrait, ExprTrait, FromQueryResult, QueryFilter,
    QueryOrder, QueryResult, QuerySelect, QueryTrait,
    sea_query::{Expr, SelectStatement},
};
use subtle::ConstantTimeEq;

use super::{
    Store,
    coalesce::{Answer, distinct, in_order},
    entities::api_key,
    error::StoreError,
    invocations,
    paging::padded,
    reader::Reader,
    scope::Scope,
    stored::{corrupt, decode, encode},
};
use crate::domain::{
    api_key::{ApiKey, NewApiKey, Role},
    ids::{ApiKeyId, InvocationId},
    invocation::Invocation,
    names::{DatabaseName, TenantName},
    time::Timestamp,
};

/// The most keys that a listing shows.
const MAX_LISTED: u64 = 10_000;

impl Store {
    /// Stores a new key.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] when the token's digest is taken.
    pub async fn create_api_key(&self, new: NewApiKey) -> Result<ApiKey, StoreError> {
        let key = ApiKey {
            id: ApiKeyId::generate(),
            name: new.name,
            tenant: new.tenant,
            role: new.role,
            databases: new.databases,
            create_time: self.now().await?,
            expire_time: new.expire_time,
            revoke_time: None,
        };
        let databases = key
            .databases
            .as_ref()
            .map(|names| encode("api_keys.databases", names))
            .transpose()?;
        let row = api_key::ActiveModel {
            id: Set(key.id.0),
            name: Set(key.name.clone()),
            tenant: Set(key.tenant.as_str().to_owned()),
            role: Set(key.role.as_str().to_owned()),
            token_sha256: Set(new.token_sha256.to_vec()),
            databases: Set(databases),
            create_time: Set(key.create_time.0),
            expire_time: Set(key.expire_time.map(|time| time.0)),
            revoke_time: Set(None),
        };
        self.write(row, |transaction, row| Box::pin(insert(transaction, row)))
            .await?;
        Ok(key)
    }

    /// The keys of `tenant`, or of all tenants, oldest first; at most 10,000.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn list_api_keys(&self, tenant: Option<&TenantName>) -> Result<Vec<ApiKey>, StoreError> {
        let filter =
            Condition::all().add_option(tenant.map(|tenant| api_key::COLUMN.tenant.eq(tenant.as_str())));
        let select = api_key::Entity::find()
            .filter(filter)
            .order_by_asc(api_key::Column::Id)
            .limit(MAX_LISTED);
        let rows = self
            .read(async |database| Ok(select.all(database).await?))
            .await?;
        rows.into_iter().map(read).collect()
    }

    /// Revokes a key for good; false when there is none with this id, or it was revoked before.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn revoke_api_key(&self, id: ApiKeyId) -> Result<bool, StoreError> {
        let now = self.now().await?;
        self.write((id, now), |transaction, (id, now)| {
            Box::pin(revoke(transaction, *id, *now))
        })
        .await
    }

    /// The key of a token, unless it is revoked or has expired by now.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find_api_key(&self, token_sha256: &[u8; 32]) -> Result<Option<ApiKey>, StoreError> {
        let found = self
            .within(self.inner.coalesced.api_keys.call(*token_sha256))
            .await?;
        Ok(found.and_then(|key| of_token(key, token_sha256)))
    }

    /// The key of a token like [`Store::find_api_key`], together with the invocation with this id if it is
    /// of the key's tenant: what would be two turns takes one.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find_api_key_and_invocation(
        &self,
        token_sha256: &[u8; 32],
        id: InvocationId,
    ) -> Result<Option<(ApiKey, Option<Invocation>)>, StoreError> {
        let call = self.inner.coalesced.keyed_invocations.call((*token_sha256, id));
        let (key, invocation) = self.within(call).await?;
        Ok(key.and_then(|key| of_token(key, token_sha256)).map(|key| {
            let scope = Scope::tenant(key.tenant.clone());
            let visible = invocation.filter(|found| scope.includes(&found.tenant, &found.database));
            (key, visible)
        }))
    }
}

/// In constant time, and whatever became of the call on its way through the batch: only the key of this very
/// token opens anything.
fn of_token((digest, key): FoundKey, token_sha256: &[u8; 32]) -> Option<ApiKey> {
    bool::from(digest.ct_eq(token_sha256)).then_some(key)
}

/// A key with the digest of its token.
pub(super) type FoundKey = ([u8; 32], ApiKey);

/// A key with the invocation that was asked for.
pub(super) type FoundKeyAndInvocation = (Option<FoundKey>, Option<Invocation>);

/// The keys of tokens that may be used now, and an invocation for each, whoever owns it.
pub(super) fn find_with_invocations<'a>(
    reader: &'a Reader,
    wanted: &'a [([u8; 32], InvocationId)],
) -> BoxFuture<'a, Result<Vec<Answer<FoundKeyAndInvocation>>, StoreError>> {
    Box::pin(async move {
        let (digests, ids): (Vec<_>, Vec<_>) = wanted.iter().copied().unzip();
        let selects = [select(reader, &digests), invocations::select(&ids)];
        let [keys, rows] = reader.query_each(selects).await?;
        let keys = answers(&digests, &keys)?;
        let invocations = invocations::answers(reader, &ids, &rows).await?;
        let pairs = keys.into_iter().zip(invocations);
        Ok(pairs.map(|(key, invocation)| Ok((key?, invocation?))).collect())
    })
}

/// The keys of tokens that may be used now.
pub(super) fn find<'a>(
    reader: &'a Reader,
    digests: &'a [[u8; 32]],
) -> BoxFuture<'a, Result<Vec<Answer<Option<FoundKey>>>, StoreError>> {
    Box::pin(async move {
        let [rows] = reader.query_each([select(reader, digests)]).await?;
        answers(digests, &rows)
    })
}

fn select(reader: &Reader, digests: &[[u8; 32]]) -> SelectStatement {
    let wanted = distinct(digests).into_iter().map(|digest| digest.to_vec());
    let wanted: Vec<Vec<u8>> = wanted.collect();
    let not_expired = Condition::any()
        .add(api_key::Column::ExpireTime.is_null())
        .add(Expr::col(api_key::Column::ExpireTime).gt(reader.now_expression()));
    api_key::Entity::find()
        .filter(api_key::Column::TokenSha256.is_in(padded(&wanted)))
        .filter(api_key::Column::RevokeTime.is_null())
        .filter(not_expired)
        .into_query()
}

/// Which of the rows of [`select`] belongs to which digest.
fn answers(digests: &[[u8; 32]], rows: &[QueryResult]) -> Result<Vec<Answer<Option<FoundKey>>>, StoreError> {
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let row = api_key::Model::from_query_result(row, "")?;
        let digest: Result<[u8; 32], _> = row.token_sha256.as_slice().try_into();
        let digest = digest.map_err(|_| corrupt("api_keys.token_sha256", row.id))?;
        found.insert(digest, read(row).map(|key| (digest, key)));
    }
    Ok(in_order(digests, found))
}

async fn insert(transaction: &DatabaseTransaction, row: &api_key::ActiveModel) -> Result<(), StoreError> {
    api_key::Entity::insert(row.clone())
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

async fn revoke(transaction: &DatabaseTransaction, id: ApiKeyId, now: Timestamp) -> Result<bool, StoreError> {
    let result = api_key::Entity::update_many()
        .col_expr(api_key::Column::RevokeTime, Expr::value(now.0))
        .filter(api_key::Column::Id.eq(id.0))
        .filter(api_key::Column::RevokeTime.is_null())
        .exec(transaction)
        .await?;
    Ok(result.rows_affected == 1)
}

fn read(row: api_key::Model) -> Result<ApiKey, StoreError> {
    let id = ApiKeyId(row.id);
    let names: Option<Vec<String>> = row
        .databases
        .map(|json| decode("api_keys.databases", id, json))
        .transpose()?;
    Ok(ApiKey {
        id,
        name: row.name,
        tenant: TenantName::from_stored(row.tenant),
        role: Role::parse("role", &row.role).map_err(|_| corrupt("api_keys.role", id))?,
        databases: names.map(|names| names.into_iter().map(DatabaseName::from_stored).collect()),
        create_time: Timestamp(row.create_time),
        expire_time: row.expire_time.map(Timestamp),
        revoke_time: row.revoke_time.map(Timestamp),
    })
}
