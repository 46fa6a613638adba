#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn statuses_are_sorted_into_faults_of_texts_of_servers_and_of_the_configuration() {
    let of =
        |code: u16, message: &str| refusal(StatusCode::from_u16(code).unwrap(), None, message.to_owned());
    for code in [400, 413, 422] {
        assert!(matches!(of(code, "too long"), Fault::Texts(said) if said.ends_with("too long")));
    }
    let ubatch = "input (513 tokens) is too large to process. increase the physical batch size (current batch size: 512)";
    assert!(matches!(of(500, ubatch), Fault::Texts(_)));
    for code in [408, 429, 500, 502, 503, 504] {
        assert!(
            matches!(of(code, "oops"), Fault::Server(error) if error.is_transient()),
            "{code}"
        );
    }
    for code in [301, 401, 403, 404, 405, 501] {
        assert!(
            matches!(of(code, "oops"), Fault::Server(error) if !error.is_transient()),
            "{code}"
        );
    }
}

#[tokio::test]
async fn the_tokens_that_a_server_counted_are_shared_out_whole() {
    let lengths = crate::embed::remote::lengths::Lengths::load(None, 9).unwrap();
    let texts = vec!["aaaaaa".into(), "b".into(), "cccccccccccc".into()];
    let texts = lengths.prepare(texts, String::new()).await.unwrap();
    for total in [0, 1, 7, 100] {
        let answer = Answer {
            vectors: vec![(); 3],
            tokens: Some(total),
        };
        let tokens: Vec<u32> = share(&texts, &[0, 1, 2], answer)
            .into_iter()
            .map(|(_, outcome)| match outcome {
                Outcome::Embedded(embedded) => embedded.tokens,
                Outcome::Refused(problem) => panic!("{problem}"),
            })
            .collect();
        assert_eq!(u64::from(tokens.iter().sum::<u32>()), total, "{tokens:?}");
        assert!(tokens[2] >= tokens[1], "{tokens:?}");
    }
}
