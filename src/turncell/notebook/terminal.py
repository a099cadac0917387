"""A run as plain text, line by line, for terminals and logs."""

from __future__ import annotations

import json
from typing import Any, TextIO

from turncell.core import events as ev
from turncell.core.fold import CallState, RunState, apply
from turncell.frames.visible import prose, visible

_WIDTH = 100


class TextView:
    """Writes the events of one run to a text stream as they happen. Give it to `run.subscribe`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._state = RunState()
        self._is_inside_line = False

    def __call__(self, event: ev.Event) -> None:
        self._state = apply(self._state, event)
        show = getattr(self, f"_{type(event).__name__}", None)
        if show is not None:
            show(event)
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
    """What a keyboard prompt asks about a call, whole."""
    arguments = json.dumps(call.arguments, ensure_ascii=True, indent=2)
    preview = f"\n{visible(call.request.preview)}" if call.request and call.request.preview else ""
    asked = "Allow it?"
    if call.request and call.request.kind == "in_doubt":
        asked = f"{call.request.description}\nRun it again?"
    return f"{visible(call.name)} {arguments}{preview}\n{asked} [y]es, or [n]o and a reason: "


def _short(arguments: Any) -> str:
    return _cut(
        ", ".join(f"{name}={json.dumps(value, ensure_ascii=True)}" for name, value in (arguments or {}).items())
    )


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
