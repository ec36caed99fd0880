# SPDX-License-Identifier: Apache-2.0
"""A server whose sandboxes are machines."""

from sandboxes import Sandboxes
from server_bed import Host


class GuestHost(Sandboxes):
    """With images that boot, and what Host has for servers."""

    keygen, serve = Host.keygen, Host.serve

    def __init__(self, directory):
        super().__init__(directory)
        self.servers = []

    def close(self):
        for server in self.servers:
            server.stop()
        super().close()
