// The same client in Node: creates an invocation and follows it to its end.
//
// Usage: CHROMA_SYNC_TOKEN=... node dist/command.mjs SERVER SOURCE_ID COLLECTION
// Prints one line of JSON a message. Exits 0 when the invocation is complete, 1 when it ended otherwise,
// and 3 with the decoded error when a call was refused.
import { connect, follow, problemOf } from "./client";
import { Invocation_State } from "./generated/chromasync/v1/invocation_pb";
import { kindName, phaseName, settled, stateName } from "./words";

const [server, sourceId, targetCollectionName] = process.argv.slice(2);
if (server === undefined || sourceId === undefined || targetCollectionName === undefined) {
  console.error("usage: node dist/command.mjs SERVER SOURCE_ID COLLECTION");
  process.exit(2);
}

const clients = connect(server, process.env["CHROMA_SYNC_TOKEN"] ?? "");
try {
  const { id } = await clients.invocations.createInvocation({ sourceId, targetCollectionName });
  for await (const { kind, revision, invocation } of follow(clients, id)) {
    if (invocation === undefined) continue;
    const { state, phase, statistics } = invocation;
    console.log(
      JSON.stringify({
        kind: kindName(kind),
        revision: Number(revision),
        state: stateName(state),
        phase: phaseName(phase),
        documents: Number(statistics?.documentsDiscovered ?? 0),
        settled: Number(statistics ? settled(statistics) : 0),
      }),
    );
    process.exitCode = state === Invocation_State.COMPLETE ? 0 : 1;
  }
} catch (error) {
  console.error(JSON.stringify(problemOf(error)));
  process.exitCode = 3;
}
