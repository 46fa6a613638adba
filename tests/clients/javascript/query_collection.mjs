// Asks a collection in words, as anybody does who knows its name alone. The model is found out from the
// collection; where it runs, from CHROMA_EMBED_URL and CHROMA_API_KEY.
//
// Usage: query_collection.mjs HOST PORT DATABASE COLLECTION QUESTION [RECORDS]
//
// Prints one JSON object: the name of the embedding function and the answer, which has 2 records or as many as asked.

import { ChromaClient } from "chromadb";

const [host, port, database, name, question, records = "2"] = process.argv.slice(2);
const client = new ChromaClient({ host, port: Number(port), database });
const collection = await client.getCollection({ name });
const answer = await collection.query({
  queryTexts: [question],
  nResults: Number(records),
  include: ["documents", "metadatas", "distances"],
});
console.log(
  JSON.stringify({
    function: collection.embeddingFunction?.name,
    keys: answer.metadatas[0].map((metadata) => metadata.document_key),
    documents: answer.documents[0],
    distances: answer.distances[0],
  }),
);
