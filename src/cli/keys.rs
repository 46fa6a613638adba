//! `chroma-sync keys`.

use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::output;
use crate::{
    app::{
        auth::{generate_token, token_digest},
        rotation::{Rotated, rotate},
    },
    config::Config,
    domain::{
        api_key::{ApiKey, NewApiKey, Role},
        names::{DatabaseName, TenantName},
        time::Timestamp,
    },
    service,
    store::Store,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a key and print its token, which is shown this once and stored only as a digest.
    Create(Create),
    /// List keys.
    List {
        /// Only those of this tenant.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Revoke a key; calls that use it are refused from now on.
    Revoke {
        /// Id of the key, as `keys list` shows it.
        id: String,
    },
    /// Seal every secret of the database with encryption.key, so that encryption.previous_keys can be
    /// dropped. Servers may run meanwhile, once all of them have both.
    RotateEncryption,
}

#[derive(Debug, Args)]
struct Create {
    /// What the key is for, to recognise it in the list.
    #[arg(long)]
    name: String,
    /// What the key may do.
    #[arg(long, value_enum, default_value = "member")]
    role: RoleName,
    /// Tenant of the Chroma server whose resources the key sees.
    #[arg(long, default_value = "default_tenant")]
    tenant: String,
    /// Database the key is bound to; repeat for several. Without it: all of the tenant's.
    #[arg(long = "database", value_name = "DATABASE")]
    databases: Vec<String>,
    /// Days after which the key stops working.
    #[arg(long, value_name = "DAYS")]
    expires_in_days: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    Owner,
    Admin,
    Member,
}

impl From<RoleName> for Role {
    fn from(role: RoleName) -> Self {
        match role {
            RoleName::Owner => Self::Owner,
            RoleName::Admin => Self::Admin,
            RoleName::Member => Self::Member,
        }
    }
}

pub(super) async fn run(arguments: Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let store = service::connect_store(config).await?;
    if config.store.migrate_on_start {
        store.migrate().await?;
    }
    match arguments.action {
        Action::Create(create) => create_key(&store, create).await?,
        Action::List { tenant } => list_keys(&store, tenant).await?,
        Action::Revoke { id } => revoke_key(&store, &id).await?,
        Action::RotateEncryption => rotate_encryption(&store, config).await?,
    }
    store.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn create_key(store: &Store, create: Create) -> anyhow::Result<()> {
    let Create {
        name,
        role,
        tenant,
        databases,
        expires_in_days,
    } = create;
    let tenant =
        TenantName::parse("--tenant", &tenant).map_err(|v| anyhow!("{}: {}", v.field, v.description))?;
    let databases: Vec<DatabaseName> = databases
        .iter()
        .map(|database| DatabaseName::parse("--database", database))
        .collect::<Result<_, _>>()
        .map_err(|v| anyhow!("{}: {}", v.field, v.description))?;
    let day = std::time::Duration::from_secs(86_400);
    let expire_time = match expires_in_days {
        Some(days) => Some(store.now().await?.plus(day * days)),
        None => None,
    };
    let token = generate_token();
    store
        .create_api_key(NewApiKey {
            name,
            tenant,
            role: role.into(),
            token_sha256: token_digest(&token),
            databases: (!databases.is_empty()).then_some(databases),
            expire_time,
        })
        .await?;
    output::line(&token);
    Ok(())
}

async fn list_keys(store: &Store, tenant: Option<String>) -> anyhow::Result<()> {
    let tenant = tenant
        .map(|tenant| TenantName::parse("--tenant", &tenant))
        .transpose()
        .map_err(|v| anyhow!("{}: {}", v.field, v.description))?;
    let now = store.now().await?;
    for key in store.list_api_keys(tenant.as_ref()).await? {
        output::line(&describe(&key, now));
    }
    Ok(())
}

fn describe(key: &ApiKey, now: Timestamp) -> String {
    let databases = match &key.databases {
        None => "all databases".to_owned(),
        Some(names) => names
            .iter()
            .map(DatabaseName::as_str)
            .collect::<Vec<_>>()
            .join(","),
    };
    let state = if key.revoke_time.is_some() {
        "revoked"
    } else if key.expire_time.is_some_and(|time| time <= now) {
        "expired"
    } else {
        "active"
    };
    format!(
        "{}  {state}  {}  {}  {databases}  {}  {}",
        key.id,
        key.role.as_str(),
        key.tenant,
        key.create_time.to_rfc3339(),
        key.name
    )
}

async fn revoke_key(store: &Store, id: &str) -> anyhow::Result<()> {
    let id = id
        .parse()
        .map_err(|v: crate::error::FieldViolation| anyhow!("id {}", v.description))?;
    if !store.revoke_api_key(id).await? {
        bail!("no active key has the id {id}; `chroma-sync keys list` shows them all");
    }
    output::line(&format!("revoked {id}"));
    Ok(())
}

/// Fails when a secret stays that no known key opens, since the old key must not be dropped then.
async fn rotate_encryption(store: &Store, config: &Config) -> anyhow::Result<()> {
    let rotated = rotate(store, &service::sealing_key(config)?).await?;
    let mut unreadable = 0;
    for Rotated {
        column,
        resealed,
        unreadable: left,
    } in rotated
    {
        output::line(&format!("{}: {resealed} sealed again", column.description()));
        if left > 0 {
            output::error(&format!("{}: {left} open with no key", column.description()));
        }
        unreadable += left;
    }
    if unreadable > 0 {
        bail!(
            "{unreadable} secrets were sealed with a key that is neither encryption.key nor one of \
             encryption.previous_keys; add it and run this again, or delete what has them"
        );
    }
    Ok(())
}
