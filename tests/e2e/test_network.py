# SPDX-License-Identifier: Apache-2.0
"""The network of a sandbox behind passt: what it reaches and what not, names, loads, and an end of passt."""

import hashlib
import os
import signal
import sys
import time

import pytest
from conftest import BASE, PYTHON, TOOLS, networks, wait_until
from guest_shell import GuestShell
from network_bed import FAR4, FAR6, NAME, NEAR4, NEAR6, NOT_PUBLIC, SENDER, world

MIB = 1 << 20

# Prints the port of each connection to 22 and 80.
ACCEPTED = """
import select, socket
listeners = [socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True) for port in (22, 80)]
print(flush=True)
while True:
    for ready in select.select(listeners, [], [])[0]:
        ready.accept()
        print(ready.getsockname()[1], flush=True)
"""
# What curl says of a connection that was reset when it began.
REFUSED = 7


@pytest.fixture
def bed(tmp_path):
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def web(tmp_path):
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "hello").write_text("hello\n")
    return folder


def url(address, path="hello", port=80):
    return f"http://[{address}]:{port}/{path}" if ":" in address else f"http://{address}:{port}/{path}"


def denied(control, destination):
    event = control.event("denied")
    assert event["destination"] == destination, event
    return event


def test_by_default_all_that_is_public_is_reached_and_nothing_else(vmm, bed, web, tmp_path):
    bed.web(web)
    bed.web(web, where=bed.near)
    bed.dns()
    with GuestShell(vmm, tmp_path / "control", image=TOOLS, prefix=bed.near.prefix) as shell:
        shell.control("subscribe")
        for target in (FAR4, FAR6, NAME):
            assert shell(f"curl -sS -m 20 {url(target)}") == "hello\n"
        assert shell(f"curl -sS -6 -m 20 {url(NAME)}") == "hello\n"
        # The answer does not fit into a datagram.
        assert len(shell("getent ahostsv4 large.test").splitlines()) >= 1
        assert "Could not resolve" in shell(f"curl -sS -m 20 {url('nothing.test')}", 6)
        begun = time.monotonic()
        for address in [*NOT_PUBLIC, NEAR4, NEAR6, "10.0.2.2"]:
            shell(f"curl -sS -m 20 {url(address)}", REFUSED)
            event = denied(shell.control, address)
            assert (event["protocol"], event["port"]) == ("tcp", 80)
            assert event["process"]["name"] == "curl" and event["process"]["user"] == 0, event
            own = address in (NEAR4, NEAR6)
            assert ("deny host" in event["rule"]) == own and event["rule"].startswith(("public", "no rule")), event
        assert time.monotonic() - begun < 60  # refused, and not waited for
        # An address that this host gets later is its own as well,
        bed.near("ip", "address", "add", "198.41.0.99/24", "dev", "near0")
        wait_until(lambda: shell("curl -s -m 20 http://198.41.0.99/hello; echo $?") == f"{REFUSED}\n", "the machine knows the new address", 30)
        assert "host" in denied(shell.control, "198.41.0.99")["rule"]
        # Datagrams and echoes are refused as soon, and addresses of this host's own programs lead nowhere.
        shell("nc -u -w 5 10.9.9.9 53 < /etc/hostname", None)
        assert denied(shell.control, "10.9.9.9")["protocol"] == "udp"
        for address in ("127.0.0.1", "::1"):
            shell(f"curl -sS -m 20 {url(address)}", REFUSED)
        counters = shell.control("counters")["network"]
        assert counters["denied"] >= len(NOT_PUBLIC) + 4 and counters["sent"] > 0 and counters["received"] > 0
        status = shell.control("status")["network"]
        assert status["mode"] == "user" and status["published"] == []
        assert status["addresses"] == ["10.0.2.15", "fd6d:7362::15"]
    assert networks() == []


