# SPDX-License-Identifier: Apache-2.0
"""The server that the suite of sdk/conformance runs against, for the runners of all languages.

With MSB_CONFORMANCE_GUESTS=1 its sandboxes are machines; where KVM runs no guests, `scripts/emulated-host env MSB_CONFORMANCE_GUESTS=1 ...`.
"""

import json
import os

import pytest
from server_guests import GuestHost

GUESTS = os.environ.get("MSB_CONFORMANCE_GUESTS") == "1"
# The stand-in runs what is in sandboxes on this host; its images are of one little file.
UNMET = {"network"} if GUESTS else {"network", "guest", "numpy"}


@pytest.fixture(scope="module")
def target(request, tmp_path_factory):
    """The server."""
    if not GUESTS:
        yield request.getfixturevalue("server")
        return
    host = GuestHost(tmp_path_factory.mktemp("guests"))
    (host.config / "images.json").write_text(json.dumps({"aliases": {f"microsandbox/{name}": name for name in ("python", "node")}}))
    try:
        yield host.serve()
    finally:
        host.close()


def environment_of(target, directory):
    """What a runner that is a program is told."""
    return {"MSB_CONFORMANCE_URL": target.url, "MSB_CONFORMANCE_KEY": target.key, "MSB_CONFORMANCE_SKIP": ",".join(sorted(UNMET)),
            "MSB_CONFORMANCE_DIR": "/tmp" if GUESTS else str(directory)}
