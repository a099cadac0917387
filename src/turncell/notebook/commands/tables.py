"""What happened, as tables, and what it cost."""

from __future__ import annotations

from typing import get_args

from IPython.display import display

from turncell.errors import UsageError
from turncell.notebook.commands import Parser, command
from turncell.notebook.notebook import Notebook

_COST = Parser("cost")
_COST.add_argument("--by", default="model")
_COST.add_argument("--all", action="store_true")


@command("cost [--by model] [--all]", "what the session, or everything, has cost: by model, session, day or tool")
def cost(notebook: Notebook, *words: str) -> None:
    from turncell.frames.costs import By
    from turncell.frames.history import history

    given = _COST.parse_args(list(words))
    if given.by not in get_args(By):
        raise UsageError(f"%agent cost --by {given.by}: use one of {', '.join(get_args(By))}")
    display(history(None if given.all else notebook.a_session()).cost_by(given.by))


@command("runs", "one row per run of the session")
def runs(notebook: Notebook) -> None:
    from turncell.frames.history import runs_df

    display(runs_df(notebook.a_session()))


@command("steps", "one row per model call")
def steps(notebook: Notebook) -> None:
    from turncell.frames.history import steps_df

    display(steps_df(notebook.a_session()))


@command("calls", "one row per tool call, with what was decided")
def calls(notebook: Notebook) -> None:
    from turncell.frames.history import calls_df

    display(calls_df(notebook.a_session()))
