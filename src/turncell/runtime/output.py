"""What a tool returned, split into what the model reads (`content`), what programs get (`details`), and what people
see besides (`display`, `files`).

Whatever a tool returns becomes text that every provider takes and values that JSON can hold, of a bounded size; nothing
a tool returns may poison the next model call. Nothing is consumed: a generator that a tool returned stays as it is.
"""

from __future__ import annotations

import base64
import json
import math
import mimetypes
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import PurePath
from typing import Any, TypeAlias
from uuid import UUID

from turncell.core.events import File
from turncell.core.parts import SEEN, Image, Json
from turncell.errors import UsageError
from turncell.runtime.images import comes_from, image, png_of

MODEL_LIMIT = 50_000
"""Characters of one result that the model reads; the rest is cut with a visible mark."""
SIDE_LIMIT = 10_000
"""Characters of what is said beside results: a preview, a note, a notice, what an attempt has failed of."""
DETAILS_LIMIT = 2_000_000
"""Characters of what is kept of a result for programs beside the text that the model reads: of a returned value all or
nothing, of a text that was cut for the model the beginning."""
DISPLAY_LIMIT_BYTES = 2_000_000
"""All that one result shows to people; what goes beyond it is left out with a visible mark."""
MOST_IMAGES = 20
"""Images that one result may have inside of a list, tuple or dict: each is drawn, and sent with every later step."""
TABLE = "application/vnd.turncell.table+json"
"""`{"columns": [text...], "rows": [[value...]...], "shape": [rows, columns]}`: the upper left corner of a table.

`shape` is that of the whole table. An index that is not just row numbers stands in front, as columns of its own.
"""
_TABLE_ROWS, _TABLE_COLUMNS, _CELL_CHARS = 30, 20, 200
_DEPTH = 20
_ITEMS = 100_000
_CHARS = 2_000_000

Bundle: TypeAlias = Mapping[str, Json]
"""One thing to show, in one or several forms by media type; images as base64 text, as Jupyter has them."""


@dataclass(frozen=True, slots=True)
class Output:
    """A tool returns one of these to say separately what the model reads and what people see.

    content    for the model: text, or any value, which becomes text as if it had been returned itself. The model reads at
               most 50,000 characters; `details["text"]` has the rest. Of a figure or image it sees the image, if it can, also
               of up to 20 inside of a list, tuple or dict, where "[image 1]" stands in the text
    details    for programs: a JSON value
    files      for people: paths or `File`s that the call has produced
    display    for people: figures, tables, or mime bundles
    terminate  whether the run ends after this call
    """

    content: Any
    details: Json = None
    files: Sequence[str | os.PathLike[str] | File] = ()
    display: Sequence[Any] = ()
    terminate: bool = False


def to_output(value: Any) -> Output:
    """Any returned value as an Output whose `content` is text, `files` are Files and `display` are bundles.

    >>> to_output({"city": "Oslo", "temp_c": 3.5}).content
    '{"city": "Oslo", "temp_c": 3.5}'
    >>> to_output(None).content
    'Done. The tool returned nothing.'
    """
    if isinstance(value, Output):
        return _completed(value)
    if value is None:
        return Output("Done. The tool returned nothing.")
    if isinstance(value, str):
        said = str.__str__(value)
        return Output(_text(said), {"text": shorten(said, DETAILS_LIMIT)} if len(said) > MODEL_LIMIT else None)
    if isinstance(value, bytes | bytearray | memoryview):
        return Output(_binary(value))
    if isinstance(value, Iterator | AsyncIterator):
        return Output(f"A {type(value).__name__} that nobody has read; return what is in it, as a list.")
    if comes_from(value, "pandas", "DataFrame", "Series"):
        return _table(value)
    if (picture := _picture(value)) is not None:
        return picture
    images: list[Bundle] = []
    reader = _Reader(images=images)
    plain = reader.read(value)
    # What is not JSON at all is known by its repr, which needs no quotes.
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    content = _text(text)
    if reader.is_cut and len(text) > MODEL_LIMIT:
        content = f"{text[:MODEL_LIMIT]}\n[cut here: the whole is too large to be read]"
    is_kept = len(text) <= DETAILS_LIMIT and not isinstance(plain, str) and not reader.is_cut
    return Output(content, plain if is_kept else None, display=tuple(images))


