# SPDX-License-Identifier: Apache-2.0
"""Pushes to a registry that asks for nothing (distribution-spec, "Push")."""

import http.client
import urllib.parse

from .content import Index


class Pusher:
    def __init__(self, registry, name):
        self.registry = registry
        self.name = name

    def __enter__(self):
        if self.registry.authority:
            context = self.registry.authority.client_context()
            self._connection = http.client.HTTPSConnection("localhost", self.registry.port, timeout=60, context=context)
        else:
            self._connection = http.client.HTTPConnection("localhost", self.registry.port, timeout=60)
        return self

    def __exit__(self, *unused):
        self._connection.close()

    def _ask(self, wanted, method, path, body=None, headers=()):
        self._connection.request(method, path, body=body, headers=dict(headers))
        response = self._connection.getresponse()
        text = response.read()
        if response.status not in wanted:
            raise RuntimeError(f"{method} {path} was answered by {response.status}: {text.decode(errors='replace')}")
        return response

    def blob(self, digest, content):
        if self._ask((200, 404), "HEAD", f"/v2/{self.name}/blobs/{digest}").status == 200:
            return
        place = self._ask((202,), "POST", f"/v2/{self.name}/blobs/uploads/").headers["Location"]
        place = urllib.parse.urlsplit(place)
        query = f"{place.query}&" if place.query else ""
        self._ask((201,), "PUT", f"{place.path}?{query}digest={urllib.parse.quote(digest)}", content,
                  {"Content-Type": "application/octet-stream"})

    def manifest(self, reference, media_type, content):
        self._ask((201,), "PUT", f"/v2/{self.name}/manifests/{reference}", content, {"Content-Type": media_type})

    def delete(self, digest):
        self._ask((202,), "DELETE", f"/v2/{self.name}/manifests/{digest}")


def push(registry, name, tag, image):
    """`image`: content.Image or content.Index. Gives NAME:TAG without the registry."""
    with Pusher(registry, name) as pusher:
        for part in image.images if isinstance(image, Index) else [image]:
            for digest, content in part.blobs.items():
                pusher.blob(digest, content)
            if part is not image:
                pusher.manifest(part.digest, part.manifest_type, part.manifest)
        pusher.manifest(tag, image.manifest_type, image.manifest)
    return f"{name}:{tag}"
