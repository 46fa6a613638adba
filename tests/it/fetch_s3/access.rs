//! What access keys may do, judged by a server that checks signatures and policies.

use chroma_sync::fetch::s3::S3Error;
use serde_json::{Value, json};

use super::{bytes, key, open, options};
use crate::harness::moto::{Moto, credentials};

fn policy(actions: &[&str]) -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}],
    })
}

#[tokio::test]
async fn access_keys_do_what_their_policies_allow_and_refusals_say_what_is_missing() {
    let (moto, directory) = (Moto::start().await, tempfile::tempdir().unwrap());
    moto.create_bucket("docs").await;
    // moto signs paths decoded, so that an odd key would not do; `signature` has those.
    moto.put("docs", "a.md", "text").await;
    let reader = moto
        .create_user("reader", &policy(&["s3:GetObject", "s3:ListBucket"]))
        .await;
    let lister = moto.create_user("lister", &policy(&["s3:ListBucket"])).await;
    let getter = moto.create_user("getter", &policy(&["s3:GetObject"])).await;
    moto.check_access().await;
    let options = options(&moto.url, &directory);

    // That these pass shows that the signatures are right.
    let bucket = open(&options, "docs", reader.clone());
    let listed = bucket.list(None).await.unwrap();
    assert_eq!(bytes(&bucket, &listed[0]).await, b"text");
    let entry = open(&options, "docs", getter.clone())
        .head(&key("a.md"))
        .await
        .unwrap();
    assert_eq!(entry, listed[0]);

    let denied = open(&options, "docs", getter).list(None).await.unwrap_err();
    assert_eq!(
        denied.to_string(),
        "the credentials may not list bucket docs (AccessDenied); allow them s3:ListBucket on it, and check that \
         bucket_name is right"
    );
    let bucket = open(&options, "docs", lister);
    let version = bucket.list(None).await.unwrap()[0].version_key.clone();
    let head = bucket.head(&key("a.md")).await.unwrap_err();
    let load = bucket.load("a.md", &version).await.unwrap_err();
    for denied in [head, load] {
        assert_eq!(
            denied.to_string(),
            "the credentials may not read object \"a.md\" of bucket docs (AccessDenied); check that it exists, \
             and allow them s3:GetObject on it (with s3:ListBucket a missing object is told apart)"
        );
        assert_eq!(denied.reason(), "BUCKET_ACCESS_DENIED");
    }

    let wrong = credentials(&reader.access_key_id, "planted-secret");
    let unknown = credentials("AKIAUNKNOWN000000000", "planted-secret");
    for (credentials, code) in [(wrong, "SignatureDoesNotMatch"), (unknown, "InvalidAccessKeyId")] {
        let bucket = open(&options, "docs", credentials);
        for error in [
            bucket.list(None).await.unwrap_err(),
            bucket.head(&key("a")).await.unwrap_err(),
        ] {
            assert!(
                matches!(&error, S3Error::CredentialsRefused { code: told, .. } if told == code),
                "{error:?}"
            );
            assert!(!error.is_transient());
            assert!(!format!("{error:?} {error}").contains("planted-secret"));
        }
        assert!(!format!("{bucket:?}").contains("planted-secret"));
    }
}
