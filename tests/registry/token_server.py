# SPDX-License-Identifier: Apache-2.0
"""Gives bearer tokens for registries as distribution's docs/spec/auth describes: by GET (token.md) and by POST (oauth.md)."""

import base64
import json
import secrets
import subprocess
import time
import urllib.parse

from .certificates import make_certificate
from .web import Server


def encode(content):
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _raw_signature(der):
    """ECDSA-Sig-Value (RFC 3279, 2.2.3) as JWS has it: r and s, 32 bytes each (RFC 7518, 3.4)."""
    numbers, position = [], 2
    for _ in range(2):
        size = der[position + 1]
        numbers.append(int.from_bytes(der[position + 2:position + 2 + size], "big"))
        position += 2 + size
    return b"".join(number.to_bytes(32, "big") for number in numbers)


class TokenServer(Server):
    """`users`: {name: password}. `anonymous`: who gives no credentials may pull.

    What a test may change while it runs: `lifetime` (seconds; None: the answer does not say), `field` ("token" or
    "access_token"), `anonymous`, `refuse_post` (as servers that know GET alone do), `override` (called with request and handler
    in the place of an answer).
    """

    service = "registry of the tests"
    issuer = "tests"

    def __init__(self, directory, certificate, authority, users, anonymous=True):
        super().__init__(certificate)
        self.authority = authority
        self.users = users
        self.signer = make_certificate(directory, authority, "token-signer")
        self.refresh_tokens = {}  # token: user
        self.issued = []  # every token, so that tests can look for them where they must not be
        self.anonymous = anonymous
        self.reset()

    def reset(self):
        self.lifetime = 60
        self.field = "token"
        self.refuse_post = False
        self.override = None

    def give_refresh_token(self, user):
        token = f"refresh-{secrets.token_hex(16)}"
        self.refresh_tokens[token] = user
        self.issued.append(token)
        return token

    def answer(self, request, handler):
        if self.override:
            self.override(request, handler)
            return
        query = request.path.partition("?")[2] if request.method == "GET" else request.body.decode()
        fields = urllib.parse.parse_qs(query)
        if request.method == "POST" and self.refuse_post:
            self._send(handler, 404, {"errors": [{"code": "UNSUPPORTED"}]})
            return
        user = self._user_of_get(request) if request.method == "GET" else self._user_of_post(fields)
        if user is None:
            self._send(handler, 401, {"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]})
            return
        token = self.sign(user, [scope for field in fields.get("scope", []) for scope in field.split()])
        answer = {self.field if request.method == "GET" else "access_token": token}
        if self.lifetime is not None:
            answer["expires_in"] = max(0, self.lifetime)
        if request.method == "POST" or fields.get("offline_token") == ["true"]:
            [given] = fields.get("refresh_token", [None])
            answer["refresh_token"] = given or self.give_refresh_token(user)
        self._send(handler, 200, answer)

    def _user_of_get(self, request):
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if not scheme:
            return "" if self.anonymous else None
        user, _, password = base64.b64decode(credentials).decode().partition(":")
        return user if scheme.lower() == "basic" and self.users.get(user) == password else None

    def _user_of_post(self, fields):
        [grant] = fields.get("grant_type", [""])
        if grant == "refresh_token":
            return self.refresh_tokens.get(fields["refresh_token"][0])
        if grant == "password" and self.users.get(fields["username"][0]) == fields["password"][0]:
            return fields["username"][0]
        return None

    def sign(self, user, scopes):
        """A token for what of the scopes ("repository:NAME:ACTION,…") this user may do: everything, or pull."""
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name,
                           "actions": [action for action in actions.split(",") if user or action == "pull"]})
        der = subprocess.run(["openssl", "x509", "-in", self.signer.certificate, "-outform", "DER"], capture_output=True,
                             check=True).stdout
        head = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        # One that does not say how long it lives is good for a minute.
        lifetime = 60 if self.lifetime is None else self.lifetime
        claims = {"iss": self.issuer, "sub": user, "aud": self.service, "iat": now, "nbf": now - 60, "exp": now + lifetime,
                  "jti": secrets.token_hex(8), "access": access}
        signed = f"{encode(json.dumps(head).encode())}.{encode(json.dumps(claims).encode())}"
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.signer.key], input=signed.encode(),
                                   capture_output=True, check=True).stdout
        token = f"{signed}.{encode(_raw_signature(signature))}"
        self.issued.append(token)
        return token

    @staticmethod
    def _send(handler, status, document):
        content = json.dumps(document).encode()
        handler.send(status, [("Content-Type", "application/json"), ("Content-Length", str(len(content)))], [content])
