//! How fast MiniLM embeds real texts in each precision, against ONNX Runtime and OpenVINO on the same token ids, the
//! same weights and as many threads: tokens a processor second, the ratio to ONNX Runtime, and how far vectors are
//! from those of single precision.
//!
//! `cargo bench -p chroma-sync-encoder --bench minilm`; `peers.py` beside this file says how to install the peers. Without
//! them only the encoder itself is measured, on ids that look random. Engines are measured in turns, so that what else
//! the machine does hits all of them; printed are the best and the median of the rounds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../../benches/shared/peer_process.rs"]
mod peer_process;
#[path = "../../benches/shared/processor_time.rs"]
mod processor_time;

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use chroma_sync_encoder::{Encoder, EncoderConfig, Precision, Scratch, TensorFiles, Weights};
use peer_process::PeerProcess;
use processor_time::own_seconds;

/// Rounds, each of which measures every engine once.
const ROUNDS: usize = 5;

/// Tokens of a batch, as the embedder cuts them.
const BATCH_TOKENS: usize = 1024;

/// What runs the texts.
enum Engine {
    Own(Precision, Box<(Encoder, Scratch)>),
    Peer(&'static str),
}

#[derive(serde::Deserialize)]
struct Answer {
    seconds: f64,
    vectors: Vec<Vec<f32>>,
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let models =
        env::var_os("CHROMA_SYNC_TEST_MODELS").map_or_else(|| root.join(".peers/models"), PathBuf::from);
    let directory = models.join("sentence-transformers/all-MiniLM-L6-v2");
    let config = fs::read(directory.join("config.json")).expect("run `make peers`");
    let config = EncoderConfig::parse(&config).unwrap();
    let texts: Vec<String> =
        serde_json::from_slice(&fs::read(root.join("tests/golden/texts.json")).unwrap()).unwrap();
    let arguments = [directory.as_os_str(), OsStr::new("1")];
    let mut peers = PeerProcess::start(&root, "encoder/benches/peers.py", &arguments);
    let golden = peers.as_mut().map_or_else(
        || random_ids(56, 100),
        |peers| peers.ask(&texts).expect("peers.py failed"),
    );

