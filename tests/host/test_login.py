# SPDX-License-Identifier: Apache-2.0
"""`msb login` and `msb logout`, and the programs that keep credentials for them."""

import json
import os
import stat

import pytest
from pseudo_terminal import Terminal
from registry.bed import PASSWORD, USER
from test_pull_auth import BASIC, configure

HELPER = """#!/bin/sh
# Keeps one secret for each registry, in files of the test.
cd "$KEPT" || exit 1
echo "$1" >>calls
case $1 in
  get)
    read -r server
    file=$(echo "$server" | tr '/:' '__')
    [ -f "$file" ] || { echo 'credentials not found in native keychain'; exit 1; }
    cat "$file" ;;
  store) cat >stored ;;
  erase) cat >erased ;;
esac
"""


class Helper:
    """docker-credential-test on PATH."""

    def __init__(self, msb, directory):
        self.kept = directory / "kept"
        self.kept.mkdir()
        self.program = directory / "bin/docker-credential-test"
        self.program.parent.mkdir()
        self.write(HELPER)
        msb.environment |= {"PATH": f"{self.program.parent}:{os.environ['PATH']}", "KEPT": str(self.kept)}

    def write(self, text):
        self.program.write_text(text)
        self.program.chmod(0o755)

    def keep(self, address, user, secret):
        (self.kept / address.replace(":", "_")).write_text(
            json.dumps({"ServerURL": address, "Username": user, "Secret": secret}))

    def calls(self):
        return (self.kept / "calls").read_text().split()


@pytest.fixture
def helper(msb, tmp_path):
    return Helper(msb, tmp_path)


def login(msb, address, password=PASSWORD, user=USER):
    return msb("login", "-u", user, "--password-stdin", address, stdin=password.encode())


def configuration(msb):
    return json.loads((msb.config / "config.json").read_text())


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_login_lets_pulls_in_until_logout(bed, msb, small, token_server, kind):
    token_server.anonymous = False
    registry = getattr(bed, kind)
    result = login(msb, registry.address)
    assert result.returncode == 0, result.stderr
    msb.pull(f"{registry.address}/{small.name}")
    msb.done("image", "remove", f"{registry.address}/{small.name}")
    msb.done("logout", registry.address)
    assert registry.address not in configuration(msb).get("auths", {})
    msb.refused("pull", f"{registry.address}/{small.name}", words=["msb login"])


def test_what_login_writes_is_for_this_user_alone_and_keeps_the_rest(bed, msb):
    configure(msb, HttpHeaders={"X": "y"}, auths={"elsewhere.test": {"auth": "eDp5"}})
    (msb.config / "config.json").chmod(0o644)
    assert login(msb, bed.basic.address).returncode == 0
    written = configuration(msb)
    assert written["auths"]["elsewhere.test"] == {"auth": "eDp5"} and written["HttpHeaders"] == {"X": "y"}
    assert written["auths"][bed.basic.address]["auth"] == BASIC
    assert stat.S_IMODE((msb.config / "config.json").stat().st_mode) == 0o600
    assert os.listdir(msb.config) == ["config.json"]


