//! What a caller may see. Every read on a caller's behalf has a select or a condition made here, or passes
//! its row through `Scope::includes`, so none can forget the tenant.
//!
//! Workers read across tenants; they reach an invocation through its lease instead.

use sea_orm::{Condition, EntityTrait, QueryFilter, QuerySelect, Select};

use super::{
    entities::{invocation, source},
    stored::StoredInvocation,
};
use crate::domain::names::{DatabaseName, TenantName};

/// The most databases that a listing asks one by one.
const MERGED_DATABASES: usize = 16;

/// What a caller may see: one tenant, or some of its databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The tenant.
    pub tenant: TenantName,
    /// The only databases; none means all of the tenant's, an empty list means nothing at all.
    pub databases: Option<Vec<DatabaseName>>,
}

impl Scope {
    /// Everything that belongs to `tenant`.
    pub fn tenant(tenant: TenantName) -> Self {
        Self {
            tenant,
            databases: None,
        }
    }

    pub(super) fn select_sources(&self) -> Select<source::Entity> {
        source::Entity::find().filter(self.sources())
    }

    /// Selects [`StoredInvocation::COLUMNS`].
    pub(super) fn select_invocations(&self) -> Select<invocation::Entity> {
        invocation::Entity::find()
            .select_only()
            .columns(StoredInvocation::COLUMNS)
            .filter(self.invocations())
    }

    pub(super) fn sources(&self) -> Condition {
        Condition::all()
            .add(source::COLUMN.tenant.eq(self.tenant.as_str()))
            .add_option(
                self.database_names()
                    .map(|names| source::COLUMN.database_name.is_in(names)),
            )
    }

    pub(super) fn invocations(&self) -> Condition {
        Condition::all()
            .add(invocation::COLUMN.tenant.eq(self.tenant.as_str()))
            .add_option(
                self.database_names()
                    .map(|names| invocation::COLUMN.database_name.is_in(names)),
            )
    }

    /// Scopes of one database each, for a listing that merges them: ordered by id, the rows of one
    /// database are a stretch of an index, those of several are not. A scope of all databases, or of too
    /// many to ask one by one, stays as it is.
    pub(super) fn by_database(&self) -> Vec<Self> {
        let mut databases = self.databases.clone().unwrap_or_default();
        // A name that was given twice would list its rows twice.
        databases.sort();
        databases.dedup();
        if !(2..=MERGED_DATABASES).contains(&databases.len()) {
            return vec![self.clone()];
        }
        let scope_of = |database| Self {
            tenant: self.tenant.clone(),
            databases: Some(vec![database]),
        };
        databases.into_iter().map(scope_of).collect()
    }

    /// Whether a row of this tenant and database is in scope: what the conditions above say, for a row
    /// that was read together with those of other callers.
    pub(super) fn includes(&self, tenant: &TenantName, database: &DatabaseName) -> bool {
        let databases = self.databases.as_ref();
        self.tenant == *tenant && databases.is_none_or(|databases| databases.contains(database))
    }

    fn database_names(&self) -> Option<Vec<&str>> {
        let databases = self.databases.as_ref()?;
        Some(databases.iter().map(DatabaseName::as_str).collect())
    }
}
