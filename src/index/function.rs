//! The embedding functions that are stored with a collection, so that a client can query it by text.
//!
//! Only names that the stock clients know may be stored: `get_collection` of the Python client raises on any
//! other. The JSON is written here and never by a client's schema builder: the published JSON schema of
//! `chroma-cloud-qwen` forbids every task but `nl_to_code`, and the Python client silently stores nothing for
//! another.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::types::Metadata;
use crate::domain::embedding::{BM25, MINILM, QWEN3, SPLADE, SparseSettings, Task};

/// The variable in which a stock client looks for the key that it sends to the embedding service.
const API_KEY_VARIABLE: &str = "CHROMA_API_KEY";

/// An embedding function by its name.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct EmbeddingFunction {
    /// Name in Chroma's registry of embedding functions.
    pub name: String,
    /// Its arguments.
    #[serde(default)]
    pub config: Metadata,
}

impl EmbeddingFunction {
    fn new(name: &str, config: Value) -> Self {
        Self {
            name: name.to_owned(),
            config: match config {
                Value::Object(config) => config,
                _ => Metadata::new(),
            },
        }
    }

    /// The stock embedding function whose vectors are those of `model` told `task`. None when stock clients have
    /// none: such a collection is queried with vectors, or through this service.
    pub fn for_model(model: &str, task: Option<&Task>) -> Option<Self> {
        match model {
            MINILM => Some(Self::new("default", Value::Null)),
            // A null task makes the Python client fail, and the default task is one of the hosted service, so
            // both are spelt out.
            QWEN3 => {
                let Task {
                    name,
                    document_prompt,
                    query_prompt,
                } = task.cloned().unwrap_or_default();
                let prompts = json!({"documents": document_prompt, "query": query_prompt});
                let config = json!({
                    "api_key_env_var": API_KEY_VARIABLE,
                    "model": QWEN3,
                    "task": &name,
                    "instructions": {&name: prompts},
                });
                Some(Self::new("chroma-cloud-qwen", config))
            }
            _ => None,
        }
    }

    /// Whether vectors of `other` may stand in a collection that stores `self`: the model is the same, and so is
    /// what it was told with documents. What it is told with queries is for each query to say.
    pub fn is_compatible_with(&self, other: &Self) -> bool {
        self.vectors_of() == other.vectors_of()
    }

    /// Whose vectors these are: the model, and what it is told with documents.
    fn vectors_of(&self) -> (&str, &str) {
        let argument = |key: &str| self.config.get(key).and_then(Value::as_str);
        // Clients have three names for the same MiniLM; the third takes any model.
        match self.name.as_str() {
            "default" | "onnx_mini_lm_l6_v2" => (MINILM, ""),
            "sentence_transformer" => match argument("model_name").unwrap_or("all-MiniLM-L6-v2") {
                "all-MiniLM-L6-v2" => (MINILM, ""),
                model => (model, ""),
            },
            "chroma-cloud-qwen" => {
                let prompt = self.document_prompt().unwrap_or_default();
                (argument("model").unwrap_or(QWEN3), prompt)
            }
            name => (name, ""),
        }
    }

    /// Its name, and what else tells it from others of that name.
    pub(super) fn describe(&self) -> String {
        let argument = |key: &str| self.config.get(key).and_then(Value::as_str);
        let mut words = format!("{:?}", self.name);
        if let Some(model) = argument("model").or_else(|| argument("model_name")) {
            words.push_str(&format!(" of model {model:?}"));
        }
        if let Some(prompt) = self.document_prompt() {
            words.push_str(&format!(" with the document prompt {prompt:?}"));
        }
        words
    }

    /// What the function of a model that takes instructions tells it with documents.
    fn document_prompt(&self) -> Option<&str> {
        let task = self.config.get("task")?.as_str()?;
        self.config
            .get("instructions")?
            .get(task)?
            .get("documents")?
            .as_str()
    }
}

/// A sparse index of a collection.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseIndex {
    /// Metadata key of the vectors.
    pub key: String,
    /// What makes the vectors from documents and queries.
    pub embedding_function: EmbeddingFunction,
    /// Whether the server weighs the words of a query by how rare they are, which BM25 leaves to it.
    pub inverse_document_frequency: bool,
}

