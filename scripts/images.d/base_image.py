# SPDX-License-Identifier: Apache-2.0
"""The image `base`: busybox, and in /usr/share/msb-test everything that stacking layers can get wrong.

`/usr/share/msb-test/check` in the image compares what a sandbox sees with what it must see and
prints every difference. The three layers differ in their compression, and in how they write names.
"""

import hashlib
import os
import subprocess
import tarfile

from layout import LayerTar

BUSYBOX = "/bin/busybox"
TEST = "usr/share/msb-test"
CONFIG = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
          "Cmd": ["/bin/sh"], "WorkingDir": "/"}

ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\n"
              "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
              "user:x:1000:1000:user:/home/user:/bin/sh\n"
              "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "group": "root:x:0:\ndaemon:x:1:\ntty:x:5:\nshadow:x:42:\nusers:x:100:user\nuser:x:1000:\n"
             "nogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    "hostname": "",
    "resolv.conf": "",
    "os-release": 'ID=msb-base\nNAME="microsandbox base"\nPRETTY_NAME="microsandbox base (busybox)"\n',
}

# Around the sizes at which a file system stores the end of a file differently.
SIZES = [0, 1, 4000, 4095, 4096, 4097, 8191, 8192, 12289, (1 << 20) + 1]
LONG_NAME = "n" * 255
DEEP = "/".join("deep-directory-%02d" % depth for depth in range(20))
MANY = 400


def inputs():
    with open(BUSYBOX, "rb") as file:
        return file.read()


def make(folder):
    """Writes the layers' tars into `folder`; returns the arguments of Layout.add_image."""
    layers = []
    for number, (write, compression) in enumerate(
            [(write_first, "gzip"), (write_second, "none"), (write_third, "zstd")], 1):
        path = os.path.join(folder, f"base-{number}.tar")
        # Both ways of writing a name are in use: "etc/passwd" and "./etc/passwd".
        with LayerTar(path, prefix="./" if number == 2 else "") as layer:
            write(layer)
        layers.append((path, compression, f"scripts/images: layer {number}"))
    return layers, CONFIG


