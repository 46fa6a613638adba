//! Moves what SQLite has committed from its write-ahead log into the file, beside the writes.
//!
//! SQLite does that by itself, in the commit that makes the log longer than a bound, so that one commit in a hundred
//! took as long as a dozen others, and all that was queued waited for it. A checkpoint on another connection holds up
//! neither who reads nor who writes. It cannot begin the log anew while writes go on; the next commit does that, or,
//! when there was no pause for long, the one that reaches [`LOG_PAGES`], which then has little left to move.
//!
//! Absent on purpose: anything that a commit's durability depends on. Each is synced with the log before it is answered,
//! and a checkpoint that fails leaves the work to the next one.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseConnection};
use tokio::sync::watch;

/// Pages of the log, of 4 KiB each, from which on a commit moves them by itself: 40 MiB, ten times SQLite's default.
pub(super) const LOG_PAGES: &str = "10000";
/// How long commits gather before a checkpoint moves what they wrote.
const GATHERED_FOR: Duration = Duration::from_millis(250);
/// Moves what it can without waiting for anybody.
const CHECKPOINT: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// What the writer tells of its commits.
#[derive(Debug)]
pub(super) struct Commits(watch::Sender<()>);

impl Commits {
    /// Something was committed.
    pub(super) fn more(&self) {
        self.0.send_replace(());
    }
}

/// Starts the task that follows the commits to the file that `readers` are connected to. It ends when these are closed,
/// or when the writer has gone away.
pub(super) fn start(readers: DatabaseConnection) -> Commits {
    let (commits, followed) = watch::channel(());
    tokio::spawn(follow(readers, followed));
    Commits(commits)
}

async fn follow(readers: DatabaseConnection, mut commits: watch::Receiver<()>) {
    while commits.changed().await.is_ok() {
        tokio::time::sleep(GATHERED_FOR).await;
        commits.mark_unchanged();
        match readers.execute_unprepared(CHECKPOINT).await {
            Ok(_) => {}
            Err(_) if readers.get_sqlite_connection_pool().is_closed() => return,
            Err(error) => {
                tracing::warn!(%error, "cannot move the write-ahead log into the database's file yet")
            }
        }
    }
}
