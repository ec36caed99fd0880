# SPDX-License-Identifier: Apache-2.0
"""Projects: a Sandboxfile, what its sandboxes keep, and how they are stopped and killed."""

import json
import os
import pathlib
import random
import re
import subprocess
import time

import pytest
from conftest import machines, read_output, wait_until
from sandboxes import kill, machine_of

TWO = """\
# Sandbox configurations
sandboxes:
  counter:   # it counts
    image: python
    ports: ["8000"]
    scripts:
      start: |
        cat > /server.py <<'END'
        import http.server
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                try: n = int(open("/count").read())
                except OSError: n = 0
                open("/count", "w").write(str(n + 1))
                self.send_response(200); self.end_headers(); self.wfile.write(str(n + 1).encode())
            def log_message(self, *_): pass
        http.server.HTTPServer(("", 8000), Handler).serve_forever()
        END
        exec python3 /server.py
  web:
    image: base
    depends_on: [counter]
    envs: ["MODE=test"]
    env_files: vars
    workdir: /app
    volumes: ["./data:/data"]
    shell: /bin/sh
    scripts:
      hello: echo "hello $1 from $MODE $EXTRA in $(pwd)"
      ask: wget -q -O - http://counter:8000/
"""


def write_two(sandboxes, port=0):
    (sandboxes.project / "data").mkdir()
    sandboxes.write("EXTRA=more\n", "vars")
    sandboxes.write(TWO.replace('"8000"', f'"{port}:8000"'))


def test_two_sandboxes_one_of_which_depends_on_the_other(sandboxes):
    write_two(sandboxes)
    told = sandboxes.done("up").splitlines()
    assert re.fullmatch(r"counter is up, at 127\.0\.0\.1:[0-9]+ -> 8000", told[0]), told
    assert told[1:] == ["web is up"]
    assert sandboxes.running() == ["counter", "web"]
    assert sandboxes.done("up").splitlines() == ["counter is running already", "web is running already"]
    # Names of dependencies, scripts and their arguments, variables, the directory.
    assert sandboxes.done("exec", "web", "--", "ask") == "1"
    assert sandboxes.done("exec", "web", "--", "hello", "me") == "hello me from test more in /app\n"
    assert sandboxes.done("shell", "web", "--", "-c", "echo $0; cat /data/x 2>/dev/null || echo new > /data/x") == "/bin/sh\n"
    assert (sandboxes.project / "data/x").read_text() == "new\n"
    [web, counter] = sorted(sandboxes.json("status"), key=lambda entry: entry["name"], reverse=True)
    assert web["running"] and counter["running"]
    # What was written is there again, and its dependents find a sandbox that was stopped meanwhile.
    assert sandboxes.done("down", "counter") == "counter is down\n"
    assert sandboxes.done("up", "counter").startswith("counter is up")
    assert sandboxes.done("exec", "web", "--", "ask") == "2"
    assert sandboxes.done("down").splitlines() == ["web is down", "counter is down"]
    assert sandboxes.running() == [] and sandboxes.runtime_files() == []
    statuses = {entry["name"]: entry["exit"]["cause"] for entry in sandboxes.json("status")}
    assert statuses == {"counter": "stopped", "web": "stopped"}
    assert (sandboxes.project / "menv/.gitignore").read_text() == "*\n"


def test_what_runs_is_made_equal_to_the_file(sandboxes):
    sandboxes.write("sandboxes:\n  one: {image: base, shell: sh}\n  two: {image: base, shell: sh}\n")
    sandboxes.done("apply")
    assert sandboxes.running() == ["one", "two"]
    sandboxes.write("sandboxes:\n  two: {image: base, shell: sh}\n  three: {image: base, shell: sh}\n")
    told = sandboxes.done("apply").splitlines()
    assert told == ["one is down", "two is running already", "three is up"]
    sandboxes.done("down")


def test_a_foreground_run_and_its_log(sandboxes):
    sandboxes.write("sandboxes:\n  job:\n    image: base\n    scripts:\n      start: echo out; echo err >&2; echo \"args $*\"; exit 4\n")
    result = sandboxes("run", "job", "--", "a", "b")
    assert (result.returncode, result.stdout, result.stderr) == (4, b"out\nargs a b\n", b"err\n")
    result = sandboxes("log", "job")
    assert (result.stdout, result.stderr) == (b"out\nargs a b\n", b"err\n")
    last = sandboxes("log", "job", "--tail", "2")  # the two streams have no order between them
    assert last.stdout == b"args a b\n" and (last.stdout + last.stderr).count(b"\n") == 2
    [entry] = sandboxes.json("status")
    assert (entry["exit"]["status"], entry["exit"]["cause"]) == (4, "exited")
    assert sandboxes.done("run", "job", "--exec", "echo", "--", "-n", "instead") == "instead"


