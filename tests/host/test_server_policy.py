# SPDX-License-Identifier: Apache-2.0
"""What the operator of a server allows: everything else is refused, by the rule that refuses it."""

import pytest
from server_bed import needs_root
from server_clients import FORBIDDEN, NO_ROOM, http_of, refusal

pytestmark = needs_root


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Directories, of which some are allowed."""
    made = tmp_path_factory.mktemp("place")
    for name in ("allowed/below", "readable", "elsewhere"):
        (made / name).mkdir(parents=True)
    (made / "allowed/out").symlink_to(made / "elsewhere")
    return made


@pytest.fixture(scope="module")
def server(shared_host, place):
    """One that allows little."""
    shared_host.settle(
        allow={"images": ["base", "python:3.12-slim", "localhost:1/me/*"],
               "volumes": [f"{place}/allowed", f"{place}/readable:ro"],
               "ports": ["127.0.0.1:20000-20999"], "scope": "local"},
        limits={"sandboxes": 3, "memory": "1G", "cpus": 2, "sandbox_memory": "600M", "disk": "1G", "processes": 100,
                "lifetime": "1h"})
    return shared_host.serve()


@pytest.fixture
def limited(http):
    """Asks that server for a start; nothing of it is left."""
    def start(**config):
        return http.rpc("sandbox.start", {"sandbox": "it", "config": {"image": "base", "disk": "512M"} | config})

    yield start
    http("DELETE", "/v1/sandboxes/it")


IMAGES = ["python", "node", "docker.io/library/python", "evil.example/base", "evil.example/localhost:1/me/x", "localhost:1/you/x",
          "localhost:1/me",
          "node@sha256:" + "0" * 64, "/", "/etc", "./x", "../x", "~", "~/x", "/tmp", "oci:/etc", "file:///etc",
          "sha256:" + "0" * 64, "abcdef012345"]


@pytest.mark.parametrize("image", IMAGES)
def test_images_that_are_not_allowed_are_refused_by_the_rule(limited, image):
    answer = limited(image=image)
    status, code, said = refusal(answer)
    assert status in (400, 403, 502), answer
    if status == 403:
        assert code == FORBIDDEN and ("images" in said or "directory" in said or "digest" in said)
    assert status == 403 or image in ("~", "~/x", "oci:/etc", "file:///etc", IMAGES[4])


@pytest.mark.parametrize("image", ["base", "docker.io/library/base", "python:3.12-slim"])
def test_images_that_are_allowed_are_whatever_they_are_called(limited, image):
    assert limited(image=image).status == 200


VOLUMES = ["{tmp}/elsewhere:/x", "/etc:/x", "/:/x", "{tmp}/allowed/../elsewhere:/x", "{tmp}/allowed/out:/x", "{tmp}/allowedx:/x",
           "{tmp}:/x", "{tmp}/readable:/x",
           "/proc/self/root/etc:/x", "/proc/1/root:/x", "/dev/fd/0:/x", "allowed:/x", "./allowed:/x", "~:/x", "../x:/x",
           "/etc/passwd:/x", "{tmp}/allowed/../../..:/x",
           "{home}:/x", "{home}/server:/x"]


@pytest.mark.parametrize("volume", VOLUMES)
def test_volumes_that_are_not_allowed_are_refused_by_the_rule(limited, shared_host, place, volume):
    answer = limited(volumes=[volume.format(tmp=place, home=shared_host.home)])
    status, _, said = refusal(answer)
    assert status in (400, 403), answer
    assert "volume" in said
    assert str(place / "elsewhere") not in said or "/elsewhere:" in volume, "where a link leads is not told"
    assert shared_host.running() == []


@pytest.mark.parametrize("volume", ["{tmp}/allowed:/x", "{tmp}/allowed/below:/x", "{tmp}/allowed:/x:ro", "{tmp}/readable:/x:ro",
                                    "{tmp}/allowed/below/../below:/x"])
def test_volumes_that_are_allowed_are_taken(limited, place, volume):
    assert limited(volumes=[volume.format(tmp=place)]).status == 200


def test_without_settings_no_volume_is_allowed(server_host):
    server = server_host.serve()
    for volume in ("/tmp:/x", "/etc/hostname:/x", f"{server_host.project}:/x"):
        status, code, said = refusal(http_of(server).rpc("sandbox.start",
                                                         {"sandbox": "x", "config": {"image": "base", "volumes": [volume]}}))
        assert (status, code) == (403, FORBIDDEN) and "volumes" in said


@pytest.mark.parametrize("port", ["22:80", "19999:80", "21000:80", "0.0.0.0:20000:80", "192.168.1.1:20000:80", "[::1]:20000:80",
                                  "127.0.0.2:20000:80", "0.0.0.0:0:80",
                                  "80", "::80"])
def test_ports_that_are_not_allowed_are_refused_by_the_rule(limited, port):
    status, code, said = refusal(limited(ports=[port]))
    assert status in (400, 403) and "port" in said
    assert status == 400 or code == FORBIDDEN and "ports" in said


@pytest.mark.parametrize("name, value, rule", [
    ("memory", 601, "sandbox_memory"), ("memory", "601M", "sandbox_memory"), ("cpus", 3, "cpus"), ("cpus", 2.5, "cpus"),
    ("disk", "2G", "disk"),
    ("processes", 101, "processes"), ("timeout", "2h", "lifetime"), ("scope", "public", "scope"), ("scope", "any", "scope"),
    ("network", ["deny dns", "allow tcp 10.0.0.5 443"], "scope")])
def test_what_is_beyond_a_limit_is_refused_by_the_rule(limited, name, value, rule):
    status, code, said = refusal(limited(**{name: value}))
    assert (status, code) == (403, FORBIDDEN) and rule in said, said


def test_what_all_have_together_is_bounded(server_host):
    server_host.settle(limits={"sandboxes": 3, "memory": "1G"})
    server = server_host.serve()
    ask = http_of(server)

    def start(name, memory):
        return ask.rpc("sandbox.start", {"sandbox": name, "config": {"image": "base", "memory": memory}})

    assert start("one", 400).status == start("two", 500).status == 200
    answer = start("three", 200)
    status, code, said = refusal(answer)
    assert (status, code) == (429, NO_ROOM) and "memory" in said and int(answer.headers["Retry-After"]) > 0
    assert start("three", 100).status == 200
    status, code, said = refusal(start("four", 100))
    assert (status, code) == (429, NO_ROOM) and "sandboxes" in said
    ask.result("sandbox.stop", sandbox="two")
    assert start("four", 100).status == 200


def test_of_what_is_refused_nothing_is_kept(limited, shared_host):
    for config in ({"image": "node"}, {"volumes": ["/etc:/x"]}, {"ports": ["22:80"]}, {"memory": 5000}):
        assert limited(**config).status == 403
    assert shared_host.kept() == [] and shared_host.running() == []
