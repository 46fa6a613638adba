//! The OpenAPI document of the REST surface: written by hand, compiled in.
//!
//! `openapi/openapi.json` is the contract; tests compare it with what is served. Only the names of the
//! models are filled in, since the operator decides which ones a server has.

use serde_json::json;

const DOCUMENT: &str = include_str!("../openapi/openapi.json");
/// The one place in the document that names the models.
const MODELS: &str = r#""enum": ["sentence-transformers/all-MiniLM-L6-v2"]"#;

/// The document of a server that serves these models, as JSON text.
pub fn document<'a>(models: impl IntoIterator<Item = &'a str>) -> String {
    let mut models: Vec<&str> = models.into_iter().collect();
    models.sort_unstable();
    models.dedup();
    DOCUMENT.replace(MODELS, &format!(r#""enum": {}"#, json!(models)))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::domain::embedding::MINILM;

    fn parsed(models: &[&str]) -> Value {
        serde_json::from_str(&document(models.iter().copied())).unwrap()
    }

    #[test]
    fn its_version_is_that_of_the_crate() {
        assert_eq!(parsed(&[MINILM])["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn it_names_the_models_of_the_server_and_nothing_else_depends_on_them() {
        assert_eq!(DOCUMENT.matches(MODELS).count(), 1);
        let mut found = parsed(&["b/\"quoted\"", "a/b", "a/b"]);
        let names = &mut found["components"]["schemas"]["EmbeddingModelName"]["enum"];
        assert_eq!(names.take(), json!(["a/b", "b/\"quoted\""]));
        *names = json!([MINILM]);
        assert_eq!(found, serde_json::from_str::<Value>(DOCUMENT).unwrap());
    }
}
