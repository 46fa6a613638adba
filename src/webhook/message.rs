//! What is sent: the body, its id, and the signature over both.
//!
//! Source of the headers and of the signature: the Standard Webhooks specification, version 1.0.0. The id and
//! the body of a state change are the same in every attempt; the timestamp is that of the attempt.

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::hmac;
use serde_json::json;

use crate::{
    domain::{ids::InvocationId, time::Timestamp},
    json::event_data,
    store::Event,
};

/// The only type of event there is.
const EVENT_TYPE: &str = "invocation.state_changed";

/// A state change, ready to be sent.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) body: String,
}

impl Message {
    pub(super) fn new(event: &Event) -> Self {
        let body = json!({
            "type": EVENT_TYPE,
            "timestamp": event.time.to_rfc3339(),
            "data": event_data(&event.invocation, event.time),
        });
        Self {
            id: message_id(event.invocation.id, event.revision),
            body: body.to_string(),
        }
    }

    /// The value of `webhook-signature` for an attempt at `timestamp`.
    pub(super) fn signature(&self, key: &[u8], timestamp: i64) -> String {
        let Self { id, body } = self;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let tag = hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(tag))
    }
}

/// Names a state change for ever. Without full stops, which separate the parts that are signed.
fn message_id(invocation: InvocationId, revision: u64) -> String {
    format!("msg_{}_{revision}", invocation.0.simple())
}

/// Whole seconds since the Unix epoch.
pub(super) fn seconds(time: Timestamp) -> i64 {
    time.0.div_euclid(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::webhook::signing_key, secret::Secret};

    /// The example of the reference libraries.
    #[test]
    fn a_message_is_signed_as_the_reference_libraries_do() {
        let message = Message {
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(),
            body: r#"{"test": 2432232314}"#.to_owned(),
        };
        let key = signing_key(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        assert_eq!(
            message.signature(&key, 1_614_265_330),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }
}
