# SPDX-License-Identifier: Apache-2.0
"""Keys: how they are made, what they may, and how they end."""

import json
import os
import re
import stat
import subprocess
import threading
import time

import pytest
from conftest import wait_until
from server_bed import needs_root
from server_clients import BAD_KEY, EXPIRED, FORBIDDEN, NO_ROOM, Client026, Http, Raw, refusal

pytestmark = needs_root


@pytest.fixture(scope="module")
def new_key(shared_host):
    return lambda *options: shared_host.keygen(*options)["key"]


@pytest.fixture(scope="module")
def all_may(server):
    return Http(server.port, server.key)


def status_of(server, key):
    return Http(server.port, key).rpc("sandbox.metrics.get").status


# Making them.

def test_a_key_is_shown_once_and_kept_as_a_hash(server_host):
    made = server_host.done("server", "keygen").strip()
    assert re.fullmatch(r"msb_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", made)
    [listed] = server_host.json("server", "keys")
    assert listed["id"] == made.split("_")[1] and listed["expires_at"] is None, "a key lasts unless told otherwise"
    for path in server_host.home.rglob("*"):
        if path.is_file():
            assert made.encode() not in path.read_bytes() and made.split("_", 2)[2].encode() not in path.read_bytes()
    assert made not in server_host.done("server", "keys")


def test_keys_differ(server_host):
    keys = {server_host.keygen()["key"] for _ in range(20)}
    assert len(keys) == len({key.split("_")[1] for key in keys}) == 20


def test_the_file_of_keys_is_its_owner_s_alone(server_host):
    server_host.keygen()
    path = server_host.home / "server/keys.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_key_says_what_it_was_made_for(server_host):
    made = server_host.keygen("--name", "ci of ü", "--namespace", "ci", "--read-only", "--expire", "3h", "--max-sandboxes", "2",
                              "--max-memory", "1G", "--max-lifetime", "1h")
    [listed] = server_host.json("server", "keys")
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert (made["name"], made["namespace"], made["read_only"]) == ("ci of ü", "ci", True)
    assert (made["max_sandboxes"], made["max_memory_mib"], made["max_lifetime_s"]) == (2, 1024, 3600)
    told = server_host.done("server", "keys")
    for word in (made["id"], "ci of ", "look", "1024 MiB"):
        assert word in told


@pytest.mark.parametrize("options, words", [
    (["--expire", "5"], ["--expire", "5"]), (["--expire", "3x"], ["3x"]), (["--expire", "-3h"], ["-3h"]),
    (["--expire", "0s"], ["0s"]),
    (["--expire", "9999999999999999999y"], ["9999999999999999999y"]), (["--expire", "101y"], ["101y"]),
    (["--expire", "1.5h"], ["1.5h"]),
    (["--namespace", "a b"], ["a b"]), (["--namespace", "../x"], ["../x"]), (["--name", "a\nb"], ["name"]),
    (["--name", "x" * 200], ["name"]),
    (["--max-memory", "lots"], ["--max-memory", "lots"]), (["--max-lifetime", "never"], ["--max-lifetime"]),
])
def test_a_key_that_cannot_be_is_refused(server_host, options, words):
    result = server_host("server", "keygen", *[f"{options[0]}={options[1]}"])
    assert result.returncode != 0 and result.stdout == b""
    for word in words:
        assert word in result.stderr.decode(), result.stderr
    assert server_host.json("server", "keys") == []


@pytest.mark.parametrize("unit, seconds", [("s", 1), ("m", 60), ("h", 3600), ("d", 86400), ("w", 604800), ("mo", 2592000),
                                           ("y", 31536000)])
def test_units_of_expiry_are_those_of_the_0_2_line(server_host, unit, seconds):
    made = server_host.keygen("--expire", f"2{unit}")
    stamps = [time.mktime(time.strptime(made[name][:19].replace(" ", "T"), "%Y-%m-%dT%H:%M:%S"))
              for name in ("created_at", "expires_at")]
    assert abs(stamps[1] - stamps[0] - 2 * seconds) <= 1


def test_many_that_make_keys_at_a_time_lose_none(server_host):
    processes = [server_host.start("server", "keygen") for _ in range(16)]
    made = {process.communicate(timeout=30)[0].decode().strip() for process in processes}
    assert {entry["id"] for entry in server_host.json("server", "keys")} == {key.split("_")[1]
                                                                             for key in made} and len(made) == 16


