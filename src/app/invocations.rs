//! Use cases of invocations.

use std::{collections::HashMap, sync::Arc};

use uuid::Uuid;

use super::{
    App, AppParts, Auth, refused_for,
    sources::{request_id_reused, source_not_found},
    webhooks::show_secret,
};
use crate::{
    domain::{
        ids::{InvocationId, SourceId},
        invocation::{Invocation, InvocationFilter, NewInvocation},
        names::{CollectionName, DatabaseName},
        page::{Page, PageRequest},
        request::RequestedInvocation,
        s3::MAX_OBJECT_KEY_BYTES,
        source::Source,
    },
    error::{Error, FieldViolation, Reason, Result},
    store::{CancelInvocation, CreateInvocation},
};

/// The most object keys of one lookup.
pub const MAX_OBJECT_KEYS: usize = 1_000;

impl App {
    /// Creates an invocation in state pending and wakes a worker. With a `request_id` that was used
    /// before for the same content, returns the invocation it made then.
    ///
    /// # Errors
    /// SOURCE_NOT_FOUND, DATABASE_FORBIDDEN, COLLECTION_FINISHED, COLLECTION_BUSY, REQUEST_ID_REUSED,
    /// CHROMA_FORBIDDEN, CHROMA_UNAVAILABLE, INVALID_FIELD when the input does not fit the source's type or the
    /// webhook's URL is not allowed.
    pub async fn create_invocation(
        &self,
        auth: &Auth,
        source_id: SourceId,
        requested: RequestedInvocation,
        request_id: Option<Uuid>,
    ) -> Result<Invocation> {
        let known = self.2.get(source_id).filter(|source| {
            source.tenant == *auth.tenant() && auth.require_database(&source.database).is_ok()
        });
        let outcome = match known {
            None => {
                let source = Arc::new(self.get_source(auth, source_id).await?);
                self.2.remember(&source);
                self.create_from(auth, &source, requested, request_id).await
            }
            Some(source) => {
                let outcome = self.create_from(auth, &source, requested, request_id).await;
                if !matches!(outcome, Ok(CreateInvocation::Created(_))) {
                    self.require_source_still(auth, source_id).await?;
                }
                outcome
            }
        };
        self.created(source_id, outcome?)
    }

    /// Tells whoever waits for it that an invocation was created, or why it was not.
    pub(super) fn created(&self, source_id: SourceId, outcome: CreateInvocation) -> Result<Invocation> {
        match outcome {
            CreateInvocation::Created(invocation) => {
                // Nobody can be watching it yet.
                self.0.changes.changed(invocation.id);
                self.0.work.wake();
                Ok(invocation)
            }
            CreateInvocation::Repeated(invocation) => Ok(invocation),
            CreateInvocation::CollectionBusy(id) => Err(Error::new(
                Reason::CollectionBusy,
                format!(
                    "invocation {id} is writing to this collection; wait for its end or take another \
                     target_collection_name"
                ),
            )
            .with_resource("invocation", id)
            .with_metadata("invocation_id", id)),
            CreateInvocation::RequestIdReused => Err(request_id_reused()),
            CreateInvocation::SourceGone => Err(source_not_found(source_id)),
        }
    }

    async fn create_from(
        &self,
        auth: &Auth,
        source: &Source,
        requested: RequestedInvocation,
        request_id: Option<Uuid>,
    ) -> Result<CreateInvocation> {
        let new = requested.for_source(source)?;
        self.create_checked(auth, source, new, request_id).await
    }

    /// Creates an invocation that fits its source.
    pub(super) async fn create_checked(
        &self,
        auth: &Auth,
        source: &Source,
        mut new: NewInvocation,
        request_id: Option<Uuid>,
    ) -> Result<CreateInvocation> {
        let made_secret = self.prepare_webhook(auth, new.webhook.as_mut())?;
        let store = &self.0.store;
        // A repeated request asks what became of the first one, so the collection may well be finished.
        if let Some(id) = request_id
            && let Some(answered) = store.find_create_request(auth.tenant(), source, &new, id).await?
        {
            return Ok(answered);
        }
        if !new.update_collection {
            self.require_collection_open(auth, &source.database, &new.collection)
                .await?;
        }
        let token = self.sealed_chroma_token(auth)?;
        let created = store.create_invocation(auth.tenant(), source, new, request_id, token);
        let mut created = created.await?;
        if let CreateInvocation::Created(invocation) = &mut created {
            show_secret(&mut invocation.webhook, made_secret);
        }
        Ok(created)
    }

    /// Looks up a source that was only remembered: that it is gone comes before whatever else is in the way.
    async fn require_source_still(&self, auth: &Auth, id: SourceId) -> Result<()> {
        let found = self.get_source(auth, id).await;
        if found.is_err() {
            self.2.forget(id);
        }
        found.map(drop)
    }

