# SPDX-License-Identifier: Apache-2.0
"""An image's tree as `umoci unpack` makes it, as the layers converted by msb-vmm make it, and how the two differ.

Both are listed by the same program (tree_lister.c). Compared of every entry: type, mode, owner, time of modification to the
nanosecond, size, content, target, device number, extended attributes, number of links, and which names are one file.
"""

import collections
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tarfile

import pytest
from conftest import MSB_VMM, REPOSITORY, TIMEOUT

# What is not compared, and why. Everything else has to be equal.
DIFFERENCES = {
    "links of a directory": "overlayfs says 1 for a directory that several layers have (overlayfs.rst, 'Non-standard behavior')",
    "size of a directory": "file systems count it in their own ways",
    "access and change times": "layers say nothing about them",
    "the time of directories that no layer lists": "umoci makes them at the time of unpacking; ours have the time 0",
    "a directory's time, where umoci's is that of unpacking": "umoci puts back the time of the directory that an entry lies in, "
                                                              "but not of those above it in which it made a parent, nor of "
                                                              "those in which a whiteout took something away",
    "leftovers of AUFS": "names that start with '.wh..wh.': umoci unpacks what lies in such a directory; the specification "
                         "reserves the prefix (layer.md, 'Whiteouts'), and engines leave them out",
    "links that a higher layer hides": "a file whose other names a higher layer hid or replaced: umoci counts the names that "
                                       "are left, overlayfs what the layer has",
}
IMPLIED = (0o755, 0, 0, "0.000000000", ())  # mode, owner, group, time and attributes of an implied directory of ours


@dataclasses.dataclass
class Entry:
    type: str
    mode: int
    uid: int
    gid: int
    mtime: str
    size: int
    device: str
    links: int
    inode: str
    content: str
    xattrs: tuple
    names: tuple = ()  # all names of the same file

    def metadata(self):
        return self.mode, self.uid, self.gid, self.mtime, self.xattrs


def unhex(text):
    assert text.startswith("="), text
    return bytes.fromhex(text[1:])


def parse_listing(output):
    """Entries by path (bytes), and the paths where something is mounted."""
    entries, mounts = {}, set()
    groups = collections.defaultdict(list)
    for line in output.decode().splitlines():
        path, *fields = line.split(" ")
        path = unhex(path)
        if fields == ["mount"]:
            mounts.add(path)
            continue
        kind, mode, uid, gid, mtime, size, device, links, inode, content, *attributes = fields
        names, values = attributes[::2], attributes[1::2]
        xattrs = tuple((unhex(name), unhex(value)) for name, value in zip(names, values, strict=True))
        entries[path] = Entry(kind, int(mode, 8), int(uid), int(gid), mtime, int(size), device, int(links), inode, content,
                              xattrs)
        if kind != "d":
            groups[inode].append(path)
    for names in groups.values():
        for name in names:
            entries[name].names = tuple(sorted(names))
    assert b"" in entries, "the listing has no root"
    return entries, mounts


def run(command, **options):
    result = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False, **options)
    assert result.returncode == 0, f"{command}: {result.stderr.decode(errors='replace')}"
    return result.stdout


def build_lister(directory):
    """The lister as a static program; skips the test where there is no musl-gcc."""
    program = directory / "tree_lister"
    run(["musl-gcc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-static", "-o", program, REPOSITORY / "tests/tree_lister.c"])
    return program


def unpack_with_umoci(image, bundle):
    """What umoci said; its tree is then bundle/rootfs."""
    return subprocess.run(["umoci", "unpack", "--image", image, bundle], capture_output=True, timeout=TIMEOUT, check=False,
                          umask=0o022)


# Onto ext4, which keeps all that a layer can say: tmpfs of older kernels has no attributes of users.
UNPACK = r"""
set -e
image=$1 lister=$2
cd "$3"
mkdir disk
truncate -s 4G disk.ext4
mkfs.ext4 -q -m 0 disk.ext4
mount -o loop disk.ext4 disk 2>/dev/null || : "in the directory itself, then"
umask 022
umoci unpack --image "$image" disk/bundle >&2
exec "$lister" disk/bundle/rootfs
"""


def tree_of_umoci(image, directory, lister):
    return parse_listing(run(["unshare", "--mount", "sh", "-c", UNPACK, "sh", image, lister, directory]))[0]


def convert(image, home):
    """The converted layers, lowest first."""
    result = subprocess.run([MSB_VMM, "prepare", "--image", image], capture_output=True, timeout=TIMEOUT, check=False,
                            env=dict(os.environ, MSB_HOME=str(home)))
    assert result.returncode == 0, result.stderr.decode(errors="replace")
    layout, _, tag = image.rpartition(":")
    [layers] = (pathlib.Path(home) / "layers").iterdir()
    return [layers / f"{digest.removeprefix('sha256:')}.erofs"
            for digest in config_of(pathlib.Path(layout), tag)["rootfs"]["diff_ids"]]


def document(layout, descriptor):
    return json.loads((layout / "blobs" / descriptor["digest"].replace(":", "/")).read_text())


def manifest_of(layout, tag):
    index = json.loads((layout / "index.json").read_text())
    [descriptor] = [entry for entry in index["manifests"]
                    if entry["annotations"]["org.opencontainers.image.ref.name"] == tag]
    return document(layout, descriptor)


def config_of(layout, tag):
    return document(layout, manifest_of(layout, tag)["config"])


