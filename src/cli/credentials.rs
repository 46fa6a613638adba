//! `chroma-sync credentials`, through the service like any other client.
//!
//! A secret comes from a file, from a variable of the environment or from standard input, never from an
//! argument, which every process of the machine could read.

use std::{
    io::{IsTerminal, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{
    output,
    remote::{Remote, explain},
};
use crate::{proto, secret::Secret};

/// The most that is read as a secret, in bytes.
const MAX_SECRET_BYTES: u64 = 65_536;
/// Where the secret of an access key is looked for when no file is named, as other tools do.
const SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
/// Where the private key of an App is looked for when no file is named.
const PRIVATE_KEY: &str = "CHROMA_SYNC_GITHUB_APP_PRIVATE_KEY";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Access keys for S3.
    #[command(subcommand)]
    Aws(Aws),
    /// GitHub Apps, which give access to private repositories.
    #[command(subcommand)]
    GithubApp(GithubApp),
}

#[derive(Debug, Subcommand)]
enum Aws {
    /// Store an access key and print its id. The secret is read from --secret-access-key-file, else from the
    /// variable AWS_SECRET_ACCESS_KEY, else from standard input.
    Add {
        /// Id of the access key.
        #[arg(long)]
        access_key_id: String,
        /// File with the secret; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        secret_access_key_file: Option<PathBuf>,
        /// What to call it in the list.
        #[arg(long, default_value = "")]
        name: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// List access keys.
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Delete an access key that no source names.
    Delete {
        /// Its id, as `credentials aws list` shows it.
        id: i64,
        #[command(flatten)]
        remote: Remote,
    },
}

#[derive(Debug, Subcommand)]
enum GithubApp {
    /// Register an App. The private key is read from --private-key-file, else from the variable
    /// CHROMA_SYNC_GITHUB_APP_PRIVATE_KEY, else from standard input.
    Add {
        /// The App's id or client id, as GitHub shows it.
        #[arg(long)]
        app_id: String,
        /// PEM file with a private key of the App; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        private_key_file: Option<PathBuf>,
        /// Replace the private key of an App that is registered.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// List Apps.
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Forget an App that no source names.
    Delete {
        /// Its id, as `credentials github-app list` shows it.
        app_id: String,
        #[command(flatten)]
        remote: Remote,
    },
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.kind {
        Kind::Aws(Aws::Add {
            access_key_id,
            secret_access_key_file,
            name,
            remote,
        }) => {
            let secret = read_secret(secret_access_key_file.as_deref(), SECRET_ACCESS_KEY)?;
            let request = proto::CreateAwsCredentialRequest {
                access_key_id,
                secret_access_key: secret.expose().to_owned(),
                name,
                request_id: None,
            };
            let stored = remote.credentials()?.create_aws_credential(request).await;
            let stored = stored.map_err(|status| explain(&status))?.into_inner();
            output::line(&stored.id.to_string());
        }
        Kind::Aws(Aws::List { remote }) => list_aws(&remote).await?,
        Kind::Aws(Aws::Delete { id, remote }) => {
            let request = proto::DeleteAwsCredentialRequest {
                aws_credential_id: id,
            };
            let deleted = remote.credentials()?.delete_aws_credential(request).await;
            deleted.map_err(|status| explain(&status))?;
            output::line(&format!("deleted {id}"));
        }
        Kind::GithubApp(GithubApp::Add {
            app_id,
            private_key_file,
            replace,
            remote,
        }) => {
            let private_key = read_secret(private_key_file.as_deref(), PRIVATE_KEY)?;
            let request = proto::CreateGithubAppRequest {
                app_id,
                private_key: private_key.expose().to_owned(),
                replace_existing: replace,
                request_id: None,
            };
            let stored = remote.credentials()?.create_github_app(request).await;
            let stored = stored.map_err(|status| explain(&status))?.into_inner();
            output::line(&stored.app_id);
        }
        Kind::GithubApp(GithubApp::List { remote }) => list_apps(&remote).await?,
        Kind::GithubApp(GithubApp::Delete { app_id, remote }) => {
            let request = proto::DeleteGithubAppRequest {
                app_id: app_id.clone(),
            };
            let deleted = remote.credentials()?.delete_github_app(request).await;
            deleted.map_err(|status| explain(&status))?;
            output::line(&format!("deleted {app_id}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list_aws(remote: &Remote) -> anyhow::Result<()> {
    let mut client = remote.credentials()?;
    let mut page_token = String::new();
    loop {
        let request = proto::ListAwsCredentialsRequest {
            page_size: 0,
            page_token,
        };
        let page = client.list_aws_credentials(request).await;
        let page = page.map_err(|status| explain(&status))?.into_inner();
        for credential in page.aws_credentials {
            let time = describe_time(credential.create_time);
            let proto::AwsCredential {
                id,
                access_key_id,
                name,
                ..
            } = credential;
            output::line(format!("{id}  {access_key_id}  {time}  {name}").trim_end());
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(());
        }
    }
}

async fn list_apps(remote: &Remote) -> anyhow::Result<()> {
    let mut client = remote.credentials()?;
    let mut page_token = String::new();
    loop {
        let request = proto::ListGithubAppsRequest {
            page_size: 0,
            page_token,
        };
        let page = client.list_github_apps(request).await;
        let page = page.map_err(|status| explain(&status))?.into_inner();
        for app in page.github_apps {
            output::line(&format!("{}  {}", app.app_id, describe_time(app.update_time)));
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(());
        }
    }
}

fn describe_time(time: Option<prost_types::Timestamp>) -> String {
    let time = time.unwrap_or_default();
    Timestamp::new(time.seconds, time.nanos).map_or_else(|_| "-".to_owned(), |time| time.to_string())
}

/// The content of `file`, of the variable or of standard input, without the white space around it.
fn read_secret(file: Option<&Path>, variable: &str) -> anyhow::Result<Secret> {
    let text = match (file, std::env::var(variable)) {
        (Some(path), _) if path == Path::new("-") => read_bounded(std::io::stdin().lock())?,
        (Some(path), _) => {
            let failed = || format!("cannot read {}", path.display());
            read_bounded(std::fs::File::open(path).with_context(failed)?).with_context(failed)?
        }
        (None, Ok(value)) if !value.is_empty() => value,
        (None, Ok(_) | Err(_)) if std::io::stdin().is_terminal() => {
            bail!("no secret was given; name a file, set {variable} or pipe it to standard input")
        }
        (None, Ok(_) | Err(_)) => read_bounded(std::io::stdin().lock())?,
    };
    Ok(Secret::new(text.trim()))
}

fn read_bounded(source: impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    source.take(MAX_SECRET_BYTES).read_to_string(&mut text)?;
    Ok(text)
}
