//! How what differs by the type of the source lies in JSON columns. The rules of [`super::stored`] hold.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{error::StoreError, stored::corrupt};
use crate::domain::{
    credential::AwsCredentialId,
    globs::Globs,
    ids::UploadId,
    invocation::{GitReference, InvocationInput, S3Objects, UploadedFile},
    names::{CollectionName, FileName},
    path_patterns::PathPatterns,
    s3::{AutoSync, BucketName, CustomId, ObjectKey, PathPrefix, Region},
    source::{
        GithubAppId, GithubSource, RepositoryName, S3Credential, S3Source, SourceSettings, WebScrapeSource,
    },
    user_metadata::UserMetadata,
    web::StartingUrl,
};

/// A [`SourceSettings`].
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(in crate::store) enum StoredSettings {
    Github {
        repository: String,
        app_id: Option<String>,
        include_globs: Option<Vec<String>>,
    },
    S3 {
        bucket_name: String,
        region: String,
        collection_name: String,
        aws_credential_id: i32,
        path_prefix: Option<String>,
        auto_sync: String,
    },
    WebScrape {
        starting_url: String,
        page_limit: Option<u32>,
        max_depth: Option<u32>,
        include_path_regexes: Option<Vec<String>>,
        exclude_path_regexes: Option<Vec<String>>,
    },
    FileUpload {},
}

impl StoredSettings {
    /// The settings as they are stored. A key that came with a request must have been stored before.
    pub(in crate::store) fn of(settings: &SourceSettings) -> Result<Self, StoreError> {
        Ok(match settings {
            SourceSettings::Github(GithubSource {
                repository,
                app_id,
                include_globs,
            }) => Self::Github {
                repository: repository.as_str().to_owned(),
                app_id: app_id.as_ref().map(|id| id.as_str().to_owned()),
                include_globs: include_globs.as_ref().map(|globs| globs.patterns().to_vec()),
            },
            SourceSettings::S3(S3Source {
                bucket,
                region,
                collection,
                credential,
                path_prefix,
                auto_sync,
            }) => Self::S3 {
                bucket_name: bucket.as_str().to_owned(),
                region: region.as_str().to_owned(),
                collection_name: collection.as_str().to_owned(),
                aws_credential_id: match credential {
                    S3Credential::Stored(id) => id.number(),
                    S3Credential::Given(_) => return Err(corrupt("sources.settings", "a new row")),
                },
                path_prefix: path_prefix.as_ref().map(|prefix| prefix.as_str().to_owned()),
                auto_sync: auto_sync.as_str().to_owned(),
            },
            SourceSettings::WebScrape(WebScrapeSource {
                starting_url,
                page_limit,
                max_depth,
                include_paths,
                exclude_paths,
            }) => {
                let patterns =
                    |paths: &Option<PathPatterns>| paths.as_ref().map(|paths| paths.patterns().to_vec());
                Self::WebScrape {
                    starting_url: starting_url.as_str().to_owned(),
                    page_limit: *page_limit,
                    max_depth: *max_depth,
                    include_path_regexes: patterns(include_paths),
                    exclude_path_regexes: patterns(exclude_paths),
                }
            }
            SourceSettings::FileUpload => Self::FileUpload {},
        })
    }

    /// None when a pattern no longer compiles, or a name is none.
    pub(in crate::store) fn restore(self) -> Option<SourceSettings> {
        Some(match self {
            Self::Github {
                repository,
                app_id,
                include_globs,
            } => {
                let globs = include_globs.map(|patterns| Globs::parse("include_globs", &patterns));
                SourceSettings::Github(GithubSource {
                    repository: RepositoryName::from_stored(repository),
                    app_id: app_id.map(GithubAppId::from_stored),
                    include_globs: globs.transpose().ok()?,
                })
            }
            Self::S3 {
                bucket_name,
                region,
                collection_name,
                aws_credential_id,
                path_prefix,
                auto_sync,
            } => SourceSettings::S3(S3Source {
                bucket: BucketName::from_stored(bucket_name),
                region: Region::from_stored(region),
                collection: CollectionName::from_stored(collection_name),
                credential: S3Credential::Stored(AwsCredentialId::from_stored(aws_credential_id)),
                path_prefix: path_prefix.and_then(PathPrefix::from_stored),
                auto_sync: AutoSync::from_name(&auto_sync)?,
            }),
            Self::WebScrape {
                starting_url,
                page_limit,
                max_depth,
                include_path_regexes,
                exclude_path_regexes,
            } => {
                let patterns = |patterns: Option<Vec<String>>| {
                    let compiled = patterns.map(|patterns| PathPatterns::parse("paths", &patterns));
                    compiled.transpose()
                };
                SourceSettings::WebScrape(WebScrapeSource {
                    starting_url: StartingUrl::from_stored(&starting_url)?,
                    page_limit,
                    max_depth,
                    include_paths: patterns(include_path_regexes).ok()?,
                    exclude_paths: patterns(exclude_path_regexes).ok()?,
                })
            }
            Self::FileUpload {} => SourceSettings::FileUpload,
        })
    }
}

