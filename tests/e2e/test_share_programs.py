# SPDX-License-Identifier: Apache-2.0
"""Programs from outside the project that work on a shared directory in real guests: Git, npm, make and a compiler, SQLite,
rsync, stress-ng."""

import io
import json
import os
import subprocess
import tarfile

from conftest import IMAGES, TIMEOUT, TOOLS
from test_disks import output
from test_shares import shared  # noqa: F401  (a fixture)

DEVELOP = f"{IMAGES}:develop"
FULL = os.environ.get("MSB_TEST_FULL") == "1"


def on_share(vmm, folder, script, image=DEVELOP, options=()):
    return vmm.run("bash", "-ec", script, image=image, options=["--share", f"{folder}:/work", "--memory", "1024", "--cpus", "2", *options])


def test_git_clones_and_finds_nothing_wrong(vmm, shared):  # noqa: F811
    script = """
export HOME=/root GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git config --global init.defaultBranch main
cd /work
git init -q repository
cd repository
for folder in one two; do
  mkdir -p $folder/deep/er
  for n in $(seq 15); do echo "$folder $n" > $folder/deep/er/$n; done
  ln -s deep/er/1 $folder/link
  chmod +x $folder/deep/er/2
  git add -A
  git commit -qm $folder
done
git mv one four
git commit -qm moved
git gc -q
cd ..
git clone -q --no-local repository clone
cd clone
git fsck --full --strict
git status --porcelain
git checkout -q HEAD~1
git checkout -q main
git diff --stat HEAD
find . -path ./.git -prune -o -type f -print | wc -l
"""
    assert output(on_share(vmm, shared, script)).strip() == "30"
    # As the host sees it.
    safe = ["git", "-c", f"safe.directory={shared}/clone", "-C", shared / "clone"]
    assert subprocess.run([*safe, "fsck", "--full"], capture_output=True, check=True, timeout=TIMEOUT).stdout == b""
    assert subprocess.run([*safe, "status", "--porcelain"], capture_output=True, check=True, timeout=TIMEOUT).stdout == b""


def pack(path, name, version, dependencies, files):
    """A package as `npm pack` makes it."""
    description = {"name": name, "version": version, "main": "index.js", "dependencies": dependencies, "bin": {name: "index.js"}}
    contents = {"package.json": json.dumps(description), "index.js": f"#!/usr/bin/env node\nmodule.exports = '{name}@{version}'\n", **files}
    with tarfile.open(path, "w:gz") as archive:
        for file, text in contents.items():
            entry = tarfile.TarInfo(f"package/{file}")
            entry.size, entry.mode = len(text), 0o755 if file == "index.js" else 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))


def test_npm_installs_a_deep_tree_from_local_packages(vmm, shared):  # noqa: F811
    project = shared / "project"
    project.mkdir()
    files = {f"lib/{'/'.join('abcdefgh'[:depth])}/file-{n}.js": f"// {n}\n" for depth in range(1, 9) for n in range(2)}
    depth = 4
    for number in range(depth):
        below = {f"package-{number + 1}": f"file:/work/package-{number + 1}.tgz"} if number + 1 < depth else {}
        pack(shared / f"package-{number}.tgz", f"package-{number}", f"1.0.{number}", below, files)
    (project / "package.json").write_text(json.dumps(
        {"name": "project", "version": "1.0.0", "dependencies": {f"package-{n}": f"file:/work/package-{n}.tgz" for n in (0, 2)}}))
    script = ("export HOME=/root; cd /work/project; npm install --offline --no-audit --no-fund --loglevel=error --install-strategy=nested > /tmp/log 2>&1 "
              "|| { cat /tmp/log; exit 1; }; node -p 'require(\"package-0\")'; node_modules/.bin/package-2; find node_modules -name package.json | wc -l; "
              "find node_modules -name '*.js' | wc -l; rm -rf node_modules; ls")
    lines = output(on_share(vmm, shared, script)).split()
    assert lines == ["package-0@1.0.0", "4", str(4 * 17), "package-lock.json", "package.json"]


