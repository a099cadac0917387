"""`%%agent` and `%agent`. `%%agent?` is the manual."""

from __future__ import annotations

import inspect
import keyword
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from IPython.core.error import UsageError as ShellUsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments
from IPython.display import display

from turncell.core.policy import MODES
from turncell.errors import RunError, TurncellError, UsageError
from turncell.notebook.turn import run_turn
from turncell.runtime.agent import Agent
from turncell.runtime.run import Run
from turncell.runtime.session import Session

FAILS_THE_CELL = ("failed", "budget", "timeout", "in_doubt")
"""Statuses that make Run All stop. What a person chose (the card's Stop) and what has an answer do not."""


_WORDS = {"export": "PATH", "tools": "[NAMES | --none]"}
"""What the commands of %agent take."""


class TurnFailed(RunError):
    """A run that did not end well, told in one line."""

    def _render_traceback_(self) -> list[str]:
        return [f"{self.status}: {self}"]


@magics_class
class AgentMagics(Magics):
    """The agent of this notebook: its session, and what `%agent` has set."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._names: dict[str, Any] = shell.user_ns
        self.session: Session | None = None
        self.tools: list[str] = []

    @no_var_expand
    @magic_arguments()
    @argument("-m", "--model", help="the model: 'embedded', or provider/model as LiteLLM names it")
    @argument("-a", "--agent", help="an Agent of the namespace; its model, tools and rules are used")
    @argument("-t", "--tools", nargs="+", help="names of functions or Tools of the namespace, separated by commas")
    @argument("-i", "--instructions", help="the system instructions, in quotes")
    @argument("--mode", choices=MODES, help="what happens to calls that no rule names")
    @argument("--max-steps", type=int, help="the most model calls of this turn")
    @argument("-o", "--out", help="a variable that gets the Run")
    @argument("--new", action="store_true", help="begin a new session")
    @argument("--keep-view", action="store_true", help="leave the live view in place when the turn has ended")
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
            agent = self._agent(options)
            if not cell.strip():
                raise UsageError("the cell is empty; write below %%agent what you want the agent to do")
            self._turn(agent, cell.strip("\n"), options)
        except RunError:
            raise
        except TurncellError as error:
            raise ShellUsageError(str(error)) from None

    @no_var_expand
    @line_magic("agent")
    def line(self, line: str) -> Any:
        """%agent status | new | tools [NAMES | --none] | runs | steps | calls | export PATH"""
        try:
            command, *words = shlex.split(line) or ["status"]
            do = getattr(self, f"_do_{command}", None)
            if do is None:
                names = ", ".join(sorted(name[4:] for name in dir(self) if name.startswith("_do_")))
                raise UsageError(
                    f"%agent {command}: there is no such command; use one of {names}, or %%agent for a turn"
                )
            try:
                inspect.signature(do).bind(*words)
            except TypeError as error:
                usage = f"%agent {command} {_WORDS.get(command, '')}".strip()
                raise UsageError(f"%agent {line}: {error}; write {usage}") from None
            return do(*words)
        except TurncellError as error:
            raise ShellUsageError(str(error)) from None
        except (OSError, ValueError) as error:
            raise ShellUsageError(f"%agent {line}: {error}") from None

    def _turn(self, agent: Agent, prompt: str, options: Any) -> None:
        def start(is_attended: bool, cell_id: str | None) -> Run:
            # Nothing has changed before this has checked what it was given: a mistake costs and leaves no session.
            run = agent.start(
                prompt, session=None if options.new else self.session, is_attended=is_attended, cell_id=cell_id,
                mode=options.mode, max_steps=options.max_steps,
            )  # fmt: skip
            self.session = run.session
            if options.out:
                self._names[options.out] = run
            return run

        run = run_turn(start, keep_view=options.keep_view)
        if run.status in FAILS_THE_CELL:
            state = run.state
            raise TurnFailed(state.status, state.error_kind, state.error or f"the run is {state.status}")

    def _agent(self, options: Any) -> Agent:
        if options.agent:
            agent = self._name(options.agent)
            if not isinstance(agent, Agent):
                raise UsageError(
                    f"-a {options.agent}: that is {type(agent).__name__}, not an Agent; make one with turncell.Agent(...)"
                )
            for option in ("model", "tools", "instructions"):
                if getattr(options, option):
                    raise UsageError(f"-a and --{option} do not go together: the agent {options.agent} has its own")
            return agent
        names = self.tools if options.tools is None else _names(options.tools)
        tools = [self._tool(name) for name in names]
        return Agent(options.model, tools=tools, instructions=options.instructions or "")

    def _tool(self, name: str) -> Any:
        tool = self._name(name)
        if not callable(tool):
            raise UsageError(
                f"{name} is {type(tool).__name__}, not a function; a tool is a function, best with @turncell.tool"
            )
        return tool

    def _name(self, name: str) -> Any:
        try:
            return self._names[name]
        except KeyError:
            raise UsageError(f"{name!r} is not defined in this notebook; define it in a cell above") from None

    # %agent ...

    def _do_status(self) -> None:
        from turncell import settings

        current = settings.current()
        count = len(self.session.runs) if self.session else 0
        session = f"{self.session.id}, {count} run{'s' * (count != 1)}" if self.session else "none yet"
        lines = [
            f"model    {current.model}",
            f"mode     {current.mode}",
            f"tools    {', '.join(self.tools) or 'none'}",
            f"session  {session}",
            f"history  {current.store_path}",
        ]
        print("\n".join(lines))  # noqa: T201  (a magic answers by printing)

    def _do_new(self) -> None:
        self.session = None

    def _do_tools(self, *names: str) -> None:
        wanted = _names(names)
        if "--none" in wanted:
            if wanted != ["--none"]:
                raise UsageError("--none and names do not go together; write %agent tools --none, or the names alone")
            self.tools = []
        elif wanted:
            Agent("embedded", tools=[self._tool(name) for name in wanted])  # refuses what no model can be offered
            self.tools = wanted
        print(", ".join(self.tools) or "none")  # noqa: T201

    def _do_runs(self) -> None:
        from turncell.frames.history import runs_df

        display(runs_df(self._a_session()))

    def _do_steps(self) -> None:
        from turncell.frames.history import steps_df

        display(steps_df(self._a_session()))

    def _do_calls(self) -> None:
        from turncell.frames.history import calls_df

        display(calls_df(self._a_session()))

    def _do_export(self, path: str) -> None:
        from turncell.frames.export import export_html, export_markdown

        session, target = self._a_session(), Path(path).expanduser()
        title = next((run.prompt.text for run in session.runs if run.prompt), "Agent session")[:80]
        text = export_markdown(session.runs) if target.suffix == ".md" else export_html(session.runs, title)
        target.write_text(text, encoding="utf-8")
        print(target.resolve())  # noqa: T201

    def _a_session(self) -> Session:
        if self.session is None:
            raise UsageError("this notebook has no session yet; begin one with %%agent")
        return self.session


def _split(line: str) -> list[str]:
    """The words of a line as a shell reads them, quotes within quotes too."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f'%%agent {line}: {error}; close each quote, and put text with a \' between " and "') from None


def _names(words: Iterable[str]) -> list[str]:
    """
    >>> _names(["a,", "b", "c,d"])
    ['a', 'b', 'c', 'd']
    """
    return [name for word in words for name in re.split(r"[,\s]+", word) if name]
