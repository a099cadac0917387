"""The path of the conversation: undo, redo, ask again, branch, show a turn again."""

from __future__ import annotations

from turncell.core.fold import RunState
from turncell.errors import UsageError
from turncell.notebook.commands import Parser, command, say
from turncell.notebook.notebook import Notebook, counted, prompt_of, stricter
from turncell.runtime.run import Run

_RETRY = Parser("retry")
_RETRY.add_argument("-a", "--agent")


@command("undo", "take the last run out of the conversation")
def undo(notebook: Notebook) -> None:
    run = notebook.a_session().undo()
    say(f"undone: {prompt_of(run)}; the conversation has {_count(notebook)} left")


@command("redo", "put back what was undone")
def redo(notebook: Notebook) -> None:
    session = notebook.a_session()
    session.redo()
    say(f"back again: {prompt_of(session.runs[-1])}; the conversation has {_count(notebook)}")


@command("retry [-a AGENT]", "ask the last prompt again, in place of its answer")
def retry(notebook: Notebook, *words: str) -> None:
    given = _RETRY.parse_args(list(words))
    session = notebook.a_session()
    if not session.runs:
        raise UsageError("there is nothing to ask again: the conversation is empty")
    last = session.runs[-1]
    agent = notebook.agent_of(last, given.agent)

    def start(is_attended: bool, cell_id: str | None) -> Run:
        return session.retry(agent=agent, is_attended=is_attended, mode=stricter(agent.mode, last.mode))

    notebook.show(start)


@command("fix [CELL] [options of %%agent]", "have the last cell that failed explained and mended, or In [CELL]")
def fix(notebook: Notebook, *words: str) -> None:
    from turncell.notebook.cell import agent_of_options, run_prompt
    from turncell.notebook.context import fix_prompt
    from turncell.notebook.magics import TurncellMagics

    number = int(words[0]) if words and words[0].isdigit() else None
    options = TurncellMagics.cell.parser.parse_args(list(words if number is None else words[1:]))
    run_prompt(notebook, agent_of_options(notebook, options), fix_prompt(notebook.shell, number), options)


@command("branch [RUN]", "go on after an earlier run; without RUN, list them")
def branch(notebook: Notebook, run_id: str | None = None) -> None:
    session = notebook.a_session()
    if run_id is None:
        path = session.conversation.path
        lines = [f"{'*' if run.run_id in path else ' '} {run.run_id}  {prompt_of(run)}" for run in session.all_runs]
        say("\n".join(lines) or "none yet")
        return
    session.branch(run_id)
    say(f"the next cell goes on after {prompt_of(session.runs[-1])}; the conversation has {_count(notebook)}")


@command("show [RUN]", "draw a turn again: the last one, or any of the session")
def show(notebook: Notebook, run_id: str | None = None) -> None:
    from IPython.display import display

    from turncell.frames.transcript import mimebundle

    if notebook.run is not None and not notebook.run.done.done() and run_id in (None, notebook.run.id):
        from turncell.notebook.turn import show_again

        show_again(notebook.run)
        return
    display(mimebundle(_run(notebook, run_id)), raw=True)


def _run(notebook: Notebook, run_id: str | None) -> RunState:
    runs = notebook.a_session().all_runs if run_id else notebook.a_session().runs
    if not runs:
        raise UsageError("there is nothing to show: the conversation is empty")
    if run_id is None:
        return runs[-1]
    for run in runs:
        if run.run_id == run_id:
            return run
    raise UsageError(f"there is no run {run_id!r} in this session; %agent branch lists them")


def _count(notebook: Notebook) -> str:
    return counted(len(notebook.a_session().runs), "run")