# A file that is not as it was.

@pytest.mark.parametrize("change, words", [
    (lambda path: path.chmod(0o644), "open to other users"), (lambda path: path.write_text("{"), "damaged"),
    (lambda path: path.write_text('{"keys": [{"id": "x"}]}'), "damaged"), (lambda path: path.write_text(""), "damaged"),
    (lambda path: (path.unlink(), path.mkdir()), "keys.json"),
    (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), "keys.json"),
    (lambda path: os.chown(path, 12345, 12345), "another user"),
    (lambda path: (path.rename(f"{path}.x"), path.symlink_to(f"{path}.x")), "keys.json"),
], ids=["open", "half", "other", "empty", "directory", "fifo", "foreign", "link"])
def test_with_a_damaged_file_nobody_is_let_in(server_host, change, words):
    server = server_host.serve()
    assert status_of(server, server.key) == 200
    path = server_host.home / "server/keys.json"
    change(path)
    assert status_of(server, server.key) == 500
    assert words in server_host.refused("server", "keys")
    said = Http(server.port, server.key).rpc("sandbox.metrics.get").json["error"]["message"]
    assert str(server_host.home) not in said, "what is where on this host is nothing for strangers"
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()
    assert status_of(server, server.key) == 401, "without the file there are no keys"


# Using them.

def test_a_key_that_is_made_while_the_server_runs_is_known_at_once(server, new_key):
    assert status_of(server, new_key()) == 200


def test_a_key_that_is_revoked_while_the_server_runs_is_refused_at_once(server, shared_host):
    made = shared_host.keygen()
    with Raw(server.port) as raw:  # on a connection that it had opened before
        request = f"GET /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nAuthorization: {made['key']}\r\n\r\n".encode()
        raw.send(request)
        assert raw.answer()[0] == 200
        assert made["id"] in shared_host.done("server", "revoke", made["id"])
        raw.send(request)
        assert raw.answer()[0] == 401
    status, code, said = refusal(Http(server.port, made["key"]).rpc("sandbox.metrics.get"))
    assert (status, code) == (401, BAD_KEY) and made["key"] not in said
    assert made["id"] not in [entry["id"] for entry in shared_host.json("server", "keys")]
    assert "keys" in shared_host.refused("server", "revoke", made["id"])


def test_a_key_expires(server, new_key):
    key = new_key("--expire", "1s")
    assert status_of(server, key) == 200
    wait_until(lambda: status_of(server, key) == 401, "it has expired")
    status, code, said = refusal(Http(server.port, key).rpc("sandbox.metrics.get"))
    assert (status, code) == (401, EXPIRED) and "expired" in said and key not in said


def test_all_keys_are_revoked_by_a_reset(server_host):
    before = server_host.keygen()["key"]
    server = server_host.serve("--reset-key", key=False)
    assert "revoked 1 keys" in server.log_path.read_text() or "revoked 1 key" in server.log_path.read_text()
    assert status_of(server, before) == 401
    assert status_of(server, server_host.keygen()["key"]) == 200


def test_a_key_of_the_command_line_is_valid_as_long_as_the_server_runs(server_host):
    key = "msb_" + "k" * 32
    server = server_host.serve("--key", key, key=False)
    assert status_of(server, key) == 200 and status_of(server, key + "x") == 401
    assert server_host.json("server", "keys") == []
    server.stop()
    assert status_of(server_host.serve(key=False), key) == 401


def test_a_key_on_the_command_line_is_none_for_the_background(server_host):
    assert "keygen" in server_host.refused("server", "start", "--port", "0", "--detach", "--key", "msb_" + "k" * 32)


def test_a_key_that_looks_like_another_is_none(server, new_key):
    key = new_key()
    word, identity, secret = key.split("_", 2)
    for wrong in (key[:-1], key + "A", key.upper(), key.lower() + "", f"{word}_{identity}_", f"{word}_{'0' * 8}_{secret}",
                  f"{word}_{identity}_{secret[::-1]}",
                  secret, identity, f" {key} x", f"Basic {key}", f"Bearer Bearer {key}", "", "msb_", "null", "../" + key):
        if wrong != key:
            assert status_of(server, wrong) == 401, wrong


# Without keys.

