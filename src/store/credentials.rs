//! Access keys of AWS and GitHub Apps. Secrets come and go sealed; the store cannot open them.
//!
//! A credential that a source names is not deleted. A source that is created in the same moment may still
//! come to name one that is gone: its invocations then fail and say so.

use sea_orm::{
    ActiveModelTrait,
    ActiveValue::Set,
    ColumnTrait, Condition, DatabaseTransaction, DbErr, EntityTrait, FromQueryResult, PaginatorTrait,
    QueryFilter, QueryOrder, QueryResult,
    sea_query::{Expr, OnConflict},
};
use uuid::Uuid;

use super::{
    Store,
    entities::{aws_credential, github_app, source},
    error::StoreError,
    paging::page,
    scope::Scope,
};
use crate::{
    domain::{
        credential::{AwsCredential, AwsCredentialId, GithubApp, NewAwsCredential, NewGithubApp},
        names::TenantName,
        page::{Page, PageRequest},
        source::GithubAppId,
        time::Timestamp,
    },
    secret::Sealed,
};

/// How a request to store a credential ended.
#[derive(Debug, Clone, PartialEq)]
pub enum CreateCredential<T> {
    /// It was stored.
    Created(T),
    /// The request id was used before, for this credential with this secret, which the caller compares.
    Repeated(T, Sealed),
    /// The tenant has one with this name already.
    Exists,
    /// The request id was used before, for another credential.
    RequestIdReused,
}

/// How a request to delete a credential ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteCredential {
    /// It is gone.
    Deleted,
    /// The tenant has none with this name.
    NotFound,
    /// So many sources name it.
    InUse(u64),
}

struct NewApp {
    row: github_app::ActiveModel,
    tenant: TenantName,
    new: NewGithubApp,
    replace: bool,
    request_id: Option<Uuid>,
    now: Timestamp,
}

impl Store {
    /// Stores an access key under an id that is free.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_aws_credential(
        &self,
        tenant: &TenantName,
        new: NewAwsCredential,
        request_id: Option<Uuid>,
    ) -> Result<CreateCredential<AwsCredential>, StoreError> {
        let row = aws_credential::Model {
            id: Uuid::now_v7(),
            tenant: tenant.as_str().to_owned(),
            number: 0,
            name: new.name,
            access_key_id: new.access_key_id,
            sealed_secret: new.sealed_secret.into_bytes(),
            create_time: self.now().await?.0,
            request_id,
        };
        self.write(row, |transaction, row| Box::pin(create_aws(transaction, row)))
            .await
    }

    /// One page of the access keys of the tenant.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn list_aws_credentials(
        &self,
        tenant: &TenantName,
        request: &PageRequest,
    ) -> Result<Page<AwsCredential>, StoreError> {
        let select = aws_credential::Entity::find().filter(aws_credentials_of(tenant));
        let read = |row: &QueryResult| Ok(aws_credential::Model::from_query_result(row, "")?);
        let column = aws_credential::Column::Id;
        let rows = self
            .read(async |database| page(database, vec![select], column, request, read, |row| row.id).await)
            .await?;
        Ok(Page {
            items: rows.items.into_iter().map(shown_aws).collect(),
            next: rows.next,
        })
    }

    /// An access key of the tenant, with its secret.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find_aws_credential(
        &self,
        tenant: &TenantName,
        id: AwsCredentialId,
    ) -> Result<Option<(AwsCredential, Sealed)>, StoreError> {
        let select = aws_credential::Entity::find().filter(aws_credential_of(tenant, id));
        let row = self
            .read(async |database| Ok(select.one(database).await?))
            .await?;
        Ok(row.map(with_secret))
    }

    /// The access keys of the tenant with this id at AWS, with their secrets, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find_aws_credentials_of_key(
        &self,
        tenant: &TenantName,
        access_key_id: &str,
    ) -> Result<Vec<(AwsCredential, Sealed)>, StoreError> {
        let select = aws_credential::Entity::find()
            .filter(aws_credentials_of(tenant))
            .filter(aws_credential::Column::AccessKeyId.eq(access_key_id))
            .order_by_asc(aws_credential::Column::Id);
        let rows = self
            .read(async |database| Ok(select.all(database).await?))
            .await?;
        Ok(rows.into_iter().map(with_secret).collect())
    }

    /// Deletes an access key, unless a source names it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_aws_credential(
        &self,
        tenant: &TenantName,
        id: AwsCredentialId,
    ) -> Result<DeleteCredential, StoreError> {
        self.write((tenant.clone(), id), |transaction, (tenant, id)| {
            Box::pin(delete_aws(transaction, tenant, *id))
        })
        .await
    }

    /// Registers a GitHub App. One that is registered already gets the new private key when `replace` is set.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_github_app(
        &self,
        tenant: &TenantName,
        new: NewGithubApp,
        replace: bool,
        request_id: Option<Uuid>,
    ) -> Result<CreateCredential<GithubApp>, StoreError> {
        let now = self.now().await?;
        let row = github_app::ActiveModel {
            id: Set(Uuid::now_v7()),
            tenant: Set(tenant.as_str().to_owned()),
            app_id: Set(new.app_id.as_str().to_owned()),
            sealed_private_key: Set(new.sealed_private_key.as_bytes().to_vec()),
            create_time: Set(now.0),
            update_time: Set(now.0),
            request_id: Set(request_id),
        };
        let new = NewApp {
            row,
            tenant: tenant.clone(),
            new,
            replace,
            request_id,
            now,
        };
        self.write(new, |transaction, new| Box::pin(create_app(transaction, new)))
            .await
    }

    /// One page of the GitHub Apps of the tenant.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn list_github_apps(
        &self,
        tenant: &TenantName,
        request: &PageRequest,
    ) -> Result<Page<GithubApp>, StoreError> {
        let select = github_app::Entity::find().filter(github_apps_of(tenant));
        let read = |row: &QueryResult| Ok(github_app::Model::from_query_result(row, "")?);
        let column = github_app::Column::Id;
        let rows = self
            .read(async |database| page(database, vec![select], column, request, read, |row| row.id).await)
            .await?;
        Ok(Page {
            items: rows.items.into_iter().map(shown_app).collect(),
            next: rows.next,
        })
    }

    /// A GitHub App of the tenant, with its private key.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find_github_app(
        &self,
        tenant: &TenantName,
        app_id: &GithubAppId,
    ) -> Result<Option<(GithubApp, Sealed)>, StoreError> {
        let select = github_app::Entity::find().filter(github_app_of(tenant, app_id));
        let row = self
            .read(async |database| Ok(select.one(database).await?))
            .await?;
        Ok(row.map(|row| {
            let sealed = Sealed::from_bytes(row.sealed_private_key.clone());
            (shown_app(row), sealed)
        }))
    }

    /// Forgets a GitHub App, unless a source names it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_github_app(
        &self,
        tenant: &TenantName,
        app_id: &GithubAppId,
    ) -> Result<DeleteCredential, StoreError> {
        let input = (tenant.clone(), app_id.clone());
        self.write(input, |transaction, (tenant, app_id)| {
            Box::pin(delete_app(transaction, tenant, app_id))
        })
        .await
    }
}

