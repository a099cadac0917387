"""Events as JSON bytes and back.

Encoding is orjson, the quickest there is for dataclasses. It refuses lone surrogates, which models and tools do
produce; those texts take the standard library's way, where every such character becomes an ASCII escape.
It also reads integers beyond 64 bits as floats, so what has one is decoded by the standard library.
Decoding validates with pydantic: a journal is data from outside, and nothing in it names a class to import.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson

from turncell.core import events
from turncell.core.parts import Json

if TYPE_CHECKING:
    from pydantic import TypeAdapter


_BIG_INTEGER = re.compile(rb"\d{19}")


def encode(value: Any) -> bytes:
    """JSON of an event, a state, or plain JSON values. NaN and infinities become null."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return json.dumps(value, default=_plain, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def decode_json(data: bytes | str) -> Json:
    """Parse JSON to the letter: lone surrogates and integers of any size included."""
    if _BIG_INTEGER.search(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")):
        return json.loads(data)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data)


def decode(data: bytes | str) -> events.Event:
    """The event that `encode` wrote. Raises pydantic's ValidationError for anything else."""
    return event_adapter().validate_python(decode_json(data))


@cache
def event_adapter() -> TypeAdapter[events.Event]:
    """The discriminated union of all events; built on first use, because pydantic takes 50 ms to import."""
    from typing import Annotated

    from pydantic import Field, TypeAdapter

    return TypeAdapter(Annotated[events.Event, Field(discriminator="type")])


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} is not a value that JSON can hold: {value!r}")