def test_without_keys_there_is_loopback_alone(server_host):
    server = server_host.serve("--dev", key=False)
    assert status_of(server, None) == 200 and status_of(server, "whatever") == 200
    assert server_host.json("server", "status")["dev"] is True
    server.stop()
    for host in ("0.0.0.0", "::"):
        result = server_host("server", "start", "--dev", "--host", host, "--port", "0")
        assert result.returncode == 1 and b"--dev" in result.stderr, result
    assert server_host("server", "status").returncode == 1


def test_without_keys_the_loopback_may_be_ipv6(server_host):
    server = server_host.serve("--dev", "--host", "::1", key=False)
    assert server.url == f"http://[::1]:{server.port}"
    assert Http(server.port, host="::1").get("/api/v1/health").status == 200


def test_with_keys_the_server_may_be_reached_from_afar(server_host):
    server = server_host.serve("--host", "0.0.0.0")
    assert status_of(server, None) == 401 and status_of(server, server.key) == 200


def test_without_keys_browsers_are_kept_out_nevertheless(server_host):
    server = server_host.serve("--dev", key=False)
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}):
        assert Http(server.port).post("/api/v1/rpc", {"jsonrpc": "2.0", "method": "sandbox.metrics.get", "id": 1},
                                      headers=headers).status == 403


# What a key may.

CHANGES = [("sandbox.start", {"sandbox": "mine", "config": {"image": "base"}}), ("sandbox.stop", {"sandbox": "mine"}),
           ("sandbox.repl.run", {"sandbox": "mine", "language": "python", "code": "1"}),
           ("sandbox.command.run", {"sandbox": "mine", "command": "true"})]


def test_a_read_only_key_looks_and_changes_nothing(server, new_key, all_may):
    all_may.result("sandbox.start", sandbox="mine", config={"image": "base"})
    looks = Http(server.port, new_key("--read-only"))
    assert looks.result("sandbox.metrics.get", sandbox="mine")
    assert looks.get("/v1/sandboxes/mine").status == 200
    for method, params in CHANGES:
        status, code, said = refusal(looks.rpc(method, params))
        assert (status, code) == (403, FORBIDDEN) and "read-only" in said, method
    for method, path, body in (("POST", "/v1/sandboxes", {"config": {"image": "base"}}), ("DELETE", "/v1/sandboxes/mine", None),
                               ("POST", "/v1/sandboxes/mine/stop", {}),
                               ("POST", "/v1/sandboxes/mine/exec", {"command": ["true"]}),
                               ("POST", "/v1/sandboxes/mine/code", {"language": "python", "code": "1"}),
                               ("PUT", "/v1/sandboxes/mine/files/content?path=/tmp/x", None),
                               ("POST", "/v1/images", {"reference": "base"}),
                               ("POST", "/v1/sandboxes/mine/pause", {})):
        status, code, _ = refusal(looks(method, path, body))
        assert (status, code) == (403, FORBIDDEN), path
    assert all_may.result("sandbox.command.run", sandbox="mine", command="true")["success"]
    all_may.result("sandbox.stop", sandbox="mine")


def test_a_key_of_a_namespace_sees_nothing_else(server, new_key, all_may):
    all_may.result("sandbox.start", sandbox="hidden", namespace="theirs", config={"image": "base"})
    all_may.result("sandbox.start", sandbox="hidden", config={"image": "base"})
    ours = Http(server.port, new_key("--namespace", "ours"))
    assert ours.result("sandbox.start", sandbox="own", config={"image": "base"}), "its namespace is the one that it means"
    assert ours.result("sandbox.metrics.get", namespace="ours")["sandboxes"][0]["name"] == "own"
    for namespace in ("*", None):
        assert [entry["namespace"] for entry in ours.result("sandbox.metrics.get", namespace=namespace)["sandboxes"]] == ["ours"]
    for namespace in ("theirs", "default"):
        answers = [ours.rpc("sandbox.stop", {"sandbox": "hidden", "namespace": namespace}),
                   ours.rpc("sandbox.stop", {"sandbox": "nobody", "namespace": namespace}),
                   ours.get(f"/v1/sandboxes/hidden?namespace={namespace}"),
                   ours.get(f"/v1/sandboxes/nobody?namespace={namespace}")]
        refused = [refusal(answer)[:2] for answer in answers]
        assert refused[0] == refused[1] and refused[2] == refused[3], "it does not learn what there is"
        assert all(status in (403, 404) for status, _ in refused)
        assert ours.rpc("sandbox.start", {"sandbox": "new", "namespace": namespace, "config": {"image": "base"}}).status == 403
        assert ours.rpc("sandbox.start", {"sandbox": "hidden", "namespace": namespace}).status in (403, 404)
        assert ours.result("sandbox.metrics.get", namespace=namespace)["sandboxes"] == []
    assert [entry["name"] for entry in ours.get("/v1/sandboxes").json["sandboxes"]] == ["own"]
    assert all_may.result("sandbox.metrics.get", sandbox="hidden", namespace="theirs")["sandboxes"][0]["running"]


