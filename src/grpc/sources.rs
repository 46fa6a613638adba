//! `SourceService`.

use tonic::{Request, Response, Status};

use super::{authenticate, requests, status::from_error};
use crate::{
    app::App,
    domain::{ids::SourceId, page::encode_token},
    error::FieldViolation,
    proto::{self, source_service_server::SourceService},
};

/// Serves `SourceService`.
#[derive(Debug)]
pub(super) struct Sources {
    app: App,
}

impl Sources {
    pub(super) fn new(app: App) -> Self {
        Self { app }
    }
}

fn source_id(text: &str) -> Result<SourceId, Status> {
    text.parse()
        .map_err(|violation: FieldViolation| from_error(violation.into()))
}

#[tonic::async_trait]
impl SourceService for Sources {
    async fn create_source(
        &self,
        request: Request<proto::CreateSourceRequest>,
    ) -> Result<Response<proto::Source>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let (source, request_id) =
            requests::new_source(request.into_inner(), self.app.catalog()).map_err(from_error)?;
        let source = self
            .app
            .create_source(&auth, source, request_id)
            .await
            .map_err(from_error)?;
        Ok(Response::new(source.into()))
    }

    async fn get_source(
        &self,
        request: Request<proto::GetSourceRequest>,
    ) -> Result<Response<proto::Source>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let proto::GetSourceRequest { source_id: id } = request.into_inner();
        let source = self
            .app
            .get_source(&auth, source_id(&id)?)
            .await
            .map_err(from_error)?;
        Ok(Response::new(source.into()))
    }

    async fn list_sources(
        &self,
        request: Request<proto::ListSourcesRequest>,
    ) -> Result<Response<proto::ListSourcesResponse>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let (filter, page, listing) = requests::source_listing(request.into_inner()).map_err(from_error)?;
        let page = self
            .app
            .list_sources(&auth, &filter, &page)
            .await
            .map_err(from_error)?;
        Ok(Response::new(proto::ListSourcesResponse {
            sources: page.items.into_iter().map(Into::into).collect(),
            next_page_token: page.next.map(|id| encode_token(&listing, id)).unwrap_or_default(),
        }))
    }

    async fn delete_source(
        &self,
        request: Request<proto::DeleteSourceRequest>,
    ) -> Result<Response<()>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let proto::DeleteSourceRequest { source_id: id } = request.into_inner();
        self.app
            .delete_source(&auth, source_id(&id)?)
            .await
            .map_err(from_error)?;
        Ok(Response::new(()))
    }
}
