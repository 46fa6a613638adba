//! Whole numbers of a body.
//!
//! JSON has one kind of number: `1024` and `1024.0` are the same, and OpenAPI calls both an integer.

use serde::{
    Deserialize, Deserializer,
    de::{Error, Unexpected},
};

/// Every whole number up to here, and none beyond, has a float of its own.
const MAX_EXACT_FLOAT: f64 = 9_007_199_254_740_992.0;

/// Reads a whole number of 0 or more, or null.
///
/// # Errors
/// Anything else.
pub(super) fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let expected = &"a whole number";
    match (number.as_u64(), number.as_i64(), number.as_f64()) {
        (Some(number), _, _) => Ok(Some(number)),
        (None, Some(number), _) => Err(D::Error::invalid_value(Unexpected::Signed(number), expected)),
        (None, None, Some(float)) if float.fract() == 0.0 && (0.0..=MAX_EXACT_FLOAT).contains(&float) => {
            Ok(Some(float as u64))
        }
        (None, None, float) => Err(D::Error::invalid_value(
            Unexpected::Float(float.unwrap_or(f64::NAN)),
            expected,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Option<u64>> {
        whole_number(&mut serde_json::Deserializer::from_str(text)).ok()
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_float() {
        assert_eq!(read("1024"), Some(Some(1_024)));
        assert_eq!(read("1024.0"), Some(Some(1_024)));
        assert_eq!(read("1.024e3"), Some(Some(1_024)));
        assert_eq!(read("18446744073709551615"), Some(Some(u64::MAX)));
        assert_eq!(read("null"), Some(None));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["-1", "-1.0", "0.5", "1e300", "\"1\"", "true", "[1]"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
