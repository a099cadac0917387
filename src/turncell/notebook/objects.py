"""Objects of a notebook in words for a model: what they are, and as much of them as fits. Nothing here raises.

Known by the names of their classes, so that nothing is imported for it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any

from turncell.core.parts import Image
from turncell.runtime.images import MOST_BYTES, comes_from, image, png_of
from turncell.runtime.output import shorten, to_json

OBJECT_CHARS = 8_000
"""Of one object; the rest is cut with a visible mark."""
LINE_CHARS = 120
_FAILED = (Exception, SystemExit, GeneratorExit)
"""What the code of somebody's object may raise; interrupts are for whoever waits."""
_HEAD_ROWS = 5
_COLUMNS = 30
_ITEMS = 20


def as_text(value: Any) -> str:
    """An object as a model reads it: text as it is, tables by shape, types and head, the rest by its JSON or repr.

    >>> as_text({"a": 1}), as_text("as it is"), as_text(2.5)
    ('{"a": 1}', 'as it is', '2.5')
    """
    try:
        return shorten(_text(value), OBJECT_CHARS)
    except _FAILED as error:
        return f"<a {type(value).__name__} that cannot be shown: {type(error).__name__}>"


def in_a_line(value: Any) -> str:
    """What it is, in a few words.

    >>> in_a_line([1, 2, 3]), in_a_line("abc")
    ('list of 3: [1, 2, 3]', "str: 'abc'")
    """
    try:
        text = _line(value)
    except _FAILED as error:
        text = f"{type(value).__name__} that cannot be shown: {type(error).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= LINE_CHARS else f"{text[: LINE_CHARS - 1]}…"


def picture_of(value: Any) -> Image | None:
    """The image of a figure or of a picture; None for what is none, or is too large to be sent."""
    with suppress(*_FAILED):
        if isinstance(value, Image):
            return image(value)
        data = png_of(value)
        if data is not None and len(data) <= MOST_BYTES:
            return image(data)
    return None


def is_table(value: Any) -> bool:
    return comes_from(value, "pandas", "DataFrame", "Series") or comes_from(value, "polars", "DataFrame", "Series")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    if comes_from(value, "pandas", "DataFrame"):
        return _frame(value)
    if comes_from(value, "pandas", "Series"):
        head = value.head(_HEAD_ROWS).to_string(name=False)
        return f"Series {value.name!r}, {len(value):,} values of {value.dtype}{_first(len(value))}:\n{head}"
    if comes_from(value, "numpy", "ndarray"):
        import numpy

        shown = numpy.array2string(value, threshold=100, edgeitems=3)
        return f"array of shape {value.shape}, {value.dtype}:\n{shown}"
    if comes_from(value, "numpy", "generic"):
        return str(value)
    if isinstance(value, ModuleType):
        return f"module {value.__name__}: {(inspect.getdoc(value) or 'no documentation').splitlines()[0]}"
    if inspect.isroutine(value) or inspect.isclass(value):
        return _code(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        plain = to_json(value)
        text = json.dumps(plain, ensure_ascii=False)
        return text if len(text) <= OBJECT_CHARS else f"{_line(value)}\n{text}"
    return repr(value)


def _frame(value: Any) -> str:
    rows, columns = value.shape
    kinds = [f"{name} ({kind})" for name, kind in list(value.dtypes.items())[:_COLUMNS]]
    if columns > _COLUMNS:
        kinds.append(f"and {columns - _COLUMNS:,} more")
    head = value.head(_HEAD_ROWS).to_string(max_cols=_COLUMNS, max_colwidth=60)
    return (
        f"DataFrame, {rows:,} rows × {columns:,} columns: {', '.join(kinds)}{_first(rows)}"
        + (f":\n{head}" if rows else "")
    )  # fmt: skip


def _first(count: int) -> str:
    return f"; the first {_HEAD_ROWS}" if count > _HEAD_ROWS else ""


def _code(value: Any) -> str:
    """A function or a class: its source where there is one, else signature and documentation."""
    with suppress(Exception):
        return inspect.getsource(inspect.unwrap(value))
    name = getattr(value, "__qualname__", type(value).__name__)
    signature = "(...)"
    with suppress(ValueError, TypeError):
        signature = str(inspect.signature(value))
    return f"{name}{signature}\n{inspect.getdoc(value) or ''}".strip()


def _line(value: Any) -> str:
    kind = type(value).__name__
    if comes_from(value, "pandas", "DataFrame"):
        return f"DataFrame, {value.shape[0]:,} rows × {value.shape[1]:,} columns: {', '.join(map(str, value.columns[:_ITEMS]))}"
    if comes_from(value, "pandas", "Series") or comes_from(value, "numpy", "ndarray"):
        return f"{kind} of shape {value.shape}, {value.dtype}"
    if isinstance(value, ModuleType):
        return f"module {value.__name__}"
    if inspect.isroutine(value) or inspect.isclass(value):
        with suppress(ValueError, TypeError):
            return f"{'class' if inspect.isclass(value) else 'function'} {value.__name__}{inspect.signature(value)}"
        return f"{kind} {getattr(value, '__name__', '')}"
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        few = list(value)[:_ITEMS]
        plain = to_json({key: value[key] for key in few} if isinstance(value, Mapping) else few)
        return f"{kind} of {len(value):,}: {json.dumps(plain, ensure_ascii=False)}"
    return f"{kind}: {repr(value)[: 2 * LINE_CHARS]}"
