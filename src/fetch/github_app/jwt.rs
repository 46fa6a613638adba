//! The JWT by which an App proves itself (RFC 7519, RS256).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{rand::SystemRandom, signature::RSA_PKCS1_SHA256};
use serde_json::json;

use crate::{
    domain::{credential::rsa_key_pair, source::GithubAppId},
    secret::Secret,
};

/// How far back a JWT is dated, in seconds, for clocks that go differently.
const BACKDATED: i64 = 60;
/// How long a JWT is good from now on, in seconds; GitHub takes at most ten minutes.
const LIFETIME: i64 = 540;

/// A JWT of an App, at `now` in seconds since the Unix epoch; none when the private key cannot sign.
pub(super) fn sign(app_id: &GithubAppId, private_key: &Secret, now: i64) -> Option<Secret> {
    let key = rsa_key_pair(private_key)?;
    // Older servers want the App's id as a number; a client id is none.
    let issuer = match app_id.as_str().parse::<u64>() {
        Ok(number) => json!(number),
        Err(_) => json!(app_id.as_str()),
    };
    let claims = json!({"iat": now - BACKDATED, "exp": now + LIFETIME, "iss": issuer});
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let header = json!({"alg": "RS256", "typ": "JWT"}).to_string();
    let signed = format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .ok()?;
    Some(Secret::new(format!("{signed}.{}", encode(&signature))))
}
