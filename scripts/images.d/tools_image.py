# SPDX-License-Identifier: Apache-2.0
"""The image `tools`: what tests of disks, memory, processors and networks run in guests."""

import debian_image

PACKAGES = ["e2fsprogs", "fio", "stress-ng", "sqlite3", "attr", "acl", "procps", "mount", "util-linux",
            "coreutils", "bash", "apt", "curl", "iproute2", "iperf3", "netcat-openbsd"]
# Only scripts that evaluate what fio found need Python, which would be a quarter of all files here: removed
# before the tools are tried.
TOOLS_WORK = """
rm -r /usr/bin/python3* /usr/lib/python3* /usr/share/python3*
fio --name=check --rw=write --size=4k --filename=/tmp/check --output=/dev/null
rm /tmp/check
stress-ng --version
test "$(sqlite3 :memory: 'select 6 * 7')" = 42
mke2fs -V
ip -V
test -x /usr/bin/nc
for program in getfattr getfacl ps lsblk blkdiscard mount curl iperf3; do $program --version; done
"""


def make(folder):
    return debian_image.make(folder, "tools", PACKAGES, "bash", ["sh", "-e", "-c", TOOLS_WORK])
