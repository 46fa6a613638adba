//! `EmbeddingService`.

use tonic::{Request, Response, Status};

use super::{authenticate, status::from_error};
use crate::{
    app::{
        App,
        embedding::{EmbeddedText, EmbeddingSettings, Purpose},
    },
    domain::{embedding::SparseVector, texts::Texts},
    error::{FieldViolation, Result},
    proto::{self, embed_request::Settings, embedding_service_server::EmbeddingService},
};

/// Serves `EmbeddingService`.
#[derive(Debug)]
pub(super) struct Embeddings {
    app: App,
}

impl Embeddings {
    pub(super) fn new(app: App) -> Self {
        Self { app }
    }
}

fn purpose(purpose: i32) -> Result<Purpose> {
    match proto::EmbeddingPurpose::try_from(purpose) {
        Ok(proto::EmbeddingPurpose::Document) => Ok(Purpose::Document),
        Ok(proto::EmbeddingPurpose::Query) => Ok(Purpose::Query),
        Ok(proto::EmbeddingPurpose::Unspecified) | Err(_) => {
            let problem = "must be EMBEDDING_PURPOSE_DOCUMENT or EMBEDDING_PURPOSE_QUERY";
            Err(FieldViolation::new("purpose", problem).into())
        }
    }
}

fn settings(settings: Option<Settings>) -> Result<EmbeddingSettings> {
    Ok(match settings {
        None => EmbeddingSettings::Model(None),
        Some(Settings::Model(name)) => EmbeddingSettings::Model(Some(name)),
        Some(Settings::SourceId(id)) => EmbeddingSettings::Source(id.parse()?),
    })
}

fn embedding(text: EmbeddedText) -> proto::TextEmbedding {
    let EmbeddedText {
        vector,
        tokens,
        truncated,
    } = text;
    proto::TextEmbedding {
        vector,
        tokens: i32::try_from(tokens).unwrap_or(i32::MAX),
        truncated,
    }
}

fn sparse_embedding(SparseVector { indices, values }: SparseVector) -> proto::SparseTextEmbedding {
    proto::SparseTextEmbedding { indices, values }
}

#[tonic::async_trait]
impl EmbeddingService for Embeddings {
    async fn embed(
        &self,
        request: Request<proto::EmbedRequest>,
    ) -> std::result::Result<Response<proto::EmbedResponse>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let request = request.into_inner();
        let embeddings = async {
            let settings = settings(request.settings)?;
            let purpose = purpose(request.purpose)?;
            let texts = Texts::parse("texts", request.texts, self.app.max_texts())?;
            self.app.embed(&auth, settings, purpose, texts).await
        };
        let embeddings = embeddings.await.map_err(from_error)?;
        Ok(Response::new(proto::EmbedResponse {
            embeddings: embeddings.texts.into_iter().map(embedding).collect(),
            model: embeddings.model.name,
            instruction: embeddings.instruction,
        }))
    }

    async fn embed_sparse(
        &self,
        request: Request<proto::EmbedSparseRequest>,
    ) -> std::result::Result<Response<proto::EmbedSparseResponse>, Status> {
        authenticate(&self.app, &request).await?;
        let proto::EmbedSparseRequest {
            texts,
            purpose: wanted,
            model,
        } = request.into_inner();
        let vectors = async {
            let wanted = purpose(wanted)?;
            let texts = Texts::parse("texts", texts, self.app.max_texts())?;
            self.app.embed_sparse("model", &model, wanted, texts).await
        };
        let vectors = vectors.await.map_err(from_error)?;
        Ok(Response::new(proto::EmbedSparseResponse {
            embeddings: vectors.into_iter().map(sparse_embedding).collect(),
        }))
    }

    async fn list_models(
        &self,
        request: Request<proto::ListModelsRequest>,
    ) -> std::result::Result<Response<proto::ListModelsResponse>, Status> {
        authenticate(&self.app, &request).await?;
        let proto::ListModelsRequest {} = request.into_inner();
        let default = self.app.catalog().default_model();
        let small = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let dense = self.app.catalog().models().iter();
        let dense = dense.map(|model| proto::EmbeddingModel {
            name: model.name.clone(),
            dimensions: small(model.dimensions),
            max_tokens: small(model.max_tokens),
            takes_instructions: model.takes_instructions,
            default: model.name == default,
            sparse: false,
        });
        let sparse = self.app.catalog().sparse_models().iter();
        let sparse = sparse.map(|name| proto::EmbeddingModel {
            name: name.clone(),
            sparse: true,
            ..Default::default()
        });
        Ok(Response::new(proto::ListModelsResponse {
            models: dense.chain(sparse).collect(),
        }))
    }
}