impl SparseIndex {
    /// The index for the vectors of these settings; none for a model that stock clients do not have.
    pub fn for_settings(settings: &SparseSettings) -> Option<Self> {
        let SparseSettings { model, key } = settings;
        let (embedding_function, inverse_document_frequency) = match model.as_str() {
            BM25 => {
                let config = json!({
                    "k": 1.2, "b": 0.75, "avg_doc_length": 256.0, "token_max_length": 40, "include_tokens": false,
                });
                (EmbeddingFunction::new("chroma_bm25", config), true)
            }
            SPLADE => {
                let config =
                    json!({"api_key_env_var": API_KEY_VARIABLE, "model": SPLADE, "include_tokens": false});
                (EmbeddingFunction::new("chroma-cloud-splade", config), false)
            }
            _ => return None,
        };
        Some(Self {
            key: key.clone(),
            embedding_function,
            inverse_document_frequency,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn minilm_is_stored_under_the_name_that_needs_no_key_and_no_package() {
        let function = EmbeddingFunction::for_model(MINILM, None).unwrap();
        assert_eq!(function.name, "default");
        assert!(function.config.is_empty());
    }

    #[test]
    fn qwen3_is_stored_with_a_task_since_clients_fail_without_one() {
        let expected = json!({
            "api_key_env_var": "CHROMA_API_KEY",
            "model": "Qwen/Qwen3-Embedding-0.6B",
            "task": "generic_retrieval",
            "instructions": {
                "generic_retrieval": {"documents": "", "query": "Retrieve semantically similar text"},
            },
        });
        for task in [None, Some(Task::default())] {
            let function = EmbeddingFunction::for_model(QWEN3, task.as_ref()).unwrap();
            assert_eq!(function.name, "chroma-cloud-qwen");
            assert_eq!(Value::Object(function.config), expected);
        }
        let mine = Task {
            name: "mine".to_owned(),
            document_prompt: "d".to_owned(),
            query_prompt: "q".to_owned(),
        };
        let function = EmbeddingFunction::for_model(QWEN3, Some(&mine)).unwrap();
        assert_eq!(function.config["task"], "mine");
        assert_eq!(
            function.config["instructions"],
            json!({"mine": {"documents": "d", "query": "q"}})
        );
    }

    #[test]
    fn a_model_that_no_client_knows_has_no_embedding_function() {
        assert_eq!(EmbeddingFunction::for_model("a/b", None), None);
    }

    #[test]
    fn the_three_names_of_minilm_are_compatible_and_another_model_is_not() {
        let minilm = EmbeddingFunction::for_model(MINILM, None).unwrap();
        let named = |name: &str, model: Option<&str>| EmbeddingFunction {
            name: name.to_owned(),
            config: model
                .map(|model| ("model_name".to_owned(), model.into()))
                .into_iter()
                .collect(),
        };
        assert!(named("onnx_mini_lm_l6_v2", None).is_compatible_with(&minilm));
        assert!(named("sentence_transformer", Some(MINILM)).is_compatible_with(&minilm));
        assert!(!named("sentence_transformer", Some("all-mpnet-base-v2")).is_compatible_with(&minilm));
        assert!(!named("openai", None).is_compatible_with(&minilm));
        let qwen3 = EmbeddingFunction::for_model(QWEN3, None).unwrap();
        assert!(!qwen3.is_compatible_with(&minilm));
    }

    #[test]
    fn tasks_are_compatible_when_they_tell_the_model_the_same_with_documents() {
        let told = |name: &str, documents: &str, query: &str| {
            let task = Task {
                name: name.to_owned(),
                document_prompt: documents.to_owned(),
                query_prompt: query.to_owned(),
            };
            EmbeddingFunction::for_model(QWEN3, Some(&task)).unwrap()
        };
        let plain = told("a", "", "q");
        assert!(plain.is_compatible_with(&told("b", "", "other")));
        assert!(!plain.is_compatible_with(&told("a", "d", "q")));
        assert_eq!(
            told("a", "d", "q").describe(),
            "\"chroma-cloud-qwen\" of model \"Qwen/Qwen3-Embedding-0.6B\" with the document prompt \"d\""
        );
        // What a stock client stores that was told no task.
        let untold = EmbeddingFunction::new("chroma-cloud-qwen", json!({"model": QWEN3, "task": null}));
        assert!(plain.is_compatible_with(&untold));
    }
}
