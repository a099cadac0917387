"""Options as people give them: checked when they are given, with an error that says what was found."""

from __future__ import annotations

import math
from typing import Any, TypeVar

from turncell.errors import UsageError

T = TypeVar("T")


def one_of(name: str, value: T, allowed: tuple[T, ...]) -> T:
    if value not in allowed:
        raise UsageError(f"{name} is {value!r}; use one of {', '.join(map(str, allowed))}")
    return value


def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name} is {value!r}; use a text")
    return value


def whole(name: str, value: Any, *, least: int) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} is {value!r}; use a whole number, {least} or more")
    return value


def number(name: str, value: Any, *, has_zero: bool = False, is_needed: bool = False) -> float | None:
    """A finite number of seconds (or of anything), more than 0, or from 0 on; None stays None, unless it `is_needed`."""
    if value is None and not is_needed:
        return None
    is_number = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
    if not is_number or value < 0 or (value == 0 and not has_zero):
        raise UsageError(f"{name} is {value!r}; use a number, {'0 or more' if has_zero else 'more than 0'}")
    return float(value)
