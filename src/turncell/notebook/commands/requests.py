"""What runs wait for: the same that the buttons of a card do, typed."""

from __future__ import annotations

from turncell.core.fold import CallState
from turncell.errors import UsageError
from turncell.notebook.commands import Parser, command, say
from turncell.notebook.notebook import Notebook
from turncell.notebook.terminal import question
from turncell.runtime.run import Run
from turncell.runtime.secrets import redactor

_APPROVE = Parser("approve")
_APPROVE.add_argument("id", nargs="?")
_APPROVE.add_argument("--scope", choices=("once", "session", "always"), default="once")
_DENY = Parser("deny")
_DENY.add_argument("id", nargs="?")
_DENY.add_argument("-r", "--reason", nargs="+", default=[])

_HOW = {
    "approval": "%agent approve, or %agent deny -r REASON",
    "question": "%agent answer TEXT, or %agent deny",
    "in_doubt": "%agent approve runs it again, %agent answer RESULT says that it has happened, %agent deny skips it",
}


@command("requests", "what turns in the background are waiting for, with the ids of the calls")
def requests(notebook: Notebook) -> None:
    waiting = [call for run in notebook.runs for call in run.requests]
    told = [
        f"{call.call_id}\n{redactor().text(question(call, _HOW[call.request.kind]))}"
        for call in waiting
        if call.request
    ]
    say("\n\n".join(told) or "nothing waits")


@command(
    "approve [CALL] [--scope session]",
    "let a waiting call run; with a scope (session, always) later calls of the tool too",
)
def approve(notebook: Notebook, *words: str) -> None:
    given = _APPROVE.parse_args(list(words))
    run, call = _waiting(notebook, given.id)
    run.approve(call, scope=given.scope)
    say(f"approved: {call.name}")


@command("deny [CALL] [-r REASON]", "do not let a waiting call run; the model reads the reason")
def deny(notebook: Notebook, *words: str) -> None:
    given = _DENY.parse_args(list(words))
    run, call = _waiting(notebook, given.id)
    run.deny(" ".join(given.reason), call)
    say(f"denied: {call.name}")


@command("answer [CALL] TEXT", "answer a question, or give the result of a write in doubt")
def answer(notebook: Notebook, *words: str) -> None:
    if not words or len(words) > 2:
        raise UsageError("%agent answer: write %agent answer [CALL] TEXT, the text in quotes")
    run, call = _waiting(notebook, words[0] if len(words) > 1 else None)
    run.reply(words[-1], call)
    say("answered")


@command("stop [RUN]", "end a turn in the background, and keep what it has said")
def stop(notebook: Notebook, run_id: str | None = None) -> None:
    runs = notebook.runs
    if not runs:
        say("nothing runs")
        return
    found = [run for run in runs if run_id in (None, run.id)]
    if len(found) != 1:
        what = f"{run_id!r} does not go on" if run_id else f"{len(runs)} turns go on"
        raise UsageError(f"{what}; name one of {', '.join(run.id for run in runs)}: %agent stop RUN")
    run = found[0]
    run.cancel("stopped by you")
    run.result()
    say(f"{run.id} is {run.status}")


def _waiting(notebook: Notebook, call_id: str | None) -> tuple[Run, CallState]:
    waiting = [(run, call) for run in notebook.runs for call in run.requests]
    if not waiting:
        raise UsageError("nothing waits for an answer")
    found = [(run, call) for run, call in waiting if call_id in (None, call.call_id)]
    if len(found) != 1:
        ids = ", ".join(call.call_id for _, call in waiting)
        what = f"{call_id!r} does not wait" if call_id else f"{len(waiting)} calls wait"
        raise UsageError(f"{what}; name one of {ids} (%agent requests shows them)")
    return found[0]
