//! The files of one commit: listed at once, read one by one.
//!
//! Everything is read from the pack that was received; there is no work tree, so no path of the
//! repository ever becomes a path of this machine, and neither links nor attributes have any effect.
//! Invariant: keys are unique and sorted, whatever the trees hold. Trees come from strangers: one tree
//! may stand in many places, which makes a small pack spell out endless paths, so entries, depth and
//! the length of paths are bounded.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use gix::{
    ObjectId,
    objs::{CommitRefIter, FindExt, Kind, TagRefIter, tree::EntryKind},
    odb::Header as _,
};

use super::{
    receive::{MAX_OBJECT_BYTES, Received, not_found},
    session::Session,
};
use crate::{
    domain::{
        document::{SkipRule, sha256_hex},
        globs::Globs,
        invocation::GitReference,
    },
    fetch::{
        error::FetchError,
        listing::{Entry, Listed},
        scratch::ScratchDirectory,
    },
};

/// The most entries of all directories together. An [`Entry`] takes about 200 bytes of memory.
const MAX_ENTRIES: usize = 1_000_000;
/// The most directories in a path.
const MAX_DEPTH: usize = 256;
/// The longest path, in bytes, as on Linux.
const MAX_PATH_BYTES: usize = 4_096;
/// The most tags that may point to one another before a commit comes.
const MAX_TAGS: usize = 16;

/// The files of one commit. The directory they are read from goes when the snapshot and all its
/// readers are gone.
#[derive(Debug)]
pub struct Snapshot {
    commit: String,
    entries: Arc<[Entry]>,
    store: Store,
}

/// The objects, and the directory that holds them. The order of the fields closes the one before the
/// other is removed.
#[derive(Clone)]
struct Store {
    objects: gix::odb::HandleArc,
    directory: Arc<ScratchDirectory>,
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Store")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Opens what was received in `directory` and lists the files that `globs` pick.
    pub(super) fn open(
        session: &Session,
        received: &Received,
        reference: Option<&GitReference>,
        globs: Option<&Globs>,
        max_file_bytes: u64,
        directory: ScratchDirectory,
    ) -> Result<Self, FetchError> {
        let options = gix::odb::store::init::Options {
            alloc_limit_bytes: Some(MAX_OBJECT_BYTES),
            ..Default::default()
        };
        let path = directory.path().join("objects");
        let mut objects = gix::odb::at_opts(path, gix::hash::Kind::Sha1, None, options)
            .and_then(gix::odb::Handle::into_arc)
            .map_err(|source| FetchError::Storage {
                action: "read from",
                source: source.into(),
            })?;
        // There is one pack and there will be no other, so a missing object is no cause to look again.
        objects.refresh_never();
        let store = Store {
            objects,
            directory: Arc::new(directory),
        };

        let (commit, tree) = store.peel(session, received.tip, reference)?;
        let listing = Listing {
            session,
            store: &store,
            filtered: received.filtered,
            globs,
            max_file_bytes,
        };
        let entries = listing.entries(tree)?;
        Ok(Self {
            commit: commit.to_string(),
            entries: entries.into(),
            store,
        })
    }

    /// Id of the commit, 40 lowercase hexadecimal digits.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// The files that the globs picked, sorted by key.
    pub fn entries(&self) -> &Arc<[Entry]> {
        &self.entries
    }

    /// A reader of their contents. Each thread needs its own.
    pub fn reader(&self) -> Reader {
        Reader {
            store: self.store.clone(),
            buffer: Vec::new(),
        }
    }
}

/// Reads files of a [`Snapshot`], which may be gone by then.
#[derive(Debug)]
pub struct Reader {
    store: Store,
    buffer: Vec<u8>,
}

impl Reader {
    /// Reads a file. Blocks on the disk.
    ///
    /// # Errors
    /// [`FetchError::Damaged`] when the object cannot be read.
    pub fn read(&mut self, entry: &Entry) -> Result<Vec<u8>, FetchError> {
        let damaged = |source| FetchError::Damaged {
            object: format!("file '{}'", entry.document_key),
            source,
        };
        let id =
            ObjectId::from_hex(entry.version_key.as_bytes()).map_err(|error| damaged(Some(error.into())))?;
        let blob = self
            .store
            .objects
            .find_blob(&id, &mut self.buffer)
            .map_err(|error| damaged(Some(error.into())))?;
        Ok(blob.data.to_vec())
    }
}

