//! What can go wrong between the service and its database.

use sea_orm::{DbErr, RuntimeErr, SqlxError, SqlxPostgresError, SqlxSqliteError, sqlx::error::DatabaseError};
use std::time::Duration;

use crate::error::{Error, Reason};

/// How soon a caller may try again after the database was away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An error of the store. Outcomes that a caller decides about, such as a lost lease or a busy
/// collection, are not errors but values.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// `store.url` names no database that the service can use.
    #[error("store.url must be sqlite:///path/to/file or postgres://user@host/database: {problem}")]
    InvalidUrl {
        /// What is wrong with it; never the URL itself, which may hold a password.
        problem: &'static str,
    },
    /// The database cannot be reached.
    #[error("the database cannot be reached; check store.url and that the database runs")]
    Unavailable(#[source] DbErr),
    /// The database did not answer in the time allowed.
    #[error("the database did not answer in time; check its load and its locks")]
    TimedOut,
    /// Other writers kept the database from doing this, each time it was tried.
    #[error("the database is contended by other writers; try again")]
    Contended(#[source] DbErr),
    /// [`Store::close`](super::Store::close) was called.
    #[error("the store is closed")]
    Closed,
    /// A write broke off because of a fault in the program.
    #[error("a write panicked; the panic message is in the log")]
    Panicked,
    /// A stored value cannot be read back.
    #[error("the stored {column} of {row} cannot be read; was it written by a newer release?")]
    Corrupt {
        /// Table and column.
        column: &'static str,
        /// Id of the row.
        row: String,
    },
    /// A document was to be settled that was never recorded as discovered.
    #[error("invocation {invocation} has no such documents in its ledger; record them first")]
    UnknownDocuments {
        /// Id of the invocation.
        invocation: String,
    },
    /// The database refused the statement.
    #[error("the database refused a statement; was `chroma-sync migrate` run?")]
    Rejected(#[source] DbErr),
}

impl StoreError {
    /// Whether the same call may succeed later, unchanged.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::TimedOut | Self::Contended(_) => true,
            Self::InvalidUrl { .. }
            | Self::Closed
            | Self::Panicked
            | Self::Corrupt { .. }
            | Self::UnknownDocuments { .. }
            | Self::Rejected(_) => false,
        }
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        match kind(&error) {
            Kind::Away => Self::Unavailable(error),
            Kind::Slow => Self::TimedOut,
            Kind::Contended => Self::Contended(error),
            Kind::Refused => Self::Rejected(error),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_)
            | StoreError::TimedOut
            | StoreError::Contended(_)
            | StoreError::Closed => Error::new(
                Reason::StoreUnavailable,
                "the database of the service does not answer; try again",
            )
            .with_retry_after(RETRY_AFTER)
            .with_cause(error),
            StoreError::InvalidUrl { .. }
            | StoreError::Panicked
            | StoreError::Corrupt { .. }
            | StoreError::UnknownDocuments { .. }
            | StoreError::Rejected(_) => Error::internal(error),
        }
    }
}

enum Kind {
    Away,
    Slow,
    Contended,
    Refused,
}

fn kind(error: &DbErr) -> Kind {
    match error {
        DbErr::ConnectionAcquire(_) => Kind::Away,
        DbErr::Conn(RuntimeErr::SqlxError(driver))
        | DbErr::Exec(RuntimeErr::SqlxError(driver))
        | DbErr::Query(RuntimeErr::SqlxError(driver)) => match driver.as_ref() {
            SqlxError::Database(refusal) => kind_of_refusal(refusal.as_ref()),
            SqlxError::Io(_)
            | SqlxError::Tls(_)
            // A connection that breaks in its handshake shows as an answer that is none.
            | SqlxError::Protocol(_)
            | SqlxError::PoolTimedOut
            | SqlxError::PoolClosed
            | SqlxError::WorkerCrashed => Kind::Away,
            _ => Kind::Refused,
        },
        _ => Kind::Refused,
    }
}

/// Sources: <https://www.postgresql.org/docs/current/errcodes-appendix.html> and
/// <https://www.sqlite.org/rescode.html>.
fn kind_of_refusal(refusal: &dyn DatabaseError) -> Kind {
    let code = refusal.code().unwrap_or_default();
    if refusal.try_downcast_ref::<SqlxPostgresError>().is_some() {
        return match code.as_ref() {
            "40001" | "40P01" | "55P03" => Kind::Contended,
            "57014" => Kind::Slow,
            // A connection exception, too few resources, or a server that starts or stops.
            other if other.starts_with("08") || other.starts_with("53") || other.starts_with("57P") => {
                Kind::Away
            }
            _ => Kind::Refused,
        };
    }
    if refusal.try_downcast_ref::<SqlxSqliteError>().is_some() {
        // The low byte is the primary code; the rest tells variants of it apart.
        return match code.parse::<u32>().map(|extended| extended & 0xff) {
            // SQLITE_BUSY, SQLITE_LOCKED.
            Ok(5 | 6) => Kind::Contended,
            // SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN.
            Ok(10 | 13 | 14) => Kind::Away,
            Ok(_) | Err(_) => Kind::Refused,
        };
    }
    Kind::Refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_away_makes_the_service_unavailable() {
        let error = Error::from(StoreError::TimedOut);
        assert_eq!(error.reason(), Reason::StoreUnavailable);
        assert_eq!(error.retry_after(), Some(RETRY_AFTER));
    }

    #[test]
    fn a_connection_that_breaks_in_its_handshake_is_a_database_that_is_away() {
        let broken = SqlxError::Protocol("unexpected response from SSLRequest: 0x00".into());
        let error = DbErr::Conn(RuntimeErr::SqlxError(broken.into()));
        assert!(matches!(StoreError::from(error), StoreError::Unavailable(_)));
    }

    #[test]
    fn a_refused_statement_is_internal_and_shows_the_caller_nothing_of_it() {
        let error = Error::from(StoreError::from(DbErr::Custom("secret".to_owned())));
        assert_eq!(error.reason(), Reason::Internal);
        assert!(!error.message().contains("secret"), "{}", error.message());
    }

    #[test]
    fn only_errors_that_pass_are_transient() {
        assert!(StoreError::TimedOut.is_transient());
        assert!(!StoreError::Closed.is_transient());
        assert!(!StoreError::from(DbErr::Custom(String::new())).is_transient());
    }
}
