//! What differs by the type of the source, as wire messages and back.

use prost_types::value::Kind;
use serde_json::{Map, Number, Value};

use crate::{
    domain::{
        invocation::{GitReference, InvocationInput, S3Objects, UploadedFile},
        path_patterns::PathPatterns,
        s3::{AutoSync, CustomId, PathPrefix},
        source::{GithubSource, S3Credential, S3Source, SourceSettings, WebScrapeSource},
        user_metadata::UserMetadata,
    },
    error::FieldViolation,
    proto,
};

/// Numbers up to here are whole in a float of 64 bits.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;
/// How deep a message of metadata may be nested; valid metadata has arrays alone.
const MAX_METADATA_DEPTH: usize = 4;

/// The settings of a source.
pub(super) fn settings(settings: SourceSettings) -> proto::source::Settings {
    match settings {
        SourceSettings::Github(GithubSource {
            repository,
            app_id,
            include_globs,
        }) => proto::source::Settings::Github(proto::GithubSource {
            repository: repository.as_str().to_owned(),
            app_id: app_id.map(|id| id.to_string()),
            include_globs: include_globs
                .map(|globs| globs.patterns().to_vec())
                .unwrap_or_default(),
        }),
        SourceSettings::S3(S3Source {
            bucket,
            region,
            collection,
            credential,
            path_prefix,
            auto_sync,
        }) => proto::source::Settings::S3(proto::S3Source {
            bucket_name: bucket.to_string(),
            region: region.to_string(),
            collection_name: collection.to_string(),
            aws_credential_id: match credential {
                S3Credential::Stored(id) => Some(i64::from(id.number())),
                S3Credential::Given(_) => None,
            },
            access_key: None,
            path_prefix: path_prefix
                .as_ref()
                .map(PathPrefix::to_string)
                .unwrap_or_default(),
            auto_sync: proto::s3_source::AutoSync::from(auto_sync).into(),
        }),
        SourceSettings::WebScrape(WebScrapeSource {
            starting_url,
            page_limit,
            max_depth,
            include_paths,
            exclude_paths,
        }) => {
            let number = |number: Option<u32>| number.map(|number| i32::try_from(number).unwrap_or(i32::MAX));
            let patterns = |paths: Option<PathPatterns>| {
                paths.map(|paths| paths.patterns().to_vec()).unwrap_or_default()
            };
            proto::source::Settings::WebScrape(proto::WebScrapeSource {
                starting_url: starting_url.to_string(),
                page_limit: number(page_limit),
                max_depth: number(max_depth),
                include_path_regexes: patterns(include_paths),
                exclude_path_regexes: patterns(exclude_paths),
            })
        }
        SourceSettings::FileUpload => proto::source::Settings::FileUpload(proto::FileUploadSource {}),
    }
}

impl From<AutoSync> for proto::s3_source::AutoSync {
    fn from(mode: AutoSync) -> Self {
        match mode {
            AutoSync::None => Self::None,
            AutoSync::Direct => Self::Direct,
            AutoSync::Metadata => Self::Metadata,
        }
    }
}

/// What an invocation syncs.
pub(super) fn input(input: &InvocationInput) -> proto::invocation::Input {
    match input {
        InvocationInput::Github { reference } => proto::invocation::Input::Github(proto::GithubInput {
            reference: reference.as_ref().map(|reference| match reference {
                GitReference::Branch(branch) => proto::github_input::Reference::Branch(branch.clone()),
                GitReference::Sha(sha) => proto::github_input::Reference::Sha(sha.clone()),
            }),
        }),
        InvocationInput::S3 { bucket, objects } => proto::invocation::Input::S3(s3(bucket.as_str(), objects)),
        InvocationInput::WebScrape => proto::invocation::Input::WebScrape(proto::WebScrapeInput {}),
        InvocationInput::FileUpload(UploadedFile {
            upload_id: _,
            file_name,
            custom_id,
            metadata,
            content_type,
            content_sha256: _,
            size_bytes,
        }) => proto::invocation::Input::FileUpload(proto::FileUploadInput {
            file_name: file_name.to_string(),
            custom_id: custom_id.as_ref().map(CustomId::to_string).unwrap_or_default(),
            metadata: some_struct(metadata),
            content_type: content_type.clone().unwrap_or_default(),
            size_bytes: i64::try_from(*size_bytes).unwrap_or(i64::MAX),
        }),
    }
}

