"""What a call has made for people: figures, tables and files, read from what a tool says and trusted in nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from turncell.core.events import File
from turncell.core.parts import IMAGE_TYPES, Json
from turncell.frames.visible import visible

TABLE = "application/vnd.turncell.table+json"
MOST_SHOWN_CHARS = 3_000_000
"""Of the base64 of an image of an answer that stays in a notebook, which has it twice."""
MAX_ROWS = 50
MAX_CELL = 200
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True, slots=True)
class Figure:
    url: str
    """As a `data:` URL."""
    words: str


@dataclass(frozen=True, slots=True)
class Table:
    columns: list[str]
    rows: list[list[str]]
    """At most MAX_ROWS of them, each as long as the columns."""
    is_number: list[bool]
    total: int
    """How many rows there are, as far as the tool says."""

    @property
    def more(self) -> str:
        return f"{len(self.rows)} of {self.total:,} rows" if self.total > len(self.rows) else ""


def figure_of(bundle: dict[str, Json]) -> Figure | None:
    for kind in IMAGE_TYPES:
        data = bundle.get(kind)
        packed = "".join(data.split()) if isinstance(data, str) else ""
        if _BASE64.fullmatch(packed):
            return Figure(f"data:{kind};base64,{packed}", words_of(bundle))
    return None


def words_of(bundle: dict[str, Json]) -> str:
    words = bundle.get("text/plain")
    return words if isinstance(words, str) else ""


def table_of(bundle: dict[str, Json]) -> Table | None:
    """The table in a mime bundle: `columns`, `rows` as lists, and `shape` with the number of rows before any cut."""
    table = bundle.get(TABLE)
    if not isinstance(table, dict):
        return None
    columns, rows, shape = table.get("columns"), table.get("rows"), table.get("shape")
    if not isinstance(columns, list) or not isinstance(rows, list):
        return None
    shown = [row for row in rows[:MAX_ROWS] if isinstance(row, list)]
    if len(shown) < len(rows[:MAX_ROWS]):
        return None
    cells = [[row[at] if at < len(row) else None for at in range(len(columns))] for row in shown]
    total = shape[0] if isinstance(shape, list) and shape and isinstance(shape[0], int) else len(rows)
    return Table(
        [_cell(name) for name in columns],
        [[_cell(value) for value in row] for row in cells],
        [_is_number([row[at] for row in cells]) for at in range(len(columns))],
        total,
    )


def _is_number(values: list[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)


def _cell(value: Json) -> str:
    from turncell.frames.words import json_text

    return "" if value is None else visible(value if isinstance(value, str) else json_text(value))[:MAX_CELL]


def file_line(file: File) -> tuple[str, str]:
    """The path of a file, and its size in words, "" where nobody said.

    >>> file_line(File("a.csv", 12_480)), file_line(File("b"))
    (('a.csv', '12.5 kB'), ('b', ''))
    """
    return file.path, "" if file.bytes is None else size(file.bytes)


def size(count: int) -> str:
    """
    >>> size(840), size(12_480), size(3_100_000)
    ('840 B', '12.5 kB', '3.1 MB')
    """
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e3:.1f} kB" if count < 999_950 else f"{count / 1e6:.1f} MB"
