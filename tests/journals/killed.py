"""A program that is killed in the middle of a run, with what it leaves in a history."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import sys, time
from turncell import Agent, tool
from turncell.adapters.sql_store import SQLStore
from turncell.runtime.journal import Journal
from turncell.testing import ScriptedModel, call

@tool
def mail(to: str) -> str:
    "Send a mail."
    print("begun", flush=True)
    time.sleep(60)
    return "sent"

journal = Journal(lambda: SQLStore.sqlite(sys.argv[1]))
session = Agent(ScriptedModel([call("mail", to="ana")]), tools=[mail], journal=journal).session()
print(session.id, flush=True)
run = session.send("Mail Ana.", is_attended=True)
while not run.requests:
    time.sleep(0.005)
journal.flush()
if sys.argv[2] == "write":
    run.approve()
else:
    print("asked", flush=True)
time.sleep(60)
"""


class Killed:
    """Runs until it is in the middle of a write, or of asking whether it may; `kill` ends it as a power cut would."""

    def __init__(self, history: Path, *, is_writing: bool) -> None:
        at = "write" if is_writing else "ask"
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(history), at], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.session_id = self._process.stdout.readline().strip()
        assert self._process.stdout.readline().strip() in ("begun", "asked")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
