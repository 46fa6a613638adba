//! One way to write, whatever the database: [`Writer::write`] runs a function in a transaction and
//! answers once that transaction is durable.
//!
//! PostgreSQL takes many writers; there a write is a transaction of its own, tried again when the
//! server breaks it off to resolve a conflict. SQLite takes one writer at a time and syncs the disk at
//! each commit; there one task commits all writes that are queued together. Each runs in its own
//! savepoint, so a write that fails takes back only itself, and none is answered before the commit, so
//! what was answered survives a power loss.
//!
//! A write is a plain function over an owned input, not a closure with captures, so that it can be run
//! again after a conflict.
//!
//! Each step of a transaction on SQLite is a trip to the thread of the connection and back. A write that
//! comes often may bring a script as well, which takes one trip for all of them when the write is alone.
//!
//! A caller that goes away leaves the outcome open: its write may be committed or not. Whoever creates
//! something twice by accident is caught by its request id.

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait,
};
use tokio::sync::{mpsc, oneshot};

use super::{checkpoint::Commits, error::StoreError};

/// A write: everything it does happens in the transaction, and it may run more than once.
pub(super) type Body<I, T> =
    for<'a> fn(&'a DatabaseTransaction, &'a I) -> BoxFuture<'a, Result<T, StoreError>>;

/// A whole write as one list of statements, for when all goes well: one that cannot do everything must fail.
pub(super) struct Script<I, T> {
    /// The statements, from BEGIN to COMMIT.
    pub(super) statements: fn(&I) -> Result<Statement, StoreError>,
    /// The answer to a write that was done.
    pub(super) answer: fn(&I) -> Result<T, StoreError>,
}

/// Writes that may wait for the writer task; more callers wait for room.
const QUEUE_LENGTH: usize = 1_024;
/// The most writes that share a commit.
const MAX_BATCH: usize = 256;
/// How long a transaction may take before it commits what it has, so that another process gets its turn.
const MAX_BATCH_TIME: Duration = Duration::from_millis(50);
/// How often a write that ran into a conflict is tried.
const MAX_TRIES: u32 = 6;
/// The longest pause before the second try; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(4);

/// Runs writes.
#[derive(Clone)]
pub(super) enum Writer {
    /// Every write is a transaction of its own.
    Concurrent(DatabaseConnection),
    /// One task commits the queued writes together.
    Grouped(mpsc::Sender<Message>),
}

/// What the writer task is told.
pub(super) enum Message {
    Write(Box<dyn QueuedWrite>),
    /// Commit what is queued, take no more, and answer when that is done.
    Close(oneshot::Sender<()>),
}

impl Writer {
    /// Starts the task that owns `connection`, the only one of this process that writes.
    pub(super) fn grouped(connection: DatabaseConnection, commits: Commits) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        tokio::spawn(run(connection, receiver, commits));
        Self::Grouped(sender)
    }

    /// Runs `body` in a transaction and answers once it is durable.
    pub(super) async fn write<I, T>(&self, input: I, body: Body<I, T>) -> Result<T, StoreError>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        self.write_or_script(input, body, None).await
    }

    /// Like [`Writer::write`]; SQLite's writer may run `script` instead, and still runs `body` when that fails.
    pub(super) async fn write_or_script<I, T>(
        &self,
        input: I,
        body: Body<I, T>,
        script: Option<Script<I, T>>,
    ) -> Result<T, StoreError>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        match self {
            Self::Concurrent(connection) => write_alone(connection, &input, body).await,
            Self::Grouped(queue) => {
                let (reply, answer) = oneshot::channel();
                let write = TypedWrite {
                    input,
                    body,
                    script,
                    result: None,
                    reply,
                };
                queue
                    .send(Message::Write(Box::new(write)))
                    .await
                    .map_err(|_| StoreError::Closed)?;
                answer.await.map_err(|_| StoreError::Closed)?
            }
        }
    }

    /// Waits for the writes under way; later ones are refused.
    pub(super) async fn close(&self) {
        match self {
            Self::Concurrent(_) => {}
            Self::Grouped(queue) => {
                let (done, answer) = oneshot::channel();
                if queue.send(Message::Close(done)).await.is_ok() {
                    // An error means that the task has ended, which is what is waited for.
                    answer.await.ok();
                }
            }
        }
    }
}

async fn write_alone<I, T>(
    connection: &DatabaseConnection,
    input: &I,
    body: Body<I, T>,
) -> Result<T, StoreError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match try_alone(connection, input, body).await {
            Err(StoreError::Contended(_)) if tries < MAX_TRIES => pause(tries).await,
            result => return result,
        }
    }
}

async fn try_alone<I, T>(
    connection: &DatabaseConnection,
    input: &I,
    body: Body<I, T>,
) -> Result<T, StoreError> {
    let transaction = connection.begin().await?;
    match body(&transaction, input).await {
        Ok(value) => {
            transaction.commit().await?;
            Ok(value)
        }
        Err(error) => {
            // The first error says more; a rollback that fails ends with the connection.
            transaction.rollback().await.ok();
            Err(error)
        }
    }
}

/// Sleeps for a random time, so that those who collided do not meet again.
async fn pause(tries: u32) {
    let longest = FIRST_PAUSE * 2_u32.saturating_pow(tries);
    tokio::time::sleep(longest.mul_f64(rand::random::<f64>())).await;
}

