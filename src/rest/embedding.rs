//! `embedding` and the older `embedding_model`: which models, in the words of a caller.

use serde_json::Value;

use super::{
    extract::Object,
    types::{DenseBody, EmbeddingBody},
};
use crate::{
    domain::embedding::{Embedding, ModelCatalog, ModelDescription, ModelForm, Task, TaskRequest},
    error::{Error, FieldViolation},
};

/// The settings that `embedding` and the older `embedding_model` name, which must not contradict each other,
/// and the description of the dense model.
///
/// # Errors
/// INVALID_FIELD and UNKNOWN_MODEL with the field.
pub(super) fn read(
    embedding_model: Option<Value>,
    embedding: Option<Object<EmbeddingBody>>,
    catalog: &ModelCatalog,
) -> Result<(Embedding, &ModelDescription), Error> {
    let (dense, sparse) = match embedding {
        Some(Object(EmbeddingBody { dense, sparse })) => (dense.map(|Object(dense)| dense), sparse),
        None => (None, None),
    };
    let (older, model_form) = older(embedding_model)?;
    let ((older, older_task), (dense, dense_task)) = (parts(older), parts(dense));
    if let (Some(older), Some(dense)) = (&older, &dense)
        && older != dense
    {
        let problem = format!("contradicts embedding.dense.model {dense:?}; give one of the two");
        return Err(FieldViolation::new("embedding_model", problem).into());
    }
    let (model_field, name) = match (&dense, &older) {
        (Some(dense), _) => ("embedding.dense.model", Some(dense.as_str())),
        (None, older) => ("embedding_model", older.as_deref()),
    };
    let (task_field, task) = match (dense_task, older_task) {
        (Some(dense), Some(older)) if dense != older => {
            let problem = "contradicts embedding.dense.task; give one of the two";
            return Err(FieldViolation::new("embedding_model.task", problem).into());
        }
        (Some(dense), _) => ("embedding.dense.task", Some(dense)),
        (None, older) => ("embedding_model.task", older),
    };
    let model = catalog.resolve(model_field, name)?;
    let settings = Embedding {
        model_form,
        task: Task::resolve(task_field, task, model)?,
        sparse: sparse
            .map(|Object(sparse)| catalog.resolve_sparse("embedding.sparse", sparse.into()))
            .transpose()?,
        ..Embedding::of_model(model)
    };
    Ok((settings, model))
}

/// Model and task, where they are given.
fn parts(body: Option<DenseBody>) -> (Option<String>, Option<TaskRequest>) {
    match body {
        Some(DenseBody { model, task }) => (Some(model), task.map(|Object(task)| task.into())),
        None => (None, None),
    }
}

/// `embedding_model`: a model's name, an object with it, or null.
fn older(embedding_model: Option<Value>) -> Result<(Option<DenseBody>, ModelForm), FieldViolation> {
    match embedding_model {
        None | Some(Value::Null) => Ok((None, ModelForm::Object)),
        Some(Value::String(model)) => Ok((Some(DenseBody { model, task: None }), ModelForm::String)),
        Some(object @ Value::Object(_)) => {
            let dense = serde_json::from_value(object)
                .map_err(|error| FieldViolation::new("embedding_model", error.to_string()))?;
            Ok((Some(dense), ModelForm::Object))
        }
        Some(_) => {
            let problem = "must be a model's name, an object with 'model', or null";
            Err(FieldViolation::new("embedding_model", problem))
        }
    }
}
