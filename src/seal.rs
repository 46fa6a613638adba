//! Secrets at rest: sealed with AES-256-GCM under the key of the deployment.
//!
//! A sealed secret is one version byte, the first bytes of a digest of its key, a random nonce of 12 bytes,
//! the ciphertext and its tag of 16 bytes. It opens only with the same key and the same context, so a row
//! that is copied to another tenant opens nothing. Version 1, which only opens, did not say which key it was
//! sealed with. Keys of before open what they sealed and seal nothing, so that a key can be replaced while
//! the service runs. Absent on purpose: any place to keep the result; that is `store`'s.

use std::{
    fmt,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};

pub use crate::secret::Sealed;
use crate::secret::Secret;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes that tell which key a secret was sealed with.
const KEY_ID_BYTES: usize = 4;
/// The first byte of everything sealed.
const VERSION: u8 = 2;
/// The first byte of what was sealed before keys had ids.
const VERSION_WITHOUT_KEY_ID: u8 = 1;

/// Why a key cannot be used, or a secret not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The configured key has the wrong form.
    #[error("encryption.key must be {} hexadecimal digits, as `openssl rand -hex 32` makes them", KEY_BYTES * 2)]
    InvalidKey,
    /// A configured key of before has the wrong form.
    #[error("encryption.previous_keys[{index}] must be {} hexadecimal digits", KEY_BYTES * 2)]
    InvalidPreviousKey {
        /// Its position, from 0.
        index: usize,
    },
    /// The key file cannot be read or made.
    #[error("the key file {path} (encryption.key_file) cannot be used")]
    KeyFile {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key file can be read by others.
    #[error("the key file {path} may be read by others; run: chmod 600 {path}")]
    KeyFileExposed {
        /// Its path.
        path: PathBuf,
    },
    /// The key file holds something else.
    #[error("the key file {path} does not hold {} hexadecimal digits", KEY_BYTES * 2)]
    InvalidKeyFile {
        /// Its path.
        path: PathBuf,
    },
    /// The secret was sealed with another key or for another context, or was altered.
    #[error("a sealed secret does not open with this deployment's encryption key")]
    DoesNotOpen,
}

/// The keys of a deployment: one that seals and opens, and those of before, which open. Clones share them.
#[derive(Clone)]
pub struct SealingKey {
    current: Arc<Current>,
    previous: Arc<[Key]>,
}

/// A key and the bytes it is known by.
struct Key {
    id: [u8; KEY_ID_BYTES],
    key: LessSafeKey,
}

enum Current {
    Ready(Key),
    /// Is read, or made, when something is first sealed or opened.
    InFile(PathBuf, OnceLock<Key>),
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SealingKey")
    }
}

