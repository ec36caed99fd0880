# SPDX-License-Identifier: Apache-2.0
"""Writes OCI image layouts and the layer tars in them (OCI image specification 1.1).

Written here instead of taken from umoci, because Debian's has no zstd and puts times into what it
writes: this gives the same digests for the same content.
"""

import datetime
import hashlib
import io
import json
import os
import subprocess
import tarfile
import zlib

# The time of everything that has none of its own.
EPOCH = 1700000000

MEDIA_TYPE = "application/vnd.oci.image."
LAYER_SUFFIX = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}
REF_NAME = "org.opencontainers.image.ref.name"
INPUTS = "microsandbox.inputs"  # annotation of an image: digest of what it was made from
CHUNK = 1 << 20


class LayerTar:
    """A layer's tar, entry by entry; the names are paths without a leading slash."""

    def __init__(self, path, prefix=""):
        # PAX keeps what ustar cannot: parts of a second, long names, extended attributes.
        self.tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)
        self.prefix = prefix

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tar.close()

    def add(self, name, kind, mode, owner=(0, 0), content=b"", target="", device=(0, 0),
            mtime=str(EPOCH), attributes=None):
        entry = tarfile.TarInfo(self.prefix + name)
        entry.type, entry.mode, entry.linkname = kind, mode, target
        entry.uid, entry.gid = owner
        entry.devmajor, entry.devminor = device
        entry.size = len(content)
        if mtime.isdigit():
            entry.mtime = int(mtime)
        else:
            entry.pax_headers["mtime"] = mtime
        for key, value in (attributes or {}).items():
            entry.pax_headers[f"SCHILY.xattr.{key}"] = value
        self.tar.addfile(entry, io.BytesIO(content))

    def directory(self, name, mode=0o755, **more):
        self.add(name, tarfile.DIRTYPE, mode, **more)

    def file(self, name, content=b"", mode=0o644, **more):
        self.add(name, tarfile.REGTYPE, mode, content=content, **more)

    def symlink(self, name, target):
        self.add(name, tarfile.SYMTYPE, 0o777, target=target)

    def hard_link(self, name, target, **more):
        self.add(name, tarfile.LNKTYPE, more.pop("mode", 0o644), target=self.prefix + target, **more)

    def whiteout(self, name):
        """Hides `name` of the layers below."""
        folder, _, base = name.rpartition("/")
        self.file(f"{folder}/.wh.{base}")

    def opaque(self, name):
        """Hides all that the layers below have in the directory `name`."""
        self.file(f"{name}/.wh..wh..opq")


class Layout:
    """An OCI image layout that is being written into an empty directory."""

    def __init__(self, path):
        self.path = path
        self.manifests = []
        os.makedirs(os.path.join(path, "blobs/sha256"))
        self._write_json("oci-layout", {"imageLayoutVersion": "1.0.0"})

    def add_image(self, tag, layers, config, inputs):
        """`layers` are (tar file, compression, what made it), the lowest first."""
        diff_ids, descriptors, history = [], [], []
        for path, compression, created_by in layers:
            diff_id, descriptor = self._add_layer(path, compression)
            diff_ids.append(diff_id)
            descriptors.append(descriptor)
            history.append({"created": _created(), "created_by": created_by})
        config_descriptor = self._add_json("config.v1+json", {
            "created": _created(), "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history})
        manifest = self._add_json("manifest.v1+json", {
            "schemaVersion": 2, "mediaType": MEDIA_TYPE + "manifest.v1+json",
            "config": config_descriptor, "layers": descriptors})
        manifest["annotations"] = {REF_NAME: tag, INPUTS: inputs}
        self.manifests.append(manifest)

    def take_image(self, other, descriptor):
        """Takes an image over from the layout `other`, sharing its blobs."""
        for digest in blobs_of(other, descriptor):
            target = _blob(self.path, digest)
            if not os.path.exists(target):
                os.link(_blob(other, digest), target)
        self.manifests.append(descriptor)

    def finish(self):
        self._write_json("index.json", {"schemaVersion": 2, "mediaType": MEDIA_TYPE + "index.v1+json",
                                        "manifests": self.manifests})

    def _write_json(self, name, value):
        with open(os.path.join(self.path, name), "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)

    def _add_json(self, media_type, value):
        content = json.dumps(value, sort_keys=True).encode()
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        with open(_blob(self.path, digest), "wb") as file:
            file.write(content)
        return {"mediaType": MEDIA_TYPE + media_type, "digest": digest, "size": len(content)}

    def _add_layer(self, path, compression):
        diff_id = hashlib.sha256()
        packed = os.path.join(self.path, "layer")
        with open(path, "rb") as source, open(packed, "wb") as target:
            compressor = zlib.compressobj(6, wbits=31) if compression == "gzip" else None
            while chunk := source.read(CHUNK):
                diff_id.update(chunk)
                target.write(compressor.compress(chunk) if compressor else chunk)
            if compressor:
                target.write(compressor.flush())
        if compression == "zstd":
            subprocess.run(["zstd", "-q", "-f", "-9", path, "-o", packed], check=True)
        digest = "sha256:" + _sha256_of(packed)
        size = os.path.getsize(packed)
        os.rename(packed, _blob(self.path, digest))
        return "sha256:" + diff_id.hexdigest(), {
            "mediaType": MEDIA_TYPE + "layer.v1.tar" + LAYER_SUFFIX[compression],
            "digest": digest, "size": size}


def image_in(path, tag):
    """The descriptor of an image in the layout `path`, or None when it is not there whole."""
    try:
        with open(os.path.join(path, "index.json"), encoding="utf-8") as file:
            for descriptor in json.load(file)["manifests"]:
                if descriptor.get("annotations", {}).get(REF_NAME) == tag:
                    if all(os.path.exists(_blob(path, digest)) for digest in blobs_of(path, descriptor)):
                        return descriptor
    except (OSError, ValueError, KeyError):
        pass
    return None


def blobs_of(path, descriptor):
    with open(_blob(path, descriptor["digest"]), encoding="utf-8") as file:
        manifest = json.load(file)
    return [descriptor["digest"], manifest["config"]["digest"],
            *(layer["digest"] for layer in manifest["layers"])]


def _blob(path, digest):
    return os.path.join(path, "blobs", *digest.split(":"))


def _created():
    return datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _sha256_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