/// A write of any type, as the queue holds it.
pub(super) trait QueuedWrite: Send {
    /// Runs the write and keeps its result; true when it is to be committed.
    fn run<'a>(&'a mut self, transaction: &'a DatabaseTransaction) -> BoxFuture<'a, bool>;

    /// Runs the script that stands for the write, if there is one; true when the write is durable.
    fn run_script<'a>(&'a mut self, connection: &'a DatabaseConnection) -> BoxFuture<'a, bool>;

    /// Answers the caller: with the result, or with the error that ended the transaction.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);

    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;
}

struct TypedWrite<I, T> {
    input: I,
    body: Body<I, T>,
    script: Option<Script<I, T>>,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<I: Send + Sync, T: Send> QueuedWrite for TypedWrite<I, T> {
    fn run<'a>(&'a mut self, transaction: &'a DatabaseTransaction) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            // A panic must not end the task that all other callers depend on.
            let body = AssertUnwindSafe((self.body)(transaction, &self.input)).catch_unwind();
            let result = body.await.unwrap_or(Err(StoreError::Panicked));
            let succeeded = result.is_ok();
            self.result = Some(result);
            succeeded
        })
    }

    fn run_script<'a>(&'a mut self, connection: &'a DatabaseConnection) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let Some(script) = self.script.take() else {
                return false;
            };
            let Ok(statements) = (script.statements)(&self.input) else {
                return false;
            };
            match connection.execute_raw(statements).await {
                Ok(_) => {
                    self.result = Some((script.answer)(&self.input));
                    true
                }
                Err(_) => {
                    // A script that broke off left its transaction open; without one this is refused.
                    connection.execute_unprepared("ROLLBACK").await.ok();
                    false
                }
            }
        })
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match (self.result, committed) {
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(StoreError::Closed),
        };
        // Whoever asked may have gone away.
        self.reply.send(result).ok();
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

/// The writer task: ends when every handle is gone or when it is told to close.
async fn run(connection: DatabaseConnection, mut queue: mpsc::Receiver<Message>, commits: Commits) {
    let mut messages = Vec::with_capacity(MAX_BATCH);
    let mut closers = Vec::new();
    while queue.recv_many(&mut messages, MAX_BATCH).await > 0 {
        let mut writes = VecDeque::with_capacity(messages.len());
        for message in messages.drain(..) {
            match message {
                Message::Write(write) if write.is_abandoned() => {}
                Message::Write(write) => writes.push_back(write),
                Message::Close(done) => {
                    queue.close();
                    closers.push(done);
                }
            }
        }
        while !writes.is_empty() {
            let (batch, committed) = commit_some(&connection, &mut writes).await;
            if committed.is_ok() {
                commits.more();
            }
            for write in batch {
                write.answer(committed.clone());
            }
        }
    }
    // What cannot be closed properly is closed by the end of the process.
    connection.close().await.ok();
    for done in closers {
        done.send(()).ok();
    }
}

type Batch = Vec<Box<dyn QueuedWrite>>;

/// Takes writes from the queue and commits them together; the answer holds for each that was taken.
async fn commit_some(
    connection: &DatabaseConnection,
    writes: &mut VecDeque<Box<dyn QueuedWrite>>,
) -> (Batch, Result<(), StoreError>) {
    let mut batch = Vec::with_capacity(writes.len());
    if let [only] = writes.make_contiguous()
        && only.run_script(connection).await
    {
        batch.extend(writes.drain(..));
        return (batch, Ok(()));
    }
    let transaction = match begin(connection).await {
        Ok(transaction) => transaction,
        Err(error) => {
            batch.extend(writes.drain(..));
            return (batch, Err(error));
        }
    };
    let started = Instant::now();
    // The savepoint costs two statements, so a write that is alone goes without.
    if writes.len() == 1 {
        for mut write in writes.drain(..) {
            let succeeded = write.run(&transaction).await;
            batch.push(write);
            if !succeeded {
                let undone = transaction.rollback().await.map_err(StoreError::from);
                return (batch, undone);
            }
        }
        return (batch, transaction.commit().await.map_err(StoreError::from));
    }
    while let Some(mut write) = writes.pop_front() {
        let kept = run_in_savepoint(write.as_mut(), &transaction).await;
        batch.push(write);
        if let Err(error) = kept {
            // Without its savepoints the transaction says nothing about the writes in it.
            transaction.rollback().await.ok();
            return (batch, Err(error));
        }
        if started.elapsed() >= MAX_BATCH_TIME {
            break;
        }
    }
    (batch, transaction.commit().await.map_err(StoreError::from))
}

async fn run_in_savepoint(
    write: &mut dyn QueuedWrite,
    transaction: &DatabaseTransaction,
) -> Result<(), StoreError> {
    let savepoint = transaction.begin().await?;
    if write.run(&savepoint).await {
        savepoint.commit().await?;
    } else {
        savepoint.rollback().await?;
    }
    Ok(())
}

/// Takes SQLite's write lock at once: a transaction that began with a read could not take it later.
async fn begin(connection: &DatabaseConnection) -> Result<DatabaseTransaction, StoreError> {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let mut tries = 0;
    loop {
        tries += 1;
        match connection
            .begin_with_options(options)
            .await
            .map_err(StoreError::from)
        {
            Err(StoreError::Contended(_)) if tries < MAX_TRIES => pause(tries).await,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests;
