//! How fast the local model embeds, in tokens per second of processor time, which other load on the machine
//! disturbs little. Prints one line a measurement; `cargo bench --bench embedding` needs the model's weights.
//!
//! The bound to compare with: MiniLM costs 22.4 MFLOP a token at 128 tokens, so a core that multiplies at
//! 100 GFLOP/s gives at most 4460 tokens a second.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "shared/processor_time.rs"]
mod processor_time;

use std::{
    env,
    fs::{self, File},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use chroma_sync::{
    domain::embedding::MINILM,
    embed::{Embedder, LocalEmbedder, LocalOptions, ModelDirectories, Precision, Purpose},
};
use chroma_sync_encoder::{Encoder, EncoderConfig, Scratch, TensorFiles, Weights};
use processor_time::own_seconds;
use tokio::runtime::Runtime;

/// Texts in the mix of real paragraphs.
const PARAGRAPHS: usize = 256;

/// Tokens of a batch, as the embedder cuts a large request.
const BATCH_TOKENS: usize = 1024;

/// Rounds in which the embedder and the model alone take turns.
const TURNS: usize = 9;

/// The least processor time of a measurement, in seconds.
const ENOUGH: f64 = 3.0;

fn main() {
    let start = Instant::now();
    let one = load(1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    embed(&runtime, &one, &["a query of some words".into()]);
    println!(
        "cold start to the first vector: {:.0} ms, of the processor {:.0} ms",
        start.elapsed().as_secs_f64() * 1e3,
        own_seconds() * 1e3,
    );
    println!("resident after it: {:.0} MB", resident_megabytes());

    let words = "the server writes each chunk of a document with its own vector to the collection ";
    for (tokens, count) in [(8, 64), (32, 32), (128, 16), (256, 8)] {
        let text = cut_to(&one, &words.repeat(tokens / 10 + 2), tokens);
        measure(
            &runtime,
            &one,
            &format!("{count} texts of {tokens} tokens"),
            &vec![text; count],
        );
    }
    let query: Arc<str> = "how does the worker renew its lease?".into();
    measure(&runtime, &one, "a query by itself", &[query]);

    let mut paragraphs = real_paragraphs();
    measure(
        &runtime,
        &one,
        "256 paragraphs, in the order of their files",
        &paragraphs,
    );
    paragraphs.sort_by_key(|text| text.len());
    measure(&runtime, &one, "256 paragraphs, sorted by length", &paragraphs);
    for precision in [Precision::Single, Precision::Bfloat16] {
        around_the_model(&runtime, precision, &paragraphs);
    }
    drop(one);

    let two = load(2);
    measure(&runtime, &two, "256 paragraphs on two threads", &paragraphs);
    println!("peak resident: {:.0} MB", peak_megabytes());
}

/// Prints what tokenising takes, and what everything but the model does, of the processor time of embedding: that of
/// the embedder less that of the model on the same ids in batches of the same size.
fn around_the_model(runtime: &Runtime, precision: Precision, paragraphs: &[Arc<str>]) {
    let embedder = load_as(1, precision);
    let directory = models().join(MINILM);
    let config = EncoderConfig::parse(&fs::read(directory.join("config.json")).unwrap()).unwrap();
    let tensors = TensorFiles::open([File::open(directory.join("model.safetensors")).unwrap()]).unwrap();
    let encoder = Encoder::new(
        config.clone(),
        Weights::read(&tensors, &config, precision).unwrap(),
    );
    let tokenize = || paragraphs.iter().map(|text| embedder.tokenize(text).unwrap().ids);
    let mut ids: Vec<Vec<u32>> = tokenize().collect();
    ids.sort_by_key(|ids| std::cmp::Reverse(ids.len()));
    let mut batches: Vec<Vec<&[u32]>> = Vec::new();
    let mut room = 0;
    for ids in &ids {
        if batches.is_empty() || ids.len() > room {
            batches.push(Vec::new());
            room = BATCH_TOKENS;
        }
        room -= ids.len();
        batches.last_mut().unwrap().push(ids);
    }
    let mut scratch = Scratch::default();
    let (mut whole, mut model, mut tokenizing) = (Vec::new(), Vec::new(), Vec::new());
    let seconds = |work: &mut dyn FnMut()| {
        let start = own_seconds();
        work();
        own_seconds() - start
    };
    for _ in 0..TURNS {
        whole.push(seconds(&mut || {
            embed(runtime, &embedder, paragraphs);
        }));
        model.push(seconds(&mut || {
            for batch in &batches {
                assert_eq!(encoder.embed(batch, &mut scratch, &mut || {}).len(), batch.len());
            }
        }));
        tokenizing.push(seconds(&mut || assert_eq!(tokenize().count(), paragraphs.len())));
    }
    let [whole, model, tokenizing] = [whole, model, tokenizing].map(|mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[TURNS / 2]
    });
    println!(
        "{precision:?}, one thread, medians of {TURNS} turns: embedding 256 paragraphs {:.1} ms of the processor, the model \
         alone {:.1} ms, so {:.1} % around it; tokenising alone {:.1} %",
        whole * 1e3,
        model * 1e3,
        100.0 * (whole - model) / whole,
        100.0 * tokenizing / whole,
    );
}

fn load(threads: usize) -> LocalEmbedder {
    load_as(threads, Precision::Single)
}

fn models() -> PathBuf {
    env::var_os("CHROMA_SYNC_TEST_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(".peers/models"),
        PathBuf::from,
    )
}

fn load_as(threads: usize, precision: Precision) -> LocalEmbedder {
    let directories = ModelDirectories::new(Some(models()), None);
    LocalEmbedder::load(
        &directories.find(MINILM).expect("run `make peers`"),
        LocalOptions {
            threads: NonZeroUsize::new(threads).unwrap(),
            precision: Some(precision),
            ..LocalOptions::default()
        },
    )
    .unwrap()
}

/// Embeds until enough time has passed, and prints the rates.
fn measure(runtime: &Runtime, embedder: &LocalEmbedder, what: &str, texts: &[Arc<str>]) {
    embed(runtime, embedder, texts);
    let (start, wall) = (own_seconds(), Instant::now());
    let (mut tokens, mut rounds) = (0, 0);
    while own_seconds() - start < ENOUGH {
        tokens += embed(runtime, embedder, texts);
        rounds += 1;
    }
    let (processor, wall) = (own_seconds() - start, wall.elapsed().as_secs_f64());
    println!(
        "{what}: {:.0} tokens per processor second, {:.1} texts, {:.0} tokens per second of wall time, {:.2} ms a call",
        tokens as f64 / processor,
        (rounds * texts.len()) as f64 / processor,
        tokens as f64 / wall,
        processor * 1e3 / rounds as f64,
    );
}

/// Embeds `texts` and returns the number of tokens read.
fn embed(runtime: &Runtime, embedder: &LocalEmbedder, texts: &[Arc<str>]) -> u64 {
    let embedded = runtime
        .block_on(embedder.embed(texts.to_vec(), Purpose::Document, ""))
        .unwrap();
    embedded.iter().map(|text| u64::from(text.tokens)).sum()
}

/// The beginning of `text` that has this many tokens.
fn cut_to(embedder: &LocalEmbedder, text: &str, tokens: usize) -> Arc<str> {
    let mut words: Vec<&str> = text.split(' ').collect();
    while embedder.tokenize(&words.join(" ")).unwrap().ids.len() > tokens {
        words.pop();
    }
    words.join(" ").into()
}

/// Paragraphs of this project's own sources and documents, picked evenly.
fn real_paragraphs() -> Vec<Arc<str>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut directories = vec![root.join("src"), root.join("docs"), root.join("proto")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path)
            } else {
                files.push(path)
            }
        }
    }
    files.sort();
    let texts: Vec<String> = files
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect();
    let paragraphs: Vec<&str> = texts
        .iter()
        .flat_map(|text| text.split("\n\n"))
        .filter(|text| text.len() > 40)
        .collect();
    let step = (paragraphs.len() / PARAGRAPHS).max(1);
    paragraphs
        .iter()
        .cycle()
        .step_by(step)
        .take(PARAGRAPHS)
        .map(|text| Arc::from(*text))
        .collect()
}

fn status_megabytes(field: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|rest| {
        rest.trim_start_matches(':')
            .trim()
            .split(' ')
            .next()?
            .parse()
            .ok()
    });
    kilobytes.unwrap_or(0.0) / 1024.0
}

fn resident_megabytes() -> f64 {
    status_megabytes("VmRSS")
}

fn peak_megabytes() -> f64 {
    status_megabytes("VmHWM")
}
