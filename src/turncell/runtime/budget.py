"""Budget: an account that runs share. What a step or a call may cost is reserved before, and settled after.

* A reservation is all or nothing, over the budget and all its parents: what others have reserved is taken already, so
  that parallel runs cannot spend the last dollar twice.
* What was really spent may be more than was reserved (nobody knows the length of an answer before). It is counted as
  it is, and the next reservation is refused.
* One lock for a budget with all its children: nothing waits in it, and no order of locks can be wrong.
* The parent's account holds what its children spend; a child's limits only narrow.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, Literal

from turncell.core.budget import RESOURCES, USD_TOLERANCE, Left, Limits, Resource, Spent, amount, exceeded, is_over
from turncell.errors import UsageError


class _Unchanged(Enum):
    AS_RESERVED = "as reserved"


AS_RESERVED: Final = _Unchanged.AS_RESERVED


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reservation that was not made: nothing has changed. `resource` is what there was too little of.

    `is_for_now`: others have set some of it aside, which may be more than they will take.
    """

    message: str
    resource: Resource
    is_for_now: bool = False


_NO_LIMITS: Final = Limits()


class Reservation:
    """An amount that is set aside. It ends once, by `settle` or `release`; after that both change nothing."""

    __slots__ = ("_budget", "calls", "is_open", "steps", "tokens", "usd")

    def __init__(self, budget: Budget, steps: int, tokens: int, usd: float, calls: int) -> None:
        self.steps, self.tokens, self.usd, self.calls = steps, tokens, usd, calls
        self.is_open = True
        self._budget = budget

    def settle(self, *, tokens: int | None = None, usd: float | _Unchanged | None = AS_RESERVED) -> None:
        """Count what was spent in the place of what was reserved; steps and calls count as reserved.

        `tokens=None`: nobody said, the reserved ones count. `usd=None`: the cost is unknown; the reserved amount
        counts, being the best guess there is, and `spent.has_unknown_cost` says so.
        """
        is_unknown = usd is None
        if tokens is None:
            tokens = self.tokens
        if usd is None or isinstance(usd, _Unchanged):
            usd = self.usd
        if not (0 <= tokens < math.inf and 0 <= usd < math.inf):
            raise _not_an_amount(tokens=tokens, usd=usd)
        self._budget._end(self, self.steps, tokens, usd, self.calls, is_unknown)

    def release(self) -> None:
        """Give back what was reserved: nothing was spent."""
        self._budget._end(self, 0, 0, 0.0, 0, False)


class _Account:
    """Amounts that are added up in place: two for each budget, which every step and call of a run changes."""

    __slots__ = ("calls", "has_unknown_cost", "steps", "tokens", "usd")

    def __init__(self) -> None:
        self.steps, self.tokens, self.usd, self.calls = 0, 0, 0.0, 0
        self.has_unknown_cost = False

    def add(self, steps: int, tokens: int, usd: float, calls: int) -> None:
        self.steps += steps
        self.tokens += tokens
        self.usd += usd
        self.calls += calls


