//! Which model turns a source's chunks into vectors.

use crate::error::{Error, FieldViolation, Reason};

/// Chroma's own default model: 384 dimensions, 256 tokens, fast on a CPU.
pub const MINILM: &str = "sentence-transformers/all-MiniLM-L6-v2";
/// The model that Chroma Sync documents as its default.
pub const QWEN3: &str = "Qwen/Qwen3-Embedding-0.6B";

/// How the caller wrote `embedding_model`, since the documented API echoes it in the same form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelForm {
    /// A plain string, as in the older documentation.
    String,
    /// `{"model": ...}`, null or absent.
    #[default]
    Object,
}

/// Embedding settings of a source, checked against what the server serves.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Embedding {
    /// Dense model, as `owner/name`.
    pub model: String,
    /// How `embedding_model` is echoed over REST. Not part of the source's identity.
    #[serde(default)]
    pub model_form: ModelForm,
}

/// What a server knows of a model it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelDescription {
    /// Name as `owner/name`.
    pub name: String,
    /// Length of a vector.
    pub dimensions: u32,
    /// The most tokens of a text that the model reads; the rest is cut off.
    pub max_tokens: u32,
    /// Whether the model was trained to be told what its vectors are for: see [`Task`].
    pub takes_instructions: bool,
}

/// What a model that takes instructions is told: one prompt for what is to be found, one for what finds it.
///
/// An empty prompt means that texts are embedded as they are.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Task {
    /// Name of the task, as the collection's embedding function has it.
    pub name: String,
    /// Instruction for documents.
    pub document_prompt: String,
    /// Instruction for queries.
    pub query_prompt: String,
}

impl Default for Task {
    /// The task of Chroma Sync's own pipeline (Chroma's `rust/foundation-api/src/routes/init_schema.rs`).
    fn default() -> Self {
        Self {
            name: "generic_retrieval".to_owned(),
            document_prompt: String::new(),
            query_prompt: "Retrieve semantically similar text".to_owned(),
        }
    }
}

/// A sparse embedding: the weights of a few indices; all others weigh nothing.
///
/// Chroma takes indices of 32 bits, ascending and each once, and as many finite values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SparseVector {
    /// Ascending, each once.
    pub indices: Vec<u32>,
    /// The weight of each index; as many as there are indices.
    pub values: Vec<f32>,
}

/// The models a server serves.
#[derive(Debug, Clone, Default)]
pub struct ModelCatalog {
    models: Vec<ModelDescription>,
    default_model: String,
}

impl ModelCatalog {
    /// A catalog of `models`; `default_model` is what a source gets that names none.
    pub fn new(models: Vec<ModelDescription>, default_model: String) -> Self {
        Self {
            models,
            default_model,
        }
    }

    /// The description of `name`, or of the default model.
    ///
    /// # Errors
    /// UNKNOWN_MODEL; its violation of `field` lists the models that are served.
    pub fn resolve(&self, field: &str, name: Option<&str>) -> Result<&ModelDescription, Error> {
        let wanted = name.unwrap_or(&self.default_model);
        self.models
            .iter()
            .find(|model| model.name == wanted)
            .ok_or_else(|| {
                let served: Vec<&str> = self.models.iter().map(|model| model.name.as_str()).collect();
                let problem = format!(
                    "model {wanted:?} is not served here; this server serves: {}",
                    served.join(", ")
                );
                Error::new(Reason::UnknownModel, format!("{field}: {problem}"))
                    .with_violations(vec![FieldViolation::new(field, problem)])
            })
    }

    /// The name of the model of sources that name none.
    pub fn default_model(&self) -> &str {
        &self.default_model
    }

    /// The models served.
    pub fn models(&self) -> &[ModelDescription] {
        &self.models
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_model_is_refused_with_the_list_of_those_served() {
        let model = ModelDescription {
            name: MINILM.to_owned(),
            dimensions: 384,
            max_tokens: 256,
            takes_instructions: false,
        };
        let catalog = ModelCatalog::new(vec![model], MINILM.to_owned());
        assert_eq!(catalog.resolve("embedding_model", None).unwrap().dimensions, 384);
        let error = catalog.resolve("embedding_model", Some("a/b")).unwrap_err();
        assert_eq!(error.reason(), Reason::UnknownModel);
        assert_eq!(error.violations()[0].field, "embedding_model");
        assert!(error.message().contains(MINILM), "{error}");
    }
}
