"""What `%%agent` and `%agent` know of a notebook: its session, its tools, and the names of its namespace."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, cast, is_typeddict

from turncell.core.budget import RESOURCES
from turncell.core.fold import RunState
from turncell.core.policy import Mode
from turncell.errors import RunError, UsageError
from turncell.frames.visible import visible
from turncell.notebook.bridge import KernelBridge
from turncell.notebook.namespace import notebook_tools
from turncell.notebook.turn import View, run_turn
from turncell.runtime.agent import Agent
from turncell.runtime.run import Run
from turncell.runtime.session import Session
from turncell.runtime.tools import is_source

FAILS_THE_CELL = ("failed", "budget", "timeout", "interrupted", "in_doubt")
"""Statuses that make Run All stop. What a person chose (the card's Stop) and what has an answer do not."""
LEFT = {
    "running": "running in a process that lives", "interrupted": "interrupted", "waiting": "interrupted while a call "
    "waited for an answer", "in_doubt": "in doubt: a write had begun when the program ended",
}  # fmt: skip
"""How a run was left that has not ended."""
_CUT_OFF = ("interrupted", "waiting", "in_doubt")
_IN_CELLS = {
    "session.fork()": "%%agent --fork",
    "begin one with agent.session()": "begin one with %%agent",
    "load it with Session.load(session_id)": "go on with it by %agent resume ID",
    "session.take_over()": "%agent takeover",
    "Session.list(everywhere=True) has the ids and titles": "%agent sessions --all lists them",
    "run = session.resume(is_attended=True), then run.approve() runs it again, run.reply(result) says that it has "
    "happened, run.deny() skips it": "%agent resume, where somebody attends: run it again, say that it has happened, or skip it",
}
"""What errors say to programs, as somebody in a notebook does it."""
_RAISED = re.compile(r"budget\.set\((\w+)=\.\.\.\)")
_STRICTER: tuple[Mode, ...] = ("auto", "edits", "ask", "plan", "never")
"""Each allows less unasked than the one before."""


class TurnFailed(RunError):
    """A run that did not end well, told in one line."""

    def _render_traceback_(self) -> list[str]:
        return [f"{self.status}: {self}"]


class Notebook:
    """The session that its cells go on with, the tools they have, and what is defined in it."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.names: MutableMapping[str, Any] = shell.user_ns
        self.session: Session | None = None
        self.tools: list[str] = []
        self._runs: list[Run] = []
        self._left: dict[str, list[str]] | None = None
        """By cell, the sessions that ended in a turn of it which was cut off, before this kernel."""
        self._begun: tuple[str | None, int] = (None, 0)
        """The execution that began a turn of its cell last, and how many it has begun."""

    @property
    def runs(self) -> list[Run]:
        """The runs that were started from here and go on, oldest first: what `%agent stop` and `%agent approve` mean."""
        self._runs = [run for run in self._runs if not run.done.done()]
        return self._runs

    # -- names

    def name(self, name: str) -> Any:
        """What is called so in the notebook; UsageError where nothing is."""
        try:
            return self.names[name]
        except KeyError:
            raise UsageError(f"{name!r} is not defined in this notebook; define it in a cell above") from None

    def type_named(self, text: str) -> Any:
        """A type, as an annotation would say it with the names of the notebook and of Python: `Label`, `list[int]`, `A | None`.

        UsageError for a name that is not there, and for what is no type. Nothing is called.
        """
        from turncell.runtime.output_type import OutputType

        try:
            found = _type_at(ast.parse(text.strip(), mode="eval").body, self.names)
        except LookupError as error:
            raise UsageError(f"{error.args[0]!r} is not defined in this notebook; define it in a cell above") from None
        except Exception as error:
            raise UsageError(f"--schema {text}: {error}; use a type, like Label or list[int]") from None
        if found is None or isinstance(found, (str, int, float, list, tuple, Mapping)):
            raise UsageError(f"--schema {text}: that is {type(found).__name__}, not a type")
        try:
            OutputType(found)
        except UsageError as error:
            if is_typeddict(found) and "typing_extensions" in str(error):
                raise UsageError(
                    f"--schema {text}: on Python before 3.12 a TypedDict has to be that of typing_extensions"
                ) from None
            why = str(error.__cause__ or error).splitlines()[0]
            raise UsageError(
                f"--schema {text}: that is {type(found).__name__}, which cannot be asked for: {visible(why)[:200]}; "
                "use a dataclass, a TypedDict, an Enum, a pydantic model, or a type like list[int]"
            ) from None
        return found

    def tools_of(self, names: Iterable[str]) -> list[Any]:
        """Functions and Tools of the notebook by name; "notebook" stands for its own tools, unless something is called so."""
        tools: list[Any] = []
        for name in names:
            if name == "notebook" and name not in self.names:
                tools += notebook_tools(shell=self.shell)
            else:
                tools.append(self.tool(name))
        return tools

    def tool(self, name: str) -> Any:
        tool = self.name(name)
        if not callable(tool) and not is_source(tool):
            raise UsageError(
                f"{name} is {type(tool).__name__}, not a function; a tool is a function, best with @turncell.tool"
            )
        return tool

    def agent(self, name: str) -> Agent:
        agent = self.name(name)
        if not isinstance(agent, Agent):
            raise UsageError(
                f"-a {name}: that is {type(agent).__name__}, not an Agent; make one with turncell.Agent(...)"
            )
        return agent

    # -- sessions

    def a_session(self) -> Session:
        if self.session is None:
            raise UsageError("this notebook has no session yet; begin one with %%agent")
        return self.session

    def loaded(self, session_id: str) -> Session:
        if self.session is not None and self.session.id == session_id:
            return self.session
        return Session.load(session_id)

    def use(self, session: Session | None) -> None:
        """This session is the notebook's from now on; the one of before may be written by others."""
        before, self.session = self.session, session
        if before is not None and before is not session and not before.is_busy:
            before.close()

    def of_this_cell(self) -> Session | None:
        """The session whose interrupted turn is this cell's: the kernel was restarted, and the cell is run again."""
        left = ((session, session.interrupted) for session in self._left_in_this_cell())
        return next((session for session, run in left if run is not None and self.is_of_this_cell(run)), None)

    def in_doubt_of_this_cell(self) -> Session | None:
        """The session in which a write of this cell is in doubt, whichever the notebook goes on with."""
        return next((session for session in self._left_in_this_cell() if session.in_doubt), None)

    def _left_in_this_cell(self) -> Iterator[Session]:
        """The sessions that ended in a turn of this cell which was cut off, the latest first.

        Looked for once: what this kernel does, it sees the end of.
        """
        if (cell_id := self.cell_id()) is None:
            return
        if self._left is None:
            self._left = {}
            for info in Session.list():
                run = self.loaded(info.session_id).interrupted if info.left in _CUT_OFF else None
                if run is not None and run.cell_id is not None:
                    self._left.setdefault(run.cell_id, []).append(info.session_id)
        for session_id in self._left.get(cell_id, ()):
            with suppress(UsageError):  # it was deleted
                yield self.loaded(session_id)

    # -- turns

    def cell_id(self) -> str | None:
        """The running cell, as its next turn is known. In a loop no turn takes the place of the one before."""
        cell_id, begun = KernelBridge.current().cell_id(), self._begun_here()
        return f"{cell_id}#{begun + 1}" if cell_id is not None and begun else cell_id

    def has_begun(self) -> None:
        """The turn of `cell_id()` has begun."""
        self._begun = KernelBridge.current().execution(), self._begun_here() + 1

    def _begun_here(self) -> int:
        execution, begun = self._begun
        return begun if execution == KernelBridge.current().execution() else 0

    def is_of_this_cell(self, run: RunState) -> bool:
        return run.cell_id is not None and run.cell_id == self.cell_id()

    def show(self, start: Callable[[bool], Run], *, view: View = "live", detach: bool = False) -> Run:
        """Show a run in this cell and wait for its end. Raises TurnFailed for what has to fail the cell."""

        def begin(is_attended: bool) -> Run:
            run = start(is_attended)
            self._runs = [*self.runs, run]
            return run

        has_waited = not (detach and KernelBridge.current().allow_stdin())
        run = run_turn(begin, view=view, detach=detach)
        if has_waited and run.status in FAILS_THE_CELL:
            state = run.state
            error = state.error or f"the run is {state.status}"
            if state.status in ("interrupted", "in_doubt"):
                error = f"{state.error or LEFT[state.status]}; %agent resume goes on with the turn"
            raise TurnFailed(state.status, state.error_kind, in_cells(error))
        return run

    def resume(
        self,
        session: Session,
        agent: Agent,
        mode: Mode | None,
        *,
        out: str | None = None,
        view: View = "live",
        detach: bool = False,
        **terms: Any,
    ) -> None:
        """Go on with the turn of this session that was interrupted; `terms` are options of `Agent.resume`."""

        def start(is_attended: bool) -> Run:
            run = agent.resume(session, is_attended=is_attended, mode=mode, **terms)
            self.use(session)
            if out:
                self.names[out] = run
            return run

        self.show(start, view=view, detach=detach)

    def agent_of(self, run: RunState, name: str | None) -> Agent:
        """Who goes on with a run: the agent that is named, or one of the same model, tools and mode.

        Not without the rules, hooks and limits that the run's agent had, of which a record holds only that there were some.
        """
        if name is not None:
            return self.agent(name)
        own = {tool.name: tool for tool in notebook_tools(shell=self.shell)}
        missing = [tool for tool in run.tools if tool not in self.names and tool not in own]
        if missing:
            raise UsageError(
                f"the interrupted turn had the tools {', '.join(run.tools)}, and {', '.join(missing)} is not defined in "
                "this notebook; define it in a cell above, or name an Agent that has it: %agent resume -a AGENT"
            )
        needs = run.started.needs
        if needs or needs is None:
            had = f"had what a record does not hold ({', '.join(needs)})" if needs else "may have had rules and limits"
            raise UsageError(f"{whose(run)} {had}, and nobody goes on without that; name the agent: -a AGENT")
        tools = [self.tool(tool) if tool in self.names else own[tool] for tool in run.tools]
        return Agent(run.model, tools=tools, instructions=run.instructions, mode=cast(Mode, run.mode))


def _type_at(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """What an annotation means. KeyError with the name that is not there."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id] if node.id in names else vars(builtins)[node.id]
    if isinstance(node, ast.Attribute):
        return getattr(_type_at(node.value, names), node.attr)
    if isinstance(node, ast.Tuple):
        return tuple(_type_at(each, names) for each in node.elts)
    if isinstance(node, ast.Subscript):
        return _type_at(node.value, names)[_type_at(node.slice, names)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _type_at(node.left, names) | _type_at(node.right, names)
    raise ValueError("that is no type")


def in_cells(error: object) -> str:
    """What an error says, with the magics in place of the methods."""
    text = str(error)
    for said, instead in _IN_CELLS.items():
        text = text.replace(said, instead)
    return _RAISED.sub(r"--budget \1=...", text)


def whose(run: RunState) -> str:
    return f"the turn's agent {run.agent!r}" if run.agent else "the turn's agent"


def stricter(mode: Mode, other: str) -> Mode:
    """A record takes nothing from what an agent asks, and an agent nothing from what the turn asked."""
    return max(mode, cast(Mode, other), key=_STRICTER.index)


def prompt_of(run: RunState) -> str:
    """What was asked, short and in quotes."""
    text = visible(" ".join((run.prompt.text if run.prompt else "").split()))
    return repr(text if len(text) <= 60 else text[:59] + "…")


def names_in(words: Iterable[str]) -> list[str]:
    """
    >>> names_in(["a,", "b", "c,d"])
    ['a', 'b', 'c', 'd']
    """
    return [name for word in words for name in re.split(r"[,\s]+", word) if name]


def counted(count: int, what: str) -> str:
    """
    >>> counted(1, "run"), counted(3, "run")
    ('1 run', '3 runs')
    """
    return f"{count} {what}{'s' * (count != 1)}"


def limits_in(text: str) -> dict[str, float]:
    """The limits of a budget, as they are typed.

    >>> limits_in("0.50"), limits_in("usd=0.5, tokens=20000")
    ({'usd': 0.5}, {'usd': 0.5, 'tokens': 20000})
    """
    limits: dict[str, float] = {}
    for piece in text.split(","):
        name, equals, value = (word.strip() for word in piece.rpartition("="))
        name = name if equals else "usd"
        how = f"write dollars, like 0.50, or limits of {', '.join(RESOURCES)}, like usd=0.5,tokens=20000"
        if name not in RESOURCES or name in limits:
            raise UsageError(f"--budget {text}: {how}")
        try:
            limits[name] = int(value) if value.isdigit() else float(value)
        except ValueError:
            raise UsageError(f"--budget {text!r}: {value!r} is no number; {how}") from None
    return limits
