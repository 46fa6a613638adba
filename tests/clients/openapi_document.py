"""Checks the OpenAPI document at URL against the rules of OpenAPI 3.1, and its examples against its schemas.

Usage: openapi_document.py URL. Prints {"operations": [operationId, ...], "examples": COUNT}.
"""

import json
import sys
from urllib.request import urlopen

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


def examples(node):
    """Yields (schema, example) of every parameter, header and body at or below a part of the document."""
    if isinstance(node, list):
        for part in node:
            yield from examples(part)
    elif isinstance(node, dict):
        if isinstance(schema := node.get("schema"), dict):
            if "example" in node:
                yield schema, node["example"]
            yield from ((schema, example["value"]) for example in node.get("examples", {}).values())
        # The examples of a schema are a list; those of a body or parameter were taken above.
        if "type" in node and isinstance(node.get("examples"), list):
            yield from ((node, example) for example in node["examples"])
        for part in node.values():
            yield from examples(part)


def main():
    with urlopen(sys.argv[1]) as answer:
        document = json.load(answer)
    OpenAPIV31SpecValidator(document).validate()
    registry = Registry().with_resource("urn:document", DRAFT202012.create_resource(document))
    count = 0
    for schema, example in examples(document):
        schema = json.loads(json.dumps(schema).replace('"#/components/', '"urn:document#/components/'))
        Draft202012Validator(schema, registry=registry).validate(example)
        count += 1
    operations = [
        operation["operationId"]
        for item in document["paths"].values()
        for method, operation in item.items()
        if method in METHODS
    ]
    print(json.dumps({"operations": operations, "examples": count}))


main()
