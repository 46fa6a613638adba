"""Asks a collection in words, as anybody does who knows its name alone. The model is found out from the
collection; where it runs, from CHROMA_EMBED_URL and CHROMA_API_KEY.

Usage: query_collection.py HOST PORT DATABASE COLLECTION QUESTION [RECORDS]

Prints one JSON object: the name of the embedding function and the answer, which has 2 records or as many as asked.
"""

import json
import sys

import chromadb

host, port, database, name, question, *records = sys.argv[1:]
client = chromadb.HttpClient(host=host, port=int(port), database=database)
collection = client.get_collection(name)
answer = collection.query(query_texts=[question], n_results=int(records[0]) if records else 2)
print(
    json.dumps(
        {
            "function": collection.configuration["embedding_function"].name(),
            "keys": [metadata["document_key"] for metadata in answer["metadatas"][0]],
            "documents": answer["documents"][0],
            "distances": answer["distances"][0],
        }
    )
)
