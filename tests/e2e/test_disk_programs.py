# SPDX-License-Identifier: Apache-2.0
"""Programs from outside the project on disks of real guests: fio's verification, SQLite, mke2fs, fstrim and blkdiscard."""

import os
import random
import subprocess
import time

import pytest
from conftest import TIMEOUT, TOOLS
from test_disks import MIB, check, disk, ext4, kill_the_machine, output, start_on  # noqa: F401  (disk: a fixture)

FULL = os.environ.get("MSB_TEST_FULL") == "1"


def blocks(path):
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("mode", ["", ":direct"], ids=["buffered", "direct"])
def test_fio_finds_what_it_wrote(vmm, disk, scratch, mode):  # noqa: F811
    path = disk(48 * MIB, folder=scratch)
    # Not randrw with more than one pass: fio 3.33 then finds fault with what it wrote to memory as well.
    words = (f"fio --name=mixed --filename=/dev/vda --rw=randwrite --bsrange={'4k' if mode else '512'}-64k --size=32m --ioengine=libaio "
             "--iodepth=16 --direct=1 --fsync=20 --verify=crc32c --verify_backlog=32 --verify_fatal=1 --randseed=7 --output-format=terse")
    result = vmm.run("sh", "-c", words, image=TOOLS, options=["--disk", f"{path}{mode}"])
    assert (result.returncode, result.stderr) == (0, b"")
    fields = result.stdout.decode().split(";")
    assert (fields[0], fields[4]) == ("3", "0")  # version, error
    assert int(fields[5]) > 0 and int(fields[46]) == 32 * 1024  # KiB read and written


def test_discarded_blocks_are_given_back_to_the_host(vmm, disk, scratch):  # noqa: F811
    path = ext4(disk(64 * MIB, folder=scratch))
    script = ("mkdir /m && mount /dev/vda /m && head -c 24M /dev/urandom > /m/big && sync && rm /m/big && sync && echo -n full && read x && "
              "fstrim /m && umount /m && echo -n trimmed && read x && blkdiscard -f /dev/vda && sync && echo -n empty && read x")
    process = start_on(vmm, path, script, b"full", image=TOOLS, stdin=subprocess.PIPE)
    full = blocks(path)
    assert full > 24 * MIB
    sizes = []
    for word in (b"trimmed", b"empty"):
        process.stdin.write(b"go\n")
        process.stdin.flush()
        assert process.stdout.read(len(word)) == word
        sizes.append(blocks(path))
    assert sizes[0] < full - 20 * MIB
    assert sizes[1] < MIB
    process.communicate(b"go\n", timeout=TIMEOUT)
    assert process.returncode == 0
    assert path.stat().st_size == 64 * MIB


def test_zeroes_are_written_without_being_sent(vmm, disk, scratch):  # noqa: F811
    path = disk(32 * MIB, folder=scratch)
    path.write_bytes(random.Random(1).randbytes(32 * MIB))
    content = path.read_bytes()
    output(vmm.run("sh", "-c", "blkdiscard -z -o 4M -l 8M /dev/vda && fallocate -z -o 16M -l 1M /dev/vda && sync", image=TOOLS,
                   options=["--disk", path]))
    expected = content[:4 * MIB] + bytes(8 * MIB) + content[12 * MIB:16 * MIB] + bytes(MIB) + content[17 * MIB:]
    assert path.read_bytes() == expected


def test_what_sqlite_committed_survives_sigkill(vmm, disk, scratch):  # noqa: F811
    # EXTRA: with less, the deletion of the journal that commits is not synchronised (sqlite.org/pragma.html).
    path = ext4(disk(64 * MIB, folder=scratch))
    moments = random.Random(os.environ.get("MSB_TEST_SEED", time.time_ns()))
    script = ("mkdir /m && mount /dev/vda /m && cd /m && sqlite3 db 'PRAGMA journal_mode = {mode}; PRAGMA synchronous = FULL; "
              "CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, text)' > /dev/null && "
              "last=$(sqlite3 db 'SELECT coalesce(max(n), 0) FROM t') && for n in $(seq $((last + 1)) 100000); do "
              "sqlite3 db \"PRAGMA synchronous = EXTRA; INSERT INTO t VALUES($n, hex(randomblob(500)))\" && printf '%07d\\n' $n; done")
    committed = 0
    for number in range(10 if FULL else 2):
        process = start_on(vmm, path, script.format(mode=["DELETE", "WAL"][number % 2]), b"", image=TOOLS)
        told, deadline = b"", time.monotonic() + moments.uniform(4, 8)
        while not told or time.monotonic() < deadline:
            told += process.stdout.read(8)
        kill_the_machine(process)
        committed = int(told[-8:])
        check(path)
        look = ("mkdir /m && mount /dev/vda /m && sqlite3 /m/db 'PRAGMA integrity_check; SELECT count(*) FROM t; SELECT max(n) FROM t'")
        answers = output(vmm.run("sh", "-c", look, image=TOOLS, options=["--disk", path])).split()
        assert answers[0] == "ok"
        assert int(answers[1]) == int(answers[2]) >= committed > 0
