"""Real kernels for the tests: `kernel` is a started one, once per version

* of PAIR (where those are among TURNCELL_KERNELS), if nothing else is said;
* in TURNCELL_KERNELS, for what is marked `every_kernel`;
* of PAIR, and of all the others with TURNCELL_FULL=1, for what is marked `matrix`;
* the newest, and of PAIR with TURNCELL_FULL=1, for what is marked `newest_kernel`.

The kernel specs are called `py-<version of ipykernel>` and live in .kernels/share/jupyter, where `make kernels` puts
them. A missing one fails the test: a kernel that was not tried must not look like one that works.
"""

from __future__ import annotations

import ast
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_client.manager import KernelManager

from tests.ports import free_port
from tests.runtime.pieces import until

ROOT = Path(__file__).resolve().parents[2]
SPECS = ROOT / ".kernels" / "share" / "jupyter" / "kernels"
DEFAULT_VERSIONS = "6.29.5,6.31.0,7.0.1,7.4.0"
PAIR = ("6.31.0", "7.4.0")
"""One kernel that reads its messages on the main thread, and one with a thread for them."""
TABLE = ROOT / "docs" / "kernels.md"

Message = dict[str, Any]
T = TypeVar("T")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kernel_version" in metafunc.fixturenames:
        versions = [one.strip() for one in (os.environ.get("TURNCELL_KERNELS") or DEFAULT_VERSIONS).split(",")]
        marks = {marker.name for marker in metafunc.definition.iter_markers()}
        pair = [one for one in versions if one in PAIR] or versions
        if not marks & {"every_kernel", "matrix"}:
            versions = pair
        soon = versions[-1:] if "newest_kernel" in marks else pair if "every_kernel" not in marks else versions
        metafunc.parametrize(
            "kernel_version",
            [pytest.param(one, marks=() if one in soon else pytest.mark.full) for one in versions],
        )


_passed: dict[str, dict[str, bool]] = {}
"""By scenario and version, what was seen in this run of the tests."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    found = re.search(r"tests/kernels/(?:test_turn|test_bridge)\.py::(test_\w+)\[([\d.]+)\]", report.nodeid)
    if found and (report.when == "call" or report.failed):
        versions = _passed.setdefault(found[1], {})
        versions[found[2]] = versions.get(found[2], True) and report.passed


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The table of all versions, where all of them were tried; only by the process that has seen all tests."""
    if os.environ.get("TURNCELL_FULL") != "1" or hasattr(session.config, "workerinput") or not _passed:
        return
    versions = sorted({one for seen in _passed.values() for one in seen}, key=lambda one: [*map(int, one.split("."))])
    cells = {True: "passed", False: "FAILED", None: "not tried"}
    lines = [
        "# Which kernels were tried", "",
        "Each row is a scenario of `tests/kernels`, played on a real kernel of each version of ipykernel. Written by "
        "`make test-full`.", "",
        f"| | {' | '.join(versions)} |", "|---|" + "---|" * len(versions),
        *(
            f"| {name.removeprefix('test_').replace('_', ' ')} | "
            + " | ".join(cells[seen.get(version)] for version in versions) + " |"
            for name, seen in _passed.items()
        ),
    ]  # fmt: skip
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def kernel(kernel_version: str) -> Iterator[Kernel]:
    with running(kernel_version) as started:
        yield started


@pytest.fixture(scope="module")
def started_kernels() -> Iterator[dict[str, Kernel]]:
    """Kernels that the tests of a module share, by version: a start costs more than most of the tests."""
    started: dict[str, Kernel] = {}
    yield started
    for kernel in started.values():
        kernel.client.stop_channels()
        kernel.manager.shutdown_kernel(now=True)


@pytest.fixture
def notebook(started_kernels: dict[str, Kernel], kernel_version: str, own_history: Path) -> Kernel:
    """A shared kernel as if it were new: the extension loaded again, no names of other tests, a history of its own.

    The keyboard is not used because a page was slow to say hello, but in tests of the keyboard (`keyboard_after`).
    """
    kernel = shared(started_kernels, kernel_version)
    kernel.run(NOTEBOOK.replace("HISTORY", str(own_history)))
    return kernel


