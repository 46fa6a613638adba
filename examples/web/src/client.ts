// The gRPC-Web client that the page and the command share. It runs in browsers and in Node.
import { Code, ConnectError, createClient, type Client, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import {
  InvocationService,
  type WatchInvocationResponse,
} from "./generated/chromasync/v1/invocation_service_pb";
import { Invocation_State } from "./generated/chromasync/v1/invocation_pb";
import { SourceService } from "./generated/chromasync/v1/source_service_pb";
import { BadRequestSchema, ErrorInfoSchema } from "./generated/google/rpc/error_details_pb";

/** Milliseconds between two tries to take up a watch again. */
const RESUME_INTERVAL = 1_000;

/** The clients of one server. */
export interface Clients {
  sources: Client<typeof SourceService>;
  invocations: Client<typeof InvocationService>;
}

/**
 * Clients of the server at `address` (`http://HOST:PORT`) with an API key's token. An empty token sends
 * none. Nothing is sent before the first call.
 */
export function connect(address: string, token: string): Clients {
  const sendToken: Interceptor = (next) => (request) => {
    if (token !== "") request.header.set("x-chroma-token", token);
    return next(request);
  };
  const transport = createGrpcWebTransport({
    baseUrl: address.replace(/\/+$/, ""),
    interceptors: [sendToken],
  });
  return {
    sources: createClient(SourceService, transport),
    invocations: createClient(InvocationService, transport),
  };
}

/** Whether nothing can change any more. */
export function hasEnded(state: Invocation_State): boolean {
  return (
    state === Invocation_State.COMPLETE ||
    state === Invocation_State.FAILED ||
    state === Invocation_State.CANCELLED
  );
}

/**
 * Follows an invocation to its end and yields every message. When the connection breaks or the server
 * goes away, it calls again with the last revision it saw, so no change of state is lost or repeated.
 *
 * @throws ConnectError when the first call fails, or when the server refuses to go on.
 */
export async function* follow(
  clients: Clients,
  invocationId: string,
  signal?: AbortSignal,
): AsyncGenerator<WatchInvocationResponse> {
  let last: WatchInvocationResponse | undefined;
  for (;;) {
    const request = { invocationId, ...(last && { afterRevision: last.revision }) };
    try {
      for await (const message of clients.invocations.watchInvocation(request, signal ? { signal } : {})) {
        last = message;
        yield message;
      }
      return;
    } catch (error) {
      if (last === undefined || signal?.aborted || !mayResume(error)) throw error;
      // The end may have been seen already, and only the trailers after it been lost.
      if (last.invocation && hasEnded(last.invocation.state)) return;
      await new Promise((wake) => setTimeout(wake, RESUME_INTERVAL));
    }
  }
}

/** An error as a person or a program wants it. */
export interface Problem {
  /** Name of the gRPC code. */
  code: string;
  /** What happened and what to do about it. */
  message: string;
  /** Stable identifier of `docs/errors.md`; empty when the error is not the service's own. */
  reason: string;
  /** What belongs to the reason, such as the id of the source that exists already. */
  metadata: Record<string, string>;
  /** The wrong fields of the request. */
  violations: { field: string; description: string }[];
}

/** Decodes what the service puts into an error (`google.rpc.Status`). */
export function problemOf(error: unknown): Problem {
  const known = ConnectError.from(error);
  const info = known.findDetails(ErrorInfoSchema)[0];
  return {
    code: Code[known.code] ?? String(known.code),
    message: known.rawMessage,
    reason: info?.reason ?? "",
    metadata: info?.metadata ?? {},
    violations: known
      .findDetails(BadRequestSchema)
      .flatMap((details) => details.fieldViolations)
      .map(({ field, description }) => ({ field, description })),
  };
}

/** What is no answer of the service is a broken connection; of its answers two ask to come back. */
function mayResume(error: unknown): boolean {
  const { code, reason } = problemOf(error);
  return reason === "" || code === Code[Code.Unavailable] || code === Code[Code.ResourceExhausted];
}
