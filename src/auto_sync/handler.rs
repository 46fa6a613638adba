//! What one event leads to.

use std::time::Duration;

use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use super::{
    Environment,
    events::{Change, ObjectEvent},
    metadata_file::{self, MAX_FILE_BYTES, MetadataFile, MetadataFileError, is_metadata_file},
};
use crate::{
    domain::{
        credential::{AwsCredentialId, AwsKeys, aws_sealing_context},
        invocation::{InvocationInput, NewInvocation, S3Objects},
        names::{CollectionName, TenantName},
        s3::{AutoSync, ObjectKey},
        source::{S3Credential, S3Source, Source, SourceSettings},
        user_metadata::UserMetadata,
    },
    fetch::{
        Listed,
        s3::{S3Bucket, S3Error},
    },
    seal::SealError,
    store::{CreateInvocation, StoreError},
};

/// Why an event is left for later.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandleError {
    /// The service's own database is away.
    #[error("the database did not answer")]
    Store(#[from] StoreError),
    /// The source's access key was deleted.
    #[error("access key {0} of the source does not exist")]
    CredentialMissing(AwsCredentialId),
    /// The secret of the source's access key was sealed with another key.
    #[error("the secret of access key {0} cannot be opened")]
    CredentialUnreadable(AwsCredentialId, #[source] SealError),
    /// The metadata file cannot be read.
    #[error("the metadata file {key:?} cannot be read")]
    Unreachable {
        /// Which one.
        key: String,
        /// Why.
        source: S3Error,
    },
    /// The metadata file says nothing that can be done.
    #[error("the metadata file {key:?} cannot be used")]
    Unusable {
        /// Which one.
        key: String,
        /// What is wrong with it.
        source: MetadataFileError,
    },
}

impl HandleError {
    /// How long to wait at least.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unreachable { source, .. } => source.retry_after(),
            Self::Store(_)
            | Self::CredentialMissing(_)
            | Self::CredentialUnreadable(..)
            | Self::Unusable { .. } => None,
        }
    }
}

/// An invocation to create.
struct Wanted {
    collection: CollectionName,
    objects: S3Objects,
}

impl Environment {
    /// Creates the invocations that an event calls for; they are stored when this returns.
    pub(super) async fn handle(&self, event: &ObjectEvent) -> Result<(), HandleError> {
        let sources = self.store.auto_synced_sources(&event.bucket).await?;
        if sources.is_empty() {
            self.counts.events_of_unknown_buckets.inc();
            tracing::debug!(bucket = event.bucket, "no source follows this bucket");
            return Ok(());
        }
        let mut concerned = false;
        for source in &sources {
            let SourceSettings::S3(s3) = &source.settings else {
                continue;
            };
            // What this source would refuse from a caller is none of its objects.
            let Ok(key) = ObjectKey::parse("key", &event.key, s3.path_prefix.as_ref()) else {
                continue;
            };
            for wanted in self.wanted(source, s3, key, event.change).await? {
                concerned = true;
                self.create(source, s3, event, wanted).await?;
            }
        }
        if !concerned {
            self.counts.events_passed_over.inc();
        }
        Ok(())
    }

    async fn wanted(
        &self,
        source: &Source,
        s3: &S3Source,
        key: ObjectKey,
        change: Change,
    ) -> Result<Vec<Wanted>, HandleError> {
        match (change, s3.auto_sync) {
            (Change::Written, AutoSync::Direct | AutoSync::Metadata) if is_metadata_file(key.as_str()) => {
                let file = self.read_metadata_file(source, s3, &key).await?;
                Ok(file
                    .map(|file| Wanted {
                        collection: file.collection.unwrap_or_else(|| s3.collection.clone()),
                        objects: S3Objects::Object {
                            key: file.object_key,
                            custom_id: Some(file.custom_id),
                            metadata: file.metadata,
                        },
                    })
                    .into_iter()
                    .collect())
            }
            // What editors make for folders.
            (_, AutoSync::Direct | AutoSync::Metadata) if key.as_str().ends_with('/') => Ok(Vec::new()),
            (Change::Written, AutoSync::Direct) => Ok(vec![Wanted {
                collection: s3.collection.clone(),
                objects: S3Objects::Object {
                    key,
                    custom_id: None,
                    metadata: UserMetadata::default(),
                },
            }]),
            (Change::Removed, AutoSync::Direct | AutoSync::Metadata)
                if self.delete_removed_objects && !is_metadata_file(key.as_str()) =>
            {
                let mut collections = self.store.collections_of_object(source.id, &key).await?;
                // It may have come with the whole prefix, by an invocation that names no object.
                if s3.auto_sync == AutoSync::Direct && !collections.contains(&s3.collection) {
                    collections.push(s3.collection.clone());
                }
                let removal = |collection| Wanted {
                    collection,
                    objects: S3Objects::Removed { key: key.clone() },
                };
                Ok(collections.into_iter().map(removal).collect())
            }
            (Change::Written, AutoSync::None | AutoSync::Metadata)
            | (Change::Removed, AutoSync::None | AutoSync::Direct | AutoSync::Metadata) => Ok(Vec::new()),
        }
    }