fn aws_credentials_of(tenant: &TenantName) -> Condition {
    Condition::all().add(aws_credential::Column::Tenant.eq(tenant.as_str()))
}

fn aws_credential_of(tenant: &TenantName, id: AwsCredentialId) -> Condition {
    aws_credentials_of(tenant).add(aws_credential::Column::Number.eq(id.number()))
}

fn github_apps_of(tenant: &TenantName) -> Condition {
    Condition::all().add(github_app::Column::Tenant.eq(tenant.as_str()))
}

fn github_app_of(tenant: &TenantName, app_id: &GithubAppId) -> Condition {
    github_apps_of(tenant).add(github_app::Column::AppId.eq(app_id.as_str()))
}

async fn create_aws(
    transaction: &DatabaseTransaction,
    new: &aws_credential::Model,
) -> Result<CreateCredential<AwsCredential>, StoreError> {
    if let Some(request_id) = new.request_id {
        let earlier = aws_credential::Entity::find()
            .filter(aws_credential::Column::Tenant.eq(new.tenant.as_str()))
            .filter(aws_credential::Column::RequestId.eq(request_id))
            .one(transaction)
            .await?;
        if let Some(row) = earlier {
            if (&row.access_key_id, &row.name) != (&new.access_key_id, &new.name) {
                return Ok(CreateCredential::RequestIdReused);
            }
            let sealed = Sealed::from_bytes(row.sealed_secret.clone());
            return Ok(CreateCredential::Repeated(shown_aws(row), sealed));
        }
    }
    let row = aws_credential::ActiveModel {
        number: Set(AwsCredentialId::generate().number()),
        ..new.clone().into()
    };
    let mut inserted = aws_credential::Entity::insert(row.reset_all())
        .on_conflict(OnConflict::new().do_nothing().to_owned())
        .exec_with_returning_many(transaction)
        .await?;
    match inserted.pop() {
        Some(row) => Ok(CreateCredential::Created(shown_aws(row))),
        // The number or the request id was taken in this very moment; the write is tried again.
        None => Err(StoreError::Contended(DbErr::RecordNotInserted)),
    }
}

