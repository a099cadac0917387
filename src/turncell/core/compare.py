"""Compare: where two runs part.

Two runs are read side by side in the order in which they happened: the prompt, the instructions, then of each step the
text, its calls (name, arguments, result, status) and what was said after it, at last the end. The first difference is
the one that matters, for everything after it may follow from it. Models, ids, times, tokens and costs are not compared:
they differ between any two runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from turncell.core.events import Event
from turncell.core.fold import CallState, RunState, StepState, fold
from turncell.core.parts import Json, Message, Text
from turncell.errors import UsageError

CONTEXT_CHARS = 24
"""How much of two texts is shown before and after the place where they part."""


class HasState(Protocol):
    """Whatever holds a RunState, such as a Run."""

    @property
    def state(self) -> RunState: ...


Comparable: TypeAlias = RunState | HasState | Iterable[Event]


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first difference: `place` in words, `step` (0 before the first), and what stands there in either run.

    A value is None where its run has nothing at this place.
    """

    place: str
    step: int
    a: Json
    b: Json

    def __str__(self) -> str:
        return f"{self.place}: {difference(self.a, self.b)}"


def compare(run_a: Comparable, run_b: Comparable) -> Divergence | None:
    """The first difference between two runs, or None. Ids, times, tokens, costs and models may differ.

    Each may be a Run, a run of `session.runs`, or the events of one run. UsageError for anything else.

    >>> from turncell.core.events import MessageAdded
    >>> def asked(text):
    ...     message = Message("user", (Text(text),))
    ...     return [MessageAdded(seq=2, session_id="s", run_id="r", step=0, at=0.0, message=message)]
    >>> print(compare(asked("Is it raining?"), asked("Is it snowing?")))
    prompt: from character 7 'Is it raining?' against 'Is it snowing?'
    >>> compare(asked("Hello"), asked("Hello")) is None
    True
    """
    a, b = _state(run_a), _state(run_b)
    return next(_differences(a, b), None)


def difference(a: Json, b: Json) -> str:
    """Two different values in one line; of texts the place where they part, with a few characters around it.

    >>> difference("one two", "one too"), difference(None, 3)
    ("from character 6 'one two' against 'one too'", 'nothing against 3')
    """
    if not isinstance(a, str) or not isinstance(b, str):
        # Values are told apart by their JSON, which is also where a long one is cut.
        a_text, b_text = (None if value is None else _json(value) for value in (a, b))
        if a_text is None or b_text is None or max(len(a_text), len(b_text)) <= 4 * CONTEXT_CHARS:
            return " against ".join("nothing" if text is None else _cut(text) for text in (a_text, b_text))
        at = _parting(a_text, b_text)
        return f"{_around(a_text, at)} against {_around(b_text, at)}"
    at = _parting(a, b)
    return f"from character {at + 1} {_around(a, at)!r} against {_around(b, at)!r}"


def _differences(a: RunState, b: RunState) -> Iterator[Divergence]:
    yield from _unequal("prompt", 0, _said(a.prompt), _said(b.prompt))
    yield from _unequal("instructions", 0, a.instructions, b.instructions)
    for number in range(max(len(a.steps), len(b.steps))):
        in_a, in_b = (run.steps[number] if number < len(run.steps) else None for run in (a, b))
        if in_a is None or in_b is None:
            yield Divergence(f"step {number + 1}", number + 1, _step(in_a), _step(in_b))
        else:
            yield from _in_step(number + 1, in_a, in_b)
    yield from _unequal("end", len(a.steps), a.status, b.status)
    yield from _unequal("kind of the end", len(a.steps), a.error_kind, b.error_kind)
    yield from _unequal("closing words", len(a.steps), a.closing, b.closing)


def _in_step(step: int, a: StepState, b: StepState) -> Iterator[Divergence]:
    yield from _unequal(f"step {step}: text", step, _text(a), _text(b))
    for number in range(max(len(a.calls), len(b.calls))):
        in_a, in_b = (of.calls[number] if number < len(of.calls) else None for of in (a, b))
        place = f"step {step}: call {number + 1}"
        if in_a is None or in_b is None:
            yield Divergence(place, step, in_a and in_a.name, in_b and in_b.name)
            continue
        yield from _unequal(f"{place}: name", step, in_a.name, in_b.name)
        place = f"{place} ({in_a.name})"
        yield from _unequal(f"{place}: arguments", step, _arguments(in_a), _arguments(in_b))
        yield from _unequal(f"{place}: result", step, in_a.content, in_b.content)
        yield from _unequal(f"{place}: status", step, in_a.status, in_b.status)
    yield from _unequal(f"step {step}: failure", step, a.error_kind, b.error_kind)
    after_a, after_b = ([_said(added.message) for added in of.after] for of in (a, b))
    yield from _unequal(f"after step {step}", step, after_a or None, after_b or None)


def _unequal(place: str, step: int, a: Json, b: Json) -> Iterator[Divergence]:
    # As JSON: to Python 1, 1.0 and True are the same, to a tool they are not.
    if a != b or _json(a) != _json(b):
        yield Divergence(place, step, a, b)


def _state(run: Comparable) -> RunState:
    if isinstance(run, RunState):
        return run
    state = getattr(run, "state", None)
    if isinstance(state, RunState):
        return state
    events: list[Any] = list(run) if isinstance(run, Iterable) else []
    if not events or not all(hasattr(event, "run_id") for event in events):
        raise UsageError(
            f"compare takes runs, their states (session.runs has them) or the events of one run; found {run!r}"
        )
    return fold(events)


def _said(message: Message | None) -> Json:
    """The text, where a message is nothing else; otherwise its parts."""
    if message is None:
        return None
    if all(isinstance(part, Text) for part in message.parts):
        return message.text
    return [part.text if isinstance(part, Text) else repr(part) for part in message.parts]


def _text(step: StepState) -> str:
    return "".join(block.text for block in step.blocks if block.kind == "text")


def _arguments(call: CallState) -> Json:
    return call.arguments_text if call.arguments is None else call.arguments


def _step(step: StepState | None) -> Json:
    if step is None:
        return None
    return _text(step) or (f"calls {', '.join(call.name for call in step.calls)}" if step.calls else "")


def _json(value: Json) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _parting(a: str, b: str) -> int:
    for at, (of_a, of_b) in enumerate(zip(a, b, strict=False)):
        if of_a != of_b:
            return at
    return min(len(a), len(b))


def _around(text: str, at: int) -> str:
    start, end = max(0, at - CONTEXT_CHARS), at + CONTEXT_CHARS
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")


def _cut(text: str) -> str:
    return text if len(text) <= 4 * CONTEXT_CHARS else text[: 4 * CONTEXT_CHARS] + "…"
