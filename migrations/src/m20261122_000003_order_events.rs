//! Puts the events of all invocations in one order, so that a watch of many can resume.
//!
//! `sequence` says where an event stands. It is null for as long as its place is open: see the store's
//! `feed`. The release before leaves it and the columns beside it null, and they are filled afterwards.
//! Tenant, source and database repeat what the invocation says; the source stays when it is deleted, so
//! that whoever watches a source sees its invocations end.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer_null, text_null, uuid_null},
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// Events whose place is open.
const OPEN: &str = "sequence IS NULL";

/// The order in which they happened, as far as their times tell.
const FILL: &str = "UPDATE invocation_events SET \
     tenant = placed.tenant, source_id = placed.source_id, database_name = placed.database_name, \
     sequence = placed.position \
     FROM (SELECT e.invocation_id, e.revision, i.tenant, i.source_id, i.database_name, \
           ROW_NUMBER() OVER (ORDER BY e.time, e.invocation_id, e.revision) AS position \
           FROM invocation_events e JOIN invocations i ON i.id = e.invocation_id) AS placed \
     WHERE invocation_events.invocation_id = placed.invocation_id \
       AND invocation_events.revision = placed.revision";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite adds one column a statement.
        for mut column in [
            text_null(InvocationEvents::Tenant),
            uuid_null(InvocationEvents::SourceId),
            text_null(InvocationEvents::DatabaseName),
            big_integer_null(InvocationEvents::Sequence),
        ] {
            let mut alter = Table::alter();
            let alter = alter.table(InvocationEvents::Table).add_column(&mut column);
            manager.alter_table(alter.to_owned()).await?;
        }
        manager.get_connection().execute_unprepared(FILL).await?;
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in [
            "invocation_events_open",
            "invocation_events_by_tenant",
            "invocation_events_sequence",
        ] {
            let mut index = Index::drop();
            let index = index.name(name).table(InvocationEvents::Table);
            manager.drop_index(index.to_owned()).await?;
        }
        for column in [
            InvocationEvents::Sequence,
            InvocationEvents::DatabaseName,
            InvocationEvents::SourceId,
            InvocationEvents::Tenant,
        ] {
            let mut alter = Table::alter();
            let alter = alter.table(InvocationEvents::Table).drop_column(column);
            manager.alter_table(alter.to_owned()).await?;
        }
        Ok(())
    }
}

fn indexes() -> [IndexCreateStatement; 3] {
    let on = |name: &str, columns: &[InvocationEvents]| {
        let mut index = Index::create();
        index.name(name).table(InvocationEvents::Table);
        for column in columns {
            index.col(*column);
        }
        index
    };
    [
        on("invocation_events_sequence", &[InvocationEvents::Sequence])
            .unique()
            .to_owned(),
        on(
            "invocation_events_by_tenant",
            &[InvocationEvents::Tenant, InvocationEvents::Sequence],
        ),
        on(
            "invocation_events_open",
            &[InvocationEvents::InvocationId, InvocationEvents::Revision],
        )
        .and_where(Expr::cust(OPEN))
        .to_owned(),
    ]
}

#[derive(DeriveIden, Clone, Copy)]
enum InvocationEvents {
    Table,
    InvocationId,
    Revision,
    Tenant,
    SourceId,
    DatabaseName,
    Sequence,
}
