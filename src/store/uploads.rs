//! Uploads: who has the bytes of an uploaded file, and when they may be removed.
//!
//! A row is written before the first byte and removed after the last one, so whatever lies in the store of
//! uploads has a row. `check_at` is when somebody looks at it. While a file is uploaded, that is the end of a
//! lease that the uploader renews; once the file belongs to an invocation, it is when that may have ended long
//! enough ago. Whoever finds a row due decides by what it is then, and takes it for removal with a mark that
//! keeps everybody else off.

use std::{collections::HashMap, time::Duration};

use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, Statement,
    sea_query::{Expr, LockBehavior, LockType},
};
use uuid::Uuid;

use super::{
    Store,
    entities::{
        invocation,
        upload::{self, Column},
    },
    error::StoreError,
    lease::Held,
    paging::padded,
};
use crate::domain::{
    ids::{InvocationId, UploadId},
    names::TenantName,
    time::Timestamp,
};

/// How long a removal may take before somebody else tries it.
const REMOVAL: Duration = Duration::from_secs(60);

struct NewUpload {
    id: UploadId,
    tenant: TenantName,
    now: Timestamp,
    lease: Duration,
    most: u32,
}

struct Check {
    now: Timestamp,
    keep: Duration,
    again: Duration,
    limit: u64,
}

impl Store {
    /// Begins an upload, which is the caller's for the time of `lease`; false when the tenant has `most` uploads
    /// under way already.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn begin_upload(
        &self,
        id: UploadId,
        tenant: &TenantName,
        lease: Duration,
        most: u32,
    ) -> Result<bool, StoreError> {
        let new = NewUpload {
            id,
            tenant: tenant.clone(),
            now: self.now().await?,
            lease,
            most,
        };
        self.write(new, |transaction, new| Box::pin(begin(transaction, new)))
            .await
    }

    /// Keeps an upload for the time of `lease` from now on; [`Held::Lost`] when it was given up for dead.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn renew_upload(&self, id: UploadId, lease: Duration) -> Result<Held, StoreError> {
        let check_at = self.now().await?.plus(lease);
        self.write((id, check_at), |transaction, (id, check_at)| {
            Box::pin(renew(transaction, *id, *check_at))
        })
        .await
    }

    /// Looks at no more than `limit` uploads that are due, and takes those whose bytes are to be removed: what
    /// nobody uploads any more, and what belongs to an invocation that ended at least `keep` ago. The others
    /// are looked at again when that may be so, those of live invocations after `again`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn take_removable_uploads(
        &self,
        keep: Duration,
        again: Duration,
        limit: u64,
    ) -> Result<TakenUploads, StoreError> {
        let check = Check {
            now: self.now().await?,
            keep,
            again,
            limit,
        };
        self.write(check, |transaction, check| Box::pin(take(transaction, check)))
            .await
    }

    /// Forgets an upload whose bytes are removed.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_upload(&self, id: UploadId) -> Result<(), StoreError> {
        self.write(id, |transaction, id| Box::pin(delete(transaction, *id)))
            .await
    }
}

/// What a look at the uploads that are due led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TakenUploads {
    /// Their bytes are to be removed, then they are forgotten.
    pub removable: Vec<UploadId>,
    /// How many were looked at.
    pub seen: u64,
}

/// The condition of the index `uploads_open`, word for word, or the databases do not use it.
fn open() -> Expr {
    Expr::cust("invocation_id IS NULL")
}

async fn begin(transaction: &DatabaseTransaction, new: &NewUpload) -> Result<bool, StoreError> {
    if transaction.get_database_backend() == DbBackend::Postgres {
        // Two that count at the same moment would both find the last place free.
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
        let key = format!("uploads/{}", new.tenant);
        let lock = Statement::from_sql_and_values(DbBackend::Postgres, lock, [key.into()]);
        transaction.execute_raw(lock).await?;
    }
    let under_way: Option<i64> = upload::Entity::find()
        .select_only()
        .column_as(Column::Id.count(), "under_way")
        .filter(open())
        .filter(Column::Tenant.eq(new.tenant.as_str()))
        .filter(Column::CheckAt.gt(new.now.0))
        .filter(Column::Removing.eq(false))
        .into_tuple()
        .one(transaction)
        .await?;
    if under_way.unwrap_or_default() >= i64::from(new.most) {
        return Ok(false);
    }
    let row = upload::ActiveModel {
        id: Set(new.id.0),
        tenant: Set(new.tenant.as_str().to_owned()),
        create_time: Set(new.now.0),
        check_at: Set(new.now.plus(new.lease).0),
        removing: Set(false),
        invocation_id: Set(None),
    };
    upload::Entity::insert(row)
        .exec_without_returning(transaction)
        .await?;
    Ok(true)
}

