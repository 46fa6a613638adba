//! Sources: what is synced, and with which settings. A source never changes after its creation.

use sha2::{Digest, Sha256};

pub use super::github::{GithubAppId, GithubSource, RepositoryName};
use super::{
    chunking::Chunking,
    credential::{AwsCredentialId, AwsKeys},
    embedding::{Embedding, SparseSettings, Task},
    ids::SourceId,
    names::{CollectionName, DatabaseName, TenantName},
    path_patterns::PathPatterns,
    s3::{AutoSync, BucketName, PathPrefix, Region},
    time::Timestamp,
    web::StartingUrl,
    webhook::Webhook,
};
use crate::error::FieldViolation;

/// The kind of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceType {
    /// A git repository on GitHub or another host.
    Github,
    /// Objects of a bucket.
    S3,
    /// A web site.
    WebScrape,
    /// Uploaded files.
    FileUpload,
}

impl SourceType {
    /// Every type this server knows.
    pub const ALL: [Self; 4] = [Self::Github, Self::S3, Self::WebScrape, Self::FileUpload];

    /// The name in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::S3 => "s3",
            Self::WebScrape => "web_scrape",
            Self::FileUpload => "file_upload",
        }
    }

    /// The type with this name; the violation names `field`.
    pub fn parse(field: &str, name: &str) -> Result<Self, FieldViolation> {
        Self::ALL
            .into_iter()
            .find(|known| known.as_str() == name)
            .ok_or_else(|| {
                let names: Vec<&str> = Self::ALL.iter().map(|known| known.as_str()).collect();
                FieldViolation::new(field, format!("must be one of {}, is {name:?}", names.join(", ")))
            })
    }
}

/// Settings of an S3 source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Source {
    /// The bucket.
    pub bucket: BucketName,
    /// Where it lies.
    pub region: Region,
    /// Collection of invocations that name none.
    pub collection: CollectionName,
    /// What reads the bucket.
    pub credential: S3Credential,
    /// What the keys of all objects begin with; none for every object.
    pub path_prefix: Option<PathPrefix>,
    /// What creates invocations beside callers.
    pub auto_sync: AutoSync,
}

/// What reads a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Credential {
    /// A stored credential of the tenant.
    Stored(AwsCredentialId),
    /// A key that came with the request and is to be stored first. No stored source has one.
    Given(AwsKeys),
}

/// Settings of a web site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebScrapeSource {
    /// Where the crawl begins; the crawl stays within its origin.
    pub starting_url: StartingUrl,
    /// The most pages that become documents; none for what the server allows.
    pub page_limit: Option<u32>,
    /// The most links from the starting URL to a page; none for any number.
    pub max_depth: Option<u32>,
    /// What the path of a page must match; none for every path.
    pub include_paths: Option<PathPatterns>,
    /// What the path of a page must not match.
    pub exclude_paths: Option<PathPatterns>,
}

/// The settings that belong to one type of source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSettings {
    /// A git repository.
    Github(GithubSource),
    /// Objects of a bucket.
    S3(S3Source),
    /// A web site.
    WebScrape(WebScrapeSource),
    /// Uploaded files.
    FileUpload,
}

impl SourceSettings {
    /// The type these settings belong to.
    pub fn source_type(&self) -> SourceType {
        match self {
            Self::Github(_) => SourceType::Github,
            Self::S3(_) => SourceType::S3,
            Self::WebScrape(_) => SourceType::WebScrape,
            Self::FileUpload => SourceType::FileUpload,
        }
    }
}

/// What a caller asks for when creating a source; everything is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSource {
    /// Database that its collections belong to.
    pub database: DatabaseName,
    /// Settings of its type.
    pub settings: SourceSettings,
    /// Its model.
    pub embedding: Embedding,
    /// Its chunking.
    pub chunking: Chunking,
    /// Where the state changes of its invocations are sent to.
    pub webhook: Option<Webhook>,
}

