# SPDX-License-Identifier: Apache-2.0
"""Ports of a sandbox on this host, and other sandboxes by name."""

import socket
import threading

import pytest
from conftest import PYTHON, TOOLS, networks, wait_until
from guest_shell import GuestShell

# Answers every connection with what it was sent, in capitals.
TCP_SERVER = r"""
import socket, socketserver, sys
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data.upper())
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads, request_queue_size = True, True, 512
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
UDP_SERVER = r"""
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], int(sys.argv[2])))
while True:
    data, sender = server.recvfrom(65535)
    server.sendto(data.upper(), sender)
"""


@pytest.fixture
def programs(tmp_path):
    """Options that show the two servers at /programs."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "tcp.py").write_text(TCP_SERVER)
    (folder / "udp.py").write_text(UDP_SERVER)
    return ["--share", f"{folder}:/programs:ro"]


def published(shell):
    return [(port["protocol"], port["address"], port["host_port"], port["guest_port"]) for port in shell.control("status")["network"]["published"]]


def ask(address, port, data=b"hello", seconds=60):
    with socket.create_connection((address, port), seconds) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def listening(shell, port):
    wait_until(lambda: "0" in shell(f"grep -q ':{port:04X} ' /proc/net/tcp /proc/net/udp; echo $?"), f"something listens on port {port}", 60)


@pytest.mark.parametrize("net", ["user", "none"])
def test_ports_are_published_with_and_without_a_network(vmm, tmp_path, programs, net):
    options = ["--net", net, "--publish", "0:80", "--publish", "[::1]:0:80", "--publish", "0:81/udp", "--publish", "0:82", *programs]
    with GuestShell(vmm, tmp_path / "control", *options, image=PYTHON) as shell:
        own = "127.0.0.1" if net == "none" else "10.0.2.15"
        shell("python3 /programs/tcp.py 0.0.0.0 80 > /dev/null 2>&1 &")
        shell("python3 /programs/udp.py 0.0.0.0 81 > /dev/null 2>&1 &")
        shell(f"python3 /programs/tcp.py {own} 82 > /dev/null 2>&1 &")
        for port in (80, 81, 82):
            listening(shell, port)
        ports = published(shell)
        assert [(protocol, address, guest) for protocol, address, _, guest in ports] == [
            ("tcp", "127.0.0.1", 80), ("tcp", "::1", 80), ("udp", "127.0.0.1", 81), ("tcp", "127.0.0.1", 82)]
        assert ask("127.0.0.1", ports[0][2]) == b"HELLO"
        assert ask("::1", ports[1][2]) == b"HELLO"
        assert ask("127.0.0.1", ports[3][2]) == b"HELLO"  # also where a program listens on the card's address alone
        large = b"x" * 3_000_000
        assert ask_beside(ports[0][2], large) == large.upper()
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(5)]
        for number, client in enumerate(clients):
            client.settimeout(30)
            client.connect(("127.0.0.1", ports[2][2]))
            client.send(b"from %d" % number)
        for number, client in enumerate(clients):
            assert client.recv(100) == b"FROM %d" % number
            client.send(b"y" * 9000)
            assert client.recv(65535) == b"Y" * 9000
            client.close()
        # What is in use is said, and by which words.
        taken = ports[0][2]
        result = vmm.run("true", options=["--publish", f"{taken}:80"])
        assert result.returncode == 125 and b"port %d of 127.0.0.1 is in use" % taken in result.stderr, result.stderr
    assert "port 80/tcp of the sandbox is published at 127.0.0.1:" in shell.errors
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports[0][2]), 5)
    if net == "none":
        assert networks() == []


def ask_beside(port, data):
    """Sends and receives at once, since neither side keeps all of it."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        def send():
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        sender.join()
        return answer


def test_five_hundred_connections_at_once(vmm, tmp_path, programs):
    with GuestShell(vmm, tmp_path / "control", "--net", "none", "--publish", "0:80", *programs, image=PYTHON) as shell:
        shell("python3 /programs/tcp.py 127.0.0.1 80 > /dev/null 2>&1 &")
        listening(shell, 80)
        [(_, _, port, _)] = published(shell)
        connections = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(500)]
        for number, connection in enumerate(connections):
            connection.settimeout(60)
            connection.sendall(b"number %d" % number)
        for number, connection in enumerate(connections):
            wanted = b"NUMBER %d" % number
            answer = b""
            while len(answer) < len(wanted):
                answer += connection.recv(100)
            assert answer == wanted
        for connection in connections:
            connection.close()
        assert ask("127.0.0.1", port) == b"HELLO"


def test_a_port_where_nobody_listens_resets_and_one_that_is_closed_ends(vmm, tmp_path):
    with GuestShell(vmm, tmp_path / "control", "--net", "none", "--publish", "0:80", image=TOOLS) as shell:
        [(_, _, port, _)] = published(shell)
        with socket.create_connection(("127.0.0.1", port), 60) as connection, pytest.raises(ConnectionResetError):
            connection.settimeout(60)
            connection.recv(1)
        shell("(echo answer | nc -l -N 127.0.0.1 80 > /tmp/got) > /dev/null 2>&1 &")
        listening(shell, 80)
        assert ask("127.0.0.1", port, b"question\n") == b"answer\n"
        wait_until(lambda: "question" in shell("cat /tmp/got"), "the guest has the question", 30)


def test_sandboxes_reach_each_other_by_name_without_a_network(vmm, tmp_path):
    with GuestShell(vmm, tmp_path / "one", "--net", "none", "--socket", tmp_path / "socket", image=TOOLS) as one:
        hosts = ["--host", f"db={tmp_path}/socket:5432", "--host", f"db={tmp_path}/socket:5433", "--host", f"later={tmp_path}/later:80"]
        with GuestShell(vmm, tmp_path / "two", "--net", "none", *hosts, image=TOOLS) as two:
            one("(while true; do echo from one | nc -l -N 127.0.0.1 5432; done) > /dev/null 2>&1 &")
            listening(one, 5432)
            assert two("nc -w 30 db 5432 < /dev/null") == "from one\n"
            assert two("nc -w 30 db 5432 < /dev/null") == "from one\n"
            two("nc -w 30 db 5433 < /dev/null", None)  # nobody listens
            two("nc -w 30 later 80 < /dev/null", None)  # no such sandbox yet
            assert two("nc -z -w 5 db 22 || echo no") == "no\n"  # no other ports
            with GuestShell(vmm, tmp_path / "three", "--net", "none", "--socket", tmp_path / "later", image=TOOLS) as three:
                three("(echo from three | nc -l -N 127.0.0.1 80) > /dev/null 2>&1 &")
                listening(three, 80)
                assert two("nc -w 30 later 80 < /dev/null") == "from three\n"
            assert "db" in two("cat /etc/hosts")


def test_a_launcher_that_is_killed_resets_its_clients(vmm, tmp_path):
    with GuestShell(vmm, tmp_path / "control", "--net", "none", "--publish", "0:80", image=TOOLS) as shell:
        [(_, _, port, _)] = published(shell)
        shell("(sleep 1000 | nc -l 127.0.0.1 80) > /dev/null 2>&1 &")
        listening(shell, 80)
        with socket.create_connection(("127.0.0.1", port), 60) as connection:
            connection.settimeout(60)
            connection.sendall(b"x")
            shell.process.kill()
            try:
                assert connection.recv(10) == b""
            except ConnectionResetError:
                pass