def test_a_project_in_c_is_built_by_two_jobs(vmm, shared):  # noqa: F811
    (shared / "main.c").write_text("".join(f"int part{n}(int);\n" for n in range(6)) +
                                   "int main(void) { return part0(1) + part1(1) + part2(1) + part3(1) + part4(1) + part5(1) - 21; }\n")
    for number in range(6):
        (shared / f"part{number}.c").write_text(f'#include "part.h"\nint part{number}(int x) {{ return x * FACTOR({number}); }}\n')
    (shared / "part.h").write_text("#define FACTOR(n) ((n) + 1)\n")
    (shared / "Makefile").write_text("objects := main.o $(patsubst %,part%.o,0 1 2 3 4 5)\nprogram: $(objects)\n\t$(CC) -o $@ $^\n"
                                     "$(objects): part.h\nclean:\n\trm -f program *.o\n")
    script = ("cd /work; make -s -j2; ./program; make -q; ./program; sed -i 's/+ 1/+ 2/' part.h; make -q && exit 9; make -s -j2; "
              "./program || echo $?; make -s clean; ls | wc -l")
    assert output(on_share(vmm, shared, script)).split() == ["6", "9"]


def test_sqlite_keeps_its_promises_in_both_modes(vmm, shared):  # noqa: F811
    script = """
cd /work
for mode in wal delete; do
  file=$mode.db
  sqlite3 $file "pragma journal_mode=$mode; create table t(writer, n, filler)"
  for writer in 1 2; do
    (for n in $(seq 12); do
      echo ".timeout 60000"
      echo "begin immediate; insert into t values($writer, $n, zeroblob(20000)); update t set filler = randomblob(3000) where n % 3 = 0; commit;"
    done | sqlite3 $file) &
  done
  (for n in $(seq 5); do echo ".timeout 60000"; echo "select count(*) > -1 from t;"; done | sqlite3 $file > /dev/null) &
  wait
  sqlite3 $file ".timeout 60000" "pragma integrity_check; select count(*), count(distinct writer) from t"
done
"""
    assert output(on_share(vmm, shared, script, TOOLS)).split() == ["wal", "ok", "24|2", "delete", "ok", "24|2"]
    for mode in ("wal", "delete"):
        assert subprocess.run(["python3", "-c", "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('pragma integrity_check').fetchone())",
                               shared / f"{mode}.db"], capture_output=True, check=True, timeout=TIMEOUT).stdout == b"ok\n"


def test_rsync_brings_back_what_it_took_there(vmm, shared):  # noqa: F811
    script = r"""
mkdir -p /tree/deep/er /tree/empty
cd /tree
head -c 300000 /dev/urandom > data
truncate -s 5M sparse
printf x | dd of=sparse bs=1 seek=3000000 conv=notrunc status=none
ln data deep/hard
ln -s ../data deep/link
ln -s nowhere dangling
mkfifo pipe
mknod device c 1 3
chmod 4751 data
chmod 1777 empty
chmod 2750 deep
chown 1000:2000 data deep
chown 1001:2001 empty
chown -h 77:88 dangling
setfattr -n user.note -v hello data
setfattr -n trusted.note -v secret deep
setfacl -m u:1234:rx,g:4321:w data
setfacl -d -m u:1234:rwx deep
touch -d '2001-02-03 04:05:06.789012345' data deep/er
printf 'odd' > $'new\nline'
printf 'odd' > $'\xff\xfe'
mkdir /back
rsync -aHAX /tree/ /work/copy/
rsync -aHAX /work/copy/ /back/
rsync -naHAXi --checksum --delete /tree/ /work/copy/
rsync -naHAXi --checksum --delete /tree/ /back/
stat -c '%n %a %u:%g %h' /work/copy/data /work/copy/dangling /work/copy/device
getfacl -cp /work/copy/data | grep 1234
"""
    assert output(on_share(vmm, shared, script)).splitlines() == [
        "/work/copy/data 771 1000:2000 2", "/work/copy/dangling 777 77:88 1", "/work/copy/device 644 0:0 1", "user:1234:r-x"]
    assert (shared / "copy/data").stat().st_mode & 0o7000 == 0


def test_stress_ng_finds_no_fault_with_the_file_system(vmm, shared):  # noqa: F811
    left_out, seconds, limit = ("binderfs", 3, 900) if FULL else ("binderfs,dentry,filename,link,symlink", 1, TIMEOUT)
    script = (f"cd /work; stress-ng --class filesystem --sequential 1 --timeout {seconds} --temp-path /work --exclude {left_out} --verify --oomable "
              "> /tmp/log 2>&1; status=$?; grep -E 'fail|error' /tmp/log | head -20; ls -A /work; exit $status")
    process = vmm.start("run", "--image", TOOLS, "--memory", "1024", "--cpus", "2", "--share", f"{shared}:/work", "--", "bash", "-c", script)
    said, errors = process.communicate(timeout=limit)
    assert (process.returncode, said, errors) == (0, b"", b"")
