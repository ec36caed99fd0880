# SPDX-License-Identifier: Apache-2.0
"""Projects: a Sandboxfile, what its sandboxes keep, and how they are stopped and killed."""

import os
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


def test_the_sandboxfile_is_edited_with_its_comments(sandboxes):
    assert sandboxes.done("init").startswith("Made Sandboxfile")
    assert (sandboxes.project / "Sandboxfile").read_text() == "# Sandbox configurations\nsandboxes:\n"
    assert (sandboxes.project / ".gitignore").read_text() == "menv/\n"
    sandboxes.refused("init", words=["exists already"])
    sandboxes.done("add", "web", "--image", "base", "--memory", "256", "-p", "0:80", "--start", "echo started; exec sleep 1000")
    sandboxes.done("add", "db", "cache", "--image", "base", "--env", "A=b: c")
    text = (sandboxes.project / "Sandboxfile").read_text()
    (sandboxes.project / "Sandboxfile").write_text(text.replace("  db:", "  # the data\n  db:"))
    assert sandboxes.done("list").split() == ["web", "db", "cache"]
    sandboxes.refused("add", "web", "--image", "base", words=["web"])
    sandboxes.refused("add", "bad/name", "--image", "base", words=["bad/name"])
    sandboxes.done("remove", "cache")
    text = (sandboxes.project / "Sandboxfile").read_text()
    assert "# the data\n  db:" in text and "cache" not in text
    sandboxes.refused("remove", "wbe", words=['did you mean "web"?'])
    sandboxes.refused("run", "wbe", words=['did you mean "web"?'])


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


def test_nothing_outside_the_project_is_used_without_consent(sandboxes):
    outside = sandboxes.user / "secret"
    outside.mkdir()
    (outside / "key").write_text("private")
    (sandboxes.project / "link").symlink_to(outside)
    for volume in (f"{outside}:/s", "./link:/s", "../user/secret:/s"):
        sandboxes.write(f"sandboxes:\n  box: {{image: base, volumes: ['{volume}'], command: [cat, /s/key]}}\n")
        sandboxes.refused("run", "box", words=[str(outside), "--yes"])
    sandboxes.write(f"sandboxes:\n  box: {{image: '{outside}', command: [cat, /key]}}\n")
    sandboxes.refused("run", "box", words=[str(outside)])
    sandboxes.write("sandboxes:\n  box: {image: base, env_files: ['../user/secret/key'], command: [env]}\n")
    sandboxes.refused("run", "box", words=["secret/key"])
    sandboxes.write("sandboxes:\n  box: {image: base, ports: ['0.0.0.0:0:80'], command: ['true']}\n")
    sandboxes.refused("run", "box", words=["0.0.0.0"])
    sandboxes.write("sandboxes:\n  box: {image: base, volumes: ['./link:/s:ro'], command: [cat, /s/key]}\n")
    assert sandboxes.done("run", "--yes", "box") == "private"
    assert sandboxes.done("run", "box") == "private"  # asked once


def test_a_broken_sandboxfile_is_told_with_its_place(sandboxes):
    cases = {
        "": "Sandboxfile declares no sandbox",
        "just words": "Sandboxfile:1:1",
        "sandboxes: [": "Sandboxfile:1",
        "sandboxes:\n  a: {image: base, memmory: 1}\n": 'Sandboxfile:2:20: .*did you mean "memory"',
        "sandboxes:\n  a: {image: base}\n  a: {image: base}\n": "Sandboxfile:3:3",
        "sandboxes:\n  a: {image: base, depends_on: [b]}\n  b: {image: base, depends_on: [a]}\n": "a -> b -> a",
        "sandboxes:\n  a: {memory: 512}\n": "Sandboxfile:2:3: .*image",
        "sandboxes:\n  a: {image: base, memory: 99999999999G}\n": "Sandboxfile:2:28",
        "builds: {}\nsandboxes:\n": "Sandboxfile:1:1: .*builds",
        "sandboxes:\n  'a b': {image: base}\n": "Sandboxfile:2:3",
        "sandboxes:\n  ../a: {image: base}\n": "Sandboxfile:2:3",
    }
    for text, expected in cases.items():
        sandboxes.write(text)
        assert re.search(expected, sandboxes.refused("up")), (text, sandboxes("up").stderr)
    sandboxes.write("sandboxes:\n  a: {image: base, volumes: ['./nowhere:/x']}\n")
    sandboxes.refused("up", words=["nowhere"])
    assert sandboxes.runtime_files() == []


def test_a_port_in_use_and_an_image_that_is_not_there(sandboxes):
    with subprocess.Popen(["python3", "-c", "import socket, time; s = socket.create_server(('127.0.0.1', 0)); "
                           "print(s.getsockname()[1], flush=True); time.sleep(1000)"], stdout=subprocess.PIPE) as taken:
        port = int(taken.stdout.readline())
        sandboxes.write(f"sandboxes:\n  a: {{image: base, shell: sh, ports: ['{port}:80']}}\n")
        sandboxes.refused("up", words=[str(port)])
        taken.kill()
    sandboxes.write("sandboxes:\n  a: {image: 'localhost:1/none'}\n")
    sandboxes.refused("up", words=["localhost:1"])
    [entry] = sandboxes.json("status")
    assert not entry["running"]


def test_a_project_directory_that_cannot_be_written(sandboxes):
    sandboxes.write("sandboxes:\n  a: {image: base, shell: sh}\n")
    (sandboxes.project / "menv").write_text("a file")
    sandboxes.refused("run", "a", words=["menv"])
    (sandboxes.project / "menv").unlink()
    (sandboxes.project / "menv").symlink_to(sandboxes.user)
    sandboxes.refused("run", "a", words=["menv"])
    sandboxes.refused("clean", "--force", words=["menv"])
    assert list(sandboxes.user.iterdir()) == []


def test_the_state_of_the_old_line_is_said_to_be_unused(sandboxes):
    (sandboxes.project / ".menv").mkdir()
    sandboxes.write("sandboxes:\n  a: {image: base}\n")
    assert b".menv" in sandboxes("list").stderr


def test_twelve_at_once(sandboxes):
    names = [f"s{n}" for n in range(12)]
    sandboxes.write("sandboxes:\n" + "".join(f"  {name}: {{image: base, shell: sh, memory: 64}}\n" for name in names))
    sandboxes.done("up", timeout=400)
    assert sandboxes.running() == sorted(names)
    assert sandboxes.done("exec", "s7", "--", "hostname") == "s7\n"
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
