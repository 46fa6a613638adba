"""A caller of the documented REST API of Chroma Sync, with nothing but Python's standard library.

It takes both generations of the documentation: creation answers 200 or 201, an invocation's id is called
`invocation_id` or `id`, and a status is a word or an object with one key.

Usage: CHROMA_SYNC_TOKEN=... sync_repository.py COMMAND ...; see README.md.
Exits 0 on success, 1 when an invocation did not complete, 3 when a call was refused.
"""

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

SECONDS_BETWEEN_POLLS = 0.5
# What the documented statuses mean to a caller, beyond the server's own words.
ADVICE = {
    400: "the request is wrong; the message says where",
    401: "set CHROMA_SYNC_TOKEN to a valid key",
    403: "this key may not do that; only owners and administrators create and delete sources",
    404: "there is no such thing, or not for this key",
    409: "it exists already: the source, or a collection that holds a finished sync",
    412: "only a pending invocation can be cancelled",
    500: "the server failed; try again later",
}


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status, body):
        self.status = status
        self.error = body.get("error", "")
        self.message = body.get("message", "")
        advice = ADVICE.get(status, "see the server's documentation")
        super().__init__(f"{status} {self.error}: {self.message} ({advice})")


class ChromaSync:
    """The documented calls, one method each."""

    def __init__(self, server, token):
        self.base = server.rstrip("/") + "/api/v1"
        self.token = token

    def call(self, method, path, body=None, query=None, expected=(200,)):
        """Returns the JSON of the answer; None when it has no body."""
        url = self.base + path
        if query:
            url += "?" + urllib.parse.urlencode(query)
        request = urllib.request.Request(url, method=method)
        request.add_header("x-chroma-token", self.token)
        if body is not None:
            request.add_header("content-type", "application/json")
            request.data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        answer = parse(content)
        if status not in expected:
            raise Refused(status, answer if isinstance(answer, dict) else {})
        return answer

    def create_source(self, database, model, repository, globs=None):
        body = {
            "database_name": database,
            "embedding_model": model,
            "github": {"repository": repository, "app_id": None, "include_globs": globs},
        }
        return self.call("POST", "/sources", body, expected=(200, 201))["source_id"]

    def get_source(self, source_id):
        return self.call("GET", f"/sources/{source_id}")

    def list_sources(self, **filters):
        return self.call("GET", "/sources", query=filters)

    def delete_source(self, source_id):
        self.call("DELETE", f"/sources/{source_id}", expected=(204,))

    def create_invocation(self, source_id, collection, reference=None):
        """`reference` is {"branch": name} or {"sha": commit}."""
        body = {"target_collection_name": collection}
        if reference is not None:
            body["ref_identifier"] = reference
        path = f"/sources/{source_id}/invocations"
        return self.call("POST", path, body, expected=(200, 201))["invocation_id"]

    def get_invocation(self, invocation_id):
        return self.call("GET", f"/invocations/{invocation_id}")

    def list_invocations(self, **filters):
        return self.call("GET", "/invocations", query=filters)

    def cancel_invocation(self, invocation_id):
        self.call("PUT", f"/invocations/{invocation_id}", expected=(202,))

    def latest_invocations(self, source_id, object_keys):
        path = f"/sources/{source_id}/invocations/latest-by-keys"
        return self.call("POST", path, {"object_keys": object_keys})

    def poll(self, invocation_id):
        """Yields the name and the content of each status that it sees, up to the last one."""
        seen = None
        while True:
            name, content = status_of(self.get_invocation(invocation_id))
            if name != seen:
                yield name, content
                seen = name
            if name in ("complete", "failed", "cancelled"):
                return
            time.sleep(SECONDS_BETWEEN_POLLS)


def parse(content):
    """The JSON; None when there is none, as in an answer of something between us and the server."""
    try:
        return json.loads(content)
    except ValueError:
        return None


def status_of(invocation):
    """`"pending"` -> ("pending", {}); `{"failed": {"error": ...}}` -> ("failed", {"error": ...})."""
    status = invocation["status"]
    if isinstance(status, str):
        return status, {}
    [(name, content)] = status.items()
    return name, content


