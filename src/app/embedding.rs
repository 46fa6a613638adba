//! Use cases of embedding: the texts of callers, with the models that collections are built with.
//!
//! An embedder makes callers wait while it is busy, without end. Here each purpose has a bounded number of
//! calls that wait or are computed; one more is told to come back. A call that is dropped, because its caller
//! is gone or its time is over, computes no further.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{App, Auth};
pub use crate::embed::{EmbeddedText, Purpose};
use crate::{
    domain::{
        dimensions,
        embedding::{ModelDescription, SparseVector, Task, unknown_model},
        ids::SourceId,
        texts::Texts,
    },
    embed::{EmbedError, Embedder, RefusedText},
    error::{Error, FieldViolation, Reason, Result},
};

/// The most texts of a call that looks like somebody's questions: see [`guess_purpose`].
const MAX_QUESTIONS: usize = 16;
/// The most bytes of such a call.
const MAX_QUESTION_BYTES: usize = 16 << 10;
/// The longest instruction, in bytes; those in use have a sentence or two.
const MAX_INSTRUCTION_BYTES: usize = 4_096;
/// What a caller is told to wait when too many calls are under way.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// How much callers may have embedded at once.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingLimits {
    /// The most texts of one call.
    pub max_texts: usize,
    /// The most calls of one purpose that wait or are computed.
    pub max_calls: usize,
}

/// Lets calls in, so that no more than allowed wait.
#[derive(Debug, Clone)]
pub(super) struct EmbeddingAdmission {
    queries: Arc<Semaphore>,
    documents: Arc<Semaphore>,
}

impl EmbeddingAdmission {
    pub(super) fn new(limits: EmbeddingLimits) -> Self {
        let permits = || Arc::new(Semaphore::new(limits.max_calls.min(Semaphore::MAX_PERMITS)));
        Self {
            queries: permits(),
            documents: permits(),
        }
    }

    fn admit(&self, purpose: Purpose) -> Result<SemaphorePermit<'_>> {
        let permits = match purpose {
            Purpose::Query => &self.queries,
            Purpose::Document => &self.documents,
        };
        permits.try_acquire().map_err(|_| {
            let message = "too many texts wait to be embedded; try again";
            Error::new(Reason::TooManyRequests, message).with_retry_after(RETRY_DELAY)
        })
    }
}

/// Whose model and task a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbeddingSettings {
    /// The model with this name, or the server's default model; with its default task.
    Model(Option<String>),
    /// Those of a source.
    Source(SourceId),
}

/// Embeddings with what made them.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// The model.
    pub model: ModelDescription,
    /// What the model was told; empty when the texts were embedded as they are.
    pub instruction: String,
    /// One for each text, in order.
    pub texts: Vec<EmbeddedText>,
}

impl Embeddings {
    /// Tokens that the model read.
    pub fn tokens(&self) -> u64 {
        self.texts.iter().map(|text| u64::from(text.tokens)).sum()
    }

    /// Texts whose ends went unread.
    pub fn truncated(&self) -> usize {
        self.texts.iter().filter(|text| text.truncated).count()
    }

    /// Cuts the vectors short, where the model allows that.
    ///
    /// # Errors
    /// The violation names `field` and says what the model has.
    pub fn shorten(&mut self, field: &str, asked: Option<u64>) -> std::result::Result<(), FieldViolation> {
        let dimensions = dimensions::resolve(field, &self.model, asked)?;
        for text in &mut self.texts {
            dimensions::shorten(&mut text.vector, dimensions);
        }
        self.model.dimensions = dimensions;
        Ok(())
    }
}

/// What texts are likely for, where the wire does not say it: a few short ones are questions that somebody
/// waits for, many or long ones are documents. Only the order in which calls are computed depends on it.
pub fn guess_purpose(texts: &Texts) -> Purpose {
    if texts.count() <= MAX_QUESTIONS && texts.bytes() <= MAX_QUESTION_BYTES {
        Purpose::Query
    } else {
        Purpose::Document
    }
}

/// The task that a model has where nothing says another.
pub(super) fn default_task(model: &ModelDescription) -> Option<Task> {
    model.takes_instructions.then(Task::default)
}

impl App {
    /// The most texts of one call.
    pub fn max_texts(&self) -> usize {
        self.0.embedding_limits.max_texts
    }

    /// Embeds texts with the model and the task of `settings`.
    ///
    /// # Errors
    /// UNKNOWN_MODEL; for a source SOURCE_NOT_FOUND, DATABASE_FORBIDDEN and MODEL_NOT_SERVED;
    /// TOO_MANY_REQUESTS, EMBEDDING_UNAVAILABLE.
    pub async fn embed(
        &self,
        auth: &Auth,
        settings: EmbeddingSettings,
        purpose: Purpose,
        texts: Texts,
    ) -> Result<Embeddings> {
        let (embedder, task) = match settings {
            EmbeddingSettings::Model(name) => {
                let model = self.0.catalog.resolve("model", name.as_deref())?;
                (self.served(&model.name)?, default_task(model))
            }
            EmbeddingSettings::Source(id) => {
                let source = self.get_source(auth, id).await?;
                let embedder = self.served(&source.embedding.model)?;
                let task = source.embedding.task_for(embedder.model());
                (embedder, task)
            }
        };
        let instruction = task.map_or_else(String::new, |task| match purpose {
            Purpose::Document => task.document_prompt,
            Purpose::Query => task.query_prompt,
        });
        self.compute(embedder, purpose, instruction, texts).await
    }

