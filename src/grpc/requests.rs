//! Wire requests as typed requests. Everything a request can get wrong by itself is found here, once;
//! each message is taken apart in full, so that a new field is a compile error until it is handled.

use uuid::Uuid;

use super::source_settings;
use crate::{
    app::watch::{ResumeToken, WatchFilter, WatchStart},
    domain::{
        chunking::{Chunking, ChunkingRequest},
        embedding::{
            Embedding, ModelCatalog, ModelDescription, SparseRequest, SparseSettings, Task, TaskRequest,
        },
        ids::{InvocationId, SourceId, parse_uuid},
        invocation::{InvocationFilter, StateName},
        names::{CollectionName, DatabaseName},
        page::{Order, PageRequest, decode_token, page_size},
        request::RequestedInvocation,
        source::{GithubAppId, NewSource, RepositoryName, SourceFilter, SourceType},
        webhook::{Webhook, WebhookUrl, parse_signing_secret},
    },
    error::{Error, FieldViolation, Result},
    proto,
    store::OutcomeName,
};

/// CreateSource, checked against the models served; with the `request_id`.
///
/// # Errors
/// INVALID_FIELD, UNKNOWN_MODEL with the field.
pub fn new_source(
    request: proto::CreateSourceRequest,
    catalog: &ModelCatalog,
) -> Result<(NewSource, Option<Uuid>)> {
    let proto::CreateSourceRequest {
        database_name,
        settings,
        embedding,
        chunking,
        request_id,
        webhook: requested_webhook,
    } = request;
    let database = DatabaseName::parse("database_name", &database_name)?;
    let settings = source_settings::read(settings)?;
    let proto::Embedding { dense, sparse } = embedding.unwrap_or_default();
    let (mut embedding, model) = dense_embedding("embedding.dense", dense, catalog)?;
    embedding.sparse = sparse
        .map(|sparse| sparse_settings("embedding.sparse", sparse, catalog))
        .transpose()?;
    let chunking = resolve_chunking(chunking_request(chunking)?, model.max_tokens)?;
    Ok((
        NewSource {
            database,
            settings,
            embedding,
            chunking,
            webhook: requested_webhook.map(webhook).transpose()?,
        },
        uuid_or_none(request_id)?,
    ))
}

pub(super) fn webhook(webhook: proto::Webhook) -> Result<Webhook> {
    let proto::Webhook { url, signing_secret } = webhook;
    let url = WebhookUrl::parse("webhook.url", &url)?;
    let secret = non_empty(signing_secret)
        .map(|secret| parse_signing_secret("webhook.signing_secret", &secret))
        .transpose()?;
    Ok(Webhook::requested(url, secret))
}

/// The dense model and its task; `field` is the path of the message.
pub(super) fn dense_embedding<'a>(
    field: &str,
    dense: Option<proto::DenseEmbedding>,
    catalog: &'a ModelCatalog,
) -> Result<(Embedding, &'a ModelDescription)> {
    let (asked, task) = match dense {
        Some(proto::DenseEmbedding { model, task }) => (Some(model), task),
        None => (None, None),
    };
    let model = catalog.resolve(&format!("{field}.model"), asked.as_deref())?;
    let task = task.map(
        |proto::EmbeddingTask {
             task_name,
             document_prompt,
             query_prompt,
         }| TaskRequest {
            task_name: Some(task_name),
            document_prompt,
            query_prompt,
        },
    );
    let embedding = Embedding {
        task: Task::resolve(&format!("{field}.task"), task, model)?,
        ..Embedding::of_model(model)
    };
    Ok((embedding, model))
}

/// The sparse model and its key; `field` is the path of the message.
pub(super) fn sparse_settings(
    field: &str,
    sparse: proto::SparseEmbedding,
    catalog: &ModelCatalog,
) -> Result<SparseSettings> {
    let proto::SparseEmbedding { model, key } = sparse;
    let request = SparseRequest {
        model: non_empty(model),
        key: non_empty(key),
    };
    catalog.resolve_sparse(field, request)
}