def test_a_key_s_number_of_sandboxes_is_bounded(server, new_key):
    few = Http(server.port, new_key("--max-sandboxes", "1", "--namespace", "few"))
    few.result("sandbox.start", sandbox="one", config={"image": "base"})
    answer = few.rpc("sandbox.start", {"sandbox": "two", "config": {"image": "base"}})
    status, code, said = refusal(answer)
    assert (status, code) == (429, NO_ROOM) and "key" in said and int(answer.headers["Retry-After"]) > 0
    assert few.result("sandbox.start", sandbox="one")
    few.result("sandbox.stop", sandbox="one")
    few.result("sandbox.start", sandbox="two", config={"image": "base"})
    assert few.rpc("sandbox.start", {"sandbox": "one"}).status == 429
    few.result("sandbox.stop", sandbox="two")


def test_a_key_s_memory_is_bounded_in_all(server, new_key):
    small = Http(server.port, new_key("--max-memory", "1G", "--namespace", "small"))
    status, code, said = refusal(small.rpc("sandbox.start", {"sandbox": "large", "config": {"image": "base", "memory": 2048}}))
    assert (status, code) == (403, FORBIDDEN) and "memory" in said and "key" in said
    small.result("sandbox.start", sandbox="one", config={"image": "base", "memory": 700})
    status, code, said = refusal(small.rpc("sandbox.start", {"sandbox": "two", "config": {"image": "base", "memory": 700}}))
    assert (status, code) == (429, NO_ROOM) and "700" in said
    small.result("sandbox.start", sandbox="three", config={"image": "base", "memory": 300})
    for name in ("one", "three"):
        small.result("sandbox.stop", sandbox=name)


def test_a_sandbox_of_a_key_lives_as_long_as_that_says(server, new_key, shared_host):
    key = new_key("--max-lifetime", "1s", "--namespace", "short")
    short = Client026(server.url, "short", "python", key, "short")
    status, code, said = refusal(Http(server.port, key).rpc("sandbox.start",
                                                            {"sandbox": "short", "config": {"image": "base", "timeout": 60}}))
    assert (status, code) == (403, FORBIDDEN) and "lifetime" in said
    short.start(image="base")
    wait_until(lambda: "short" not in shared_host.running(), "its time is over")
    wait_until(lambda: not short.metrics()["running"], "the server knows")


def test_requests_that_race_for_the_last_place_do_not_both_get_it(server, new_key):
    key = new_key("--max-sandboxes", "1", "--namespace", "race")
    answers = []

    def start(name):
        answers.append(Http(server.port, key).rpc("sandbox.start", {"sandbox": name, "config": {"image": "base"}}))

    threads = [threading.Thread(target=start, args=[f"racer{number}"]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers) == [200] + 7 * [429]


def test_what_starts_it_is_not_told_to_its_neighbours(server_host):
    """A key on the command line shows in the list of processes, but not that of `keygen`."""
    server = server_host.serve()
    for pid in server_host.processes():
        shown = subprocess.run(["cat", f"/proc/{pid}/cmdline", f"/proc/{pid}/environ"], capture_output=True, check=False).stdout
        assert server.key.encode() not in shown
    assert server.key not in json.dumps(server.log())


def test_the_table_shows_names_as_they_were_written_but_for_what_moves_a_terminal(server_host):
    server_host.keygen("--name", "clé de 工具")
    for name in ("turned\u202e", "moved\u009b2J"):
        server_host.keygen("--name", name)
    told = server_host.done("server", "keys")
    assert "clé de 工具" in told and "turned\\xe2\\x80\\xae" in told and "moved\\xc2\\x9b2J" in told
    assert "\u202e" not in told and "\u009b" not in told
