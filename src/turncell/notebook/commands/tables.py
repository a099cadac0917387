"""What happened, as tables, and what it cost."""

from __future__ import annotations

from IPython.display import display

from turncell.notebook.commands import command
from turncell.notebook.notebook import Notebook


@command("runs", "a row for each run of the session")
def runs(notebook: Notebook) -> None:
    from turncell.frames.history import runs_df

    display(runs_df(notebook.a_session()))


@command("steps", "a row for each model call")
def steps(notebook: Notebook) -> None:
    from turncell.frames.history import steps_df

    display(steps_df(notebook.a_session()))


@command("calls", "a row for each tool call, with its decision")
def calls(notebook: Notebook) -> None:
    from turncell.frames.history import calls_df

    display(calls_df(notebook.a_session()))
