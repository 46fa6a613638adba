//! Signatures of requests to AWS, and to services that check the same ones (Signature Version 4).
//!
//! Absent on purpose: credentials of the machine that the service runs on. A source works with those that its
//! owner gave, and would otherwise read whatever the operator may read.

use std::{fmt, time::SystemTime};

use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use reqwest::{
    Request,
    header::{HeaderName, HeaderValue},
};

use crate::secret::Secret;

/// An access key. `Debug` shows neither of its parts.
#[derive(Clone, PartialEq, Eq)]
pub struct AwsCredentials {
    /// Which key.
    pub access_key_id: String,
    /// What proves that it is ours.
    pub secret_access_key: Secret,
    /// Belongs to a temporary key.
    pub session_token: Option<Secret>,
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AwsCredentials")
    }
}

/// The services that requests are signed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AwsService {
    /// Objects.
    S3,
    /// Queues.
    Sqs,
}

impl AwsService {
    const fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Sqs => "sqs",
        }
    }

    /// S3 takes paths as they are sent and wants a digest of the body; the others want paths normalised and
    /// encoded once more.
    fn settings(self) -> SigningSettings {
        let mut settings = SigningSettings::default();
        match self {
            Self::S3 => {
                settings.percent_encoding_mode = PercentEncodingMode::Single;
                settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
                settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
            }
            Self::Sqs => {}
        }
        settings
    }
}

/// Why a request could not be signed; a fault of ours, since what is sent was checked before.
#[derive(Debug, thiserror::Error)]
#[error("a request could not be signed")]
pub struct SignError {
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl SignError {
    fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            source: source.into(),
        }
    }
}

/// Signs requests to one service in one region.
#[derive(Debug, Clone)]
pub struct Signer {
    credentials: AwsCredentials,
    region: String,
    service: AwsService,
}

impl Signer {
    /// A signer for `region`, such as `us-east-1`.
    pub fn new(credentials: AwsCredentials, region: impl Into<String>, service: AwsService) -> Self {
        Self {
            credentials,
            region: region.into(),
            service,
        }
    }

    /// Adds the headers that sign `request` as of `time`. Every header that is there already is signed, the
    /// user agent aside, so none may be added or changed afterwards.
    ///
    /// # Errors
    /// [`SignError`] for headers that are no text, and bodies that are streams.
    pub fn sign(&self, request: &mut Request, time: SystemTime) -> Result<(), SignError> {
        let token = self.credentials.session_token.as_ref();
        let identity = aws_sigv4_credentials(&self.credentials, token).into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service.name())
            .time(time)
            .settings(self.service.settings())
            .build()
            .map_err(SignError::new)?
            .into();
        let headers = request
            .headers()
            .iter()
            .map(|(name, value)| Ok((name.as_str(), value.to_str().map_err(SignError::new)?)))
            .collect::<Result<Vec<(&str, &str)>, SignError>>()?;
        let body = match request.body() {
            None => &[],
            Some(body) => body
                .as_bytes()
                .ok_or_else(|| SignError::new("a stream cannot be signed"))?,
        };
        let signable = SignableRequest::new(
            request.method().as_str(),
            request.url().as_str(),
            headers.into_iter(),
            SignableBody::Bytes(body),
        )
        .map_err(SignError::new)?;
        let (instructions, _) = sign(signable, &parameters).map_err(SignError::new)?.into_parts();
        let (added, _) = instructions.into_parts();
        for header in added {
            let mut value = HeaderValue::from_str(header.value()).map_err(SignError::new)?;
            value.set_sensitive(header.sensitive());
            request
                .headers_mut()
                .insert(HeaderName::from_static(header.name()), value);
        }
        Ok(())
    }
}

fn aws_sigv4_credentials(
    credentials: &AwsCredentials,
    session_token: Option<&Secret>,
) -> aws_credential_types::Credentials {
    aws_credential_types::Credentials::new(
        credentials.access_key_id.clone(),
        credentials.secret_access_key.expose(),
        session_token.map(|token| token.expose().to_owned()),
        None,
        "chroma-sync",
    )
}
