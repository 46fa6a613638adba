"""What a schema cannot say: which parameters go together, and what a glob pattern, a bucket or a URL is."""

import base64
import re

import schemathesis
from hypothesis import strategies

# As the document has it.
WAIT = re.compile(r"(([0-9]|[1-4][0-9]|5[0-5])s|[0-9]{1,4}ms)")
GLOB_PARTS = ("*", "?", "**/", "/", ".", "a", "ü", "[a-z]", "[!0-9]", "{a,b*}", "\\*", "src", "-")

schemathesis.openapi.format(
    "glob", strategies.lists(strategies.sampled_from(GLOB_PARTS), min_size=1, max_size=12).map("".join)
)


schemathesis.openapi.format(
    "path-regex",
    strategies.lists(strategies.sampled_from(("/", "a", "docs", ".*", "[a-z]+", "(b|c)?", "^/x", "y$")), min_size=1, max_size=8).map(
        "".join
    ),
)
schemathesis.openapi.format(
    "bucket-name", strategies.from_regex(r"[a-z][a-z0-9-]{1,40}[a-z0-9]", fullmatch=True)
)
schemathesis.openapi.format(
    "web-url",
    strategies.from_regex(r"https?://[a-z]{1,20}\.example(:[1-9][0-9]{0,3})?(/[A-Za-z0-9_~-]{0,20}){0,3}", fullmatch=True),
)
schemathesis.openapi.format(
    "webhook-url",
    strategies.from_regex(r"https://[a-z]{1,20}\.example(:[1-9][0-9]{0,3})?(/[A-Za-z0-9_~-]{0,20}){0,3}", fullmatch=True),
)
schemathesis.openapi.format(
    "webhook-secret",
    strategies.binary(min_size=24, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode()),
)


# Limits are of bytes, and a schema counts characters. No reserved key begins with a or b.
schemathesis.openapi.format("task-name", strategies.from_regex(r"[a-z]{1,20}(_[a-z]{1,20}){0,3}", fullmatch=True))
schemathesis.openapi.format("prompt", strategies.from_regex(r"([A-Za-z]{1,12} ){0,20}", fullmatch=True))
schemathesis.openapi.format("metadata-key", strategies.from_regex(r"[a-b][a-z0-9_.]{0,40}", fullmatch=True))


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes what is meant to be accepted keep the rules that the descriptions of the parameters give."""
    if case.query and WAIT.fullmatch(str(case.query.get("wait", ""))):
        # It is allowed to be long, and nothing happens meanwhile. What else is wrong with the call stays so.
        case.query["wait"] = "5ms"
    if case.meta is None or not case.meta.generation.mode.is_positive or not case.query:
        return
    if "source_id" in case.query:
        case.query.pop("database_name", None)
    if "github.app_id" in case.query or "github.repository" in case.query:
        case.query["source_type"] = "github"
    if "after_revision" in case.query:
        case.query["after_revision"] = 0
        case.query.setdefault("wait", "5ms")
