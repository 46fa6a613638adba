//! S3 sources: buckets, regions, keys of objects, and what calls for their synchronisation.
//!
//! Source of the rules: *Bucket naming rules* and *Naming Amazon S3 objects* of the Amazon S3 User Guide.
//! Names of buckets and regions become parts of host names, so nothing else may pass. Keys are opaque: S3
//! compares them byte by byte, and so does everything here; a prefix is one of text, not of directories.

use std::fmt;

use crate::error::FieldViolation;

/// The longest key of an object, in bytes of UTF-8.
pub const MAX_OBJECT_KEY_BYTES: usize = 1_024;
/// The longest custom id, in bytes: with `-` and a number it stays a record id that any Chroma server takes.
pub const MAX_CUSTOM_ID_BYTES: usize = 120;

const NOT_A_BUCKET: &str = "must be the name of a bucket: 3 to 63 lowercase letters, digits, '-' and '.', beginning \
     and ending with a letter or digit; 's3://NAME' and 'arn:aws:s3:::NAME' are read as well";

/// The name of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketName(String);

impl BucketName {
    /// Reads a bucket's name, its `s3://` URL or its ARN; the violation names `field`.
    ///
    /// # Errors
    /// What is no name, and what names more than a bucket: a key behind it belongs into the path prefix.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldViolation> {
        let refused = |problem: &str| Err(FieldViolation::new(field, problem));
        let text = text.trim();
        let name = match (text.strip_prefix("s3://"), text.strip_prefix("arn:")) {
            (Some(rest), _) => rest.strip_suffix('/').unwrap_or(rest),
            (None, Some(arn)) => {
                let parts: Vec<&str> = arn.splitn(5, ':').collect();
                match parts.as_slice() {
                    [partition, "s3", "", "", name] if partition.starts_with("aws") => *name,
                    _ => {
                        return refused(
                            "must be the ARN of a bucket, such as 'arn:aws:s3:::NAME'; access points are not \
                             supported",
                        );
                    }
                }
            }
            (None, None) => text,
        };
        if name.contains('/') {
            return refused("must name a bucket alone; the beginning of the keys goes into path_prefix");
        }
        if is_bucket_name(name) {
            Ok(Self(name.to_owned()))
        } else {
            refused(NOT_A_BUCKET)
        }
    }

    /// Takes a name that was checked before it was stored.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Labels of a host name, that do not read as an IPv4 address.
fn is_bucket_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(label.chars().next())
            && edge(label.chars().next_back())
            && label
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    (3..=63).contains(&name.len())
        && name.split('.').all(is_label)
        && name.parse::<std::net::Ipv4Addr>().is_err()
}

/// A region, such as `us-east-1`, or what another service than AWS calls one, such as `auto`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region(String);

