"""A scripted session that leaves traces, and the process it can be killed in.

The traces are files, written with one system call each, so that a SIGKILL leaves all of them: the *world* (one line for
each effect) and the *screen* (what a person saw, and when). `Template` is a process that has imported everything and
forks: a child begins within milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from turncell import Agent, tool
from turncell.adapters.markdown_store import MarkdownStore
from turncell.adapters.scripted_model import ScriptedModel, call, say, think
from turncell.adapters.sql_store import SQLStore
from turncell.core.events import PartialSaved, ReasoningDelta, Recorded, TextDelta
from turncell.runtime.context import ToolContext
from turncell.runtime.journal import Journal
from turncell.runtime.ports import ModelRequest, Store
from turncell.runtime.run import Run

ROOT = Path(__file__).parents[2]
PROMPTS = ("run 1", "run 2")
LINES = ("1-a", "1-b", "1-c", "2-a")
"""What the session writes, each once."""
LONG = "This answer takes its time, so that a good part of it has been on the screen for long when the end comes. " * 2


def open_store(where: str) -> Store:
    if where.startswith("postgresql:"):
        return SQLStore.postgres(where)
    return SQLStore.sqlite(where) if where.endswith(".sqlite") else MarkdownStore(where)


def put_line(path: Path, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode() + b"\n")
    os.close(descriptor)


def lines_of(path: Path) -> list[str]:
    """The whole ones: who reads while another process writes may get the beginning of a line."""
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


class Scene:
    """The files and the agent. The agent reads its place in the script from the conversation, as a real model would."""

    def __init__(self, folder: Path, pace: float = 1.0, request_timeout_s: float = 3600.0) -> None:
        self.world, self.again, self.screen = folder / "world", folder / "again", folder / "screen"
        self.go = folder / "go"
        self.pace, self.request_timeout_s = pace, request_timeout_s

    def agent(self, journal: Journal) -> Agent:
        @tool
        def put(line: str) -> str:
            """Write a line."""
            time.sleep(0.01 * self.pace)
            put_line(self.world, line)
            time.sleep(0.02 * self.pace)
            return f"wrote {line}"

        @tool(effect="idempotent")
        def sync(line: str, context: ToolContext) -> str:
            """Write a line under a key."""
            put_line(self.again, f"{line} {context.idempotency_key}")
            time.sleep(0.02 * self.pace)
            return f"synced {line}"

        @tool(effect="read")
        def look(at: str) -> str:
            """Look."""
            time.sleep(0.03 * self.pace)
            return f"nothing new at {at}"

        return Agent(
            ScriptedModel(self._answer),
            tools=[put, sync, look],
            journal=journal,
            request_timeout_s=self.request_timeout_s,
        )

    def _answer(self, request: ModelRequest) -> Any:
        said = [(message.role, message.text, message.is_partial) for message in request.messages]
        # A notice may stand before a prompt.
        began = max(n for n, (role, text, _) in enumerate(said) if role == "user" and text.endswith(PROMPTS))
        step = sum(role == "assistant" and not is_partial for role, _, is_partial in said[began:])
        slow = 0.06 * self.pace
        script: dict[str, list[Any]] = {
            "run 1": [
                [think("First a look.", delay_s=slow), say(LONG, delay_s=slow), call("look", at="here"),
                 call("look", at="there"), call("put", line="1-a"), call("sync", line="1-s")],
                [say("Two more.", delay_s=slow), call("put", line="1-b"), call("put", line="1-c")],
                say("Done with the first.", delay_s=slow),
            ],
            "run 2": [[call("put", line="2-a")], say("Done with the second. " + LONG, delay_s=slow)],
        }  # fmt: skip
        steps = script[said[began][1][-len("run 1") :]]
        return steps[step] if step < len(steps) else say("There is nothing more to do.")  # of a history with holes

    # In the child

    def play(self, journal: Journal, is_answered: bool = True, is_held: bool = False) -> None:
        session = self.agent(journal).session("A session that dies")
        self._log({"session": session.id})
        for prompt in PROMPTS:
            run = session.send(prompt, is_attended=True)
            run.attach(self._watch)
            while is_held and not self.go.exists():
                time.sleep(0.01)
            if is_answered:
                attend(run, lambda asked: time.sleep(0.03 * self.pace) or approve(asked))
            else:
                run.result(60)
            self._log({"status": run.status, "error": run.state.error})
        self._log({"end": True})

    def _log(self, seen: dict[str, Any]) -> None:
        put_line(self.screen, json.dumps({"at": time.time(), **seen}))

    def _watch(self, events: Sequence[Any]) -> None:
        for event in events:
            if isinstance(event, TextDelta | ReasoningDelta):
                self._log({"run": event.run_id, "step": event.step, "text": event.text})
            elif isinstance(event, Recorded) and not isinstance(event, PartialSaved):
                self._log({"run": event.run_id, "seq": event.seq, "type": type(event).__name__})

    def seen(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in lines_of(self.screen)]


def approve(asked: Any) -> tuple[str, str | None]:
    return "approve", None


def attend(run: Run, answer: Callable[[Any], Any], timeout_s: float = 60.0) -> Run:
    """Answer every request of a run until it has ended. `answer(call)` gives the decision and a result."""
    deadline = time.monotonic() + timeout_s
    while not run.is_done:
        for asked in run.requests:
            decision, result = answer(asked)
            taken = run.answer(asked.request.request_id, decision, digest=asked.request.digest, result=result)
            with contextlib.suppress(Exception):
                taken.result(60)
        assert time.monotonic() < deadline, f"the run is still {run.status}"
        time.sleep(0.005)
    return run.result()


class Fatal:
    """A store that kills its process before or after its nth change (0: never), and counts them in a file."""

    def __init__(self, inner: Store, nth: int, is_before: bool, count: Path) -> None:
        self._inner, self._nth, self._is_before, self._count, self._so_far = inner, nth, is_before, count, 0

    def _deadly(self, name: str) -> Callable[..., Any]:
        def change(*args: Any, **kwargs: Any) -> Any:
            self._so_far += 1
            put_line(self._count, name)
            is_due = self._so_far == self._nth
            if is_due and self._is_before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = getattr(self._inner, name)(*args, **kwargs)
            if is_due:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return change

    def together(self, write: Callable[[Any], Any], *, durable: bool) -> Any:
        return self._inner.together(lambda _: write(self), durable=durable)

    def __getattr__(self, name: str) -> Any:
        return (
            self._deadly(name)
            if name in ("create_session", "claim", "append", "release")
            else getattr(self._inner, name)
        )


def live(
    where: str, folder: str, nth: int = 0, is_before: bool = False, pace: float = 1.0,
    request_timeout_s: float = 3600.0, is_answered: bool = True, is_held: bool = False, file_bytes: int = 0, uid: int = 0,
) -> None:  # fmt: skip
    """What a child does. One that `is_held` is answered when there is a file `go`; `file_bytes` is how large its files
    may become: a disk that gets full; `uid` is who it is."""
    if file_bytes:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if uid:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    scene = Scene(Path(folder), pace, request_timeout_s)
    journal = Journal(lambda: Fatal(open_store(where), nth, is_before, Path(folder) / "changes"))  # type: ignore[return-value]
    scene.play(journal, is_answered, is_held)
    journal.close()


# The template process


class Template:
    """Forks children that `live`; each is told by its pid. Ended children leave no zombie."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.scene"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def child(self, **spec: Any) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(spec) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_end(pid: int, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(0.01)


def _import_all() -> None:
    """What a child would import, once for all; no thread may begin here."""
    import filelock  # noqa: F401
    import psutil  # noqa: F401

    from turncell.core import codec
    from turncell.runtime import model_call, review, tool_call  # noqa: F401
    from turncell.runtime.journal import Unrecorded

    codec.event_adapter()
    Scene(Path()).agent(Unrecorded())
    SQLStore.sqlite(":memory:").close()


def _serve() -> None:
    _import_all()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                spec = json.loads(line)
                log = os.open(Path(spec["folder"]) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, 1)
                os.dup2(log, 2)
                live(**spec)
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(pid, flush=True)


if __name__ == "__main__":
    _serve()
