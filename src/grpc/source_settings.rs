//! What differs by the type of the source, read from wire requests.

use super::convert_source::user_metadata;
use crate::{
    domain::{
        credential::{AwsCredentialId, AwsKeys},
        globs::Globs,
        invocation::GitReference,
        names::CollectionName,
        path_patterns::PathPatterns,
        request::{FieldNames, RequestedInput},
        s3::{AutoSync, BucketName, CustomId, PathPrefix, Region},
        source::{
            GithubAppId, GithubSource, RepositoryName, S3Credential, S3Source, SourceSettings,
            WebScrapeSource,
        },
        web::StartingUrl,
    },
    error::{Error, FieldViolation},
    proto,
};

/// How this contract calls the fields of an invocation's input.
pub(super) const FIELDS: FieldNames = FieldNames {
    reference: "github",
    object_key: "s3.object_key",
    prefix: "s3.prefix",
    metadata: "s3.metadata",
    web_scrape: "web_scrape",
};

/// The settings of a source that is to be created.
pub(super) fn read(
    settings: Option<proto::create_source_request::Settings>,
) -> Result<SourceSettings, Error> {
    use proto::create_source_request::Settings;

    match settings {
        Some(Settings::Github(github)) => Ok(SourceSettings::Github(github_source(github)?)),
        Some(Settings::S3(s3)) => Ok(SourceSettings::S3(s3_source(s3)?)),
        Some(Settings::WebScrape(web)) => Ok(SourceSettings::WebScrape(web_source(web)?)),
        None => Err(Error::invalid_field(
            "settings",
            "must be set: github, s3 or web_scrape",
        )),
    }
}

fn github_source(github: proto::GithubSource) -> Result<GithubSource, FieldViolation> {
    let proto::GithubSource {
        repository,
        app_id,
        include_globs,
    } = github;
    let include_globs = if include_globs.is_empty() {
        None
    } else {
        Some(Globs::parse("github.include_globs", &include_globs)?)
    };
    let repository = RepositoryName::parse("github.repository", &repository)?;
    let app_id = app_id.filter(|id| !id.is_empty());
    let app_id = app_id
        .map(|id| GithubAppId::parse("github.app_id", &id))
        .transpose()?;
    Ok(GithubSource {
        repository,
        app_id,
        include_globs,
    })
}

fn s3_source(s3: proto::S3Source) -> Result<S3Source, FieldViolation> {
    let proto::S3Source {
        bucket_name,
        region,
        collection_name,
        aws_credential_id,
        access_key,
        path_prefix,
        auto_sync,
    } = s3;
    let credential = match (aws_credential_id, access_key) {
        (Some(id), None) => S3Credential::Stored(AwsCredentialId::parse("s3.aws_credential_id", id)?),
        (None, Some(key)) => S3Credential::Given(AwsKeys::parse(
            "s3.access_key.",
            &key.access_key_id,
            &key.secret_access_key,
        )?),
        (Some(_), Some(_)) | (None, None) => {
            return Err(FieldViolation::new(
                "s3.aws_credential_id",
                "give exactly one of aws_credential_id and access_key",
            ));
        }
    };
    Ok(S3Source {
        bucket: BucketName::parse("s3.bucket_name", &bucket_name)?,
        region: Region::parse("s3.region", &region)?,
        collection: CollectionName::parse("s3.collection_name", &collection_name)?,
        credential,
        path_prefix: PathPrefix::parse("s3.path_prefix", &path_prefix)?,
        auto_sync: auto_sync_mode(auto_sync)?,
    })
}

fn auto_sync_mode(number: i32) -> Result<AutoSync, FieldViolation> {
    use proto::s3_source::AutoSync as Wire;

    match Wire::try_from(number) {
        Ok(Wire::Unspecified | Wire::None) => Ok(AutoSync::None),
        Ok(Wire::Direct) => Ok(AutoSync::Direct),
        Ok(Wire::Metadata) => Ok(AutoSync::Metadata),
        Err(_) => Err(FieldViolation::new(
            "s3.auto_sync",
            format!("{number} is not a value of S3Source.AutoSync"),
        )),
    }
}

