#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    future::Future,
    pin::pin,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::task::noop_waker;

use super::*;

/// Gives each text the vector `[length, first byte]`; texts with special words fail in their own way.
#[derive(Default)]
struct Fake {
    computed: AtomicUsize,
    /// What `encode` began and ended with, in order: the first byte of the batch.
    encoded: Mutex<Vec<(&'static str, u8)>>,
    dropped: Option<mpsc::Sender<()>>,
}

const REFUSED: &str = "refused by the tokenizer";
const PANICKING: &str = "!panic";
const INFINITE: &str = "~infinite";
const TOO_LARGE: &str = "#too large";

impl Model for Fake {
    type Scratch = Vec<u32>;
    type Vector = Vec<f32>;

    fn tokenize(&self, text: &str, instruction: &str) -> Result<Tokens, EmbedError> {
        self.computed.fetch_add(1, Ordering::Relaxed);
        if text == REFUSED {
            return Err(EmbedError::Tokenizer("refused".into()));
        }
        Ok(Tokens {
            ids: instruction.bytes().chain(text.bytes()).map(u32::from).collect(),
            truncated: text.len() > 100,
        })
    }

    fn encode(
        &self,
        sequences: &[&[u32]],
        scratch: &mut Vec<u32>,
        pause: &mut dyn FnMut(),
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        let first = sequences
            .first()
            .and_then(|ids| ids.first())
            .map_or(0, |id| *id as u8);
        lock(&self.encoded).push(("begin", first));
        pause();
        lock(&self.encoded).push(("end", first));
        self.computed.fetch_add(sequences.len(), Ordering::Relaxed);
        assert!(scratch.is_empty(), "working memory was kept after a panic");
        let vector = |ids: &&[u32]| {
            if ids.first() == Some(&u32::from(b'!')) {
                scratch.push(1);
                panic!("a panic that the test asked for");
            }
            let first = ids.first().map_or(0.0, |id| *id as f32);
            vec![
                ids.len() as f32,
                if first == 126.0 { f32::INFINITY } else { first },
            ]
        };
        if sequences.iter().any(|ids| ids.first() == Some(&u32::from(b'#'))) {
            return Err(EmbedError::Device("out of memory".into()));
        }
        Ok(sequences.iter().map(vector).collect())
    }

    fn is_finite(vector: &Vec<f32>) -> bool {
        vector.iter().all(|value| value.is_finite())
    }
}

impl Pool<Fake> {
    /// Embeds without an instruction.
    async fn plain(&self, texts: Vec<Arc<str>>, purpose: Purpose) -> Answer<Vec<f32>> {
        self.embed(texts, String::new(), purpose).await
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(dropped) = &self.dropped {
            dropped.send(()).unwrap();
        }
    }
}

fn texts(count: usize) -> Vec<Arc<str>> {
    (0..count)
        .map(|index| Arc::from("abcdefg"[index % 7..].repeat(1 + index % 40).as_str()))
        .collect()
}

fn started(threads: usize) -> Pool<Fake> {
    Pool::start(Fake::default(), Workers::on_processors(threads), "test").unwrap()
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&noop_waker()))
}

/// Does all steps that are queued and those that follow from them, on this thread.
fn work_off(pool: &Pool<Fake>) {
    let mut scratches = Scratches::default();
    loop {
        let Some(step) = lock(&pool.shared.queue).next() else {
            return;
        };
        pool.shared.take(step, &mut scratches);
    }
}

#[tokio::test]
async fn answers_keep_the_order_of_the_texts() {
    let pool = started(3);
    let texts = texts(500);
    let embedded = pool.plain(texts.clone(), Purpose::Document).await.unwrap();
    assert_eq!(embedded.len(), texts.len());
    for (text, embedded) in texts.iter().zip(&embedded) {
        assert_eq!(
            embedded.vector,
            [text.len() as f32, f32::from(text.as_bytes()[0])]
        );
        assert_eq!(embedded.tokens as usize, text.len());
        assert_eq!(embedded.truncated, text.len() > 100);
    }
}

#[tokio::test]
async fn no_texts_are_answered_without_a_thread() {
    let pool = Pool::without_threads(Fake::default(), Workers::on_processors(1));
    assert_eq!(pool.plain(Vec::new(), Purpose::Query).await.unwrap(), []);
}

