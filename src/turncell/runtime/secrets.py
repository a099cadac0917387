"""The secrets of this process: what is never written down, whoever writes.

Values of the environment whose names speak of secrets, passwords in its addresses, texts in the shapes of keys, and what
people declare. They are kept from the journal (and so from exports and tables), from what is left in a notebook, and from logs. The model of the
running turn sees what tools return; what it is told in a later program comes from the journal.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator
from re import Pattern
from typing import TypeAlias, TypeVar, cast
from urllib.parse import unquote

from turncell.core import codec
from turncell.core.events import (
    ArgumentsDelta,
    CallProgress,
    Event,
    MessageAdded,
    PartialSaved,
    ReasoningDelta,
    RunEnded,
    StepFailed,
    StepFinished,
    TextDelta,
)
from turncell.core.fold import RunState
from turncell.core.redaction import LEAST_CHARS, Open, Redactor, is_secret_name
from turncell.core.values import evolve
from turncell.errors import UsageError

V = TypeVar("V")
_lock = threading.Lock()
_declared: dict[str, str] = {}
_patterns: list[str] = []
_from_environment: dict[str, str] = {}
_read: dict[object, object] | None = None
"""The environment when it was read last."""
_of_names: dict[str, str] = {}
_redactor: Redactor | None = None


def redactor() -> Redactor:
    """What applies now."""
    global _redactor
    found = _redactor
    if found is None:
        refresh()
        found = _redactor
    assert found is not None
    return found


def refresh() -> None:
    """Look at the environment again: a notebook may have loaded its keys meanwhile. Each run begins with it."""
    global _redactor, _from_environment
    with _lock:
        found = {value: name for value, name in _named().items() if not os.path.exists(value)}
        if _redactor is None or found != _from_environment:
            _from_environment = found
            _redactor = Redactor({**found, **_declared}, _patterns)


def _named() -> dict[str, str]:
    """Values of the environment under names that speak of secrets. Read anew only where something has changed in it."""
    global _read, _of_names
    # Private, and 2 µs; what is public decodes every name and value, which is a tenth of what a short turn costs.
    now = getattr(os.environ, "_data", None)
    if now is None or now != _read:
        now = None if now is None else now.copy()  # first: what is set or taken away meanwhile is seen the next time
        # Another thread may take a variable away meanwhile.
        values = [(name, os.environ.get(name, "")) for name in list(os.environ)]
        secret = [(name, value) for name, value in values if is_secret_name(name)]
        secret += [(name, one) for name, value in values if "://" in value for one in _passwords(value)]
        _of_names = {value: name for name, value in secret if len(value) >= LEAST_CHARS}
        _read = now
    return _of_names


def _passwords(addresses: str) -> Iterator[str]:
    """Those in addresses, as in `DATABASE_URL`: as they are written there, and as they are.

    >>> list(_passwords("postgresql://ada:open%2Fsesame@db.example/notes"))
    ['open%2Fsesame', 'open/sesame']
    """
    for password in re.findall(r"://[^\s:@/]*:([^\s@/]+)@", addresses):
        yield from dict.fromkeys((password, unquote(password)))


def redact(*secrets: str, patterns: tuple[str, ...] | list[str] = ()) -> None:
    """Declare secrets, and regular expressions of secrets, for this process. They are never written down or shown.

    >>> redact("correct horse battery staple", patterns=[r"customer-[0-9]{6}"])
    >>> redactor().text("staple: correct horse battery staple, of customer-123456")
    'staple: [redacted: a declared secret], of [redacted: a pattern]'
    """
    global _redactor
    for secret in secrets:
        if not isinstance(cast(object, secret), str) or len(secret) < LEAST_CHARS:
            found = f"one of {len(secret)}" if isinstance(cast(object, secret), str) else f"a {type(secret).__name__}"
            raise UsageError(f"a secret is a text of {LEAST_CHARS} characters or more; found {found}")
    if not isinstance(cast(object, patterns), tuple | list) or not all(
        isinstance(one, str | Pattern) for one in patterns
    ):
        raise UsageError(f"patterns is a list of regular expressions, as texts; found a {type(patterns).__name__}")
    refresh()
    with _lock:
        made = Redactor(
            {**_from_environment, **_declared, **dict.fromkeys(secrets, "a declared secret")}, [*_patterns, *patterns]
        )
        _declared.update(dict.fromkeys(secrets, "a declared secret"))
        _patterns.extend(patterns)
        _redactor = made


Delta: TypeAlias = TextDelta | ReasoningDelta | ArgumentsDelta


class Cleaning:
    """Takes the secrets out of the events of one run, on their way to what shows or writes them down.

    What may be the beginning of a secret waits for the delta that tells; at the latest it comes with the end of its step.
    Code of the user gets the events themselves.
    """

    def __init__(self) -> None:
        self._open: dict[int, tuple[Delta, Open]] = {}
        """By block of the step that is being written: its latest delta, and what was held back."""

    def events(self, events: Iterable[Event]) -> list[Event]:
        """The next events, in their order."""
        known = redactor()
        clean: list[Event] = []
        for event in events:
            if isinstance(event, Delta):
                self._delta(known, event, clean)
            elif isinstance(event, PartialSaved):
                # The deltas have brought it, and its place counts what the record had of them.
                clean.append(evolve(event, text=""))
            elif isinstance(event, CallProgress):
                text, data = known.cut(event.text), known.value(event.data)
                clean.append(CallProgress(event.run_id, event.step, event.call_id, text, data))
            else:
                if isinstance(event, MessageAdded) and event.message.role == "assistant":
                    self._close(known, clean, is_cut=event.message.is_partial)
                elif isinstance(event, StepFinished | StepFailed | RunEnded):
                    self._close(known, clean, is_cut=True)
                clean.append(without_secrets(event))
        return clean

    def state(self, state: RunState) -> RunState:
        """A run as the events so far have told it: what is held back is not in it."""
        known = redactor()
        if state.steps and state.steps[-1].message is None and not state.is_ended:
            step = state.steps[-1]
            last = len(step.blocks) - 1
            blocks = tuple(
                evolve(block, rope=(known.feed(block.text)[0] if number == last else known.text(block.text),))
                for number, block in enumerate(step.blocks)
            )
            calls = tuple(evolve(call, arguments_text=known.feed(call.arguments_text)[0]) for call in step.calls)
            state = evolve(state, steps=(*state.steps[:-1], evolve(step, blocks=blocks, calls=calls)))
        return known.value(state)

    def _delta(self, known: Redactor, event: Delta, clean: list[Event]) -> None:
        before = self._open.get(event.block)
        if before is None:  # a text ends where another block begins; arguments need not
            texts = {number: one for number, one in self._open.items() if not isinstance(one[0], ArgumentsDelta)}
            self._end(known, texts, clean)
        text, rest = known.feed(event.text, before[1] if before else None)
        self._open[event.block] = event, rest
        if text or before is None or isinstance(event, ArgumentsDelta):
            clean.append(_with_text(event, text))

    def _close(self, known: Redactor, clean: list[Event], *, is_cut: bool) -> None:
        self._end(known, dict(self._open), clean, is_cut=is_cut)

    def _end(
        self, known: Redactor, ending: dict[int, tuple[Delta, Open]], clean: list[Event], *, is_cut: bool = False
    ) -> None:
        for number, (last, held) in ending.items():
            if text := known.rest(held, is_cut=is_cut):
                clean.append(_with_text(last, text))
            del self._open[number]


def without_secrets(value: V, encoded: bytes | None = None, *, is_clean: bool = False) -> V:
    """The same value, quickly where there is nothing in it; `encoded`: as JSON, where that is known.

    `is_clean`: the quick look was taken, with others, and has found nothing.
    """
    # Of what breaks off, half a secret may be the end, which the quick look does not find.
    is_cut = isinstance(value, MessageAdded) and value.message.is_partial
    known = redactor()
    if is_cut or not (is_clean or not known.may_be_in(encoded or codec.encode(value))):
        return known.value(value)
    return value


def title_of(text: str) -> str:
    """The beginning of a message, as the title of a session: without secrets, also where one would be cut in the middle.

    >>> title_of("Hello")
    'Hello'
    """
    return redactor().text(text)[:80]


def _with_text(event: Delta, text: str) -> Delta:
    if isinstance(event, ArgumentsDelta):
        return ArgumentsDelta(event.run_id, event.step, event.block, text, event.call_id, event.name)
    return type(event)(event.run_id, event.step, event.block, text)


class RedactingFilter(logging.Filter):
    """Keeps secrets out of log records. The logger `turncell` has one."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        said = redactor().text(message)
        if said != message:
            record.msg, record.args = said, None
        if record.exc_info and record.exc_info[1] is not None:
            text = logging.Formatter().formatException(record.exc_info)
            clean = redactor().text(text)
            if clean != text:
                record.exc_info, record.exc_text = None, clean
        return True