def test_a_policy_file_is_followed_to_the_port(vmm, bed, web, tmp_path):
    for port in (80, 81, 82):
        bed.web(web, port)
    policy = tmp_path / "policy"
    policy.write_text(f"# what this test allows\nallow tcp {FAR4} 80,82\ndeny tcp {FAR6} 80\nallow tcp 2a00::/16 80-81\n")
    with GuestShell(vmm, tmp_path / "control", "--policy", policy, image=TOOLS, prefix=bed.near.prefix) as shell:
        shell.control("subscribe")
        expected = {(FAR4, 80): True, (FAR4, 81): False, (FAR4, 82): True, (FAR6, 80): False, (FAR6, 81): True, (FAR6, 82): False}
        for (address, port), allowed in expected.items():
            said = shell(f"curl -sS -m 20 {url(address, port=port)}", 0 if allowed else REFUSED)
            assert (said == "hello\n") == allowed
            if not allowed:
                rule = denied(shell.control, address)["rule"]
                assert rule == (f"{policy}:3: deny tcp {FAR6} 80" if (address, port) == (FAR6, 80) else "no rule allows it")
        assert "127.77.0.53" not in shell("cat /etc/resolv.conf", None)  # no rule allows names


def test_without_a_network_nothing_is_sent_and_no_passt_runs(vmm, bed, web, tmp_path):
    bed.web(web)
    for options in (["--net", "none"], ["--policy", "group"]):
        result = vmm.run("sh", "-c", f"wget -q -T 5 -O - {url(FAR4)}; ls /sys/class/net; cat /etc/resolv.conf", options=options, prefix=bed.near.prefix)
        assert b"hello" not in result.stdout, options
        assert b"127.77.0.53" not in result.stdout
        assert (b"eth0" in result.stdout) == (options[0] == "--policy")


def test_a_world_of_ipv6_alone(vmm, tmp_path, web):
    with world(tmp_path, ipv4=False) as bed:
        bed.web(web)
        with GuestShell(vmm, tmp_path / "control", image=TOOLS, prefix=bed.near.prefix) as shell:
            assert shell.control("status")["network"]["addresses"] == ["fd6d:7362::15"]
            assert shell(f"curl -sS -m 20 {url(FAR6)}") == "hello\n"
            assert "10.0.2" not in shell("ip address")


def test_loads_arrive_whole(vmm, bed, web, tmp_path):
    data = os.urandom(24 * MIB)
    (web / "large").write_bytes(data)
    for name in ("hello", "large"):
        (web / f"{name}.sha256").write_text(hashlib.sha256((web / name).read_bytes()).hexdigest())
    bed.web(web)
    bed.serve("iperf3", "--server", ready=5201)
    with GuestShell(vmm, tmp_path / "control", image=TOOLS, prefix=bed.near.prefix) as shell:
        for address in (FAR4, FAR6):
            said = shell(f"curl -sS -m 60 {url(address, 'large')} | sha256sum | cut -c 1-64")
            assert said.strip() == hashlib.sha256(data).hexdigest()
        for options, address in (("", FAR4), ("--reverse", FAR6), ("--udp --bitrate 20M", FAR6), ("--udp --bitrate 20M --reverse", FAR4)):
            said = shell(f"iperf3 --client {address} {options} --time 1 --format M --connect-timeout 20000")
            assert "receiver" in said, said
        # Many connections at once, each with its own answer.
        shell(f"for i in $(seq 60); do (printf 'GET /hello HTTP/1.0\\r\\n\\r\\n' | nc -w 60 {FAR4} 80 > /tmp/got.$i) & done; wait")
        assert int(shell("grep -l '^hello' /tmp/got.* | wc -l")) == 60
        assert shell.control("counters")["network"]["malformed"] == 0


