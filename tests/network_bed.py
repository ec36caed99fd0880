# SPDX-License-Identifier: Apache-2.0
"""A world of its own for a sandbox's network: two network namespaces with a link between them. msb-vmm runs in the near one; the
far one stands for everybody else. Both vanish with the processes that hold them."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time

NEAR4, FAR4 = "198.41.0.1", "198.41.0.2"
NEAR6, FAR6 = "2a00:1450::1", "2a00:1450::2"
# Addresses in the far namespace that the preset "public" keeps out of reach.
NOT_PUBLIC = ["10.9.9.9", "172.16.9.9", "192.168.9.9", "169.254.169.254", "100.64.9.9", "fd00:9::9", "2001:db8::9"]
NAME = "web.test"  # which the resolver in the far namespace knows

DNS_SERVER = """
import socket, struct, sys, threading
four, six = socket.inet_aton(sys.argv[1]), socket.inet_pton(socket.AF_INET6, sys.argv[2])
def answer(query):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]]); at += 1 + query[at]
    name, (kind,) = b'.'.join(labels).lower(), struct.unpack('!H', query[at + 1:at + 3])
    question = query[12:at + 5]
    data = {1: four, 28: six}.get(kind) if name in (b'web.test', b'large.test') else None
    many = 60 if name == b'large.test' and kind == 1 else 1
    records = b''.join(b'\\xc0\\x0c' + struct.pack('!HHIH', kind, 1, 60, len(data)) + data for _ in range(many)) if data else b''
    code = 0 if name.endswith(b'.test') else 3
    return query[:2], struct.pack('!HHHHH', 0x8180 | code, 1, many if data else 0, 0, 0) + question + records
def udp():
    while True:
        query, sender = server.recvfrom(4096)
        start, rest = answer(query)
        if len(rest) > 500:
            rest = struct.pack('!HHHHH', 0x8380, 1, 0, 0, 0) + rest[10:10 + len(rest[10:].split(b'\\xc0\\x0c')[0])]
        server.sendto(start + rest, sender)
def serve(connection):
    with connection:
        stream = connection.makefile('rb')
        while length := stream.read(2):
            start, rest = answer(stream.read(struct.unpack('!H', length)[0]))
            connection.sendall(struct.pack('!H', len(start + rest)) + start + rest)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); server.bind((sys.argv[1], 53))
listener = socket.create_server((sys.argv[1], 53))
threading.Thread(target=udp, daemon=True).start()
print('ready', flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

# Sends frames that are in a file, each with its length in front, from the guest's card.
SENDER = r"""
import socket, struct, sys
card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
card.bind(('eth0', 0))
data = open(sys.argv[1], 'rb').read()
mac = card.getsockname()[4]
while data:
    length, = struct.unpack('!H', data[:2])
    frame, data = data[2:2 + length], data[2 + length:]
    try:
        card.send(frame.replace(b'\x02GUEST', mac))
    except OSError as error:
        print(error)
"""


class Namespace:
    """A network namespace, with mounts of its own, held by a process."""

    def __init__(self):
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        self.holder = subprocess.Popen(["unshare", *user, "--net", "--mount", "sh", "-c", "echo; exec sleep infinity"],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.holder.stdout.read(1)
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        self.prefix = ["nsenter", "--target", str(self.holder.pid), *user, "--net", "--mount", f"--wd={os.getcwd()}"]

    def configure(self, lines):
        """Runs commands of ip(8), together."""
        subprocess.run([*self.prefix, "ip", "-batch", "-"], input="\n".join(lines).encode(), check=True, timeout=60)

    def __call__(self, *command):
        result = subprocess.run([*self.prefix, *map(str, command)], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
        assert result.returncode == 0, (command, result.stderr)
        return result.stdout.decode()

    def start(self, *command, **options):
        return subprocess.Popen([*self.prefix, *map(str, command)], **{"stdin": subprocess.DEVNULL, **options})

    def end(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


class World:
    def __init__(self, folder, ipv4=True, ipv6=True):
        self.folder = pathlib.Path(folder)
        self.near, self.far = Namespace(), Namespace()
        self.servers = []
        ends = [(self.near, "near0", NEAR4, NEAR6, FAR4, FAR6), (self.far, "far0", FAR4, FAR6, NEAR4, NEAR6)]
        for namespace, link, own4, own6, other4, other6 in ends:
            lines = []
            if namespace is self.near:
                lines.append(f"link add near0 type veth peer name far0 netns {self.far.holder.pid}")
            if ipv4:
                lines.append(f"address add {own4}/24 dev {link}")
            if ipv6:
                lines.append(f"address add {own6}/64 dev {link} nodad")
            lines += ["link set lo up", f"link set {link} up"]
            if ipv4:
                lines.append(f"route add default via {other4}")
            if ipv6:
                lines.append(f"route add ::/0 via {other6}")
            if namespace is self.far:
                lines += [f"address add {address}/{128 if ':' in address else 32} dev lo" + (" nodad" if ":" in address else "")
                          for address in NOT_PUBLIC if (ipv6 if ":" in address else ipv4)]
            namespace.configure(lines)
        self.resolve_by(FAR4)
        if ipv6:  # the link's own addresses are usable once the kernel has found that they are
            deadline = time.monotonic() + 20
            while "tentative" in self.near("ip", "-6", "address", "show", "dev", "near0"):
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def resolve_by(self, server):
        path = self.folder / "resolv.conf"
        path.write_text(f"nameserver {server}\n")
        self.near("mount", "--bind", path, "/etc/resolv.conf")

    def serve(self, *command, where=None, ready=None, **options):
        """Starts a server, in the far namespace unless said; waits for its first line, or until something listens on port `ready`."""
        namespace = where or self.far
        process = namespace.start(*command, stdout=subprocess.PIPE if ready is None else subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL, **options)
        self.servers.append(process)
        if ready is None:
            assert process.stdout.readline(), command
        else:
            deadline = time.monotonic() + 60
            while f":{ready:04X} " not in "".join(namespace("cat", f"/proc/net/{table}") for table in ("tcp", "tcp6")):
                assert process.poll() is None and time.monotonic() < deadline, command
                time.sleep(0.1)
        return process

    def web(self, directory, port=80, where=None):
        return self.serve("busybox", "httpd", "-f", "-p", f"[::]:{port}", "-h", directory, where=where, ready=port)

    def dns(self):
        return self.serve(sys.executable, "-c", DNS_SERVER, FAR4, FAR6)

    def end(self):
        for process in self.servers:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        self.near.end()
        self.far.end()


@contextlib.contextmanager
def world(folder, **options):
    bed = World(folder, **options)
    try:
        yield bed
    finally:
        bed.end()
