# SPDX-License-Identifier: Apache-2.0
"""The network of a sandbox on a tap device: both directions, hostile frames, and a device that goes away."""

import subprocess
import sys
import threading

import pytest
from conftest import PYTHON, REPOSITORY, TOOLS, wait_until
from guest_shell import GuestShell
from network_bed import SENDER, world

HOST4, GUEST4 = "172.31.77.1", "172.31.77.2"
HOST6, GUEST6 = "fd6d:7362:77::1", "fd6d:7362:77::2"

# Prints what comes out of the tap device: the text behind "mark-" in each frame, in hexadecimal.
CAPTURE = r"""
import re, socket
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.bind(('tap0', 0))
print('ready', flush=True)
while True:
    data, (_, _, kind, _, _) = link.recvfrom(65536)
    if kind != socket.PACKET_OUTGOING:
        for found in re.findall(rb'mark-[a-z0-9-]+;', data):
            print(found.decode(), flush=True)
"""


@pytest.fixture
def bed(tmp_path):
    with world(tmp_path) as made:
        made.near(REPOSITORY / "scripts/tap", "up", "tap0", "--user", "root")
        yield made
        if "tap0" in made.near("ip", "link"):
            made.near(REPOSITORY / "scripts/tap", "down", "tap0")
        assert "tap0" not in made.near("ip", "link")


def test_both_sides_of_a_tap_device_reach_each_other_as_the_policy_has_it(vmm, bed, tmp_path):
    (tmp_path / "policy").write_text(f"allow tcp {HOST4} 80\nallow tcp {HOST6} 80\nallow icmp {HOST4}\n")
    bed.web(tmp_path, where=bed.near)
    bed.web(tmp_path, 81, where=bed.near)
    with GuestShell(vmm, tmp_path / "control", "--net", "tap=tap0", "--policy", tmp_path / "policy", image=TOOLS, prefix=bed.near.prefix) as shell:
        shell.control("subscribe")
        assert shell.control("status")["network"]["addresses"] == [GUEST4, GUEST6]
        for address in (HOST4, f"[{HOST6}]"):
            assert "allow tcp" in shell(f"curl -sS -m 20 http://{address}/policy")
            shell(f"curl -sS -m 20 http://{address}:81/policy", 7)
            assert shell.control.event("denied")["port"] == 81
        # From outside in, which the guest may answer though no rule lets it begin.
        for family in (4, 6):
            shell(f"(while true; do echo from the guest | nc -{family} -l -N 9000; done) > /dev/null 2>&1 &")
        for address in (GUEST4, GUEST6):
            probe = f"import socket; c = socket.create_connection(('{address}', 9000), 30); print(c.makefile().read())"
            for _ in range(20):
                answer = subprocess.run([*bed.near.prefix, sys.executable, "-c", probe], capture_output=True, check=False, timeout=60)
                if answer.returncode == 0:
                    break
            assert b"from the guest" in answer.stdout, answer
        result = vmm.run("true", options=["--net", "tap=tap0"], prefix=bed.near.prefix)
        assert result.returncode == 125 and b"is in use by another program" in result.stderr, result.stderr
        # The device goes away under the sandbox, which goes on.
        bed.near("ip", "link", "delete", "tap0")
        shell(f"curl -sS -m 3 http://{HOST4}/policy", None)
        assert "removed" in shell.control.event("network_lost")["message"]
        assert shell("echo still here") == "still here\n"


