"""Searches a collection by a dense and a sparse vector, as a user of the stock client does, and prints what it gets.

argv: port, tenant, database, name.
"""

import json
import sys

import chromadb
from chromadb import K, Knn, Rrf, Search
from chromadb.base_types import SparseVector

port, tenant, database, name = sys.argv[1:]
client = chromadb.HttpClient(host="127.0.0.1", port=int(port), tenant=tenant, database=database)
sparse = SparseVector(indices=[1, 7], values=[0.5, 1.5])
ranks = [
    Knn(query=[0.25, 0.5], return_rank=True, limit=100),
    Knn(query=sparse, key="sparse_embedding", return_rank=True, limit=100),
]
search = Search().where(K("language") == "rust").rank(Rrf(ranks)).limit(10).select(K.DOCUMENT, K.METADATA, K.SCORE)
try:
    client.get_collection(name).search(search)
except Exception as error:
    print(json.dumps(str(error)))
