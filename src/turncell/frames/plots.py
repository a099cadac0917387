"""Plots of a history, on matplotlib axes: with units, on any ground.

The background is transparent and the text of a middle grey, so that a picture reads on white and on black: of the two
grounds of notebooks a saved picture does not know on which one it will be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from math import floor, log10
from typing import TYPE_CHECKING, Any

from turncell.errors import UsageError
from turncell.frames.rows import CallRow, RunRow
from turncell.frames.visible import one_line, visible

if TYPE_CHECKING:
    from turncell.frames.history import History
    from turncell.runtime.run import Run

INK = "#808080"
"""Contrast 3.9 on white and 4.8 on #111."""
BLUE, LIGHT_BLUE, ORANGE, GREEN, RED, VIOLET = "#3b82d6", "#93bdea", "#dd8a1f", "#2f9e6a", "#d9534f", "#9b72cf"
COLORS = (BLUE, ORANGE, GREEN, VIOLET, RED, "#2aa5b8", "#b5954a", INK)
_FAILED = ("error", "denied", "invalid", "timeout", "cancelled", "skipped")
_MOST_MODELS = 7
_MOST_ROWS = 40
_MOST_DAYS = 62
"""Of more days there are bars for weeks."""
_MOST_WEEKS = 106
"""The latest ones."""
_EPOCH, _MONDAY, _LAST_S = date(1970, 1, 1).toordinal(), 4, 253_402_214_400.0
"""1970-01-01, the days to the first Monday, and the seconds to the last day that a date can name."""


class Plots:
    """`history.plot`. Each method draws on `ax`, or on axes of its own, and returns them."""

    def __init__(self, history: History) -> None:
        self._history = history

    def __repr__(self) -> str:
        return "<plots of a history: tokens(), cost(), timeline(run), tools()>"

    def tokens(self, ax: Any = None) -> Any:
        """Tokens per day, or week (UTC): read anew, read from the provider's cache, written by the model.

        Weeks where there are more than two months of days.
        """
        ax = _axes(ax, (8, 3.4))
        spans, per = _spans(self._history)
        new = [max(0, span.given - span.cached) for span in spans]
        cached = [span.cached for span in spans]
        written = [span.written for span in spans]
        bottoms = [0.0] * len(spans)
        for label, values, color in (
            ("input, read anew", new, BLUE),
            ("input, from the cache", cached, LIGHT_BLUE),
            ("output", written, ORANGE),
        ):
            ax.bar(range(len(spans)), values, bottom=bottoms, label=label, color=color, width=0.7)
            bottoms = [a + b for a, b in zip(bottoms, values, strict=True)]
        _days(ax, [span.name for span in spans])
        _top(ax, bottoms)
        _finish(ax, f"Tokens {per}", "tokens", thousands)
        return _legend(ax, has_any=bool(spans))

    def cost(self, ax: Any = None) -> Any:
        """US dollars per day or week (UTC), by model. What has no known cost is not in the bars but in the title."""
        ax = _axes(ax, (8, 3.4))
        spans, per = _spans(self._history)
        models: dict[str, float] = {}
        for span in spans:
            for model, usd in span.usd.items():
                models[model] = models.get(model, 0.0) + usd
        ranked = sorted((model for model, usd in models.items() if usd), key=lambda model: -models[model])
        shown, rest = ranked[:_MOST_MODELS], ranked[_MOST_MODELS:]
        bottoms = [0.0] * len(spans)
        for number, model in enumerate([*shown, *(["others"] if rest else [])]):
            names = [model] if model in shown else rest
            values = [sum(span.usd.get(name, 0.0) for name in names) for span in spans]
            color = COLORS[number % len(COLORS)]
            ax.bar(range(len(spans)), values, bottom=bottoms, label=_name(model), color=color, width=0.7)
            bottoms = [a + b for a, b in zip(bottoms, values, strict=True)]
        _days(ax, [span.name for span in spans])
        unknown = sum(span.unknown for span in spans)
        more = f" (without {unknown} model call{'s' * (unknown != 1)} of unknown cost)" if unknown else ""
        _top(ax, bottoms)
        _finish(ax, f"Cost {per}{more}", "US dollars", _dollars(max(bottoms, default=0.0)))
        return _legend(ax, has_any=bool(ranked))

    def tools(self, ax: Any = None) -> Any:
        """How often each tool was called, and how that ended."""
        counts: dict[str, list[int]] = {}
        for run in self._history.rows().runs:
            for step in run.steps:
                for call in step.calls.values():
                    counts.setdefault(call.name or "unnamed", [0, 0, 0])[_end_of(call)] += 1
        names = sorted(counts, key=lambda name: sum(counts[name]))[-_MOST_ROWS:]
        ax = _axes(ax, (8, 1.3 + 0.34 * max(1, len(names))))
        lefts = [0] * len(names)
        for number, (label, color) in enumerate((("ok", GREEN), ("not ok", RED), ("open", INK))):
            values = [counts[name][number] for name in names]
            if any(values):
                ax.barh(range(len(names)), values, left=lefts, label=label, color=color, height=0.62)
            lefts = [a + b for a, b in zip(lefts, values, strict=True)]
        ax.set_yticks(range(len(names)), [_name(name) for name in names])
        _finish(ax, "Tool calls", "", None, grid="x")
        ax.set_xlabel("calls", color=INK)
        ax.xaxis.get_major_locator().set_params(integer=True)
        return _legend(ax, has_any=bool(names))

    def timeline(self, run: Run | str | None = None, ax: Any = None) -> Any:
        """A run from its beginning to its end: when the model wrote, tools ran, people were waited for.

        The axis has the unit that fits, milliseconds to days; lengths of bars are in it. `run` is a Run or its id; None is
        the one that began last. UsageError where the history has no such run.
        """
        row = self._run(run)
        bars = _bars(row)
        shown = bars[:_MOST_ROWS]
        ax = _axes(ax, (8, 1.5 + 0.3 * max(1, len(shown))))
        seen: set[str] = set()
        total = max(0.0, _end(row) - row.started["at"])
        unit, unit_s = next(((name, size_s) for name, size_s in _UNITS if total >= 2 * size_s), _UNITS[-1])
        for number, (_, spans) in enumerate(shown):
            for start, seconds, what in spans:
                label = what if what not in seen else None
                seen.add(what)
                ax.barh(
                    number, max(seconds, 0) / unit_s, left=start / unit_s, height=0.62, color=_WHAT[what], label=label
                )
        for number, (_, spans) in enumerate(shown):  # what is too short to be seen has a mark
            for start, seconds, what in spans:
                if seconds < total / 200:
                    ax.plot([start / unit_s], [number], marker="|", markersize=9, color=_WHAT[what], clip_on=False)
        ax.set_yticks(range(len(shown)), [_name(name) for name, _ in shown])
        ax.invert_yaxis()
        left = f", {len(bars) - len(shown)} more rows" if len(bars) > len(shown) else ""
        asked = one_line(visible(row.prompt), 44)
        _finish(ax, f"{asked}  ({row.status()}{left})" if asked else row.status(), "", None, grid="x")
        ax.set_xlabel(f"{unit} from the start", color=INK)
        ax.set_xlim(0, max(total, 1e-3) / unit_s * 1.02)
        return _legend(ax, has_any=bool(shown))

    def _run(self, run: Run | str | None) -> RunRow:
        runs = self._history.rows().runs
        run_id = run if run is None or isinstance(run, str) else run.id
        found = [one for one in runs if run_id in (None, one.run_id)]
        if not found:
            raise UsageError(f"this history has no run {run_id!r}" if run_id else "this history has no run yet")
        return max(found, key=lambda one: one.started["at"])


