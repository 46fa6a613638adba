//! Files that name an object and carry its metadata: `chroma-v1`, called `*.meta.json`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    domain::{
        names::CollectionName,
        s3::{CustomId, ObjectKey, PathPrefix},
        user_metadata::UserMetadata,
    },
    error::FieldViolation,
};

/// The most bytes of a file; its metadata may have 16 KiB.
pub const MAX_FILE_BYTES: u64 = 64 << 10;
/// How the keys of such files end.
const SUFFIX: &str = ".meta.json";
/// The only version there is.
const VERSION: &str = "chroma-v1";

/// Whether the object with this key is such a file.
pub fn is_metadata_file(key: &str) -> bool {
    key.ends_with(SUFFIX)
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataFile {
    /// The id of the document.
    pub custom_id: CustomId,
    /// The object that is the document.
    pub object_key: ObjectKey,
    /// Where its records go; none for the source's collection.
    pub collection: Option<CollectionName>,
    /// What its records carry.
    pub metadata: UserMetadata,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MetadataFileError {
    /// Too long.
    #[error("it has more than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// Not JSON, or without a field that it needs, or with one that is not known.
    #[error("it is not a JSON object of the form chroma-v1: {0}")]
    NotOfTheForm(serde_json::Error),
    /// A field has a value that is not allowed.
    #[error("{}: {}", .0.field, .0.description)]
    Invalid(FieldViolation),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: String,
    id: String,
    path: String,
    target_collection_name: Option<String>,
    metadata: Option<Map<String, Value>>,
}

/// Reads a file of a source whose keys begin with `prefix`.
///
/// # Errors
/// See [`MetadataFileError`].
pub fn parse(content: &[u8], prefix: Option<&PathPrefix>) -> Result<MetadataFile, MetadataFileError> {
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(MetadataFileError::TooLarge);
    }
    let form: Form = serde_json::from_slice(content).map_err(MetadataFileError::NotOfTheForm)?;
    check(form, prefix).map_err(MetadataFileError::Invalid)
}

fn check(form: Form, prefix: Option<&PathPrefix>) -> Result<MetadataFile, FieldViolation> {
    if form.version != VERSION {
        return Err(FieldViolation::new(
            "version",
            format!("must be {VERSION:?}, is {:?}", form.version),
        ));
    }
    if is_metadata_file(&form.path) {
        return Err(FieldViolation::new(
            "path",
            format!("must be a document, not a {SUFFIX} file"),
        ));
    }
    Ok(MetadataFile {
        custom_id: CustomId::parse("id", &form.id)?,
        object_key: ObjectKey::parse("path", &form.path, prefix)?,
        collection: form
            .target_collection_name
            .map(|name| CollectionName::parse("target_collection_name", &name))
            .transpose()?,
        metadata: UserMetadata::parse("metadata", form.metadata.unwrap_or_default())?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(file: &Value) -> Result<MetadataFile, MetadataFileError> {
        let prefix = PathPrefix::parse("path_prefix", "docs/").unwrap();
        parse(file.to_string().as_bytes(), prefix.as_ref())
    }

    #[test]
    fn a_file_names_its_object_and_carries_its_metadata() {
        let file = read(&json!({
            "version": "chroma-v1", "id": "invoice-7", "path": "docs/invoice.pdf",
            "target_collection_name": "invoices", "metadata": {"year": 2026, "tags": ["a", "b"]},
        }))
        .unwrap();
        assert_eq!(file.custom_id.as_str(), "invoice-7");
        assert_eq!(file.object_key.as_str(), "docs/invoice.pdf");
        assert_eq!(file.collection.unwrap().as_str(), "invoices");
        assert_eq!(
            Value::Object(file.metadata.into_map()),
            json!({"year": 2026, "tags": ["a", "b"]})
        );
        let least = read(&json!({"version": "chroma-v1", "id": "i", "path": "docs/i"})).unwrap();
        assert_eq!(least.collection, None);
        assert!(least.metadata.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let right = json!({"version": "chroma-v1", "id": "i", "path": "docs/i"});
        for (field, value, problem) in [
            (
                "version",
                json!("chroma-v2"),
                "version: must be \"chroma-v1\", is \"chroma-v2\"",
            ),
            ("id", json!(""), "id: must have 1 to 120 bytes, has 0"),
            ("path", json!("other/i"), "path: must be the whole key"),
            ("path", json!("docs/x.meta.json"), "path: must be a document"),
            (
                "target_collection_name",
                json!("a"),
                "target_collection_name: must have 3 to 512",
            ),
            (
                "metadata",
                json!({"document_key": 1}),
                "metadata: must not have the key \"document_key\"",
            ),
            (
                "metadata",
                json!([]),
                "it is not a JSON object of the form chroma-v1",
            ),
            ("collection", json!("a"), "unknown field `collection`"),
        ] {
            let mut file = right.clone();
            file[field] = value;
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains(problem), "{field}: {error}");
        }
        for field in ["version", "id", "path"] {
            let mut file = right.clone();
            file.as_object_mut().unwrap().remove(field);
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains(&format!("missing field `{field}`")), "{error}");
        }
        let long = vec![b' '; 65_537];
        assert!(matches!(parse(&long, None), Err(MetadataFileError::TooLarge)));
    }

    #[test]
    fn such_files_are_known_by_the_end_of_their_keys() {
        assert!(is_metadata_file("docs/a.pdf.meta.json"));
        assert!(!is_metadata_file("docs/meta.json"));
        assert!(!is_metadata_file("docs/a.meta.JSON"));
    }
}
