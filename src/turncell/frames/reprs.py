"""How a run, a session and a history show themselves: one small table each, as text and as HTML, without secrets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

from turncell.core.fold import RunState
from turncell.frames.inside import MOST_SAVED, by_call
from turncell.frames.rows import RunRow
from turncell.frames.static_html import clean, html
from turncell.frames.visible import one_line, visible
from turncell.frames.words import count, dollars
from turncell.runtime.secrets import redactor

if TYPE_CHECKING:
    from turncell.frames.history import History

_MOST_RUNS = 20
_CELL = "padding:3px 18px 3px 0;text-align:left;vertical-align:top;border-bottom:1px solid #8080804d"
_NUMBER = _CELL.replace("left", "right", 1)
_QUIET = "opacity:0.7"
_NUMBERS = ("steps", "calls", "cost")


def run_html(run: RunState, inside: Iterable[RunState] = ()) -> str:
    """A run: its transcript, under its prompt."""
    known = redactor()
    run = known.value(run)
    inner = by_call([run], inside, known.value, MOST_SAVED)
    prompt = one_line(visible(run.prompt.text), 200) if run.prompt else ""
    return f'<div style="font-weight:600;margin:0 0 6px" dir="auto">{escape(prompt)}</div>{html(run, inner)}'


def session_html(title: str, session_id: str, runs: Sequence[RunState]) -> str:
    """A session: its latest runs, a line for each."""
    known = redactor()
    shown = [known.value(run) for run in runs[-_MOST_RUNS:]]
    rows = [
        (
            run.prompt.text if run.prompt else "",
            run.text,
            run.status,
            str(len(run.steps)),
            str(len(run.calls)),
            "unknown" if run.cost_usd is None else dollars(run.cost_usd),
        )
        for run in shown
    ]
    left = f", the last {_MOST_RUNS} of them" if len(runs) > _MOST_RUNS else ""
    head = f"{known.text(title) or 'Session'} · {_number(len(runs), 'run')}{left}"
    return _table(head, session_id, ("prompt", "answer", "status", "steps", "calls", "cost"), rows)


def history_text(history: History) -> str:
    """Three lines: what it has, what that has cost, and when it was."""
    lines = _lines(history.rows().runs)
    return "\n".join((f"<History of {visible(history.what)}>", *(f"  {line}" for line in lines)))


def history_html(history: History) -> str:
    runs = history.rows().runs
    rows = [
        (
            f"{_when(run)}",
            run.prompt,
            str(run.status()),
            str(run.started["model"]),
            str(len(run.steps)),
            "unknown" if (usd := _usd_of([run])) is None else dollars(usd),
        )
        for run in runs[-_MOST_RUNS:][::-1]
    ]
    head = " · ".join(_lines(runs)[:2])
    return _table(
        head, f"History of {history.what}", ("began (UTC)", "prompt", "status", "model", "steps", "cost"), rows
    )


def _lines(runs: Sequence[RunRow]) -> list[str]:
    paid = [call for run in runs for call in run.paid]
    calls = sum(len(step.calls) for run in runs for step in run.steps)
    sessions = len({run.session_id for run in runs})
    given, written = (_tokens(runs, name) for name in ("input_tokens", "output_tokens"))
    unknown = sum(call.cost_usd is None for call in paid)
    known = dollars(sum(call.cost_usd or 0.0 for call in paid))
    cost = known if not unknown else f"{known} and {_number(unknown, 'step')} of unknown cost" if unknown < len(paid) else "cost unknown"  # fmt: skip
    said = [
        f"{_number(len(runs), 'run')} in {_number(sessions, 'session')}, {_number(len(paid), 'step')}, {_number(calls, 'call')}"
    ]
    if paid:
        said.append(f"{given} tokens in, {written} out, {cost}")
    if runs:
        first, last = min(runs, key=_began), max(runs, key=_began)
        said.append(f"from {_when(first)} to {_when(last)} UTC")
    return said


def _tokens(runs: Sequence[RunRow], name: str) -> str:
    known = [tokens for run in runs for call in run.paid if (tokens := call.usage.get(name)) is not None]
    return count(sum(known)) if known else "unknown"


def _usd_of(runs: Sequence[RunRow]) -> float | None:
    costs = [call.cost_usd for run in runs for call in run.paid]
    return sum(cost for cost in costs if cost is not None) if costs and None not in costs else None


def _began(run: RunRow) -> float:
    return float(run.started["at"])


def _when(run: RunRow) -> str:
    try:
        return f"{datetime.fromtimestamp(_began(run), UTC):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
        return "at an odd time"


def _number(many: int, what: str) -> str:
    return f"{many:,} {what}{'s' * (many != 1)}"


def _table(head: str, under: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    looks = [_NUMBER if column in _NUMBERS else _CELL for column in columns]
    heads = "".join(
        f'<th style="{look};{_QUIET}">{column}</th>' for look, column in zip(looks, columns, strict=True)
    )  # fmt: skip
    cells = "".join(
        "<tr>"
        + "".join(
            f'<td style="{look}" dir="auto">{escape(one_line(visible(cell), 60))}</td>'
            for look, cell in zip(looks, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    table = f'<table style="border-collapse:collapse;font-size:13px"><thead><tr>{heads}</tr></thead><tbody>{cells}</tbody></table>'
    shown = clean(
        f'<div style="font-weight:600">{escape(visible(head))}</div>'
        f'<div style="{_QUIET};font-size:12px;margin:0 0 6px">{escape(visible(under))}</div>{table if rows else ""}'
    )
    return f'<div class="mathjax_ignore">{shown}</div>'
