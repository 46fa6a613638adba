//! The models that a server serves, by name.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::{join, join_all};

use super::{
    Embedder, LoadError, LocalModel, LocalOptions, ModelDirectories, SparseEmbedder,
    remote::{RemoteEmbedder, RemoteSparseEmbedder},
};
use crate::domain::embedding::ModelDescription;

/// One embedder for each model, found by the model's name. Dense and sparse models are apart.
#[derive(Clone, Default)]
pub struct Embedders {
    embedders: BTreeMap<String, Arc<dyn Embedder>>,
    sparse: BTreeMap<String, Arc<dyn SparseEmbedder>>,
    /// Those of them that other servers compute, once more.
    remote: Vec<Arc<RemoteEmbedder>>,
    remote_sparse: Vec<Arc<RemoteSparseEmbedder>>,
}

impl Embedders {
    /// A registry without models; [`insert`](Self::insert) adds them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loads the models `names` from `directories` to run in this process, each on threads of its own. Their files
    /// say which are dense and which sparse.
    ///
    /// Reads all files, which takes from 0.1 s to seconds a model, so call it before the runtime serves, or on a blocking thread.
    ///
    /// # Errors
    /// If `options` cannot be had, else the first model that is not found or cannot be loaded.
    pub fn load_local<'a>(
        names: impl IntoIterator<Item = &'a str>,
        directories: &ModelDirectories,
        options: LocalOptions,
    ) -> Result<Self, LoadError> {
        options.check()?;
        let mut embedders = Self::new();
        for name in names {
            match LocalModel::load(&directories.find(name)?, options)? {
                LocalModel::Dense(embedder) => embedders.insert(Arc::new(embedder)),
                LocalModel::Sparse(embedder) => embedders.insert_sparse(Arc::new(embedder)),
            }
        }
        Ok(embedders)
    }

    /// Adds an embedder under its model's name; it replaces one of the same name.
    pub fn insert(&mut self, embedder: Arc<dyn Embedder>) {
        self.embedders.insert(embedder.model().name.clone(), embedder);
    }

    /// The embedder of the model `name`, if it is served.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Embedder>> {
        self.embedders.get(name).cloned()
    }

    /// Adds a model that other servers compute.
    pub fn insert_remote(&mut self, embedder: RemoteEmbedder) {
        let embedder = Arc::new(embedder);
        self.remote.push(Arc::clone(&embedder));
        self.insert(embedder);
    }

    /// Adds a sparse model that other servers compute.
    pub fn insert_remote_sparse(&mut self, embedder: RemoteSparseEmbedder) {
        let embedder = Arc::new(embedder);
        self.remote_sparse.push(Arc::clone(&embedder));
        self.insert_sparse(embedder);
    }

    /// Asks the other servers whether they can be used, and writes into the log which can. Nothing depends on the
    /// outcome: a server that is away now may be back when it is needed.
    pub fn check(&self) -> impl Future<Output = ()> + Send + use<> {
        let (remote, sparse) = (self.remote.clone(), self.remote_sparse.clone());
        async move {
            let dense = remote.iter().map(|embedder| embedder.check());
            let sparse = sparse.iter().map(|embedder| embedder.check());
            join(join_all(dense), join_all(sparse)).await;
        }
    }

    /// Adds a sparse embedder under its model's name; it replaces one of the same name.
    pub fn insert_sparse(&mut self, embedder: Arc<dyn SparseEmbedder>) {
        self.sparse.insert(embedder.model().to_owned(), embedder);
    }

    /// The embedder of the sparse model `name`, if it is served.
    pub fn sparse(&self, name: &str) -> Option<Arc<dyn SparseEmbedder>> {
        self.sparse.get(name).cloned()
    }

    /// The sparse models served, in the order of their names.
    pub fn sparse_names(&self) -> Vec<String> {
        self.sparse.keys().cloned().collect()
    }

    /// The dense models served, by name.
    pub fn catalog(&self) -> Vec<ModelDescription> {
        self.embedders
            .values()
            .map(|embedder| embedder.model().clone())
            .collect()
    }
}

impl std::fmt::Debug for Embedders {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Embedders")
            .field("dense", &self.catalog())
            .field("sparse", &self.sparse_names())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use futures::future::BoxFuture;

    use super::*;
    use crate::embed::{EmbedError, EmbeddedText, Purpose};

    struct Constant(ModelDescription);

    impl Embedder for Constant {
        fn model(&self) -> &ModelDescription {
            &self.0
        }

        fn embed(
            &self,
            texts: Vec<Arc<str>>,
            _purpose: Purpose,
            _instruction: &str,
        ) -> BoxFuture<'_, Result<Vec<EmbeddedText>, EmbedError>> {
            let embedded = EmbeddedText {
                vector: vec![1.0],
                tokens: 1,
                truncated: false,
            };
            Box::pin(async move { Ok(vec![embedded; texts.len()]) })
        }
    }

    fn description(name: &str, max_tokens: u32) -> ModelDescription {
        ModelDescription {
            name: name.to_owned(),
            dimensions: 1,
            max_tokens,
            takes_instructions: false,
        }
    }

    #[test]
    fn models_are_found_by_name_and_listed_in_order() {
        let mut embedders = Embedders::new();
        for (name, max_tokens) in [("b/b", 1), ("a/a", 2), ("b/b", 3)] {
            embedders.insert(Arc::new(Constant(description(name, max_tokens))));
        }
        assert_eq!(
            embedders.catalog(),
            [description("a/a", 2), description("b/b", 3)]
        );
        assert_eq!(embedders.get("b/b").unwrap().model().max_tokens, 3);
        assert!(embedders.get("c/c").is_none());
    }

    #[test]
    fn a_model_that_is_not_there_fails_the_loading() {
        let options = LocalOptions::default();
        let error = Embedders::load_local(["a/b"], &ModelDirectories::default(), options).unwrap_err();
        assert!(matches!(error, LoadError::Missing { .. }), "{error}");
    }
}
