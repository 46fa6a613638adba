//! Vectors that are cut short, where the model was trained for it.
//!
//! A Matryoshka model puts what matters most into the first dimensions of a vector, so its beginning, brought
//! to length 1 again, is an embedding too. Of any other model it is none.

use super::embedding::{ModelDescription, QWEN3};
use crate::error::FieldViolation;

/// The fewest dimensions of a vector of Qwen3-Embedding, by its model card ("MRL Support").
const LEAST_OF_QWEN3: u32 = 32;

/// How many dimensions of the vectors of `model` a caller gets that asks for `asked`.
///
/// # Errors
/// The violation names `field` and says what the model has.
pub fn resolve(field: &str, model: &ModelDescription, asked: Option<u64>) -> Result<u32, FieldViolation> {
    let full = model.dimensions;
    let least = if model.name == QWEN3 {
        LEAST_OF_QWEN3.min(full)
    } else {
        full
    };
    let Some(asked) = asked else { return Ok(full) };
    match u32::try_from(asked) {
        Ok(asked) if (least..=full).contains(&asked) => Ok(asked),
        Ok(_) | Err(_) if least == full => Err(FieldViolation::new(
            field,
            format!(
                "must be {full} or left out: the vectors of {} cannot be cut short",
                model.name
            ),
        )),
        Ok(_) | Err(_) => Err(FieldViolation::new(
            field,
            format!("must be from {least} to {full} for {}, is {asked}", model.name),
        )),
    }
}

/// Keeps the first `dimensions` of a vector and brings it to length 1 again.
pub fn shorten(vector: &mut Vec<f32>, dimensions: u32) {
    let dimensions = dimensions as usize;
    if vector.len() <= dimensions {
        return;
    }
    vector.truncate(dimensions);
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::domain::embedding::MINILM;

    fn model(name: &str, dimensions: u32) -> ModelDescription {
        ModelDescription {
            name: name.to_owned(),
            dimensions,
            max_tokens: 256,
            takes_instructions: false,
        }
    }

    #[test]
    fn only_a_matryoshka_model_is_cut_short() {
        let minilm = model(MINILM, 384);
        assert_eq!(resolve("dimensions", &minilm, None), Ok(384));
        assert_eq!(resolve("dimensions", &minilm, Some(384)), Ok(384));
        let refused = resolve("dimensions", &minilm, Some(64)).unwrap_err();
        assert!(
            refused.description.starts_with("must be 384 or left out"),
            "{refused:?}"
        );
        let qwen = model(QWEN3, 1024);
        assert_eq!(resolve("dimensions", &qwen, Some(32)), Ok(32));
        for asked in [0, 31, 1025, u64::MAX] {
            let refused = resolve("dimensions", &qwen, Some(asked)).unwrap_err();
            assert!(refused.description.contains("from 32 to 1024"), "{refused:?}");
        }
    }

    #[test]
    fn a_shortened_vector_has_length_one() {
        let mut vector = vec![0.6, 0.0, 0.8];
        shorten(&mut vector, 2);
        assert_eq!(vector, [1.0, 0.0]);
        let mut zeros = vec![0.0, 0.0, 1.0];
        shorten(&mut zeros, 2);
        assert_eq!(zeros, [0.0, 0.0]);
        shorten(&mut zeros, 5);
        assert_eq!(zeros.len(), 2);
    }
}
