//! What the bytes of a file must hash to: as Git names a small file, or SHA-256 as Git LFS names a large one.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// The checksum that the hub names for a file, which is also the name of its blob in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// SHA-256 of the content, in hexadecimal.
    Sha256(String),
    /// SHA-1 of `blob {length}\0` and the content, in hexadecimal.
    GitBlob(String),
}

impl Expected {
    /// Reads the `ETag` or id of a file; none when it is no checksum.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches("W/").trim_matches('"');
        if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        match text.len() {
            64 => Some(Self::Sha256(text.to_owned())),
            40 => Some(Self::GitBlob(text.to_owned())),
            _ => None,
        }
    }

    /// In hexadecimal.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Sha256(name) | Self::GitBlob(name) => name,
        }
    }

    /// For people.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::GitBlob(_) => "Git blob id",
        }
    }

    /// Begins to hash a file of `size` bytes.
    pub(super) fn hasher(&self, size: u64) -> Hasher {
        let context = match self {
            Self::Sha256(_) => Context::new(&SHA256),
            Self::GitBlob(_) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {size}\0").as_bytes());
                context
            }
        };
        Hasher(context)
    }
}

/// Hashes a file as it comes.
#[derive(Clone)]
pub(super) struct Hasher(Context);

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Takes up what an earlier run left; returns its length.
    pub(super) fn update_from(&mut self, path: &Path) -> io::Result<u64> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        let mut length = 0;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(length);
            }
            self.0.update(&buffer[..read]);
            length += read as u64;
        }
    }

    /// Whether all that was hashed is what was expected.
    pub(super) fn matches(self, expected: &Expected) -> bool {
        hex::encode(self.0.finish()) == expected.name()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    /// What `git hash-object` and `sha256sum` say of "hello\n".
    const BLOB: &str = "ce013625030ba8dba906f756967f9e9ca394464a";
    const SHA256_HEX: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    #[test]
    fn a_small_file_hashes_as_git_does_and_a_large_one_as_sha256sum() {
        for name in [BLOB, SHA256_HEX] {
            let expected = Expected::parse(&format!("\"{name}\"")).unwrap();
            assert_eq!(expected.name(), name);
            let mut hasher = expected.hasher(6);
            hasher.update(b"hel");
            hasher.update(b"lo\n");
            assert!(hasher.clone().matches(&expected));
            hasher.update(b"x");
            assert!(!hasher.matches(&expected));
        }
    }

    #[test]
    fn what_an_earlier_run_left_is_taken_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("part");
        std::fs::write(&path, "hello").unwrap();
        let expected = Expected::parse(SHA256_HEX).unwrap();
        let mut hasher = expected.hasher(6);
        assert_eq!(hasher.update_from(&path).unwrap(), 5);
        hasher.update(b"\n");
        assert!(hasher.matches(&expected));
    }

    #[test]
    fn an_etag_that_is_no_checksum_is_none() {
        let upper = BLOB.to_ascii_uppercase();
        for text in ["", "abc", "W/\"5-abc\"", &format!("{BLOB}/../x"), &upper] {
            assert_eq!(Expected::parse(text), None, "{text}");
        }
        assert!(Expected::parse(&format!("W/\"{BLOB}\"")).is_some());
    }
}