def test_packages_come_from_a_repository(vmm, bed, web, tmp_path):
    package = tmp_path / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "usr/share/greeting").mkdir(parents=True)
    (package / "usr/share/greeting/text").write_text("installed\n")
    (package / "DEBIAN/control").write_text("Package: greeting\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@web.test>\n"
                                            "Description: a greeting\n")
    bed.far("dpkg-deb", "--root-owner-group", "--build", package, web / "greeting.deb")
    deb = (web / "greeting.deb").read_bytes()
    (web / "Packages").write_text((package / "DEBIAN/control").read_text() + f"Filename: ./greeting.deb\nSize: {len(deb)}\n"
                                  f"SHA256: {hashlib.sha256(deb).hexdigest()}\n")
    bed.web(web)
    bed.dns()
    with GuestShell(vmm, tmp_path / "control", image=TOOLS, prefix=bed.near.prefix) as shell:
        shell(f"mkdir -p /etc/apt /var/lib/apt/lists/partial /var/cache/apt/archives/partial /var/log/apt; echo 'deb [trusted=yes] http://{NAME} ./' > /etc/apt/sources.list")
        shell("apt-get -q update")
        shell("apt-get -q -y install greeting")
        assert shell("cat /usr/share/greeting/text") == "installed\n"


def test_passt_that_is_killed_is_told_of_and_started_again(vmm, bed, web, tmp_path):
    bed.web(web)
    bed.serve(sys.executable, "-c", "import socket; s = socket.create_server(('', 99)); print(flush=True); held = [s.accept() for _ in range(9)]")
    with GuestShell(vmm, tmp_path / "control", image=TOOLS, prefix=bed.near.prefix) as shell:
        shell.control("subscribe")
        shell(f"(sleep 1000 | nc {FAR4} 99; echo $? > /tmp/ended) > /dev/null 2>&1 &")
        assert shell(f"curl -sS -m 20 {url(FAR4)}") == "hello\n"
        [passt] = networks()
        os.kill(passt, signal.SIGKILL)
        assert "signal 9" in shell.control.event("network_restarted")["message"]
        assert shell(f"curl -sS -m 20 --retry 3 --retry-all-errors {url(FAR4)}") == "hello\n"
        assert networks() not in ([], [passt])
        # One that ends again and again is given up, and the sandbox goes on without.
        for _ in range(100):
            shell.control("status")
            if any(event["event"] == "network_lost" for event in shell.control.events):
                break
            for pid in networks():
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        assert "signal 9" in shell.control.event("network_lost")["message"]
        assert shell("echo still here") == "still here\n"
    assert "no network any more" in shell.errors


def test_passt_gets_nothing_that_it_reads_otherwise_than_it_was_judged(vmm, bed, tmp_path):
    from scapy.all import IP, TCP, UDP, Ether, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, Raw

    # passt 2023-03 takes the last extension header for TCP's own, and each fragment for a first one.
    syn = bytes(TCP(sport=5000, dport=22, flags="S"))
    ether, four, six = Ether(src="02:47:55:45:53:54", dst="02:6d:73:62:00:02"), IP(src="10.0.2.15", dst=FAR4), IPv6(src="fd6d:7362::15", dst=FAR6)
    frames = [ether / six / IPv6ExtHdrDestOpt(nh=6, options=[]) / TCP(sport=5000, dport=80, flags="S"),
              ether / six / Raw(bytes([6, 2]) + syn[2:]) / TCP(sport=5000, dport=80, flags="S"),
              ether / IPv6(src="fd6d:7362::15", dst=FAR6, nh=60) / Raw(bytes([6, 0]) + syn[2:8]) / TCP(sport=5000, dport=80, flags="S"),
              ether / IPv6(src="fd6d:7362::15", dst=FAR6, nh=50) / Raw(syn),
              ether / six / IPv6ExtHdrFragment(nh=6, m=1, id=9) / TCP(sport=5000, dport=80, flags="S") / Raw(bytes(4)),
              ether / six / IPv6ExtHdrFragment(nh=6, offset=3, id=9) / Raw(syn),
              ether / IP(src="10.0.2.15", dst=FAR4, id=7, flags="MF", proto=6) / TCP(sport=5000, dport=80, flags="S") / Raw(bytes(4)),
              ether / IP(src="10.0.2.15", dst=FAR4, id=7, frag=3, proto=6) / Raw(syn),
              ether / IP(src="10.0.2.15", dst=FAR4, id=8, flags="MF", proto=17) / UDP(sport=5000, dport=80) / Raw(bytes(16)),
              ether / four / TCP(sport=5000, dport=22, flags="S")]
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "sender.py").write_text(SENDER)
    (folder / "frames").write_bytes(b"".join(len(bytes(frame)).to_bytes(2, "big") + bytes(frame) for frame in frames))
    rules = [f"allow tcp {FAR4} 80", f"allow udp {FAR4} 80", f"allow tcp {FAR6} 80"]
    listener = bed.serve(sys.executable, "-c", ACCEPTED)
    options = ["--policy", "none", *(word for rule in rules for word in ("--rule", rule)), "--share", f"{folder}:/programs:ro"]
    with GuestShell(vmm, tmp_path / "control", *options, image=PYTHON, prefix=bed.near.prefix) as shell:
        assert shell("python3 /programs/sender.py /programs/frames") == ""
        for address in (FAR4, FAR6):  # what is allowed comes behind all of them
            shell(f"python3 -c \"import socket; socket.create_connection(('{address}', 80), 20)\"")
            assert listener.stdout.readline().split()[0] == b"80"
        assert shell.control("counters")["network"]["denied"] >= len(frames)


