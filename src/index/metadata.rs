//! The metadata of a record, under the keys that callers of Chroma Sync filter by.
//!
//! Source: the documented keys and the schema that Chroma's own sample application checks records
//! against. The unit of lines and columns is not public; ours is stated at each field.

use serde_json::Value;

use super::types::Metadata;
pub use crate::domain::user_metadata::is_reserved_key;

/// Name of the document: repository path, object key, URL or file name.
pub const DOCUMENT_KEY: &str = "document_key";
/// Lowercase hex SHA-256 of [`DOCUMENT_KEY`].
pub const DOCUMENT_KEY_SHA256: &str = "document_key_sha256";
/// What identifies the content: the git blob id for a repository file.
pub const VERSION_KEY: &str = "version_key";
/// Lowercase hex SHA-256 of [`VERSION_KEY`].
pub const VERSION_KEY_SHA256: &str = "version_key_sha256";
/// How the document was cut.
pub const CHUNK_STRATEGY: &str = "chunk_strategy";
/// Language of the text.
pub const LANGUAGE: &str = "language";
/// First line, 1-based.
pub const START_LINE: &str = "start_line";
/// Last line, 1-based, inclusive.
pub const END_LINE: &str = "end_line";
/// First byte within the first line, 0-based.
pub const START_COL: &str = "start_col";
/// Byte after the last one within the last line, 0-based.
pub const END_COL: &str = "end_col";
/// The id that a caller gave to an object or upload.
pub const CUSTOM_ID: &str = "custom_id";

/// What the metadata of one record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordMetadata<'a> {
    /// See [`DOCUMENT_KEY`].
    pub document_key: &'a str,
    /// See [`DOCUMENT_KEY_SHA256`].
    pub document_key_sha256: &'a str,
    /// See [`VERSION_KEY`].
    pub version_key: &'a str,
    /// See [`VERSION_KEY_SHA256`].
    pub version_key_sha256: &'a str,
    /// `tree_sitter`, `markdown` or `lines`: what really cut this document.
    pub chunk_strategy: &'a str,
    /// None where it is unknown.
    pub language: Option<&'a str>,
    /// First line, 1-based.
    pub start_line: u32,
    /// Last line, 1-based, inclusive.
    pub end_line: u32,
    /// First byte within the first line, 0-based.
    pub start_col: u32,
    /// Byte after the last one within the last line, 0-based.
    pub end_col: u32,
    /// See [`CUSTOM_ID`].
    pub custom_id: Option<&'a str>,
}

impl RecordMetadata<'_> {
    /// The metadata to store.
    ///
    /// An unknown language is written as null: Chroma merges an upsert's metadata into the stored
    /// record, so a key that is only left out would keep the value of an older version.
    pub fn into_map(self) -> Metadata {
        let mut metadata = Metadata::new();
        let mut put = |key: &str, value: Value| metadata.insert(key.to_owned(), value);
        put(DOCUMENT_KEY, self.document_key.into());
        put(DOCUMENT_KEY_SHA256, self.document_key_sha256.into());
        put(VERSION_KEY, self.version_key.into());
        put(VERSION_KEY_SHA256, self.version_key_sha256.into());
        put(CHUNK_STRATEGY, self.chunk_strategy.into());
        put(LANGUAGE, self.language.into());
        put(START_LINE, self.start_line.into());
        put(END_LINE, self.end_line.into());
        put(START_COL, self.start_col.into());
        put(END_COL, self.end_col.into());
        if let Some(custom_id) = self.custom_id {
            put(CUSTOM_ID, custom_id.into());
        }
        metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_carries_the_documented_keys() {
        let metadata = RecordMetadata {
            document_key: "src/a.rs",
            document_key_sha256: "d1",
            version_key: "b10b",
            version_key_sha256: "d2",
            chunk_strategy: "tree_sitter",
            language: Some("rust"),
            start_line: 1,
            end_line: 4,
            start_col: 0,
            end_col: 7,
            custom_id: None,
        };
        let expected = json!({
            "document_key": "src/a.rs", "document_key_sha256": "d1",
            "version_key": "b10b", "version_key_sha256": "d2",
            "chunk_strategy": "tree_sitter", "language": "rust",
            "start_line": 1, "end_line": 4, "start_col": 0, "end_col": 7,
        });
        assert_eq!(Value::Object(metadata.into_map()), expected);
        let unknown = RecordMetadata {
            language: None,
            ..metadata
        };
        assert_eq!(unknown.into_map()[LANGUAGE], Value::Null);
        let named = RecordMetadata {
            custom_id: Some("report-7"),
            ..metadata
        };
        assert_eq!(named.into_map()[CUSTOM_ID], json!("report-7"));
    }

    #[test]
    fn every_key_of_a_record_is_reserved() {
        let record = RecordMetadata {
            document_key: "",
            document_key_sha256: "",
            version_key: "",
            version_key_sha256: "",
            chunk_strategy: "lines",
            language: None,
            start_line: 1,
            end_line: 1,
            start_col: 0,
            end_col: 0,
            custom_id: Some("mine"),
        };
        let keys: Vec<String> = record.into_map().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), 11);
        for key in keys.iter().map(String::as_str) {
            assert!(is_reserved_key(key), "{key}");
        }
    }
}
