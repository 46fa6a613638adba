//! The same over REST and on the command line.

use chroma_sync::{
    domain::embedding::{MINILM, QWEN3},
    proto,
};
use serde_json::{Value, json};

use super::{BRIDGES, synced};
use crate::harness::{rest::RestClient, scenario::Scenario, stock_clients::with_qwen3, stores::Backend};

#[tokio::test(flavor = "multi_thread")]
async fn rest_embeds_lists_models_and_searches_like_grpc() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let directory = tempfile::tempdir().unwrap();
    let service = with_qwen3(&scenario.deployment, directory.path()).start();
    let source = synced(&scenario, &service).await;
    let rest = RestClient::new(&service, &scenario.admin);

    let (status, models) = rest.get("/api/v1/models").await;
    assert_eq!(status, 200);
    let mut embeddings = service.embeddings(&scenario.admin);
    let listed = embeddings.list_models(proto::ListModelsRequest {}).await;
    let listed = listed.unwrap().into_inner().models;
    let named: Vec<(&str, bool, bool)> = listed
        .iter()
        .map(|model| (model.name.as_str(), model.default, model.sparse))
        .collect();
    assert_eq!(named[..2], [(QWEN3, false, false), (MINILM, true, false)]);
    assert_eq!(models.as_array().unwrap().len(), listed.len());
    assert_eq!(models[1]["name"], MINILM);
    assert_eq!(
        (&models[1]["dimensions"], &models[1]["max_tokens"]),
        (&json!(384), &json!(256))
    );

    let body = json!({"texts": ["a bridge"], "purpose": "query", "source_id": source});
    let (status, embedded) = rest.post("/api/v1/embed", &body).await;
    assert_eq!((status, &embedded["model"]), (200, &json!(MINILM)));
    assert_eq!(embedded["embeddings"][0]["vector"].as_array().unwrap().len(), 384);
    assert_eq!(
        (
            &embedded["embeddings"][0]["tokens"],
            &embedded["embeddings"][0]["truncated"]
        ),
        (&json!(4), &json!(false))
    );

    let body = json!({
        "query": "how does a bridge carry its road?", "source_id": source, "collection_name": "target",
        "where": {"end_line": {"$lt": 4}}, "where_document": {"$contains": "bridge"}, "limit": 5,
    });
    let (status, found) = rest.post("/api/v1/search", &body).await;
    assert_eq!((status, &found["model"]), (200, &json!(MINILM)), "{found}");
    let hits = found["hits"].as_array().unwrap();
    assert_eq!(hits.len(), 1);
    let mut hit = hits[0].clone();
    let score = hit["score"].take().as_f64().unwrap();
    assert!((0.3..1.0).contains(&score), "{score}");
    assert_eq!(hit["metadata"]["document_key"], "bridges.md");
    assert_eq!(
        (
            &hit["document_key"],
            &hit["start_line"],
            &hit["end_line"],
            &hit["text"]
        ),
        (&json!("bridges.md"), &json!(1), &json!(3), &json!(BRIDGES))
    );

    for (path, body, field) in [
        ("/api/v1/embed", json!({"texts": ["a"]}), "purpose"),
        ("/api/v1/embed", json!({"purpose": "query"}), "texts"),
        (
            "/api/v1/embed",
            json!({"texts": ["a"], "purpose": "query", "model": "a/b"}),
            "model",
        ),
        (
            "/api/v1/embed",
            json!({"texts": ["a"], "purpose": "query", "model": MINILM, "source_id": source}),
            "model",
        ),
        (
            "/api/v1/search",
            json!({"query": "a", "database_name": "db"}),
            "collection_name",
        ),
        (
            "/api/v1/search",
            json!({"query": "a", "source_id": source, "collection_name": "target", "where": {"$x": 1}}),
            "where",
        ),
        (
            "/api/v1/search",
            json!({"query": "a", "source_id": source, "collection_name": "target", "limit": 0}),
            "limit",
        ),
    ] {
        let (status, refused) = rest.post(path, &body).await;
        assert_eq!(status, 400, "{refused}");
        assert_eq!(refused["violations"][0]["field"], field, "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_hits_and_says_by_its_exit_code_whether_there_were_any() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start();
    let source = synced(&scenario, &service).await;
    let database = scenario.database();
    let run = |arguments: &[&str]| {
        let all = [&["search", "--collection", "target"], arguments].concat();
        scenario.deployment.run_against(&service, &scenario.admin, &all)
    };
    let place = ["--database", database.as_str()];
    let question = "how does a bridge carry its road?";
    let (code, printed) = run(&[&place[..], &[question, "what makes bread rise?"]].concat());
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 8, "{printed}");
    assert_eq!(
        (lines[0], lines[4]),
        ("? how does a bridge carry its road?", "? what makes bread rise?")
    );
    for (line, expected) in [(lines[1], "bridges.md:1-3"), (lines[5], "bread.md:1-3")] {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(words[0].parse::<f32>().unwrap() > 0.3, "{line}");
        assert_eq!(words[1], expected);
        assert!(line.contains("# B"), "{line}");
    }

    let rust = [
        "--source",
        &source,
        "--json",
        "--where",
        r#"{"language": "rust"}"#,
        question,
    ];
    let (code, printed) = run(&rust);
    assert_eq!(code, Some(0));
    let hit: Value = serde_json::from_str(printed.trim()).unwrap();
    assert_eq!(
        (
            &hit["question"],
            &hit["document_key"],
            &hit["start_line"],
            &hit["end_line"]
        ),
        (&json!(question), &json!("src/load.rs"), &json!(1), &json!(4))
    );
    assert_eq!(hit["metadata"]["start_line"].to_string(), "1");

    // Hits of any kind are written as REST answers them, those that no sync wrote as well.
    scenario.chroma.add_foreign_record("target", "foreign").await;
    let rest = RestClient::new(&service, &scenario.admin);
    let body = json!({"query": question, "source_id": source, "collection_name": "target"});
    let (_, answered) = rest.post("/api/v1/search", &body).await;
    let (_, printed) = run(&["--source", &source, "--json", "--hits", "10", question]);
    let mut printed: Vec<Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for hit in &mut printed {
        let asked = hit.as_object_mut().unwrap().remove("question");
        assert_eq!(asked, Some(json!(question)));
    }
    assert_eq!(Value::Array(printed.clone()), answered["hits"]);
    let foreign = printed.iter().find(|hit| hit["id"] == "foreign").unwrap();
    assert_eq!(
        (&foreign["document_key"], &foreign["start_line"]),
        (&Value::Null, &Value::Null)
    );

    let nothing = [
        &place[..],
        &["--where-document", r#"{"$contains": "zeppelin"}"#, question],
    ]
    .concat();
    assert_eq!(run(&nothing), (Some(2), format!("? {question}\n")));
    let not_json = [&place[..], &["--where", "language=rust", question]].concat();
    assert_eq!(run(&not_json), (Some(1), String::new()));
}
