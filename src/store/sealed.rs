//! Every secret that lies in the database, wherever it lies, for the replacement of the key that seals them.
//!
//! A value is replaced only while it is the one that was read, so this goes on beside whatever else writes.

use futures::future::BoxFuture;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, ExprTrait,
    sea_query::{Alias, Expr, Order, Query},
};
use uuid::Uuid;

use super::{Store, error::StoreError};
use crate::{
    domain::{credential, names::TenantName, webhook},
    secret::Sealed,
};

/// A column of sealed secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedColumn {
    /// Secrets of access keys.
    AwsCredentials,
    /// Private keys of GitHub Apps.
    GithubApps,
    /// Signing secrets of sources' webhooks.
    Sources,
    /// Signing secrets of invocations' webhooks.
    WebhookDeliveries,
    /// Tokens that invocations write to Chroma with.
    Invocations,
}

/// A sealed secret and where it lies.
#[derive(Debug, Clone, PartialEq)]
pub struct SealedValue {
    /// The row.
    pub id: Uuid,
    /// What it was sealed for.
    pub context: String,
    /// The secret.
    pub sealed: Sealed,
}

/// A secret that was sealed again.
#[derive(Debug, Clone, PartialEq)]
pub struct Resealed {
    /// The row.
    pub id: Uuid,
    /// What it has.
    pub old: Sealed,
    /// What it gets.
    pub new: Sealed,
}

/// Names of a table and of its columns.
struct Place {
    table: &'static str,
    id: &'static str,
    sealed: &'static str,
    /// What the context takes beside the tenant.
    qualifier: Option<&'static str>,
    context: fn(&TenantName, &str) -> String,
}

impl SealedColumn {
    /// Every column that has sealed secrets.
    pub const ALL: [Self; 5] = [
        Self::AwsCredentials,
        Self::GithubApps,
        Self::Sources,
        Self::WebhookDeliveries,
        Self::Invocations,
    ];

    /// What its secrets are, in words for the operator.
    pub const fn description(self) -> &'static str {
        match self {
            Self::AwsCredentials => "AWS access keys",
            Self::GithubApps => "private keys of GitHub Apps",
            Self::Sources => "webhook secrets of sources",
            Self::WebhookDeliveries => "webhook secrets of invocations",
            Self::Invocations => "chroma tokens of invocations",
        }
    }

    const fn place(self) -> Place {
        match self {
            Self::AwsCredentials => Place {
                table: "aws_credentials",
                id: "id",
                sealed: "sealed_secret",
                qualifier: Some("access_key_id"),
                context: credential::aws_sealing_context,
            },
            Self::GithubApps => Place {
                table: "github_apps",
                id: "id",
                sealed: "sealed_private_key",
                qualifier: Some("app_id"),
                context: credential::github_sealing_context,
            },
            Self::Sources => Place {
                table: "sources",
                id: "id",
                sealed: "sealed_webhook_secret",
                qualifier: None,
                context: |tenant, _| webhook::sealing_context(tenant),
            },
            Self::WebhookDeliveries => Place {
                table: "webhook_deliveries",
                id: "invocation_id",
                sealed: "sealed_secret",
                qualifier: None,
                context: |tenant, _| webhook::sealing_context(tenant),
            },
            Self::Invocations => Place {
                table: "invocations",
                id: "id",
                sealed: "sealed_chroma_token",
                qualifier: None,
                context: |tenant, _| tenant.as_str().to_owned(),
            },
        }
    }
}

impl Store {
    /// The secrets of a column in rows after `after`, at most `limit`, in the order of the rows.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn sealed_values(
        &self,
        column: SealedColumn,
        after: Uuid,
        limit: u64,
    ) -> Result<Vec<SealedValue>, StoreError> {
        let place = column.place();
        let name = |name: &'static str| Alias::new(name);
        let select = Query::select()
            .column(name(place.id))
            .column(name(place.sealed))
            .column(name("tenant"))
            .column(name(place.qualifier.unwrap_or("tenant")))
            .from(name(place.table))
            .and_where(Expr::col(name(place.id)).gt(after))
            .and_where(Expr::col(name(place.sealed)).is_not_null())
            .order_by(name(place.id), Order::Asc)
            .limit(limit)
            .to_owned();
        let rows = self
            .read(async |database| Ok(database.query_all(&select).await?))
            .await?;
        let read = |row: sea_orm::QueryResult| {
            let tenant = TenantName::from_stored(row.try_get_by_index(2)?);
            let qualifier: String = row.try_get_by_index(3)?;
            Ok(SealedValue {
                id: row.try_get_by_index(0)?,
                context: (place.context)(&tenant, &qualifier),
                sealed: Sealed::from_bytes(row.try_get_by_index(1)?),
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// Writes secrets that were sealed again, in one transaction, each where the old one still is; returns
    /// how many.
    ///
    /// # Errors
    /// Those of the database; then none is written.
    pub async fn replace_sealed(
        &self,
        column: SealedColumn,
        values: Vec<Resealed>,
    ) -> Result<u64, StoreError> {
        self.write((column, values), |transaction, (column, values)| {
            replace(transaction, *column, values)
        })
        .await
    }
}

fn replace<'a>(
    transaction: &'a DatabaseTransaction,
    column: SealedColumn,
    values: &'a [Resealed],
) -> BoxFuture<'a, Result<u64, StoreError>> {
    Box::pin(async move {
        let place = column.place();
        let name = |name: &'static str| Alias::new(name);
        let mut replaced = 0;
        for Resealed { id, old, new } in values {
            let update = Query::update()
                .table(name(place.table))
                .value(name(place.sealed), new.as_bytes().to_vec())
                .and_where(Expr::col(name(place.id)).eq(*id))
                .and_where(Expr::col(name(place.sealed)).eq(old.as_bytes().to_vec()))
                .to_owned();
            replaced += transaction.execute(&update).await?.rows_affected();
        }
        Ok(replaced)
    })
}
