"""What a history has cost: by model, session, day, run, step or tool; what caches saved; what a budget would have stopped.

Unknown is not zero: as soon as the cost of one model call of a group is unknown, so is that of the group. `known_usd` is
what is known of it, and `unknown_steps` says how many calls that lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import pandas as pd

from turncell.core.budget import RESOURCES, USD_TOLERANCE, Limits
from turncell.errors import UsageError
from turncell.frames.columns import array_of
from turncell.frames.rows import TOKENS, RunRow, StepRow, Summary
from turncell.frames.schemas import COST_BASES, Column
from turncell.runtime.agent_options import as_limits
from turncell.runtime.budget import Budget

if TYPE_CHECKING:
    from turncell.frames.history import History

By: TypeAlias = Literal["model", "session", "day", "run", "step", "tool"]
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class CachePrice:
    """US dollars for a million tokens: read anew, read from the cache, written to it (None: as read anew)."""

    input_usd: float
    read_usd: float
    write_usd: float | None = None


@dataclass(slots=True)
class _Part:
    """A model call, or the share of it that one tool has."""

    key: tuple[Any, ...]
    run: RunRow
    call: StepRow | Summary
    calls: int
    share: float = 1.0


_KEYS: dict[By, tuple[Column, ...]] = {
    "model": (Column("model", "string", ""),),
    "session": (Column("session_id", "string", ""),),
    "day": (Column("day", "datetime64[us, UTC]", ""),),
    "run": (Column("run_id", "string", ""), Column("session_id", "string", "")),
    "step": (Column("run_id", "string", ""), Column("step", "Int64", "")),
    "tool": (Column("tool", "string", ""),),
}
_COST = (
    *(Column(name, "Int64", "") for name in ("runs", "steps", "calls", *TOKENS)),
    Column("is_estimated", "boolean", ""),
    Column("cost_usd", "Float64", ""),
    Column("cost_basis", "category", "", COST_BASES),
    Column("known_usd", "Float64", ""),
    Column("unknown_steps", "Int64", ""),
)
_SAVED = (
    Column("cache_read_tokens", "Int64", ""),
    Column("cache_write_tokens", "Int64", ""),
    Column("read_share", "Float64", ""),
    Column("saved_usd", "Float64", ""),
    Column("unknown_steps", "Int64", ""),
)
_STOPPED = (
    Column("run_id", "string", ""),
    Column("session_id", "string", ""),
    Column("is_stopped", "boolean", ""),
    Column("limit", "category", "", RESOURCES),
    Column("stopped_at", "datetime64[us, UTC]", ""),
    *(Column(name, "Int64", "") for name in ("steps", "tokens")),
    Column("cost_usd", "Float64", ""),
    *(Column(name, "Int64", "") for name in ("spared_steps", "spared_tokens")),
    Column("spared_usd", "Float64", ""),
    Column("is_certain", "boolean", ""),
)


def cost_by(history: History, by: By) -> pd.DataFrame:
    """Tokens and US dollars of a history, one row per model, session, day (UTC), run, step or tool.

    Columns: the key, `runs`, `steps` (model calls, also those for summaries), `calls`, the five kinds of tokens,
    `is_estimated`, `cost_usd` (`<NA>` if any cost is unknown), `cost_basis`, `known_usd` (the sum of those that are known),
    `unknown_steps`. The most expensive first; days, runs and steps in their order.

    By tool, the cost and the tokens of a step are shared among the calls that it asked for; the row `<NA>` is that of steps
    that asked for none.
    """
    groups = _groups(history, by)
    rows = [key + _cost(parts) for key, parts in groups.items()]
    if by in ("model", "session", "tool"):
        rows.sort(key=lambda row: (-(row[-2] or 0.0), -(row[len(_KEYS[by]) + 3] or 0)))
    return _frame((*_KEYS[by], *_COST), rows)


def cache_savings(
    history: History, by: By = "model", prices: Mapping[str, CachePrice] | None = None
) -> pd.DataFrame:  # fmt: skip
    """What the providers' caches have saved: US dollars against all tokens read anew, less what writing cost more.

    `prices` has those of models by name, before the list that LiteLLM brings; without either it is `<NA>`, and below zero
    where more was written than read. `read_share` is the part of the input that was read from a cache.
    """
    rows = []
    for key, parts in _groups(history, by).items():
        read, written, given = (
            _sum(parts, name) for name in ("cache_read_tokens", "cache_write_tokens", "input_tokens")
        )  # fmt: skip
        saved = [_saved(part, prices or {}) for part in parts]
        known = [usd for usd in saved if usd is not None]
        total = sum(known) if saved and len(known) == len(saved) else None
        share = read / given if read is not None and given else None
        rows.append((*key, read, written, share, total, len(saved) - len(known)))
    return _frame((*_KEYS[by], *_SAVED), rows)


def what_if(history: History, budget: Budget | Mapping[str, Any]) -> pd.DataFrame:
    """What a budget for each run, with those inside it, would have stopped: `what_if(history, {"usd": 0.5})`.

    A run stops before the first model call that begins when a limit is reached; a real budget also reserves what the next
    call may need, and may stop one call sooner. `limit` is which, `steps`, `tokens` and `cost_usd` are what was spent up
    to there, `spared_*` what came after. Not `is_certain` where a limit in dollars met costs that nobody knows.
    """
    limits = budget.limits if isinstance(budget, Budget) else Limits(**as_limits(budget))
    _check(history)
    trees: dict[str, list[RunRow]] = {}
    for run in history.rows().runs:
        trees.setdefault(run.started.get("root_run_id") or run.run_id, []).append(run)
    return _frame(_STOPPED, [_stopped(runs, limits) for runs in trees.values()])


def _check(history: Any) -> None:
    if not callable(getattr(history, "rows", None)):
        raise UsageError(f"costs are those of a history; use turncell.history(...) of {history!r}")


def _groups(history: History, by: By) -> dict[tuple[Any, ...], list[_Part]]:
    if by not in get_args(By):
        raise UsageError(f"costs are by {', '.join(get_args(By))}; found {by!r}")
    _check(history)
    key_of: Callable[[RunRow, StepRow | Summary], tuple[Any, ...]] = {
        "model": lambda run, call: (call.model,),
        "session": lambda run, call: (run.session_id,),
        "day": lambda run, call: (call.started_at // _DAY_S * _DAY_S,),
        "run": lambda run, call: (run.run_id, run.session_id),
        "step": lambda run, call: (run.run_id, call.step),
        "tool": lambda run, call: (None,),
    }[by]
    groups: dict[tuple[Any, ...], list[_Part]] = {}
    for run in history.rows().runs:
        for call in run.paid:
            calls = list(call.calls.values()) if isinstance(call, StepRow) else []
            if by == "tool" and calls:
                names = [one.name for one in calls]
                parts = [
                    _Part((name,), run, call, names.count(name), names.count(name) / len(names))
                    for name in dict.fromkeys(names)
                ]
            else:
                parts = [_Part(key_of(run, call), run, call, len(calls))]
            for part in parts:
                groups.setdefault(part.key, []).append(part)
    return dict(sorted(groups.items())) if by == "day" else groups


def _cost(parts: Sequence[_Part]) -> tuple[Any, ...]:
    known = [part.call.cost_usd * part.share for part in parts if part.call.cost_usd is not None]
    usd = sum(known) if len(known) == len(parts) else None
    bases = {part.call.cost_basis for part in parts} if usd is not None else {"none"}
    return (
        len({part.run.run_id for part in parts}), len(parts), sum(part.calls for part in parts),
        *(_sum(parts, name) for name in TOKENS), any(part.call.usage.get("is_estimated", False) for part in parts),
        usd, bases.pop() if len(bases) == 1 else "mixed", sum(known), len(parts) - len(known),
    )  # fmt: skip


def _sum(parts: Sequence[_Part], name: str) -> int | None:
    known = [tokens * part.share for part in parts if (tokens := part.call.usage.get(name)) is not None]
    return floor(sum(known) + 0.5) if known else None


def _saved(part: _Part, prices: Mapping[str, CachePrice]) -> float | None:
    """What the cache has saved at one model call; None where that is not known."""
    usage, model = part.call.usage, part.call.model
    read, written = usage.get("cache_read_tokens") or 0, usage.get("cache_write_tokens") or 0
    if not read and not written:
        return 0.0 if usage.get("input_tokens") is not None else None
    price = prices.get(model) or _listed(model, usage.get("input_tokens") or 0)
    if price is None:
        return None
    more = 0.0 if price.write_usd is None else price.write_usd - price.input_usd
    return float(read * (price.input_usd - price.read_usd) - written * more) / 1e6 * part.share


def _listed(model: str, input_tokens: int) -> CachePrice | None:
    from turncell.adapters.price_list import list_cache_write_usd, list_price

    provider, _, name = model.partition("/")
    price = list_price(provider, name, input_tokens) if name else None
    if price is None or price.cached_usd is None:
        return None
    return CachePrice(price.input_usd, price.cached_usd, list_cache_write_usd(provider, name))


def _stopped(runs: list[RunRow], limits: Limits) -> tuple[Any, ...]:
    root = runs[0]
    paid = sorted((call for run in runs for call in run.paid), key=lambda call: call.started_at)
    limit, count = next(_passed(root, paid, limits), (None, len(paid)))
    before, after = paid[:count], paid[count:]
    is_certain = limits.usd is None or limit not in (None, "usd") or all(c.cost_usd is not None for c in before)
    return (
        root.run_id, root.session_id, limit is not None, limit, paid[count].started_at if limit else None,
        len(before), _tokens(before), _usd(before), len(after), _tokens(after), _usd(after), is_certain,
    )  # fmt: skip


def _passed(root: RunRow, paid: list[StepRow | Summary], limits: Limits) -> Iterator[tuple[str, int]]:
    """Each limit that is reached before a model call, and the number of that call, from 0."""
    calls = 0
    for number, call in enumerate(paid):
        before = paid[:number]
        costs = [one.cost_usd for one in before]
        is_unknown = limits.unknown_prices == "stop" and None in costs
        spent = {
            "steps": sum(isinstance(one, StepRow) for one in before),
            "tokens": _tokens(before) or 0,
            "usd": float("inf") if is_unknown else sum(cost for cost in costs if cost is not None) + USD_TOLERANCE,
            "seconds": call.started_at - root.started["at"],
            "calls": calls,
        }
        for name in RESOURCES:
            most = getattr(limits, name)
            if most is not None and (spent[name] > most if name == "calls" else spent[name] >= most):
                yield name, number
        calls += len(call.calls) if isinstance(call, StepRow) else 0


def _tokens(paid: Iterable[StepRow | Summary]) -> int | None:
    known = [call.usage.get(name) for call in paid for name in ("input_tokens", "output_tokens")]
    counted = [tokens for tokens in known if tokens is not None]
    return sum(counted) if counted or not known else None


def _usd(paid: Sequence[StepRow | Summary]) -> float | None:
    known = [call.cost_usd for call in paid if call.cost_usd is not None]
    return float(sum(known)) if len(known) == len(paid) else None


def _frame(schema: Sequence[Column], rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = {
        column.name: array_of(column, values, "numpy_nullable") for column, values in zip(schema, columns, strict=True)
    }
    return pd.DataFrame(arrays, copy=False)
