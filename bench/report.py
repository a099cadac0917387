"""Markdown tables, and targets said beside what was found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A figure, and what it must be."""

    what: str
    found: float
    limit: float
    unit: str = ""
    is_at_least: bool = False

    @property
    def is_met(self) -> bool:
        return self.found >= self.limit if self.is_at_least else self.found <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.is_at_least else "≤"
        verdict = "met" if self.is_met else "**MISSED**"
        return f"{self.what}: {number(self.found)}{self.unit} (target {sign} {self.limit:g}{self.unit}): {verdict}"


def number(value: float | str | None) -> str:
    """Three digits that count.

    >>> number(1234.5), number(0.01234), number(None)
    ('1,234', '0.0123', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(header: Sequence[str], rows: Iterable[Sequence[float | str | None]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(map(number, row)) + " |" for row in rows]
    return "\n".join(lines)


def beside_parts(what: str, raw: float, parts: float, ours: float) -> str:
    """What of a cost is that of the libraries and threads which a runtime here needs: see `ways.Parts`."""
    return f"The parts of {what} alone cost {parts / raw:.3g} × raw, turncell {ours / parts:.3g} × the parts."
