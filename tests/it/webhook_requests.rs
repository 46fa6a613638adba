//! What sources and invocations with a webhook are asked for and shown as.

use chroma_sync::proto;
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{
    rest::RestClient,
    scenario::{Scenario, invocation_request},
    service::reason,
    stores::Backend,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const URL: &str = "https://example.com/hooks";

fn body(scenario: &Scenario, webhook: &Value) -> Value {
    json!({
        "database_name": scenario.database(),
        "github": {"repository": "owner/name"},
        "webhook": webhook,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_wrong_is_refused_by_its_field() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let source = scenario.create_source(&service, "owner/other").await;
    let long = format!("https://example.com/{}", "x".repeat(2_048));
    let cases = [
        (json!({"url": "example.com"}), "webhook.url", "absolute URL"),
        (
            json!({"url": "ftp://example.com/"}),
            "webhook.url",
            "absolute URL",
        ),
        (
            json!({"url": "https://u:planted@example.com/"}),
            "webhook.url",
            "user or a password",
        ),
        (
            json!({"url": "https://example.com/#x"}),
            "webhook.url",
            "fragment",
        ),
        (json!({"url": long}), "webhook.url", "2048"),
        (
            json!({"url": "http://example.com/"}),
            "webhook.url",
            "webhooks.allow_http",
        ),
        (json!({"signing_secret": SECRET}), "webhook.url", "is required"),
        (
            json!({"url": URL, "signing_secret": "planted"}),
            "webhook.signing_secret",
            "whsec_",
        ),
        (
            json!({"url": URL, "signing_secret": "whsec_cGxhbnRlZA=="}),
            "webhook.signing_secret",
            "24 to 64",
        ),
        (
            json!({"url": URL, "secret": "planted"}),
            "webhook",
            "unknown field `secret`",
        ),
        (json!("https://example.com/"), "webhook", "an object"),
        (json!({"url": 1}), "webhook.url", "a string"),
    ];
    for (webhook, field, words) in cases {
        let of_invocation = json!({"target_collection_name": "target", "webhook": &webhook});
        for (path, body) in [
            ("/api/v1/sources".to_owned(), body(&scenario, &webhook)),
            (format!("/api/v1/sources/{source}/invocations"), of_invocation),
        ] {
            let (status, refused) = rest.post(&path, &body).await;
            assert_eq!(status, 400, "{webhook}: {refused}");
            let violation = &refused["violations"][0];
            assert!(
                violation["field"].as_str().unwrap().starts_with(field),
                "{webhook}: {refused}"
            );
            assert!(
                refused["message"].as_str().unwrap().contains(words),
                "{webhook}: {refused}"
            );
            assert!(!refused.to_string().contains("planted"), "{refused}");
        }
    }

    let mut request = invocation_request(&source, "target", None);
    request.webhook = Some(proto::Webhook {
        url: "http://example.com/".to_owned(),
        signing_secret: String::new(),
    });
    let refused = service
        .invocations(&scenario.admin)
        .create_invocation(request)
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::InvalidArgument, "INVALID_FIELD")
    );
    let fields = refused.get_details_bad_request().unwrap().field_violations;
    assert_eq!(fields[0].field, "webhook.url");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_shows_only_where_one_is_set() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let (status, created) = rest
        .post("/api/v1/sources", &body(&scenario, &json!({"url": URL})))
        .await;
    assert_eq!(status, 201, "{created}");
    let made = created["webhook"]["signing_secret"].as_str().unwrap();
    assert!(made.starts_with("whsec_"), "{created}");
    let source = created["source_id"].as_str().unwrap();
    let (_, shown) = rest.get(&format!("/api/v1/sources/{source}")).await;
    assert_eq!(shown["webhook"], json!({"url": URL}));

    let path = format!("/api/v1/sources/{source}/invocations");
    let inherits = json!({"target_collection_name": "inherits"});
    let (_, created) = rest.post(&path, &inherits).await;
    assert_eq!(
        created.as_object().unwrap().len(),
        1,
        "nothing was made for it: {created}"
    );
    let invocation = |created: &Value| {
        let id = created["invocation_id"].as_str().unwrap();
        format!("/api/v1/invocations/{id}")
    };
    let (_, shown) = rest.get(&invocation(&created)).await;
    assert_eq!(shown["webhook"], json!({"url": URL}));
    assert_eq!(shown["webhook_delivery"]["state"], "pending");
    let (_, listed) = rest.get("/api/v1/invocations").await;
    assert_eq!(listed, json!([shown]));

    let own = json!({"target_collection_name": "own",
                     "webhook": {"url": "https://example.org/", "signing_secret": SECRET}});
    let (_, created) = rest.post(&path, &own).await;
    assert_eq!(
        created.as_object().unwrap().len(),
        1,
        "the caller knows the secret: {created}"
    );
    let (_, shown) = rest.get(&invocation(&created)).await;
    assert_eq!(shown["webhook"], json!({"url": "https://example.org/"}));

    let plain = scenario.create_source(&service, "owner/plain").await;
    let (_, shown) = rest.get(&format!("/api/v1/sources/{plain}")).await;
    assert_eq!(shown.get("webhook"), None);
    let nothing = json!({"target_collection_name": "plain", "webhook": null});
    let (_, created) = rest
        .post(&format!("/api/v1/sources/{plain}/invocations"), &nothing)
        .await;
    let (_, shown) = rest.get(&invocation(&created)).await;
    assert_eq!(
        (shown.get("webhook"), shown.get("webhook_delivery")),
        (None, None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_makes_no_other_source_but_another_request() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let mut sources = service.sources(&scenario.admin);
    let with = |url: &str| proto::CreateSourceRequest {
        webhook: Some(proto::Webhook {
            url: url.to_owned(),
            signing_secret: String::new(),
        }),
        request_id: Some("6f9619ff-8b86-4d11-b42d-00c04fc964ff".to_owned()),
        ..scenario.source_request("owner/name")
    };
    let created = sources.create_source(with(URL)).await.unwrap().into_inner();
    let refused = sources
        .create_source(scenario.source_request("owner/name"))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "SOURCE_EXISTS");
    let refused = sources
        .create_source(with("https://example.org/"))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "REQUEST_ID_REUSED");

    let request = |url: &str| proto::CreateInvocationRequest {
        webhook: with(url).webhook,
        request_id: Some("0e3a1c1f-1b1c-4c7e-9d2a-5b1f0c9d8e7f".to_owned()),
        ..invocation_request(&created.id, "target", None)
    };
    let mut invocations = service.invocations(&scenario.admin);
    let first = invocations
        .create_invocation(request(URL))
        .await
        .unwrap()
        .into_inner();
    assert!(first.webhook.unwrap().signing_secret.starts_with("whsec_"));
    let again = invocations
        .create_invocation(request(URL))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (again.id, again.webhook.unwrap().signing_secret),
        (first.id, String::new())
    );
    assert!(again.webhook_delivery.is_some());
    let refused = invocations
        .create_invocation(request("https://example.org/"))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "REQUEST_ID_REUSED");
}
