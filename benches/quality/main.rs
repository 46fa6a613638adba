//! Whether questions find their answers: recall of MiniLM over line chunks and over chunks by syntax.
//!
//! `cargo bench --bench quality` asks 25 questions about this repository and 25 about Debian's policy and the
//! Filesystem Hierarchy Standard (`make peers` provides both documents and model). Each question has a document
//! and words that a hit must have (`*.toml`). The parts are those of the pipeline: HTML to Markdown, the
//! chunker with the defaults of the model, the model itself; the nearest chunks are found by comparing with all.
//!
//! Prints a table, and the questions whose answer is not among the first ten. Ends with an error when chunks by
//! syntax find fewer answers than line chunks. `-- debian` or `-- repository` asks one half.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
};

use chroma_sync::{
    chunk::Chunker,
    domain::{
        chunking::{Chunking, ChunkingRequest},
        embedding::MINILM,
    },
    embed::{Embedder, Embedders, LocalOptions, ModelDirectories, Purpose},
    parse::html::document_to_markdown,
};
use tokio::runtime::Runtime;

/// What of the repository is a corpus: the tests and benches quote it, and would answer in its place.
const CORPUS: [&str; 8] = [
    "README.md",
    "CHANGELOG.md",
    "config",
    "docs",
    "encoder/src",
    "migrations/src",
    "proto/chromasync",
    "src",
];
/// Texts that are embedded with one call.
const TEXTS_PER_CALL: usize = 512;
/// Hits among which an answer counts.
const RANKS: [usize; 3] = [1, 5, 10];

#[derive(serde::Deserialize)]
struct Questions {
    question: Vec<Question>,
}

#[derive(serde::Deserialize)]
struct Question {
    text: String,
    document: String,
    contains: String,
}

struct Document {
    key: String,
    text: String,
    is_markdown: bool,
}

struct Chunk {
    document: usize,
    text: Arc<str>,
    /// Its words, for looking answers up.
    words: String,
}

/// How one way of chunking did with one set of questions.
struct Figures {
    chunks: usize,
    questions: usize,
    /// Answers among the first hits, by [`RANKS`].
    found: [usize; RANKS.len()],
    missed: Vec<String>,
}

fn main() -> ExitCode {
    let runtime = Runtime::new().unwrap();
    let directories = ModelDirectories::from_environment(Some(project(".peers/models")));
    let embedders = Embedders::load_local([MINILM], &directories, LocalOptions::default())
        .unwrap_or_else(|error| panic!("{error}; run `make peers`"));
    let model = embedders.get(MINILM).unwrap();
    let window = model.model().max_tokens;
    let resolve = |request| Chunking::resolve(request, window).unwrap();
    let ways = [
        (
            "lines",
            resolve(ChunkingRequest::Lines {
                max_lines: None,
                max_size_bytes: None,
            }),
        ),
        (
            "tree_sitter",
            resolve(ChunkingRequest::TreeSitter { max_size_bytes: None }),
        ),
    ];
    // Cargo itself passes `--bench`.
    let asked: Vec<String> = env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let sets: Vec<(&str, Vec<Document>)> = [
        ("debian", debian as fn() -> Vec<Document>),
        ("repository", repository),
    ]
    .into_iter()
    .filter(|(set, _)| asked.is_empty() || asked.iter().any(|asked| asked == set))
    .map(|(set, documents)| (set, documents()))
    .collect();
    assert!(
        !sets.is_empty(),
        "the sets of questions are debian and repository"
    );
    println!("| questions | chunks by | chunks | recall@1 | recall@5 | recall@10 |");
    println!("|---|---|---|---|---|---|");
    let mut totals: HashMap<&str, usize> = HashMap::new();
    let mut missed = Vec::new();
    for (set, documents) in &sets {
        let questions = questions(set);
        check(&questions, documents);
        for (way, chunking) in &ways {
            let figures = measure(&runtime, model.as_ref(), &questions, documents, chunking);
            let of = |found: usize| format!("{:.2}", found as f64 / figures.questions as f64);
            let recalls = figures.found.map(of).join(" | ");
            println!(
                "| {set} ({}) | {way} | {} | {recalls} |",
                figures.questions, figures.chunks
            );
            *totals.entry(way).or_default() += figures.found[RANKS.len() - 1];
            let lines = figures.missed.into_iter();
            missed.extend(lines.map(|question| format!("{set}, {way}: {question}")));
        }
    }
    println!("\nnot among the first {}:", RANKS[RANKS.len() - 1]);
    missed.iter().for_each(|line| println!("  {line}"));
    let (by_lines, by_syntax) = (totals["lines"], totals["tree_sitter"]);
    println!("\nanswers found: {by_lines} by lines, {by_syntax} by syntax");
    if by_syntax < by_lines {
        println!("chunks by syntax find fewer answers than line chunks");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn questions(set: &str) -> Vec<Question> {
    let text = fs::read_to_string(project(&format!("benches/quality/{set}.toml"))).unwrap();
    toml::from_str::<Questions>(&text).unwrap().question
}

/// The files that git knows of, as it would index them.
fn repository() -> Vec<Document> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--"])
        .args(CORPUS)
        .current_dir(project(""))
        .output()
        .unwrap();
    assert!(listed.status.success(), "the bench needs the repository's git");
    let keys = String::from_utf8(listed.stdout).unwrap();
    let keys = keys.split_terminator('\0').map(str::to_owned);
    keys.filter_map(|key| {
        let text = String::from_utf8(fs::read(project(&key)).ok()?).ok()?;
        Some(Document {
            key,
            text,
            is_markdown: false,
        })
    })
    .collect()
}

/// The pages of the policy manual and the standard, as Markdown.
fn debian() -> Vec<Document> {
    let documents = project(".peers/documents");
    let pages = documents.join("policy.html");
    let found =
        fs::read_dir(&pages).unwrap_or_else(|_| panic!("{} is missing; run `make peers`", pages.display()));
    let mut files: Vec<(String, PathBuf)> = found
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            // What Sphinx makes besides the text.
            name.ends_with(".html") && !matches!(name, "genindex.html" | "search.html")
        })
        .map(|path| {
            (
                format!("policy/{}", path.file_name().unwrap().to_str().unwrap()),
                path,
            )
        })
        .collect();
    files.push(("fhs-3.0.html".to_owned(), documents.join("fhs/fhs-3.0.html")));
    files.sort();
    files
        .into_iter()
        .map(|(key, path)| {
            let html = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
            Document {
                key,
                text: document_to_markdown(&html).unwrap().markdown,
                is_markdown: true,
            }
        })
        .collect()
}

