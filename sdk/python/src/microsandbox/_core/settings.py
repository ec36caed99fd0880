# SPDX-License-Identifier: Apache-2.0
"""Where the server is, and the key for it."""

from __future__ import annotations

import functools
import os
import ssl
from dataclasses import dataclass, field
from typing import Optional
from urllib.parse import urlsplit

from ..errors import InvalidRequestError

DEFAULT_URL = "http://127.0.0.1:5555"


@dataclass(frozen=True)
class Settings:
    url: str  # without a slash at its end
    key: Optional[str] = field(repr=False)

    @staticmethod
    def of(server_url: Optional[str], api_key: Optional[str]) -> Settings:
        """Arguments count, then MSB_SERVER_URL and MSB_API_KEY; what is empty is as none."""
        url = (server_url or os.environ.get("MSB_SERVER_URL") or DEFAULT_URL).rstrip("/")
        if not _is_address(url):
            raise InvalidRequestError(f"'{url}' is no address of a server", code="invalid",
                                      hint=f"give one as server_url or MSB_SERVER_URL, like {DEFAULT_URL}")
        key = (api_key or os.environ.get("MSB_API_KEY") or "").strip() or None
        if key is not None and not (key.isascii() and key.isprintable()):
            raise InvalidRequestError("the key has characters that no key has", code="invalid",
                                      hint="give what `msb server keygen` printed as api_key or MSB_API_KEY")
        return Settings(url, key)

    def tls(self) -> ssl.SSLContext:
        """What connections are made with. To read all certificates takes longer than a call, so that is done once."""
        return _with_certificates() if self.url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def app_url(self, name: str, namespace: str, port: int) -> str:
        """Where the server shows a sandbox's port, as an origin of its own."""
        parts = urlsplit(self.url)
        space = "" if namespace == "default" else f".{namespace}"
        return f"{parts.scheme}://{port}-{name}{space}.localhost:{parts.port or (443 if parts.scheme == 'https' else 80)}/"


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or half an address of IPv6
        return False


@functools.lru_cache(maxsize=None)
def _with_certificates() -> ssl.SSLContext:
    return ssl.create_default_context()