impl Store {
    /// Follows tags from `tip` to a commit, and returns it with its tree.
    fn peel(
        &self,
        session: &Session,
        tip: ObjectId,
        reference: Option<&GitReference>,
    ) -> Result<(ObjectId, ObjectId), FetchError> {
        let mut buffer = Vec::new();
        let mut id = tip;
        for _ in 0..MAX_TAGS {
            let damaged = |error: gix::Error| FetchError::Damaged {
                object: format!("object {id}"),
                source: Some(error.into()),
            };
            let object = self.objects.find(&id, &mut buffer).map_err(damaged)?;
            match object.kind {
                Kind::Commit => {
                    let tree = CommitRefIter::from_bytes(object.data, id.kind())
                        .tree_id()
                        .map_err(damaged)?;
                    return Ok((id, tree));
                }
                Kind::Tag => {
                    id = TagRefIter::from_bytes(object.data, id.kind())
                        .target_id()
                        .map_err(damaged)?
                }
                Kind::Tree | Kind::Blob => break,
            }
        }
        Err(not_found(session, reference))
    }
}

/// One walk over the trees of a commit.
struct Listing<'a> {
    session: &'a Session,
    store: &'a Store,
    filtered: bool,
    globs: Option<&'a Globs>,
    max_file_bytes: u64,
}

/// A directory that is still to be read.
struct Directory {
    tree: ObjectId,
    /// Its path with a final `/`; empty for the root.
    prefix: Vec<u8>,
    depth: usize,
}

/// A file that was found and not yet looked at.
struct Found {
    key: String,
    /// Set where the name is not UTF-8.
    name_rule: Option<SkipRule>,
    kind: EntryKind,
    id: ObjectId,
}

