//! Answers calls that wait at the same time with one statement.
//!
//! A task takes all calls that are queued and runs one function over them; whoever calls meanwhile
//! waits for its next turn. A call alone goes through at once; under load a statement serves dozens of
//! calls, so its cost is shared.
//!
//! Nothing is kept from one turn to the next. A statement begins after each of its calls came, so its
//! answers are as fresh as those of a statement a call: a key that was revoked before a call is not
//! found by it, whichever process revoked it.

use std::{collections::HashMap, hash::Hash, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::error::StoreError;

/// Calls that may wait; more callers wait for room.
const QUEUE_LENGTH: usize = 1_024;
/// The most calls that one turn answers.
pub(super) const MAX_BATCH: usize = 128;

/// Answers all inputs at once: an answer for each, in their order, or one error for all of them.
pub(super) type Batch<C, I, T> =
    for<'a> fn(&'a C, &'a [I]) -> BoxFuture<'a, Result<Vec<Answer<T>>, StoreError>>;

/// The answer to one call.
pub(super) type Answer<T> = Result<T, StoreError>;

/// Collects calls; see the module.
pub(super) struct Coalescer<I, T> {
    queue: mpsc::Sender<Call<I, T>>,
}

struct Call<I, T> {
    input: I,
    reply: oneshot::Sender<Answer<T>>,
}

impl<I, T> Coalescer<I, T>
where
    I: Send + Sync + 'static,
    T: Send + 'static,
{
    /// Starts as many tasks as `turns` says; they end with the coalescer, and give a batch up after
    /// `limit`. More than one is for a database across a network, where a turn mostly waits.
    pub(super) fn start<C>(context: C, batch: Batch<C, I, T>, turns: usize, limit: Duration) -> Self
    where
        C: Clone + Send + Sync + 'static,
    {
        let (queue, receiver) = mpsc::channel(QUEUE_LENGTH);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..turns {
            tokio::spawn(run(context.clone(), batch, Arc::clone(&receiver), limit));
        }
        Self { queue }
    }

    /// The answer for `input`.
    pub(super) async fn call(&self, input: I) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let call = Call { input, reply };
        self.queue.send(call).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

async fn run<C, I, T>(
    context: C,
    batch: Batch<C, I, T>,
    queue: Arc<Mutex<mpsc::Receiver<Call<I, T>>>>,
    limit: Duration,
) {
    let mut calls = Vec::with_capacity(MAX_BATCH);
    loop {
        if take(&queue, &mut calls).await == 0 {
            return;
        }
        let (inputs, replies): (Vec<I>, Vec<_>) = calls
            .drain(..)
            // Whoever went away needs no answer.
            .filter(|call| !call.reply.is_closed())
            .map(|call| (call.input, call.reply))
            .unzip();
        if inputs.is_empty() {
            continue;
        }
        // A panic must not end the task that all other callers depend on.
        let answering = AssertUnwindSafe(batch(&context, &inputs)).catch_unwind();
        let answers = match tokio::time::timeout(limit, answering).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(_)) => Err(StoreError::Panicked),
            Err(_) => Err(StoreError::TimedOut),
        };
        // A caller may have gone away since; then nobody takes its answer.
        match answers {
            Ok(answers) => {
                for (reply, answer) in replies.into_iter().zip(answers) {
                    reply.send(answer).ok();
                }
            }
            Err(error) => {
                for reply in replies {
                    reply.send(Err(error.clone())).ok();
                }
            }
        }
    }
}

/// Waits for calls and takes all there are, [`MAX_BATCH`] at most; none when the queue is closed.
async fn take<I, T>(queue: &Mutex<mpsc::Receiver<Call<I, T>>>, calls: &mut Vec<Call<I, T>>) -> usize {
    let mut queue = queue.lock().await;
    let first = queue.recv_many(calls, MAX_BATCH).await;
    // Requests come in bursts, and the first call wakes this task at once: whoever is about to call as
    // well goes first, as long as each round of the other tasks brings more. Where nothing else is to be
    // done, a round takes no time.
    loop {
        let before = calls.len();
        tokio::task::yield_now().await;
        while calls.len() < MAX_BATCH
            && let Ok(call) = queue.try_recv()
        {
            calls.push(call);
        }
        if calls.len() == before || calls.len() == MAX_BATCH {
            return first;
        }
    }
}

/// The inputs without repetitions.
pub(super) fn distinct<I: Copy + Eq + Hash>(inputs: &[I]) -> Vec<I> {
    let mut seen = std::collections::HashSet::with_capacity(inputs.len());
    inputs
        .iter()
        .copied()
        .filter(|input| seen.insert(*input))
        .collect()
}

/// An answer for each input: what was found for it, or none.
pub(super) fn in_order<I: Eq + Hash, T: Clone>(
    inputs: &[I],
    mut found: HashMap<I, Answer<T>>,
) -> Vec<Answer<Option<T>>> {
    // Only what several asked for needs copies.
    let once_each = found.len() == inputs.len();
    inputs
        .iter()
        .map(|input| {
            let answer = if once_each {
                found.remove(input)
            } else {
                found.get(input).cloned()
            };
            answer.transpose()
        })
        .collect()
}

#[cfg(test)]
mod tests;