async fn create_app(
    transaction: &DatabaseTransaction,
    new: &NewApp,
) -> Result<CreateCredential<GithubApp>, StoreError> {
    let app_id = &new.new.app_id;
    if let Some(request_id) = new.request_id {
        let earlier = github_app::Entity::find()
            .filter(github_apps_of(&new.tenant))
            .filter(github_app::Column::RequestId.eq(request_id))
            .one(transaction)
            .await?;
        if let Some(row) = earlier {
            if row.app_id != app_id.as_str() {
                return Ok(CreateCredential::RequestIdReused);
            }
            let sealed = Sealed::from_bytes(row.sealed_private_key.clone());
            return Ok(CreateCredential::Repeated(shown_app(row), sealed));
        }
    }
    let mut inserted = github_app::Entity::insert(new.row.clone())
        .on_conflict(OnConflict::new().do_nothing().to_owned())
        .exec_with_returning_many(transaction)
        .await?;
    if let Some(row) = inserted.pop() {
        return Ok(CreateCredential::Created(shown_app(row)));
    }
    if !new.replace {
        return Ok(CreateCredential::Exists);
    }
    let sealed = new.new.sealed_private_key.as_bytes().to_vec();
    let mut updated = github_app::Entity::update_many()
        .col_expr(github_app::Column::SealedPrivateKey, Expr::value(sealed))
        .col_expr(github_app::Column::UpdateTime, Expr::value(new.now.0))
        .col_expr(github_app::Column::RequestId, Expr::value(new.request_id))
        .filter(github_app_of(&new.tenant, app_id))
        .exec_with_returning(transaction)
        .await?;
    match updated.pop() {
        Some(row) => Ok(CreateCredential::Created(shown_app(row))),
        // Whatever was in the way was deleted in this very moment; the write is tried again.
        None => Err(StoreError::Contended(DbErr::RecordNotInserted)),
    }
}

async fn delete_aws(
    transaction: &DatabaseTransaction,
    tenant: &TenantName,
    id: AwsCredentialId,
) -> Result<DeleteCredential, StoreError> {
    if let Some(in_use) = in_use(
        transaction,
        tenant,
        source::Column::AwsCredentialId.eq(id.number()),
    )
    .await?
    {
        return Ok(in_use);
    }
    let result = aws_credential::Entity::delete_many()
        .filter(aws_credential_of(tenant, id))
        .exec(transaction)
        .await?;
    Ok(deleted(result.rows_affected))
}

async fn delete_app(
    transaction: &DatabaseTransaction,
    tenant: &TenantName,
    app_id: &GithubAppId,
) -> Result<DeleteCredential, StoreError> {
    let naming = source::Column::GithubAppId.eq(app_id.as_str());
    if let Some(in_use) = in_use(transaction, tenant, naming).await? {
        return Ok(in_use);
    }
    let result = github_app::Entity::delete_many()
        .filter(github_app_of(tenant, app_id))
        .exec(transaction)
        .await?;
    Ok(deleted(result.rows_affected))
}

/// How many sources of the tenant name a credential, if any does.
async fn in_use(
    transaction: &DatabaseTransaction,
    tenant: &TenantName,
    naming: Expr,
) -> Result<Option<DeleteCredential>, StoreError> {
    let count = Scope::tenant(tenant.clone())
        .select_sources()
        .filter(naming)
        .count(transaction)
        .await?;
    Ok((count > 0).then_some(DeleteCredential::InUse(count)))
}

fn deleted(rows: u64) -> DeleteCredential {
    if rows == 1 {
        DeleteCredential::Deleted
    } else {
        DeleteCredential::NotFound
    }
}

fn with_secret(row: aws_credential::Model) -> (AwsCredential, Sealed) {
    let sealed = Sealed::from_bytes(row.sealed_secret.clone());
    (shown_aws(row), sealed)
}

fn shown_aws(row: aws_credential::Model) -> AwsCredential {
    AwsCredential {
        id: AwsCredentialId::from_stored(row.number),
        name: row.name,
        access_key_id: row.access_key_id,
        create_time: Timestamp(row.create_time),
    }
}

fn shown_app(row: github_app::Model) -> GithubApp {
    GithubApp {
        app_id: GithubAppId::from_stored(row.app_id),
        create_time: Timestamp(row.create_time),
        update_time: Timestamp(row.update_time),
    }
}
