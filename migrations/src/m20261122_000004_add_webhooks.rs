//! Where state changes are sent to, and how far each delivery has come.
//!
//! The URL of an invocation repeats what its delivery has, so that reading an invocation without a webhook
//! asks nothing more. While `lease_owner` is set, `next_attempt_at` is when that lease runs out; so one
//! index finds what is due, whatever it waits for.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, big_integer_null, blob_null, integer, text, text_null, uuid, uuid_null},
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// What is sent next, or tried again.
const DUE: &str = "state = 'pending'";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite adds one column a statement.
        for mut column in [
            text_null(Sources::WebhookUrl),
            blob_null(Sources::SealedWebhookSecret),
        ] {
            let mut alter = Table::alter();
            let alter = alter.table(Sources::Table).add_column(&mut column);
            manager.alter_table(alter.to_owned()).await?;
        }
        let mut alter = Table::alter();
        let alter = alter
            .table(Invocations::Table)
            .add_column(text_null(Invocations::WebhookUrl));
        manager.alter_table(alter.to_owned()).await?;
        manager.create_table(deliveries()).await?;
        let mut due = Index::create();
        let due = due
            .name("webhook_deliveries_due")
            .table(WebhookDeliveries::Table)
            .col(WebhookDeliveries::NextAttemptAt)
            .and_where(Expr::cust(DUE));
        manager.create_index(due.to_owned()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut drop = Table::drop();
        manager
            .drop_table(drop.table(WebhookDeliveries::Table).to_owned())
            .await?;
        let mut alter = Table::alter();
        let alter = alter
            .table(Invocations::Table)
            .drop_column(Invocations::WebhookUrl);
        manager.alter_table(alter.to_owned()).await?;
        for column in [Sources::SealedWebhookSecret, Sources::WebhookUrl] {
            let mut alter = Table::alter();
            let alter = alter.table(Sources::Table).drop_column(column);
            manager.alter_table(alter.to_owned()).await?;
        }
        Ok(())
    }
}

fn deliveries() -> TableCreateStatement {
    use WebhookDeliveries as Column;
    Table::create()
        .table(Column::Table)
        .col(uuid(Column::InvocationId).primary_key())
        .col(text(Column::Tenant))
        .col(text(Column::Url))
        .col(text(Column::Receiver))
        .col(blob_null(Column::SealedSecret))
        .col(text(Column::State))
        .col(big_integer(Column::LatestRevision))
        .col(big_integer(Column::NextRevision))
        .col(big_integer(Column::DeliveredRevision))
        .col(integer(Column::Attempts))
        .col(integer(Column::GivenUp))
        .col(text_null(Column::LastError))
        .col(big_integer_null(Column::FirstAttemptAt))
        .col(big_integer(Column::NextAttemptAt))
        .col(uuid_null(Column::LeaseOwner))
        .foreign_key(
            ForeignKey::create()
                .name("webhook_deliveries_invocation")
                .from(Column::Table, Column::InvocationId)
                .to(Invocations::Table, Invocations::Id)
                .on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned()
}

#[derive(DeriveIden, Clone, Copy)]
enum Sources {
    Table,
    WebhookUrl,
    SealedWebhookSecret,
}

#[derive(DeriveIden, Clone, Copy)]
enum Invocations {
    Table,
    Id,
    WebhookUrl,
}

#[derive(DeriveIden, Clone, Copy)]
enum WebhookDeliveries {
    Table,
    InvocationId,
    Tenant,
    Url,
    Receiver,
    SealedSecret,
    State,
    LatestRevision,
    NextRevision,
    DeliveredRevision,
    Attempts,
    GivenUp,
    LastError,
    FirstAttemptAt,
    NextAttemptAt,
    LeaseOwner,
}
