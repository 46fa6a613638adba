//! Names that Chroma gives meaning to: tenants, databases, collections; and those of files.
//!
//! Source of the rules: Chroma 1.5 answers a collection name outside 3 to 512 characters of
//! `[a-zA-Z0-9._-]`, or one that does not start and end with a letter or digit, with
//! InvalidArgumentError. Database and tenant names travel as one path segment of Chroma's API, so
//! they are bounded and carry no control characters.

use std::fmt;

use crate::error::FieldViolation;

/// The longest tenant or database name, in bytes.
pub const MAX_NAME_BYTES: usize = 512;

/// The longest name of a file, in bytes; as long as the key of an object may be.
pub const MAX_FILE_NAME_BYTES: usize = 1_024;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks `text`; the violation names `field`.
            pub fn parse(field: &str, text: &str) -> Result<Self, FieldViolation> {
                $check(text)
                    .map(|()| Self(text.to_owned()))
                    .map_err(|problem| FieldViolation::new(field, problem))
            }

            /// Takes a name that was checked before it was stored.
            pub fn from_stored(text: String) -> Self {
                Self(text)
            }

            /// The name itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A tenant; our tenants are Chroma's tenants.
    TenantName, check_plain
);
name!(
    /// A database of the Chroma server, within a tenant.
    DatabaseName, check_plain
);
name!(
    /// A collection of the Chroma server, within a database.
    CollectionName, check_collection
);
name!(
    /// An uploaded file, as its caller calls it. Only ever a key, never a path of this machine.
    FileName, check_file
);

impl TenantName {
    /// Chroma's own default, used when a key names no tenant.
    pub fn default_tenant() -> Self {
        Self("default_tenant".to_owned())
    }
}

fn check_plain(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(format!(
            "must have at most {MAX_NAME_BYTES} bytes, has {}",
            text.len()
        ));
    }
    if text.chars().any(|c| c.is_control() || c == '/') || text == "." || text == ".." {
        return Err("must be one path segment: no '/', no control characters, not '.' or '..'".to_owned());
    }
    Ok(())
}

fn check_file(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > MAX_FILE_NAME_BYTES {
        return Err(format!(
            "must have 1 to {MAX_FILE_NAME_BYTES} bytes, has {}",
            text.len()
        ));
    }
    if text.chars().any(char::is_control) {
        return Err("must have no control characters".to_owned());
    }
    Ok(())
}

fn check_collection(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if !(3..=512).contains(&text.len()) {
        return Err(format!(
            "must have 3 to 512 characters, has {}",
            text.chars().count()
        ));
    }
    if !text.chars().all(allowed) {
        return Err("may contain only letters, digits, '.', '_' and '-'".to_owned());
    }
    if !edge(text.chars().next()) || !edge(text.chars().next_back()) {
        return Err("must start and end with a letter or digit".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collection_names_follow_chromas_rules() {
        for good in ["abc", "a.b-c_d", "A1z", &"x".repeat(512)] {
            assert!(
                CollectionName::parse("target_collection_name", good).is_ok(),
                "{good}"
            );
        }
        for bad in ["", "ab", "-ab", "ab-", "a b", "äbc", "a/b", &"x".repeat(513)] {
            let violation = CollectionName::parse("target_collection_name", bad).unwrap_err();
            assert_eq!(violation.field, "target_collection_name", "{bad}");
        }
    }

    #[test]
    fn a_file_may_be_called_almost_anything() {
        for good in [
            "a",
            "Q3 report (final).pdf",
            "docs/ü.md",
            "..",
            &"x".repeat(1_024),
        ] {
            assert!(FileName::parse("file", good).is_ok(), "{good}");
        }
        for bad in ["", "a\nb", "a\0", &"x".repeat(1_025)] {
            assert!(FileName::parse("file", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_database_name_is_one_path_segment() {
        assert!(DatabaseName::parse("database_name", "my database").is_ok());
        for bad in ["", "a/b", "..", "a\0b", &"x".repeat(513)] {
            assert!(DatabaseName::parse("database_name", bad).is_err(), "{bad:?}");
        }
    }
}
