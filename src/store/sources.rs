//! Sources: created, read, deleted, never changed.

use std::collections::HashMap;

use futures::future::BoxFuture;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, DatabaseTransaction, DbErr, EntityTrait, FromQueryResult,
    QueryFilter, QueryResult, QueryTrait, sea_query::OnConflict,
};
use uuid::Uuid;

use super::{
    Store,
    auto_sync::followed_bucket,
    coalesce::{Answer, distinct, in_order},
    entities::source,
    error::StoreError,
    paging::{padded, page},
    reader::Reader,
    scope::Scope,
    stored::{StoredSettings, corrupt, decode, encode},
};
use crate::domain::{
    ids::SourceId,
    names::{DatabaseName, TenantName},
    page::{Page, PageRequest},
    source::{
        GithubSource, NewSource, RepositoryName, S3Credential, S3Source, Source, SourceFilter, SourceSettings,
    },
    time::Timestamp,
    webhook::{Webhook, WebhookUrl},
};
use crate::secret::Sealed;

/// How a request to create a source ended.
#[derive(Debug, Clone, PartialEq)]
pub enum CreateSource {
    /// It was created.
    Created(Source),
    /// The tenant has a source with the same settings already.
    Exists(SourceId),
    /// The same request was answered before, with this source.
    Repeated(Source),
    /// The request id was used before, for another source.
    RequestIdReused,
}

/// A row to insert, and what decides a conflict.
struct NewRow {
    row: source::ActiveModel,
    tenant: String,
    fingerprint: Vec<u8>,
    webhook_url: Option<String>,
    request_id: Option<Uuid>,
}

impl Store {
    /// Creates a source, unless the tenant has one with the same fingerprint.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_source(
        &self,
        tenant: &TenantName,
        new: NewSource,
        request_id: Option<Uuid>,
    ) -> Result<CreateSource, StoreError> {
        let fingerprint = new.fingerprint().to_vec();
        let (github_repository, github_app_id) = github_columns(&new.settings);
        let webhook_url = new
            .webhook
            .as_ref()
            .map(|webhook| webhook.url.as_str().to_owned());
        let sealed_secret = new.webhook.and_then(|webhook| webhook.sealed_secret);
        let row = source::ActiveModel {
            id: Set(SourceId::generate().0),
            tenant: Set(tenant.as_str().to_owned()),
            database_name: Set(new.database.as_str().to_owned()),
            source_type: Set(new.settings.source_type().as_str().to_owned()),
            github_repository: Set(github_repository),
            github_app_id: Set(github_app_id),
            aws_credential_id: Set(aws_credential_column(&new.settings)),
            settings: Set(encode("sources.settings", &StoredSettings::of(&new.settings)?)?),
            embedding: Set(encode("sources.embedding", &new.embedding)?),
            chunking: Set(encode("sources.chunking", &new.chunking)?),
            fingerprint: Set(fingerprint.clone()),
            create_time: Set(self.now().await?.0),
            request_id: Set(request_id),
            webhook_url: Set(webhook_url.clone()),
            sealed_webhook_secret: Set(sealed_secret.map(Sealed::into_bytes)),
            auto_sync_bucket: Set(followed_bucket(&new.settings)),
        };
        let new_row = NewRow {
            row,
            tenant: tenant.as_str().to_owned(),
            fingerprint,
            webhook_url,
            request_id,
        };
        self.write(new_row, |transaction, new_row| {
            Box::pin(create(transaction, new_row))
        })
        .await
    }

    /// The source with this id, if it is in scope.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn get_source(&self, scope: &Scope, id: SourceId) -> Result<Option<Source>, StoreError> {
        let found = self.within(self.inner.coalesced.sources.call(id)).await?;
        Ok(found.filter(|source| scope.includes(&source.tenant, &source.database)))
    }

    /// One page of the sources in scope that pass `filter`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn list_sources(
        &self,
        scope: &Scope,
        filter: &SourceFilter,
        request: &PageRequest,
    ) -> Result<Page<Source>, StoreError> {
        let SourceFilter {
            database,
            source_type,
            github_app_id,
            github_repository,
        } = filter;
        let repository = github_repository.as_ref().map(repository_column);
        let filter = Condition::all()
            .add_option(
                database
                    .as_ref()
                    .map(|name| source::Column::DatabaseName.eq(name.as_str())),
            )
            .add_option(source_type.map(|source_type| source::Column::SourceType.eq(source_type.as_str())))
            .add_option(
                github_app_id
                    .as_ref()
                    .map(|app| source::Column::GithubAppId.eq(app.as_str())),
            )
            .add_option(repository.map(|name| source::Column::GithubRepository.eq(name)));
        let scopes = match (database, request.skip) {
            (None, 0) => scope.by_database(),
            _ => vec![scope.clone()],
        };
        let selects: Vec<_> = scopes
            .iter()
            .map(|scope| scope.select_sources().filter(filter.clone()))
            .collect();
        self.read(async |database| {
            let read = |row: &QueryResult| read(source::Model::from_query_result(row, "")?);
            page(database, selects, source::Column::Id, request, read, |source| {
                source.id.0
            })
            .await
        })
        .await
    }

    /// Deletes a source; false when none with this id is in scope. Its invocations stay, and run on with
    /// the settings they were created with.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_source(&self, scope: &Scope, id: SourceId) -> Result<bool, StoreError> {
        let condition = scope.sources().add(source::Column::Id.eq(id.0));
        self.write(condition, |transaction, condition| {
            Box::pin(delete(transaction, condition))
        })
        .await
    }
}

