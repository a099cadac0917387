"""Recordings: what models said, found by what they were asked.

A request is known by all that the model sees of it: its name, the instructions, the messages, the tools, the options. Ids
differ from run to run and are replaced by their position; seals of reasoning are left out. The same request asked again
gets its recordings in their order, then the last one again. What has none is a failed model call that names the nearest
recording and the first difference; its kind is one that is not tried again.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import json
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from turncell.core.compare import difference
from turncell.core.deltas import CallFragment, Finished, Fragment, ReasoningFragment
from turncell.core.events import CostBasis, FinishReason
from turncell.core.parts import Image, Json, Message, Part, Reasoning, Text, ToolCall, Usage
from turncell.errors import FailureKind, ModelFailure
from turncell.runtime.ports import ModelRequest

PIECE_CHARS = 12
"""Text is streamed in such pieces again: small enough that a short answer arrives in several."""
_LOOK_AT, _LOOK_CHARS = 20, 600
"""How many recordings, and how much of a message, are looked at to say which is nearest: difflib is quadratic, and this
happens on the loop of all runs."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One answer of a model. `request` is what was asked (see `request_as_json`); what it leaves out fits anything.

    `parts` are Text, Reasoning and ToolCall. `failure` is the kind and the words of a call that failed after them.
    """

    request: dict[str, Json]
    parts: tuple[Part, ...] = ()
    finish_reason: FinishReason = "stop"
    usage: Usage = Usage()
    cost_usd: float | None = None
    cost_basis: CostBasis = "none"
    answered_by: str | None = None
    failure: tuple[FailureKind, str] | None = None


def request_as_json(request: ModelRequest, model: str) -> dict[str, Json]:
    """What a model sees of a request, as JSON: model, instructions, messages, tools, options.

    Ids of calls become call_1, call_2 ... in the order in which they appear; `run_id` and `step` are not seen.
    """
    options: dict[str, Json] = {
        name: value
        for name in ("temperature", "max_tokens", "reasoning_effort", "tool_choice", "output_schema")
        if (value := getattr(request, name)) is not None
    }
    if request.extra:
        # What JSON cannot hold is told by its type: a repr may hold an address.
        options["extra"] = json.loads(json.dumps(request.extra, default=lambda value: type(value).__name__))
    return {
        "model": model,
        "instructions": request.instructions,
        "messages": messages_as_json(request.messages),
        "tools": [{"name": t.name, "description": t.description, "schema": t.schema} for t in request.tools],
        "options": options,
    }


def messages_as_json(messages: Iterable[Message]) -> list[Json]:
    """Messages as a person reads them: {"role": ..., "parts": [text or {...}]}."""
    ids: dict[str, str] = {}

    def position(call_id: str) -> str:
        return ids.setdefault(call_id, f"call_{len(ids) + 1}")

    def plain(part: Part) -> Json:
        if isinstance(part, Text):
            return part.text
        if isinstance(part, Reasoning):
            return {"reasoning": part.text}
        if isinstance(part, Image):
            return {"image": part.data, "media_type": part.media_type}
        if isinstance(part, ToolCall):
            return {"call": position(part.call_id), "name": part.name, "arguments": part.arguments_text}
        said = {"result": position(part.call_id), "name": part.name, "content": part.content, "is_error": part.is_error}
        return said | ({"images": [plain(image) for image in part.images]} if part.images else {})

    return [
        {"role": message.role, "parts": [plain(part) for part in message.parts]}
        | ({"is_partial": True} if message.is_partial else {})
        for message in messages
    ]


class Recordings:
    """Recordings in order, and which of them answers a request next. May be used from any thread.

    >>> asked = ModelRequest(messages=(Message("user", (Text("Hello"),)),))
    >>> kept = Recordings([Recording(request_as_json(asked, "m"), (Text("Hi!"),))])
    >>> len(kept), kept.take(request_as_json(asked, "m")).parts
    (1, (Text(text='Hi!', type='text'),))
    """

    def __init__(self, recordings: Iterable[Recording] = ()) -> None:
        self._all: list[Recording] = []
        self._by_key: dict[str, list[Recording]] = {}
        self._fields: dict[frozenset[str], None] = {}
        """Which fields of a request recordings know; those from a journal know fewer than those from a file."""
        self._taken: dict[str, int] = {}
        self._lock = threading.Lock()
        for recording in recordings:
            self.add(recording)

    def add(self, recording: Recording, *, is_taken: bool = False) -> None:
        """`is_taken`: it has answered already, so that the same request gets the one after it."""
        with self._lock:
            self._all.append(recording)
            self._fields.setdefault(frozenset(recording.request))
            key = key_of(recording.request)
            self._by_key.setdefault(key, []).append(recording)
            if is_taken:
                self._taken[key] = self._taken.get(key, 0) + 1

    def take(self, request: dict[str, Json]) -> Recording | None:
        """The next recording of this request, the last one again when they are used up; None: there is none."""
        with self._lock:
            for fields in self._fields:
                key = key_of({name: value for name, value in request.items() if name in fields})
                found = self._by_key.get(key)
                if found is not None:
                    taken = self._taken.get(key, 0)
                    self._taken[key] = taken + 1
                    return found[min(taken, len(found) - 1)]
        return None

    def why_not(self, request: dict[str, Json]) -> str:
        """The nearest recording of a request that has none, and the first difference."""
        if not self._all:
            return "it is empty"
        asked = request["messages"]
        same = [_same_messages(recording.request.get("messages", []), asked) for recording in self._all]
        nearest_numbers = [number for number, count in enumerate(same, 1) if count == max(same)]
        number = max(nearest_numbers[:_LOOK_AT], key=lambda number: _nearness(self._all[number - 1].request, request))
        nearest = self._all[number - 1]
        return f"the nearest is recording {number} of {len(self._all)}; {_first_difference(nearest.request, request)}"

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Recording]:
        return iter(tuple(self._all))

    def __repr__(self) -> str:
        return f"<Recordings: {len(self)}>"


class CassetteModel:
    """A model that says what was recorded, and nothing else. Fulfils Model.

    A request without a recording fails with ModelFailure, kind "bad_request".
    Usage and cost are those of the recording; `answered_by` ends in "(recorded)", for nobody was paid.
    """

    def __init__(self, recordings: Recordings | Iterable[Recording], name: str = "cassette") -> None:
        self.name = name
        self.recordings = recordings if isinstance(recordings, Recordings) else Recordings(recordings)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[list[Fragment], None]:
        asked = request_as_json(request, self.name)
        recording = self.recordings.take(asked)
        if recording is None:
            raise missing(request, self.name, "the record", self.recordings.why_not(asked), "compare the two runs")
        async with aclosing(play(recording)) as pieces:
            async for burst in pieces:
                yield burst

    def __repr__(self) -> str:
        return f"CassetteModel({self.recordings!r}, name={self.name!r})"


async def play(recording: Recording, delay_s: float = 0.0) -> AsyncGenerator[list[Fragment], None]:
    """Stream a recording again."""
    calls = 0
    for part in recording.parts:
        pieces: list[Fragment] = []
        if isinstance(part, Text):
            pieces += _pieces(part.text)
        elif isinstance(part, Reasoning):
            *texts, last = _pieces(part.text) or [""]
            pieces += [*(ReasoningFragment(text) for text in texts), ReasoningFragment(last, part.signature)]
        elif isinstance(part, ToolCall):
            pieces.append(CallFragment(calls, part.provider_id or f"call_{calls + 1}", part.name))
            pieces += [CallFragment(calls, arguments=piece) for piece in _pieces(part.arguments_text)]
            calls += 1
        for piece in pieces:
            # Zero gives way to the loop too: a real model never answers without letting others run.
            await asyncio.sleep(delay_s)
            yield [piece]
    if recording.failure is not None:
        raise ModelFailure(*recording.failure)
    who = f"{recording.answered_by or recording.request.get('model') or 'unknown'} (recorded)"
    yield [Finished(recording.finish_reason, recording.usage, recording.cost_usd, recording.cost_basis, who)]


def missing(request: ModelRequest, model: str, where: str, why: str, what_to_do: str) -> ModelFailure:
    where_asked = f"step {request.step} of run {request.run_id!r}" if request.run_id else f"step {request.step}"
    return ModelFailure(
        "bad_request", f"{where} has no answer of model {model!r} for {where_asked}: {why}. To go on, {what_to_do}."
    )


def key_of(request: dict[str, Json]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def _nearness(kept: dict[str, Json], asked: dict[str, Json]) -> tuple[float, int]:
    """Of recordings with as many equal messages: how alike the next one is, then how much else is the same."""
    ours, theirs = kept.get("messages", []), asked["messages"]
    same = _same_messages(ours, theirs)
    a, b = (json.dumps(of[same])[:_LOOK_CHARS] if same < len(of) else "" for of in (ours, theirs))
    ratio = difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()
    return ratio, sum(kept[name] == asked.get(name) for name in kept)


def _same_messages(a: Sequence[Json], b: Sequence[Json]) -> int:
    for at, (of_a, of_b) in enumerate(zip(a, b, strict=False)):
        if of_a != of_b:
            return at
    return min(len(a), len(b))


def _first_difference(kept: dict[str, Json], asked: dict[str, Json]) -> str:
    """In words; recorded first, asked second."""
    for name in ("model", "instructions"):
        if name in kept and kept[name] != asked[name]:
            return f"its {name} differ{'s' * (name == 'model')}: {difference(kept[name], asked[name])}"
    ours, theirs = kept.get("messages", []), asked["messages"]
    same = _same_messages(ours, theirs)
    if same < max(len(ours), len(theirs)):
        a, b = (of[same] if same < len(of) else None for of in (ours, theirs))
        if a is None or b is None:
            return f"it has {len(ours)} messages and the request has {len(theirs)}, the first {same} of them equal"
        return f"its message {same + 1} ({a['role']}) differs: {_difference_of_messages(a, b)}"
    for name in ("tools", "options"):
        if name in kept and kept[name] != asked[name]:
            return f"its {name} differ: {difference(kept[name], asked[name])}"
    return "nothing that can be named differs"


def _difference_of_messages(a: dict[str, Json], b: dict[str, Json]) -> str:
    if a["role"] == b["role"] and len(a["parts"]) == len(b["parts"]):
        for of_a, of_b in zip(a["parts"], b["parts"], strict=True):
            if of_a == of_b:
                continue
            if isinstance(of_a, dict) and isinstance(of_b, dict) and of_a.keys() == of_b.keys():
                name = next(name for name in of_a if of_a[name] != of_b[name])
                return f"{name} {difference(of_a[name], of_b[name])}"
            return difference(of_a, of_b)
    return difference(a, b)


def _pieces(text: str) -> list[str]:
    return [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)]
