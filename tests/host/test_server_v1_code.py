# SPDX-License-Identifier: Apache-2.0
"""The API below /v1: code in interpreters, and their sessions."""

import base64
import itertools
import json
import threading

import pytest
from conftest import wait_until
from json_schema import EVENTS, NDJSON
from server_bed import needs_root

pytestmark = needs_root


def code(api, box, text, language="python", **more):
    return api.done("POST", f"{box}/code", {"language": language, "code": text} | more)


def test_code_gives_values_streams_and_errors(api, box):
    ran = code(api, box, "import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    assert ran["status"] == "ok" and ran["truncated"] is False
    assert sorted((part["type"], part.get("stream")) for part in ran["outputs"]) == sorted([("stream", "stdout"),
                                                                                            ("stream", "stderr"),
                                                                                            ("result", None)])
    [result] = [part for part in ran["outputs"] if part["type"] == "result"]
    assert result["data"]["text/plain"] == "42"
    ran = code(api, box, "1 / 0")
    assert ran["status"] == "error" and ran["outputs"][-1]["name"] == "ZeroDivisionError" and ran["outputs"][-1]["traceback"]


def test_values_that_are_images_come_as_such(api, box):
    text = "class Dot:\n    def _repr_png_(self):\n        return b'\\x89PNG\\r\\n\\x1a\\n'\ndisplay(Dot())\nDot()"
    ran = code(api, box, text)
    for part, kind in zip(ran["outputs"], ("display", "result")):
        assert part["type"] == kind and base64.b64decode(part["data"]["image/png"]) == b"\x89PNG\r\n\x1a\n"


def test_sessions_are_apart_and_listed_and_closed(api, box):
    code(api, box, "x = 1", session="one")
    assert code(api, box, "x", session="two")["status"] == "error"
    assert code(api, box, "x", session="one")["outputs"][0]["data"]["text/plain"] == "1"
    sessions = {(entry["language"], entry["name"]) for entry in api.done("GET", f"{box}/sessions")["sessions"]}
    assert {("python", "one"), ("python", "two")} <= sessions
    api.done("DELETE", f"{box}/sessions/python/one", status=204)
    assert ("python", "one") not in {(entry["language"], entry["name"])
                                     for entry in api.done("GET", f"{box}/sessions")["sessions"]}
    assert code(api, box, "x", session="one")["status"] == "error"
    api.refused("DELETE", f"{box}/sessions/python/nobody", status=404)
    api.refused("DELETE", f"{box}/sessions/pascal/main", status=(400, 404))


@pytest.mark.parametrize("language, text, wanted", [("javascript", "1 + 1", "2"), ("node", "'a'", "'a'"),
                                                    ("shell", "x=5; echo $x", "5\n"), ("bash", "echo $x", "5\n")])
def test_other_languages(api, box, language, text, wanted):
    ran = code(api, box, text, language)
    assert ran["status"] == "ok"
    assert (ran["outputs"][0].get("text") or ran["outputs"][0]["data"]["text/plain"]) == wanted


def test_a_shell_tells_its_status(api, box):
    assert code(api, box, "false", "shell")["exit_status"] == 1
    assert code(api, box, "true", "shell")["exit_status"] == 0


@pytest.mark.parametrize("kind", [NDJSON, EVENTS])
def test_code_is_streamed(api, box, kind):
    events = api.streamed("POST", f"{box}/code", {"language": "python", "code": "print('a')\ndisplay(1)\n2"}, kind)
    kinds = [event for event, _ in itertools.groupby(event["event"] for event in events)]
    assert kinds == ["stream", "display", "result", "done"]
    assert events[-1]["status"] == "ok"


def test_code_comes_while_it_runs_and_is_interrupted(api, box, tmp_path):
    response, connection = api.open("POST", f"{box}/code", {"language": "python",
                                                            "code": "import time\nprint('up', flush=True)\ntime.sleep(1000)",
                                                            "session": "stopped"})
    text = ""
    while text != "up\n":  # the end of the line may come alone
        text += json.loads(response.readline())["text"]
    api.done("POST", f"{box}/sessions/python/stopped/interrupt", status=204)
    events = [json.loads(line) for line in response]
    assert events[-1]["event"] == "done" and events[-1]["status"] in ("interrupted", "error")
    connection.close()
    api.refused("POST", f"{box}/sessions/python/stopped/interrupt", status=(404, 409))
    assert code(api, box, "'on'", session="stopped")["status"] == "ok"


def test_code_that_takes_too_long_says_so_with_what_it_gave(api, box):
    ran = code(api, box, "print('begun', flush=True)\nwhile True: pass", timeout=0.3)
    assert ran["status"] == "timeout" and ran["outputs"][0]["text"] == "begun\n"
    assert code(api, box, "1")["status"] == "ok"


CODES = [({"code": "1"}, "language"), ({"language": "python"}, "code"), ({"language": "pyhton", "code": "1"}, "python"),
         ({"language": "python", "code": 1}, "code"),
         ({"language": "python", "code": "1", "session": "a b"}, "a b"),
         ({"language": "python", "code": "1", "session": ""}, "session"),
         ({"language": "python", "code": "1", "timeout": 0}, "timeout"),
         ({"language": "python", "code": "1", "session": "../x"}, "../x"),
         ({"language": "python", "code": "1", "lang": 1}, "lang")]


@pytest.mark.parametrize("body, word", CODES, ids=range(len(CODES)))
def test_code_that_cannot_be_run_is_refused(api, box, body, word):
    assert word in api.refused("POST", f"{box}/code", body)["message"]
    assert word in api.refused("POST", f"{box}/code", body, headers={"Accept": NDJSON})["message"]


def test_too_many_that_wait_for_a_session_are_told_to_come_later(api, box, tmp_path):
    """A session takes so many, and then 429."""
    body = {"language": "python", "code": f"import os, time\nwhile not os.path.exists('{tmp_path}/go'): time.sleep(0.01)",
            "session": "crowded"}
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(api.post(f"{box}/code", body))) for _ in range(24)]
    for thread in threads:
        thread.start()
    wait_until(lambda: [answer.status for answer in answers].count(429) >= 5, "those beyond the limit are turned away")
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} == {200, 429}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers if answer.status == 429)

def test_all_operations_for_code_were_asked_for(document):
    """The last one here: nothing of the document was forgotten by these tests."""
    assert document.not_seen("code") == set()
