# SPDX-License-Identifier: Apache-2.0
"""The API below /v1: files, directories and trees of a sandbox."""

import http.client
import io
import os
import stat
import tarfile

import pytest
from conftest import wait_until
from server_api import NOT_RUN, path_query
from server_bed import needs_root
from server_clients import Raw

pytestmark = needs_root


@pytest.fixture
def files(box):
    return f"{box}/files"


def test_a_file_is_written_and_read(api, files, tmp_path):
    content = os.urandom(3_000_000)
    octets = {"Content-Type": "application/octet-stream"}
    path = tmp_path / "a b/ü/file"
    api.refused("PUT", f"{files}/content?{path_query(path)}", b"x", status=404, headers=octets)
    sent = api.done("PUT", f"{files}/content?{path_query(path, mode='0750', parents='true')}", content, headers=octets)
    assert sent["bytes"] == len(content) and path.read_bytes() == content and stat.S_IMODE(path.stat().st_mode) == 0o750
    assert api.get(f"{files}/content?{path_query(path)}").body == content
    assert api.get(f"{files}/content?{path_query(path, offset=1000, length=50)}").body == content[1000:1050]
    assert api.get(f"{files}/content?{path_query(path, offset=len(content) + 5)}").body == b""
    assert api.get(f"{files}/content?{path_query(path, length=0)}").body == b""
    api.done("PUT", f"{files}/content?{path_query(path)}", b"", headers=octets)
    assert path.read_bytes() == b""


def test_a_file_that_comes_in_chunks_is_written(api, server, files, tmp_path):
    path = tmp_path / "chunked"
    head = (f"PUT /v1{files}/content?{path_query(path)} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {server.key}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n").encode()
    with Raw(server.port, head + b"5\r\nhello\r\n" + b"6\r\n world\r\n0\r\n\r\n") as raw:
        assert raw.answer()[0] == 200
    assert path.read_text() == "hello world"


def test_a_file_whose_sender_left_is_as_it_was(server, files, tmp_path):
    path = tmp_path / "kept"
    path.write_text("old")
    head = (f"PUT /v1{files}/content?{path_query(path)} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {server.key}\r\n"
            "Content-Length: 1000000\r\n\r\n").encode()
    before = server.descriptors()
    with Raw(server.port, head + b"x" * 500_000):
        wait_until(lambda: server.descriptors() > before + 1, "it is being written")
    wait_until(lambda: server.descriptors() <= before, "nobody writes any more")
    assert os.listdir(tmp_path) == ["kept"] and path.read_text() == "old"


def test_a_file_that_could_not_be_told_whole_does_not_look_so(api, new, tmp_path):
    name = new()["name"]
    with open(tmp_path / "large", "wb") as file:
        file.truncate(1 << 40)
    response, connection = api.http.open("GET", f"/v1/sandboxes/{name}/files/content?{path_query(tmp_path / 'large')}")
    response.read(1 << 20)
    api.done("POST", f"/sandboxes/{name}/stop", {"at_once": True})
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        while response.read(1 << 20):
            pass
    connection.close()


def test_a_large_file_does_not_pass_through_memory(api, server, files, tmp_path):
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(300 << 20)
    response, connection = api.http.open("GET", f"/v1{files}/content?{path_query(path)}")
    total = 0
    while piece := response.read(1 << 20):
        total += len(piece)
    assert total == 300 << 20
    connection.close()
    with open(f"/proc/{server.process.pid}/status") as lines:
        [peak] = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    assert peak < 200 << 10


def test_directories_are_made_listed_moved_and_removed(api, files, tmp_path):
    api.refused("POST", f"{files}/directories", {"path": f"{tmp_path}/a/b"}, status=404)
    api.done("POST", f"{files}/directories", {"path": f"{tmp_path}/a/b", "parents": True, "mode": "700"}, status=204)
    (tmp_path / "a/file").write_text("x")
    (tmp_path / "a/link").symlink_to("../nowhere")
    listed = {entry["name"]: entry for entry in api.done("GET", f"{files}?{path_query(tmp_path / 'a')}")["entries"]}
    assert {name: entry["type"] for name, entry in listed.items()} == {"b": "directory", "file": "file", "link": "symlink"}
    assert listed["link"]["target"] == "../nowhere" and listed["file"]["size"] == 1 and listed["b"]["mode"] == "0700"
    api.done("POST", f"{files}/move", {"from": f"{tmp_path}/a/file", "to": f"{tmp_path}/a/b/file"}, status=204)
    (tmp_path / "other").write_text("y")
    assert api.refused("POST", f"{files}/move", {"from": f"{tmp_path}/other", "to": f"{tmp_path}/a/b/file"},
                       status=409)["code"] == "conflict"
    api.done("POST", f"{files}/move", {"from": f"{tmp_path}/other", "to": f"{tmp_path}/a/b/file", "replace": True}, status=204)
    assert (tmp_path / "a/b/file").read_text() == "y"
    api.refused("DELETE", f"{files}?{path_query(tmp_path / 'a')}", status=409)
    api.done("DELETE", f"{files}?{path_query(tmp_path / 'a/link')}", status=204)
    api.done("DELETE", f"{files}?{path_query(tmp_path / 'a', recursive='true')}", status=204)
    assert os.listdir(tmp_path) == []
    api.refused("DELETE", f"{files}?{path_query(tmp_path / 'a')}", status=404)


