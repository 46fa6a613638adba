//! `/v1/embeddings` and `/v1/models`, called with OpenAI's own client and by hand.

use chroma_sync::{
    domain::embedding::MINILM,
    proto::{self, EmbeddingPurpose},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    rest::{RestClient, run_client},
    scenario::Scenario,
    stores::Backend,
};

fn floats(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn openais_client_embeds_and_reads_the_errors() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let found = run_client("openai_embeddings.py", &[&service.url, &scenario.admin, MINILM]);
    let request = proto::EmbedRequest {
        texts: vec!["a question".to_owned(), "another one".to_owned()],
        purpose: EmbeddingPurpose::Query.into(),
        settings: None,
    };
    let answer = service.embeddings(&scenario.admin).embed(request).await;
    let expected = answer.unwrap().into_inner().embeddings;

    assert_eq!(found["models"], json!([MINILM]));
    assert_eq!(found["model"], MINILM);
    assert_eq!(found["indices"], json!([0, 1]));
    // In base64 not a bit is lost; alone and beside another text, sums are rounded differently.
    for (vector, expected) in [
        (&found["one"], &expected[0]),
        (&found["many"][0], &expected[0]),
        (&found["many"][1], &expected[1]),
    ] {
        let vector = floats(vector);
        let similarity: f32 = vector.iter().zip(&expected.vector).map(|(a, b)| a * b).sum();
        assert_eq!(vector.len(), 384);
        assert!((similarity - 1.0).abs() < 1e-5, "{similarity}");
    }
    let tokens: Vec<i32> = expected.iter().map(|text| text.tokens).collect();
    assert_eq!(
        found["tokens"],
        json!([tokens[0], tokens[0], tokens[0] + tokens[1]])
    );
    assert_eq!(found["full_length"], 384);

    let error = |name: &str| {
        let error = &found[name];
        (
            error["class"].as_str().unwrap().to_owned(),
            error["status"].as_u64().unwrap(),
            error["code"].as_str().unwrap().to_owned(),
            error["param"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let expected = |class: &str, status, code: &str, param: &str| {
        (class.to_owned(), status, code.to_owned(), param.to_owned())
    };
    assert_eq!(
        error("unknown_model"),
        expected("NotFoundError", 404, "model_not_found", "model")
    );
    let message = found["unknown_model"]["message"].as_str().unwrap();
    assert!(message.contains(MINILM), "{message}");
    let bad = |param| expected("BadRequestError", 400, "INVALID_FIELD", param);
    assert_eq!(error("cut_short"), bad("dimensions"));
    assert_eq!(error("token_ids"), bad("input"));
    assert_eq!(error("nothing"), bad("input"));
    assert_eq!(
        error("wrong_token"),
        expected("AuthenticationError", 401, "TOKEN_INVALID", "")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_by_hand_is_answered_in_floats_and_refused_in_openais_form() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let long = "word ".repeat(400);
    let (status, answer) = rest
        .post(
            "/v1/embeddings",
            &json!({"model": MINILM, "input": long, "user": "me"}),
        )
        .await;
    assert_eq!((status, &answer["object"]), (200, &json!("list")));
    assert_eq!(floats(&answer["data"][0]["embedding"]).len(), 384);
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 256, "total_tokens": 256, "truncated_inputs": 1})
    );

    for (body, param) in [
        (json!({"input": "a"}), "model"),
        (json!({"model": MINILM}), "input"),
        (
            json!({"model": MINILM, "input": "a", "encoding_format": "int8"}),
            "encoding_format",
        ),
        (json!({"model": MINILM, "input": "a", "prompt": "b"}), "prompt"),
        (json!({"model": MINILM, "input": vec!["a"; 513]}), "input"),
    ] {
        let (status, answer) = rest.post("/v1/embeddings", &body).await;
        assert_eq!(status, 400, "{answer}");
        assert_eq!(answer["error"]["param"], param, "{answer}");
        assert_eq!(answer["error"]["type"], "invalid_request_error");
    }
    let answer = rest.send(Method::POST, "/v1/embeddings", "text/plain", "a").await;
    assert_eq!(answer.status, 415);
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(message, "content-type must be application/json");
    let answer = RestClient::new(&service, "")
        .send(Method::GET, "/v1/models", "", "")
        .await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, "Bearer")
    );
    assert_eq!(answer.json()["error"]["code"], "TOKEN_MISSING");
}