def test_two_at_once_on_one_sandbox(sandboxes):
    sandboxes.write("sandboxes:\n  job:\n    image: base\n    command: [sh, -c, 'echo ready; exec sleep 1000']\n")
    first = sandboxes.start("run", "job")
    assert read_output(first, 6) == b"ready\n"
    sandboxes.refused("run", "job", words=["running already"])
    assert sandboxes.done("shell", "job", "--", "-c", "echo inside") == "inside\n"
    assert sandboxes.done("stop", "job", "-t", "1") == "job is down\n"
    first.communicate(timeout=30)
    assert first.returncode == 143  # sleep ends at SIGTERM


def test_what_was_written_survives_whoever_is_killed(sandboxes):
    sandboxes.write("sandboxes:\n  box: {image: base, shell: sh}\n")
    count = 0
    for victims in (["msb"], ["supervisor"], ["machine"], ["msb", "supervisor", "machine"]):
        process = sandboxes.start("run", "box", "--exec", "sh", "--", "-c",
                                  f"cat /n 2>/dev/null; echo {count} >> /n; mkdir -p /d/{count}; echo ready; sleep 1000")
        before = "".join(f"{n}\n" for n in range(count)).encode()
        assert read_output(process, len(before) + 6) == before + b"ready\n"
        supervisor = sandboxes.supervisor("box")
        pids = {"msb": process.pid, "supervisor": supervisor, "machine": machine_of(supervisor)}
        if "machine" in victims:
            time.sleep(3)  # what a guest writes is on its disk a second or so later
        for victim in victims:
            kill(pids[victim])
        process.communicate(timeout=30)
        wait_until(lambda: not machines(), "all processes have ended", seconds=20)
        [entry] = sandboxes.json("status")
        assert not entry["running"]
        assert entry["exit"]["cause"] == ("stopped" if victims == ["msb"] else "failed"), (victims, entry)
        count += 1
    told = sandboxes.done("run", "box", "--exec", "sh", "--", "-c", "cat /n; ls /d; dmesg | grep -ci 'ext4.*error' || true")
    assert told == "0\n1\n2\n3\n" * 2 + "0\n"


def test_killed_at_random_moments(sandboxes):
    """Whatever is killed when: it starts again, and what was synced is there."""
    rounds = 12 if os.environ.get("MSB_TEST_FULL") == "1" else 3
    seed = int(os.environ.get("MSB_TEST_SEED", random.randrange(1 << 32)))
    print(f"MSB_TEST_SEED={seed}")
    choose = random.Random(seed)
    sandboxes.write("sandboxes:\n  box: {image: base, shell: sh}\n")
    synced = 0
    for _ in range(rounds):
        process = sandboxes.start("run", "box", "--exec", "sh", "--", "-c",
                                  f"i={synced}; while :; do echo $i >> /n; sync; echo $i; i=$((i + 1)); done")
        deadline = time.monotonic() + choose.uniform(0, 6)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        pids = [process.pid, *[pid for pid in machines() if pid != process.pid]]
        for pid in choose.sample(pids, choose.randint(1, len(pids))):
            try:
                kill(pid)
            except ProcessLookupError:
                pass
        out, _ = process.communicate(timeout=40)
        numbers = [int(line) for line in out.decode().splitlines(keepends=True) if line.endswith("\n")]
        synced = numbers[-1] + 1 if numbers else synced
        wait_until(lambda: not machines(), "all processes have ended", seconds=30)
        assert sandboxes.running() == []
        kept = sandboxes.done("run", "box", "--exec", "sh", "--", "-c", "touch /n; cat /n").split()
        assert kept[:synced] == [str(n) for n in range(synced)], seed
        synced = len(kept)
    assert sandboxes.runtime_files() == []


def test_one_that_was_only_entered_or_looked_at_is_not_up(sandboxes):
    sandboxes.write("sandboxes:\n  box: {image: base, scripts: {start: 'echo started; exec sleep 1000'}}\n")
    assert sandboxes.done("shell", "box", "--", "-c", "echo in > /file; echo in") == "in\n"
    assert sandboxes.done("up") == "box is up\n"
    assert b"started" in sandboxes("log", "box").stdout
    sandboxes.done("down")
    looking = sandboxes.start("diff", "box")
    wait_until(lambda: sandboxes.running() == ["box"], "it is looked at", seconds=60)
    assert sandboxes.done("up") == "box is up\n"
    assert looking.communicate(timeout=60)[0] == b"A /file\n"
    assert sandboxes.running() == ["box"]
    sandboxes.done("down")


