# SPDX-License-Identifier: Apache-2.0
"""Layers that exercise all that a tar can say, and all that layers can do to each other. Each function gives one image's
layers, lowest first. Every directory is listed by the topmost layer that has something in it, unless the case is that."""

import struct

from raw_tar import EPOCH, RawTar, header, padded, pax_record

NAME_255 = "n" * 251 + ".txt"
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service, version 2


def acl(*entries):
    """linux/posix_acl_xattr.h: version 2, then tag, permissions and id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ANY = 0xFFFFFFFF
ACCESS_ACL = acl((1, 6, ANY), (2, 7, 1000), (4, 4, ANY), (16, 7, ANY), (32, 4, ANY))
DEFAULT_ACL = acl((1, 7, ANY), (4, 5, ANY), (8, 5, 50), (16, 5, ANY), (32, 0, ANY))


def root(**more):
    """A layer that lists its root, and where the guest mounts."""
    tar = RawTar().directory("./", **more)
    for name in ("proc", "sys", "dev", "tmp"):
        tar.directory(name, mode=0o1777 if name == "tmp" else 0o755)
    return tar


def program(path):
    """The lister, so that the guest has something to run."""
    return RawTar().directory("./", mtime="1600000000.5").file("tree_lister", path.read_bytes(), mode=0o755)


def metadata():
    tar = root(mode=0o750, owner=(3, 4), mtime="1600000001.123456789")
    tar.directory("modes")
    for mode in (0, 0o1, 0o400, 0o644, 0o755, 0o777, 0o1755, 0o2755, 0o4755, 0o7777):
        tar.file(f"modes/file-{mode:o}", mode=mode)
        tar.directory(f"modes/directory-{mode:o}", mode=mode)
    # More than the permissions may stand in the field.
    tar.file("modes/with-type-bits", mode=0o100640)
    tar.directory("owners")
    for number, owner in enumerate([(0, 1), (1000, 100), (65534, 65534), (65536, 70000), (0o7777777, 0o7777777),
                                    (2**31, 2**32 - 2)]):
        tar.file(f"owners/{number}", owner=owner)
        tar.symlink(f"owners/link-{number}", "x", owner=owner)
    tar.file("owners/in-a-record", owner=(1, 1), pax=[("uid", "12345"), ("gid", "4000000000")])
    tar.directory("times", mtime="1234567890.000000001")
    for number, time in enumerate(["0.999999999", "1.5", "1700000000.123456789", "1700000000.1234567891", "-1.25", "-1000000.75",
                                   "4294967296.000000001", "2147483648", "1700000000.", "1600000000.5000"]):
        tar.file(f"times/{number}", mtime=time)
        tar.symlink(f"times/link-{number}", "x", mtime=time)
    tar.file("times/before-1970", mtime=-86400, form="gnu").file("times/far", mtime=2**33, form="gnu").file("times/zero", mtime=0)
    tar.directory("nodes")
    for number, device in enumerate([(1, 3), (0, 1), (5, 255), (8, 256), (259, 65536), (4095, 1048575)]):
        tar.add(f"nodes/character-{number}", b"3", device=device, mode=0o666, owner=(0, 5))
        tar.add(f"nodes/block-{number}", b"4", device=device, mode=0o660, owner=(0, 6))
    tar.add("nodes/pipe", b"6", mode=0o620, owner=(7, 8), mtime="1500000000.25")
    return [tar]


def attributes():
    tar = root(xattrs={"user.root": b"of the root"})
    tar.directory("x", xattrs={"user.directory": b"1", "system.posix_acl_default": DEFAULT_ACL, "trusted.t": b"2"})
    tar.file("x/capability", "binary", mode=0o755, xattrs={"security.capability": CAPABILITY})
    tar.file("x/acl", mode=0o674, xattrs={"system.posix_acl_access": ACCESS_ACL})
    tar.directory("x/both-acls", mode=0o775, xattrs={"system.posix_acl_access": ACCESS_ACL, "system.posix_acl_default": DEFAULT_ACL})
    tar.file("x/many", xattrs={f"user.{number:03}": b"v" * number for number in range(1, 60)})
    tar.file("x/bytes", xattrs={"user.bytes": bytes(range(256)) + b"\n=\n", b"user.\xff\xfe": b"name"})
    # As much as ext4, on which the other side unpacks, can take in its one block.
    tar.file("x/large", xattrs={"user.large": b"L" * 3500})
    tar.file("x/long-name", xattrs={"user." + "n" * 250: b"v"})
    tar.file("x/empty", xattrs={"user.empty": b"", "user.other": b"1"})
    tar.file("x/twice", pax=[("SCHILY.xattr.user.twice", "first"), ("SCHILY.xattr.user.twice", "second")])
    tar.file("x/of-the-host", xattrs={"security.selinux": b"label\0", "user.kept": b"1"})
    tar.symlink("x/link", "many", xattrs={"trusted.on-a-link": b"1", "security.on-a-link": b"2"})
    tar.add("x/pipe", b"6", xattrs={"trusted.on-a-pipe": b"1"})
    tar.hard_link("x/hard-link", "x/many")
    upper = RawTar().directory("./", xattrs={"user.root": b"changed"})
    # A later layer's entry stands for itself: nothing of the old one's attributes stays.
    upper.directory("x", xattrs={"user.new": b"3"}).file("x/acl", mode=0o600).file("x/capability", "changed", mode=0o755)
    return [tar, upper]


def names():
    tar = root()
    tar.directory("names")
    for number, name in enumerate([b"\xff\xfe\x80", "ü 文 \U0001f600".encode(), b"new\nline", b" blank ", b"back\\slash", b"'quote\"", b"-",
                                   b"*?[", b"\x01\x7f\x1b[31m", b"...", b".hidden", b".wh", b".w", b"wh.", b"a" * 99, b"b" * 100, b"c" * 101]):
        tar.file(b"names/" + name, str(number))
        tar.symlink(b"names/" + name[:200] + b"~", name)
    tar.file("names/" + NAME_255).directory("names/" + "d" * 255).file("names/" + "d" * 255 + "/" + NAME_255, "both long")
    tar.file("names/gnu-" + "g" * 200, long_names="gnu").symlink("names/gnu-link", "t" * 300, long_names="gnu")
    tar.hard_link("names/gnu-hard-" + "h" * 150, "names/gnu-" + "g" * 200, long_names="gnu")
    tar.file("in-a-prefix", "p", prefix=b"names/prefix").directory("names/prefix")
    tar.symlink("names/longest-target", "x" * 4095).symlink("names/long-target", "y" * 4000)
    for target in ("/", ".", "..", "../../../..", "/absolute/and/away", "names/", "a//b/./c"):
        tar.symlink(f"names/to-{target.replace('/', '|')}", target)
    # As deep as a path of 4096 bytes goes.
    path = "deep"
    tar.directory(path)
    while len(path) < 3700:
        path += "/" + "e" * 60
        tar.directory(path)
    tar.file(path + "/file", "deep down")
    path = "steps"
    tar.directory(path)
    for _ in range(80):
        path += "/s"
        tar.directory(path)
    tar.file(path + "/file", "many steps")
    tar.directory("wide")
    for number in range(600):
        tar.file(f"wide/{number}-{'w' * (number % 40)}")
    # Spellings of one name.
    tar.directory("./spelt//./out/").file(".//spelt/out/./file", "1").file("/spelt/absolute", "2").directory("spelt")
    return [tar]


def contents():
    tar = root().directory("content")
    for size in (0, 1, 511, 512, 513, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 12288, 100_000):
        tar.file(f"content/{size}", bytes(number * size % 251 for number in range(size)))
        tar.file(f"content/{size}-with-attributes", b"z" * size, xattrs={"user.a": b"b" * 100})
    tar.file("content/zeros", bytes(300_000)).file("content/equal-1", b"e" * 9000).file("content/equal-2", b"e" * 9000)
    return [tar]


def sparse():
    """Holes in the formats that pax records carry; the old GNU one is a case of its own."""
    def pieces(*runs):
        return b"".join(bytes([65 + index]) * length for index, (_, length) in enumerate(runs))

    tar = root().directory("sparse")
    for name, size, runs in [("middle", 20_000, [(4096, 512), (12288, 100)]), ("start", 9000, [(0, 10)]), ("all-hole", 1 << 20, []),
                             ("end", 10_000, [(9999, 1)]), ("adjacent", 6000, [(0, 1000), (1000, 1000), (5000, 1000)]),
                             ("huge", 1 << 23, [(1 << 22, 4096)]), ("last-empty", 5000, [(100, 50), (5000, 0)])]:
        data = pieces(*runs)
        numbers = [str(number) for run in runs for number in run]
        repeated = [record for offset, length in runs
                    for record in (("GNU.sparse.offset", offset), ("GNU.sparse.numbytes", length))]
        if runs:
            tar.file(f"sparse/0.0-{name}", data, pax=[("GNU.sparse.size", size), ("GNU.sparse.numblocks", len(runs)), *repeated])
            tar.file("GNUSparseFile.0/x", data, pax=[("GNU.sparse.name", f"sparse/0.1-{name}"), ("GNU.sparse.size", size),
                                                     ("GNU.sparse.numblocks", len(runs)), ("GNU.sparse.map", ",".join(numbers))])
        table = padded("".join(f"{number}\n" for number in [len(runs), *numbers]).encode())
        tar.file("GNUSparseFile.0/x", table + data, pax=[("GNU.sparse.major", 1), ("GNU.sparse.minor", 0),
                                                         ("GNU.sparse.name", f"sparse/1.0-{name}"), ("GNU.sparse.realsize", size)])
    return [tar]


def links():
    tar = root().directory("a").directory("a/b").directory("c")
    tar.file("a/file", "linked", mode=0o640, owner=(1, 2), mtime="1400000000.125")
    tar.hard_link("c/one", "a/file").hard_link("a/b/two", "c/one").hard_link("c/three", "/a/./file")
    # What a link's header says beyond its target means nothing.
    tar.hard_link("c/other-metadata", "a/file", mode=0o777, owner=(9, 9), mtime=EPOCH)
    tar.symlink("a/symlink", "file").hard_link("c/to-symlink", "a/symlink")
    tar.add("a/pipe", b"6").hard_link("c/to-pipe", "a/pipe")
    tar.add("a/node", b"3", device=(1, 5)).hard_link("c/to-node", "a/node")
    # Across directories that are reached through links.
    tar.symlink("way", "a/b").file("way/through", "link").hard_link("c/through", "way/through").hard_link("way/back", "c/one")
    # The name it was linked from is given anew: the other keeps the old file.
    tar.file("a/renewed", "old").hard_link("c/old", "a/renewed").file("a/renewed", "new")
    # A name becomes a link, then another link.
    tar.file("c/becomes", "itself").hard_link("c/becomes", "a/file").file("a/second", "2").hard_link("c/becomes", "a/second")
    tar.add("c/with-size", b"1", link="a/file", pax=[("size", "6")])
    return [tar]


def order():
    """Entries out of order, given twice, replaced by another kind."""
    tar = root()
    tar.file("late/child/file", "before its parents").directory("late/child", mode=0o700, owner=(5, 5), mtime="1300000000.5")
    tar.directory("late", mode=0o711, mtime="1300000001.5")
    tar.directory("twice", mode=0o700).file("twice/file", "first").file("twice/kept", "1").file("twice/file", "second", mode=0o600)
    tar.directory("twice", mode=0o755, owner=(1, 1), xattrs={"user.second": b"yes"})
    tar.directory("kinds")
    kinds = {"file": lambda name: tar.file(name, "f"), "directory": lambda name: tar.directory(name).file(name + "/inside", "i"),
             "symlink": lambda name: tar.symlink(name, "nowhere"), "pipe": lambda name: tar.add(name, b"6"),
             "node": lambda name: tar.add(name, b"4", device=(7, 7)), "link": lambda name: tar.hard_link(name, "twice/kept")}
    for first, make in kinds.items():
        for second, replace in kinds.items():
            make(f"kinds/{first}-then-{second}")
            replace(f"kinds/{first}-then-{second}")
    # Gone with the directory that was replaced, and again there.
    tar.directory("again").file("again/old").file("again", "a file now").directory("again").file("again/new")
    return [tar]


def parents_that_are_links():
    tar = root().directory("real").directory("real/deeper").symlink("relative", "real").symlink("absolute", "/real/deeper")
    tar.symlink("up", "../../../real").symlink("chain", "relative/deeper").symlink("real/back", "..")
    tar.file("relative/1", "1").file("absolute/2", "2").file("up/3", "3").file("chain/4", "4").file("real/back/5", "5")
    tar.directory("relative/made").symlink("relative/made/link", "x").add("absolute/pipe", b"6")
    # The last component is never followed.
    tar.symlink("replaced", "real").file("replaced", "no link any more")
    tar.symlink("turned", "real").directory("turned").file("turned/inside", "own")
    return [tar]


LOWER_KINDS = {
    "file": lambda tar, name: tar.file(name, "lower", mode=0o600, owner=(1, 1)),
    "directory": lambda tar, name: tar.directory(name, mode=0o700, owner=(2, 2)).file(name + "/lower", "l").directory(name + "/both")
    .file(name + "/both/lower", "l"),
    "symlink": lambda tar, name: tar.symlink(name, "target"),
    "symlink-to-directory": lambda tar, name: tar.directory(name + ".real").symlink(name, name.rpartition("/")[2] + ".real")
    .file(name + ".real/inside", "i"),
    "node": lambda tar, name: tar.add(name, b"3", device=(1, 3)),
    "hard-link": lambda tar, name: tar.file(name + ".first", "h").hard_link(name, name + ".first"),
    "nothing": lambda tar, name: tar,
}
UPPER_KINDS = {
    "file": lambda tar, name: tar.file(name, "upper", owner=(3, 3)),
    "directory": lambda tar, name: tar.directory(name, mode=0o711, owner=(4, 4)).file(name + "/upper", "u").directory(name + "/both")
    .file(name + "/both/upper", "u"),
    "symlink": lambda tar, name: tar.symlink(name, "elsewhere"),
    "pipe": lambda tar, name: tar.add(name, b"6", mode=0o600),
    "whiteout": lambda tar, name: tar.whiteout(name),
    "whiteout-then-file": lambda tar, name: tar.whiteout(name).file(name, "anew"),
    "file-then-whiteout": lambda tar, name: tar.file(name, "anew").whiteout(name),
    "whiteout-then-directory": lambda tar, name: tar.whiteout(name).directory(name).file(name + "/new", "n"),
    "directory-then-whiteout": lambda tar, name: tar.directory(name).file(name + "/new", "n").whiteout(name),
    "file-then-directory": lambda tar, name: tar.file(name, "f").directory(name).file(name + "/new", "n"),
    "directory-then-file": lambda tar, name: tar.directory(name).file(name + "/new", "n").file(name, "f"),
    "opaque": lambda tar, name: tar.directory(name, mode=0o750).opaque(name).file(name + "/new", "n"),
    "late-opaque": lambda tar, name: tar.directory(name).file(name + "/new", "n").directory(name + "/both").file(name + "/both/new", "n")
    .opaque(name),
    "whiteout-and-opaque": lambda tar, name: tar.whiteout(name).directory(name).opaque(name),
    "opaque-with-whiteout-inside": lambda tar, name: tar.directory(name).opaque(name).whiteout(name + "/lower").file(name + "/new", "n"),
    "whiteout-inside": lambda tar, name: tar.directory(name, mode=0o755).whiteout(name + "/lower").directory(name + "/both")
    .whiteout(name + "/both/lower"),
    "nothing": lambda tar, name: tar,
}


def layers():
    """Every kind over every kind, then a third layer that does it again."""
    lower, upper = root(), RawTar().directory("./", mode=0o711, mtime="1700000001.25")
    third = RawTar().directory("./", mode=0o755, mtime="1700000002.5")
    for tar in (lower, upper, third):
        tar.directory("k").directory("again")
    for below, make in LOWER_KINDS.items():
        for above, change in UPPER_KINDS.items():
            if not (above == "whiteout-inside" and below != "directory"):
                make(lower, f"k/{below}-under-{above}")
                change(upper, f"k/{below}-under-{above}")
    for middle, make in UPPER_KINDS.items():
        for above in ("file", "directory", "whiteout", "opaque", "whiteout-then-directory"):
            name = f"again/{middle}-under-{above}"
            LOWER_KINDS["directory"](lower, name)
            make(upper, name)
            UPPER_KINDS[above](third, name)
    # Only what a directory says of itself changes.
    lower.directory("only", mode=0o700, xattrs={"user.before": b"1"}).file("only/file", "kept")
    upper.directory("only", mode=0o1777, owner=(8, 9), mtime="1700000000.000000007", xattrs={"user.after": b"2"})
    # A link of a lower layer loses a name; a whiteout of what is not there.
    lower.directory("hidden").file("hidden/1", "h").hard_link("hidden/2", "hidden/1").hard_link("hidden/3", "hidden/1")
    upper.directory("hidden").whiteout("hidden/2").whiteout("hidden/never")
    third.directory("hidden").file("hidden/3", "own")
    # Leftovers of AUFS mean nothing.
    upper.directory(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "x").file(".wh..wh.aufs", "x")
    return [lower, upper, third]


def opaque_root():
    lower = root().directory("gone").file("gone/file", "x").file("also-gone")
    upper = RawTar().directory("./", mode=0o755, mtime="1700000003.125").file(".wh..wh..opq").directory("stays").file("stays/file", "y")
    for name in ("proc", "sys", "dev", "tmp"):
        upper.directory(name)
    return [lower, upper, RawTar().directory("./").file("last", "z")]


def formats():
    """Oddities of archivers that every reader knows."""
    tar = root().directory("f")
    for form in ("ustar", "gnu", "v7"):
        tar.file(f"f/{form}", form, form=form, owner=(3, 3)).directory(f"f/{form}-directory", form=form).symlink(f"f/{form}-link", "t", form=form)
    tar.add("f/old-regular", b"\0", b"old").add("f/old-directory/", b"\0").add("f/regular-with-slash-not", b"0", b"x")
    tar.directory("f/with-size", pax=[("size", "0")]).file("f/size-in-a-record", b"12345", pax=[("size", "5")])
    # The last of several records holds, an empty one leaves the header's, unknown ones mean nothing.
    tar.file("f/ignored", "x", pax=[("path", "f/first"), ("path", "f/last"), ("uname", "nobody"), ("VENDOR.key", "value"), ("comment", "c")])
    tar.file("f/empty-record", "x", owner=(6, 6), pax=[("uid", ""), ("mtime", "")])
    tar.symlink("f/record-link", "no", pax=[("linkpath", "f/yes")])
    tar.file("f/binary-charset", "x", pax=[("hdrcharset", "BINARY"), ("path", b"f/\xff-binary")])
    tar.file("f/times", "x", pax=[("atime", "1.5"), ("ctime", "2.5"), ("mtime", "3.5"), ("LIBARCHIVE.creationtime", "4")])
    # GNU's long name behind a pax record, and a record of the whole archive.
    long_name = b"f/" + b"G" * 120
    tar.raw(header(b"././@LongLink", b"L", len(long_name) + 1, form="gnu") + padded(long_name + b"\0")).file("f/short", "gnu wins")
    name = pax_record(b"path", b"f/pax-name")
    tar.raw(header(b"PaxHeaders/x", b"x", len(name)) + padded(name))
    tar.raw(header(b"././@LongLink", b"L", 11, form="gnu") + padded(b"f/gnu-name\0")).file("f/short-2", "gnu wins over pax")
    return [tar]


def numbered_layers(count):
    """Each layer changes one file, adds one, and takes one of an earlier layer away."""
    first = root().directory("d").file("counter", "0").file("d/0", "0")
    tars = [first]
    for number in range(1, count):
        tar = RawTar().directory("./", mtime=EPOCH + number).file("counter", str(number)).directory("d", mtime=EPOCH + number)
        tar.file(f"d/{number}", str(number))
        if number % 3 == 0:
            tar.whiteout(f"d/{number - 2}")
        tars.append(tar)
    return tars


def everything(lister):
    """Most of it in one image, for a guest; the lister lies in the lowest layer."""
    tars = [program(lister)]
    for name, make in ALL.items():
        if name != "opaque_root":
            tars += make()
    return tars


ALL = {function.__name__: function for function in
       (metadata, attributes, names, contents, sparse, links, order, parents_that_are_links, layers, opaque_root, formats)}
