# SPDX-License-Identifier: Apache-2.0
"""Requests, as values; their answers; and when one is sent again."""

from __future__ import annotations

import functools
import json
import random
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Generic, Mapping, Optional, TypeVar, Union
from urllib.parse import quote, urlencode

import httpx

from ..errors import (
    BrokenConnectionError,
    InvalidRequestError,
    MicrosandboxError,
    NotUnderstoodError,
    TimedOutError,
    TooLargeError,
    UnreachableError,
    error_of,
)

T = TypeVar("T")
Document = Dict[str, Any]

PATIENCE = 60.0  # seconds without a byte, of an answer that needs no work
NO_END = None  # the answer comes when something in the sandbox has ended
LARGEST_DOCUMENT = 32 << 20  # bytes; files and what processes read are streamed, and have no end
NDJSON = "application/x-ndjson"
REQUEST_ID = "X-Request-Id"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def document(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            raise not_understood(self) from None

    @property
    def request_id(self) -> Optional[str]:
        return self.headers.get(REQUEST_ID)


def not_understood(reply: Reply) -> NotUnderstoodError:
    start = reply.body[:200].decode(errors="replace")
    return NotUnderstoodError(f"the answer with status {reply.status} is not one of a microsandbox server: '{start}'",
                              code="not_understood", status=reply.status, request_id=reply.request_id)


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request. `read` makes its result from the answer of a request that was done."""

    method: str
    path: str
    read: Callable[[Reply], T]
    query: Mapping[str, Any] = field(default_factory=dict)
    document: Any = None  # the body, as JSON
    content: Optional[Callable[[], Any]] = None  # or as bytes: makes them for each attempt
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = False  # doing it twice is as doing it once
    once: bool = False  # `content` is there one time only
    patience: Optional[float] = PATIENCE

    def options(self, url: str, key: Optional[str]) -> Dict[str, Any]:
        """What httpx is told."""
        headers = {**self.headers}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        query = urlencode({name: query_word(value) for name, value in self.query.items() if value is not None})
        place = _parsed(url + self.path + (f"?{query}" if query else ""))
        options: Dict[str, Any] = {"method": self.method, "url": place, "headers": headers}
        if self.document is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(self.document).encode()
            if len(content) > LARGEST_DOCUMENT:  # the server would hang up before it has read why
                raise TooLargeError(f"{self.method} {self.path} has {len(content)} bytes, more than the server takes: "
                                    f"{LARGEST_DOCUMENT}", code="too_large")
            options["content"] = content
        elif self.content is not None:
            headers.setdefault("Content-Type", "application/octet-stream")
            options["content"] = self.content()
        options["timeout"] = httpx.Timeout(connect=10.0, read=self.patience, write=PATIENCE, pool=None)
        return options


# To parse an address takes httpx longer than all else that is done for a call here; those of a sandbox come again.
_parsed = functools.lru_cache(maxsize=256)(httpx.URL)


def query_word(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def segment(word: Any) -> str:
    """A part of a path. No name is empty or dots alone, which would lead to another path."""
    text = str(word)
    if not text.strip("."):
        raise InvalidRequestError(f"'{text}' is no name", code="invalid")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:  # half a character of UTF-16
        raise InvalidRequestError(f"{text!r} is no name", code="invalid") from None


def path_of(name: str, *rest: Any) -> str:
    return "/".join(["/v1/sandboxes", segment(name), *map(segment, rest)])


def given(**members: Any) -> Document:
    """Those that are not None."""
    return {name: value for name, value in members.items() if value is not None}


# What an answer means.

def is_good(status: int) -> bool:
    """It was done. This server sends nobody elsewhere: a redirection is another's."""
    return 200 <= status < 300


def retry_after(headers: Mapping[str, str]) -> Optional[float]:
    try:
        return max(0.0, float(headers["Retry-After"]))
    except (KeyError, ValueError):  # or a date, which this server never says
        return None


def refusal(reply: Reply) -> MicrosandboxError:
    """The error that an answer of 400 or more is."""
    try:
        error = json.loads(reply.body)["error"]
        message, number = str(error["message"]), error.get("number")
        code = error["code"] if isinstance(error["code"], str) else None
        if number is None and isinstance(error.get("data"), dict):  # of JSON-RPC
            number = error["data"].get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        # Of what stands between, then.
        said = reply.body[:200].decode(errors="replace").strip()
        return error_of(f"the server answered {reply.status}" + (f": {said}" if said else ""), status=reply.status,
                        request_id=reply.request_id, retry_after=retry_after(reply.headers))
    return error_of(message, code=code, status=reply.status, number=number,
                    request_id=error.get("request_id") or reply.request_id, retry_after=retry_after(reply.headers))


def failed_event(error: Any) -> MicrosandboxError:
    """The error that ended a stream."""
    return error_of(str(error["message"]), code=str(error["code"]), number=error.get("number"),
                    request_id=error.get("request_id"))


def never_sent(error: Exception) -> bool:
    """There was no connection to send the request on."""
    return isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))