def shared(started_kernels: dict[str, Kernel], version: str) -> Kernel:
    """The shared kernel of this version, without the names of other tests."""
    kernel = started_kernels.get(version)
    if kernel is None or not kernel.manager.is_alive():
        kernel = started_kernels[version] = start_kernel(version)
    kernel.heard.clear()
    # A reset collects garbage. What is imported by then is kept out of it from here on: to walk through it takes longer
    # than most of the tests.
    kernel.run("%reset -f\n__import__('gc').freeze()")
    return kernel


NOTEBOOK = '''
%reload_ext turncell
import turncell.notebook.turn, turncell.settings
from turncell import Agent, Settings, runs_df, tool
from turncell.testing import ScriptedModel, call, say, think

turncell.settings.use(Settings(store="HISTORY", context="none"))
turncell.notebook.turn.HELLO_S = 60.0
outbox = []

@tool
def send_note(to: str, text: str = "hello") -> str:
    """Send a note to somebody."""
    outbox.append((to, text))
    return f"sent to {to}"

def script(*entries, **options):
    global model, demo
    model = ScriptedModel(entries)
    demo = Agent(model, tools=[send_note], **options)

def statuses():
    return list(runs_df().status)

def told():
    "What the model was told of its calls."
    return [p.content for m in model.requests[-1].messages for p in m.parts if p.type == "tool_result"]
'''


def keyboard_after(kernel: Kernel, seconds: float) -> None:
    kernel.run(f"turncell.notebook.turn.HELLO_S = {seconds}")


def wait_until_recorded(history: Path, event_type: str) -> None:
    """Until the file has such an event: what a page is told of may be on the disk a moment later."""

    def is_there() -> bool:
        # Until the file and its tables are there, too.
        with (
            suppress(sqlite3.OperationalError),
            closing(sqlite3.connect(f"file:{history}?mode=ro", uri=True)) as connection,
        ):
            return connection.execute("SELECT 1 FROM events WHERE type = ?", (event_type,)).fetchone() is not None
        return False

    until(is_there)


@contextmanager
def running(version: str) -> Iterator[Kernel]:
    """A kernel, for as long as the block."""
    started = start_kernel(version)
    try:
        yield started
    finally:
        started.client.stop_channels()
        started.manager.shutdown_kernel(now=True)


def kernel_manager(name: str) -> KernelManager:
    """Of the kernel spec with this name, on ports of our own."""
    ports = {f"{channel}_port": free_port() for channel in ("shell", "iopub", "stdin", "control", "hb")}
    specs = KernelSpecManager(kernel_dirs=[str(SPECS)])
    return KernelManager(kernel_name=name, kernel_spec_manager=specs, cache_ports=False, **ports)


