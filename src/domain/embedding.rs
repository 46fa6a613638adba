//! Which models turn a source's chunks into vectors, and what they are told.

mod sparse;
mod task;

pub use sparse::{BM25, DEFAULT_SPARSE_KEY, SPLADE, SparseRequest, SparseSettings, SparseVector};
pub use task::{MAX_PROMPT_BYTES, MAX_TASK_NAME_BYTES, Task, TaskRequest};

use crate::error::{Error, FieldViolation, Reason};

/// Chroma's own default model: 384 dimensions, 256 tokens, fast on a CPU.
pub const MINILM: &str = "sentence-transformers/all-MiniLM-L6-v2";
/// The model that Chroma Sync documents as its default.
pub const QWEN3: &str = "Qwen/Qwen3-Embedding-0.6B";

/// Whether a model of this name is known to take instructions, for where the model itself is not at hand.
pub fn takes_instructions(name: &str) -> bool {
    name.starts_with("Qwen/Qwen3-Embedding")
}

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
    /// What the dense model is told, where it takes instructions. None for one that takes none, and for rows
    /// from before sources had tasks: see [`Embedding::task_for`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// The sparse model beside the dense one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse: Option<SparseSettings>,
}

impl Embedding {
    /// The settings that a source gets which says nothing: `model` with the default task, nothing sparse.
    pub fn of_model(model: &ModelDescription) -> Self {
        Self {
            model: model.name.clone(),
            model_form: ModelForm::default(),
            task: model.takes_instructions.then(Task::default),
            sparse: None,
        }
    }

    /// The key that the records of a source with these settings have for their sparse vectors.
    pub fn sparse_key(&self) -> Option<&str> {
        self.sparse.as_ref().map(|sparse| sparse.key.as_str())
    }

    /// What `model`, which is the one of these settings, is told; none for a model that takes no instructions.
    pub fn task_for(&self, model: &ModelDescription) -> Option<Task> {
        model
            .takes_instructions
            .then(|| self.task.clone().unwrap_or_default())
    }
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

/// The models a server serves.
#[derive(Debug, Clone, Default)]
pub struct ModelCatalog {
    models: Vec<ModelDescription>,
    default_model: String,
    sparse_models: Vec<String>,
}

impl ModelCatalog {
    /// A catalog of `models`; `default_model` is what a source gets that names none.
    pub fn new(models: Vec<ModelDescription>, default_model: String) -> Self {
        Self {
            models,
            default_model,
            sparse_models: Vec::new(),
        }
    }

    /// The same catalog with the names of the sparse models served.
    pub fn with_sparse(self, sparse_models: Vec<String>) -> Self {
        Self {
            sparse_models,
            ..self
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
                unknown_model(field, wanted, &served)
            })
    }

    /// Sparse settings with the defaults filled in; `field` is the path of the settings.
    ///
    /// # Errors
    /// INVALID_FIELD for a model that is missing or a key that is not allowed; UNKNOWN_MODEL, whose violation
    /// lists the sparse models that are served.
    pub fn resolve_sparse(&self, field: &str, request: SparseRequest) -> Result<SparseSettings, Error> {
        let settings = SparseSettings::parse(field, request)?;
        if self.serves_sparse(&settings.model) {
            return Ok(settings);
        }
        let served: Vec<&str> = self.sparse_models.iter().map(String::as_str).collect();
        Err(unknown_model(&format!("{field}.model"), &settings.model, &served))
    }

    /// Whether the sparse model `name` is served.
    pub fn serves_sparse(&self, name: &str) -> bool {
        self.sparse_models.iter().any(|model| model == name)
    }

    /// The dense models served.
    pub fn models(&self) -> &[ModelDescription] {
        &self.models
    }

    /// Names of the sparse models served.
    pub fn sparse_models(&self) -> &[String] {
        &self.sparse_models
    }
}

fn unknown_model(field: &str, wanted: &str, served: &[&str]) -> Error {
    let served = match served.is_empty() {
        true => "none of this kind".to_owned(),
        false => served.join(", "),
    };
    let problem = format!("model {wanted:?} is not served here; this server serves: {served}");
    Error::new(Reason::UnknownModel, format!("{field}: {problem}"))
        .with_violations(vec![FieldViolation::new(field, problem)])
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

    #[test]
    fn a_sparse_model_is_one_of_those_served() {
        let catalog = ModelCatalog::new(Vec::new(), MINILM.to_owned()).with_sparse(vec![BM25.to_owned()]);
        let asked = |model: &str| SparseRequest {
            model: Some(model.to_owned()),
            key: None,
        };
        let settings = catalog.resolve_sparse("embedding.sparse", asked(BM25)).unwrap();
        assert_eq!(
            (settings.model.as_str(), settings.key.as_str()),
            (BM25, "sparse_embedding")
        );
        let error = catalog
            .resolve_sparse("embedding.sparse", asked(SPLADE))
            .unwrap_err();
        assert_eq!(error.reason(), Reason::UnknownModel);
        assert_eq!(error.violations()[0].field, "embedding.sparse.model");
        assert!(error.message().contains(BM25), "{error}");
    }

    #[test]
    fn settings_of_earlier_releases_are_read_and_settings_that_say_nothing_new_are_written_as_before() {
        let stored = serde_json::json!({"model": MINILM, "model_form": "string"});
        let read: Embedding = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!((read.task.clone(), read.sparse.clone()), (None, None));
        assert_eq!(serde_json::to_value(&read).unwrap(), stored);
    }

    #[test]
    fn only_a_model_that_takes_instructions_has_a_task() {
        let mut model = ModelDescription {
            name: QWEN3.to_owned(),
            dimensions: 1_024,
            max_tokens: 32_768,
            takes_instructions: true,
        };
        let settings = Embedding::of_model(&model);
        assert_eq!(settings.task_for(&model), Some(Task::default()));
        let before = Embedding {
            task: None,
            ..settings
        };
        assert_eq!(before.task_for(&model), Some(Task::default()));
        model.takes_instructions = false;
        assert_eq!(Embedding::of_model(&model).task_for(&model), None);
    }
}