pub(super) fn chunking_request(chunking: Option<proto::Chunking>) -> Result<ChunkingRequest> {
    let Some(proto::Chunking { strategy }) = chunking else {
        return Ok(ChunkingRequest::default());
    };
    match strategy {
        Some(proto::chunking::Strategy::TreeSitter(proto::TreeSitterChunking { max_size_bytes })) => {
            Ok(ChunkingRequest::TreeSitter {
                max_size_bytes: max_size_bytes.map(u64::from),
            })
        }
        Some(proto::chunking::Strategy::Lines(proto::LinesChunking {
            max_lines,
            max_size_bytes,
        })) => Ok(ChunkingRequest::Lines {
            max_lines: max_lines.map(u64::from),
            max_size_bytes: max_size_bytes.map(u64::from),
        }),
        None => Err(Error::invalid_field(
            "chunking.strategy",
            "must be set: tree_sitter or lines",
        )),
    }
}

/// Fills in the defaults; a violation names the field by its path in this contract, which has one message
/// for each strategy.
pub(super) fn resolve_chunking(request: ChunkingRequest, model_tokens: u32) -> Result<Chunking> {
    let strategy = match request {
        ChunkingRequest::TreeSitter { .. } => "tree_sitter",
        ChunkingRequest::Lines { .. } => "lines",
    };
    Ok(Chunking::resolve(request, model_tokens).map_err(|violation| {
        let FieldViolation { field, description } = violation;
        let setting = field.trim_start_matches("chunking.");
        FieldViolation::new(format!("chunking.{strategy}.{setting}"), description)
    })?)
}

/// CreateInvocation: the source, what is asked of it, and the `request_id`.
///
/// # Errors
/// INVALID_FIELD with the field.
pub fn new_invocation(
    request: proto::CreateInvocationRequest,
) -> Result<(SourceId, RequestedInvocation, Option<Uuid>)> {
    let proto::CreateInvocationRequest {
        source_id,
        target_collection_name,
        input,
        request_id,
        webhook: requested_webhook,
        update_collection,
    } = request;
    let requested = RequestedInvocation {
        collection: non_empty(target_collection_name)
            .map(|name| CollectionName::parse("target_collection_name", &name))
            .transpose()?,
        input: source_settings::read_input(input)?,
        webhook: requested_webhook.map(webhook).transpose()?,
        update_collection,
        fields: source_settings::FIELDS,
    };
    Ok((source_id.parse()?, requested, uuid_or_none(request_id)?))
}

/// ListSources: the filter, the page, and the text that its tokens belong to.
///
/// # Errors
/// INVALID_FIELD, INVALID_PAGE_TOKEN with the field.
pub fn source_listing(request: proto::ListSourcesRequest) -> Result<(SourceFilter, PageRequest, String)> {
    let proto::ListSourcesRequest {
        database_name,
        source_type: type_number,
        github_app_id,
        github_repository,
        page_size: size,
        page_token,
        skip,
        order_by,
    } = request;
    let source_type = source_type(type_number)?;
    let (github_app_id, github_repository) = github_filter(source_type, github_app_id, github_repository)?;
    let filter = SourceFilter {
        database: non_empty(database_name)
            .map(|name| DatabaseName::parse("database_name", &name))
            .transpose()?,
        source_type,
        github_app_id,
        github_repository,
    };
    let order = order(&order_by)?;
    let listing = format!("sources {filter:?} {order:?}");
    let page = page(size, &page_token, skip, order, &listing)?;
    Ok((filter, page, listing))
}

/// ListInvocations: the filter, the page, and the text that its tokens belong to.
///
/// # Errors
/// INVALID_FIELD, INVALID_PAGE_TOKEN with the field.
pub fn invocation_listing(
    request: proto::ListInvocationsRequest,
) -> Result<(InvocationFilter, PageRequest, String)> {
    let proto::ListInvocationsRequest {
        source_id,
        database_name,
        source_type: type_number,
        state: state_number,
        page_size: size,
        page_token,
        skip,
        order_by,
        github_app_id,
        github_repository,
    } = request;
    let source_type = source_type(type_number)?;
    let (github_app_id, github_repository) = github_filter(source_type, github_app_id, github_repository)?;
    let filter = InvocationFilter {
        source_id: non_empty(source_id).map(|id| id.parse()).transpose()?,
        database: non_empty(database_name)
            .map(|name| DatabaseName::parse("database_name", &name))
            .transpose()?,
        source_type,
        github_app_id,
        github_repository,
        state: state("state", state_number)?,
    };
    let order = order(&order_by)?;
    let listing = format!("invocations {filter:?} {order:?}");
    let page = page(size, &page_token, skip, order, &listing)?;
    Ok((filter, page, listing))
}

