"""Events as JSON bytes and back.

Encoding is orjson, the quickest there is for dataclasses. It refuses lone surrogates, which models and tools do
produce; those texts take the standard library's way, where every such character becomes an ASCII escape.
It also reads integers beyond 64 bits as floats, so what has one is decoded by the standard library.
Decoding validates with pydantic: a journal is data from outside, and nothing in it names a class to import.
"""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, get_args

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


def decode_finite(text: str) -> Json:
    """Parse JSON that a model has written, to the letter. ValueError for NaN, the infinities and what is no JSON;
    RecursionError for what is nested too deeply.

    >>> decode_finite('{"n": 12345678901234567890}')
    {'n': 12345678901234567890}
    """
    if _LONG_NUMBER.search(text) is None:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:  # what it refuses, the standard library says in known words, or can read
            pass
    return _FINITE.decode(text)


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


_LONG_NUMBER = re.compile(r"\d{19}")
_FINITE = json.JSONDecoder(parse_constant=_no_constant)
"""`json.loads` would make one for each text."""
MAX_VALUES = 500_000
"""Values of one JSON text from outside: each takes 60 bytes and more of memory, and as few as two in the text."""
_TOKENS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[{,]', re.DOTALL)


def decode_foreign(data: bytes) -> Json:
    """`decode_json` for texts from outside. ValueError before anything is built for one of more than MAX_VALUES values."""
    if len(data) > MAX_VALUES:
        count = 1
        for token in _TOKENS.finditer(data):
            count += data[token.start()] != 0x22  # a string counts by the comma or bracket before it
            if count > MAX_VALUES:
                raise ValueError(f"more than {MAX_VALUES} values in {len(data)} bytes")
    return decode_json(data)


def decode(data: bytes | str) -> events.Event:
    """The event that `encode` wrote. ValueError, with `why_refused` as its words, for anything else."""
    try:
        return event_adapter().validate_python(decode_json(data))
    except (ValueError, RecursionError) as error:
        raise ValueError(why_refused(error)) from error


def why_refused(error: Exception) -> str:
    """Why data from outside was refused, in one line: of all that pydantic says the first place, and what stands there.

    Its own words begin with the names of all events, between which nobody finds the one thing that is wrong.

    >>> try:
    ...     event_adapter().validate_python({"type": "Nothing"})
    ... except ValueError as error:
    ...     why_refused(error)
    "type is 'Nothing', which this turncell does not know"
    """
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return f"no JSON: {what}" if isinstance(error, json.JSONDecodeError | RecursionError) else what
    first = error.errors(include_url=False)[0]
    place, found = ".".join(map(str, first["loc"])), reprlib.repr(first["input"])
    if first["type"] == "union_tag_invalid":
        return f"type is {first['ctx']['tag']!r:.60}, which this turncell does not know"
    if first["type"] == "union_tag_not_found":
        return f"there is no type in {found}"
    if first["type"] == "missing":
        return f"{place} is missing"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{place} is no field of it"
    return f"{place} is {found}: {first['msg'][:1].lower()}{first['msg'][1:]}".removeprefix(" is ")


BLOB_BYTES = 65_536
"""A field whose JSON is larger is kept once, by the hash of its content."""


def outline(payload: bytes) -> tuple[bytes, dict[str, bytes]]:
    """The JSON of an event with each large field replaced by `{"$blob": digest}`, and those fields' JSON by digest.

    >>> small, blobs = outline(b'{"type":"X","content":"' + b"a" * 70_000 + b'"}')
    >>> len(small) < 200, [len(blob) for blob in blobs.values()]
    (True, [70002])
    """
    plain, blobs = decode_json(payload), {}
    for name, value in plain.items():
        if isinstance(value, str | list | dict):
            field = encode(value)
            # A value that looks like a reference is taken out too: it must not be read as one.
            if len(field) > BLOB_BYTES or b'"$blob"' in field:
                digest = hashlib.sha256(field).hexdigest()
                blobs[digest] = field
                plain[name] = {"$blob": digest}
    return encode(plain), blobs


def inline(payload: bytes, blob: Callable[[str], bytes]) -> bytes:
    """What `outline` has taken out, put in again: `blob(digest)` gives the JSON of a field."""
    plain = decode_json(payload)
    for name, value in plain.items():
        if isinstance(value, dict) and value.keys() == {"$blob"}:
            plain[name] = decode_json(blob(str(value["$blob"])))
    return encode(plain)


@cache
def event_adapter() -> TypeAdapter[events.Event]:
    """The discriminated union of all events; built on first use, because pydantic takes 50 ms to import."""
    from typing import Annotated

    from pydantic import Field, TypeAdapter

    return TypeAdapter(Annotated[events.Event, Field(discriminator="type")])


@cache
def recorded_types() -> frozenset[str]:
    """The names that the type of a recorded event may have."""
    return frozenset(str(kind.__name__) for kind in get_args(events.Event) if issubclass(kind, events.Recorded))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} is not a value that JSON can hold: {value!r}")
