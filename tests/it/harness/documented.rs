//! The REST contract as Chroma Sync documents it, in both generations: answers are held against it.
//!
//! `tests/contract/documented.openapi.json` is the published description, unchanged; what it gets wrong is
//! mended here, in the open. `tests/contract/older.schema.json` is the older overview page.

use std::{collections::BTreeSet, fs};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::service::project_file;

/// An operation with one of its statuses: `("GET", "/api/v1/sources", 200)`.
pub type Answered = (String, String, u16);

/// Both generations.
pub struct Documented {
    published: Value,
    older: Value,
}

impl Documented {
    pub fn read() -> Self {
        let read = |name: &str| -> Value {
            let text = fs::read_to_string(project_file("tests/contract").join(name)).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        let mut published = read("documented.openapi.json");
        // Which models there are is the server's own affair.
        let model = "/components/schemas/DenseEmbeddingModel/oneOf/0/properties/model";
        let model = published.pointer_mut(model).unwrap().as_object_mut().unwrap();
        assert!(model.remove("enum").is_some());
        // The list of sources is documented with the schema of a list of invocations.
        let list = "/paths/~1api~1v1~1sources/get/responses/200/content/application~1json/schema";
        let source = json!({"type": "array", "items": {"$ref": "#/components/schemas/Source"}});
        *published.pointer_mut(list).unwrap() = source;
        // What an invocation was asked for is documented as if the name of its kind stood alone, beside a database and
        // a collection, which no value can be; and uploads are left out.
        let kinds = "/components/schemas/IndexJobMetadataKind/oneOf";
        let kinds = published.pointer_mut(kinds).unwrap().as_array_mut().unwrap();
        kinds.retain(|kind| kind["type"] != "string");
        for (kind, value) in [("web_scrape", "null"), ("file_upload", "object")] {
            kinds.push(json!({
                "type": "object", "required": [kind], "properties": {kind: {"type": value}},
            }));
        }
        Self {
            published,
            older: read("older.schema.json"),
        }
    }

    /// Every operation and status of the published description, but for server errors.
    pub fn answers(&self) -> BTreeSet<Answered> {
        let mut answers = BTreeSet::new();
        for (path, operations) in self.published["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                for status in operation["responses"].as_object().unwrap().keys() {
                    answers.insert((method.to_uppercase(), path.clone(), status.parse().unwrap()));
                }
            }
        }
        answers.retain(|(_, _, status)| *status != 500);
        answers
    }

    /// Asserts that a body is what the published description says of this answer. An error that it does not
    /// list has the body of those that it lists.
    #[track_caller]
    pub fn check(&self, (method, path, status): &Answered, body: &Value) {
        let responses = &self.published["paths"][path][method.to_lowercase()]["responses"];
        let documented = &responses[status.to_string()];
        let schema = match documented["content"]["application/json"]["schema"].clone() {
            Value::Null if *status >= 400 => json!({"$ref": "#/components/schemas/ErrorResponse"}),
            Value::Null => return,
            schema => schema,
        };
        let whole = json!({"allOf": [schema], "components": self.published["components"]});
        assert_valid(&whole, body, &format!("{method} {path} {status}"));
    }

    /// Asserts that a source or an invocation is what the published description says.
    #[track_caller]
    pub fn check_published(&self, name: &str, body: &Value) {
        let reference = format!("#/components/schemas/{name}");
        let whole = json!({"$ref": reference, "components": self.published["components"]});
        assert_valid(&whole, body, name);
    }

    /// Asserts that a source or an invocation is what the older page says.
    #[track_caller]
    pub fn check_older(&self, name: &str, body: &Value) {
        let reference = format!("#/$defs/{name}");
        let whole = json!({"$ref": reference, "$defs": self.older["$defs"]});
        assert_valid(&whole, body, name);
    }
}

#[track_caller]
fn assert_valid(schema: &Value, body: &Value, what: &str) {
    let validator: Validator = jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap();
    let problems: Vec<String> = validator
        .iter_errors(body)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(problems.is_empty(), "{what}: {problems:?} in {body}");
}
