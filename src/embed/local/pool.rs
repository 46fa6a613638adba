//! Threads that run a model, and the requests they work on.
//!
//! A request is cut into steps, first to tokenise, then to encode in batches, and any idle thread takes the next
//! step; so one large request uses all threads, and many small ones share them. Steps of queries come before steps
//! of documents, for someone waits for them. Some threads have nothing to do but queries; the others run at a lower
//! priority, so that a query, and whoever carries it, need not wait for a processor either. A step of documents may
//! take seconds with a large model, so where more queries come than those threads can take, a thread pauses
//! in it several times a layer, and does what queries wait for before it goes on.
//!
//! A device such as a GPU has one thread, which feeds it: it tokenises, and takes queries before documents and amid
//! them.
//!
//! Back-pressure: a request needs one of [`ADMITTED_PER_THREAD`] permits per thread and purpose, and keeps it
//! until its last step is gone from the queue. So the queue is bounded, and callers wait in `embed`.
//!
//! Invariant: every admitted request is answered. A step that fails or panics fails its request; a request
//! whose caller is gone is dropped before its next step.

use std::{
    collections::VecDeque,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{batches::plan, tokenizer::Tokens, workers::Workers};
use crate::embed::{EmbedError, Purpose};

/// Requests of one purpose in work or in the queue for each thread: one to work on, one to follow at once.
const ADMITTED_PER_THREAD: usize = 2;

/// Texts that are tokenised in one step.
const TEXTS_PER_STEP: usize = 32;

/// What the threads need of a model.
pub(super) trait Model: Send + Sync + 'static {
    /// Working memory of one thread.
    type Scratch: Default;

    /// What it makes of a text.
    type Vector: Send + 'static;

    /// The tokens of one text, after what `instruction` adds to it.
    fn tokenize(&self, text: &str, instruction: &str) -> Result<Tokens, EmbedError>;

    /// A vector for each sequence, in order. Calls `pause` several times, each soon after the last.
    fn encode(
        &self,
        sequences: &[&[u32]],
        scratch: &mut Self::Scratch,
        pause: &mut dyn FnMut(),
    ) -> Result<Vec<Self::Vector>, EmbedError>;

    /// Whether all numbers of `vector` are finite.
    fn is_finite(vector: &Self::Vector) -> bool;
}

/// One text, embedded.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Encoded<V> {
    pub(super) vector: V,
    /// Tokens that the model read.
    pub(super) tokens: u32,
    /// Whether the text went on beyond these.
    pub(super) truncated: bool,
}

type Answer<V> = Result<Vec<Encoded<V>>, EmbedError>;

/// The threads' shared end of the pool.
struct Shared<M: Model> {
    model: M,
    workers: Workers,
    queue: Mutex<Queue<M::Vector>>,
    filled: Condvar,
}

struct Queue<V> {
    queries: VecDeque<Step<V>>,
    documents: VecDeque<Step<V>>,
    /// Threads for queries alone that wait for one.
    idle_query_threads: usize,
    stopped: bool,
}

/// Working memory of a thread: queries have their own, since they are computed amid a step of documents.
#[derive(Default)]
struct Scratches<S> {
    documents: S,
    queries: S,
}

struct Step<V> {
    request: Arc<Request<V>>,
    work: Work,
}

enum Work {
    Tokenize(Range<usize>),
    Encode(Vec<usize>),
}

struct Request<V> {
    texts: Vec<Arc<str>>,
    instruction: String,
    purpose: Purpose,
    progress: Mutex<Progress<V>>,
    _permit: OwnedSemaphorePermit,
}

struct Progress<V> {
    /// Gone once the request is answered.
    reply: Option<oneshot::Sender<Answer<V>>>,
    tokens: Vec<Option<Tokens>>,
    encoded: Vec<Option<Encoded<V>>>,
    /// Steps of the current stage that are not done.
    steps_left: usize,
}

/// The callers' end: dropping it stops the threads after their current step.
pub(super) struct Pool<M: Model> {
    shared: Arc<Shared<M>>,
    queries: Arc<Semaphore>,
    documents: Arc<Semaphore>,
}

