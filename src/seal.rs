//! Secrets at rest: sealed with AES-256-GCM under one key of the deployment.
//!
//! A sealed secret is one version byte, a random nonce of 12 bytes, the ciphertext and its tag of 16
//! bytes. It opens only with the same key and the same context, so a row that is copied to another
//! tenant opens nothing. Absent on purpose: any place to keep the result; that is `store`'s.

use std::{
    fmt,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

pub use crate::secret::Sealed;
use crate::secret::Secret;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// The first byte of everything sealed in this way.
const VERSION: u8 = 1;

/// Why a key cannot be used, or a secret not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The configured key has the wrong form.
    #[error("encryption.key must be {} hexadecimal digits, as `openssl rand -hex 32` makes them", KEY_BYTES * 2)]
    InvalidKey,
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

/// The key of a deployment. Clones share it.
#[derive(Clone)]
pub struct SealingKey(Arc<Inner>);

enum Inner {
    Ready(LessSafeKey),
    /// Is read, or made, when something is first sealed or opened.
    InFile(PathBuf, OnceLock<LessSafeKey>),
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SealingKey")
    }
}

impl SealingKey {
    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`SealError::InvalidKey`].
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        Ok(Self(Arc::new(Inner::Ready(read_key(text)?))))
    }

    /// Reads the key of a file, which is made with a new key and mode 0600 when it is missing.
    ///
    /// # Errors
    /// The file cannot be read or made, holds no key, or can be read by others.
    pub fn from_file(path: &Path) -> Result<Self, SealError> {
        let key = Self::from_file_when_needed(path);
        key.key()?;
        Ok(key)
    }

    /// The key of a file that is read, or made, when something is first sealed or opened; a deployment
    /// without secrets needs none.
    pub fn from_file_when_needed(path: &Path) -> Self {
        Self(Arc::new(Inner::InFile(path.to_owned(), OnceLock::new())))
    }

    fn key(&self) -> Result<&LessSafeKey, SealError> {
        match self.0.as_ref() {
            Inner::Ready(key) => Ok(key),
            Inner::InFile(path, key) => match key.get() {
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
        // 2^32 random nonces of 96 bits under one key repeat with a chance below 2^-32 (NIST SP 800-38D, 8.3).
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut text = secret.expose().as_bytes().to_vec();
        self.key()?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.as_bytes()),
                &mut text,
            )
            .map_err(|_| SealError::DoesNotOpen)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + text.len());
        sealed.push(VERSION);
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
        let (nonce, text) = rest
            .split_at_checked(NONCE_LEN)
            .filter(|_| *version == VERSION)
            .ok_or(SealError::DoesNotOpen)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::DoesNotOpen)?;
        let mut text = text.to_vec();
        let opened = self
            .key()?
            .open_in_place(nonce, Aad::from(context.as_bytes()), &mut text)
            .map_err(|_| SealError::DoesNotOpen)?;
        let opened = std::str::from_utf8(opened).map_err(|_| SealError::DoesNotOpen)?;
        Ok(Secret::new(opened))
    }
}

fn read_key(text: &str) -> Result<LessSafeKey, SealError> {
    let mut bytes = [0; KEY_BYTES];
    hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| SealError::InvalidKey)?;
    let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| SealError::InvalidKey)?;
    Ok(LessSafeKey::new(key))
}

fn read_key_file(path: &Path) -> Result<LessSafeKey, SealError> {
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
    read_key(&text).map_err(|_| SealError::InvalidKeyFile {
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
