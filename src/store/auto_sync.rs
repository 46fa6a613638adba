//! What an event about an object concerns: the sources that follow its bucket, and where it was synced to.
//!
//! Events belong to no caller, so these reads have no scope: each source brings its own tenant.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::{
    Store,
    entities::{invocation, source},
    error::StoreError,
    sources,
};
use crate::domain::{
    ids::SourceId,
    names::CollectionName,
    s3::{AutoSync, ObjectKey},
    source::{Source, SourceSettings},
};

impl Store {
    /// The sources of all tenants that follow the objects of a bucket, whatever their prefixes, in the order of
    /// their creation.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn auto_synced_sources(&self, bucket: &str) -> Result<Vec<Source>, StoreError> {
        let select = source::Entity::find()
            .filter(source::Column::AutoSyncBucket.eq(bucket))
            .order_by_asc(source::Column::Id);
        let rows = self
            .read(async |database| Ok(select.all(database).await?))
            .await?;
        rows.into_iter().map(sources::read).collect()
    }

    /// The collections that invocations of a source named this object for, each once.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn collections_of_object(
        &self,
        source_id: SourceId,
        key: &ObjectKey,
    ) -> Result<Vec<CollectionName>, StoreError> {
        let select = invocation::Entity::find()
            .select_only()
            .column(invocation::Column::CollectionName)
            .distinct()
            .filter(invocation::Column::SourceId.eq(source_id.0))
            .filter(invocation::Column::ObjectKey.eq(key.as_str()))
            .into_tuple::<String>();
        let mut names = self
            .read(async |database| Ok(select.all(database).await?))
            .await?;
        names.sort_unstable();
        Ok(names.into_iter().map(CollectionName::from_stored).collect())
    }
}

/// The bucket that a source follows; none for one that waits for its callers.
pub(super) fn followed_bucket(settings: &SourceSettings) -> Option<String> {
    match settings {
        SourceSettings::S3(s3) => match s3.auto_sync {
            AutoSync::None => None,
            AutoSync::Direct | AutoSync::Metadata => Some(s3.bucket.as_str().to_owned()),
        },
        SourceSettings::Github(_) | SourceSettings::WebScrape(_) | SourceSettings::FileUpload => None,
    }
}
