//! Where the bytes of a document go while it is loaded: memory for a small one, a file for any other.

use std::{io, path::PathBuf, sync::Arc};

use tokio::{
    fs::File,
    io::{AsyncWriteExt, BufWriter},
    sync::OnceCell,
};
use uuid::Uuid;

use super::{
    content::{Content, ScratchFile},
    scratch::ScratchDirectory,
};

/// Documents of more bytes go into a file.
pub const MAX_BYTES_IN_MEMORY: u64 = 8 << 20;
/// How much is gathered before it is written.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// The directory for the files of one fetcher, made when the first one is needed.
#[derive(Debug)]
pub(super) struct LazyScratch {
    root: PathBuf,
    directory: OnceCell<Arc<ScratchDirectory>>,
}

impl LazyScratch {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            directory: OnceCell::new(),
        }
    }

    async fn get(&self) -> io::Result<&Arc<ScratchDirectory>> {
        self.directory
            .get_or_try_init(async || {
                let root = self.root.clone();
                let made = tokio::task::spawn_blocking(move || ScratchDirectory::create(&root)).await;
                made.map_err(io::Error::other)?.map(Arc::new)
            })
            .await
    }
}

/// Takes the bytes of one document.
pub(super) enum Sink {
    Memory(Vec<u8>),
    File {
        file: BufWriter<File>,
        /// Removes the file if it is not finished.
        guard: ScratchFile,
        size: u64,
    },
}

impl Sink {
    /// In memory where the size is declared and small.
    pub(super) async fn open(scratch: &LazyScratch, declared: Option<u64>) -> io::Result<Self> {
        let small = declared.filter(|size| *size <= MAX_BYTES_IN_MEMORY);
        if let Some(size) = small.and_then(|size| usize::try_from(size).ok()) {
            return Ok(Self::Memory(Vec::with_capacity(size)));
        }
        let directory = scratch.get().await?;
        let path = directory.path().join(Uuid::now_v7().simple().to_string());
        let file = File::create_new(&path).await?;
        Ok(Self::File {
            file: BufWriter::with_capacity(WRITE_BUFFER_BYTES, file),
            guard: ScratchFile::new(path, 0, Arc::clone(directory)),
            size: 0,
        })
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Memory(content) => content.extend_from_slice(bytes),
            Self::File { file, size, .. } => {
                file.write_all(bytes).await?;
                *size += bytes.len() as u64;
            }
        }
        Ok(())
    }

    pub(super) async fn finish(self) -> io::Result<Content> {
        match self {
            Self::Memory(content) => Ok(Content::Memory(content)),
            Self::File {
                mut file,
                mut guard,
                size,
            } => {
                file.flush().await?;
                guard.set_size(size);
                Ok(Content::File(guard))
            }
        }
    }
}