impl SealingKey {
    fn new(current: Current) -> Self {
        Self {
            current: Arc::new(current),
            previous: Arc::default(),
        }
    }

    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`SealError::InvalidKey`].
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        Ok(Self::new(Current::Ready(Key::read(text)?)))
    }

    /// Reads the key of a file, which is made with a new key and mode 0600 when it is missing.
    ///
    /// # Errors
    /// The file cannot be read or made, holds no key, or can be read by others.
    pub fn from_file(path: &Path) -> Result<Self, SealError> {
        let key = Self::from_file_when_needed(path);
        key.current()?;
        Ok(key)
    }

    /// The key of a file that is read, or made, when something is first sealed or opened; a deployment
    /// without secrets needs none.
    pub fn from_file_when_needed(path: &Path) -> Self {
        Self::new(Current::InFile(path.to_owned(), OnceLock::new()))
    }

    /// The same, and keys that open what they sealed before: 64 hexadecimal digits each.
    ///
    /// # Errors
    /// [`SealError::InvalidPreviousKey`].
    pub fn with_previous(self, keys: &[Secret]) -> Result<Self, SealError> {
        let read = |(index, key): (usize, &Secret)| {
            Key::read(key.expose()).map_err(|_| SealError::InvalidPreviousKey { index })
        };
        Ok(Self {
            previous: keys.iter().enumerate().map(read).collect::<Result<_, _>>()?,
            ..self
        })
    }

    fn current(&self) -> Result<&Key, SealError> {
        match self.current.as_ref() {
            Current::Ready(key) => Ok(key),
            Current::InFile(path, key) => match key.get() {
                Some(key) => Ok(key),
                None => {
                    let read = read_key_file(path)?;
                    Ok(key.get_or_init(|| read))
                }
            },
        }
    }

    /// Seals a secret for `context`, which must be given again to open it.
    ///
    /// # Errors
    /// Those of the key's file.
    pub fn seal(&self, context: &str, secret: &Secret) -> Result<Sealed, SealError> {
        let current = self.current()?;
        // 2^32 random nonces of 96 bits under one key repeat with a chance below 2^-32 (NIST SP 800-38D, 8.3).
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut text = secret.expose().as_bytes().to_vec();
        current
            .key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.as_bytes()),
                &mut text,
            )
            .map_err(|_| SealError::DoesNotOpen)?;
        let mut sealed = Vec::with_capacity(1 + KEY_ID_BYTES + NONCE_LEN + text.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&current.id);
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut text);
        Ok(Sealed::from_bytes(sealed))
    }

    /// Opens what [`SealingKey::seal`] made for the same context.
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`], and those of the key's file.
    pub fn open(&self, context: &str, sealed: &Sealed) -> Result<Secret, SealError> {
        let (version, rest) = sealed.as_bytes().split_first().ok_or(SealError::DoesNotOpen)?;
        let current = self.current()?;
        let mut keys = std::iter::once(current).chain(self.previous.iter());
        let opened = match *version {
            VERSION => {
                let (id, rest) = rest
                    .split_at_checked(KEY_ID_BYTES)
                    .ok_or(SealError::DoesNotOpen)?;
                keys.filter(|key| key.id == id)
                    .find_map(|key| key.open(context, rest))
            }
            VERSION_WITHOUT_KEY_ID => keys.find_map(|key| key.open(context, rest)),
            _ => None,
        };
        opened.ok_or(SealError::DoesNotOpen)
    }

    /// Whether a secret was sealed in today's form with the key that seals today.
    ///
    /// # Errors
    /// Those of the key's file.
    pub fn is_current(&self, sealed: &Sealed) -> Result<bool, SealError> {
        let beginning = [&[VERSION][..], &self.current()?.id].concat();
        Ok(sealed.as_bytes().starts_with(&beginning))
    }
}

impl Key {
    fn read(text: &str) -> Result<Self, SealError> {
        let mut bytes = [0; KEY_BYTES];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| SealError::InvalidKey)?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| SealError::InvalidKey)?;
        let digest = Sha256::new()
            .chain_update("chroma-sync encryption key")
            .chain_update(bytes)
            .finalize();
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&digest[..KEY_ID_BYTES]);
        Ok(Self {
            id,
            key: LessSafeKey::new(key),
        })
    }

    /// Opens a nonce and what follows it.
    fn open(&self, context: &str, sealed: &[u8]) -> Option<Secret> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(context.as_bytes()), &mut text)
            .ok()?;
        std::str::from_utf8(opened).ok().map(Secret::new)
    }
}

fn read_key_file(path: &Path) -> Result<Key, SealError> {
    let failed = |source| SealError::KeyFile {
        path: path.to_owned(),
        source,
    };
    create_key_file(path).map_err(failed)?;
    if readable_by_others(path).map_err(failed)? {
        return Err(SealError::KeyFileExposed {
            path: path.to_owned(),
        });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Key::read(&text).map_err(|_| SealError::InvalidKeyFile {
        path: path.to_owned(),
    })
}

/// Makes the file with a new key, unless it is there. Of two processes that start together, one makes it
/// and both read it.
fn create_key_file(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    // A file of its own that is linked under the name when it is whole: nobody reads half a key.
    let fresh = path.with_extension(format!("new-{:016x}", rand::random::<u64>()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&fresh)?;
    let key: [u8; KEY_BYTES] = rand::random();
    let written = file
        .write_all(hex::encode(key).as_bytes())
        .and_then(|()| file.sync_all());
    let linked = written.and_then(|()| std::fs::hard_link(&fresh, path));
    std::fs::remove_file(&fresh)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(unix)]
fn readable_by_others(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn readable_by_others(_: &Path) -> std::io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(digit: &str) -> SealingKey {
        SealingKey::from_hex(&digit.repeat(64)).unwrap()
    }

    #[test]
    fn a_secret_opens_with_its_key_and_context_alone() {
        let secret = Secret::new("chroma-token");
        let sealed = key("a").seal("tenant one", &secret).unwrap();
        assert_eq!(key("a").open("tenant one", &sealed).unwrap(), secret);
        assert!(key("b").open("tenant one", &sealed).is_err(), "another key");
        assert!(key("a").open("tenant two", &sealed).is_err(), "another context");
        let bytes = sealed.clone().into_bytes();
        for index in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[index] ^= 1;
            let altered = Sealed::from_bytes(altered);
            assert!(key("a").open("tenant one", &altered).is_err(), "byte {index}");
        }
        assert!(
            key("a").open("", &Sealed::from_bytes(Vec::new())).is_err(),
            "nothing"
        );
    }

    #[test]
    fn a_key_of_before_opens_what_it_sealed_and_seals_nothing() {
        let secret = Secret::new("chroma-token");
        let old = key("a").seal("t", &secret).unwrap();
        let previous = [Secret::new("c".repeat(64)), Secret::new("a".repeat(64))];
        let keys = key("b").with_previous(&previous).unwrap();
        assert_eq!(keys.open("t", &old).unwrap(), secret);
        assert!(keys.open("u", &old).is_err(), "another context");
        assert!(!keys.is_current(&old).unwrap());
        let new = keys.seal("t", &secret).unwrap();
        assert!(keys.is_current(&new).unwrap());
        assert_eq!(key("b").open("t", &new).unwrap(), secret);
        assert!(key("a").open("t", &new).is_err());
        let refused = key("b").with_previous(&[Secret::new("a".repeat(64)), Secret::new("b")]);
        assert!(matches!(refused, Err(SealError::InvalidPreviousKey { index: 1 })));
    }

    #[test]
    fn what_was_sealed_before_keys_had_ids_still_opens() {
        // Made by another implementation of AES-256-GCM (PyCA) with the key aa...aa for the context "t".
        let sealed = "01000102030405060708090a0bf9b0a29b99eddc92d82d63081b48c4ec87b7b05913aee024886de284";
        let sealed = hex::decode(sealed).unwrap();
        let sealed = Sealed::from_bytes(sealed);
        assert_eq!(key("a").open("t", &sealed).unwrap(), Secret::new("chroma-token"));
        assert!(!key("a").is_current(&sealed).unwrap());
        let keys = key("b").with_previous(&[Secret::new("a".repeat(64))]).unwrap();
        assert_eq!(keys.open("t", &sealed).unwrap(), Secret::new("chroma-token"));
        assert!(key("b").open("t", &sealed).is_err());
    }

    #[test]
    fn the_same_secret_never_looks_the_same() {
        let secret = Secret::new("chroma-token");
        let one = key("a").seal("t", &secret).unwrap();
        assert_ne!(one, key("a").seal("t", &secret).unwrap());
        assert!(!one.as_bytes().windows(6).any(|window| window == b"chroma"));
    }

    #[test]
    fn a_key_is_sixty_four_hexadecimal_digits() {
        for text in ["", "a", &"g".repeat(64), &"a".repeat(63), &"a".repeat(66)] {
            assert!(SealingKey::from_hex(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_missing_key_file_is_made_once_and_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("encryption.key");
        let sealed = SealingKey::from_file(&path)
            .unwrap()
            .seal("t", &Secret::new("x"))
            .unwrap();
        let again = SealingKey::from_file(&path).unwrap();
        assert_eq!(again.open("t", &sealed).unwrap(), Secret::new("x"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_file_is_made_when_it_is_first_needed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("encryption.key");
        let key = SealingKey::from_file_when_needed(&path);
        assert!(!path.exists());
        let sealed = key.clone().seal("t", &Secret::new("x")).unwrap();
        assert!(path.exists());
        assert_eq!(key.open("t", &sealed).unwrap(), Secret::new("x"));
        let nowhere = directory.path().join("missing/encryption.key");
        let refused = SealingKey::from_file_when_needed(&nowhere).seal("t", &Secret::new("x"));
        assert!(matches!(refused, Err(SealError::KeyFile { .. })), "{refused:?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("encryption.key");
        SealingKey::from_file(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = SealingKey::from_file(&path).unwrap_err();
        assert!(matches!(error, SealError::KeyFileExposed { .. }), "{error}");
    }
}
