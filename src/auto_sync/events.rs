//! What S3 says about its objects, in the forms in which it reaches a queue.
//!
//! Source: *Event message structure* of the Amazon S3 User Guide (Records), *EventBridge event message structure*
//! (one event, whose key is not encoded), and *Raw message delivery* of the Amazon SNS Developer Guide (the same
//! as text in `Message`, unless delivery is raw).

use serde::Deserialize;
use serde_json::Value;

use crate::fetch::s3::decode_key;

/// How often a message may be wrapped in one of SNS: a topic may forward what EventBridge sent to it.
const MAX_WRAPPINGS: usize = 2;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// It has a new version, or can be read again.
    Written,
    /// Its current version is gone, or one of the earlier ones: S3 does not say which.
    Removed,
}

/// One event about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEvent {
    /// Name of the bucket.
    pub bucket: String,
    /// Key of the object, decoded.
    pub key: String,
    /// What happened.
    pub change: Change,
    /// Tells the event from others about the same object; the same each time it is delivered.
    pub identity: String,
}

/// Why a message cannot be read. Nothing of its content is repeated.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// It is not JSON.
    #[error("the message is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// It is JSON of another kind.
    #[error("the message is no event of S3, SNS or EventBridge")]
    UnknownForm,
    /// It lacks what every event has.
    #[error("event {index} of the message is damaged")]
    Damaged {
        /// Which one, from 0.
        index: usize,
        /// What is missing or wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Reads the events of a message; none where it is about something else than objects that were written or removed,
/// such as the test that S3 sends when notifications are set up.
///
/// # Errors
/// See [`EventError`].
pub fn parse(body: &str) -> Result<Vec<ObjectEvent>, EventError> {
    let mut message: Value = serde_json::from_str(body).map_err(EventError::NotJson)?;
    for _ in 0..MAX_WRAPPINGS {
        match message.get("Message").and_then(Value::as_str) {
            Some(inner) if message.get("TopicArn").is_some() => {
                message = serde_json::from_str(inner).map_err(EventError::NotJson)?;
            }
            Some(_) | None => break,
        }
    }
    if message.get("Event").and_then(Value::as_str) == Some("s3:TestEvent") {
        return Ok(Vec::new());
    }
    if let Some(records) = message.get("Records").and_then(Value::as_array) {
        let events = records.iter().enumerate().map(|(index, record)| {
            let damaged =
                |source: Box<dyn std::error::Error + Send + Sync>| EventError::Damaged { index, source };
            let record = Record::deserialize(record).map_err(|error| damaged(error.into()))?;
            record.event().map_err(|problem| damaged(problem.into()))
        });
        return events.filter_map(Result::transpose).collect();
    }
    if message.get("source").and_then(Value::as_str) == Some("aws.s3") && message.get("detail-type").is_some()
    {
        let damaged = |source: serde_json::Error| EventError::Damaged {
            index: 0,
            source: source.into(),
        };
        return Ok(Bridged::deserialize(&message)
            .map_err(damaged)?
            .event()
            .into_iter()
            .collect());
    }
    Err(EventError::UnknownForm)
}

/// The part that says when and as what an object was written.
fn identity(
    sequencer: Option<&str>,
    version_id: Option<&str>,
    etag: Option<&str>,
    time: Option<&str>,
) -> String {
    match sequencer {
        Some(sequencer) => format!("sequencer {sequencer}"),
        // Not every server that speaks the protocol counts.
        None => format!(
            "version {} etag {} time {}",
            version_id.unwrap_or_default(),
            etag.unwrap_or_default(),
            time.unwrap_or_default()
        ),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_name: String,
    event_time: Option<String>,
    s3: Option<RecordSubject>,
}

#[derive(Deserialize)]
struct RecordSubject {
    bucket: Named,
    object: RecordObject,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordObject {
    key: String,
    e_tag: Option<String>,
    version_id: Option<String>,
    sequencer: Option<String>,
}

impl Record {
    fn event(self) -> Result<Option<ObjectEvent>, &'static str> {
        let name = self.event_name.strip_prefix("s3:").unwrap_or(&self.event_name);
        let Some(change) = change_of_record(name) else {
            return Ok(None);
        };
        let RecordSubject { bucket, object } = self.s3.ok_or("it names no object")?;
        Ok(Some(ObjectEvent {
            bucket: bucket.name,
            key: decode_key(&object.key).ok_or("the key of its object is not UTF-8")?,
            change,
            identity: identity(
                object.sequencer.as_deref(),
                object.version_id.as_deref(),
                object.e_tag.as_deref(),
                self.event_time.as_deref(),
            ),
        }))
    }
}

/// Which change a record's name stands for; none for what leaves the content as it is, such as new tags.
fn change_of_record(name: &str) -> Option<Change> {
    let (kind, detail) = name.split_once(':').unwrap_or((name, ""));
    match (kind, detail) {
        ("ObjectCreated", _) | ("ObjectRestore", "Completed") => Some(Change::Written),
        ("ObjectRemoved" | "LifecycleExpiration", _) => Some(Change::Removed),
        _ => None,
    }
}

#[derive(Deserialize)]
struct Bridged {
    #[serde(rename = "detail-type")]
    detail_type: String,
    time: Option<String>,
    detail: Detail,
}

#[derive(Deserialize)]
struct Detail {
    bucket: Named,
    object: BridgedObject,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct BridgedObject {
    key: String,
    etag: Option<String>,
    version_id: Option<String>,
    sequencer: Option<String>,
}

impl Bridged {
    fn event(self) -> Option<ObjectEvent> {
        let change = match self.detail_type.as_str() {
            "Object Created" | "Object Restore Completed" => Change::Written,
            "Object Deleted" => Change::Removed,
            _ => return None,
        };
        let Detail { bucket, object } = self.detail;
        Some(ObjectEvent {
            bucket: bucket.name,
            key: object.key,
            change,
            identity: identity(
                object.sequencer.as_deref(),
                object.version_id.as_deref(),
                object.etag.as_deref(),
                self.time.as_deref(),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn record(name: &str, key: &str) -> Value {
        json!({
            "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1",
            "eventTime": "2026-01-01T00:00:00.000Z", "eventName": name,
            "s3": {
                "s3SchemaVersion": "1.0", "configurationId": "sync",
                "bucket": {"name": "docs", "arn": "arn:aws:s3:::docs"},
                "object": {"key": key, "size": 7, "eTag": "e1", "versionId": "v1", "sequencer": "0055AED6DCD90281E5"},
            },
        })
    }

    fn event(key: &str, change: Change) -> ObjectEvent {
        ObjectEvent {
            bucket: "docs".to_owned(),
            key: key.to_owned(),
            change,
            identity: "sequencer 0055AED6DCD90281E5".to_owned(),
        }
    }

    fn read(message: &Value) -> Vec<ObjectEvent> {
        parse(&message.to_string()).unwrap()
    }

    #[test]
    fn records_are_read_with_their_keys_decoded() {
        let message = json!({"Records": [
            record("ObjectCreated:Put", "docs%2Fa+b%2B0%C3%BC.md"),
            record("ObjectRemoved:DeleteMarkerCreated", "docs/b.md"),
        ]});
        assert_eq!(
            read(&message),
            [
                event("docs/a b+0ü.md", Change::Written),
                event("docs/b.md", Change::Removed)
            ]
        );
    }

    #[test]
    fn every_event_that_changes_content_is_known_and_others_are_passed_over() {
        for (name, change) in [
            ("ObjectCreated:Put", Some(Change::Written)),
            ("s3:ObjectCreated:CompleteMultipartUpload", Some(Change::Written)),
            ("ObjectRestore:Completed", Some(Change::Written)),
            ("ObjectRestore:Post", None),
            ("ObjectRemoved:Delete", Some(Change::Removed)),
            ("LifecycleExpiration:Delete", Some(Change::Removed)),
            ("LifecycleTransition", None),
            ("ObjectTagging:Put", None),
            ("Replication:OperationMissedThreshold", None),
        ] {
            let changes: Vec<Change> = read(&json!({"Records": [record(name, "a")]}))
                .into_iter()
                .map(|event| event.change)
                .collect();
            assert_eq!(changes, Vec::from_iter(change), "{name}");
        }
    }

    #[test]
    fn a_message_of_sns_is_unwrapped_and_a_raw_one_needs_nothing() {
        let inner = json!({"Records": [record("ObjectCreated:Put", "a")]});
        let wrapped = json!({
            "Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:us-east-1:1:docs",
            "Subject": "Amazon S3 Notification", "Message": inner.to_string(),
        });
        assert_eq!(read(&wrapped), read(&inner));
    }

    #[test]
    fn an_event_of_eventbridge_is_read_with_its_key_as_it_is() {
        for (detail_type, change) in [
            ("Object Created", Some(Change::Written)),
            ("Object Restore Completed", Some(Change::Written)),
            ("Object Deleted", Some(Change::Removed)),
            ("Object Tags Added", None),
        ] {
            let message = json!({
                "version": "0", "id": "1", "detail-type": detail_type, "source": "aws.s3",
                "time": "2026-01-01T00:00:00Z", "region": "us-east-1",
                "detail": {
                    "version": "0", "bucket": {"name": "docs"},
                    "object": {"key": "a+b%20c", "size": 7, "etag": "e1", "version-id": "v1",
                               "sequencer": "0055AED6DCD90281E5"},
                    "reason": "PutObject",
                },
            });
            let expected = change.map(|change| event("a+b%20c", change));
            assert_eq!(read(&message), Vec::from_iter(expected), "{detail_type}");
            let forwarded = json!({"TopicArn": "t", "Message": message.to_string()});
            assert_eq!(read(&forwarded), read(&message));
        }
    }

    #[test]
    fn the_test_of_a_new_notification_has_no_events() {
        let test = json!({
            "Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-01-01T00:00:00.000Z", "Bucket": "docs",
        });
        assert_eq!(read(&test), []);
    }

    #[test]
    fn without_a_sequencer_version_etag_and_time_tell_events_apart() {
        let mut one = record("ObjectCreated:Put", "a");
        one["s3"]["object"].as_object_mut().unwrap().remove("sequencer");
        let mut other = one.clone();
        other["eventTime"] = json!("2026-01-01T00:00:01.000Z");
        let events = read(&json!({"Records": [one, other]}));
        assert_eq!(
            events[0].identity,
            "version v1 etag e1 time 2026-01-01T00:00:00.000Z"
        );
        assert_ne!(events[0].identity, events[1].identity);
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for body in ["", "x", "{", "1\n2"] {
            assert!(matches!(parse(body), Err(EventError::NotJson(_))), "{body}");
        }
        for body in [
            "{}",
            "[]",
            "null",
            r#"{"Records": 1}"#,
            r#"{"source": "aws.ec2", "detail-type": "x"}"#,
        ] {
            assert!(matches!(parse(body), Err(EventError::UnknownForm)), "{body}");
        }
        let mut bare = record("ObjectCreated:Put", "a");
        bare["s3"]["bucket"] = json!({});
        for damaged in [
            json!({"Records": [{}]}),
            json!({"Records": [record("ObjectRemoved:Delete", "a"), bare]}),
            json!({"Records": [record("ObjectCreated:Put", "%FF")]}),
            json!({"source": "aws.s3", "detail-type": "Object Created", "detail": {}}),
        ] {
            assert!(
                matches!(parse(&damaged.to_string()), Err(EventError::Damaged { .. })),
                "{damaged}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(body: String) {
            prop_assert!(parse(&body).is_err() || body.contains("Records") || body.contains("TestEvent"));
        }
    }
}
