# SPDX-License-Identifier: Apache-2.0
"""The API below /v1: the document that describes it, and what the server tells of itself."""

import json
import pathlib

import jsonschema
from server_bed import needs_root
from server_clients import Http

pytestmark = needs_root


def test_the_document_is_one_of_openapi_3_1(document):
    assert document.document["openapi"].startswith("3.1.")
    assert document.document["info"]["title"] and document.document["info"]["version"]
    for where, schema in document.schemas():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema != {} and schema is not True, where


def test_every_path_says_what_its_names_are(document):
    for (method, template), operation in document.operations.items():
        said = operation.get("parameters", []) + document.document["paths"][template].get("parameters", [])
        named = {parameter["name"] for parameter in map(document.resolve, said) if parameter["in"] == "path"}
        assert named == {part[1:-1] for part in template.split("/") if part.startswith("{")}, (method, template)
        assert operation["operationId"] and operation.get("summary", operation.get("description")), (method, template)
        assert "default" in operation["responses"]
    names = [operation["operationId"] for operation in document.operations.values()]
    assert len(names) == len(set(names))


def test_all_references_lead_somewhere(document):
    def references(value):
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    for reference in references(document.document):
        assert document.resolver.resolve(reference)[1] is not None


def test_health_and_the_document_take_no_key(server, document):
    ask = Http(server.port)
    for path in ("/v1/health", "/v1/openapi.json"):
        answer = ask.get(path)
        assert answer.status == 200
        document.check("GET", path, answer)
    assert json.loads(ask.get("/v1/openapi.json").body) == document.document
    for path in ("/v1/server", "/v1/sandboxes", "/v1/images", "/v1/metrics", "/v1/nothing"):
        answer = ask.get(path)
        assert answer.status == 401 and answer.json["error"]["code"] == "no_key"
        document.check("GET", path, answer)


def test_unknown_paths_are_not_found_and_known_ones_say_their_methods(api, document):
    for path in ("/nothing", "/sandboxes/box/nothing", "/sandboxes/box/exec/more", "/images/a/b", ""):
        assert api.refused("GET", path, status=404)["code"] == "not_found"
    for template in document.document["paths"]:
        path = template.replace("{name}", "box").replace("{id}", "1").replace("{language}", "python").replace("{session}", "main")
        path = path.replace("{image}", "base").removeprefix("/v1")
        answer = api("PATCH", path)
        assert answer.status == 405 and answer.json["error"]["code"] == "method_not_allowed"
        methods = {method.upper() for method in document.document["paths"][template] if method != "parameters"}
        assert methods <= {word.strip() for word in answer.headers["Allow"].split(",")} <= methods | {"HEAD", "OPTIONS"}, template


def test_the_server_says_what_it_and_the_key_allow(api):
    said = api.done("GET", "/server")
    assert said["limits"]["sandboxes"] == 64 and said["key"]["name"] == "all" and said["key"]["namespace"] == "*"
    assert said["version"][0].isdigit()


def test_each_part_of_the_document_has_tests_of_its_own(document):
    tags = {tag for operation in document.operations.values() for tag in operation["tags"]}
    files = {path.stem.removeprefix("test_server_v1_") for path in pathlib.Path(__file__).parent.glob("test_server_v1_*.py")}
    assert tags - files == {"server"}, "which is here"


def test_all_operations_for_server_were_asked_for(document):
    """The last one here: nothing of the document was forgotten by these tests."""
    assert document.not_seen("server") == set()
