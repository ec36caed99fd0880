# SPDX-License-Identifier: Apache-2.0
"""One test bed: registries that share what they hold, each with its own way to let people in, started when first asked for."""

import base64
import contextlib
import functools
import subprocess

from .certificates import make_authority, make_certificate
from .fault_proxy import FaultProxy
from .push import push
from .server import Registry
from .token_server import TokenServer

USER = "someone"
PASSWORD = "a-password,:with ümlaut"
USERS = {USER: PASSWORD, "other": "other password"}


class Bed:
    def __init__(self, directory):
        self.directory = directory
        self.storage = directory / "storage"

    def __enter__(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self._started = contextlib.ExitStack()
        self.authority = make_authority(self.directory)
        self.certificate = make_certificate(self.directory, self.authority)
        return self

    def __exit__(self, *unused):
        self._started.close()

    def _registry(self, name, **options):
        return self._started.enter_context(Registry(self.directory / name, self.storage, **options))

    @functools.cached_property
    def registry(self):
        """Lets everyone pull and push."""
        return self._registry("open", certificate=self.certificate, authority=self.authority)

    @functools.cached_property
    def basic(self):
        """Knows USERS, by basic authentication."""
        return self._registry("basic", certificate=self.certificate, authority=self.authority, htpasswd=USERS)

    @functools.cached_property
    def token_server(self):
        return self._started.enter_context(
            TokenServer(self.directory, self.certificate, self.authority, USERS))

    @functools.cached_property
    def token(self):
        """Knows USERS by what token_server gives them."""
        return self._registry("token", certificate=self.certificate, authority=self.authority, token_server=self.token_server)

    def secrets(self):
        """What nobody but registry, token server and client may see."""
        for user, password in USERS.items():
            yield password
            yield base64.b64encode(f"{user}:{password}".encode()).decode()
        if "token_server" in self.__dict__:  # it runs
            yield from self.token_server.issued

    def proxy(self, registry=None, tls=True):
        """A fault proxy, to be entered."""
        return FaultProxy(registry or self.registry, self.certificate if tls else None)

    def push(self, name, tag, image):
        return push(self.registry, name, tag, image)

    def push_layout(self, layout, tag, name, *options):
        """With skopeo, an image of a layout on disk, as it is unless options say otherwise; gives NAME:TAG."""
        self.skopeo("copy", "--quiet", *(options or ["--preserve-digests"]), f"oci:{layout}:{tag}",
                    f"docker://{self.registry.address}/{name}:{tag}")
        return f"{name}:{tag}"

    def skopeo(self, *arguments, check=True, environment=None):
        trusting = {"SSL_CERT_FILE": str(self.authority.certificate), "PATH": "/usr/bin:/bin", "HOME": str(self.directory),
                    "REGISTRY_AUTH_FILE": str(self.directory / "no-auth.json")}
        policy = self.directory / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        result = subprocess.run(["skopeo", "--policy", policy, "--tmpdir", self.directory, *arguments], capture_output=True,
                                env=trusting | (environment or {}), text=True, check=False)
        if check and result.returncode != 0:
            raise RuntimeError(f"skopeo {arguments[0]}: {result.stderr}")
        return result
