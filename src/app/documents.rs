//! Use cases of the ledger: what became of each document.

use super::{App, Auth};
use crate::{
    domain::{document::Document, ids::InvocationId},
    error::Result,
    store::{DocumentPage, OutcomeName},
};

impl App {
    /// Lists the documents of an invocation by their ordinal, from the one after `after`.
    ///
    /// # Errors
    /// INVOCATION_NOT_FOUND.
    pub async fn list_documents(
        &self,
        auth: &Auth,
        id: InvocationId,
        outcome: Option<OutcomeName>,
        page: DocumentPage,
    ) -> Result<Vec<Document>> {
        self.get_invocation(auth, id).await?;
        Ok(self.0.store.list_documents(id, outcome, page).await?)
    }
}
