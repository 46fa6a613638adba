"""Writes all-MiniLM-L6-v2 as an ONNX graph from its safetensors file, so that both sides of the bench compute with
the very same weights.

Inputs: input_ids and attention_mask, int64 [batch, tokens]. Output: the last hidden states, float32
[batch, tokens, 384]. The graph is that of BERT (Devlin et al. 2018) with the operators of opset 20, of which ONNX
Runtime makes the same fused kernels as of the graph that torch exports.

Usage: export_minilm.py MODEL_DIRECTORY OUTPUT.onnx
"""

import json
import pathlib
import sys

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

directory, output = pathlib.Path(sys.argv[1]), sys.argv[2]
config = json.loads((directory / "config.json").read_text())
weights = load_file(directory / "model.safetensors")
hidden, heads = config["hidden_size"], config["num_attention_heads"]
epsilon = config["layer_norm_eps"]
size = hidden // heads

nodes, constants = [], {}


def constant(name, value, kind=numpy.float32):
    constants[name] = numpy_helper.from_array(numpy.ascontiguousarray(value, dtype=kind), name)
    return name


def weight(name):
    return constant(name, weights[name])


def node(operator, inputs, name, **attributes):
    nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
    return name


def linear(x, prefix, name):
    product = node("MatMul", [x, constant(f"{prefix}.weight.T", weights[f"{prefix}.weight"].T)], f"{name}.product")
    return node("Add", [product, weight(f"{prefix}.bias")], name)


def normalized(x, prefix, name):
    inputs = [x, weight(f"{prefix}.weight"), weight(f"{prefix}.bias")]
    return node("LayerNormalization", inputs, name, axis=-1, epsilon=epsilon)


def embeddings():
    words = node("Gather", [weight("embeddings.word_embeddings.weight"), "input_ids"], "words")
    tokens = node("Shape", ["input_ids"], "tokens", start=1)
    rows = constant("rows", [0], numpy.int64)
    places = node("Slice", [weight("embeddings.position_embeddings.weight"), rows, tokens, rows], "places")
    kind = constant("kind", weights["embeddings.token_type_embeddings.weight"][0])
    total = node("Add", [node("Add", [words, places], "words.places"), kind], "total")
    return normalized(total, "embeddings.LayerNorm", "embedded")


def attention(x, prefix, bias):
    def split(part, order):
        projected = linear(x, f"{prefix}.self.{part}", f"{prefix}.{part}")
        apart = node("Reshape", [projected, "apart"], f"{prefix}.{part}.apart")
        return node("Transpose", [apart], f"{prefix}.{part}.turned", perm=order)

    query, key = split("query", [0, 2, 1, 3]), split("key", [0, 2, 3, 1])
    value = split("value", [0, 2, 1, 3])
    scores = node("Div", [node("MatMul", [query, key], f"{prefix}.scores"), "scale"], f"{prefix}.scaled")
    scores = node("Softmax", [node("Add", [scores, bias], f"{prefix}.masked")], f"{prefix}.shares", axis=-1)
    mixed = node("MatMul", [scores, value], f"{prefix}.mixed")
    turned = node("Transpose", [mixed], f"{prefix}.back", perm=[0, 2, 1, 3])
    joined = node("Reshape", [turned, "joined"], f"{prefix}.together")
    return linear(joined, f"{prefix}.output.dense", f"{prefix}.out")


constant("apart", [0, 0, heads, size], numpy.int64)
constant("joined", [0, 0, hidden], numpy.int64)
constant("scale", numpy.sqrt(size))
constant("axes", [1, 2], numpy.int64)
state = embeddings()
allowed = node("Cast", ["attention_mask"], "mask.float", to=TensorProto.FLOAT)
hidden_ones = node("Sub", [constant("ones", 1.0), allowed], "mask.inverse")
masked = node("Mul", [hidden_ones, constant("least", -10_000.0)], "mask.flat")
mask = node("Unsqueeze", [masked, "axes"], "mask.bias")
for layer in range(config["num_hidden_layers"]):
    prefix = f"encoder.layer.{layer}"
    attended = node("Add", [attention(state, f"{prefix}.attention", mask), state], f"{prefix}.attended")
    state = normalized(attended, f"{prefix}.attention.output.LayerNorm", f"{prefix}.middle")
    wide = linear(state, f"{prefix}.intermediate.dense", f"{prefix}.wide")
    narrow = linear(node("Gelu", [wide], f"{prefix}.gelu"), f"{prefix}.output.dense", f"{prefix}.narrow")
    total = node("Add", [narrow, state], f"{prefix}.total")
    state = normalized(total, f"{prefix}.output.LayerNorm", f"{prefix}.done")

inputs = [
    helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
    for name in ("input_ids", "attention_mask")
]
outputs = [helper.make_tensor_value_info(state, TensorProto.FLOAT, ["batch", "tokens", hidden])]
graph = helper.make_graph(nodes, "all-MiniLM-L6-v2", inputs, outputs, list(constants.values()))
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
onnx.checker.check_model(model)
onnx.save(model, output)
