# SPDX-License-Identifier: Apache-2.0
"""Requests about sandboxes as wholes."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Sequence, Tuple, Union

from ..errors import MicrosandboxError, NotFoundError
from ..types import Port, SandboxInfo, SandboxMetrics, ServerInfo
from .call import Call, Document, Reply, given, nothing, path_of

Envs = Union[Mapping[str, str], Sequence[str]]
Size = Union[int, str]  # MiB, or with a unit: "1G"
Duration = Union[int, str]  # seconds, or with a unit: "30m"

PAGE = 100
# A start may have to pull an image: what the 0.2 line waited, and then some.
START_PATIENCE = 180.0 + 30.0


def new_name() -> str:
    return f"sandbox-{uuid.uuid4().hex[:8]}"


def env_words(envs: Optional[Envs]) -> Optional[List[str]]:
    """NAME=VALUE, of a mapping or of such words."""
    if isinstance(envs, Mapping):
        return [f"{name}={value}" for name, value in envs.items()]
    return None if envs is None else list(envs)


def words_of(args: Optional[Sequence[str]]) -> List[str]:
    """A text is a sequence of texts, too, of its characters: it is refused."""
    if isinstance(args, str):
        raise TypeError(f"args is a list of words, like ['{args}']")
    return list(args or [])


def config_of(*, envs: Optional[Envs] = None, ports: Optional[Sequence[Union[str, int]]] = None, **words: Any) -> Document:
    """What a sandbox is to be. A port that is a number is published where there is room."""
    published = None if ports is None else [f"0:{port}" if isinstance(port, int) else port for port in ports]
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in words.items()}
    return given(envs=env_words(envs), ports=published, **lists)


@dataclass(frozen=True)
class Page:
    sandboxes: Tuple[SandboxInfo, ...]
    cursor: Optional[str]


def _info(reply: Reply) -> SandboxInfo:
    return SandboxInfo.of(reply.document())


def server() -> Call[ServerInfo]:
    return Call("GET", "/v1/server", lambda reply: ServerInfo.of(reply.document()), repeatable=True)


def health() -> Call[str]:
    return Call("GET", "/v1/health", lambda reply: str(reply.document()["message"]), repeatable=True)


def create(name: str, namespace: Optional[str], labels: Optional[Mapping[str, str]], ephemeral: bool, config: Document,
           patience: float) -> Call[SandboxInfo]:
    document = given(name=name, labels=None if labels is None else dict(labels), config=config) | {"ephemeral": ephemeral}
    # With a key of its own it may be repeated: the server makes one sandbox of all attempts.
    return Call("POST", "/v1/sandboxes", _info, query={"namespace": namespace}, document=document,
                headers={"Idempotency-Key": uuid.uuid4().hex}, repeatable=True, patience=patience)


def may_be_there(error: BaseException) -> bool:
    """Whether the server may go on with a creation that ended so here: it does when its client has gone."""
    return not isinstance(error, MicrosandboxError) or error.status is None and error.code in ("broken", "timeout")


def get(name: str, namespace: Optional[str]) -> Call[SandboxInfo]:
    return Call("GET", path_of(name), _info, query={"namespace": namespace}, repeatable=True)


def page(namespace: Optional[str], labels: Optional[Mapping[str, str]], state: Optional[str],
         cursor: Optional[str]) -> Call[Page]:
    def read(reply: Reply) -> Page:
        document = reply.document()
        return Page(tuple(map(SandboxInfo.of, document["sandboxes"])), document["next_cursor"])

    label = ",".join(f"{name}={value}" for name, value in labels.items()) if labels else None
    query = {"namespace": namespace, "label": label, "state": state, "limit": PAGE, "cursor": cursor}
    return Call("GET", "/v1/sandboxes", read, query=query, repeatable=True)


def start(name: str, namespace: Optional[str]) -> Call[SandboxInfo]:
    return Call("POST", path_of(name, "start"), _info, query={"namespace": namespace}, repeatable=True,
                patience=START_PATIENCE)


def stop(name: str, namespace: Optional[str], at_once: bool) -> Call[SandboxInfo]:
    return Call("POST", path_of(name, "stop"), _info, query={"namespace": namespace}, document={"at_once": at_once},
                repeatable=True)


def pause(name: str, namespace: Optional[str]) -> Call[SandboxInfo]:
    return Call("POST", path_of(name, "pause"), _info, query={"namespace": namespace}, repeatable=True)


def resume(name: str, namespace: Optional[str]) -> Call[SandboxInfo]:
    return Call("POST", path_of(name, "resume"), _info, query={"namespace": namespace}, repeatable=True)


def remove(name: str, namespace: Optional[str]) -> Call[None]:
    return Call("DELETE", path_of(name), nothing, query={"namespace": namespace}, repeatable=True)


def ports(name: str, namespace: Optional[str]) -> Call[Tuple[Port, ...]]:
    return Call("GET", path_of(name, "ports"), lambda reply: tuple(map(Port.of, reply.document()["ports"])),
                query={"namespace": namespace}, repeatable=True)


def url(name: str, namespace: Optional[str], guest_port: int) -> Call[str]:
    def read(reply: Reply) -> str:
        for port in map(Port.of, reply.document()["ports"]):
            if port.guest_port == guest_port and port.url is not None:
                return port.url
        raise NotFoundError(f"the sandbox '{name}' does not publish port {guest_port}", code="not_found",
                            hint=f"create it with ports=[{guest_port}], and see that it runs")

    return Call("GET", path_of(name, "ports"), read, query={"namespace": namespace}, repeatable=True)


def metrics(name: str, namespace: Optional[str]) -> Call[SandboxMetrics]:
    return Call("GET", path_of(name, "metrics"), lambda reply: SandboxMetrics.of(reply.document()),
                query={"namespace": namespace}, repeatable=True)
