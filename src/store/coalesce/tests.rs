#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use super::*;

/// A batch function that notes what it is given and goes on when it is let.
#[derive(Clone)]
struct Scripted {
    batches: Arc<Mutex<Vec<Vec<i64>>>>,
    began: Arc<Semaphore>,
    may_end: Arc<Semaphore>,
}

impl Scripted {
    fn new() -> Self {
        let (began, may_end) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        Self {
            batches: Arc::default(),
            began,
            may_end,
        }
    }

    fn start(&self) -> Arc<Coalescer<i64, i64>> {
        self.start_with(Duration::from_secs(30))
    }

    fn start_with(&self, limit: Duration) -> Arc<Coalescer<i64, i64>> {
        Arc::new(Coalescer::start(self.clone(), answer, 2, limit))
    }

    async fn begun(&self) {
        self.began.acquire().await.unwrap().forget();
    }
}

fn answer<'a>(
    script: &'a Scripted,
    inputs: &'a [i64],
) -> BoxFuture<'a, Result<Vec<Answer<i64>>, StoreError>> {
    Box::pin(async move {
        script.batches.lock().unwrap().push(inputs.to_vec());
        script.began.add_permits(1);
        script.may_end.acquire().await.unwrap().forget();
        assert!(!inputs.contains(&13), "scripted");
        let answers = inputs.iter().map(|input| match input {
            0 => Err(StoreError::TimedOut),
            other => Ok(other * 10),
        });
        Ok(answers.collect())
    })
}

/// Occupies both turns, so that what is called next waits.
async fn occupy(script: &Scripted, coalescer: &Arc<Coalescer<i64, i64>>) {
    for input in 1..=2 {
        call(coalescer, input);
        script.begun().await;
    }
}

fn call(coalescer: &Arc<Coalescer<i64, i64>>, input: i64) -> tokio::task::JoinHandle<Answer<i64>> {
    let coalescer = Arc::clone(coalescer);
    tokio::spawn(async move { coalescer.call(input).await })
}

async fn queued(coalescer: &Coalescer<i64, i64>, count: usize) {
    while coalescer.queue.max_capacity() - coalescer.queue.capacity() < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn calls_that_wait_together_are_answered_together_and_each_gets_its_own_answer() {
    let script = Scripted::new();
    let coalescer = script.start();
    occupy(&script, &coalescer).await;
    let mut waiting = Vec::new();
    for (count, input) in [3, 0, 5].into_iter().enumerate() {
        waiting.push(call(&coalescer, input));
        queued(&coalescer, count + 1).await;
    }
    script.may_end.add_permits(3);
    let mut answers = Vec::new();
    for answer in waiting {
        answers.push(answer.await.unwrap().ok());
    }
    assert_eq!(answers, [Some(30), None, Some(50)]);
    assert_eq!(*script.batches.lock().unwrap(), [vec![1], vec![2], vec![3, 0, 5]]);
}

#[tokio::test]
async fn a_batch_that_panics_ends_its_own_calls_alone() {
    let script = Scripted::new();
    let coalescer = script.start();
    script.may_end.add_permits(3);
    for _ in 0..2 {
        let error = call(&coalescer, 13).await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Panicked), "{error:?}");
    }
    assert_eq!(call(&coalescer, 4).await.unwrap().unwrap(), 40);
}

#[tokio::test]
async fn a_call_whose_caller_is_gone_before_its_turn_is_left_out() {
    let script = Scripted::new();
    let coalescer = script.start();
    occupy(&script, &coalescer).await;
    let gone = call(&coalescer, 3);
    queued(&coalescer, 1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    let stays = call(&coalescer, 4);
    queued(&coalescer, 2).await;
    script.may_end.add_permits(3);
    assert_eq!(stays.await.unwrap().unwrap(), 40);
    assert_eq!(script.batches.lock().unwrap().last().unwrap(), &[4]);
}

#[tokio::test]
async fn a_batch_that_hangs_is_given_up_and_the_next_one_runs() {
    let script = Scripted::new();
    let coalescer = script.start_with(Duration::from_millis(5));
    let error = call(&coalescer, 1).await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::TimedOut), "{error:?}");
    script.may_end.add_permits(1);
    assert_eq!(call(&coalescer, 2).await.unwrap().unwrap(), 20);
}

#[test]
fn inputs_that_repeat_are_asked_once_and_answered_each() {
    assert_eq!(distinct(&[3, 1, 3, 2, 1]), [3, 1, 2]);
    let found = HashMap::from([(1, Ok("one")), (3, Err(StoreError::TimedOut))]);
    let answers: Vec<_> = in_order(&[3, 1, 2, 1], found)
        .into_iter()
        .map(Result::ok)
        .collect();
    assert_eq!(answers, [None, Some(Some("one")), Some(None), Some(Some("one"))]);
}
