"""A run as plain text, line by line, for terminals and logs; what a keyboard is asked, and what its lines mean."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from turncell.core import events as ev
from turncell.core.events import Answer, Scope
from turncell.core.fold import CallState, RequestState, RunState, apply
from turncell.core.parts import Json
from turncell.frames.visible import prose, visible
from turncell.frames.words import dollars, steps_of
from turncell.runtime.secrets import Cleaning, redactor

if TYPE_CHECKING:
    from turncell.notebook.live_text import LiveText

SEEN_S = 2.0
"""How long a question waits for what was said before it to be shown."""
_WIDTH = 100


def view_for(stream: TextIO) -> TextView | LiveText:
    """What shows a run on this stream: painted where that is possible, else as plain lines."""
    if not can_be_painted(stream):
        return TextView(stream)
    from turncell.notebook.live_text import LiveText  # with Rich, which a kernel does not need

    return LiveText(stream)


def can_be_painted(stream: TextIO) -> bool:
    """Whether it is a terminal that moves its cursor where it is told, and shows more than ASCII."""
    try:
        is_terminal = stream.isatty()
    except (AttributeError, ValueError):  # none (pythonw), or a closed one
        return False
    encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
    # Without TERM: the old console of Windows, which obeys only some codes.
    return is_terminal and encoding == "utf8" and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


class TextView:
    """Writes the events of one run to a text stream as they happen. Give it to `run.subscribe`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._state = RunState()
        self._is_inside_line = False
        self._cleaning = Cleaning()
        self._seen = threading.Condition()

    def __enter__(self) -> TextView:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @contextmanager
    def asking(self, call: CallState) -> Iterator[str]:
        """What the keyboard is asked, once all that was said before it is shown."""
        with self._seen:
            self._seen.wait_for(lambda: is_told(self._state, call), SEEN_S)
        yield redactor().text(question(call))

    def __call__(self, event: ev.Event) -> None:
        self._show(event)
        with self._seen:
            self._seen.notify_all()

    def _show(self, event: ev.Event) -> None:
        for clean in self._cleaning.events([event]):
            self._state = apply(self._state, clean)
            show = getattr(self, f"_{type(clean).__name__}", None)
            if show is not None:
                show(clean)
                self._stream.flush()

    def _write(self, text: str) -> None:
        if text:
            text = prose(text)  # a model or a tool must not steer the terminal
            self._stream.write(text)
            self._is_inside_line = not text.endswith("\n")

    def _line(self, text: str) -> None:
        self._write(("\n" if self._is_inside_line else "") + text + "\n")

    def _call(self, call_id: str) -> CallState | None:
        return next((call for call in self._state.calls if call.call_id == call_id), None)

    def _MessageAdded(self, event: ev.MessageAdded) -> None:
        if event.message.role == "user":
            self._line(f"> {event.message.text.strip()}")

    def _TextDelta(self, event: ev.TextDelta) -> None:
        self._write(event.text)

    def _CallJudged(self, event: ev.CallJudged) -> None:
        call = self._call(event.call_id)
        if call is not None:
            verdict = {"allow": "allowed", "deny": "denied", "ask": "asks"}[event.verdict]
            self._line(f"  {call.name}({_short(call.arguments)}): {verdict} by {event.by}")

    def _CallProgress(self, event: ev.CallProgress) -> None:
        self._line(f"    {event.text}")

    def _CallFinished(self, event: ev.CallFinished) -> None:
        call = self._call(event.call_id)
        if call is not None:
            seconds = "" if event.duration_s is None else f", {event.duration_s:.1f} s"
            self._line(f"  {call.name}: {event.status}{seconds}  {_cut(' '.join(event.content.split()))}")

    def _RunEnded(self, event: ev.RunEnded) -> None:
        if event.text:
            self._line(event.text)
        if event.message:
            self._line(f"  {event.status}: {event.message}")
        self._line(f"  {footer(self._state)}")


def footer(run: RunState) -> str:
    """Model, steps, seconds, tokens, cost: one line.

    >>> footer(RunState())
    'running · 0 steps · tokens unknown · cost unknown'
    """
    is_imported = run.started.is_imported
    parts = ["held elsewhere" if is_imported else run.model, run.status, steps_of(run)]
    if run.ended_at is not None and not is_imported:
        parts.append(f"{run.ended_at - run.started_at:.1f} s")
    usage = run.usage
    if usage.input_tokens is None and usage.output_tokens is None:
        parts.append("tokens unknown")
    else:
        about = "about " if usage.is_estimated else ""
        parts.append(f"{about}{usage.input_tokens or 0:,} tokens in, {usage.output_tokens or 0:,} out")
    parts.append("cost unknown" if run.cost_usd is None else dollars(run.cost_usd))
    return " · ".join(part for part in parts if part)


