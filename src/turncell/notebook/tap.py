"""The tap: our own comm messages reach Python while a cell is still running.

A kernel hands its shell messages over one at a time, so a click on a widget waits until the running cell is over,
and the running cell waits for the click. The tap stands in front of the callback that the kernel put on its shell
stream, for as long as a turn is waiting, and takes three kinds of messages out of the row (only the first kind where
no cell waits for the turn, which is `hold`):

1. a `comm_msg` with `method: custom` for a comm id that was registered: our buttons. Its handler is called at once.
2. `kernel_info_request` and `comm_info_request`: without an answer a reloaded page never connects again.
3. the widgets' control comm and `request_state`: with them the reloaded page gets its models back. They read the
   state of widgets, so they are kept for the waiting main thread (`poll`).

Everything else goes on in the order in which it came, as the frames it came in. An `execute_request` in particular
never leaves the kernel's own path: queued cells keep their order, wait for the running one and are aborted with it.

Threads. ipykernel 7 reads the stream in a thread of its own ("Shell channel"): handlers run there, even while the main
thread sits in C code. In ipykernel 6 the stream belongs to the main thread, which has to call `poll` while it waits.
A handler may therefore run on any thread, in a foreign context, and should do no more than hand its message over.

Rules that are easy to break:
- A message is peeked at (`content=False` keeps no digest) until it is taken, and never passed on once it was taken:
  the kernel would refuse it as a replay.
- Front ends wait for `busy` and `idle` with the message as parent. We publish both, then `busy` for the running cell
  again, else the page calls the kernel idle. After `close` this must not happen any more: the cell may have ended.
- Never `set_parent` (output would leave the running cell), never `comm.handle_msg` (its `pre_execute` and
  `post_execute` flush the half-made figures of the running cell).
- Never wait for the removal: when a kernel restarts, the loop that should do it is gone.
- Never `flush(POLLOUT)` inside a callback of `flush(POLLIN)`: the outer one then spins for ever.
- Others may wrap the callback too. We restore only what is still ours; a stage left in their chain passes all on.

`available` asks for every private name used here. If one is missing there is no tap, and messages take the normal path.
"""

from __future__ import annotations

import inspect
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[dict[str, Any], list[Any]], None]
Message: TypeAlias = dict[str, Any]

INFO_REQUESTS = frozenset({"kernel_info_request", "comm_info_request"})
WIDGET_TARGET = "jupyter.widget"
CONTROL_TARGET = "jupyter.widget.control"

# Long enough for a Shell-channel thread on a loaded machine, short enough if that thread is gone.
_INSTALL_WAIT_S = 1.0
# A page that floods the stream must not keep the main thread from its jobs and from the interrupt button.
_PUMP_LIMIT = 100


