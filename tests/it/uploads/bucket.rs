//! Uploads in a bucket of a server of S3 that others wrote.

use bytes::Bytes;
use chroma_sync::{
    domain::ids::UploadId,
    uploads::{BucketOptions, PIECE_BYTES, StoredUpload, UploadError, UploadStore},
};
use futures::TryStreamExt;

use super::{completed, created};
use crate::harness::{
    form::Form,
    moto::{Moto, REGION, any_credentials},
    scenario::Scenario,
    stores::Backend,
    wait_for,
};

const BUCKET: &str = "uploads-of-a-test";

/// The keys of all objects in the bucket, as the listing has them.
async fn keys(moto: &Moto) -> Vec<String> {
    let url = moto.url.join(&format!("{BUCKET}?list-type=2")).unwrap();
    let listing = reqwest::get(url).await.unwrap().text().await.unwrap();
    let keys = listing.split("<Key>").skip(1);
    keys.map(|rest| rest.split('<').next().unwrap().to_owned())
        .collect()
}

fn options(moto: &Moto, bucket: &str) -> BucketOptions {
    let credentials = any_credentials();
    BucketOptions {
        bucket: bucket.to_owned(),
        region: REGION.to_owned(),
        endpoint_url: Some(moto.url.clone()),
        access_key: Some((credentials.access_key_id, credentials.secret_access_key)),
        path_style: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_written_to_a_bucket_read_back_and_removed() {
    let moto = Moto::start().await;
    moto.create_bucket(BUCKET).await;
    let uploads = UploadStore::in_bucket(options(&moto, BUCKET)).unwrap();
    let content: Vec<u8> = (0..2 * PIECE_BYTES + 5).map(|n| (n % 251) as u8).collect();

    let (id, other) = (UploadId::generate(), UploadId::generate());
    for id in [id, other] {
        let mut writer = uploads.writer(id);
        for chunk in content.chunks(1_000_003) {
            writer.write(chunk).await.unwrap();
        }
        let StoredUpload { sha256, size_bytes } = writer.finish().await.unwrap();
        assert_eq!((sha256.len(), size_bytes), (64, content.len() as u64));
    }
    assert_eq!(keys(&moto).await.len(), 6);
    assert!(uploads.holds(id).await.unwrap());
    let read: Vec<Bytes> = uploads
        .read(id, content.len() as u64)
        .try_collect()
        .await
        .unwrap();
    assert!(read.concat() == content, "what was read is not what was written");

    uploads.remove(id).await.unwrap();
    uploads.remove(id).await.unwrap();
    assert!(!uploads.holds(id).await.unwrap());
    assert_eq!(keys(&moto).await.len(), 3, "the other one is not touched");
    let gone = uploads.read(id, 1).try_collect::<Vec<Bytes>>().await;
    assert!(matches!(gone, Err(UploadError::Missing { .. })), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_sync_files_from_a_bucket_and_remove_them() {
    let moto = Moto::start().await;
    moto.create_bucket(BUCKET).await;
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    let credentials = any_credentials();
    scenario.deployment = scenario
        .deployment
        .with("uploads.s3_bucket", BUCKET)
        .with("uploads.s3_region", REGION)
        .with("uploads.s3_endpoint_url", moto.url.as_str())
        .with("uploads.s3_access_key_id", &credentials.access_key_id)
        .with(
            "uploads.s3_secret_access_key",
            credentials.secret_access_key.expose(),
        )
        .with("uploads.s3_path_style", "true")
        .with("uploads.keep_hours", "0")
        .with("uploads.sweep_seconds", "1");
    let api = scenario.deployment.start_role("api");
    let form = Form::to(&scenario.database(), "files").file("a.txt", b"some text");
    let id = created(&form.send(&api, &scenario.admin).await);
    assert_eq!(keys(&moto).await.len(), 1);
    let _worker = scenario.deployment.start_role("worker");
    completed(&scenario, &api, &id).await;
    assert_eq!(scenario.chroma.text_of("files", "a.txt").await, "some text");
    wait_for("the removal of the file", async || match keys(&moto).await {
        keys if keys.is_empty() => Ok(()),
        keys => Err(keys),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_makes_uploads_unavailable() {
    let moto = Moto::start().await;
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario
        .deployment
        .with("uploads.s3_bucket", "no-such-bucket")
        .with("uploads.s3_endpoint_url", moto.url.as_str())
        .with("uploads.s3_access_key_id", "AKIAIOSFODNN7EXAMPLE")
        .with("uploads.s3_secret_access_key", "secret")
        .with("uploads.s3_path_style", "true");
    let api = scenario.deployment.start_role("api");
    let form = Form::to(&scenario.database(), "files").file("a.txt", b"some text");
    let answer = form.send(&api, &scenario.admin).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "5"));
    assert_eq!(answer.json()["reason"], "UPLOADS_UNAVAILABLE");
    assert!(!answer.text.contains("no-such-bucket"), "{}", answer.text);
}
