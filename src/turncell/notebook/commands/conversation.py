"""The path of the conversation: undo, redo, ask again, branch, show a turn again."""

from __future__ import annotations

from turncell.core.compare import compare
from turncell.core.fold import RunState
from turncell.errors import UsageError
from turncell.frames.visible import visible
from turncell.notebook.commands import Parser, command, say
from turncell.notebook.notebook import Notebook, counted, prompt_of, stricter
from turncell.runtime import defaults
from turncell.runtime.run import Run
from turncell.runtime.secrets import redactor
from turncell.runtime.session import Session
from turncell.runtime.stored_sessions import session_of

_RETRY = Parser("retry")
_RETRY.add_argument("run_id", nargs="?")
_RETRY.add_argument("-a", "--agent")


@command("undo", "take the last turn out of the conversation")
def undo(notebook: Notebook) -> None:
    run = notebook.a_session().undo()
    say(f"undone: {prompt_of(run)}; the conversation has {_count(notebook)} left")


@command("redo", "put back what undo took out")
def redo(notebook: Notebook) -> None:
    session = notebook.a_session()
    before = session.conversation.path
    session.redo()
    back = next((run for run in session.runs if run.run_id not in before), session.runs[-1])
    say(f"back again: {prompt_of(back)}; the conversation has {_count(notebook)}")


@command("retry [RUN] [-a AGENT]", "ask the last turn, or RUN, again in its place; what came after is left out")
def retry(notebook: Notebook, *words: str) -> None:
    given = _RETRY.parse_args(list(words))
    session = _session_with(notebook, given.run_id)
    asked = _run(session, given.run_id)
    agent = notebook.agent_of(asked, given.agent)

    def start(is_attended: bool) -> Run:
        run = session.retry(given.run_id, agent=agent, is_attended=is_attended, mode=stricter(agent.mode, asked.mode))
        notebook.use(session)
        return run

    notebook.show(start)


@command("fix [CELL] [options of %%agent]", "have the last cell that failed, or In [CELL], explained and mended")
def fix(notebook: Notebook, *words: str) -> None:
    from turncell.notebook.cell import agent_of_options, check_options, run_prompt
    from turncell.notebook.context import fix_prompt
    from turncell.notebook.magics import TurncellMagics, options_in

    number = int(words[0]) if words and words[0].isdigit() else None
    options = options_in(TurncellMagics.cell.parser, list(words if number is None else words[1:]), "%agent fix [CELL]")
    if options.map is not None or options.raw:
        raise UsageError(
            f"%agent fix and {'--raw' if options.raw else '--map'} do not go together: it has a prompt of its own"
        )
    check_options(options)
    run_prompt(notebook, agent_of_options(notebook, options), fix_prompt(notebook.shell, number), options)


@command("branch [RUN]", "go on after an earlier turn; without RUN, list them")
def branch(notebook: Notebook, run_id: str | None = None) -> None:
    session = notebook.a_session()
    if run_id is None:
        path = session.conversation.path
        lines = [f"{'*' if run.run_id in path else ' '} {run.run_id}  {prompt_of(run)}" for run in session.all_runs]
        say("\n".join(lines) or "none yet")
        return
    session.branch(_run(session, run_id).run_id)
    say(f"the next cell goes on after {prompt_of(session.runs[-1])}; the conversation has {_count(notebook)}")


@command("show [RUN]", "draw a turn again: the last one, or RUN")
def show(notebook: Notebook, run_id: str | None = None) -> None:
    from IPython.display import display

    from turncell.frames.transcript import mimebundle, plain_text
    from turncell.notebook.bridge import KernelBridge

    going_on = [run for run in notebook.runs if run_id in (None, run.id)]
    if going_on:
        from turncell.notebook.turn import show_again

        show_again(going_on[-1])
        return
    session = _session_with(notebook, run_id)
    run = _run(session, run_id)
    if KernelBridge.current().has_kernel:
        display(mimebundle(run, session.inner_runs), raw=True)
    else:  # nothing is saved there, so that nothing needs to be cut
        say(plain_text(redactor().value(run)))


@command("compare RUN RUN", "the first difference between two runs: ids, or variables of -o")
def compare_(notebook: Notebook, a: str, b: str) -> None:
    found = [_named_run(notebook, name) for name in (a, b)]
    parting = compare(*found)
    say(visible(str(parting)) if parting else "the same, but for models, ids, times, tokens and costs")


def _named_run(notebook: Notebook, name: str) -> RunState:
    value = notebook.names.get(name)
    return value.state if isinstance(value, Run) else _run(_session_with(notebook, name), name)


def _session_with(notebook: Notebook, run_id: str | None) -> Session:
    """This notebook's session, or that of a run which is not in it."""
    mine = notebook.session
    if run_id is None or (mine is not None and any(run.run_id == run_id for run in mine.all_runs)):
        return notebook.a_session()
    found = defaults.journal().ask(lambda store: session_of(store, run_id))
    if found is None:
        raise UsageError(f"there is no run {run_id!r} in this history; %agent branch lists those of this session")
    return notebook.loaded(found)


def _run(session: Session, run_id: str | None) -> RunState:
    """The last of the conversation, or any of the session."""
    runs = session.all_runs if run_id else session.runs
    if not runs:
        raise UsageError("there is no run: the conversation is empty")
    for run in reversed(runs):
        if run_id in (None, run.run_id):
            return run
    raise UsageError(f"there is no run {run_id!r} in this session; %agent branch lists them")


def _count(notebook: Notebook) -> str:
    return counted(len(notebook.a_session().runs), "run")