impl Listing<'_> {
    /// All trees are read before the first blob is looked at, so that endless ones are refused early.
    fn entries(&self, root: ObjectId) -> Result<Vec<Entry>, FetchError> {
        let mut entries = self
            .walk(root)?
            .into_iter()
            .map(|found| self.entry(found))
            .collect::<Result<Vec<Entry>, _>>()?;
        entries.sort_unstable_by(|one, other| one.document_key.cmp(&other.document_key));
        Ok(unique(entries))
    }

    fn walk(&self, root: ObjectId) -> Result<Vec<Found>, FetchError> {
        let mut files = Vec::new();
        let mut buffer = Vec::new();
        let mut visited = 0;
        let mut directories = vec![Directory {
            tree: root,
            prefix: Vec::new(),
            depth: 0,
        }];
        while let Some(directory) = directories.pop() {
            self.check_stopped()?;
            let damaged = |error: gix::Error| FetchError::Damaged {
                object: format!("directory '{}'", String::from_utf8_lossy(&directory.prefix)),
                source: Some(error.into()),
            };
            let tree = self
                .store
                .objects
                .find_tree_iter(&directory.tree, &mut buffer)
                .map_err(damaged)?;
            for item in tree {
                let item = item.map_err(damaged)?;
                visited += 1;
                if visited > MAX_ENTRIES {
                    let limit = format!("its commit has more than {MAX_ENTRIES} files and directories");
                    return Err(self.session.too_large(limit));
                }
                let path = [directory.prefix.as_slice(), item.filename.as_ref()].concat();
                if path.len() > MAX_PATH_BYTES {
                    let limit = format!("it has a path of more than {MAX_PATH_BYTES} bytes");
                    return Err(self.session.too_large(limit));
                }
                let id = item.oid.to_owned();
                match item.mode.kind() {
                    EntryKind::Tree if directory.depth == MAX_DEPTH => {
                        let limit = format!("its directories nest deeper than {MAX_DEPTH}");
                        return Err(self.session.too_large(limit));
                    }
                    EntryKind::Tree => {
                        let prefix = [path.as_slice(), b"/"].concat();
                        directories.push(Directory {
                            tree: id,
                            prefix,
                            depth: directory.depth + 1,
                        });
                    }
                    kind @ (EntryKind::Blob
                    | EntryKind::BlobExecutable
                    | EntryKind::Link
                    | EntryKind::Commit) => {
                        let found = Found::new(path, kind, id);
                        if self.globs.is_none_or(|globs| globs.matches(&found.key)) {
                            files.push(found);
                        }
                    }
                }
            }
        }
        Ok(files)
    }

    fn entry(&self, found: Found) -> Result<Entry, FetchError> {
        self.check_stopped()?;
        let Found {
            key,
            name_rule,
            kind,
            id,
        } = found;
        let (size_bytes, kind_rule) = match kind {
            EntryKind::Link => (None, Some(SkipRule::Symlink)),
            EntryKind::Commit => (None, Some(SkipRule::Submodule)),
            EntryKind::Blob | EntryKind::BlobExecutable | EntryKind::Tree => self.measure(&key, id)?,
        };
        let decision = kind_rule.or(name_rule).map_or(Listed::Load, Listed::Skip);
        Ok(Entry {
            document_key: key,
            version_key: id.to_string(),
            size_bytes,
            decision,
            memo: None,
        })
    }

    fn check_stopped(&self) -> Result<(), FetchError> {
        self.session.stop.check().map_err(|stopped| FetchError::Internal {
            source: stopped.into(),
        })
    }

    /// The size of a blob, from its header alone, and the rule about sizes.
    fn measure(&self, key: &str, id: ObjectId) -> Result<(Option<u64>, Option<SkipRule>), FetchError> {
        let damaged = |source| FetchError::Damaged {
            object: format!("file '{key}'"),
            source,
        };
        match self
            .store
            .objects
            .try_header(&id)
            .map_err(|error| damaged(Some(error.into())))?
        {
            Some(header) => {
                let too_large = header.size() > self.max_file_bytes;
                Ok((Some(header.size()), too_large.then_some(SkipRule::TooLarge)))
            }
            // The host was asked to leave out blobs for their size alone.
            None if self.filtered => Ok((None, Some(SkipRule::TooLarge))),
            None => Err(damaged(None)),
        }
    }
}

impl Found {
    fn new(path: Vec<u8>, kind: EntryKind, id: ObjectId) -> Self {
        match String::from_utf8(path) {
            Ok(key) => Self {
                key,
                name_rule: None,
                kind,
                id,
            },
            Err(error) => Self {
                key: lossy_key(error.as_bytes()),
                name_rule: Some(SkipRule::InvalidKey),
                kind,
                id,
            },
        }
    }
}

/// A readable key for a path that is not UTF-8. The digest of its bytes keeps apart what reads alike.
pub(super) fn lossy_key(path: &[u8]) -> String {
    let digest = sha256_hex(&hex::encode(path));
    let suffix = digest.get(..16).unwrap_or(&digest);
    format!("{}#{suffix}", String::from_utf8_lossy(path))
}

/// Renames what has the key of another entry. Git refuses such trees, but a stranger may make them.
pub(super) fn unique(sorted: Vec<Entry>) -> Vec<Entry> {
    if sorted.is_sorted_by(|one, other| one.document_key < other.document_key) {
        return sorted;
    }
    let mut taken: HashSet<String> = sorted.iter().map(|entry| entry.document_key.clone()).collect();
    let mut occurrences: HashMap<String, u32> = HashMap::new();
    let mut entries = sorted;
    for entry in &mut entries {
        let occurrence = occurrences.entry(entry.document_key.clone()).or_insert(0);
        *occurrence += 1;
        if *occurrence == 1 {
            continue;
        }
        entry.decision = Listed::Skip(SkipRule::InvalidKey);
        // Each step uses up a number or a key of the tree, so all entries together take linear time.
        let mut key = format!("{}#{occurrence}", entry.document_key);
        while !taken.insert(key.clone()) {
            *occurrence += 1;
            key = format!("{}#{occurrence}", entry.document_key);
        }
        entry.document_key = key;
    }
    entries.sort_unstable_by(|one, other| one.document_key.cmp(&other.document_key));
    entries
}
