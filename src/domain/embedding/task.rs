//! What a model that takes instructions is told.

use super::ModelDescription;
use crate::error::FieldViolation;

/// The longest name of a task, in bytes.
pub const MAX_TASK_NAME_BYTES: usize = 128;
/// The longest prompt of a task, in bytes. The model reads it again with every text.
pub const MAX_PROMPT_BYTES: usize = 1_024;

/// The task of Chroma Sync's own pipeline.
const GENERIC_RETRIEVAL: (&str, &str) = ("generic_retrieval", "Retrieve semantically similar text");
/// The task that Chroma's clients have built in (`chroma_cloud_qwen_embedding_function.py`).
const NL_TO_CODE: (&str, &str) = (
    "nl_to_code",
    "Given a question about coding, retrieval code or passage that can solve user's question",
);

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
            name: GENERIC_RETRIEVAL.0.to_owned(),
            document_prompt: String::new(),
            query_prompt: GENERIC_RETRIEVAL.1.to_owned(),
        }
    }
}

/// A task in the words of a caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskRequest {
    /// See [`Task::name`]; required.
    pub task_name: Option<String>,
    /// None: empty, unless the task is one that is known.
    pub document_prompt: Option<String>,
    /// None: empty, unless the task is one that is known.
    pub query_prompt: Option<String>,
}

impl Task {
    /// What `model` is told: what was asked, or the default task. None for a model that takes no instructions.
    ///
    /// A prompt that is left out is that of the task's name, where the name is known: `generic_retrieval` and
    /// `nl_to_code`. Else it is empty.
    ///
    /// # Errors
    /// The violation names `field`, the path of the task, or a field of it.
    pub fn resolve(
        field: &str,
        request: Option<TaskRequest>,
        model: &ModelDescription,
    ) -> Result<Option<Self>, FieldViolation> {
        let Some(request) = request else {
            return Ok(model.takes_instructions.then(Self::default));
        };
        if !model.takes_instructions {
            let problem = format!("model {:?} takes no instructions; leave the task out", model.name);
            return Err(FieldViolation::new(field, problem));
        }
        let TaskRequest {
            task_name,
            document_prompt,
            query_prompt,
        } = request;
        let name_field = format!("{field}.task_name");
        let name = task_name.unwrap_or_default();
        check(&name_field, &name, MAX_TASK_NAME_BYTES)?;
        if name.is_empty() || name.chars().any(char::is_control) {
            let problem = "must be a name without control characters, such as \"generic_retrieval\"";
            return Err(FieldViolation::new(name_field, problem));
        }
        let known = [GENERIC_RETRIEVAL, NL_TO_CODE];
        let query_prompt = query_prompt.unwrap_or_else(|| {
            let known = known.iter().find(|(known, _)| *known == name);
            known.map_or_else(String::new, |(_, prompt)| (*prompt).to_owned())
        });
        let document_prompt = document_prompt.unwrap_or_default();
        check(
            &format!("{field}.document_prompt"),
            &document_prompt,
            MAX_PROMPT_BYTES,
        )?;
        check(&format!("{field}.query_prompt"), &query_prompt, MAX_PROMPT_BYTES)?;
        Ok(Some(Self {
            name,
            document_prompt,
            query_prompt,
        }))
    }
}

fn check(field: &str, text: &str, most: usize) -> Result<(), FieldViolation> {
    if text.len() > most {
        let problem = format!("must have at most {most} bytes, has {}", text.len());
        return Err(FieldViolation::new(field, problem));
    }
    // PostgreSQL stores no NUL characters.
    match text.contains('\0') {
        true => Err(FieldViolation::new(field, "must not contain NUL characters")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(takes_instructions: bool) -> ModelDescription {
        ModelDescription {
            name: "a/b".to_owned(),
            dimensions: 4,
            max_tokens: 8,
            takes_instructions,
        }
    }

    fn request(name: &str, document: Option<&str>, query: Option<&str>) -> Option<TaskRequest> {
        Some(TaskRequest {
            task_name: Some(name.to_owned()),
            document_prompt: document.map(str::to_owned),
            query_prompt: query.map(str::to_owned),
        })
    }

    #[test]
    fn prompts_that_are_left_out_are_those_of_a_task_that_is_known() {
        for (asked, document, query) in [
            (None, "", "Retrieve semantically similar text"),
            (
                request("generic_retrieval", None, None),
                "",
                "Retrieve semantically similar text",
            ),
            (
                request("nl_to_code", None, None),
                "",
                "Given a question about coding, retrieval code or passage that can solve user's question",
            ),
            (request("nl_to_code", Some("d"), Some("")), "d", ""),
            (request("mine", None, None), "", ""),
            (request("mine", None, Some("Find it")), "", "Find it"),
        ] {
            let task = Task::resolve("task", asked.clone(), &model(true))
                .unwrap()
                .unwrap();
            assert_eq!(
                (task.document_prompt.as_str(), task.query_prompt.as_str()),
                (document, query),
                "{asked:?}"
            );
        }
    }

    #[test]
    fn a_task_for_a_model_that_takes_none_is_refused() {
        assert_eq!(Task::resolve("t", None, &model(false)).unwrap(), None);
        let violation = Task::resolve("t", request("a", None, None), &model(false)).unwrap_err();
        assert_eq!(violation.field, "t");
        assert!(violation.description.contains("takes no instructions"));
    }

    #[test]
    fn names_and_prompts_are_bounded() {
        let (long_name, long_prompt) = ("n".repeat(129), "p".repeat(1_025));
        for (asked, field) in [
            (request("", None, None), "t.task_name"),
            (request("a\nb", None, None), "t.task_name"),
            (request(&long_name, None, None), "t.task_name"),
            (request("a", Some(&long_prompt), None), "t.document_prompt"),
            (request("a", None, Some("a\0b")), "t.query_prompt"),
            (Some(TaskRequest::default()), "t.task_name"),
        ] {
            let violation = Task::resolve("t", asked.clone(), &model(true)).unwrap_err();
            assert_eq!(violation.field, field, "{asked:?}");
        }
        let longest = request(&long_name[1..], Some(&long_prompt[1..]), Some("a\nb"));
        assert!(Task::resolve("t", longest, &model(true)).is_ok());
    }
}
