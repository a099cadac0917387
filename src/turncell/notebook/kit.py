"""The kit: widgets for people's own dashboards. They stand in ipywidgets layouts and are observed by their traits.

    chat = Chat(agent)
    VBox([chat, UsageMeter(chat)])
    chat.observe(lambda change: print(change.new), "status")

A run that a chat starts is attended by it: what waits stands on a card there (and in `Approvals`), and its answer is
checked in Python as everywhere. One widget shows several runs; the messages of each travel in an envelope (`wire.Of`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import traitlets
from pydantic import ValidationError

from turncell.core import codec
from turncell.core.fold import RunState, snapshot
from turncell.errors import TurncellError, UsageError
from turncell.notebook import wire
from turncell.notebook.host import has_many_people
from turncell.notebook.link import Link
from turncell.notebook.widgets import Figures, View
from turncell.runtime.agent import Agent
from turncell.runtime.journal import Journal
from turncell.runtime.loop import BackgroundLoop
from turncell.runtime.owners import running_runs
from turncell.runtime.run import Run
from turncell.runtime.secrets import redactor, without_secrets
from turncell.runtime.session import Session
from turncell.runtime.threads import in_background

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("turncell")

_POLL_S = 0.5
_TITLE_CHARS = 200
REVIEW_ROWS = 1_000
"""Rows that a review shows: the page holds them all."""


class _Kit(View):
    """A widget of several runs."""

    runs = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """The ids of the runs that are shown, in order."""
    problem = traitlets.Unicode("").tag(sync=True)
    """Why what was asked for last was not done; empty when it was."""

    def __init__(self, **traits: Any) -> None:
        self._links: dict[str, Callable[[Any], None]] = {}
        super().__init__("widget", "kit", **traits)

    def take(self, content: Any, buffers: Any = None) -> None:
        try:
            message = wire.from_kit().validate_python(content)
        except ValidationError as error:
            log.info("a message of the page was ignored: %s", error)
            return
        if isinstance(message, wire.Of):
            link = self._links.get(message.run_id)
            if link is not None:
                link(message.content)
        elif isinstance(message, wire.FetchCode):
            Link(self.send, lambda _: None).send_code(message)
        else:
            # A journal may have to be read for it, and the kernel's shell must not wait.
            in_background(self._try, message)

    def _try(self, message: Any) -> None:
        try:
            self.asked(message)
        except TurncellError as error:
            self.problem = without_secrets(str(error))
        else:
            self.problem = ""

    def asked(self, message: Any) -> None:
        """A person has asked for something; what this widget does not do is left alone."""

    def _follow(self, run: Run, retry: Callable[[Run], None] | None = None) -> None:
        """Begin to send this run, before the page is told of it."""
        link = Link(self._envelope(run.id), lambda _: None, retry)
        self._links[run.id] = link.take
        link.follow(run)

    def _keep_past(self, state: RunState) -> None:
        """A run that is over: whoever is ready gets it whole."""
        send = self._envelope(state.run_id)

        def take(content: Any) -> None:
            if isinstance(content, dict) and content.get("type") == "ready" and content.get("have") != 0:
                run = snapshot(redactor().value(state))
                message = {"type": "snapshot", "seq": 0, "run": run, "now": time.time()}
                send(codec.decode_json(codec.encode(message)))

        self._links[state.run_id] = take

    def _envelope(self, run_id: str) -> Callable[[dict[str, Any]], None]:
        return lambda content: self.send({"type": "of", "run_id": run_id, "content": content})


def session_for(of: Agent | Session) -> tuple[Session, Agent]:
    """Where a chat goes on, in a session or in a new one of an agent, and who answers. UsageError where nobody does."""
    session: object = of.session() if isinstance(of, Agent) else of
    if not isinstance(session, Session) or session.agent is None:
        raise UsageError(f"a chat needs an agent: an Agent, or agent.session(); found {of!r}")
    return session, session.agent


class Chat(_Kit, Figures):
    """A conversation: its runs, and a field for what to say next. Of an agent (a new session) or of a session that has one."""

    session_id = traitlets.Unicode("").tag(sync=True)
    placeholder = traitlets.Unicode("Ask the agent").tag(sync=True)
    retryable = traitlets.Bool(True).tag(sync=True)

    def __init__(self, of: Agent | Session, **traits: Any) -> None:
        self._session, self._agent = session_for(of)
        self._live: dict[str, Run] = {}
        super().__init__(**traits)
        self.show(self._session)

    @property
    def session(self) -> Session:
        return self._session

    def show(self, session: Session | str) -> None:
        """Show another session, by itself or its id, and go on with it. Raises UsageError if there is none of this id."""
        if isinstance(session, str):
            session = Session.load(session, self._session.journal)
        session.agent = session.agent or self._agent
        self._session = session
        self.session_id = session.id
        self._show_path()

    def say(self, text: str) -> Run:
        """What the field does: a new run, or, while one is going on, a message that it reads at its next boundary."""
        run = self._session.send(text, steer=True, is_attended=True)
        if run.id not in self._live:
            self._add(run)
        return run

    def retry(self, run: Run | None = None) -> Run:
        """Ask again what a run (the last) was asked; the new run stands in its place."""
        again = self._session.retry(run.id if run is not None else None, is_attended=True)
        self._add(again, instead=run.id if run is not None else self.runs[-1])
        return again

    def resume(self) -> Run:
        """Go on with the run that was interrupted."""
        run = self._session.resume(is_attended=True)
        self._add(run, instead=run.id)
        return run

    def branch(self, run_id: str) -> None:
        """Let the conversation end with this run of its session."""
        self._session.branch(run_id)
        self._show_path()

    def asked(self, message: Any) -> None:
        if isinstance(message, wire.Send) and message.text.strip():
            self.say(message.text)

    def states(self) -> Iterable[RunState]:
        past = {state.run_id: state for state in self._session.runs}
        for run_id in self.runs:
            live = self._live.get(run_id)
            state = live.state if live is not None and live.state.run_id else past.get(run_id)
            if state is not None:
                yield state

    def run_of(self, run_id: str) -> Run | None:
        return self._live.get(run_id)

    def _show_path(self) -> None:
        path = [state for state in self._session.runs if state.run_id not in self._live]
        for state in path:
            self._keep_past(state)
        self.runs = [state.run_id for state in self._session.runs]
        self.count()

    def _add(self, run: Run, instead: str | None = None) -> None:
        self._live[run.id] = run
        self._follow(run, self._again)
        kept = self.runs[: self.runs.index(instead)] if instead in self.runs else self.runs
        self.runs = [*kept, run.id]
        self.watch(run)

    def _again(self, run: Run) -> None:
        try:
            self.retry(run)
        except TurncellError as error:
            self.problem = without_secrets(str(error))


class _HasSession(Protocol):
    @property
    def session(self) -> Session: ...


class Approvals(_Kit):
    """All that waits for a person, in any attended run of this process, or in those of one session. `pending` counts it.

    `of` is a session, or what has one (a chat, a run): of a chat it shows the session that the chat shows then.
    Raises UsageError without it where the process is shared by several people, who would answer for each other.
    """

    pending = traitlets.Int(0).tag(sync=True)

    def __init__(self, of: _HasSession | Session | None = None, **traits: Any) -> None:
        if of is None and has_many_people():
            raise UsageError(
                "Approvals() would show the requests of everybody who has this app open; "
                "name whose they are: Approvals(chat), or Approvals(session)"
            )
        if not isinstance(of if of is None else getattr(of, "session", of), Session | None):
            raise UsageError(
                f"Approvals are of a Chat, a Run or a Session, or (without one) of this process; found {of!r}"
            )
        self._of = of
        super().__init__(**traits)
        self._loop = BackgroundLoop.current().loop
        self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:  # on the loop
        if self._is_closed:
            return
        waiting = {run.id: run for run in running_runs() if run.requests and self._is_for_us(run)}
        for run in waiting.values():
            if run.id not in self._links:
                self._follow(run)
        pending = sum(len(run.requests) for run in waiting.values())
        if (list(waiting), pending) != (self.runs, self.pending):
            # Whoever observes must not run on the loop.
            in_background(self._tell, list(waiting), pending)
        self._timer = self._loop.call_later(_POLL_S, self._look)

    def _is_for_us(self, run: Run) -> bool:
        of = self._of
        return of is None or run.session.id == (of if isinstance(of, Session) else of.session).id

    def _tell(self, runs: list[str], pending: int) -> None:
        self.runs, self.pending = runs, pending

    def close(self) -> None:
        self._is_closed = True
        super().close()


class UsageMeter(View, Figures):
    """Tokens, cost and budget of a run, of a `RunView` or of all runs of a `Chat`."""

    def __init__(self, of: Run | Figures, **traits: Any) -> None:
        if not isinstance(of, Run | Figures):
            raise UsageError(f"UsageMeter is of a Run, a RunView or a Chat; found {of!r}")
        self._of = of
        super().__init__("widget", "kit", **traits)
        if isinstance(of, Run):
            self.watch(of)
        else:
            of.observe(lambda _: self.count(), list(Figures.class_traits()))
            self.count()

    def take(self, content: Any, buffers: Any = None) -> None:
        """Nobody asks it for anything, but a page may have no other way to its code."""
        if isinstance(content, dict) and content.get("type") == "fetch_code":
            Link(self.send, lambda _: None).take(content)

    def states(self) -> Iterable[RunState]:
        return [self._of.state] if isinstance(self._of, Run) else []

    def run_of(self, run_id: str) -> Run | None:
        return self._of if isinstance(self._of, Run) else None

    def figures(self) -> dict[str, Any]:
        of = self._of
        return (
            super().figures() if isinstance(of, Run) else {name: getattr(of, name) for name in Figures.class_traits()}
        )


class SessionBrowser(_Kit):
    """The sessions of this folder (or of all), and the runs of the selected one as a tree.

    With a chat its buttons open a session there, go on with it, or let it branch; without one it is for choosing:
    `selected` and `selected_run` are observed, and may be set.
    """

    sessions = traitlets.List(traitlets.Dict()).tag(sync=True)
    """`session_id, title, runs, updated_at, left` of each, the latest first."""
    selected = traitlets.Unicode("").tag(sync=True)
    tree = traitlets.List(traitlets.Dict()).tag(sync=True)
    """`run_id, depth, prompt, status, is_told` of the selected session's runs; told are those of its conversation."""
    selected_run = traitlets.Unicode("").tag(sync=True)
    has_chat = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self, chat: Chat | None = None, *, journal: Journal | None = None, everywhere: bool = False, **traits: Any
    ) -> None:
        if not isinstance(chat, Chat | None):
            raise UsageError(f"SessionBrowser goes with a Chat; found {chat!r}")
        self._chat, self._everywhere = chat, everywhere
        self._journal = chat.session.journal if chat is not None and journal is None else journal
        super().__init__(has_chat=chat is not None, **traits)
        self.observe(self._select, "selected")
        self.refresh()

    def refresh(self) -> None:
        """Read the list again."""
        listed = Session.list(self._journal, everywhere=self._everywhere)
        self.sessions = [
            {
                "session_id": one.session_id,
                "title": redactor().text(one.title)[:_TITLE_CHARS],
                "runs": one.runs,
                "updated_at": one.updated_at,
                "left": one.left,
            }
            for one in listed
            if not one.is_row or one.session_id == self.selected
        ]
        self._select(None)

    def asked(self, message: Any) -> None:
        if not isinstance(message, wire.Resume | wire.Branch) or self._chat is None:
            return
        if message.session_id != self._chat.session_id:
            self._chat.show(message.session_id)
        if isinstance(message, wire.Branch):
            self._chat.branch(message.run_id)
        elif self._chat.session.interrupted is not None:
            self._chat.resume()
        self.refresh()

    def _select(self, _: Any) -> None:
        tree, problem = [], ""
        try:
            tree = _tree(self._session()) if self.selected else []
        except TurncellError as error:  # it was deleted, perhaps elsewhere
            problem = without_secrets(str(error))
        self.tree, self.problem = tree, problem

    def _session(self) -> Session:
        if self._chat is not None and self._chat.session_id == self.selected:
            return self._chat.session
        return Session.load(self.selected, self._journal)


