//! API keys: who may call the service, and what for.
//!
//! Absent on purpose: the token. It is shown once, when it is made; afterwards only its SHA-256
//! exists, so whoever reads the database cannot call the service.

use super::{
    ids::ApiKeyId,
    names::{DatabaseName, TenantName},
    time::Timestamp,
};
use crate::error::FieldViolation;

/// What the holder of a key may do within its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything.
    Owner,
    /// Everything; kept apart from the owner because Chroma Sync names both roles.
    Admin,
    /// Reads sources, and creates, reads and cancels invocations.
    Member,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Owner, Self::Admin, Self::Member];

    /// The name in SQL and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    /// The role with this name.
    ///
    /// # Errors
    /// The violation names `field` and lists the roles.
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

/// What is kept of a key when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApiKey {
    /// What its owner calls it; need not be unique.
    pub name: String,
    /// The tenant it opens.
    pub tenant: TenantName,
    /// What its holder may do.
    pub role: Role,
    /// SHA-256 of the token.
    pub token_sha256: [u8; 32],
    /// The only databases it opens; none opens all of the tenant's.
    pub databases: Option<Vec<DatabaseName>>,
    /// From when on it is refused; none means never.
    pub expire_time: Option<Timestamp>,
}

/// A stored key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id; not the token.
    pub id: ApiKeyId,
    /// What its owner calls it.
    pub name: String,
    /// The tenant it opens.
    pub tenant: TenantName,
    /// What its holder may do.
    pub role: Role,
    /// The only databases it opens; none opens all of the tenant's.
    pub databases: Option<Vec<DatabaseName>>,
    /// When it was created.
    pub create_time: Timestamp,
    /// From when on it is refused; none means never.
    pub expire_time: Option<Timestamp>,
    /// When it was revoked.
    pub revoke_time: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_role_is_read_back_from_its_name() {
        for role in Role::ALL {
            assert_eq!(Role::parse("role", role.as_str()), Ok(role));
        }
        let violation = Role::parse("role", "root").unwrap_err();
        assert_eq!(violation.field, "role");
        assert_eq!(
            violation.description,
            "must be one of owner, admin, member, is \"root\""
        );
    }
}
