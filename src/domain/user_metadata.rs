//! Metadata that a caller gives to an object or upload, which goes onto every record of it.
//!
//! Source of the rules: the documented limits (scalars, null or arrays of one kind of scalars, 16 KiB,
//! reserved keys), and what Chroma 1.5 takes: keys that are empty or begin with `#` or `$` are refused, arrays
//! of mixed kinds too, integers beyond 64 bits become inexact, an empty array is not stored.

use serde_json::{Map, Value};

use crate::error::FieldViolation;

/// The most bytes of all metadata together, as compact JSON.
pub const MAX_METADATA_BYTES: usize = 16 * 1_024;
/// The most keys.
pub const MAX_METADATA_KEYS: usize = 64;
/// The longest key, in bytes.
pub const MAX_METADATA_KEY_BYTES: usize = 256;

/// The keys of a record that the service itself writes.
const OWN_KEYS: [&str; 11] = [
    "document_key",
    "document_key_sha256",
    "version_key",
    "version_key_sha256",
    "chunk_strategy",
    "language",
    "start_line",
    "end_line",
    "start_col",
    "end_col",
    "custom_id",
];

/// Whether `key` is the service's own or Chroma's, so that a caller's metadata must not use it.
pub fn is_reserved_key(key: &str) -> bool {
    OWN_KEYS.contains(&key) || key.starts_with("chroma_") || key.starts_with("chroma:")
}

/// Metadata of a caller: 0 to 64 keys; values are null, strings, booleans, numbers, or arrays of one of them.
///
/// Null means that the key is not to be there: Chroma merges what is written into what was, so only a null
/// takes away what an earlier version of the document had.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UserMetadata(Map<String, Value>);

// JSON has no NaN, so equality is total.
impl Eq for UserMetadata {}

impl UserMetadata {
    /// Checks a JSON object; an empty array becomes null.
    ///
    /// # Errors
    /// The violation names `field`, or `field` and the key.
    pub fn parse(field: &str, metadata: Map<String, Value>) -> Result<Self, FieldViolation> {
        if metadata.len() > MAX_METADATA_KEYS {
            let problem = format!(
                "must have at most {MAX_METADATA_KEYS} keys, has {}",
                metadata.len()
            );
            return Err(FieldViolation::new(field, problem));
        }
        let bytes = serde_json::to_string(&metadata).map_or(usize::MAX, |text| text.len());
        if bytes > MAX_METADATA_BYTES {
            let problem = format!("must have at most {MAX_METADATA_BYTES} bytes as JSON, has {bytes}");
            return Err(FieldViolation::new(field, problem));
        }
        let checked = metadata
            .into_iter()
            .map(|(key, value)| {
                check_key(&key).map_err(|problem| FieldViolation::new(field, problem))?;
                let value = check_value(&value)
                    .map(|()| {
                        if is_empty_array(&value) {
                            Value::Null
                        } else {
                            value
                        }
                    })
                    .map_err(|problem| FieldViolation::new(format!("{field}.{key}"), problem))?;
                Ok((key, value))
            })
            .collect::<Result<_, FieldViolation>>()?;
        Ok(Self(checked))
    }

    /// Reads a JSON object from text, for callers that send it as a field of a form.
    ///
    /// # Errors
    /// As [`UserMetadata::parse`], and for text that is no JSON object.
    pub fn parse_text(field: &str, text: &str) -> Result<Self, FieldViolation> {
        match serde_json::from_str(text) {
            Ok(metadata) => Self::parse(field, metadata),
            Err(_) => Err(FieldViolation::new(
                field,
                r#"must be a JSON object, such as {"team": "search"}"#,
            )),
        }
    }

    /// Takes metadata that was checked before it was stored.
    pub fn from_stored(metadata: Map<String, Value>) -> Self {
        Self(metadata)
    }

    /// The keys and values.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The keys and values.
    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }

    /// Refuses metadata that has the key under which the source keeps its sparse vectors.
    ///
    /// # Errors
    /// The violation names `field`.
    pub fn require_free(&self, field: &str, sparse_key: Option<&str>) -> Result<(), FieldViolation> {
        match sparse_key.filter(|key| self.0.contains_key(*key)) {
            None => Ok(()),
            Some(key) => {
                let problem =
                    format!("must not have the key {key:?}: the source keeps its sparse vectors there");
                Err(FieldViolation::new(field, problem))
            }
        }
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Says what is wrong with a key that a caller gives to records.
pub(super) fn check_key(key: &str) -> Result<(), String> {
    let problem = if key.is_empty() {
        "must not have an empty key".to_owned()
    } else if key.len() > MAX_METADATA_KEY_BYTES {
        format!("must have keys of at most {MAX_METADATA_KEY_BYTES} bytes, {key:?} is longer")
    } else if is_reserved_key(key) {
        format!(
            "must not have the key {key:?}: the keys that the service writes itself, and those that begin with \
             'chroma_' or 'chroma:', are reserved"
        )
    } else if key.starts_with(['#', '$']) {
        format!("must not have the key {key:?}: Chroma refuses keys that begin with '#' or '$'")
    } else if key.chars().any(char::is_control) {
        format!("must not have the key {key:?}: it has control characters")
    } else {
        return Ok(());
    };
    Err(problem)
}

/// What an array may hold one of.
#[derive(PartialEq)]
enum Kind {
    Text,
    Boolean,
    Number,
}

fn check_value(value: &Value) -> Result<(), &'static str> {
    match value {
        Value::Null => Ok(()),
        Value::Array(items) => {
            let kinds = items.iter().map(scalar).collect::<Result<Vec<Kind>, _>>()?;
            if kinds.iter().any(|kind| Some(kind) != kinds.first()) {
                return Err("must be an array of one kind: strings, numbers or booleans");
            }
            Ok(())
        }
        Value::Object(_) => Err("must not be an object; use several keys instead"),
        Value::String(_) | Value::Bool(_) | Value::Number(_) => scalar(value).map(|_| ()),
    }
}

