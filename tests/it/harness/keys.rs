//! Private keys of GitHub Apps, made by openssl.

use std::{process::Command, sync::OnceLock};

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output();
    let output = output.expect("the tests need openssl: apt-get install openssl");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A key as GitHub makes it (PKCS#1); always the same one.
pub fn app_key() -> &'static str {
    static KEY: OnceLock<String> = OnceLock::new();
    KEY.get_or_init(|| openssl(&["genrsa", "-traditional", "2048"]))
}

/// Another key, in the other form (PKCS#8); always the same one.
pub fn other_app_key() -> &'static str {
    static KEY: OnceLock<String> = OnceLock::new();
    KEY.get_or_init(|| openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]))
}
