//! Reading buckets of a server of S3 written by others.

mod access;
mod answers;
mod signature;

use std::time::Duration;

use chroma_sync::{
    aws::AwsCredentials,
    domain::{
        document::SkipRule,
        s3::{BucketName, ObjectKey, PathPrefix, Region},
    },
    fetch::{
        Content, Entry, Listed,
        s3::{Bucket, MAX_BYTES_IN_MEMORY, S3Bucket, S3Error, S3Options},
    },
};
use futures::{StreamExt, stream};
use url::Url;

use crate::harness::moto::{Moto, REGION, any_credentials};

/// Options for a server, with a directory that nothing else uses.
fn options(endpoint: &Url, directory: &tempfile::TempDir) -> S3Options {
    let mut options = S3Options::new(directory.path());
    options.endpoint_url = Some(endpoint.clone());
    options.idle_timeout = Duration::from_secs(20);
    options
}

fn open(options: &S3Options, bucket: &str, credentials: AwsCredentials) -> S3Bucket {
    let bucket = Bucket {
        name: BucketName::parse("bucket", bucket).unwrap(),
        region: Region::parse("region", REGION).unwrap(),
    };
    S3Bucket::open(options, bucket, credentials).unwrap()
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::parse("key", text, None).unwrap()
}

fn prefix(text: &str) -> PathPrefix {
    PathPrefix::parse("prefix", text).unwrap().unwrap()
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.document_key.as_str()).collect()
}

async fn bytes(bucket: &S3Bucket, entry: &Entry) -> Vec<u8> {
    let loaded = bucket
        .load(&entry.document_key, &entry.version_key)
        .await
        .unwrap();
    loaded.content.into_bytes().unwrap()
}

#[tokio::test]
async fn objects_are_listed_by_the_text_their_keys_begin_with() {
    let (moto, directory) = (Moto::start().await, tempfile::tempdir().unwrap());
    moto.create_bucket("docs").await;
    for name in ["v1/b.md", "v1/a.md", "v10.md", "v2.md", "v1/sub/"] {
        let content = if name.ends_with('/') { "" } else { name };
        moto.put("docs", name, content).await;
    }
    let bucket = open(&options(&moto.url, &directory), "docs", any_credentials());

    let all = bucket.list(None).await.unwrap();
    // The marker of a folder is no document.
    assert_eq!(keys(&all), ["v1/a.md", "v1/b.md", "v10.md", "v2.md"]);
    assert!(all.iter().all(|entry| entry.decision == Listed::Load), "{all:?}");
    assert_eq!(all[0].size_bytes, Some(7));
    // The MD5 of the content, as S3 defines it for what was uploaded at once.
    assert_eq!(all[0].version_key, "1ae397fd12adac0c43f6218e657e8471");
    let some = bucket.list(Some(&prefix("v1"))).await.unwrap();
    assert_eq!(keys(&some), ["v1/a.md", "v1/b.md", "v10.md"]);
    assert_eq!(bucket.list(Some(&prefix("nothing/"))).await.unwrap(), []);
}

#[tokio::test]
async fn a_listing_of_several_pages_is_whole_and_sorted() {
    let (moto, directory) = (Moto::start().await, tempfile::tempdir().unwrap());
    moto.create_bucket("many").await;
    stream::iter(0..1_050)
        .for_each_concurrent(8, async |number| {
            moto.put("many", &format!("{number:05}.txt"), "x").await;
        })
        .await;
    let mut options = options(&moto.url, &directory);
    let entries = open(&options, "many", any_credentials())
        .list(None)
        .await
        .unwrap();
    let expected: Vec<String> = (0..1_050).map(|number| format!("{number:05}.txt")).collect();
    assert_eq!(keys(&entries), expected);

    options.max_objects = 1_049;
    let error = open(&options, "many", any_credentials())
        .list(None)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "bucket many has more than 1049 objects to sync; give the source a path_prefix that has fewer"
    );
    assert_eq!(error.reason(), "BUCKET_TOO_LARGE");
}

#[tokio::test]
async fn keys_with_odd_characters_are_listed_and_loaded_as_they_are() {
    let (moto, directory) = (Moto::start().await, tempfile::tempdir().unwrap());
    moto.create_bucket("odd").await;
    let odd = [
        ("%C3%BC/%F0%9F%98%80.md", "ü/\u{1f600}.md"),
        ("100%25%20sure+%26more%3D%3F.md", "100% sure+&more=?.md"),
        ("a%20b%2Bc.md", "a b+c.md"),
        ("tab%09here.md", "tab\there.md"),
        ("tilde~and'quote(1).md", "tilde~and'quote(1).md"),
    ];
    for (encoded, plain) in odd {
        moto.put("odd", encoded, plain).await;
    }
    let bucket = open(&options(&moto.url, &directory), "odd", any_credentials());
    let entries = bucket.list(None).await.unwrap();
    let mut expected: Vec<&str> = odd.iter().map(|(_, plain)| *plain).collect();
    // By bytes, as S3 sorts.
    expected.sort_unstable();
    assert_eq!(keys(&entries), expected);
    for entry in &entries {
        assert_eq!(bytes(&bucket, entry).await, entry.document_key.as_bytes());
        assert_eq!(bucket.head(&key(&entry.document_key)).await.unwrap(), *entry);
    }
    let found = bucket.list(Some(&prefix("a b+"))).await.unwrap();
    assert_eq!(keys(&found), ["a b+c.md"]);
}