    /// Reads a metadata file; none when it is gone by now.
    async fn read_metadata_file(
        &self,
        source: &Source,
        s3: &S3Source,
        key: &ObjectKey,
    ) -> Result<Option<MetadataFile>, HandleError> {
        let unreachable = |source| HandleError::Unreachable {
            key: key.to_string(),
            source,
        };
        let unusable = |source| HandleError::Unusable {
            key: key.to_string(),
            source,
        };
        let keys = match &s3.credential {
            S3Credential::Stored(id) => self.keys(&source.tenant, *id).await?,
            // No stored source has one.
            S3Credential::Given(keys) => keys.clone(),
        };
        let mut options = self.s3.clone();
        options.max_object_bytes = MAX_FILE_BYTES;
        let bucket = S3Bucket::of_source(&options, s3, keys).map_err(unreachable)?;
        let entry = match bucket.head(key).await {
            Ok(entry) => entry,
            Err(S3Error::ObjectNotFound { .. }) => return Ok(None),
            Err(error) => return Err(unreachable(error)),
        };
        match entry.decision {
            Listed::Load => {}
            Listed::Unchanged | Listed::Skip(_) | Listed::Failed(_) => {
                return Err(unusable(MetadataFileError::TooLarge));
            }
        }
        let loaded = match bucket.load(key.as_str(), &entry.version_key).await {
            Ok(loaded) => loaded,
            Err(S3Error::ObjectNotFound { .. }) => return Ok(None),
            Err(error) => return Err(unreachable(error)),
        };
        let content = loaded
            .content
            .into_bytes()
            .map_err(|error| unreachable(S3Error::Storage { source: error.into() }))?;
        let file = metadata_file::parse(&content, s3.path_prefix.as_ref()).map_err(unusable)?;
        file.metadata
            .require_free("metadata", source.embedding.sparse_key())
            .map_err(|violation| unusable(MetadataFileError::Invalid(violation)))?;
        Ok(Some(file))
    }

    async fn keys(&self, tenant: &TenantName, id: AwsCredentialId) -> Result<AwsKeys, HandleError> {
        let found = self.store.find_aws_credential(tenant, id).await?;
        let (credential, sealed) = found.ok_or(HandleError::CredentialMissing(id))?;
        let context = aws_sealing_context(tenant, &credential.access_key_id);
        let secret_access_key = self
            .sealing_key
            .open(&context, &sealed)
            .map_err(|error| HandleError::CredentialUnreadable(id, error))?;
        Ok(AwsKeys {
            access_key_id: credential.access_key_id,
            secret_access_key,
        })
    }

    async fn create(
        &self,
        source: &Source,
        s3: &S3Source,
        event: &ObjectEvent,
        wanted: Wanted,
    ) -> Result<(), HandleError> {
        let count = match &wanted.objects {
            S3Objects::Object { .. } | S3Objects::Prefix => &self.counts.invocations_created,
            S3Objects::Removed { .. } => &self.counts.removals_created,
        };
        let request_id = request_id(source, event, &wanted.collection);
        let new = NewInvocation {
            collection: wanted.collection,
            input: InvocationInput::S3 {
                bucket: s3.bucket.clone(),
                objects: wanted.objects,
            },
            webhook: None,
            update_collection: false,
        };
        let created = self
            .store
            .create_invocation(&source.tenant, source, new, Some(request_id), None)
            .await?;
        match created {
            CreateInvocation::Created(invocation) => {
                count.inc();
                self.changes.changed(invocation.id);
                self.work.wake();
                tracing::debug!(invocation.id = %invocation.id, source.id = %source.id, "an event created an invocation");
            }
            // A metadata file may have changed between two deliveries of one event; its later event counts.
            CreateInvocation::Repeated(_) | CreateInvocation::RequestIdReused => {
                self.counts.repeated.inc();
            }
            // Deleted in this very moment.
            CreateInvocation::SourceGone => {}
            // Only invocations that own their collections are kept apart.
            CreateInvocation::CollectionBusy(_) => {}
        }
        Ok(())
    }
}

/// The same for each delivery of an event, to whichever process, and another for every other event.
fn request_id(source: &Source, event: &ObjectEvent, collection: &CollectionName) -> Uuid {
    let change = match event.change {
        Change::Written => "written",
        Change::Removed => "removed",
    };
    let mut hash = Sha256::new();
    for part in [
        "chroma-sync auto-sync",
        &source.id.to_string(),
        &event.bucket,
        &event.key,
        change,
        &event.identity,
        collection.as_str(),
    ] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(digest.split_at(16).0);
    Builder::from_custom_bytes(bytes).into_uuid()
}
