//! Cuts records into requests that a server takes, and writes their bodies.

use std::io;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::{
    error::IndexError,
    types::{Record, SparseEntry},
};
use crate::domain::embedding::SparseVector;

/// How large one upsert may be. A single record may exceed the bytes, never the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchLimits {
    /// The most records, at least 1.
    pub max_records: usize,
    /// The most bytes of the request's body, nearly.
    pub max_bytes: usize,
}

impl BatchLimits {
    /// 500 records and 8 MiB: from 250 records on the cost of a request vanishes beside its records,
    /// and a single-node server refuses bodies over 40 MiB.
    pub const DEFAULT: Self = Self {
        max_records: 500,
        max_bytes: 8 * 1024 * 1024,
    };

    /// These limits, and no more records than the server says.
    pub fn with_max_records(self, max_records: usize) -> Self {
        Self {
            max_records: self.max_records.min(max_records).max(1),
            ..self
        }
    }
}

/// Adds up records until they fill a request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BatchSize {
    records: usize,
    bytes: usize,
}

impl BatchSize {
    /// Counts `record` in and returns true, unless it does not fit beside what was counted before.
    pub fn add(&mut self, record: &Record, limits: BatchLimits) -> bool {
        let bytes = encoded_len(record);
        let fits = self.records < limits.max_records && self.bytes + bytes <= limits.max_bytes;
        if fits || self.records == 0 {
            self.records += 1;
            self.bytes += bytes;
            return true;
        }
        false
    }
}

/// Cuts `records` into runs that each fit into a request.
pub(super) fn split(records: &[Record], limits: BatchLimits) -> impl Iterator<Item = &[Record]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut size = BatchSize::default();
        let end = rest
            .iter()
            .position(|record| !size.add(record, limits))
            .unwrap_or(rest.len());
        let (batch, after) = rest.split_at(end);
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

/// Bytes that `record` adds to a body whose vectors are base64; a JSON array takes up to three times that.
fn encoded_len(record: &Record) -> usize {
    const PUNCTUATION: usize = 8;
    let vector = (record.vector.len() * 4).div_ceil(3) * 4;
    let metadata = json_len(&MetadataBody(record));
    json_len(&record.id) + json_len(&record.document) + metadata + vector + PUNCTUATION
}

/// Length of a value as JSON, without writing it anywhere.
fn json_len(value: &impl Serialize) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // Text and metadata always serialise; a value that could not would fail again when it is sent.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector<'a> {
    Base64(String),
    Numbers(&'a [f32]),
}

#[derive(Serialize)]
struct UpsertBody<'a> {
    ids: Vec<&'a str>,
    embeddings: Vec<Vector<'a>>,
    documents: Vec<&'a str>,
    metadatas: Vec<MetadataBody<'a>>,
}

/// The metadata of a record with its sparse vector.
struct MetadataBody<'a>(&'a Record);

impl Serialize for MetadataBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Record { metadata, sparse, .. } = self.0;
        let Some(SparseEntry { key, vector }) = sparse else {
            return metadata.serialize(serializer);
        };
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in metadata.iter().filter(|(name, _)| ***name != **key) {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry(key, &SparseBody::new(vector))?;
        map.end()
    }
}

/// A sparse vector as a value of metadata; source: `to_dict` of the Python client's `SparseVector`.
#[derive(Serialize)]
struct SparseBody<'a> {
    #[serde(rename = "#type")]
    kind: &'static str,
    indices: &'a [u32],
    values: &'a [f32],
}

impl<'a> SparseBody<'a> {
    fn new(vector: &'a SparseVector) -> Self {
        let SparseVector { indices, values } = vector;
        Self {
            kind: "sparse_vector",
            indices,
            values,
        }
    }
}

/// Writes the body of an upsert.
///
/// # Errors
/// [`IndexError::InvalidRecord`] for a vector that is empty or has a number that is not finite: Chroma
/// stores such a vector and answers nonsense from then on.
pub(super) fn encode(records: &[Record], base64_vectors: bool) -> Result<Bytes, IndexError> {
    let mut embeddings = Vec::with_capacity(records.len());
    for record in records {
        let sparse = record.sparse.as_ref();
        check_vector(&record.vector)
            .and_then(|()| sparse.map_or(Ok(()), |sparse| check_sparse(&sparse.vector)))
            .map_err(|problem| IndexError::InvalidRecord {
                what: format!("record {}", record.id),
                problem,
            })?;
        embeddings.push(if base64_vectors {
            let bytes: Vec<u8> = record
                .vector
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect();
            Vector::Base64(STANDARD.encode(bytes))
        } else {
            Vector::Numbers(&record.vector)
        });
    }
    let body = UpsertBody {
        ids: records.iter().map(|record| record.id.as_str()).collect(),
        embeddings,
        documents: records.iter().map(|record| &*record.document).collect(),
        metadatas: records.iter().map(MetadataBody).collect(),
    };
    to_json(&body)
}

/// Says what is wrong with a vector that must not reach Chroma.
pub(super) fn check_vector(vector: &[f32]) -> Result<(), String> {
    if vector.is_empty() {
        return Err("its vector is empty".to_owned());
    }
    match vector.iter().position(|number| !number.is_finite()) {
        Some(position) => Err(format!("number {position} of its vector is not finite")),
        None => Ok(()),
    }
}

