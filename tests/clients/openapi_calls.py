"""Calls every operation of an OpenAPI document with what it allows and what it forbids.

Usage: openapi_calls.py URL TOKEN OTHER_TOKEN

schemathesis runs all of its phases with all of its checks against the server at URL: the examples of the
document, the boundaries of every schema, random requests, and sequences of requests along the links. The two
tokens are of different tenants, which must not see each other's objects. Nothing is left to chance, so two runs
against an empty server send the same requests.

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
from urllib.request import urlopen

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
            (work / "openapi.json").write_bytes(answer.read())
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
