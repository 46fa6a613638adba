#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;

use super::*;

fn dense(wire: DenseWire) -> Dense {
    Dense {
        wire,
        remote_model: "m".to_owned(),
        dimensions: 2,
    }
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

#[test]
fn a_request_goes_below_the_base_with_or_without_a_slash() {
    for base in ["http://h/v1", "http://h/v1/"] {
        let openai = dense(DenseWire::Openai).url(&url(base));
        assert_eq!(openai.as_str(), "http://h/v1/embeddings");
        assert_eq!(Sparse.url(&url(base)).as_str(), "http://h/v1/embed_sparse");
    }
    let cloud = dense(DenseWire::ChromaCloud);
    assert_eq!(cloud.url(&url("http://h")).as_str(), "http://h/");
    assert_eq!(cloud.url(&url("http://h/embed")).as_str(), "http://h/embed");
}

#[test]
fn an_instruction_goes_before_the_texts_or_beside_them() {
    let parse = |body: Vec<u8>| serde_json::from_slice::<Value>(&body).unwrap();
    let openai = dense(DenseWire::Openai);
    assert_eq!(
        parse(openai.body(&["a", "b"], "find")),
        json!({"model": "m", "encoding_format": "float",
               "input": ["Instruct: find\nQuery:a", "Instruct: find\nQuery:b"]})
    );
    assert_eq!(parse(openai.body(&["a"], ""))["input"], json!(["a"]));
    assert_eq!(
        parse(dense(DenseWire::ChromaCloud).body(&["a"], "find")),
        json!({"instructions": "find", "texts": ["a"]})
    );
    assert_eq!(
        parse(Sparse.body(&["a"], "")),
        json!({"texts": ["a"], "task": "", "target": "", "fetch_tokens": "false"})
    );
}

#[test]
fn vectors_are_sorted_by_index_and_brought_to_length_1() {
    let base64 = STANDARD.encode([0_f32, -5.0].map(f32::to_le_bytes).concat());
    let body = json!({"usage": {"prompt_tokens": 7, "total_tokens": 9}, "data": [
        {"index": 1, "embedding": [3, 4.0]}, {"index": 0, "embedding": base64}]});
    let answer = dense(DenseWire::Openai)
        .parse(body.to_string().as_bytes(), 2)
        .unwrap();
    assert_eq!(answer.vectors, [vec![0.0, -1.0], vec![0.6, 0.8]]);
    assert_eq!(answer.tokens, Some(7));
    let cloud = dense(DenseWire::ChromaCloud).parse(br#"{"embeddings":[[0,2]],"num_tokens":3}"#, 1);
    let expected = Answer {
        vectors: vec![vec![0.0, 1.0]],
        tokens: Some(3),
    };
    assert_eq!(cloud.unwrap(), expected);
}

#[test]
fn a_vector_without_a_direction_is_a_fault_of_its_text() {
    for embedding in ["[null, 1]", "[NaN, 1]", "[-Infinity, 1]", "[0, 0]", "[1e39, 1]"] {
        let body = format!(r#"{{"data":[{{"index":0,"embedding":{embedding}}}]}}"#);
        let fault = dense(DenseWire::Openai).parse(body.as_bytes(), 1).unwrap_err();
        assert!(matches!(fault, AnswerFault::NotFinite), "{embedding}: {fault:?}");
    }
}

#[test]
fn an_answer_that_does_not_fit_its_request_is_refused() {
    let wrong = |body: &str| match dense(DenseWire::Openai).parse(body.as_bytes(), 2) {
        Err(AnswerFault::Wrong(error)) => error.to_string(),
        other => panic!("{body}: {other:?}"),
    };
    let item = |index: usize| format!(r#"{{"index":{index},"embedding":[1,0]}}"#);
    let of = |items: &[String]| format!(r#"{{"data":[{}]}}"#, items.join(","));
    assert!(wrong(&of(&[item(0)])).contains("1 vectors for 2 texts"));
    assert!(wrong(&of(&[item(0), item(0)])).contains("indices"));
    assert!(wrong(&of(&[item(0), item(2)])).contains("indices"));
    assert!(wrong(r#"{"data":[{"embedding":[1,0,0]},{"embedding":[1,0]}]}"#).contains("3 dimensions, and 2"));
    assert!(wrong(r#"{"error":"no"}"#).contains("not of the expected form"));
    assert!(wrong("<html>").contains("not of the expected form"));
    let broken = dense(DenseWire::Openai).parse(br#"{"data":[{"index":0,"emb"#, 2);
    assert!(matches!(broken, Err(AnswerFault::BrokenOff)));
}

#[test]
fn sparse_vectors_have_ascending_indices_and_finite_values() {
    let parse = |body: &str| Sparse.parse(body.as_bytes(), 1);
    let answer = parse(r#"{"embeddings":[{"indices":[9,2],"values":[0.5,1.5],"labels":null}]}"#).unwrap();
    let expected = SparseVector {
        indices: vec![2, 9],
        values: vec![1.5, 0.5],
    };
    assert_eq!(answer.vectors, std::slice::from_ref(&expected));
    assert!((Sparse.cosine(&expected, &expected) - 1.0).abs() < 1e-9);
    assert!(matches!(
        parse(r#"{"embeddings":[{"indices":[1],"values":[null]}]}"#),
        Err(AnswerFault::NotFinite)
    ));
    for wrong in [
        r#"{"embeddings":[{"indices":[1,1],"values":[1,1]}]}"#,
        r#"{"embeddings":[{"indices":[1],"values":[]}]}"#,
        r#"{"embeddings":[]}"#,
    ] {
        assert!(matches!(parse(wrong), Err(AnswerFault::Wrong(_))), "{wrong}");
    }
}