impl<M: Model> Pool<M> {
    /// Starts the threads that run `model`.
    pub(super) fn start(model: M, workers: Workers, name: &str) -> std::io::Result<Self> {
        let pool = Self::without_threads(model, workers);
        // On an error the pool is dropped, which ends the threads that were started before.
        for index in 0..workers.threads {
            let shared = Arc::clone(&pool.shared);
            thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || {
                    workers.step_back();
                    shared.run();
                })?;
        }
        for index in 0..workers.query_threads {
            let shared = Arc::clone(&pool.shared);
            thread::Builder::new()
                .name(format!("{name}-query-{index}"))
                .spawn(move || shared.run_queries())?;
        }
        Ok(pool)
    }

    fn without_threads(model: M, workers: Workers) -> Self {
        let permits = workers.threads * ADMITTED_PER_THREAD;
        let queue = Mutex::new(Queue {
            queries: VecDeque::new(),
            documents: VecDeque::new(),
            idle_query_threads: 0,
            stopped: false,
        });
        Self {
            shared: Arc::new(Shared {
                model,
                workers,
                queue,
                filled: Condvar::new(),
            }),
            queries: Arc::new(Semaphore::new(permits)),
            documents: Arc::new(Semaphore::new(permits)),
        }
    }

    /// The model that the threads run.
    pub(super) fn model(&self) -> &M {
        &self.shared.model
    }

    /// Embeds `texts` once a permit is free.
    pub(super) async fn embed(
        &self,
        texts: Vec<Arc<str>>,
        instruction: String,
        purpose: Purpose,
    ) -> Answer<M::Vector> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let semaphore = match purpose {
            Purpose::Document => &self.documents,
            Purpose::Query => &self.queries,
        };
        let permit = Arc::clone(semaphore)
            .acquire_owned()
            .await
            .map_err(|_| EmbedError::Stopped)?;
        let (reply, answer) = oneshot::channel();
        let progress = Mutex::new(Progress {
            reply: Some(reply),
            tokens: vec![None; texts.len()],
            encoded: texts.iter().map(|_| None).collect(),
            steps_left: 0,
        });
        self.shared.admit(Request {
            texts,
            instruction,
            purpose,
            progress,
            _permit: permit,
        });
        answer.await.unwrap_or(Err(EmbedError::Stopped))
    }
}

impl<M: Model> Drop for Pool<M> {
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue);
        queue.stopped = true;
        // Their requests hold the senders that callers may still wait for.
        queue.queries.clear();
        queue.documents.clear();
        drop(queue);
        self.shared.filled.notify_all();
    }
}

impl<M: Model> Shared<M> {
    fn admit(&self, request: Request<M::Vector>) {
        let count = request.texts.len();
        let starts = (0..count).step_by(TEXTS_PER_STEP);
        let work = starts
            .map(|start| Work::Tokenize(start..count.min(start + TEXTS_PER_STEP)))
            .collect();
        self.enqueue(&Arc::new(request), work);
    }

    /// Begins the next stage of `request`.
    fn enqueue(&self, request: &Arc<Request<M::Vector>>, work: Vec<Work>) {
        lock(&request.progress).steps_left = work.len();
        let steps = work.into_iter().map(|work| Step {
            request: Arc::clone(request),
            work,
        });
        let mut queue = lock(&self.queue);
        match request.purpose {
            Purpose::Document => queue.documents.extend(steps),
            Purpose::Query => queue.queries.extend(steps),
        }
        drop(queue);
        self.filled.notify_all();
    }

    /// The life of a thread.
    fn run(&self) {
        let mut scratches = Scratches::default();
        while let Some(step) = self.wait() {
            self.take(step, &mut scratches);
        }
    }

    /// The next step, or none once the pool is dropped.
    fn wait(&self) -> Option<Step<M::Vector>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(step) = queue.next() {
                return Some(step);
            }
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The life of a thread for queries.
    fn run_queries(&self) {
        let mut scratch = M::Scratch::default();
        while let Some(step) = self.wait_for_query() {
            self.work(step, &mut scratch, &mut || {});
        }
    }

