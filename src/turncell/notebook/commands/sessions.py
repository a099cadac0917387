"""Sessions: list, begin, go on, take over, copy, name, delete; and what is remembered in them."""

from __future__ import annotations

import re
import time

from turncell.errors import UsageError
from turncell.frames.visible import visible
from turncell.notebook.commands import Parser, command, say
from turncell.notebook.notebook import LEFT, Notebook, counted, stricter
from turncell.runtime import defaults
from turncell.runtime.portable import prune
from turncell.runtime.process import may_go_on
from turncell.runtime.rulebook import rule_id, rulebook
from turncell.runtime.session import Session

_SESSIONS = Parser("sessions")
_SESSIONS.add_argument("prune", nargs="?", choices=["prune"])
_SESSIONS.add_argument("--all", action="store_true")
_SESSIONS.add_argument("--older")
_RESUME = Parser("resume")
_RESUME.add_argument("id", nargs="?")
_RESUME.add_argument("-a", "--agent")
_RULES = Parser("rules")
_RULES.add_argument("revoke", nargs="?", choices=["revoke"])
_RULES.add_argument("id", nargs="?")


@command("new", "the next cell begins a new session")
def new(notebook: Notebook) -> None:
    notebook.use(None)
    say("the next cell begins a new session")


@command("sessions [--all] [prune --older 90d]", "the sessions of this folder, or all; delete old ones")
def sessions(notebook: Notebook, *words: str) -> None:
    given = _SESSIONS.parse_args(list(words))
    if given.prune is not None:
        if given.older is None:
            raise UsageError("%agent sessions prune: say how old, like --older 90d")
        gone = prune(_days(given.older), everywhere=given.all)
        say(f"{counted(len(gone), 'session')} deleted")
        return
    if given.older is not None:
        raise UsageError("--older belongs to prune; write %agent sessions prune --older 90d")
    found = Session.list(everywhere=given.all)
    rows = sum(info.is_row for info in found)
    mine, journal = notebook.session.id if notebook.session else "", defaults.journal()
    lines = [
        f"{'*' if info.session_id == mine else ' '} {info.session_id}  "
        f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(info.updated_at))}  "
        f"{counted(info.runs, 'run')}  {visible(' '.join(info.title.split()))[:60]}"
        + (f"  {visible(info.project)}" if given.all else "")
        + (f"  [{LEFT[info.left]}]" if info.left else "")
        + ("  [damaged]" if journal.damage(info.session_id) is not None else "")
        for info in found
        if not info.is_row or info.session_id == mine
    ]
    if rows:
        lines.append(f"{counted(rows, 'row')} of batches not listed; --map with --resume NAME reads them")
    say("\n".join(lines) or "none yet")


@command("resume [ID] [-a AGENT]", "go on with the newest session of this folder, or ID, and its interrupted turn")
def resume(notebook: Notebook, *words: str) -> None:
    given = _RESUME.parse_args(list(words))
    session = notebook.loaded(given.id) if given.id else notebook.session or Session.newest()
    left = session.interrupted
    if left is None:
        session.hold()  # a session that somebody else writes is said here, not at the next cell
        notebook.use(session)
        say(f"{session.id}: {visible(session.title)!r}, {counted(len(session.runs), 'run')}; the next cell goes on")
        return
    agent = notebook.agent_of(left, given.agent)
    notebook.resume(session, agent, stricter(agent.mode, left.mode))


@command("takeover [ID]", "write a session whose process is stopped, or was on another machine")
def takeover(notebook: Notebook, session_id: str | None = None) -> None:
    session = notebook.loaded(session_id) if session_id else notebook.session or Session.newest()
    session = Session.load(session.id)  # who writes it now
    writer = session.writer
    if writer is None:
        session.hold()
        notebook.use(session)
        say(f"{session.id}: nobody else writes it; the next cell goes on")
        return
    if may_go_on(writer):
        raise UsageError(
            f"session {session.id} is written by process {writer.pid} on this machine, which is running; shut that "
            "kernel down, or go on in a copy with %%agent --fork"
        )
    session.take_over()
    notebook.use(session)
    say(
        f"{session.id} is taken over from process {writer.pid} on {writer.host}: what that one still does, it cannot "
        "record any more; the next cell goes on here"
    )


@command("fork", "go on in a copy of the session")
def fork(notebook: Notebook) -> None:
    notebook.use(notebook.a_session().fork())
    session = notebook.a_session()
    say(f"{session.id}: the next cell goes on in the copy, which has {counted(len(session.runs), 'run')}")


@command("rename TITLE", "give the session a title")
def rename(notebook: Notebook, *title: str) -> None:
    if not title:
        raise UsageError("%agent rename: a title is missing; write %agent rename TITLE")
    notebook.a_session().rename(title[0])
    say(f"{notebook.a_session().id} is called {visible(title[0])!r} now")


@command("delete ID", "erase a session for good")
def delete(notebook: Notebook, session_id: str) -> None:
    session = notebook.loaded(session_id)
    session.delete()
    if session is notebook.session:
        notebook.session = None
    say(f"{session_id} is deleted")


@command("rules [revoke ID]", "what you asked to remember, for this session and always; forget one")
def rules(notebook: Notebook, *words: str) -> None:
    given = _RULES.parse_args(list(words))
    if (given.revoke is None) != (given.id is None):
        raise UsageError("%agent rules revoke: say which; write %agent rules revoke ID")
    mine = notebook.session.rules if notebook.session else ()
    book = rulebook()
    if given.id is None:
        known = [(rule, "for this session") for rule in mine] + [(one.rule, "always") for one in book.rules()]
        lines = [
            f"{rule_id(rule)}  {visible(str(rule))}, {scope}" + (f": {visible(rule.reason)}" if rule.reason else "")
            for rule, scope in known
        ]
        say("\n".join(lines) or "none")
        return
    found = [rule for rule in mine if rule_id(rule) == given.id]
    gone = [f"{rule}, for this session" for rule in found if notebook.a_session().revoke(rule)]
    gone += [f"{one.rule}, always" for one in book.rules() if one.rule_id == given.id and book.revoke(given.id)]
    if not gone:
        raise UsageError(f"there is no remembered rule {given.id!r}; %agent rules lists them")
    say("\n".join(f"revoked: {visible(rule)}" for rule in gone))


def _days(text: str) -> float:
    """
    >>> _days("90d"), _days("12h"), _days("2w")
    (90.0, 0.5, 14.0)
    """
    found = re.fullmatch(r"(\d{1,6})([hdw])", text)
    if found is None:
        raise UsageError(f"--older {text}: write a number of hours, days or weeks, like 12h, 90d, 2w")
    return int(found[1]) * {"h": 1 / 24, "d": 1.0, "w": 7.0}[found[2]]
