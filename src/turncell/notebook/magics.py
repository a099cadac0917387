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
from turncell.errors import RunError, SessionInDoubt, TurncellError, UsageError
from turncell.frames.visible import visible
from turncell.notebook.bridge import KernelBridge
from turncell.notebook.turn import run_turn
from turncell.runtime import defaults
from turncell.runtime.agent import Agent
from turncell.runtime.portable import prune
from turncell.runtime.process import may_go_on
from turncell.runtime.rulebook import rule_id, rulebook
from turncell.runtime.run import Run
from turncell.runtime.secrets import redactor
from turncell.runtime.session import Session

_DEST = {"continue": "goes_on"}
FAILS_THE_CELL = ("failed", "budget", "timeout", "interrupted", "in_doubt")
"""Statuses that make Run All stop. What a person chose (the card's Stop) and what has an answer do not."""


_WORDS = {
    "branch": "[RUN]", "context": "[--whole]", "delete": "ID", "export": "[--session] PATH", "import": "PATH",
    "rename": "TITLE", "resume": "[ID] [-a AGENT]", "retry": "[-a AGENT]", "rules": "[revoke ID]",
    "sessions": "[--all] [prune --older 90d]", "takeover": "[ID]", "tools": "[NAMES | --none]",
}  # fmt: skip
"""What the commands of %agent take."""
_IN_CELLS = {
    "session.fork()": "%%agent --fork",
    "session.take_over()": "%agent takeover",
    "run = session.resume(is_attended=True), then run.approve() runs it again, run.reply(result) says that it has "
    "happened, run.deny() skips it": "%agent resume, where somebody attends: run it again, say that it has happened, or skip it",
}
"""What errors say to programs, as somebody in a notebook does it."""
_LEFT = {
    "running": "running in a process that lives", "interrupted": "interrupted", "waiting": "interrupted while a call "
    "waited for an answer", "in_doubt": "in doubt: a write had begun when the program ended",
}  # fmt: skip
_STRICTER: tuple[Mode, ...] = ("auto", "edits", "ask", "plan", "never")
"""Each allows less unasked than the one before."""


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
        except SessionInDoubt as error:
            raise TurnFailed("in_doubt", "in_doubt", _in_cells(error)) from None
        except TurncellError as error:
            raise ShellUsageError(_in_cells(error)) from None

    @no_var_expand
    @line_magic("agent")
    def line(self, line: str) -> Any:
        """%agent status | doctor | context [--whole] | new | tools [NAMES | --none] | rules [revoke ID] | runs | steps | calls |
        sessions [--all] [prune --older 90d] | resume [ID] [-a AGENT] | takeover [ID] | undo | redo | retry [-a AGENT] |
        branch [RUN] | fork | rename TITLE | delete ID | help | export PATH | export --session PATH | import PATH

        `export PATH` writes a transcript to read (.html or .md); `export --session PATH` writes the session whole (.md or
        .jsonl), and only that can be imported again."""
        try:
            command, *words = _words(line) or ["status"]
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
        except SessionInDoubt as error:
            raise TurnFailed("in_doubt", "in_doubt", _in_cells(error)) from None
        except TurncellError as error:
            raise ShellUsageError(_in_cells(error)) from None
        except (OSError, ValueError) as error:
            raise ShellUsageError(f"%agent {line}: {error}") from None

    def _turn(self, agent: Agent, prompt: str, options: Any) -> None:
        source = self._session_of(options)
        if source is not None and not options.fork and self._goes_on(source, agent, prompt, options):
            return

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
        is_same = _is_of_this_cell(left) and left.prompt is not None and left.prompt.text == redactor().text(prompt)
        is_theirs = set(left.tools) <= set(agent.tools) and (not left.agent or left.agent == agent.name)
        has_all = is_theirs and (bool(options.agent) or left.started.needs == ())
        if left.status != "in_doubt" and not (is_same and has_all):
            print(  # noqa: T201
                f"the turn {_prompt_of(left)} was {_LEFT[left.status]}; this cell closes it "
                "(%agent resume goes on with such a turn instead)"
            )
            return False
        if not has_all:
            calls = ", ".join(call.name for call in session.in_doubt)
            raise UsageError(
                f"the turn {_prompt_of(left)} had begun {calls} when the program ended, and whether that has happened is "
                f"not known; {_whose(left)} has to go on with it first: %agent resume -a AGENT"
            )
        print(f"going on with the turn {_prompt_of(left)}, which was {_LEFT[left.status]}")  # noqa: T201
        self._resume(session, agent, left, options.mode or _stricter(agent.mode, left.mode), options)
        return is_same

    def _resume(self, session: Session, agent: Agent, left: RunState, mode: Mode | None, options: Any = None) -> None:
        def start(is_attended: bool, cell_id: str | None) -> Run:
            run = agent.resume(session, is_attended=is_attended, mode=mode)
            self._use(session)
            if options is not None and options.out:
                self._names[options.out] = run
            return run

        self._show(start, keep_view=options is not None and options.keep_view)

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
        if self.session is None and KernelBridge.current().cell_id() is not None:
            # The kernel was restarted and the cell run again: its turn of before may have done half of what it asks.
            for info in Session.list():
                if info.left in ("interrupted", "waiting", "in_doubt"):
                    session = self._loaded(info.session_id)
                    if session.interrupted is not None and _is_of_this_cell(session.interrupted):
                        return session
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
            error = state.error or f"the run is {state.status}"
            if state.status in ("interrupted", "in_doubt"):
                error = f"{state.error or _LEFT[state.status]}; %agent resume goes on with the turn"
            raise TurnFailed(state.status, state.error_kind, _in_cells(error))

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
        if self.session is not None and (left := self.session.interrupted) is not None:
            session += f"; the last one {_LEFT[left.status]}, %agent resume goes on with it"
        if self.session is not None and self.session.damage is not None:
            session += "; damaged, %agent fork goes on in a copy"
        lines = [
            f"model    {current.model}",
            f"mode     {current.mode}",
            f"tools    {', '.join(self.tools) or 'none'}",
            f"session  {session}",
            f"history  {current.store_name}",
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
        mine, journal = self.session.id if self.session else "", defaults.journal()
        lines = [
            f"{'*' if info.session_id == mine else ' '} {info.session_id}  "
            f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(info.updated_at))}  "
            f"{info.runs} run{'s' * (info.runs != 1)}  {visible(' '.join(info.title.split()))[:60]}"
            + (f"  {visible(info.project)}" if given.all else "")
            + (f"  [{_LEFT[info.left]}]" if info.left else "")
            + ("  [damaged]" if journal.damage(info.session_id) is not None else "")
            for info in Session.list(journal, everywhere=given.all)
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
        self._resume(session, agent, left, _stricter(agent.mode, left.mode))

    def _agent_of(self, run: RunState, name: str | None) -> Agent:
        """Who goes on with a run: the agent that is named, or one of the same model, tools and mode.

        Not without the rules, hooks and limits that the run's agent had, of which a record holds only that there were some.
        """
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
        needs = run.started.needs
        if needs or needs is None:
            had = f"had what a record does not hold ({', '.join(needs)})" if needs else "may have had rules and limits"
            raise UsageError(f"{_whose(run)} {had}, and nobody goes on without that; name the agent: -a AGENT")
        tools = [self._tool(tool) for tool in run.tools]
        return Agent(run.model, tools=tools, instructions=run.instructions, mode=cast(Mode, run.mode))

    def _do_takeover(self, session_id: str | None = None) -> None:
        session = self._loaded(session_id) if session_id else self.session or Session.newest()
        session = Session.load(session.id)  # who writes it now
        writer = session.writer
        if writer is None:
            session.hold()
            self._use(session)
            print(f"{session.id}: nobody else writes it; the next cell goes on")  # noqa: T201
            return
        if may_go_on(writer):
            raise UsageError(
                f"session {session.id} is written by process {writer.pid} on this machine, which is running; shut that "
                "kernel down, or go on in a copy with %%agent --fork"
            )
        session.take_over()
        self._use(session)
        print(  # noqa: T201
            f"{session.id} is taken over from process {writer.pid} on {writer.host}: what that one still does, it cannot "
            "record any more; the next cell goes on here"
        )

    def _do_retry(self, *words: str) -> None:
        given = _RETRY.parse_args(list(words))
        session = self._a_session()
        if not session.runs:
            raise UsageError("there is nothing to ask again: the conversation is empty")
        last = session.runs[-1]
        agent = self._agent_of(last, given.agent)

        def start(is_attended: bool, cell_id: str | None) -> Run:
            return session.retry(agent=agent, is_attended=is_attended, mode=_stricter(agent.mode, last.mode))

        self._show(start)

    def _do_branch(self, run_id: str | None = None) -> None:
        session = self._a_session()
        if run_id is None:
            path = session.conversation.path
            lines = [
                f"{'*' if run.run_id in path else ' '} {run.run_id}  {_prompt_of(run)}" for run in session.all_runs
            ]
            print("\n".join(lines) or "none yet")  # noqa: T201
            return
        session.branch(run_id)
        print(f"the next cell goes on after {_prompt_of(session.runs[-1])}; the conversation has {self._count()}")  # noqa: T201

    def _do_help(self) -> None:
        print(inspect.getdoc(AgentMagics.line))  # noqa: T201

    def _do_context(self, *words: str) -> None:
        if words not in ((), ("--whole",)):
            raise UsageError(f"%agent context {' '.join(words)}: write %agent context, or %agent context --whole")
        session = self._a_session()
        report = session.context_report(session.agent or Agent(tools=[self._tool(name) for name in self.tools]))
        print("\n".join(map(visible, report.table(whole=bool(words)).split("\n"))))  # noqa: T201

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
        self._a_session().rename(title[0])

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
_RETRY = _Parser(prog="%agent retry", add_help=False)
_RETRY.add_argument("-a", "--agent")


def _words(line: str) -> list[str]:
    """
    >>> _words("rename it's mine"), _words("export 'a b.md'"), _words("--help")
    (['rename', "it's mine"], ['export', 'a b.md'], ['help'])
    """
    command, _, rest = line.strip().partition(" ")
    title = rest.strip()
    if command != "rename":
        words = shlex.split(line)
        return ["help"] if words in (["--help"], ["-h"]) else words
    if len(title) > 1 and title[0] == title[-1] and title[0] in "'\"" and title[0] not in title[1:-1]:
        title = title[1:-1]
    return [command, title] if title else [command]


def _in_cells(error: object) -> str:
    text = str(error)
    for said, instead in _IN_CELLS.items():
        text = text.replace(said, instead)
    return text


def _is_of_this_cell(run: RunState) -> bool:
    return run.cell_id is not None and run.cell_id == KernelBridge.current().cell_id()


def _whose(run: RunState) -> str:
    return f"the turn's agent {run.agent!r}" if run.agent else "the turn's agent"


def _stricter(mode: Mode, other: str) -> Mode:
    """A record takes nothing from what an agent asks, and an agent nothing from what the turn asked."""
    return max(mode, cast(Mode, other), key=_STRICTER.index)


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