def to_json(value: Any) -> Json:
    """The nearest value that JSON can hold: other objects become their repr, NaN and infinities become null.

    Bounded, with a mark where something is left out: 100,000 items, 2 million characters, 20 levels.
    """
    return _Reader().read(value)


def _completed(given: Output) -> Output:
    """An Output as its author wrote it, made fit to be kept."""
    inner = to_output(given.content)
    listed: Any = () if given.files is None else given.files  # type: ignore[redundant-expr]
    is_one = isinstance(listed, str | bytes | os.PathLike | File) or not isinstance(listed, Iterable)
    files: Iterable[Any] = [listed] if is_one else listed
    shown: Sequence[Any] = given.display if isinstance(given.display, list | tuple) else [given.display]
    found, missing = _found(files)
    bundles = [bundle for item in shown for bundle in _bundles(item)]
    return Output(
        inner.content + "".join(f"\n[no such file: {path}]" for path in missing),
        inner.details if given.details is None else to_json(given.details),
        (*inner.files, *found),
        _within_limit([*inner.display, *bundles]),
        inner.terminate or bool(given.terminate),
    )


# --- files and bundles ---


def _found(files: Iterable[Any]) -> tuple[list[File], list[str]]:
    found: list[File] = []
    missing: list[str] = []
    for item in files:
        try:
            file = item if isinstance(item, File) else File(os.fspath(item))
            path = _text(os.fsdecode(file.path))
            is_folder, size = os.path.isdir(file.path), os.stat(file.path).st_size
        except (OSError, ValueError, TypeError):  # not there, with a NUL in it, not a path at all
            missing.append(_text(str(item.path if isinstance(item, File) else item)))
            continue
        kind = "inode/directory" if is_folder else mimetypes.guess_type(path)[0] or "application/octet-stream"
        size_bytes = None if is_folder else size
        found.append(File(path, size_bytes if file.bytes is None else file.bytes, file.media_type or kind))
    return found, missing


def _bundles(item: Any) -> list[Bundle]:
    if isinstance(item, Mapping) and item and all(isinstance(kind, str) and "/" in kind for kind in item):
        return [{kind: _shown(data) for kind, data in item.items()}]
    output = to_output(item)
    # What stands in `display` is for people; what the model is to see is returned, or marked by its author.
    plain: list[Bundle] = [{kind: data for kind, data in bundle.items() if kind != SEEN} for bundle in output.display]
    return plain or [{"text/plain": output.content}]


def _shown(data: Any) -> Json:
    if isinstance(data, bytes | bytearray):
        return base64.b64encode(data).decode("ascii")
    return clean(data) if isinstance(data, str) else to_json(data)


def _within_limit(bundles: Iterable[Bundle]) -> tuple[Bundle, ...]:
    kept: list[Bundle] = []
    left_bytes = DISPLAY_LIMIT_BYTES
    for bundle in bundles:
        size_bytes = sum(len(d.encode() if isinstance(d, str) else json.dumps(d)) for d in bundle.values())
        if size_bytes <= left_bytes:
            left_bytes -= size_bytes
            kept.append(bundle)
        else:
            kinds = ", ".join(kind for kind in bundle if kind != SEEN)
            kept.append({"text/plain": f"[left out: {kinds} of {size_bytes:,} bytes, beyond {DISPLAY_LIMIT_BYTES:,}]"})
    return tuple(kept)


# --- tables and pictures: known by the names of their classes, so that nothing is imported for them ---


