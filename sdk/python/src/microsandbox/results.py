# SPDX-License-Identifier: Apache-2.0
"""What code and commands gave."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from .errors import CodeError, CommandError
from .types import Exit

# What a notebook may show as it is. What a sandbox wrote is a stranger's: other kinds could run code in the notebook's page.
_PICTURES = ("image/png", "image/jpeg", "image/gif")
_FRAMED = ("text/html", "image/svg+xml")


@dataclass(frozen=True)
class Text:
    """What code wrote to "stdout" or "stderr"."""

    stream: str  # "stdout" or "stderr"
    text: str  # as it came, in pieces of any size


@dataclass(frozen=True)
class Value:
    """What code showed (`kind` "display"), or the value of its last expression ("result")."""

    kind: str
    data: Dict[str, str]  # by MIME type; what is binary in base64

    @property
    def text(self) -> str:
        """As the interpreter would print it."""
        return self.data.get("text/plain", "")

    def bytes(self, mime: str) -> bytes:
        """A representation: `bytes("image/png")`. KeyError when there is none."""
        said = self.data[mime]
        is_text = mime.startswith("text/") or mime in ("image/svg+xml", "application/json")
        return said.encode() if is_text else base64.b64decode(said)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Dict[str, str]:
        bundle = {"text/plain": self.text}
        for mime in _PICTURES:
            if mime in self.data:
                bundle[mime] = self.data[mime]
        for mime in _FRAMED:
            if mime in self.data and len(bundle) == 1:
                bundle["text/html"] = _frame(self.data[mime])
        return bundle


@dataclass(frozen=True)
class Failure:
    """What ended code."""

    name: str  # of the exception's type: "ValueError"
    message: str  # what the exception says
    traceback: Tuple[str, ...]  # its lines


CodeOutput = Union[Text, Value, Failure]
CODE_OUTPUTS = ("stream", "display", "result", "error")  # the server's words for them


def code_output(kind: str, document: Mapping[str, Any]) -> CodeOutput:
    if kind == "stream":
        return Text(document["stream"], document["text"])
    if kind == "error":
        return Failure(document["name"], document["message"], tuple(document["traceback"]))
    if kind in ("display", "result"):
        return Value(kind, dict(document["data"]))
    raise ValueError(f"'{kind}' is no output of code")


@dataclass(frozen=True)
class Result:
    """What code gave. `status`: "ok", "error", "timeout", "interrupted", "stuck" (it did not end when it was interrupted)
    or "ended" (the interpreter did, with it)."""

    language: str  # "python", "javascript" or "shell"
    status: str
    outputs: Tuple[CodeOutput, ...] = field(repr=False)  # all of them, as they came
    exit_status: Optional[int]  # of a shell's last command, or with which the code asked to exit
    reason: Optional[str]  # of "stuck" and "ended"
    truncated: bool  # there was more than is told

    @staticmethod
    def of(language: str, document: Mapping[str, Any], outputs: Optional[List[CodeOutput]] = None) -> Result:
        if outputs is None:
            outputs = [code_output(one["type"], one) for one in document["outputs"]]
        return Result(language, document["status"], tuple(outputs), document["exit_status"], document["reason"],
                      document["truncated"])

    @property
    def ok(self) -> bool:
        """Whether its status is "ok"."""
        return self.status == "ok"

    def _stream(self, name: str) -> str:
        return "".join(one.text for one in self.outputs if isinstance(one, Text) and one.stream == name)

    @property
    def stdout(self) -> str:
        """All that it wrote there."""
        return self._stream("stdout")

    @property
    def stderr(self) -> str:
        """All that it wrote there."""
        return self._stream("stderr")

    @property
    def values(self) -> Tuple[Value, ...]:
        """What it showed, and the value of its last expression."""
        return tuple(one for one in self.outputs if isinstance(one, Value))

    @property
    def value(self) -> Optional[Value]:
        """That of the last expression."""
        found = [one for one in self.values if one.kind == "result"]
        return found[-1] if found else None

    @property
    def error(self) -> Optional[Failure]:
        """What ended it, if something did."""
        found = [one for one in self.outputs if isinstance(one, Failure)]
        return found[-1] if found else None

    @property
    def text(self) -> str:
        """All of it as a terminal would show it: what was written, values, and a traceback."""
        said = ""
        for one in self.outputs:
            piece = one.text if isinstance(one, (Text, Value)) else "\n".join(one.traceback) or f"{one.name}: {one.message}"
            if said and not said.endswith("\n") and not isinstance(one, Text):
                said += "\n"
            said += piece
        return said

    def pictures(self) -> List[bytes]:
        """The PNGs that it showed."""
        return [one.bytes("image/png") for one in self.values if "image/png" in one.data]

    def check(self) -> Result:
        """Itself. Raises CodeError when the code did not end well."""
        if self.ok:
            return self
        error = self.error
        why = f"{error.name}: {error.message}" if error else self.reason or f"its status is {self.status}"
        raise CodeError(f"the {self.language} code failed: {why}", code=self.status, hint="")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Dict[str, str]:
        """For notebooks, in one piece: pictures as they are, HTML in frames that run no scripts."""
        parts = []
        for one in self.outputs:
            if isinstance(one, Value):
                shown = one._repr_mimebundle_()
                picture = next((mime for mime in _PICTURES if mime in shown), None)
                if picture:
                    parts.append(f'<img src="data:{picture};base64,{html.escape(shown[picture])}">')
                else:
                    parts.append(shown.get("text/html") or f"<pre>{html.escape(one.text)}</pre>")
            else:
                text = one.text if isinstance(one, Text) else "\n".join(one.traceback) or f"{one.name}: {one.message}"
                color = "" if isinstance(one, Text) and one.stream == "stdout" else ' style="color: #b00"'
                parts.append(f"<pre{color}>{html.escape(text)}</pre>")
        return {"text/plain": self.text, "text/html": "\n".join(parts)}


def _frame(document: str) -> str:
    return f'<iframe sandbox style="width: 100%; height: 20em; border: 0" srcdoc="{html.escape(document)}"></iframe>'


@dataclass(frozen=True)
class CommandResult(Exit):
    """How a command ended, and what it wrote."""

    command: str  # as it was asked for
    args: Tuple[str, ...]  # likewise
    stdout: str  # bytes that are no UTF-8 are replaced by U+FFFD; a stream has them as they are
    stderr: str  # likewise
    truncated: bool  # there was more than 8 MiB of one of them

    @staticmethod
    def made(command: str, args: Tuple[str, ...], document: Mapping[str, Any]) -> CommandResult:
        return CommandResult(document["exit_code"], document["signal"], document["oom_killed"], document["timed_out"],
                             command, args, document["stdout"], document["stderr"], document["truncated"])

    def check(self) -> CommandResult:
        """Itself. Raises CommandError when it did not succeed."""
        if self.success:
            return self
        how = "it took too long" if self.timed_out else f"signal {self.signal}" if self.signal else f"status {self.exit_code}"
        last = self.stderr.strip().splitlines()[-1:]
        raise CommandError(f"'{self.command}' failed: {how}" + (f": {last[0]}" if last else ""), code="failed", hint="")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Dict[str, str]:
        parts = [f"<pre>{html.escape(self.stdout)}</pre>"] if self.stdout else []
        if self.stderr:
            parts.append(f'<pre style="color: #b00">{html.escape(self.stderr)}</pre>')
        if not self.success:
            parts.append(f"<pre>{html.escape(self.command)}: status {self.exit_code}</pre>")
        return {"text/plain": self.stdout + self.stderr, "text/html": "\n".join(parts)}