def test_login_makes_the_configuration_where_there_is_none(bed, msb):
    msb.config.rmdir()
    assert login(msb, bed.basic.address).returncode == 0
    assert stat.S_IMODE(msb.config.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_a_wrong_password_is_refused_and_nothing_is_written(bed, msb, token_server, kind):
    token_server.anonymous = False
    address = getattr(bed, kind).address
    result = login(msb, address, "not this one")
    assert result.returncode == 1 and address in result.stderr.decode()
    assert os.listdir(msb.config) == []


@pytest.mark.parametrize("password", ["", "\n", "a\nb\n", "a\0b", "x" * 100_000])
def test_what_cannot_be_a_password_is_refused(bed, msb, password):
    result = login(msb, bed.basic.address, password)
    assert result.returncode in (1, 2) and result.stderr.startswith(b"msb: ")
    assert os.listdir(msb.config) == []


def test_the_line_end_after_a_password_is_none_of_it(bed, msb):
    assert login(msb, bed.basic.address, PASSWORD + "\n").returncode == 0
    assert configuration(msb)["auths"][bed.basic.address]["auth"] == BASIC


def test_a_name_with_a_colon_is_refused(bed, msb):
    assert login(msb, bed.basic.address, user="a:b").returncode in (1, 2)
    assert os.listdir(msb.config) == []


def test_a_registry_that_is_not_there_is_named(bed, msb):
    msb.refused("login", "-u", USER, "--password-stdin", "localhost:1", stdin=PASSWORD.encode(), words=["localhost:1"])


def test_on_a_terminal_the_password_is_asked_for_and_not_shown(bed, msb):
    with Terminal(msb, "login", bed.basic.address) as terminal:
        terminal.wait_for("sername")
        terminal.type(f"{USER}\n")
        terminal.wait_for("assword")
        terminal.wait_without_echo()
        terminal.type(f"{PASSWORD}\n")
        assert terminal.wait() == 0
        assert PASSWORD not in terminal.text
        assert terminal.restored()
    assert configuration(msb)["auths"][bed.basic.address]["auth"] == BASIC


def test_without_a_terminal_and_a_password_nothing_is_asked(bed, msb):
    result = msb("login", bed.basic.address)
    assert result.returncode in (1, 2) and b"--password-stdin" in result.stderr


def test_logout_from_where_nobody_logged_in_says_so(bed, msb):
    result = msb("logout", bed.basic.address)
    assert bed.basic.address in (result.stdout + result.stderr).decode()
    assert os.listdir(msb.config) == []


# Credential helpers


@pytest.mark.parametrize("document", [{"credHelpers": {"ADDRESS": "test"}}, {"credsStore": "test"}], ids=["one", "all"])
def test_a_credential_helper_gives_credentials(bed, msb, small, helper, document):
    configure(msb, **json.loads(json.dumps(document).replace("ADDRESS", bed.basic.address)))
    helper.keep(bed.basic.address, USER, PASSWORD)
    msb.pull(f"{bed.basic.address}/{small.name}")
    assert helper.calls() == ["get"]


def test_a_credential_helper_gives_a_refresh_token(bed, msb, small, helper, token_server):
    token_server.anonymous = False
    configure(msb, credsStore="test")
    helper.keep(bed.token.address, "<token>", token_server.give_refresh_token(USER))
    msb.pull(f"{bed.token.address}/{small.name}")


def test_a_credential_helper_that_knows_nothing_leaves_it_to_the_registry(bed, msb, small, helper):
    configure(msb, credsStore="test")
    msb.pull(f"{bed.registry.address}/{small.name}")
    msb.refused("pull", f"{bed.basic.address}/{small.name}", words=["msb login"])


def test_login_and_logout_leave_secrets_to_the_helper(bed, msb, helper):
    configure(msb, credsStore="test")
    assert login(msb, bed.basic.address).returncode == 0
    assert json.loads((helper.kept / "stored").read_text()) == {
        "ServerURL": bed.basic.address, "Username": USER, "Secret": PASSWORD}
    written = (msb.config / "config.json").read_text()
    assert PASSWORD not in written and BASIC not in written
    msb.done("logout", bed.basic.address)
    assert (helper.kept / "erased").read_text().strip() == bed.basic.address


@pytest.mark.parametrize("script", ["exit 1", "echo broken; exit 1", "echo not JSON", "echo '{}'", "cat /dev/zero",
                                    "kill -9 $$", "echo '[1]'"])
def test_a_credential_helper_that_fails_is_named(bed, msb, small, helper, script):
    configure(msb, credsStore="test")
    helper.write(f"#!/bin/sh\ncat >/dev/null\n{script}\n")
    msb.refused("pull", f"{bed.basic.address}/{small.name}", words=["docker-credential-test"])


def test_a_credential_helper_that_does_not_exist_is_named(bed, msb, small):
    configure(msb, credsStore="absent")
    msb.refused("pull", f"{bed.basic.address}/{small.name}", words=["docker-credential-absent"])


def test_what_a_credential_helper_prints_in_the_place_of_credentials_is_not_shown(bed, msb, small, helper):
    configure(msb, credsStore="test")
    helper.write("#!/bin/sh\ncat >/dev/null\necho '{\"Username\": \"x\", \"Secret\": \"secret-of-helper\"'\n")
    assert "secret-of-helper" not in msb.refused("pull", f"{bed.basic.address}/{small.name}")
