//! Parts of a request, each refused with the documented body when it is wrong.

use std::{fmt, marker::PhantomData};

use axum::{
    body::{Bytes, to_bytes},
    extract::{FromRequest, FromRequestParts, Path, Request},
};
use http::{HeaderMap, StatusCode, header::CONTENT_TYPE, request::Parts};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{RestState, error::RestError};
use crate::{
    app::Auth,
    domain::ids::parse_uuid,
    error::{Error, FieldViolation, Reason},
    token,
};

/// The caller, whose token was checked.
pub(super) struct Caller(pub(super) Auth);

impl FromRequestParts<RestState> for Caller {
    type Rejection = RestError;

    async fn from_request_parts(parts: &mut Parts, state: &RestState) -> Result<Self, RestError> {
        let auth = state
            .app
            .authenticate(token::from_headers(&parts.headers))
            .await?;
        Ok(Self(auth))
    }
}

/// An id in the path.
pub(super) struct PathId<T>(pub(super) T);

impl<T> FromRequestParts<RestState> for PathId<T>
where
    T: std::str::FromStr<Err = FieldViolation>,
{
    type Rejection = RestError;

    async fn from_request_parts(parts: &mut Parts, state: &RestState) -> Result<Self, RestError> {
        // A segment that is not UTF-8 after decoding is no id either; the id's own error names the field.
        let text = Path::<String>::from_request_parts(parts, state)
            .await
            .map(|Path(text)| text);
        Ok(Self(text.unwrap_or_default().parse()?))
    }
}

/// A field that the body must have.
pub(super) fn required<T>(field: &str, value: Option<T>) -> Result<T, FieldViolation> {
    value.ok_or_else(|| FieldViolation::new(field, "is required"))
}

/// `Idempotency-Key`: a second create with the key of the first and the same body answers what the first
/// one did.
///
/// Source of the name and of the quotes: the IETF draft *The Idempotency-Key HTTP Header Field*, where it is
/// a string of structured fields; most clients send it bare. A key that is a UUID is the `request_id` of
/// gRPC, so a create may be repeated over the other transport.
pub(super) struct RequestId(pub(super) Option<Uuid>);

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
const MAX_KEY_CHARACTERS: usize = 255;

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = RestError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, RestError> {
        Ok(Self(read_request_id(&parts.headers)?))
    }
}

/// The id that stands for the `Idempotency-Key` of a request; none when the header is absent.
///
/// # Errors
/// Names `Idempotency-Key` when it is given twice or is not 1 to 255 visible ASCII characters.
pub fn read_request_id(headers: &HeaderMap) -> Result<Option<Uuid>, FieldViolation> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(FieldViolation::new(IDEMPOTENCY_KEY, "must be given once"));
    }
    let text = value.to_str().unwrap_or_default();
    let bare = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    if !(1..=MAX_KEY_CHARACTERS).contains(&bare.len()) || !bare.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = format!("must be 1 to {MAX_KEY_CHARACTERS} visible ASCII characters without spaces");
        return Err(FieldViolation::new(IDEMPOTENCY_KEY, problem));
    }
    Ok(Some(request_id(bare)))
}

/// The id that stands for a key: itself where it is one, else a UUID of version 8 made of its SHA-256.
fn request_id(key: &str) -> Uuid {
    parse_uuid(IDEMPOTENCY_KEY, key).unwrap_or_else(|_| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&Sha256::digest(key.as_bytes())[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    })
}

/// A body of a limited size that is declared to be JSON; [`read_object`] reads it.
pub(super) struct JsonBody(pub(super) Bytes);

impl FromRequest<RestState> for JsonBody {
    type Rejection = RestError;

    async fn from_request(request: Request, state: &RestState) -> Result<Self, RestError> {
        require_json(request.headers())?;
        let limit = state.max_request_bytes;
        let bytes = to_bytes(request.into_body(), limit).await.map_err(|_| {
            RestError::Http(
                StatusCode::PAYLOAD_TOO_LARGE,
                "PayloadTooLargeError",
                format!("the body must have at most {limit} bytes and arrive whole"),
            )
        })?;
        Ok(Self(bytes))
    }
}

/// Reads a body that is one JSON object.
pub(super) fn read_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let Object(value) =
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| malformed(&error))?;
    deserializer.end().map_err(|error| {
        Error::new(
            Reason::MalformedRequest,
            format!("the body is not one JSON value: {error}"),
        )
    })?;
    Ok(value)
}

/// A value that is written as a JSON object. By itself a struct would also be read from an array of its
/// fields, in the order in which they happen to be declared.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

fn require_json(headers: &HeaderMap) -> Result<(), RestError> {
    let given = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = given
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(RestError::Http(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UnsupportedMediaTypeError",
        "content-type must be application/json".to_owned(),
    ))
}

/// A body that is JSON but not what was expected names the field; one that is no JSON says where.
fn malformed(error: &serde_path_to_error::Error<serde_json::Error>) -> Error {
    let inner = error.inner();
    let path = error.path().to_string();
    match inner.classify() {
        // A member whose name is empty leaves no field to name.
        serde_json::error::Category::Data if !matches!(path.as_str(), "." | "") => {
            Error::invalid_field(path, inner.to_string())
        }
        serde_json::error::Category::Data
        | serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof
        | serde_json::error::Category::Io => Error::new(
            Reason::MalformedRequest,
            format!("the body is not the expected JSON: {inner}"),
        ),
    }
}

/// Query parameters, taken one by one; what is left over at the end is unknown and refused.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query of a URI; none has no parameters.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, FieldViolation> {
        let text = query.unwrap_or_default();
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(text.as_bytes())
            .into_owned()
            .collect();
        for (index, (name, value)) in pairs.iter().enumerate() {
            if name.is_empty() {
                let problem = "must not have a parameter without a name";
                return Err(FieldViolation::new("query", problem));
            }
            if pairs[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(FieldViolation::new(name, "must be given once"));
            }
            if value.contains('\0') {
                return Err(FieldViolation::new(name, "must not contain a NUL character"));
            }
        }
        Ok(Self(pairs))
    }

    /// Takes the value of a parameter.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let index = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(index).1)
    }

    /// Takes a whole number in `least..=most`.
    pub(super) fn take_number(
        &mut self,
        name: &str,
        least: u64,
        most: u64,
    ) -> Result<Option<u64>, FieldViolation> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        match text.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            Ok(_) | Err(_) => Err(FieldViolation::new(
                name,
                format!("must be a whole number from {least} to {most}, is {text:?}"),
            )),
        }
    }

    /// Refuses every parameter that was not taken.
    pub(super) fn finish(self, known: &[&str]) -> Result<(), FieldViolation> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(FieldViolation::new(
                name,
                format!(
                    "is not a query parameter of this path, which knows: {}",
                    known.join(", ")
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_member_without_a_name_is_no_field_to_name() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            #[allow(dead_code)]
            known: Option<Value>,
        }

        let error = read_object::<Body>(br#"{"": 1}"#).unwrap_err();
        assert_eq!(
            (error.reason(), error.violations()),
            (Reason::MalformedRequest, &[][..])
        );
    }

    #[test]
    fn a_parameter_without_a_name_is_a_fault_of_the_query() {
        for query in ["=", "=1", "limit=1&=2", "=1&=2"] {
            let violation = Query::parse(Some(query)).unwrap_err();
            assert_eq!(violation.field, "query", "{query}");
        }
    }
}