def _table(value: Any) -> Output:
    is_frame = hasattr(value, "columns")
    # All rows are padded to the width of the longest cell.
    wide = {"max_cols": _TABLE_COLUMNS, "max_colwidth": 2_000} if is_frame else {}
    content = _text(value.to_string(max_rows=_TABLE_ROWS, **wide))
    corner = value.iloc[:_TABLE_ROWS, :_TABLE_COLUMNS] if is_frame else value.iloc[:_TABLE_ROWS].to_frame()
    columns: list[tuple[str, list[Any]]] = []
    if type(corner.index).__name__ != "RangeIndex":
        for level, name in enumerate(corner.index.names):
            columns.append(("" if name is None else str(name), list(corner.index.get_level_values(level))))
    # By position: two columns may have one name.
    columns += [(str(name), list(corner.iloc[:, place])) for place, name in enumerate(corner.columns)]
    columns = columns[:_TABLE_COLUMNS]
    bundle = {
        "columns": [_cell(name) for name, _ in columns],
        "rows": [[_cell(column[row]) for _, column in columns] for row in range(len(corner))],
        "shape": [len(value), value.shape[1] if is_frame else 1],
    }
    return Output(content, display=_within_limit([{TABLE: bundle}]))


def _cell(value: Any) -> Json:
    plain = _Reader(items=100, chars=2 * _CELL_CHARS).read(value)
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    if isinstance(plain, list | dict) or len(text) > _CELL_CHARS:
        return text if len(text) <= _CELL_CHARS else f"{text[:_CELL_CHARS]}…"
    return plain


def _is_picture(value: Any) -> bool:
    """Whether `_picture` is to be asked: it draws."""
    return (
        isinstance(value, Image)
        or comes_from(value, "matplotlib", "Figure", "Axes", "SubFigure")
        or comes_from(value, "PIL", "Image")
        or callable(getattr(type(value), "_repr_png_", None))
    )


def _picture(value: Any) -> Output | None:
    """What is, or shows itself as, an image: people see it, and so does the model, if it can."""
    if isinstance(value, Image):
        if value.media_type is None:
            return Output(f"An image: {_text(value.data)}")
        return Output("An image.", display=_within_limit([{image(value).media_type or "": value.data, SEEN: True}]))
    data = png_of(value)
    if data is not None:
        return _png("figure" if comes_from(value, "matplotlib", "Figure", "Axes", "SubFigure") else "image", data)
    if comes_from(value, "PIL", "Image"):
        return Output(f"An image of mode {value.mode}, {value.width:,} × {value.height:,} pixels, not shown.")
    return None


def _png(word: str, data: bytes) -> Output:
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    article = "An" if word == "image" else "A"
    shown = _within_limit([{"image/png": _shown(data), SEEN: True}])
    return Output(f"{article} {word}, {width} × {height} pixels.", display=shown)


# --- any value as JSON ---