@dataclass(slots=True)
class _Span:
    """A day or a week."""

    name: str
    given: int = 0
    cached: int = 0
    written: int = 0
    usd: dict[str, float] = field(default_factory=dict)
    unknown: int = 0


def _spans(history: History) -> tuple[list[_Span], str]:
    """Those from the first to the last, without anything in them too: time is an axis, and not a list of what there was.
    And what each is, in words: of more days than can be told apart, weeks that begin on Mondays."""
    paid = [call for run in history.rows().runs for call in run.paid]
    days = [
        int(call.started_at // 86_400) for call in paid if _is_date(call.started_at)
    ]  # a file of another hand may say anything
    if not days:
        return [], "per day"
    is_weekly = max(days) - min(days) >= _MOST_DAYS
    size, offset = (7, _MONDAY) if is_weekly else (1, 0)
    first, last = (min(days) - offset) // size, (max(days) - offset) // size
    what = "per week" if is_weekly else "per day"
    if last - first >= _MOST_WEEKS:
        first, what = last - _MOST_WEEKS + 1, f"per week, the last {_MOST_WEEKS} weeks"
    dates = [date.fromordinal(_EPOCH + offset + n * size) for n in range(first, last + 1)]
    has_years = dates[0].year != dates[-1].year
    spans = [_Span(day.strftime("%d %b\n%Y" if has_years else "%d %b")) for day in dates]
    for call in paid:
        number = (int(call.started_at // 86_400) - offset) // size if _is_date(call.started_at) else -1
        if number < first:
            continue
        span, usage = spans[number - first], call.usage
        span.given += usage.get("input_tokens") or 0
        span.cached += usage.get("cache_read_tokens") or 0
        span.written += usage.get("output_tokens") or 0
        if call.cost_usd is None:
            span.unknown += 1
        else:
            span.usd[call.model] = span.usd.get(call.model, 0.0) + call.cost_usd
    return spans, what


def _is_date(at: float) -> bool:
    return 0 <= at < _LAST_S


_UNITS = (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0), ("milliseconds", 1e-3))
_WHAT = {"model": BLUE, "until its first token": LIGHT_BLUE, "tool": GREEN, "waiting for an answer": ORANGE}


def _bars(run: RunRow) -> list[tuple[str, list[tuple[float, float, str]]]]:
    """A row for each step and call: its name, and its stretches as start and length in seconds."""
    began, end = run.started["at"], _end(run)
    rows = []
    for step in run.steps:
        start = step.started_at - began
        seconds = step.duration_s if step.duration_s is not None else max(0.0, end - step.started_at)
        first = min(step.first_token_s or 0.0, seconds)
        spans = [(start, first, "until its first token")] if first else []
        rows.append((f"step {step.step}", [*spans, (start + first, seconds - first, "model")]))
        for call in step.calls.values():
            spans = [
                (a - began, (end if b is None else b) - a, "waiting for an answer") for a, b in call.waits
            ]  # fmt: skip
            if call.started_at is not None:
                until = call.ended_at if call.ended_at is not None else end
                # While a running call asks, it waits: drawn over it.
                spans = [(call.started_at - began, until - call.started_at, "tool"), *spans]
            if spans:
                rows.append((f"{call.name or 'unnamed'}", spans))
    return rows


def _end(run: RunRow) -> float:
    if run.ended_at is not None:
        return run.ended_at
    known: list[float] = [run.started["at"]]
    for step in run.steps:
        known.append(step.started_at + (step.duration_s or 0.0))
        known += [at for call in step.calls.values() for at in (call.proposed_at, call.started_at, call.ended_at) if at]
    return max(known)


def _end_of(call: CallRow) -> int:
    return 0 if call.status == "ok" else 1 if call.status in _FAILED else 2


def _axes(ax: Any, size: tuple[float, float]) -> Any:
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise UsageError("plots need matplotlib, which is not installed; pip install 'turncell[plot]'") from error
    return plt.subplots(figsize=size, layout="constrained")[1]


def _finish(ax: Any, title: str, y_label: str, format_y: Callable[[float, int], str] | None, grid: str = "y") -> None:
    ax.figure.patch.set_alpha(0)
    ax.patch.set_alpha(0)
    # A prompt is no formula: "$" would begin one.
    ax.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold", parse_math=False)
    ax.set_ylabel(y_label, color=INK)
    ax.tick_params(colors=INK, length=0)
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        label.set_parse_math(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.grid(axis=grid, color=INK, alpha=0.28, linewidth=0.7)
    ax.set_axisbelow(True)
    if format_y is not None:
        ax.yaxis.set_major_formatter(format_y)


def _legend(ax: Any, has_any: bool) -> Any:
    if not has_any:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.text(0.5, 0.5, "nothing yet", transform=ax.transAxes, ha="center", va="center", color=INK)
        return ax
    found = ax.get_legend_handles_labels()[1]
    legend = ax.legend(
        frameon=False, labelcolor=INK, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    legend.set_visible(bool(found))
    return ax


def _days(ax: Any, days: Sequence[str]) -> None:
    """Every day or week its name, or as many as fit."""
    step = max(1, -(-len(days) // 10))
    ax.set_xticks(range(0, len(days), step), days[::step])
    if days:
        ax.set_xlim(-0.6, max(len(days), 4) - 0.4)


def _top(ax: Any, tops: Sequence[float]) -> None:
    """Room above the highest bar: a bar of no height on top of it would take that away."""
    if any(tops):
        ax.set_ylim(0, max(tops) * 1.06)


def _name(name: str) -> str:
    return one_line(visible(name), 32)


def _dollars(most: float) -> Callable[[float, int], str]:
    """How an axis up to `most` US dollars says its numbers: as short as its steps can be told apart.

    >>> [_dollars(most)(most, 0) for most in (0, 0.0371, 12.5, 2_500, 70_000_000, 2.1e-10)]
    ['$0.00', '$0.037', '$12.50', '$2,500', '$70M', '$2.1e-10']
    """
    if most >= 100_000:
        return lambda usd, _: f"${thousands(usd)}"
    if most >= 100:
        return lambda usd, _: f"${usd:,.0f}"
    decimals = max(2, 1 - floor(log10(most))) if most > 0 else 2
    if decimals > 6:
        return lambda usd, _: f"${usd:.2g}"
    return lambda usd, _: f"${usd:,.{decimals}f}"


def thousands(count: float, _: int = 0) -> str:
    """
    >>> thousands(950), thousands(12_500), thousands(3e6), thousands(2.5e9), thousands(0)
    ('950', '12.5k', '3M', '2.5B', '0')
    """
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{unit}"
    return f"{count:g}"
