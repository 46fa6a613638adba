//! What most tests need: repositories, a database in Chroma, a store, and a key for each role.

use std::{collections::BTreeMap, path::PathBuf};

use chroma_sync::proto::{self, document::Outcome, invocation::State, watch_invocation_response::Kind};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::{Status, Streaming};

use super::{
    chroma::ChromaDatabase,
    service::{Deployment, Service},
    stores::Backend,
};

/// A deployment with everything around it.
pub struct Scenario {
    pub deployment: Deployment,
    pub chroma: ChromaDatabase,
    /// URL of the service's own database.
    pub store_url: String,
    /// Token of a key with role admin.
    pub admin: String,
    directory: TempDir,
}

impl Scenario {
    /// A fresh scenario on this kind of store. Repositories come from `file://{repositories}`.
    pub async fn new(backend: Backend) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let chroma = ChromaDatabase::create().await;
        let store_url = backend.fresh_url(directory.path()).await;
        let repositories = directory.path().join("repositories");
        std::fs::create_dir(&repositories).unwrap();
        let git_url = format!("file://{}", repositories.display());
        let scratch = directory.path().join("scratch");
        let deployment = Deployment::new(&store_url, chroma.url(), &git_url, &scratch);
        let admin = deployment.create_key(&["--role", "admin"]);
        Self {
            deployment,
            chroma,
            store_url,
            admin,
            directory,
        }
    }

    /// Where bare repositories are served from, as `{owner}/{name}.git`.
    pub fn repositories(&self) -> PathBuf {
        self.directory.path().join("repositories")
    }

    /// Where uploaded files lie.
    pub fn uploads(&self) -> PathBuf {
        self.directory.path().join("scratch.uploads")
    }

    /// Name of the Chroma database of this scenario.
    pub fn database(&self) -> String {
        self.chroma.name().to_string()
    }

    /// A request that creates a source of `repository` with all defaults.
    pub fn source_request(&self, repository: &str) -> proto::CreateSourceRequest {
        proto::CreateSourceRequest {
            database_name: self.database(),
            settings: Some(proto::create_source_request::Settings::Github(
                proto::GithubSource {
                    repository: repository.to_owned(),
                    app_id: None,
                    include_globs: vec![],
                },
            )),
            ..Default::default()
        }
    }

    /// Creates a source of `repository` with all defaults and returns its id.
    pub async fn create_source(&self, service: &Service, repository: &str) -> String {
        let request = self.source_request(repository);
        service
            .sources(&self.admin)
            .create_source(request)
            .await
            .unwrap()
            .into_inner()
            .id
    }

    /// Creates an invocation of the default branch.
    pub async fn create_invocation(
        &self,
        service: &Service,
        source_id: &str,
        collection: &str,
    ) -> Result<proto::Invocation, Status> {
        let request = invocation_request(source_id, collection, None);
        Ok(service
            .invocations(&self.admin)
            .create_invocation(request)
            .await?
            .into_inner())
    }

    /// Creates a source of `owner/name` and an invocation of it into `target`; returns the source's id and the
    /// invocation.
    pub async fn pending_invocation(&self, service: &Service) -> (String, proto::Invocation) {
        let source = self.create_source(service, "owner/name").await;
        let created = self.create_invocation(service, &source, "target").await;
        (source, created.unwrap())
    }

    /// Watches an invocation to its end; returns all messages.
    pub async fn watch(&self, service: &Service, id: &str) -> Vec<proto::WatchInvocationResponse> {
        self.start_watch(service, id).await.await.unwrap()
    }

    /// Opens a watch.
    pub async fn open_watch(
        &self,
        service: &Service,
        id: &str,
        after_revision: Option<i64>,
    ) -> Result<Streaming<proto::WatchInvocationResponse>, Status> {
        let request = proto::WatchInvocationRequest {
            invocation_id: id.to_owned(),
            after_revision,
        };
        Ok(service
            .invocations(&self.admin)
            .watch_invocation(request)
            .await?
            .into_inner())
    }

    /// Opens a watch of many invocations.
    pub async fn watch_many(
        &self,
        service: &Service,
        request: proto::WatchInvocationsRequest,
    ) -> Result<Streaming<proto::WatchInvocationsResponse>, Status> {
        let mut invocations = service.invocations(&self.admin);
        Ok(invocations.watch_invocations(request).await?.into_inner())
    }

    /// Cancels an invocation.
    pub async fn cancel(&self, service: &Service, id: &str) -> proto::Invocation {
        let request = proto::CancelInvocationRequest {
            invocation_id: id.to_owned(),
        };
        service
            .invocations(&self.admin)
            .cancel_invocation(request)
            .await
            .unwrap()
            .into_inner()
    }

    /// Starts a watch that is open when this returns; it collects all messages to the end.
    pub async fn start_watch(
        &self,
        service: &Service,
        id: &str,
    ) -> JoinHandle<Vec<proto::WatchInvocationResponse>> {
        let mut stream = self.open_watch(service, id, None).await.unwrap();
        let first = stream.message().await.unwrap().unwrap();
        tokio::spawn(async move {
            let mut messages = vec![first];
            messages.extend(to_the_end(stream).await);
            messages
        })
    }

    /// What became of each document of an invocation, and why; there must not be more than one page of them.
    pub async fn documents(&self, service: &Service, id: &str) -> BTreeMap<String, (Outcome, String)> {
        let request = proto::ListDocumentsRequest {
            invocation_id: id.to_owned(),
            ..Default::default()
        };
        let answer = service
            .invocations(&self.admin)
            .list_documents(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.next_page_token, "");
        let of = |d: proto::Document| (d.document_key.clone(), (d.outcome(), d.detail));
        answer.documents.into_iter().map(of).collect()
    }

    /// Creates an invocation, watches it to its end and returns what it ended as.
    pub async fn run(
        &self,
        service: &Service,
        source_id: &str,
        collection: &str,
        reference: Option<proto::github_input::Reference>,
    ) -> proto::Invocation {
        let request = invocation_request(source_id, collection, reference);
        let created = service
            .invocations(&self.admin)
            .create_invocation(request)
            .await
            .unwrap()
            .into_inner();
        let messages = self.watch(service, &created.id).await;
        messages.last().unwrap().invocation.clone().unwrap()
    }
}

/// The messages that a watch has yet to give; it must end OK.
pub async fn to_the_end(
    mut stream: Streaming<proto::WatchInvocationResponse>,
) -> Vec<proto::WatchInvocationResponse> {
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        messages.push(message);
    }
    messages
}

/// A request that creates an invocation.
pub fn invocation_request(
    source_id: &str,
    collection: &str,
    reference: Option<proto::github_input::Reference>,
) -> proto::CreateInvocationRequest {
    proto::CreateInvocationRequest {
        source_id: source_id.to_owned(),
        target_collection_name: collection.to_owned(),
        input: Some(proto::create_invocation_request::Input::Github(
            proto::GithubInput { reference },
        )),
        request_id: None,
        webhook: None,
        update_collection: false,
    }
}

/// The states that a watch went through, each with its revision, without progress and heartbeats.
pub fn states(messages: &[proto::WatchInvocationResponse]) -> Vec<(i64, State)> {
    messages
        .iter()
        .filter(|message| matches!(message.kind(), Kind::Snapshot | Kind::StateChanged))
        .map(|message| (message.revision, message.invocation.as_ref().unwrap().state()))
        .collect()
}
