# SPDX-License-Identifier: Apache-2.0
"""Debian's docker-registry on a free port of loopback."""

import json
import subprocess
import time

# A registry reads its configuration as YAML, of which JSON is a part.
LISTENING = "listening on 127.0.0.1:"


class Registry:
    """Keeps what is pushed in `storage`, which several may share: what one was given, all have.

    `htpasswd`: {user: password}. `token_server`: a TokenServer. Neither: it asks for nothing.
    `authority`: who signed `certificate`; neither: plain HTTP.
    """

    def __init__(self, directory, storage, certificate=None, authority=None, htpasswd=None, token_server=None):
        self.directory = directory
        self.storage = storage
        self.certificate = certificate
        self.authority = authority
        self.htpasswd = htpasswd
        self.token_server = token_server

    def __enter__(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "configuration.json"
        configuration.write_text(json.dumps(self._configuration()))
        log = self.directory / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(["docker-registry", "serve", configuration], stdin=subprocess.DEVNULL,
                                             stdout=output, stderr=output)
        try:
            self.port = self._wait_for_port(log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *unused):
        self._process.kill()
        self._process.wait()

    @property
    def address(self):
        return f"localhost:{self.port}"

    @property
    def url(self):
        return f"{'https' if self.certificate else 'http'}://{self.address}"

    def _configuration(self):
        configuration = {
            "version": 0.1,
            "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.storage)}, "delete": {"enabled": True},
                        "maintenance": {"uploadpurging": {"enabled": False}}},
            "http": {"addr": "127.0.0.1:0", "secret": "shared by all of this run"},
        }
        if self.certificate:
            configuration["http"]["tls"] = {"certificate": str(self.certificate.certificate), "key": str(self.certificate.key)}
        if self.htpasswd:
            users = self.directory / "htpasswd"
            users.write_text("".join(
                subprocess.run(["htpasswd", "-niB", "-C", "4", user], input=password, capture_output=True, text=True,
                               check=True).stdout for user, password in self.htpasswd.items()))
            configuration["auth"] = {"htpasswd": {"realm": "tests", "path": str(users)}}
        if self.token_server:
            configuration["auth"] = {"token": {
                "realm": f"{self.token_server.url}/token", "service": self.token_server.service,
                "issuer": self.token_server.issuer, "rootcertbundle": str(self.token_server.authority.certificate)}}
        return configuration

    def _wait_for_port(self, log):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for line in log.read_text().splitlines():
                if LISTENING in line:
                    return int(line.partition(LISTENING)[2].split(",")[0].split('"')[0])
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"docker-registry does not listen: {log.read_text()}")
