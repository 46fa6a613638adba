#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use sea_orm::{ConnectOptions, ConnectionTrait, Database, DbBackend, Statement};
use tokio::sync::Semaphore;

use super::*;
use crate::store::checkpoint;

/// What a test write does: report that it began, wait until it may go on, insert, and end as asked.
#[derive(Clone)]
struct Scripted {
    value: i64,
    end: End,
    began: Arc<Semaphore>,
    may_end: Arc<Semaphore>,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Well,
    InAnError,
    InAPanic,
}

impl Scripted {
    fn new(value: i64, end: End) -> Self {
        let (began, may_end) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(1)));
        Self {
            value,
            end,
            began,
            may_end,
        }
    }

    fn held(value: i64) -> Self {
        Self {
            may_end: Arc::new(Semaphore::new(0)),
            ..Self::new(value, End::Well)
        }
    }

    async fn begun(&self) {
        self.began.acquire().await.unwrap().forget();
    }
}

async fn run_scripted(transaction: &DatabaseTransaction, script: &Scripted) -> Result<i64, StoreError> {
    let insert = "INSERT INTO numbers (n) VALUES ($1)";
    let insert = Statement::from_sql_and_values(DbBackend::Sqlite, insert, [script.value.into()]);
    transaction.execute_raw(insert).await?;
    script.began.add_permits(1);
    script.may_end.acquire().await.unwrap().forget();
    match script.end {
        End::Well => Ok(script.value),
        End::InAnError => Err(StoreError::TimedOut),
        End::InAPanic => panic!("scripted"),
    }
}

struct Fixture {
    writer: Writer,
    reader: DatabaseConnection,
    _directory: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}?mode=rwc", directory.path().join("test.db").display());
        let mut options = ConnectOptions::new(url);
        options.max_connections(1);
        let connection = Database::connect(options.clone()).await.unwrap();
        connection
            .execute_unprepared("PRAGMA journal_mode = WAL")
            .await
            .unwrap();
        connection
            .execute_unprepared("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
            .await
            .unwrap();
        let reader = Database::connect(options).await.unwrap();
        Self {
            writer: Writer::grouped(connection, checkpoint::start(reader.clone())),
            reader,
            _directory: directory,
        }
    }

    fn write(&self, script: &Scripted) -> tokio::task::JoinHandle<Result<i64, StoreError>> {
        let (writer, script) = (self.writer.clone(), script.clone());
        tokio::spawn(async move {
            writer
                .write(script, |transaction, script| {
                    Box::pin(run_scripted(transaction, script))
                })
                .await
        })
    }

    /// Holds the writer with a first write, so that all that is queued behind it shares a transaction.
    async fn hold(&self) -> (Scripted, tokio::task::JoinHandle<Result<i64, StoreError>>) {
        let first = Scripted::held(0);
        let answer = self.write(&first);
        first.begun().await;
        (first, answer)
    }

    /// Waits until `count` messages are queued.
    async fn queued(&self, count: usize) {
        let Writer::Grouped(queue) = &self.writer else {
            panic!("not a group writer")
        };
        while queue.max_capacity() - queue.capacity() < count {
            tokio::task::yield_now().await;
        }
    }

    async fn numbers(&self) -> Vec<i64> {
        let select = Statement::from_string(DbBackend::Sqlite, "SELECT n FROM numbers ORDER BY n");
        let rows = self.reader.query_all_raw(select).await.unwrap();
        rows.into_iter()
            .map(|row| row.try_get("", "n").unwrap())
            .collect()
    }
}

#[tokio::test]
async fn no_write_is_answered_before_the_commit_it_shares() {
    let fixture = Fixture::new().await;
    let (first, first_answer) = fixture.hold().await;
    let (one, two) = (Scripted::new(1, End::Well), Scripted::held(2));
    let one_answer = fixture.write(&one);
    fixture.queued(1).await;
    let two_answer = fixture.write(&two);
    fixture.queued(2).await;
    first.may_end.add_permits(1);
    assert_eq!(first_answer.await.unwrap().unwrap(), 0);

    two.begun().await;
    assert!(!one_answer.is_finished(), "its transaction is still open");
    assert_eq!(fixture.numbers().await, [0]);
    two.may_end.add_permits(1);
    assert_eq!(
        (
            one_answer.await.unwrap().unwrap(),
            two_answer.await.unwrap().unwrap()
        ),
        (1, 2)
    );
    assert_eq!(fixture.numbers().await, [0, 1, 2]);
}

