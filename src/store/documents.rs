//! The ledger: which documents an invocation discovered, and what became of each.
//!
//! Only the attempt that holds the lease writes to it, and what it writes about the documents commits
//! together with the progress it reports, so the counts a watcher sees never run ahead of the ledger.
//! An attempt that was interrupted leaves its rows; the next one reads them and goes on from there, or
//! clears them when its listing differs.

use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect, Statement, Value, sea_query::OnConflict,
};
use sha2::{Digest, Sha256};

use super::{
    Store,
    entities::document,
    error::StoreError,
    lease::{Fence, Held, with_report},
    paging::padded,
    stored::{corrupt, to_sql, without_nul},
    transition::with_progress,
};
use crate::domain::{
    document::{Document, DocumentOutcome, SkipRule},
    ids::InvocationId,
    invocation::Progress,
};

/// Rows that one statement inserts; SQLite binds at most 32,766 values, of which a row takes nine.
const ROWS_AN_INSERT: usize = 512;
/// Rows that one statement updates.
const ROWS_AN_UPDATE: usize = 256;
/// The most rows that one call returns.
const MAX_ROWS: u64 = 10_000;

/// Names of the outcomes, without their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutcomeName {
    /// See [`DocumentOutcome::Discovered`].
    Discovered,
    /// See [`DocumentOutcome::Indexed`].
    Indexed,
    /// See [`DocumentOutcome::Unchanged`].
    Unchanged,
    /// See [`DocumentOutcome::Removed`].
    Removed,
    /// See [`DocumentOutcome::Skipped`].
    Skipped,
    /// See [`DocumentOutcome::Failed`].
    Failed,
}

impl OutcomeName {
    /// Every outcome.
    pub const ALL: [Self; 6] = [
        Self::Discovered,
        Self::Indexed,
        Self::Unchanged,
        Self::Removed,
        Self::Skipped,
        Self::Failed,
    ];

    /// The name in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Discovered => "discovered",
            Self::Indexed => "indexed",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }

    /// The name of `outcome`.
    pub const fn of(outcome: &DocumentOutcome) -> Self {
        match outcome {
            DocumentOutcome::Discovered => Self::Discovered,
            DocumentOutcome::Indexed => Self::Indexed,
            DocumentOutcome::Unchanged => Self::Unchanged,
            DocumentOutcome::Removed => Self::Removed,
            DocumentOutcome::Skipped(_) => Self::Skipped,
            DocumentOutcome::Failed(_) => Self::Failed,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }
}

/// What became of a document that was recorded as discovered before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Position in the invocation's listing.
    pub ordinal: u32,
    /// What became of it.
    pub outcome: DocumentOutcome,
    /// Number of records it has in the collection now.
    pub chunks: u32,
}

/// Which part of a ledger is wanted, in the order of the listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentPage {
    /// Start after this ordinal.
    pub after: Option<u32>,
    /// The most rows, up to 10,000.
    pub limit: u64,
}

struct Discovered {
    fence: Fence,
    rows: Vec<document::ActiveModel>,
}

struct Outcomes {
    fence: Fence,
    settled: Vec<Settled>,
    progress: Progress,
}

