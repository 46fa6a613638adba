//! `chroma-sync migrate`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::output;
use crate::{config::Config, service};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Apply all pending migrations (the default).
    Up,
    /// Revert all migrations. Every row is lost.
    Down,
    /// Show which migrations are applied.
    Status,
}

pub(super) async fn run(arguments: Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let store = service::connect_store(config).await?;
    match arguments.action.unwrap_or(Action::Up) {
        Action::Up => store.migrate().await?,
        Action::Down => {
            let steps = store.migration_states().await?.len();
            store.revert_migrations(u32::try_from(steps)?).await?;
        }
        Action::Status => {}
    }
    for migration in store.migration_states().await? {
        let state = if migration.applied { "applied" } else { "pending" };
        output::line(&format!("{state}  {}", migration.name));
    }
    store.close().await;
    Ok(ExitCode::SUCCESS)
}