# Takes one connection, and prints how long its bytes took to come.
SINK = """
import socket, time
listener = socket.create_server(('', 99)); print(flush=True)
connection = listener.accept()[0]; connection.recv(1); begun, size = time.monotonic(), 1
while piece := connection.recv(65536): size += len(piece)
print(size, time.monotonic() - begun, flush=True)
"""


def test_rates_are_kept_in_both_directions(vmm, bed, web, tmp_path):
    size = 600_000
    (web / "large").write_bytes(bytes(size))
    bed.web(web)
    sink = bed.serve(sys.executable, "-c", SINK)
    with GuestShell(vmm, tmp_path / "control", "--receive-rate", "400K", "--send-rate", "200K", image=TOOLS, prefix=bed.near.prefix) as shell:
        # What is above the burst takes its time; slower it may be.
        burst = 66_000
        assert float(shell(f"curl -sS -m 60 -o /dev/null -w '%{{time_total}}' {url(FAR4, 'large')}")) > (size - burst) / 400_000
        shell(f"head -c {size} /dev/zero | nc -N {FAR4} 99")
        came, seconds = sink.stdout.readline().split()
        assert int(came) == size and float(seconds) > (size - 2 * burst) / 200_000


def test_what_is_asked_for_in_vain_is_said_in_a_sentence(vmm, tmp_path):
    (tmp_path / "policy").write_text("allow tcp 10.0.0.0/33\n")
    for options, word in ((["--net", "bridge"], b"neither none, user nor tap=NAME"), (["--net", "tap=nothing9"], b"no network interface"),
                          (["--policy", tmp_path / "missing"], b"cannot read the policy"), (["--policy", tmp_path / "policy"], b"line 1"),
                          (["--send-rate", "fast"], b"is no rate"), (["--address", "10.0.0.1/8"], b"--net tap=NAME"),
                          (["--publish", "80:0"], b"--publish"), (["--host", "x"], b"--host"),
                          (["--rule", "allow tcp 10.0.0.1 x"], b"rule \"allow tcp 10.0.0.1 x\"")):
        result = vmm.run("true", image=BASE, options=options)
        assert result.returncode == 125 and word in result.stderr and result.stderr.count(b"\n") == 1, result.stderr
    result = vmm.run("true", image=BASE, prefix=["env", "PATH=/nowhere"])
    assert result.returncode == 125 and b'install it (the package "passt")' in result.stderr