def is_told(run: RunState, call: CallState) -> bool:
    """Whether a state has come to the request that a call waits for."""
    asked = call.request
    return any(c.request and asked and c.request.request_id == asked.request_id for c in run.calls)


def question(call: CallState, how: str | None = None) -> str:
    """What is asked in a request, whole, and `how` it is answered; if nothing else is said, at a keyboard."""
    asked = call.request
    assert asked is not None
    if asked.kind == "question":
        return f"{choices(asked)}\n{how or prompt_line(call)}"
    inner = asked.name != ""
    name, found = (asked.name, asked.arguments) if inner else (call.name, call.arguments)
    arguments = json.dumps(found, ensure_ascii=True, indent=2)
    preview = f"\n{visible(asked.preview)}" if asked.preview else ""
    doubt = f"\n{visible(asked.description)}" if asked.kind == "in_doubt" else ""
    by = f"(asked by {visible(call.name)}) " if inner and not doubt else ""
    return f"{visible(name)} {arguments}{preview}{doubt}\n{by}{how or prompt_line(call)}"


def choices(asked: RequestState) -> str:
    """A question and its numbered options, each on its line."""
    lines = [
        f"\n  {number}. {visible(option.label)}" + (f": {visible(option.description)}" if option.description else "")
        for number, option in enumerate(asked.options, 1)
    ]
    return visible(asked.question) + "".join(lines)


def prompt_line(call: CallState) -> str:
    """How a request is answered at a keyboard."""
    asked = call.request
    assert asked is not None
    if asked.kind == "question":
        how = (
            "A number" + (", or an answer of your own" if asked.allows_text else "") if asked.options else "Your answer"
        )
        return f"{how}{'; several with commas between' if asked.allows_many else ''} (nothing declines): "
    if asked.kind == "in_doubt":
        return "[r]un it again, it [h]appened (and its result), or [s]kip: "
    return "Allow it? [y]es, [n]o and a reason, [e]dit, yes for this [s]ession, [a]lways: "


@dataclass(frozen=True, slots=True)
class Said:
    """What a line at the keyboard means as an answer. An "edit" without arguments asks for an editor."""

    decision: Answer
    result: str | list[str] | None = None
    reason: str = ""
    scope: Scope = "once"
    arguments: dict[str, Json] | None = None


_YES: dict[str, Scope] = {
    "y": "once", "yes": "once", "s": "session", "session": "session", "a": "always", "always": "always",
}  # fmt: skip


def read_line_as(asked: RequestState, line: str) -> Said | str:
    """The answer that a line is; else, in words, why it is none.

    >>> read_line_as(RequestState("r", "d"), "n not today").reason
    'not today'
    """
    word, _, rest = line.partition(" ")
    if asked.kind == "question":
        if not line:
            return Said("deny", reason="the person declined to answer")
        pieces = [piece.strip() for piece in line.split(",")] if asked.allows_many else [line]
        labels = [option.label for option in asked.options]
        answers = [labels[int(p) - 1] if p.isdecimal() and 0 < int(p) <= len(labels) else p for p in pieces]
        return Said("result", answers if asked.allows_many else answers[0])
    if asked.kind == "in_doubt":
        if word.lower() in ("h", "happened"):
            return Said("result", rest or "done")
        decisions: dict[str, Answer] = {"r": "approve", "run": "approve", "s": "deny", "skip": "deny"}
        if word.lower() not in decisions:
            return f"{visible(line)!r} is none of r, h and s"
        return Said(decisions[word.lower()], reason=rest)
    if line.lower() in _YES:  # alone: "y = 3" was pasted for another prompt
        return Said("approve", scope=_YES[line.lower()])
    if line.lower() in ("e", "edit"):
        return Said("edit")
    if word.lower() in ("e", "edit") and rest.lstrip().startswith("{"):
        return read_arguments(rest)
    return Said("deny", reason=rest if word.lower() in ("n", "no") else line)


def read_arguments(text: str) -> Said | str:
    """Edited arguments as an answer; else why they are none.

    >>> read_arguments("[1]")
    'arguments are an object of JSON, {"name": value}; found [1]'
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"this is no JSON: {error}"
    if not isinstance(found, dict):
        return f'arguments are an object of JSON, {{"name": value}}; found {_cut(visible(text.strip()))}'
    return Said("edit", arguments=found)


def _short(arguments: Any) -> str:
    return _cut(
        ", ".join(f"{name}={json.dumps(value, ensure_ascii=True)}" for name, value in (arguments or {}).items())
    )


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