fn scalar(value: &Value) -> Result<Kind, &'static str> {
    match value {
        // PostgreSQL stores no NUL characters.
        Value::String(text) if text.contains('\0') => Err("must not contain NUL characters"),
        Value::String(_) => Ok(Kind::Text),
        Value::Bool(_) => Ok(Kind::Boolean),
        Value::Number(number) if number.is_u64() && !number.is_i64() => {
            Err("must be an integer of at most 9223372036854775807; Chroma would round it")
        }
        Value::Number(_) => Ok(Kind::Number),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err("must be an array of strings, numbers or booleans")
        }
    }
}

fn is_empty_array(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(metadata: Value) -> Result<UserMetadata, FieldViolation> {
        let Value::Object(metadata) = metadata else {
            panic!("{metadata} is no object");
        };
        UserMetadata::parse("metadata", metadata)
    }

    #[test]
    fn scalars_nulls_and_arrays_of_one_kind_pass_unchanged() {
        let metadata = json!({
            "text": "ü", "empty text": "", "yes": true, "int": -7, "largest": i64::MAX, "float": 1.5, "none": null,
            "texts": ["a", "b"], "numbers": [1, 2.5], "flags": [true, false],
        });
        assert_eq!(
            Value::Object(parse(metadata.clone()).unwrap().into_map()),
            metadata
        );
        assert!(parse(json!({})).unwrap().is_empty());
    }

    #[test]
    fn an_empty_array_is_stored_as_nothing() {
        assert_eq!(parse(json!({"tags": []})).unwrap().as_map()["tags"], Value::Null);
    }

    #[test]
    fn values_that_chroma_refuses_or_rounds_are_refused_by_key() {
        for (value, problem) in [
            (json!({"a": 1}), "must not be an object"),
            (json!(["a", 1]), "of one kind"),
            (json!([true, 1]), "of one kind"),
            (json!(["a", null]), "must be an array of strings"),
            (json!([["a"]]), "must be an array of strings"),
            (json!(u64::MAX), "9223372036854775807"),
            (json!([u64::MAX]), "9223372036854775807"),
            (json!("a\0b"), "NUL"),
        ] {
            let violation = parse(json!({"team": value})).unwrap_err();
            assert_eq!(violation.field, "metadata.team", "{value}");
            assert!(
                violation.description.contains(problem),
                "{value}: {}",
                violation.description
            );
        }
    }

    #[test]
    fn reserved_and_unusable_keys_are_refused() {
        let own = OWN_KEYS.map(str::to_owned);
        let others = ["chroma_x", "chroma:document", "", "#document", "$and", "a\nb"].map(str::to_owned);
        for key in own.into_iter().chain(others).chain(["x".repeat(257)]) {
            let violation = parse(json!({&key: 1})).unwrap_err();
            assert_eq!(violation.field, "metadata", "{key:?}");
        }
        for key in [
            "chroma",
            "chromatic_scale",
            "Document_Key",
            "a b",
            "é",
            &"x".repeat(256),
        ] {
            assert!(parse(json!({key: 1})).is_ok(), "{key:?}");
        }
    }

    #[test]
    fn size_and_number_of_keys_are_bounded() {
        // {"k":"..."} adds 8 bytes.
        assert!(parse(json!({"k": "x".repeat(MAX_METADATA_BYTES - 8)})).is_ok());
        let violation = parse(json!({"k": "x".repeat(MAX_METADATA_BYTES - 7)})).unwrap_err();
        assert_eq!(
            violation.description,
            "must have at most 16384 bytes as JSON, has 16385"
        );
        let keys = |count: usize| Value::Object((0..count).map(|n| (format!("k{n}"), json!(n))).collect());
        assert!(parse(keys(64)).is_ok());
        assert_eq!(
            parse(keys(65)).unwrap_err().description,
            "must have at most 64 keys, has 65"
        );
    }

    #[test]
    fn text_that_is_no_json_object_is_refused() {
        assert!(UserMetadata::parse_text("metadata", r#"{"a": [1]}"#).is_ok());
        for text in ["", "[]", "null", "{", r#"{"a": NaN}"#, r#"{"a": 1e400}"#] {
            let violation = UserMetadata::parse_text("metadata", text).unwrap_err();
            assert_eq!(violation.field, "metadata", "{text}");
        }
    }
}
