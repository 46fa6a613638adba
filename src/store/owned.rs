//! Which documents a source has in a collection, from the ledgers of its earlier invocations.
//!
//! An invocation that runs into a collection again deletes what is gone from the source. It must not
//! touch records of others, so it goes by what its own source is known to have put there: a document is
//! owned when the newest invocation that says so indexed it or found it unchanged. `removed` ends that;
//! `discovered`, `skipped` and `failed` say nothing about the collection, so an earlier row holds.

use std::collections::VecDeque;

use sea_orm::{
    ColumnTrait, Condition, EntityTrait, ExprTrait, JoinType, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, Query},
};
use uuid::Uuid;

use super::{
    Store,
    documents::OutcomeName,
    entities::{document, invocation},
    error::StoreError,
    stored::corrupt,
};
use crate::domain::{
    document::DocumentKey,
    ids::{InvocationId, SourceId},
    names::{CollectionName, DatabaseName},
};

/// Rows of one page.
const PAGE_SIZE: u64 = 1_000;
/// Names of the tables in the question whether a newer row exists.
const OTHER: &str = "other";
const NEWER: &str = "newer";

/// A document that the source has in the collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedDocument {
    /// Its key.
    pub document_key: DocumentKey,
    /// Its version when it was indexed.
    pub version_key: String,
    /// Number of its records.
    pub chunks: u32,
    /// What the fetcher wanted to be told of it.
    pub memo: Option<String>,
}

/// Reads the owned documents page by page; see [`Store::owned_documents`].
#[derive(Debug)]
pub struct OwnedDocuments {
    store: Store,
    source_id: SourceId,
    database: DatabaseName,
    collection: CollectionName,
    asking: InvocationId,
    /// Invocations to read yet, newest first; none before the first page.
    invocations: Option<VecDeque<Uuid>>,
    /// The last key read of the first of them, as its digest.
    after: Option<Vec<u8>>,
}

impl Store {
    /// The documents that other invocations of a source left in a collection and that the invocation
    /// `asking` has not removed. Each key appears once.
    pub fn owned_documents(
        &self,
        source_id: SourceId,
        database: &DatabaseName,
        collection: &CollectionName,
        asking: InvocationId,
    ) -> OwnedDocuments {
        OwnedDocuments {
            store: self.clone(),
            source_id,
            database: database.clone(),
            collection: collection.clone(),
            asking,
            invocations: None,
            after: None,
        }
    }
}

impl OwnedDocuments {
    /// The next documents, at most 1,000; none after the last.
    ///
    /// # Errors
    /// Those of the database; the same page can be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<OwnedDocument>>, StoreError> {
        let mut invocations = match self.invocations.take() {
            Some(invocations) => invocations,
            None => self.invocations_to_read().await?,
        };
        let mut page = None;
        while let Some(&invocation_id) = invocations.front() {
            let rows = match self.rows_of(invocation_id).await {
                Ok(rows) => rows,
                Err(error) => {
                    self.invocations = Some(invocations);
                    return Err(error);
                }
            };
            if let Some(last) = rows.last() {
                self.after = Some(last.document_key_sha256.clone());
                page = Some(rows);
                break;
            }
            invocations.pop_front();
            self.after = None;
        }
        self.invocations = Some(invocations);
        page.map(|rows| rows.into_iter().map(read).collect()).transpose()
    }

    async fn invocations_to_read(&self) -> Result<VecDeque<Uuid>, StoreError> {
        let select = invocation::Entity::find()
            .select_only()
            .column(invocation::Column::Id)
            .filter(invocation::Column::SourceId.eq(self.source_id.0))
            .filter(invocation::Column::DatabaseName.eq(self.database.as_str()))
            .filter(invocation::Column::CollectionName.eq(self.collection.as_str()))
            .filter(invocation::Column::Id.ne(self.asking.0))
            // An invocation that no worker ever took has no ledger.
            .filter(invocation::Column::Attempt.gt(0))
            .order_by_desc(invocation::Column::Id)
            .into_tuple::<Uuid>();
        let ids = self
            .store
            .read(async |database| Ok(select.all(database).await?))
            .await?;
        Ok(ids.into())
    }

    async fn rows_of(&self, invocation_id: Uuid) -> Result<Vec<document::Model>, StoreError> {
        let present = [OutcomeName::Indexed, OutcomeName::Unchanged].map(OutcomeName::as_str);
        let mut select = document::Entity::find()
            .filter(document::Column::InvocationId.eq(invocation_id))
            .filter(document::Column::Outcome.is_in(present))
            .filter(self.no_newer_row())
            .order_by_asc(document::Column::DocumentKeySha256)
            .limit(PAGE_SIZE);
        if let Some(after) = &self.after {
            select = select.filter(document::Column::DocumentKeySha256.gt(after.clone()));
        }
        self.store
            .read(async |database| Ok(select.all(database).await?))
            .await
    }

    /// That no newer invocation settled the document. What the asking one indexed anew is still owned, but
    /// what it removed, perhaps in an earlier attempt, is not.
    fn no_newer_row(&self) -> Expr {
        let other = |column: invocation::Column| Expr::col((OTHER, column));
        let newer = |column: document::Column| Expr::col((NEWER, column));
        let same_key = newer(document::Column::DocumentKeySha256)
            .equals((document::Entity, document::Column::DocumentKeySha256));
        let present = [OutcomeName::Indexed, OutcomeName::Unchanged].map(OutcomeName::as_str);
        let settled = Condition::any()
            .add(newer(document::Column::Outcome).eq(OutcomeName::Removed.as_str()))
            .add(
                newer(document::Column::Outcome)
                    .is_in(present)
                    .and(other(invocation::Column::Id).ne(self.asking.0)),
            );
        let newer_rows = Query::select()
            .expr(Expr::val(1))
            .from_as(invocation::Entity, OTHER)
            .join_as(
                JoinType::InnerJoin,
                document::Entity,
                NEWER,
                Condition::all()
                    .add(newer(document::Column::InvocationId).equals((OTHER, invocation::Column::Id)))
                    .add(same_key),
            )
            .and_where(other(invocation::Column::SourceId).eq(self.source_id.0))
            .and_where(other(invocation::Column::DatabaseName).eq(self.database.as_str()))
            .and_where(other(invocation::Column::CollectionName).eq(self.collection.as_str()))
            .and_where(
                other(invocation::Column::Id)
                    .gt(Expr::col((document::Entity, document::Column::InvocationId))),
            )
            .cond_where(settled)
            .to_owned();
        Expr::exists(newer_rows).not()
    }
}

fn read(row: document::Model) -> Result<OwnedDocument, StoreError> {
    let id = format!("{}/{}", row.invocation_id, row.ordinal);
    Ok(OwnedDocument {
        document_key: row.document_key,
        version_key: row.version_key,
        chunks: u32::try_from(row.chunks).map_err(|_| corrupt("documents.chunks", id))?,
        memo: row.memo,
    })
}
