//! Sources that follow their buckets, with a server of S3 and SQS written by others.

use std::{sync::Arc, time::Duration};

use chroma_sync::{
    auto_sync::{self, Counts, Environment, Queue, QueueError, QueueOptions},
    domain::{
        chunking::Chunking,
        credential::{NewAwsCredential, aws_sealing_context},
        embedding::{Embedding, MINILM, ModelForm},
        invocation::{Invocation, InvocationFilter, InvocationInput, S3Objects},
        names::{CollectionName, DatabaseName, TenantName},
        page::PageRequest,
        s3::{AutoSync, BucketName, PathPrefix, Region},
        source::{NewSource, S3Credential, S3Source, Source, SourceSettings},
    },
    fetch::s3::S3Options,
    seal::SealingKey,
    store::{CreateCredential, CreateSource, Scope, Store},
    wake::{ChangeSignal, WorkSignal},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::harness::{
    moto::{Moto, REGION, any_credentials},
    stores::TestStore,
    wait_for,
};

/// Sources, a server with bucket `docs` that tells queue `events` of its objects, and what reads that queue.
struct Follower {
    moto: Moto,
    queue: Url,
    test: TestStore,
    sealing_key: SealingKey,
    counts: Arc<Counts>,
    directory: tempfile::TempDir,
    drain: CancellationToken,
    running: Option<JoinHandle<()>>,
    delete_removed_objects: bool,
}

impl Follower {
    async fn new() -> Self {
        let moto = Moto::start().await;
        moto.create_bucket("docs").await;
        let queue = moto
            .create_queue("events", json!({"VisibilityTimeout": "1"}))
            .await;
        moto.notify("docs", &queue).await;
        Self {
            moto,
            queue,
            test: TestStore::sqlite().await,
            sealing_key: SealingKey::from_hex(&"5".repeat(64)).unwrap(),
            counts: Arc::default(),
            directory: tempfile::tempdir().unwrap(),
            drain: CancellationToken::new(),
            running: None,
            delete_removed_objects: true,
        }
    }

    fn store(&self) -> &Store {
        &self.test.store
    }

    fn tenant() -> TenantName {
        TenantName::default_tenant()
    }

    async fn source(&self, bucket: &str, prefix: &str, mode: AutoSync, collection: &str) -> Source {
        let tenant = Self::tenant();
        let keys = any_credentials();
        let context = aws_sealing_context(&tenant, &keys.access_key_id);
        let new = NewAwsCredential {
            name: None,
            sealed_secret: self.sealing_key.seal(&context, &keys.secret_access_key).unwrap(),
            access_key_id: keys.access_key_id,
        };
        let created = self
            .store()
            .create_aws_credential(&tenant, new, None)
            .await
            .unwrap();
        let CreateCredential::Created(credential) = created else {
            panic!("{created:?}");
        };
        let new = NewSource {
            database: DatabaseName::parse("database", "db").unwrap(),
            settings: SourceSettings::S3(S3Source {
                bucket: BucketName::parse("bucket", bucket).unwrap(),
                region: Region::parse("region", REGION).unwrap(),
                collection: CollectionName::parse("collection", collection).unwrap(),
                credential: S3Credential::Stored(credential.id),
                path_prefix: PathPrefix::parse("prefix", prefix).unwrap(),
                auto_sync: mode,
            }),
            embedding: Embedding {
                model: MINILM.to_owned(),
                model_form: ModelForm::String,
                task: None,
                sparse: None,
            },
            chunking: Chunking::TreeSitter {
                max_size_bytes: 1_024,
            },
            webhook: None,
        };
        match self.store().create_source(&tenant, new, None).await.unwrap() {
            CreateSource::Created(source) => source,
            other => panic!("{other:?}"),
        }
    }

    fn queue_options(&self) -> QueueOptions {
        QueueOptions {
            queue_url: self.queue.clone(),
            endpoint_url: Some(self.moto.url.clone()),
            region: REGION.to_owned(),
            credentials: any_credentials(),
            wait: Duration::from_secs(1),
            visibility_timeout: Duration::from_secs(2),
            max_messages: 10,
        }
    }

    fn start(&mut self) {
        let mut s3 = S3Options::new(self.directory.path());
        s3.endpoint_url = Some(self.moto.url.clone());
        let environment = Environment {
            store: self.store().clone(),
            sealing_key: self.sealing_key.clone(),
            s3,
            work: WorkSignal::default(),
            changes: ChangeSignal::default(),
            counts: Arc::clone(&self.counts),
            delete_removed_objects: self.delete_removed_objects,
            drain: Duration::from_secs(5),
        };
        let queue = Queue::new(self.queue_options()).unwrap();
        self.running = Some(tokio::spawn(auto_sync::run(
            environment,
            queue,
            self.drain.clone(),
        )));
    }

    /// Waits until as many messages were handled, and the test that S3 sends first.
    async fn handled(&self, messages: u64) {
        let messages = messages + 1;
        wait_for("handling the messages", async || {
            let handled = self.counts.messages_handled.get();
            if handled >= messages { Ok(()) } else { Err(handled) }
        })
        .await;
    }

    /// All invocations, oldest first, as collection and what is synced.
    async fn invocations(&self) -> Vec<(String, S3Objects)> {
        let scope = Scope::tenant(Self::tenant());
        let page = PageRequest::default();
        let found = self
            .store()
            .list_invocations(&scope, &InvocationFilter::default(), &page)
            .await
            .unwrap();
        let mut items: Vec<Invocation> = found.items;
        items.sort_by_key(|invocation| invocation.id);
        items
            .into_iter()
            .map(|invocation| match invocation.input {
                InvocationInput::S3 { bucket, objects } => {
                    assert_eq!(bucket.as_str(), "docs");
                    (invocation.collection.as_str().to_owned(), objects)
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    /// What is synced, in words.
    async fn summary(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .invocations()
            .await
            .into_iter()
            .map(|(collection, objects)| match objects {
                S3Objects::Object {
                    key,
                    custom_id,
                    metadata,
                } => {
                    let id = custom_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
                    format!("{collection}: {key} {id} {}", Value::Object(metadata.into_map()))
                }
                S3Objects::Removed { key } => format!("{collection}: without {key}"),
                S3Objects::Prefix => format!("{collection}: all"),
            })
            .collect();
        lines.sort();
        lines
    }

    async fn stop(mut self) {
        self.drain.cancel();
        if let Some(running) = self.running.take() {
            running.await.unwrap();
        }
    }
}

fn meta(id: &str, path: &str, rest: Value) -> Vec<u8> {
    let mut file = json!({"version": "chroma-v1", "id": id, "path": path});
    file.as_object_mut()
        .unwrap()
        .extend(rest.as_object().unwrap().clone());
    file.to_string().into_bytes()
}

#[tokio::test]
async fn each_source_syncs_the_objects_under_its_prefix() {
    let mut follower = Follower::new().await;
    follower
        .source("docs", "a/", AutoSync::Direct, "collection-a")
        .await;
    follower
        .source("docs", "", AutoSync::Direct, "collection-all")
        .await;
    follower
        .source("docs", "", AutoSync::None, "collection-none")
        .await;
    follower
        .source("other", "", AutoSync::Direct, "collection-other")
        .await;
    follower.start();
    let moto = &follower.moto;
    moto.put("docs", "a/one%2Bb%20%C3%BC.md", "1").await;
    moto.put("docs", "b/two.md", "2").await;
    moto.put("docs", "b/folder/", "").await;
    follower.handled(3).await;
    assert_eq!(
        follower.summary().await,
        [
            "collection-a: a/one+b ü.md - {}",
            "collection-all: a/one+b ü.md - {}",
            "collection-all: b/two.md - {}",
        ]
    );
    assert_eq!(follower.counts.invocations_created.get(), 3);
    assert_eq!(follower.counts.events_passed_over.get(), 1);
    assert_eq!(follower.moto.queue_length(&follower.queue).await, (0, 0));
    follower.stop().await;
}

#[tokio::test]
async fn a_metadata_file_names_the_object_its_id_its_metadata_and_its_collection() {
    let mut follower = Follower::new().await;
    follower
        .source("docs", "in/", AutoSync::Metadata, "collection")
        .await;
    let moto = &follower.moto;
    // The object alone starts nothing in this mode.
    moto.put("docs", "in/a.pdf", "x").await;
    let rest = json!({"metadata": {"year": 2026, "tags": ["x", "y"]}});
    moto.put("docs", "in/m/a.meta.json", meta("invoice-7", "in/a.pdf", rest))
        .await;
    let rest = json!({"target_collection_name": "elsewhere"});
    moto.put("docs", "in/b.meta.json", meta("invoice-8", "in/b.pdf", rest))
        .await;
    follower.start();
    follower.handled(3).await;
    assert_eq!(
        follower.summary().await,
        [
            r#"collection: in/a.pdf invoice-7 {"tags":["x","y"],"year":2026}"#,
            "elsewhere: in/b.pdf invoice-8 {}",
        ]
    );
    follower.stop().await;
}

#[tokio::test]
async fn a_metadata_file_works_in_direct_mode_too_and_is_no_document_itself() {
    let mut follower = Follower::new().await;
    follower.source("docs", "", AutoSync::Direct, "collection").await;
    let file = meta("i", "a.pdf", json!({}));
    follower.moto.put("docs", "a.pdf.meta.json", file).await;
    follower.start();
    follower.handled(1).await;
    assert_eq!(follower.summary().await, ["collection: a.pdf i {}"]);
    follower.stop().await;
}

#[tokio::test]
async fn an_object_that_is_removed_leaves_every_collection_it_was_synced_to() {
    let mut follower = Follower::new().await;
    follower
        .source("docs", "", AutoSync::Metadata, "collection")
        .await;
    follower.start();
    let moto = &follower.moto;
    moto.put("docs", "a.pdf", "x").await;
    for collection in ["one", "two"] {
        let rest = json!({"target_collection_name": format!("collection-{collection}")});
        let file = meta("i", "a.pdf", rest);
        moto.put("docs", &format!("{collection}.meta.json"), file).await;
    }
    follower.handled(3).await;
    moto.delete("docs", "one.meta.json").await;
    moto.delete("docs", "never-synced.pdf").await;
    moto.delete("docs", "a.pdf").await;
    wait_for("the removals", async || {
        let summary = follower.summary().await;
        let found = summary.iter().filter(|line| line.contains("without")).count();
        if found == 2 { Ok(()) } else { Err(summary) }
    })
    .await;
    assert_eq!(
        follower.summary().await,
        [
            "collection-one: a.pdf i {}",
            "collection-one: without a.pdf",
            "collection-two: a.pdf i {}",
            "collection-two: without a.pdf",
        ]
    );
    follower.stop().await;
}

#[tokio::test]
async fn removals_can_be_switched_off() {
    let mut follower = Follower::new().await;
    follower.delete_removed_objects = false;
    follower.source("docs", "", AutoSync::Direct, "collection").await;
    follower.start();
    follower.moto.put("docs", "a.md", "x").await;
    follower.handled(1).await;
    follower.moto.delete("docs", "a.md").await;
    follower.handled(2).await;
    assert_eq!(follower.summary().await, ["collection: a.md - {}"]);
    follower.stop().await;
}

#[tokio::test]
async fn a_message_that_comes_twice_or_to_two_processes_changes_nothing_more() {
    let mut follower = Follower::new().await;
    follower.source("docs", "", AutoSync::Direct, "collection").await;
    let record = |sequencer: &str| {
        json!({"Records": [{
            "eventName": "ObjectCreated:Put", "eventTime": "2026-01-01T00:00:00.000Z",
            "s3": {"bucket": {"name": "docs"}, "object": {"key": "a.md", "eTag": "e", "sequencer": sequencer}},
        }]})
        .to_string()
    };
    let topic = json!({"Type": "Notification", "TopicArn": "t", "Message": record("1")}).to_string();
    for body in [record("1"), record("1"), topic, record("2")] {
        follower.moto.send_message(&follower.queue, &body).await;
    }
    follower.start();
    follower.start();
    follower.handled(4).await;
    assert_eq!(
        follower.summary().await,
        ["collection: a.md - {}", "collection: a.md - {}"]
    );
    assert_eq!(follower.counts.repeated.get(), 2);
    follower.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_or_done_goes_to_the_dead_letters_and_the_rest_goes_on() {
    let mut follower = Follower::new().await;
    let moto = &follower.moto;
    let dead = moto.create_queue("dead", json!({})).await;
    let policy = json!({
        "deadLetterTargetArn": format!("arn:aws:sqs:{REGION}:123456789012:dead"), "maxReceiveCount": "2",
    });
    let attributes = json!({"RedrivePolicy": policy.to_string(), "VisibilityTimeout": "1"});
    follower.queue = moto.create_queue("guarded", attributes).await;
    moto.notify("docs", &follower.queue).await;
    follower.source("docs", "", AutoSync::Direct, "collection").await;
    moto.send_message(&follower.queue, "no event").await;
    // A file without the fields that it needs.
    moto.put("docs", "broken.meta.json", "{}").await;
    moto.put("docs", "a.md", "x").await;
    moto.send_message(&follower.queue, r#"{"Event": "s3:TestEvent"}"#)
        .await;
    follower.start();
    follower.handled(2).await;
    wait_for("the dead letters", async || {
        match follower.moto.queue_length(&dead).await {
            (2, _) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(follower.summary().await, ["collection: a.md - {}"]);
    assert!(follower.counts.messages_unreadable.get() >= 2);
    assert!(follower.counts.messages_left.get() >= 2);
    follower.stop().await;
}

#[tokio::test]
async fn events_of_a_bucket_that_nobody_follows_are_deleted_and_counted() {
    let mut follower = Follower::new().await;
    follower.moto.put("docs", "a.md", "x").await;
    follower.start();
    follower.handled(1).await;
    assert_eq!(follower.counts.events_of_unknown_buckets.get(), 1);
    assert_eq!(follower.moto.queue_length(&follower.queue).await, (0, 0));
    follower.stop().await;
}

#[tokio::test]
async fn a_queue_that_is_missing_or_away_is_named() {
    let follower = Follower::new().await;
    let mut options = follower.queue_options();
    options.queue_url.set_path("/123456789012/missing");
    let missing = Queue::new(options.clone()).unwrap().receive().await.unwrap_err();
    assert!(matches!(missing, QueueError::NotFound), "{missing:?}");
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    options.endpoint_url = Some(Url::parse(&format!("http://{free}")).unwrap());
    let away = Queue::new(options).unwrap().receive().await.unwrap_err();
    assert_eq!(away.to_string(), "127.0.0.1 cannot be reached");
}

#[tokio::test]
async fn a_queue_that_refuses_the_access_key_says_what_to_allow() {
    let follower = Follower::new().await;
    follower.moto.check_access().await;
    let refused = Queue::new(follower.queue_options())
        .unwrap()
        .receive()
        .await
        .unwrap_err();
    assert!(matches!(refused, QueueError::Refused { .. }), "{refused:?}");
    assert!(refused.to_string().contains("sqs:ReceiveMessage"), "{refused}");
    assert!(!format!("{refused:?}").contains(any_credentials().secret_access_key.expose()));
}
