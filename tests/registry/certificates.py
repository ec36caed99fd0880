# SPDX-License-Identifier: Apache-2.0
"""Certificates for loopback, from an authority of the tests' own."""

import dataclasses
import pathlib
import ssl
import subprocess

NAMES = "subjectAltName=DNS:localhost,DNS:registry.test,IP:127.0.0.1"


@dataclasses.dataclass(frozen=True)
class Certificate:
    certificate: pathlib.Path  # PEM
    key: pathlib.Path  # PEM, P-256

    def server_context(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_context(self):
        """For clients that trust what this authority signed, and nothing else."""
        return ssl.create_default_context(cafile=self.certificate)


def _make(directory, name, *options):
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", f"/CN={name}", "-keyout", made.key, "-out", made.certificate, *options],
                   check=True, capture_output=True)
    return made


def make_authority(directory, name="authority"):
    # What openssl.cnf adds to a self-signed certificate by itself makes it an authority.
    return _make(directory, name)


def make_certificate(directory, authority, name="server"):
    return _make(directory, name, "-CA", authority.certificate, "-CAkey", authority.key, "-addext", NAMES,
                 "-addext", "basicConstraints=critical,CA:false", "-addext", "authorityKeyIdentifier=keyid")
