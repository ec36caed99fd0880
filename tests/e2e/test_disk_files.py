# SPDX-License-Identifier: Apache-2.0
"""What a hostile guest, or another program of the host's user, does to the files behind a machine (hostile-input.md 19, 27 to 29)."""

import hashlib
import os
import pathlib
import re
import struct
import subprocess

from conftest import BASE, TIMEOUT, machines, read_output
from test_disks import MIB, disk, output, start_on  # noqa: F401  (disk: a fixture)


def test_a_file_that_becomes_shorter_gives_errors_where_it_ends_and_nothing_worse(vmm, disk):  # noqa: F811
    path, other = disk(), disk(name="other")
    script = ("echo -n up; read x; for at in 0 4; do dd if=/dev/vda of=/dev/null bs=1M skip=$at count=1 iflag=direct 2>/dev/null; echo $?; done; "
              "dd if=/dev/zero of=/dev/vda bs=1M seek=6 count=1 oflag=direct conv=notrunc,fsync 2>/dev/null; echo $?; md5sum < /dev/vdb")
    process = vmm.start("run", "--image", BASE, "--disk", path, "--disk", other, "--", "sh", "-c", script, stdin=subprocess.PIPE)
    assert read_output(process, 2) == b"up"
    os.truncate(path, MIB)
    out, _ = process.communicate(b"go\n", timeout=TIMEOUT)
    # A write makes the file longer again.
    assert out.decode().split() == ["0", "1", "0", hashlib.md5(bytes(8 * MIB)).hexdigest(), "-"]
    assert process.returncode == 0
    assert path.stat().st_size == 7 * MIB


def test_a_disk_that_begins_like_an_image_format_is_what_it_is(vmm, disk, tmp_path):  # noqa: F811
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 1000)
    name = str(secret).encode()
    # The header of a qcow2 file with a backing file, as a guest can write it for the next start.
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 256, len(name), 16, 64 * MIB, 0, 1, 65536, 131072, 1, 0, 0)
    path = disk()
    with open(path, "r+b") as file:
        file.write(header.ljust(256, b"\0") + name)
    content = path.read_bytes()
    script = "cat /sys/block/vda/size; md5sum < /dev/vda; head -c 256 /dev/vda | dd of=/dev/vda bs=256 seek=16 conv=notrunc 2>/dev/null"
    assert output(vmm.run("sh", "-c", script, options=["--disk", path])).split() == ["16384", hashlib.md5(content).hexdigest(), "-"]
    assert path.read_bytes() == content[:4096] + content[:256] + content[4352:]


def test_a_machine_has_no_descriptor_that_it_does_not_need(vmm, disk):  # noqa: F811
    path = disk()
    with start_on(vmm, path, "echo -n up; exec sleep 1000", b"up") as process:
        [pid] = [pid for pid in machines() if os.readlink(f"/proc/{pid}/exe").endswith("msb-machine")]
        found = [os.readlink(entry) for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
        process.kill()
    needed = [r"/dev/null", r"/dev/kvm", r"/dev/urandom", r"anon_inode:kvm-(vm|vcpu:0|vcpu-stats:0)", r"anon_inode:\[(eventfd|io_uring)\]", r"socket:\[\d+\]",
              r".*/layers/.*\.erofs", r"/memfd:directories\.erofs \(deleted\)", re.escape(str(path)), r"pipe:\[\d+\]"]
    assert [name for name in found if not any(re.fullmatch(one, name) for one in needed)] == []
    assert sum(name.startswith("pipe:") for name in found) <= 1  # standard error
    assert sum(name == str(path) for name in found) == 1
    # The control socket, the network's, and the guest's two connections at most.
    assert sum(name.startswith("socket:") for name in found) <= 4


def test_a_guest_that_floods_its_console_gets_no_further_than_its_reader(vmm):
    process = vmm.start("run", "--image", BASE, "--console", "--", "sh", "-c",
                        "echo -n up; while true; do head -c 4096 /dev/zero | tr '\\0' x > /dev/kmsg; done")
    assert read_output(process, 2) == b"up"
    [pid] = [pid for pid in machines() if os.readlink(f"/proc/{pid}/exe").endswith("msb-machine")]

    def memory():
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096

    before = memory()
    try:
        process.wait(5)  # nobody reads
    except subprocess.TimeoutExpired:
        pass
    assert process.poll() is None
    assert memory() - before < 64 * MIB  # the guest's own memory is part of it
    process.terminate()
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 143