/// The columns by which sources and their invocations are filtered: repository and GitHub App.
pub(super) fn github_columns(settings: &SourceSettings) -> (Option<String>, Option<String>) {
    match settings {
        SourceSettings::Github(GithubSource {
            repository,
            app_id,
            include_globs: _,
        }) => {
            let app_id = app_id.as_ref().map(|id| id.as_str().to_owned());
            (Some(repository_column(repository)), app_id)
        }
        SourceSettings::S3(_) | SourceSettings::WebScrape(_) | SourceSettings::FileUpload => (None, None),
    }
}

/// Which stored credential reads the source.
fn aws_credential_column(settings: &SourceSettings) -> Option<i32> {
    match settings {
        SourceSettings::S3(S3Source {
            credential: S3Credential::Stored(id),
            ..
        }) => Some(id.number()),
        SourceSettings::S3(_)
        | SourceSettings::Github(_)
        | SourceSettings::WebScrape(_)
        | SourceSettings::FileUpload => None,
    }
}

/// GitHub compares owner and name without regard to case.
pub(super) fn repository_column(repository: &RepositoryName) -> String {
    repository.as_str().to_ascii_lowercase()
}

/// The sources with these ids, whoever owns them.
pub(super) fn find<'a>(
    reader: &'a Reader,
    ids: &'a [SourceId],
) -> BoxFuture<'a, Result<Vec<Answer<Option<Source>>>, StoreError>> {
    Box::pin(async move {
        let wanted: Vec<Uuid> = distinct(ids).into_iter().map(|id| id.0).collect();
        let select = source::Entity::find()
            .filter(source::Column::Id.is_in(padded(&wanted)))
            .into_query();
        let [rows] = reader.query_each([select]).await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            let row = source::Model::from_query_result(row, "")?;
            found.insert(SourceId(row.id), read(row));
        }
        Ok(in_order(ids, found))
    })
}

async fn create(transaction: &DatabaseTransaction, new: &NewRow) -> Result<CreateSource, StoreError> {
    if let Some(answer) = answered_before(transaction, new).await? {
        return Ok(answer);
    }
    // Without a target, the clause covers every unique index of the table.
    let mut inserted = source::Entity::insert(new.row.clone())
        .on_conflict(OnConflict::new().do_nothing().to_owned())
        .exec_with_returning_many(transaction)
        .await?;
    match inserted.pop() {
        Some(row) => Ok(CreateSource::Created(read(row)?)),
        None => conflict(transaction, new).await,
    }
}

/// What the request id led to when it was used before.
async fn answered_before(
    transaction: &DatabaseTransaction,
    new: &NewRow,
) -> Result<Option<CreateSource>, StoreError> {
    let Some(request_id) = new.request_id else {
        return Ok(None);
    };
    let earlier = source::Entity::find()
        .filter(source::Column::Tenant.eq(new.tenant.as_str()))
        .filter(source::Column::RequestId.eq(request_id))
        .one(transaction)
        .await?;
    Ok(match earlier {
        None => None,
        Some(row) if row.fingerprint == new.fingerprint && row.webhook_url == new.webhook_url => {
            Some(CreateSource::Repeated(read(row)?))
        }
        Some(_) => Some(CreateSource::RequestIdReused),
    })
}

/// Why nothing was inserted: the request id or the fingerprint is taken.
async fn conflict(transaction: &DatabaseTransaction, new: &NewRow) -> Result<CreateSource, StoreError> {
    if let Some(answer) = answered_before(transaction, new).await? {
        return Ok(answer);
    }
    let same = source::Entity::find()
        .filter(source::Column::Tenant.eq(new.tenant.as_str()))
        .filter(source::Column::Fingerprint.eq(new.fingerprint.clone()))
        .one(transaction)
        .await?;
    match same {
        Some(row) => Ok(CreateSource::Exists(SourceId(row.id))),
        // Whoever was in the way was deleted in this very moment; the write is tried again.
        None => Err(StoreError::Contended(DbErr::RecordNotInserted)),
    }
}

async fn delete(transaction: &DatabaseTransaction, condition: &Condition) -> Result<bool, StoreError> {
    let result = source::Entity::delete_many()
        .filter(condition.clone())
        .exec(transaction)
        .await?;
    Ok(result.rows_affected == 1)
}

pub(super) fn read(row: source::Model) -> Result<Source, StoreError> {
    let id = SourceId(row.id);
    let settings: StoredSettings = decode("sources.settings", id, row.settings)?;
    let sealed_secret = row.sealed_webhook_secret.map(Sealed::from_bytes);
    let webhook = row.webhook_url.map(|url| {
        let url = WebhookUrl::from_stored(&url).ok_or_else(|| corrupt("sources.webhook_url", id))?;
        Ok::<_, StoreError>(Webhook {
            url,
            signing_secret: None,
            sealed_secret,
        })
    });
    Ok(Source {
        id,
        tenant: TenantName::from_stored(row.tenant),
        database: DatabaseName::from_stored(row.database_name),
        settings: settings
            .restore()
            .ok_or_else(|| corrupt("sources.settings", id))?,
        embedding: decode("sources.embedding", id, row.embedding)?,
        chunking: decode("sources.chunking", id, row.chunking)?,
        create_time: Timestamp(row.create_time),
        webhook: webhook.transpose()?,
    })
}
