// How the values of the contract are shown to people.
import { Invocation_Phase, Invocation_State, type Statistics } from "./generated/chromasync/v1/invocation_pb";
import { WatchInvocationResponse_Kind } from "./generated/chromasync/v1/invocation_service_pb";

/** `pending`, `processing`, ... */
export function stateName(state: Invocation_State): string {
  return Invocation_State[state].toLowerCase();
}

/** `queued`, `fetching`, ... */
export function phaseName(phase: Invocation_Phase): string {
  return Invocation_Phase[phase].toLowerCase();
}

/** `snapshot`, `state_changed`, ... */
export function kindName(kind: WatchInvocationResponse_Kind): string {
  return WatchInvocationResponse_Kind[kind].toLowerCase();
}

/** Documents of which it is known what becomes of them. */
export function settled(counts: Statistics): bigint {
  return (
    counts.documentsIndexed +
    counts.documentsUnchanged +
    counts.documentsRemoved +
    counts.documentsSkipped +
    counts.documentsFailed
  );
}
