#!/usr/bin/env python3
"""Runs MiniLM in ONNX Runtime and, where it is installed, OpenVINO, for `cargo bench -p chroma-sync-encoder --bench minilm`.

    python3 -m venv target/encoder-peers
    target/encoder-peers/bin/pip install onnx onnxruntime==1.31.1 openvino tokenizers==0.23.3 numpy safetensors

The graph is written here from the very safetensors file. ONNX Runtime gets it as its own optimiser leaves a BERT: with
its fused operators for embedding, attention, residual sums and GELU. OpenVINO gets standard operators, and fuses itself.

Reads one JSON value a line from standard input and answers each with one: first the texts, answered with their token
ids; then the name of an engine ("onnxruntime", "openvino f32", "openvino bf16"), answered with null if it is not
there, else with the processor seconds of embedding all texts once, the tokens and the vectors.

Arguments: the model's directory, the number of threads.
"""

import json
import pathlib
import sys
import time

import numpy
import onnx
import safetensors.numpy
import tokenizers
from onnx import TensorProto, helper, numpy_helper

BATCH = 8


def main() -> None:
    directory, threads = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    config = json.loads((directory / "config.json").read_text())
    weights = safetensors.numpy.load_file(directory / "model.safetensors")
    ids = [tokenizer.encode(text).ids for text in json.loads(sys.stdin.readline())]
    answer(ids)
    # Sorted by length and eight at a time is what padding engines are fastest with.
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    engines = {}
    for line in sys.stdin:
        name = json.loads(line)
        if name not in engines:
            engines[name] = load(name, weights, config, threads)
        run = engines[name]
        if run is None:
            answer(None)
            continue
        vectors = [None] * len(ids)
        start = time.process_time()
        for batch in batches:
            length = max(len(ids[index]) for index in batch)
            padded = numpy.zeros((len(batch), length), dtype=numpy.int64)
            mask = numpy.zeros((len(batch), length), dtype=numpy.int64)
            for row, index in enumerate(batch):
                padded[row, : len(ids[index])] = ids[index]
                mask[row, : len(ids[index])] = 1
            states = run(padded, mask)
            sums = (states * mask[:, :, None]).sum(axis=1)
            for row, index in enumerate(batch):
                vectors[index] = sums[row] / numpy.linalg.norm(sums[row])
        seconds = time.process_time() - start
        answer({"seconds": seconds, "vectors": [vector.tolist() for vector in vectors]})


def answer(value: object) -> None:
    print(json.dumps(value), flush=True)


def load(name: str, weights: dict, config: dict, threads: int):
    """A function from ids and mask to states, or None if the engine is not installed."""
    if name == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        model = graph(weights, config, fused=True).SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return lambda ids, mask: session.run(
            None, {"ids": ids.astype(numpy.int32), "mask": mask.astype(numpy.int32)}
        )[0]
    try:
        import openvino
    except ImportError:
        return None
    core = openvino.Core()
    model = core.read_model(graph(weights, config, fused=False).SerializeToString())
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": name.removeprefix("openvino "),
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda ids, mask: request.infer({"ids": ids, "mask": mask})[0]


