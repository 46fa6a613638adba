#!/usr/bin/env python3
"""Writes tests/golden/models/ and what the Python reference makes of the texts with them; see `make golden`.

The models are tiny and their weights are random, but their architectures, files and names are those of
Qwen/Qwen3-Embedding-0.6B and prithivida/Splade_PP_en_v1, so the code that runs them is the code that runs the
real ones:

    tiny/qwen3   tests/golden/qwen3.json:  for each text tokens, truncated, vector; the same for some as queries
    tiny/splade  tests/golden/splade.json: for each text tokens, truncated, indices, values

Weights are numbers that bfloat16 holds exactly, and are stored so. A test that wants them as 32-bit floats widens
them, and the same vectors are right. They are drawn wide enough that attention picks and texts differ, which those
of a training's start would not.

The reference is sentence-transformers in 32-bit floats, one text at a time, as its users call it.
"""

import base64
import json
import pathlib

import numpy
import sentence_transformers
import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer, SparseEncoder
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"
MODELS = GOLDEN / "models" / "tiny"

# What the service sends before queries unless a source names another task.
INSTRUCTION = "Retrieve semantically similar text"
QUERIES = 20
QWEN3_MAX_TOKENS = 512
SPLADE_MAX_TOKENS = 256

# From the tokenizer.json of Qwen3.
QWEN3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN3_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_json(path: pathlib.Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def base64_of(array: object, kind: str) -> str:
    return base64.b64encode(numpy.asarray(array).astype(numpy.dtype(kind)).tobytes()).decode()


def randomise(model: torch.nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Gives every parameter a random value that bfloat16 holds; returns those a file stores."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                drawn = 1.0 + 0.2 * drawn
            elif name.endswith("cls.predictions.bias"):
                # Most terms of a vocabulary are absent from a text.
                drawn = 0.5 * drawn - 14.0
            elif parameter.dim() == 1:
                drawn = 0.1 * drawn
            elif "embed" not in name:
                drawn = drawn * (1.5 / parameter.shape[1] ** 0.5)
            parameter.copy_(drawn.to(torch.bfloat16).float())
    return {name: value.to(torch.bfloat16).contiguous() for name, value in model.named_parameters()}


def qwen3(texts: list[str]) -> pathlib.Path:
    directory = MODELS / "qwen3"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN3_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=384 - len(QWEN3_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # As in the real file, these come after the vocabulary.
    tokenizer.add_special_tokens(QWEN3_SPECIAL)
    end = tokenizer.token_to_id("<|endoftext|>")
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", end)]),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()

    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "eos_token_id": end,
        "head_dim": 16,
        "hidden_act": "silu",
        "hidden_size": 64,
        "intermediate_size": 96,
        "max_position_embeddings": 32768,
        "max_window_layers": 4,
        "model_type": "qwen3",
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    write_json(directory / "config.json", config)
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    write_json(
        directory / "tokenizer_config.json",
        {
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "padding_side": "left",
            "model_max_length": 131072,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    write_json(
        directory / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
    )
    modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    write_json(
        directory / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 64}
        | {f"pooling_mode_{mode}": mode == "lasttoken" for mode in modes}
        | {"include_prompt": True},
    )
    write_json(
        directory / "config_sentence_transformers.json",
        {"prompts": {"query": f"Instruct: {INSTRUCTION}\nQuery:", "document": ""}, "similarity_fn_name": "cosine"},
    )
    model = transformers.Qwen3Model(transformers.Qwen3Config(**config))
    weights = randomise(model, torch.Generator().manual_seed(3))
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def splade(texts: list[str]) -> pathlib.Path:
    directory = MODELS / "splade"
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=600, special_tokens=special, limit_alphabet=120, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = {token: tokenizer.token_to_id(token) for token in special}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    tokenizer.decoder = decoders.WordPiece()

    config = {
        "architectures": ["BertForMaskedLM"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 48,
        "intermediate_size": 96,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": SPLADE_MAX_TOKENS,
        "model_type": "bert",
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    write_json(directory / "config.json", config)
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    write_json(
        directory / "tokenizer_config.json",
        {
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "mask_token": "[MASK]",
            "model_max_length": SPLADE_MAX_TOKENS,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    # `named_parameters` gives a tied weight once, so the file has no cls.predictions.decoder, as the real one.
    model = transformers.BertForMaskedLM(transformers.BertConfig(**config))
    weights = randomise(model, torch.Generator().manual_seed(5))
    assert not any("decoder" in name for name in weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def lengths(tokenizer: object, text: str, limit: int) -> dict[str, object]:
    count = len(tokenizer(text, truncation=False)["input_ids"])
    return {"tokens": min(count, limit), "truncated": count > limit}


def main() -> None:
    torch.set_num_threads(1)
    texts = json.loads((GOLDEN / "texts.json").read_text())
    reference = (
        f"sentence-transformers {sentence_transformers.__version__}, "
        f"transformers {transformers.__version__}, torch {torch.__version__}"
    )
    arguments = {"device": "cpu", "model_kwargs": {"dtype": torch.float32, "attn_implementation": "eager"}}

    dense = SentenceTransformer(str(qwen3(texts)), **arguments)
    dense.max_seq_length = QWEN3_MAX_TOKENS

    def embedded(text: str) -> dict[str, object]:
        vector = dense.encode(text, prompt="", batch_size=1)
        return lengths(dense.tokenizer, text, QWEN3_MAX_TOKENS) | {"vector": base64_of(vector, "<f4")}

    golden = {
        "reference": reference,
        "max_tokens": QWEN3_MAX_TOKENS,
        "instruction": INSTRUCTION,
        "texts": [embedded(text) for text in texts],
        "queries": [embedded(f"Instruct: {INSTRUCTION}\nQuery:{text}") for text in texts[:QUERIES]],
    }
    (GOLDEN / "qwen3.json").write_text(json.dumps(golden, indent=1) + "\n")

    sparse = SparseEncoder(str(splade(texts)), **arguments)

    def terms(text: str) -> dict[str, object]:
        vector = sparse.encode(text, batch_size=1, convert_to_sparse_tensor=False).numpy()
        (indices,) = numpy.nonzero(vector)
        return lengths(sparse.tokenizer, text, SPLADE_MAX_TOKENS) | {
            "indices": base64_of(indices, "<u4"),
            "values": base64_of(vector[indices], "<f4"),
        }

    golden = {"reference": reference, "max_tokens": SPLADE_MAX_TOKENS, "texts": [terms(text) for text in texts]}
    (GOLDEN / "splade.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