/// What ListDocuments asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentListing {
    /// Whose documents.
    pub invocation_id: InvocationId,
    /// Only those with this outcome.
    pub outcome: Option<OutcomeName>,
    /// The most rows, 1..=1000.
    pub size: u32,
    /// Start after the document with this ordinal.
    pub after: Option<u32>,
    /// The text that page tokens belong to.
    pub listing: String,
}

/// ListDocuments.
///
/// # Errors
/// INVALID_FIELD, INVALID_PAGE_TOKEN with the field.
pub fn document_listing(request: proto::ListDocumentsRequest) -> Result<DocumentListing> {
    let proto::ListDocumentsRequest {
        invocation_id,
        outcome: outcome_number,
        page_size: size,
        page_token,
    } = request;
    let invocation_id: InvocationId = invocation_id.parse()?;
    let outcome = outcome(outcome_number)?;
    let size = page_size(size)?;
    let listing = format!("documents {invocation_id} {outcome:?}");
    let after = if page_token.is_empty() {
        None
    } else {
        let position = decode_token(&listing, &page_token)?.as_u128();
        Some(u32::try_from(position).unwrap_or(u32::MAX))
    };
    Ok(DocumentListing {
        invocation_id,
        outcome,
        size,
        after,
        listing,
    })
}

/// WatchInvocation: the invocation, and the last revision that the caller saw.
///
/// # Errors
/// INVALID_FIELD with the field.
pub fn watch(request: proto::WatchInvocationRequest) -> Result<(InvocationId, Option<u64>)> {
    let proto::WatchInvocationRequest {
        invocation_id,
        after_revision,
    } = request;
    let negative = |after| FieldViolation::new("after_revision", format!("must not be negative, is {after}"));
    let after = after_revision
        .map(|after| u64::try_from(after).map_err(|_| negative(after)))
        .transpose()?;
    Ok((invocation_id.parse()?, after))
}

/// WatchInvocations: which invocations, and where the stream begins.
///
/// # Errors
/// INVALID_FIELD with the field, INVALID_RESUME_TOKEN.
pub fn watch_many(request: proto::WatchInvocationsRequest) -> Result<(WatchFilter, WatchStart)> {
    let proto::WatchInvocationsRequest {
        source_id,
        database_name,
        states,
        resume_token,
        include_live,
    } = request;
    let start = match (non_empty(resume_token), include_live) {
        (None, false) => WatchStart::Now,
        (None, true) => WatchStart::Snapshots,
        (Some(token), false) => WatchStart::After(ResumeToken::decode(&token)?),
        (Some(_), true) => {
            let problem = "cannot be given together with resume_token";
            return Err(Error::invalid_field("include_live", problem));
        }
    };
    let mut wanted = Vec::new();
    for (index, number) in states.into_iter().enumerate() {
        let field = format!("states[{index}]");
        let problem = "must be a state; leave states empty for all of them";
        let state = state(&field, number)?.ok_or_else(|| Error::invalid_field(field, problem))?;
        if !wanted.contains(&state) {
            wanted.push(state);
        }
    }
    let filter = WatchFilter {
        source_id: non_empty(source_id).map(|id| id.parse()).transpose()?,
        database: non_empty(database_name)
            .map(|name| DatabaseName::parse("database_name", &name))
            .transpose()?,
        states: wanted,
    };
    Ok((filter, start))
}