def id_of(invocation):
    return invocation["id"] if "id" in invocation else invocation["invocation_id"]


def repository_of(source):
    """Of a source of this type; None of others."""
    source_type = source["source_type"]
    return source_type["github"]["repository"] if "github" in source_type else None


def sync(api, options):
    source_id = api.create_source(options.database, options.model, options.repository, options.include)
    print(f"source {source_id}", flush=True)
    reference = {"branch": options.branch} if options.branch else None
    invocation_id = api.create_invocation(source_id, options.collection, reference)
    print(f"invocation {invocation_id}", flush=True)
    for name, content in api.poll(invocation_id):
        print(" ".join([name, *(f"{key}={value}" for key, value in sorted(content.items()))]), flush=True)
    return 0 if name == "complete" else 1


def show_sources(api, options):
    filters = {"limit": options.limit, "offset": options.offset, "order_by": options.order_by}
    if options.database:
        filters["database_name"] = options.database
    if options.repository:
        filters |= {"source_type": "github", "github.repository": options.repository}
    for source in api.list_sources(**filters):
        print(source["id"], source["database_name"], repository_of(source))


def show_invocations(api, options):
    filters = {"limit": options.limit, "offset": options.offset, "order_by": options.order_by}
    if options.source:
        filters["source_id"] = options.source
    if options.status:
        filters["status"] = options.status
    for invocation in api.list_invocations(**filters):
        print(id_of(invocation), invocation["metadata"]["collection_name"], status_of(invocation)[0])


def show_latest(api, options):
    latest = api.latest_invocations(options.source, options.keys)
    for key in options.keys:
        print(key, id_of(latest[key]) if key in latest else "never synced")


def start(api, options):
    reference = {"branch": options.branch} if options.branch else None
    print(api.create_invocation(options.source, options.collection, reference))


def cancel(api, options):
    api.cancel_invocation(options.invocation)
    print("cancelled")


def delete(api, options):
    api.delete_source(options.source)
    print("deleted")


def arguments():
    parser = argparse.ArgumentParser(description="Call the REST API of Chroma Sync.")
    parser.add_argument("--server", default="http://127.0.0.1:50051", help="default: %(default)s")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(act, name, help):
        made = commands.add_parser(name, help=help)
        made.set_defaults(act=act)
        return made

    made = command(sync, "sync", "create a source, sync it and poll to the end")
    made.add_argument("repository", help="owner/name")
    made.add_argument("--database", default="default_database")
    made.add_argument("--model", default="Qwen/Qwen3-Embedding-0.6B", help="a model that the server has")
    made.add_argument("--include", action="append", metavar="GLOB")
    made.add_argument("--collection", required=True)
    made.add_argument("--branch")

    made = command(start, "start", "create an invocation of a source and print its id")
    made.add_argument("source")
    made.add_argument("--collection", required=True)
    made.add_argument("--branch")

    def listed(act, name, help):
        made = command(act, name, help)
        made.add_argument("--limit", type=int, default=100)
        made.add_argument("--offset", type=int, default=0)
        made.add_argument("--order-by", choices=["ASC", "DESC"], default="DESC")
        return made

    made = listed(show_sources, "sources", "list sources: id, database, repository")
    made.add_argument("--database")
    made.add_argument("--repository")
    made = listed(show_invocations, "invocations", "list invocations: id, collection, status")
    made.add_argument("--source")
    made.add_argument("--status", choices=["pending", "processing", "complete", "failed", "cancelled"])

    made = command(show_latest, "latest", "show the newest invocation of each object key")
    made.add_argument("source")
    made.add_argument("keys", nargs="+")
    command(cancel, "cancel", "cancel a pending invocation").add_argument("invocation")
    command(delete, "delete", "delete a source").add_argument("source")
    return parser.parse_args()


def main():
    options = arguments()
    api = ChromaSync(options.server, os.environ.get("CHROMA_SYNC_TOKEN", ""))
    try:
        return options.act(api, options) or 0
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 3
    except urllib.error.URLError as error:
        print(f"no answer from {options.server}: {error.reason}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
