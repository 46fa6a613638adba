//! A connection to a Chroma server, and the calls about the server, databases and collections.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::OnceCell;
use url::Url;

use super::{
    batch::to_json,
    error::IndexError,
    function::EmbeddingFunction,
    schema::{known, schema},
    sparse::is_about_sparse,
    transport::{Call, ChromaOptions, Transport},
    types::{Capabilities, Collection, CollectionSettings, Identity, Metadata},
    wire::{CollectionBody, IdentityBody},
};
use crate::{
    domain::names::{CollectionName, DatabaseName, TenantName},
    secret::Secret,
};

/// A connection to a Chroma server; clones share its connections.
#[derive(Debug, Clone)]
pub struct ChromaClient {
    pub(super) transport: Transport,
    capabilities: Arc<OnceCell<Capabilities>>,
    /// Whether the server was found to take sparse vectors.
    pub(super) sparse_taken: Arc<AtomicBool>,
}

impl ChromaClient {
    /// Makes the client; nothing is sent yet.
    ///
    /// # Errors
    /// [`IndexError::InvalidOptions`].
    pub fn new(options: ChromaOptions) -> Result<Self, IndexError> {
        Ok(Self {
            transport: Transport::new(options)?,
            capabilities: Arc::default(),
            sparse_taken: Arc::default(),
        })
    }

