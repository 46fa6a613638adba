"""Embeds texts with Chroma's own embedding functions, wherever CHROMA_EMBED_URL points to.

Usage: embed_texts.py TEXT...

Prints one JSON object: what the dense function makes of the texts as documents and as queries, or the error that
it shows.
"""

import json
import sys

from chromadb.utils.embedding_functions.chroma_cloud_qwen_embedding_function import (
    ChromaCloudQwenEmbeddingFunction,
    ChromaCloudQwenEmbeddingModel,
)

function = ChromaCloudQwenEmbeddingFunction(
    model=ChromaCloudQwenEmbeddingModel.QWEN3_EMBEDDING_0p6B, task="nl_to_code"
)
texts = sys.argv[1:]
try:
    embed = {"documents": function(texts), "queries": function.embed_query(texts)}
    found = {purpose: [vector.tolist() for vector in vectors] for purpose, vectors in embed.items()}
except RuntimeError as error:
    found = {"error": str(error)}
print(json.dumps(found))
