//! The documented JSON of what differs by the type of the source.

use std::fmt;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{extract::required, number::whole_number};
use crate::{
    domain::{
        credential::{AwsCredentialId, AwsKeys},
        globs::Globs,
        names::CollectionName,
        path_patterns::PathPatterns,
        s3::{AutoSync, BucketName, PathPrefix, Region},
        source::{
            GithubAppId, GithubSource, RepositoryName, S3Credential, S3Source, SourceSettings,
            WebScrapeSource,
        },
        web::StartingUrl,
    },
    error::FieldViolation,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GithubBody {
    repository: Option<String>,
    app_id: Option<String>,
    include_globs: Option<Vec<String>>,
}

impl GithubBody {
    pub(super) fn read(self) -> Result<GithubSource, FieldViolation> {
        let Self {
            repository,
            app_id,
            include_globs,
        } = self;
        // An empty list says as little as none.
        let include_globs = include_globs
            .filter(|globs| !globs.is_empty())
            .map(|globs| Globs::parse("github.include_globs", &globs))
            .transpose()?;
        let app_id = app_id
            .map(|id| GithubAppId::parse("github.app_id", &id))
            .transpose()?;
        Ok(GithubSource {
            repository: RepositoryName::parse(
                "github.repository",
                &required("github.repository", repository)?,
            )?,
            app_id,
            include_globs,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct S3Body {
    bucket_name: Option<String>,
    region: Option<String>,
    collection_name: Option<String>,
    #[serde(default, deserialize_with = "whole_number")]
    aws_credential_id: Option<u64>,
    aws_access_key_id: Option<String>,
    aws_secret_access_key: Option<String>,
    path_prefix: Option<String>,
    auto_sync: Option<String>,
}

/// Prints nothing of it: it holds a secret.
impl fmt::Debug for S3Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("S3Body")
    }
}

impl S3Body {
    pub(super) fn read(self) -> Result<S3Source, FieldViolation> {
        let Self {
            bucket_name,
            region,
            collection_name,
            aws_credential_id,
            aws_access_key_id,
            aws_secret_access_key,
            path_prefix,
            auto_sync,
        } = self;
        let bucket = required("s3.bucket_name", bucket_name)?;
        let region = required("s3.region", region)?;
        let collection = required("s3.collection_name", collection_name)?;
        let credential = match (aws_credential_id, aws_access_key_id, aws_secret_access_key) {
            (Some(id), None, None) => {
                let id = i64::try_from(id).unwrap_or(i64::MAX);
                S3Credential::Stored(AwsCredentialId::parse("s3.aws_credential_id", id)?)
            }
            (None, Some(id), Some(secret)) => S3Credential::Given(AwsKeys::parse("s3.aws_", &id, &secret)?),
            (None, Some(_), None) => {
                return Err(FieldViolation::new(
                    "s3.aws_secret_access_key",
                    "is required together with aws_access_key_id",
                ));
            }
            (None, None, Some(_)) => {
                return Err(FieldViolation::new(
                    "s3.aws_access_key_id",
                    "is required together with aws_secret_access_key",
                ));
            }
            (Some(_), _, _) | (None, None, None) => {
                return Err(FieldViolation::new(
                    "s3.aws_credential_id",
                    "give either aws_credential_id, or aws_access_key_id and aws_secret_access_key",
                ));
            }
        };
        Ok(S3Source {
            bucket: BucketName::parse("s3.bucket_name", &bucket)?,
            region: Region::parse("s3.region", &region)?,
            collection: CollectionName::parse("s3.collection_name", &collection)?,
            credential,
            path_prefix: PathPrefix::parse("s3.path_prefix", &path_prefix.unwrap_or_default())?,
            auto_sync: auto_sync
                .map(|mode| AutoSync::parse("s3.auto_sync", &mode))
                .transpose()?
                .unwrap_or_default(),
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebScrapeBody {
    starting_url: Option<String>,
    #[serde(default, deserialize_with = "whole_number")]
    page_limit: Option<u64>,
    #[serde(default, deserialize_with = "whole_number")]
    max_depth: Option<u64>,
    include_path_regexes: Option<Vec<String>>,
    exclude_path_regexes: Option<Vec<String>>,
}

impl WebScrapeBody {
    pub(super) fn read(self) -> Result<WebScrapeSource, FieldViolation> {
        let Self {
            starting_url,
            page_limit,
            max_depth,
            include_path_regexes,
            exclude_path_regexes,
        } = self;
        let starting_url = required("web_scrape.starting_url", starting_url)?;
        let patterns = |field: &str, patterns: Option<Vec<String>>| {
            patterns
                .filter(|patterns| !patterns.is_empty())
                .map(|patterns| PathPatterns::parse(field, &patterns))
                .transpose()
        };
        Ok(WebScrapeSource {
            starting_url: StartingUrl::parse("web_scrape.starting_url", &starting_url)?,
            page_limit: whole("web_scrape.page_limit", page_limit, 1)?,
            max_depth: whole("web_scrape.max_depth", max_depth, 0)?,
            include_paths: patterns("web_scrape.include_path_regexes", include_path_regexes)?,
            exclude_paths: patterns("web_scrape.exclude_path_regexes", exclude_path_regexes)?,
        })
    }
}

/// A number from `least` to 2^31-1, which the documented type is.
fn whole(field: &str, number: Option<u64>, least: u32) -> Result<Option<u32>, FieldViolation> {
    let most = i32::MAX.unsigned_abs();
    number
        .map(|number| match u32::try_from(number) {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            Ok(_) | Err(_) => Err(FieldViolation::new(
                field,
                format!("must be {least} to {most}, is {number}"),
            )),
        })
        .transpose()
}

/// The settings under the name of their type.
pub(super) fn value(settings: SourceSettings) -> Value {
    match settings {
        SourceSettings::Github(GithubSource {
            repository,
            app_id,
            include_globs,
        }) => {
            // The documented default of the globs is filled in, as that of the chunking is.
            let globs = include_globs.map_or_else(|| vec!["*".to_owned()], |globs| globs.patterns().to_vec());
            json!({"github": {
                "repository": repository.as_str(),
                "app_id": app_id.as_ref().map(GithubAppId::as_str),
                "include_globs": globs,
            }})
        }
        SourceSettings::S3(S3Source {
            bucket,
            region,
            collection,
            credential,
            path_prefix,
            auto_sync,
        }) => json!({"s3": {
            "bucket_name": bucket.as_str(),
            "region": region.as_str(),
            "collection_name": collection.as_str(),
            "aws_credential_id": match credential {
                S3Credential::Stored(id) => Some(id.number()),
                S3Credential::Given(_) => None,
            },
            "path_prefix": path_prefix.as_ref().map(PathPrefix::as_str),
            "auto_sync": auto_sync.as_str(),
        }}),
        SourceSettings::WebScrape(WebScrapeSource {
            starting_url,
            page_limit,
            max_depth,
            include_paths,
            exclude_paths,
        }) => json!({"web_scrape": {
            "starting_url": starting_url.as_str(),
            "page_limit": page_limit,
            "max_depth": max_depth,
            "include_path_regexes": include_paths.as_ref().map(PathPatterns::patterns),
            "exclude_path_regexes": exclude_paths.as_ref().map(PathPatterns::patterns),
        }}),
        SourceSettings::FileUpload => json!({"file_upload": {}}),
    }
}
