"""A run as plain text, line by line, for terminals and logs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TextIO

from turncell.core import events as ev
from turncell.core.events import Answer
from turncell.core.fold import CallState, RequestState, RunState, apply
from turncell.frames.visible import prose, visible
from turncell.runtime.secrets import Cleaning

_WIDTH = 100


class TextView:
    """Writes the events of one run to a text stream as they happen. Give it to `run.subscribe`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._state = RunState()
        self._is_inside_line = False
        self._cleaning = Cleaning()

    def __call__(self, event: ev.Event) -> None:
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
        if event.message:
            self._line(f"  {event.status}: {event.message}")
        self._line(f"  {footer(self._state)}")


def footer(run: RunState) -> str:
    """Model, steps, seconds, tokens, cost: one line.

    >>> footer(RunState())
    'running · 0 steps · tokens unknown · cost unknown'
    """
    parts = [run.model, run.status, f"{len(run.steps)} step{'s' * (len(run.steps) != 1)}"]
    if run.ended_at is not None:
        parts.append(f"{run.ended_at - run.started_at:.1f} s")
    usage = run.usage
    if usage.input_tokens is None and usage.output_tokens is None:
        parts.append("tokens unknown")
    else:
        about = "about " if usage.is_estimated else ""
        parts.append(f"{about}{usage.input_tokens or 0:,} tokens in, {usage.output_tokens or 0:,} out")
    parts.append("cost unknown" if run.cost_usd is None else f"${run.cost_usd:.4f}")
    return " · ".join(part for part in parts if part)


def question(call: CallState) -> str:
    """What a keyboard prompt asks about a request, whole."""
    asked = call.request
    assert asked is not None
    if asked.kind == "question":
        options = [
            f"\n  {number}. {visible(option.label)}"
            + (f": {visible(option.description)}" if option.description else "")
            for number, option in enumerate(asked.options, 1)
        ]
        how = "Your answer" if not options else "A number" + (", or an answer of your own" if asked.allows_text else "")
        many = "; several with commas between" if asked.allows_many else ""
        return f"{visible(asked.question)}{''.join(options)}\n{how}{many} (nothing declines): "
    inner = asked.name != ""
    name, found = (asked.name, asked.arguments) if inner else (call.name, call.arguments)
    arguments = json.dumps(found, ensure_ascii=True, indent=2)
    preview = f"\n{visible(asked.preview)}" if asked.preview else ""
    shown = f"{visible(name)} {arguments}{preview}\n"
    if asked.kind == "in_doubt":
        return f"{shown}{visible(asked.description)}\n[r]un it again, it [h]appened (and its result), or [s]kip: "
    by = f"(asked by {visible(call.name)}) " if inner else ""
    return f"{shown}{by}Allow it? [y]es, or [n]o and a reason: "


@dataclass(frozen=True, slots=True)
class Said:
    """What a line at the keyboard means as an answer."""

    decision: Answer
    result: str | list[str] | None = None
    reason: str = ""


def read_line_as(asked: RequestState, line: str) -> Said | None:
    """The answer that a line is; None: it is none, ask again.

    >>> read_line_as(RequestState("r", "d"), "n not today")
    Said(decision='deny', result=None, reason='not today')
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
        return Said(decisions[word.lower()], reason=rest) if word.lower() in decisions else None
    if line.lower() in ("y", "yes"):  # alone: "y = 3" was pasted for another prompt
        return Said("approve")
    return Said("deny", reason=rest if word.lower() in ("n", "no") else line)


def _short(arguments: Any) -> str:
    return _cut(
        ", ".join(f"{name}={json.dumps(value, ensure_ascii=True)}" for name, value in (arguments or {}).items())
    )


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
