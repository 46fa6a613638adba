//! What is said to a server and what it answers, in the forms that are spoken.
//!
//! Sources: OpenAI's `POST /v1/embeddings`, as vLLM, TEI, Ollama and llama.cpp answer it; Chroma Cloud's embed wire
//! as the functions `chroma-cloud-qwen` and `chroma-cloud-splade` of the `chromadb` package send it. Vectors are
//! checked and brought to length 1 here, so that nothing else is ever seen above.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, de};
use serde_json::json;
use url::Url;

use super::error::RemoteError;
use crate::embed::{SparseVector, before_text};

/// Bytes of a number in JSON, with room, and of what surrounds all vectors.
const BYTES_PER_NUMBER: usize = 32;
const BYTES_AROUND: usize = 65_536;
/// Entries of a sparse vector that are expected at most: as many as its vocabulary has, of BERT's size.
const MAX_SPARSE_ENTRIES: usize = 32_768;

/// The dense wires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseWire {
    /// `POST {base}/embeddings`.
    Openai,
    /// `POST {base}`.
    ChromaCloud,
}

/// What a server answered.
#[derive(Debug, PartialEq)]
pub(super) struct Answer<V> {
    /// One for each text, in order.
    pub(super) vectors: Vec<V>,
    /// Tokens that the server read in all texts together, where it says so.
    pub(super) tokens: Option<u64>,
}

/// Why an answer cannot be used.
#[derive(Debug)]
pub(super) enum AnswerFault {
    /// A vector has no direction, which is a fault of a text.
    NotFinite,
    /// It ends early.
    BrokenOff,
    /// It is wrong whatever the texts.
    Wrong(RemoteError),
}

/// One form of request and answer.
pub(super) trait Wire: Send + Sync + 'static {
    /// What becomes of a text.
    type Vector: Clone + Send + Sync + 'static;

    /// Where requests go, from the configured base.
    fn url(&self, base: &Url) -> Url;

    /// What is put before each text for an instruction; empty where it goes elsewhere.
    fn before(&self, instruction: &str) -> String;

    /// A request.
    fn body(&self, texts: &[&str], instruction: &str) -> Vec<u8>;

    /// The vectors of `count` texts.
    fn parse(&self, body: &[u8], count: usize) -> Result<Answer<Self::Vector>, AnswerFault>;

    /// The most bytes of an answer to `count` texts.
    fn max_answer_bytes(&self, count: usize) -> usize;

    /// Between two vectors.
    fn cosine(&self, a: &Self::Vector, b: &Self::Vector) -> f64;
}

/// Dense vectors of a model.
pub(super) struct Dense {
    pub(super) wire: DenseWire,
    pub(super) remote_model: String,
    pub(super) dimensions: usize,
}

/// Sparse vectors of a model, over Chroma Cloud's wire.
pub(super) struct Sparse;

