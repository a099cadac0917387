"""Streams written down by hand from the published formats, and the ways to play them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from turncell.adapters.direct_model import Reading
from turncell.adapters.event_lines import EventLines
from turncell.core.deltas import Finished, Fragment, assemble
from turncell.core.parts import Message, Part, Text
from turncell.errors import ModelFailure
from turncell.runtime.ports import Model, ModelRequest, ToolSpec
from turncell.testing import ProviderServer

STREAMS = Path(__file__).parents[1] / "streams"
KEY = "sk-very-secret-0123456789"
ADD = ToolSpec("add", "Add numbers", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})

Played = tuple[tuple[Part, ...], Finished | ModelFailure]


def names(folder: str) -> list[str]:
    return sorted(path.stem for path in (STREAMS / folder).glob("*.sse"))


def content(folder: str, name: str) -> bytes:
    data = (STREAMS / folder / f"{name}.sse").read_bytes()
    assert data.startswith(b": source: "), "a stream names its source"
    return data


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    """The pieces between these places, which are taken modulo the length."""
    places = sorted({0, len(data), *(one % len(data) for one in at)})
    return [data[begin:end] for begin, end in pairwise(places)]


def play(reading: Reading, pieces: Iterable[bytes]) -> Played:
    """What a reading makes of these bytes: the parts, and how it ended."""
    lines = EventLines()
    fragments: list[Fragment] = []
    try:
        for piece in pieces:
            fragments += reading.read(lines.payloads(piece))
        fragments += reading.read([payload for _, payload in lines.end()])
        fragments += reading.rest()
        return assemble(fragments), reading.finished()
    except ModelFailure as failure:
        return assemble(fragments), failure


def ask(text: str = "hi", **more: Any) -> ModelRequest:
    return ModelRequest(messages=(Message("user", (Text(text),)),), **more)


async def hear(model: Model, request: ModelRequest | None = None) -> Played:
    fragments: list[Fragment] = []
    found: ModelFailure | None = None
    try:
        async for burst in model.stream(request or ask()):
            assert burst, "a burst is never empty"
            fragments += burst
    except ModelFailure as failure:
        found = failure
    if found is not None:
        assert KEY not in str(found)
        assert str(found).startswith(f"{model.name}: ")
        return assemble(fragments), found
    last = fragments.pop()
    assert isinstance(last, Finished)
    assert not any(isinstance(fragment, Finished) for fragment in fragments)
    return assemble(fragments), last


def quickest(measure: Callable[[], float]) -> float:
    """The least of a few tries: others use this machine too."""
    return min(measure() for _ in range(4))


async def seconds_until_gone(listen: Callable[[], Any], server: ProviderServer) -> float:
    """Cancel while the provider is silent; the seconds until the server saw that its client had gone."""
    task = asyncio.ensure_future(listen())
    await asyncio.to_thread(server.wait_until_open)
    await asyncio.sleep(0.1)
    began = time.monotonic()
    task.cancel()
    while server.open_connections:
        assert time.monotonic() - began < 30
        await asyncio.sleep(0.001)
    took_s = time.monotonic() - began
    await asyncio.wait([task])
    assert task.cancelled()
    return took_s