# In a mount namespace of its own. Layers below one with an opaque root are left out, as the launcher does, since overlayfs
# takes no notice of it there.
STACK = r"""
set -e
lister=$1 stack=$2 python=$3
shift 3
cd "$stack"
mount -t tmpfs none .
mkdir root empty
lower=empty number=0
for layer; do
  number=$((number + 1))
  mkdir $number
  mount -t erofs -o ro "$layer" $number 2>/dev/null || mount -t erofs -o ro,loop "$layer" $number
  ! "$python" -c 'import os, sys; os.getxattr(sys.argv[1], "trusted.overlay.opaque")' $number 2>/dev/null || lower=empty
  lower=$number:$lower
done
mount -t overlay none -o ro,lowerdir=$lower root
exec "$lister" root
"""


def can_stack(directory):
    """Whether this host's kernel can do on its own what the guest's does: root, EROFS and overlayfs."""
    directory.mkdir()
    blank = directory / "blank.erofs"
    (directory / "nothing").mkdir()
    run(["mkfs.erofs", blank, directory / "nothing"])
    (directory / "stack").mkdir()
    return subprocess.run(["unshare", "--mount", "sh", "-c", STACK, "sh", "/bin/true", directory / "stack",
                           sys.executable, blank],
                          capture_output=True, timeout=TIMEOUT, check=False).returncode == 0


def tree_of_layers(layers, directory, lister):
    stack = directory / "stack"
    stack.mkdir()
    return parse_listing(run(["unshare", "--mount", "sh", "-c", STACK, "sh", lister, stack, sys.executable, *layers]))[0]


def tree_in_guest(vmm, image, lister="/tree_lister", options=()):
    """The root as a program in the guest sees it, and where the init has mounted something."""
    # Without a network, whose resolver would be in /etc/resolv.conf.
    result = vmm.run(lister, "/", image=image, options=["--net", "none", *options])
    assert (result.returncode, result.stderr) == (0, b""), result.stderr
    return parse_listing(result.stdout)


def check_file_system(layer):
    # It recurses, and layers may have thousands of directories in each other.
    run(["sh", "-c", 'ulimit -s 1000000 && exec fsck.erofs "$1"', "sh", layer])


def layer_tars(image):
    """The image's layers as open tar files, lowest first."""
    layout, _, tag = image.rpartition(":")
    layout = pathlib.Path(layout)
    for descriptor in manifest_of(layout, tag)["layers"]:
        blob = layout / "blobs" / descriptor["digest"].replace(":", "/")
        if descriptor["mediaType"].endswith("zstd"):
            content = subprocess.Popen(["zstd", "-dc", blob], stdout=subprocess.PIPE)
            with content, tarfile.open(fileobj=content.stdout, mode="r|", errors="surrogateescape") as tar:
                yield tar
        else:
            with tarfile.open(blob, errors="surrogateescape") as tar:
                yield tar


def implied_directories(image, on_top=True):
    """Directories that no layer lists; without what msb-vmm puts `on_top`: that the topmost layer which has them does not."""
    implied = {b""}
    known = set()
    for tar in layer_tars(image):
        listed, parents = set(), {b""}
        for member in tar:
            name = b"/".join(part for part in os.fsencode(member.name).split(b"/") if part not in (b"", b"."))
            if member.isdir():
                listed.add(name)
            while name:
                name = name.rpartition(b"/")[0]
                parents.add(name)
        known |= listed
        implied = (implied | parents) - (known if on_top else listed)
    return implied


def compare(theirs, ours, implied=(), mounts=(), unpacked_since=None):
    """What differs beyond DIFFERENCES, as lines; none when the trees are equal. `unpacked_since`: when umoci started."""
    def mounted(path):
        return any(path == mount or path.startswith(mount + b"/") for mount in mounts)

    def leftover(path):
        return any(part.startswith(b".wh..wh.") for part in path.split(b"/"))

    theirs = {path: entry for path, entry in theirs.items() if not mounted(path) and not leftover(path)}
    ours = {path: entry for path, entry in ours.items() if not mounted(path)}
    lines = [f"{path!r}: only umoci has it" for path in sorted(theirs.keys() - ours.keys())]
    lines += [f"{path!r}: only we have it" for path in sorted(ours.keys() - theirs.keys())]
    for path in sorted(theirs.keys() & ours.keys()):
        if theirs[path].type == "d" and unpacked_since and float(theirs[path].mtime) >= unpacked_since:
            theirs[path].mtime = ours[path].mtime
        lines += compare_entry(path, theirs[path], ours[path], path in implied)
    return lines


def compare_entry(path, theirs, ours, is_implied):
    if theirs.type == ours.type == "d" and is_implied:
        return [] if ours.metadata() == IMPLIED else [f"{path!r}: implied, but {ours.metadata()}"]
    different = [f"{field} {getattr(theirs, field)!r} is {getattr(ours, field)!r} here"
                 for field in ("type", "mode", "uid", "gid", "mtime", "size", "device", "content", "xattrs", "names")
                 if getattr(theirs, field) != getattr(ours, field)]
    if theirs.type != "d" and theirs.links != ours.links and not len(theirs.names) == theirs.links < ours.links:
        different.append(f"links {theirs.links} are {ours.links} here")
    return [f"{path!r}: {'; '.join(different)}"] if different else []


def assert_equal(theirs, ours, **more):
    lines = compare(theirs, ours, **more)
    if lines:
        pytest.fail(f"{len(lines)} of {len(theirs)} entries differ from umoci's:\n" + "\n".join(lines[:40]), pytrace=False)
