//! `InvocationService`.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{authenticate, deadline, requests, status::from_error};
use crate::{
    app::App,
    domain::{ids::InvocationId, page::encode_token},
    error::{Error, FieldViolation},
    proto::{self, invocation_service_server::InvocationService},
    store::DocumentPage,
    token,
};

/// What a watch answers.
type Messages<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// Serves `InvocationService`.
#[derive(Debug)]
pub(super) struct Invocations {
    app: App,
}

impl Invocations {
    pub(super) fn new(app: App) -> Self {
        Self { app }
    }
}

fn invocation_id(text: &str) -> Result<InvocationId, Status> {
    text.parse()
        .map_err(|violation: FieldViolation| from_error(violation.into()))
}

#[tonic::async_trait]
impl InvocationService for Invocations {
    type WatchInvocationStream = Messages<proto::SharedWatchInvocationResponse>;
    type WatchInvocationsStream = Messages<proto::SharedWatchInvocationsResponse>;

    async fn create_invocation(
        &self,
        request: Request<proto::CreateInvocationRequest>,
    ) -> Result<Response<proto::Invocation>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let (source, new, request_id) = requests::new_invocation(request.into_inner()).map_err(from_error)?;
        let created = self
            .app
            .create_invocation(&auth, source, new, request_id)
            .await
            .map_err(from_error)?;
        Ok(Response::new(created.into()))
    }

    async fn get_invocation(
        &self,
        request: Request<proto::GetInvocationRequest>,
    ) -> Result<Response<proto::Invocation>, Status> {
        let id = match invocation_id(&request.get_ref().invocation_id) {
            Ok(id) => id,
            Err(refusal) => {
                authenticate(&self.app, &request).await?;
                return Err(refusal);
            }
        };
        let token = token::from_headers(request.metadata().as_ref());
        let found = self.app.authenticate_and_get_invocation(token, id).await;
        Ok(Response::new(found.map_err(from_error)?.into()))
    }

    async fn list_invocations(
        &self,
        request: Request<proto::ListInvocationsRequest>,
    ) -> Result<Response<proto::ListInvocationsResponse>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let (filter, page, listing) =
            requests::invocation_listing(request.into_inner()).map_err(from_error)?;
        let page = self
            .app
            .list_invocations(&auth, &filter, &page)
            .await
            .map_err(from_error)?;
        Ok(Response::new(proto::ListInvocationsResponse {
            invocations: page.items.into_iter().map(Into::into).collect(),
            next_page_token: page.next.map(|id| encode_token(&listing, id)).unwrap_or_default(),
        }))
    }

    async fn cancel_invocation(
        &self,
        request: Request<proto::CancelInvocationRequest>,
    ) -> Result<Response<proto::Invocation>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let proto::CancelInvocationRequest { invocation_id: id } = request.into_inner();
        let cancelled = self
            .app
            .cancel_invocation(&auth, invocation_id(&id)?)
            .await
            .map_err(from_error)?;
        Ok(Response::new(cancelled.into()))
    }

    async fn batch_get_latest_invocations(
        &self,
        request: Request<proto::BatchGetLatestInvocationsRequest>,
    ) -> Result<Response<proto::BatchGetLatestInvocationsResponse>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let proto::BatchGetLatestInvocationsRequest {
            source_id,
            object_keys,
        } = request.into_inner();
        let source = source_id
            .parse()
            .map_err(|violation: FieldViolation| from_error(violation.into()))?;
        let found = self
            .app
            .latest_invocations(&auth, source, &object_keys)
            .await
            .map_err(from_error)?;
        let invocations = found
            .into_iter()
            .map(|(key, invocation)| (key, invocation.into()))
            .collect();
        Ok(Response::new(proto::BatchGetLatestInvocationsResponse {
            invocations,
        }))
    }

    async fn list_documents(
        &self,
        request: Request<proto::ListDocumentsRequest>,
    ) -> Result<Response<proto::ListDocumentsResponse>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let requests::DocumentListing {
            invocation_id: id,
            outcome,
            size,
            after,
            listing,
        } = requests::document_listing(request.into_inner()).map_err(from_error)?;
        // One row more than asked for tells whether another page follows.
        let page = DocumentPage {
            after,
            limit: u64::from(size) + 1,
        };
        let mut documents = self
            .app
            .list_documents(&auth, id, outcome, page)
            .await
            .map_err(from_error)?;
        let more = documents.len() > size as usize;
        documents.truncate(size as usize);
        let last = documents.last().filter(|_| more).map(|document| document.ordinal);
        Ok(Response::new(proto::ListDocumentsResponse {
            documents: documents.into_iter().map(Into::into).collect(),
            next_page_token: last
                .map(|ordinal| encode_token(&listing, Uuid::from_u128(ordinal.into())))
                .unwrap_or_default(),
        }))
    }

    async fn watch_invocation(
        &self,
        request: Request<proto::WatchInvocationRequest>,
    ) -> Result<Response<Self::WatchInvocationStream>, Status> {
        let end = deadline::timeout(request.metadata().as_ref()).map(|timeout| Instant::now() + timeout);
        let auth = authenticate(&self.app, &request).await?;
        let (id, after) = requests::watch(request.into_inner()).map_err(from_error)?;
        let updates = self
            .app
            .watch_invocation(&auth, id, after)
            .await
            .map_err(from_error)?;
        Ok(Response::new(messages(updates, end)))
    }

    async fn watch_invocations(
        &self,
        request: Request<proto::WatchInvocationsRequest>,
    ) -> Result<Response<Self::WatchInvocationsStream>, Status> {
        let end = deadline::timeout(request.metadata().as_ref()).map(|timeout| Instant::now() + timeout);
        let auth = authenticate(&self.app, &request).await?;
        let (filter, start) = requests::watch_many(request.into_inner()).map_err(from_error)?;
        let updates = self
            .app
            .watch_invocations(&auth, filter, start)
            .await
            .map_err(from_error)?;
        Ok(Response::new(messages(updates, end)))
    }
}

/// The messages of a watch, until `end` where the caller has set one.
fn messages<T, M>(
    updates: impl Stream<Item = Result<T, Error>> + Send + 'static,
    end: Option<Instant>,
) -> Messages<M>
where
    T: Into<M> + Send + 'static,
    M: 'static,
{
    let message = |update: Result<T, Error>| update.map(Into::into).map_err(from_error);
    match end {
        Some(end) => Box::pin(deadline::until(updates, end).map(message)),
        None => Box::pin(updates.map(message)),
    }
}
