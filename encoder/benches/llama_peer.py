#!/usr/bin/env python3
"""Runs Qwen3 in llama.cpp without AMX for `cargo bench -p chroma-sync-encoder --bench large_models`.

The package's source is llama.cpp's, compiled here for this processor but for its tiles (ten minutes on two cores):

    python3 -m venv target/encoder-peers
    target/encoder-peers/bin/pip install numpy gguf==0.19.0
    FLAGS="-march=native -mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    CMAKE_ARGS="-DGGML_NATIVE=OFF -DCMAKE_C_FLAGS='$FLAGS' -DCMAKE_CXX_FLAGS='$FLAGS' -DLLAVA_BUILD=OFF" \\
        target/encoder-peers/bin/pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36

A build that has AMX is refused, since it would not be what is compared with.

The weights are those of the very safetensors file, written once beside it as GGUF: f32, bf16, or Q8_0 for "int8" (8-bit
numbers in blocks of 32 with a scale each), norms in f32, as llama.cpp's own converter has them. Token ids come from the
bench, so there is no tokenizer. A sequence's vector is its last token's, scaled to length 1.

It is run in two ways. "embeddings" is how llama.cpp's server and `llama-embedding` do it (a context for embeddings,
pooling by the last token): llama.cpp then computes the last layer and the scores of the whole vocabulary for every token,
which nobody reads. "layers" leaves that out: last tokens alone are marked as outputs and the graph is stopped behind the
last norm, so that what remains is the work that a vector takes. Nobody runs it so, but it is the faster one.
In both a batch is one physical batch, flash attention is llama.cpp's choice, and each sequence has its own key-value cache.

Reads one JSON value a line from standard input: first the model's config.json, answered with llama.cpp's description
of the processor; then {"way", "sequences", "least"}, answered with the processor seconds of embedding the sequences
once (over and over until `least` seconds are over) and the vectors. Sequences of one request have one length.

Arguments: the safetensors file, "f32", "bf16" or "int8", the number of threads.
"""

import ctypes
import json
import pathlib
import sys
import time

import gguf
import llama_cpp
import numpy

KINDS = {
    "f32": gguf.GGMLQuantizationType.F32,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "int8": gguf.GGMLQuantizationType.Q8_0,
}
NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def main() -> None:
    weights, precision, threads = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    config = json.loads(sys.stdin.readline())
    processor = llama_cpp.llama_print_system_info().decode()
    if "AMX" in processor:
        sys.exit(f"llama.cpp was built with AMX, see {__file__}: {processor}")
    path = weights.with_name(f"{weights.stem}-{precision}.gguf")
    if not path.exists():
        fresh = path.with_suffix(".new")
        write(fresh, weights, config, KINDS[precision])
        fresh.rename(path)
    engine = Engine(path, config, threads)
    answer(processor)
    for line in sys.stdin:
        request = json.loads(line)
        run = engine.prepare(request["way"], request["sequences"])
        start, times = time.process_time(), 0
        while times == 0 or time.process_time() - start < request["least"]:
            states = run()
            times += 1
        seconds = (time.process_time() - start) / times
        vectors = states / numpy.linalg.norm(states, axis=1, keepdims=True)
        answer({"seconds": seconds, "vectors": vectors.tolist()})


def answer(value: object) -> None:
    print(json.dumps(value), flush=True)