class ShellTap:
    """Takes registered custom comm messages off a kernel's shell stream while it is open."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._handlers: dict[str, Handler] = {}
        # Guards _depth and _cell_parent: what is decided under it (take or pass on, busy again or not) is never
        # overtaken by a close. Handlers are called outside of it.
        self._lock = threading.Lock()
        self._depth = 0
        self._is_held = False
        self._cell_parent: Message | None = None
        self._stage: _Stage | None = None
        self._control_ids: set[str] = set()
        self._for_main: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._pumping = False
        self._owes_replies = False

    @property
    def available(self) -> bool:
        kernel = self._kernel
        stream, session = getattr(kernel, "shell_stream", None), getattr(kernel, "session", None)
        return (
            callable(getattr(stream, "_recv_callback", None))
            and _has(stream, "on_recv", "flush", "io_loop")
            and _has(session, "feed_identities", "deserialize", "unpack")
            and _has(kernel, "_publish_status", "shell_handlers", "get_parent")
        )

    def register(self, comm_id: str, handler: Handler) -> None:
        self._handlers[comm_id] = handler

    def unregister(self, comm_id: str) -> None:
        self._handlers.pop(comm_id, None)

    def unregister_all(self) -> None:
        self._handlers.clear()

    # -- open and close: main thread; they nest

    def open(self, cell_parent: Message) -> None:
        """Start taking. `cell_parent` is the request that is being executed, whose `busy` is published again."""
        with self._lock:
            self._depth += 1
            if self._depth > 1:
                return
            self._cell_parent = cell_parent or None
        if self.available:
            self._on_stream_thread(self._install, wait_s=_INSTALL_WAIT_S)

    def close(self) -> None:
        """Stop taking. What was taken for the main thread is served before this returns."""
        with self._lock:
            self._depth -= 1
            if self._depth:
                return
            if not self._is_held:
                self._cell_parent = None
        if self._stage is not None:
            self._on_stream_thread(self._remove, wait_s=0)
        self._serve_main()

    # -- hold and release: for runs that no cell waits for

    def hold(self, cell_parent: Message) -> None:
        """Take our own buttons, and only them, beside whatever cell runs: nobody waits who could serve the others.

        Where the kernel reads its stream on the main thread nothing is won, and nothing done.
        """
        if not self._threaded or not self.available:
            return
        with self._lock:
            self._is_held = True
            self._cell_parent = cell_parent or None
        self._on_stream_thread(self._install, wait_s=_INSTALL_WAIT_S)

    def release(self) -> None:
        """Any thread."""
        with self._lock:
            self._is_held = False
            if not self._depth:
                self._cell_parent = None
        if self._stage is not None:
            self._on_stream_thread(self._remove, wait_s=0)

    def cell_runs(self, cell_parent: Message) -> None:
        """Which cell is `busy`, while the tap is held; {}: none."""
        with self._lock:
            if self._is_held and not self._depth:
                self._cell_parent = cell_parent or None

    def poll(self) -> None:
        """Do the waiting main thread's part: read the stream (ipykernel 6) and serve what only it may serve."""
        if self._pumping:  # a handler that waits, inside of our own flush
            return
        if self._stage is not None and not self._threaded:
            self._pump()
        self._serve_main()

    def _pump(self) -> None:
        import zmq

        stream = self._kernel.shell_stream
        self._pumping = True
        try:
            stream.flush(zmq.POLLIN, limit=_PUMP_LIMIT)
            if self._owes_replies:
                self._owes_replies = False
                stream.flush(zmq.POLLOUT)
        finally:
            self._pumping = False

    def _serve_main(self) -> None:
        while True:
            try:
                serve = self._for_main.get_nowait()
            except queue.Empty:
                return
            try:
                serve()
            except Exception:
                log.exception("a page could not be given the state of its widgets")

    # -- in and out of the stream's callback: the thread that owns the stream

    @property
    def _threaded(self) -> bool:
        return getattr(self._kernel, "shell_channel_thread", None) is not None

    def _on_stream_thread(self, do: Callable[[], None], *, wait_s: float) -> None:
        if not self._threaded:
            do()
            return
        ready = threading.Event()

        def run() -> None:
            try:
                do()
            finally:
                ready.set()

        self._kernel.shell_stream.io_loop.add_callback(run)
        if wait_s:
            ready.wait(wait_s)

    def _install(self) -> None:
        if not (self._depth or self._is_held) or self._stage is not None:
            return
        stream = self._kernel.shell_stream
        self._stage = _Stage(self, downstream=stream._recv_callback)
        stream.on_recv(self._stage, copy=False)

    def _remove(self) -> None:
        stage = self._stage
        if self._depth or self._is_held or stage is None:  # closed and opened again: stay
            return
        self._stage = None
        stream = self._kernel.shell_stream
        if stream._recv_callback is stage:
            stream.on_recv(stage.downstream, copy=False)

    def is_current(self, stage: _Stage) -> bool:
        return self._stage is stage

    # -- each message: the thread that owns the stream

    def take(self, frames: list[Any]) -> bool:
        """Serve the message and say True, or leave it alone and say False."""
        try:
            with self._lock:
                deliver = self._claim(frames) if self._depth or self._is_held else None
        except Exception:
            # Malformed, forged or a replay: the kernel finds that out too and reports it as it always does.
            log.debug("not for the tap", exc_info=True)
            return False
        if deliver is None:
            return False
        try:
            deliver()
        except Exception:
            log.exception("a message from the page could not be handled")
        return True

    def _claim(self, frames: list[Any]) -> Callable[[], None] | None:
        """What to do with this message if it is one of ours, else None. The message is only peeked at for None."""
        session = self._kernel.session
        idents, parts = session.feed_identities(frames, copy=False)
        peek = session.deserialize(parts, content=False, copy=False)
        msg_type = peek["header"]["msg_type"]
        subshell_answers = peek["header"].get("subshell_id") is not None  # it runs beside the blocked main shell

        if msg_type in INFO_REQUESTS:
            if subshell_answers or not self._depth:
                return None
            msg = session.deserialize(parts, content=True, copy=False)
            return lambda: self._answer(idents, msg)

        if not msg_type.startswith("comm_"):
            return None
        content = session.unpack(getattr(peek["content"], "bytes", peek["content"]))
        data = content.get("data") or {}
        handler = self._handlers.get(content["comm_id"]) if msg_type == "comm_msg" else None
        if handler is not None and data.get("method") == "custom" and isinstance(data.get("content"), dict):
            msg = session.deserialize(parts, content=True, copy=False)
            return lambda: self._deliver(handler, msg)

        if self._depth and not subshell_answers and self._restores_a_page(msg_type, content, data):
            msg = session.deserialize(parts, content=True, copy=False)
            self._for_main.put(lambda: self._restore(idents, msg))
            return lambda: None
        return None

    def _deliver(self, handler: Handler, msg: Message) -> None:
        with self._busy_for(msg):
            handler(msg["content"]["data"]["content"], list(msg.get("buffers") or ()))

    def _answer(self, idents: list[bytes], msg: Message) -> None:
        answer = self._kernel.shell_handlers[msg["header"]["msg_type"]]
        with self._busy_for(msg):
            for attempts_left in (2, 1, 0):
                try:
                    _finish(answer(self._kernel.shell_stream, idents, msg))
                    break
                except RuntimeError:  # the table of comms changed while it was read; nothing was sent yet
                    if not attempts_left:
                        raise
            self._owes_replies = True

    # -- a page that was reloaded

    def _restores_a_page(self, msg_type: str, content: Message, data: Message) -> bool:
        # All of these only read, so they may overtake messages that wait in the kernel's own queue.
        comm_id = content["comm_id"]
        if msg_type == "comm_open":
            if content.get("target_name") != CONTROL_TARGET:
                return False
            self._control_ids.add(comm_id)  # its messages may follow before the main thread has opened it
            return True
        manager = getattr(self._kernel, "comm_manager", None)
        target = getattr(manager and manager.comms.get(comm_id), "target_name", None)
        if target == WIDGET_TARGET:
            return msg_type == "comm_msg" and data.get("method") == "request_state"
        is_control = comm_id in self._control_ids or target == CONTROL_TARGET
        if msg_type == "comm_close":
            self._control_ids.discard(comm_id)
        return is_control

    def _restore(self, idents: list[bytes], msg: Message) -> None:
        manager, msg_type = self._kernel.comm_manager, msg["header"]["msg_type"]
        with self._busy_for(msg):
            if msg_type != "comm_msg":
                getattr(manager, msg_type)(self._kernel.shell_stream, idents, msg)
                return
            comm = manager.comms.get(msg["content"]["comm_id"])
            callback = getattr(comm, "_msg_callback", None)
            if callback is not None:
                callback(msg)

    # -- status

    @contextmanager
    def _busy_for(self, msg: Message) -> Iterator[None]:
        self._publish("busy", msg)
        try:
            yield
        finally:
            self._publish("idle", msg)
            with self._lock:
                if self._cell_parent is not None:
                    self._publish("busy", self._cell_parent)

    def _publish(self, state: str, parent: Message) -> None:
        try:
            self._kernel._publish_status(state, "shell", parent=parent)
        except Exception:  # a status that is not shown must not cost a click
            log.exception("the status %r could not be published", state)


@dataclass(eq=False, slots=True)
class _Stage:
    """What stands in the stream's callback. A stage that a wrapper still holds after its turn only passes on."""

    tap: ShellTap
    downstream: Callable[[list[Any]], Any]

    def __call__(self, frames: list[Any]) -> Any:
        if self.tap.is_current(self) and self.tap.take(frames):
            return None
        return self.downstream(frames)  # perhaps a coroutine, which the stream schedules


def _has(owner: Any, *names: str) -> bool:
    return owner is not None and all(getattr(owner, name, None) is not None for name in names)


def _finish(result: Any) -> None:
    """Run a kernel's handler to its end: a coroutine that never really waits, or a plain function's result."""
    if not inspect.iscoroutine(result):
        return
    try:
        result.send(None)
    except StopIteration:
        return
    result.close()
    raise TypeError(f"{result!r} waits for something, which only the kernel's own loop can do")