    let mut engines = Vec::new();
    for precision in [Precision::Single, Precision::Bfloat16, Precision::EightBit] {
        let before = resident_megabytes();
        let file = fs::File::open(directory.join("model.safetensors")).unwrap();
        let file = TensorFiles::open([file]).unwrap();
        let weights = Weights::read(&file, &config, precision).unwrap();
        let encoder = Encoder::new(config.clone(), weights);
        println!(
            "weights in {precision:?}: {:.0} MB of memory",
            resident_megabytes() - before
        );
        engines.push(Engine::Own(precision, Box::new((encoder, Scratch::default()))));
    }
    if peers.is_some() {
        engines.extend(["onnxruntime", "openvino f32", "openvino bf16"].map(Engine::Peer));
        measure(
            "100 texts of tests/golden/texts.json",
            &golden,
            &mut engines,
            &mut peers,
        );
        engines.truncate(3);
    }
    for (tokens, count) in [(8, 64), (128, 16), (256, 8)] {
        measure(
            &format!("{count} texts of {tokens} tokens"),
            &random_ids(tokens, count),
            &mut engines,
            &mut None,
        );
    }
}

/// Sequences of valid ids.
fn random_ids(tokens: usize, count: usize) -> Vec<Vec<u32>> {
    (0..count)
        .map(|text| {
            (0..tokens)
                .map(|token| ((text * 7919 + token * 104_729) % 30_000) as u32)
                .collect()
        })
        .collect()
}

/// Measures all engines on `sequences` and prints a line for each.
fn measure(what: &str, sequences: &[Vec<u32>], engines: &mut [Engine], peers: &mut Option<PeerProcess>) {
    let tokens: usize = sequences.iter().map(Vec::len).sum();
    println!("\n{what}, {tokens} tokens");
    let mut rates: Vec<Vec<f64>> = engines.iter().map(|_| Vec::new()).collect();
    let mut vectors = vec![None; engines.len()];
    for round in 0..=ROUNDS {
        for ((engine, rates), vectors) in engines.iter_mut().zip(&mut rates).zip(&mut vectors) {
            let found = match engine {
                Engine::Own(_, own) => Some(embed(&own.0, sequences, &mut own.1)),
                Engine::Peer(name) => peers
                    .as_mut()
                    .and_then(|peers| peers.ask(name).expect("peers.py failed")),
            };
            // The first round warms up.
            if let Some(answer) = found.filter(|_| round > 0) {
                rates.push(tokens as f64 / answer.seconds);
                *vectors = Some(answer.vectors);
            }
        }
    }
    let reference = vectors[0].clone().unwrap();
    let peer = engines
        .iter()
        .position(|engine| matches!(engine, Engine::Peer("onnxruntime")))
        .filter(|index| !rates[*index].is_empty());
    for (index, engine) in engines.iter().enumerate() {
        let Some(vectors) = &vectors[index] else {
            continue;
        };
        let name = match engine {
            Engine::Own(precision, ..) => format!("{precision:?}"),
            Engine::Peer(name) => (*name).to_owned(),
        };
        let (best, median) = best_and_median(&rates[index]);
        let ratio = |to: usize| {
            let ratios: Vec<f64> = rates[index]
                .iter()
                .zip(&rates[to])
                .map(|(own, other)| own / other)
                .collect();
            best_and_median(&ratios).1
        };
        let of_peer = peer.map_or_else(String::new, |peer| {
            format!(", {:.2} of ONNX Runtime", ratio(peer))
        });
        println!(
            "{name:14} {best:7.0} tokens/s ({median:.0}), {:.2} of f32{of_peer}; least cosine {:.6}",
            ratio(0),
            least_cosine(&reference, vectors),
        );
    }
}

/// Embeds in batches as the embedder cuts them, over and over until the time can be told.
fn embed(encoder: &Encoder, sequences: &[Vec<u32>], scratch: &mut Scratch) -> Answer {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(sequences[*index].len()));
    let mut vectors = vec![Vec::new(); sequences.len()];
    let (start, mut times) = (own_seconds(), 0);
    while times == 0 || own_seconds() - start < 0.2 {
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            let (mut count, mut tokens) = (0, 0);
            while count < rest.len() && (count == 0 || tokens + sequences[rest[count]].len() <= BATCH_TOKENS)
            {
                tokens += sequences[rest[count]].len();
                count += 1;
            }
            let batch: Vec<&[u32]> = rest[..count]
                .iter()
                .map(|index| sequences[*index].as_slice())
                .collect();
            for (index, vector) in rest.iter().zip(encoder.embed(&batch, scratch, &mut || {})) {
                vectors[*index] = vector;
            }
            rest = &rest[count..];
        }
        times += 1;
    }
    Answer {
        seconds: (own_seconds() - start) / f64::from(times),
        vectors,
    }
}

fn best_and_median(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (
        sorted.last().copied().unwrap_or(f64::NAN),
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN),
    )
}

fn least_cosine(left: &[Vec<f32>], right: &[Vec<f32>]) -> f64 {
    let dot = |left: &[f32], right: &[f32]| -> f64 {
        left.iter()
            .zip(right)
            .map(|(left, right)| f64::from(*left) * f64::from(*right))
            .sum()
    };
    left.iter()
        .zip(right)
        .map(|(left, right)| dot(left, right) / (dot(left, left) * dot(right, right)).sqrt())
        .fold(f64::INFINITY, f64::min)
}

fn resident_megabytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|rest| rest.trim().split(' ').next()?.parse().ok())
        .unwrap_or(0.0)
        / 1024.0
}
