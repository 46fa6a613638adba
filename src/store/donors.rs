//! Collections of a source whose records another invocation of it may copy.
//!
//! A source never changes its settings, but what serves it may: other weights under a model's name, another way
//! to cut documents. So each invocation writes down the fingerprint of what its records are made with, and a
//! collection gives records away only while every invocation that wrote to it has the same one.

use std::collections::HashMap;

use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect, sea_query::Expr};

use super::{
    Store,
    entities::invocation,
    error::StoreError,
    lease::{Fence, Held},
};
use crate::domain::{
    ids::{InvocationId, SourceId},
    invocation::StateName,
    names::{CollectionName, DatabaseName},
};

/// Invocations that are looked at, the newest of the source; what only older ones wrote is not worth a longer look.
const INVOCATIONS: u64 = 200;

/// The fingerprint of an invocation whose attempts had different ones. No digest reads like it.
const MIXED: &str = "mixed";

/// What an invocation asks for.
#[derive(Debug, Clone, Copy)]
pub struct DonorRequest<'a> {
    /// The invocation that would copy.
    pub asking: InvocationId,
    /// Its source.
    pub source_id: SourceId,
    /// Its database; collections of others are not asked.
    pub database: &'a DatabaseName,
    /// The collection it writes to, which is no donor.
    pub collection: &'a CollectionName,
    /// The fingerprint of what it makes its records with.
    pub fingerprint: &'a str,
}

impl Store {
    /// Writes down what the records of an attempt are made with.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn record_fingerprint(
        &self,
        id: InvocationId,
        attempt: u32,
        fingerprint: &str,
    ) -> Result<Held, StoreError> {
        let own = invocation::Column::Fingerprint;
        let agrees = Condition::any().add(own.is_null()).add(own.eq(fingerprint));
        // An attempt of another release may have written records before this one.
        let merged = Expr::case(agrees, fingerprint).finally(MIXED);
        let update = Fence { id, attempt }.update().col_expr(own, merged.into());
        self.fenced(update).await
    }

    /// The collections that finished invocations of the source left whole and with the same fingerprint, the one
    /// that was finished by the newest invocation first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn donor_collections(
        &self,
        request: DonorRequest<'_>,
    ) -> Result<Vec<CollectionName>, StoreError> {
        let select = invocation::Entity::find()
            .select_only()
            .column(invocation::Column::CollectionName)
            .column(invocation::Column::State)
            .column(invocation::Column::Fingerprint)
            .filter(invocation::Column::SourceId.eq(request.source_id.0))
            .filter(invocation::Column::DatabaseName.eq(request.database.as_str()))
            .filter(invocation::Column::Id.ne(request.asking.0))
            // An invocation that no worker ever took wrote nothing.
            .filter(invocation::Column::Attempt.gt(0))
            .order_by_desc(invocation::Column::Id)
            .limit(INVOCATIONS)
            .into_tuple::<(String, String, Option<String>)>();
        let rows = self
            .read(async |database| Ok(select.all(database).await?))
            .await?;
        let mut order = Vec::new();
        let mut agrees: HashMap<String, bool> = HashMap::new();
        for (collection, state, fingerprint) in rows {
            let is_complete = state == StateName::Complete.as_str();
            let same = match &fingerprint {
                Some(fingerprint) => fingerprint == request.fingerprint,
                // It is written down before the first record, so what did not get that far wrote none.
                None => !is_complete,
            };
            *agrees.entry(collection.clone()).or_insert(true) &= same;
            if is_complete && collection != request.collection.as_str() && !order.contains(&collection) {
                order.push(collection);
            }
        }
        order.retain(|collection| agrees.get(collection) == Some(&true));
        Ok(order.into_iter().map(CollectionName::from_stored).collect())
    }
}