impl Store {
    /// Adds documents to the ledger. Where an ordinal is taken, the row that has it stays as it is.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn record_discovered(
        &self,
        id: InvocationId,
        attempt: u32,
        documents: Vec<Document>,
    ) -> Result<Held, StoreError> {
        let rows = documents.iter().map(|document| row_of(id, document)).collect();
        let discovered = Discovered {
            fence: Fence { id, attempt },
            rows,
        };
        self.write(discovered, |transaction, discovered| {
            Box::pin(insert(transaction, discovered))
        })
        .await
    }

    /// Settles documents and writes the progress that counts them, both or neither.
    ///
    /// # Errors
    /// [`StoreError::UnknownDocuments`] when one of them was never recorded as discovered, or is settled
    /// twice in one call.
    pub async fn record_outcomes(
        &self,
        id: InvocationId,
        attempt: u32,
        settled: &[Settled],
        progress: &Progress,
    ) -> Result<Held, StoreError> {
        let (settled, progress) = (settled.to_vec(), progress.clone());
        let outcomes = Outcomes {
            fence: Fence { id, attempt },
            settled,
            progress,
        };
        self.write(outcomes, |transaction, outcomes| {
            Box::pin(settle(transaction, outcomes))
        })
        .await
    }

    /// Empties the ledger of an invocation, for an attempt whose listing differs from the last one's.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn clear_documents(&self, id: InvocationId, attempt: u32) -> Result<Held, StoreError> {
        let fence = Fence { id, attempt };
        self.write(fence, |transaction, fence| Box::pin(clear(transaction, *fence)))
            .await
    }

    /// Rows of the ledger of an invocation, by ordinal; with `outcome`, only those that ended so.
    ///
    /// Not scoped: the caller has looked the invocation up in its scope before, or works on it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn list_documents(
        &self,
        id: InvocationId,
        outcome: Option<OutcomeName>,
        page: DocumentPage,
    ) -> Result<Vec<Document>, StoreError> {
        let after = page
            .after
            .map(|ordinal| document::Column::Ordinal.gt(i64::from(ordinal)));
        let filter = Condition::all()
            .add(document::Column::InvocationId.eq(id.0))
            .add_option(outcome.map(|outcome| document::Column::Outcome.eq(outcome.as_str())))
            .add_option(after);
        let select = document::Entity::find()
            .filter(filter)
            .order_by_asc(document::Column::Ordinal)
            .limit(page.limit.min(MAX_ROWS));
        let rows = self
            .read(async |database| Ok(select.all(database).await?))
            .await?;
        rows.into_iter().map(read).collect()
    }

    /// The first ordinal that the ledger of an invocation has not used.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn next_ordinal(&self, id: InvocationId) -> Result<u32, StoreError> {
        let select = document::Entity::find()
            .select_only()
            .column(document::Column::Ordinal)
            .filter(document::Column::InvocationId.eq(id.0))
            .order_by_desc(document::Column::Ordinal)
            .into_tuple::<i64>();
        let last = self
            .read(async |database| Ok(select.one(database).await?))
            .await?;
        let next = last.map_or(0, |ordinal| ordinal.saturating_add(1));
        u32::try_from(next).map_err(|_| corrupt("documents.ordinal", id))
    }
}

fn row_of(id: InvocationId, document: &Document) -> document::ActiveModel {
    let (outcome, detail) = to_columns(&document.outcome);
    document::ActiveModel {
        invocation_id: Set(id.0),
        ordinal: Set(i64::from(document.ordinal)),
        document_key: Set(without_nul(&document.document_key)),
        document_key_sha256: Set(Sha256::digest(document.document_key.as_bytes()).to_vec()),
        version_key: Set(without_nul(&document.version_key)),
        size_bytes: Set(document.size_bytes.map(to_sql)),
        outcome: Set(outcome.to_owned()),
        detail: Set(detail),
        chunks: Set(i64::from(document.chunks)),
        memo: Set(document.memo.clone()),
    }
}

fn to_columns(outcome: &DocumentOutcome) -> (&'static str, Option<String>) {
    let detail = match outcome {
        DocumentOutcome::Discovered
        | DocumentOutcome::Indexed
        | DocumentOutcome::Unchanged
        | DocumentOutcome::Removed => None,
        DocumentOutcome::Skipped(rule) => Some(rule.as_str().to_owned()),
        DocumentOutcome::Failed(reason) => Some(without_nul(reason)),
    };
    (OutcomeName::of(outcome).as_str(), detail)
}

async fn insert(transaction: &DatabaseTransaction, discovered: &Discovered) -> Result<Held, StoreError> {
    if discovered.fence.holds(transaction).await? == Held::Lost {
        return Ok(Held::Lost);
    }
    let keep = OnConflict::columns([document::Column::InvocationId, document::Column::Ordinal])
        .do_nothing()
        .to_owned();
    for rows in discovered.rows.chunks(ROWS_AN_INSERT) {
        document::Entity::insert_many(rows.iter().cloned())
            .on_conflict(keep.clone())
            .exec_without_returning(transaction)
            .await?;
    }
    Ok(Held::Held)
}