class _Reader:
    """Reads one value, and stops where it becomes too much. `is_cut` says that something was left out.

    `images` gets the pictures that are found inside, of DISPLAY_LIMIT_BYTES in all; without it they are values like others.
    """

    def __init__(self, items: int = _ITEMS, chars: int = _CHARS, images: list[Bundle] | None = None) -> None:
        self.items = items
        self.chars = chars
        self._images = images
        self._drawn = 0
        self.is_cut = False
        self._open: set[int] = set()

    def read(self, value: Any) -> Json:
        self.items -= 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Enum):
            return self.read(value.value)
        if isinstance(value, int):
            return _integer(int(value))
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else None
        if isinstance(value, str):
            return self._string(str.__str__(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return _binary(value)
        if type(value).__name__ in ("NaTType", "NAType"):
            return None
        if isinstance(value, date | time):
            return value.isoformat()
        if isinstance(value, Decimal | UUID | PurePath | timedelta):
            return self._string(str(value))
        if id(value) in self._open:
            return f"[a {type(value).__name__} that contains itself]"
        if len(self._open) >= _DEPTH:
            self.is_cut = True
            return f"[a {type(value).__name__}, too deep to be read]"
        self._open.add(id(value))
        try:
            return self._inside(value)
        except Exception:  # somebody else's container or object, which fails to show itself
            return self._repr(value)
        finally:
            self._open.discard(id(value))

    def _inside(self, value: Any) -> Json:
        if isinstance(value, Mapping):
            return self._mapping(value.items(), len(value))
        if isinstance(value, list | tuple | set | frozenset):
            read: list[Json] = []
            for item in value:
                if self._is_spent():
                    return [*read, f"[left out: {len(value) - len(read):,} more items]"]
                read.append(self.read(item))
            return read
        if isinstance(value, type):
            return self._repr(value)
        if self._images is not None and _is_picture(value):
            return self._string(self._picture(value, self._images))
        if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a NumPy scalar
            item = value.item()
            return self.read(item) if type(item) is not type(value) else self._repr(value)
        if hasattr(value, "model_dump"):
            return self.read(value.model_dump(mode="json"))
        if is_dataclass(value):
            # Not asdict, which copies everything first and never ends where a value contains itself.
            return self._mapping([(f.name, getattr(value, f.name)) for f in fields(value)], len(fields(value)))
        return self._repr(value)

    def _picture(self, value: Any, images: list[Bundle]) -> str:
        """What stands for a picture in the text."""
        self._drawn += 1
        if self._drawn > MOST_IMAGES:
            return f"[an image, left out: more than {MOST_IMAGES}]"
        try:
            found = _picture(value)
        except UsageError as error:
            return f"[an image that cannot be shown: {error}]"
        if found is None:
            return repr(value)[:10_000]
        if not found.display:
            return f"[{found.content}]"
        *_, shown = _within_limit([*images, *found.display])
        if SEEN not in shown:
            return str(shown["text/plain"])
        images.append(shown)
        return f"[image {len(images)}]"

    def _mapping(self, items: Iterable[tuple[Any, Any]], length: int) -> Json:
        read: dict[str, Json] = {}
        # A mapping may give more than its length, and for ever.
        for seen, (key, item) in enumerate(islice(items, length)):
            if self._is_spent():
                return {**read, "[left out]": f"{length - seen:,} more items"}
            read[self._string(key if isinstance(key, str) else str(key))] = self.read(item)
        return read

    def _is_spent(self) -> bool:
        if self.items > 0 and self.chars > 0:
            return False
        self.is_cut = True
        return True

    def _string(self, text: str) -> str:
        if len(text) > self.chars:
            self.is_cut = True
            text = f"{text[: self.chars]}[cut here: {len(text) - self.chars:,} more characters]"
        self.chars = max(0, self.chars - len(text))
        return clean(text)

    def _repr(self, value: Any) -> str:
        try:
            text = repr(value)
        except Exception as error:
            text = f"<a {type(value).__name__} that cannot be shown: {type(error).__name__}>"
        return self._string(text[:10_000])


def _integer(value: int) -> Json:
    # Python refuses to write more than some 4,300 digits.
    return value if value.bit_length() < 10_000 else f"[an integer of {value.bit_length():,} bits]"


def _binary(value: bytes | bytearray | memoryview) -> str:
    size_bytes = value.nbytes if isinstance(value, memoryview) else len(value)
    return f"{size_bytes:,} bytes of binary data, not shown."


def clean(text: str) -> str:
    """Lone surrogates, which no provider takes, become U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    return text


def _text(text: str) -> str:
    """As the model reads it."""
    return shorten(text, MODEL_LIMIT)


def shorten(text: str, limit: int = SIDE_LIMIT) -> str:
    """Fit to be kept, with a visible mark where the rest was cut."""
    if len(text) <= limit:
        return clean(text)
    return f"{clean(text[:limit])}\n[cut here: {len(text) - limit:,} more characters of {len(text):,}]"
