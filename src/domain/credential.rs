//! What gives access to sources that are not public: access keys of AWS and GitHub Apps.
//!
//! Both belong to the whole tenant. Their secrets are checked here, sealed by whoever stores them and never
//! shown again.

use std::fmt;

use ring::rsa::KeyPair as RsaKeyPair;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, pem::PemObject};

use super::{names::TenantName, source::GithubAppId, time::Timestamp};
use crate::{
    error::FieldViolation,
    secret::{Sealed, Secret},
};

/// The longest id of an access key, in bytes.
const MAX_ACCESS_KEY_ID_BYTES: usize = 128;
/// The longest secret of an access key, in bytes.
const MAX_SECRET_ACCESS_KEY_BYTES: usize = 1_024;
/// The longest name, in characters.
const MAX_NAME_CHARACTERS: usize = 100;
/// The longest private key, in bytes: one of 4096 bits has about 3,300.
const MAX_PRIVATE_KEY_BYTES: usize = 16_384;
/// The shortest RSA key that is taken, in bytes of its modulus.
const MIN_MODULUS_BYTES: usize = 2_048 / 8;

/// Names an access key within its tenant; 1 to 2^31-1, chosen at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AwsCredentialId(i32);

impl AwsCredentialId {
    /// A new id, likely to be free.
    pub fn generate() -> Self {
        Self(rand::random_range(1..=i32::MAX))
    }

    /// 1 to 2^31-1; the violation names `field`.
    pub fn parse(field: &str, number: i64) -> Result<Self, FieldViolation> {
        match i32::try_from(number) {
            Ok(id) if id > 0 => Ok(Self(id)),
            Ok(_) | Err(_) => Err(FieldViolation::new(
                field,
                "must be the id of an access key: 1 to 2147483647",
            )),
        }
    }

    /// Takes an id that was stored.
    pub fn from_stored(id: i32) -> Self {
        Self(id)
    }

    /// The number.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for AwsCredentialId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An access key with its secret, for the one place that signs with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsKeys {
    /// Its id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: Secret,
}

impl AwsKeys {
    /// Checks both parts; the violation names `access_key_id` or `secret_access_key` after `prefix` and never
    /// repeats the secret.
    pub fn parse(prefix: &str, access_key_id: &str, secret_access_key: &str) -> Result<Self, FieldViolation> {
        check_printable(
            &format!("{prefix}access_key_id"),
            access_key_id,
            MAX_ACCESS_KEY_ID_BYTES,
        )?;
        check_printable(
            &format!("{prefix}secret_access_key"),
            secret_access_key,
            MAX_SECRET_ACCESS_KEY_BYTES,
        )?;
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: Secret::new(secret_access_key),
        })
    }
}

fn check_printable(field: &str, text: &str, most: usize) -> Result<(), FieldViolation> {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if printable && (1..=most).contains(&text.len()) {
        return Ok(());
    }
    Err(FieldViolation::new(
        field,
        format!("must be 1 to {most} printable ASCII characters without spaces"),
    ))
}

/// A stored access key, as callers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsCredential {
    /// What sources name it by.
    pub id: AwsCredentialId,
    /// What its owner calls it.
    pub name: Option<String>,
    /// The access key's id.
    pub access_key_id: String,
    /// When it was stored.
    pub create_time: Timestamp,
}

/// An access key to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAwsCredential {
    /// What its owner calls it.
    pub name: Option<String>,
    /// The access key's id.
    pub access_key_id: String,
    /// Its secret, sealed for [`aws_sealing_context`].
    pub sealed_secret: Sealed,
}

/// A name for an access key; none when it is empty. The violation names `field`.
pub fn parse_name(field: &str, name: &str) -> Result<Option<String>, FieldViolation> {
    if name.chars().count() > MAX_NAME_CHARACTERS || name.chars().any(char::is_control) {
        return Err(FieldViolation::new(
            field,
            format!("must have at most {MAX_NAME_CHARACTERS} characters, none of them a control character"),
        ));
    }
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

/// What the secret of an access key is sealed for. No name of a tenant has a slash.
pub fn aws_sealing_context(tenant: &TenantName, access_key_id: &str) -> String {
    format!("aws_credential/{tenant}/{access_key_id}")
}

/// A registered GitHub App, as callers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GithubApp {
    /// Its id at GitHub.
    pub app_id: GithubAppId,
    /// When it was registered.
    pub create_time: Timestamp,
    /// When its private key was stored.
    pub update_time: Timestamp,
}

/// A GitHub App to register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGithubApp {
    /// Its id at GitHub.
    pub app_id: GithubAppId,
    /// Its private key, sealed for [`github_sealing_context`].
    pub sealed_private_key: Sealed,
}

