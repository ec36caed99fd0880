# SPDX-License-Identifier: Apache-2.0
"""Holds what a server says against the OpenAPI document that it serves."""

import json
import re

import jsonschema

JSON, NDJSON, EVENTS = "application/json", "application/x-ndjson", "text/event-stream"


def events_of(text):
    """The data of each event of a stream (HTML, "Server-sent events"); comments are passed over."""
    found = []
    for block in text.split("\n\n"):
        data = [line.removeprefix("data:").strip() for line in block.split("\n") if line.startswith("data:")]
        if data:
            found.append(json.loads("\n".join(data)))
    return found


def parts_of(kind, body):
    """The documents of a body: one, or those of a stream."""
    if kind == NDJSON:
        return [json.loads(line) for line in body.decode().splitlines()]
    return events_of(body.decode()) if kind == EVENTS else [json.loads(body)]


class OpenApi:
    def __init__(self, document):
        self.document = document
        self.resolver = jsonschema.RefResolver.from_schema(document)
        self.operations = {}  # (method, template): what it says
        self.seen = set()
        for template, item in document["paths"].items():
            for method, operation in item.items():
                if method != "parameters":
                    self.operations[method.upper(), template] = operation

    def not_seen(self, tag):
        """Operations of this tag of which no answer was checked but errors."""
        return {which for which, operation in self.operations.items() if tag in operation["tags"]} - self.seen

    def resolve(self, value):
        return self.resolver.resolve(value["$ref"])[1] if "$ref" in value else value

    def schemas(self):
        """Every schema of the document, with where it is."""
        for name, schema in self.document["components"]["schemas"].items():
            yield name, schema
        for (method, template), operation in self.operations.items():
            for parameter in operation.get("parameters", []):
                yield f"{method} {template}", self.resolve(parameter)["schema"]
            contents = [operation.get("requestBody", {}), *map(self.resolve, operation["responses"].values())]
            for content in contents:
                for kind, media in content.get("content", {}).items():
                    if kind not in (JSON, NDJSON, EVENTS):
                        continue  # bytes, of which there is nothing to say
                    yield f"{method} {template} {kind}", media.get("schema", {})

    def template_of(self, path):
        """The document's path for one that was asked for."""
        for template in sorted(self.document["paths"], key=lambda template: template.count("{")):
            if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), path.partition("?")[0]):
                return template
        return None

    def check(self, method, path, answer):
        """Fails when the document does not have such an answer."""
        template = self.template_of(path)
        operation = self.operations.get((method, template))
        if operation is None:
            said = self.document["components"]["responses"]["Error"]
            assert answer.status >= 400, f"{method} {path} is not described, and was answered by {answer}"
        else:
            code = str(answer.status)
            assert code in operation["responses"] or answer.status >= 400, f"{method} {path}: {answer}"
            said = self.resolve(operation["responses"].get(code) or operation["responses"]["default"])
            if answer.status < 400:
                self.seen.add((method, template))
        assert answer.headers["X-Request-Id"], answer
        if "content" not in said:
            assert answer.body == b"" and answer.headers["Content-Type"] is None, f"{method} {path}: {answer}"
            return
        kind = answer.headers["Content-Type"].partition(";")[0]
        assert kind in said["content"], f"{method} {path}: {kind}"
        if kind in (JSON, NDJSON, EVENTS):
            for part in parts_of(kind, answer.body):
                self.validate(said["content"][kind]["schema"], part, f"{method} {path}")

    def validate(self, schema, value, where):
        validator = jsonschema.Draft202012Validator(schema, resolver=self.resolver)
        wrong = jsonschema.exceptions.best_match(validator.iter_errors(value))
        assert wrong is None, f"{where}: {wrong.json_path}: {wrong.message}"
