"""Syncs a repository over gRPC and follows it to its end.

Usage: CHROMA_SYNC_TOKEN=... sync_repository.py REPOSITORY --collection NAME [options]; see README.md.
Exits 0 when the invocation is complete, 1 when it ended otherwise, 3 when a call was refused.
"""

import argparse
import os
import sys
import time
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from chromasync.v1 import invocation_pb2, invocation_service_pb2, invocation_service_pb2_grpc
from chromasync.v1 import source_pb2, source_service_pb2, source_service_pb2_grpc

ENDED = (
    invocation_pb2.Invocation.STATE_COMPLETE,
    invocation_pb2.Invocation.STATE_FAILED,
    invocation_pb2.Invocation.STATE_CANCELLED,
)
# The server is away or asks to come back later.
COME_BACK = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
SECONDS_BETWEEN_TRIES = 1
MOST_TRIES = 60


class Problem:
    """What the service says about a call that it refused: `google.rpc.Status`, decoded."""

    def __init__(self, error):
        self.code = error.code().name
        self.message = error.details()
        self.reason = ""  # stable, see docs/errors.md; empty when the service did not answer
        self.metadata = {}
        self.violations = []  # (field, description)
        status = rpc_status.from_call(error)
        for detail in status.details if status else ():
            info = error_details_pb2.ErrorInfo()
            bad_request = error_details_pb2.BadRequest()
            if detail.Unpack(info):
                self.reason, self.metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad_request):
                self.violations = [(v.field, v.description) for v in bad_request.field_violations]

    def __str__(self):
        lines = [f"{self.code} {self.reason}".rstrip() + f": {self.message}"]
        lines += [f"  {name} = {value}" for name, value in sorted(self.metadata.items())]
        lines += [f"  {field}: {description}" for field, description in self.violations]
        return "\n".join(lines)


class Client:
    """The calls that this example needs."""

    def __init__(self, channel, token):
        self.metadata = [("x-chroma-token", token)] if token else []
        self.sources = source_service_pb2_grpc.SourceServiceStub(channel)
        self.invocations = invocation_service_pb2_grpc.InvocationServiceStub(channel)

    def create_source(self, database, repository, globs):
        """Returns the id of the source; of the existing one, where it was created before."""
        request = source_service_pb2.CreateSourceRequest(
            database_name=database,
            github=source_pb2.GithubSource(repository=repository, include_globs=globs),
        )
        try:
            return self.sources.CreateSource(request, metadata=self.metadata, timeout=30).id
        except grpc.RpcError as error:
            problem = Problem(error)
            if problem.reason != "SOURCE_EXISTS":
                raise
            return problem.metadata["source_id"]

    def create_invocation(self, source_id, collection, branch, request_id):
        """Tries until there is an answer. The request_id makes all tries one: when only the answer of
        the first was lost, the second returns the invocation that the first created."""
        request = invocation_service_pb2.CreateInvocationRequest(
            source_id=source_id,
            target_collection_name=collection,
            github=invocation_pb2.GithubInput(branch=branch),
            request_id=request_id,
        )
        for tries_left in reversed(range(MOST_TRIES)):
            try:
                return self.invocations.CreateInvocation(request, metadata=self.metadata, timeout=30)
            except grpc.RpcError as error:
                if error.code() not in COME_BACK or tries_left == 0:
                    raise
            time.sleep(SECONDS_BETWEEN_TRIES)

    def watch(self, invocation_id):
        """Yields every message to the end of the invocation. After a broken connection it goes on after
        the last revision seen, so that no change of state is lost or repeated."""
        revision, state, failures = None, None, 0
        while state not in ENDED:
            request = invocation_service_pb2.WatchInvocationRequest(
                invocation_id=invocation_id, after_revision=revision
            )
            try:
                for message in self.invocations.WatchInvocation(request, metadata=self.metadata):
                    revision, state, failures = message.revision, message.invocation.state, 0
                    yield message
                return
            except grpc.RpcError as error:
                failures += 1
                if error.code() not in COME_BACK or failures == MOST_TRIES:
                    raise
                print(f"connection lost after revision {revision}; trying again", file=sys.stderr)
                time.sleep(SECONDS_BETWEEN_TRIES)

    def documents(self, invocation_id):
        """Yields every document with what became of it."""
        page_token = ""
        while True:
            request = invocation_service_pb2.ListDocumentsRequest(
                invocation_id=invocation_id, page_token=page_token
            )
            page = self.invocations.ListDocuments(request, metadata=self.metadata, timeout=30)
            yield from page.documents
            page_token = page.next_page_token
            if not page_token:
                return


def name(enum, value):
    """STATE_PENDING -> pending: the part of a value's name that is its own."""
    prefix = enum.DESCRIPTOR.name.upper() + "_"
    return enum.Name(value).removeprefix(prefix).lower()


def show(message):
    """One line a message, such as `state_changed 2 processing fetching 0/10 documents`."""
    kind = name(invocation_service_pb2.WatchInvocationResponse.Kind, message.kind)
    invocation, counts = message.invocation, message.invocation.statistics
    state = name(invocation_pb2.Invocation.State, invocation.state)
    phase = name(invocation_pb2.Invocation.Phase, invocation.phase)
    settled = sum(
        (
            counts.documents_indexed,
            counts.documents_unchanged,
            counts.documents_removed,
            counts.documents_skipped,
            counts.documents_failed,
        )
    )
    line = f"{kind} {message.revision} {state} {phase} {settled}/{counts.documents_discovered} documents"
    print(line, flush=True)


def run(client, options):
    source_id = client.create_source(options.database, options.repository, options.include)
    print(f"source {source_id}", flush=True)
    created = client.create_invocation(source_id, options.collection, options.branch, options.request_id)
    print(f"invocation {created.id}", flush=True)
    ended = created
    for message in client.watch(created.id):
        show(message)
        ended = message.invocation
    for document in client.documents(created.id):
        outcome = name(invocation_pb2.Document.Outcome, document.outcome)
        print(f"{outcome} {document.document_key} {document.detail}".rstrip())
    if ended.HasField("failure"):
        print(f"{ended.failure.reason}: {ended.failure.message}", file=sys.stderr)
    return 0 if ended.state == invocation_pb2.Invocation.STATE_COMPLETE else 1


def main():
    parser = argparse.ArgumentParser(description="Sync a repository over gRPC and follow it to its end.")
    parser.add_argument("repository", help="owner/name")
    parser.add_argument("--server", default="127.0.0.1:50051", help="HOST:PORT (default: %(default)s)")
    parser.add_argument("--database", default="default_database", help="default: %(default)s")
    parser.add_argument("--collection", required=True, help="collection to sync into")
    parser.add_argument("--branch", help="branch or tag; default: the default branch")
    parser.add_argument("--include", action="append", default=[], metavar="GLOB", help="default: every file")
    parser.add_argument("--request-id", default=str(uuid.uuid4()), help="UUID; default: a new one")
    options = parser.parse_args()
    with grpc.insecure_channel(options.server) as channel:
        try:
            return run(Client(channel, os.environ.get("CHROMA_SYNC_TOKEN", "")), options)
        except grpc.RpcError as error:
            print(Problem(error), file=sys.stderr)
            return 3


if __name__ == "__main__":
    sys.exit(main())