/// What the private key of a GitHub App is sealed for.
pub fn github_sealing_context(tenant: &TenantName, app_id: &str) -> String {
    format!("github_app/{tenant}/{app_id}")
}

/// Checks the private key of a GitHub App: a PEM file with an RSA key of 2048 to 4096 bits, PKCS#1 or PKCS#8.
/// The violation names `field` and never repeats the key.
pub fn parse_private_key(field: &str, text: &str) -> Result<Secret, FieldViolation> {
    let refused = |problem: &str| Err(FieldViolation::new(field, problem));
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_PRIVATE_KEY_BYTES {
        return refused("must be the private key of the GitHub App: the PEM file that GitHub made");
    }
    if text.contains("ENCRYPTED") {
        return refused("must not need a passphrase; take the PEM file as GitHub made it");
    }
    let key = Secret::new(text);
    match rsa_key_pair(&key) {
        Some(pair) if pair.public().modulus_len() >= MIN_MODULUS_BYTES => Ok(key),
        Some(_) | None => refused(
            "must be an RSA private key of 2048 to 4096 bits as PEM, beginning with '-----BEGIN RSA PRIVATE \
             KEY-----' or '-----BEGIN PRIVATE KEY-----'",
        ),
    }
}

/// The key pair of a PEM file; none when it has no RSA private key of 2048 to 4096 bits.
pub fn rsa_key_pair(private_key: &Secret) -> Option<RsaKeyPair> {
    match PrivateKeyDer::from_pem_slice(private_key.expose().as_bytes()).ok()? {
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()).ok(),
        PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).ok(),
        // An elliptic curve, or a kind that was added since.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn openssl(arguments: &[&str]) -> String {
        let output = Command::new("openssl").args(arguments).output();
        let output = output.expect("the tests need openssl: apt-get install openssl");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn both_forms_of_a_private_key_are_taken_and_no_other_key_is() {
        let old = openssl(&["genrsa", "-traditional", "2048"]);
        assert!(old.starts_with("-----BEGIN RSA PRIVATE KEY-----"), "PKCS#1");
        let new = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]);
        assert!(new.starts_with("-----BEGIN PRIVATE KEY-----"), "PKCS#8");
        for (pem, bytes) in [(&old, 256), (&new, 384)] {
            let key = parse_private_key("private_key", &format!("\n{pem}\n")).unwrap();
            assert_eq!(rsa_key_pair(&key).unwrap().public().modulus_len(), bytes);
        }
        let short = openssl(&["genrsa", "1024"]);
        let curve = openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout"]);
        let locked = openssl(&[
            "genpkey",
            "-algorithm",
            "RSA",
            "-aes-256-cbc",
            "-pass",
            "pass:secret",
        ]);
        let torn = &old[..old.len() / 2];
        for other in ["", "x", &short, &curve, &locked, torn, &"A".repeat(20_000)] {
            let refused = parse_private_key("private_key", other).unwrap_err();
            assert_eq!(refused.field, "private_key");
            for line in other.lines().filter(|line| line.len() > 40) {
                assert!(!refused.description.contains(line), "{refused:?}");
            }
        }
    }

    #[test]
    fn an_access_key_has_printable_parts() {
        let keys = AwsKeys::parse("s3.aws_", "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+x").unwrap();
        assert_eq!(keys.secret_access_key.expose(), "wJalrXUtnFEMI/K7MDENG+x");
        assert!(!format!("{keys:?}").contains("wJalr"));
        let field = |id: &str, secret: &str| AwsKeys::parse("s3.aws_", id, secret).unwrap_err().field;
        assert_eq!(field("", "x"), "s3.aws_access_key_id");
        assert_eq!(field("a b", "x"), "s3.aws_access_key_id");
        assert_eq!(field("a", ""), "s3.aws_secret_access_key");
        assert_eq!(field("a", "line\n"), "s3.aws_secret_access_key");
        assert_eq!(field("a", &"x".repeat(1_025)), "s3.aws_secret_access_key");
    }

    #[test]
    fn an_id_of_an_access_key_is_positive_and_has_thirty_one_bits() {
        for number in [1, 2_147_483_647] {
            let id = AwsCredentialId::parse("id", number).unwrap();
            assert_eq!(i64::from(id.number()), number);
        }
        for number in [0, -1, 2_147_483_648, i64::MIN, i64::MAX] {
            assert!(AwsCredentialId::parse("id", number).is_err(), "{number}");
        }
        assert!(AwsCredentialId::generate().number() > 0);
    }
}
