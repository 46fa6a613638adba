//! How fast models of real sizes compute, in tokens a processor second on one thread, and what memory they take, in
//! each precision: Qwen3-Embedding-0.6B from bf16, SPLADE (a BERT of 110 million weights) from 32-bit floats.
//!
//! `cargo bench -p chroma-sync-encoder --bench large_models`; a word behind `--` picks the cases that contain it. The
//! weights are random numbers, written once into target/large-models (1.6 GB). Each case is a process of its own, so
//! that its memory is its own.
//!
//! Qwen3 is measured beside llama.cpp without AMX, in turns, from the same weights and on the same token ids, where
//! `llama_peer.py` beside this file finds it; it says how it is installed, and writes 4.2 GB beside the weights.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

#[path = "../../benches/shared/peer_process.rs"]
mod peer_process;
#[path = "../../benches/shared/processor_time.rs"]
mod processor_time;

use std::{
    env,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use chroma_sync_encoder::{
    EncoderConfig, MaskedLanguageModel, MaskedLanguageScratch, Precision, Qwen3, Qwen3Config, Qwen3Scratch,
    TensorFiles,
};
use peer_process::PeerProcess;
use processor_time::own_seconds;

const QWEN3_CONFIG: &str = r#"{
    "model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 4096, "vocab_size": 151669, "hidden_act": "silu", "rope_theta": 1000000
}"#;

const SPLADE_CONFIG: &str = r#"{
    "model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "vocab_size": 30522,
    "type_vocab_size": 2, "hidden_act": "gelu"
}"#;

/// Sequences of a batch and tokens of each.
const QWEN3_BATCHES: [(usize, usize); 5] = [(1, 16), (1, 128), (8, 128), (2, 512), (1, 4096)];
const SPLADE_BATCHES: [(usize, usize); 3] = [(1, 16), (8, 128), (2, 512)];

/// Tokens of the sequences whose vectors are compared between the precisions.
const COMPARED: [usize; 12] = [4, 9, 16, 23, 40, 64, 90, 128, 128, 200, 300, 512];

/// The least processor time of a measurement, in seconds.
const ENOUGH: f64 = 4.0;

/// Measurements of a batch in turns with llama.cpp's.
const ROUNDS: usize = 3;

/// The ways in which llama.cpp is run, and in how many of the rounds: the slower one takes a minute for a batch.
const LLAMA_WAYS: [(&str, usize); 2] = [("layers", ROUNDS), ("embeddings", 1)];

/// Tokens of the largest batch that llama.cpp computes, which takes a minute for more.
const LLAMA_TOKENS: usize = 1024;

/// llama.cpp's answer: processor seconds of embedding a batch once, and its vectors.
#[derive(serde::Deserialize)]
struct LlamaAnswer {
    seconds: f64,
    vectors: Vec<Vec<f32>>,
}

fn main() {
    let arguments: Vec<String> = env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    if let [flag, model, precision] = arguments.as_slice()
        && flag == "--case"
    {
        return measure(model, precision);
    }
    let pattern = arguments.first().map_or("", String::as_str);
    println!("tokens a processor second by batch (sequences x tokens), one thread");
    for model in ["qwen3", "splade"] {
        for precision in ["f32", "bf16", "int8"] {
            if !format!("{model} {precision}").contains(pattern) {
                continue;
            }
            write_once(model);
            let status = Command::new(env::current_exe().unwrap())
                .args(["--case", model, precision])
                .status()
                .unwrap();
            assert!(status.success(), "{model} {precision}: {status}");
        }
    }
    for precision in [Precision::Bfloat16, Precision::EightBit] {
        if let (Some(exact), Some(found)) = (read_vectors(Precision::Single), read_vectors(precision)) {
            println!("qwen3 {precision:?} {}", closeness(&exact, &found));
        }
    }
}

/// How close vectors of Qwen3 are to those in single precision, in words.
fn closeness(exact: &[f32], found: &[f32]) -> String {
    let cosines = exact.chunks(1024).zip(found.chunks(1024));
    let mut cosines: Vec<f32> = cosines.map(|(exact, found)| dot(exact, found)).collect();
    cosines.sort_by(f32::total_cmp);
    let (least, middle) = (cosines[0], cosines[cosines.len() / 2]);
    format!("against f32: least cosine {least:.6}, median {middle:.6}")
}

/// The cosine of two vectors of length 1.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

fn vectors_path(precision: Precision) -> PathBuf {
    path("qwen3").with_file_name(format!("qwen3-{precision:?}.vectors"))
}

/// The vectors of [`COMPARED`] in this precision, end to end, if they were written by this run or by another.
fn read_vectors(precision: Precision) -> Option<Vec<f32>> {
    let bytes = fs::read(vectors_path(precision)).ok()?;
    let values = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|value| f32::from_le_bytes(*value));
    Some(values.collect())
}

