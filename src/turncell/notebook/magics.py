"""`%%agent` and `%agent`. `%%agent?` is the manual."""

from __future__ import annotations

import argparse
import inspect
import keyword
import re
import shlex
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, cast

from IPython.core.error import UsageError as ShellUsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments
from IPython.display import display

from turncell.core.fold import RunState
from turncell.core.policy import MODES, Mode
from turncell.errors import RunError, TurncellError, UsageError
from turncell.frames.visible import visible
from turncell.notebook.turn import run_turn
from turncell.runtime.agent import Agent
from turncell.runtime.portable import prune
from turncell.runtime.rulebook import rule_id, rulebook
from turncell.runtime.run import Run
from turncell.runtime.session import Session

_DEST = {"continue": "goes_on"}
FAILS_THE_CELL = ("failed", "budget", "timeout", "in_doubt")
"""Statuses that make Run All stop. What a person chose (the card's Stop) and what has an answer do not."""


_WORDS = {
    "delete": "ID", "export": "[--session] PATH", "import": "PATH", "rename": "TITLE", "resume": "[ID] [-a AGENT]",
    "rules": "[revoke ID]", "sessions": "[--all] [prune --older 90d]", "tools": "[NAMES | --none]",
}  # fmt: skip
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
    @argument("--continue", dest="goes_on", action="store_true", help="go on with the newest session of this folder")
    @argument("--session", metavar="ID", help="go on with this session; %%agent sessions lists them")
    @argument("--fork", action="store_true", help="go on in a copy of the session, and leave that as it is")
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
        """%agent status | doctor | new | tools [NAMES | --none] | rules [revoke ID] | runs | steps | calls |
        sessions [--all] [prune --older 90d] | resume [ID] [-a AGENT] | undo | redo | fork | rename TITLE | delete ID |
        export PATH | export --session PATH | import PATH

        `export PATH` writes a transcript to read (.html or .md); `export --session PATH` writes the session whole (.md or
        .jsonl), and only that can be imported again."""
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
        except RunError:
            raise
        except TurncellError as error:
            raise ShellUsageError(str(error)) from None
        except (OSError, ValueError) as error:
            raise ShellUsageError(f"%agent {line}: {error}") from None

    def _turn(self, agent: Agent, prompt: str, options: Any) -> None:
        source = self._session_of(options)

        def start(is_attended: bool, cell_id: str | None) -> Run:
            # Nothing has changed before this has checked what it was given: a mistake costs and leaves no session.
            session = source.fork() if options.fork and source is not None else source
            try:
                run = agent.start(
                    prompt, session=session, is_attended=is_attended, cell_id=cell_id,
                    mode=options.mode, max_steps=options.max_steps,
                )  # fmt: skip
            except UsageError:
                if session is not None and session is not source:
                    session.delete()
                raise
            self._use(run.session)
            if options.out:
                self._names[options.out] = run
            return run

        self._show(start, keep_view=options.keep_view)

    def _session_of(self, options: Any) -> Session | None:
        """The session that a cell goes on with; None: a new one."""
        chosen = [f"--{name}" for name in ("new", "continue", "session") if getattr(options, _DEST.get(name, name))]
        if len(chosen) > 1 or (options.new and options.fork):
            raise UsageError(f"{' and '.join(chosen) if len(chosen) > 1 else '--new and --fork'} do not go together")
        if options.new:
            return None
        if options.goes_on:
            return self._loaded(Session.newest().id)
        if options.session:
            return self._loaded(options.session)
        if options.fork and self.session is None:
            raise UsageError("this notebook has no session to fork yet; name one with --session ID or --continue")
        return self.session

    def _loaded(self, session_id: str) -> Session:
        if self.session is not None and self.session.id == session_id:
            return self.session
        return Session.load(session_id)

    def _use(self, session: Session | None) -> None:
        """This session is the notebook's from now on; the one of before may be written by others."""
        before, self.session = self.session, session
        if before is not None and before is not session and not before.is_busy:
            before.close()

    def _show(self, start: Callable[[bool, str | None], Run], *, keep_view: bool = False) -> None:
        run = run_turn(start, keep_view=keep_view)
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

    def _do_doctor(self) -> None:
        from turncell.notebook.doctor import report

        print(report())  # noqa: T201

    def _do_new(self) -> None:
        self._use(None)

    def _do_sessions(self, *words: str) -> None:
        given = _SESSIONS.parse_args(list(words))
        if given.prune is not None:
            if given.older is None:
                raise UsageError("%agent sessions prune: say how old, like --older 90d")
            gone = prune(_days(given.older), everywhere=given.all)
            print(f"{len(gone)} session{'s' * (len(gone) != 1)} deleted")  # noqa: T201
            return
        if given.older is not None:
            raise UsageError("--older belongs to prune; write %agent sessions prune --older 90d")
        mine = self.session.id if self.session else ""
        lines = [
            f"{'*' if info.session_id == mine else ' '} {info.session_id}  "
            f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(info.updated_at))}  "
            f"{info.runs} run{'s' * (info.runs != 1)}  {visible(' '.join(info.title.split()))[:60]}"
            + (f"  {visible(info.project)}" if given.all else "")
            for info in Session.list(everywhere=given.all)
        ]
        print("\n".join(lines) or "none yet")  # noqa: T201

    def _do_resume(self, *words: str) -> None:
        given = _RESUME.parse_args(list(words))
        session = self._loaded(given.id) if given.id else self.session or Session.newest()
        left = session.interrupted
        if left is None:
            session.hold()  # a session that somebody else writes is said here, not at the next cell
            self._use(session)
            count = len(session.runs)
            print(f"{session.id}: {visible(session.title)!r}, {count} run{'s' * (count != 1)}; the next cell goes on")  # noqa: T201
            return
        agent = self._agent_of(left, given.agent)

        def start(is_attended: bool, cell_id: str | None) -> Run:
            run = agent.resume(session, is_attended=is_attended, mode=cast(Mode, left.mode))
            self._use(session)
            return run

        self._show(start)

    def _agent_of(self, run: RunState, name: str | None) -> Agent:
        """Who goes on with a run: the agent that is named, or one of the same model and tools."""
        if name is not None:
            agent = self._name(name)
            if not isinstance(agent, Agent):
                raise UsageError(f"-a {name}: that is {type(agent).__name__}, not an Agent")
            return agent
        missing = [tool for tool in run.tools if tool not in self._names]
        if missing:
            raise UsageError(
                f"the interrupted turn had the tools {', '.join(run.tools)}, and {', '.join(missing)} is not defined in "
                "this notebook; define it in a cell above, or name an Agent that has it: %agent resume -a AGENT"
            )
        tools = [self._tool(tool) for tool in run.tools]
        return Agent(run.model, tools=tools, instructions=run.instructions)

    def _do_undo(self) -> None:
        run = self._a_session().undo()
        print(f"undone: {_prompt_of(run)}; the conversation has {self._count()} left")  # noqa: T201

    def _do_redo(self) -> None:
        session = self._a_session()
        session.redo()
        print(f"back again: {_prompt_of(session.runs[-1])}; the conversation has {self._count()}")  # noqa: T201

    def _do_fork(self) -> None:
        self._use(self._a_session().fork())
        print(f"{self._a_session().id}: the next cell goes on in the copy, which has {self._count()}")  # noqa: T201

    def _do_rename(self, *title: str) -> None:
        if not title:
            raise UsageError("%agent rename: a title is missing; write %agent rename TITLE")
        self._a_session().rename(" ".join(title))

    def _do_delete(self, session_id: str) -> None:
        session = self._loaded(session_id)
        session.delete()
        if session is self.session:
            self.session = None
        print(f"{session_id} is deleted")  # noqa: T201

    def _count(self) -> str:
        count = len(self._a_session().runs)
        return f"{count} run{'s' * (count != 1)}"

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

    def _do_export(self, *words: str) -> None:
        from turncell.frames.export import export_html, export_markdown

        given = _EXPORT.parse_args(list(words))
        session, target = self._a_session(), Path(given.path).expanduser()
        if given.session:
            print(f"{session.export(target).resolve()}\nthe session whole; %agent import reads it")  # noqa: T201
            return
        if target.suffix not in (".html", ".md"):
            raise UsageError(
                f"%agent export {given.path}: a transcript is .html or .md; write %agent export --session PATH for the "
                "session whole (.md or .jsonl), which %agent import reads"
            )
        title = next((run.prompt.text for run in session.runs if run.prompt), "Agent session")[:80]
        text = export_markdown(session.runs) if target.suffix == ".md" else export_html(session.runs, title)
        target.write_text(text, encoding="utf-8")
        print(f"{target.resolve()}\na transcript, to read; %agent export --session PATH writes what can be imported")  # noqa: T201

    def _do_import(self, path: str) -> None:
        session = Session.import_file(Path(path).expanduser())
        count = len(session.runs)
        print(  # noqa: T201
            f"{session.id}: {visible(session.title)!r}, {count} run{'s' * (count != 1)}; "
            f"go on with %agent resume {session.id}, or %%agent --session {session.id}"
        )

    def _do_rules(self, *words: str) -> None:
        given = _RULES.parse_args(list(words))
        if (given.revoke is None) != (given.id is None):
            raise UsageError("%agent rules revoke: say which; write %agent rules revoke ID")
        mine = self.session.rules if self.session else ()
        book = rulebook()
        if given.id is None:
            known = [(rule, "for this session") for rule in mine] + [(one.rule, "always") for one in book.rules()]
            lines = [
                f"{rule_id(rule)}  {visible(str(rule))}, {scope}" + (f": {visible(rule.reason)}" if rule.reason else "")
                for rule, scope in known
            ]
            print("\n".join(lines) or "none")  # noqa: T201
            return
        found = [rule for rule in mine if rule_id(rule) == given.id]
        gone = [f"{rule}, for this session" for rule in found if self._a_session().revoke(rule)]
        gone += [f"{one.rule}, always" for one in book.rules() if one.rule_id == given.id and book.revoke(given.id)]
        if not gone:
            raise UsageError(f"there is no remembered rule {given.id!r}; %agent rules lists them")
        print("\n".join(f"revoked: {visible(rule)}" for rule in gone))  # noqa: T201

    def _a_session(self) -> Session:
        if self.session is None:
            raise UsageError("this notebook has no session yet; begin one with %%agent")
        return self.session