#[tokio::test]
async fn a_small_object_is_loaded_into_memory_and_a_large_one_into_a_file() {
    let (moto, directory) = (Moto::start().await, tempfile::tempdir().unwrap());
    moto.create_bucket("docs").await;
    let large: Vec<u8> = (0..=MAX_BYTES_IN_MEMORY).map(|at| (at % 251) as u8).collect();
    moto.put_with("docs", "a.pdf", &[("content-type", "application/pdf")], "small")
        .await;
    moto.put_with(
        "docs",
        "b.bin",
        &[("content-type", "binary/octet-stream")],
        large.clone(),
    )
    .await;
    moto.put("docs", "empty", "").await;
    let bucket = open(&options(&moto.url, &directory), "docs", any_credentials());
    let entries = bucket.list(None).await.unwrap();
    assert_eq!(keys(&entries), ["a.pdf", "b.bin", "empty"]);

    let small = bucket.load("a.pdf", &entries[0].version_key).await.unwrap();
    assert_eq!(small.media_type.as_deref(), Some("application/pdf"));
    assert!(matches!(small.content, Content::Memory(bytes) if bytes == b"small"));
    let loaded = bucket.load("b.bin", &entries[1].version_key).await.unwrap();
    assert_eq!(loaded.media_type, None);
    let Content::File(file) = loaded.content else {
        panic!("{} bytes are in memory", large.len());
    };
    assert_eq!(file.size(), large.len() as u64);
    assert!(
        std::fs::read(file.path()).unwrap() == large,
        "the file has other bytes"
    );
    assert_eq!(bytes(&bucket, &entries[2]).await, b"");

    let path = file.path().to_owned();
    drop(file);
    assert!(!path.exists());
    drop(bucket);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn an_object_beyond_the_limit_is_left_out_before_it_is_read() {
    let (moto, directory) = (Moto::start().await, tempfile::tempdir().unwrap());
    moto.create_bucket("docs").await;
    moto.put("docs", "fits", vec![b'x'; 1_000]).await;
    moto.put("docs", "large", vec![b'x'; 1_001]).await;
    let mut options = options(&moto.url, &directory);
    options.max_object_bytes = 1_000;
    let bucket = open(&options, "docs", any_credentials());
    let entries = bucket.list(None).await.unwrap();
    let decisions: Vec<&Listed> = entries.iter().map(|entry| &entry.decision).collect();
    assert_eq!(decisions, [&Listed::Load, &Listed::Skip(SkipRule::TooLarge)]);
    assert_eq!(bucket.head(&key("large")).await.unwrap(), entries[1]);
    assert_eq!(bytes(&bucket, &entries[0]).await.len(), 1_000);
    let error = bucket.load("large", &entries[1].version_key).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "object \"large\" has more than 1000 bytes (s3.max_object_bytes)"
    );
}

#[tokio::test]
async fn an_object_that_was_replaced_since_its_listing_is_not_loaded() {
    let (moto, directory) = (Moto::start().await, tempfile::tempdir().unwrap());
    moto.create_bucket("docs").await;
    moto.put("docs", "a", "one").await;
    let bucket = open(&options(&moto.url, &directory), "docs", any_credentials());
    let listed = bucket.head(&key("a")).await.unwrap();
    moto.put("docs", "a", "two").await;
    let error = bucket.load("a", &listed.version_key).await.unwrap_err();
    assert!(matches!(error, S3Error::ObjectChanged { .. }), "{error:?}");
    assert!(error.is_transient());
    let listed = bucket.head(&key("a")).await.unwrap();
    assert_eq!(bytes(&bucket, &listed).await, b"two");
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let (moto, directory) = (Moto::start().await, tempfile::tempdir().unwrap());
    moto.create_bucket("docs").await;
    let options = options(&moto.url, &directory);
    let docs = open(&options, "docs", any_credentials());
    let gone = open(&options, "gone", any_credentials());
    let missing_object = "object \"a\" does not exist in bucket docs";
    let missing_bucket =
        "bucket gone does not exist in region us-east-1; check the source's bucket_name and region";
    for (error, message, reason) in [
        (
            docs.head(&key("a")).await.unwrap_err(),
            missing_object,
            "OBJECT_NOT_FOUND",
        ),
        (
            docs.load("a", "e").await.unwrap_err(),
            missing_object,
            "OBJECT_NOT_FOUND",
        ),
        (
            gone.list(None).await.unwrap_err(),
            missing_bucket,
            "BUCKET_NOT_FOUND",
        ),
        (
            gone.head(&key("a")).await.unwrap_err(),
            missing_bucket,
            "BUCKET_NOT_FOUND",
        ),
    ] {
        assert_eq!(error.to_string(), message);
        assert_eq!(error.failure().reason, reason);
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn an_archived_object_says_how_it_can_be_read() {
    let (moto, directory) = (Moto::start().await, tempfile::tempdir().unwrap());
    moto.create_bucket("docs").await;
    moto.put_with("docs", "old", &[("x-amz-storage-class", "GLACIER")], "x")
        .await;
    let bucket = open(&options(&moto.url, &directory), "docs", any_credentials());
    let listed = bucket.list(None).await.unwrap();
    let error = bucket.load("old", &listed[0].version_key).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "object \"old\" of bucket docs is archived; restore it (aws s3api restore-object), then sync it again"
    );
    assert!(error.concerns_one_object());
}

#[tokio::test]
async fn a_server_that_is_away_is_worth_another_try() {
    let directory = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoint = Url::parse(&format!("http://{free}")).unwrap();
    let error = open(&options(&endpoint, &directory), "docs", any_credentials())
        .list(None)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read bucket docs: 127.0.0.1 cannot be reached"
    );
    assert_eq!(error.reason(), "NETWORK_ERROR");
    assert!(error.is_transient());
}