def start_kernel(version: str) -> Kernel:
    name = f"py-{version}"
    manager = kernel_manager(name)
    try:
        spec = manager.kernel_spec
    except NoSuchKernel:
        spec = None
    if spec is None:
        pytest.fail(
            f"no kernel spec {name!r} in {SPECS}: run `make kernels TURNCELL_KERNELS={version}`",
            pytrace=False,
        )
    # The spec's own path (an overlay with another ipykernel) first, then the tree under test.
    paths = [spec.env.get("PYTHONPATH"), str(ROOT / "src"), os.environ.get("PYTHONPATH")]
    spec.env["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    # The file of IPython's history is shared by all kernels, and one that finds it locked complains in a cell's output.
    manager.start_kernel(extra_arguments=["--HistoryManager.hist_file=:memory:"])
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    kernel = Kernel(manager, client)
    running = kernel.value("__import__('ipykernel').__version__")
    assert running == version, f"the kernel spec {name!r} starts ipykernel {running}"
    return kernel


@dataclass
class Kernel:
    """A kernel, and all it has said to us, in the order in which it reached us."""

    manager: KernelManager
    client: BlockingKernelClient
    heard: list[tuple[str, Message]] = field(default_factory=list)

    # -- saying

    def send(self, msg_type: str, content: Message, *, metadata: Message | None = None) -> str:
        """Send on the shell channel; the answer is the id of the message."""
        msg = self.client.session.msg(msg_type, content, metadata=metadata)
        self.client.shell_channel.send(msg)
        return str(msg["header"]["msg_id"])

    def execute(self, code: str, *, allow_stdin: bool = False, metadata: Message | None = None) -> str:
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": allow_stdin,
            "stop_on_error": True,
        }
        return self.send("execute_request", content, metadata=metadata)

    def click(self, comm_id: str = "button", **content: Any) -> str:
        return self.send("comm_msg", {"comm_id": comm_id, "data": {"method": "custom", "content": content}})

    def answer_input(self, value: str) -> None:
        self.client.input(value)

    # -- hearing

    def hear(self, until: Callable[[], T], what: str, timeout_s: float = 60.0) -> T:
        """Read all channels until `until()` is true, and give that back."""
        client = self.client
        channels = {
            channel.socket: (name, channel)
            for name, channel in [
                ("shell", client.shell_channel),
                ("iopub", client.iopub_channel),
                ("stdin", client.stdin_channel),
            ]
        }
        poller = zmq.Poller()
        for socket in channels:
            poller.register(socket, zmq.POLLIN)
        deadline_s = time.monotonic() + timeout_s
        while not (found := until()):
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"{what} did not come within {timeout_s} s"
            for socket, _ in poller.poll(100):
                name, channel = channels[socket]
                self.heard.append((name, channel.get_msg(timeout=1)))
        return found

    def listen(self, for_s: float) -> None:
        """Hear all that comes in this time."""
        end_s = time.monotonic() + for_s
        self.hear(lambda: time.monotonic() >= end_s, "the end of the time", for_s + 60)

    def children(self, msg_id: str, msg_type: str) -> list[Message]:
        """What was said with this message as its parent."""
        return [
            msg["content"]
            for _, msg in self.heard
            if msg["parent_header"].get("msg_id") == msg_id and msg["header"]["msg_type"] == msg_type
        ]

    def reply(self, msg_id: str, msg_type: str = "execute_reply", timeout_s: float = 60.0) -> Message:
        return self.hear(lambda: self.children(msg_id, msg_type), f"the {msg_type}", timeout_s)[0]

    def idle(self, msg_id: str, timeout_s: float = 60.0) -> None:
        self.hear(lambda: {"execution_state": "idle"} in self.children(msg_id, "status"), "idle", timeout_s)

    def printed(self, msg_id: str) -> str:
        return "".join(content["text"] for content in self.children(msg_id, "stream"))

    def hear_print(self, msg_id: str, text: str, timeout_s: float = 60.0) -> None:
        self.hear(lambda: text in self.printed(msg_id), f"the output {text!r}", timeout_s)

    def hear_input_request(self, timeout_s: float = 60.0) -> Message:
        def requests() -> list[Message]:
            return [msg["content"] for _, msg in self.heard if msg["header"]["msg_type"] == "input_request"]

        return self.hear(requests, "the input_request", timeout_s)[-1]

    def statuses(self) -> list[tuple[str, str]]:
        """(state, id of the parent) in the order of the iopub channel."""
        return [
            (msg["content"]["execution_state"], msg["parent_header"].get("msg_id", ""))
            for _, msg in self.heard
            if msg["header"]["msg_type"] == "status"
        ]

    # -- both

    def run(self, code: str, timeout_s: float = 60.0, **options: Any) -> Message:
        """Execute and hear the end of it; a failure is a failure of the test."""
        reply = self._unless_aborted(lambda: self.execute(code, **options), timeout_s)
        assert reply["status"] == "ok", "\n".join(reply.get("traceback", [])) or reply
        return reply

    def value(self, expression: str) -> Any:
        """The value of an expression in the kernel, as far as a literal can say it."""
        content = {
            "code": "",
            "silent": False,
            "store_history": False,
            "user_expressions": {"it": expression},
        }
        reply = self._unless_aborted(lambda: self.send("execute_request", content))
        answer = reply["user_expressions"]["it"]
        assert answer["status"] == "ok", answer
        return ast.literal_eval(answer["data"]["text/plain"])

    def _unless_aborted(self, execute: Callable[[], str], timeout_s: float = 60.0) -> Message:
        # After an error a kernel aborts what is queued, and also what comes in the moment before it has done so.
        while True:
            msg_id = execute()
            reply = self.reply(msg_id, timeout_s=timeout_s)
            self.idle(msg_id)
            if reply["status"] != "aborted":
                return reply

    def interrupt(self) -> None:
        self.manager.interrupt_kernel()
