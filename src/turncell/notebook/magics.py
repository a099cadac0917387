"""`%%agent` and `%agent`. `%%agent?` is the manual of the first, `%agent help` lists the commands of the second."""

from __future__ import annotations

import dataclasses
import keyword
import os
import shlex
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import traitlets
from IPython.core.error import UsageError as ShellUsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from turncell import settings
from turncell.core.policy import MODES
from turncell.errors import RunError, SessionInDoubt, SettingError, TurncellError, UsageError
from turncell.notebook import commands
from turncell.notebook.notebook import (
    LEFT,
    Notebook,
    TurnFailed,
    in_cells,
    is_of_this_cell,
    limits_in,
    names_in,
    prompt_of,
    stricter,
    whose,
)
from turncell.runtime.agent import Agent
from turncell.runtime.run import Run
from turncell.runtime.secrets import redactor
from turncell.runtime.session import Session

_DEST = {"continue": "goes_on"}
_SETTINGS = ("model", "mode", "max_steps", "unattended", "request_timeout_s", "echo")


@magics_class
class TurncellMagics(Magics):
    """The agent of this notebook. What is set here, by `%config` or in IPython's own settings, is a setting of turncell."""

    model = traitlets.Unicode(help="the model of cells that name none: 'embedded', or provider/model").tag(config=True)
    mode = traitlets.Enum(MODES, help="what happens to calls that no rule names").tag(config=True)
    max_steps = traitlets.Int(help="the most model calls of a turn").tag(config=True)
    unattended = traitlets.Enum(("deny", "allow"), help="what happens to calls that ask where nobody is").tag(
        config=True
    )
    request_timeout_s = traitlets.Float(help="how long a request waits for a person, in seconds").tag(config=True)
    echo = traitlets.Unicode(help="a file that gets each turn as plain text").tag(config=True)

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.notebook = Notebook(shell.user_ns)

    @traitlets.default("model")
    def _model(self) -> str:
        return settings.current().model

    @traitlets.default("mode")
    def _mode(self) -> str:
        return settings.current().mode

    @traitlets.default("max_steps")
    def _max_steps(self) -> int:
        return settings.current().max_steps

    @traitlets.default("unattended")
    def _unattended(self) -> str:
        return settings.current().unattended

    @traitlets.default("request_timeout_s")
    def _request_timeout_s(self) -> float:
        return settings.current().request_timeout_s

    @traitlets.default("echo")
    def _echo(self) -> str:
        return settings.current().echo

    @traitlets.validate(*_SETTINGS)
    def _fits(self, proposal: Any) -> Any:
        try:
            dataclasses.replace(settings.current(), **{proposal["trait"].name: proposal["value"]})
        except SettingError as error:
            raise traitlets.TraitError(str(error)) from None
        return proposal["value"]

    @traitlets.observe(*_SETTINGS)
    def _set(self, change: Any) -> None:
        settings.use(dataclasses.replace(settings.current(), **{change["name"]: change["new"]}))

    @property
    def session(self) -> Session | None:
        """The session that the next cell goes on with."""
        return self.notebook.session

    @no_var_expand
    @magic_arguments()
    @argument("-m", "--model", help="the model: 'embedded', or provider/model as LiteLLM names it")
    @argument("-a", "--agent", help="an Agent of the namespace; its model, tools and rules are used")
    @argument("-t", "--tools", nargs="+", help="names of functions or Tools of the namespace, separated by commas")
    @argument("-i", "--instructions", help="the system instructions, in quotes")
    @argument(
        "--schema", metavar="TYPE", help="a type of the namespace: the turn ends with a value of it, in run.output"
    )
    @argument("-o", "--out", help="a variable that gets the Run")
    @argument("--mode", choices=MODES, help="what happens to calls that no rule names")
    @argument("--max-steps", type=int, help="the most model calls of this turn")
    @argument("--budget", help="the most it may spend: 0.50 (US dollars), or usd=0.5,tokens=20000,calls=10,seconds=60")
    @argument("--timeout", type=float, metavar="SECONDS", help="how long the turn may take")
    @argument("--new", action="store_true", help="begin a new session")
    @argument("--continue", dest="goes_on", action="store_true", help="go on with the newest session of this folder")
    @argument("--session", metavar="ID", help="go on with this session; %%agent sessions lists them")
    @argument("--fork", action="store_true", help="go on in a copy of the session, and leave that as it is")
    @argument("--retry", action="store_true", help="this turn takes the place of the last one of the conversation")
    @argument(
        "--cached",
        nargs="?",
        const="",
        metavar="PATH",
        help="answer from a cassette what it has, and record the rest there",
    )
    @argument("--detach", action="store_true", help="do not wait: the turn goes on, and the next cell can run")
    @argument(
        "--view",
        choices=("live", "keep", "text", "none"),
        default="live",
        help="how the turn is shown; keep leaves the live view in place",
    )
    @cell_magic("agent")
    def cell(self, line: str, cell: str) -> None:
        """Let an agent answer the text of this cell, live.

        What it wants to do and may not do unasked stands on a card with Approve, Deny and Edit; the interrupt button
        stops it. The cell waits for the turn, so that Run All keeps its order.
        """
        try:
            options = self.cell.parser.parse_args(_split(line))
            if options.out is not None and (not options.out.isidentifier() or keyword.iskeyword(options.out)):
                raise UsageError(f"-o {options.out!r} is no name of a variable; use one like 'run'")
            if options.cached is not None and options.detach:
                raise UsageError("--cached and --detach do not go together: a cassette is there for one cell at a time")
            agent = self._agent(options)
            if not cell.strip():
                raise UsageError("the cell is empty; write below %%agent what you want the agent to do")
            with _cassette(options.cached):
                self._turn(agent, cell.strip("\n"), options)
        except RunError:
            raise
        except SessionInDoubt as error:
            raise TurnFailed("in_doubt", "in_doubt", in_cells(error)) from None
        except TurncellError as error:
            raise ShellUsageError(in_cells(error)) from None

    @no_var_expand
    @line_magic("agent")
    def line(self, line: str) -> Any:
        """The commands of the agent: `%agent help` lists them."""
        try:
            return commands.run(self.notebook, line)
        except RunError:
            raise
        except SessionInDoubt as error:
            raise TurnFailed("in_doubt", "in_doubt", in_cells(error)) from None
        except TurncellError as error:
            raise ShellUsageError(in_cells(error)) from None
        except (OSError, ValueError) as error:
            raise ShellUsageError(f"%agent {line}: {error}") from None

    def _turn(self, agent: Agent, prompt: str, options: Any) -> None:
        source = self._session_of(options)
        if source is not None and not options.fork and self._goes_on(source, agent, prompt, options):
            return
        replaces = self._last_of(source) if options.retry else None
        output = None if options.schema is None else self.notebook.name(options.schema)
        budget = None if options.budget is None else limits_in(options.budget)

        def start(is_attended: bool, cell_id: str | None) -> Run:
            # Nothing has changed before this has checked what it was given: a mistake costs and leaves no session.
            session = source.fork() if options.fork and source is not None else source
            try:
                run = agent.start(
                    prompt, session=session, is_attended=is_attended, cell_id=cell_id, mode=options.mode,
                    max_steps=options.max_steps, output=output, budget=budget, timeout_s=options.timeout, replaces=replaces,
                )  # fmt: skip
            except UsageError:
                if session is not None and session is not source:
                    session.delete()
                raise
            self.notebook.use(run.session)
            if options.out:
                self.notebook.names[options.out] = run
            return run

        self.notebook.show(start, view=options.view, detach=options.detach)

    def _goes_on(self, session: Session, agent: Agent, prompt: str, options: Any) -> bool:
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
        is_same = is_of_this_cell(left) and left.prompt is not None and left.prompt.text == redactor().text(prompt)
        is_theirs = set(left.tools) <= set(agent.tools) and (not left.agent or left.agent == agent.name)
        has_all = is_theirs and (bool(options.agent) or left.started.needs == ())
        if left.status != "in_doubt" and not (is_same and has_all):
            commands.say(
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
        commands.say(f"going on with the turn {prompt_of(left)}, which was {LEFT[left.status]}")
        mode = options.mode or stricter(agent.mode, left.mode)
        self.notebook.resume(session, agent, mode, out=options.out, view=options.view, detach=options.detach)
        return is_same

    def _session_of(self, options: Any) -> Session | None:
        """The session that a cell goes on with; None: a new one."""
        chosen = [f"--{name}" for name in ("new", "continue", "session") if getattr(options, _DEST.get(name, name))]
        if len(chosen) > 1 or (options.new and (options.fork or options.retry)):
            other = "--fork" if options.fork else "--retry"
            raise UsageError(f"{' and '.join(chosen) if len(chosen) > 1 else f'--new and {other}'} do not go together")
        if options.new:
            return None
        if options.goes_on:
            return self.notebook.loaded(Session.newest().id)
        if options.session:
            return self.notebook.loaded(options.session)
        if options.fork and self.notebook.session is None:
            raise UsageError("this notebook has no session to fork yet; name one with --session ID or --continue")
        return self.notebook.session or self.notebook.of_this_cell()

    def _last_of(self, session: Session | None) -> str:
        if session is None or not session.runs:
            raise UsageError("--retry: there is no turn yet whose place this one could take")
        return session.runs[-1].run_id

    def _agent(self, options: Any) -> Agent:
        if options.agent:
            agent = self.notebook.agent(options.agent)
            for option in ("model", "tools", "instructions"):
                if getattr(options, option):
                    raise UsageError(f"-a and --{option} do not go together: the agent {options.agent} has its own")
            return agent
        names = self.notebook.tools if options.tools is None else names_in(options.tools)
        tools = [self.notebook.tool(name) for name in names]
        return Agent(options.model, tools=tools, instructions=options.instructions or "")


def _cassette(path: str | None) -> AbstractContextManager[Any]:
    if path is None:
        return nullcontext()
    from turncell.adapters.cassette import cassette

    return cassette(path or os.path.join(settings.current().meta_dirname, "cassette.jsonl"), "auto")


def _split(line: str) -> list[str]:
    """The words of a line as a shell reads them, quotes within quotes too."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f'%%agent {line}: {error}; close each quote, and put text with a \' between " and "') from None
