# SPDX-License-Identifier: Apache-2.0
"""The image `develop`: a C compiler, Git, npm and rsync, for tests that work on trees of files in guests."""

import debian_image

PACKAGES = ["gcc", "libc6-dev", "make", "git", "rsync", "npm", "python3-minimal", "attr", "acl", "mount"]
WORKS = """
cd /tmp
printf 'int main(void) { return 42; }' > check.c
cc check.c -o check
! ./check
rm check check.c
git init -q check
rm -r check
for program in make rsync npm node getfattr getfacl; do $program --version > /dev/null; done
"""


def make(folder):
    return debian_image.make(folder, "develop", PACKAGES, "bash", ["sh", "-e", "-c", WORKS])
