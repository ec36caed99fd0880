# SPDX-License-Identifier: Apache-2.0
"""Images made by hand: layers of every media type, in OCI's form and in Docker's, as layouts and for pushing."""

import gzip
import hashlib
import io
import json
import subprocess
import tarfile

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


def digest_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def descriptor_of(media_type, content, **fields):
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **fields}


def tar_of(files):
    """A layer's tar from {path: content}; a path that ends with a slash is a directory."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as writer:
        for path, content in files.items():
            entry = tarfile.TarInfo(path.rstrip("/"))
            entry.mtime = 1_700_000_000
            if path.endswith("/"):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                writer.addfile(entry)
            else:
                entry.size = len(content)
                writer.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def noise(size, seed=b""):
    """Bytes that do not compress, the same each time."""
    return hashlib.shake_128(seed).digest(size)


def compress(tar, kind):
    if kind == "gzip":
        return gzip.compress(tar, 1, mtime=0)
    if kind == "zstd":
        return subprocess.run(["zstd", "-qc"], input=tar, capture_output=True, check=True).stdout
    return tar


class Image:
    """`layers`: (tar, "gzip", "zstd" or ""), lowest first. Its blobs are in memory, under their digests."""

    def __init__(self, layers, docker=False, config=None, system="linux", architecture="amd64", media_types=None):
        self.blobs = {}
        self.system = system
        self.architecture = architecture
        packed = [compress(tar, kind) for tar, kind in layers]
        suffix = {"gzip": ".gzip", "zstd": ".zstd", "": ""} if docker else {"gzip": "+gzip", "zstd": "+zstd", "": ""}
        base = DOCKER_LAYER if docker else OCI_LAYER
        types = media_types or [base + suffix[kind] for _, kind in layers]
        document = {"created": "2026-01-02T03:04:05Z", "os": system, "architecture": architecture,
                    "config": {"Cmd": ["true"]} | (config or {}),
                    "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar, _ in layers]},
                    "history": [{"created": "2026-01-02T03:04:05Z", "created_by": f"layer {number}"}
                                for number, _ in enumerate(layers)]}
        self.manifest_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
        self.diff_ids = document["rootfs"]["diff_ids"]
        self.layers = [self._add(kind, blob) for kind, blob in zip(types, packed)]
        self.config = self._add(DOCKER_CONFIG if docker else OCI_CONFIG, json.dumps(document).encode())
        self.manifest = json.dumps({"schemaVersion": 2, "mediaType": self.manifest_type, "config": self.config,
                                    "layers": self.layers}).encode()

    def _add(self, media_type, content):
        descriptor = descriptor_of(media_type, content)
        self.blobs[descriptor["digest"]] = content
        return descriptor

    @property
    def digest(self):
        return digest_of(self.manifest)

    @property
    def descriptor(self):
        return descriptor_of(self.manifest_type, self.manifest,
                             platform={"os": self.system, "architecture": self.architecture})


class Index:
    """Several images under one name."""

    def __init__(self, images, docker=False):
        self.images = images
        self.manifest_type = DOCKER_INDEX if docker else OCI_INDEX
        self.manifest = json.dumps({"schemaVersion": 2, "mediaType": self.manifest_type,
                                    "manifests": [image.descriptor for image in images]}).encode()

    @property
    def digest(self):
        return digest_of(self.manifest)


def write_layout(directory, images):
    """An OCI image layout with {tag: Image or Index}."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)
    entries = []
    for tag, image in images.items():
        parts = image.images if isinstance(image, Index) else [image]
        contents = [content for part in parts for content in (part.manifest, *part.blobs.values())] + [image.manifest]
        for content in contents:
            (blobs / digest_of(content).partition(":")[2]).write_bytes(content)
        entries.append(descriptor_of(image.manifest_type, image.manifest,
                                     annotations={"org.opencontainers.image.ref.name": tag}))
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return directory
