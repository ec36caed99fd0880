# SPDX-License-Identifier: Apache-2.0
"""scripts/tap in a network namespace of its own: what it sets up, what it refuses, and what it sets back."""

import os
import shutil
import subprocess

import pytest
from conftest import REPOSITORY
from network_bed import Namespace

TAP = REPOSITORY / "scripts/tap"
OTHER = ["--ipv4", "10.9.9.1/30", "--ipv6", "fd00:9::1/64"]
FORWARDING = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"]
ACCEPT_RA = "net.ipv6.conf.lo.accept_ra"  # of an interface that every namespace has

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="this host has no tap devices")


@pytest.fixture
def near():
    namespace = Namespace()
    try:
        namespace("mount", "-t", "tmpfs", "none", "/run")
        yield namespace
    finally:
        namespace.end()


def refusal(near, *arguments, path=None):
    command = [*near.prefix, *(["env", f"PATH={path}"] if path else []), str(TAP), *arguments]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    assert result.returncode == 1, result
    return result.stderr.decode()


def settings(near, *names):
    return near("sysctl", "-n", *names).split()


def test_a_device_stays_out_of_what_its_host_forwards(near):
    near(TAP, "up", "tap0", "--user", "root")
    rules = near("nft", "list", "table", "inet", "msb_tap0")
    assert 'iifname "tap0" drop' in rules and 'oifname "tap0" drop' in rules
    near(TAP, "up", "tap1", "--user", "root", "--internet", *OTHER)
    rules = near("nft", "list", "table", "inet", "msb_tap1")
    assert 'iifname "tap1" oifgroup 7777 drop' in rules and "masquerade" in rules
    assert "group 7777" in near("ip", "link", "show", "dev", "tap0")
    near("ip", "link", "delete", "tap0")
    near(TAP, "down", "tap0")  # which takes its table away
    near(TAP, "down", "tap1")
    assert near("nft", "list", "ruleset") == ""
    assert 'no tap device "tap0"' in refusal(near, "down", "tap0")


def test_settings_of_the_host_are_set_back_when_the_last_device_goes(near):
    near("sysctl", "-w", f"{ACCEPT_RA}=1")
    near(TAP, "up", "tap0", "--user", "root", "--internet")
    assert settings(near, *FORWARDING, ACCEPT_RA) == ["1", "1", "2"]
    assert settings(near, "net.ipv6.conf.tap0.accept_ra") == ["0"]
    # One that vanished, and comes again.
    near("ip", "link", "delete", "tap0")
    near(TAP, "up", "tap0", "--user", "root", "--internet")
    near(TAP, "up", "tap1", "--user", "root", "--internet", *OTHER)
    near(TAP, "down", "tap0")
    assert settings(near, *FORWARDING, ACCEPT_RA) == ["1", "1", "2"]
    near(TAP, "down", "tap1")
    assert settings(near, *FORWARDING, ACCEPT_RA) == ["0", "0", "1"]


def test_addresses_that_another_device_has_are_refused(near):
    near(TAP, "up", "tap0", "--user", "root")
    assert '"tap0" has an address in 172.31.77.1/30 already' in refusal(near, "up", "tap1", "--user", "root")
    assert '"tap0" has an address in fd6d:7362:77::1/64 already' in refusal(near, "up", "tap1", "--user", "root", *OTHER[:2])
    assert '"here" is no address' in refusal(near, "up", "tap1", "--user", "root", "--ipv4", "here")


def test_without_ipv6_of_the_host_the_device_has_none(near):
    near("sysctl", "-w", "net.ipv6.conf.all.disable_ipv6=1")
    near(TAP, "up", "tap0", "--user", "root", "--internet")
    assert settings(near, *FORWARDING) == ["1", "0"]
    assert near("ip", "-6", "address", "show", "dev", "tap0") == ""


def test_without_nft_no_device_is_made(near, tmp_path):
    for program in ["bash", "cat", "env", "head", "id", "ip", "nsenter", "rm", "sed", "sysctl"]:
        (tmp_path / program).symlink_to(shutil.which(program))
    assert "nft is needed" in refusal(near, "up", "tap0", "--user", "root", path=tmp_path)
    assert "tap0" not in near("ip", "link")


def test_a_device_whose_table_cannot_be_made_is_taken_away_again(near, tmp_path):
    for program in ["bash", "cat", "env", "head", "id", "ip", "nsenter", "rm", "sed", "sysctl"]:
        (tmp_path / program).symlink_to(shutil.which(program))
    (tmp_path / "nft").symlink_to(shutil.which("false"))
    assert "could not be set up" in refusal(near, "up", "tap0", "--user", "root", path=tmp_path)
    assert "tap0" not in near("ip", "link")
