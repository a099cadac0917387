"""Budgets as values: what may be spent, what was, and the sentence that says which limit was passed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from turncell.errors import UsageError

Resource: TypeAlias = Literal["steps", "tokens", "usd", "seconds", "calls"]
RESOURCES: tuple[Resource, ...] = ("steps", "tokens", "usd", "seconds", "calls")
_COUNTED = ("steps", "tokens", "calls")
USD_TOLERANCE = 1e-9
"""US dollars that do not count: ten times 0.1 is a little more than 1 in floating point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that may be spent; None is unlimited. UsageError for what is not positive and finite.

    `seconds` are those of the clock on the wall. `unknown_prices`: whether a model call whose cost nobody knows ends
    what is limited in `usd`, or counts nothing.

    >>> Limits(usd=0.5, steps=10).usd
    0.5
    >>> Limits(steps=0)
    Traceback (most recent call last):
        ...
    turncell.errors.UsageError: the limit of steps is 0; use a whole number, 1 or more, or None for no limit
    """

    steps: int | None = None
    tokens: int | None = None
    usd: float | None = None
    seconds: float | None = None
    calls: int | None = None
    unknown_prices: Literal["stop", "ignore"] = "ignore"

    def __post_init__(self) -> None:
        for name in RESOURCES:
            limit = getattr(self, name)
            if limit is None:
                continue
            kinds = int if name in _COUNTED else (int, float)
            if isinstance(limit, bool) or not isinstance(limit, kinds) or not 0 < limit < math.inf:
                what = "a whole number, 1 or more" if name in _COUNTED else "a number, more than 0"
                raise UsageError(f"the limit of {name} is {limit!r}; use {what}, or None for no limit")
        if self.unknown_prices not in ("stop", "ignore"):
            raise UsageError(f"unknown_prices is {self.unknown_prices!r}; use 'stop' or 'ignore'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What was spent. `has_unknown_cost`: there were model calls whose cost nobody knows; `usd` lacks them."""

    steps: int = 0
    tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0
    calls: int = 0
    has_unknown_cost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What may still be spent; None is unlimited."""

    steps: int | None = None
    tokens: int | None = None
    usd: float | None = None
    seconds: float | None = None
    calls: int | None = None


def exceeded(limits: Limits, spent: Spent) -> str | None:
    """The first limit that was passed, in a sentence; None while all hold.

    What is used up to the last is not passed, but for seconds: no more of them can be given.

    >>> exceeded(Limits(usd=0.5), Spent(usd=0.75))
    'the budget is used up: $0.7500 spent, the limit is $0.5000'
    >>> exceeded(Limits(usd=0.5), Spent(usd=0.5)) is None
    True
    """
    for name in RESOURCES:
        limit, found = getattr(limits, name), getattr(spent, name)
        if limit is not None and is_over(name, found, limit):
            return f"the budget is used up: {amount(name, found)} spent, the limit is {amount(name, limit)}"
    if spent.has_unknown_cost and limits.usd is not None and limits.unknown_prices == "stop":
        return (
            f"the budget of {amount('usd', limits.usd)} cannot be kept: the cost of a model call is unknown; give its "
            "model a price, or set unknown_prices='ignore'"
        )
    return None


def is_over(name: Resource, amount: float, limit: float) -> bool:
    """Whether this amount of a resource is more than the limit lets through."""
    if name == "seconds":
        return amount >= limit
    return amount > limit + (USD_TOLERANCE if name == "usd" else 0)


def amount(name: Resource, value: float) -> str:
    """An amount with its unit.

    >>> amount("usd", 0.5), amount("tokens", 1200), amount("seconds", 90.25), amount("steps", 1)
    ('$0.5000', '1200 tokens', '90.2 seconds', '1 step')
    >>> amount("usd", 0.00002)
    '$0.000020'
    """
    if name == "usd":
        return f"${value:.{max(4, 1 - math.floor(math.log10(value))) if value > 0 else 4}f}"
    if name == "seconds":
        return f"{value:.1f} seconds"
    return f"{value} {name if value != 1 else name[:-1]}"
