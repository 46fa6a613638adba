//! The OpenAPI document of the REST surface: written by hand, compiled in.
//!
//! `openapi/openapi.json` is the contract; tests compare it with what is served. Only the names of the
//! models are filled in, since the operator decides which ones a server has.

use serde_json::json;

use crate::domain::embedding::ModelCatalog;

const DOCUMENT: &str = include_str!("../openapi/openapi.json");
/// The one place in the document that names the models.
const MODELS: &str = r#""enum": ["sentence-transformers/all-MiniLM-L6-v2"]"#;
/// The one place that names those that take instructions.
const INSTRUCTED: &str = r#""enum": ["Qwen/Qwen3-Embedding-0.6B"]"#;
/// The one place that says that there are such models.
const INSTRUCTED_CONFIG: &str = r##",
          { "$ref": "#/components/schemas/InstructedEmbeddingConfig" }"##;
/// The one place that names the sparse models.
const SPARSE: &str = r#""enum": ["Chroma/BM25"]"#;

/// The document of a server that serves the models of `catalog`, as JSON text.
pub fn document(catalog: &ModelCatalog) -> String {
    let names = |instructed: bool| {
        let models = catalog.models().iter();
        let wanted = models.filter(|model| !instructed || model.takes_instructions);
        let mut names: Vec<&str> = wanted.map(|model| model.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let filled_in = |names: &[&str]| format!(r#""enum": {}"#, json!(names));
    let instructed = names(true);
    let document = DOCUMENT.replace(MODELS, &filled_in(&names(false)));
    let document = match instructed.is_empty() {
        true => document.replace(INSTRUCTED_CONFIG, ""),
        false => document.replace(INSTRUCTED, &filled_in(&instructed)),
    };
    let sparse: Vec<&str> = catalog.sparse_models().iter().map(String::as_str).collect();
    match sparse.is_empty() {
        true => document,
        false => document.replace(SPARSE, &filled_in(&sparse)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::domain::embedding::{BM25, MINILM, ModelDescription, QWEN3, SPLADE};

    fn parsed(models: &[(&str, bool)], sparse: &[&str]) -> Value {
        let models = models.iter().map(|(name, takes_instructions)| ModelDescription {
            name: (*name).to_owned(),
            dimensions: 1,
            max_tokens: 1,
            takes_instructions: *takes_instructions,
        });
        let sparse = sparse.iter().map(|name| (*name).to_owned()).collect();
        let catalog = ModelCatalog::new(models.collect(), MINILM.to_owned()).with_sparse(sparse);
        serde_json::from_str(&document(&catalog)).unwrap()
    }

    #[test]
    fn its_version_is_that_of_the_crate() {
        assert_eq!(
            parsed(&[(MINILM, false)], &[])["info"]["version"],
            env!("CARGO_PKG_VERSION")
        );
    }

    #[test]
    fn it_names_the_models_of_the_server_and_nothing_else_depends_on_them() {
        for place in [MODELS, INSTRUCTED, INSTRUCTED_CONFIG, SPARSE] {
            assert_eq!(DOCUMENT.matches(place).count(), 1, "{place}");
        }
        let models = [
            ("b/\"quoted\"", false),
            (QWEN3, true),
            ("a/b", true),
            ("a/b", true),
        ];
        let mut found = parsed(&models, &[BM25, SPLADE]);
        let schemas = &mut found["components"]["schemas"];
        for (place, names, before) in [
            (
                "/EmbeddingModelName/enum",
                json!([QWEN3, "a/b", "b/\"quoted\""]),
                json!([MINILM]),
            ),
            (
                "/InstructedEmbeddingConfig/properties/model/enum",
                json!([QWEN3, "a/b"]),
                json!([QWEN3]),
            ),
            (
                "/SparseEmbeddingModelName/enum",
                json!([BM25, SPLADE]),
                json!([BM25]),
            ),
        ] {
            let place = schemas.pointer_mut(place).unwrap();
            assert_eq!(place.take(), names);
            *place = before;
        }
        assert_eq!(found, serde_json::from_str::<Value>(DOCUMENT).unwrap());
    }

    #[test]
    fn no_task_is_allowed_where_no_model_takes_instructions() {
        let found = parsed(&[(MINILM, false)], &[BM25]);
        let dense = &found["components"]["schemas"]["DenseEmbeddingConfig"]["oneOf"];
        assert_eq!(
            dense,
            &json!([{"$ref": "#/components/schemas/UninstructedEmbeddingConfig"}])
        );
    }
}