class _Parser(argparse.ArgumentParser):
    """Of the words after a command; a mistake is one line and not the end of the program."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; write {self.prog} {_WORDS[self.prog.split()[-1]]}")


_SESSIONS = _Parser(prog="%agent sessions", add_help=False)
_SESSIONS.add_argument("prune", nargs="?", choices=["prune"])
_SESSIONS.add_argument("--all", action="store_true")
_SESSIONS.add_argument("--older")
_EXPORT = _Parser(prog="%agent export", add_help=False)
_EXPORT.add_argument("path", metavar="PATH")
_EXPORT.add_argument("--session", action="store_true")
_RULES = _Parser(prog="%agent rules", add_help=False)
_RULES.add_argument("revoke", nargs="?", choices=["revoke"])
_RULES.add_argument("id", nargs="?")
_RESUME = _Parser(prog="%agent resume", add_help=False)
_RESUME.add_argument("id", nargs="?")
_RESUME.add_argument("-a", "--agent")


def _days(text: str) -> float:
    """
    >>> _days("90d"), _days("12h"), _days("2w")
    (90.0, 0.5, 14.0)
    """
    found = re.fullmatch(r"(\d{1,6})([hdw])", text)
    if found is None:
        raise UsageError(f"--older {text}: write a number of hours, days or weeks, like 12h, 90d, 2w")
    return int(found[1]) * {"h": 1 / 24, "d": 1.0, "w": 7.0}[found[2]]


def _prompt_of(run: RunState) -> str:
    text = visible(" ".join((run.prompt.text if run.prompt else "").split()))
    return repr(text if len(text) <= 60 else text[:59] + "…")


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