class Budget:
    """What a run with its sub-agents, or a whole batch, may spend. None is no limit. May be used from any thread.

    tokens   input and output
    usd      US dollars
    seconds  since the first reservation, also while nothing runs
    steps    model calls
    calls    tool calls

    `unknown_prices` says what to do about `usd` when nobody knows what a model call costs: "ignore" counts nothing,
    "stop" refuses whatever comes next.

    >>> budget = Budget(usd=0.10, steps=2)
    >>> step = budget.reserve(steps=1, usd=0.04)
    >>> step.settle(usd=0.07)
    >>> budget.left().usd
    0.03
    >>> print(budget.reserve(steps=1, usd=0.04).message)
    the budget has $0.0300 left of $0.1000, but $0.0400 is wanted; raise it with budget.set(usd=...)
    """

    def __init__(
        self,
        *,
        tokens: int | None = None,
        usd: float | None = None,
        seconds: float | None = None,
        steps: int | None = None,
        calls: int | None = None,
        unknown_prices: Literal["stop", "ignore"] = "ignore",
        parent: Budget | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.parent = parent
        self._limits = Limits(
            steps=steps, tokens=tokens, usd=usd, seconds=seconds, calls=calls, unknown_prices=unknown_prices
        )
        self._has_limits = self._limits != _NO_LIMITS
        self._clock: Callable[[], float] = clock or (parent._clock if parent else time.monotonic)
        self._lock: threading.Lock = parent._lock if parent else threading.Lock()
        self._above: tuple[Budget, ...] = () if parent is None else (parent, *parent._above)
        self._settled = _Account()
        self._reserved = _Account()
        self._began_at: float | None = None

    def child(self, **limits: Any) -> Budget:
        """A budget inside this one: what it spends is spent here too. Limits as for `Budget`."""
        return Budget(parent=self, **limits)

    def is_within(self, other: Budget) -> bool:
        """Whether what it spends is spent in `other` too: it is that one, or a child of it."""
        return self is other or any(budget is other for budget in self._above)

    @property
    def limits(self) -> Limits:
        """Its own; those of its parents hold besides."""
        return self._limits

    @property
    def is_limited(self) -> bool:
        """Whether tokens or US dollars are limited, here or above: only then is it worth guessing what a step takes."""
        for budget in (self, *self._above):
            if budget._has_limits and (budget._limits.tokens is not None or budget._limits.usd is not None):
                return True
        return False

    @property
    def spent(self) -> Spent:
        """What was settled, here and in all children, and the seconds since the first reservation."""
        with self._lock:
            return self._spent()

    def left(self) -> Left:
        """What can still be reserved: of the limits here and above, the narrowest; never below 0."""
        with self._lock:
            left: dict[str, Any] = {}
            for budget in (self, *self._above):
                spent = budget._spent()
                for name in RESOURCES:
                    limit = getattr(budget._limits, name)
                    if limit is not None:
                        taken = budget._taken(name, spent)
                        left[name] = min(left.get(name, math.inf), _minus(name, limit, taken))
            return Left(**left)

    def set(self, **limits: Any) -> None:
        """Change limits while it is used: `set(usd=2.0, steps=None)`. One below what is spent stops what comes next."""
        known = (*RESOURCES, "unknown_prices")
        unknown = [name for name in limits if name not in known]
        if unknown:
            raise UsageError(f"a budget has no limit called {', '.join(map(repr, unknown))}; use {', '.join(known)}")
        with self._lock:
            self._limits = replace(self._limits, **limits)
            self._has_limits = self._limits != _NO_LIMITS

    def reserve(self, *, steps: int = 0, tokens: int = 0, usd: float = 0.0, calls: int = 0) -> Reservation | Refusal:
        """Set aside what is about to be spent, or say why not. Never waits."""
        if not (0 <= steps < math.inf and 0 <= tokens < math.inf and 0 <= usd < math.inf and 0 <= calls < math.inf):
            raise _not_an_amount(steps=steps, tokens=tokens, usd=usd, calls=calls)
        line = (self, *self._above)
        with self._lock:
            for budget in line:
                if budget._has_limits:
                    wanted = Spent(steps=steps, tokens=tokens, usd=usd, calls=calls)
                    refusal = budget._refusal(wanted, "the budget" if budget is self else "the parent's budget")
                    if refusal is not None:
                        return refusal
            for budget in line:
                if budget._began_at is None:
                    budget._began_at = budget._clock()
                budget._reserved.add(steps, tokens, usd, calls)
        return Reservation(self, steps, tokens, usd, calls)

    def charge(self, *, steps: int = 0, tokens: int = 0, usd: float | None = 0.0, calls: int = 0) -> None:
        """Count what was spent where this budget could not be asked (in another process), also beyond its limits.

        `usd=None`: nobody knows what it has cost.
        """
        known_usd = 0.0 if usd is None else usd
        if not (
            0 <= steps < math.inf and 0 <= tokens < math.inf and 0 <= known_usd < math.inf and 0 <= calls < math.inf
        ):
            raise _not_an_amount(steps=steps, tokens=tokens, usd=known_usd, calls=calls)
        with self._lock:
            for budget in (self, *self._above):
                if budget._began_at is None:
                    budget._began_at = budget._clock()
                budget._settled.add(steps, tokens, known_usd, calls)
                if usd is None:
                    budget._settled.has_unknown_cost = True

    def overrun(self) -> str | None:
        """The sentence that says that the seconds are over, here or above; None while there are some left."""
        with self._lock:
            for budget in (self, *self._above):
                if budget._limits.seconds is None:
                    continue
                message = exceeded(Limits(seconds=budget._limits.seconds), budget._spent())
                if message is not None:
                    return message
        return None

    def __repr__(self) -> str:
        limits = ", ".join(
            f"{name}={getattr(self._limits, name)!r}" for name in RESOURCES if getattr(self._limits, name) is not None
        )
        return f"Budget({limits or 'unlimited'})"

    # The rest runs under the lock.

    def _spent(self) -> Spent:
        settled = self._settled
        return Spent(
            steps=settled.steps, tokens=settled.tokens, usd=settled.usd, calls=settled.calls,
            seconds=0.0 if self._began_at is None else self._clock() - self._began_at,
            has_unknown_cost=settled.has_unknown_cost,
        )  # fmt: skip

    def _taken(self, name: Resource, spent: Spent) -> Any:
        """What was spent or is reserved; seconds cannot be reserved."""
        amount = getattr(spent, name)
        return amount if name == "seconds" else amount + getattr(self._reserved, name)

    def _refusal(self, wanted: Spent, whose: str) -> Refusal | None:
        limits = self._limits
        spent = self._spent()
        message = exceeded(limits, spent)
        if message is not None:
            return Refusal(message.replace("the budget", whose, 1), _passed(limits, spent))
        for name in RESOURCES:
            limit, want = getattr(limits, name), getattr(wanted, name)
            if limit is None or not want:
                continue
            taken = self._taken(name, spent)
            if is_over(name, taken + want, limit):
                left = amount(name, _minus(name, limit, taken))
                be = "is" if name == "usd" or want == 1 else "are"
                return Refusal(
                    f"{whose} has {left} left of {amount(name, limit)}, but {amount(name, want)} {be} wanted; "
                    f"raise it with {'budget' if whose == 'the budget' else 'budget.parent'}.set({name}=...)",
                    name,
                    # Dollars that were added and taken away again leave a little of themselves.
                    getattr(self._reserved, name) > USD_TOLERANCE,
                )
        return None

    def _end(self, reservation: Reservation, steps: int, tokens: int, usd: float, calls: int, is_unknown: bool) -> None:
        """Take these amounts as spent, in the place of the reserved ones."""
        with self._lock:
            if not reservation.is_open:
                return
            reservation.is_open = False
            for budget in (self, *self._above):
                budget._reserved.add(-reservation.steps, -reservation.tokens, -reservation.usd, -reservation.calls)
                budget._settled.add(steps, tokens, usd, calls)
                if is_unknown:
                    budget._settled.has_unknown_cost = True


def limits_of(budget: Budget) -> dict[str, Any]:
    """The limits that apply, of its own and above, the narrowest of each: what `Budget(**limits)` takes."""
    line = [one.limits for one in (budget, *budget._above) if one._has_limits]
    limits: dict[str, Any] = {}
    if not line:
        return limits
    for name in RESOURCES:
        found = [limit for one in line if (limit := getattr(one, name)) is not None]
        if found:
            limits[name] = min(found)
    if limits and any(one.unknown_prices == "stop" for one in line):
        limits["unknown_prices"] = "stop"
    return limits


def _minus(name: Resource, limit: Any, taken: Any) -> Any:
    # Dollars to the billionth: 0.1 - 0.07 would else read 0.030000000000000006.
    return max(0, round(limit - taken, 9) if name == "usd" else limit - taken)


def _passed(limits: Limits, spent: Spent) -> Resource:
    for name in RESOURCES:
        limit = getattr(limits, name)
        if limit is not None and is_over(name, getattr(spent, name), limit):
            return name
    return "usd"


def _not_an_amount(**amounts: float) -> UsageError:
    name, value = next((name, value) for name, value in amounts.items() if not 0 <= value < math.inf)
    return UsageError(f"{name} is {value!r}; use 0 or more")
