//! Texts that a caller has embedded.

use std::sync::Arc;

use crate::error::FieldViolation;

/// The longest text, in bytes: about what the largest window among the models served reads (32,768 tokens of
/// four bytes). The rest would be tokenised only to be cut off.
pub const MAX_TEXT_BYTES: usize = 128 << 10;

/// The texts of one call: at least one, none longer than [`MAX_TEXT_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts(Vec<Arc<str>>);

impl Texts {
    /// Checks what the field `field` has, at most `most` texts.
    ///
    /// # Errors
    /// The violation names the field, or the text in it, and the limit.
    pub fn parse(field: &str, texts: Vec<String>, most: usize) -> Result<Self, FieldViolation> {
        if texts.is_empty() {
            return Err(FieldViolation::new(field, "must have at least one text"));
        }
        if texts.len() > most {
            let problem = format!(
                "must have at most {most} texts, has {}; send them in several calls",
                texts.len()
            );
            return Err(FieldViolation::new(field, problem));
        }
        for (index, text) in texts.iter().enumerate() {
            check_text(&format!("{field}[{index}]"), text)?;
        }
        Ok(Self(texts.into_iter().map(Arc::from).collect()))
    }

    /// How many there are, at least 1.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Their length together, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|text| text.len()).sum()
    }

    /// The texts, in order.
    pub fn into_vec(self) -> Vec<Arc<str>> {
        self.0
    }
}

/// Checks one text.
pub(super) fn check_text(field: &str, text: &str) -> Result<(), FieldViolation> {
    if text.len() > MAX_TEXT_BYTES {
        let problem = format!("must have at most {MAX_TEXT_BYTES} bytes, has {}", text.len());
        return Err(FieldViolation::new(field, problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn too_many_texts_and_too_long_ones_are_refused_with_the_limit() {
        let refused = |texts: Vec<String>| Texts::parse("texts", texts, 2).unwrap_err();
        assert_eq!(refused(vec![]).description, "must have at least one text");
        let many = refused(vec![String::new(); 3]);
        assert_eq!(
            (many.field.as_str(), many.description.as_str()),
            (
                "texts",
                "must have at most 2 texts, has 3; send them in several calls"
            )
        );
        let long = refused(vec!["a".to_owned(), "b".repeat(MAX_TEXT_BYTES + 1)]);
        assert_eq!(
            (long.field.as_str(), long.description.as_str()),
            ("texts[1]", "must have at most 131072 bytes, has 131073")
        );
        let texts = Texts::parse("texts", vec!["ä".to_owned(), String::new()], 2).unwrap();
        assert_eq!((texts.count(), texts.bytes()), (2, 2));
    }
}