/// Says what is wrong with a sparse vector that Chroma would refuse with all others of its request.
pub(super) fn check_sparse(vector: &SparseVector) -> Result<(), String> {
    let SparseVector { indices, values } = vector;
    if indices.len() != values.len() {
        let (indices, values) = (indices.len(), values.len());
        return Err(format!(
            "its sparse vector has {indices} indices and {values} values"
        ));
    }
    if !indices.is_sorted_by(|one, next| one < next) {
        return Err("the indices of its sparse vector do not ascend".to_owned());
    }
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(()),
        false => Err("a value of its sparse vector is not finite".to_owned()),
    }
}

/// A sparse vector as JSON.
pub(super) fn sparse_value(vector: &SparseVector) -> Result<Value, IndexError> {
    serde_json::to_value(SparseBody::new(vector)).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> IndexError {
    IndexError::InvalidRecord {
        what: "a request".to_owned(),
        problem: error.to_string(),
    }
}

/// Writes a request's body.
pub(super) fn to_json(body: &impl Serialize) -> Result<Bytes, IndexError> {
    serde_json::to_vec(body).map(Bytes::from).map_err(unwritable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn record(id: &str, document: &str) -> Record {
        let metadata = json!({"k": 1, "t": "x\"y"}).as_object().unwrap().clone();
        Record {
            id: id.to_owned(),
            vector: vec![1.0, -0.5],
            document: document.into(),
            metadata,
            sparse: None,
        }
    }

    #[test]
    fn a_body_has_the_four_columns_and_base64_is_of_little_endian_numbers() {
        let body = encode(&[record("a-0", "hi")], true).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let expected = json!({
            "ids": ["a-0"], "embeddings": ["AACAPwAAAL8="], "documents": ["hi"],
            "metadatas": [{"k": 1, "t": "x\"y"}],
        });
        assert_eq!(body, expected);
        let body: Value = serde_json::from_slice(&encode(&[record("a-0", "hi")], false).unwrap()).unwrap();
        assert_eq!(body["embeddings"], json!([[1.0, -0.5]]));
    }

    #[test]
    fn a_vector_that_is_empty_or_not_finite_is_refused_with_the_records_id() {
        for vector in [vec![], vec![1.0, f32::NAN], vec![f32::INFINITY]] {
            let bad = Record {
                vector,
                ..record("bad-7", "x")
            };
            let error = encode(&[record("a-0", "x"), bad], true).unwrap_err();
            assert!(error.to_string().contains("record bad-7"), "{error}");
            assert!(!error.is_transient());
        }
    }

    fn sparse(key: &str, indices: &[u32], values: &[f32]) -> Option<SparseEntry> {
        Some(SparseEntry {
            key: key.into(),
            vector: SparseVector {
                indices: indices.to_vec(),
                values: values.to_vec(),
            },
        })
    }

    #[test]
    fn a_sparse_vector_stands_in_the_metadata_in_place_of_what_else_is_there() {
        let mut with = record("a-0", "hi");
        with.metadata.insert("s".to_owned(), Value::Null);
        with.sparse = sparse("s", &[7, 4_294_967_295], &[0.1, 2.0]);
        let mut empty = record("a-1", "");
        empty.sparse = sparse("s", &[], &[]);
        let body = encode(&[with, empty], true).unwrap();
        let text = std::str::from_utf8(&body).unwrap();
        // No more digits than a float of 32 bits has.
        assert!(text.contains("\"values\":[0.1,2.0]"), "{text}");
        let body: Value = serde_json::from_str(text).unwrap();
        assert_eq!(
            body["metadatas"][0],
            json!({"k": 1, "t": "x\"y", "s": {
                "#type": "sparse_vector", "indices": [7, 4_294_967_295_u32], "values": [0.1, 2.0],
            }})
        );
        let empty = json!({"#type": "sparse_vector", "indices": [], "values": []});
        assert_eq!(body["metadatas"][1]["s"], empty);
    }

    #[test]
    fn a_sparse_vector_that_chroma_would_refuse_is_refused_with_the_records_id() {
        for entry in [
            sparse("s", &[1], &[]),
            sparse("s", &[2, 1], &[1.0, 1.0]),
            sparse("s", &[1, 1], &[1.0, 1.0]),
            sparse("s", &[1], &[f32::NAN]),
        ] {
            let bad = Record {
                sparse: entry,
                ..record("bad-7", "x")
            };
            let error = encode(&[bad], true).unwrap_err();
            assert!(error.to_string().contains("record bad-7"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn batches_keep_every_record_in_order_within_the_limits(
            documents in proptest::collection::vec("(?s).{0,60}", 0..40),
            max_records in 1usize..9,
            max_bytes in 1usize..2_000,
        ) {
            let records: Vec<Record> =
                documents.iter().enumerate().map(|(n, text)| record(&format!("d-{n}"), text)).collect();
            let limits = BatchLimits { max_records, max_bytes };
            let batches: Vec<&[Record]> = split(&records, limits).collect();
            for batch in &batches {
                prop_assert!(!batch.is_empty() && batch.len() <= max_records);
                let counted: usize = batch.iter().map(encoded_len).sum();
                prop_assert!(batch.len() == 1 || counted <= max_bytes);
                let written = encode(batch, true).unwrap().len();
                prop_assert!(written <= counted + 60, "{written} bytes, counted {counted}");
            }
            prop_assert_eq!(batches.concat(), records);
        }
    }
}
