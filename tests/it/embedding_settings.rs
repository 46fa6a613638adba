//! Task and sparse settings of a source on both surfaces, without a server around them.

use chroma_sync::{
    domain::{
        chunking::Chunking,
        embedding::{BM25, MINILM, ModelCatalog, ModelDescription, QWEN3, SPLADE},
        ids::SourceId,
        names::TenantName,
        source::{NewSource, Source},
        time::Timestamp,
    },
    error::{Error, Reason},
    grpc, proto, rest,
};
use serde_json::{Value, json};

use crate::harness::documented::Documented;

/// A server that serves every documented model.
fn catalog() -> ModelCatalog {
    let model = |name: &str, dimensions: u32, takes_instructions: bool| ModelDescription {
        name: name.to_owned(),
        dimensions,
        max_tokens: 8_192,
        takes_instructions,
    };
    let models = vec![model(QWEN3, 1_024, true), model(MINILM, 384, false)];
    ModelCatalog::new(models, QWEN3.to_owned()).with_sparse(vec![BM25.to_owned(), SPLADE.to_owned()])
}

/// A request of REST with these fields beside the required ones.
fn read(fields: &Value) -> Result<NewSource, Error> {
    let mut body = json!({"database_name": "db", "github": {"repository": "a/b"}});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    rest::read_new_source(body.to_string().as_bytes(), &catalog())
}

fn stored(new: NewSource) -> Source {
    let NewSource {
        database,
        settings,
        embedding,
        chunking,
        webhook,
    } = new;
    Source {
        id: SourceId::generate(),
        tenant: TenantName::default_tenant(),
        database,
        settings,
        embedding,
        chunking,
        create_time: Timestamp(0),
        webhook,
    }
}

fn generic() -> Value {
    json!({
        "task_name": "generic_retrieval", "document_prompt": "",
        "query_prompt": "Retrieve semantically similar text",
    })
}

#[test]
fn documented_settings_are_shown_in_the_documented_form_with_their_defaults() {
    let documented = Documented::read();
    let mine = json!({"task_name": "mine", "document_prompt": "d", "query_prompt": "q"});
    let splade = json!({"model": SPLADE, "key": "sparse_embedding"});
    for (asked, dense, sparse) in [
        (json!({}), json!({"model": QWEN3, "task": generic()}), None),
        (json!({"embedding_model": MINILM}), json!({"model": MINILM}), None),
        (
            json!({"embedding": {"dense": {"model": QWEN3, "task": null}, "sparse": null}}),
            json!({"model": QWEN3, "task": generic()}),
            None,
        ),
        (
            json!({"embedding": {"dense": {"model": QWEN3, "task": {"task_name": "generic_retrieval"}}}}),
            json!({"model": QWEN3, "task": generic()}),
            None,
        ),
        (
            json!({"embedding": {"dense": {"model": QWEN3, "task": mine}, "sparse": {"model": SPLADE}}}),
            json!({"model": QWEN3, "task": mine}),
            Some(splade.clone()),
        ),
        (
            json!({"embedding_model": {"model": QWEN3, "task": mine}}),
            json!({"model": QWEN3, "task": mine}),
            None,
        ),
        (
            json!({"embedding_model": {"model": QWEN3, "task": mine}, "embedding": {"dense": {"model": QWEN3}}}),
            json!({"model": QWEN3, "task": mine}),
            None,
        ),
        (
            json!({"embedding": {"dense": {"model": MINILM}, "sparse": {"model": BM25, "key": "words"}}}),
            json!({"model": MINILM}),
            Some(json!({"model": BM25, "key": "words"})),
        ),
        (
            json!({"embedding": {"sparse": {"model": SPLADE, "key": null}}}),
            json!({"model": QWEN3, "task": generic()}),
            Some(splade),
        ),
    ] {
        let shown = rest::write_source(stored(read(&asked).unwrap()));
        let mut embedding = json!({"dense": dense});
        if let Some(sparse) = sparse {
            embedding["sparse"] = sparse;
        }
        assert_eq!(shown["embedding"], embedding, "{asked}");
        if asked["embedding_model"].is_string() {
            assert_eq!(shown["embedding_model"], dense["model"], "{asked}");
        } else {
            assert_eq!(shown["embedding_model"], dense, "{asked}");
            documented.check_published("Source", &shown);
        }
    }
}

