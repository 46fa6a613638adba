"""Calls every operation of an OpenAPI document with what it allows and what it forbids.

Usage: openapi_calls.py URL TOKEN OTHER_TOKEN

schemathesis runs all of its phases with all of its checks against the server at URL: the examples of the
document, the boundaries of every schema, random requests, and sequences of requests along the links. The two
tokens are of different tenants, which must not see each other's objects. Before the run every operation on one
object is given an object of its own, whose id its example has, so that it succeeds whatever the sequences reach.
Nothing else is left to chance either: two runs against an empty server send the same requests.

Prints one JSON object: `answers` counts the answers by operation and status, `checks` the checks that passed by
name. Whatever is found goes to standard error with the request that shows it, and the exit code is 1.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from urllib.request import Request, urlopen

HERE = Path(__file__).parent
SCHEMATHESIS = (sys.executable, "-m", "schemathesis.cli", "run")


def summary(report):
    """Counts what a report in the format NDJSON has."""
    answers, checks = defaultdict(Counter), Counter()
    for line in report.read_text().splitlines():
        scenario = json.loads(line).get("ScenarioFinished")
        if scenario is None:
            continue
        recorder = scenario["recorder"]
        for case_id, interaction in recorder.get("interactions", {}).items():
            case = recorder["cases"][case_id]["value"]
            status = (interaction["response"] or {}).get("status_code", "none")
            answers[f"{case['method']} {case['path']}"][str(status)] += 1
        for found in recorder.get("checks", {}).values():
            checks.update(check["name"] for check in found if check["status"] == "success")
    return {"answers": answers, "checks": checks}


def create(url, token, path, body):
    """What the server answers when something is created."""
    headers = {"x-chroma-token": token, "content-type": "application/json"}
    with urlopen(Request(f"{url}{path}", json.dumps(body).encode(), headers)) as answer:
        return json.load(answer)


def own_object(url, token, name):
    """The parameters of a path that name a new source or a new pending invocation; `name` is not used twice."""
    source = {"database_name": "default_database", "github": {"repository": f"examples/{name}"}}
    source_id = create(url, token, "/api/v1/sources", source)["source_id"]
    invocation = {"target_collection_name": name, "ref_identifier": {"branch": "main"}}
    created = create(url, token, f"/api/v1/sources/{source_id}/invocations", invocation)
    return {"source_id": source_id, "invocation_id": created["invocation_id"]}


def give_objects(document, url, token):
    """Makes the ids in the examples of every operation those of objects that nothing else is done to."""
    shared = document["components"]["parameters"]
    for item in document["paths"].values():
        parameters = [shared[parameter["$ref"].rsplit("/", 1)[1]] for parameter in item.pop("parameters", [])]
        for operation in item.values():
            if parameters:
                ids = own_object(url, token, operation["operationId"])
                named = [{**parameter, "example": ids[parameter["name"]]} for parameter in parameters]
                operation["parameters"] = operation.get("parameters", []) + named


def main():
    url, *tokens = sys.argv[1:]
    names = ("one", "two")
    users = [
        {"name": name, "fixedHeaders": [{"name": "x-chroma-token", "value": token}]}
        for name, token in zip(names, tokens, strict=True)
    ]
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        (work / "users.json").write_text(json.dumps({"auth": users}))
        (work / "schemathesis.toml").write_text((HERE / "schemathesis.toml").read_text())
        # From a file: schemathesis does not call the address that it has the document from.
        with urlopen(f"{url}/openapi.json") as answer:
            document = json.load(answer)
        give_objects(document, url, tokens[0])
        (work / "openapi.json").write_text(json.dumps(document))
        report = work / "report.ndjson"
        arguments = ("--report", "ndjson", "--report-ndjson-path", str(report), "--no-color")
        run = subprocess.run(
            [*SCHEMATHESIS, "openapi.json", "--url", url, *arguments],
            cwd=work,
            env={**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
        if run.returncode != 0:
            sys.exit(run.stdout + run.stderr)
        print(json.dumps(summary(report)))


main()