#[tokio::test]
async fn a_failing_text_fails_its_own_request_and_the_threads_go_on() {
    let pool = started(1);
    for round in 0..3 {
        let panicking = pool.plain(vec!["good".into(), PANICKING.into()], Purpose::Document);
        let refused = pool.plain(vec![REFUSED.into(), "good".into()], Purpose::Document);
        let infinite = pool.plain(vec![INFINITE.into()], Purpose::Query);
        let large = pool.plain(vec![TOO_LARGE.into()], Purpose::Document);
        let good = pool.plain(vec!["good".into()], Purpose::Document);
        let (panicking, refused, infinite, large, good) =
            tokio::join!(panicking, refused, infinite, large, good);
        assert!(
            matches!(panicking, Err(EmbedError::Panicked)),
            "round {round}: {panicking:?}"
        );
        assert!(
            matches!(refused, Err(EmbedError::Tokenizer(_))),
            "round {round}: {refused:?}"
        );
        assert!(
            matches!(infinite, Err(EmbedError::NotFinite)),
            "round {round}: {infinite:?}"
        );
        assert!(
            matches!(&large, Err(error @ EmbedError::Device(_)) if error.is_transient()),
            "round {round}: {large:?}"
        );
        assert_eq!(good.unwrap()[0].vector, [4.0, 103.0], "round {round}");
    }
}

#[test]
fn a_request_whose_caller_is_gone_is_dropped_before_it_is_computed() {
    let pool = Pool::without_threads(Fake::default(), Workers::on_processors(1));
    {
        let mut gone = pin!(pool.plain(texts(100), Purpose::Document));
        assert!(poll(gone.as_mut()).is_pending());
        assert_eq!(pool.documents.available_permits(), ADMITTED_PER_THREAD - 1);
    }
    work_off(&pool);
    assert_eq!(pool.model().computed.load(Ordering::Relaxed), 0);
    assert_eq!(pool.documents.available_permits(), ADMITTED_PER_THREAD);
}

#[test]
fn a_caller_who_leaves_midway_saves_the_steps_that_have_not_begun() {
    let pool = Pool::without_threads(Fake::default(), Workers::on_processors(1));
    {
        let mut gone = pin!(pool.plain(texts(100), Purpose::Document));
        assert!(poll(gone.as_mut()).is_pending());
        let first = lock(&pool.shared.queue).next().unwrap();
        pool.shared.take(first, &mut Scratches::default());
    }
    work_off(&pool);
    assert_eq!(pool.model().computed.load(Ordering::Relaxed), TEXTS_PER_STEP);
}

#[test]
fn callers_beyond_the_permits_wait_until_one_is_free_again() {
    let pool = Pool::without_threads(Fake::default(), Workers::on_processors(1));
    let mut admitted: Vec<_> = (0..ADMITTED_PER_THREAD)
        .map(|_| Box::pin(pool.plain(texts(1), Purpose::Document)))
        .collect();
    let mut waiting = pin!(pool.plain(texts(1), Purpose::Document));
    for future in &mut admitted {
        assert!(poll(future.as_mut()).is_pending());
    }
    assert!(poll(waiting.as_mut()).is_pending());
    assert_eq!(lock(&pool.shared.queue).documents.len(), ADMITTED_PER_THREAD);

    work_off(&pool);
    for future in &mut admitted {
        assert!(matches!(poll(future.as_mut()), Poll::Ready(Ok(_))));
    }
    assert!(poll(waiting.as_mut()).is_pending());
    assert_eq!(lock(&pool.shared.queue).documents.len(), 1);
    work_off(&pool);
    assert!(matches!(poll(waiting.as_mut()), Poll::Ready(Ok(_))));
}

#[test]
fn queries_have_permits_of_their_own_and_overtake_documents() {
    let pool = Pool::without_threads(Fake::default(), Workers::on_processors(1));
    let mut documents: Vec<_> = (0..ADMITTED_PER_THREAD)
        .map(|_| Box::pin(pool.plain(texts(64), Purpose::Document)))
        .collect();
    for future in &mut documents {
        assert!(poll(future.as_mut()).is_pending());
    }
    let mut query = pin!(pool.plain(texts(1), Purpose::Query));
    assert!(poll(query.as_mut()).is_pending());
    for _ in 0..2 {
        let step = lock(&pool.shared.queue).next().unwrap();
        pool.shared.take(step, &mut Scratches::default());
    }
    assert!(
        matches!(poll(query.as_mut()), Poll::Ready(Ok(_))),
        "it took the first two steps"
    );
    assert!(
        documents
            .iter_mut()
            .all(|future| poll(future.as_mut()).is_pending())
    );
}