    /// The same client with another limit for a whole call with its repetitions.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            transport: self.transport.with_deadline(deadline),
            ..self.clone()
        }
    }

    /// The same client with another token, for writing in a caller's name.
    ///
    /// # Errors
    /// [`IndexError::InvalidOptions`] for a token that no header can carry.
    pub fn with_token(&self, token: &Secret) -> Result<Self, IndexError> {
        Ok(Self {
            transport: self.transport.with_token(token)?,
            ..self.clone()
        })
    }

    /// Whose token this client sends.
    ///
    /// # Errors
    /// [`IndexError::Unauthorized`] for a token that the server does not know.
    pub async fn identity(&self) -> Result<Identity, IndexError> {
        let call = Call::get("get identity", self.transport.endpoint(&["auth", "identity"]));
        let body: IdentityBody = self.transport.call(call).await?;
        body.into_identity().ok_or_else(|| IndexError::InvalidResponse {
            problem: "its identity names no tenant".to_owned(),
            source: None,
        })
    }

    /// Asks whether the server answers at all.
    ///
    /// # Errors
    /// [`IndexError::Unavailable`], or what else the server says; so do all calls below.
    pub async fn heartbeat(&self) -> Result<(), IndexError> {
        let call = Call::get("heartbeat", self.transport.endpoint(&["heartbeat"]));
        let answer: Value = self.transport.call(call).await?;
        match answer.get("nanosecond heartbeat") {
            Some(Value::Number(_)) => Ok(()),
            _ => Err(IndexError::InvalidResponse {
                problem: "its heartbeat is not one of Chroma".to_owned(),
                source: None,
            }),
        }
    }

    /// What the server can do; asked once and kept.
    pub async fn capabilities(&self) -> Result<Capabilities, IndexError> {
        let call = || {
            Call::get(
                "pre-flight checks",
                self.transport.endpoint(&["pre-flight-checks"]),
            )
        };
        self.capabilities
            .get_or_try_init(|| self.transport.call(call()))
            .await
            .copied()
    }

    /// Whether the server that holds `collection` is a distributed one, which can fork collections and
    /// takes sparse vectors. A single-node server answers 501 to both.
    pub async fn is_distributed(&self, collection: &Collection) -> Result<bool, IndexError> {
        let call = Call::get("fork count", self.collection_url(collection, &["fork_count"]));
        match self.transport.call_unit(call).await {
            Ok(()) => Ok(true),
            Err(IndexError::Unsupported { .. }) => Ok(false),
            Err(error) => Err(error.about(collection)),
        }
    }

    /// Whether the database exists. A name that Chroma allows for no database is one that does not.
    pub async fn database_exists(
        &self,
        tenant: &TenantName,
        database: &DatabaseName,
    ) -> Result<bool, IndexError> {
        let call = Call::get("get database", self.database_url(tenant, database, &[]));
        match self.transport.call_unit(call).await {
            Ok(()) => Ok(true),
            Err(IndexError::Rejected {
                status: 400 | 404, ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates the database, unless it exists.
    ///
    /// # Errors
    /// [`IndexError::Rejected`] for a name that Chroma does not allow.
    pub async fn create_database(
        &self,
        tenant: &TenantName,
        database: &DatabaseName,
    ) -> Result<(), IndexError> {
        let url = self
            .transport
            .endpoint(&["tenants", tenant.as_str(), "databases"]);
        let call = Call::post(
            "create database",
            url,
            to_json(&json!({"name": database.as_str()}))?,
        );
        match self.transport.call_unit(call).await {
            Ok(()) | Err(IndexError::Rejected { status: 409, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The collection with this name, if it exists.
    ///
    /// # Errors
    /// [`IndexError::DatabaseNotFound`], which Chroma itself does not tell from a missing collection.
    pub async fn find_collection(
        &self,
        tenant: &TenantName,
        database: &DatabaseName,
        name: &CollectionName,
    ) -> Result<Option<Collection>, IndexError> {
        let found = self.look_collection_up(tenant, database, name).await?;
        if found.is_none() {
            self.require_database(tenant, database).await?;
        }
        Ok(found)
    }

    /// Whether the collection holds a finished sync. False also when there is no such collection or no such
    /// database: Chroma does not tell the two apart, and asking for the database would be another request.
    pub async fn is_collection_finished(
        &self,
        tenant: &TenantName,
        database: &DatabaseName,
        name: &CollectionName,
    ) -> Result<bool, IndexError> {
        let found = self.look_collection_up(tenant, database, name).await?;
        Ok(found.is_some_and(|collection| collection.is_finished()))
    }

    /// The collection with this name; none when it or its database does not exist.
    async fn look_collection_up(
        &self,
        tenant: &TenantName,
        database: &DatabaseName,
        name: &CollectionName,
    ) -> Result<Option<Collection>, IndexError> {
        let url = self.database_url(tenant, database, &["collections", name.as_str()]);
        let call = Call::get("get collection", url);
        match self.transport.call::<CollectionBody>(call).await {
            Ok(body) => Ok(Some(body.into_collection(tenant, database))),
            Err(IndexError::Rejected { status: 404, .. }) => Ok(None),
            Err(error) => Err(self.in_database(tenant, database, error).await),
        }
    }

    /// The names of the collections that hold a finished sync; none when the database has more than `limit`
    /// collections.
    pub async fn finished_collections(
        &self,
        tenant: &TenantName,
        database: &DatabaseName,
        limit: usize,
    ) -> Result<Option<HashSet<CollectionName>>, IndexError> {
        let mut url = self.database_url(tenant, database, &["collections"]);
        // One more than may be there tells whether there are more.
        let most = (limit + 1).to_string();
        url.query_pairs_mut().append_pair("limit", &most);
        let call = Call::get("list collections", url);
        let bodies: Vec<CollectionBody> = self.transport.call(call).await?;
        if bodies.len() > limit {
            return Ok(None);
        }
        let collections = bodies
            .into_iter()
            .map(|body| body.into_collection(tenant, database));
        let finished = collections.filter(Collection::is_finished);
        Ok(Some(finished.map(|collection| collection.name).collect()))
    }

    /// The collection with this name; it is created where it does not exist, with cosine space.
    ///
    /// An existing one keeps its metadata, space, embedding function and indexes.
    ///
    /// # Errors
    /// [`IndexError::DatabaseNotFound`]; [`IndexError::DimensionMismatch`],
    /// [`IndexError::EmbeddingFunctionMismatch`] and [`IndexError::SparseIndexMismatch`] when an existing one is
    /// for another model; [`IndexError::SparseUnsupported`].
    pub async fn get_or_create_collection(
        &self,
        tenant: &TenantName,
        database: &DatabaseName,
        name: &CollectionName,
        settings: &CollectionSettings,
    ) -> Result<Collection, IndexError> {
        check_metadata(&settings.metadata)?;
        // Chroma refuses an empty map.
        let metadata = Some(&settings.metadata).filter(|metadata| !metadata.is_empty());
        let mut body = json!({"name": name.as_str(), "get_or_create": true, "metadata": metadata});
        match &settings.sparse {
            Some(sparse) => body["schema"] = schema(settings, sparse),
            None => {
                let function = settings.embedding_function.as_ref().map(known);
                body["configuration"] = json!({"hnsw": {"space": "cosine"}, "embedding_function": function});
            }
        }
        let body = to_json(&body)?;
        let url = self.database_url(tenant, database, &["collections"]);
        let call = Call::post("get or create collection", url, body);
        let collection = match self.transport.call::<CollectionBody>(call).await {
            Ok(body) => body.into_collection(tenant, database),
            Err(IndexError::Rejected { message, .. } | IndexError::Unsupported { message })
                if settings.sparse.is_some() && is_about_sparse(&message) =>
            {
                return Err(IndexError::SparseUnsupported { message });
            }
            Err(error) => return Err(self.in_database(tenant, database, error).await),
        };
        check_compatible(&collection, settings)?;
        Ok(collection)
    }

    /// Sets the keys of `changes` in the collection's metadata, removes those that are null there, and
    /// keeps the others. Returns the collection as it is then.
    ///
    /// Chroma replaces all metadata at once, so this reads, merges and writes: of two writers at the same
    /// moment one may lose. Only one invocation at a time writes to a collection.
    ///
    /// # Errors
    /// [`IndexError::CollectionNotFound`], also when another collection has the name by now;
    /// [`IndexError::InvalidRecord`] for a value that is neither a scalar nor null.
    pub async fn merge_collection_metadata(
        &self,
        collection: &Collection,
        changes: Metadata,
    ) -> Result<Collection, IndexError> {
        check_metadata(&changes)?;
        let Collection {
            tenant,
            database,
            name,
            ..
        } = collection;
        let current = self
            .find_collection(tenant, database, name)
            .await?
            .filter(|current| current.id == collection.id)
            .ok_or_else(|| IndexError::CollectionNotFound {
                collection: name.clone(),
            })?;
        let mut merged = current.metadata.clone();
        for (key, value) in &changes {
            match value {
                Value::Null => merged.remove(key),
                value => merged.insert(key.clone(), value.clone()),
            };
        }
        if merged == current.metadata {
            return Ok(current);
        }
        // Chroma refuses an empty map, but takes one whose only value is null.
        let mut sent = merged.clone();
        if let (true, Some(key)) = (sent.is_empty(), changes.keys().next()) {
            sent.insert(key.clone(), Value::Null);
        }
        let url = self.collection_url(collection, &[]);
        let call = Call::put("update collection", url, to_json(&json!({"new_metadata": sent}))?);
        self.transport
            .call_unit(call)
            .await
            .map_err(|error| error.about(collection))?;
        Ok(Collection {
            metadata: merged,
            ..current
        })
    }

    fn database_url(&self, tenant: &TenantName, database: &DatabaseName, rest: &[&str]) -> Url {
        let own = ["tenants", tenant.as_str(), "databases", database.as_str()];
        self.transport.endpoint(&[&own, rest].concat())
    }

    pub(super) fn collection_url(&self, collection: &Collection, rest: &[&str]) -> Url {
        let id = collection.id.to_string();
        let own = ["collections", &id];
        self.database_url(&collection.tenant, &collection.database, &[&own, rest].concat())
    }

    async fn require_database(&self, tenant: &TenantName, database: &DatabaseName) -> Result<(), IndexError> {
        if self.database_exists(tenant, database).await? {
            return Ok(());
        }
        Err(IndexError::DatabaseNotFound {
            database: database.clone(),
        })
    }

    /// Chroma says of a missing database that an argument is invalid, in words that may change; so it is
    /// asked.
    async fn in_database(
        &self,
        tenant: &TenantName,
        database: &DatabaseName,
        error: IndexError,
    ) -> IndexError {
        if matches!(
            error,
            IndexError::Rejected {
                status: 400 | 404,
                ..
            }
        ) && let Err(missing @ IndexError::DatabaseNotFound { .. }) =
            self.require_database(tenant, database).await
        {
            return missing;
        }
        error
    }
}

/// A single-node server closes the connection on an array, so nothing but scalars is sent.
fn check_metadata(metadata: &Metadata) -> Result<(), IndexError> {
    match metadata
        .iter()
        .find(|(_, value)| value.is_array() || value.is_object())
    {
        None => Ok(()),
        Some((key, _)) => Err(IndexError::InvalidRecord {
            what: format!("collection metadata key {key}"),
            problem: "its value must be a string, a number, a boolean or null".to_owned(),
        }),
    }
}

impl Collection {
    /// Whether records that are made for `settings` may stand in it.
    pub fn is_compatible_with(&self, settings: &CollectionSettings) -> bool {
        check_compatible(self, settings).is_ok()
    }
}

fn check_compatible(collection: &Collection, settings: &CollectionSettings) -> Result<(), IndexError> {
    collection.check_dimensions(settings.dimensions)?;
    let wanted = settings.embedding_function.as_ref();
    if let Some(found) = &collection.embedding_function
        && !wanted.is_some_and(|wanted| found.is_compatible_with(wanted))
    {
        return Err(IndexError::EmbeddingFunctionMismatch {
            collection: collection.name.clone(),
            found: found.describe(),
            wanted: wanted.map_or_else(
                || "none that clients know".to_owned(),
                EmbeddingFunction::describe,
            ),
        });
    }
    collection.check_sparse(settings.sparse.as_ref())
}
