//! How fast documents are cut into chunks, against a bare tree-sitter parse of the same documents.
//!
//! Run with `cargo bench --bench chunking`. The documents are the sources below `CHUNK_BENCH_DIR`, or else
//! those of the crates that Cargo has downloaded to build this project. The chunker must reach 0.9 of the
//! bare parse's speed: parsing is to be all of the cost. Besides criterion's figures the bench prints that
//! ratio and the speed for each language, in the thread's processor time and in turns (parse, chunk, parse,
//! chunk, …), so that the ratio holds on a busy machine too.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    hint::black_box,
    path::{Path, PathBuf},
    time::Duration,
};

use chroma_sync::{
    chunk::{ChunkStrategy, Chunker, MAX_PARSE_BYTES, languages::Language},
    domain::chunking::Chunking,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tree_sitter::Parser;

/// Documents are taken until a language has this many bytes.
const BYTES_PER_LANGUAGE: usize = 1_000_000;
/// Rounds of parsing and chunking from which the ratio is taken.
const ROUNDS: usize = 5;

const BY_SYNTAX: Chunking = Chunking::TreeSitter {
    max_size_bytes: 4_096,
};
const BY_LINES: Chunking = Chunking::Lines {
    max_lines: 10,
    max_size_bytes: 4_096,
};

struct Document {
    key: String,
    text: String,
    language: Language,
}

fn bench(criterion: &mut Criterion) {
    let documents = documents();
    let bytes: usize = documents.iter().map(|document| document.text.len()).sum();
    assert!(
        bytes > 100_000,
        "too few sources were found; set CHUNK_BENCH_DIR to a directory with code"
    );
    println!("{} documents, {:.1} MB", documents.len(), megabytes(bytes));
    print_ratio(&documents);

    let mut group = criterion.benchmark_group("chunking");
    group.throughput(Throughput::Bytes(bytes as u64));
    group
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(20));
    group.bench_function("bare parse", |bencher| {
        bencher.iter(|| documents.iter().for_each(parse))
    });
    let mut chunker = Chunker::new();
    group.bench_function("by syntax", |bencher| {
        bencher.iter(|| {
            documents
                .iter()
                .for_each(|document| chunk(&mut chunker, document, &BY_SYNTAX))
        });
    });
    group.bench_function("by lines", |bencher| {
        bencher.iter(|| {
            documents
                .iter()
                .for_each(|document| chunk(&mut chunker, document, &BY_LINES))
        });
    });
    group.finish();
}

/// Prints the chunker's speed as a part of the bare parse's, for each language and for all.
fn print_ratio(documents: &[Document]) {
    let mut chunker = Chunker::new();
    let mut speeds: BTreeMap<&str, (usize, usize, Duration, Duration)> = BTreeMap::new();
    for round in 0..=ROUNDS {
        for document in documents {
            let (_, chunks, parsing, chunking) = speeds.entry(document.language.name()).or_default();
            let start = processor_time();
            parse(document);
            let between = processor_time();
            let count = black_box(chunker.chunk(&document.key, &document.text, &BY_SYNTAX))
                .chunks
                .len();
            let (parsed, chunked) = (between - start, processor_time() - between);
            // The first round warms up.
            if round > 0 {
                (*chunks, *parsing, *chunking) = (*chunks + count, *parsing + parsed, *chunking + chunked);
            }
        }
    }
    for document in documents {
        speeds.entry(document.language.name()).or_default().0 += document.text.len() * ROUNDS;
    }
    let (mut all_bytes, mut all_parsing, mut all_chunking) = (0, Duration::ZERO, Duration::ZERO);
    for (language, (bytes, chunks, parsing, chunking)) in speeds {
        print_line(language, bytes, parsing, chunking);
        println!(
            "{:>12} chunks of {} bytes on average",
            chunks / ROUNDS,
            bytes / chunks.max(1)
        );
        (all_bytes, all_parsing, all_chunking) =
            (all_bytes + bytes, all_parsing + parsing, all_chunking + chunking);
    }
    print_line("all", all_bytes, all_parsing, all_chunking);
}

fn print_line(name: &str, bytes: usize, parsing: Duration, chunking: Duration) {
    let speed = |time: Duration| megabytes(bytes) / time.as_secs_f64();
    println!(
        "{name:>12} {:7.2} MB, bare parse {:6.2} MB/s, by syntax {:6.2} MB/s, ratio {:.3}",
        megabytes(bytes) / ROUNDS as f64,
        speed(parsing),
        speed(chunking),
        parsing.as_secs_f64() / chunking.as_secs_f64()
    );
}

/// Parses as the chunker does, with a new parser and the same grammar, and with nothing counted.
fn parse(document: &Document) {
    let grammar = document.language.grammar_for(&document.text).unwrap();
    let mut parser = Parser::new();
    parser.set_language(&grammar).unwrap();
    black_box(parser.parse(&document.text, None).unwrap());
}

fn chunk(chunker: &mut Chunker, document: &Document, chunking: &Chunking) {
    black_box(chunker.chunk(&document.key, &document.text, chunking));
}

/// Processor time that this thread has used.
fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes to `time` and nothing else.
    assert_eq!(
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) },
        0
    );
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// The documents that are parsed by a grammar, by path.
fn documents() -> Vec<Document> {
    let mut paths = Vec::new();
    for directory in directories() {
        files_below(&directory, &mut paths);
    }
    let mut chunker = Chunker::new();
    let mut bytes_of: BTreeMap<&str, usize> = BTreeMap::new();
    let mut documents = Vec::new();
    for path in paths {
        let key = path.to_string_lossy().into_owned();
        if Language::of_document(&key, "").is_none_or(|language| language == Language::Markdown) {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        let Some(language) = Language::of_document(&key, &text) else {
            continue;
        };
        let bytes = bytes_of.entry(language.name()).or_default();
        if *bytes > BYTES_PER_LANGUAGE || text.len() > MAX_PARSE_BYTES {
            continue;
        }
        if chunker.chunk(&key, &text, &BY_SYNTAX).strategy == ChunkStrategy::TreeSitter {
            *bytes += text.len();
            documents.push(Document { key, text, language });
        }
    }
    documents
}

/// Where to look for documents: what the caller says, or else this project and its dependencies.
fn directories() -> Vec<PathBuf> {
    if let Some(directory) = std::env::var_os("CHUNK_BENCH_DIR") {
        return vec![PathBuf::from(directory)];
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let registry = cargo_home.map(|cargo_home| cargo_home.join("registry/src"));
    [project.join("src"), project.join("tests")]
        .into_iter()
        .chain(registry)
        .collect()
}

/// Files below `directory`, in an order that does not depend on the file system.
fn files_below(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            files_below(&path, files);
        } else {
            files.push(path);
        }
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
