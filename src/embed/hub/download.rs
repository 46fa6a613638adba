//! Fetches the files of one commit, one after the other, and goes on where an earlier run ended.

use std::path::Path;

use reqwest::{
    Method, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap},
};
use tokio::{
    fs::{self, File},
    io::AsyncWriteExt,
    time::timeout,
};
use url::Url;

use super::{
    HubError, PullProgress, Pulled,
    cache::ModelCache,
    checksum::{Expected, Hasher},
    client::{Hub, IDLE_TIMEOUT, LINKED_ETAG, LINKED_SIZE, MAX_TRIES},
    listing::{Listing, Wanted, check_size},
};
use crate::embed::directories::{WEIGHTS, WEIGHTS_INDEX, parts};

/// A file with all that is needed to fetch and check it.
struct Known {
    path: String,
    size: u64,
    expected: Expected,
}

/// The part of a file that is there.
struct Partial {
    file: File,
    hasher: Hasher,
    position: u64,
}

/// One pull under way.
struct Pull<'a> {
    hub: &'a Hub,
    model: &'a str,
    commit: String,
    cache: ModelCache,
    progress: &'a dyn PullProgress,
    pulled: Pulled,
}

/// Fetches what `listing` has and the cache lacks, then notes down which commit `revision` names.
pub(super) async fn pull(
    hub: &Hub,
    model: &str,
    revision: &str,
    listing: &Listing,
    progress: &dyn PullProgress,
) -> Result<Pulled, HubError> {
    let (cache, commit) = (ModelCache::new(hub.cache(), model), listing.sha.clone());
    let pulled = Pulled {
        directory: cache.snapshot(&commit),
        commit: commit.clone(),
        files: 0,
        bytes: 0,
        fetched_bytes: 0,
    };
    let mut pull = Pull {
        hub,
        model,
        commit,
        cache,
        progress,
        pulled,
    };
    pull.run(listing).await?;
    pull.cache.refer(revision, &pull.commit)?;
    Ok(pull.pulled)
}

