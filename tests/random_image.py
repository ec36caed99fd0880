# SPDX-License-Identifier: Apache-2.0
"""Layered trees at random, the same for the same seed."""

from nasty_images import ACCESS_ACL, CAPABILITY, DEFAULT_ACL, root
from raw_tar import EPOCH, RawTar

NAMES = ["a", "b", "c", "a.txt", "\xff".encode("latin-1"), "long" * 30]
ATTRIBUTES = [("user.a", b"1"), ("user.b", b"\0\xff" * 40), ("trusted.c", b"t"), ("security.capability", CAPABILITY)]


class Below:
    """What a path is once the layers so far are unpacked, as far as entries depend on it."""

    def __init__(self):
        self.kinds = {b"": "directory"}

    def put(self, path, kind):
        if not (kind == self.kinds.get(path) == "directory"):
            self.remove(path)
        self.kinds[path] = kind

    def remove(self, path):
        self.kinds = {name: kind for name, kind in self.kinds.items() if name != path and not name.startswith(path + b"/")}


def random_path(random):
    return b"/".join(name if isinstance(name, bytes) else name.encode()
                     for name in random.choices(NAMES, k=random.choice([1, 1, 2, 2, 2, 3, 4])))


def random_metadata(random):
    more = {"mode": random.choice([0o644, 0o600, 0o755, 0o4755, 0o1777, 0o2750, 0]),
            "owner": (random.choice([0, 0, 1000, 70000]), random.choice([0, 0, 5, 2**31])),
            "mtime": random.choice([EPOCH, f"{random.randrange(2**31)}.{random.randrange(10**9):09}"])}
    if random.random() < 0.25:
        more["xattrs"] = dict(random.sample(ATTRIBUTES, random.randrange(1, 4)))
    return more


class LayerWriter:
    """`lists_all`: every directory of a layer gets an entry."""

    def __init__(self, random, tar, below, lists_all):
        self.random, self.tar, self.below, self.lists_all = random, tar, below, lists_all
        self.mine = set()  # paths that this layer has given
        self.listed = {b""}  # its directories
        self.files = []  # what can be linked to

    def list_parents(self, path):
        parts = path.split(b"/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = b"/".join(parts[:depth])
            if self.below.kinds.get(parent) == "directory" and not self.lists_all and self.random.random() < 0.6:
                self.mine.add(parent)  # as it is below
            elif parent not in self.listed:
                self.add_directory(parent)

    def add_directory(self, path):
        more = random_metadata(self.random)
        if "xattrs" in more:
            more["xattrs"].pop("security.capability", None)
        if self.random.random() < 0.1:
            more["xattrs"] = {"system.posix_acl_default": DEFAULT_ACL}
        self.tar.directory(path, **more)
        self.note(path, "directory")
        self.listed.add(path)

    def note(self, path, kind):
        if kind != "directory" or self.below.kinds.get(path) != "directory":
            below = path + b"/"
            self.listed = {name for name in self.listed if name != path and not name.startswith(below)}
            self.files = [name for name in self.files if name != path and not name.startswith(below)]
        self.below.put(path, kind)
        self.mine.add(path)

    def add_something(self):
        path = random_path(self.random)
        kind = self.random.choice(["file"] * 5 + ["directory"] * 3 + ["symlink", "symlink", "link", "link", "pipe", "node",
                                                                      "whiteout", "whiteout", "opaque"])
        if kind == "whiteout":
            return self.hide(path)
        if kind == "opaque":
            return self.empty(path)
        if kind == "link":
            return self.link(path)
        self.list_parents(path)
        if kind == "directory":
            return self.add_directory(path)
        more = random_metadata(self.random)
        if kind == "file":
            if self.random.random() < 0.1:
                more |= {"mode": 0o674, "xattrs": {"system.posix_acl_access": ACCESS_ACL}}
            self.tar.file(path, self.random.randbytes(self.random.choice([0, 3, 600, 4096, 4100, 20_000])), **more)
        else:
            # The kernel refuses these attributes for what is no file.
            more["xattrs"] = {name: value for name, value in more.get("xattrs", {}).items() if name == "trusted.c"}
            if kind == "symlink":
                more.pop("mode")
                self.tar.symlink(path, self.random.choice([b"a", b"../b", b"/c", b"nowhere"]), **more)
            elif kind == "pipe":
                self.tar.add(path, b"6", **more)
            else:
                self.tar.add(path, self.random.choice([b"3", b"4"]), device=(self.random.randrange(1, 500), 7), **more)
        self.note(path, kind)
        self.files.append(path)

    def link(self, path):
        targets = [name for name in self.files if name != path and not name.startswith(path + b"/")
                   and not path.startswith(name + b"/")]
        if targets:
            target = self.random.choice(targets)
            self.list_parents(path)
            if target in self.files:  # a parent may have replaced it
                self.tar.hard_link(path, target)
                self.note(path, "file")
                self.files.append(path)

    def hide(self, path):
        # Of what a lower layer has, in a directory that is one.
        if path in self.below.kinds and not any(name == path or name.startswith(path + b"/") for name in self.mine):
            self.list_parents(path)
            if path in self.below.kinds:
                self.tar.whiteout(path)
                self.below.remove(path)

    def empty(self, path):
        # What of this layer is in it already may stand for directories that the layers below describe.
        if not self.lists_all and any(name.startswith(path + b"/") for name in self.mine):
            return
        self.list_parents(path)
        self.add_directory(path)
        self.tar.opaque(path)
        self.below.kinds = {name: kind for name, kind in self.below.kinds.items()
                            if not name.startswith(path + b"/") or any(own == name or own.startswith(name + b"/")
                                                                       for own in self.mine)}


def random_layers(random, lists_all=True, prefix=b""):
    """`lists_all`: every layer lists its directories; else each directory is listed by some layer. `prefix`: where the tree is."""
    below = Below()
    tars = []
    for number in range(random.randrange(1, 6)):
        tar = RawTar(prefix)
        if number == 0 and not prefix:
            tar = root()
        elif number == 0 or lists_all or random.random() < 0.5:
            tar.directory("./", mode=random.choice([0o755, 0o700]), mtime=f"{EPOCH + number}.5")
        writer = LayerWriter(random, tar, below, lists_all)
        for _ in range(random.randrange(5, 40)):
            writer.add_something()
        tars.append(tar)
    return tars


def random_trees(random, count):
    """One image with many random trees in directories of their own, whose layers do not list all directories."""
    trees = [random_layers(random, lists_all=False, prefix=b"tree-%d/" % number) for number in range(count)]
    tars = [root()] + [RawTar() for _ in range(max(map(len, trees)) - 1)]
    for layers in trees:
        for tar, layer in zip(tars, layers):
            tar.parts += layer.parts
    return tars
