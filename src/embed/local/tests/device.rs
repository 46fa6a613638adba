//! Models on a GPU: what is refused, what is chosen, and, where the engine for GPUs is built, that a model runs on it
//! (here on its CPU device; `encoder/tests/candle.rs` has the rest).

use super::{
    super::{
        Device, LocalOptions,
        description::{Architecture, Description},
        options::fingerprint,
        workers::Workers,
    },
    tiny::{TinyModel, options},
};
use crate::embed::{Embedders, LoadError, ModelDirectories, Precision};

fn on_a_gpu(precision: Option<Precision>) -> LocalOptions {
    LocalOptions {
        device: Device::Cuda { ordinal: 0 },
        ..on_the_cpu(precision)
    }
}

fn on_the_cpu(precision: Option<Precision>) -> LocalOptions {
    LocalOptions {
        precision,
        ..options(Precision::Single)
    }
}

fn architecture(model: &str) -> Architecture {
    let model = TinyModel::copy(model);
    Description::read(&model.files().unwrap(), 512)
        .unwrap()
        .architecture
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_binary_without_cuda_refuses_a_gpu_and_says_how_to_build_one_or_to_do_without() {
    let (nowhere, options) = (ModelDirectories::default(), on_a_gpu(None));
    let none: [&str; 0] = [];
    let error = Embedders::load_local(none, &nowhere, options).unwrap_err();
    assert!(matches!(error, LoadError::WithoutCuda), "{error}");
    let message = error.to_string();
    assert!(
        message.contains("build it with `--features cuda`, or set embedding.device to cpu"),
        "{message}"
    );
    let Err(error) = TinyModel::copy("qwen3").load(options) else {
        panic!("it was loaded");
    };
    assert!(matches!(error, LoadError::WithoutCuda), "{error}");
}

#[test]
fn eight_bits_are_refused_on_a_gpu() {
    let options = on_a_gpu(Some(Precision::EightBit));
    let error = Embedders::load_local(["a/b"], &ModelDirectories::default(), options).unwrap_err();
    assert!(matches!(error, LoadError::PrecisionOnDevice), "{error}");
    assert!(
        error.to_string().contains("set it to auto, bf16 or f32"),
        "{error}"
    );
}

#[test]
fn a_gpu_computes_qwen3_in_bf16_and_the_small_models_in_f32_unless_told_otherwise() {
    let qwen3 = architecture("qwen3");
    let splade = architecture("splade");
    for (choice, of_qwen3, of_splade) in [
        (None, Precision::Bfloat16, Precision::Single),
        (
            Some(Precision::Bfloat16),
            Precision::Bfloat16,
            Precision::Bfloat16,
        ),
        (Some(Precision::Single), Precision::Single, Precision::Single),
    ] {
        let options = on_a_gpu(choice);
        assert_eq!(options.precision(&qwen3), of_qwen3, "{choice:?}");
        assert_eq!(options.precision(&splade), of_splade, "{choice:?}");
    }
    let automatic = on_the_cpu(None).precision(&qwen3);
    assert_eq!(automatic, Precision::automatic(), "on the CPU");
}

#[tokio::test]
async fn vectors_may_stand_together_if_their_precision_is_the_same_wherever_they_were_computed() {
    let model = TinyModel::copy("qwen3");
    let (files, architecture) = (model.files().unwrap(), architecture("qwen3"));
    let of = async |options: LocalOptions| {
        let fingerprint = fingerprint(&files, options.precision(&architecture), 512).unwrap();
        fingerprint.get().await.unwrap()
    };
    let single = of(on_the_cpu(Some(Precision::Single))).await;
    let automatic = of(on_a_gpu(None)).await;
    assert_eq!(of(on_a_gpu(Some(Precision::Single))).await, single);
    assert_eq!(of(on_the_cpu(Some(Precision::Bfloat16))).await, automatic);
    assert_ne!(automatic, single);
}

#[test]
fn a_gpu_has_one_thread_for_each_model_and_the_cpu_as_many_as_configured() {
    assert_eq!(on_a_gpu(None).workers(), Workers::ON_A_DEVICE);
    assert_eq!(on_the_cpu(None).workers(), Workers::on_processors(2));
}

#[cfg(feature = "candle")]
mod candle {
    use chroma_sync_encoder::candle;

    use super::{
        super::{
            super::{LocalModel, engine::Engine},
            floats, golden_file, golden_texts, largest_difference,
        },
        *,
    };
    use crate::embed::{Embedder, Purpose, SparseEmbedder};

    #[derive(serde::Deserialize)]
    struct Golden {
        texts: Vec<GoldenText>,
    }

    #[derive(serde::Deserialize)]
    struct GoldenText {
        vector: String,
    }

    fn load(model: &str) -> LocalModel {
        let engine = Engine::Device(candle::Device::cpu());
        let options = on_a_gpu(Some(Precision::Single));
        let model = TinyModel::copy(model);
        LocalModel::load_on(&engine, &model.files().unwrap(), options).unwrap()
    }

    #[tokio::test]
    async fn a_dense_model_on_a_device_gives_documents_and_queries_the_vectors_of_the_reference() {
        let (texts, golden): (_, Golden) = (golden_texts(), golden_file("qwen3.json"));
        let LocalModel::Dense(embedder) = load("qwen3") else {
            panic!("it is sparse");
        };
        assert!(embedder.model().takes_instructions);
        let documents = embedder.embed(texts.clone(), Purpose::Document, "");
        let query = embedder.embed(texts[..1].to_vec(), Purpose::Query, "");
        let (documents, query) = tokio::join!(documents, query);
        let (documents, query) = (documents.unwrap(), query.unwrap());
        assert!(largest_difference(&documents[0].vector, &query[0].vector) <= 1e-6);
        assert_eq!(documents.len(), golden.texts.len());
        for (found, wanted) in documents.iter().zip(&golden.texts) {
            let difference = largest_difference(&found.vector, &floats(&wanted.vector));
            assert!(difference <= 1e-5, "{difference:e}");
        }
    }

    #[tokio::test]
    async fn a_sparse_model_on_a_device_gives_the_terms_that_it_gives_on_the_cpu() {
        let texts = golden_texts()[..20].to_vec();
        let cpu = TinyModel::copy("splade")
            .load(options(Precision::Single))
            .unwrap();
        let (LocalModel::Sparse(device), LocalModel::Sparse(cpu)) = (load("splade"), cpu) else {
            panic!("it is dense");
        };
        let found = device.embed(texts.clone(), Purpose::Document).await.unwrap();
        let wanted = cpu.embed(texts, Purpose::Document).await.unwrap();
        for (found, wanted) in found.iter().zip(&wanted) {
            // Terms at the edge of weighing nothing may be there or not.
            let weight = |index: &u32| {
                wanted
                    .indices
                    .iter()
                    .position(|other| other == index)
                    .map_or(0.0, |at| wanted.values[at])
            };
            assert!(found.indices.len().abs_diff(wanted.indices.len()) <= 2);
            for (index, value) in found.indices.iter().zip(&found.values) {
                assert!((value - weight(index)).abs() <= 1e-4, "term {index}");
            }
        }
        assert_eq!(found.len(), 20);
    }
}