/// An [`InvocationInput`].
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(in crate::store) enum StoredInput {
    Github {
        reference: Option<GitReference>,
    },
    S3 {
        bucket_name: String,
        objects: StoredObjects,
    },
    WebScrape {},
    FileUpload {
        upload_id: UploadId,
        file_name: String,
        custom_id: Option<String>,
        #[serde(default)]
        metadata: Map<String, Value>,
        content_type: Option<String>,
        content_sha256: String,
        size_bytes: u64,
    },
}

/// An [`S3Objects`].
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(in crate::store) enum StoredObjects {
    Object {
        key: String,
        custom_id: Option<String>,
        #[serde(default)]
        metadata: Map<String, Value>,
    },
    Removed {
        key: String,
    },
    Prefix {},
}

fn stored_id(custom_id: &Option<CustomId>) -> Option<String> {
    custom_id.as_ref().map(|id| id.as_str().to_owned())
}

impl From<&InvocationInput> for StoredInput {
    fn from(input: &InvocationInput) -> Self {
        match input {
            InvocationInput::Github { reference } => Self::Github {
                reference: reference.clone(),
            },
            InvocationInput::S3 { bucket, objects } => Self::S3 {
                bucket_name: bucket.as_str().to_owned(),
                objects: match objects {
                    S3Objects::Object {
                        key,
                        custom_id,
                        metadata,
                    } => StoredObjects::Object {
                        key: key.as_str().to_owned(),
                        custom_id: stored_id(custom_id),
                        metadata: metadata.as_map().clone(),
                    },
                    S3Objects::Removed { key } => StoredObjects::Removed {
                        key: key.as_str().to_owned(),
                    },
                    S3Objects::Prefix => StoredObjects::Prefix {},
                },
            },
            InvocationInput::WebScrape => Self::WebScrape {},
            InvocationInput::FileUpload(UploadedFile {
                upload_id,
                file_name,
                custom_id,
                metadata,
                content_type,
                content_sha256,
                size_bytes,
            }) => Self::FileUpload {
                upload_id: *upload_id,
                file_name: file_name.as_str().to_owned(),
                custom_id: stored_id(custom_id),
                metadata: metadata.as_map().clone(),
                content_type: content_type.clone(),
                content_sha256: content_sha256.clone(),
                size_bytes: *size_bytes,
            },
        }
    }
}

impl StoredInput {
    /// What makes two requests the same: everything but where the bytes of an upload lie.
    pub(in crate::store) fn of_request(input: &InvocationInput) -> Self {
        let mut stored = Self::from(input);
        if let Self::FileUpload { upload_id, .. } = &mut stored {
            *upload_id = UploadId(uuid::Uuid::nil());
        }
        stored
    }

    pub(in crate::store) fn restore(self) -> InvocationInput {
        match self {
            Self::Github { reference } => InvocationInput::Github { reference },
            Self::S3 { bucket_name, objects } => InvocationInput::S3 {
                bucket: BucketName::from_stored(bucket_name),
                objects: match objects {
                    StoredObjects::Object {
                        key,
                        custom_id,
                        metadata,
                    } => S3Objects::Object {
                        key: ObjectKey::from_stored(key),
                        custom_id: custom_id.map(CustomId::from_stored),
                        metadata: UserMetadata::from_stored(metadata),
                    },
                    StoredObjects::Removed { key } => S3Objects::Removed {
                        key: ObjectKey::from_stored(key),
                    },
                    StoredObjects::Prefix {} => S3Objects::Prefix,
                },
            },
            Self::WebScrape {} => InvocationInput::WebScrape,
            Self::FileUpload {
                upload_id,
                file_name,
                custom_id,
                metadata,
                content_type,
                content_sha256,
                size_bytes,
            } => InvocationInput::FileUpload(UploadedFile {
                upload_id,
                file_name: FileName::from_stored(file_name),
                custom_id: custom_id.map(CustomId::from_stored),
                metadata: UserMetadata::from_stored(metadata),
                content_type,
                content_sha256,
                size_bytes,
            }),
        }
    }
}
