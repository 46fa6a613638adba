#!/usr/bin/env python3
"""Writes tests/golden/minilm.json: what the Python reference makes of tests/golden/texts.json.

For each text: the tokens the model reads (special ones included), whether the text was truncated, and its
vector as base64 of 384 little-endian 32-bit floats. `make golden` runs it; needed only to change the texts or the model.
"""

import base64
import json
import pathlib
import sys

import numpy
import sentence_transformers
import torch

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} MODEL_DIRECTORY")
    model = sentence_transformers.SentenceTransformer(sys.argv[1], device="cpu")
    texts = json.loads((GOLDEN / "texts.json").read_text())
    # One at a time: padding would add its own rounding.
    vectors = [model.encode(text, batch_size=1, normalize_embeddings=True) for text in texts]
    lengths = [len(model.tokenizer(text, truncation=False)["input_ids"]) for text in texts]
    golden = {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "reference": f"sentence-transformers {sentence_transformers.__version__}, torch {torch.__version__}",
        "max_tokens": model.max_seq_length,
        "texts": [
            {
                "tokens": min(length, model.max_seq_length),
                "truncated": length > model.max_seq_length,
                "vector": base64.b64encode(vector.astype(numpy.dtype("<f4")).tobytes()).decode(),
            }
            for length, vector in zip(lengths, vectors)
        ],
    }
    (GOLDEN / "minilm.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