def _tree(session: Session) -> list[dict[str, Any]]:
    """Depth first; a run that follows alone stands under the one before it without going deeper."""
    told = {run.run_id for run in session.runs}
    after: dict[str | None, list[RunState]] = {}
    for run in session.all_runs:
        after.setdefault(run.previous, []).append(run)
    rows: list[dict[str, Any]] = []
    ahead = [(run, 0) for run in reversed(after.get(None, []))]
    while ahead:
        run, depth = ahead.pop()
        prompt = redactor().text(run.prompt.text if run.prompt else "")[:_TITLE_CHARS]
        status = str(run.status)
        rows.append(
            {"run_id": run.run_id, "depth": depth, "prompt": prompt, "status": status, "is_told": run.run_id in told}
        )
        next_runs = after.get(run.run_id, [])
        ahead += [(each, depth + (len(next_runs) > 1)) for each in reversed(next_runs)]
    return rows


class Review(_Kit):
    """A table with one run in each row, and beside it the transcript of the row that is chosen.

    `table` is a DataFrame with a column `run_id`: what `agent.map` returns, `runs_df(...)`, `calls_df(...)`, filtered and
    sorted as you like. `columns` says which of its columns are shown (None: all but ids), `journal` in which history its runs
    are (None: that of the settings). `selected` and `selected_run` are observed; `selected` may be set. UsageError for what is
    no such table.
    """

    columns = traitlets.List(traitlets.Unicode()).tag(sync=True)
    rows = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)
    """What stands in the table, as text, without secrets: at most REVIEW_ROWS rows."""
    rows_count = traitlets.Int(0).tag(sync=True)
    """Of the whole table."""
    selected = traitlets.Int(-1).tag(sync=True)
    """The number of the chosen row, 0 ...; -1: none."""
    selected_run = traitlets.Unicode("").tag(sync=True)
    shown = traitlets.Int(-1).tag(sync=True)
    """The row whose transcript stands beside: the chosen one, as soon as the kernel has come to it."""

    def __init__(
        self,
        table: pd.DataFrame,
        *,
        columns: Sequence[str] | None = None,
        journal: Journal | None = None,
        **traits: Any,
    ) -> None:
        shown = _to_review(table, columns)
        self._journal = journal
        self._session: Session | None = None
        """That of the run chosen last: rows that stand together are often of one."""
        self._run_ids = [str(run_id) for run_id in table["run_id"].fillna("")]
        selected = traits.pop("selected", -1)
        cells = zip(*(_cells(table[name].iloc[:REVIEW_ROWS]) for name in shown), strict=True)
        super().__init__(
            columns=[redactor().text(str(name)) for name in shown], rows=[list(row) for row in cells],
            rows_count=len(table), **traits,
        )  # fmt: skip
        self.observe(self._select, "selected")
        self.selected = selected

    def _select(self, _: Any) -> None:
        problem, shown = "", False
        is_row = 0 <= self.selected < len(self._run_ids)
        run_id = self._run_ids[self.selected] if is_row else ""
        try:
            if run_id:
                self._show(run_id)
                shown = True
            elif is_row:
                problem = "no run has begun for this row"
        except TurncellError as error:
            problem = without_secrets(str(error))
        self.runs = [run_id] if shown else []
        self.selected_run, self.problem, self.shown = run_id, problem, self.selected

    def _show(self, run_id: str) -> None:
        live = next((run for run in running_runs() if run.id == run_id), None)
        if live is not None:
            self._follow(live)
            return
        session = self._session
        if session is None or all(run.run_id != run_id for run in session.all_runs):
            session = self._session = Session.of_run(run_id, self._journal)
        self._keep_past(next(run for run in session.all_runs if run.run_id == run_id))


def _to_review(table: Any, columns: Sequence[str] | None) -> list[str]:
    """The columns that are shown. UsageError where it is no table of runs."""
    names = list(getattr(table, "columns", ()))
    if "run_id" not in names or not hasattr(table, "iloc"):
        raise UsageError(
            "Review takes a DataFrame with a column run_id, as agent.map(...) and runs_df(...) give it; found "
            + (f"the columns {', '.join(map(str, names))}" if names else repr(table))
        )
    if columns is None:
        return [name for name in names if not str(name).endswith("_id")]
    if isinstance(columns, str) or (missing := [name for name in columns if name not in names]):
        found = columns if isinstance(columns, str) else ", ".join(map(str, missing))
        raise UsageError(f"columns are a list of names of the table's columns; found {found!r}")
    return list(columns)


def _cells(column: pd.Series[Any]) -> list[str]:
    missing = column.isna()
    return [
        "" if is_missing else redactor().text(f"{value:.6g}" if isinstance(value, float) else str(value))[:_TITLE_CHARS]
        for value, is_missing in zip(column, missing, strict=True)
    ]
