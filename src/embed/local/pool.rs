//! Threads that run a model, and the requests they work on.
//!
//! A request is cut into steps, first to tokenise, then to encode in batches, and any idle thread takes the next
//! step; so one large request uses all threads, and many small ones share them. Steps of queries come before steps
//! of documents, for someone waits for them.
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

use super::{batches::plan, tokenizer::Tokens};
use crate::embed::{EmbedError, EmbeddedText, Purpose};

/// Requests of one purpose in work or in the queue for each thread: one to work on, one to follow at once.
const ADMITTED_PER_THREAD: usize = 2;

/// Texts that are tokenised in one step.
const TEXTS_PER_STEP: usize = 32;

/// What the threads need of a model.
pub(super) trait Model: Send + Sync + 'static {
    /// Working memory of one thread.
    type Scratch: Default;

    /// The tokens of one text.
    fn tokenize(&self, text: &str) -> Result<Tokens, EmbedError>;

    /// A vector for each sequence, in order.
    fn encode(&self, sequences: &[&[u32]], scratch: &mut Self::Scratch) -> Vec<Vec<f32>>;
}

type Answer = Result<Vec<EmbeddedText>, EmbedError>;

/// The threads' shared end of the pool.
struct Shared<M> {
    model: M,
    threads: usize,
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Default)]
struct Queue {
    queries: VecDeque<Step>,
    documents: VecDeque<Step>,
    stopped: bool,
}

struct Step {
    request: Arc<Request>,
    work: Work,
}

enum Work {
    Tokenize(Range<usize>),
    Encode(Vec<usize>),
}

struct Request {
    texts: Vec<Arc<str>>,
    purpose: Purpose,
    progress: Mutex<Progress>,
    _permit: OwnedSemaphorePermit,
}

struct Progress {
    /// Gone once the request is answered.
    reply: Option<oneshot::Sender<Answer>>,
    tokens: Vec<Option<Tokens>>,
    embedded: Vec<Option<EmbeddedText>>,
    /// Steps of the current stage that are not done.
    steps_left: usize,
}

/// The callers' end: dropping it stops the threads after their current step.
pub(super) struct Pool<M> {
    shared: Arc<Shared<M>>,
    queries: Arc<Semaphore>,
    documents: Arc<Semaphore>,
}

impl<M: Model> Pool<M> {
    /// Starts `threads` threads that run `model`.
    pub(super) fn start(model: M, threads: usize, name: &str) -> std::io::Result<Self> {
        let pool = Self::without_threads(model, threads);
        for index in 0..threads {
            let shared = Arc::clone(&pool.shared);
            // On an error the pool is dropped, which ends the threads that were started before.
            thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || shared.run())?;
        }
        Ok(pool)
    }

    fn without_threads(model: M, threads: usize) -> Self {
        let permits = threads * ADMITTED_PER_THREAD;
        let queue = Mutex::new(Queue::default());
        Self {
            shared: Arc::new(Shared {
                model,
                threads,
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
    pub(super) async fn embed(&self, texts: Vec<Arc<str>>, purpose: Purpose) -> Answer {
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
        self.shared.admit(texts, purpose, reply, permit);
        answer.await.unwrap_or(Err(EmbedError::Stopped))
    }
}

impl<M> Drop for Pool<M> {
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
    fn admit(
        &self,
        texts: Vec<Arc<str>>,
        purpose: Purpose,
        reply: oneshot::Sender<Answer>,
        permit: OwnedSemaphorePermit,
    ) {
        let count = texts.len();
        let starts = (0..count).step_by(TEXTS_PER_STEP);
        let work = starts
            .map(|start| Work::Tokenize(start..count.min(start + TEXTS_PER_STEP)))
            .collect();
        let progress = Progress {
            reply: Some(reply),
            tokens: vec![None; count],
            embedded: vec![None; count],
            steps_left: 0,
        };
        let progress = Mutex::new(progress);
        self.enqueue(
            &Arc::new(Request {
                texts,
                purpose,
                progress,
                _permit: permit,
            }),
            work,
        );
    }

    /// Begins the next stage of `request`.
    fn enqueue(&self, request: &Arc<Request>, work: Vec<Work>) {
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
        let mut scratch = M::Scratch::default();
        while let Some(step) = self.wait() {
            self.take(step, &mut scratch);
        }
    }

    /// The next step, or none once the pool is dropped.
    fn wait(&self) -> Option<Step> {
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

    /// Does one step, whatever happens in it.
    fn take(&self, step: Step, scratch: &mut M::Scratch) {
        let Step { request, work } = step;
        if request.is_abandoned() {
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| match work {
            Work::Tokenize(range) => self.tokenize(&request, range),
            Work::Encode(batch) => self.encode(&request, &batch, scratch),
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

    fn tokenize(&self, request: &Arc<Request>, range: Range<usize>) -> Result<(), EmbedError> {
        let texts = request.texts[range.clone()].iter();
        let tokens: Vec<Tokens> = texts
            .map(|text| self.model.tokenize(text))
            .collect::<Result<_, _>>()?;
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
                plan(&lengths, self.threads)
                    .into_iter()
                    .map(Work::Encode)
                    .collect(),
            );
        }
        Ok(())
    }

    fn encode(&self, request: &Request, batch: &[usize], scratch: &mut M::Scratch) -> Result<(), EmbedError> {
        let mut progress = lock(&request.progress);
        let tokens: Vec<Tokens> = batch
            .iter()
            .filter_map(|index| progress.tokens[*index].take())
            .collect();
        drop(progress);
        let sequences: Vec<&[u32]> = tokens.iter().map(|tokens| tokens.ids.as_slice()).collect();
        let vectors = self.model.encode(&sequences, scratch);
        if vectors.iter().flatten().any(|value| !value.is_finite()) {
            return Err(EmbedError::NotFinite);
        }
        let mut progress = lock(&request.progress);
        for ((index, tokens), vector) in batch.iter().zip(tokens).zip(vectors) {
            let embedded = EmbeddedText {
                vector,
                tokens: tokens.ids.len() as u32,
                truncated: tokens.truncated,
            };
            progress.embedded[*index] = Some(embedded);
        }
        if progress.is_stage_done() {
            let embedded = std::mem::take(&mut progress.embedded)
                .into_iter()
                .flatten()
                .collect();
            drop(progress);
            request.answer(Ok(embedded));
        }
        Ok(())
    }
}

impl Queue {
    fn next(&mut self) -> Option<Step> {
        self.queries.pop_front().or_else(|| self.documents.pop_front())
    }
}

impl Request {
    /// Whether it was answered, or nobody waits for its answer.
    fn is_abandoned(&self) -> bool {
        lock(&self.progress)
            .reply
            .as_ref()
            .is_none_or(oneshot::Sender::is_closed)
    }

    fn answer(&self, answer: Answer) {
        if let Some(reply) = lock(&self.progress).reply.take() {
            // The caller may be gone by now, and then nobody misses the answer.
            let _ = reply.send(answer);
        }
    }
}

impl Progress {
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