/// Letters and digits in lower case, one blank between words: what markup and line breaks leave alone.
fn words(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Every answer must be there to be found.
fn check(questions: &[Question], documents: &[Document]) {
    for question in questions {
        let document = documents
            .iter()
            .find(|document| document.key == question.document);
        let document = document.unwrap_or_else(|| panic!("there is no {}", question.document));
        assert!(
            words(&document.text).contains(&words(&question.contains)),
            "{} does not have {:?}",
            question.document,
            question.contains
        );
    }
}

fn measure(
    runtime: &Runtime,
    model: &dyn Embedder,
    questions: &[Question],
    documents: &[Document],
    chunking: &Chunking,
) -> Figures {
    let mut chunker = Chunker::new();
    let mut chunks = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        let cut = match document.is_markdown {
            true => chunker.chunk_markdown(&document.text, chunking),
            false => chunker.chunk(&document.key, &document.text, chunking),
        };
        chunks.extend(cut.chunks.into_iter().map(|chunk| {
            let text = &document.text[chunk.range];
            Chunk {
                document: index,
                text: text.into(),
                words: words(text),
            }
        }));
    }
    let texts: Vec<Arc<str>> = chunks.iter().map(|chunk| Arc::clone(&chunk.text)).collect();
    let vectors = embed(runtime, model, &texts, Purpose::Document);
    let asked: Vec<Arc<str>> = questions
        .iter()
        .map(|question| question.text.as_str().into())
        .collect();
    let mut figures = Figures {
        chunks: chunks.len(),
        questions: questions.len(),
        found: [0; RANKS.len()],
        missed: Vec::new(),
    };
    for (question, query) in questions
        .iter()
        .zip(embed(runtime, model, &asked, Purpose::Query))
    {
        let answer = words(&question.contains);
        let similarity = |vector: &[f32]| vector.iter().zip(&query).map(|(a, b)| a * b).sum::<f32>();
        let mut order: Vec<(f32, usize)> = vectors
            .iter()
            .enumerate()
            .map(|(index, vector)| (similarity(vector), index))
            .collect();
        order.sort_by(|one, other| other.0.total_cmp(&one.0));
        let answers = |index: usize| {
            let chunk = &chunks[index];
            documents[chunk.document].key == question.document && chunk.words.contains(&answer)
        };
        let rank = order.iter().position(|(_, index)| answers(*index));
        for (found, most) in figures.found.iter_mut().zip(RANKS) {
            *found += usize::from(rank.is_some_and(|rank| rank < most));
        }
        if rank.is_none_or(|rank| rank >= RANKS[RANKS.len() - 1]) {
            let place = rank.map_or("in no chunk as a whole".to_owned(), |rank| {
                format!("hit {}", rank + 1)
            });
            figures.missed.push(format!("{} ({place})", question.text));
        }
    }
    figures
}

fn embed(runtime: &Runtime, model: &dyn Embedder, texts: &[Arc<str>], purpose: Purpose) -> Vec<Vec<f32>> {
    let calls = texts.chunks(TEXTS_PER_CALL);
    calls
        .flat_map(|texts| {
            runtime
                .block_on(model.embed(texts.to_vec(), purpose, ""))
                .unwrap()
        })
        .map(|text| text.vector)
        .collect()
}