impl Region {
    /// 1 to 63 lowercase letters, digits and `-`, beginning and ending with a letter or digit; the violation
    /// names `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldViolation> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let right = (1..=63).contains(&text.len())
            && text.chars().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if right {
            return Ok(Self(text.to_owned()));
        }
        Err(FieldViolation::new(
            field,
            "must be a region in lowercase, such as 'us-east-1': 1 to 63 letters, digits and '-', beginning and \
             ending with a letter or digit",
        ))
    }

    /// Takes a region that was checked before it was stored.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The region.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Region {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What the keys of a source's objects begin with. Never empty: a source of all objects has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// At most 1,024 bytes without NUL characters; an empty text is no prefix. The violation names `field`.
    pub fn parse(field: &str, text: &str) -> Result<Option<Self>, FieldViolation> {
        check_key(field, text)?;
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    /// Takes a prefix that was checked before it was stored; an empty text is none.
    pub fn from_stored(text: String) -> Option<Self> {
        (!text.is_empty()).then_some(Self(text))
    }

    /// The prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The whole key of an object within its bucket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// 1 to 1,024 bytes without NUL characters, beginning with the source's `prefix` where it has one; the
    /// violation names `field`.
    pub fn parse(field: &str, text: &str, prefix: Option<&PathPrefix>) -> Result<Self, FieldViolation> {
        if text.is_empty() {
            return Err(FieldViolation::new(field, "must not be empty"));
        }
        check_key(field, text)?;
        match prefix {
            Some(prefix) if !text.starts_with(prefix.as_str()) => Err(FieldViolation::new(
                field,
                format!(
                    "must be the whole key, beginning with the source's path_prefix {:?}, is {text:?}",
                    prefix.as_str()
                ),
            )),
            Some(_) | None => Ok(Self(text.to_owned())),
        }
    }

    /// Takes a key that was checked before it was stored.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The rules that keys and their beginnings have in common. PostgreSQL stores no NUL characters in texts.
fn check_key(field: &str, text: &str) -> Result<(), FieldViolation> {
    if text.len() > MAX_OBJECT_KEY_BYTES {
        let problem = format!(
            "must have at most {MAX_OBJECT_KEY_BYTES} bytes, has {}",
            text.len()
        );
        return Err(FieldViolation::new(field, problem));
    }
    if text.contains('\0') {
        return Err(FieldViolation::new(field, "must not contain NUL characters"));
    }
    Ok(())
}

/// The id that a caller gives to an object or upload: its records are called `{custom_id}-{n}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomId(String);

impl CustomId {
    /// 1 to 120 bytes without control characters; the violation names `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldViolation> {
        if !(1..=MAX_CUSTOM_ID_BYTES).contains(&text.len()) {
            let problem = format!("must have 1 to {MAX_CUSTOM_ID_BYTES} bytes, has {}", text.len());
            return Err(FieldViolation::new(field, problem));
        }
        if text.chars().any(char::is_control) {
            return Err(FieldViolation::new(field, "must not contain control characters"));
        }
        Ok(Self(text.to_owned()))
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

impl fmt::Display for CustomId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What creates invocations of an S3 source beside its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AutoSync {
    /// Nothing.
    #[default]
    None,
    /// Every change of an object.
    Direct,
    /// Changes of `.meta.json` files alone, which name the object and carry its metadata.
    Metadata,
}

impl AutoSync {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::None, Self::Direct, Self::Metadata];

    /// The name in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Direct => "direct",
            Self::Metadata => "metadata",
        }
    }

    /// The mode with this name; the violation names `field`.
    pub fn parse(field: &str, name: &str) -> Result<Self, FieldViolation> {
        Self::from_name(name).ok_or_else(|| {
            FieldViolation::new(
                field,
                format!("must be one of none, direct, metadata, is {name:?}"),
            )
        })
    }

    /// The mode with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_read_from_its_name_its_url_and_its_arn() {
        for text in [
            "my.bucket-1",
            " my.bucket-1 ",
            "s3://my.bucket-1",
            "s3://my.bucket-1/",
            "arn:aws:s3:::my.bucket-1",
            "arn:aws-cn:s3:::my.bucket-1",
        ] {
            let bucket = BucketName::parse("s3.bucket_name", text).unwrap();
            assert_eq!(bucket.as_str(), "my.bucket-1", "{text}");
        }
    }

    #[test]
    fn what_is_not_one_bucket_is_refused_with_what_to_do() {
        for text in [
            "",
            "ab",
            "Bucket",
            "a_b",
            "-abc",
            "abc-",
            "a..b",
            "a.-b",
            "192.168.0.1",
            "evil.example.com:80",
            "bucket#",
            "bucket@host",
            "bücket",
            &"a".repeat(64),
        ] {
            let violation = BucketName::parse("s3.bucket_name", text).unwrap_err();
            assert_eq!(violation.field, "s3.bucket_name", "{text}");
            assert_eq!(violation.description, NOT_A_BUCKET, "{text}");
        }
        for (text, hint) in [
            ("s3://bucket/docs/", "path_prefix"),
            ("bucket/docs", "path_prefix"),
            ("arn:aws:s3:::bucket/docs", "path_prefix"),
            (
                "arn:aws:s3:us-east-1:123456789012:accesspoint/mine",
                "access points are not supported",
            ),
        ] {
            let violation = BucketName::parse("s3.bucket_name", text).unwrap_err();
            assert!(
                violation.description.contains(hint),
                "{text}: {}",
                violation.description
            );
        }
    }

    #[test]
    fn a_region_is_one_label_of_a_host_name() {
        for good in [
            "us-east-1",
            "ap-southeast-4",
            "auto",
            "fr-par",
            "nyc3",
            "eu-central-003",
        ] {
            assert!(Region::parse("s3.region", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "US-EAST-1",
            "us.east",
            "-a",
            "a-",
            "us east 1",
            "a/b",
            "a#",
            &"a".repeat(64),
        ] {
            assert_eq!(
                Region::parse("s3.region", bad).unwrap_err().field,
                "s3.region",
                "{bad}"
            );
        }
    }

    #[test]
    fn an_object_key_begins_with_the_prefix_of_its_source() {
        let prefix = PathPrefix::parse("s3.path_prefix", "docs/v1").unwrap();
        for good in ["docs/v1/a.md", "docs/v10.md", "docs/v1"] {
            assert!(
                ObjectKey::parse("object_key", good, prefix.as_ref()).is_ok(),
                "{good}"
            );
        }
        let violation = ObjectKey::parse("object_key", "a.md", prefix.as_ref()).unwrap_err();
        assert_eq!(
            violation.description,
            r#"must be the whole key, beginning with the source's path_prefix "docs/v1", is "a.md""#
        );
        assert!(ObjectKey::parse("object_key", "a.md", None).is_ok());
        assert_eq!(PathPrefix::parse("s3.path_prefix", "").unwrap(), None);
    }

    #[test]
    fn keys_and_prefixes_are_bounded_in_bytes() {
        let umlauts = "ü".repeat(512);
        assert!(ObjectKey::parse("object_key", &umlauts, None).is_ok());
        for bad in [String::new(), format!("{umlauts}a"), "a\0b".to_owned()] {
            assert!(ObjectKey::parse("object_key", &bad, None).is_err(), "{bad:?}");
        }
        for bad in [format!("{umlauts}a"), "a\0b".to_owned()] {
            assert!(PathPrefix::parse("s3.path_prefix", &bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_custom_id_has_one_to_a_hundred_and_twenty_bytes() {
        for good in ["a", "invoice 7/2026", &"x".repeat(120), &"ü".repeat(60)] {
            assert!(CustomId::parse("custom_id", good).is_ok(), "{good}");
        }
        for bad in ["", &"x".repeat(121), &"ü".repeat(61), "a\nb", "a\0"] {
            assert!(CustomId::parse("custom_id", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_mode_is_found_by_its_name() {
        for mode in AutoSync::ALL {
            assert_eq!(AutoSync::parse("s3.auto_sync", mode.as_str()), Ok(mode));
        }
        let violation = AutoSync::parse("s3.auto_sync", "always").unwrap_err();
        assert_eq!(
            violation.description,
            r#"must be one of none, direct, metadata, is "always""#
        );
    }
}