/// `Document.Outcome` of a filter; unspecified means every outcome.
fn outcome(number: i32) -> Result<Option<OutcomeName>> {
    use proto::document::Outcome;

    match Outcome::try_from(number) {
        Ok(Outcome::Unspecified) => Ok(None),
        Ok(Outcome::Discovered) => Ok(Some(OutcomeName::Discovered)),
        Ok(Outcome::Indexed) => Ok(Some(OutcomeName::Indexed)),
        Ok(Outcome::Unchanged) => Ok(Some(OutcomeName::Unchanged)),
        Ok(Outcome::Removed) => Ok(Some(OutcomeName::Removed)),
        Ok(Outcome::Skipped) => Ok(Some(OutcomeName::Skipped)),
        Ok(Outcome::Failed) => Ok(Some(OutcomeName::Failed)),
        Err(_) => Err(unknown_number("outcome", number, "Document.Outcome").into()),
    }
}

/// The filters that only GitHub sources have.
fn github_filter(
    source_type: Option<SourceType>,
    app_id: String,
    repository: String,
) -> Result<(Option<GithubAppId>, Option<RepositoryName>)> {
    let app_id = non_empty(app_id)
        .map(|id| GithubAppId::parse("github_app_id", &id))
        .transpose()?;
    let repository = non_empty(repository)
        .map(|name| RepositoryName::parse("github_repository", &name))
        .transpose()?;
    let given = [
        ("github_app_id", app_id.is_some()),
        ("github_repository", repository.is_some()),
    ];
    for (field, given) in given {
        if given && source_type != Some(SourceType::Github) {
            return Err(Error::invalid_field(
                field,
                "needs source_type SOURCE_TYPE_GITHUB",
            ));
        }
    }
    Ok((app_id, repository))
}

fn source_type(number: i32) -> Result<Option<SourceType>> {
    match proto::SourceType::try_from(number) {
        Ok(proto::SourceType::Unspecified) => Ok(None),
        Ok(proto::SourceType::Github) => Ok(Some(SourceType::Github)),
        Ok(proto::SourceType::S3) => Ok(Some(SourceType::S3)),
        Ok(proto::SourceType::WebScrape) => Ok(Some(SourceType::WebScrape)),
        Ok(proto::SourceType::FileUpload) => Ok(Some(SourceType::FileUpload)),
        Err(_) => Err(unknown_number("source_type", number, "SourceType").into()),
    }
}

fn state(field: &str, number: i32) -> Result<Option<StateName>> {
    use proto::invocation::State;

    match State::try_from(number) {
        Ok(State::Unspecified) => Ok(None),
        Ok(State::Pending) => Ok(Some(StateName::Pending)),
        Ok(State::Processing) => Ok(Some(StateName::Processing)),
        Ok(State::Complete) => Ok(Some(StateName::Complete)),
        Ok(State::Failed) => Ok(Some(StateName::Failed)),
        Ok(State::Cancelled) => Ok(Some(StateName::Cancelled)),
        Err(_) => Err(unknown_number(field, number, "Invocation.State").into()),
    }
}

fn unknown_number(field: &str, number: i32, enumeration: &str) -> FieldViolation {
    FieldViolation::new(field, format!("{number} is not a value of {enumeration}"))
}

fn page(size: i32, token: &str, skip: i32, order: Order, listing: &str) -> Result<PageRequest> {
    let skip = u64::try_from(skip)
        .map_err(|_| FieldViolation::new("skip", format!("must not be negative, is {skip}")))?;
    let after = if token.is_empty() {
        None
    } else {
        Some(decode_token(listing, token)?)
    };
    Ok(PageRequest {
        size: page_size(size)?,
        skip,
        after,
        order,
    })
}

fn order(order_by: &str) -> Result<Order> {
    match order_by {
        "" | "create_time desc" => Ok(Order::Descending),
        "create_time" | "create_time asc" => Ok(Order::Ascending),
        other => {
            let problem = format!("must be 'create_time' or 'create_time desc', is {other:?}");
            Err(Error::invalid_field("order_by", problem))
        }
    }
}

pub(super) fn uuid_or_none(request_id: Option<String>) -> Result<Option<Uuid>> {
    let request_id = request_id.filter(|id| !id.is_empty());
    Ok(request_id.map(|id| parse_uuid("request_id", &id)).transpose()?)
}

pub(super) fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