#[tokio::test]
async fn a_write_that_fails_or_panics_takes_back_only_itself() {
    let fixture = Fixture::new().await;
    let (first, _first_answer) = fixture.hold().await;
    let ends = [End::Well, End::InAnError, End::Well, End::InAPanic, End::Well];
    let answers: Vec<_> = (1..)
        .zip(ends)
        .map(|(n, end)| fixture.write(&Scripted::new(n, end)))
        .collect();
    fixture.queued(ends.len()).await;
    first.may_end.add_permits(1);

    for ((n, end), answer) in (1..).zip(ends).zip(answers) {
        match (end, answer.await.unwrap()) {
            (End::Well, Ok(value)) => assert_eq!(value, n),
            (End::InAnError, Err(StoreError::TimedOut)) | (End::InAPanic, Err(StoreError::Panicked)) => {}
            (_, other) => panic!("{n}: {other:?}"),
        }
    }
    assert_eq!(fixture.numbers().await, [0, 1, 3, 5]);
}

#[tokio::test]
async fn a_write_alone_is_taken_back_when_it_fails_or_panics() {
    let fixture = Fixture::new().await;
    for (n, end) in [(1, End::InAnError), (2, End::InAPanic)] {
        assert!(fixture.write(&Scripted::new(n, end)).await.unwrap().is_err());
    }
    assert_eq!(
        fixture
            .write(&Scripted::new(3, End::Well))
            .await
            .unwrap()
            .unwrap(),
        3
    );
    assert_eq!(fixture.numbers().await, [3]);
}

#[tokio::test]
async fn closing_commits_what_is_queued_and_refuses_what_comes_later() {
    let fixture = Fixture::new().await;
    let (first, first_answer) = fixture.hold().await;
    let queued = fixture.write(&Scripted::new(1, End::Well));
    fixture.queued(1).await;
    let writer = fixture.writer.clone();
    let closing = tokio::spawn(async move { writer.close().await });
    fixture.queued(2).await;
    first.may_end.add_permits(1);
    closing.await.unwrap();
    assert_eq!(
        (
            first_answer.await.unwrap().unwrap(),
            queued.await.unwrap().unwrap()
        ),
        (0, 1)
    );
    let refused = fixture.write(&Scripted::new(2, End::Well)).await.unwrap();
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
    assert_eq!(fixture.numbers().await, [0, 1]);
}

#[tokio::test]
async fn a_write_whose_caller_is_gone_before_it_began_is_left_out() {
    let fixture = Fixture::new().await;
    let (first, first_answer) = fixture.hold().await;
    let abandoned = fixture.write(&Scripted::new(1, End::Well));
    fixture.queued(1).await;
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());
    first.may_end.add_permits(1);
    first_answer.await.unwrap().unwrap();
    assert_eq!(
        fixture
            .write(&Scripted::new(2, End::Well))
            .await
            .unwrap()
            .unwrap(),
        2
    );
    assert_eq!(fixture.numbers().await, [0, 2]);
}

/// Inserts the number and the one after it by a script; tells which way it went.
async fn write_two(fixture: &Fixture, first: i64) -> Result<&'static str, StoreError> {
    let script = Script {
        statements: |first: &i64| {
            let sql = "BEGIN IMMEDIATE; INSERT INTO numbers (n) VALUES (?); \
                       INSERT INTO numbers (n) VALUES (?); COMMIT";
            let values = [(*first).into(), (first + 1).into()];
            Ok(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values))
        },
        answer: |_| Ok("by its script"),
    };
    let body = |_: &DatabaseTransaction, _: &i64| async { Ok("in a transaction") }.boxed();
    fixture.writer.write_or_script(first, body, Some(script)).await
}

#[tokio::test]
async fn a_write_alone_is_done_by_its_script() {
    let fixture = Fixture::new().await;
    assert_eq!(write_two(&fixture, 1).await.unwrap(), "by its script");
    assert_eq!(write_two(&fixture, 3).await.unwrap(), "by its script");
    assert_eq!(fixture.numbers().await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_script_that_breaks_off_leaves_nothing_and_the_write_goes_its_usual_way() {
    let fixture = Fixture::new().await;
    fixture
        .write(&Scripted::new(2, End::Well))
        .await
        .unwrap()
        .unwrap();
    // Its first insert succeeds and its second does not.
    assert_eq!(write_two(&fixture, 1).await.unwrap(), "in a transaction");
    assert_eq!(fixture.numbers().await, [2]);
    assert_eq!(write_two(&fixture, 3).await.unwrap(), "by its script");
    assert_eq!(fixture.numbers().await, [2, 3, 4]);
}

#[tokio::test]
async fn writes_that_share_a_transaction_run_no_scripts() {
    let fixture = Fixture::new().await;
    let (first, first_answer) = fixture.hold().await;
    let other = fixture.write(&Scripted::new(9, End::Well));
    fixture.queued(1).await;
    let scripted = write_two(&fixture, 1);
    let release = async {
        fixture.queued(2).await;
        first.may_end.add_permits(1);
    };
    let (scripted, ()) = tokio::join!(scripted, release);
    assert_eq!(scripted.unwrap(), "in a transaction");
    first_answer.await.unwrap().unwrap();
    other.await.unwrap().unwrap();
    assert_eq!(fixture.numbers().await, [0, 9]);
}