/// Measures one model in one precision, in this process.
fn measure(model: &str, name: &str) {
    let precision: Precision = serde_json::from_str(&format!("\"{name}\"")).unwrap();
    let start = Instant::now();
    let file = File::open(path(model)).unwrap();
    let files = TensorFiles::open([file]).unwrap();
    match model {
        "qwen3" => {
            let config = Qwen3Config::parse(QWEN3_CONFIG.as_bytes()).unwrap();
            let qwen3 = Qwen3::read(&files, config, precision).unwrap();
            drop(files);
            report(model, precision, start);
            let mut scratch = Qwen3Scratch::default();
            let compared = COMPARED.iter().enumerate();
            let ids: Vec<Vec<u32>> = compared
                .map(|(sequence, length)| ids(*length, sequence))
                .collect();
            let sequences: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
            let vectors = qwen3.embed(&sequences, &mut scratch, &mut || {}).concat();
            let bytes: Vec<u8> = vectors.iter().flat_map(|value| value.to_le_bytes()).collect();
            fs::write(vectors_path(precision), bytes).unwrap();
            let mut llama = start_llama(name);
            if let (Some(llama), Some(exact)) = (&mut llama, read_vectors(Precision::Single)) {
                let found = ids.iter().flat_map(|ids| {
                    let answer = ask_llama(llama, LLAMA_WAYS[0].0, std::slice::from_ref(ids), 0.0);
                    answer.vectors.concat()
                });
                println!("  llama.cpp {}", closeness(&exact, &found.collect::<Vec<f32>>()));
            }
            rates(&QWEN3_BATCHES, llama, |sequences| {
                assert_eq!(
                    qwen3.embed(sequences, &mut scratch, &mut || {}).len(),
                    sequences.len()
                );
            });
        }
        _ => {
            let config = EncoderConfig::parse(SPLADE_CONFIG.as_bytes()).unwrap();
            let splade = MaskedLanguageModel::read(&files, config, precision).unwrap();
            drop(files);
            report(model, precision, start);
            let mut scratch = MaskedLanguageScratch::default();
            rates(&SPLADE_BATCHES, None, |sequences| {
                assert_eq!(
                    splade.weigh(sequences, &mut scratch, &mut || {}).len(),
                    sequences.len()
                );
            });
        }
    }
}

fn report(model: &str, precision: Precision, start: Instant) {
    println!(
        "{model} {precision:?}: loaded in {:.1} s, {} MB",
        start.elapsed().as_secs_f64(),
        resident_megabytes()
    );
}

/// llama.cpp with the same weights, if it is installed.
fn start_llama(precision: &str) -> Option<PeerProcess> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let weights = path("qwen3");
    let arguments = [weights.as_os_str(), precision.as_ref(), "1".as_ref()];
    let mut llama = PeerProcess::start(&root, "encoder/benches/llama_peer.py", &arguments)?;
    let config: serde_json::Value = serde_json::from_str(QWEN3_CONFIG).unwrap();
    let processor: Option<String> = llama.ask(&config);
    println!("  llama.cpp: {}", processor.as_deref().unwrap_or("does not run"));
    processor.map(|_| llama)
}

fn ask_llama(llama: &mut PeerProcess, way: &str, sequences: &[Vec<u32>], least: f64) -> LlamaAnswer {
    let request = serde_json::json!({"way": way, "sequences": sequences, "least": least});
    llama.ask(&request).expect("llama_peer.py failed")
}