#[test]
fn a_query_that_comes_amid_a_batch_of_documents_is_answered_before_the_batch_is_done() {
    let pool = Pool::without_threads(Fake::default(), Workers::on_processors(1));
    let mut scratches = Scratches::default();
    let mut documents = pin!(pool.plain(vec!["document".into(); 3], Purpose::Document));
    assert!(poll(documents.as_mut()).is_pending());
    let tokenize = lock(&pool.shared.queue).next().unwrap();
    pool.shared.take(tokenize, &mut scratches);
    let encode = lock(&pool.shared.queue).next().unwrap();

    let mut query = pin!(pool.plain(vec!["query".into()], Purpose::Query));
    assert!(poll(query.as_mut()).is_pending());
    pool.shared.take(encode, &mut scratches);
    let order = [("begin", b'd'), ("begin", b'q'), ("end", b'q'), ("end", b'd')];
    assert_eq!(*lock(&pool.model().encoded), order);
    assert!(matches!(poll(query.as_mut()), Poll::Ready(Ok(_))));
    assert!(matches!(poll(documents.as_mut()), Poll::Ready(Ok(_))));
}

#[test]
fn a_query_that_fails_amid_a_batch_of_documents_does_not_harm_them() {
    let pool = Pool::without_threads(Fake::default(), Workers::on_processors(1));
    let mut scratches = Scratches::default();
    let mut documents = pin!(pool.plain(vec!["document".into(); 3], Purpose::Document));
    assert!(poll(documents.as_mut()).is_pending());
    let tokenize = lock(&pool.shared.queue).next().unwrap();
    let mut query = pin!(pool.plain(vec![PANICKING.into()], Purpose::Query));
    assert!(poll(query.as_mut()).is_pending());
    pool.shared.take(tokenize, &mut scratches);
    work_off(&pool);
    assert!(matches!(
        poll(query.as_mut()),
        Poll::Ready(Err(EmbedError::Panicked))
    ));
    assert!(matches!(poll(documents.as_mut()), Poll::Ready(Ok(_))));
}

#[tokio::test]
async fn the_one_thread_of_a_device_takes_queries_amid_a_batch_of_documents() {
    let pool = Pool::start(Fake::default(), Workers::ON_A_DEVICE, "test").unwrap();
    let documents = pool.plain(texts(500), Purpose::Document);
    let query = pool.plain(vec!["query".into()], Purpose::Query);
    let (documents, query) = tokio::join!(documents, query);
    assert_eq!(documents.unwrap().len(), 500);
    assert_eq!(query.unwrap()[0].vector, [5.0, 113.0]);
    assert_eq!(pool.shared.workers.query_threads, 0);
}

#[tokio::test]
async fn the_instruction_of_a_request_comes_before_each_of_its_texts() {
    let pool = started(1);
    let texts = vec!["cd".into(), "e".into()];
    let encoded = pool.embed(texts, "ab".to_owned(), Purpose::Query).await.unwrap();
    let vectors: Vec<&[f32]> = encoded.iter().map(|text| text.vector.as_slice()).collect();
    assert_eq!(vectors, [[4.0, 97.0], [3.0, 97.0]]);
}

#[test]
fn a_dropped_pool_lets_its_threads_end() {
    let (dropped, ended) = mpsc::channel();
    let model = Fake {
        computed: AtomicUsize::new(0),
        encoded: Mutex::default(),
        dropped: Some(dropped),
    };
    drop(Pool::start(model, Workers::on_processors(4), "test").unwrap());
    // The last thread that ends drops the model.
    ended
        .recv_timeout(Duration::from_secs(30))
        .expect("a thread still runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_at_once_all_get_their_own_answers() {
    let pool = Arc::new(started(2));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..64_usize {
        let pool = Arc::clone(&pool);
        callers.spawn(async move {
            let purpose = if caller % 2 == 0 {
                Purpose::Document
            } else {
                Purpose::Query
            };
            let text: Arc<str> = "x".repeat(caller + 1).into();
            let embedded = pool.plain(vec![text; caller + 1], purpose).await.unwrap();
            assert_eq!(embedded.len(), caller + 1);
            assert!(embedded.iter().all(|text| text.tokens as usize == caller + 1));
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}