def trouble(error: Exception, call: Call[Any], url: str) -> MicrosandboxError:
    """What an exception of httpx is."""
    what = f"{call.method} {call.path}"
    why = str(error) or type(error).__name__
    if never_sent(error):
        return UnreachableError(f"cannot connect to {url}: {why}", code="unreachable")
    if isinstance(error, httpx.DecodingError):
        return NotUnderstoodError(f"{what}: the answer is compressed, which was not asked for: {why}", code="not_understood")
    if isinstance(error, httpx.TimeoutException):
        return TimedOutError(f"{what}: nothing came from the server for {call.patience or PATIENCE:g} s", code="timeout")
    return BrokenConnectionError(f"{what}: the connection broke: {why}", code="broken")


# When a request is sent again.

@dataclass(frozen=True)
class Retries:
    """At most `attempts` in all, and `longest` seconds between two; 429 says itself how long."""

    attempts: int = 5
    first: float = 0.1
    longest: float = 10.0


# For what was under way when the server was restarted: about half a minute.
RESUMPTION = Retries(attempts=12, first=0.1, longest=5.0)


class Attempts(Generic[T]):
    """Of one request."""

    def __init__(self, call: Call[T], url: str, retries: Retries) -> None:
        self._call = call
        self._url = url
        self._retries = retries
        self._answer_lost = False
        self.number = 1

    def pause(self, outcome: Union[Reply, Exception]) -> Optional[float]:
        """Seconds until the next attempt; None: this is how it is."""
        if self.number >= self._retries.attempts or not self._may_repeat(outcome):
            return None
        wait: float = min(self._retries.longest, self._retries.first * 2 ** (self.number - 1)) * random.uniform(0.5, 1.0)
        if isinstance(outcome, Reply):
            asked = retry_after(outcome.headers)
            if asked is not None:
                if asked > self._retries.longest:
                    return None
                wait = max(wait, asked)
        else:
            self._answer_lost = self._answer_lost or not never_sent(outcome)
        self.number += 1
        return wait

    def _may_repeat(self, outcome: Union[Reply, Exception]) -> bool:
        if isinstance(outcome, Exception) and never_sent(outcome):
            return True
        if self._call.once:
            return False
        if isinstance(outcome, Reply):
            # 429 is an answer to what was not begun; 503 may come in the middle of it.
            return outcome.status == 429 or (outcome.status == 503 and self._call.repeatable)
        return self._call.repeatable and not isinstance(outcome, httpx.TimeoutException)

    def result(self, outcome: Union[Reply, Exception]) -> T:
        """Of the request, or raises why there is none."""
        if isinstance(outcome, Exception) or not (is_good(outcome.status) or self._was_removed_before(outcome)):
            raise self.error(outcome)
        try:
            return self._call.read(outcome)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise not_understood(outcome) from error

    def _was_removed_before(self, reply: Reply) -> bool:
        """By an attempt whose answer did not come."""
        return reply.status == 404 and self._answer_lost and self._call.method == "DELETE"

    def error(self, outcome: Union[Reply, Exception]) -> MicrosandboxError:
        """Why there is no result."""
        if isinstance(outcome, Exception):
            error = trouble(outcome, self._call, self._url)
            error.__cause__ = outcome
            return error
        return refusal(outcome) if outcome.status >= 400 else not_understood(outcome)


def nothing(_: Reply) -> None:
    """The result of what has none."""