    /// The next step of a query, or none once the pool is dropped.
    fn wait_for_query(&self) -> Option<Step<M::Vector>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(step) = queue.queries.pop_front() {
                return Some(step);
            }
            queue.idle_query_threads += 1;
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle_query_threads -= 1;
        }
    }

    /// Does one step, and in its pauses what queries wait for.
    fn take(&self, step: Step<M::Vector>, scratches: &mut Scratches<M::Scratch>) {
        let Scratches { documents, queries } = scratches;
        match step.request.purpose {
            Purpose::Query => self.work(step, queries, &mut || {}),
            Purpose::Document => self.work(step, documents, &mut || self.take_queries(queries)),
        }
    }

    /// Does the steps of queries for which no thread of theirs is free.
    fn take_queries(&self, scratch: &mut M::Scratch) {
        loop {
            let Some(step) = lock(&self.queue).next_left_over() else {
                return;
            };
            self.work(step, scratch, &mut || {});
        }
    }

    /// Does one step, whatever happens in it.
    fn work(&self, step: Step<M::Vector>, scratch: &mut M::Scratch, pause: &mut dyn FnMut()) {
        let Step { request, work } = step;
        if request.is_abandoned() {
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| match work {
            Work::Tokenize(range) => self.tokenize(&request, range, pause),
            Work::Encode(batch) => self.encode(&request, &batch, scratch, pause),
        }));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => request.answer(Err(error)),
            Err(_) => {
                // A panic may have left it half written.
                *scratch = M::Scratch::default();
                request.answer(Err(EmbedError::Panicked));
            }
        }
    }

    fn tokenize(
        &self,
        request: &Arc<Request<M::Vector>>,
        range: Range<usize>,
        pause: &mut dyn FnMut(),
    ) -> Result<(), EmbedError> {
        let mut tokens = Vec::with_capacity(range.len());
        for text in &request.texts[range.clone()] {
            tokens.push(self.model.tokenize(text, &request.instruction)?);
            pause();
        }
        let mut progress = lock(&request.progress);
        for (slot, tokens) in progress.tokens[range].iter_mut().zip(tokens) {
            *slot = Some(tokens);
        }
        if progress.is_stage_done() {
            let length = |tokens: &Option<Tokens>| tokens.as_ref().map_or(0, |tokens| tokens.ids.len());
            let lengths: Vec<usize> = progress.tokens.iter().map(length).collect();
            drop(progress);
            self.enqueue(
                request,
                plan(&lengths, self.workers.threads, self.workers.layout)
                    .into_iter()
                    .map(Work::Encode)
                    .collect(),
            );
        }
        Ok(())
    }

    fn encode(
        &self,
        request: &Request<M::Vector>,
        batch: &[usize],
        scratch: &mut M::Scratch,
        pause: &mut dyn FnMut(),
    ) -> Result<(), EmbedError> {
        let mut progress = lock(&request.progress);
        let tokens: Vec<Tokens> = batch
            .iter()
            .filter_map(|index| progress.tokens[*index].take())
            .collect();
        drop(progress);
        let sequences: Vec<&[u32]> = tokens.iter().map(|tokens| tokens.ids.as_slice()).collect();
        let vectors = self.model.encode(&sequences, scratch, pause)?;
        if !vectors.iter().all(M::is_finite) {
            return Err(EmbedError::NotFinite);
        }
        let mut progress = lock(&request.progress);
        for ((index, tokens), vector) in batch.iter().zip(tokens).zip(vectors) {
            let encoded = Encoded {
                vector,
                tokens: tokens.ids.len() as u32,
                truncated: tokens.truncated,
            };
            progress.encoded[*index] = Some(encoded);
        }
        if progress.is_stage_done() {
            let encoded = std::mem::take(&mut progress.encoded)
                .into_iter()
                .flatten()
                .collect();
            drop(progress);
            request.answer(Ok(encoded));
        }
        Ok(())
    }
}

impl<V> Queue<V> {
    fn next(&mut self) -> Option<Step<V>> {
        self.queries.pop_front().or_else(|| self.documents.pop_front())
    }

    /// A step of a query, if there are more than threads that are about to take one.
    fn next_left_over(&mut self) -> Option<Step<V>> {
        match self.queries.len() > self.idle_query_threads {
            true => self.queries.pop_front(),
            false => None,
        }
    }
}

impl<V> Request<V> {
    /// Whether it was answered, or nobody waits for its answer.
    fn is_abandoned(&self) -> bool {
        lock(&self.progress)
            .reply
            .as_ref()
            .is_none_or(oneshot::Sender::is_closed)
    }

    fn answer(&self, answer: Answer<V>) {
        if let Some(reply) = lock(&self.progress).reply.take() {
            // The caller may be gone by now, and then nobody misses the answer.
            let _ = reply.send(answer);
        }
    }
}

impl<V> Progress<V> {
    /// Counts a step as done; true for the last one of its stage.
    fn is_stage_done(&mut self) -> bool {
        self.steps_left -= 1;
        self.steps_left == 0
    }
}

/// Locks even if a thread panicked with the lock: the values are whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
