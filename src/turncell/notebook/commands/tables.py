"""What happened, as tables, and what it cost."""

from __future__ import annotations

from typing import Literal, get_args

from IPython.display import display

from turncell.errors import UsageError
from turncell.notebook.commands import Parser, command, say
from turncell.notebook.notebook import Notebook

_RUNS = [
    "run_id", "status", "model", "prompt", "text", "steps", "calls", "denied", "input_tokens", "output_tokens", "cost_usd",
    "started_at", "duration_s", "error",
]  # fmt: skip
_STEPS = [
    "run_id", "step", "answered_by", "finish_reason", "input_tokens", "cache_read_tokens", "output_tokens", "cost_usd",
    "duration_s", "first_token_s", "attempts", "calls", "error",
]  # fmt: skip
_CALLS = [
    "run_id", "step", "name", "arguments", "status", "verdict", "answer", "answered_by", "reason", "waited_s", "content",
    "duration_s",
]  # fmt: skip
_COST = Parser("cost")
_COST.add_argument("--by", default="model")
_COST.add_argument("--all", action="store_true")


@command("cost [--by model] [--all]", "what the session, or everything, has cost: by model, session, day or tool")
def cost(notebook: Notebook, *words: str) -> None:
    from turncell.frames.costs import By
    from turncell.frames.history import history
    from turncell.runtime.inside import sessions_inside

    given = _COST.parse_args(list(words))
    if given.by not in get_args(By):
        raise UsageError(f"%agent cost --by {given.by}: use one of {', '.join(get_args(By))}")
    found = history()
    if not given.all:
        session = notebook.a_session()
        # What its sub-agents have cost, it has cost, as a budget counts it.
        inside = session.journal.ask(lambda store: sessions_inside(store, session.id))
        found = history(session.journal, session=[session, *(info.session_id for info in inside)])
    display(found.cost_by(given.by))


@command("runs", "one row per run of the session")
def runs(notebook: Notebook) -> None:
    _show(notebook, "runs", _RUNS)


@command("steps", "one row per model call")
def steps(notebook: Notebook) -> None:
    _show(notebook, "steps", _STEPS)


@command("calls", "one row per tool call, with what was decided")
def calls(notebook: Notebook) -> None:
    _show(notebook, "calls", _CALLS)


def _show(notebook: Notebook, name: Literal["runs", "steps", "calls"], columns: list[str]) -> None:
    """The columns that fit beside each other on a page, and where the others are."""
    from turncell.frames.history import history

    table = getattr(history(notebook.a_session()), name)()
    display(table[columns])
    say(f"{len(columns)} of {len(table.columns)} columns; turncell.{name}_df() has all, of every session")