def write(path: pathlib.Path, weights: pathlib.Path, config: dict, kind: gguf.GGMLQuantizationType) -> None:
    """Writes GGUF with the tensors of a safetensors file in bf16."""
    writer = gguf.GGUFWriter(path, "qwen3", use_temp_file=True)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_pooling_type(gguf.PoolingType.LAST)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    with weights.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        stored = numpy.fromfile(weights, "<u2", (end - start) // 2, offset=8 + size + start)
        values = (stored.astype(numpy.uint32) << 16).view(numpy.float32).reshape(entry["shape"])
        name = name.removesuffix(".weight")
        prefix = ""
        if name.startswith("layers."):
            _, layer, name = name.split(".", 2)
            prefix = f"blk.{layer}."
        used = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(values, used)
        writer.add_tensor(f"{prefix}{NAMES[name]}.weight", data, raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@llama_cpp.llama_log_callback
def log_errors(level: int, text: bytes, _data: object) -> None:
    if level == 4:  # GGML_LOG_LEVEL_ERROR
        print(text.decode(), end="", file=sys.stderr, flush=True)


class Engine:
    """A model in llama.cpp, with contexts for the batch that was embedded last, one for each way."""

    def __init__(self, path: pathlib.Path, config: dict, threads: int) -> None:
        llama_cpp.llama_log_set(log_errors, None)
        parameters = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.model:
            sys.exit(f"llama.cpp does not load {path}")
        self.hidden, self.threads = config["hidden_size"], threads
        self.sequences, self.contexts = None, {}
        library = pathlib.Path(llama_cpp.__file__).with_name("lib") / "libggml-base.so"
        self.tensors = ctypes.CDLL(str(library))
        self.tensors.ggml_get_name.restype = ctypes.c_char_p
        self.tensors.ggml_get_name.argtypes = [ctypes.c_void_p]
        self.tensors.ggml_get_data_f32.restype = ctypes.POINTER(ctypes.c_float)
        self.tensors.ggml_get_data_f32.argtypes = [ctypes.c_void_p]

    def prepare(self, way: str, sequences: list):
        """A function that embeds the sequences and returns the last states."""
        if sequences != self.sequences:
            for context, batch, _ in self.contexts.values():
                llama_cpp.llama_free(context)
                llama_cpp.llama_batch_free(batch)
            self.sequences, self.contexts = sequences, {}
        count = len(sequences)
        states = numpy.zeros((count, self.hidden), dtype=numpy.float32)
        if way not in self.contexts:
            self.contexts[way] = self.context(way == "layers", sequences, states)
        context, batch, states = self.contexts[way]

        def run() -> numpy.ndarray:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)
            status = llama_cpp.llama_decode(context, batch)
            if status != 0:
                sys.exit(f"llama_decode: {status}")
            if way == "embeddings":
                for sequence in range(count):
                    pooled = llama_cpp.llama_get_embeddings_seq(context, sequence)
                    states[sequence] = numpy.ctypeslib.as_array(pooled, (self.hidden,))
            return states

        return run

    def context(self, layers: bool, sequences: list, states: numpy.ndarray) -> tuple:
        """A context, the batch of the sequences, and where their last states will be."""
        count, length = len(sequences), len(sequences[0])
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = count * length
        parameters.n_seq_max = count
        parameters.n_threads = parameters.n_threads_batch = self.threads
        parameters.embeddings = not layers
        parameters.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_LAST
        if layers:
            # The callback has to live as long as its context.
            parameters.cb_eval = self.observer = self.stop_behind_last_norm(states)
        context = llama_cpp.llama_init_from_model(self.model, parameters)
        if not context:
            sys.exit("llama.cpp makes no context")
        batch = llama_cpp.llama_batch_init(count * length, 0, 1)
        batch.n_tokens = count * length
        for row in range(count * length):
            sequence, position = divmod(row, length)
            batch.token[row] = sequences[sequence][position]
            batch.pos[row] = position
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = sequence
            batch.logits[row] = not layers or position == length - 1
        return context, batch, states

    def stop_behind_last_norm(self, states: numpy.ndarray):
        """A callback that copies the normalised states of the outputs and computes no further."""

        def observe(tensor: int, asked: bool, _data: object) -> bool:
            if asked:
                return self.tensors.ggml_get_name(tensor) == b"result_norm"
            values = self.tensors.ggml_get_data_f32(tensor)
            states[:] = numpy.ctypeslib.as_array(values, states.shape)
            return False

        return llama_cpp.ggml_backend_sched_eval_callback(observe)


if __name__ == "__main__":
    main()
