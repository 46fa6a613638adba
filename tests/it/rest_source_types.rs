//! The documented JSON of S3 sources and web sites: what is taken, what is echoed, and what is refused by the
//! name of its field.

use serde_json::{Value, json};

use crate::harness::{rest::RestClient, scenario::Scenario, stores::Backend};

/// What a body is sent as, and what its settings come back as.
async fn echoed(scenario: &Scenario, rest: &RestClient, settings: Value) -> Value {
    let mut body = json!({"database_name": scenario.database()});
    let kind = settings.as_object().unwrap().keys().next().unwrap().clone();
    body.as_object_mut()
        .unwrap()
        .extend(settings.as_object().unwrap().clone());
    let (status, created) = rest.post("/api/v1/sources", &body).await;
    assert_eq!(status, 201, "{created}");
    let id = created["source_id"].as_str().unwrap();
    let (_, source) = rest.get(&format!("/api/v1/sources/{id}")).await;
    assert_eq!(source[&kind], source["source_type"][&kind]);
    source[&kind].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_site_is_echoed_as_it_was_asked_for() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);

    let plain = json!({"web_scrape": {"starting_url": "https://Docs.example.com#top"}});
    assert_eq!(
        echoed(&scenario, &rest, plain).await,
        json!({
            "starting_url": "https://docs.example.com/", "page_limit": null, "max_depth": null,
            "include_path_regexes": null, "exclude_path_regexes": null,
        })
    );
    let full = json!({"web_scrape": {
        "starting_url": "https://docs.example.com/start", "page_limit": 20, "max_depth": 0,
        "include_path_regexes": ["^/docs", "/blog/*"], "exclude_path_regexes": ["/admin/.*"],
    }});
    assert_eq!(echoed(&scenario, &rest, full.clone()).await, full["web_scrape"]);

    let (_, listed) = rest.get("/api/v1/sources?source_type=web_scrape").await;
    assert_eq!(listed.as_array().unwrap().len(), 2);
    let (_, listed) = rest.get("/api/v1/sources?source_type=s3").await;
    assert_eq!(listed, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_setting_of_a_source_is_named() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let s3 = json!({
        "bucket_name": "bucket", "region": "us-east-1", "collection_name": "objects",
        "aws_access_key_id": "AKIA", "aws_secret_access_key": "not-to-be-repeated",
    });
    let web = json!({"starting_url": "https://example.com/"});
    let cases = [
        ("s3", "bucket_name", json!(null)),
        ("s3", "bucket_name", json!("bucket/key")),
        ("s3", "bucket_name", json!("evil.example.com:80")),
        ("s3", "region", json!(null)),
        ("s3", "region", json!("us-east-1.evil.example")),
        ("s3", "collection_name", json!(null)),
        ("s3", "collection_name", json!("ab")),
        ("s3", "path_prefix", json!("a\0")),
        ("s3", "path_prefix", json!("p".repeat(1_025))),
        ("s3", "auto_sync", json!("always")),
        ("s3", "aws_access_key_id", json!(null)),
        ("s3", "aws_access_key_id", json!("two words")),
        ("s3", "aws_secret_access_key", json!(null)),
        ("s3", "aws_secret_access_key", json!("")),
        ("s3", "aws_credential_id", json!(7)),
        ("s3", "aws_credential_id", json!("7")),
        ("s3", "nonsense", json!(1)),
        ("web_scrape", "starting_url", json!(null)),
        ("web_scrape", "starting_url", json!("example.com")),
        ("web_scrape", "starting_url", json!("file:///etc/passwd")),
        (
            "web_scrape",
            "starting_url",
            json!("https://me:secret@example.com/"),
        ),
        ("web_scrape", "page_limit", json!(0)),
        ("web_scrape", "page_limit", json!(-1)),
        ("web_scrape", "page_limit", json!(2_147_483_648_u32)),
        ("web_scrape", "max_depth", json!(-1)),
        ("web_scrape", "max_depth", json!(1.5)),
        ("web_scrape", "include_path_regexes[1]", json!(["ok", "("])),
        (
            "web_scrape",
            "exclude_path_regexes[0]",
            json!(["(?:a{1000}){1000}"]),
        ),
        ("web_scrape", "exclude_path_regexes", json!(vec!["a"; 101])),
        ("web_scrape", "nonsense", json!(1)),
    ];
    for (kind, name, value) in cases {
        let mut settings = if kind == "s3" { s3.clone() } else { web.clone() };
        settings[name.split('[').next().unwrap()] = value;
        let body = json!({"database_name": scenario.database(), kind: settings});
        let (status, answer) = rest.post("/api/v1/sources", &body).await;
        assert_eq!(
            (status, &answer["error"]),
            (400, &json!("InvalidArgumentError")),
            "{body}"
        );
        let field = format!("{kind}.{name}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.starts_with(&field), "{body}: {answer}");
        assert!(!answer.to_string().contains("not-to-be-repeated"), "{answer}");
    }
    assert_eq!(rest.get("/api/v1/sources").await, (200, json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_of_a_web_site_takes_nothing_of_the_other_types() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let body = json!({
        "database_name": scenario.database(),
        "web_scrape": {"starting_url": "https://docs.example.com/"},
    });
    let (_, created) = rest.post("/api/v1/sources", &body).await;
    let path = format!(
        "/api/v1/sources/{}/invocations",
        created["source_id"].as_str().unwrap()
    );
    for (field, body) in [
        ("target_collection_name", json!({})),
        (
            "ref_identifier",
            json!({"target_collection_name": "web", "ref_identifier": {"branch": "main"}}),
        ),
        (
            "object_key",
            json!({"target_collection_name": "web", "object_key": "a"}),
        ),
        (
            "sync_prefix",
            json!({"target_collection_name": "web", "sync_prefix": true}),
        ),
        (
            "custom_id",
            json!({"target_collection_name": "web", "custom_id": "mine"}),
        ),
    ] {
        let (status, answer) = rest.post(&path, &body).await;
        assert_eq!(status, 400, "{body}");
        assert!(answer["message"].as_str().unwrap().starts_with(field), "{answer}");
    }
    let (status, created) = rest.post(&path, &json!({"target_collection_name": "web"})).await;
    assert_eq!(status, 201, "{created}");
    let id = created["invocation_id"].as_str().unwrap();
    let (_, invocation) = rest.get(&format!("/api/v1/invocations/{id}")).await;
    assert_eq!(
        invocation["metadata"],
        json!({"web_scrape": null, "database_name": scenario.database(), "collection_name": "web"})
    );
}