def hostile_frames():
    """(name, whether it may come out, frame) of each, made with scapy."""
    from scapy.all import (ARP, ICMP, IP, TCP, UDP, Dot1Q, Ether, ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_RA, ICMPv6NDOptSrcLLAddr, IPOption_LSRR,
                           IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, Raw)

    guest, host = "02:47:55:45:53:54", "ff:ff:ff:ff:ff:ff"  # the first stands for the guest's own
    ether = Ether(src=guest, dst=host)
    good4, good6 = IP(src=GUEST4, dst=HOST4), IPv6(src=GUEST6, dst=HOST6)
    frames = []

    def add(name, passes, packet):
        text = f"mark-{name};".encode()
        frames.append((name, passes, bytes(packet / Raw(text.ljust(28, b".")))))

    add("allowed-4", True, ether / good4 / TCP(sport=1, dport=80))
    add("allowed-6", True, ether / good6 / TCP(sport=1, dport=80))
    add("options", True, ether / good6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / TCP(dport=80))
    add("port", False, ether / good4 / TCP(dport=81))
    add("protocol", False, ether / good4 / UDP(dport=80))
    add("port-6-behind-headers", False, ether / good6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / TCP(dport=81))
    for number, address in enumerate(["127.0.0.1", "127.1.2.3", "0.0.0.0", "169.254.169.254", "10.0.0.1", "224.0.0.5", "255.255.255.255"]):
        add(f"escape-4-{number}", False, ether / IP(src=GUEST4, dst=address) / TCP(dport=80))
    for number, address in enumerate(["::1", "::", f"::ffff:{HOST4}", f"::{HOST4}", f"64:ff9b::{HOST4}", "fe80::1", "ff02::5"]):
        add(f"escape-6-{number}", False, ether / IPv6(src=GUEST6, dst=address) / TCP(dport=80))
    add("spoofed-4", False, ether / IP(src="172.31.77.3", dst=HOST4) / TCP(dport=80))
    add("spoofed-6", False, ether / IPv6(src="fd6d:7362:77::9", dst=HOST6) / TCP(dport=80))
    add("spoofed-mac", False, Ether(src="02:00:00:00:00:99", dst=host) / good4 / TCP(dport=80))
    add("vlan", False, ether / Dot1Q(vlan=1) / good4 / TCP(dport=80))
    add("source-route", False, ether / IP(src=GUEST4, dst=HOST4, options=[IPOption_LSRR(routers=["10.0.0.1"])]) / TCP(dport=80))
    add("routing-header", False, ether / good6 / IPv6ExtHdrRouting(addresses=["2001:db8::1"], segleft=1) / TCP(dport=80))
    add("long-4", False, ether / IP(src=GUEST4, dst=HOST4, len=9000) / TCP(dport=80))
    add("short-4", False, ether / IP(src=GUEST4, dst=HOST4, len=10) / TCP(dport=80))
    add("header-4", False, ether / IP(src=GUEST4, dst=HOST4, ihl=3) / TCP(dport=80))
    add("long-6", False, ether / IPv6(src=GUEST6, dst=HOST6, plen=9000) / TCP(dport=80))
    add("offset-tcp", False, ether / good4 / TCP(dport=80, dataofs=15))
    # Fragments: a first one that is allowed with what follows, and attempts around it.
    first = TCP(sport=5, dport=80)
    add("fragment-first", True, ether / IP(src=GUEST4, dst=HOST4, id=7, flags="MF", proto=6) / first)
    add("fragment-next", True, ether / IP(src=GUEST4, dst=HOST4, id=7, frag=6, proto=6))
    add("fragment-overlap", False, ether / IP(src=GUEST4, dst=HOST4, id=7, frag=1, proto=6))
    add("fragment-stranger", False, ether / IP(src=GUEST4, dst=HOST4, id=8, frag=6, proto=6))
    add("fragment-tiny", False, ether / IP(src=GUEST4, dst=HOST4, id=9, flags="MF", proto=6) / Raw(b"\0\5\0P\0\0\0\0"[:8]))
    add("fragment-denied", False, ether / IP(src=GUEST4, dst=HOST4, id=10, flags="MF", proto=6) / TCP(sport=5, dport=81))
    add("fragment-of-denied", False, ether / IP(src=GUEST4, dst=HOST4, id=10, frag=6, proto=6))
    add("fragment-death", False, ether / IP(src=GUEST4, dst=HOST4, id=7, frag=8191, proto=6))
    add("fragment-6-first", True, ether / good6 / IPv6ExtHdrFragment(m=1, id=5, nh=6) / first)
    add("fragment-6-next", True, ether / good6 / IPv6ExtHdrFragment(offset=6, id=5, nh=6))
    add("fragment-6-overlap", False, ether / good6 / IPv6ExtHdrFragment(offset=1, id=5, nh=6))
    add("fragment-6-stranger", False, ether / good6 / IPv6ExtHdrFragment(offset=6, id=6, nh=6))
    # The link's own talk, which is no way out and no lie.
    add("arp-lie", False, ether / ARP(op=2, hwsrc=guest, psrc=HOST4, pdst=HOST4))
    add("arp-mac", False, ether / ARP(op=1, hwsrc="02:00:00:00:00:99", psrc=GUEST4, pdst=HOST4))
    add("router", False, ether / IPv6(src=GUEST6, dst="ff02::1") / ICMPv6ND_RA() / ICMPv6NDOptSrcLLAddr(lladdr=guest))
    add("neighbor-lie", False, ether / IPv6(src=GUEST6, dst="ff02::1") / ICMPv6ND_NA(tgt=HOST6))
    add("neighbor-out", False, ether / IPv6(src=GUEST6, dst="2001:db8::1") / ICMPv6ND_NA(tgt=GUEST6))
    add("echo-6", False, ether / good6 / ICMPv6EchoRequest())
    add("echo-4", False, ether / good4 / ICMP())
    return frames


def test_hostile_frames_do_not_come_out(vmm, bed, tmp_path):
    (tmp_path / "policy").write_text(f"allow tcp {HOST4} 80\nallow tcp {HOST6} 80\n")
    frames = hostile_frames()
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "sender.py").write_text(SENDER)
    (folder / "frames").write_bytes(b"".join(len(frame).to_bytes(2, "big") + frame for _, _, frame in frames))
    capture = bed.serve(sys.executable, "-c", CAPTURE, where=bed.near)
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(line.decode() for line in capture.stdout))
    reader.start()
    try:
        options = ["--net", "tap=tap0", "--policy", tmp_path / "policy", "--share", f"{folder}:/programs:ro"]
        with GuestShell(vmm, tmp_path / "control", *options, image=PYTHON, prefix=bed.near.prefix) as shell:
            assert shell("python3 /programs/sender.py /programs/frames") == ""
            # Behind the last of them one that may pass, which comes last.
            last = b"mark-last;"
            script = f"import socket; s = socket.create_connection(('{HOST4}', 80)); s.sendall({last!r})"
            listener = bed.serve(sys.executable, "-c", "import socket; s = socket.create_server(('', 80)); print(flush=True); c = s.accept(); c[0].recv(9)",
                                 where=bed.near)
            shell(f'python3 -c "{script}"')
            wait_until(lambda: any("mark-last" in line for line in seen), "the last frame has come out", 30)
            listener.wait(30)
            assert shell.control("counters")["network"]["denied"] > 20
    finally:
        capture.kill()
        reader.join(30)
    came = {line.strip().removeprefix("mark-").removesuffix(";") for line in seen} - {"last"}
    assert came == {name for name, passes, _ in frames if passes}
