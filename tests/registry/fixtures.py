# SPDX-License-Identifier: Apache-2.0
"""The test bed as pytest gives it to tests."""

import pytest

from .bed import Bed
from .content import Image, noise, tar_of


@pytest.fixture(scope="session")
def bed(tmp_path_factory):
    with Bed(tmp_path_factory.mktemp("registry")) as made:
        yield made


@pytest.fixture
def proxy(bed):
    """In front of the open registry, with no rules yet, and no requests."""
    with bed.proxy() as made:
        yield made


@pytest.fixture
def token_server(bed):
    """As it was started."""
    yield bed.token_server
    bed.token_server.reset()
    bed.token_server.anonymous = True
    bed.token_server.requests.clear()


@pytest.fixture(scope="session")
def small(bed):
    """What most tests pull: two layers, one of them of 300 KiB that do not compress."""
    image = Image([(tar_of({"etc/": b"", "etc/motd": b"hello\n"}), "gzip"), (tar_of({"noise": noise(300 << 10)}), "gzip")])
    image.name = bed.push("small", "latest", image)
    return image