fn s3(bucket: &str, objects: &S3Objects) -> proto::S3Input {
    use proto::s3_input::Objects;

    let (objects, custom_id, metadata, removed) = match objects {
        S3Objects::Object {
            key,
            custom_id,
            metadata,
        } => (
            Objects::ObjectKey(key.to_string()),
            custom_id.as_ref(),
            some_struct(metadata),
            false,
        ),
        S3Objects::Removed { key } => (Objects::ObjectKey(key.to_string()), None, None, true),
        S3Objects::Prefix => (Objects::Prefix(true), None, None, false),
    };
    proto::S3Input {
        bucket_name: bucket.to_owned(),
        objects: Some(objects),
        custom_id: custom_id.map(CustomId::to_string).unwrap_or_default(),
        metadata,
        removed,
    }
}

fn some_struct(metadata: &UserMetadata) -> Option<prost_types::Struct> {
    (!metadata.is_empty()).then(|| prost_types::Struct {
        fields: metadata
            .as_map()
            .iter()
            .map(|(key, value)| (key.clone(), to_wire(value)))
            .collect(),
    })
}

/// JSON as a message.
pub(super) fn to_wire(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.iter().map(to_wire).collect(),
        }),
        Value::Object(fields) => Kind::StructValue(prost_types::Struct {
            fields: fields
                .iter()
                .map(|(key, value)| (key.clone(), to_wire(value)))
                .collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}

/// Metadata of a caller. The numbers of this message are floats; whole ones are taken as integers, which is
/// what a caller of REST would have written.
///
/// # Errors
/// Those of [`UserMetadata::parse`], and for what JSON does not have.
pub(super) fn user_metadata(
    field: &str,
    metadata: Option<prost_types::Struct>,
) -> Result<UserMetadata, FieldViolation> {
    let Some(prost_types::Struct { fields }) = metadata else {
        return Ok(UserMetadata::default());
    };
    let fields = fields
        .into_iter()
        .map(|(key, value)| {
            let value = from_wire(value, MAX_METADATA_DEPTH)
                .map_err(|problem| FieldViolation::new(format!("{field}.{key}"), problem))?;
            Ok((key, value))
        })
        .collect::<Result<Map<String, Value>, FieldViolation>>()?;
    UserMetadata::parse(field, fields)
}

/// A message as JSON, with at most `depth` values around the innermost.
pub(super) fn from_wire(value: prost_types::Value, depth: usize) -> Result<Value, &'static str> {
    let inner = || depth.checked_sub(1).ok_or("is nested too deep");
    Ok(match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::NumberValue(number)) => Value::Number(json_number(number)?),
        Some(Kind::ListValue(list)) => Value::Array(
            list.values
                .into_iter()
                .map(|value| from_wire(value, inner()?))
                .collect::<Result<_, _>>()?,
        ),
        Some(Kind::StructValue(fields)) => Value::Object(
            fields
                .fields
                .into_iter()
                .map(|(key, value)| Ok((key, from_wire(value, inner()?)?)))
                .collect::<Result<_, &'static str>>()?,
        ),
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "whole and within the bounds of i64"
)]
fn json_number(number: f64) -> Result<Number, &'static str> {
    if number.fract() == 0.0 && number.abs() <= MAX_WHOLE {
        return Ok(Number::from(number as i64));
    }
    Number::from_f64(number).ok_or("must be a finite number")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_comes_back_as_it_went() {
        let Value::Object(fields) = json!({
            "text": "a", "whole": 7, "half": 0.5, "large": 1e300, "yes": true, "list": ["a", "b"], "none": null,
        }) else {
            unreachable!("it is an object")
        };
        let metadata = UserMetadata::parse("metadata", fields).unwrap();
        let wire = some_struct(&metadata);
        assert_eq!(user_metadata("metadata", wire).unwrap(), metadata);
    }

    #[test]
    fn what_json_does_not_have_is_refused_by_its_key() {
        let with = |kind: Kind| prost_types::Struct {
            fields: [("k".to_owned(), prost_types::Value { kind: Some(kind) })].into(),
        };
        let mut deep = Kind::BoolValue(true);
        for _ in 0..20 {
            deep = Kind::ListValue(prost_types::ListValue {
                values: vec![prost_types::Value { kind: Some(deep) }],
            });
        }
        for kind in [
            Kind::NumberValue(f64::NAN),
            Kind::NumberValue(f64::INFINITY),
            deep,
        ] {
            let refused = user_metadata("s3.metadata", Some(with(kind))).unwrap_err();
            assert_eq!(refused.field, "s3.metadata.k");
        }
    }
}
