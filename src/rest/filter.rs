//! Query parameters that narrow a listing by the type of the source.

use super::extract::Query;
use crate::{
    domain::source::{GithubAppId, RepositoryName, SourceType},
    error::FieldViolation,
};

/// `source_type`, `github.app_id` and `github.repository`; the latter two need `source_type=github`.
pub(super) struct TypeFilter {
    pub(super) source_type: Option<SourceType>,
    pub(super) github_app_id: Option<GithubAppId>,
    pub(super) github_repository: Option<RepositoryName>,
}

impl TypeFilter {
    pub(super) fn take(query: &mut Query) -> Result<Self, FieldViolation> {
        let filter = Self {
            source_type: query
                .take("source_type")
                .map(|name| SourceType::parse("source_type", &name))
                .transpose()?,
            github_app_id: query
                .take("github.app_id")
                .map(|id| GithubAppId::parse("github.app_id", &id))
                .transpose()?,
            github_repository: query
                .take("github.repository")
                .map(|name| RepositoryName::parse("github.repository", &name))
                .transpose()?,
        };
        let needs_github = [
            ("github.app_id", filter.github_app_id.is_some()),
            ("github.repository", filter.github_repository.is_some()),
        ];
        for (name, given) in needs_github {
            if given && filter.source_type != Some(SourceType::Github) {
                return Err(FieldViolation::new(name, "needs source_type=github"));
            }
        }
        Ok(filter)
    }
}