def graph(weights: dict, config: dict, fused: bool) -> onnx.ModelProto:
    """The encoder up to the last states."""
    hidden, heads, epsilon = config["hidden_size"], config["num_attention_heads"], config["layer_norm_eps"]
    width = hidden // heads
    nodes, constants = [], []

    def constant(name: str, value) -> str:
        constants.append(numpy_helper.from_array(numpy.ascontiguousarray(value), name))
        return name

    def node(kind: str, inputs: list, count: int = 1, domain: str = "", **attributes):
        names = [f"{kind}{len(nodes)}_{index}" for index in range(count)]
        nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names[0]

    def weight(name: str) -> str:
        return constant(name, weights[name])

    def linear(name: str, states: str) -> str:
        matrix = constant(f"{name}.matrix", weights[f"{name}.weight"].T)
        return node("MatMul", [states, matrix])

    def normalise(name: str, states: str) -> str:
        inputs = [states, weight(f"{name}.weight"), weight(f"{name}.bias")]
        return node("LayerNormalization", inputs, epsilon=epsilon)

    def residual(name: str, norm: str, states: str, summand: str) -> str:
        if fused:
            scale, shift, bias = weight(f"{norm}.weight"), weight(f"{norm}.bias"), weight(f"{name}.bias")
            inputs = [summand, states, scale, shift, bias]
            return node("SkipLayerNormalization", inputs, domain="com.microsoft", epsilon=epsilon)
        summand = node("Add", [summand, weight(f"{name}.bias")])
        return normalise(norm, node("Add", [states, summand]))

    words = weight("embeddings.word_embeddings.weight")
    positions = weight("embeddings.position_embeddings.weight")
    types = weight("embeddings.token_type_embeddings.weight")
    if fused:
        scale = weight("embeddings.LayerNorm.weight")
        shift = weight("embeddings.LayerNorm.bias")
        zeros = node("Mul", ["ids", constant("zero", numpy.int32(0))])
        inputs = ["ids", zeros, words, positions, types, scale, shift, "mask"]
        states = node("EmbedLayerNormalization", inputs, 2, domain="com.microsoft", epsilon=epsilon)
    else:
        length = node("Gather", [node("Shape", ["ids"]), constant("one", numpy.array([1], dtype=numpy.int64))])
        start = constant("start", numpy.array([0], dtype=numpy.int64))
        used = node("Slice", [positions, start, length, constant("axis", numpy.array([0], dtype=numpy.int64))])
        states = node("Gather", [words, "ids"])
        kind = constant("type", weights["embeddings.token_type_embeddings.weight"][0])
        states = node("Add", [states, node("Add", [used, kind])])
        states = normalise("embeddings.LayerNorm", states)
        mask = node("Cast", ["mask"], to=TensorProto.FLOAT)
        mask = node("Unsqueeze", [mask, constant("inner", numpy.array([1, 2], dtype=numpy.int64))])
        padding = node("Sub", [constant("float_one", numpy.float32(1)), mask])
        mask = node("Mul", [padding, constant("low", numpy.float32(-1e4))])
        split = constant("split", numpy.array([0, 0, heads, width], dtype=numpy.int64))
        joined = constant("joined", numpy.array([0, 0, hidden], dtype=numpy.int64))
        root = constant("root", numpy.float32(width**0.5))

    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        parts = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        if fused:
            matrix = numpy.concatenate([weights[f"{part}.weight"].T for part in parts], axis=1)
            bias = numpy.concatenate([weights[f"{part}.bias"] for part in parts])
            inputs = [states, constant(f"{layer}.qkv", matrix), constant(f"{layer}.qkv_bias", bias), "mask"]
            context = node("Attention", inputs, domain="com.microsoft", num_heads=heads)
        else:
            split_parts = []
            for part, order in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])):
                projected = node("Add", [linear(part, states), weight(f"{part}.bias")])
                split_parts.append(node("Transpose", [node("Reshape", [projected, split])], perm=order))
            query, key, value = split_parts
            scores = node("Add", [node("Div", [node("MatMul", [query, key]), root]), mask])
            context = node("MatMul", [node("Softmax", [scores], axis=-1), value])
            context = node("Reshape", [node("Transpose", [context], perm=[0, 2, 1, 3]), joined])
        output = f"{layer}.attention.output"
        states = residual(f"{output}.dense", f"{output}.LayerNorm", states, linear(f"{output}.dense", context))
        wide, bias = linear(f"{layer}.intermediate.dense", states), weight(f"{layer}.intermediate.dense.bias")
        if fused:
            wide = node("BiasGelu", [wide, bias], domain="com.microsoft")
        else:
            wide = node("Gelu", [node("Add", [wide, bias])])
        output = f"{layer}.output"
        states = residual(f"{output}.dense", f"{output}.LayerNorm", states, linear(f"{output}.dense", wide))
    nodes.append(helper.make_node("Identity", [states], ["states"]))
    integer = TensorProto.INT32 if fused else TensorProto.INT64
    inputs = [helper.make_tensor_value_info(name, integer, ["batch", "length"]) for name in ("ids", "mask")]
    outputs = [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["batch", "length", hidden])]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(
        helper.make_graph(nodes, "minilm", inputs, outputs, constants), opset_imports=opsets, ir_version=10
    )


if __name__ == "__main__":
    main()