impl NewSource {
    /// SHA-256 over everything that makes two sources the same: database, type settings, models with their task
    /// and key, chunking. The prompt for queries is part of it, since collections keep it for their clients.
    ///
    /// The order of the globs does not matter, nor does the form in which the model was written, nor where
    /// state changes are sent to.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut put = |text: &str| {
            hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(text.as_bytes());
        };
        put(self.database.as_str());
        put(self.settings.source_type().as_str());
        match &self.settings {
            SourceSettings::Github(GithubSource {
                repository,
                app_id,
                include_globs,
            }) => {
                // GitHub compares owner and name without regard to case.
                put(&repository.as_str().to_ascii_lowercase());
                put(app_id.as_ref().map_or("", GithubAppId::as_str));
                let mut patterns: Vec<&String> =
                    include_globs.iter().flat_map(|globs| globs.patterns()).collect();
                patterns.sort_unstable();
                patterns.dedup();
                for pattern in patterns {
                    put(pattern);
                }
            }
            SourceSettings::S3(S3Source {
                bucket,
                region,
                collection,
                credential,
                path_prefix,
                auto_sync,
            }) => {
                put(bucket.as_str());
                put(region.as_str());
                put(collection.as_str());
                match credential {
                    S3Credential::Stored(id) => put(&id.to_string()),
                    S3Credential::Given(keys) => put(&keys.access_key_id),
                }
                put(path_prefix.as_ref().map_or("", PathPrefix::as_str));
                put(auto_sync.as_str());
            }
            SourceSettings::WebScrape(WebScrapeSource {
                starting_url,
                page_limit,
                max_depth,
                include_paths,
                exclude_paths,
            }) => {
                put(starting_url.as_str());
                for number in [page_limit, max_depth] {
                    put(&number.map_or_else(String::new, |number| number.to_string()));
                }
                for patterns in [include_paths, exclude_paths] {
                    let mut patterns: Vec<&String> =
                        patterns.iter().flat_map(|paths| paths.patterns()).collect();
                    patterns.sort_unstable();
                    patterns.dedup();
                    put(&patterns.len().to_string());
                    for pattern in patterns {
                        put(pattern);
                    }
                }
            }
            // A database has one, whatever its model: that of the server may have changed since.
            SourceSettings::FileUpload => return hash.finalize().into(),
        }
        put(&self.embedding.model);
        match self.chunking {
            Chunking::TreeSitter { max_size_bytes } => put(&format!("tree_sitter {max_size_bytes}")),
            Chunking::Lines {
                max_lines,
                max_size_bytes,
            } => put(&format!("lines {max_lines} {max_size_bytes}")),
        }
        // What a source of an earlier release did not have adds nothing, so its fingerprint stays what it was.
        if let Some(Task {
            name,
            document_prompt,
            query_prompt,
        }) = &self.embedding.task
        {
            for text in ["task", name, document_prompt, query_prompt] {
                put(text);
            }
        }
        if let Some(SparseSettings { model, key }) = &self.embedding.sparse {
            for text in ["sparse", model, key] {
                put(text);
            }
        }
        hash.finalize().into()
    }
}

/// A stored source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its id.
    pub id: SourceId,
    /// Whose it is.
    pub tenant: TenantName,
    /// Database that its collections belong to.
    pub database: DatabaseName,
    /// Settings of its type.
    pub settings: SourceSettings,
    /// Its model.
    pub embedding: Embedding,
    /// Its chunking.
    pub chunking: Chunking,
    /// When it was created.
    pub create_time: Timestamp,
    /// Where the state changes of its invocations are sent to.
    pub webhook: Option<Webhook>,
}

/// Which sources a listing shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceFilter {
    /// Only those of this database.
    pub database: Option<DatabaseName>,
    /// Only those of this type.
    pub source_type: Option<SourceType>,
    /// Only those with this GitHub App.
    pub github_app_id: Option<GithubAppId>,
    /// Only those of this repository.
    pub github_repository: Option<RepositoryName>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        embedding::{BM25, MINILM, ModelForm, SPLADE},
        globs::Globs,
    };

    fn source(globs: &[&str], form: ModelForm) -> NewSource {
        let patterns: Vec<String> = globs.iter().map(|p| (*p).to_owned()).collect();
        NewSource {
            database: DatabaseName::parse("database_name", "db").unwrap(),
            settings: SourceSettings::Github(GithubSource {
                repository: RepositoryName::parse("repository", "a/b").unwrap(),
                app_id: None,
                include_globs: Some(Globs::parse("include_globs", &patterns).unwrap()),
            }),
            embedding: Embedding {
                model: MINILM.to_owned(),
                model_form: form,
                task: None,
                sparse: None,
            },
            chunking: Chunking::TreeSitter {
                max_size_bytes: 1_024,
            },
            webhook: None,
        }
    }

    #[test]
    fn the_fingerprint_ignores_glob_order_and_model_form_but_not_the_globs() {
        let one = source(&["*.rs", "*.md"], ModelForm::String).fingerprint();
        let two = source(&["*.md", "*.rs"], ModelForm::Object).fingerprint();
        let other = source(&["*.md"], ModelForm::Object).fingerprint();
        assert_eq!(one, two);
        assert_ne!(one, other);
    }

    #[test]
    fn the_fingerprint_tells_tasks_and_sparse_settings_apart_and_is_that_of_earlier_releases_without_them() {
        let plain = source(&["*.rs"], ModelForm::Object);
        assert_eq!(
            hex::encode(plain.fingerprint()),
            "450b0ef973d4d9e0145fb278ab1224d61db9a19e7827e30b77a4e674300d2392"
        );
        let sparse = |model: &str, key: &str| SparseSettings {
            model: model.to_owned(),
            key: key.to_owned(),
        };
        let task = |query: &str| Task {
            query_prompt: query.to_owned(),
            ..Task::default()
        };
        let changed: Vec<[u8; 32]> = [
            (Some(task("a")), None),
            (Some(task("b")), None),
            (None, Some(sparse(BM25, "a"))),
            (None, Some(sparse(BM25, "b"))),
            (None, Some(sparse(SPLADE, "a"))),
            (Some(task("a")), Some(sparse(BM25, "a"))),
        ]
        .into_iter()
        .map(|(task, sparse)| {
            let mut other = plain.clone();
            (other.embedding.task, other.embedding.sparse) = (task, sparse);
            other.fingerprint()
        })
        .chain([plain.fingerprint()])
        .collect();
        let distinct: std::collections::BTreeSet<&[u8; 32]> = changed.iter().collect();
        assert_eq!(distinct.len(), changed.len());
    }
}