fn web_source(web: proto::WebScrapeSource) -> Result<WebScrapeSource, FieldViolation> {
    let proto::WebScrapeSource {
        starting_url,
        page_limit,
        max_depth,
        include_path_regexes,
        exclude_path_regexes,
    } = web;
    let patterns = |field: &str, patterns: &[String]| match patterns.is_empty() {
        true => Ok(None),
        false => PathPatterns::parse(field, patterns).map(Some),
    };
    let page_limit = page_limit
        .map(|limit| match u32::try_from(limit) {
            Ok(limit) if limit > 0 => Ok(limit),
            Ok(_) | Err(_) => Err(FieldViolation::new(
                "web_scrape.page_limit",
                format!("must be at least 1, is {limit}"),
            )),
        })
        .transpose()?;
    let max_depth = max_depth
        .map(|depth| {
            u32::try_from(depth).map_err(|_| {
                FieldViolation::new(
                    "web_scrape.max_depth",
                    format!("must not be negative, is {depth}"),
                )
            })
        })
        .transpose()?;
    Ok(WebScrapeSource {
        starting_url: StartingUrl::parse("web_scrape.starting_url", &starting_url)?,
        page_limit,
        max_depth,
        include_paths: patterns("web_scrape.include_path_regexes", &include_path_regexes)?,
        exclude_paths: patterns("web_scrape.exclude_path_regexes", &exclude_path_regexes)?,
    })
}

/// What an invocation is to sync.
pub(super) fn read_input(
    input: Option<proto::create_invocation_request::Input>,
) -> Result<RequestedInput, FieldViolation> {
    use proto::create_invocation_request::Input;

    match input {
        None => Ok(RequestedInput::Default),
        Some(Input::Github(proto::GithubInput { reference })) => {
            let reference = match reference {
                None => None,
                Some(proto::github_input::Reference::Branch(name)) => {
                    GitReference::branch_or_default("github.branch", &name)?
                }
                Some(proto::github_input::Reference::Sha(sha)) => {
                    Some(GitReference::sha("github.sha", &sha)?)
                }
            };
            Ok(RequestedInput::Github(reference))
        }
        Some(Input::S3(s3)) => s3_input(s3),
        Some(Input::WebScrape(proto::WebScrapeInput {})) => Ok(RequestedInput::WebScrape),
    }
}

fn s3_input(s3: proto::S3Input) -> Result<RequestedInput, FieldViolation> {
    use proto::s3_input::Objects;

    let proto::S3Input {
        bucket_name,
        objects,
        custom_id,
        metadata,
        removed,
    } = s3;
    for (field, given) in [
        ("s3.bucket_name", !bucket_name.is_empty()),
        ("s3.removed", removed),
    ] {
        if given {
            return Err(FieldViolation::new(field, "is set by the server; leave it out"));
        }
    }
    match objects {
        Some(Objects::ObjectKey(key)) => Ok(RequestedInput::Object {
            key,
            custom_id: match custom_id.is_empty() {
                true => None,
                false => Some(CustomId::parse("s3.custom_id", &custom_id)?),
            },
            metadata: user_metadata("s3.metadata", metadata)?,
        }),
        Some(Objects::Prefix(true)) => {
            for (field, given) in [
                ("s3.custom_id", !custom_id.is_empty()),
                ("s3.metadata", metadata.is_some()),
            ] {
                if given {
                    return Err(FieldViolation::new(
                        field,
                        "goes with object_key alone; leave it out",
                    ));
                }
            }
            Ok(RequestedInput::Prefix)
        }
        Some(Objects::Prefix(false)) | None => Err(FieldViolation::new(
            "s3.objects",
            "must be set: object_key, or prefix as true",
        )),
    }
}
