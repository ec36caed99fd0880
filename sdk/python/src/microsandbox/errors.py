# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, by kind. All of it is a `MicrosandboxError`, which is a `RuntimeError` as in microsandbox 0.2."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, ClassVar, Dict, Mapping, Optional, Type

if sys.version_info >= (3, 11):
    _Timeout = TimeoutError
else:
    class _Timeout(TimeoutError, asyncio.TimeoutError):
        """Both, which are one since Python 3.11: 0.2 raised the latter."""


class MicrosandboxError(RuntimeError):
    """Something was not done.

    `message` says what, and `code` is the server's word for why ("not_found", ...; "unreachable", "broken" and
    "not_understood" are this package's own), `number` the one of microsandbox 0.2, `status` that of HTTP, `request_id` what
    the server's log calls the request, `hint` what can be done about it (`default_hint` unless said), and `retry_after`
    seconds after which there may be room.
    """

    default_hint: ClassVar[str] = ""  # the `hint` of errors of this kind, unless one says otherwise

    def __init__(self, message: str, *, code: str = "", number: Optional[int] = None, status: Optional[int] = None,
                 request_id: Optional[str] = None, hint: Optional[str] = None, retry_after: Optional[float] = None) -> None:
        self.message = message  # what was not done, and why
        self.code = code
        self.number = number
        self.status = status
        self.request_id = request_id
        self.hint = self.default_hint if hint is None else hint
        self.retry_after = retry_after
        super().__init__(message)

    def __str__(self) -> str:
        said = self.message
        if self.hint:
            said += f"; {self.hint}"
        if self.request_id:
            said += f" (request {self.request_id})"
        return said

    def __reduce__(self) -> Any:
        return (_restored, (type(self), self.message, self.__dict__))


def _restored(kind: Type[MicrosandboxError], message: str, members: Dict[str, Any]) -> MicrosandboxError:
    error = kind(message)
    error.__dict__.update(members)
    return error


class InvalidRequestError(MicrosandboxError):
    """The request has something that cannot be."""


class AuthenticationError(MicrosandboxError):
    """There is no key, or not a valid one."""

    default_hint = "make a key with `msb server keygen`, and give it as api_key or in MSB_API_KEY"


class ForbiddenError(MicrosandboxError):
    """The key, or the server's operator, does not allow it; or the system in the sandbox does not ("denied_in_sandbox")."""

    default_hint = "use another key, or ask the server's operator to allow it in server.json"


class NotFoundError(MicrosandboxError):
    """There is no such thing."""


class ConflictError(MicrosandboxError):
    """Not in the state that things are in: a name is taken, a sandbox is stopped or paused."""


class TooLargeError(MicrosandboxError):
    """The request is larger than the server takes."""

    default_hint = "send large contents as files, which are streamed"


class FullError(MicrosandboxError):
    """As much as is allowed is there already."""

    default_hint = "try again later, or stop sandboxes that are not needed"


class SandboxFailedError(MicrosandboxError):
    """The sandbox failed, or what was asked of it."""


class TimedOutError(MicrosandboxError, _Timeout):
    """It took longer than it may."""

    default_hint = "allow more time"


class UnavailableError(MicrosandboxError):
    """The server is ending, or has no room for another connection."""

    default_hint = "try again in a moment"


class ServerError(MicrosandboxError):
    """The server's own mistake."""

    default_hint = "look for the request in the server's log (`msb server log`)"


class UnreachableError(MicrosandboxError):
    """No connection to the server."""

    default_hint = "see that it runs (`msb server status`), and where server_url or MSB_SERVER_URL leads"


class BrokenConnectionError(MicrosandboxError):
    """The connection ended before the answer did: whether it was done is not known."""

    default_hint = "the server may have been restarted; look at what is there before trying again"


class NotUnderstoodError(MicrosandboxError):
    """What came is no answer of a microsandbox server."""

    default_hint = "see that server_url or MSB_SERVER_URL leads to a microsandbox server, with nothing between"


class DetachedError(MicrosandboxError):
    """Somebody else follows the process now."""


class CodeError(MicrosandboxError):
    """Code ended with an error (`Result.check()`)."""


class CommandError(MicrosandboxError):
    """A command did not succeed (`CommandResult.check()`)."""


BY_CODE: Mapping[str, Type[MicrosandboxError]] = {
    "invalid": InvalidRequestError,
    "no_key": AuthenticationError,
    "bad_key": AuthenticationError,
    "expired_key": AuthenticationError,
    "forbidden": ForbiddenError,
    "denied_in_sandbox": ForbiddenError,
    "not_found": NotFoundError,
    "method_not_allowed": InvalidRequestError,
    "conflict": ConflictError,
    "too_large": TooLargeError,
    "slow": BrokenConnectionError,
    "full": FullError,
    "failed": SandboxFailedError,
    "timeout": TimedOutError,
    "unavailable": UnavailableError,
    "internal": ServerError,
}

# For answers that name no code: those of JSON-RPC, and of what may stand between.
CODE_BY_STATUS: Mapping[int, str] = {
    400: "invalid", 401: "bad_key", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 408: "slow",
    409: "conflict", 413: "too_large", 429: "full", 500: "internal", 502: "failed", 503: "unavailable", 504: "timeout",
}


def error_of(message: str, *, code: Optional[str] = None, status: Optional[int] = None, number: Optional[int] = None,
             request_id: Optional[str] = None, retry_after: Optional[float] = None) -> MicrosandboxError:
    """The error of a server's answer. Without a `code` it is told by the number or status."""
    if code is None and number == 1001:
        code = "no_key"
    if code is None and number == 5001 and status == 403:
        code = "denied_in_sandbox"
    if code is None and status is not None:
        code = CODE_BY_STATUS.get(status, "invalid" if status < 500 else "internal")
    kind = BY_CODE.get(code or "", MicrosandboxError)
    hint = "do it as a user who may in the sandbox" if code == "denied_in_sandbox" else None
    return kind(message, code=code or "", number=number, status=status, request_id=request_id, hint=hint,
                retry_after=retry_after)