def test_a_guest_that_moves_its_own_state_gains_nothing(sandboxes):
    """It has the project, and puts a link where the host is about to write the log and the record."""
    (sandboxes.project / "trap").mkdir()
    sandboxes.write("sandboxes:\n  box: {image: base, volumes: ['.:/app']}\n")
    script = "cd /app/menv && mv box moved && ln -s ../trap box && mkdir -p /d && echo written > /d/file && sync; echo told; exit 3"
    result = sandboxes("run", "box", "--exec", "sh", "--", "-c", script)
    assert (result.returncode, result.stdout) == (3, b"told\n"), result.stderr
    assert list((sandboxes.project / "trap").iterdir()) == []
    moved = sandboxes.project / "menv/moved"
    assert json.loads((moved / "exit.json").read_text())["status"] == 3
    assert "told" in (moved / "output.log").read_text()
    sandboxes.refused("run", "box", words=["menv/box"])
    (sandboxes.project / "menv/box").unlink()
    moved.rename(sandboxes.project / "menv/box")
    assert sandboxes.done("run", "box", "--exec", "cat", "--", "/d/file") == "written\n"


def test_what_a_sandboxfile_asks_for_is_what_runs(sandboxes):
    sandboxes.write("""\
sandboxes:
  box:
    image: base
    cpus: 2
    memory: 200
    disk: 100
    scope: none
    network: [deny tcp any 25]
    scripts:
      look: nproc; grep MemTotal /proc/meminfo; df -m / | tail -1; ls /sys/class/net; echo "$*"
""")
    told = sandboxes.done("run", "box~look", "--", "a", "b").splitlines()
    assert told[0] == "2"
    assert 120_000 < int(told[1].split()[1]) < 204_800
    assert 50 < int(told[2].split()[1]) <= 100
    assert told[3:] == ["lo", "a b"], "without a network there is no card"
    # Grown, and cut off after a time in which nothing happens.
    text = (sandboxes.project / "Sandboxfile").read_text().replace("disk: 100", "disk: 300").replace("none", "none\n    idle_timeout: 2")
    sandboxes.write(text.replace("look:", "start: df -m / | tail -1; exec sleep 1000\n      look:"))
    result = sandboxes("run", "box")
    assert int(result.stdout.split()[1]) > 200 and b"2 s" in result.stderr, result
    [entry] = sandboxes.json("status")
    assert entry["exit"]["cause"] == "idle"


def test_one_that_runs_is_seen_paused_waited_for_and_killed(sandboxes):
    sandboxes.write("sandboxes:\n  box: {image: base, shell: sh}\n")
    sandboxes.done("up")
    [seen] = sandboxes.json("inspect", "box")
    assert (seen["name"], seen["kind"], seen["status"]["state"]) == ("box", "project", "running")
    sandboxes.done("exec", "box", "-e", "WHO=me", "-w", "/etc", "--", "sh", "-c", "echo $WHO > /who; pwd >> /who; sync")
    sandboxes.done("pause", "box")
    assert sandboxes.json("ps")[0]["status"]["state"] == "paused"
    sandboxes.done("resume", "box")
    assert sandboxes.done("exec", "box", "--", "cat", "/who") == "me\n/etc\n"
    [figures] = sandboxes.json("metrics", "box")
    assert figures["name"] == "box" and figures["memory_used"] > 0, figures
    sandboxes.done("cp", "box:/who", "copied")
    assert (sandboxes.project / "copied").read_text() == "me\n/etc\n"
    # One whose machine dies has failed, and its log is kept.
    kill(machine_of(sandboxes.supervisor("box")))
    wait_until(lambda: sandboxes.running() == [], "it has ended", seconds=30)
    [entry] = sandboxes.json("status")
    assert entry["exit"]["cause"] == "failed" and "signal 9" in entry["exit"]["message"], entry
    assert f"box failed: {entry['exit']['message']}" in sandboxes.done("status")
    assert sandboxes("log", "box").returncode == 0
    # Of what it had written the difference is told without it.
    assert "A /who" in sandboxes.done("diff", "box").splitlines()
    assert sandboxes.running() == []
    sandboxes.done("up")
    waiting = sandboxes.start("wait", "box")
    descriptors = pathlib.Path(f"/proc/{waiting.pid}/fd")
    wait_until(lambda: any(os.readlink(entry).startswith("socket:") for entry in descriptors.iterdir()), "it is waited for")
    sandboxes.done("kill", "box")
    assert waiting.communicate(timeout=30)[0] == b"137\n"


def test_clean_removes_exactly_one_sandbox(sandboxes):
    sandboxes.write("sandboxes:\n  one: {image: base, shell: sh}\n  two: {image: base, shell: sh}\n")
    for name in ("one", "two"):
        sandboxes.done("run", name, "--exec", "touch", "--", "/mark")
    sandboxes.refused("clean", words=["--force"])
    sandboxes.done("clean", "one")
    assert sorted(path.name for path in (sandboxes.project / "menv").iterdir()) == [".gitignore", "two"]
    assert sandboxes("run", "one", "--exec", "test", "--", "-e", "/mark").returncode == 1
    assert sandboxes("run", "two", "--exec", "test", "--", "-e", "/mark").returncode == 0
    sandboxes.done("clean", "--force")
    assert not (sandboxes.project / "menv").exists()