def test_a_link_is_followed_when_it_is_to_be(api, files, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    assert api.done("GET", f"{files}/stat?{path_query(tmp_path / 'link')}")["type"] == "symlink"
    assert api.done("GET", f"{files}/stat?{path_query(tmp_path / 'link', follow='true')}")["type"] == "file"


def test_trees_go_both_ways_as_tar(api, files, tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/file").write_bytes(os.urandom(100_000))
    (tmp_path / "in/link").symlink_to("deep")
    packed = api.get(f"{files}/tar?{path_query(tmp_path / 'in')}")
    assert packed.status == 200
    with tarfile.open(fileobj=io.BytesIO(packed.body)) as archive:
        assert sorted(name.removeprefix("./").rstrip("/") for name in archive.getnames() if name.strip("./")) == ["deep",
                                                                                                                  "deep/file",
                                                                                                                  "link"]
    sent = api.done("PUT", f"{files}/tar?{path_query(tmp_path / 'out', parents='true')}", packed.body,
                    headers={"Content-Type": "application/x-tar"})
    assert sent["entries"] >= 3
    assert (tmp_path / "out/deep/file").read_bytes() == (tmp_path / "in/deep/file").read_bytes()
    assert os.readlink(tmp_path / "out/link") == "deep"


def hostile_tar(name, kind=tarfile.REGTYPE, target=""):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, target
        archive.addfile(entry)
    return packed.getvalue()


NO_TARS = {"above": hostile_tar("../escaped"), "absolute": hostile_tar("/escaped"),
           "above after all": hostile_tar("a/../../escaped"),
           "nonsense": b"nonsense" * 200, "a byte": b"x", "half": hostile_tar("a")[:300]}


@pytest.mark.parametrize("packed", NO_TARS.values(), ids=NO_TARS)
def test_a_tar_that_leads_out_or_is_none_is_refused(api, files, tmp_path, packed):
    (tmp_path / "out").mkdir()
    answer = api("PUT", f"{files}/tar?{path_query(tmp_path / 'out')}", packed, headers={"Content-Type": "application/x-tar"})
    assert answer.status in (200, 400, 409, 502)
    assert not os.path.exists(tmp_path / "escaped") and not os.path.exists("/escaped")
    if answer.status == 200:
        assert b"escaped" in packed, "names are taken below the directory"


PATHS = ["", "relative", "../x", "./x", "a/b", "x" * 5000, "/" + "x" * 300, "/a\0b"]


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_paths_that_cannot_be_are_refused(api, files, path):
    for method, place in (("GET", "content"), ("PUT", "content"), ("GET", "stat"), ("GET", "tar"), ("DELETE", "")):
        api.refused(method, f"{files}/{place}?{path_query(path)}".replace("/?", "?"), b"" if method == "PUT" else None,
                    status=NOT_RUN)


def test_errors_of_files_have_their_reasons(api, files, tmp_path):
    missing = path_query(tmp_path / "missing")
    for method, place in (("GET", "/content"), ("GET", "/stat"), ("GET", "/tar"), ("GET", ""), ("DELETE", "")):
        assert api.refused(method, f"{files}{place}?{missing}", status=404)["code"] == "not_found", place
    assert api.refused("GET", f"{files}/content?{path_query(tmp_path)}", status=(400, 409))
    (tmp_path / "file").write_text("x")
    assert api.refused("GET", f"{files}?{path_query(tmp_path / 'file')}", status=(400, 409))


def test_a_file_that_is_a_pipe_is_not_waited_for(api, files, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert api.refused("GET", f"{files}/content?{path_query(tmp_path / 'pipe')}", status=(400, 409, 502))

def test_all_operations_for_files_were_asked_for(document):
    """The last one here: nothing of the document was forgotten by these tests."""
    assert document.not_seen("files") == set()
