//! GitHub sources: repositories, Apps, and which files are synced.

use std::fmt;

use super::globs::Globs;
use crate::error::FieldViolation;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