#[test]
fn settings_that_cannot_be_are_refused_by_the_field_that_is_wrong() {
    let dense = |dense: Value| json!({"embedding": {"dense": dense}});
    let sparse = |sparse: Value| json!({"embedding": {"sparse": sparse}});
    let task = |task: Value| dense(json!({"model": QWEN3, "task": task}));
    for (asked, field, reason) in [
        (
            dense(json!({"model": MINILM, "task": {"task_name": "a"}})),
            "embedding.dense.task",
            Reason::InvalidField,
        ),
        (
            json!({"embedding_model": {"model": MINILM, "task": {"task_name": "a"}}}),
            "embedding_model.task",
            Reason::InvalidField,
        ),
        (
            json!({
                "embedding_model": {"model": QWEN3, "task": {"task_name": "a"}},
                "embedding": {"dense": {"model": QWEN3, "task": {"task_name": "b"}}},
            }),
            "embedding_model.task",
            Reason::InvalidField,
        ),
        (
            task(json!({})),
            "embedding.dense.task.task_name",
            Reason::InvalidField,
        ),
        (
            task(json!({"task_name": ""})),
            "embedding.dense.task.task_name",
            Reason::InvalidField,
        ),
        (
            task(json!({"task_name": 1})),
            "embedding.dense.task.task_name",
            Reason::InvalidField,
        ),
        (
            task(json!({"task_name": "a", "document_prompt": "p".repeat(1_025)})),
            "embedding.dense.task.document_prompt",
            Reason::InvalidField,
        ),
        (
            task(json!({"task_name": "a", "query_prompt": "a\0b"})),
            "embedding.dense.task.query_prompt",
            Reason::InvalidField,
        ),
        (sparse(json!({})), "embedding.sparse.model", Reason::InvalidField),
        (
            sparse(json!({"model": "a/b"})),
            "embedding.sparse.model",
            Reason::UnknownModel,
        ),
        (
            sparse(json!({"model": BM25, "key": ""})),
            "embedding.sparse.key",
            Reason::InvalidField,
        ),
        (
            sparse(json!({"model": BM25, "key": "document_key"})),
            "embedding.sparse.key",
            Reason::InvalidField,
        ),
        (
            sparse(json!({"model": BM25, "key": "#document"})),
            "embedding.sparse.key",
            Reason::InvalidField,
        ),
        (
            sparse(json!({"model": BM25, "k": 1.2})),
            "embedding.sparse.k",
            Reason::InvalidField,
        ),
        (
            sparse(json!("Chroma/BM25")),
            "embedding.sparse",
            Reason::InvalidField,
        ),
    ] {
        let refused = read(&asked).unwrap_err();
        assert_eq!(refused.reason(), reason, "{asked}");
        assert_eq!(refused.violations()[0].field, field, "{asked}: {refused}");
    }
}

#[test]
fn both_surfaces_read_the_same_settings_and_show_them() {
    let task = proto::EmbeddingTask {
        task_name: "nl_to_code".to_owned(),
        document_prompt: None,
        query_prompt: None,
    };
    let embedding = proto::Embedding {
        dense: Some(proto::DenseEmbedding {
            model: QWEN3.to_owned(),
            task: Some(task.clone()),
        }),
        sparse: Some(proto::SparseEmbedding {
            model: BM25.to_owned(),
            key: String::new(),
        }),
    };
    let request = |embedding: proto::Embedding| proto::CreateSourceRequest {
        database_name: "db".to_owned(),
        settings: Some(proto::create_source_request::Settings::Github(
            proto::GithubSource {
                repository: "a/b".to_owned(),
                ..Default::default()
            },
        )),
        embedding: Some(embedding),
        ..Default::default()
    };
    let (by_grpc, _) = grpc::requests::new_source(request(embedding.clone()), &catalog()).unwrap();
    let by_rest = read(&json!({"embedding": {
        "dense": {"model": QWEN3, "task": {"task_name": "nl_to_code"}}, "sparse": {"model": BM25},
    }}))
    .unwrap();
    assert_eq!(by_grpc, by_rest);
    assert_eq!(
        by_grpc.chunking,
        Chunking::TreeSitter {
            max_size_bytes: 4_096
        }
    );

    let shown = proto::Source::from(stored(by_grpc)).embedding.unwrap();
    assert_eq!(shown.sparse.unwrap().key, "sparse_embedding");
    let shown = shown.dense.unwrap().task.unwrap();
    assert_eq!(shown.document_prompt(), "");
    assert!(shown.query_prompt().starts_with("Given a question about coding"));

    for (change, field) in [
        (
            proto::Embedding {
                dense: Some(proto::DenseEmbedding {
                    model: MINILM.to_owned(),
                    task: Some(task),
                }),
                ..Default::default()
            },
            "embedding.dense.task",
        ),
        (
            proto::Embedding {
                sparse: Some(proto::SparseEmbedding::default()),
                ..Default::default()
            },
            "embedding.sparse.model",
        ),
    ] {
        let refused = grpc::requests::new_source(request(change), &catalog()).unwrap_err();
        assert_eq!(refused.violations()[0].field, field, "{refused}");
    }
}