def test_what_was_agreed_to_is_not_asked_again(sandboxes):
    (sandboxes.user / "secret").write_text("private")
    sandboxes.write("sandboxes:\n  box: {image: base, volumes: ['../user/secret:/s:ro'], command: [cat, /s]}\n")
    assert sandboxes.done("run", "--yes", "box") == "private"
    assert sandboxes.done("run", "box") == "private"


def test_a_port_in_use_and_an_image_that_is_not_there(sandboxes):
    with subprocess.Popen(["python3", "-c", "import socket, time; s = socket.create_server(('127.0.0.1', 0)); "
                           "print(s.getsockname()[1], flush=True); time.sleep(1000)"], stdout=subprocess.PIPE) as taken:
        port = int(taken.stdout.readline())
        sandboxes.write(f"sandboxes:\n  a: {{image: base, shell: sh, ports: ['{port}:80']}}\n")
        sandboxes.refused("up", words=["Sandboxfile:2:39: a: ", f"port {port} of 127.0.0.1 is in use"])
        taken.kill()
    sandboxes.write("sandboxes:\n  a: {image: 'localhost:1/none'}\n")
    sandboxes.refused("up", words=["localhost:1"])
    [entry] = sandboxes.json("status")
    assert not entry["running"]


def test_twelve_at_once_of_which_some_are_killed(sandboxes):
    """Any of their processes at once, by SIGKILL: the others go on, what was synced is there, and nothing is left."""
    seed = int(os.environ.get("MSB_TEST_SEED", random.randrange(1 << 32)))
    print(f"MSB_TEST_SEED={seed}")
    names = [f"s{n}" for n in range(12)]
    start = "echo $(($(cat /n 2>/dev/null) + 1)) > /n; sync; echo synced; exec sleep 1000"
    sandboxes.write("sandboxes:\n" + "".join(f"  {name}: {{image: base, memory: 64, scripts: {{start: '{start}'}}}}\n" for name in names))
    sandboxes.done("up", timeout=400)
    assert sandboxes.running() == sorted(names)
    assert sandboxes.done("exec", "s7", "--", "hostname") == "s7\n"
    for name in names:
        wait_until(lambda name=name: b"synced" in sandboxes("log", name).stdout, f"{name} has written", seconds=60)
    choose = random.Random(seed)
    for pid in choose.sample(machines(), 6):
        kill(pid)
    wait_until(lambda: len(machines()) == 2 * len(sandboxes.running()), "those that were hit have ended", seconds=30)
    assert 6 <= len(sandboxes.running()) <= 9, seed
    failed = [entry["name"] for entry in sandboxes.json("status") if not entry["running"]]
    assert all(entry["exit"]["cause"] == "failed" for entry in sandboxes.json("status") if not entry["running"]), seed
    again = failed if os.environ.get("MSB_TEST_FULL") == "1" else failed[:2]
    sandboxes.done("up", *again, timeout=400)
    for name in again:
        assert sandboxes.done("exec", name, "--", "cat", "/n") == "2\n", seed
    sandboxes.done("down", timeout=400)
    assert sandboxes.running() == [] and sandboxes.runtime_files() == []


@pytest.fixture
def small_project(sandboxes):
    """The project's directory is on a file system of 100 MiB."""
    if os.geteuid() != 0:
        pytest.skip("skipped: only root mounts file systems")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100M", "none", sandboxes.project], check=True)
    yield sandboxes.project
    subprocess.run(["umount", sandboxes.project], check=True)


def test_a_host_whose_disk_is_full(sandboxes, small_project):
    sandboxes.write("sandboxes:\n  box: {image: base, shell: sh}\n")
    result = sandboxes("run", "box", "--exec", "sh", "--", "-c",
                       "echo kept > /mark; sync; dd if=/dev/zero of=/big bs=1M count=300; sync; echo went on")
    assert b"went on" in result.stdout  # the sandbox did not, but it was told
    sandboxes.refused("run", "box", words=["MiB left", "make room"])
    subprocess.run(["mount", "-o", "remount,size=600M", small_project], check=True)
    assert sandboxes.done("run", "box", "--exec", "cat", "--", "/mark") == "kept\n"
    # Nor does one begin where there is no room to begin.
    (small_project / "filler").write_bytes(bytes(1))
    sandboxes.done("clean", "box")
    subprocess.run(["mount", "-o", "remount,size=20M", small_project], check=True)
    sandboxes.refused("run", "box", words=["MiB left"])
