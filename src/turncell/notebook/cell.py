"""What a `%%agent` cell does: which session and agent it means, and whether it begins a turn or goes on with one."""

from __future__ import annotations

import copy
import keyword
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from IPython.display import display

from turncell import settings
from turncell.adapters.cassette import is_active
from turncell.adapters.mcp_config import mcp_servers
from turncell.core.parts import Image
from turncell.errors import UsageError
from turncell.notebook.bridge import TurnInterrupted
from turncell.notebook.commands import say
from turncell.notebook.context import names_of, notebook_context
from turncell.notebook.interpolation import interpolate
from turncell.notebook.notebook import (
    LEFT,
    Notebook,
    limits_in,
    names_in,
    prompt_of,
    stricter,
    whose,
)
from turncell.runtime.agent import Agent
from turncell.runtime.options import whole
from turncell.runtime.prompts import as_message
from turncell.runtime.run import Run
from turncell.runtime.secrets import redactor
from turncell.runtime.session import Session

_HAS_ITS_OWN = "the agent {agent} has its own"
_NOT_TOGETHER: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("new", ("continue", "session", "fork", "retry"), "--new begins with nothing said"),
    ("continue", ("session",), "each names a session"),
    ("agent", ("model", "tools", "instructions"), _HAS_ITS_OWN),
    ("cached", ("detach",), "a cassette is there for one cell at a time"),
    ("map", ("detach", "retry", "fork", "continue", "session", "new"), "each row is a session of its own"),
    ("map", ("context", "vars"), "a row is told what its template says, and nothing of the notebook"),
    ("map", ("raw",), "the braces are the columns; write {{{{ and }}}} for braces that stay"),
    ("map", ("view",), "the table is what is shown"),
)
"""Options that would make each other void: of each row the first with any of the others, and why."""


def run_cell(notebook: Notebook, options: Any, text: str) -> None:
    """Do what a cell says; `options` are those of the magic. Raises TurnFailed for a turn that has to fail its cell."""
    check_options(options)
    agent = agent_of_options(notebook, options)
    if not text.strip():
        raise UsageError("the cell is empty; write below %%agent what you want the agent to do")
    text = text.strip("\n")
    if options.map is not None:
        with _cassette(options.cached):
            _map(notebook, agent, text, options)
    else:
        run_prompt(notebook, agent, text if options.raw else interpolate(text, names_of(notebook.shell)), options)


def check_options(options: Any) -> None:
    """UsageError for an option that nothing could come of, before anything is done."""
    if options.out is not None and (not options.out.isidentifier() or keyword.iskeyword(options.out)):
        raise UsageError(f"-o {options.out!r} is no name of a variable; use one like 'run'")
    if options.resume is not None and options.map is None:
        raise UsageError("--resume is the name of a batch and belongs to --map; %agent resume goes on with a turn")
    for one, others, why in _NOT_TOGETHER:
        for other in others:
            if _is_given(options, one) and _is_given(options, other):
                short = f"-a and --{other}" if one == "agent" else f"--{one} and --{other}"
                raise UsageError(f"{short} do not go together: {why.format(agent=options.agent)}")


def _is_given(options: Any, name: str) -> bool:
    value = getattr(options, {"continue": "goes_on"}.get(name, name))
    return value not in (None, False, "live")


def run_prompt(notebook: Notebook, agent: Agent, said: str | list[str | Image], options: Any) -> None:
    """A turn of this cell, with what its options say of the notebook; they are checked."""
    with _cassette(options.cached):
        _run_prompt(notebook, agent, said, options)


def _run_prompt(notebook: Notebook, agent: Agent, said: str | list[str | Image], options: Any) -> None:
    source = _session_of(notebook, options)
    _refuse_what_is_in_doubt_elsewhere(notebook, source)
    if source is not None and not options.fork and _goes_on(notebook, source, agent, as_message(said).text, options):
        return
    if source is not None and source.running is not None and not options.fork:
        _say_what_is_waited_for(source.running)
    if options.retry:
        _last_of(source)  # refuses before there is a copy
    output, budget = _output(notebook, options), _budget(options)
    about = notebook_context(notebook.shell, _told_by_default(options), names_in(options.vars or ()), session=source)
    informed, prompt = about.added_to(agent), about.before(said)

    def start(is_attended: bool) -> Run:
        # Nothing has changed before this has checked what it was given: a mistake costs and leaves no session.
        session = source.fork() if options.fork and source is not None else source
        try:
            run = informed.start(
                prompt, session=session, is_attended=is_attended, cell_id=notebook.cell_id(), mode=options.mode,
                max_steps=options.max_steps, output=output, budget=budget, timeout_s=options.timeout,
                replaces=_last_of(session) if options.retry else None,
            )  # fmt: skip
        except UsageError:
            if session is not None and session is not source:
                session.delete()
            raise
        notebook.has_begun()
        if run.session.agent is informed:
            run.session.agent = agent  # what this cell tells of the notebook, others need not tell again
        notebook.use(run.session)
        if options.out:
            notebook.names[options.out] = run
        return run

    notebook.show(start, view=options.view, detach=options.detach)


