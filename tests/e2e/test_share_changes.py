# SPDX-License-Identifier: Apache-2.0
"""Shares that come and go while the guest runs."""

import os

import pytest
from conftest import machines
from control_client import ControlError
from guest_shell import GuestShell
from test_shares import shared  # noqa: F401  (a fixture)


@pytest.fixture
def sandbox(vmm, tmp_path):
    """A shell in a guest, and the control socket."""
    with GuestShell(vmm, tmp_path / "control") as started:
        yield started


def gone(place):
    """A command that waits until nothing is mounted there, which no answer tells of; no longer than any command may take."""
    return f"until ! grep -q ' {place} ' /proc/mounts; do sleep 0.1; done"


def test_directories_and_files_are_shared_and_taken_away(sandbox, shared):  # noqa: F811
    control = sandbox.control
    control("subscribe")
    (shared / "folder").mkdir()
    (shared / "folder/file").write_text("hello\n")
    (shared / "single").write_text("one\n")
    control("add_share", host=str(shared / "folder"), guest="/mnt/new/data")
    assert sandbox("cat /mnt/new/data/file; echo there > /mnt/new/data/made") == "hello\n"
    assert (shared / "folder/made").read_text() == "there\n"
    control("add_share", host=str(shared / "folder"), guest="/ro", read_only=True, cache="never")
    assert "Read-only" in sandbox("touch /ro/x", 1)
    control("add_share", host=str(shared / "single"), guest="/etc/single")
    assert sandbox("cat /etc/single") == "one\n"
    assert [share["guest"] for share in control("status")["shares"]] == ["/mnt/new/data", "/ro", "/etc/single"]

    # What is open there fails, and what is made at the place later is the guest's own.
    sandbox("exec 5< /mnt/new/data/file; cd /mnt/new/data")
    control("remove_share", guest="/mnt/new/data")
    sandbox(gone("/mnt/new/data"))
    assert sandbox("ls -A /mnt/new/data; cat <&5; touch here; cd /; true").count("Stale") >= 1
    sandbox("exec 5<&-; echo own > /mnt/new/data/file")
    assert (shared / "folder/file").read_text() == "hello\n"
    assert "here" not in os.listdir(shared / "folder")
    assert sandbox("cat /ro/file") == "hello\n"
    for place in ("/ro", "/etc/single"):
        control("remove_share", guest=place)
        sandbox(gone(place))
    assert sandbox("cat /etc/single; ls -A /ro; grep -c virtiofs /proc/mounts", 1) == "0\n"
    assert control("status")["shares"] == []
    assert [event["event"] for event in control.events] == ["share_added"] * 3 + ["share_removed"] * 3


def test_many_come_and_go_and_leave_nothing_behind(sandbox, shared):  # noqa: F811
    control = sandbox.control
    [machine] = [pid for pid in machines() if os.readlink(f"/proc/{pid}/exe").endswith("msb-machine")]

    def descriptors():
        return [os.readlink(f"/proc/{machine}/fd/{name}") for name in os.listdir(f"/proc/{machine}/fd")]

    (shared / "file").write_text("content")
    before = None
    for number in range(20):
        control("add_share", host=str(shared), guest=f"/s{number % 2}")
        assert sandbox(f"cat /s{number % 2}/file") == "content"
        control("remove_share", guest=f"/s{number % 2}")
        assert not [path for path in descriptors() if path.startswith(str(shared))]
        before = before or len(descriptors())  # with the connection to the agent
    assert len(descriptors()) == before


def test_what_the_guest_does_not_let_be_shared_is_not(sandbox, shared):  # noqa: F811
    control = sandbox.control
    (shared / "folder").mkdir()
    sandbox("echo x > /file; mkdir /full; echo x > /full/x")
    for place in ("/file", "/file/below", "/proc/below"):
        with pytest.raises(ControlError) as refused:
            control("add_share", host=str(shared / "folder"), guest=place)
        assert refused.value.code == -32000
        assert place in str(refused.value)
    assert control("status")["shares"] == []
    control("add_share", host=str(shared / "folder"), guest="/full")
    # The guest may unmount it, or hide it; the host takes it away all the same.
    sandbox("umount /full && cat /full/x")
    control("remove_share", guest="/full")
    control("add_share", host=str(shared / "folder"), guest="/full")
    sandbox("mount --bind /tmp /full")
    control("remove_share", guest="/full")
    assert "Stale" in sandbox("umount /full; ls /full/ 2>&1; umount /full; cat /full/x")
    with pytest.raises(ControlError):
        control("remove_share", guest="/full")


def test_a_guests_overlay_keeps_its_changes_on_a_share(sandbox, shared):  # noqa: F811
    (shared / "folder").mkdir()
    sandbox.control("add_share", host=str(shared), guest="/data")
    sandbox("mkdir -p /lower/folder /data/upper /data/aside /merged; echo one > /lower/one; echo two > /lower/two; echo in > /lower/folder/in")
    sandbox("mount -t overlay none -o lowerdir=/lower,upperdir=/data/upper,workdir=/data/aside /merged")
    sandbox("cd /merged; rm one; mv two moved; rm -r folder; mkdir folder; echo new > folder/new; cd /")
    assert sandbox("cd /merged; ls -A . folder; cat moved; cd /") == ".:\nfolder\nmoved\n\nfolder:\nnew\ntwo\n"
    sandbox("umount /merged && mount -t overlay none -o lowerdir=/lower,upperdir=/data/upper,workdir=/data/aside /merged")
    assert sandbox("ls -A /merged; umount /merged") == "folder\nmoved\n"
