"""Makes a collection with a dense and a sparse index, as a user of the stock client does, and upserts records.

argv: port, tenant, database, name, dense model, sparse model; then, where there are records, a file with the bodies
of upserts, whose sparse vectors the client makes by itself.
"""

import base64
import json
import sys

import chromadb
import numpy
from chromadb import Schema, SparseVectorIndexConfig, VectorIndexConfig
from chromadb.utils.embedding_functions import DefaultEmbeddingFunction
from chromadb.utils.embedding_functions.chroma_bm25_embedding_function import ChromaBm25EmbeddingFunction
from chromadb.utils.embedding_functions.chroma_cloud_qwen_embedding_function import (
    ChromaCloudQwenEmbeddingFunction,
    ChromaCloudQwenEmbeddingModel,
)
from chromadb.utils.embedding_functions.chroma_cloud_splade_embedding_function import (
    ChromaCloudSpladeEmbeddingFunction,
)

port, tenant, database, name, dense, sparse, *files = sys.argv[1:]
if dense.startswith("Qwen/"):
    dense = ChromaCloudQwenEmbeddingFunction(ChromaCloudQwenEmbeddingModel(dense), "nl_to_code")
else:
    dense = DefaultEmbeddingFunction()
bm25 = sparse == "Chroma/BM25"
sparse = ChromaBm25EmbeddingFunction() if bm25 else ChromaCloudSpladeEmbeddingFunction()

schema = Schema()
schema.create_index(config=VectorIndexConfig(space="cosine", embedding_function=dense))
index = SparseVectorIndexConfig(embedding_function=sparse, source_key="#document", bm25=True if bm25 else None)
schema.create_index(config=index, key="sparse_embedding")
client = chromadb.HttpClient(host="127.0.0.1", port=int(port), tenant=tenant, database=database)
collection = client.get_or_create_collection(name, schema=schema, metadata={"finished_ingest": False})
for file in files:
    for body in json.load(open(file, encoding="utf-8")):
        vectors = [numpy.frombuffer(base64.b64decode(text), dtype="<f4") for text in body["embeddings"]]
        collection.upsert(
            ids=body["ids"], embeddings=vectors, documents=body["documents"], metadatas=body["metadatas"]
        )
print(json.dumps({}))