    /// The documented rule: a collection whose metadata has `finished_ingest` true takes no more. A database
    /// that was deleted since its source was created is found missing by the worker.
    pub(super) async fn require_collection_open(
        &self,
        auth: &Auth,
        database: &DatabaseName,
        collection: &CollectionName,
    ) -> Result<()> {
        let chroma = self.chroma_of(auth)?;
        let place = (auth.tenant(), database, collection);
        let finished = self
            .1
            .is_finished(&chroma, auth.chroma_token(), place)
            .await
            .map_err(|error| refused_for(auth, error))?;
        if !finished {
            return Ok(());
        }
        Err(Error::new(
            Reason::CollectionFinished,
            format!(
                "collection {collection} holds a finished sync (finished_ingest is true); take another \
                 target_collection_name"
            ),
        )
        .with_resource("collection", collection)
        .with_metadata("collection_name", collection))
    }

    /// Returns an invocation.
    ///
    /// # Errors
    /// INVOCATION_NOT_FOUND; DATABASE_FORBIDDEN when it is in a database that the key is not bound to.
    pub async fn get_invocation(&self, auth: &Auth, id: InvocationId) -> Result<Invocation> {
        let found = self.0.store.get_invocation(&auth.tenant_scope(), id).await?;
        visible(auth, id, found)
    }

    /// [`App::authenticate`] and [`App::get_invocation`] in one: the call that comes most often, of every
    /// client that polls, reads key and invocation in one turn.
    ///
    /// # Errors
    /// Those of both.
    pub async fn authenticate_and_get_invocation(
        &self,
        token: Option<&str>,
        id: InvocationId,
    ) -> Result<Invocation> {
        let AppParts {
            authenticator, store, ..
        } = &*self.0;
        let (auth, found) = authenticator.authenticate_for(token, id, store).await?;
        visible(&auth, id, found)
    }

    /// Lists invocations.
    ///
    /// # Errors
    /// INVALID_FIELD when both source and database are given, SOURCE_NOT_FOUND, DATABASE_FORBIDDEN.
    pub async fn list_invocations(
        &self,
        auth: &Auth,
        filter: &InvocationFilter,
        page: &PageRequest,
    ) -> Result<Page<Invocation>> {
        if filter.source_id.is_some() && filter.database.is_some() {
            let problem = "cannot be given together with source_id";
            return Err(FieldViolation::new("database_name", problem).into());
        }
        if let Some(database) = &filter.database {
            auth.require_database(database)?;
        }
        if let Some(id) = filter.source_id {
            self.get_source(auth, id).await?;
        }
        Ok(self.0.store.list_invocations(&auth.scope(), filter, page).await?)
    }

    /// Cancels an invocation that is pending.
    ///
    /// # Errors
    /// INVOCATION_NOT_FOUND, DATABASE_FORBIDDEN, INVOCATION_NOT_CANCELABLE.
    pub async fn cancel_invocation(&self, auth: &Auth, id: InvocationId) -> Result<Invocation> {
        match self.0.store.cancel_invocation(&auth.scope(), id).await? {
            CancelInvocation::Cancelled(invocation) => {
                self.0.changes.entered(&invocation);
                Ok(invocation)
            }
            CancelInvocation::NotCancelable(state) => Err(Error::new(
                Reason::InvocationNotCancelable,
                format!(
                    "invocation {id} is {}; only a pending invocation can be cancelled",
                    state.as_str()
                ),
            )
            .with_resource("invocation", id)
            .with_metadata("state", state.as_str())),
            CancelInvocation::NotFound => {
                // Says so, or that it is in a database that is not the caller's.
                self.get_invocation(auth, id).await?;
                Err(invocation_not_found(id))
            }
        }
    }

    /// The newest invocation for each object key; a key without one is absent.
    ///
    /// # Errors
    /// SOURCE_NOT_FOUND; INVALID_FIELD for too many or too long keys.
    pub async fn latest_invocations(
        &self,
        auth: &Auth,
        source_id: SourceId,
        object_keys: &[String],
    ) -> Result<HashMap<String, Invocation>> {
        if object_keys.len() > MAX_OBJECT_KEYS {
            let problem = format!(
                "must have at most {MAX_OBJECT_KEYS} keys, has {}",
                object_keys.len()
            );
            return Err(FieldViolation::new("object_keys", problem).into());
        }
        if let Some(index) = object_keys
            .iter()
            .position(|key| key.len() > MAX_OBJECT_KEY_BYTES)
        {
            let problem = format!("must have at most {MAX_OBJECT_KEY_BYTES} bytes");
            return Err(FieldViolation::new(format!("object_keys[{index}]"), problem).into());
        }
        if let Some(index) = object_keys.iter().position(|key| key.contains('\0')) {
            let problem = "must not contain a NUL character";
            return Err(FieldViolation::new(format!("object_keys[{index}]"), problem).into());
        }
        self.get_source(auth, source_id).await?;
        Ok(self
            .0
            .store
            .latest_invocations_by_keys(&auth.scope(), source_id, object_keys)
            .await?)
    }
}

/// An invocation of the caller's tenant, if the caller reaches its database.
fn visible(auth: &Auth, id: InvocationId, found: Option<Invocation>) -> Result<Invocation> {
    let invocation = found.ok_or_else(|| invocation_not_found(id))?;
    auth.require_database(&invocation.database)?;
    Ok(invocation)
}

pub(super) fn invocation_not_found(id: InvocationId) -> Error {
    Error::not_found(Reason::InvocationNotFound, "invocation", id).with_metadata("invocation_id", id)
}
