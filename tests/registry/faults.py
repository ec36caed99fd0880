# SPDX-License-Identifier: Apache-2.0
"""What can go wrong between a client and its registry: makers of faults for fault_proxy.Rule.

A fault is called with the exchange and returns the answer to send; exchange.forward() is the registry's own.
"""

import dataclasses
import itertools
import time

from .web import Cut

PIECE = 64 << 10


@dataclasses.dataclass
class Answer:
    status: int
    headers: list  # of (name, value)
    pieces: object  # an iterable of bytes

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def with_header(self, name, value):
        """Without it when the value is None."""
        headers = [(key, old) for key, old in self.headers if key.lower() != name.lower()]
        if value is not None:
            headers.append((name, str(value)))
        return dataclasses.replace(self, headers=headers)


def _until(pieces, size):
    for piece in pieces:
        yield piece[:size]
        size -= len(piece)
        if size <= 0:
            return


def _on_pieces(change):
    """A fault that leaves the registry's head as it is and passes its body through a generator."""

    def fault(exchange):
        answer = exchange.forward()
        return dataclasses.replace(answer, pieces=change(answer.pieces, exchange))
    return fault


def cut(after, reset=False):
    """The connection ends after so many bytes of the body; with `reset`, as if the other machine were gone."""

    def change(pieces, _):
        yield from _until(pieces, after)
        raise Cut(reset)
    return _on_pieces(change)


def stall(after):
    """Nothing more comes after so many bytes of the body, and the connection stays."""

    def change(pieces, exchange):
        yield from _until(pieces, after)
        exchange.wait_for_end()
        raise Cut
    return _on_pieces(change)


def silence(exchange):
    """Not even an answer."""
    exchange.wait_for_end()
    raise Cut


def slow(bytes_per_second):
    step = max(1, bytes_per_second // 20)

    def change(pieces, exchange):
        for piece in pieces:
            for start in range(0, len(piece), step):
                if exchange.ended():
                    raise Cut
                yield piece[start:start + step]
                time.sleep(step / bytes_per_second)
    return _on_pieces(change)


def hold(event):
    """The answer comes once the event is set."""

    def fault(exchange):
        event.wait(60)
        return exchange.forward()
    return fault


def corrupt(at):
    """One bit of this byte of the body is another."""

    def change(pieces, _):
        position = 0
        for piece in pieces:
            if position <= at < position + len(piece):
                changed = bytearray(piece)
                changed[at - position] ^= 1
                piece = bytes(changed)
            position += len(piece)
            yield piece
    return _on_pieces(change)


def header(name, value):
    """A header of the registry's answer is another, or missing when the value is None."""
    return lambda exchange: exchange.forward().with_header(name, value)


def content_type(value):
    return header("Content-Type", value)


def content_digest(value):
    return header("Docker-Content-Digest", value)


def length(change):
    """Content-Length says so many bytes more, or less, than there are; then the connection ends."""

    def fault(exchange):
        answer = exchange.forward()
        told = int(answer.header("Content-Length")) + change

        def pieces():
            yield from _until(answer.pieces, told)
            raise Cut
        return dataclasses.replace(answer.with_header("Content-Length", told), pieces=pieces())
    return fault


def without_length(exchange):
    """In chunks, with no Content-Length."""
    return exchange.forward().with_header("Content-Length", None)


def no_ranges(exchange):
    """The whole blob, whatever part was asked for."""
    return exchange.forward(without=("range", "if-range"))


def redirect(to, status=307, keep_path=True):
    """To another server: the same path there, or exactly that URL."""
    return lambda exchange: Answer(status, [("Location", to + exchange.request.path if keep_path else to),
                                            ("Content-Length", "0")], [])


def status(code, *headers, body=b"{}", media_type="application/json"):
    return lambda exchange: Answer(code, [("Content-Type", media_type), ("Content-Length", str(len(body))), *headers], [body])


def body(content, media_type, *headers):
    """Another document in the place of the registry's."""
    return status(200, *headers, body=content, media_type=media_type)


def endless(media_type="application/octet-stream", claim=None):
    """A body that does not end; Content-Length says `claim`, or nothing."""

    def fault(exchange):
        length_header = [("Content-Length", str(claim))] if claim is not None else []
        pieces = itertools.takewhile(lambda _: not exchange.ended(), itertools.repeat(b" " * PIECE))
        return Answer(200, [("Content-Type", media_type), *length_header], pieces)
    return fault