    /// Embeds texts with a model and an instruction that the caller names.
    ///
    /// # Errors
    /// INVALID_FIELD for an instruction that is too long; UNKNOWN_MODEL with the field `model_field`;
    /// TOO_MANY_REQUESTS, EMBEDDING_UNAVAILABLE.
    pub async fn embed_as_told(
        &self,
        model_field: &str,
        model: &str,
        instruction: String,
        texts: Texts,
    ) -> Result<Embeddings> {
        if instruction.len() > MAX_INSTRUCTION_BYTES {
            let problem = format!(
                "must have at most {MAX_INSTRUCTION_BYTES} bytes, has {}",
                instruction.len()
            );
            return Err(Error::invalid_field("instructions", problem));
        }
        let model = self.0.catalog.resolve(model_field, Some(model))?;
        let embedder = self.served(&model.name)?;
        self.compute(embedder, guess_purpose(&texts), instruction, texts)
            .await
    }

    /// Embeds texts with the sparse model `model`.
    ///
    /// # Errors
    /// UNKNOWN_MODEL with the field `model_field`; TOO_MANY_REQUESTS, EMBEDDING_UNAVAILABLE.
    pub async fn embed_sparse(
        &self,
        model_field: &str,
        model: &str,
        purpose: Purpose,
        texts: Texts,
    ) -> Result<Vec<SparseVector>> {
        let embedder = self.0.embedders.sparse(model).ok_or_else(|| {
            let served = self.0.catalog.sparse_models();
            let served: Vec<&str> = served.iter().map(String::as_str).collect();
            unknown_model(model_field, model, &served)
        })?;
        let _permit = self.embedding_admission().admit(purpose)?;
        embedder.embed(texts.into_vec(), purpose).await.map_err(failed)
    }

    /// The embedder of a model that is part of something that exists.
    ///
    /// # Errors
    /// MODEL_NOT_SERVED with the models that are.
    pub(super) fn served(&self, model: &str) -> Result<Arc<dyn Embedder>> {
        self.0.embedders.get(model).ok_or_else(|| {
            let models = self.0.catalog.models().iter();
            let served: Vec<&str> = models.map(|model| model.name.as_str()).collect();
            let message = format!(
                "this server does not serve model {model:?}; it serves: {}",
                served.join(", ")
            );
            Error::new(Reason::ModelNotServed, message)
                .with_metadata("model", model)
                .with_metadata("served_models", served.join(", "))
        })
    }

    /// # Errors
    /// TOO_MANY_REQUESTS, EMBEDDING_UNAVAILABLE.
    pub(super) async fn compute(
        &self,
        embedder: Arc<dyn Embedder>,
        purpose: Purpose,
        instruction: String,
        texts: Texts,
    ) -> Result<Embeddings> {
        let _permit = self.embedding_admission().admit(purpose)?;
        let texts = embedder
            .embed(texts.into_vec(), purpose, &instruction)
            .await
            .map_err(failed)?;
        Ok(Embeddings {
            model: embedder.model().clone(),
            instruction,
            texts,
        })
    }
}

fn failed(error: EmbedError) -> Error {
    if error.is_transient() {
        let message = "the model does not answer; try again later";
        let wait = error.retry_after().unwrap_or(RETRY_DELAY);
        return Error::new(Reason::EmbeddingUnavailable, message)
            .with_retry_after(wait)
            .with_cause(error);
    }
    if let EmbedError::TextsRefused { texts } = error {
        let refused = |text: RefusedText| {
            let problem = format!("is refused by the model: {}", text.problem);
            FieldViolation::new(format!("texts[{}]", text.index), problem)
        };
        return Error::invalid_fields(texts.into_iter().map(refused).collect());
    }
    Error::internal(error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_few_short_texts_are_questions_and_all_else_are_documents() {
        let purpose = |count: usize, bytes: usize| {
            let texts = vec!["x".repeat(bytes); count];
            guess_purpose(&Texts::parse("texts", texts, 100).unwrap())
        };
        assert_eq!(purpose(1, 10), Purpose::Query);
        assert_eq!(purpose(16, 1_024), Purpose::Query);
        assert_eq!(purpose(17, 1), Purpose::Document);
        assert_eq!(purpose(1, 16 * 1_024 + 1), Purpose::Document);
    }

    #[test]
    fn one_call_too_many_is_told_when_to_come_back_and_the_purposes_do_not_take_each_others_room() {
        let admission = EmbeddingAdmission::new(EmbeddingLimits {
            max_texts: 1,
            max_calls: 1,
        });
        let first = admission.admit(Purpose::Document).unwrap();
        let refused = admission.admit(Purpose::Document).unwrap_err();
        assert_eq!(
            (refused.reason(), refused.retry_after()),
            (Reason::TooManyRequests, Some(RETRY_DELAY))
        );
        assert!(admission.admit(Purpose::Query).is_ok());
        drop(first);
        assert!(admission.admit(Purpose::Document).is_ok());
    }
}
