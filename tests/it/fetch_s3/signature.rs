//! Signatures, compared with those that AWS's own library for Python makes.

use std::{
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

use chroma_sync::{
    aws::{AwsCredentials, AwsService, Signer},
    config::Secret,
};
use reqwest::{Method, Request};
use serde_json::{Value, json};
use url::Url;

use crate::harness::{moto::any_credentials, service::project_file};

/// 2026-01-02T03:04:05Z.
const TIME: u64 = 1_767_323_045;

const SCRIPT: &str = r#"
import datetime, json, sys
import botocore.auth, botocore.awsrequest, botocore.credentials
question = json.load(sys.stdin)
class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(question["time"], tz)
    @classmethod
    def utcnow(cls):
        return datetime.datetime.fromtimestamp(question["time"], datetime.timezone.utc).replace(tzinfo=None)
if hasattr(botocore.auth, "get_current_datetime"):
    botocore.auth.get_current_datetime = lambda remove_tzinfo=True: Clock.utcnow() if remove_tzinfo else Clock.now(datetime.timezone.utc)
else:
    botocore.auth.datetime.datetime = Clock
credentials = botocore.credentials.Credentials(*question["credentials"])
signers = {"s3": botocore.auth.S3SigV4Auth, "sqs": botocore.auth.SigV4Auth}
request = botocore.awsrequest.AWSRequest(
    method=question["method"], url=question["url"], headers=question["headers"], data=question["body"].encode())
signers[question["service"]](credentials, question["service"], question["region"]).add_auth(request)
print(json.dumps(request.headers["Authorization"]))
"#;

/// What botocore signs the same request with.
fn botocore(question: &Value) -> String {
    let python = project_file(".peers/moto/bin/python3");
    assert!(
        python.exists(),
        "{} is missing; run `make peers`",
        python.display()
    );
    let mut file = tempfile::tempfile().unwrap();
    serde_json::to_writer(&mut file, question).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let output = Command::new(python)
        .args(["-c", SCRIPT])
        .stdin(file)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

struct Case {
    service: AwsService,
    name: &'static str,
    region: &'static str,
    method: Method,
    url: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
}

fn signed(case: &Case, credentials: &AwsCredentials) -> String {
    let url = Url::parse(case.url).unwrap();
    assert_eq!(url.as_str(), case.url, "the two must sign the same URL");
    let mut request = Request::new(case.method.clone(), url);
    for (name, value) in case.headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    if !case.body.is_empty() {
        *request.body_mut() = Some(case.body.into());
    }
    Signer::new(credentials.clone(), case.region, case.service)
        .sign(&mut request, UNIX_EPOCH + Duration::from_secs(TIME))
        .unwrap();
    request.headers()["authorization"].to_str().unwrap().to_owned()
}

#[test]
fn requests_are_signed_as_botocore_signs_them_with_and_without_a_session_token() {
    let cases = [
        Case {
            service: AwsService::S3,
            name: "s3",
            region: "eu-central-1",
            method: Method::GET,
            url: "http://docs.s3.eu-central-1.amazonaws.com/a%20b%2B%C3%BC//c~d.md",
            headers: &[("if-match", "\"0123\"")],
            body: "",
        },
        Case {
            service: AwsService::S3,
            name: "s3",
            region: "us-east-1",
            method: Method::GET,
            url: "http://127.0.0.1:9000/docs?continuation-token=a%2F%3D&encoding-type=url&list-type=2&prefix=a%20b",
            headers: &[],
            body: "",
        },
        Case {
            service: AwsService::S3,
            name: "s3",
            region: "auto",
            method: Method::HEAD,
            url: "http://s3.us-east-1.amazonaws.com/my.docs/x",
            headers: &[],
            body: "",
        },
        Case {
            service: AwsService::Sqs,
            name: "sqs",
            region: "us-east-1",
            method: Method::POST,
            url: "https://sqs.us-east-1.amazonaws.com/",
            headers: &[
                ("content-type", "application/x-amz-json-1.0"),
                ("x-amz-target", "AmazonSQS.ReceiveMessage"),
            ],
            body: r#"{"QueueUrl":"https://sqs.us-east-1.amazonaws.com/1/q"}"#,
        },
    ];
    let lasting = any_credentials();
    let temporary = AwsCredentials {
        session_token: Some(Secret::new("IQoJb3JpZ2luX2VjEXAMPLE+/=")),
        ..lasting.clone()
    };
    for case in &cases {
        for credentials in [&lasting, &temporary] {
            let headers: serde_json::Map<String, Value> = case
                .headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect();
            let token = credentials
                .session_token
                .as_ref()
                .map(|token| token.expose().to_owned());
            let expected = botocore(&json!({
                "service": case.name, "region": case.region, "method": case.method.as_str(), "url": case.url,
                "headers": headers, "body": case.body, "time": TIME,
                "credentials": [
                    credentials.access_key_id, credentials.secret_access_key.expose(), token,
                ],
            }));
            assert_eq!(signed(case, credentials), expected, "{} {}", case.name, case.url);
        }
    }
}
