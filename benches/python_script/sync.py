"""Syncs a git repository into a Chroma collection: the script that one would write in an afternoon.

Clones one commit, cuts each text file with LangChain's splitters, embeds the pieces with all-MiniLM-L6-v2 on ONNX
Runtime and stores them with the stock client. What a first version has: batches, the splitter of the language, the
rules about binary and large files, ids that a second run finds again. What it has not: retries, progress that
survives, anything about what changed. `benches/whole_sync.rs` runs it beside the service.

Prints one line of JSON: records, seconds of each stage, peak memory.
"""

import argparse
import hashlib
import json
import pathlib
import resource
import subprocess
import tempfile
import time

import chromadb
import numpy
import onnxruntime
from langchain_text_splitters import Language, RecursiveCharacterTextSplitter
from tokenizers import Tokenizer

LANGUAGES = {
    ".c": Language.C, ".cpp": Language.CPP, ".cs": Language.CSHARP, ".ex": Language.ELIXIR, ".go": Language.GO,
    ".h": Language.C, ".hs": Language.HASKELL, ".html": Language.HTML, ".java": Language.JAVA, ".js": Language.JS,
    ".kt": Language.KOTLIN, ".lua": Language.LUA, ".md": Language.MARKDOWN, ".php": Language.PHP,
    ".proto": Language.PROTO, ".py": Language.PYTHON, ".rb": Language.RUBY, ".rs": Language.RUST,
    ".scala": Language.SCALA, ".swift": Language.SWIFT, ".ts": Language.TS,
}
MAX_FILE_BYTES = 1 << 20
CHUNK_BYTES = 1024
BATCH = 128
MODEL_BATCH = 32
MAX_TOKENS = 256


class Embedder:
    """all-MiniLM-L6-v2, as sentence-transformers computes it: sorted by length, mean of the tokens, length 1."""

    def __init__(self, model, onnx, threads):
        self.tokenizer = Tokenizer.from_file(str(pathlib.Path(model) / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    def __call__(self, texts):
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
        vectors = numpy.empty((len(texts), 384), dtype=numpy.float32)
        for start in range(0, len(order), MODEL_BATCH):
            some = order[start : start + MODEL_BATCH]
            encoded = self.tokenizer.encode_batch([texts[n] for n in some])
            ids = numpy.array([one.ids for one in encoded], dtype=numpy.int64)
            mask = numpy.array([one.attention_mask for one in encoded], dtype=numpy.int64)
            (hidden,) = self.session.run(None, {"input_ids": ids, "attention_mask": mask})
            mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
            vectors[some] = mean / numpy.linalg.norm(mean, axis=1, keepdims=True)
        return vectors


def files(directory):
    """The text files of a clone: path and text."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=directory, check=True, capture_output=True).stdout
    for name in listed.decode().split("\0"):
        path = directory / name
        if not name or path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            continue
        content = path.read_bytes()
        if b"\0" in content:
            continue
        try:
            yield name, content.decode()
        except UnicodeDecodeError:
            continue


def splitter(name, known={}):
    language = LANGUAGES.get(pathlib.PurePosixPath(name).suffix)
    if language not in known:
        sizes = {"chunk_size": CHUNK_BYTES, "chunk_overlap": 0, "add_start_index": True}
        known[language] = (
            RecursiveCharacterTextSplitter(**sizes)
            if language is None
            else RecursiveCharacterTextSplitter.from_language(language, **sizes)
        )
    return known[language]


def pieces(directory):
    """The records of a clone without their vectors."""
    for name, text in files(directory):
        key = hashlib.sha256(name.encode()).hexdigest()
        for n, piece in enumerate(splitter(name).create_documents([text])):
            line = text.count("\n", 0, piece.metadata["start_index"]) + 1
            metadata = {"document_key": name, "document_key_sha256": key, "start_line": line}
            yield f"{key}-{n}", piece.page_content, metadata


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", required=True, help="URL that git clones")
    parser.add_argument("--branch", required=True)
    parser.add_argument("--collection", required=True)
    parser.add_argument("--port", type=int, required=True, help="of the Chroma server on 127.0.0.1")
    parser.add_argument("--model", required=True, help="directory with tokenizer.json")
    parser.add_argument("--onnx", required=True, help="the model's graph: export_minilm.py")
    parser.add_argument("--threads", type=int, default=0, help="of ONNX Runtime; 0 takes one for each core")
    arguments = parser.parse_args()

    seconds = dict.fromkeys(("load", "fetch", "split", "embed", "store"), 0.0)
    mark = time.perf_counter()

    def spent(stage):
        nonlocal mark
        now = time.perf_counter()
        seconds[stage] += now - mark
        mark = now

    embed = Embedder(arguments.model, arguments.onnx, arguments.threads)
    client = chromadb.HttpClient("127.0.0.1", arguments.port)
    collection = client.get_or_create_collection(
        arguments.collection, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
    )
    spent("load")
    with tempfile.TemporaryDirectory() as directory:
        clone = ["git", "clone", "--quiet", "--depth", "1", "--branch", arguments.branch]
        subprocess.run([*clone, arguments.repository, directory], check=True)
        spent("fetch")
        count = 0
        batch = []

        def write():
            nonlocal count
            ids, texts, metadatas = zip(*batch)
            spent("split")
            vectors = embed(texts)
            spent("embed")
            collection.upsert(list(ids), embeddings=vectors, documents=list(texts), metadatas=list(metadatas))
            spent("store")
            count += len(batch)
            batch.clear()

        for piece in pieces(pathlib.Path(directory)):
            batch.append(piece)
            if len(batch) == BATCH:
                write()
        if batch:
            write()
        spent("split")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"records": count, "seconds": seconds, "peak_megabytes": round(peak)}))


main()