/// Prints the rate for each batch, the memory that is held afterwards, and how many times as fast as llama.cpp it is.
fn rates(batches: &[(usize, usize)], mut llama: Option<PeerProcess>, mut embed: impl FnMut(&[&[u32]])) {
    for (count, length) in batches {
        let ids: Vec<Vec<u32>> = (0..*count).map(|sequence| ids(*length, sequence)).collect();
        let sequences: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let batch = (count * length) as f64;
        let mut llama = llama.as_mut().filter(|_| count * length <= LLAMA_TOKENS);
        embed(&sequences);
        llama
            .as_mut()
            .map(|llama| ask_llama(llama, LLAMA_WAYS[0].0, &ids, 0.0));
        let (mut own, mut peers) = (Vec::new(), [const { Vec::new() }; LLAMA_WAYS.len()]);
        let (mut busy, wall) = (0.0, Instant::now());
        let mut waited = 0.0;
        for round in 0..if llama.is_some() { ROUNDS } else { 1 } {
            let (start, mut times) = (own_seconds(), 0);
            while own_seconds() - start < ENOUGH {
                embed(&sequences);
                times += 1;
            }
            let seconds = own_seconds() - start;
            busy += seconds;
            own.push(batch * f64::from(times) / seconds);
            let others = Instant::now();
            let ways = LLAMA_WAYS.iter().zip(&mut peers);
            for ((way, _), peers) in ways.filter(|((_, rounds), _)| round < *rounds) {
                let answer = llama.as_mut().map(|llama| ask_llama(llama, way, &ids, ENOUGH));
                peers.extend(answer.map(|answer| batch / answer.seconds));
            }
            waited += others.elapsed().as_secs_f64();
        }
        println!(
            "  {count} x {length}: {:.0} tokens a processor second, {busy:.1} s of {:.1} s, {} MB",
            median(&own),
            wall.elapsed().as_secs_f64() - waited,
            resident_megabytes()
        );
        let ways = LLAMA_WAYS.iter().zip(&peers);
        for ((way, _), peers) in ways.filter(|(_, peers)| !peers.is_empty()) {
            let mut ratios: Vec<f64> = own.iter().zip(peers).map(|(own, peer)| own / peer).collect();
            ratios.sort_by(f64::total_cmp);
            println!(
                "    llama.cpp, {way}: {:.0}; {:.2} times as fast ({:.2} to {:.2})",
                median(peers),
                median(&ratios),
                ratios[0],
                ratios[ratios.len() - 1]
            );
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The ids of a sequence, which differ with its number.
fn ids(length: usize, sequence: usize) -> Vec<u32> {
    let ids = 0..length;
    ids.map(|index| (index * 31 + sequence * 7) as u32 % 30_000)
        .collect()
}

/// What this process holds in memory, mapped files included, in 10^6 bytes.
fn resident_megabytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes * 1024 / 1_000_000
}

fn path(model: &str) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    target.join("large-models").join(format!("{model}.safetensors"))
}

fn write_once(model: &str) {
    let path = path(model);
    if path.exists() {
        return;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let fresh = path.with_extension("new");
    match model {
        "qwen3" => write(&fresh, "BF16", 2, &qwen3_tensors()),
        _ => write(&fresh, "F32", 4, &splade_tensors()),
    }
    fs::rename(fresh, path).unwrap();
}

/// Writes tensors of random numbers around zero: matrices small, all else around 1.
fn write(path: &Path, kind: &str, size: usize, tensors: &[(String, Vec<usize>)]) {
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for (name, shape) in tensors {
        let end = offset + shape.iter().product::<usize>() * size;
        let entry = serde_json::json!({"dtype": kind, "shape": shape, "data_offsets": [offset, end]});
        header.insert(name.clone(), entry);
        offset = end;
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    let mut state = 1_u32;
    for (_, shape) in tensors {
        for _ in 0..shape.iter().product::<usize>() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let uniform = state as f32 / u32::MAX as f32 - 0.5;
            let value = if shape.len() == 1 { 1.0 } else { uniform * 0.1 };
            file.write_all(&value.to_le_bytes()[4 - size..]).unwrap();
        }
    }
    file.flush().unwrap();
}

fn qwen3_tensors() -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![
        ("embed_tokens.weight".to_owned(), vec![151_669, 1024]),
        ("norm.weight".to_owned(), vec![1024]),
    ];
    for layer in 0..28 {
        let shapes = [
            ("input_layernorm", vec![1024]),
            ("post_attention_layernorm", vec![1024]),
            ("self_attn.q_norm", vec![128]),
            ("self_attn.k_norm", vec![128]),
            ("self_attn.q_proj", vec![2048, 1024]),
            ("self_attn.k_proj", vec![1024, 1024]),
            ("self_attn.v_proj", vec![1024, 1024]),
            ("self_attn.o_proj", vec![1024, 2048]),
            ("mlp.gate_proj", vec![3072, 1024]),
            ("mlp.up_proj", vec![3072, 1024]),
            ("mlp.down_proj", vec![1024, 3072]),
        ];
        tensors.extend(shapes.map(|(name, shape)| (format!("layers.{layer}.{name}.weight"), shape)));
    }
    tensors
}

fn splade_tensors() -> Vec<(String, Vec<usize>)> {
    let norm = |name: &str| {
        ["weight", "bias"]
            .map(|part| (format!("{name}.LayerNorm.{part}"), vec![768]))
            .to_vec()
    };
    let linear = |name: &str, outputs: usize, inputs: usize| {
        vec![
            (format!("{name}.weight"), vec![outputs, inputs]),
            (format!("{name}.bias"), vec![outputs]),
        ]
    };
    let mut tensors = vec![
        (
            "bert.embeddings.word_embeddings.weight".to_owned(),
            vec![30_522, 768],
        ),
        (
            "bert.embeddings.position_embeddings.weight".to_owned(),
            vec![512, 768],
        ),
        (
            "bert.embeddings.token_type_embeddings.weight".to_owned(),
            vec![2, 768],
        ),
        ("cls.predictions.bias".to_owned(), vec![30_522]),
    ];
    tensors.extend(norm("bert.embeddings"));
    tensors.extend(linear("cls.predictions.transform.dense", 768, 768));
    tensors.extend(norm("cls.predictions.transform"));
    for layer in 0..12 {
        let prefix = format!("bert.encoder.layer.{layer}");
        for part in ["query", "key", "value"] {
            tensors.extend(linear(&format!("{prefix}.attention.self.{part}"), 768, 768));
        }
        tensors.extend(linear(&format!("{prefix}.attention.output.dense"), 768, 768));
        tensors.extend(norm(&format!("{prefix}.attention.output")));
        tensors.extend(linear(&format!("{prefix}.intermediate.dense"), 3072, 768));
        tensors.extend(linear(&format!("{prefix}.output.dense"), 768, 3072));
        tensors.extend(norm(&format!("{prefix}.output")));
    }
    tensors
}