async fn renew(
    transaction: &DatabaseTransaction,
    id: UploadId,
    check_at: Timestamp,
) -> Result<Held, StoreError> {
    let renewed = upload::Entity::update_many()
        .col_expr(Column::CheckAt, Expr::value(check_at.0))
        .filter(Column::Id.eq(id.0))
        .filter(Column::Removing.eq(false))
        .exec(transaction)
        .await?;
    Ok(match renewed.rows_affected {
        0 => Held::Lost,
        _ => Held::Held,
    })
}

/// Hands uploads over to the invocations that were just created with them.
pub(super) async fn claim(
    transaction: &DatabaseTransaction,
    uploads: impl IntoIterator<Item = (UploadId, InvocationId)>,
    now: Timestamp,
) -> Result<(), StoreError> {
    for (upload, invocation) in uploads {
        upload::Entity::update_many()
            .col_expr(Column::InvocationId, Expr::value(Some(invocation.0)))
            .col_expr(Column::CheckAt, Expr::value(now.0))
            .filter(Column::Id.eq(upload.0))
            .filter(Column::Removing.eq(false))
            .exec(transaction)
            .await?;
    }
    Ok(())
}

async fn take(transaction: &DatabaseTransaction, check: &Check) -> Result<TakenUploads, StoreError> {
    let mut due = upload::Entity::find()
        .filter(Column::CheckAt.lte(check.now.0))
        .order_by_asc(Column::CheckAt)
        .order_by_asc(Column::Id)
        .limit(check.limit);
    if transaction.get_database_backend() == DbBackend::Postgres {
        due = due.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    }
    let due = due.all(transaction).await?;
    let invocations: Vec<Uuid> = due.iter().filter_map(|upload| upload.invocation_id).collect();
    let finish_times = finish_times(transaction, &invocations).await?;
    let mut taken = TakenUploads {
        removable: Vec::new(),
        seen: due.len() as u64,
    };
    for upload in due {
        let keep_until = upload
            .invocation_id
            .and_then(|id| finish_times.get(&id))
            .and_then(|finish| match finish {
                None => Some(check.now.plus(check.again)),
                Some(finish) => Some(finish.plus(check.keep)).filter(|until| *until > check.now),
            });
        let removing = keep_until.is_none();
        let check_at = keep_until.unwrap_or(check.now.plus(REMOVAL));
        upload::Entity::update_many()
            .col_expr(Column::CheckAt, Expr::value(check_at.0))
            .col_expr(Column::Removing, Expr::value(removing))
            .filter(Column::Id.eq(upload.id))
            .exec(transaction)
            .await?;
        if removing {
            taken.removable.push(UploadId(upload.id));
        }
    }
    Ok(taken)
}

/// When these invocations ended; none for those that are live.
async fn finish_times(
    transaction: &DatabaseTransaction,
    invocations: &[Uuid],
) -> Result<HashMap<Uuid, Option<Timestamp>>, StoreError> {
    if invocations.is_empty() {
        return Ok(HashMap::new());
    }
    let times: Vec<(Uuid, Option<i64>)> = invocation::Entity::find()
        .select_only()
        .columns([invocation::Column::Id, invocation::Column::FinishTime])
        .filter(invocation::Column::Id.is_in(padded(invocations)))
        .into_tuple()
        .all(transaction)
        .await?;
    Ok(times
        .into_iter()
        .map(|(id, finish)| (id, finish.map(Timestamp)))
        .collect())
}

async fn delete(transaction: &DatabaseTransaction, id: UploadId) -> Result<(), StoreError> {
    upload::Entity::delete_by_id(id.0).exec(transaction).await?;
    Ok(())
}