impl Pull<'_> {
    async fn run(&mut self, listing: &Listing) -> Result<(), HubError> {
        let lacks = |missing: &str| HubError::Unsupported {
            model: self.model.to_owned(),
            missing: missing.to_owned(),
        };
        for needed in ["config.json", "tokenizer.json"] {
            listing.file(needed).ok_or_else(|| lacks(needed))?;
        }
        let weights = listing.file(WEIGHTS);
        let index = listing.file(WEIGHTS_INDEX);
        if weights.is_none() && index.is_none() {
            return Err(lacks(WEIGHTS));
        }
        for file in listing.descriptions() {
            self.fetch(file).await?;
        }
        if let Some(weights) = weights {
            return self.fetch(weights).await;
        }
        let Some(index) = index else { return Ok(()) };
        self.fetch(index).await?;
        let path = self.pulled.directory.join(WEIGHTS_INDEX);
        let bytes = fs::read(&path)
            .await
            .map_err(|source| unwritable(&path, source))?;
        let names = parts(&bytes).ok_or_else(|| self.hub.invalid(format!("{WEIGHTS_INDEX} is damaged")))?;
        for name in names {
            let part = listing.file(&name).ok_or_else(|| HubError::Unsupported {
                model: self.model.to_owned(),
                missing: name,
            })?;
            self.fetch(part).await?;
        }
        Ok(())
    }

    /// Makes a file whole in the cache.
    async fn fetch(&mut self, wanted: Wanted) -> Result<(), HubError> {
        let file = self.known(wanted).await?;
        check_size(self.model, &file.path, file.size)?;
        let checksum = file.expected.name();
        let blob = self.cache.blob(checksum);
        let is_whole = |blob: &Path| std::fs::metadata(blob).is_ok_and(|found| found.len() == file.size);
        let mut fetched = false;
        if !is_whole(&blob) {
            let lock = self.lock(&file).await?;
            // Another process may have fetched it meanwhile.
            if !is_whole(&blob) {
                self.download(&file).await?;
                let incomplete = self.cache.incomplete(checksum);
                fs::rename(&incomplete, &blob)
                    .await
                    .map_err(|source| unwritable(&blob, source))?;
                fetched = true;
            }
            drop(lock);
        }
        self.cache.link(&self.commit, &file.path, checksum)?;
        self.pulled.files += 1;
        self.pulled.bytes += file.size;
        self.progress.end(&file.path, fetched);
        Ok(())
    }

    async fn lock(&self, file: &Known) -> Result<std::fs::File, HubError> {
        if let Some(lock) = self.cache.lock(file.expected.name(), false)? {
            return Ok(lock);
        }
        self.progress.note(&format!(
            "{} is being fetched by another process; waiting for it",
            file.path
        ));
        let (cache, checksum) = (self.cache.clone(), file.expected.name().to_owned());
        let waiting = tokio::task::spawn_blocking(move || cache.lock(&checksum, true)).await;
        match waiting {
            Ok(lock) => lock?.ok_or_else(|| self.hub.silent()),
            Err(_) => Err(self.hub.silent()),
        }
    }

    fn file_url(&self, path: &str) -> Url {
        let segments: Vec<&str> = ["resolve", &self.commit]
            .into_iter()
            .chain(path.split('/'))
            .collect();
        self.hub.url(&[], self.model, &segments)
    }

    /// Size and checksum, asked for where the listing does not have them.
    async fn known(&self, wanted: Wanted) -> Result<Known, HubError> {
        let Wanted { path, size, expected } = wanted;
        if let (Some(size), Some(expected)) = (size, expected) {
            return Ok(Known { path, size, expected });
        }
        let (response, headers) = self.hub.follow(Method::HEAD, self.file_url(&path), None).await?;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let length = text(CONTENT_LENGTH.as_str());
        if !response.status().is_redirection() {
            self.hub.accept(response, self.model, &self.commit)?;
        }
        let etag = text(LINKED_ETAG).or_else(|| text(ETAG.as_str()));
        let expected = etag.and_then(Expected::parse);
        let size = text(LINKED_SIZE).or(length).and_then(|size| size.parse().ok());
        match (size, expected) {
            (Some(size), Some(expected)) => Ok(Known { path, size, expected }),
            _ => Err(self
                .hub
                .invalid(format!("it names no size and checksum of {path}"))),
        }
    }

    /// Fetches a file into its incomplete place and checks it.
    async fn download(&mut self, file: &Known) -> Result<(), HubError> {
        let path = self.cache.incomplete(file.expected.name());
        let mut partial = self.resume(file, &path).await?;
        self.progress.begin(&file.path, file.size, partial.position);
        let mut tries = 0;
        while partial.position < file.size {
            let before = partial.position;
            match self.continue_download(file, &path, &mut partial).await {
                Ok(()) => {}
                Err(error) if error.is_transient() => {
                    if partial.position > before {
                        tries = 0;
                    }
                    if tries + 1 >= MAX_TRIES {
                        return Err(error);
                    }
                    self.hub.pause(&error, tries).await;
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
        partial
            .file
            .sync_all()
            .await
            .map_err(|source| unwritable(&path, source))?;
        if partial.hasher.matches(&file.expected) {
            return Ok(());
        }
        fs::remove_file(&path)
            .await
            .map_err(|source| unwritable(&path, source))?;
        Err(HubError::Checksum {
            file: file.path.clone(),
            kind: file.expected.kind(),
            expected: file.expected.name().to_owned(),
        })
    }

    /// What an earlier run left, hashed.
    async fn resume(&self, file: &Known, path: &Path) -> Result<Partial, HubError> {
        let left = fs::metadata(path)
            .await
            .map(|found| found.len())
            .unwrap_or_default();
        let mut hasher = file.expected.hasher(file.size);
        let mut position = 0;
        if left > 0 && left <= file.size {
            let (owned, mut fresh) = (path.to_owned(), hasher.clone());
            let hashing = tokio::task::spawn_blocking(move || {
                let length = fresh.update_from(&owned)?;
                Ok((fresh, length))
            });
            let hashed: std::io::Result<_> = hashing.await.unwrap_or_else(|error| Err(error.into()));
            (hasher, position) = hashed.map_err(|source| unwritable(path, source))?;
        }
        let open = fs::OpenOptions::new()
            .create(true)
            .truncate(position == 0)
            .append(position > 0)
            .write(true)
            .open(path)
            .await;
        let opened = open.map_err(|source| unwritable(path, source))?;
        Ok(Partial {
            file: opened,
            hasher,
            position,
        })
    }

    /// One request for the rest of a file.
    async fn continue_download(
        &mut self,
        file: &Known,
        path: &Path,
        partial: &mut Partial,
    ) -> Result<(), HubError> {
        let from = (partial.position > 0).then_some(partial.position);
        let (response, _) = self
            .hub
            .follow(Method::GET, self.file_url(&file.path), from)
            .await?;
        let mut response = match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(response.headers(), partial.position) => response,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(self
                    .hub
                    .invalid(format!("it sends another part of {}", file.path)));
            }
            _ => {
                // A server that knows no ranges sends the whole file again.
                let response = self.hub.accept(response, self.model, &self.commit)?;
                self.restart(file, path, partial).await?;
                response
            }
        };
        loop {
            let next = timeout(IDLE_TIMEOUT, response.chunk()).await;
            let next = next
                .map_err(|_| self.hub.silent())?
                .map_err(|error| self.hub.unavailable(error))?;
            let Some(bytes) = next else { break };
            if partial.position + bytes.len() as u64 > file.size {
                return Err(self
                    .hub
                    .invalid(format!("{} has more than {} bytes", file.path, file.size)));
            }
            partial
                .file
                .write_all(&bytes)
                .await
                .map_err(|source| unwritable(path, source))?;
            partial.hasher.update(&bytes);
            partial.position += bytes.len() as u64;
            self.pulled.fetched_bytes += bytes.len() as u64;
            self.progress.position(&file.path, partial.position);
        }
        if partial.position < file.size {
            return Err(HubError::Unavailable {
                endpoint: self.hub.endpoint(),
                problem: format!("{} broke off", file.path),
                retry_after: None,
                source: None,
            });
        }
        Ok(())
    }

    async fn restart(&self, file: &Known, path: &Path, partial: &mut Partial) -> Result<(), HubError> {
        if partial.position > 0 {
            partial.hasher = file.expected.hasher(file.size);
            partial.position = 0;
            partial.file = File::create(path)
                .await
                .map_err(|source| unwritable(path, source))?;
        }
        Ok(())
    }
}

fn starts_at(headers: &HeaderMap, position: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {position}-")))
}

fn unwritable(path: &Path, source: std::io::Error) -> HubError {
    HubError::Write {
        path: path.to_owned(),
        source,
    }
}