#[derive(Deserialize)]
struct OpenaiAnswer {
    data: Vec<OpenaiVector>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct OpenaiVector {
    index: Option<usize>,
    embedding: Numbers,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    total_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct ChromaAnswer {
    embeddings: Vec<Numbers>,
    num_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct SparseAnswer {
    embeddings: Vec<SparseEntry>,
    num_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct SparseEntry {
    indices: Vec<u32>,
    values: Vec<Option<f64>>,
}

/// Floats, or the base64 of little-endian floats. What is not finite is null in the JSON of some servers.
struct Numbers(Vec<f32>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Numbers;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an array of numbers or a base64 text of floats")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Numbers, A::Error> {
                let mut numbers = Vec::new();
                // Read wide, since what no f32 holds is a fault of the text and not of the form.
                while let Some(number) = sequence.next_element::<Option<f64>>()? {
                    numbers.push(number.map_or(f32::NAN, |number| number as f32));
                }
                Ok(Numbers(numbers))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Numbers, E> {
                let bytes = STANDARD.decode(text).map_err(E::custom)?;
                let (floats, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(E::custom("the base64 text is no row of floats"));
                }
                Ok(Numbers(
                    floats.iter().map(|four| f32::from_le_bytes(*four)).collect(),
                ))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Wire for Dense {
    type Vector = Vec<f32>;

    fn url(&self, base: &Url) -> Url {
        match self.wire {
            DenseWire::Openai => below(base, "embeddings"),
            DenseWire::ChromaCloud => base.clone(),
        }
    }

    /// What stands before each text; Chroma Cloud puts it there itself.
    fn before(&self, instruction: &str) -> String {
        match (self.wire, instruction) {
            (DenseWire::ChromaCloud, _) | (DenseWire::Openai, "") => String::new(),
            (DenseWire::Openai, instruction) => before_text(instruction),
        }
    }

    fn body(&self, texts: &[&str], instruction: &str) -> Vec<u8> {
        let body = match self.wire {
            DenseWire::Openai => {
                let before = self.before(instruction);
                let input: Vec<String> = texts.iter().map(|text| format!("{before}{text}")).collect();
                json!({"model": self.remote_model, "input": input, "encoding_format": "float"})
            }
            DenseWire::ChromaCloud => json!({"instructions": instruction, "texts": texts}),
        };
        body.to_string().into_bytes()
    }

    fn parse(&self, body: &[u8], count: usize) -> Result<Answer<Vec<f32>>, AnswerFault> {
        let (vectors, tokens) = match self.wire {
            DenseWire::Openai => {
                let answer: OpenaiAnswer = read(body)?;
                let usage = answer.usage;
                let tokens = usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens));
                (in_order(answer.data, count)?, tokens)
            }
            DenseWire::ChromaCloud => {
                let answer: ChromaAnswer = read(body)?;
                let vectors = answer.embeddings.into_iter().map(|numbers| numbers.0).collect();
                (vectors, answer.num_tokens)
            }
        };
        check_count(vectors.len(), count)?;
        let vectors = vectors
            .into_iter()
            .map(|vector| self.normalised(vector))
            .collect::<Result<_, _>>()?;
        Ok(Answer { vectors, tokens })
    }

    fn max_answer_bytes(&self, count: usize) -> usize {
        count
            .saturating_mul(self.dimensions)
            .saturating_mul(BYTES_PER_NUMBER)
            .saturating_add(BYTES_AROUND)
    }

    fn cosine(&self, a: &Vec<f32>, b: &Vec<f32>) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }
}

impl Dense {
    fn normalised(&self, mut vector: Vec<f32>) -> Result<Vec<f32>, AnswerFault> {
        if vector.len() != self.dimensions {
            return Err(AnswerFault::Wrong(RemoteError::Dimensions {
                expected: self.dimensions,
                found: vector.len(),
            }));
        }
        let square: f64 = vector.iter().map(|value| f64::from(*value).powi(2)).sum();
        let length = square.sqrt();
        if !length.is_finite() || length < f64::from(f32::MIN_POSITIVE) {
            return Err(AnswerFault::NotFinite);
        }
        for value in &mut vector {
            *value = (f64::from(*value) / length) as f32;
        }
        Ok(vector)
    }
}

impl Wire for Sparse {
    type Vector = SparseVector;

    fn url(&self, base: &Url) -> Url {
        below(base, "embed_sparse")
    }

    fn before(&self, _instruction: &str) -> String {
        String::new()
    }

    fn body(&self, texts: &[&str], _instruction: &str) -> Vec<u8> {
        // The Python client sends the flag as a text.
        json!({"texts": texts, "task": "", "target": "", "fetch_tokens": "false"})
            .to_string()
            .into_bytes()
    }

    fn parse(&self, body: &[u8], count: usize) -> Result<Answer<SparseVector>, AnswerFault> {
        let answer: SparseAnswer = read(body)?;
        check_count(answer.embeddings.len(), count)?;
        let vectors = answer
            .embeddings
            .into_iter()
            .map(ascending)
            .collect::<Result<_, _>>()?;
        Ok(Answer {
            vectors,
            tokens: answer.num_tokens,
        })
    }

    fn max_answer_bytes(&self, count: usize) -> usize {
        count
            .saturating_mul(MAX_SPARSE_ENTRIES)
            .saturating_mul(2 * BYTES_PER_NUMBER)
            .saturating_add(BYTES_AROUND)
    }

    fn cosine(&self, a: &SparseVector, b: &SparseVector) -> f64 {
        let dot = |a: &SparseVector, b: &SparseVector| -> f64 {
            let value = |index: &u32| {
                let at = b.indices.binary_search(index).ok()?;
                b.values.get(at).copied()
            };
            let products = a.indices.iter().zip(&a.values);
            products
                .filter_map(|(index, left)| Some(f64::from(*left) * f64::from(value(index)?)))
                .sum()
        };
        let lengths = (dot(a, a) * dot(b, b)).sqrt();
        if lengths == 0.0 { 0.0 } else { dot(a, b) / lengths }
    }
}

/// `base` with one more segment.
fn below(base: &Url, segment: &str) -> Url {
    let mut url = base.clone();
    let path = format!("{}/{segment}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

fn invalid(problem: String) -> AnswerFault {
    AnswerFault::Wrong(RemoteError::InvalidResponse { problem })
}

fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, AnswerFault> {
    serde_json::from_slice(body).map_err(|error| {
        // Python's servers write what is not finite as words that JSON does not have.
        let says = |word: &[u8]| memchr::memmem::find(body, word).is_some();
        if error.is_eof() {
            AnswerFault::BrokenOff
        } else if error.is_syntax() && (says(b"NaN") || says(b"Infinity")) {
            AnswerFault::NotFinite
        } else {
            invalid(format!(
                "it is not of the expected form at line {}, column {}",
                error.line(),
                error.column()
            ))
        }
    })
}

fn check_count(found: usize, expected: usize) -> Result<(), AnswerFault> {
    if found == expected {
        return Ok(());
    }
    Err(invalid(format!("it has {found} vectors for {expected} texts")))
}

/// The vectors by their `index`, or as they come where they have none.
fn in_order(data: Vec<OpenaiVector>, count: usize) -> Result<Vec<Vec<f32>>, AnswerFault> {
    check_count(data.len(), count)?;
    if data.iter().all(|item| item.index.is_none()) {
        return Ok(data.into_iter().map(|item| item.embedding.0).collect());
    }
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; count];
    for item in data {
        let slot = item.index.and_then(|index| vectors.get_mut(index));
        match slot {
            Some(slot @ None) => *slot = Some(item.embedding.0),
            Some(Some(_)) | None => {
                return Err(invalid("its indices are not those of the texts".to_owned()));
            }
        }
    }
    Ok(vectors.into_iter().flatten().collect())
}

/// An entry with ascending indices; some servers give them in the order of weight.
fn ascending(entry: SparseEntry) -> Result<SparseVector, AnswerFault> {
    if entry.indices.len() != entry.values.len() {
        return Err(invalid("a vector has not as many values as indices".to_owned()));
    }
    let mut pairs: Vec<(u32, f32)> = entry
        .indices
        .into_iter()
        .zip(entry.values)
        .map(|(index, value)| (index, value.map_or(f32::NAN, |value| value as f32)))
        .collect();
    if pairs.iter().any(|(_, value)| !value.is_finite()) {
        return Err(AnswerFault::NotFinite);
    }
    pairs.sort_unstable_by_key(|(index, _)| *index);
    if pairs.windows(2).any(|two| two[0].0 == two[1].0) {
        return Err(invalid("a vector has an index twice".to_owned()));
    }
    let (indices, values) = pairs.into_iter().unzip();
    Ok(SparseVector { indices, values })
}

#[cfg(test)]
mod tests;
