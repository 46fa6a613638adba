//! Which model a collection was built with, as its embedding function says.

use serde_json::Value;

use super::EmbeddingFunction;
use crate::domain::embedding::{BM25, MINILM, QWEN3, SPLADE, Task};

/// The owner of the models of the `sentence-transformers` package, which its users leave out.
const SENTENCE_TRANSFORMERS: &str = "sentence-transformers";

/// A model with what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersistedModel {
    /// Name as `owner/name`.
    pub name: String,
    /// The prompts; none where the embedding function has none.
    pub task: Option<Task>,
}

impl EmbeddingFunction {
    /// The model whose vectors a client with this embedding function computes; none for a function that we
    /// do not know, or one that does not name its model.
    pub fn persisted_model(&self) -> Option<PersistedModel> {
        let text = |key: &str| self.config.get(key).and_then(Value::as_str).map(str::to_owned);
        let name = match self.name.as_str() {
            "default" | "onnx_mini_lm_l6_v2" => MINILM.to_owned(),
            "sentence_transformer" => match text("model_name") {
                None => MINILM.to_owned(),
                Some(name) if name.contains('/') => name,
                Some(name) => format!("{SENTENCE_TRANSFORMERS}/{name}"),
            },
            "chroma-cloud-qwen" => text("model").unwrap_or_else(|| QWEN3.to_owned()),
            // Most others have the one key or the other.
            _ => text("model_name").or_else(|| text("model"))?,
        };
        Some(PersistedModel {
            name,
            task: self.task(),
        })
    }

    /// The sparse model whose vectors a client with this function computes; none for one that we do not know.
    pub fn persisted_sparse_model(&self) -> Option<&str> {
        match self.name.as_str() {
            "chroma_bm25" => Some(BM25),
            "chroma-cloud-splade" => Some(self.config.get("model").and_then(Value::as_str).unwrap_or(SPLADE)),
            _ => None,
        }
    }

    /// The task of Chroma's Qwen function: `task` names one of `instructions`.
    fn task(&self) -> Option<Task> {
        let name = self.config.get("task")?.as_str()?;
        let prompts = self.config.get("instructions")?.get(name)?;
        let prompt = |target: &str| {
            let text = prompts.get(target).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        Some(Task {
            name: name.to_owned(),
            document_prompt: prompt("documents"),
            query_prompt: prompt("query"),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::{domain::embedding::SparseSettings, index::SparseIndex};

    fn model(name: &str, config: Value) -> Option<PersistedModel> {
        let function = json!({"name": name, "config": config});
        serde_json::from_value::<EmbeddingFunction>(function)
            .unwrap()
            .persisted_model()
    }

    #[test]
    fn what_we_persist_is_read_back() {
        for name in [MINILM, QWEN3] {
            let function = EmbeddingFunction::for_model(name, None).unwrap();
            assert_eq!(function.persisted_model().unwrap().name, name);
        }
        let task = Task {
            name: "mine".to_owned(),
            document_prompt: "d".to_owned(),
            query_prompt: "q".to_owned(),
        };
        for task in [Task::default(), task] {
            let qwen = EmbeddingFunction::for_model(QWEN3, Some(&task)).unwrap();
            assert_eq!(qwen.persisted_model().unwrap().task, Some(task));
        }
    }

    #[test]
    fn the_names_that_clients_have_for_minilm_are_all_minilm() {
        for (name, config) in [
            ("default", json!({})),
            ("onnx_mini_lm_l6_v2", json!({"preferred_providers": null})),
            ("sentence_transformer", json!({})),
            ("sentence_transformer", json!({"model_name": "all-MiniLM-L6-v2"})),
            ("sentence_transformer", json!({"model_name": MINILM})),
        ] {
            assert_eq!(
                model(name, config.clone()).unwrap().name,
                MINILM,
                "{name} {config}"
            );
        }
    }

    #[test]
    fn the_sparse_models_that_we_persist_are_read_back() {
        for model in [BM25, SPLADE] {
            let settings = SparseSettings {
                model: model.to_owned(),
                key: "sparse".to_owned(),
            };
            let function = SparseIndex::for_settings(&settings).unwrap().embedding_function;
            assert_eq!(function.persisted_sparse_model(), Some(model));
        }
        let dense = EmbeddingFunction::for_model(MINILM, None).unwrap();
        assert_eq!(dense.persisted_sparse_model(), None);
    }

    #[test]
    fn a_task_is_the_one_that_is_named() {
        let config = json!({
            "model": "a/b", "task": "code",
            "instructions": {"code": {"query": "Find code"}, "other": {"query": "No"}},
        });
        let found = model("chroma-cloud-qwen", config).unwrap();
        let task = found.task.unwrap();
        assert_eq!(
            (
                found.name.as_str(),
                task.query_prompt.as_str(),
                task.document_prompt.as_str()
            ),
            ("a/b", "Find code", "")
        );
        let config = json!({"task": "missing", "instructions": {}});
        assert_eq!(model("chroma-cloud-qwen", config).unwrap().task, None);
    }

    #[test]
    fn a_function_that_names_its_model_is_taken_at_its_word_and_another_is_not_known() {
        let found = model("openai", json!({"model_name": "text-embedding-3-small"})).unwrap();
        assert_eq!(found.name, "text-embedding-3-small");
        assert_eq!(model("my-own", json!({})), None);
    }
}
