//! Sources: what is synced, and with which settings. A source never changes after its creation.

use std::fmt;

use sha2::{Digest, Sha256};

use super::{
    chunking::Chunking,
    embedding::Embedding,
    globs::Globs,
    ids::SourceId,
    names::{DatabaseName, TenantName},
    time::Timestamp,
    webhook::Webhook,
};
use crate::error::FieldViolation;

/// The kind of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceType {
    /// A git repository on GitHub or another host.
    Github,
}

impl SourceType {
    /// Every type this server knows.
    pub const ALL: [Self; 1] = [Self::Github];

    /// The name in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Github => "github",
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

/// `owner/name` of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepositoryName(String);

impl RepositoryName {
    /// Reads `owner/name`, or the URL of a GitHub repository with or without `.git`.
    ///
    /// # Errors
    /// The violation names `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldViolation> {
        let problem = || {
            FieldViolation::new(
                field,
                "must be 'owner/name' or the URL of a GitHub repository, such as 'chroma-core/chroma'",
            )
        };
        let lowered = text.trim().to_ascii_lowercase();
        let stripped = [
            "https://github.com/",
            "http://github.com/",
            "https://www.github.com/",
            "git@github.com:",
        ]
        .iter()
        .find(|prefix| lowered.starts_with(**prefix))
        .and_then(|prefix| text.trim().get(prefix.len()..))
        .unwrap_or(text.trim());
        let path = stripped.strip_suffix('/').unwrap_or(stripped);
        let path = path.strip_suffix(".git").unwrap_or(path);
        let (owner, name) = path.split_once('/').ok_or_else(problem)?;
        // Git hosts serve `name` and `name.git` as one repository, so none is called `name.git`.
        if is_segment(owner) && is_segment(name) && !name.ends_with(".git") {
            Ok(Self(format!("{owner}/{name}")))
        } else {
            Err(problem())
        }
    }

    /// Takes a name that was checked before it was stored.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// `owner/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A path segment that no git host reads as something else: no separators, no dot segments.
fn is_segment(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=100).contains(&text.len())
        && text.chars().all(allowed)
        && !text.chars().all(|c| c == '.')
        && !text.starts_with('-')
}

/// Id of a GitHub App, as GitHub shows it: digits, or a client id such as `Iv1.8a61f9b3a7aba766`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GithubAppId(String);

impl GithubAppId {
    /// 1 to 100 letters, digits, `.`, `_` or `-`; the violation names `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldViolation> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if (1..=100).contains(&text.len()) && text.chars().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(FieldViolation::new(
            field,
            "must be the id of a GitHub App: 1 to 100 letters, digits, '.', '_' or '-'",
        ))
    }

    /// Takes an id that was checked before it was stored.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GithubAppId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Settings of a GitHub source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GithubSource {
    /// Which repository.
    pub repository: RepositoryName,
    /// Which GitHub App gives access to it; none for a public repository.
    pub app_id: Option<GithubAppId>,
    /// Which files are synced; `None` when the caller gave no list.
    pub include_globs: Option<Globs>,
}

/// The settings that belong to one type of source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSettings {
    /// A git repository.
    Github(GithubSource),
}

impl SourceSettings {
    /// The type these settings belong to.
    pub fn source_type(&self) -> SourceType {
        match self {
            Self::Github(_) => SourceType::Github,
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
    /// SHA-256 over everything that makes two sources the same: database, type settings, model, chunking.
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
        }
        put(&self.embedding.model);
        match self.chunking {
            Chunking::TreeSitter { max_size_bytes } => put(&format!("tree_sitter {max_size_bytes}")),
            Chunking::Lines {
                max_lines,
                max_size_bytes,
            } => put(&format!("lines {max_lines} {max_size_bytes}")),
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
    use crate::domain::embedding::{MINILM, ModelForm};

    #[test]
    fn a_repository_is_read_from_a_name_or_a_url() {
        for text in [
            "chroma-core/chroma",
            "https://github.com/chroma-core/chroma",
            "https://github.com/chroma-core/chroma.git",
            "https://GitHub.com/chroma-core/chroma/",
            "git@github.com:chroma-core/chroma.git",
        ] {
            let name = RepositoryName::parse("github.repository", text).unwrap();
            assert_eq!(name.as_str(), "chroma-core/chroma", "{text}");
        }
    }

    #[test]
    fn what_is_not_a_repository_is_refused() {
        for text in [
            "",
            "a",
            "a/",
            "/b",
            "a/b/c",
            "../b",
            "a/..",
            "a b/c",
            "https://gitlab.com/a/b",
            "-a/b",
            "a/b\0",
            "a/b.git.git",
        ] {
            assert!(
                RepositoryName::parse("github.repository", text).is_err(),
                "{text:?}"
            );
        }
    }

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
}
