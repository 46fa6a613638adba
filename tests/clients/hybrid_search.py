"""Prints the search by dense and sparse vectors that Chroma's own client would send, as JSON.

Standard input has one JSON object: `vector`, `key`, `indices`, `values`, `where`, `ranked`, `limit`, `offset`.
"""

import json
import sys

from chromadb.base_types import SparseVector
from chromadb.execution.expression import K, Knn, Rrf, Search

asked = json.load(sys.stdin)


def ranking(query, key):
    return Knn(query=query, key=key, limit=asked["ranked"], default=float(asked["ranked"]), return_rank=True)


sparse = SparseVector(indices=asked["indices"], values=asked["values"])
search = (
    Search()
    .where(asked["where"])
    .rank(Rrf([ranking(asked["vector"], K.EMBEDDING), ranking(sparse, asked["key"])]))
    .limit(asked["limit"], asked["offset"])
    .select(K.DOCUMENT, K.METADATA, K.SCORE)
    .to_dict()
)
search["select"]["keys"].sort()
print(json.dumps(search))
