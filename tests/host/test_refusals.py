# SPDX-License-Identifier: Apache-2.0
"""Bad input that msb-vmm refuses before, or without, running a guest: one sentence, the right exit status."""

import os
import pathlib
import subprocess

import pytest
from conftest import BASE, IMAGES, blob, manifest_of, message

KVM = pathlib.Path("/dev/kvm")
needs_kvm = pytest.mark.skipif(not os.access(KVM, os.R_OK | os.W_OK), reason="/dev/kvm does not open here")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="hiding /dev/kvm takes root")


def refused(result, *words, status=125):
    text = message(result)
    for word in words:
        assert word in text
    assert result.returncode == status
    assert result.stdout == b""


@pytest.mark.parametrize("arguments, words", [
    ([], ["subcommand"]),
    (["fly"], ["fly"]),
    (["run"], ["--image"]),
    (["run", "--image", BASE, "--memory", "lots"], ["lots"]),
    (["run", "--image", BASE, "--memory", "31"], ["--memory 31", "32"]),
    (["run", "--image", BASE, "--memory", "1048577"], ["--memory 1048577"]),
    (["run", "--image", BASE, "--memory", "18446744073709551616"], ["18446744073709551616"]),
    (["run", "--image", BASE, "--memory", "-1"], ["-1"]),
    (["run", "--image", BASE, "--memory", "1048576"], ["that this host has"]),
    (["run", "--image", BASE, "--cpus", "0"], ["--cpus 0"]),
    (["run", "--image", BASE, "--cpus", "65"], ["--cpus 65"]),
    (["run", "--image", BASE, "--cpus", "4294967297"], ["--cpus 4294967297"]),
    (["run", "--image", BASE, "--stop-timeout", "soon"], ["--stop-timeout", "soon", "600"]),
    (["run", "--image", BASE, "--stop-timeout", "601"], ["--stop-timeout", "601", "600"]),
    (["run", "--image", BASE, "--stop-timeout", "-1"], ["--stop-timeout", "-1"]),
])
def test_impossible_arguments_are_refused(vmm, arguments, words):
    refused(vmm(*arguments), *words)


@needs_kvm
@pytest.mark.parametrize("options, words", [
    (["--socket", "/nonexistent/s"], ["/nonexistent/s", "No such file"]),
    (["--socket", "/etc/passwd"], ["/etc/passwd", "is not a socket"]),
    (["--socket", "/tmp/" + "x" * 200], ["too long"]),
    (["--env", "=x"], ["=x"]),
    (["--workdir", "relative"], ["relative", "absolute"]),
    (["--stop-signal", "SIGNOTHING"], ["--stop-signal", "SIGNOTHING"]),
    (["--kernel", "/nonexistent/vmlinux"], ["/nonexistent/vmlinux", "No such file"]),
    (["--initramfs", "/nonexistent/cpio"], ["/nonexistent/cpio", "No such file"]),
    (["--kernel", "/etc/passwd"], ["not an ELF file"]),
    (["--kernel", "/bin/true"], ["kernel"]),
    (["--kernel", "/etc"], ["kernel", "directory"]),
    (["--append", "x" * 4000], ["command line"]),
])
def test_impossible_run_options_are_refused(vmm, options, words):
    if "--workdir" in options and not vmm("doctor").returncode == 0:
        pytest.skip("needs a KVM that can run guests")
    refused(vmm.run("true", options=options), *words)


@needs_kvm
def test_a_truncated_kernel_is_refused(vmm, tmp_path):
    whole = (IMAGES.parent / "guestkernel/vmlinux").read_bytes()
    cut = tmp_path / "vmlinux"
    cut.write_bytes(whole[:len(whole) // 2])
    refused(vmm.run("true", options=["--kernel", cut]), "truncated")
    cut.write_bytes(b"")
    refused(vmm.run("true", options=["--kernel", cut]), "0 bytes")


@needs_kvm
def test_images_that_do_not_exist_are_refused_by_name(vmm, tmp_path):
    refused(vmm.run("true", image=str(tmp_path / "absent")), "absent")
    refused(vmm.run("true", image=str(tmp_path)), str(tmp_path))
    refused(vmm.run("true", image=f"{IMAGES}:absent"), "absent", "base", "python")


def damage(path, change):
    content = bytearray(path.read_bytes())
    path.unlink()  # a link to the real one
    path.write_bytes(change(content))


def flip(content):
    content[len(content) // 2] ^= 1
    return content


@needs_kvm
@pytest.mark.parametrize("part", ["manifest", "config", "first layer", "last layer"])
@pytest.mark.parametrize("change", [flip, lambda content: content[:-1], lambda content: content + b"x",
                                    lambda content: b""], ids=["flipped", "cut", "longer", "empty"])
def test_a_damaged_image_is_refused(vmm, layout, tmp_path, part, change):
    descriptor, manifest = manifest_of(layout)
    damaged = {"manifest": descriptor, "config": manifest["config"], "first layer": manifest["layers"][0],
               "last layer": manifest["layers"][-1]}[part]
    damage(blob(layout, damaged), change)
    home = tmp_path / "home"
    vmm.environment["MSB_HOME"], old = str(home), vmm.environment["MSB_HOME"]
    try:
        result = vmm.run("true", image=f"{layout}:base")
    finally:
        vmm.environment["MSB_HOME"] = old
    refused(result, "sha256:")
    # Of the damaged layer nothing was kept, under no name.
    kept = [path for path in home.rglob("*") if path.is_file() and path != home / "store.lock"]
    assert all(path.suffix == ".erofs" and path.parent.parent == home / "layers" for path in kept)
    assert len(kept) < len(manifest["layers"])


@needs_root
@needs_kvm
def test_a_host_without_kvm_says_so(vmm):
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "-"]
    refused(vmm.run("true", prefix=hide), "there is no usable /dev/kvm")
    refused(vmm("doctor", prefix=hide), "there is no usable /dev/kvm", status=1)


@needs_root
@needs_kvm
def test_a_device_that_is_not_kvm_says_so(vmm):
    replace = ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /dev/kvm && exec "$@"', "-"]
    refused(vmm.run("true", prefix=replace), "it is not KVM")


@needs_root
@needs_kvm
def test_no_permission_for_kvm_says_what_to_do(vmm):
    forbid = ["unshare", "--mount", "sh", "-c",
              'mount -t tmpfs -o mode=755 none /dev && mknod -m 600 /dev/kvm c 10 232 && mknod -m 666 /dev/null c 1 3 && '
              'exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"', "-"]
    refused(vmm.run("true", prefix=forbid), "no permission to open /dev/kvm", "group")


@needs_kvm
def test_a_kvm_that_cannot_run_linux_is_named_by_doctor_and_run_alike(vmm):
    doctor = vmm("doctor")
    if doctor.returncode == 0:
        assert doctor.stdout == b"KVM runs Linux guests\n"
        pytest.skip("this host's KVM runs guests")
    refused(doctor, "KVM cannot run Linux guests here", status=1)
    refused(vmm.run("true"), message(doctor))


def test_msb_machine_alone_says_how_it_is_started():
    program = IMAGES.parent / "release/bin/msb-machine"
    result = subprocess.run([program], capture_output=True, close_fds=True, check=False, timeout=10)
    assert result.returncode == 1
    assert b"msb-vmm run" in result.stderr
