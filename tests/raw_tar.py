# SPDX-License-Identifier: Apache-2.0
"""Layers' tars written header by header, so that they can be as odd as archivers make them, and images of them.

Formats: POSIX pax ("ustar Interchange Format", "pax Interchange Format"), GNU tar manual ("Basic Tar Format").
"""

import pathlib
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "scripts/images.d"))

from layout import Layout  # noqa: E402  (scripts/images.d is no package)

BLOCK = 512
MAGIC = {"ustar": b"ustar\0" b"00", "gnu": b"ustar  \0", "v7": bytes(8)}
EPOCH = 1_700_000_000


def to_bytes(text):
    return text if isinstance(text, bytes) else str(text).encode()


def padded(content):
    return content + bytes(-len(content) % BLOCK)


def number(value, width):
    """Octal, or GNU's base-256 for what does not fit."""
    text = b"%0*o" % (width - 1, max(value, 0))
    if value >= 0 and len(text) < width:
        return text + b"\0"
    return bytes([0x80 if value >= 0 else 0xFF]) + value.to_bytes(width - 1, "big", signed=True)


def header(name, kind, size=0, mode=0, owner=(0, 0), mtime=EPOCH, link=b"", device=(0, 0), form="ustar", prefix=b""):
    block = bytearray(BLOCK)

    def put(offset, field):
        block[offset:offset + len(field)] = field

    put(0, name[:100])
    put(100, number(mode, 8))
    put(108, number(owner[0], 8))
    put(116, number(owner[1], 8))
    put(124, number(size, 12))
    put(136, number(mtime, 12))
    put(148, b" " * 8)
    put(156, kind)
    put(157, link[:100])
    put(257, MAGIC[form])
    if form != "v7":
        put(329, number(device[0], 8))
        put(337, number(device[1], 8))
        put(345, prefix[:155])
    put(148, b"%06o\0 " % sum(block))
    return bytes(block)


def pax_record(key, value):
    rest = len(key) + len(value) + 3  # blank, "=" and newline
    length = rest + len(str(rest))
    length += len(str(length)) > len(str(rest))  # the number counts itself
    return b"%d %s=%s\n" % (length, key, value)


class RawTar:
    """Entries in the order they are added; names are bytes or text. Every method gives the tar back.

    `prefix` goes before every name, and before what hard links name.
    """

    def __init__(self, prefix=b""):
        self.prefix = prefix
        self.parts = []

    def add(self, name, kind=b"0", content=b"", mode=0o644, owner=(0, 0), mtime=EPOCH, link=b"", device=(0, 0),
            xattrs=None, pax=(), form="ustar", long_names="pax", prefix=b""):
        """`mtime`: seconds, or text with a fraction, which then stands in a pax record. `long_names`: "pax" or "gnu"."""
        name, link = self.prefix + to_bytes(name), to_bytes(link)
        if kind == b"1":
            link = self.prefix + link
        records = [(to_bytes(key), to_bytes(value)) for key, value in pax]
        records += [(b"SCHILY.xattr." + to_bytes(key), value) for key, value in (xattrs or {}).items()]
        if isinstance(mtime, str):
            records.append((b"mtime", mtime.encode()))
            mtime = 0
        for text, key, gnu_kind in ((name, b"path", b"L"), (link, b"linkpath", b"K")):
            if len(text) > 100 and long_names == "gnu":
                self.raw(header(b"././@LongLink", gnu_kind, len(text) + 1, form="gnu") + padded(text + b"\0"))
            elif len(text) > 100:
                records.append((key, text))
        if records:
            extended = b"".join(pax_record(*record) for record in records)
            self.raw(header(b"PaxHeaders/x", b"x", len(extended)) + padded(extended))
        return self.raw(header(name, kind, len(content), mode, owner, mtime, link, device, form, prefix) + padded(content))

    def raw(self, data):
        self.parts.append(data)
        return self

    def directory(self, name, mode=0o755, **more):
        return self.add(name, b"5", mode=mode, **more)

    def file(self, name, content=b"", **more):
        return self.add(name, b"0", to_bytes(content), **more)

    def symlink(self, name, target, **more):
        return self.add(name, b"2", mode=0o777, link=target, **more)

    def hard_link(self, name, target, **more):
        return self.add(name, b"1", link=target, **more)

    def whiteout(self, name):
        folder, _, last = to_bytes(name).rpartition(b"/")
        return self.file((folder + b"/" if folder else b"") + b".wh." + last)

    def opaque(self, name):
        return self.file(to_bytes(name) + b"/.wh..wh..opq")

    def bytes(self):
        return b"".join(self.parts) + bytes(2 * BLOCK)


def write_image(path, layers, tag="image", config=None):
    """An OCI layout in the new directory `path` whose one image has these layers, lowest first; gives its reference."""
    path.mkdir()
    layout = Layout(str(path))
    stored = []
    for index, layer in enumerate(layers):
        file = path / f"layer-{index}.tar"
        file.write_bytes(layer.bytes())
        stored.append((str(file), ("gzip", "none")[index % 2], "test"))
    layout.add_image(tag, stored, config or {}, "")
    layout.finish()
    for file, _, _ in stored:
        pathlib.Path(file).unlink()
    return f"{path}:{tag}"
