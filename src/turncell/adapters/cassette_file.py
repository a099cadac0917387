"""The file of a cassette: JSON lines, a header and then one recording a line.

In the order in which they were asked for, without times and ids, so that recording the same answers again changes
nothing; a person can read it, and mend it. It is data from outside: read with a limit, validated, and refused as a whole
where one line is wrong. One process writes it, others may read. Secrets are redacted before they get here.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turncell.adapters.recordings import Recording, key_of
from turncell.core import codec
from turncell.core.events import CostBasis, FinishReason
from turncell.core.parts import Json, Part, Reasoning, Text, ToolCall, Usage
from turncell.errors import FailureKind, StoreError
from turncell.runtime.secrets import redactor

log = logging.getLogger("turncell")

VERSION = 1
LIMIT_BYTES = 200_000_000
"""A file beyond this is no cassette: it would be read into memory whole."""
LINE_LIMIT_BYTES = 32 << 20


class Tape:
    """The one writer of a cassette's file."""

    def __init__(self, path: Path) -> None:
        from filelock import FileLock, Timeout

        self._path = path
        self._pid = os.getpid()
        self._lines: list[tuple[int, bytes]] = []
        """By the place in which each was asked for: runs side by side end in another order every time."""
        self._places = 0
        self._is_new = False
        self._is_open = True
        self._guard = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(f"{path}.lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(
                f"cassette {str(path)!r} is being written by another process; wait for it, or use another file "
                f"(if there is none, remove {str(path)!r}.lock)"
            ) from None
        except OSError as error:
            raise StoreError(f"cassette {str(path)!r} cannot be written: {error}") from error

    def begin(self, kept: Sequence[Recording], *, is_new: bool) -> None:
        # What is recorded anew takes the place of the old with its first line: until then nothing is lost.
        self._is_new = is_new
        self._lines = [(self.place(), _line(recording)) for recording in kept]

    def place(self) -> int:
        with self._guard:
            self._places += 1
            return self._places

    def write(self, place: int, recording: Recording) -> bool:
        """Whether it was: a run that goes on after the end has nowhere to be recorded."""
        with self._guard:
            if not self._is_open or self._pid != os.getpid():
                log.warning(
                    "an answer came after the end of cassette %s, or in a forked child; not recorded", self._path
                )
                return False
            line = _line(recording)
            self._lines.append((place, line))
            if self._is_new or not self._path.exists():
                self.replace([kept for _, kept in self._lines])
                self._is_new = False
                return True
            try:
                with open(self._path, "ab") as file:
                    file.write(line)
            except OSError as error:
                raise StoreError(f"cassette {str(self._path)!r} cannot be written: {error}") from error
            return True

    def finish(self) -> None:
        with self._guard:
            if not self._is_open:
                return
            self._is_open = False
            try:
                ordered = sorted(self._lines, key=lambda item: item[0])
                if ordered != self._lines:
                    self.replace([line for _, line in ordered])
            finally:
                self.close()

    def close(self) -> None:
        self._is_open = False
        if self._pid == os.getpid():
            # While it is held: whoever waits for it notices that its file has gone.
            with suppress(OSError):
                os.unlink(self._lock.lock_file)
            self._lock.release()

    def replace(self, lines: Iterable[bytes]) -> None:
        """All at once: whoever reads meanwhile has the old file or the new one."""
        beside = self._path.with_name(f"{self._path.name}.new")
        try:
            beside.write_bytes(b"".join([_HEADER, *lines]))
            os.replace(beside, self._path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise StoreError(f"cassette {str(self._path)!r} cannot be written: {error}") from error


_HEADER = codec.encode({"turncell_cassette": VERSION}) + b"\n"


def read_cassette(path: str | os.PathLike[str]) -> list[Recording]:
    """The recordings of a file. StoreError says which line cannot be used, and why."""
    recordings = []
    for line_number, line in enumerate(lines_of(Path(path)), 2):
        try:
            if len(line) > LINE_LIMIT_BYTES:
                raise ValueError(f"{len(line)} bytes, a line holds up to {LINE_LIMIT_BYTES}")
            recordings.append(_from_json(codec.decode_foreign(line)))
        except (ValueError, RecursionError) as error:
            raise StoreError(
                f"line {line_number} of cassette {str(path)!r} is no recording ({codec.why_refused(error)}); "
                "remove the line, or record again"
            ) from error
    return recordings


def lines_of(path: Path) -> list[bytes]:
    """The lines after the header. StoreError where this is no cassette."""
    if not path.exists():
        raise StoreError(f"there is no cassette {str(path)!r}; make it with mode='record' or mode='auto'")
    if not path.is_file():  # a pipe would never end
        raise StoreError(f"cassette {str(path)!r} is no regular file")
    try:
        with open(path, "rb") as file:
            data = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise StoreError(f"cassette {str(path)!r} cannot be read: {error}") from error
    if len(data) > LIMIT_BYTES:
        raise StoreError(f"cassette {str(path)!r} is larger than {LIMIT_BYTES:,} bytes; it is not read")
    header, *lines = data.removesuffix(b"\n").split(b"\n")
    try:
        version = codec.decode_json(header)["turncell_cassette"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise StoreError(
            f"{str(path)!r} is no cassette: its first line is {header[:60]!r}; use another path, or remove it"
        ) from None
    if version != VERSION or isinstance(version, bool):
        raise StoreError(
            f"cassette {str(path)!r} has version {version!r}, and this turncell reads {VERSION}; update it"
        )
    return lines


def write_cassette(path: str | os.PathLike[str], recordings: Iterable[Recording]) -> None:
    """A file of these recordings, secrets redacted; one that was there is replaced, if it is a cassette."""
    path = Path(path).expanduser().absolute()
    tape = Tape(path)
    try:
        if path.exists():
            lines_of(path)
        tape.replace([_line(redactor().value(recording)) for recording in recordings])
    finally:
        tape.close()


@dataclass(frozen=True, slots=True)
class _PartLine:
    """One part; exactly one of `text`, `reasoning` and `call` is there."""

    text: str | None = None
    reasoning: str | None = None
    signature: str | None = None
    call: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class _AnswerLine:
    parts: list[_PartLine]
    finish_reason: FinishReason = "stop"
    usage: dict[str, int | bool] = field(default_factory=dict)
    cost_usd: float | None = None
    cost_basis: CostBasis = "none"
    answered_by: str | None = None
    failure: tuple[FailureKind, str] | None = None


@dataclass(frozen=True, slots=True)
class _RecordingLine:
    request: dict[str, Any]
    answer: _AnswerLine


@functools.cache
def _adapter() -> Any:
    from pydantic import ConfigDict, TypeAdapter, with_config

    config = ConfigDict(extra="forbid", strict=False)
    for kind in (_PartLine, _AnswerLine, _RecordingLine):
        with_config(config)(kind)
    return TypeAdapter(_RecordingLine)


def _from_json(plain: Json) -> Recording:
    if not isinstance(plain, dict):
        raise ValueError(f"an object with request and answer is needed, not {plain!r:.60}")
    line: _RecordingLine = _adapter().validate_python(plain)
    unknown = set(line.request) - {"model", "instructions", "messages", "tools", "options"}
    if unknown:
        raise ValueError(f"request: {sorted(unknown)} are no fields of it")
    messages = line.request.get("messages", [])
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("parts"), list) for m in messages
    ):
        raise ValueError("request.messages: a list of {'role': ..., 'parts': [...]} is needed")
    key_of(line.request)  # what is nested too deeply for it is found here, where the line is known
    unknown = set(line.answer.usage) - set(Usage.__slots__)
    if unknown:
        raise ValueError(f"answer.usage: {sorted(unknown)} are no tokens")
    parts: list[Part] = []
    for part in line.answer.parts:
        if [part.text, part.reasoning, part.call].count(None) != 2:
            raise ValueError("answer.parts: a part is one of text, reasoning and call")
        if part.text is not None:
            parts.append(Text(part.text))
        elif part.reasoning is not None:
            parts.append(Reasoning(part.reasoning, part.signature))
        else:
            parts.append(ToolCall("", part.call or "", part.arguments))
    answer = line.answer
    usage = Usage(**answer.usage)  # type: ignore[arg-type]  # names and kinds are checked
    return Recording(
        line.request, tuple(parts), answer.finish_reason, usage, answer.cost_usd, answer.cost_basis,
        answer.answered_by, answer.failure,
    )  # fmt: skip


def _line(recording: Recording) -> bytes:
    """Fields that say nothing are left out: a person reads this."""
    parts: list[Json] = []
    for part in recording.parts:
        if isinstance(part, Text):
            parts.append({"text": part.text})
        elif isinstance(part, Reasoning):
            parts.append({"reasoning": part.text} | ({"signature": part.signature} if part.signature else {}))
        elif isinstance(part, ToolCall):
            parts.append({"call": part.name, "arguments": part.arguments_text})
    answer: dict[str, Json] = {"parts": parts, "finish_reason": recording.finish_reason}
    usage = {name: getattr(recording.usage, name) for name in Usage.__slots__}
    answer["usage"] = {name: value for name, value in usage.items() if value is not None and value is not False}
    if recording.cost_usd is not None:
        answer |= {"cost_usd": recording.cost_usd, "cost_basis": recording.cost_basis}
    if recording.answered_by is not None:
        answer["answered_by"] = recording.answered_by
    if recording.failure is not None:
        answer["failure"] = list(recording.failure)
    return codec.encode({"request": recording.request, "answer": answer}) + b"\n"
