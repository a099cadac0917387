"""A model that says what a test tells it to."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from turncell.core.deltas import CallFragment, Finished, Fragment, ImageFragment, ReasoningFragment
from turncell.core.events import FinishReason
from turncell.core.parts import Image, Json, Message, Text, ToolCall, Usage
from turncell.errors import ModelFailure, UsageError
from turncell.runtime import options
from turncell.runtime.ports import ModelRequest

_CHUNK = 12
"""Characters of a piece: small enough that a short answer arrives in several."""


@dataclass(frozen=True, slots=True)
class Say:
    """Text, in pieces of `chunk` characters, each after `delay_s` seconds (None: the model's delay)."""

    text: str
    delay_s: float | None = None
    chunk: int = _CHUNK


@dataclass(frozen=True, slots=True)
class Think:
    """Reasoning, streamed as text is. The `signature` comes with the last piece."""

    text: str
    signature: str | None = None
    delay_s: float | None = None
    chunk: int = _CHUNK


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call with its arguments as text, which need not be JSON: `Call("save", '{"path": ')`."""

    name: str
    arguments_text: str
    provider_id: str | None = None
    delay_s: float | None = None
    chunk: int = _CHUNK


@dataclass(frozen=True, slots=True)
class Stop:
    """The end of the answer, where it is not the plain one. `None`: the stream ends without an end."""

    finish_reason: FinishReason | None


Item: TypeAlias = str | Say | Think | Call | Image | Stop | Exception
_ITEMS = (str, Say, Think, Call, Image, Stop, Exception)
Entry: TypeAlias = Item | Sequence[Item] | Callable[[ModelRequest], "Entry | Awaitable[Entry]"]


def say(text: str, *, delay_s: float | None = None, chunk: int = _CHUNK) -> Say:
    """Text that comes in pieces of `chunk` characters, each after `delay_s` seconds (None: the model's delay)."""
    return Say(text, delay_s, chunk)


def think(text: str, *, signature: str | None = None, delay_s: float | None = None, chunk: int = _CHUNK) -> Think:
    """Reasoning, in pieces as those of `say`. `signature` is the provider's seal, which goes back with it."""
    return Think(text, signature, delay_s, chunk)


def call(name: str, /, **arguments: Json) -> Call:
    """A tool call.

    >>> call("weather", city="Oslo")
    Call(name='weather', arguments_text='{"city": "Oslo"}', provider_id=None, delay_s=None, chunk=12)
    """
    return Call(name, json.dumps(arguments, ensure_ascii=False))


def stop(finish_reason: FinishReason | None) -> Stop:
    """End an entry with another finish reason: `["half an ans", stop("length")]`."""
    return Stop(finish_reason)


class ScriptedModel:
    """Answers each model call with the next entry of a script.

    An entry is a text, `say(...)`, `think(...)`, `call(...)`, an Image, an exception (raised there), a list of these, or a
    function of the request that returns an entry (it may be async). One function in the place of the script answers
    every call. `delay_s` passes before each piece. `price` is US dollars per million (input, output) tokens; without
    one the cost is unknown. Tokens are words here: easy to count by hand, and the same on every machine.

    >>> model = ScriptedModel([call("weather", city="Oslo"), "Rain."])
    """

    def __init__(
        self,
        script: Sequence[Entry] | Callable[[ModelRequest], Entry | Awaitable[Entry]],
        name: str = "scripted",
        delay_s: float = 0.0,
        *,
        price: tuple[float, float] | None = None,
    ) -> None:
        is_list = isinstance(script, Iterable) and not isinstance(script, str | bytes | Mapping)
        if not is_list and not callable(script):
            raise UsageError(f"the script is {script!r}; use a list of entries, one for each model call, or a function")
        if price is not None and not _is_pair(price):
            raise UsageError(f"price is {price!r}; use US dollars per million tokens, (input, output)")
        self.name = options.text("name", name)
        self.delay_s = options.number("delay_s", delay_s, has_zero=True, is_needed=True) or 0.0
        self.price = price
        self.requests: list[ModelRequest] = []
        """The requests received, oldest first."""
        self._answer_all = script if callable(script) else None
        self._script: tuple[Entry, ...] = () if callable(script) else tuple(script)

    def assert_complete(self) -> None:
        """Fail unless every entry of the script was used."""
        left = len(self._script) - len(self.requests)
        if left > 0:
            raise AssertionError(
                f"model {self.name!r}: {left} of {len(self._script)} entries of the script were not asked for; "
                f"the next one is {self._script[len(self.requests)]!r}"
            )

    async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
        number = len(self.requests)
        self.requests.append(request)
        entry = await self._entry(number, request)
        items: Sequence[Item] = entry if isinstance(entry, Sequence) and not isinstance(entry, str) else [entry]
        said = 0
        calls = 0
        for item in items:
            if not isinstance(item, _ITEMS):
                raise UsageError(
                    f"model {self.name!r}: entry {number + 1} of the script has {item!r}, which is no answer"
                )
            if isinstance(item, Exception):
                raise item
            if isinstance(item, Stop):
                if item.finish_reason is not None:
                    yield [self._finished(item.finish_reason, request, said)]
                return
            item = Say(item) if isinstance(item, str) else item
            if isinstance(item, Image):
                pieces: list[Fragment] = [ImageFragment(item.data, item.media_type)]
            elif isinstance(item, Call):
                calls += 1
                said += _words(item.name) + _words(item.arguments_text)
                provider_id = item.provider_id or f"scripted_{number + 1}_{calls}"
                pieces = [CallFragment(calls - 1, provider_id, item.name)]
                pieces += [CallFragment(calls - 1, arguments=text) for text in _cut(item.arguments_text, item.chunk)]
            elif isinstance(item, Think):
                said += _words(item.text)
                texts = _cut(item.text, item.chunk) or [""]
                pieces = [ReasoningFragment(text) for text in texts[:-1]]
                pieces.append(ReasoningFragment(texts[-1], item.signature))
            else:
                said += _words(item.text)
                pieces = [*_cut(item.text, item.chunk)]
            own_s = None if isinstance(item, Image) else item.delay_s
            delay_s = self.delay_s if own_s is None else own_s
            for piece in pieces:
                # Zero gives way to the loop too: a real model never answers without letting others run.
                await asyncio.sleep(delay_s)
                yield [piece]
        yield [self._finished("tool_calls" if calls else "stop", request, said)]

    async def _entry(self, number: int, request: ModelRequest) -> Any:
        if self._answer_all is not None:
            entry: Any = self._answer_all
        elif number < len(self._script):
            entry = self._script[number]
        else:
            entries = f"{len(self._script)} entr{'y' if len(self._script) == 1 else 'ies'}"
            raise ModelFailure(
                "bad_request",
                f"model {self.name!r}: the script has {entries}, but this is model call {number + 1}, for step "
                f"{request.step} of run {request.run_id!r}; add an entry to the script or let the test ask for less",
            )
        while callable(entry):
            entry = entry(request)
            if inspect.isawaitable(entry):
                entry = await entry
        return entry

    def _finished(self, finish_reason: FinishReason, request: ModelRequest, said: int) -> Finished:
        heard = _words(request.instructions) + sum(_words(_read(message)) for message in request.messages)
        cost_usd = None if self.price is None else (heard * self.price[0] + said * self.price[1]) / 1e6
        basis = "none" if self.price is None else "user"
        return Finished(finish_reason, Usage(heard, said), cost_usd, basis, self.name)  # type: ignore[arg-type]


def _is_pair(given: object) -> bool:
    return isinstance(given, Sequence) and len(given) == 2 and all(isinstance(one, int | float) for one in given)


def _cut(text: str, chunk: int) -> list[str]:
    return [text[start : start + chunk] for start in range(0, len(text), max(1, chunk))]


def _words(text: str) -> int:
    return len(text.split())


def _read(message: Message) -> str:
    """The words of a message that a model would read."""
    words = []
    for part in message.parts:
        if isinstance(part, Text):
            words.append(part.text)
        elif isinstance(part, ToolCall):
            words += [part.name, part.arguments_text]
        elif not isinstance(part, Image):
            words.append(part.content if part.type == "tool_result" else "")
    return " ".join(words)