def _say_what_is_waited_for(run: Run) -> None:
    """A cell that waits behind another turn must not look as if it hung."""
    answer = ", and waits for an answer: its card has the buttons, or interrupt this cell and %agent approve"
    say(f"this turn begins when {run.id} has ended, which goes on{answer if run.requests else ''}")


def _map(notebook: Notebook, agent: Agent, template: str, options: Any) -> None:
    """One turn for each row; the table is shown, and is what `-o` names."""
    table = _limited(agent, options).map(
        notebook.name(options.map), template, output=_output(notebook, options), budget=_budget(options),
        timeout_s=options.timeout, resume=options.resume,
    )  # fmt: skip
    if options.out:
        notebook.names[options.out] = table
    display(table)
    if table.attrs["is_interrupted"]:
        raise TurnInterrupted


def _limited(agent: Agent, options: Any) -> Agent:
    """The agent with the mode and the steps of these options; the one that was given stays as it is."""
    made = copy.copy(agent)
    if options.mode is not None:
        made.mode = options.mode
    if options.max_steps is not None:
        made.max_steps = whole("max_steps", options.max_steps, least=1)
    return made


def _told_by_default(options: Any) -> settings.NotebookContext:
    """A recording must not be lost with a comment in a cell above: a cassette hears of the notebook only when asked to."""
    if options.context is not None:
        return cast("settings.NotebookContext", options.context)
    return "none" if is_active() else settings.current().context


def _output(notebook: Notebook, options: Any) -> Any:
    return None if options.schema is None else notebook.type_named(options.schema)


def _budget(options: Any) -> dict[str, float] | None:
    return None if options.budget is None else limits_in(options.budget)


def _goes_on(notebook: Notebook, session: Session, agent: Agent, prompt: str, options: Any) -> bool:
    """Go on with the turn in whose middle the program ended, where this cell has to; whether that was all it asks.

    A write in doubt is decided before anything else is said. The cell of that turn, run again with the same words,
    goes on with it in place of asking, and paying, for the same again.
    """
    if session.is_busy or session.left_open is None:
        return False
    session.hold()  # another process may have gone on with it
    left = session.interrupted
    if left is None:
        return False
    is_same = notebook.is_of_this_cell(left) and left.prompt is not None and left.prompt.text == redactor().text(prompt)
    known = {tool.name for tool in agent.known_tools}
    is_theirs = set(left.tools) <= known and (not left.agent or left.agent == agent.name)
    has_all = is_theirs and (bool(options.agent) or left.started.needs == ())
    if left.status != "in_doubt" and (options.retry or not (is_same and has_all)):
        say(
            f"the turn {prompt_of(left)} was {LEFT[left.status]}; this cell closes it "
            "(%agent resume goes on with such a turn instead)"
        )
        return False
    if not has_all:
        calls = ", ".join(call.name for call in session.in_doubt)
        raise UsageError(
            f"the turn {prompt_of(left)} had begun {calls} when the program ended, and whether that has happened is "
            f"not known; {whose(left)} has to go on with it first: %agent resume -a AGENT"
        )
    say(f"going on with the turn {prompt_of(left)}, which was {LEFT[left.status]}")
    mode = options.mode or stricter(agent.mode, left.mode)
    notebook.resume(
        session, agent, mode, out=options.out, view=options.view, detach=options.detach, max_steps=options.max_steps,
        output=_output(notebook, options), budget=_budget(options), timeout_s=options.timeout,
    )  # fmt: skip
    return is_same


def _refuse_what_is_in_doubt_elsewhere(notebook: Notebook, source: Session | None) -> None:
    """Run All after a crash comes to the cell with a session of its own, in which nothing is known of the write."""
    session = notebook.in_doubt_of_this_cell()
    if session is None or (source is not None and session.id == source.id):
        return
    calls = ", ".join(call.name for call in session.in_doubt)
    raise UsageError(
        f"this cell had begun {calls} in session {session.id} when the program ended, and whether that has happened is not "
        f"known; decide it first, or it could happen twice: %agent resume {session.id} -a AGENT (%agent delete forgets it)"
    )


def _session_of(notebook: Notebook, options: Any) -> Session | None:
    """The session that a cell goes on with; None: a new one."""
    if options.new:
        return None
    if options.goes_on:
        return notebook.loaded(Session.newest().id)
    if options.session:
        return notebook.loaded(options.session)
    if options.fork and notebook.session is None:
        raise UsageError("this notebook has no session to fork yet; name one with --session ID or --continue")
    return notebook.session or notebook.of_this_cell()


def _last_of(session: Session | None) -> str:
    if session is None or not session.runs:
        raise UsageError("--retry: there is no turn yet whose place this one could take")
    return session.runs[-1].run_id


def agent_of_options(notebook: Notebook, options: Any) -> Agent:
    """The agent that is named, or one of the options and of what is set for all cells."""
    if options.agent:
        return notebook.agent(options.agent)
    names = notebook.tools if options.tools is None else names_in(options.tools)
    tools = [*notebook.tools_of(names), *mcp_servers().servers.values()]
    return Agent(options.model, tools=tools, instructions=options.instructions or "")


def _cassette(path: str | None) -> AbstractContextManager[Any]:
    if path is None:
        return nullcontext()
    from turncell.adapters.cassette import cassette

    return cassette(path or os.path.join(settings.current().meta_dirname, "cassette.jsonl"), "auto")
