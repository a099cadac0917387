"""What a tool returned, split into what the model reads (`content`) and what people and programs see (`details`).

Whatever a tool returns becomes text that every provider takes and a value that JSON can hold; nothing a tool returns
may poison the next model call.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from turncell.core.parts import Json

MODEL_LIMIT = 50_000
"""Characters of one result that the model reads; the rest is cut with a visible mark."""
DETAILS_LIMIT = 250_000
"""Characters of JSON beyond which a returned value is not kept beside its text: it would travel to every view."""
_DEPTH = 20


@dataclass(frozen=True, slots=True)
class Output:
    """A tool may return one of these to say itself what the model reads and what people see."""

    content: str
    details: Json = None


def to_output(value: Any) -> Output:
    """Any returned value as an Output.

    >>> to_output({"city": "Oslo", "temp_c": 3.5}).content
    '{"city": "Oslo", "temp_c": 3.5}'
    >>> to_output(None).content
    'Done. The tool returned nothing.'
    """
    if isinstance(value, Output):
        return Output(_cut(_clean(value.content)), to_json(value.details))
    if value is None:
        return Output("Done. The tool returned nothing.")
    if isinstance(value, str):
        return Output(_cut(_clean(value)))
    if isinstance(value, bytes | bytearray):
        return Output(f"{len(value):,} bytes of binary data, not shown.")
    if _is_table(value):
        wide = {"max_cols": 20} if hasattr(value, "columns") else {}
        return Output(_cut(value.to_string(max_rows=30, **wide)), None)
    plain = to_json(value)
    text = json.dumps(plain, ensure_ascii=False)
    return Output(_cut(_clean(text)), plain if len(text) <= DETAILS_LIMIT else None)


def to_json(value: Any, depth: int = 0) -> Json:
    """The nearest value that JSON can hold: other objects become their repr, NaN and infinities become null."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth >= _DEPTH:
        return _clean(repr(value)[:1000])
    if isinstance(value, Mapping):
        return {str(key): to_json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item, depth + 1) for item in value]
    if hasattr(value, "model_dump"):
        return to_json(value.model_dump(mode="json"), depth + 1)
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value), depth + 1)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a NumPy scalar
        return to_json(value.item(), depth + 1)
    return _clean(repr(value)[:10_000])


def _is_table(value: Any) -> bool:
    return type(value).__module__.split(".")[0] == "pandas" and hasattr(value, "to_string")


def _clean(text: str) -> str:
    """Lone surrogates, which no provider takes, become U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    return text


def _cut(text: str) -> str:
    if len(text) <= MODEL_LIMIT:
        return text
    return f"{text[:MODEL_LIMIT]}\n[cut here: {len(text) - MODEL_LIMIT:,} more characters of {len(text):,}]"