async fn settle(transaction: &DatabaseTransaction, outcomes: &Outcomes) -> Result<Held, StoreError> {
    let Outcomes {
        fence,
        settled,
        progress,
    } = outcomes;
    let update = with_report(with_progress(fence.update()), progress)?;
    if update.exec(transaction).await?.rows_affected == 0 {
        return Ok(Held::Lost);
    }
    let mut known = 0;
    for settled in settled.chunks(ROWS_AN_UPDATE) {
        let result = transaction
            .execute_raw(settle_statement(transaction, fence.id, settled))
            .await?;
        known += result.rows_affected();
    }
    if known == settled.len() as u64 {
        Ok(Held::Held)
    } else {
        Err(StoreError::UnknownDocuments {
            invocation: fence.id.to_string(),
        })
    }
}

/// One UPDATE for many rows. The types are spelled out for PostgreSQL, which does not infer them.
fn settle_statement(transaction: &DatabaseTransaction, id: InvocationId, settled: &[Settled]) -> Statement {
    let rows = padded(settled);
    let mut values: Vec<Value> = vec![id.0.into()];
    let mut list = String::new();
    for settled in &rows {
        let next = values.len() + 1;
        let separator = if list.is_empty() { "" } else { ", " };
        list.push_str(&format!(
            "{separator}(CAST(${} AS BIGINT), CAST(${} AS TEXT), CAST(${} AS TEXT), CAST(${} AS BIGINT))",
            next,
            next + 1,
            next + 2,
            next + 3,
        ));
        let (outcome, detail) = to_columns(&settled.outcome);
        values.extend([
            i64::from(settled.ordinal).into(),
            outcome.into(),
            detail.into(),
            i64::from(settled.chunks).into(),
        ]);
    }
    let sql = format!(
        "WITH settled (ordinal, outcome, detail, chunks) AS (VALUES {list}) \
         UPDATE documents SET outcome = settled.outcome, detail = settled.detail, chunks = settled.chunks \
         FROM settled WHERE documents.invocation_id = $1 AND documents.ordinal = settled.ordinal"
    );
    Statement::from_sql_and_values(transaction.get_database_backend(), sql, values)
}

async fn clear(transaction: &DatabaseTransaction, fence: Fence) -> Result<Held, StoreError> {
    if fence.holds(transaction).await? == Held::Lost {
        return Ok(Held::Lost);
    }
    document::Entity::delete_many()
        .filter(document::Column::InvocationId.eq(fence.id.0))
        .exec(transaction)
        .await?;
    Ok(Held::Held)
}

fn read(row: document::Model) -> Result<Document, StoreError> {
    let id = format!("{}/{}", row.invocation_id, row.ordinal);
    let outcome = OutcomeName::from_name(&row.outcome).ok_or_else(|| corrupt("documents.outcome", &id))?;
    let no_detail = || corrupt("documents.detail", &id);
    let outcome = match outcome {
        OutcomeName::Discovered => DocumentOutcome::Discovered,
        OutcomeName::Indexed => DocumentOutcome::Indexed,
        OutcomeName::Unchanged => DocumentOutcome::Unchanged,
        OutcomeName::Removed => DocumentOutcome::Removed,
        OutcomeName::Skipped => {
            let rule = row.detail.as_deref().and_then(SkipRule::from_name);
            DocumentOutcome::Skipped(rule.ok_or_else(no_detail)?)
        }
        OutcomeName::Failed => DocumentOutcome::Failed(row.detail.ok_or_else(no_detail)?),
    };
    let size_bytes = row.size_bytes.map(u64::try_from).transpose();
    Ok(Document {
        ordinal: u32::try_from(row.ordinal).map_err(|_| corrupt("documents.ordinal", &id))?,
        document_key: row.document_key,
        version_key: row.version_key,
        size_bytes: size_bytes.map_err(|_| corrupt("documents.size_bytes", &id))?,
        outcome,
        chunks: u32::try_from(row.chunks).map_err(|_| corrupt("documents.chunks", &id))?,
        memo: row.memo,
    })
}