def pattern(size):
    """Bytes that repeat nowhere near a block boundary, so that a misplaced block shows."""
    block = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(size // 32 + 1))
    return block[:size]


def write_first(layer):
    for name in ("bin", "dev", "etc", "home", "proc", "sbin", "sys", "usr", "usr/bin", "usr/sbin",
                 "usr/local", "usr/local/bin", "usr/local/sbin", "usr/share", "var", "var/log", "run"):
        layer.directory(name)
    layer.directory("root", 0o700)
    layer.directory("tmp", 0o1777)
    layer.directory("var/tmp", 0o1777)
    layer.directory("home/user", 0o750, owner=(1000, 1000))
    for name, content in ETC.items():
        layer.file(f"etc/{name}", content.encode())
    layer.file("etc/shadow", b"root:*:19676:0:99999:7:::\n", 0o640, owner=(0, 42))
    write_busybox(layer)

    layer.directory(TEST)
    for name in ("kept", "removed", "replaced", "changed", "returned", "becomes-directory",
                 "link-a", "pair-a"):
        layer.file(f"{TEST}/{name}", b"layer 1\n")
    layer.hard_link(f"{TEST}/pair-b", f"{TEST}/pair-a")
    layer.hard_link(f"{TEST}/link-b", f"{TEST}/link-a")
    for name in ("removed-directory", "opaque", "merged", "becomes-file"):
        layer.directory(f"{TEST}/{name}")
        layer.file(f"{TEST}/{name}/old", b"layer 1\n")
    layer.directory(f"{TEST}/opaque/old-directory")
    layer.file(f"{TEST}/opaque/old-directory/old", b"layer 1\n")
    layer.directory(f"{TEST}/owned-directory", 0o2775, owner=(1234, 5678))
    layer.directory(f"{TEST}/changed-directory", 0o755)
    layer.file(f"{TEST}/changed-directory/inside", b"layer 1\n")

    layer.symlink(f"{TEST}/symlink", "kept")
    layer.symlink(f"{TEST}/symlink-absolute", f"/{TEST}/kept")
    layer.symlink(f"{TEST}/symlink-dangling", "nowhere")
    layer.symlink(f"{TEST}/symlink-long", "long/" * 200 + "target")
    layer.file(f"{TEST}/setuid", b"#!/bin/sh\n", 0o4755)
    layer.file(f"{TEST}/nobody-may", b"", 0o000)
    layer.file(f"{TEST}/large-owner", b"", owner=(1000000000, 4294967294))
    layer.file(f"{TEST}/time", b"", mtime="1000000000.123456789")
    layer.file(f"{TEST}/time-before-1970", b"", mtime="-1")
    layer.file(f"{TEST}/time-after-2038", b"", mtime="4102444800.5")
    layer.file(f"{TEST}/attribute", b"", attributes={"user.msb-test": "value of layer 1"})
    layer.add(f"{TEST}/fifo", tarfile.FIFOTYPE, 0o640)
    layer.add(f"{TEST}/device", tarfile.CHRTYPE, 0o600, device=(1, 3))
    layer.file(f"{TEST}/name with 'quotes', ünïcode\tand\nnewline", b"odd\n")
    layer.file(f"{TEST}/{LONG_NAME}", b"long\n")
    layer.directory(f"{TEST}/sizes")
    for size in SIZES:
        layer.file(f"{TEST}/sizes/{size}", pattern(size))
    layer.file(f"{TEST}/sizes/zeros", bytes(300000))
    layer.directory(f"{TEST}/many")
    for number in range(MANY):
        layer.file(f"{TEST}/many/{number:04d}-{'m' * 40}", b"%d" % number)


def write_busybox(layer):
    """busybox under its applets' names: hard links in /bin and /sbin, symlinks in /usr."""
    with open(BUSYBOX, "rb") as file:
        layer.file("bin/busybox", file.read(), 0o755)
    applets = subprocess.run([BUSYBOX, "--list-full"], check=True, capture_output=True, text=True)
    for name in sorted(set(applets.stdout.split())):
        if name.startswith("usr/"):
            layer.symlink(name, "/bin/busybox")
        elif name.startswith(("bin/", "sbin/")) and name != "bin/busybox":
            layer.hard_link(name, "bin/busybox", mode=0o755)


def write_second(layer):
    for name in ("usr", "usr/share", TEST):
        layer.directory(name)
    layer.whiteout(f"{TEST}/removed")
    layer.whiteout(f"{TEST}/removed-directory")
    layer.whiteout(f"{TEST}/returned")
    # The entries of an opaque directory may stand on both sides of its mark.
    layer.directory(f"{TEST}/opaque", 0o750)
    layer.file(f"{TEST}/opaque/new", b"layer 2\n")
    layer.opaque(f"{TEST}/opaque")
    layer.file(f"{TEST}/opaque/newer", b"layer 2\n")
    layer.directory(f"{TEST}/merged")
    layer.file(f"{TEST}/merged/new", b"layer 2\n")
    layer.file(f"{TEST}/changed", b"layer 1\n", 0o600, owner=(1234, 5678))
    layer.directory(f"{TEST}/changed-directory", 0o711, owner=(12, 34))
    layer.file(f"{TEST}/link-a", b"layer 2\n")
    layer.file(f"{TEST}/becomes-file", b"layer 2\n")
    layer.directory(f"{TEST}/becomes-directory")
    layer.file(f"{TEST}/becomes-directory/new", b"layer 2\n")
    layer.file(f"{TEST}/passing", b"layer 2\n")


def write_third(layer):
    # Parent directories without an entry of their own, as some builders write them.
    layer.file(f"{TEST}/{DEEP}/file", b"deep\n")
    layer.directory(TEST)
    layer.file(f"{TEST}/replaced", b"layer 3, longer than before\n")
    layer.file(f"{TEST}/returned", b"layer 3\n")
    layer.whiteout(f"{TEST}/passing")
    layer.file(f"{TEST}/merged/newest", b"layer 3\n")
    layer.file(f"{TEST}/removed-directory/back", b"layer 3\n")
    sums = [f"{hashlib.sha256(pattern(size)).hexdigest()}  sizes/{size}\n" for size in SIZES]
    sums.append(f"{hashlib.sha256(bytes(300000)).hexdigest()}  sizes/zeros\n")
    layer.file(f"{TEST}/sha256sums", "".join(sums).encode())
    layer.file(f"{TEST}/check", CHECK.encode(), 0o755)


CHECK = r"""#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compares this directory with what the image's three layers make of it, and prints each difference.
cd /usr/share/msb-test || exit 1
failed=0
expect() {  # what, expected, found
  [ "$2" = "$3" ] && return
  echo "$1: expected '$2', found '$3'"
  failed=1
}
content() { expect "content of $1" "$2" "$(cat "$1" 2>&1)"; }
status() { expect "type, mode, owner, links, size of $1" "$2" "$(stat -c '%F %a %u:%g %h %s' "$1" 2>&1)"; }
absent() { [ ! -e "$1" ] && [ ! -L "$1" ] || { echo "$1: expected to be absent"; failed=1; }; }
entries() { expect "entries of $1" "$2" "$(ls -A "$1" 2>&1 | tr '\n' ' ')"; }

content kept 'layer 1'
absent removed
absent passing
entries removed-directory 'back '
content returned 'layer 3'
entries opaque 'new newer '
entries merged 'new newest old '
content replaced 'layer 3, longer than before'
status changed 'regular file 600 1234:5678 1 8'
expect 'mode, owner of changed-directory' '711 12:34' "$(stat -c '%a %u:%g' changed-directory)"
content changed-directory/inside 'layer 1'
expect 'mode of opaque' 750 "$(stat -c %a opaque)"
status becomes-file 'regular file 644 0:0 1 8'
entries becomes-directory 'new '

status pair-a 'regular file 644 0:0 2 8'
expect 'inode of pair-b' "$(stat -c %i pair-a)" "$(stat -c %i pair-b)"
content pair-b 'layer 1'
content link-a 'layer 2'
content link-b 'layer 1'
expect 'inode of /bin/sh' "$(stat -c %i /bin/busybox)" "$(stat -c %i /bin/sh)"

expect symlink kept "$(readlink symlink)"
content symlink 'layer 1'
content symlink-absolute 'layer 1'
expect symlink-dangling nowhere "$(readlink symlink-dangling)"
expect 'length of symlink-long' 1006 "$(readlink -n symlink-long | wc -c)"
status setuid 'regular file 4755 0:0 1 10'
status nobody-may 'regular empty file 0 0:0 1 0'
status large-owner 'regular empty file 644 1000000000:4294967294 1 0'
expect 'mode, owner of owned-directory' '2775 1234:5678' "$(stat -c '%a %u:%g' owned-directory)"
expect time '2001-09-09 01:46:40.123456789' "$(TZ=UTC0 stat -c %y time | cut -c1-29)"
expect time-before-1970 -1 "$(stat -c %Y time-before-1970)"
expect time-after-2038 4102444800 "$(stat -c %Y time-after-2038)"
expect fifo 'fifo 640' "$(stat -c '%F %a' fifo)"
expect device 'character special file 600 1:3' "$(stat -c '%F %a %t:%T' device)"
content "$(printf "name with 'quotes', \303\274n\303\257code\tand\nnewline")" odd
content LONG_NAME long
content DEEP/file deep
expect 'number of entries of many' MANY "$(ls many | wc -l)"
content many/0123-mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm 123
expect 'checksums' '' "$(sha256sum -c sha256sums 2>&1 | grep -v ': OK$')"
expect 'mode of /tmp' 1777 "$(stat -c %a /tmp)"
expect 'mode, owner of /etc/shadow' '640 0:42' "$(stat -c '%a %u:%g' /etc/shadow)"
expect 'mark of a whiteout' '' "$(find / -xdev -name '.wh.*')"
[ $failed = 0 ] && echo 'all as expected'
exit $failed
""".replace("LONG_NAME", LONG_NAME).replace("DEEP", DEEP).replace("MANY", str(MANY))
