//! Seals every secret of the database again, so that a key of before can be dropped.
//!
//! Goes through each column in small transactions, beside servers that run; what is written meanwhile stays.
//! Nothing is lost when it is broken off: it begins anew and passes over what is done.

use uuid::Uuid;

use crate::{
    error::{Error, Result, chain},
    seal::{SealError, SealingKey},
    store::{Resealed, SealedColumn, SealedValue, Store},
};

/// Rows that one query reads and one transaction writes.
const ROWS_A_BATCH: u64 = 100;

/// What became of the secrets of one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// Which column.
    pub column: SealedColumn,
    /// Secrets that were sealed again.
    pub resealed: u64,
    /// Secrets that no known key opens; they are as they were.
    pub unreadable: u64,
}

/// Seals with the current key what another one sealed; one entry for each column.
///
/// # Errors
/// Those of the store and of the key's file. What was written until then stays.
pub async fn rotate(store: &Store, key: &SealingKey) -> Result<Vec<Rotated>> {
    let mut rotated = Vec::with_capacity(SealedColumn::ALL.len());
    for column in SealedColumn::ALL {
        rotated.push(rotate_column(store, key, column).await?);
    }
    Ok(rotated)
}

async fn rotate_column(store: &Store, key: &SealingKey, column: SealedColumn) -> Result<Rotated> {
    let mut rotated = Rotated {
        column,
        resealed: 0,
        unreadable: 0,
    };
    let mut after = Uuid::nil();
    loop {
        let values = store.sealed_values(column, after, ROWS_A_BATCH).await?;
        let Some(last) = values.last() else {
            return Ok(rotated);
        };
        after = last.id;
        let mut batch = Vec::new();
        for value in values {
            let id = value.id;
            match reseal(key, value) {
                Ok(None) => {}
                Ok(Some(resealed)) => batch.push(resealed),
                Err(error @ SealError::DoesNotOpen) => {
                    tracing::warn!(row.id = %id, column = column.description(), error = %chain(&error), "a secret stays as it is");
                    rotated.unreadable += 1;
                }
                Err(error) => return Err(Error::internal(error)),
            }
        }
        if !batch.is_empty() {
            rotated.resealed += store.replace_sealed(column, batch).await?;
        }
    }
}

/// None when the current key sealed it.
fn reseal(key: &SealingKey, value: SealedValue) -> std::result::Result<Option<Resealed>, SealError> {
    let SealedValue { id, context, sealed } = value;
    if key.is_current(&sealed)? {
        return Ok(None);
    }
    let secret = key.open(&context, &sealed)?;
    Ok(Some(Resealed {
        id,
        new: key.seal(&context, &secret)?,
        old: sealed,
    }))
}
