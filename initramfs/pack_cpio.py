# SPDX-License-Identifier: Apache-2.0
"""Writes the initramfs: a "newc" cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst).

Written by hand so that device nodes need no privilege and the same init always gives the same bytes.

    python3 pack_cpio.py INIT OUTPUT
"""

import stat
import sys


def entry(number, name, mode, data=b"", device=(0, 0)):
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = [number, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(encoded), 0]
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return pad(header + encoded) + pad(data)


def pad(data):
    return data + bytes(-len(data) % 4)


def archive(init):
    directory = stat.S_IFDIR | 0o755
    device = stat.S_IFCHR | 0o600
    entries = [
        ("dev", directory),
        # The kernel opens it for PID 1. The others serve until devtmpfs is mounted in the new root.
        ("dev/console", device, b"", (5, 1)),
        ("dev/null", device, b"", (1, 3)),
        ("dev/kmsg", device, b"", (1, 11)),
        # Where root.c builds the new root.
        ("stage", directory),
        ("init", stat.S_IFREG | 0o755, init),
    ]
    packed = b"".join(entry(number, *fields) for number, fields in enumerate(entries, 1))
    return packed + entry(0, "TRAILER!!!", 0)


def main():
    source, target = sys.argv[1:]
    with open(source, "rb") as file:
        init = file.read()
    with open(target, "wb") as file:
        file.write(archive(init))


if __name__ == "__main__":
    main()
