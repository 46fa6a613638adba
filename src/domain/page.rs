//! Paging: by key for gRPC, by offset for the documented REST paths.
//!
//! A page token is opaque to callers: the id of the last row and a digest of the listing it came
//! from, so that a token used with another filter is refused instead of answering nonsense.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Error, FieldViolation, Reason};

/// Rows a page has when the caller does not say.
pub const DEFAULT_PAGE_SIZE: u32 = 100;
/// The most rows a page may have.
pub const MAX_PAGE_SIZE: u32 = 1_000;

/// Order of a listing, by creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    #[default]
    Descending,
}

/// Which part of a listing is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// The most rows, 0..=1000. Zero rows is what the documented `limit=0` asks for.
    pub size: u32,
    /// Rows to skip after the start.
    pub skip: u64,
    /// Start after this row.
    pub after: Option<Uuid>,
    /// Order by creation.
    pub order: Order,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self {
            size: DEFAULT_PAGE_SIZE,
            skip: 0,
            after: None,
            order: Order::Descending,
        }
    }
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// The id of the last row, when more rows follow it.
    pub next: Option<Uuid>,
}

/// Checks a page size: absent or 0 means 100 (AIP-158), more than 1000 is coerced to 1000.
///
/// # Errors
/// A negative size names `page_size`.
pub fn page_size(size: i32) -> Result<u32, FieldViolation> {
    match u32::try_from(size) {
        Ok(0) => Ok(DEFAULT_PAGE_SIZE),
        Ok(size) => Ok(size.min(MAX_PAGE_SIZE)),
        Err(_) => Err(FieldViolation::new(
            "page_size",
            format!("must not be negative, is {size}"),
        )),
    }
}

/// Makes the token that continues a listing after `last`. `listing` spells out filter and order.
pub fn encode_token(listing: &str, last: Uuid) -> String {
    let mut bytes = Vec::with_capacity(24);
    bytes.extend_from_slice(last.as_bytes());
    bytes.extend_from_slice(&digest(listing));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a token made by [`encode_token`] for the same listing.
///
/// # Errors
/// INVALID_PAGE_TOKEN when it is damaged or belongs to another listing.
pub fn decode_token(listing: &str, token: &str) -> Result<Uuid, Error> {
    let refuse = |problem: &'static str| {
        Error::new(Reason::InvalidPageToken, format!("page_token: {problem}"))
            .with_violations(vec![FieldViolation::new("page_token", problem)])
    };
    let bytes = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| <[u8; 24]>::try_from(bytes).ok())
        .ok_or_else(|| refuse("must be a token that a listing returned"))?;
    let (id, filter) = bytes.split_at(16);
    if filter != digest(listing) {
        return Err(refuse("belongs to a listing with another filter or order"));
    }
    Uuid::from_slice(id).map_err(|_| refuse("must be a token that a listing returned"))
}

fn digest(listing: &str) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&Sha256::digest(listing.as_bytes())[..8]);
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_leads_back_to_its_row(bytes in any::<[u8; 16]>(), listing in ".{0,40}") {
            let id = Uuid::from_bytes(bytes);
            prop_assert_eq!(decode_token(&listing, &encode_token(&listing, id)).unwrap(), id);
        }

        #[test]
        fn any_other_text_is_refused_without_a_panic(token in ".{0,64}") {
            prop_assert!(decode_token("listing", &token).is_err());
        }
    }

    #[test]
    fn a_token_of_another_listing_is_refused() {
        let token = encode_token("state=pending", Uuid::nil());
        let error = decode_token("state=failed", &token).unwrap_err();
        assert_eq!(error.reason(), Reason::InvalidPageToken);
    }

    #[test]
    fn page_sizes_are_coerced_and_negative_ones_refused() {
        assert_eq!(page_size(0), Ok(100));
        assert_eq!(page_size(7), Ok(7));
        assert_eq!(page_size(5_000), Ok(1_000));
        assert_eq!(page_size(-1).unwrap_err().field, "page_size");
    }
}
